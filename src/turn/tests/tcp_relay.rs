//! TCP relays (RFC 6062): connections with peers, and those of clients that are
//! bound to them.

use super::wire::{Request, allocate, bind, channel_data, family, permission, refresh, send};
use super::*;
use crate::auth::time_limited::{self, Mac};
use crate::turn::{EndReason, PeerEndReason, Traffic};

/// What an indication says, which is all that a client learns of a peer that connects.
struct Attempt {
    to: Client,
    peer: SocketAddr,
    id: u32,
}

fn bench() -> Bench {
    Bench::with(|s| s.relay.tcp = true)
}

fn requested_transport(protocol: u8) -> Request {
    Request::new(Method::ALLOCATE).with(Attribute::RequestedTransport, &[protocol, 0, 0, 0])
}

pub(super) fn allocate_tcp() -> Request {
    requested_transport(6)
}

pub(super) fn connect(peer: &str) -> Request {
    Request::new(Method::CONNECT).peer(peer)
}

pub(super) fn connection_bind(id: u32) -> Request {
    Request::new(Method::CONNECTION_BIND).with(Attribute::ConnectionId, &id.to_be_bytes())
}

pub(super) fn id_of(reply: &Reply) -> u32 {
    let value = reply.message().get_u32(Attribute::ConnectionId);
    value.expect("CONNECTION-ID is there").expect("and four bytes long")
}

impl Bench {
    /// A client with a TCP allocation: its control connection.
    fn control(&mut self, name: &str, n: u8) -> (Login, SocketAddr) {
        let login = self.login_from(client_on(Transport::Tcp, n), name, password_of(name));
        let reply = self.grant(&login, allocate_tcp());
        (login, reply.relayed()[0])
    }

    /// Another connection of the same host, with the same user.
    fn data_connection(&mut self, control: &Login, n: u8) -> Login {
        let from = SocketAddr::new(control.client.five_tuple.client.ip(), 6000 + u16::from(n));
        let from = client_at(Transport::Tcp, from, 1000 + u64::from(n));
        self.login_from(from, &control.name, &control.password)
    }

    /// Asks for a connection; the question that the shell is asked.
    fn connecting(&mut self, login: &Login, peer: &str) -> Connect {
        let asked = self.shell.connects.len();
        let outcome = self.deliver(login.client, login.sign(connect(peer)).bytes());
        assert!(matches!(outcome, Outcome::Queued), "{outcome:?}");
        assert!(self.shell.sent.is_empty(), "nothing is known yet");
        assert_eq!(self.shell.connects.len(), asked + 1);
        *self.shell.connects.back().unwrap()
    }

    /// The shell's answer: the peer took the connection.
    pub(super) fn connected(&mut self, question: Connect) -> PeerLink {
        self.shell.connects.retain(|c| *c != question);
        let link = self.open_peer(question.relay);
        self.input(Input::PeerConnected { connection: question.connection, link });
        link
    }

    /// The other answer.
    fn failed(&mut self, question: Connect) {
        self.shell.connects.retain(|c| *c != question);
        self.input(Input::PeerFailed { connection: question.connection });
    }

    fn open_peer(&mut self, relay: RelayId) -> PeerLink {
        let link = PeerLink(100 + (self.shell.peers.len() + self.shell.closed_peers.len()) as u64);
        assert!(self.shell.peers.insert(link, (relay, None)).is_none(), "a link of its own");
        link
    }

    /// The response to a request that had to wait.
    fn response(&mut self, login: &Login) -> Reply {
        let (to, reply) = self.shell.sent.pop_front().expect("an answer was sent");
        assert_eq!(to, login.client);
        assert!(login.proves(&reply), "protected: {reply:?}");
        assert_eq!(reply.get(Attribute::Software).as_deref(), Some(SOFTWARE.as_bytes()));
        reply
    }

    /// A connection to a peer, and its CONNECTION-ID.
    fn connection(&mut self, login: &Login, peer: &str) -> (PeerLink, u32) {
        let question = self.connecting(login, peer);
        let link = self.connected(question);
        let reply = self.response(login);
        assert!(reply.is_success(), "{}", reply.code());
        (link, id_of(&reply))
    }

    /// A peer connects to a relayed transport address.
    fn peer_connects(&mut self, relayed: SocketAddr, peer: &str) -> PeerLink {
        let relay = self.relay_at(relayed).expect("the listener is there");
        let link = self.open_peer(relay);
        self.input(Input::PeerAccepted { relay, peer: PeerAddr::new(addr(peer)), link });
        link
    }

    /// The same for a peer that is not let in: why.
    fn turned_away(&mut self, relayed: SocketAddr, peer: &str, reason: DropReason) {
        let before = self.server.counters().drops(reason);
        let link = self.peer_connects(relayed, peer);
        assert!(!self.shell.peers.contains_key(&link), "closed at once");
        assert!(self.shell.sent.is_empty(), "the client is not told");
        assert_eq!(self.server.counters().drops(reason), before + 1, "{reason:?}");
    }

    /// The ConnectionAttempt indication that was sent.
    fn attempt(&mut self) -> Attempt {
        let (to, reply) = self.shell.sent.pop_front().expect("the client is told");
        let message = reply.message();
        assert_eq!(message.method(), Method::CONNECTION_ATTEMPT);
        assert_eq!(message.class(), Class::Indication);
        assert!(!message.has(Attribute::MessageIntegrity), "indications are not protected");
        Attempt { to, peer: reply.address(Attribute::XorPeerAddress), id: id_of(&reply) }
    }

    /// A connection that is spliced, with the client's side.
    fn bound(&mut self, control: &Login, peer: &str, n: u8) -> (PeerLink, Login) {
        let (link, id) = self.connection(control, peer);
        let data = self.data_connection(control, n);
        self.grant(&data, connection_bind(id));
        assert_eq!(self.spliced(link), Some(data.client.link));
        (link, data)
    }

