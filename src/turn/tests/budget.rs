//! How much strangers can make the server say.

use super::wire::{Request, allocate, permission, refresh};
use super::*;

fn frugal() -> Bench {
    Bench::with(|s| s.limits.answers_per_prefix = 2)
}

fn binding() -> Request {
    Request::new(Method::BINDING)
}

/// Uses up what client 1 and its neighbours may get at once.
fn exhaust(b: &mut Bench) {
    for _ in 0..4 {
        b.ask(client(1), binding().bytes());
    }
    assert_eq!(b.dropped(client(1), binding().bytes()), DropReason::AnswerBudget);
}

#[test]
fn every_answer_to_a_stranger_takes_from_the_budget() {
    let mut b = frugal();
    let alice = b.login("alice", 1);
    let wrong = Login { password: "wrong".into(), ..alice.clone() };
    b.ask(client(1), wrong.sign(allocate()).bytes());
    b.ask(client(1), allocate().sha1(b"no companions").bytes());
    b.ask(client(1), binding().raw(0x7f00, b"").bytes());
    for message in [
        binding(),
        binding().raw(0x7f00, b""),
        allocate(),
        wrong.sign(allocate()),
        Login { nonce: b"old".to_vec(), ..alice }.sign(allocate()),
        refresh(None).sha1(b"no companions"),
    ] {
        assert_eq!(b.dropped(client(1), message.bytes()), DropReason::AnswerBudget);
    }
}

#[test]
fn authenticated_answers_do_not_take_from_the_budget() {
    let mut b = frugal();
    let alice = b.login("alice", 1);
    exhaust_after(&mut b, 3);
    b.grant(&alice, allocate());
    for _ in 0..20 {
        b.grant(&alice, permission(&[PEER]));
        assert_eq!(b.refuse(&alice, permission(&["127.0.0.1:1"])), 403);
    }
}

fn exhaust_after(b: &mut Bench, left: usize) {
    for _ in 0..left {
        b.ask(client(1), binding().bytes());
    }
    assert_eq!(b.dropped(client(1), binding().bytes()), DropReason::AnswerBudget);
}

#[test]
fn a_prefix_shares_its_budget_and_others_are_not_touched() {
    let mut b = frugal();
    exhaust(&mut b);
    assert_eq!(b.dropped(client(77), binding().bytes()), DropReason::AnswerBudget);
    let elsewhere = client_at(Transport::Udp, addr("192.0.3.1:5000"), 1);
    b.ask(elsewhere, binding().bytes());
    let six = client_at(Transport::Udp, addr("[2001:db8:7::1]:5000"), 1);
    b.ask(six, binding().bytes());
}

#[test]
fn the_budget_recovers() {
    let mut b = frugal();
    exhaust(&mut b);
    b.advance(Duration::from_millis(500));
    b.ask(client(1), binding().bytes());
    assert_eq!(b.dropped(client(1), binding().bytes()), DropReason::AnswerBudget);
}

#[test]
fn where_the_source_is_proven_there_is_no_budget() {
    let mut b = frugal();
    exhaust(&mut b);
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        for _ in 0..20 {
            b.ask(client_on(transport, 1), binding().bytes());
            b.ask(client_on(transport, 1), allocate().bytes());
        }
    }
}

#[test]
fn an_answer_to_a_stranger_is_small() {
    let mut b = Bench::new();
    assert_eq!(b.ask(client(1), binding().bytes()).bytes.len(), 32);
    let challenge = b.ask(client(1), allocate().bytes());
    assert!(challenge.bytes.len() <= 108, "{}", challenge.bytes.len());
}
