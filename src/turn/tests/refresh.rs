//! Refresh (RFC 8656 section 8), and who may speak for an allocation (section 5).

use super::wire::{allocate, bind, permission, refresh};
use super::*;

#[test]
fn rfc8656_8_2_refresh_answers_with_the_new_lifetime() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let reply = b.grant(&alice, refresh(Some(1800)));
    assert_eq!(reply.lifetime(), 1800);
    assert!(!reply.has(Attribute::XorRelayedAddress) && !reply.has(Attribute::XorMappedAddress));
    b.advance(secs(1799));
    assert_eq!(b.server.allocations(), 1);
    b.advance(secs(2));
    b.assert_idle();
}

#[test]
fn rfc8656_8_2_refresh_lifetime_has_the_bounds_of_allocate() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    for (asked, granted) in [
        (None, 600),
        (Some(1), 600),
        (Some(599), 600),
        (Some(601), 601),
        (Some(3600), 3600),
        (Some(u32::MAX), 3600),
    ] {
        assert_eq!(b.grant(&alice, refresh(asked)).lifetime(), granted, "{asked:?}");
    }
}

#[test]
fn rfc8656_8_2_refresh_can_shorten_a_lifetime() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    b.grant(&alice, allocate().lifetime(3600));
    b.grant(&alice, refresh(Some(700)));
    b.advance(secs(701));
    b.assert_idle();
}

#[test]
fn rfc8656_8_2_lifetime_zero_deletes_at_once() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    b.grant(&alice, bind(0x4000, PEER));
    assert_eq!(b.grant(&alice, refresh(Some(0))).lifetime(), 0);
    b.assert_idle();
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::RelayGone));
    let data = super::wire::channel_data(0x4000, b"x");
    assert_eq!(b.carry(client(1), &data), Err(DropReason::NoAllocation));
    assert!(matches!(b.shell.routes[..], [Route::Add { .. }, Route::Remove { .. }]));
}

#[test]
fn rfc8656_8_2_malformed_lifetime_is_400_and_changes_nothing() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    for value in [&[][..], &[0], &[0, 0, 0], &[0, 0, 0, 0, 0]] {
        assert_eq!(b.refuse(&alice, refresh(None).with(Attribute::Lifetime, value)), 400);
    }
    b.advance(secs(601));
    b.assert_idle();
}

#[test]
fn rfc8656_5_without_an_allocation_every_request_about_one_is_437() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for request in [refresh(None), refresh(Some(0)), permission(&[PEER]), bind(0x4000, PEER)] {
        assert_eq!(b.refuse(&alice, request), 437);
    }
}

#[test]
fn rfc8656_5_another_five_tuple_has_no_allocation() {
    let mut b = Bench::new();
    b.allocated("alice", 1);
    let moved = b.login("alice", 2);
    assert_eq!(b.refuse(&moved, refresh(None)), 437);
    let tcp = b.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    assert_eq!(b.refuse(&tcp, refresh(None)), 437);
}

#[test]
fn rfc8656_5_another_user_is_441() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    let bob = Login { name: "bob".into(), password: "builder".into(), ..alice.clone() };
    for request in [refresh(None), refresh(Some(0)), permission(&[PEER]), bind(0x4000, PEER)] {
        assert_eq!(b.refuse(&bob, request), 441);
    }
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
    b.grant(&alice, refresh(None));
}

#[test]
fn rfc8656_8_2_refresh_keeps_permissions_and_channels_as_they_are() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    b.advance(secs(200));
    b.grant(&alice, refresh(None));
    assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
    b.advance(secs(100));
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_8_2_an_allocation_lives_as_long_as_it_is_refreshed() {
    let mut b = Bench::new();
    let (mut alice, _) = b.allocated("alice", 1);
    for _ in 0..20 {
        b.advance(secs(500));
        alice = b.login("alice", 1);
        b.grant(&alice, refresh(None));
    }
    assert_eq!(b.server.allocations(), 1);
    b.advance(secs(601));
    b.assert_idle();
    assert_eq!(b.refuse(&alice, refresh(None)), 437);
}
