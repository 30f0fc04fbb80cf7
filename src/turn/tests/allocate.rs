//! Allocate: the checks of a single relayed transport address (RFC 8656 section 7).

use super::wire::{Request, UDP, allocate, family, refresh};
use super::*;
use crate::turn::EndReason;

fn plain() -> Request {
    Request::new(Method::ALLOCATE)
}

#[test]
fn rfc8656_7_3_success_has_relayed_mapped_and_lifetime() {
    let mut b = Bench::new();
    let alice = b.login("alice", 7);
    let reply = b.grant(&alice, allocate());
    let relayed = reply.relayed();
    assert_eq!(relayed, [addr("203.0.113.5:49153")]);
    assert_eq!(reply.address(Attribute::XorMappedAddress), addr("192.0.2.7:5000"));
    assert_eq!(reply.lifetime(), 600);
    assert!(!reply.has(Attribute::ReservationToken));
    assert!(!reply.has(Attribute::AddressErrorCode));
    assert_eq!(b.shell.ports, [PortRequest::Any]);
}

#[test]
fn rfc8656_7_2_allocations_work_over_every_client_transport() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let mut b = Bench::new();
        let (login, relayed) = b.allocated_on(transport, 1);
        assert_eq!(relayed.ip(), RELAY_V4.parse::<std::net::IpAddr>().unwrap());
        b.grant(&login, refresh(Some(0)));
        b.assert_idle();
    }
}

#[test]
fn rfc8656_7_2_requested_transport_missing_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    assert_eq!(b.refuse(&alice, plain()), 400);
    b.assert_idle();
}

#[test]
fn rfc8656_7_2_requested_transport_malformed_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for value in [&[][..], &[17], &[17, 0, 0], &[17, 0, 0, 0, 0]] {
        let request = plain().with(Attribute::RequestedTransport, value);
        assert_eq!(b.refuse(&alice, request), 400, "{value:?}");
    }
}

#[test]
fn rfc8656_7_2_requested_transport_other_than_udp_is_442() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for protocol in [0, 6, 132, 255] {
        let request = plain().with(Attribute::RequestedTransport, &[protocol, 0, 0, 0]);
        assert_eq!(b.refuse(&alice, request), 442, "{protocol}");
    }
    b.assert_idle();
}

#[test]
fn rfc8656_18_8_reserved_bytes_of_requested_transport_are_ignored() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    b.grant(&alice, plain().with(Attribute::RequestedTransport, &[17, 1, 2, 3]));
}

#[test]
fn rfc8656_7_2_dont_fragment_is_supported() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    b.grant(&alice, allocate().with(Attribute::DontFragment, b""));
}

#[test]
fn rfc8656_7_2_second_allocate_on_a_five_tuple_is_437() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    assert_eq!(b.refuse(&alice, allocate()), 437);
    // Existence is looked at before anything else in the request.
    assert_eq!(b.refuse(&alice, plain()), 437);
    let bob = Login { name: "bob".into(), password: "builder".into(), ..alice };
    assert_eq!(b.refuse(&bob, allocate()), 437);
    assert_eq!(b.server.allocations(), 1);
}

#[test]
fn rfc8656_3_2_the_five_tuple_tells_allocations_apart() {
    let mut b = Bench::new();
    let from = addr("192.0.2.1:5000");
    let mut relayed = BTreeSet::new();
    let mut clients = vec![
        client_at(Transport::Udp, from, 1),
        client_at(Transport::Tcp, from, 2),
        client_at(Transport::Tls, from, 3),
        client_at(Transport::Dtls, from, 4),
        client_at(Transport::Udp, addr("192.0.2.1:5001"), 1),
    ];
    let other_port = FiveTuple::new(Transport::Udp, from, addr("203.0.113.1:3479"));
    clients.push(Client { five_tuple: other_port, link: Link(5) });
    let other_ip = FiveTuple::new(Transport::Udp, from, addr("203.0.113.2:3478"));
    clients.push(Client { five_tuple: other_ip, link: Link(6) });
    for client in &clients {
        let login = b.login_from(*client, "alice", "wonderland");
        relayed.extend(b.grant(&login, allocate()).relayed());
    }
    assert_eq!(relayed.len(), clients.len());
    assert_eq!(b.server.allocations(), clients.len());
}

#[test]
fn rfc8656_7_2_lifetime_is_at_least_the_default() {
    let mut b = Bench::new();
    for (n, asked) in [(1, 0), (2, 1), (3, 599), (4, 600)] {
        let alice = b.login("alice", n);
        assert_eq!(b.grant(&alice, allocate().lifetime(asked)).lifetime(), 600, "{asked}");
    }
}

