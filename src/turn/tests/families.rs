//! IPv4 and IPv6 relayed transport addresses (RFC 8656 sections 7.2, 18.6, 18.11, 18.12;
//! formerly RFC 6156).

use super::wire::{Request, allocate, bind, family, permission, refresh, send};
use super::*;

fn wanting(which: Family) -> Request {
    allocate().with(Attribute::RequestedAddressFamily, &family(which))
}

fn both() -> Request {
    allocate().with(Attribute::AdditionalAddressFamily, &family(Family::V6))
}

fn only(ip: &'static str) -> Bench {
    Bench::with(|s| relay_on(s, &[relay_address(ip, ip)]))
}

/// A client with addresses of both families: IPv4, IPv6.
fn dual(b: &mut Bench) -> (Login, SocketAddr, SocketAddr) {
    let alice = b.login("alice", 1);
    let relayed = b.grant(&alice, both()).relayed();
    (alice, relayed[0], relayed[1])
}

#[test]
fn rfc8656_7_2_requested_family_is_allocated() {
    let mut b = Bench::new();
    for (n, which, ip) in [(1, Family::V4, RELAY_V4), (2, Family::V6, RELAY_V6)] {
        let alice = b.login("alice", n);
        let relayed = b.grant(&alice, wanting(which)).relayed();
        assert_eq!(relayed.len(), 1);
        assert_eq!(relayed[0].ip().to_string(), ip);
    }
}

#[test]
fn the_early_number_of_additional_address_family_is_understood() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let request = allocate().raw(0x8032, &family(Family::V6));
    assert_eq!(b.grant(&alice, request).relayed().len(), 2);
}

#[test]
fn rfc8656_7_2_family_that_is_not_relayed_is_440() {
    let (mut four, mut six) = (only(RELAY_V4), only(RELAY_V6));
    let alice = four.login("alice", 1);
    assert_eq!(four.refuse(&alice, wanting(Family::V6)), 440);
    let alice = six.login("alice", 1);
    assert_eq!(six.refuse(&alice, wanting(Family::V4)), 440);
    assert_eq!(six.refuse(&alice, allocate()), 440, "no attribute means IPv4");
    six.grant(&alice, wanting(Family::V6));
}

#[test]
fn rfc8656_18_6_family_that_does_not_exist_is_440() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for number in [0, 3, 255] {
        let request = allocate().with(Attribute::RequestedAddressFamily, &[number, 0, 0, 0]);
        assert_eq!(b.refuse(&alice, request), 440, "{number}");
    }
}

#[test]
fn rfc8656_18_6_family_of_another_length_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for value in [&[][..], &[1], &[1, 0, 0, 0, 0]] {
        let request = allocate().with(Attribute::RequestedAddressFamily, value);
        assert_eq!(b.refuse(&alice, request), 400);
        let request = allocate().with(Attribute::AdditionalAddressFamily, value);
        assert_eq!(b.refuse(&alice, request), 400);
    }
}

#[test]
fn rfc8656_7_2_requested_and_additional_family_together_are_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for which in [Family::V4, Family::V6] {
        let request = wanting(which).with(Attribute::AdditionalAddressFamily, &family(Family::V6));
        assert_eq!(b.refuse(&alice, request), 400);
    }
}

#[test]
fn rfc8656_7_2_additional_family_ipv4_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let request = allocate().with(Attribute::AdditionalAddressFamily, &family(Family::V4));
    assert_eq!(b.refuse(&alice, request), 400);
}

#[test]
fn rfc8656_7_2_additional_family_gives_both() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let reply = b.grant(&alice, both());
    let relayed = reply.relayed();
    assert_eq!(relayed.len(), 2);
    assert!(relayed[0].is_ipv4() && relayed[1].is_ipv6());
    assert!(!reply.has(Attribute::AddressErrorCode));
    assert_eq!(b.server.allocations(), 1);
}