    /// The client's side of a connection with a peer that is open.
    fn spliced(&self, link: PeerLink) -> Option<Link> {
        self.shell.peers[&link].1
    }

    fn is_open(&self, link: PeerLink) -> bool {
        self.shell.peers.contains_key(&link)
    }

    /// A connection with a peer ended by itself.
    fn peer_closed(&mut self, link: PeerLink) {
        self.shell.peers.remove(&link).expect("it was open");
        self.shell.closed_peers.push(link);
        self.input(Input::PeerClosed { link });
    }

    /// Why connections with peers ended, since the last time.
    fn peer_ends(&mut self) -> Vec<PeerEndReason> {
        let events = std::mem::take(&mut self.shell.events);
        let ends = events.into_iter().filter_map(|event| match event {
            Event::PeerConnectionEnded { reason, .. } => Some(reason),
            _ => None,
        });
        ends.collect()
    }
}

// Allocate (section 5.1).

#[test]
fn rfc6062_5_1_clients_on_tcp_and_tls_can_allocate_tcp() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut b = bench();
        let alice = b.login_from(client_on(transport, 1), "alice", "wonderland");
        let reply = b.grant(&alice, allocate_tcp());
        let relay = b.relay_at(reply.relayed()[0]).expect("a listener");
        assert_eq!(b.shell.transports[&relay], RelayTransport::Tcp);
        assert_eq!(reply.address(Attribute::XorMappedAddress), addr("192.0.2.1:5000"));
        assert_eq!(reply.lifetime(), 600);
        assert!(!reply.has(Attribute::ReservationToken));
        assert_eq!(b.shell.ports, [PortRequest::Any]);
        let udp = b.login_from(client_on(transport, 2), "alice", "wonderland");
        let relayed = b.grant(&udp, allocate()).relayed()[0];
        let relay = b.relay_at(relayed).expect("a socket");
        assert_eq!(b.shell.transports[&relay], RelayTransport::Udp, "each as it was asked for");
    }
}

#[test]
fn rfc6062_5_1_clients_on_udp_and_dtls_cannot() {
    for transport in [Transport::Udp, Transport::Dtls] {
        let mut b = bench();
        let alice = b.login_from(client_on(transport, 1), "alice", "wonderland");
        assert_eq!(b.refuse(&alice, allocate_tcp()), 400);
        b.assert_idle();
    }
}

#[test]
fn rfc6062_5_1_what_belongs_to_datagrams_is_400() {
    let mut b = bench();
    let alice = b.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    for (attribute, value) in [
        (Attribute::EvenPort, &[0x00][..]),
        (Attribute::EvenPort, &[0x80]),
        (Attribute::ReservationToken, &[1; 8]),
        (Attribute::DontFragment, &[]),
    ] {
        assert_eq!(b.refuse(&alice, allocate_tcp().with(attribute, value)), 400, "{attribute:?}");
    }
    b.assert_idle();
    b.grant(&alice, allocate_tcp());
}

#[test]
fn rfc6062_5_1_other_transports_are_442_and_so_is_tcp_where_it_is_off() {
    let mut b = bench();
    let alice = b.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    for protocol in [0, 1, 132, 255] {
        assert_eq!(b.refuse(&alice, requested_transport(protocol)), 442);
    }
    let mut off = Bench::new();
    for transport in [Transport::Tcp, Transport::Tls, Transport::Udp] {
        let alice = off.login_from(client_on(transport, 1), "alice", "wonderland");
        assert_eq!(off.refuse(&alice, allocate_tcp()), 442);
    }
    // The methods do not exist there.
    let (alice, _) = off.allocated_on(Transport::Tcp, 1);
    for request in [connect(PEER), connection_bind(7)] {
        let reason = off.dropped(alice.client, alice.sign(request).bytes());
        assert_eq!(reason, DropReason::UnknownMethod);
    }
}

#[test]
fn rfc6062_5_1_everything_else_of_an_allocate_is_as_for_udp() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    assert_eq!(b.refuse(&alice, allocate_tcp()), 437, "one allocation per five-tuple");
    let two = b.login_from(client_on(Transport::Tcp, 2), "alice", "wonderland");
    let both = allocate_tcp().with(Attribute::AdditionalAddressFamily, &family(Family::V6));
    let reply = b.grant(&two, both);
    let [v4, v6] = reply.relayed()[..] else { panic!("one of each family") };
    assert!(v4.is_ipv4() && v6.is_ipv6());
    let (to_v4, to_v6) = (b.connecting(&two, PEER), b.connecting(&two, PEER_V6));
    assert_eq!((to_v4.relay, to_v6.relay), (b.relay_at(v4).unwrap(), b.relay_at(v6).unwrap()));
}

#[test]
fn rfc6062_4_2_a_tcp_allocation_is_refreshed_and_deleted_like_any_other() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    b.advance(secs(500));
    assert_eq!(b.grant(&alice, refresh(None)).lifetime(), 600);
    b.advance(secs(599));
    assert_eq!(b.server.allocations(), 1);
    b.grant(&alice, refresh(Some(0)));
    b.assert_idle();
    let (_, _) = b.control("alice", 2);
    b.advance(secs(600));
    b.assert_idle();
}

#[test]
fn rfc6062_3_datagrams_are_not_relayed_by_a_tcp_allocation() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    let out = send(PEER, b"data");
    assert_eq!(b.carry(alice.client, out.bytes()), Err(DropReason::RelayTransport));
    assert_eq!(b.refuse(&alice, bind(0x4000, PEER)), 403);
    let out = channel_data(0x4000, b"data");
    assert_eq!(b.carry(alice.client, &out), Err(DropReason::NoChannel));
}

