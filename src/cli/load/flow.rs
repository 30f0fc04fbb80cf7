//! One client: its way to the server, its state machine, and how far it has come.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::identity::Identity;
use super::link::Link;
use super::outbox::Path;
use super::trouble::Trouble;
use crate::client::{Client, Config, Retransmission, Transaction};
use crate::net::Transport;

/// How long a connection and its handshake may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Five transmissions within 3.8 s.
const RETRANSMISSION: Retransmission =
    Retransmission { rto: Duration::from_millis(200), rc: 5, rm: 4, ti: PATIENCE };

/// How far a client has come. It goes down the list; a storm then begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not begun.
    Idle,
    /// It connects or shakes hands.
    Connecting,
    /// It has asked for an allocation.
    Allocating,
    /// It has one.
    Allocated,
    /// It has asked for a permission or a channel.
    Opening,
    /// It is loaded.
    Ready,
    /// It has given back its allocation and waits for the answer.
    Leaving,
    /// It has nothing of the server's.
    Gone,
}

/// A client.
pub(super) struct Flow {
    pub(super) state: State,
    /// Its way; `None` before it begins and after it has ended.
    pub(super) link: Option<Link>,
    pub(super) client: Client,
    /// The request whose answer leads to the next state.
    pub(super) asked: Option<Transaction>,
    pub(super) relayed: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    /// When it began.
    pub(super) since: Instant,
    /// Whether it began while the measurement ran.
    pub(super) measured: bool,
    /// Whether the socket's room to write is waited for.
    pub(super) awaits_room: bool,
    pub(super) path: Path,
    /// How often it has begun.
    pub(super) rounds: usize,
}

impl Flow {
    pub(super) fn new(path: Path, client: Client) -> Self {
        Self {
            state: State::Idle,
            link: None,
            client,
            asked: None,
            relayed: None,
            peer: None,
            since: Instant::now(),
            measured: false,
            awaits_room: false,
            path,
            rounds: 0,
        }
    }

    /// Whether it has asked for something and is not where it is to be.
    pub(super) fn is_on_its_way(&self) -> bool {
        use State::{Allocated, Allocating, Connecting, Leaving, Opening};
        matches!(self.state, Connecting | Allocating | Allocated | Opening | Leaving)
    }

    /// Whether the server may have an allocation of it.
    pub(super) fn may_be_allocated(&self) -> bool {
        use State::{Allocated, Allocating, Leaving, Opening, Ready};
        matches!(self.state, Allocating | Allocated | Opening | Leaving)
            || (self.state == Ready && self.relayed.is_some())
    }
}

/// The state machine of a client.
pub(super) fn client(
    transport: Transport,
    identity: &Identity,
    keep_alive: bool,
) -> Result<Client, Trouble> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|why| Trouble::System {
        what: "random numbers",
        why: std::io::Error::other(why),
    })?;
    let mut config = Config::new(transport, &identity.username, &identity.password, seed);
    // Servers sign few of their errors, and an error is what a person has to hear of.
    config.accept_unsigned_errors = true;
    config.keep_alive = keep_alive;
    config.retransmission = RETRANSMISSION;
    config.software = Some(concat!("sturn load ", env!("CARGO_PKG_VERSION")).to_owned());
    Ok(Client::new(config))
}