#[test]
fn rfc8656_18_12_a_family_that_is_not_relayed_is_told_in_address_error_code() {
    let cases = [(RELAY_V4, [2, 0, 4, 40]), (RELAY_V6, [1, 0, 4, 40])];
    for (ip, expected) in cases {
        let mut b = only(ip);
        let alice = b.login("alice", 1);
        let reply = b.grant(&alice, both());
        assert_eq!(reply.relayed().len(), 1);
        assert_eq!(reply.relayed()[0].ip().to_string(), ip);
        assert_eq!(reply.get(Attribute::AddressErrorCode), Some(expected.to_vec()));
    }
}

#[test]
fn rfc8656_7_2_a_family_without_a_free_port_is_told_in_address_error_code() {
    for (refuse, expected) in [([false, true], [2, 0, 5, 8]), ([true, false], [1, 0, 5, 8])] {
        let mut b = Bench::new();
        b.shell.refuse = refuse;
        let alice = b.login("alice", 1);
        let reply = b.grant(&alice, both());
        assert_eq!(reply.relayed().len(), 1);
        assert_eq!(reply.get(Attribute::AddressErrorCode), Some(expected.to_vec()));
        b.grant(&alice, refresh(Some(0)));
        b.assert_idle();
    }
}

#[test]
fn rfc8656_7_2_neither_family_is_508() {
    let mut b = Bench::new();
    b.shell.refuse = [true, true];
    let alice = b.login("alice", 1);
    let reply = b.request(&alice, both());
    assert_eq!(reply.code(), 508);
    assert!(!reply.has(Attribute::AddressErrorCode));
    b.assert_idle();
}

#[test]
fn rfc8656_7_2_the_answer_waits_for_both_families() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let alice = b.login("alice", 1);
    b.deliver(client(1), alice.sign(both()).bytes());
    b.open_next();
    assert!(b.shell.sent.is_empty());
    b.advance(secs(2));
    b.open_next();
    let (_, reply) = b.shell.sent.pop_front().unwrap();
    assert_eq!(reply.relayed().len(), 2);
    assert_eq!(reply.lifetime(), 600);
    // Both live as long as the client was told, counted from its answer.
    b.advance(secs(599));
    assert_eq!(b.shell.sockets.len(), 2);
    b.advance(secs(2));
    b.assert_idle();
}

#[test]
fn a_second_family_that_never_opens_takes_the_first_along() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let alice = b.login("alice", 1);
    b.deliver(client(1), alice.sign(both()).bytes());
    b.open_next();
    b.advance(secs(5));
    assert_eq!(b.shell.closed.len(), 1);
    b.open_next();
    b.assert_idle();
    assert!(b.shell.sent.is_empty());
}

#[test]
fn rfc8656_10_2_peers_of_both_families_on_a_dual_allocation() {
    let mut b = Bench::new();
    let (alice, v4, v6) = dual(&mut b);
    b.grant(&alice, permission(&[PEER, PEER_V6]));
    for (peer, relayed) in [(PEER, v4), (PEER_V6, v6)] {
        match b.carry(client(1), send(peer, b"x").bytes()).unwrap() {
            Carried::ToPeer { from, peer: to, .. } => assert_eq!((from, to), (relayed, addr(peer))),
            other => panic!("{other:?}"),
        }
        let bytes = b.peer_sends(relayed, peer, b"y").unwrap().for_client();
        assert_eq!(data_indication(&bytes), (addr(peer), b"y".to_vec()));
    }
    b.grant(&alice, bind(0x4000, PEER));
    b.grant(&alice, bind(0x4001, PEER_V6));
}

#[test]
fn rfc8656_10_2_a_peer_of_the_other_family_is_443() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    b.grant(&alice, wanting(Family::V4));
    assert_eq!(b.refuse(&alice, permission(&[PEER_V6])), 443);
    assert_eq!(b.refuse(&alice, bind(0x4000, PEER_V6)), 443);
    let bob = b.login("bob", 2);
    b.grant(&bob, wanting(Family::V6));
    assert_eq!(b.refuse(&bob, permission(&[PEER])), 443);
    assert_eq!(b.refuse(&bob, bind(0x4000, PEER)), 443);
}