#[test]
fn rfc6062_3_datagrams_of_another_allocation_do_not_reach_a_tcp_allocation() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    let (bob, from) = b.allocated("bob", 2);
    b.grant(&alice, permission(&[&from.to_string()]));
    b.grant(&bob, permission(&[&relayed.to_string()]));
    // They leave through the kernel, where no UDP socket has the port.
    let carried = b.carry(bob.client, send(&relayed.to_string(), b"data").bytes()).unwrap();
    assert_eq!(carried.for_peer(), (relayed, b"data".to_vec()));
}

// Connect (section 5.2).

#[test]
fn rfc6062_5_2_connect_is_answered_with_an_id_when_the_peer_took_it() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    let request = alice.sign(connect(PEER));
    assert!(matches!(b.deliver(alice.client, request.bytes()), Outcome::Queued));
    let question = b.shell.connects[0];
    assert_eq!(question.relay, b.relay_at(relayed).unwrap(), "from the relayed address");
    assert_eq!((question.peer, question.relays_only), (addr(PEER), false));
    b.connected(question);
    let reply = b.response(&alice);
    assert!(reply.is_success());
    assert_eq!(reply.bytes[4..20], request.bytes()[4..20], "of the same transaction");
    assert_eq!(reply.message().method(), Method::CONNECT);
    assert_eq!(id_of(&reply), question.connection.0);
    assert!(b.server.counters().requests().contains(&(
        Method::CONNECT,
        crate::turn::RequestResult::Success,
        1
    )));
}

#[test]
fn rfc6062_5_2_connect_needs_no_permission_and_makes_none() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    b.connection(&alice, PEER);
    b.turned_away(relayed, "198.51.100.7:7001", DropReason::NoPermission);
}

#[test]
fn rfc6062_5_2_connect_without_an_allocation_is_437() {
    let mut b = bench();
    let alice = b.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    assert_eq!(b.refuse(&alice, connect(PEER)), 437);
    let (alice, _) = b.control("alice", 2);
    b.skip(secs(600));
    assert_eq!(b.refuse(&alice, connect(PEER)), 437, "an expired one is none");
    let (bobs, _) = b.control("bob", 3);
    let alice = Login { name: "alice".into(), password: "wonderland".into(), ..bobs };
    assert_eq!(b.refuse(&alice, connect(PEER)), 441);
    assert!(b.shell.connects.is_empty());
}

#[test]
fn rfc6062_5_2_connect_on_a_udp_allocation_is_403() {
    let mut b = bench();
    let (alice, _) = b.allocated_on(Transport::Tcp, 1);
    assert_eq!(b.refuse(&alice, connect(PEER)), 403);
    assert!(b.shell.connects.is_empty());
}

#[test]
fn rfc6062_5_2_a_peer_that_is_missing_or_malformed_is_400() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    assert_eq!(b.refuse(&alice, Request::new(Method::CONNECT)), 400);
    for value in [&[][..], &[0, 1, 2, 3], &[0, 3, 1, 1, 1, 1, 1, 1], &[0, 1, 0, 0, 0, 0, 0, 0, 0]] {
        let request = Request::new(Method::CONNECT).with(Attribute::XorPeerAddress, value);
        assert_eq!(b.refuse(&alice, request), 400, "{value:?}");
    }
}

#[test]
fn rfc6062_5_2_a_peer_that_policy_refuses_is_403() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    for peer in [
        "127.0.0.1:80",
        "10.1.2.3:80",
        "169.254.169.254:80",
        "203.0.113.1:3478",
        "[::ffff:127.0.0.1]:80",
        "198.51.100.7:0",
        "203.0.113.5:22",
    ] {
        assert_eq!(b.refuse(&alice, connect(peer)), 403, "{peer}");
    }
    assert!(matches!(b.shell.events.last(), Some(Event::PeerDenied { .. })));
    let six = b.login_from(client_on(Transport::Tcp, 2), "alice", "wonderland");
    let request = allocate_tcp().with(Attribute::RequestedAddressFamily, &family(Family::V6));
    b.grant(&six, request);
    // Wrapped in whatever way, private stays private.
    for peer in ["[::1]:80", "[64:ff9b::10.1.2.3]:80", "[2002:7f00:1::]:80", "[::127.0.0.1]:80"] {
        assert_eq!(b.refuse(&six, connect(peer)), 403, "{peer}");
    }
    assert!(b.shell.connects.is_empty());
}

#[test]
fn rfc6062_5_2_a_peer_of_another_family_is_443() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    assert_eq!(b.refuse(&alice, connect(PEER_V6)), 443);
}

#[test]
fn rfc6062_5_2_a_second_connection_to_a_peer_is_446() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    let question = b.connecting(&alice, PEER);
    assert_eq!(b.refuse(&alice, connect(PEER)), 446, "while it is being made");
    let link = b.connected(question);
    let id = id_of(&b.response(&alice));
    assert_eq!(b.refuse(&alice, connect(PEER)), 446, "while it waits to be bound");
    let data = b.data_connection(&alice, 1);
    b.grant(&data, connection_bind(id));
    assert_eq!(b.refuse(&alice, connect(PEER)), 446, "while bytes pass");
    assert_eq!(b.refuse(&alice, connect("[::ffff:198.51.100.7]:7000")), 446, "however written");
    b.peer_closed(link);
    b.connection(&alice, PEER);
    // Nor is there a second one to a peer that came by itself.
    b.grant(&alice, permission(&[OTHER_PEER]));
    b.peer_connects(relayed, OTHER_PEER);
    b.attempt();
    assert_eq!(b.refuse(&alice, connect(OTHER_PEER)), 446);
}

