//! Allocations and data with peers outside: every transport, family and size.

use std::time::Duration;

use sturn::client::{Allocate, Event};
use sturn::net::Family;

use crate::setup::{DEADLINE, Peer, Server, Setup, relayed, wait_until};
use crate::support::driver::{Driver, Received};

/// More than what fits a DTLS record, which is never split.
const MORE_THAN_A_RECORD: usize = 16_384;

/// Empty, around the padding of frames, as in a call, and larger than any path.
const SIZES: [usize; 9] = [0, 1, 2, 3, 4, 5, 1200, 9000, 60_000];

#[test]
fn data_of_every_size_goes_both_ways_over_every_transport() {
    let server = Setup::new().tls().start();
    for (way, mut client) in server.every_way() {
        let allocated = client.allocate(Allocate::default()).unwrap();
        let relayed = relayed(&allocated);
        assert_eq!(relayed.ip(), server.relay_v4(), "{way}: IPv4 unless asked otherwise");
        assert_eq!(allocated.reflexive, client.local_addr(), "{way}");
        assert_eq!(allocated.lifetime, Duration::from_secs(600), "{way}");
        exchange(way, &mut client, relayed);
        assert_eq!(client.refresh(Some(Duration::ZERO), None).unwrap(), Duration::ZERO);
        let gone = client.create_permission(&[Peer::v4().addr()]).unwrap_err();
        assert_eq!(gone.code(), 437, "{way}");
    }
}

#[test]
fn either_family_is_relayed_for_clients_of_either() {
    let server = Setup::new().tls().start();
    for family in [Family::V4, Family::V6] {
        for (way, mut client) in server.every_way() {
            let wanted = Allocate { family: Some(family), ..Allocate::default() };
            let relayed = relayed(&client.allocate(wanted).unwrap());
            assert_eq!(Family::of(relayed.ip()), family, "{way}");
            exchange(way, &mut client, relayed);
        }
    }
}

