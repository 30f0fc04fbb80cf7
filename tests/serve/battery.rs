//! One list of TURN rules, asked of the real server over every transport. What a
//! client is due does not depend on how its bytes travel.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sturn::client::{Allocate, Attribute, Client, Config, Event, Security};
use sturn::net::{Family, Transport};

use crate::setup::{DEADLINE, Peer, Server, Setup, relayed};
use crate::support::driver::{Driver, Received, next_seed, now};

const WAYS: [(&str, Transport); 4] = [
    ("udp", Transport::Udp),
    ("tcp", Transport::Tcp),
    ("tls", Transport::Tls),
    ("dtls", Transport::Dtls),
];

const ALLOCATE: u16 = 0x003;
const REFRESH: u16 = 0x004;

const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const NONCE: u16 = 0x0015;
const RELAYED: u16 = 0x0016;
const FAMILY: u16 = 0x0017;
const REALM: u16 = 0x0014;
const TRANSPORT: u16 = 0x0019;
const INTEGRITY: u16 = 0x0008;
const INTEGRITY_256: u16 = 0x001C;
const ADDITIONAL_FAMILY: u16 = 0x8000;
const SOFTWARE: u16 = 0x8022;
const FINGERPRINT: u16 = 0x8028;
const TICKET: u16 = 0x8030;

/// Longest default and most of a lifetime, in seconds.
const DEFAULT_LIFETIME: u64 = 600;
const MAX_LIFETIME: u64 = 3600;

/// An address that policy refuses.
const DENIED: &str = "10.1.2.3:9";

type Rule = (&'static str, fn(&Place));

/// Each rule stands alone: it brings its own client and leaves no allocation that
/// another could meet.
const RULES: &[Rule] = &[
    ("Binding tells the reflexive address", binding),
    ("a stranger is told realm and nonce with 401", stranger),
    ("a wrong password gets 401", wrong_password),
    ("an unknown user gets 401", unknown_user),
    ("a nonce that is not ours gets 438 and a new one", stale_nonce),
    ("Allocate grants an address and a lifetime", allocate),
    ("a repeated Allocate gets the same answer", repeated_allocate),
    ("a second Allocate gets 437", second_allocate),
    ("without an allocation everything gets 437", no_allocation),
    ("another user gets 441", other_user),
    ("Allocate without REQUESTED-TRANSPORT gets 400", no_transport),
    ("contradicting families get 400", contradicting_families),
    ("an unknown transport gets 442", unknown_transport),
    ("an unknown attribute gets 420 and is named", unknown_attribute),
    ("an unknown optional attribute is ignored", optional_attribute),
    ("an unknown method is not answered", unknown_method),
    ("a response to the server is not answered", stray_response),
    ("a family that is not relayed gets 440", unsupported_family),
    ("one allocation too many gets 486", quota),
    ("an unknown reservation gets 508", unknown_reservation),
    ("LIFETIME is kept within its bounds", lifetime_bounds),
    ("Refresh with zero ends the allocation", refresh_zero),
    ("Refresh of a family that is not there gets 443", refresh_family),
    ("only permitted peers are heard", permissions),
    ("a denied peer gets 403", denied_peer),
    ("a peer of the other family gets 443", peer_family),
    ("ChannelData passes both ways in every length", channel_data),
    ("Send and Data indications pass both ways", indications),
    ("channel numbers have a range", channel_range),
    ("a channel has one peer and a peer one channel", channel_conflicts),
    ("DONT-FRAGMENT is understood", dont_fragment),
    ("EVEN-PORT gives an even port", even_port),
    ("a reserved port is its owner's", reserved_port),
    ("REQUESTED-ADDRESS-FAMILY gives that family", requested_family),
    ("ADDITIONAL-ADDRESS-FAMILY gives both", additional_family),
    ("an IPv6 client reaches an IPv4 peer", v6_client),
    ("an IPv4 client reaches an IPv6 peer", v6_peer),
    ("MESSAGE-INTEGRITY is answered with its like", integrity_sha1),
    ("MESSAGE-INTEGRITY-SHA256 is answered with its like", integrity_sha256),
    ("FINGERPRINT is answered, and a wrong one is not", fingerprint),
    ("SOFTWARE is told to users only", software),
    ("an allocation follows its client", mobility),
];

#[test]
fn every_rule_holds_over_every_transport() {
    let servers = Servers::start();
    let mut broken = Vec::new();
    let mut kept = [0; WAYS.len()];
    println!("{:55}{}", "rule", WAYS.map(|(name, _)| format!("{name:>6}")).concat());
    for (rule, check) in RULES {
        let mut row = String::new();
        for (column, (way, transport)) in WAYS.into_iter().enumerate() {
            let place = Place { servers: &servers, transport };
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&place)));
            row += if outcome.is_ok() { "    ok" } else { "  FAIL" };
            match outcome {
                Ok(()) => kept[column] += 1,
                Err(why) => broken.push(format!("{rule}, over {way}: {}", reason(&*why))),
            }
        }
        println!("{rule:55}{row}");
    }
    let all = RULES.len();
    let sums = WAYS.iter().zip(kept).map(|((way, _), kept)| format!(" {way} {kept}/{all}"));
    println!("battery:{}", sums.collect::<String>());
    assert!(broken.is_empty(), "broken rules:\n{}", broken.join("\n"));
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// The servers that the rules need: what one allows, another has to refuse.
struct Servers {
    plain: Server,
    /// One allocation for each user, and only IPv4.
    narrow: Server,
}

