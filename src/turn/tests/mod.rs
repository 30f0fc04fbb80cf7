//! One test per rule of RFC 8489 and RFC 8656 that a server implements, in one
//! file per topic. `docs/rfc-matrix.md` lists rule, section and test.
//!
//! Everything goes through the contract of [`Server`], in virtual time. The
//! [`Bench`] plays the shell: it opens relay sockets that do not exist, keeps
//! what the core asks for, and checks the invariants after every call.

mod allocate;
mod alternate;
mod binding;
mod budget;
mod challenge;
mod channel;
mod classic;
mod data;
mod discovery;
mod even_port;
mod expiry;
mod external;
mod families;
mod icmp;
mod login;
mod mobility;
mod oauth;
mod permission;
mod policy;
mod quota;
mod refresh;
mod retransmission;
mod tcp_relay;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use login::{Login, Style};
use wire::{Reply, Request, allocate};

use super::policy::{OwnAddresses, Policy};
use super::{
    AuthSettings, Client, ConnectionId, DefaultFamily, DropReason, Event, ExpiryCheck, Forward,
    HostAddress, Input, Lifetimes, Limits, Link, LookupName, MAX_REPLY, Output, PeerLink,
    PortRequest, RelayId, RelaySettings, RelayTransport, Route, Server, Settings, Shard,
    ShardMessage, Ticket, Verdict,
};
use crate::auth::{Algorithm, Directory, Key, Secret, StoredKeys, User, userhash};
use crate::net::{Family, FiveTuple, HashSeed, Now, PeerAddr, RelayedAddr, Transport};
use crate::stun::{Attribute, Class, Message, Method, channel_data::padding};

const REALM: &str = "example.org";
const SOFTWARE: &str = "sturn";
/// When every test begins, in seconds since the epoch.
const EPOCH: u64 = 1_700_000_000;
/// Peers that the policy of [`settings`] allows.
const PEER: &str = "198.51.100.7:7000";
const OTHER_PEER: &str = "198.51.100.8:8000";
const PEER_V6: &str = "[2001:db8:99::7]:7000";
const RELAY_V4: &str = "203.0.113.5";
const RELAY_V6: &str = "2001:db8:5::5";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Any instant: virtual time only moves on from here.
#[allow(clippy::disallowed_methods, reason = "there is no other way to have an Instant")]
fn start() -> Instant {
    Instant::now()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Client number `n`, over UDP.
fn client(n: u8) -> Client {
    client_on(Transport::Udp, n)
}

fn client_on(transport: Transport, n: u8) -> Client {
    let from = SocketAddr::from(([192, 0, 2, n], 5000));
    client_at(transport, from, u64::from(n))
}

fn client_at(transport: Transport, from: SocketAddr, link: u64) -> Client {
    let server = if from.is_ipv4() { "203.0.113.1:3478" } else { "[2001:db8:5::1]:3478" };
    Client { five_tuple: FiveTuple::new(transport, from, addr(server)), link: Link(link) }
}

/// The users of every test, and the secrets of some.
fn directory(secrets: &[&str]) -> Arc<Directory> {
    let users = [("alice", "wonderland"), ("bob", "builder")].map(|(name, password)| User {
        name: name.into(),
        keys: StoredKeys::from_password(name, REALM, password),
    });
    let secrets = secrets.iter().map(|secret| Secret::new(*secret)).collect();
    Arc::new(Directory::new(REALM, users.into(), secrets, ':', HashSeed::new(1)))
}

/// A server for both families with two users, before a test changes it.
fn settings() -> Settings {
    let both = [RELAY_V4, RELAY_V6].map(|ip| relay_address(ip, ip));
    let mut settings = Settings {
        auth: AuthSettings {
            directory: Some(directory(&[])),
            tokens: None,
            external: false,
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            nonce_secret: Box::from(&b"nonce secret"[..]),
            nonce_lifetime: secs(100 * 3600),
            expiry: ExpiryCheck::Allocate,
        },
        lifetimes: Lifetimes::default(),
        limits: Limits::default(),
        relay: RelaySettings {
            addresses: Vec::new(),
            ports: 49_152..=65_535,
            default_family: DefaultFamily::V4,
            tcp: false,
        },
        policy: Policy::new(&[], &[], &OwnAddresses::default(), 49_152..=65_535),
        discovery: None,
        alternates: None,
        mobility: None,
        rfc3489: false,
        rfc5766_channels: false,
        software: Some(SOFTWARE.into()),
    };
    relay_on(&mut settings, &both);
    settings
}

fn relay_address(local: &str, advertised: &str) -> HostAddress {
    HostAddress { local: local.parse().unwrap(), advertised: advertised.parse().unwrap() }
}

/// Sets the relay addresses, and the policy that goes with them: the
/// documentation networks of the peers are allowed.
fn relay_on(settings: &mut Settings, addresses: &[HostAddress]) {
    let allow = ["198.51.100.0/24", "2001:db8:99::/48"].map(|net| net.parse().unwrap());
    let own = OwnAddresses {
        relays: addresses.to_vec(),
        others: vec!["203.0.113.1".parse().unwrap()],
        listener_ports: vec![3478],
    };
    settings.relay.addresses = addresses.to_vec();
    settings.policy = Policy::new(&allow, &[], &own, settings.relay.ports.clone());
}

/// What became of a packet.
#[derive(Debug)]
enum Outcome {
    Reply(Reply),
    ReplyFrom { reply: Reply, server: SocketAddr, client: SocketAddr },
    Queued,
    HandOver(u16),
    Carried(Carried),
    Dropped(DropReason),
}

/// Data on its way, as it would be on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Carried {
    ToPeer { from: SocketAddr, peer: SocketAddr, data: Vec<u8>, dont_fragment: bool },
    ToClient { link: Link, client: SocketAddr, server: SocketAddr, bytes: Vec<u8> },
}

