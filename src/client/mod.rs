//! The client's side of STUN (RFC 8489) and TURN (RFC 8656), as a state machine
//! without sockets: bytes and time go in, bytes and events come out.
//!
//! It speaks through the crate `stun-rs` and shares no codec with the server, so
//! that every run of one against the other checks both.
//!
//! # Contract
//!
//! 1. Start transactions ([`Client::binding`], [`Client::allocate`], ...), queue
//!    data ([`Client::send`]), hand in what arrived ([`Client::handle_receive`])
//!    and report that time has passed ([`Client::handle_timeout`]).
//! 2. After each of these, drain [`Client::poll_transmit`] (on a stream in order,
//!    without gaps) and [`Client::poll_event`], then wait until
//!    [`Client::poll_timeout`] or the next input.
//!
//! Every transaction ends in exactly one event that carries its [`Transaction`],
//! whatever happens in between: a 401 is answered with credentials and a 438 with
//! the new nonce under the same [`Transaction`].
//!
//! # Limits
//!
//! Those of `stun-rs` 0.1.11: a whole message is refused for one malformed
//! optional attribute, and STUN without magic cookie (RFC 3489) is not spoken.
//! Attributes it does not know travel as type and value ([`Attribute::Raw`],
//! [`Event::Answered`]).

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod challenge;
mod codec;
mod event;
mod exchange;
mod framing;
mod peers;
mod request;
mod response;
mod uri;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun_rs::attributes::turn::{Data, DontFragment, XorPeerAddress};
use stun_rs::{MessageClass, methods};

use crate::net::{Family, Now, Transport};
use challenge::Challenge;
use codec::WireId;
use exchange::{Exchange, Intent};
use framing::Deframer;
use peers::Peers;
use request::Request;

pub use event::{Allocated, Event, Failure, Problem, RawAttribute};
pub use exchange::Retransmission;
pub use request::{Allocate, Attribute};
pub use uri::{Host, Protocol, Scheme, Uri, UriError};

/// The lifetime of a permission is 300 s (RFC 8656 section 9); a minute is left
/// for retransmissions.
const PERMISSION_REFRESH: Duration = Duration::from_secs(240);
/// The lifetime of a channel binding is 600 s (RFC 8656 section 12).
const CHANNEL_REFRESH: Duration = Duration::from_secs(540);
/// XOR-PEER-ADDRESS attributes in one refresh, so that it fits an unfragmented
/// datagram also with IPv6 peers.
const PEERS_PER_REFRESH: usize = 32;
/// The largest payload of a datagram over IPv4, less what a Send indication adds at
/// most: header, XOR-PEER-ADDRESS, DONT-FRAGMENT and the header of DATA.
const MAX_DATA: usize = 65_507 - 20 - 24 - 4 - 4;

/// How a client authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// A client of RFC 5389: USERNAME, MD5 and MESSAGE-INTEGRITY, whatever the
    /// server offers.
    Legacy,
    /// RFC 8489 section 9.2: password algorithms, user hash and
    /// MESSAGE-INTEGRITY-SHA256 where the server offers them.
    Full,
}

/// What a client is born with.
#[derive(Clone)]
pub struct Config {
    /// Long-term credential: user name.
    pub username: String,
    /// Long-term credential: password.
    pub password: String,
    /// How the server is reached: decides framing, padding and retransmission.
    pub transport: Transport,
    /// Source of all transaction ids. Two clients need two seeds.
    pub seed: [u8; 32],
    /// SOFTWARE of requests.
    pub software: Option<String>,
    /// How to authenticate.
    pub security: Security,
    /// Whether an error response to a signed request counts though it is not signed.
    /// RFC 8489 section 9.2.5 wants it discarded, which on a server that does not
    /// sign all its errors turns each of those into a timeout.
    pub accept_unsigned_errors: bool,
    /// Whether allocation, permissions and channels are refreshed without being
    /// asked for. The answers come as events like any other.
    pub keep_alive: bool,
    /// Retransmission timers.
    pub retransmission: Retransmission,
}

impl Config {
    /// A strict client of RFC 8489 with the standard timers, no SOFTWARE and no
    /// keep-alive.
    pub fn new(transport: Transport, username: &str, password: &str, seed: [u8; 32]) -> Self {
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
            transport,
            seed,
            software: None,
            security: Security::Full,
            accept_unsigned_errors: false,
            keep_alive: false,
            retransmission: Retransmission::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("username", &self.username)
            .field("password", &"MASKED")
            .field("transport", &self.transport)
            .field("seed", &"MASKED")
            .field("software", &self.software)
            .field("security", &self.security)
            .field("accept_unsigned_errors", &self.accept_unsigned_errors)
            .field("keep_alive", &self.keep_alive)
            .field("retransmission", &self.retransmission)
            .finish()
    }
}