impl Servers {
    fn start() -> Self {
        let plain = Setup::new().set("turn.mobility", "true").tls().start();
        let narrow = Setup::new().set("limits.allocations-per-user", "1").tls();
        let narrow = narrow.advertise("127.0.0.1").start();
        Self { plain, narrow }
    }
}

/// Where a rule is asked.
struct Place<'a> {
    servers: &'a Servers,
    transport: Transport,
}

impl Place<'_> {
    /// Alice, with whom the rules are about something else.
    fn alice(&self) -> Driver {
        self.user("alice", "wonderland")
    }

    fn user(&self, name: &str, password: &str) -> Driver {
        self.client(Config::new(self.transport, name, password, next_seed()))
    }

    fn client(&self, config: Config) -> Driver {
        Driver::with(self.address_of(&self.servers.plain), config)
    }

    fn narrow(&self) -> Driver {
        let config = Config::new(self.transport, "alice", "wonderland", next_seed());
        Driver::with(self.address_of(&self.servers.narrow), config)
    }

    fn over_v6(&self) -> Driver {
        let plain = &self.servers.plain;
        let server = if self.is_secure() { plain.tls_addr_v6() } else { plain.addr_v6() };
        Driver::with(server, Config::new(self.transport, "alice", "wonderland", next_seed()))
    }

    fn address_of(&self, server: &Server) -> SocketAddr {
        if self.is_secure() { server.tls_addr() } else { server.addr() }
    }

    fn is_secure(&self) -> bool {
        matches!(self.transport, Transport::Tls | Transport::Dtls)
    }

    /// Alice with an allocation.
    fn allocated(&self) -> (Driver, SocketAddr) {
        let mut client = self.alice();
        let address = relayed(&client.allocate(Allocate::default()).unwrap());
        (client, address)
    }
}

fn binding(place: &Place) {
    let mut client = place.alice();
    assert_eq!(client.binding().unwrap(), client.local_addr());
}

fn stranger(place: &Place) {
    let mut client = place.alice();
    client.client().allocate(now(), Allocate::default());
    let request = client.client().poll_transmit().unwrap();
    let answer = Answer::to(&mut client, &request);
    assert_eq!(answer.code(), Some(401));
    assert_eq!(answer.get(REALM), Some(&b"example.org"[..]));
    assert!(answer.get(NONCE).is_some_and(|nonce| !nonce.is_empty()));
    assert!(!answer.is_signed(), "there is no key to sign with");
}

fn wrong_password(place: &Place) {
    assert_eq!(place.user("alice", "looking-glass").allocate_code(), 401);
}

fn unknown_user(place: &Place) {
    assert_eq!(place.user("mallory", "wonderland").allocate_code(), 401);
}