impl Carried {
    /// The bytes for a client.
    fn for_client(self) -> Vec<u8> {
        match self {
            Self::ToClient { bytes, .. } => bytes,
            Self::ToPeer { .. } => panic!("{self:?}"),
        }
    }

    /// Peer and data of a datagram to a peer.
    fn for_peer(self) -> (SocketAddr, Vec<u8>) {
        match self {
            Self::ToPeer { peer, data, .. } => (peer, data),
            Self::ToClient { .. } => panic!("{self:?}"),
        }
    }
}

/// What the shell has and what it was told.
#[derive(Default)]
struct Shell {
    addresses: Vec<HostAddress>,
    /// The lowest port of its range, which is even.
    first_port: u16,
    sockets: BTreeMap<RelayId, RelayedAddr>,
    /// Ports in use: of sockets, and set aside.
    used: BTreeSet<RelayedAddr>,
    /// Keep questions for relay sockets instead of answering at once.
    hold: bool,
    /// Families whose relay sockets cannot be opened: IPv4, IPv6.
    refuse: [bool; 2],
    asked: VecDeque<(RelayId, PortRequest)>,
    /// Every question for a relay socket so far.
    ports: Vec<PortRequest>,
    transports: BTreeMap<RelayId, RelayTransport>,
    /// Questions for connections to peers.
    connects: VecDeque<Connect>,
    cancelled: Vec<ConnectionId>,
    /// Open connections with peers, and the client's side of those that are spliced.
    peers: BTreeMap<PeerLink, (RelayId, Option<Link>)>,
    closed_peers: Vec<PeerLink>,
    sent: VecDeque<(Client, Reply)>,
    lookups: VecDeque<(Ticket, LookupName)>,
    closed: Vec<RelayId>,
    released: Vec<RelayedAddr>,
    routes: Vec<Route>,
    events: Vec<Event>,
    to_shards: VecDeque<(u16, ShardMessage)>,
}

/// A question for a connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connect {
    relay: RelayId,
    connection: ConnectionId,
    peer: SocketAddr,
    relays_only: bool,
}

