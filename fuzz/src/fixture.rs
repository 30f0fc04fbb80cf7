//! Two shards of one server, with clients that can sign and have tokens.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use stun_rs::MessageDecoderBuilder;
use sturn::auth::{
    Algorithm, Directory, Key, Secret, StoredKeys, TokenAlgorithm, TokenKey, Tokens, User,
};
use sturn::net::{FiveTuple, HashSeed, Now, PeerAddr, Transport};
use sturn::stun::{Attribute, Class, Message, Method};
use sturn::turn::policy::{OwnAddresses, Policy};
use sturn::turn::{
    Alternates, AuthSettings, Client, ConnectionId, DefaultFamily, Discovery, ExpiryCheck, Forward,
    HostAddress, Input, Lifetimes, Limits, Link, LookupName, MAX_REPLY, Output, PeerLink,
    PortRequest, Redirect, RelayId, RelaySettings, RelayTransport, Server, Settings, Shard,
    ShardMessage, Ticket, Verdict,
};

use crate::ports::Ports;
use crate::wire::{self, Builder};

pub const USER: &str = "alice";
pub const OUTSIDER: &str = "outsider";
pub const PASSWORD: &str = "wonderland";
pub const REALM: &str = "fuzz.example";

/// What a core asked for and has not been answered.
#[derive(Debug)]
pub enum Question {
    Open(u16, RelayId, PortRequest),
    Key(u16, Ticket, LookupName),
    Connect(u16, RelayId, ConnectionId),
    Mail { from: u16, to: u16, message: ShardMessage },
}

/// A connection with a peer that is open.
#[derive(Debug)]
pub struct Peer {
    pub shard: u16,
    pub link: PeerLink,
    relay: RelayId,
    /// The client's side, once it is spliced.
    client: Option<Link>,
}

/// The server and what is needed to talk to it.
pub struct Fixture {
    pub shards: Vec<Server>,
    pub now: Now,
    pub ports: Ports,
    pub questions: VecDeque<Question>,
    pub peers: Vec<Peer>,
    opened: u64,
    /// The last CONNECTION-ID that was given out.
    pub connection: u32,
    /// The nonce that each of the clients was given.
    nonces: [Vec<u8>; CLIENTS],
    requests: u64,
    /// The last RESERVATION-TOKEN that was given out.
    pub token: Option<[u8; 8]>,
    /// Something was granted or is under way: the state is no longer the first one.
    pub changed: bool,
    /// The MOBILITY-TICKETs that were given out, the newest last.
    pub tickets: VecDeque<Vec<u8>>,
    /// How often each client has lost its connection: every one has a link of its own.
    lost: [u64; CLIENTS],
    /// The last message that was not an immediate answer.
    pub sent: Option<Box<[u8]>>,
}

pub const CLIENTS: usize = 6;

const START_UNIX: u64 = 1_700_000_000;
const TOKEN_SERVER: &str = "turn.fuzz.example";
const SHARED_KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// The addresses that clients ask, each with its alternate.
const DISCOVERY: [&str; 4] = ["8.8.4.4", "8.8.4.5", "2606:4700:1::5", "2606:4700:1::6"];

/// Tickets that clients remember.
const TICKETS: usize = 8;

/// UDP and TCP over IPv4, UDP over IPv6, another of UDP, and two more of TCP.
fn first_client(index: usize) -> Client {
    let (transport, address) = match index % CLIENTS {
        0 => (Transport::Udp, "7.7.7.1:20000"),
        1 => (Transport::Tcp, "7.7.7.2:20000"),
        2 => (Transport::Udp, "[2606:4700:2::1]:20000"),
        3 => (Transport::Udp, "7.7.7.3:20000"),
        4 => (Transport::Tcp, "7.7.7.2:20001"),
        _ => (Transport::Tcp, "7.7.7.2:20002"),
    };
    let server = if index % CLIENTS == 2 { "[2606:4700:1::5]:3478" } else { "8.8.4.4:3478" };
    let parse = |text: &str| text.parse().expect("the addresses above parse");
    let five_tuple = FiveTuple::new(transport, parse(address), parse(server));
    Client { five_tuple, link: Link(index as u64 % CLIENTS as u64) }
}

