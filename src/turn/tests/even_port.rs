//! EVEN-PORT and RESERVATION-TOKEN (RFC 8656 sections 7.2, 18.7, 18.10).

use super::wire::{Request, allocate, family, refresh};
use super::*;

const RESERVE: &[u8] = &[0x80];

fn even(flags: &[u8]) -> Request {
    allocate().with(Attribute::EvenPort, flags)
}

fn claiming(token: &[u8]) -> Request {
    allocate().with(Attribute::ReservationToken, token)
}

/// Allocates an even port and its neighbour; returns the first port and the token.
fn reserve(b: &mut Bench, login: &Login) -> (SocketAddr, Vec<u8>) {
    let reply = b.grant(login, even(RESERVE));
    let token = reply.get(Attribute::ReservationToken).expect("a token");
    assert_eq!(token.len(), 8);
    (reply.relayed()[0], token)
}

#[test]
fn rfc8656_7_2_even_port_is_even() {
    let mut b = Bench::new();
    for n in 1..4 {
        let alice = b.login("alice", n);
        let reply = b.grant(&alice, even(&[0]));
        assert_eq!(reply.relayed()[0].port() % 2, 0);
        assert!(!reply.has(Attribute::ReservationToken));
    }
    assert_eq!(b.shell.ports, [PortRequest::Even; 3]);
}

#[test]
fn rfc8656_18_7_only_the_first_bit_of_even_port_counts() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    assert!(!b.grant(&alice, even(&[0x7f])).has(Attribute::ReservationToken));
    let bob = b.login("bob", 2);
    assert!(b.grant(&bob, even(&[0xff])).has(Attribute::ReservationToken));
    assert_eq!(b.shell.ports, [PortRequest::Even, PortRequest::EvenAndReserveNext]);
}

#[test]
fn rfc8656_18_7_even_port_of_another_length_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for value in [&[][..], &[0x80, 0], &[0, 0, 0, 0]] {
        assert_eq!(b.refuse(&alice, even(value)), 400);
    }
}

#[test]
fn rfc8656_7_2_no_even_port_is_508() {
    let mut b = Bench::new();
    b.shell.refuse = [true, true];
    let alice = b.login("alice", 1);
    assert_eq!(b.refuse(&alice, even(&[0])), 508);
    assert_eq!(b.refuse(&alice, even(RESERVE)), 508);
    b.assert_idle();
}

#[test]
fn rfc8656_7_2_the_token_gives_the_next_port() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (first, token) = reserve(&mut b, &alice);
    assert_eq!(first.port() % 2, 0);
    let again = b.login("alice", 2);
    let reply = b.grant(&again, claiming(&token));
    assert_eq!(reply.relayed(), [SocketAddr::new(first.ip(), first.port() + 1)]);
    assert!(!reply.has(Attribute::ReservationToken));
}

#[test]
fn rfc8656_7_2_the_reserved_port_goes_to_nobody_else() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (first, _) = reserve(&mut b, &alice);
    for n in 2..8 {
        let (_, relayed) = b.allocated("alice", n);
        assert_ne!(relayed.port(), first.port() + 1);
    }
}

#[test]
fn rfc8656_7_2_a_reservation_can_be_of_an_ipv6_port() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let request = even(RESERVE).with(Attribute::RequestedAddressFamily, &family(Family::V6));
    let reply = b.grant(&alice, request);
    let token = reply.get(Attribute::ReservationToken).unwrap();
    let again = b.login("alice", 2);
    let next = b.grant(&again, claiming(&token)).relayed();
    assert!(next[0].is_ipv6());
    assert_eq!(next[0].port(), reply.relayed()[0].port() + 1);
}

#[test]
fn rfc8656_7_2_a_token_is_good_once() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (_, token) = reserve(&mut b, &alice);
    let second = b.login("alice", 2);
    b.grant(&second, claiming(&token));
    let third = b.login("alice", 3);
    assert_eq!(b.refuse(&third, claiming(&token)), 508);
    b.grant(&second, refresh(Some(0)));
    assert_eq!(b.refuse(&third, claiming(&token)), 508, "nor does it come back");
}

#[test]
fn a_token_is_good_for_its_owner_only() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (_, token) = reserve(&mut b, &alice);
    let bob = b.login("bob", 2);
    assert_eq!(b.refuse(&bob, claiming(&token)), 508);
    let again = b.login("alice", 3);
    b.grant(&again, claiming(&token));
}

#[test]
fn rfc8656_7_2_a_reservation_lasts_thirty_seconds() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (_, token) = reserve(&mut b, &alice);
    b.advance(Duration::from_millis(29_999));
    assert!(b.shell.released.is_empty());
    b.advance(Duration::from_millis(500));
    assert_eq!(b.shell.released.len(), 1, "the port is free again");
    let again = b.login("alice", 2);
    assert_eq!(b.refuse(&again, claiming(&token)), 508);
}

