//! Which peers may be reached, asked at every way out (RFC 8656 sections 10.2,
//! 12.2, 21.4), and peers that are relays of this server.

use super::wire::{allocate, bind, channel_data, family, permission, send};
use super::*;

const DENIED: [&str; 12] = [
    "127.0.0.1:80",
    "0.0.0.0:80",
    "10.1.2.3:80",
    "172.16.0.1:80",
    "192.168.1.1:80",
    "169.254.169.254:80",
    "100.64.0.1:80",
    "224.0.0.1:80",
    "255.255.255.255:80",
    "192.0.2.1:80",
    "203.0.113.1:3478",
    "[::ffff:127.0.0.1]:80",
];

const DENIED_V6: [&str; 10] = [
    "[::1]:80",
    "[::]:80",
    "[fe80::1]:80",
    "[fc00::1]:80",
    "[ff02::1]:80",
    "[2001:db8::1]:80",
    "[::127.0.0.1]:80",
    "[2002:7f00:1::]:80",
    "[64:ff9b::127.0.0.1]:80",
    "[2001:0:1:1:0:0:80ff:fffe]:80",
];

#[test]
fn rfc8656_10_2_and_12_2_denied_peers_are_403() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    b.grant(&alice, allocate().with(Attribute::AdditionalAddressFamily, &family(Family::V6)));
    for peer in DENIED.into_iter().chain(DENIED_V6) {
        assert_eq!(b.refuse(&alice, permission(&[peer])), 403, "{peer}");
        assert_eq!(b.refuse(&alice, bind(0x4000, peer)), 403, "{peer}");
        assert!(b.carry(client(1), send(peer, b"x").bytes()).is_err());
    }
}

#[test]
fn public_peers_are_allowed() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    b.grant(&alice, allocate().with(Attribute::AdditionalAddressFamily, &family(Family::V6)));
    let peers = ["8.8.8.8:53", "1.1.1.1:1", "[2606:4700::1111]:443", "[64:ff9b::8.8.8.8]:53"];
    for (n, peer) in (0..).zip(peers) {
        b.grant(&alice, permission(&[peer]));
        b.grant(&alice, bind(0x4000 + n, peer));
    }
}

#[test]
fn a_refused_peer_is_told_with_its_rule() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    b.refuse(&alice, permission(&["192.168.1.1:80"]));
    match b.shell.events.last() {
        Some(Event::PeerDenied { username, peer, rule, .. }) => {
            assert_eq!((&**username, peer.socket()), ("alice", addr("192.168.1.1:80")));
            assert!(rule.contains("192.168.0.0/16"), "{rule}");
        }
        other => panic!("{other:?}"),
    }
}

// Relay to relay.

/// Two clients with an allocation each.
fn pair(b: &mut Bench) -> [(Login, SocketAddr); 2] {
    [b.allocated("alice", 1), b.allocated("bob", 2)]
}

#[test]
fn two_allocations_reach_each_other_in_user_space() {
    let mut b = Bench::new();
    let [(alice, a), (bob, z)] = pair(&mut b);
    b.grant(&alice, permission(&[&z.to_string()]));
    b.grant(&bob, permission(&[&a.to_string()]));
    for len in [0, 1, 1200] {
        let data = vec![7; len];
        let carried = b.carry(client(1), send(&z.to_string(), &data).bytes()).unwrap();
        let Carried::ToClient { link, client, server, bytes } = carried else { panic!() };
        assert_eq!((link, client), (bob.client.link, bob.client.five_tuple.client.socket()));
        assert_eq!(server, bob.client.five_tuple.server);
        assert_eq!(data_indication(&bytes), (a, data));
    }
    assert_eq!(b.server.counters().traffic.packets_to_peers, 3);
    assert_eq!(b.server.counters().traffic.packets_to_client, 3);
}

