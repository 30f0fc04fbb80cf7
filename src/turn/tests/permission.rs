//! Permissions and CreatePermission (RFC 8656 sections 9 and 10).

use super::wire::{Request, bind, channel_data, permission, refresh, send, xor_address};
use super::*;

#[test]
fn rfc8656_10_2_success_is_an_empty_response() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let reply = b.grant(&alice, permission(&[PEER]));
    assert!(!reply.has(Attribute::Lifetime) && !reply.has(Attribute::XorPeerAddress));
}

#[test]
fn rfc8656_9_without_a_permission_nothing_passes() {
    let mut b = Bench::new();
    let (_, relayed) = b.allocated("alice", 1);
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(b.carry(client(1), send(PEER, b"x").bytes()), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_9_a_permission_is_for_an_address_and_every_port() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    for port in [1, 6999, 7000, 65_535] {
        let peer = format!("198.51.100.7:{port}");
        assert!(b.peer_sends(relayed, &peer, b"x").is_ok(), "{peer}");
        assert!(b.carry(client(1), send(&peer, b"x").bytes()).is_ok());
    }
    assert_eq!(b.peer_sends(relayed, OTHER_PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(b.carry(client(1), send(OTHER_PEER, b"x").bytes()), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_10_2_the_port_of_a_peer_is_ignored() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&["198.51.100.7:0"]));
    assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
}

#[test]
fn rfc8656_9_a_permission_lasts_exactly_five_minutes() {
    for late_shell in [false, true] {
        let mut b = Bench::new();
        let (alice, relayed) = b.allocated("alice", 1);
        b.grant(&alice, permission(&[PEER]));
        let pass = |b: &mut Bench, time| if late_shell { b.skip(time) } else { b.advance(time) };
        pass(&mut b, Duration::from_millis(299_999));
        assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
        assert!(b.carry(client(1), send(PEER, b"x").bytes()).is_ok());
        pass(&mut b, Duration::from_millis(1));
        assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
        let sent = b.carry(client(1), send(PEER, b"x").bytes());
        assert_eq!(sent, Err(DropReason::NoPermission));
    }
}

#[test]
fn rfc8656_9_create_permission_prolongs() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    b.advance(secs(299));
    b.grant(&alice, permission(&[PEER]));
    b.advance(secs(299));
    assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
    b.advance(secs(1));
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_9_data_does_not_prolong_a_permission() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    for _ in 0..10 {
        b.advance(secs(30));
        let last = b.peer_sends(relayed, PEER, b"x").is_err();
        let sent = b.carry(client(1), send(PEER, b"x").bytes());
        assert_eq!(sent.is_err(), last);
    }
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_10_2_several_peers_in_one_request() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER, OTHER_PEER, PEER]));
    assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
    assert!(b.peer_sends(relayed, OTHER_PEER, b"x").is_ok());
}

#[test]
fn rfc8656_10_2_no_peer_is_400() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    assert_eq!(b.refuse(&alice, permission(&[])), 400);
}

#[test]
fn rfc8656_10_2_malformed_peer_is_400() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    let values: [&[u8]; 6] = [
        b"",
        &[0, 1, 0x11],
        &[0, 1, 0x11, 0x22, 1, 2, 3],
        &[0, 1, 0x11, 0x22, 1, 2, 3, 4, 5],
        &[0, 2, 0x11, 0x22, 1, 2, 3, 4],
        &[0, 9, 0x11, 0x22, 1, 2, 3, 4],
    ];
    for value in values {
        let request = permission(&[PEER]).with(Attribute::XorPeerAddress, value);
        assert_eq!(b.refuse(&alice, request), 400, "{value:?}");
    }
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_10_2_one_bad_peer_and_no_permission_is_given() {
    for (bad, code) in [("127.0.0.1:1", 403), ("10.0.0.1:1", 403), (PEER_V6, 443)] {
        for peers in [[PEER, bad], [bad, PEER]] {
            let mut b = Bench::new();
            let (alice, relayed) = b.allocated("alice", 1);
            assert_eq!(b.refuse(&alice, permission(&peers)), code, "{peers:?}");
            assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
        }
    }
}