#[test]
fn rfc8656_7_2_a_reservation_is_over_on_time_when_the_shell_is_late() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (_, token) = reserve(&mut b, &alice);
    let again = b.login("alice", 2);
    b.skip(secs(30));
    assert_eq!(b.refuse(&again, claiming(&token)), 508);
}

#[test]
fn one_user_cannot_set_all_ports_aside() {
    let mut b = Bench::with(|s| s.limits.allocations_per_user = 2);
    let alice = b.login("alice", 1);
    let reserving = || allocate().with(Attribute::EvenPort, &[0x80]);
    for _ in 0..2 {
        b.grant(&alice, reserving());
        b.grant(&alice, refresh(Some(0)));
    }
    assert_eq!(b.refuse(&alice, reserving()), 508);
    b.grant(&alice, allocate());
    let bob = b.login("bob", 2);
    b.grant(&bob, reserving());
    b.advance(secs(31));
    b.grant(&alice, refresh(Some(0)));
    b.grant(&alice, reserving());
}

#[test]
fn rfc8656_7_2_a_reservation_outlives_its_first_allocation() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (first, token) = reserve(&mut b, &alice);
    b.grant(&alice, refresh(Some(0)));
    assert!(b.shell.released.is_empty());
    assert_eq!(b.grant(&alice, claiming(&token)).relayed()[0].port(), first.port() + 1);
}

#[test]
fn a_reservation_made_after_hours_of_idling_lasts_thirty_seconds() {
    let mut b = Bench::new();
    b.advance(secs(5 * 3600));
    let alice = b.login("alice", 1);
    reserve(&mut b, &alice);
    b.grant(&alice, refresh(Some(0)));
    b.advance(secs(29));
    assert!(b.shell.released.is_empty());
    b.advance(secs(2));
    assert_eq!(b.shell.released.len(), 1);
    b.assert_idle();
}

#[test]
fn rfc8656_7_2_unknown_token_is_508() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (_, mut token) = reserve(&mut b, &alice);
    let again = b.login("alice", 2);
    for wrong in [[0; 8], [0xff; 8]] {
        assert_eq!(b.refuse(&again, claiming(&wrong)), 508);
    }
    token[7] ^= 1;
    assert_eq!(b.refuse(&again, claiming(&token)), 508);
}

#[test]
fn rfc8656_18_10_token_of_another_length_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for len in [0, 4, 7, 9, 16] {
        assert_eq!(b.refuse(&alice, claiming(&vec![1; len])), 400, "{len}");
    }
}

#[test]
fn rfc8656_7_2_token_with_even_port_or_a_family_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (_, token) = reserve(&mut b, &alice);
    let again = b.login("alice", 2);
    for other in [
        claiming(&token).with(Attribute::EvenPort, &[0]),
        claiming(&token).with(Attribute::EvenPort, RESERVE),
        claiming(&token).with(Attribute::RequestedAddressFamily, &family(Family::V4)),
        claiming(&token).with(Attribute::AdditionalAddressFamily, &family(Family::V6)),
    ] {
        assert_eq!(b.refuse(&again, other), 400);
    }
    b.grant(&again, claiming(&token));
}

#[test]
fn rfc8656_7_2_reserving_with_two_families_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let both = |r: Request| r.with(Attribute::AdditionalAddressFamily, &family(Family::V6));
    assert_eq!(b.refuse(&alice, both(even(RESERVE))), 400);
    let reply = b.grant(&alice, both(even(&[0])));
    assert!(reply.relayed().iter().all(|relayed| relayed.port() % 2 == 0));
}

#[test]
fn tokens_cannot_be_guessed_from_one_another() {
    let mut b = Bench::new();
    let mut tokens = BTreeSet::new();
    for n in 0..50 {
        let alice = b.login("alice", n);
        let (_, token) = reserve(&mut b, &alice);
        assert_eq!(token[..2], [0, 0], "the shard that keeps the port");
        tokens.insert(token[2..].to_vec());
    }
    assert_eq!(tokens.len(), 50);
    let first_bytes: BTreeSet<u8> = tokens.iter().map(|t| t[0]).collect();
    assert!(first_bytes.len() > 30, "they do not count up");
}

#[test]
fn a_claimed_port_that_does_not_open_is_508() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (_, token) = reserve(&mut b, &alice);
    let again = b.login("alice", 2);
    b.shell.refuse = [true, true];
    assert_eq!(b.refuse(&again, claiming(&token)), 508);
    b.shell.refuse = [false, false];
    b.grant(&alice, refresh(Some(0)));
    b.assert_idle();
}

#[test]
fn a_reserved_port_is_told_for_every_claim() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let (first, token) = reserve(&mut b, &alice);
    let again = b.login("alice", 2);
    b.grant(&again, claiming(&token));
    let next = RelayedAddr::new(SocketAddr::new(first.ip(), first.port() + 1));
    assert_eq!(b.shell.ports, [PortRequest::EvenAndReserveNext, PortRequest::Reserved(next)]);
}