#[test]
fn rfc8656_7_2_lifetime_is_at_most_the_maximum() {
    let mut b = Bench::new();
    for (n, asked, granted) in
        [(1, 601, 601), (2, 3600, 3600), (3, 3601, 3600), (4, u32::MAX, 3600)]
    {
        let alice = b.login("alice", n);
        assert_eq!(b.grant(&alice, allocate().lifetime(asked)).lifetime(), granted);
    }
}

#[test]
fn rfc8656_18_2_lifetime_of_another_length_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for value in [&[][..], &[0, 0, 2], &[0, 0, 0, 2, 0]] {
        assert_eq!(b.refuse(&alice, allocate().with(Attribute::Lifetime, value)), 400);
    }
    b.assert_idle();
}

#[test]
fn rfc8656_7_2_default_family_is_ipv4() {
    let mut b = Bench::new();
    let from = client_at(Transport::Udp, addr("[2001:db8:7::1]:5000"), 1);
    let alice = b.login_from(from, "alice", "wonderland");
    let reply = b.grant(&alice, allocate());
    assert!(reply.relayed()[0].is_ipv4(), "whatever the client's own family");
    assert_eq!(reply.address(Attribute::XorMappedAddress), addr("[2001:db8:7::1]:5000"));
}

#[test]
fn default_family_can_be_the_clients() {
    let mut b = Bench::with(|s| s.relay.default_family = DefaultFamily::Client);
    let from = client_at(Transport::Udp, addr("[2001:db8:7::1]:5000"), 1);
    let six = b.login_from(from, "alice", "wonderland");
    assert!(b.grant(&six, allocate()).relayed()[0].is_ipv6());
    let four = b.login("alice", 2);
    assert!(b.grant(&four, allocate()).relayed()[0].is_ipv4());
    let asked = b.login("alice", 3);
    let request = allocate().with(Attribute::RequestedAddressFamily, &family(Family::V6));
    assert!(b.grant(&asked, request).relayed()[0].is_ipv6());
}

#[test]
fn rfc8656_7_2_no_free_port_is_508() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    b.shell.refuse = [true, true];
    assert_eq!(b.refuse(&alice, allocate()), 508);
    b.assert_idle();
    // The refusal is not remembered: the same client may try again.
    b.shell.refuse = [false, false];
    b.grant(&alice, allocate());
}

#[test]
fn rfc8656_7_2_a_full_server_is_508() {
    let mut b = Bench::with(|s| s.limits.allocations = 2);
    let (first, _) = b.allocated("alice", 1);
    b.allocated("bob", 2);
    let third = b.login("bob", 3);
    assert_eq!(b.refuse(&third, allocate()), 508);
    b.grant(&first, refresh(Some(0)));
    b.grant(&third, allocate());
}

#[test]
fn rfc8656_7_2_a_refused_allocate_leaves_nothing() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let refused = [
        plain().with(Attribute::RequestedTransport, &[6, 0, 0, 0]),
        allocate().with(Attribute::EvenPort, &[0, 0]),
        allocate().with(Attribute::ReservationToken, &[1; 8]),
        allocate().with(Attribute::RequestedAddressFamily, &[9, 0, 0, 0]),
    ];
    for request in refused {
        assert_ne!(b.refuse(&alice, request), 0);
        b.assert_idle();
        assert!(b.shell.ports.is_empty(), "no port was asked for");
    }
    b.grant(&alice, plain().with(Attribute::RequestedTransport, &UDP));
}

#[test]
fn rfc8656_5_an_expired_allocation_does_not_stand_in_the_way() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    // The shell is late: nothing has been cleaned up.
    b.skip(secs(600));
    b.grant(&alice, allocate());
    assert_eq!(b.shell.closed.len(), 1);
    assert_eq!(b.shell.sockets.len(), 1);
}

#[test]
fn events_tell_of_the_beginning_and_end_of_an_allocation() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    match b.shell.events.pop() {
        Some(Event::AllocationCreated { username, relayed: [v4, v6], lifetime, .. }) => {
            assert_eq!((&*username, v4, v6), ("alice", Some(relayed), None));
            assert_eq!(lifetime, secs(600));
        }
        other => panic!("{other:?}"),
    }
    b.advance(secs(30));
    b.grant(&alice, refresh(Some(0)));
    match b.shell.events.pop() {
        Some(Event::AllocationEnded { username, relayed: [v4, _], age, reason, .. }) => {
            assert_eq!((&*username, v4, age), ("alice", Some(relayed), secs(30)));
            assert_eq!(reason, EndReason::Deleted);
        }
        other => panic!("{other:?}"),
    }
}
