//! The core alone: what reading a message, finding an allocation and deciding about a
//! packet take, without a socket.
//!
//!     cargo bench --bench core                   times
//!     scripts/instructions                       instructions, which do not vary
//!
//! With `count NAME REPETITIONS` it does one of these so often and ends, which is what
//! `scripts/instructions` runs and counts.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sturn::auth::{Algorithm, Directory, Key, StoredKeys, User};
use sturn::net::{FiveTuple, HashSeed, Now, PeerAddr, RelayedAddr, Transport};
use sturn::stun::{Attribute, Class, Message, Method, TransactionId, Writer, verify_sha1};
use sturn::turn::policy::{OwnAddresses, Policy};
use sturn::turn::{
    AuthSettings, Client, DefaultFamily, ExpiryCheck, Input, Lifetimes, Limits, Link, MAX_REPLY,
    Output, RelayId, RelaySettings, Server, Settings, Shard, Verdict,
};

const REALM: &str = "bench";
const USER: &str = "u";
const PASSWORD: &str = "p";
/// Bytes of application data, as audio has them.
const PAYLOAD: usize = 160;
const CHANNEL: u16 = 0x4000;
/// The channel's peer, and another port of it, which has a permission only.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 7000);
const PEER_WITHOUT_CHANNEL: SocketAddr = SocketAddr::new(PEER.ip(), 7001);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 3478);
const SIZES: [usize; 3] = [1, 1000, 100_000];
/// Allocations where instructions are counted.
const COUNTED: usize = 100;

type Step = fn(&mut World);

/// What `count` knows.
const COUNTS: [(&str, Step); 7] = [
    ("channel-up", World::channel_up),
    ("channel-down", World::channel_down),
    ("send-indication", World::send_indication),
    ("data-indication", World::data_indication),
    ("binding", World::binding),
    ("challenge", World::challenge),
    ("refresh", World::refresh),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ["count", name, repetitions] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    else {
        let harness = divan::Divan::default().sample_count(50).sample_size(5000);
        harness.config_with_args().main();
        return ExitCode::SUCCESS;
    };
    let step = COUNTS.iter().find(|(of, _)| *of == name);
    let (Some((_, step)), Ok(repetitions)) = (step, repetitions.parse::<usize>()) else {
        return ExitCode::FAILURE;
    };
    let mut world = World::new(COUNTED);
    (0..repetitions).for_each(|_| step(&mut world));
    ExitCode::SUCCESS
}

#[divan::bench]
fn parse_binding(bencher: divan::Bencher<'_, '_>) {
    let request = binding_request();
    bencher.bench_local(|| Message::parse(black_box(&request)).map(|m| m.method()));
}

#[divan::bench]
fn parse_allocate(bencher: divan::Bencher<'_, '_>) {
    let request = allocate_request(Some(b"a nonce of a length as servers have it"));
    bencher.bench_local(|| Message::parse(black_box(&request)).map(|m| m.method()));
}

#[divan::bench]
fn message_integrity(bencher: divan::Bencher<'_, '_>) {
    let request = allocate_request(Some(b"a nonce of a length as servers have it"));
    let message = Message::parse(&request).expect("a request as clients send it");
    let key = Key::md5(USER, REALM, PASSWORD);
    assert!(verify_sha1(&message, key.bytes()), "the key that it was made with");
    bencher.bench_local(|| verify_sha1(black_box(&message), key.bytes()));
}

#[divan::bench(args = SIZES)]
fn channel_data_from_client(bencher: divan::Bencher<'_, '_>, allocations: usize) {
    run(bencher, allocations, World::channel_up);
}

#[divan::bench(args = SIZES)]
fn channel_data_from_peer(bencher: divan::Bencher<'_, '_>, allocations: usize) {
    run(bencher, allocations, World::channel_down);
}

#[divan::bench(args = SIZES)]
fn send_indication(bencher: divan::Bencher<'_, '_>, allocations: usize) {
    run(bencher, allocations, World::send_indication);
}

#[divan::bench(args = SIZES)]
fn data_indication(bencher: divan::Bencher<'_, '_>, allocations: usize) {
    run(bencher, allocations, World::data_indication);
}

#[divan::bench(args = SIZES)]
fn refresh(bencher: divan::Bencher<'_, '_>, allocations: usize) {
    run(bencher, allocations, World::refresh);
}

#[divan::bench]
fn binding(bencher: divan::Bencher<'_, '_>) {
    run(bencher, 1, World::binding);
}

#[divan::bench]
fn challenge(bencher: divan::Bencher<'_, '_>) {
    run(bencher, 1, World::challenge);
}

fn run(bencher: divan::Bencher<'_, '_>, allocations: usize, step: Step) {
    let mut world = World::new(allocations);
    bencher.bench_local(|| step(&mut world));
}