#[test]
fn rfc6062_5_2_other_ports_and_other_allocations_are_other_connections() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (bob, _) = b.control("bob", 2);
    let mut ids = BTreeSet::new();
    for (login, peer) in
        [(&alice, PEER), (&alice, "198.51.100.7:7001"), (&alice, OTHER_PEER), (&bob, PEER)]
    {
        ids.insert(b.connection(login, peer).1);
    }
    assert_eq!(ids.len(), 4, "each has an id of its own");
}

#[test]
fn rfc6062_5_2_a_connection_that_fails_is_447() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let question = b.connecting(&alice, PEER);
    b.failed(question);
    assert_eq!(b.response(&alice).code(), 447);
    assert!(b.shell.cancelled.is_empty(), "the shell has given it up itself");
    assert_eq!(b.peer_ends(), [PeerEndReason::Failed]);
    b.connection(&alice, PEER);
}

#[test]
fn rfc6062_5_2_a_connection_that_takes_over_30_seconds_is_447() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let question = b.connecting(&alice, PEER);
    b.advance(secs(29));
    assert!(b.shell.sent.is_empty(), "30 seconds at least");
    b.advance(secs(2));
    assert_eq!(b.response(&alice).code(), 447);
    assert_eq!(b.shell.cancelled, [question.connection]);
    assert_eq!(b.peer_ends(), [PeerEndReason::TimedOut]);
    // An answer that was under way already changes nothing.
    let link = b.open_peer(question.relay);
    b.input(Input::PeerConnected { connection: question.connection, link });
    assert!(!b.is_open(link));
    b.input(Input::PeerFailed { connection: question.connection });
    assert!(b.shell.sent.is_empty(), "answered once");
    b.connection(&alice, PEER);
}

#[test]
fn rfc6062_5_2_a_late_shell_still_answers_a_connect() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let question = b.connecting(&alice, PEER);
    // The timer is due, but nobody has woken yet: the peer was there first.
    b.skip(secs(31));
    b.connected(question);
    assert!(b.response(&alice).is_success());
    b.advance(secs(1));
    assert_eq!(b.shell.peers.len(), 1, "the timer of connecting is not that of binding");
}

#[test]
fn rfc6062_5_2_a_connection_that_is_not_bound_in_30_seconds_is_closed() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    // The peer took its time; that of binding begins with its answer.
    let question = b.connecting(&alice, PEER);
    b.advance(secs(10));
    let link = b.connected(question);
    let id = id_of(&b.response(&alice));
    b.advance(secs(29));
    assert!(b.is_open(link));
    b.advance(secs(2));
    assert_eq!(b.shell.closed_peers, [link]);
    assert_eq!(b.peer_ends(), [PeerEndReason::NotBound]);
    let data = b.data_connection(&alice, 1);
    assert_eq!(b.refuse(&data, connection_bind(id)), 400);
    b.connection(&alice, PEER);
}

#[test]
fn rfc6062_5_2_a_bound_connection_lasts_as_long_as_its_allocation() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, _) = b.bound(&alice, PEER, 1);
    for _ in 0..5 {
        b.advance(secs(500));
        b.grant(&alice, refresh(None));
    }
    assert!(b.is_open(link));
    b.advance(secs(601));
    b.assert_idle();
}

#[test]
fn connections_of_an_allocation_are_bounded() {
    let mut b = Bench::with(|s| {
        s.relay.tcp = true;
        s.limits.peer_connections = 3;
    });
    let (alice, relayed) = b.control("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    b.connecting(&alice, "198.51.100.7:1");
    let (link, _) = b.connection(&alice, "198.51.100.7:2");
    b.peer_connects(relayed, "198.51.100.7:3");
    b.attempt();
    assert_eq!(b.refuse(&alice, connect("198.51.100.7:4")), 508);
    b.turned_away(relayed, "198.51.100.7:5", DropReason::TooManyConnections);
    b.peer_closed(link);
    b.connection(&alice, "198.51.100.7:4");
    let (bob, _) = b.control("bob", 2);
    b.connection(&bob, PEER);
}

#[test]
fn connections_of_a_user_are_half_of_all_at_most() {
    let mut b = Bench::with(|s| {
        s.relay.tcp = true;
        s.limits.all_peer_connections = 5;
    });
    let (first, _) = b.control("alice", 1);
    let (second, relayed) = b.control("alice", 2);
    b.grant(&second, permission(&[PEER]));
    b.connection(&first, "198.51.100.7:1");
    let (link, _) = b.connection(&first, "198.51.100.7:2");
    b.peer_connects(relayed, "198.51.100.7:3");
    b.attempt();
    assert_eq!(b.refuse(&first, connect("198.51.100.7:4")), 508);
    assert_eq!(b.refuse(&second, connect("198.51.100.7:4")), 508);
    b.turned_away(relayed, "198.51.100.7:5", DropReason::TooManyConnections);

    let (bob, _) = b.control("bob", 3);
    b.connection(&bob, "198.51.100.7:1");
    let (last, _) = b.connection(&bob, "198.51.100.7:2");
    b.peer_closed(link);
    b.connection(&bob, "198.51.100.7:3");
    assert_eq!(b.refuse(&first, connect("198.51.100.7:4")), 508, "now the shard has all");
    b.peer_closed(last);
    b.connection(&first, "198.51.100.7:4");
}

#[test]
fn bytes_that_pass_are_counted_for_the_allocation() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, _) = b.bound(&alice, PEER, 1);
    b.input(Input::PeerTraffic { link, bytes_to_peer: 10, bytes_to_client: 3 });
    b.input(Input::PeerTraffic { link, bytes_to_peer: 0, bytes_to_client: 4 });
    b.peer_closed(link);
    // Too late: nobody is there to have it counted.
    b.input(Input::PeerTraffic { link, bytes_to_peer: 100, bytes_to_client: 100 });
    b.grant(&alice, refresh(Some(0)));
    let expected = Traffic { bytes_to_peers: 10, bytes_to_client: 7, ..Traffic::default() };
    assert_eq!(b.server.counters().traffic, expected);
    let ended = b.shell.events.iter().find_map(|event| match event {
        Event::AllocationEnded { traffic, .. } => Some(*traffic),
        _ => None,
    });
    assert_eq!(ended, Some(expected));
}