#[test]
fn the_default_family_can_follow_the_client() {
    let server = Setup::new().set("relay.default-family", r#""client""#).tls().start();
    for (way, mut client) in server.every_way() {
        let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
        assert_eq!(relayed.is_ipv4(), client.local_addr().is_ipv4(), "{way}");
    }
}

#[test]
fn a_dual_allocation_relays_both_families() {
    let server = Setup::new().tls().start();
    for (way, mut client) in server.every_way() {
        let wanted = Allocate { additional_family: Some(Family::V6), ..Allocate::default() };
        let allocated = client.allocate(wanted).unwrap();
        assert_eq!(allocated.address_error, None, "{way}");
        let [v4, v6] = allocated.relayed[..] else { panic!("{way}: {allocated:?}") };
        assert!(v4.is_ipv4() && v6.is_ipv6(), "{way}: {allocated:?}");
        exchange(way, &mut client, v4);
        exchange(way, &mut client, v6);
        client.refresh(Some(Duration::ZERO), Some(Family::V4)).unwrap();
        let gone = client.create_permission(&[Peer::v4().addr()]).unwrap_err();
        assert_eq!(gone.code(), 443, "{way}: its IPv4 half is gone");
        exchange(way, &mut client, v6);
    }
}

#[test]
fn without_permission_nothing_passes_either_way() {
    let server = Setup::new().start();
    let mut client = server.udp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    // Permissions are for addresses: this one has none.
    let stranger = Peer::at([127, 0, 0, 9].into());
    let peer = Peer::v4();
    client.create_permission(&[peer.addr()]).unwrap();
    stranger.send(relayed, b"let me in");
    client.send(stranger.addr(), b"let me out").unwrap();
    // In order behind those, so what they come to has come when these are here.
    peer.send(relayed, b"hello");
    client.send(peer.addr(), b"hello").unwrap();
    assert_eq!(client.expect_data(DEADLINE).unwrap().peer, peer.addr());
    assert_eq!(peer.receive().1, relayed);
    assert!(!stranger.has_received());
    assert_eq!(client.events(), []);
}

#[test]
fn special_networks_are_denied_unless_allowed() {
    let server = Setup::new().unset("peers.allow").start();
    let mut client = server.udp();
    client.allocate(Allocate::default()).unwrap();
    for denied in ["127.0.0.1:9", "10.1.2.3:9", "169.254.169.254:80", "192.168.1.1:53"] {
        let peer = denied.parse().unwrap();
        assert_eq!(client.create_permission(&[peer]).unwrap_err().code(), 403, "{denied}");
        assert_eq!(client.channel_bind(None, peer).unwrap_err().code(), 403, "{denied}");
    }
}

#[test]
fn a_closed_port_of_a_peer_is_told_as_icmp() {
    let server = Setup::new().tls().start();
    for (way, mut client) in server.every_way() {
        for (family, icmp_type, code) in [(Family::V4, 3, 3), (Family::V6, 1, 4)] {
            let wanted = Allocate { family: Some(family), ..Allocate::default() };
            client.allocate(wanted).unwrap();
            let closed = if family == Family::V4 { Peer::v4() } else { Peer::v6() }.addr();
            client.create_permission(&[closed]).unwrap();
            client.send(closed, b"is anybody there?").unwrap();
            let is_icmp = |event: &Event| matches!(event, Event::Icmp { .. });
            let told = client.expect_event(DEADLINE, is_icmp).unwrap();
            let expected = Event::Icmp { peer: closed, icmp_type, code, info: [0; 4] };
            assert_eq!(told, expected, "{way}");
            client.refresh(Some(Duration::ZERO), None).unwrap();
        }
    }
}

#[test]
fn data_after_an_icmp_error_still_passes() {
    let server = Setup::new().start();
    let mut client = server.udp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let (peer, closed) = (Peer::v4(), Peer::v4().addr());
    client.create_permission(&[peer.addr()]).unwrap();
    for round in 0..50_u8 {
        client.send(closed, b"nobody").unwrap();
        client.send(peer.addr(), &[round]).unwrap();
        assert_eq!(peer.receive(), (vec![round], relayed));
    }
}

#[test]
fn two_clients_of_one_host_have_allocations_of_their_own() {
    let server = Setup::new().start();
    let (mut one, mut two) = (server.udp(), server.udp());
    let first = relayed(&one.allocate(Allocate::default()).unwrap());
    let second = relayed(&two.allocate(Allocate::default()).unwrap());
    assert_ne!(first, second);
    let again = one.allocate(Allocate::default()).unwrap_err();
    assert_eq!(again.code(), 437, "one allocation for each five-tuple");
    let peer = Peer::v4();
    one.create_permission(&[peer.addr()]).unwrap();
    two.create_permission(&[peer.addr()]).unwrap();
    peer.send(first, b"to one");
    peer.send(second, b"to two");
    assert_eq!(one.expect_data(DEADLINE).unwrap().data, b"to one");
    assert_eq!(two.expect_data(DEADLINE).unwrap().data, b"to two");
}

#[test]
fn deleting_an_allocation_frees_its_port() {
    let server = Setup::new().start();
    let mut client = server.udp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    assert!(std::net::UdpSocket::bind(relayed).is_err(), "the relay socket is there");
    client.refresh(Some(Duration::ZERO), None).unwrap();
    wait_until("the port is free", || std::net::UdpSocket::bind(relayed).is_ok());
}

#[test]
fn the_log_tells_an_allocation_from_begin_to_end() {
    let mut server = Setup::new().start();
    let mut client = server.udp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peer = Peer::v4();
    client.create_permission(&[peer.addr()]).unwrap();
    client.send(peer.addr(), &[0; 100]).unwrap();
    client.send(peer.addr(), &[0; 23]).unwrap();
    peer.receive();
    peer.receive();
    peer.send(relayed, &[0; 77]);
    client.expect_data(DEADLINE).unwrap();
    client.refresh(Some(Duration::ZERO), None).unwrap();
    let begin = server.process().expect_line("allocation created", DEADLINE);
    let end = server.process().expect_line("allocation ended", DEADLINE);
    for line in [&begin, &end] {
        assert!(line.contains("user=alice"), "{line}");
        assert!(line.contains(&format!("relayed={relayed}")), "{line}");
    }
    for traffic in
        ["packets_to_peers=2", "bytes_to_peers=123", "packets_to_client=1", "bytes_to_client=77"]
    {
        assert!(end.contains(traffic), "{end}");
    }
    assert!(end.contains("deleted by client"), "{end}");
    let totals = server.stop();
    assert!(totals.contains("bytes_to_peers=123") && totals.contains("bytes_to_client=77"));
}

/// Data of every size between a client and a peer: by indications, then on a channel.
#[track_caller]
fn exchange(way: &str, client: &mut Driver, relayed: std::net::SocketAddr) {
    let peer = Peer::like(relayed);
    client.create_permission(&[peer.addr()]).unwrap();
    let mut channel = None;
    for _ in 0..2 {
        for size in SIZES {
            if way.starts_with("DTLS") && size > MORE_THAN_A_RECORD {
                continue;
            }
            let out = vec![size as u8; size];
            client.send(peer.addr(), &out).unwrap();
            assert!(peer.receive() == (out, relayed), "{way}: {size} bytes to the peer");
            let data = vec![!(size as u8); size];
            peer.send(relayed, &data);
            let got = client.expect_data(DEADLINE).unwrap();
            let wanted = Received { peer: peer.addr(), channel, data };
            assert!(got == wanted, "{way}: {size} bytes from the peer, channel {channel:?}");
        }
        channel = Some(client.channel_bind(None, peer.addr()).unwrap());
    }
}

/// Where a test has no word on transport and family of its client.
impl Server {
    /// Alice over UDP for even numbers, over TCP for odd ones.
    pub(crate) fn client(&self, number: usize) -> Driver {
        if number.is_multiple_of(2) { self.udp() } else { self.tcp() }
    }
}