/// Names what the caller asked for. It outlives the retries after 401 and 438,
/// each of which is a transaction of its own on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transaction(u64);

/// One client: one five-tuple towards one server, at most one allocation.
#[derive(Debug)]
pub struct Client {
    config: Config,
    ids: codec::WireIds,
    next_transaction: u64,
    challenge: Option<Challenge>,
    exchanges: BTreeMap<WireId, Exchange>,
    peers: Peers,
    refresh: RefreshTimers,
    stream: Deframer,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

/// When the next refreshes are due; all `None` without `keep_alive`.
#[derive(Debug, Default)]
struct RefreshTimers {
    allocation: Option<Instant>,
    permissions: Option<Instant>,
    channels: Option<Instant>,
}

impl Client {
    /// A client that has sent nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            ids: codec::WireIds::new(&config.seed),
            config,
            next_transaction: 0,
            challenge: None,
            exchanges: BTreeMap::new(),
            peers: Peers::default(),
            refresh: RefreshTimers::default(),
            stream: Deframer::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Asks for the server-reflexive transport address (RFC 8489 section 3).
    /// Ends in [`Event::Bound`].
    pub fn binding(&mut self, now: Now) -> Transaction {
        self.start(now, Request::Binding)
    }

    /// Asks for an allocation (RFC 8656 section 7.1). Ends in [`Event::Allocated`].
    pub fn allocate(&mut self, now: Now, allocate: Allocate) -> Transaction {
        self.start(now, Request::Allocate(allocate))
    }

    /// Refreshes the allocation, or ends it with a lifetime of zero (RFC 8656
    /// section 8.1). `family` names one of the two relayed transport addresses of
    /// a dual allocation. Ends in [`Event::Refreshed`].
    pub fn refresh(
        &mut self,
        now: Now,
        lifetime: Option<Duration>,
        family: Option<Family>,
    ) -> Transaction {
        self.start(now, Request::Refresh { lifetime, family })
    }

    /// Creates or refreshes permissions (RFC 8656 section 10.1); servers look at
    /// the IP addresses only. Ends in [`Event::PermissionCreated`].
    pub fn create_permission(&mut self, now: Now, peers: &[SocketAddr]) -> Transaction {
        self.start(now, Request::CreatePermission { peers: peers.to_vec() })
    }

    /// Binds a channel to a peer (RFC 8656 section 12.1): the one named, or else
    /// the one the peer has, or else the lowest free one. Ends in
    /// [`Event::ChannelBound`].
    pub fn channel_bind(
        &mut self,
        now: Now,
        channel: Option<u16>,
        peer: SocketAddr,
    ) -> Transaction {
        let channel = channel.unwrap_or_else(|| self.peers.channel_for(peer));
        // Data on the channel may overtake the answer that confirms it.
        self.peers.expect(channel, peer);
        self.start(now, Request::ChannelBind { channel, peer })
    }

    /// Sends a request made of any attributes, with credentials once the server has
    /// asked for them (never on Binding, unless challenged). `method` has 12 bits.
    /// Ends in [`Event::Answered`].
    pub fn request_raw(
        &mut self,
        now: Now,
        method: u16,
        attributes: Vec<Attribute>,
    ) -> Transaction {
        self.start(now, Request::Raw { method, attributes })
    }

    /// Sends data to a peer: as ChannelData where a channel is bound, else in a Send
    /// indication (RFC 8656 sections 11.1 and 12.4). DONT-FRAGMENT needs the latter.
    /// Data that fits no datagram is refused with [`Event::Invalid`].
    pub fn send(&mut self, peer: SocketAddr, data: &[u8], dont_fragment: bool) {
        if data.len() > MAX_DATA {
            self.events.push_back(Event::Invalid { why: Problem::TooLong(data.len()) });
            return;
        }
        match self.peers.bound_channel(peer) {
            Some(channel) if !dont_fragment => {
                let frame = framing::channel_data(channel, data, self.config.transport.is_stream());
                self.transmits.push_back(frame);
            }
            _ => self.send_indication(peer, data, dont_fragment),
        }
    }

    /// Takes what the server sent: one datagram, or any piece of a stream.
    pub fn handle_receive(&mut self, now: Now, bytes: &[u8]) {
        if !self.config.transport.is_stream() {
            self.handle_frame(now, bytes);
            return;
        }
        self.stream.push(bytes);
        loop {
            match self.stream.next_frame() {
                Ok(Some(frame)) => self.handle_frame(now, &frame),
                Ok(None) => break,
                Err(why) => {
                    self.events.push_back(Event::Invalid { why });
                    break;
                }
            }
        }
    }