#[test]
fn rfc8656_8_2_refresh_of_a_family_that_is_not_there_is_443() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let of = |value: &[u8]| refresh(None).with(Attribute::RequestedAddressFamily, value);
    assert_eq!(b.refuse(&alice, of(&family(Family::V6))), 443);
    assert_eq!(b.refuse(&alice, of(&[7, 0, 0, 0])), 443);
    assert_eq!(b.refuse(&alice, of(&[1, 0, 0])), 400);
    b.grant(&alice, of(&family(Family::V4)));
}

#[test]
fn rfc8656_8_2_refresh_with_a_family_is_about_that_family_only() {
    let mut b = Bench::new();
    let (alice, v4, v6) = dual(&mut b);
    let of = |r: Request, which| r.with(Attribute::RequestedAddressFamily, &family(which));
    b.advance(secs(300));
    b.grant(&alice, of(refresh(None), Family::V4));
    b.advance(secs(301));
    assert_eq!(b.relay_at(v6), None, "not refreshed, so closed");
    assert!(b.relay_at(v4).is_some());
    assert_eq!(b.refuse(&alice, of(refresh(None), Family::V6)), 443);
    b.grant(&alice, refresh(None));
}

#[test]
fn rfc8656_8_2_refresh_without_a_family_is_about_both() {
    let mut b = Bench::new();
    let (alice, v4, v6) = dual(&mut b);
    b.advance(secs(300));
    b.grant(&alice, refresh(None));
    b.advance(secs(599));
    assert!(b.relay_at(v4).is_some() && b.relay_at(v6).is_some());
    b.advance(secs(2));
    b.assert_idle();
}

#[test]
fn rfc8656_8_2_deleting_one_family_leaves_the_other() {
    for (gone, stays, peer) in [(Family::V4, Family::V6, PEER_V6), (Family::V6, Family::V4, PEER)] {
        let mut b = Bench::new();
        let (alice, _, _) = dual(&mut b);
        b.grant(&alice, permission(&[PEER, PEER_V6]));
        b.grant(&alice, bind(0x4000, PEER));
        b.grant(&alice, bind(0x4001, PEER_V6));
        let zero = |which| refresh(Some(0)).with(Attribute::RequestedAddressFamily, &family(which));
        assert_eq!(b.grant(&alice, zero(gone)).lifetime(), 0);
        assert_eq!(b.shell.sockets.len(), 1);
        assert!(b.carry(client(1), send(peer, b"x").bytes()).is_ok());
        let other = if peer == PEER { PEER_V6 } else { PEER };
        assert!(b.carry(client(1), send(other, b"x").bytes()).is_err());
        assert_eq!(b.refuse(&alice, permission(&[other])), 443);
        b.grant(&alice, zero(stays));
        b.assert_idle();
    }
}

#[test]
fn rfc8656_5_a_family_that_has_expired_does_not_come_back() {
    let mut b = Bench::new();
    let (alice, _, v6) = dual(&mut b);
    let four = refresh(None).with(Attribute::RequestedAddressFamily, &family(Family::V4));
    b.advance(secs(300));
    b.grant(&alice, four);
    // IPv6 is over; the shell has not cleaned up when the client refreshes.
    b.skip(secs(300));
    b.grant(&alice, refresh(Some(3600)));
    assert_eq!(b.refuse(&alice, permission(&[PEER_V6])), 443);
    b.advance(secs(1));
    assert_eq!(b.relay_at(v6), None);
}

#[test]
fn a_v4_mapped_peer_is_an_ipv4_peer() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&["[::ffff:198.51.100.7]:7000"]));
    assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
    let six = b.login("alice", 2);
    b.grant(&six, wanting(Family::V6));
    assert_eq!(b.refuse(&six, permission(&["[::ffff:198.51.100.7]:7000"])), 443);
}