/// Half of the clients reach each shard.
pub fn shard_of(index: usize) -> usize {
    match index % CLIENTS {
        0 | 1 | 4 => 0,
        _ => 1,
    }
}

impl Fixture {
    pub fn new() -> Self {
        let start = start();
        let shards = (0..2)
            .map(|index| {
                let shard = Shard { index, count: 2 };
                Server::new(settings(), shard, [index as u8; 32], seed(), start)
            })
            .collect();
        let mut fixture = Self {
            shards,
            now: Now { mono: start, unix: Duration::from_secs(START_UNIX) },
            ports: Ports::default(),
            questions: VecDeque::new(),
            peers: Vec::new(),
            opened: 0,
            connection: 0,
            nonces: Default::default(),
            requests: 0,
            token: None,
            tickets: VecDeque::new(),
            lost: [0; CLIENTS],
            sent: None,
            changed: false,
        };
        for index in 0..CLIENTS {
            let request = Builder::new(wire::ALLOCATE, [9; 12]).build();
            let reply = fixture.from_client(index, &request).expect("a stranger gets a nonce");
            let reply = Message::parse(&reply).expect("the server writes whole messages");
            fixture.nonces[index] = reply.get(Attribute::Nonce).expect("401 has a nonce").to_vec();
        }
        fixture
    }