impl Shell {
    /// Picks the lowest free port that fits, as a shell with a free list would.
    fn open(&mut self, family: Family, port: PortRequest) -> (RelayedAddr, Option<RelayedAddr>) {
        let local = self.addresses.iter().map(|a| a.local).find(|ip| Family::of(*ip) == family);
        let local = local.expect("only families that can be relayed are asked for");
        let at = |port| RelayedAddr::new(SocketAddr::new(local, port));
        let free = |port: &u16| !self.used.contains(&at(*port));
        let first = self.first_port;
        let picked = match port {
            PortRequest::Reserved(reserved) => {
                assert!(self.used.contains(&reserved), "set aside before");
                assert_eq!(reserved.family(), family, "asked for as what it is");
                return (reserved, None);
            }
            PortRequest::Any => (first + 1..).find(free),
            PortRequest::Even => (first..).step_by(2).find(free),
            PortRequest::EvenAndReserveNext => {
                (first..).step_by(2).find(|port| free(port) && free(&(port + 1)))
            }
        };
        let socket = at(picked.unwrap());
        let reserved = (port == PortRequest::EvenAndReserveNext).then(|| at(socket.port() + 1));
        self.used.insert(socket);
        self.used.extend(reserved);
        (socket, reserved)
    }

    fn close(&mut self, relay: RelayId) {
        let socket = self.sockets.remove(&relay).expect("closed once, and only when open");
        assert!(self.used.remove(&socket));
        assert!(self.connects.iter().all(|c| c.relay != relay), "each was cancelled before");
        assert!(self.peers.values().all(|(r, _)| *r != relay), "each was closed before");
        self.closed.push(relay);
    }

    fn release(&mut self, reserved: RelayedAddr) {
        assert!(self.used.remove(&reserved), "released once, and only when set aside");
        self.released.push(reserved);
    }

    fn cancel(&mut self, connection: ConnectionId) {
        let at = self.connects.iter().position(|c| c.connection == connection);
        self.connects.remove(at.expect("cancelled once, and only while it is being made"));
        self.cancelled.push(connection);
    }

    fn splice(&mut self, client: Link, peer: PeerLink) {
        let (to, response) = self.sent.back().expect("the response goes out before");
        assert!(to.link == client && response.is_success(), "{response:?}");
        let (_, side) = self.peers.get_mut(&peer).expect("only what is open is spliced");
        assert_eq!(side.replace(client), None, "and only once");
    }

    fn close_peer(&mut self, link: PeerLink) {
        assert!(self.peers.remove(&link).is_some(), "closed once, and only when open");
        self.closed_peers.push(link);
    }

    fn advertised(&self, local: RelayedAddr) -> SocketAddr {
        let address = self.addresses.iter().find(|a| a.local == local.ip()).unwrap();
        SocketAddr::new(address.advertised, local.port())
    }
}