/// A shard with allocations, each with a channel and the permission of it.
struct World {
    core: Server,
    now: Now,
    /// Client and relay socket of each allocation.
    allocations: Vec<(Client, RelayId)>,
    /// A Refresh request for each of the first of them.
    refreshes: Vec<Vec<u8>>,
    cursor: usize,
    channel_data: Vec<u8>,
    indication: Vec<u8>,
    binding: Vec<u8>,
    allocate: Vec<u8>,
    reply: Vec<u8>,
}

impl World {
    fn new(allocations: usize) -> Self {
        let mono = Instant::now();
        let now = Now { mono, unix: Duration::from_secs(1_700_000_000) };
        let seed = HashSeed::new(7);
        let shard = Shard { index: 0, count: 1 };
        let mut world = Self {
            core: Server::new(Arc::new(settings(seed)), shard, [7; 32], seed, mono),
            now,
            allocations: Vec::new(),
            refreshes: Vec::new(),
            cursor: 0,
            channel_data: channel_data(),
            indication: indication(),
            binding: binding_request(),
            allocate: allocate_request(None),
            reply: vec![0; MAX_REPLY],
        };
        (0..allocations).for_each(|i| world.allocate(i));
        world
    }

    fn channel_up(&mut self) {
        let (client, _) = self.next();
        let verdict =
            self.core.on_client(self.now, client, black_box(&self.channel_data), &mut self.reply);
        assert!(matches!(black_box(verdict), Verdict::Forward(_)), "it is relayed");
    }

    fn channel_down(&mut self) {
        let (_, relay) = self.next();
        let verdict = self.core.on_peer(self.now, relay, PeerAddr::new(PEER), black_box(PAYLOAD));
        assert!(matches!(black_box(verdict), Verdict::Forward(_)), "it is relayed");
    }

    fn send_indication(&mut self) {
        let (client, _) = self.next();
        let verdict =
            self.core.on_client(self.now, client, black_box(&self.indication), &mut self.reply);
        assert!(matches!(black_box(verdict), Verdict::Forward(_)), "it is relayed");
    }

    fn data_indication(&mut self) {
        let (_, relay) = self.next();
        let peer = PeerAddr::new(PEER_WITHOUT_CHANNEL);
        let verdict = self.core.on_peer(self.now, relay, peer, black_box(PAYLOAD));
        assert!(matches!(black_box(verdict), Verdict::Forward(_)), "it is relayed");
    }

    fn binding(&mut self) {
        let (client, _) = self.next();
        let verdict =
            self.core.on_client(self.now, client, black_box(&self.binding), &mut self.reply);
        assert!(matches!(black_box(verdict), Verdict::Reply { .. }), "it is answered");
    }

    /// Allocate without credentials, from somebody who has no allocation.
    fn challenge(&mut self) {
        let from = client(self.allocations.len());
        let verdict =
            self.core.on_client(self.now, from, black_box(&self.allocate), &mut self.reply);
        assert!(matches!(black_box(verdict), Verdict::Reply { .. }), "it is answered");
    }

    /// The same Refresh of an allocation again: with its integrity, as any request.
    fn refresh(&mut self) {
        self.cursor = (self.cursor + 1) % self.refreshes.len();
        let (client, _) = self.allocations[self.cursor];
        let request = &self.refreshes[self.cursor];
        let verdict = self.core.on_client(self.now, client, black_box(request), &mut self.reply);
        assert!(matches!(black_box(verdict), Verdict::Reply { .. }), "it is answered");
        while self.core.poll_output().is_some() {}
    }

    /// Another allocation each time, far from the last one.
    fn next(&mut self) -> (Client, RelayId) {
        self.cursor = (self.cursor + 61_803) % self.allocations.len();
        self.allocations[self.cursor]
    }

    /// Makes allocation `i`, with a channel.
    fn allocate(&mut self, i: usize) {
        let client = client(i);
        let challenge = self.ask(client, &allocate_request(None));
        let nonce = Message::parse(&challenge).expect("an answer").get(Attribute::Nonce);
        let nonce = nonce.expect("a challenge has a nonce").to_vec();

        let request = allocate_request(Some(&nonce));
        let verdict = self.core.on_client(self.now, client, &request, &mut self.reply);
        assert!(matches!(verdict, Verdict::Queued), "it needs a socket: {verdict:?}");
        let mut opened = None;
        while let Some(output) = self.core.poll_output() {
            if let Output::OpenRelay { relay, .. } = output {
                opened = Some(relay);
                let local = relayed(i);
                let (advertised, reserved) = (local.socket(), None);
                let input = Input::RelayOpened { relay, local, advertised, reserved };
                self.core.handle_input(self.now, input);
            }
        }
        self.allocations.push((client, opened.expect("a relay socket is asked for")));

        let bind = signed(Method::CHANNEL_BIND, &nonce, |w| {
            w.put(Attribute::ChannelNumber, &[0x40, 0, 0, 0]);
            w.put_xor_address(Attribute::XorPeerAddress, PEER);
        });
        let answer = self.ask(client, &bind);
        let class = Message::parse(&answer).expect("an answer").class();
        assert_eq!(class, Class::Success, "the channel is bound");
        if i < 1000 {
            self.refreshes.push(signed(Method::REFRESH, &nonce, |_| {}));
        }
    }

