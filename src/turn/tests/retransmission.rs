//! The same request again (RFC 8489 section 6.3.1, RFC 8656 sections 5 and 7.2).

use super::wire::{allocate, bind, family, permission, refresh};
use super::*;

#[test]
fn rfc8656_7_2_retransmitted_allocate_is_answered_byte_by_byte_alike() {
    let requests = [
        allocate(),
        allocate().lifetime(1234),
        allocate().with(Attribute::EvenPort, &[0x80]),
        allocate().with(Attribute::AdditionalAddressFamily, &family(Family::V6)),
    ];
    for request in requests {
        let mut b = Bench::new();
        let alice = b.login("alice", 1);
        let bytes = alice.sign(request).bytes().to_vec();
        let first = b.ask(client(1), &bytes);
        assert!(first.is_success());
        let asked = b.shell.ports.len();
        b.advance(secs(5));
        assert_eq!(b.ask(client(1), &bytes), first);
        assert_eq!(b.shell.ports.len(), asked, "nothing is opened twice");
        assert_eq!(b.server.allocations(), 1);
    }
}

#[test]
fn rfc8656_7_2_address_error_is_repeated_too() {
    let mut b = Bench::new();
    b.shell.refuse = [false, true];
    let alice = b.login("alice", 1);
    let request = allocate().with(Attribute::AdditionalAddressFamily, &family(Family::V6));
    let bytes = alice.sign(request).bytes().to_vec();
    let first = b.ask(client(1), &bytes);
    assert!(first.has(Attribute::AddressErrorCode));
    assert_eq!(b.ask(client(1), &bytes), first);
}

#[test]
fn rfc8656_7_2_retransmission_while_the_relay_opens_is_dropped() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let alice = b.login("alice", 1);
    let bytes = alice.sign(allocate()).bytes().to_vec();
    assert!(matches!(b.deliver(client(1), &bytes), Outcome::Queued));
    assert_eq!(b.dropped(client(1), &bytes), DropReason::InProgress);
    b.open_held();
    assert_eq!(b.shell.sent.len(), 1, "one answer");
    let (_, first) = b.shell.sent.pop_front().unwrap();
    assert_eq!(b.ask(client(1), &bytes), first);
}

#[test]
fn rfc8656_7_2_another_allocate_while_the_relay_opens_is_437() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let alice = b.login("alice", 1);
    assert!(matches!(b.deliver(client(1), alice.sign(allocate()).bytes()), Outcome::Queued));
    assert_eq!(b.refuse(&alice, allocate()), 437);
}

#[test]
fn rfc8656_5_requests_about_an_opening_allocation_are_437() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let alice = b.login("alice", 1);
    b.deliver(client(1), alice.sign(allocate()).bytes());
    for request in [refresh(None), refresh(Some(0)), permission(&[PEER]), bind(0x4000, PEER)] {
        assert_eq!(b.refuse(&alice, request), 437);
    }
    b.open_held();
    assert!(b.shell.sent.pop_front().unwrap().1.is_success());
}

#[test]
fn rfc8489_6_3_1_idempotent_requests_are_done_again() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    for request in [permission(&[PEER, OTHER_PEER]), bind(0x4000, PEER), refresh(Some(900))] {
        let bytes = alice.sign(request).bytes().to_vec();
        let first = b.ask(client(1), &bytes);
        assert!(first.is_success());
        assert_eq!(b.ask(client(1), &bytes), first);
    }
    assert_eq!(b.shell.routes.len(), 1, "one route for one channel");
}

#[test]
fn rfc8656_8_2_a_repeated_deletion_is_437() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let bytes = alice.sign(refresh(Some(0))).bytes().to_vec();
    assert!(b.ask(client(1), &bytes).is_success());
    assert_eq!(b.ask(client(1), &bytes).code(), 437);
}

#[test]
fn rfc8656_7_2_the_answer_does_not_change_with_a_refresh() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let bytes = alice.sign(allocate()).bytes().to_vec();
    let first = b.ask(client(1), &bytes);
    b.grant(&alice, refresh(Some(3000)));
    b.grant(&alice, permission(&[PEER]));
    assert_eq!(b.ask(client(1), &bytes), first);
}

#[test]
fn rfc8656_7_2_an_allocate_retransmitted_after_the_end_makes_a_new_allocation() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let bytes = alice.sign(allocate()).bytes().to_vec();
    b.ask(client(1), &bytes);
    b.grant(&alice, refresh(Some(0)));
    assert!(b.ask(client(1), &bytes).is_success());
    assert_eq!(b.server.allocations(), 1);
}

#[test]
fn a_relay_that_never_opens_lets_the_client_try_again() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let alice = b.login("alice", 1);
    let bytes = alice.sign(allocate()).bytes().to_vec();
    b.deliver(client(1), &bytes);
    b.shell.asked.clear();
    b.advance(secs(5));
    b.assert_idle();
    assert!(b.shell.sent.is_empty());
    b.shell.hold = false;
    assert!(b.ask(client(1), &bytes).is_success(), "the same transaction even");
}

#[test]
fn a_relay_that_opens_too_late_is_closed_again() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let alice = b.login("alice", 1);
    let request = allocate().with(Attribute::EvenPort, &[0x80]);
    b.deliver(client(1), alice.sign(request).bytes());
    b.advance(secs(5));
    b.open_held();
    assert_eq!((b.shell.closed.len(), b.shell.released.len()), (1, 1));
    assert!(b.shell.sent.is_empty());
    b.assert_idle();
}

#[test]
fn a_relay_of_a_gone_request_is_not_mistaken_for_its_successors() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let alice = b.login("alice", 1);
    b.deliver(client(1), alice.sign(allocate()).bytes());
    b.advance(secs(5));
    // The next request takes the same place in the table.
    b.deliver(client(1), alice.sign(allocate()).bytes());
    assert_ne!(b.shell.asked[0].0, b.shell.asked[1].0);
    b.open_next();
    assert_eq!(b.shell.closed.len(), 1);
    assert!(b.shell.sent.is_empty());
    b.open_next();
    assert!(b.shell.sent.pop_front().unwrap().1.is_success());
}

#[test]
fn a_failure_that_comes_too_late_is_ignored() {
    let mut b = Bench::new();
    b.shell.hold = true;
    b.shell.refuse = [true, true];
    let alice = b.login("alice", 1);
    b.deliver(client(1), alice.sign(allocate()).bytes());
    b.advance(secs(5));
    b.open_held();
    assert!(b.shell.sent.is_empty());
    b.assert_idle();
}

#[test]
fn a_server_that_was_idle_for_hours_still_waits_for_its_relay() {
    let mut b = Bench::new();
    b.shell.hold = true;
    b.advance(secs(4 * 3600));
    let alice = b.login("alice", 1);
    b.deliver(client(1), alice.sign(allocate()).bytes());
    b.advance(secs(4));
    assert_eq!(b.server.allocations(), 1);
    b.advance(secs(1));
    assert_eq!(b.server.allocations(), 0);
    b.shell.asked.clear();
}