fn stale_nonce(place: &Place) {
    let (mut client, _) = place.allocated();
    assert!(client.client().replace_nonce("obMatJos2AAAAnot-a-nonce-of-this-server"));
    let answer = ask(&mut client, REFRESH, vec![]);
    assert_eq!(answer.code(), Some(438));
    assert!(answer.get(NONCE).is_some() && answer.get(REALM).is_some());
    end(client);
}

fn allocate(place: &Place) {
    let mut client = place.alice();
    let allocated = client.allocate(Allocate::default()).unwrap();
    assert_eq!(relayed(&allocated).ip(), place.servers.plain.relay_v4());
    assert_eq!(allocated.reflexive, client.local_addr());
    assert_eq!(allocated.lifetime.as_secs(), DEFAULT_LIFETIME);
    end(client);
}

fn repeated_allocate(place: &Place) {
    let mut client = place.alice();
    challenge(&mut client);
    client.client().allocate(now(), Allocate::default());
    let request = client.client().poll_transmit().unwrap();
    let [first, second] = [(); 2].map(|()| Answer::to(&mut client, &request));
    assert_eq!(first.code(), None);
    assert!(first.get(RELAYED).is_some());
    assert_eq!(first.attributes, second.attributes);
    end(client);
}

fn second_allocate(place: &Place) {
    let (mut client, _) = place.allocated();
    assert_eq!(client.allocate_code(), 437);
    end(client);
}

fn no_allocation(place: &Place) {
    let mut client = place.alice();
    let peer = Peer::v4().addr();
    assert_eq!(client.refresh(None, None).unwrap_err().code(), 437);
    assert_eq!(client.create_permission(&[peer]).unwrap_err().code(), 437);
    assert_eq!(client.channel_bind(None, peer).unwrap_err().code(), 437);
}

fn other_user(place: &Place) {
    let (mut client, _) = place.allocated();
    let mut bob = Client::new(Config::new(place.transport, "bob", "builder", next_seed()));
    let peer = Peer::v4().addr();
    for wanted in [Wanted::Refresh, Wanted::Permission(peer), Wanted::Channel(peer)] {
        wanted.ask(&mut bob);
        let answer = loop {
            let request = bob.poll_transmit().expect("it goes on until it is refused");
            let answer = client.exchange_bytes(&request).unwrap();
            bob.handle_receive(now(), &answer);
            if let Some(Event::Failed(failure)) = bob.poll_event() {
                break failure.code;
            }
        };
        assert_eq!(answer, 441);
    }
    end(client);
}

/// What needs the allocation of the one who asks.
enum Wanted {
    Refresh,
    Permission(SocketAddr),
    Channel(SocketAddr),
}

impl Wanted {
    fn ask(&self, client: &mut Client) {
        match *self {
            Self::Refresh => client.refresh(now(), None, None),
            Self::Permission(peer) => client.create_permission(now(), &[peer]),
            Self::Channel(peer) => client.channel_bind(now(), None, peer),
        };
    }
}

fn no_transport(place: &Place) {
    assert_eq!(place.alice().raw_code(ALLOCATE, vec![]), 400);
}

fn contradicting_families(place: &Place) {
    let families = vec![udp(), byte(FAMILY, 1), byte(ADDITIONAL_FAMILY, 2)];
    assert_eq!(place.alice().raw_code(ALLOCATE, families), 400);
    let additional_v4 = vec![udp(), byte(ADDITIONAL_FAMILY, 1)];
    assert_eq!(place.alice().raw_code(ALLOCATE, additional_v4), 400);
}

fn unknown_transport(place: &Place) {
    for protocol in [0, 1, 6, 132] {
        assert_eq!(place.alice().raw_code(ALLOCATE, vec![byte(TRANSPORT, protocol)]), 442);
    }
}

fn unknown_attribute(place: &Place) {
    let mut client = place.alice();
    challenge(&mut client);
    let unknown = Attribute::Raw(0x7ABC, vec![1, 2, 3]);
    let answer = ask(&mut client, ALLOCATE, vec![udp(), unknown]);
    assert_eq!(answer.code(), Some(420));
    assert_eq!(answer.get(UNKNOWN_ATTRIBUTES), Some(&[0x7A, 0xBC][..]));
    assert_eq!(client.refresh(None, None).unwrap_err().code(), 437, "nothing was granted");
}

