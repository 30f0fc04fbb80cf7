//! Users that the shell has to look up: questions, answers, and their bounds.

use super::wire::{allocate, bind, permission, refresh};
use super::*;

/// A server that knows alice and bob itself and asks for everybody else.
fn asking() -> Bench {
    Bench::with(|s| s.auth.external = true)
}

fn dave(b: &mut Bench, n: u8) -> Login {
    b.login_from(client(n), "dave", "discovery")
}

fn keys(password: &str) -> StoredKeys {
    StoredKeys::from_password("dave", REALM, password)
}

/// Sends a request that must be parked, and takes the question.
fn park(b: &mut Bench, from: Client, packet: &[u8]) -> (Ticket, LookupName) {
    match b.deliver(from, packet) {
        Outcome::Queued => {}
        other => panic!("not parked: {other:?}"),
    }
    assert!(b.shell.sent.is_empty());
    b.shell.lookups.pop_front().expect("a question")
}

fn answer(b: &mut Bench, ticket: Ticket, user: Option<(&str, StoredKeys)>) -> Option<Reply> {
    let user = user.map(|(name, keys)| (name.into(), keys));
    b.input(Input::Key { ticket, user });
    b.shell.sent.pop_front().map(|(_, reply)| reply)
}

fn named(name: &str) -> LookupName {
    LookupName::Name(name.into())
}

#[test]
fn an_unknown_user_is_looked_up() {
    for style in [Style::Legacy, Style::Modern(Algorithm::Sha256)] {
        let mut b = asking();
        let dave = dave(&mut b, 1).styled(style);
        let (ticket, name) = park(&mut b, client(1), dave.sign(allocate()).bytes());
        assert_eq!(name, named("dave"));
        let reply = answer(&mut b, ticket, Some(("dave", keys("discovery")))).unwrap();
        assert!(reply.is_success() && dave.proves(&reply));
        assert_eq!(b.server.allocations(), 1);
    }
}

#[test]
fn rfc8489_14_4_an_unknown_userhash_is_looked_up() {
    let mut b = asking();
    let dave = dave(&mut b, 1).styled(Style::Anonymous(Algorithm::Sha256));
    let (ticket, name) = park(&mut b, client(1), dave.sign(allocate()).bytes());
    assert_eq!(name, LookupName::Hash(userhash("dave", REALM)));
    let reply = answer(&mut b, ticket, Some(("dave", keys("discovery")))).unwrap();
    assert!(reply.is_success() && dave.proves(&reply));
    b.grant(&dave, refresh(None));
    b.grant(&dave.styled(Style::Modern(Algorithm::Sha256)), refresh(None));
}

#[test]
fn rfc8489_9_2_4_a_looked_up_user_with_a_wrong_password_is_401() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    for user in [Some(("dave", keys("another"))), None, Some(("dave", StoredKeys::default()))] {
        let (ticket, _) = park(&mut b, client(1), dave.sign(allocate()).bytes());
        let reply = answer(&mut b, ticket, user).unwrap();
        assert_eq!(reply.code(), 401);
        assert!(reply.has(Attribute::Nonce) && !reply.has(Attribute::MessageIntegrity));
    }
    b.assert_idle();
}

#[test]
fn an_answer_for_another_name_is_none() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    let (ticket, _) = park(&mut b, client(1), dave.sign(allocate()).bytes());
    let reply = answer(&mut b, ticket, Some(("eve", keys("discovery")))).unwrap();
    assert_eq!(reply.code(), 401);
}

#[test]
fn users_of_the_configuration_are_not_looked_up() {
    let mut b = asking();
    let (alice, _) = b.allocated("alice", 1);
    let wrong = Login { password: "wrong".into(), ..alice };
    assert_eq!(b.ask(client(1), wrong.sign(refresh(None)).bytes()).code(), 401);
    assert!(b.shell.lookups.is_empty());
}