#[test]
fn connects_to_relays_of_this_server_go_to_the_address_as_bound() {
    let mut b = Bench::with(|s| {
        s.relay.tcp = true;
        relay_on(s, &[relay_address("10.0.0.5", RELAY_V4)]);
    });
    let (alice, a) = b.control("alice", 1);
    let (bob, z) = b.control("bob", 2);
    assert_eq!((a.ip(), z.ip()), (addr("203.0.113.5:0").ip(), addr("203.0.113.5:0").ip()));
    b.grant(&bob, permission(&[&a.to_string()]));
    let question = b.connecting(&alice, &z.to_string());
    assert_eq!(question.peer, SocketAddr::new("10.0.0.5".parse().unwrap(), z.port()));
    assert!(question.relays_only, "other ports of this server are not reached");
    // The other side sees a peer by the address that its client knows.
    let local = SocketAddr::new("10.0.0.5".parse().unwrap(), a.port());
    b.peer_connects(z, &local.to_string());
    assert_eq!(b.attempt().peer, a);
    b.connected(question);
    assert!(b.response(&alice).is_success());
}

// ConnectionAttempt (section 5.3).

#[test]
fn rfc6062_5_3_a_client_is_told_of_a_peer_that_connects() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    let first = b.peer_connects(relayed, PEER);
    let one = b.attempt();
    assert_eq!((one.to, one.peer), (alice.client, addr(PEER)), "over the control connection");
    let second = b.peer_connects(relayed, "198.51.100.7:9999");
    let two = b.attempt();
    assert_eq!(two.peer, addr("198.51.100.7:9999"), "a permission is for every port");
    assert_ne!(one.id, two.id);
    for (n, link, id) in [(1, first, one.id), (2, second, two.id)] {
        let data = b.data_connection(&alice, n);
        b.grant(&data, connection_bind(id));
        assert_eq!(b.spliced(link), Some(data.client.link));
    }
}

#[test]
fn rfc6062_5_3_a_peer_without_permission_is_closed_at_once() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    b.turned_away(relayed, PEER, DropReason::NoPermission);
    b.grant(&alice, permission(&[OTHER_PEER]));
    b.turned_away(relayed, PEER, DropReason::NoPermission);
    b.grant(&alice, permission(&[PEER]));
    let link = b.peer_connects(relayed, PEER);
    // A permission is asked for when a peer connects, not for what it sends then.
    let id = b.attempt().id;
    let data = b.data_connection(&alice, 1);
    b.grant(&data, connection_bind(id));
    b.advance(secs(301));
    b.turned_away(relayed, "198.51.100.7:7001", DropReason::NoPermission);
    assert!(b.is_open(link));
}

#[test]
fn rfc6062_5_3_a_peer_that_policy_refuses_is_closed_at_once() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    b.grant(&alice, permission(&[&format!("{RELAY_V4}:50000")]));
    // The address has a permission, but only its relay ports are peers.
    b.turned_away(relayed, &format!("{RELAY_V4}:22"), DropReason::PeerDenied);
    b.peer_connects(relayed, &format!("{RELAY_V4}:50000"));
    b.attempt();
}

#[test]
fn rfc6062_5_3_a_peer_that_is_not_bound_in_30_seconds_is_closed() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    let link = b.peer_connects(relayed, PEER);
    let id = b.attempt().id;
    b.advance(secs(29));
    assert!(b.is_open(link));
    b.skip(secs(1));
    let data = b.data_connection(&alice, 1);
    assert_eq!(b.refuse(&data, connection_bind(id)), 400, "also while nobody has woken");
    b.advance(secs(1));
    assert_eq!(b.shell.closed_peers, [link]);
}

#[test]
fn rfc6062_5_3_a_peer_whose_relay_is_gone_is_closed() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    let relay = b.relay_at(relayed).unwrap();
    b.grant(&alice, refresh(Some(0)));
    let link = b.open_peer(relay);
    b.input(Input::PeerAccepted { relay, peer: PeerAddr::new(addr(PEER)), link });
    assert_eq!(b.shell.closed_peers, [link]);
    assert_eq!(b.server.counters().drops(DropReason::RelayGone), 1);
    b.assert_idle();
}

#[test]
fn a_peer_that_comes_again_takes_the_place_of_its_earlier_connection() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    let first = b.peer_connects(relayed, PEER);
    let old = b.attempt().id;
    let second = b.peer_connects(relayed, PEER);
    let new = b.attempt().id;
    assert!(!b.is_open(first) && b.is_open(second));
    assert_eq!(b.peer_ends(), [PeerEndReason::Replaced]);
    let data = b.data_connection(&alice, 1);
    assert_eq!(b.refuse(&data, connection_bind(old)), 400);
    b.grant(&data, connection_bind(new));
}

#[test]
fn a_peer_that_connects_while_it_is_connected_to_is_closed() {
    let mut b = bench();
    let (alice, relayed) = b.control("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    let question = b.connecting(&alice, PEER);
    b.turned_away(relayed, PEER, DropReason::ConnectionExists);
    b.connected(question);
    assert!(b.response(&alice).is_success());
}

// ConnectionBind (section 5.4).

#[test]
fn rfc6062_5_4_bytes_pass_behind_the_response() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, id) = b.connection(&alice, PEER);
    let data = b.data_connection(&alice, 1);
    let reply = b.grant(&data, connection_bind(id));
    // That the response went out before is checked by the shell of the bench.
    assert_eq!(reply.message().method(), Method::CONNECTION_BIND);
    assert_eq!(b.spliced(link), Some(data.client.link));
    match b.shell.events.last() {
        Some(Event::PeerConnectionBound { five_tuple, username, peer, .. }) => {
            assert_eq!((*five_tuple, &**username), (data.client.five_tuple, "alice"));
            assert_eq!(peer.socket(), addr(PEER));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc6062_5_4_the_data_connection_may_be_of_another_transport_and_address() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, id) = b.connection(&alice, PEER);
    let from = client_at(Transport::Tls, addr("192.0.2.99:7000"), 99);
    let data = b.login_from(from, "alice", "wonderland");
    b.grant(&data, connection_bind(id));
    assert_eq!(b.spliced(link), Some(Link(99)));
}