    /// Clients 0 and 3 have allocations, with a permission and a channel each: the
    /// one's for a peer, the other's for the relayed address of the first.
    pub fn with_allocations() -> Self {
        let mut fixture = Self::new();
        for index in [0, 1, 3] {
            let udp = (wire::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]);
            fixture.granted(index, wire::ALLOCATE, &[udp]);
            let first = fixture.ports.sockets()[0].2;
            let peer: SocketAddr = if index == 3 { first } else { ([9, 9, 9, 1], 1000).into() };
            let SocketAddr::V4(peer) = peer else { unreachable!("both are IPv4") };
            let peer =
                (wire::XOR_PEER_ADDRESS, wire::xor_v4(peer.ip().octets(), peer.port()).to_vec());
            fixture.granted(index, wire::CREATE_PERMISSION, std::slice::from_ref(&peer));
            let number = (wire::CHANNEL_NUMBER, vec![0x40, 0x01, 0, 0]);
            fixture.granted(index, wire::CHANNEL_BIND, &[number, peer]);
        }
        assert!(fixture.changed, "the requests above are granted");
        assert_eq!(fixture.allocations(), 3);
        fixture.changed = false;
        fixture
    }

    /// Calls `run` with a server that has allocations: the one of the last call,
    /// unless that has changed anything.
    pub fn reused(run: impl FnOnce(&mut Self)) {
        thread_local! {
            static LAST: RefCell<Option<Fixture>> = const { RefCell::new(None) };
        }
        LAST.with_borrow_mut(|last| {
            let mut fixture = last.take().unwrap_or_else(Self::with_allocations);
            run(&mut fixture);
            if fixture.changed {
                return fixture.finish();
            }
            assert_eq!(fixture.allocations(), 3, "nothing was granted, nothing has changed");
            *last = Some(fixture);
        });
    }

    pub fn allocations(&self) -> usize {
        self.shards.iter().map(Server::allocations).sum()
    }

    /// A good request, as far as its attributes are; everything it needs from outside is answered at once.
    pub fn granted(&mut self, index: usize, method: u16, attributes: &[(u16, Vec<u8>)]) {
        let id = self.transaction();
        let mut builder = Builder::new(method, id);
        for (kind, value) in attributes {
            builder = builder.put(*kind, value);
        }
        let request = self.sign(index, builder).build();
        self.from_client(index, &request);
        while let Some(question) = self.questions.pop_front() {
            self.answer(question, true);
        }
    }

    pub fn transaction(&mut self) -> [u8; 12] {
        self.requests += 1;
        let mut id = [7; 12];
        id[..8].copy_from_slice(&self.requests.to_be_bytes());
        id
    }

    pub fn nonce(&self, index: usize) -> &[u8] {
        &self.nonces[index % CLIENTS]
    }

    /// Adds the credentials of the stored user.
    pub fn sign(&self, index: usize, builder: Builder) -> Builder {
        builder
            .put(wire::USERNAME, USER.as_bytes())
            .put(wire::REALM, REALM.as_bytes())
            .put(wire::NONCE, self.nonce(index))
            .sign_sha1(key(USER, Algorithm::Md5).bytes())
    }

    /// A packet of a client; returns the immediate answer.
    pub fn from_client(&mut self, index: usize, packet: &[u8]) -> Option<Vec<u8>> {
        // What a spliced client sends is the peer's.
        let link = self.client(index).link;
        let spliced = self.peers.iter().any(|peer| peer.client == Some(link));
        if spliced { None } else { self.deliver(shard_of(index), index, packet) }
    }

    /// A client as the server knows it now.
    pub fn client(&self, index: usize) -> Client {
        let Client { five_tuple, link: Link(first) } = first_client(index);
        Client { five_tuple, link: Link(first + CLIENTS as u64 * self.lost[index % CLIENTS]) }
    }

    /// A client's connection ends; the next thing it sends comes over another one.
    pub fn close_link(&mut self, index: usize) {
        let Client { five_tuple, link } = self.client(index);
        self.lost[index % CLIENTS] += 1;
        match self.peers.iter().position(|peer| peer.client == Some(link)) {
            Some(at) => self.peer_closes(at),
            None => {
                let input = Input::LinkClosed { five_tuple, link };
                self.input(shard_of(index) as u16, input);
            }
        }
    }

    fn deliver(&mut self, shard: usize, index: usize, packet: &[u8]) -> Option<Vec<u8>> {
        let mut reply = [0; MAX_REPLY];
        let client = self.client(index);
        let verdict = self.shards[shard].on_client(self.now, client, packet, &mut reply);
        self.check(shard);
        match verdict {
            Verdict::Reply { len } => {
                check_answer(packet, &reply[..len]);
                self.note(&reply[..len]);
                Some(reply[..len].to_vec())
            }
            Verdict::ReplyFrom { len, server, client: to } => {
                check_answer(packet, &reply[..len]);
                check_detour(packet.len(), client, len, server, to);
                Some(reply[..len].to_vec())
            }
            Verdict::Forward(forward) => {
                check_forward(packet.len(), &forward);
                None
            }
            Verdict::HandOver { shard: to } => {
                let to = usize::from(to);
                assert!(to != shard && to < self.shards.len(), "to another shard that exists");
                assert!(client.five_tuple.transport.is_stream());
                self.deliver(to, index, packet)
            }
            Verdict::Queued => {
                self.changed = true;
                None
            }
            Verdict::Drop(_) => None,
        }
    }

    /// Whether an answer has changed anything: all but Binding and errors do.
    fn note(&mut self, answer: &[u8]) {
        let granted = Message::parse(answer)
            .is_ok_and(|a| a.class() == Class::Success && a.method() != Method::BINDING);
        self.changed |= granted;
        let answer = Message::parse(answer).expect("the server writes whole messages");
        if let Some(ticket) = answer.get(Attribute::MobilityTicket) {
            self.tickets.push_back(ticket.to_vec());
            if self.tickets.len() > TICKETS {
                self.tickets.pop_front();
            }
        }
    }

    /// The question that was asked last, or where that is a message to another shard
    /// the first one on that way: those keep their order.
    pub fn take_last(&mut self) -> Option<Question> {
        let last = self.questions.pop_back()?;
        let Question::Mail { from, to, .. } = last else { return Some(last) };
        let before = self.questions.iter().position(
            |q| matches!(q, Question::Mail { from: f, to: t, .. } if (*f, *t) == (from, to)),
        );
        let Some(before) = before else { return Some(last) };
        self.questions.push_back(last);
        self.questions.remove(before)
    }

    /// A shard takes no new allocations, or takes them again.
    pub fn set_draining(&mut self, shard: usize, draining: bool) {
        let count = self.shards.len();
        self.shards[shard % count].set_draining(draining);
        self.changed = true;
    }

    /// A datagram for a relay socket.
    pub fn from_peer(&mut self, shard: u16, relay: RelayId, peer: SocketAddr, len: usize) {
        let shard = usize::from(shard);
        let verdict = self.shards[shard].on_peer(self.now, relay, PeerAddr::new(peer), len);
        self.check(shard);
        match verdict {
            Verdict::Forward(forward) => check_forward(len, &forward),
            Verdict::Drop(_) => {}
            Verdict::Reply { .. }
            | Verdict::ReplyFrom { .. }
            | Verdict::Queued
            | Verdict::HandOver { .. } => panic!("peers are not answered"),
        }
    }

    /// A peer connects to the listener of a TCP relay.
    pub fn peer_connects(&mut self, shard: u16, relay: RelayId, peer: SocketAddr) {
        let link = self.open_peer(shard, relay);
        self.input(shard, Input::PeerAccepted { relay, peer: PeerAddr::new(peer), link });
        self.changed = true;
    }

    /// A connection with a peer ends by itself.
    pub fn peer_closes(&mut self, pick: usize) {
        if !self.peers.is_empty() {
            let Peer { shard, link, .. } = self.peers.swap_remove(pick % self.peers.len());
            self.input(shard, Input::PeerClosed { link });
        }
    }

    fn open_peer(&mut self, shard: u16, relay: RelayId) -> PeerLink {
        self.opened += 1;
        let link = PeerLink(self.opened);
        self.peers.push(Peer { shard, link, relay, client: None });
        link
    }

    pub fn input(&mut self, shard: u16, input: Input) {
        let shard = usize::from(shard);
        self.shards[shard].handle_input(self.now, input);
        self.check(shard);
    }

    /// Answers what a core has asked.
    pub fn answer(&mut self, question: Question, well: bool) {
        match question {
            Question::Open(shard, relay, port) => {
                let answer = self.ports.open(shard, relay, port, !well);
                self.input(shard, answer);
            }
            Question::Key(shard, ticket, _) => {
                let keys = StoredKeys::from_password(OUTSIDER, REALM, PASSWORD);
                let user = well.then(|| (OUTSIDER.into(), keys));
                self.input(shard, Input::Key { ticket, user });
            }
            Question::Connect(shard, relay, connection) if well => {
                let link = self.open_peer(shard, relay);
                self.input(shard, Input::PeerConnected { connection, link });
            }
            Question::Connect(shard, _, connection) => {
                self.input(shard, Input::PeerFailed { connection });
            }
            Question::Mail { from, to, message } => {
                self.input(to, Input::FromShard { shard: from, message });
            }
        }
    }

    /// Time passes, and the timers run.
    pub fn wait(&mut self, by: Duration) {
        self.now = self.now.after(by);
        for shard in 0..self.shards.len() {
            self.shards[shard].handle_timeout(self.now);
            self.check(shard);
            let next = self.shards[shard].poll_timeout();
            assert!(next.is_none_or(|at| at > self.now.mono), "what is due has been done");
        }
    }

    /// Everything is answered and expires; nothing may be left.
    pub fn finish(mut self) {
        loop {
            while let Some(question) = self.questions.pop_front() {
                self.answer(question, true);
            }
            if self.shards.iter().all(|shard| shard.poll_timeout().is_none()) {
                break;
            }
            self.wait(Duration::from_secs(4000));
        }
        assert!(self.shards.iter().all(|shard| shard.allocations() == 0), "all have expired");
        self.ports.assert_empty();
        assert!(self.peers.is_empty(), "never closed: {:?}", self.peers);
    }

    /// Invariants, and what the core wants done.
    fn check(&mut self, shard: usize) {
        self.shards[shard].check_invariants(self.now);
        while let Some(output) = self.shards[shard].poll_output() {
            self.perform(shard as u16, output);
        }
    }

    fn perform(&mut self, shard: u16, output: Output) {
        match output {
            Output::Send { message, .. } => {
                assert_parses(&message);
                self.note(&message);
                let answer = Message::parse(&message).expect("another codec has read it");
                let token = answer.get(Attribute::ReservationToken);
                self.token = token.and_then(|token| token.try_into().ok()).or(self.token);
                if let Some(Ok(connection)) = answer.get_u32(Attribute::ConnectionId) {
                    self.connection = connection;
                }
                self.sent = Some(message);
            }
            Output::OpenRelay { relay, port, transport } => {
                let plain = transport == RelayTransport::Udp || port == PortRequest::Any;
                assert!(plain, "TCP has no pairs of ports");
                self.questions.push_back(Question::Open(shard, relay, port));
            }
            Output::CloseRelay { relay } => {
                let of = |peer: &Peer| (peer.shard, peer.relay) == (shard, relay);
                assert!(!self.peers.iter().any(of), "its connections were closed before");
                self.ports.close(shard, relay);
            }
            Output::ConnectPeer { relay, connection, .. } => {
                self.questions.push_back(Question::Connect(shard, relay, connection));
            }
            Output::CancelConnect { connection } => {
                let at = self.questions.iter().position(
                    |q| matches!(q, Question::Connect(s, _, id) if (*s, *id) == (shard, connection)),
                );
                self.questions.remove(at.expect("cancelled once, while it is being made"));
            }
            Output::Splice { client, peer } => {
                assert!(self.sent.is_some(), "the response goes out before");
                let at = self.peer(shard, peer);
                let side = &mut self.peers[at].client;
                assert_eq!(side.replace(client), None, "spliced once");
                self.changed = true;
            }
            Output::ClosePeer { link } => {
                let at = self.peer(shard, link);
                self.peers.swap_remove(at);
            }
            Output::ReleasePort { reserved } => self.ports.release(reserved),
            Output::LookupKey { ticket, name } => {
                self.questions.push_back(Question::Key(shard, ticket, name));
            }
            Output::ToShard { shard: to, message } => {
                for (old, new) in message.moved_relays() {
                    self.ports.hand_over((shard, old), (to, new));
                }
                self.questions.push_back(Question::Mail { from: shard, to, message });
            }
            Output::Route(_) | Output::Event(_) => {}
        }
    }
}

