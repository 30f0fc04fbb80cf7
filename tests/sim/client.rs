//! One simulated client host: the real client, its connection, and what is on the
//! way in the two directions of a stream.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use sturn::client::{Client, Config, Event, Security};
use sturn::net::{FiveTuple, Transport};
use sturn::turn::{self, Link, PeerLink};

use crate::model::Via;
use crate::rng::Rng;
use crate::setup::{Credential, LISTENER_PORT, Worth};

/// A connection that is to be bound to one with a peer (RFC 6062 section 4.3).
#[derive(Default)]
pub struct DataConnection {
    /// The CONNECTION-ID it is for.
    pub id: Option<u32>,
    /// What the client has sent behind its ConnectionBind, for the peer.
    pub sent: Vec<u8>,
    /// The peer's side, once bytes pass, and what has come there.
    pub peer: Option<PeerLink>,
    pub arrived: Vec<u8>,
}

pub struct Host {
    pub client: Client,
    security: Security,
    /// How the server knows it at the moment.
    pub identity: turn::Client,
    pub credential: Credential,
    /// Its password is wrong, always.
    pub liar: bool,
    /// Bytes on the way to the server, and received by it but not framed yet.
    pub up: VecDeque<u8>,
    pub received: Vec<u8>,
    /// Bytes on the way to the client.
    pub down: VecDeque<u8>,
    /// Everything that peers may be seen to have sent.
    pub expected: BTreeSet<(Via, Vec<u8>)>,
    /// What Allocate requests were granted.
    pub granted: BTreeSet<SocketAddr>,
    pub last_token: Option<[u8; 8]>,
    /// The tickets it was given for the allocation it has, newest last (RFC 8016).
    pub tickets: Vec<Vec<u8>>,
    /// Connections with peers that wait for its ConnectionBind (RFC 6062).
    pub waiting: Vec<u32>,
    /// What it does when it is the data connection of another host.
    pub data: DataConnection,
    /// What the client has reported, from when somebody is interested.
    pub told: Vec<Event>,
}

impl Host {
    pub fn new(rng: &mut Rng, credential: Credential, identity: turn::Client) -> Self {
        let security = any_security(rng);
        Self {
            client: fresh_client(rng, &credential, identity.five_tuple.transport, security),
            security,
            identity,
            liar: credential.worth == Worth::Bad,
            credential,
            up: VecDeque::new(),
            received: Vec::new(),
            down: VecDeque::new(),
            expected: BTreeSet::new(),
            granted: BTreeSet::new(),
            last_token: None,
            tickets: Vec::new(),
            waiting: Vec::new(),
            data: DataConnection::default(),
            told: Vec::new(),
        }
    }

    /// The client starts anew and has forgotten everything.
    pub fn restart(&mut self, rng: &mut Rng, credential: Credential, identity: turn::Client) {
        if identity.five_tuple != self.identity.five_tuple {
            self.expected.clear();
            self.granted.clear();
        }
        let transport = identity.five_tuple.transport;
        self.security = any_security(rng);
        self.client = fresh_client(rng, &credential, transport, self.security);
        self.credential = credential;
        self.identity = identity;
        self.up.clear();
        self.received.clear();
        self.down.clear();
        self.tickets.clear();
        self.waiting.clear();
        self.data = DataConnection::default();
    }

    /// The client has another address, and still the ticket of its allocation. All
    /// else it has forgotten, so that no transaction goes on at the new address; it
    /// signs as before, since an owner who has to be looked up is known by its key.
    pub fn roam(&mut self, rng: &mut Rng, identity: turn::Client) {
        let (tickets, security) = (std::mem::take(&mut self.tickets), self.security);
        self.restart(rng, self.credential.clone(), identity);
        self.tickets = tickets;
        self.security = security;
        let transport = identity.five_tuple.transport;
        self.client = fresh_client(rng, &self.credential, transport, security);
    }

    pub fn is_stream(&self) -> bool {
        self.identity.five_tuple.transport.is_stream()
    }
}

fn any_security(rng: &mut Rng) -> Security {
    rng.pick(&[Security::Full, Security::Legacy])
}

fn fresh_client(
    rng: &mut Rng,
    credential: &Credential,
    transport: Transport,
    security: Security,
) -> Client {
    let mut config =
        Config::new(transport, &credential.name, &credential.password, rng.bytes::<32>());
    config.security = security;
    config.keep_alive = rng.permille(400);
    config.software = rng.permille(200).then(|| "a client".to_owned());
    Client::new(config)
}

/// The five-tuple and link of a client host, by its number and the number of
/// its connection.
pub fn identity(number: usize, connection: u64, v6: bool, transport: Transport) -> turn::Client {
    let port = 20_000 + connection as u16;
    let (client, server): (SocketAddr, SocketAddr) = if v6 {
        (
            format!("[2606:4700:2::{number:x}]:{port}").parse().unwrap(),
            format!("[2606:4700:1::5]:{LISTENER_PORT}").parse().unwrap(),
        )
    } else {
        (
            format!("7.7.{number}.1:{port}").parse().unwrap(),
            format!("10.0.0.5:{LISTENER_PORT}").parse().unwrap(),
        )
    };
    // Datagrams share a socket, connections do not.
    let link = if transport.is_stream() { connection + 1000 } else { 0 };
    turn::Client { five_tuple: FiveTuple::new(transport, client, server), link: Link(link) }
}