#[test]
fn the_owner_of_an_allocation_is_not_looked_up_again() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    let (ticket, _) = park(&mut b, client(1), dave.sign(allocate()).bytes());
    answer(&mut b, ticket, Some(("dave", keys("discovery"))));
    b.grant(&dave, refresh(None));
    b.grant(&dave, permission(&[PEER]));
    b.grant(&dave, bind(0x4000, PEER));
    b.grant(&dave, refresh(Some(0)));
    assert!(b.shell.lookups.is_empty());
}

#[test]
fn the_owner_with_a_new_password_is_looked_up() {
    let mut b = asking();
    let old = dave(&mut b, 1);
    let (ticket, _) = park(&mut b, client(1), old.sign(allocate()).bytes());
    answer(&mut b, ticket, Some(("dave", keys("discovery"))));
    let new = Login { password: "challenger".into(), ..old.clone() };
    let (ticket, _) = park(&mut b, client(1), new.sign(refresh(None)).bytes());
    let reply = answer(&mut b, ticket, Some(("dave", keys("challenger")))).unwrap();
    assert!(reply.is_success() && new.proves(&reply));
    b.grant(&new, refresh(None));
    let (ticket, _) = park(&mut b, client(1), old.sign(refresh(None)).bytes());
    assert_eq!(answer(&mut b, ticket, Some(("dave", keys("challenger")))).unwrap().code(), 401);
}

#[test]
fn a_request_without_a_good_nonce_is_not_worth_a_lookup() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    let stale = Login { nonce: b"made up".to_vec(), ..dave.clone() };
    assert_eq!(b.ask(client(1), stale.sign(allocate()).bytes()).code(), 438);
    assert_eq!(b.ask(client(2), dave.sign(allocate()).bytes()).code(), 438, "another's");
    assert!(b.shell.lookups.is_empty());
    assert_eq!(b.server.poll_timeout(), None, "nothing is remembered");
}

#[test]
fn another_realm_or_an_ill_formed_name_is_not_looked_up() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    let elsewhere = Login { realm: "example.com".into(), ..dave.clone() };
    assert_eq!(b.ask(client(1), elsewhere.sign(allocate()).bytes()).code(), 401);
    let request = allocate()
        .with(Attribute::Username, b"\xff")
        .with(Attribute::Realm, REALM.as_bytes())
        .with(Attribute::Nonce, &dave.nonce)
        .sha1(b"key");
    assert_eq!(b.ask(client(1), request.bytes()).code(), 401);
    assert!(b.shell.lookups.is_empty());
}

#[test]
fn a_client_has_one_request_parked_at_a_time() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    let request = dave.sign(allocate());
    let (ticket, _) = park(&mut b, client(1), request.bytes());
    assert_eq!(b.dropped(client(1), request.bytes()), DropReason::InProgress);
    assert_eq!(b.dropped(client(1), dave.sign(allocate()).bytes()), DropReason::InProgress);
    assert!(answer(&mut b, ticket, Some(("dave", keys("discovery")))).unwrap().is_success());
}

#[test]
fn parked_requests_are_bounded() {
    let mut b = Bench::with(|s| {
        s.auth.external = true;
        s.limits.pending = 2;
    });
    let [first, second, third] = [1, 2, 3].map(|n| dave(&mut b, n));
    let (ticket, _) = park(&mut b, client(1), first.sign(allocate()).bytes());
    park(&mut b, client(2), second.sign(allocate()).bytes());
    let request = third.sign(allocate());
    assert_eq!(b.dropped(client(3), request.bytes()), DropReason::TooManyPending);
    answer(&mut b, ticket, None);
    park(&mut b, client(3), request.bytes());
}

#[test]
fn a_request_too_long_to_park_is_400() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    let long = allocate().with(Attribute::Software, &[b'x'; 1500]);
    assert_eq!(b.ask(client(1), dave.sign(long).bytes()).code(), 400);
    assert!(b.shell.lookups.is_empty());
}