impl Fixture {
    fn peer(&self, shard: u16, link: PeerLink) -> usize {
        let at = self.peers.iter().position(|p| (p.shard, p.link) == (shard, link));
        at.expect("a connection that is open")
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

/// The name of the key that tokens are sealed with, and the key that whoever has
/// such a token signs with.
pub const TOKEN_KEY: &str = "north";
pub const MAC_KEY: &[u8; 20] = b"twenty bytes of key!";

/// An ACCESS-TOKEN (RFC 7635 section 6.2) that is good for so many seconds from the
/// start on.
pub fn access_token(lifetime: u32) -> Vec<u8> {
    let mut content = (MAC_KEY.len() as u16).to_be_bytes().to_vec();
    content.extend(MAC_KEY);
    content.extend((START_UNIX << 16).to_be_bytes());
    content.extend(lifetime.to_be_bytes());
    let key = UnboundKey::new(&AES_256_GCM, SHARED_KEY).expect("it has the right length");
    let (nonce, aad) = (*b"a nonce once", Aad::from(TOKEN_SERVER.as_bytes()));
    LessSafeKey::new(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut content)
        .expect("it is short");
    [&[0, 12][..], &nonce, &content].concat()
}

/// The key of a user with the password of all.
pub fn key(user: &str, algorithm: Algorithm) -> Key {
    Key::derive(algorithm, user, REALM, PASSWORD)
}

/// An answer has the transaction id of its request, and another codec reads it.
fn check_answer(request: &[u8], answer: &[u8]) {
    assert_eq!(request[4..20], answer[4..20], "cookie and transaction id");
    // RFC 3489 knows no cookie, and `stun-rs` not RFC 3489.
    if request[4..8] == sturn::stun::MAGIC_COOKIE.to_be_bytes() {
        assert_parses(answer);
    }
}

/// An answer by another way goes to the host that has asked, from an address of
/// the server, and is hardly longer than its request.
fn check_detour(request: usize, asker: Client, answer: usize, server: SocketAddr, to: SocketAddr) {
    let tuple = asker.five_tuple;
    assert_eq!(tuple.transport, Transport::Udp);
    assert_eq!(tuple.client.ip(), to.ip(), "never to a third party");
    assert_ne!(to.port(), 0);
    assert!(DISCOVERY.iter().any(|ip| *ip == server.ip().to_string()), "{server}");
    assert!([3478, 3479].contains(&server.port()), "{server}");
    assert!(answer <= request + 4 * 24, "{answer} for {request}");
}

fn assert_parses(message: &[u8]) {
    let decoded = MessageDecoderBuilder::default().build().decode(message);
    let (_, used) = decoded.unwrap_or_else(|error| panic!("{error}: {message:02x?}"));
    assert_eq!(used, message.len(), "a whole message");
}

fn check_forward(len: usize, forward: &Forward) {
    let data = match forward {
        Forward::ToPeer { data, .. } => data,
        Forward::ToClient { data, header, padding, .. } => {
            assert!(!header.as_slice().is_empty() && *padding < 4);
            data
        }
    };
    assert!(data.start <= data.end && data.range().end <= len, "within the packet");
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// The hasher is made once: each one lives as long as the process.
fn seed() -> HashSeed {
    static SEED: OnceLock<HashSeed> = OnceLock::new();
    *SEED.get_or_init(|| HashSeed::new(1))
}

fn settings() -> Arc<Settings> {
    static SETTINGS: OnceLock<Arc<Settings>> = OnceLock::new();
    SETTINGS.get_or_init(|| Arc::new(make_settings())).clone()
}

fn make_settings() -> Settings {
    let ip = |text: &str| text.parse().expect("the addresses below parse");
    let same = |text: &str| HostAddress { local: ip(text), advertised: ip(text) };
    let relay = RelaySettings {
        addresses: vec![same("8.8.4.4"), same("2606:4700:1::5")],
        ports: 50_000..=65_535,
        default_family: DefaultFamily::V4,
        tcp: true,
    };
    let own = OwnAddresses {
        relays: relay.addresses.clone(),
        others: Vec::new(),
        listener_ports: vec![3478],
    };
    let keys = StoredKeys::from_password(USER, REALM, PASSWORD);
    let users = vec![User { name: USER.into(), keys }];
    let secrets = vec![Secret::new("secret")];
    Settings {
        auth: AuthSettings {
            directory: Some(Arc::new(Directory::new(REALM, users, secrets, ':', seed()))),
            tokens: Some(Arc::new(Tokens::new(
                TOKEN_SERVER,
                vec![
                    TokenKey::new(TOKEN_KEY, TokenAlgorithm::A256Gcm, SHARED_KEY, 0..=u64::MAX)
                        .expect("it has the right length"),
                ],
            ))),
            external: true,
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            nonce_secret: b"fuzz".as_slice().into(),
            nonce_lifetime: Duration::from_secs(600),
            expiry: ExpiryCheck::Refresh,
        },
        lifetimes: Lifetimes::default(),
        limits: Limits {
            allocations_per_user: 3,
            permissions: 4,
            channels: 3,
            peer_connections: 3,
            all_peer_connections: 8,
            pending: 3,
            answers_per_prefix: 0,
            ..Limits::default()
        },
        policy: Policy::new(&[], &[], &own, relay.ports.clone()),
        relay,
        discovery: Some(Discovery {
            addresses: DISCOVERY
                .map(|ip| ip.parse().expect("the addresses above parse"))
                .map(|ip| HostAddress { local: ip, advertised: ip })
                .into(),
            ports: [3478, 3479],
        }),
        alternates: Some(Alternates {
            servers: vec![SocketAddr::from(([8, 8, 5, 1], 3478))],
            tls_servers: Vec::new(),
            domain: None,
            redirect: Redirect::Draining,
        }),
        mobility: Some(b"fuzz tickets".as_slice().into()),
        rfc3489: true,
        rfc5766_channels: true,
        software: Some("sturn".into()),
    }
}