fn optional_attribute(place: &Place) {
    let mut client = place.alice();
    challenge(&mut client);
    let optional = Attribute::Raw(0xC123, vec![1, 2, 3]);
    assert_eq!(ask(&mut client, ALLOCATE, vec![udp(), optional]).code(), None);
    end(client);
}

fn unknown_method(place: &Place) {
    let mut client = place.alice();
    challenge(&mut client);
    client.client().request_raw(now(), 0x0AB, vec![]);
    // Whatever came for it would come before this answer.
    client.binding().unwrap();
    assert_eq!(client.events(), []);
}

fn stray_response(place: &Place) {
    let mut client = place.alice();
    let mut response = vec![0x01, 0x01, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    response.extend([7; 12]);
    client.send_bytes(&response).unwrap();
    client.binding().unwrap();
    assert_eq!(client.events(), []);
}

fn unsupported_family(place: &Place) {
    let wanted = Allocate { family: Some(Family::V6), ..Allocate::default() };
    assert_eq!(place.narrow().allocate(wanted).unwrap_err().code(), 440);
    assert_eq!(place.narrow().raw_code(ALLOCATE, vec![udp(), byte(FAMILY, 9)]), 440);
}

fn quota(place: &Place) {
    let mut first = place.narrow();
    crate::setup::wait_until("room for alice", || first.allocate(Allocate::default()).is_ok());
    assert_eq!(place.narrow().allocate_code(), 486);
    end(first);
}

fn unknown_reservation(place: &Place) {
    let wanted = Allocate { reservation_token: Some(*b"no token"), ..Allocate::default() };
    assert_eq!(place.alice().allocate(wanted).unwrap_err().code(), 508);
}

fn lifetime_bounds(place: &Place) {
    let mut client = place.alice();
    let asked = |seconds| Some(Duration::from_secs(seconds));
    let wanted = Allocate { lifetime: asked(1), ..Allocate::default() };
    let granted = client.allocate(wanted).unwrap().lifetime.as_secs();
    assert_eq!(granted, DEFAULT_LIFETIME, "no less than the default");
    for (seconds, expected) in
        [(1, DEFAULT_LIFETIME), (1800, 1800), (u64::from(u32::MAX), MAX_LIFETIME)]
    {
        assert_eq!(client.refresh(asked(seconds), None).unwrap().as_secs(), expected);
    }
    assert_eq!(client.refresh(None, None).unwrap().as_secs(), DEFAULT_LIFETIME);
    end(client);
}

fn refresh_zero(place: &Place) {
    let (mut client, address) = place.allocated();
    assert_eq!(client.refresh(Some(Duration::ZERO), None).unwrap(), Duration::ZERO);
    assert_eq!(client.refresh(None, None).unwrap_err().code(), 437);
    let again = relayed(&client.allocate(Allocate::default()).unwrap());
    assert_eq!(again.ip(), address.ip(), "the five-tuple is free for another one");
    end(client);
}

fn refresh_family(place: &Place) {
    let (mut client, _) = place.allocated();
    assert_eq!(client.refresh(None, Some(Family::V6)).unwrap_err().code(), 443);
    client.refresh(None, Some(Family::V4)).unwrap();
    end(client);
}

fn permissions(place: &Place) {
    let (mut client, address) = place.allocated();
    let (peer, stranger) = (Peer::v4(), Peer::at([127, 0, 0, 9].into()));
    client.create_permission(&[peer.addr()]).unwrap();
    stranger.send(address, b"let me in");
    client.send(stranger.addr(), b"let me out").unwrap();
    // In order behind those.
    echo(&mut client, &peer, address, None);
    assert!(!stranger.has_received());
    assert_eq!(client.events(), []);
    end(client);
}

fn denied_peer(place: &Place) {
    let (mut client, _) = place.allocated();
    let denied = DENIED.parse().unwrap();
    let peers = [Peer::v4().addr(), denied];
    assert_eq!(client.create_permission(&peers).unwrap_err().code(), 403);
    assert_eq!(client.channel_bind(None, denied).unwrap_err().code(), 403);
    end(client);
}

fn peer_family(place: &Place) {
    let (mut client, _) = place.allocated();
    let peer = Peer::v6().addr();
    assert_eq!(client.create_permission(&[peer]).unwrap_err().code(), 443);
    assert_eq!(client.channel_bind(None, peer).unwrap_err().code(), 443);
    end(client);
}

fn channel_data(place: &Place) {
    let (mut client, address) = place.allocated();
    let peer = Peer::v4();
    let number = client.channel_bind(None, peer.addr()).unwrap();
    for length in [0, 1, 2, 3, 4, 5, 1200] {
        let data = vec![length as u8; length];
        client.send(peer.addr(), &data).unwrap();
        assert_eq!(peer.receive(), (data.clone(), address));
        peer.send(address, &data);
        let expected = Received { peer: peer.addr(), channel: Some(number), data };
        assert_eq!(client.expect_data(DEADLINE).unwrap(), expected);
    }
    end(client);
}

fn indications(place: &Place) {
    let (mut client, address) = place.allocated();
    let peer = Peer::v4();
    client.create_permission(&[peer.addr()]).unwrap();
    echo(&mut client, &peer, address, None);
    end(client);
}

fn channel_range(place: &Place) {
    let (mut client, _) = place.allocated();
    let peer = Peer::v4().addr();
    for number in [0, 0x3FFF, 0x5000, 0x7FFF, 0xFFFF] {
        assert_eq!(client.channel_bind(Some(number), peer).unwrap_err().code(), 400, "{number:#x}");
    }
    for (number, peer) in [(0x4000, peer), (0x4FFF, Peer::v4().addr())] {
        assert_eq!(client.channel_bind(Some(number), peer).unwrap(), number);
    }
    end(client);
}

fn channel_conflicts(place: &Place) {
    let (mut client, address) = place.allocated();
    let (peer, other) = (Peer::v4(), Peer::v4());
    client.channel_bind(Some(0x4001), peer.addr()).unwrap();
    assert_eq!(client.channel_bind(Some(0x4001), other.addr()).unwrap_err().code(), 400);
    assert_eq!(client.channel_bind(Some(0x4002), peer.addr()).unwrap_err().code(), 400);
    client.channel_bind(Some(0x4001), peer.addr()).expect("to refresh it");
    echo(&mut client, &peer, address, Some(0x4001));
    end(client);
}

fn dont_fragment(place: &Place) {
    let mut client = place.alice();
    let wanted = Allocate { dont_fragment: true, ..Allocate::default() };
    let address = relayed(&client.allocate(wanted).unwrap());
    let peer = Peer::v4();
    client.create_permission(&[peer.addr()]).unwrap();
    client.client().send(peer.addr(), b"in one piece", true);
    client.flush().unwrap();
    assert_eq!(peer.receive(), (b"in one piece".to_vec(), address));
    end(client);
}

fn even_port(place: &Place) {
    for _ in 0..4 {
        let mut client = place.alice();
        let wanted = Allocate { even_port: Some(false), ..Allocate::default() };
        let allocated = client.allocate(wanted).unwrap();
        assert_eq!(relayed(&allocated).port() % 2, 0);
        assert_eq!(allocated.reservation_token, None);
        end(client);
    }
}

fn reserved_port(place: &Place) {
    let (mut first, mut second) = (place.alice(), place.alice());
    let wanted = Allocate { even_port: Some(true), ..Allocate::default() };
    let allocated = first.allocate(wanted).unwrap();
    let wanted = Allocate {
        reservation_token: Some(allocated.reservation_token.expect("R was set")),
        ..Allocate::default()
    };
    let next = relayed(&second.allocate(wanted).unwrap());
    let even = relayed(&allocated);
    assert_eq!((next.ip(), next.port()), (even.ip(), even.port() + 1));
    end(first);
    end(second);
}

fn requested_family(place: &Place) {
    for family in [Family::V4, Family::V6] {
        let mut client = place.alice();
        let wanted = Allocate { family: Some(family), ..Allocate::default() };
        let address = relayed(&client.allocate(wanted).unwrap());
        assert_eq!(Family::of(address.ip()), family);
        end(client);
    }
}

fn additional_family(place: &Place) {
    let mut client = place.alice();
    let wanted = Allocate { additional_family: Some(Family::V6), ..Allocate::default() };
    let allocated = client.allocate(wanted).unwrap();
    let [v4, v6] = allocated.relayed[..] else { panic!("{allocated:?}") };
    for address in [v4, v6] {
        let peer = Peer::like(address);
        client.create_permission(&[peer.addr()]).unwrap();
        echo(&mut client, &peer, address, None);
    }
    end(client);
}

fn v6_client(place: &Place) {
    let mut client = place.over_v6();
    let allocated = client.allocate(Allocate::default()).unwrap();
    assert_eq!(allocated.reflexive, client.local_addr());
    let (address, peer) = (relayed(&allocated), Peer::v4());
    client.create_permission(&[peer.addr()]).unwrap();
    echo(&mut client, &peer, address, None);
    end(client);
}

fn v6_peer(place: &Place) {
    let mut client = place.alice();
    let wanted = Allocate { family: Some(Family::V6), ..Allocate::default() };
    let (address, peer) = (relayed(&client.allocate(wanted).unwrap()), Peer::v6());
    let number = client.channel_bind(None, peer.addr()).unwrap();
    echo(&mut client, &peer, address, Some(number));
    end(client);
}

fn integrity_sha1(place: &Place) {
    let config = Config::new(place.transport, "alice", "wonderland", next_seed());
    let mut client = place.client(Config { security: Security::Legacy, ..config });
    challenge(&mut client);
    let answer = ask(&mut client, ALLOCATE, vec![udp()]);
    assert_eq!(answer.code(), None);
    assert!(answer.get(INTEGRITY).is_some() && answer.get(INTEGRITY_256).is_none());
    client.refresh(None, None).expect("the client checks the signature of this one");
    end(client);
}

fn integrity_sha256(place: &Place) {
    let mut client = place.alice();
    challenge(&mut client);
    let answer = ask(&mut client, ALLOCATE, vec![udp()]);
    assert_eq!(answer.code(), None);
    assert!(answer.get(INTEGRITY_256).is_some() && answer.get(INTEGRITY).is_none());
    client.refresh(None, None).expect("the client checks the signature of this one");
    end(client);
}

fn fingerprint(place: &Place) {
    let mut client = place.alice();
    client.client().binding(now());
    let mut request = client.client().poll_transmit().unwrap();
    let answer = Answer::to(&mut client, &request);
    let last = answer.attributes.last().map(|(kind, _)| *kind);
    assert_eq!(last, Some(FINGERPRINT), "the request has one, and so has its answer");
    *request.last_mut().unwrap() ^= 1;
    client.send_bytes(&request).unwrap();
    client.client().binding(now());
    let next = client.client().poll_transmit().unwrap();
    let answer = client.exchange_bytes(&next).unwrap();
    assert_eq!(answer[8..20], next[8..20], "the broken one was not answered");
}

fn software(place: &Place) {
    let mut client = place.alice();
    client.client().allocate(now(), Allocate::default());
    let request = client.client().poll_transmit().unwrap();
    let stranger = Answer::to(&mut client, &request);
    assert_eq!((stranger.code(), stranger.get(SOFTWARE)), (Some(401), None));
    let mut client = place.challenged();
    let user = ask(&mut client, ALLOCATE, vec![udp()]);
    assert!(user.get(SOFTWARE).is_some_and(|name| name.starts_with(b"sturn")));
    end(client);
}

fn mobility(place: &Place) {
    let (mut home, mut next, peer) = (place.alice(), place.alice(), Peer::v4());
    challenge(&mut home);
    let answer = ask(&mut home, ALLOCATE, vec![udp(), Attribute::Raw(TICKET, vec![])]);
    let address = answer.relayed_v4();
    let ticket = answer.get(TICKET).expect("it was asked for").to_vec();
    home.create_permission(&[peer.addr()]).unwrap();
    echo(&mut home, &peer, address, None);
    challenge(&mut next);
    let moving = || vec![Attribute::Raw(TICKET, ticket.clone())];
    assert_eq!(ask(&mut next, REFRESH, moving()).code(), None);
    peer.send(address, b"still at home");
    assert_eq!(home.expect_data(DEADLINE).unwrap().data, b"still at home");
    // The first request at the new place, and from then on it is there.
    next.create_permission(&[peer.addr()]).unwrap();
    echo(&mut next, &peer, address, None);
    assert!(ask(&mut place.challenged(), REFRESH, moving()).code().is_some(), "used up");
    end(next);
}

impl Place<'_> {
    fn challenged(&self) -> Driver {
        let mut client = self.alice();
        challenge(&mut client);
        client
    }
}