#[test]
fn rfc6062_5_4_over_udp_and_dtls_it_is_400() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, id) = b.connection(&alice, PEER);
    for transport in [Transport::Udp, Transport::Dtls] {
        let from = client_on(transport, 9);
        let data = b.login_from(from, "alice", "wonderland");
        assert_eq!(b.refuse(&data, connection_bind(id)), 400);
    }
    assert_eq!(b.spliced(link), None);
}

#[test]
fn rfc6062_5_4_an_id_that_is_missing_malformed_or_unknown_is_400() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, id) = b.connection(&alice, PEER);
    let data = b.data_connection(&alice, 1);
    assert_eq!(b.refuse(&data, Request::new(Method::CONNECTION_BIND)), 400);
    for value in [&[][..], &[1, 2, 3], &[1, 2, 3, 4, 5]] {
        let request = Request::new(Method::CONNECTION_BIND).with(Attribute::ConnectionId, value);
        assert_eq!(b.refuse(&data, request), 400, "{value:?}");
    }
    for wrong in [0, !id, id ^ 1, id ^ 0x8000_0000] {
        assert_eq!(b.refuse(&data, connection_bind(wrong)), 400);
    }
    assert_eq!(b.spliced(link), None);
    b.grant(&data, connection_bind(id));
}

#[test]
fn rfc6062_5_4_a_connection_is_bound_once() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, id) = b.connection(&alice, PEER);
    let first = b.data_connection(&alice, 1);
    b.grant(&first, connection_bind(id));
    let second = b.data_connection(&alice, 2);
    assert_eq!(b.refuse(&second, connection_bind(id)), 400);
    assert_eq!(b.spliced(link), Some(first.client.link));
}

#[test]
fn rfc6062_5_4_a_connection_that_is_still_being_made_cannot_be_bound() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let question = b.connecting(&alice, PEER);
    let data = b.data_connection(&alice, 1);
    assert_eq!(b.refuse(&data, connection_bind(question.connection.0)), 400);
    b.connected(question);
    assert!(b.response(&alice).is_success());
    b.grant(&data, connection_bind(question.connection.0));
}

#[test]
fn rfc6062_5_4_only_the_user_of_the_allocation_can_bind() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, id) = b.connection(&alice, PEER);
    let bob = b.login_from(client_on(Transport::Tcp, 2), "bob", "builder");
    assert_eq!(b.refuse(&bob, connection_bind(id)), 400);
    let wrong = Login { password: "guess".into(), ..b.data_connection(&alice, 3) };
    assert_eq!(b.ask(wrong.client, wrong.sign(connection_bind(id)).bytes()).code(), 401);
    let nobody = connection_bind(id);
    assert_eq!(b.ask(wrong.client, nobody.bytes()).code(), 401);
    assert_eq!(b.spliced(link), None);
}

#[test]
fn rfc6062_5_4_a_connection_with_an_allocation_cannot_be_a_data_connection() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, id) = b.connection(&alice, PEER);
    assert_eq!(b.refuse(&alice, connection_bind(id)), 400, "not the control connection itself");
    let (other, _) = b.control("alice", 2);
    assert_eq!(b.refuse(&other, connection_bind(id)), 400);
    assert_eq!(b.spliced(link), None);
}

#[test]
fn rfc6062_5_4_the_nonce_of_the_control_connection_will_do() {
    let mut b = Bench::with(|s| {
        s.relay.tcp = true;
        s.auth.nonce_lifetime = secs(300);
    });
    let (alice, _) = b.control("alice", 1);
    let (bob, _) = b.control("bob", 2);
    let (_, id) = b.connection(&alice, PEER);
    let from = b.data_connection(&alice, 1).client;
    let bobs = Login { client: from, nonce: bob.nonce, ..alice.clone() };
    assert_eq!(b.ask(from, bobs.sign(connection_bind(id)).bytes()).code(), 438);
    let data = Login { client: from, ..alice.clone() };
    // For nothing else, and not when it is old.
    let other = connect(PEER).with(Attribute::ConnectionId, &id.to_be_bytes());
    assert_eq!(b.ask(from, data.sign(other).bytes()).code(), 438);
    b.grant(&data, connection_bind(id));
    b.advance(secs(290));
    let fresh = b.data_connection(&alice, 2);
    let again = Login { nonce: fresh.nonce, ..alice.clone() };
    assert_eq!(b.ask(alice.client, again.sign(refresh(None)).bytes()).code(), 438);
    let (_, id) = b.connection(&alice, OTHER_PEER);
    b.advance(secs(11));
    let old = Login { client: fresh.client, ..alice.clone() };
    assert_eq!(b.ask(old.client, old.sign(connection_bind(id)).bytes()).code(), 438);
    let from = client_on(Transport::Tcp, 9);
    let moved = Login { client: from, ..alice };
    assert_eq!(b.ask(from, moved.sign(allocate_tcp()).bytes()).code(), 438);
}