#[test]
fn rfc8656_10_2_a_failed_request_does_not_prolong_either() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    b.advance(secs(200));
    assert_eq!(b.refuse(&alice, permission(&[PEER, "127.0.0.1:1"])), 403);
    b.advance(secs(100));
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_10_2_too_many_permissions_are_508() {
    let mut b = Bench::with(|s| s.limits.permissions = 3);
    let (alice, relayed) = b.allocated("alice", 1);
    let peer = |n: u8| format!("198.51.100.{n}:1");
    let many = |range: std::ops::Range<u8>| {
        range.fold(Request::new(Method::CREATE_PERMISSION), |r, n| r.peer(&peer(n)))
    };
    assert_eq!(b.refuse(&alice, many(0..4)), 508);
    assert_eq!(b.peer_sends(relayed, &peer(0), b"x"), Err(DropReason::NoPermission));
    b.grant(&alice, many(0..3));
    assert_eq!(b.refuse(&alice, many(3..4)), 508);
    b.grant(&alice, many(0..3));
    assert_eq!(b.refuse(&alice, many(2..4)), 508);
    // What has expired makes room.
    b.advance(secs(301));
    b.grant(&alice, many(3..6));
}

#[test]
fn rfc8656_10_2_a_peer_named_twice_needs_room_once() {
    let mut b = Bench::with(|s| s.limits.permissions = 1);
    let (alice, _) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER, PEER, "198.51.100.7:1"]));
}

#[test]
fn rfc8656_9_permissions_end_with_their_allocation() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    b.grant(&alice, refresh(Some(0)));
    let relayed = b.grant(&alice, super::wire::allocate()).relayed()[0];
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_9_permissions_belong_to_one_allocation() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let (_, other) = b.allocated("alice", 2);
    b.grant(&alice, permission(&[PEER]));
    assert_eq!(b.peer_sends(other, PEER, b"x"), Err(DropReason::NoPermission));
    assert_eq!(b.carry(client(2), send(PEER, b"x").bytes()), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_9_a_channel_installs_a_permission() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    assert!(b.peer_sends(relayed, "198.51.100.7:1", b"x").is_ok(), "for every port");
    assert!(b.carry(client(1), send("198.51.100.7:1", b"x").bytes()).is_ok());
}

/// Deviation: RFC 8656 gives the permission of a channel five minutes and lets the
/// binding go on without it. Clients exist that refresh only the binding.
#[test]
fn rfc8656_9_the_permission_of_a_channel_lasts_as_long_as_the_channel() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, refresh(Some(3600)));
    b.grant(&alice, bind(0x4000, PEER));
    b.advance(Duration::from_millis(599_999));
    assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
    assert!(b.peer_sends(relayed, "198.51.100.7:1", b"x").is_ok());
    assert!(b.carry(client(1), &channel_data(0x4000, b"x")).is_ok());
    b.advance(Duration::from_millis(1));
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
}

#[test]
fn create_permission_does_not_shorten_the_permission_of_a_channel() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, refresh(Some(3600)));
    b.grant(&alice, bind(0x4000, PEER));
    b.advance(secs(1));
    b.grant(&alice, permission(&[PEER]));
    b.advance(secs(598));
    assert!(b.peer_sends(relayed, "198.51.100.7:1", b"x").is_ok());
}

#[test]
fn rfc8656_18_3_peer_addresses_are_xored() {
    // The same bytes mean another peer under another transaction id (IPv6).
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let family = super::wire::family(Family::V6);
    let request = super::wire::allocate().with(Attribute::RequestedAddressFamily, &family);
    b.grant(&alice, request);
    let request = Request::new(Method::CREATE_PERMISSION);
    let mut other = request.transaction_id();
    other.0[0] ^= 0xff;
    let value = xor_address(addr(PEER_V6), other);
    assert_eq!(b.refuse(&alice, request.with(Attribute::XorPeerAddress, &value)), 403);
}