/// Data to the peer and back, on the channel if there is one.
fn echo(client: &mut Driver, peer: &Peer, address: SocketAddr, channel: Option<u16>) {
    client.send(peer.addr(), b"there").unwrap();
    assert_eq!(peer.receive(), (b"there".to_vec(), address));
    peer.send(address, b"and back");
    let expected = Received { peer: peer.addr(), channel, data: b"and back".to_vec() };
    assert_eq!(client.expect_data(DEADLINE).unwrap(), expected);
}

/// Deletes the allocation, which over UDP would stay.
fn end(mut client: Driver) {
    client.refresh(Some(Duration::ZERO), None).expect("its own allocation can be deleted");
}

/// Makes the client know realm and nonce.
fn challenge(client: &mut Driver) {
    assert_eq!(client.refresh(None, None).unwrap_err().code(), 437, "there is no allocation yet");
}

/// A request with credentials, and its answer as it came.
fn ask(client: &mut Driver, method: u16, attributes: Vec<Attribute>) -> Answer {
    client.client().request_raw(now(), method, attributes);
    let request = client.client().poll_transmit().unwrap();
    Answer::to(client, &request)
}

fn udp() -> Attribute {
    byte(TRANSPORT, 17)
}

/// An attribute of one byte and three reserved ones.
fn byte(kind: u16, value: u8) -> Attribute {
    Attribute::Raw(kind, vec![value, 0, 0, 0])
}