    /// The immediate answer to a request.
    fn ask(&mut self, client: Client, request: &[u8]) -> Vec<u8> {
        let verdict = self.core.on_client(self.now, client, request, &mut self.reply);
        let Verdict::Reply { len } = verdict else { panic!("{verdict:?}") };
        while self.core.poll_output().is_some() {}
        self.reply[..len].to_vec()
    }
}

fn client(i: usize) -> Client {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + i as u32);
    let from = SocketAddr::new(ip.into(), 40_000);
    Client { five_tuple: FiveTuple::new(Transport::Udp, from, SERVER), link: Link(0) }
}

/// Ten thousand ports on each address.
fn relayed(i: usize) -> RelayedAddr {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(203, 0, 113, 1)) + (i / 10_000) as u32);
    RelayedAddr::new(SocketAddr::new(ip.into(), 50_000 + (i % 10_000) as u16))
}

fn channel_data() -> Vec<u8> {
    let [length_high, length_low] = (PAYLOAD as u16).to_be_bytes();
    let [number_high, number_low] = CHANNEL.to_be_bytes();
    let mut packet = vec![number_high, number_low, length_high, length_low];
    packet.resize(4 + PAYLOAD, 0x5a);
    packet
}

fn indication() -> Vec<u8> {
    write(Method::SEND, Class::Indication, |w| {
        w.put_xor_address(Attribute::XorPeerAddress, PEER_WITHOUT_CHANNEL);
        w.put(Attribute::Data, &[0x5a; PAYLOAD]);
    })
}

fn binding_request() -> Vec<u8> {
    write(Method::BINDING, Class::Request, |_| {})
}

fn allocate_request(nonce: Option<&[u8]>) -> Vec<u8> {
    let transport = |w: &mut Writer<'_>| w.put(Attribute::RequestedTransport, &[17, 0, 0, 0]);
    match nonce {
        Some(nonce) => signed(Method::ALLOCATE, nonce, transport),
        None => write(Method::ALLOCATE, Class::Request, transport),
    }
}

/// A request with long-term credentials.
fn signed(method: Method, nonce: &[u8], attributes: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    write(method, Class::Request, |w| {
        attributes(w);
        w.put(Attribute::Username, USER.as_bytes());
        w.put(Attribute::Realm, REALM.as_bytes());
        w.put(Attribute::Nonce, nonce);
        w.put_integrity_sha1(Key::md5(USER, REALM, PASSWORD).bytes());
    })
}

fn write(method: Method, class: Class, attributes: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; MAX_REPLY];
    let mut writer = Writer::new(&mut buffer, method, class, TransactionId([9; 12]));
    attributes(&mut writer);
    let len = writer.finish().expect("there is room for it");
    buffer.truncate(len);
    buffer
}

fn settings(seed: HashSeed) -> Settings {
    let user = User { name: USER.into(), keys: StoredKeys::from_password(USER, REALM, PASSWORD) };
    let ports = 49_152..=65_535;
    let allow = ["198.51.100.0/24".parse().expect("a network")];
    let local = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    let address = sturn::turn::HostAddress { local, advertised: local };
    let own =
        OwnAddresses { relays: vec![address], others: Vec::new(), listener_ports: vec![3478] };
    Settings {
        auth: AuthSettings {
            directory: Some(Arc::new(Directory::new(REALM, vec![user], Vec::new(), ':', seed))),
            tokens: None,
            external: false,
            algorithms: vec![Algorithm::Md5],
            nonce_secret: Box::from(&b"nonce secret"[..]),
            nonce_lifetime: Duration::from_secs(3600),
            expiry: ExpiryCheck::Allocate,
        },
        lifetimes: Lifetimes::default(),
        limits: Limits { allocations: 200_000, answers_per_prefix: 0, ..Limits::default() },
        relay: RelaySettings {
            addresses: vec![address],
            ports: ports.clone(),
            default_family: DefaultFamily::V4,
            tcp: false,
        },
        policy: Policy::new(&allow, &[], &own, ports),
        discovery: None,
        alternates: None,
        mobility: None,
        rfc3489: false,
        rfc5766_channels: false,
        software: None,
    }
}