    /// Retransmits, gives up and refreshes whatever is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.handle_retransmissions(now);
        self.handle_refreshes(now);
    }

    /// The next bytes for the server: one datagram, or a piece of the stream.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Client::handle_timeout`] is wanted next. Linear in the number of
    /// transactions in flight, which are few.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let RefreshTimers { allocation, permissions, channels } = self.refresh;
        self.exchanges
            .values()
            .map(Exchange::due)
            .chain([allocation, permissions, channels].into_iter().flatten())
            .min()
    }

    /// Replaces the nonce of the next requests, so that a test can send a wrong one.
    /// Returns false while the server has not challenged yet, or if the text is no nonce.
    pub fn replace_nonce(&mut self, nonce: &str) -> bool {
        self.challenge.as_mut().is_some_and(|challenge| challenge.replace_nonce(nonce))
    }

    /// The REALM and NONCE in use, once the server has challenged.
    pub fn challenge(&self) -> Option<(&str, &str)> {
        self.challenge.as_ref().map(|challenge| (challenge.realm(), challenge.nonce()))
    }
}

/// Requests: from what was asked to bytes on the wire.
impl Client {
    fn start(&mut self, now: Now, request: Request) -> Transaction {
        let transaction = Transaction(self.next_transaction);
        self.next_transaction += 1;
        self.transmit(now, Intent::new(transaction, request));
        transaction
    }

    /// Sends a request as a new transaction on the wire.
    fn transmit(&mut self, now: Now, intent: Intent) {
        let challenge = self.challenge.as_ref().filter(|_| intent.wants_credentials());
        let id = self.ids.next_id();
        let software = self.config.software.as_deref();
        let bytes = match codec::encode_request(&intent.request, id, software, challenge) {
            Ok(bytes) => bytes,
            Err(why) => return self.give_up(&intent, why),
        };
        let exchange = Exchange::new(
            now,
            intent,
            challenge.map(Challenge::signature),
            bytes.clone(),
            self.config.transport,
            &self.config.retransmission,
        );
        self.exchanges.insert(id, exchange);
        self.transmits.push_back(bytes);
    }

    /// Ends a transaction that cannot end in an answer.
    fn give_up(&mut self, intent: &Intent, why: Problem) {
        self.forget_unconfirmed(&intent.request);
        self.events.push_back(Event::Unusable { transaction: intent.transaction, why });
    }

    fn forget_unconfirmed(&mut self, request: &Request) {
        if let Request::ChannelBind { channel, .. } = request {
            self.peers.unexpect(*channel);
        }
    }

    fn send_indication(&mut self, peer: SocketAddr, data: &[u8], dont_fragment: bool) {
        let mut attributes: Vec<Attribute> = vec![XorPeerAddress::from(peer).into()];
        if dont_fragment {
            attributes.push(DontFragment::default().into());
        }
        attributes.push(Data::new(data).into());
        let id = self.ids.next_id();
        match codec::encode(MessageClass::Indication, methods::SEND, id, &attributes, None, false) {
            Ok(bytes) => self.transmits.push_back(bytes),
            Err(why) => self.events.push_back(Event::Invalid { why }),
        }
    }
}

/// Timers.
impl Client {
    fn handle_retransmissions(&mut self, now: Now) {
        let due: Vec<WireId> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.due() <= now.mono)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(exchange) = self.exchanges.get_mut(&id) else { continue };
            if let Some(bytes) = exchange.retransmit(&self.config.retransmission) {
                self.transmits.push_back(bytes);
            } else if let Some(exchange) = self.exchanges.remove(&id) {
                self.forget_unconfirmed(&exchange.intent.request);
                self.events.push_back(Event::TimedOut { transaction: exchange.intent.transaction });
            }
        }
    }

    fn handle_refreshes(&mut self, now: Now) {
        let is_due = |timer: Option<Instant>| timer.is_some_and(|at| at <= now.mono);
        if is_due(self.refresh.allocation) {
            self.refresh.allocation = None; // armed again by the answer
            self.refresh(now, None, None);
        }
        if is_due(self.refresh.permissions) {
            self.refresh.permissions = Some(now.mono + PERMISSION_REFRESH);
            for peers in self.peers.permitted().chunks(PEERS_PER_REFRESH) {
                self.create_permission(now, peers);
            }
        }
        if is_due(self.refresh.channels) {
            self.refresh.channels = Some(now.mono + CHANNEL_REFRESH);
            for (channel, peer) in self.peers.bound() {
                self.channel_bind(now, Some(channel), peer);
            }
        }
    }
}