#[test]
fn two_channels_meet() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let a = b.grant(&alice, allocate()).relayed()[0];
    let (bob, z) = b.allocated_on(Transport::Tcp, 2);
    b.grant(&alice, bind(0x4001, &z.to_string()));
    b.grant(&bob, bind(0x4002, &a.to_string()));
    let bytes = b.carry(client(1), &channel_data(0x4001, b"hello")).unwrap().for_client();
    assert_eq!(bytes, [&channel_data(0x4002, b"hello")[..], &[0; 3]].concat(), "padded for TCP");
    let bytes = b.carry(bob.client, &channel_data(0x4002, b"hello")).unwrap().for_client();
    assert_eq!(bytes, channel_data(0x4001, b"hello"));
}

#[test]
fn rfc8656_9_the_other_allocation_must_permit_it_too() {
    let mut b = Bench::new();
    let [(alice, _), (bob, z)] = pair(&mut b);
    b.grant(&alice, permission(&[&z.to_string()]));
    let to_bob = send(&z.to_string(), b"x");
    assert_eq!(b.carry(client(1), to_bob.bytes()), Err(DropReason::NoPermission));
    b.grant(&bob, permission(&[PEER]));
    assert_eq!(b.carry(client(1), to_bob.bytes()), Err(DropReason::NoPermission));
}

#[test]
fn an_allocation_can_talk_to_itself() {
    let mut b = Bench::new();
    let (alice, a) = b.allocated("alice", 1);
    let own = send(&a.to_string(), b"x");
    assert_eq!(b.carry(client(1), own.bytes()), Err(DropReason::NoPermission));
    b.grant(&alice, permission(&[&a.to_string()]));
    let bytes = b.carry(client(1), own.bytes()).unwrap().for_client();
    assert_eq!(data_indication(&bytes), (a, b"x".to_vec()));
}

#[test]
fn other_ports_of_a_relay_address_are_not_reached() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[&format!("{RELAY_V4}:50000")]));
    for port in [0, 22, 3478, 49_151] {
        let peer = format!("{RELAY_V4}:{port}");
        let sent = b.carry(client(1), send(&peer, b"x").bytes());
        assert_eq!(sent, Err(DropReason::PeerDenied), "{port}");
        assert_eq!(b.refuse(&alice, bind(0x4000, &peer)), 403);
        assert_eq!(b.peer_sends(relayed, &peer, b"x"), Err(DropReason::PeerDenied), "nor heard");
    }
}

#[test]
fn a_listener_inside_the_relay_range_is_not_reached() {
    let mut b = Bench::with(|s| {
        let own = OwnAddresses {
            relays: s.relay.addresses.clone(),
            others: Vec::new(),
            listener_ports: vec![50_000],
        };
        s.policy = Policy::new(&[], &[], &own, s.relay.ports.clone());
    });
    let (alice, _) = b.allocated("alice", 1);
    let peer = format!("{RELAY_V4}:50000");
    b.grant(&alice, permission(&[&peer]));
    assert_eq!(b.carry(client(1), send(&peer, b"x").bytes()), Err(DropReason::PeerDenied));
    assert_eq!(b.refuse(&alice, bind(0x4000, &peer)), 403);
}

#[test]
fn a_relay_of_another_shard_is_reached_through_the_kernel() {
    let mut b = Bench::new();
    let (alice, a) = b.allocated("alice", 1);
    let elsewhere = format!("{RELAY_V4}:60000");
    b.grant(&alice, permission(&[&elsewhere]));
    let expected = Carried::ToPeer {
        from: a,
        peer: addr(&elsewhere),
        data: b"x".to_vec(),
        dont_fragment: false,
    };
    assert_eq!(b.carry(client(1), send(&elsewhere, b"x").bytes()), Ok(expected));
    let bytes = b.peer_sends(a, &elsewhere, b"y").unwrap().for_client();
    assert_eq!(data_indication(&bytes), (addr(&elsewhere), b"y".to_vec()));
}

// Behind 1:1 NAT.

const LOCAL: &str = "10.0.0.5";

fn behind_nat() -> Bench {
    Bench::with(|s| relay_on(s, &[relay_address(LOCAL, RELAY_V4)]))
}