#[test]
fn rfc6062_5_4_every_style_of_credentials_will_do() {
    for style in [
        Style::Legacy,
        Style::Modern(Algorithm::Md5),
        Style::Modern(Algorithm::Sha256),
        Style::Anonymous(Algorithm::Sha256),
    ] {
        let mut b = bench();
        let (alice, _) = b.control("alice", 1);
        let alice = alice.styled(style);
        let (link, id) = b.connection(&alice, PEER);
        let data = b.data_connection(&alice, 1).styled(style);
        b.grant(&data, connection_bind(id));
        assert_eq!(b.spliced(link), Some(data.client.link));
    }
}

#[test]
fn a_data_connection_lives_on_the_credential_of_its_allocation() {
    let secret = directory(&["secret"]);
    let mut b = Bench::with(|s| {
        s.relay.tcp = true;
        s.auth.directory = Some(secret);
    });
    let (name, password) = time_limited::issue("secret", "carol", EPOCH + 60, Mac::Sha1, ':');
    let carol = b.login_from(client_on(Transport::Tcp, 1), &name, &password);
    b.grant(&carol, allocate_tcp());
    b.advance(secs(120));
    let (link, id) = b.connection(&carol, PEER);
    let data = b.data_connection(&carol, 1);
    b.grant(&data, connection_bind(id));
    assert_eq!(b.spliced(link), Some(data.client.link));
    assert_eq!(b.ask(data.client, data.sign(allocate_tcp()).bytes()).code(), 401, "expired");
}

/// A client with a TCP allocation, whose user is known outside only.
fn outsider() -> (Bench, Login) {
    let mut b = Bench::with(|s| {
        s.relay.tcp = true;
        s.auth.external = true;
    });
    let eve = b.login_from(client_on(Transport::Tcp, 1), "eve", "apple");
    assert!(matches!(b.deliver(eve.client, eve.sign(allocate_tcp()).bytes()), Outcome::Queued));
    b.look_up_eve();
    assert!(b.response(&eve).is_success());
    (b, eve)
}

impl Bench {
    fn look_up_eve(&mut self) {
        let (ticket, _) = self.shell.lookups.pop_front().expect("asked for");
        let keys = StoredKeys::from_password("eve", REALM, "apple");
        self.input(Input::Key { ticket, user: Some(("eve".into(), keys)) });
    }
}

#[test]
fn a_data_connection_needs_no_second_lookup() {
    let (mut b, eve) = outsider();
    let (link, id) = b.connection(&eve, PEER);
    let data = b.data_connection(&eve, 1);
    b.grant(&data, connection_bind(id));
    assert!(b.shell.lookups.is_empty());
    assert_eq!(b.spliced(link), Some(data.client.link));
}

#[test]
fn a_bind_that_waited_for_a_lookup_is_spliced_behind_its_response() {
    let (mut b, eve) = outsider();
    let (link, id) = b.connection(&eve, PEER);
    // With another algorithm than the allocation's the key is not at hand.
    let data = b.data_connection(&eve, 1).styled(Style::Modern(Algorithm::Sha256));
    let request = data.sign(connection_bind(id));
    assert!(matches!(b.deliver(data.client, request.bytes()), Outcome::Queued));
    assert_eq!(b.spliced(link), None);
    b.look_up_eve();
    assert!(b.response(&data).is_success());
    assert_eq!(b.spliced(link), Some(data.client.link));
}

// Several shards.

/// Two shards of one server.
fn shards(count: u16) -> Vec<Bench> {
    let mut settings = settings();
    settings.relay.tcp = true;
    settings.auth.external = true;
    let (settings, start) = (Arc::new(settings), start());
    let shard = |index| Bench::shard(Shard { index, count }, settings.clone(), start);
    (0..count).map(shard).collect()
}

#[test]
fn an_id_names_its_shard() {
    let mut shards = shards(3);
    for (index, b) in (0..).zip(&mut shards) {
        let (alice, _) = b.control("alice", 1);
        for port in 1..20 {
            let (_, id) = b.connection(&alice, &format!("198.51.100.7:{port}"));
            assert_eq!(id >> 30, index);
        }
    }
}

#[test]
fn a_bind_for_another_shard_is_handed_over_and_granted_there() {
    let mut shards = shards(2);
    let [a, z] = &mut shards[..] else { panic!("two shards") };
    let (alice, _) = z.control("alice", 1);
    let (link, id) = z.connection(&alice, PEER);
    let from = client_at(Transport::Tcp, addr("192.0.2.1:6001"), 77);
    // Nothing is looked at before: not even who asks.
    let plain = connection_bind(id);
    assert!(matches!(a.deliver(from, plain.bytes()), Outcome::HandOver(1)));
    assert_eq!(z.ask(from, plain.bytes()).code(), 401);
    // The nonce of one shard is good for all.
    let data = Login { client: from, ..a.login_from(from, "alice", "wonderland") };
    let request = data.sign(connection_bind(id));
    assert!(matches!(a.deliver(from, request.bytes()), Outcome::HandOver(1)));
    assert!(a.shell.sent.is_empty() && a.server.counters().total_drops() == 0);
    let there = Client { link: Link(88), ..from };
    assert!(z.ask(there, request.bytes()).is_success());
    assert_eq!(z.spliced(link), Some(Link(88)), "by the handle that it has there");
}

#[test]
fn an_id_of_a_shard_that_is_not_there_is_unknown() {
    let mut shards = shards(3);
    let b = &mut shards[0];
    let alice = b.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    assert_eq!(b.refuse(&alice, connection_bind(0xc000_0000)), 400);
    assert_eq!(b.refuse(&alice, connection_bind(0x3fff_ffff)), 400, "nor is one of its own");
}