#[test]
fn a_lookup_without_an_answer_is_given_up() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    let request = dave.sign(allocate());
    let (late, _) = park(&mut b, client(1), request.bytes());
    b.advance(secs(5));
    // The client repeats itself, and is asked for anew.
    let (ticket, _) = park(&mut b, client(1), request.bytes());
    assert_ne!(late, ticket);
    assert_eq!(answer(&mut b, late, Some(("dave", keys("discovery")))), None, "too late");
    assert!(answer(&mut b, ticket, Some(("dave", keys("discovery")))).unwrap().is_success());
    assert_eq!(answer(&mut b, ticket, Some(("dave", keys("discovery")))), None, "twice");
}

#[test]
fn a_lookup_after_hours_of_idling_has_its_time() {
    let mut b = asking();
    b.advance(secs(3 * 3600));
    let dave = dave(&mut b, 1);
    let (ticket, _) = park(&mut b, client(1), dave.sign(allocate()).bytes());
    b.advance(secs(4));
    assert!(answer(&mut b, ticket, Some(("dave", keys("discovery")))).unwrap().is_success());
    let again = self::dave(&mut b, 2);
    park(&mut b, client(2), again.sign(allocate()).bytes());
    b.advance(secs(6));
    park(&mut b, client(2), again.sign(allocate()).bytes());
}

#[test]
fn a_client_that_is_gone_gets_no_answer() {
    let mut b = asking();
    let from = client_on(Transport::Tcp, 1);
    let dave = b.login_from(from, "dave", "discovery");
    let (ticket, _) = park(&mut b, from, dave.sign(allocate()).bytes());
    b.input(Input::LinkClosed { five_tuple: from.five_tuple, link: from.link });
    assert_eq!(answer(&mut b, ticket, Some(("dave", keys("discovery")))), None);
    b.assert_idle();
}

#[test]
fn rfc8489_9_2_4_a_nonce_can_become_stale_while_its_request_waits() {
    let mut b = Bench::with(|s| {
        s.auth.external = true;
        s.auth.nonce_lifetime = secs(2);
    });
    let dave = dave(&mut b, 1);
    let (ticket, _) = park(&mut b, client(1), dave.sign(allocate()).bytes());
    b.advance(secs(3));
    let reply = answer(&mut b, ticket, Some(("dave", keys("discovery")))).unwrap();
    assert_eq!(reply.code(), 438);
}

#[test]
fn late_refusals_take_from_the_answer_budget() {
    let mut b = Bench::with(|s| {
        s.auth.external = true;
        s.limits.answers_per_prefix = 1;
    });
    let dave = dave(&mut b, 1);
    let (ticket, _) = park(&mut b, client(1), dave.sign(allocate()).bytes());
    assert_eq!(answer(&mut b, ticket, None).unwrap().code(), 401);
    let (ticket, _) = park(&mut b, client(1), dave.sign(allocate()).bytes());
    assert_eq!(answer(&mut b, ticket, None), None);
    assert_eq!(b.server.counters().drops(DropReason::AnswerBudget), 1);
}

#[test]
fn a_parked_allocate_goes_on_to_open_its_relay() {
    let mut b = asking();
    b.shell.hold = true;
    let dave = dave(&mut b, 1);
    let request = dave.sign(allocate().with(Attribute::EvenPort, &[0x80]));
    let (ticket, _) = park(&mut b, client(1), request.bytes());
    assert_eq!(answer(&mut b, ticket, Some(("dave", keys("discovery")))), None);
    assert_eq!(b.shell.ports, [PortRequest::EvenAndReserveNext]);
    b.open_held();
    let (_, reply) = b.shell.sent.pop_front().unwrap();
    assert!(reply.is_success() && dave.proves(&reply));
    assert!(reply.has(Attribute::ReservationToken));
}

#[test]
fn rfc8489_6_3_1_420_comes_after_the_lookup() {
    let mut b = asking();
    let dave = dave(&mut b, 1);
    let request = dave.sign(allocate().raw(0x7f00, b""));
    let (ticket, _) = park(&mut b, client(1), request.bytes());
    let reply = answer(&mut b, ticket, Some(("dave", keys("discovery")))).unwrap();
    assert_eq!((reply.code(), reply.unknown()), (420, vec![0x7f00]));
    assert!(dave.proves(&reply));
}
