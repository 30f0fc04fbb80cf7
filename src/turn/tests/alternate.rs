//! Sending clients to another server (RFC 8489 section 10, RFC 8656 section 7.2).

use super::wire::{Request, allocate, bind, permission, refresh};
use super::*;
use crate::turn::{Alternates, Redirect};

const V4: [&str; 2] = ["203.0.113.9:3478", "203.0.113.10:3478"];
const V6: &str = "[2001:db8:5::9]:3478";
const TLS: &str = "203.0.113.9:5349";

fn alternates(redirect: Redirect) -> Alternates {
    Alternates {
        servers: vec![addr(V4[0]), addr(V6), addr(V4[1])],
        tls_servers: vec![addr(TLS)],
        domain: Some("turn2.example.org".into()),
        redirect,
    }
}

fn always() -> Bench {
    Bench::with(|s| s.alternates = Some(alternates(Redirect::Always)))
}

/// A server with alternates that drains from now on.
fn drain(b: &mut Bench) {
    b.server.set_draining(true);
}

fn draining() -> Bench {
    Bench::with(|s| s.alternates = Some(alternates(Redirect::Draining)))
}

/// Where a refused Allocate is sent, in the order of the attributes.
fn sent_to(b: &mut Bench, login: &Login) -> Vec<SocketAddr> {
    let reply = b.request(login, allocate());
    assert_eq!(reply.code(), 300);
    let addresses = reply.all(Attribute::AlternateServer);
    addresses.iter().map(|value| crate::stun::decode_address(value).unwrap()).collect()
}

#[test]
fn rfc8489_10_alternate_server_is_of_the_clients_family_first() {
    let mut b = always();
    let v4 = b.login("alice", 1);
    assert_eq!(sent_to(&mut b, &v4), [addr(V4[0]), addr(V6)]);
    let from = addr("[2001:db8:1::1]:5000");
    let v6 = b.login_from(client_at(Transport::Udp, from, 9), "alice", "wonderland");
    assert_eq!(sent_to(&mut b, &v6)[0], addr(V6));
    b.assert_idle();
}

#[test]
fn rfc8489_10_a_family_without_an_alternate_is_served_here() {
    let only_v4 = |redirect| {
        Bench::with(|s| {
            let servers = vec![addr(V4[0])];
            s.alternates = Some(Alternates { servers, ..alternates(redirect) });
        })
    };
    let mut b = only_v4(Redirect::Always);
    let from = client_at(Transport::Udp, addr("[2001:db8:1::1]:5000"), 9);
    let v6 = b.login_from(from, "alice", "wonderland");
    b.grant(&v6, allocate());
    let v4 = b.login("alice", 1);
    assert_eq!(sent_to(&mut b, &v4), [addr(V4[0])]);
    // But not by a server that is about to stop.
    let mut b = only_v4(Redirect::Draining);
    drain(&mut b);
    let v6 = b.login_from(from, "alice", "wonderland");
    assert_eq!(b.refuse(&v6, allocate()), 508);
}

#[test]
fn rfc8489_10_alternates_take_turns() {
    let mut b = always();
    let alice = b.login("alice", 1);
    let first: Vec<SocketAddr> = (0..4).map(|_| sent_to(&mut b, &alice)[0]).collect();
    assert_eq!(first, [addr(V4[0]), addr(V4[1]), addr(V4[0]), addr(V4[1])]);
}

#[test]
fn rfc8489_10_only_who_has_proven_itself_is_redirected() {
    let mut b = always();
    let stranger = b.ask(client(1), allocate().bytes());
    assert_eq!((stranger.code(), stranger.has(Attribute::AlternateServer)), (401, false));
    let liar = Login { password: "wrong".into(), ..b.login("alice", 1) };
    assert_eq!(b.ask(client(1), liar.sign(allocate()).bytes()).code(), 401);
    // `request` checks the integrity of the 300.
    let alice = b.login("alice", 1);
    assert_eq!(b.request(&alice, allocate()).code(), 300);
    let binding = b.ask(client(1), Request::new(Method::BINDING).bytes());
    assert!(binding.is_success(), "Binding is answered here");
}

#[test]
fn rfc8489_10_clients_with_certificates_to_check_are_told_the_domain() {
    let mut b = always();
    for transport in [Transport::Tls, Transport::Dtls, Transport::Tcp, Transport::Udp] {
        let login = b.login_from(client_on(transport, 1), "alice", "wonderland");
        let reply = b.request(&login, allocate());
        let secure = matches!(transport, Transport::Tls | Transport::Dtls);
        let expected = secure.then(|| b"turn2.example.org".to_vec());
        assert_eq!((reply.code(), reply.get(Attribute::AlternateDomain)), (300, expected));
        let address = reply.plain_address(Attribute::AlternateServer);
        assert_eq!(address == addr(TLS), secure, "{transport}: {address}");
    }
}

#[test]
fn rfc8489_10_a_malformed_allocate_is_not_worth_a_redirect() {
    let mut b = always();
    let alice = b.login("alice", 1);
    assert_eq!(b.refuse(&alice, Request::new(Method::ALLOCATE)), 400);
}

#[test]
fn rfc8656_7_2_draining_redirects_new_allocations_and_keeps_the_old_ones() {
    let mut b = draining();
    let alice = b.login("alice", 1);
    let request = alice.sign(allocate());
    let first = b.ask(client(1), request.bytes());
    drain(&mut b);
    let bob = b.login("bob", 2);
    assert_eq!(sent_to(&mut b, &bob), [addr(V4[0]), addr(V6)]);
    assert_eq!(b.ask(client(1), request.bytes()), first, "a retransmission is no new allocation");
    b.grant(&alice, permission(&[PEER]));
    b.grant(&alice, bind(0x4000, PEER));
    assert_eq!(b.grant(&alice, refresh(Some(1200))).lifetime(), 1200);
    assert!(b.peer_sends(first.relayed()[0], PEER, b"x").is_ok());
    b.grant(&alice, refresh(Some(0)));
    b.assert_idle();
}

#[test]
fn rfc8656_7_2_draining_without_alternates_is_508() {
    let mut b = Bench::new();
    drain(&mut b);
    let alice = b.login("alice", 1);
    assert_eq!(b.refuse(&alice, allocate()), 508);
    b.server.set_draining(false);
    b.grant(&alice, allocate());
}

#[test]
fn rfc8656_7_2_alternates_for_draining_do_not_matter_before() {
    let mut b = draining();
    b.allocated("alice", 1);
}