/// The codes of refusals.
trait Refused {
    fn allocate_code(&mut self) -> u16;
    fn raw_code(&mut self, method: u16, attributes: Vec<Attribute>) -> u16;
}

impl Refused for Driver {
    fn allocate_code(&mut self) -> u16 {
        self.allocate(Allocate::default()).unwrap_err().code()
    }

    fn raw_code(&mut self, method: u16, attributes: Vec<Attribute>) -> u16 {
        self.request_raw(method, attributes).unwrap_err().code()
    }
}

/// A response as its bytes say.
struct Answer {
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Answer {
    /// Sends a request and reads the answer, which has its transaction id.
    fn to(client: &mut Driver, request: &[u8]) -> Self {
        let bytes = client.exchange_bytes(request).unwrap();
        assert_eq!(bytes[8..20], request[8..20], "an answer to this request");
        let mut attributes = Vec::new();
        let mut rest = &bytes[20..];
        while let [k0, k1, l0, l1, value @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            attributes.push((u16::from_be_bytes([*k0, *k1]), value[..length].to_vec()));
            rest = &value[length.next_multiple_of(4)..];
        }
        // Its client knows that it is answered, so that it is not sent again.
        client.client().handle_receive(now(), &bytes);
        client.events();
        Self { attributes }
    }

    fn get(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(k, _)| *k == kind).map(|(_, value)| &value[..])
    }

    fn code(&self) -> Option<u16> {
        let value = self.get(ERROR_CODE)?;
        Some(u16::from(value[2]) * 100 + u16::from(value[3]))
    }

    fn is_signed(&self) -> bool {
        self.get(INTEGRITY).or(self.get(INTEGRITY_256)).is_some()
    }

    fn relayed_v4(&self) -> SocketAddr {
        let value = self.get(RELAYED).expect("an Allocate was granted");
        let [_, 1, p0, p1, a, b, c, d] = value[..] else { panic!("not IPv4: {value:?}") };
        let port = u16::from_be_bytes([p0 ^ 0x21, p1 ^ 0x12]);
        SocketAddr::from(([a ^ 0x21, b ^ 0x12, c ^ 0xA4, d ^ 0x42], port))
    }
}