/// A shard with its clock and its shell.
struct Bench {
    server: Server,
    now: Now,
    shell: Shell,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A server whose settings a test has changed.
    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::shard(Shard::ONLY, Arc::new(settings), start())
    }

    fn shard(shard: Shard, settings: Arc<Settings>, start: Instant) -> Self {
        let now = Now { mono: start, unix: secs(EPOCH) };
        let addresses = settings.relay.addresses.clone();
        let random = [shard.index as u8 + 1; 32];
        let server = Server::new(settings, shard, random, HashSeed::new(7), start);
        // Shards share an address, so each has ports of its own.
        let first_port = 49_152 + 1000 * shard.index;
        Self { server, now, shell: Shell { addresses, first_port, ..Shell::default() } }
    }

    // Packets.

    /// Hands a packet of a client to the core and does what it asks.
    fn deliver(&mut self, from: Client, packet: &[u8]) -> Outcome {
        let mut reply = vec![0xa5; MAX_REPLY];
        let drops = self.server.counters().total_drops();
        let verdict = self.server.on_client(self.now, from, packet, &mut reply);
        let outcome = self.outcome(verdict, packet, reply);
        let dropped = self.server.counters().total_drops() - drops;
        assert_eq!(dropped, u64::from(matches!(outcome, Outcome::Dropped(_))), "each drop counts");
        self.settle();
        outcome
    }

    /// The same for a packet that must be answered, now or after the shell's answers.
    fn ask(&mut self, from: Client, packet: &[u8]) -> Reply {
        let reply = match self.deliver(from, packet) {
            Outcome::Reply(reply) => reply,
            Outcome::Queued => {
                let (to, reply) = self.shell.sent.pop_front().expect("an answer was sent");
                assert_eq!(to, from, "to the asker");
                reply
            }
            other => panic!("no answer: {other:?}"),
        };
        assert_eq!(reply.bytes[4..20], packet[4..20], "of the same transaction");
        reply
    }

    /// The same for an answer that leaves from another address of the server, or
    /// goes to another port of the client: from where, and where to.
    fn ask_around(&mut self, from: Client, packet: &[u8]) -> (Reply, SocketAddr, SocketAddr) {
        match self.deliver(from, packet) {
            Outcome::ReplyFrom { reply, server, client } => {
                assert_eq!(reply.bytes[4..20], packet[4..20], "of the same transaction");
                (reply, server, client)
            }
            other => panic!("not another way: {other:?}"),
        }
    }

    /// The same for a packet that must not be answered, or even noticed.
    fn dropped(&mut self, from: Client, packet: &[u8]) -> DropReason {
        match self.deliver(from, packet) {
            Outcome::Dropped(reason) if self.shell.sent.is_empty() => reason,
            other => panic!("not dropped: {other:?}"),
        }
    }

    /// The same for data.
    fn carry(&mut self, from: Client, packet: &[u8]) -> Result<Carried, DropReason> {
        match self.deliver(from, packet) {
            Outcome::Carried(carried) => Ok(carried),
            Outcome::Dropped(reason) => Err(reason),
            other => panic!("not data: {other:?}"),
        }
    }

    /// A datagram from a peer to a relayed transport address, as advertised.
    fn peer_sends(
        &mut self,
        to: SocketAddr,
        peer: &str,
        data: &[u8],
    ) -> Result<Carried, DropReason> {
        let relay = self.relay_at(to).ok_or(DropReason::RelayGone)?;
        let peer = PeerAddr::new(addr(peer));
        let verdict = self.server.on_peer(self.now, relay, peer, data.len());
        let outcome = self.outcome(verdict, data, Vec::new());
        self.settle();
        match outcome {
            Outcome::Carried(carried) => Ok(carried),
            Outcome::Dropped(reason) => Err(reason),
            other => panic!("not data: {other:?}"),
        }
    }

    /// The relay socket behind an advertised address.
    fn relay_at(&self, advertised: SocketAddr) -> Option<RelayId> {
        let of = |local: &RelayedAddr| self.shell.advertised(*local) == advertised;
        self.shell.sockets.iter().find(|(_, local)| of(local)).map(|(relay, _)| *relay)
    }

    fn outcome(&self, verdict: Verdict, packet: &[u8], mut reply: Vec<u8>) -> Outcome {
        match verdict {
            Verdict::Reply { len } => {
                reply.truncate(len);
                Outcome::Reply(Reply { bytes: reply })
            }
            Verdict::ReplyFrom { len, server, client } => {
                reply.truncate(len);
                Outcome::ReplyFrom { reply: Reply { bytes: reply }, server, client }
            }
            Verdict::Queued => Outcome::Queued,
            Verdict::HandOver { shard } => Outcome::HandOver(shard),
            Verdict::Drop(reason) => Outcome::Dropped(reason),
            Verdict::Forward(forward) => Outcome::Carried(self.on_the_wire(&forward, packet)),
        }
    }

    fn on_the_wire(&self, forward: &Forward, packet: &[u8]) -> Carried {
        match forward {
            Forward::ToPeer { relay, peer, data, dont_fragment, .. } => Carried::ToPeer {
                from: self.shell.sockets[relay].socket(),
                peer: peer.socket(),
                data: packet[data.range()].to_vec(),
                dont_fragment: *dont_fragment,
            },
            Forward::ToClient { link, client, server, header, data, padding } => {
                let mut bytes = header.as_slice().to_vec();
                bytes.extend(&packet[data.range()]);
                bytes.extend(&[0; 3][..usize::from(*padding)]);
                Carried::ToClient { link: *link, client: client.socket(), server: *server, bytes }
            }
        }
    }

    // The other side of the contract.

    fn input(&mut self, input: Input) {
        self.server.handle_input(self.now, input);
        self.settle();
    }

    /// Takes every output, and answers questions for relay sockets unless told to hold.
    fn settle(&mut self) {
        self.server.check_invariants(self.now);
        while let Some(output) = self.server.poll_output() {
            self.take(output);
        }
        self.server.check_invariants(self.now);
        if !self.shell.hold {
            self.open_held();
        }
    }

    fn take(&mut self, output: Output) {
        let shell = &mut self.shell;
        match output {
            Output::Send { client, message } => {
                shell.sent.push_back((client, Reply { bytes: message.into() }));
            }
            Output::OpenRelay { relay, port, transport } => {
                shell.ports.push(port);
                shell.transports.insert(relay, transport);
                shell.asked.push_back((relay, port));
            }
            Output::CloseRelay { relay } => shell.close(relay),
            Output::ConnectPeer { relay, connection, peer, relays_only } => {
                assert!(shell.sockets.contains_key(&relay), "from a relayed address that is there");
                let peer = peer.socket();
                shell.connects.push_back(Connect { relay, connection, peer, relays_only });
            }
            Output::CancelConnect { connection } => shell.cancel(connection),
            Output::Splice { client, peer } => shell.splice(client, peer),
            Output::ClosePeer { link } => shell.close_peer(link),
            Output::ReleasePort { reserved } => shell.release(reserved),
            Output::LookupKey { ticket, name } => shell.lookups.push_back((ticket, name)),
            Output::Route(route) => shell.routes.push(route),
            Output::ToShard { shard, message } => shell.to_shards.push_back((shard, message)),
            Output::Event(event) => shell.events.push(event),
        }
    }

    /// Answers every question for a relay socket.
    fn open_held(&mut self) {
        while self.open_next() {}
    }

    /// Answers the oldest question for a relay socket; false when there is none.
    fn open_next(&mut self) -> bool {
        let Some((relay, port)) = self.shell.asked.pop_front() else { return false };
        if self.shell.refuse[usize::from(relay.family == Family::V6)] {
            if let PortRequest::Reserved(reserved) = port {
                self.shell.used.remove(&reserved);
            }
            self.input(Input::RelayFailed { relay });
            return true;
        }
        let (local, reserved) = self.shell.open(relay.family, port);
        self.shell.sockets.insert(relay, local);
        let advertised = self.shell.advertised(local);
        self.input(Input::RelayOpened { relay, local, advertised, reserved });
        true
    }

    // Time.

    /// Lets time pass the way a shell does: it wakes whenever the core wants to.
    fn advance(&mut self, by: Duration) {
        let end = self.now.after(by);
        while let Some(wake) = self.server.poll_timeout().filter(|wake| *wake <= end.mono) {
            // A timer beyond the wheel's horizon may lie before now; then it is now.
            let late = wake.saturating_duration_since(self.now.mono);
            self.now = self.now.after(late);
            self.server.handle_timeout(self.now);
            self.settle();
            let next = self.server.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now.mono), "no timer is due twice");
        }
        self.now = end;
        self.server.check_invariants(self.now);
    }

    /// Lets time pass while the shell is too busy to wake: nothing is cleaned up.
    fn skip(&mut self, by: Duration) {
        self.now = self.now.after(by);
        self.server.check_invariants(self.now);
    }

    // Clients.

    /// Learns realm and nonce as a client does: by being refused.
    fn login_from(&mut self, client: Client, name: &str, password: &str) -> Login {
        let challenge = self.ask(client, allocate().bytes());
        assert_eq!(challenge.code(), 401);
        let text = |attribute| challenge.get(attribute).expect("part of a challenge");
        Login {
            client,
            name: name.into(),
            password: password.into(),
            realm: String::from_utf8(text(Attribute::Realm)).unwrap(),
            nonce: text(Attribute::Nonce),
            offer: text(Attribute::PasswordAlgorithms),
            style: Style::Legacy,
        }
    }

    /// One of the two users, from a client number.
    fn login(&mut self, name: &str, n: u8) -> Login {
        self.login_from(client(n), name, password_of(name))
    }

    /// A signed request and its response, whose integrity is checked.
    fn request(&mut self, login: &Login, request: Request) -> Reply {
        let reply = self.ask(login.client, login.sign(request).bytes());
        assert!(login.proves(&reply), "an authenticated answer is protected: {reply:?}");
        let software = reply.get(Attribute::Software);
        assert_eq!(software.as_deref(), Some(SOFTWARE.as_bytes()));
        for secret in [Attribute::Username, Attribute::Userhash] {
            assert!(!reply.has(secret), "names are not repeated");
        }
        reply
    }

    /// The same for a request that must succeed.
    fn grant(&mut self, login: &Login, request: Request) -> Reply {
        let reply = self.request(login, request);
        assert!(reply.is_success(), "refused with {}", reply.code());
        reply
    }

    /// The same for a request that must be refused: the code.
    fn refuse(&mut self, login: &Login, request: Request) -> u16 {
        let reply = self.request(login, request);
        assert!(!reply.is_success(), "granted");
        assert!(!reply.has(Attribute::Nonce) && !reply.has(Attribute::Realm), "no challenge");
        reply.code()
    }

    /// A client with an allocation, and its relayed transport address.
    fn allocated(&mut self, name: &str, n: u8) -> (Login, SocketAddr) {
        let login = self.login(name, n);
        let reply = self.grant(&login, allocate());
        (login, reply.relayed()[0])
    }

    /// The same over another transport.
    fn allocated_on(&mut self, transport: Transport, n: u8) -> (Login, SocketAddr) {
        let login = self.login_from(client_on(transport, n), "alice", password_of("alice"));
        let reply = self.grant(&login, allocate());
        (login, reply.relayed()[0])
    }

    /// Nothing is left: no allocation, no socket, no port, no timer that matters.
    fn assert_idle(&self) {
        assert_eq!(self.server.allocations(), 0);
        assert!(self.shell.sockets.is_empty(), "{:?}", self.shell.sockets);
        assert!(self.shell.used.is_empty(), "{:?}", self.shell.used);
        assert!(self.shell.connects.is_empty(), "{:?}", self.shell.connects);
        assert!(self.shell.peers.is_empty(), "{:?}", self.shell.peers);
    }
}

fn password_of(name: &str) -> &'static str {
    match name {
        "alice" => "wonderland",
        "bob" => "builder",
        other => panic!("no such user: {other}"),
    }
}

/// A Data indication, taken apart: the peer and the data.
fn data_indication(bytes: &[u8]) -> (SocketAddr, Vec<u8>) {
    let message = Message::parse(bytes).expect("a Data indication parses");
    assert_eq!((message.method(), message.class()), (Method::DATA, Class::Indication));
    assert!(!message.has(Attribute::MessageIntegrity), "indications are not protected");
    let reply = Reply { bytes: bytes.to_vec() };
    let data = reply.get(Attribute::Data).expect("DATA is there");
    assert_eq!(bytes.len() % 4, 0);
    assert!(bytes[bytes.len() - padding(data.len())..].iter().all(|b| *b == 0));
    (reply.address(Attribute::XorPeerAddress), data)
}