#[test]
fn rfc8656_7_3_behind_1_1_nat_the_advertised_address_is_told() {
    let mut b = behind_nat();
    let (_, relayed) = b.allocated("alice", 1);
    assert_eq!(relayed.ip().to_string(), RELAY_V4);
    let local = *b.shell.sockets.values().next().unwrap();
    assert_eq!(local.socket(), SocketAddr::new(LOCAL.parse().unwrap(), relayed.port()));
}

#[test]
fn behind_1_1_nat_allocations_know_each_other_by_advertised_address() {
    let mut b = behind_nat();
    let [(alice, a), (bob, z)] = pair(&mut b);
    b.grant(&alice, permission(&[&z.to_string()]));
    b.grant(&bob, bind(0x4000, &a.to_string()));
    let bytes = b.carry(client(1), send(&z.to_string(), b"x").bytes()).unwrap().for_client();
    assert_eq!(bytes, channel_data(0x4000, b"x"));
    let bytes = b.carry(client(2), &channel_data(0x4000, b"y")).unwrap().for_client();
    assert_eq!(data_indication(&bytes), (z, b"y".to_vec()));
}

#[test]
fn behind_1_1_nat_a_relay_of_another_shard_is_reached_by_its_local_address() {
    let mut b = behind_nat();
    let (alice, a) = b.allocated("alice", 1);
    let advertised = format!("{RELAY_V4}:60000");
    let local = format!("{LOCAL}:60000");
    b.grant(&alice, permission(&[&advertised]));
    let (peer, _) = b.carry(client(1), send(&advertised, b"x").bytes()).unwrap().for_peer();
    assert_eq!(peer, addr(&local), "the NAT need not turn it back");
    // What comes back the short way is known by the address the client knows.
    let bytes = b.peer_sends(a, &local, b"y").unwrap().for_client();
    assert_eq!(data_indication(&bytes).0, addr(&advertised));
    b.grant(&alice, bind(0x4000, &advertised));
    let bytes = b.peer_sends(a, &local, b"y").unwrap().for_client();
    assert_eq!(bytes, channel_data(0x4000, b"y"));
}

#[test]
fn rfc8656_11_5_behind_1_1_nat_icmp_names_the_advertised_address() {
    let mut b = behind_nat();
    let (alice, a) = b.allocated("alice", 1);
    let advertised = format!("{RELAY_V4}:60000");
    b.grant(&alice, permission(&[&advertised]));
    let relay = b.relay_at(a).unwrap();
    let peer = PeerAddr::new(addr(&format!("{LOCAL}:60000")));
    b.input(Input::Icmp { relay, peer, icmp_type: 3, code: 3, info: 0 });
    let (_, reply) = b.shell.sent.pop_front().unwrap();
    assert_eq!(reply.address(Attribute::XorPeerAddress), addr(&advertised));
}

#[test]
fn behind_1_1_nat_other_services_of_the_host_are_not_heard() {
    let mut b = behind_nat();
    let (alice, a) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[&format!("{RELAY_V4}:60000")]));
    b.grant(&alice, permission(&[&format!("{LOCAL}:60000")]));
    let heard = b.peer_sends(a, &format!("{LOCAL}:22"), b"x");
    assert_eq!(heard, Err(DropReason::PeerDenied));
    let sent = b.carry(client(1), send(&format!("{LOCAL}:22"), b"x").bytes());
    assert_eq!(sent, Err(DropReason::PeerDenied));
}

#[test]
fn a_relay_that_has_expired_is_no_way_in() {
    let mut b = Bench::new();
    let (bob, z) = b.allocated("bob", 2);
    b.skip(secs(300));
    let (alice, a) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[&z.to_string()]));
    b.grant(&bob, bind(0x4000, &a.to_string()));
    assert!(b.carry(client(1), send(&z.to_string(), b"x").bytes()).is_ok());
    b.skip(secs(299));
    assert!(b.carry(client(1), send(&z.to_string(), b"x").bytes()).is_ok());
    b.skip(secs(1));
    b.grant(&alice, permission(&[&z.to_string()]));
    let sent = b.carry(client(1), send(&z.to_string(), b"x").bytes());
    assert_eq!(sent, Err(DropReason::RelayGone));
}