#[test]
fn a_client_of_whom_there_is_something_here_is_not_handed_over() {
    let mut shards = shards(2);
    let b = &mut shards[0];
    let there = 0x8000_0001;
    let (alice, _) = b.control("alice", 1);
    assert_eq!(b.refuse(&alice, connection_bind(there)), 400);
    let udp = b.login("alice", 2);
    assert_eq!(b.refuse(&udp, connection_bind(there)), 400);
    // A request of the client waits here for its keys.
    let eve = b.login_from(client_on(Transport::Tcp, 3), "eve", "apple");
    assert!(matches!(b.deliver(eve.client, eve.sign(allocate_tcp()).bytes()), Outcome::Queued));
    let reason = b.dropped(eve.client, eve.sign(connection_bind(there)).bytes());
    assert_eq!(reason, DropReason::InProgress);
}

// The end (section 5.5).

#[test]
fn rfc6062_5_5_connections_end_with_their_allocation() {
    for reason in [EndReason::Deleted, EndReason::Expired, EndReason::ConnectionClosed] {
        let mut b = bench();
        let (alice, relayed) = b.control("alice", 1);
        b.advance(secs(580));
        b.grant(&alice, permission(&[PEER]));
        b.bound(&alice, PEER, 1);
        b.connection(&alice, OTHER_PEER);
        b.peer_connects(relayed, "198.51.100.7:9");
        b.attempt();
        let question = b.connecting(&alice, "198.51.100.7:10");
        b.peer_ends();
        let Client { five_tuple, link } = alice.client;
        match reason {
            EndReason::Deleted => {
                // The Connect that waits is answered before what has ended it.
                let request = alice.sign(refresh(Some(0)));
                let outcome = b.deliver(alice.client, request.bytes());
                assert!(matches!(&outcome, Outcome::Reply(reply) if reply.is_success()));
                assert_eq!(b.response(&alice).code(), 447);
            }
            EndReason::Expired => {
                b.advance(secs(21));
                assert_eq!(b.response(&alice).code(), 447);
            }
            _ => b.input(Input::LinkClosed { five_tuple, link }),
        }
        assert!(b.shell.sent.is_empty(), "nobody is there to be answered");
        assert_eq!(b.shell.closed_peers.len(), 3);
        assert_eq!(b.shell.cancelled, [question.connection]);
        let why = match reason {
            EndReason::ConnectionClosed => PeerEndReason::ControlClosed,
            _ => PeerEndReason::RelayClosed,
        };
        assert_eq!(b.peer_ends(), [why; 4]);
        b.assert_idle();
    }
}

#[test]
fn rfc6062_5_5_connections_of_one_family_end_with_it() {
    let mut b = bench();
    let alice = b.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    b.grant(&alice, allocate_tcp().with(Attribute::AdditionalAddressFamily, &family(Family::V6)));
    let (four, _) = b.connection(&alice, PEER);
    let (six, _) = b.connection(&alice, PEER_V6);
    let only = refresh(Some(0)).with(Attribute::RequestedAddressFamily, &family(Family::V6));
    b.grant(&alice, only);
    assert!(b.is_open(four) && !b.is_open(six));
}

#[test]
fn rfc6062_5_5_a_connection_that_has_ended_is_forgotten() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (bound, data) = b.bound(&alice, PEER, 1);
    b.peer_closed(bound);
    b.input(Input::PeerClosed { link: bound });
    let (pending, id) = b.connection(&alice, OTHER_PEER);
    b.peer_closed(pending);
    assert_eq!(b.peer_ends(), [PeerEndReason::Closed; 2]);
    let other = b.data_connection(&alice, 2);
    assert_eq!(b.refuse(&other, connection_bind(id)), 400);
    // A shell that tells of the client's side as well does no harm.
    let Client { five_tuple, link } = data.client;
    b.input(Input::LinkClosed { five_tuple, link });
    assert_eq!(b.server.allocations(), 1);
    b.advance(secs(60));
    b.connection(&alice, PEER);
}

#[test]
fn a_data_connection_that_ends_before_its_bind_changes_nothing() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let (link, id) = b.connection(&alice, PEER);
    let data = b.data_connection(&alice, 1);
    let Client { five_tuple, link: client } = data.client;
    b.input(Input::LinkClosed { five_tuple, link: client });
    let data = b.data_connection(&alice, 2);
    b.grant(&data, connection_bind(id));
    assert!(b.is_open(link));
}

#[test]
fn a_server_that_stops_closes_every_connection() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    b.bound(&alice, PEER, 1);
    b.connecting(&alice, OTHER_PEER);
    b.server.stop(b.now);
    b.settle();
    assert_eq!(b.response(&alice).code(), 447);
    b.assert_idle();
}

// Attributes (section 6).

#[test]
fn rfc6062_6_2_1_connection_id_belongs_to_its_methods_only() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    for request in [allocate_tcp(), refresh(None), permission(&[PEER]), bind(0x4000, PEER)] {
        assert_eq!(b.refuse(&alice, request.with(Attribute::ConnectionId, &[0; 4])), 420);
    }
    let binding = Request::new(Method::BINDING).with(Attribute::ConnectionId, &[0; 4]);
    let reply = b.ask(alice.client, binding.bytes());
    assert_eq!((reply.code(), reply.unknown()), (420, vec![0x002a]));
}

#[test]
fn rfc6062_6_1_a_client_cannot_send_what_only_servers_do() {
    let mut b = bench();
    let (alice, _) = b.control("alice", 1);
    let request = alice.sign(Request::new(Method::CONNECTION_ATTEMPT));
    assert_eq!(b.dropped(alice.client, request.bytes()), DropReason::UnknownMethod);
    let (_, id) = b.connection(&alice, PEER);
    for method in [Method::CONNECT, Method::CONNECTION_BIND, Method::CONNECTION_ATTEMPT] {
        let indication =
            Request::indication(method).with(Attribute::ConnectionId, &id.to_be_bytes()).peer(PEER);
        assert_eq!(b.dropped(alice.client, indication.bytes()), DropReason::Unexpected);
    }
}
