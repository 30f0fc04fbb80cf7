//! NAT behaviour discovery (RFC 5780), the server's side.

use std::net::SocketAddrV6;

use super::wire::{Reply, Request, allocate};
use super::*;
use crate::turn::{Discovery, HostAddress};

const CHANGE_BOTH: u32 = 6;
const CHANGE_ADDRESS: u32 = 4;
const CHANGE_PORT: u32 = 2;

fn binding() -> Request {
    Request::new(Method::BINDING)
}

fn change(flags: u32) -> Request {
    binding().with(Attribute::ChangeRequest, &flags.to_be_bytes())
}

fn same(ip: &str) -> HostAddress {
    relay_address(ip, ip)
}

fn bench(addresses: Vec<HostAddress>, more: impl FnOnce(&mut Settings)) -> Bench {
    Bench::with(|s| {
        s.discovery = Some(Discovery { addresses, ports: [3478, 3479] });
        more(s);
    })
}

/// A server with 203.0.113.1 and .2, ports 3478 and 3479, and the same for IPv6.
pub(super) fn two_addresses(more: impl FnOnce(&mut Settings)) -> Bench {
    let addresses = ["203.0.113.1", "203.0.113.2", "2001:db8:5::1", "2001:db8:5::2"];
    bench(addresses.map(same).into(), more)
}

fn full() -> Bench {
    two_addresses(|_| {})
}

fn to_server(server: &str) -> Client {
    let from = if server.starts_with('[') { "[2001:db8:7::1]:5000" } else { "192.0.2.1:5000" };
    let five_tuple = FiveTuple::new(Transport::Udp, addr(from), addr(server));
    Client { five_tuple, link: Link(1) }
}

fn origin(reply: &Reply) -> SocketAddr {
    reply.plain_address(Attribute::ResponseOrigin)
}

fn other(reply: &Reply) -> SocketAddr {
    reply.plain_address(Attribute::OtherAddress)
}

#[test]
fn rfc5780_6_1_binding_without_its_attributes_names_origin_and_other_address() {
    let mut b = full();
    for (server, alternate) in [
        ("203.0.113.1:3478", "203.0.113.2:3479"),
        ("203.0.113.1:3479", "203.0.113.2:3478"),
        ("203.0.113.2:3478", "203.0.113.1:3479"),
        ("203.0.113.2:3479", "203.0.113.1:3478"),
        ("[2001:db8:5::1]:3478", "[2001:db8:5::2]:3479"),
        ("[2001:db8:5::2]:3479", "[2001:db8:5::1]:3478"),
    ] {
        let reply = b.ask(to_server(server), binding().bytes());
        assert_eq!((origin(&reply), other(&reply)), (addr(server), addr(alternate)));
    }
}

#[test]
fn rfc5780_6_1_both_mapped_addresses_are_included() {
    let mut b = full();
    let reply = b.ask(client(7), binding().bytes());
    assert_eq!(reply.address(Attribute::XorMappedAddress), addr("192.0.2.7:5000"));
    assert_eq!(reply.plain_address(Attribute::MappedAddress), addr("192.0.2.7:5000"));
}

#[test]
fn rfc5780_6_1_change_request_chooses_the_source() {
    let mut b = full();
    for (at, flags, source) in [
        ("203.0.113.1:3478", CHANGE_BOTH, "203.0.113.2:3479"),
        ("203.0.113.1:3478", CHANGE_ADDRESS, "203.0.113.2:3478"),
        ("203.0.113.1:3478", CHANGE_PORT, "203.0.113.1:3479"),
        ("203.0.113.2:3479", CHANGE_BOTH, "203.0.113.1:3478"),
        ("203.0.113.2:3479", CHANGE_ADDRESS, "203.0.113.1:3479"),
        ("203.0.113.2:3479", CHANGE_PORT, "203.0.113.2:3478"),
        ("[2001:db8:5::1]:3479", CHANGE_BOTH, "[2001:db8:5::2]:3478"),
    ] {
        let from = to_server(at);
        let (reply, server, to) = b.ask_around(from, change(flags).bytes());
        assert_eq!(server, addr(source), "{at} {flags:#b}");
        assert_eq!(to, from.five_tuple.client.socket(), "to where the request came from");
        assert_eq!(origin(&reply), addr(source), "what it says is what it does");
    }
}

#[test]
fn rfc5780_6_1_change_request_does_not_move_other_address() {
    let mut b = full();
    for flags in [CHANGE_BOTH, CHANGE_ADDRESS, CHANGE_PORT] {
        let (reply, ..) = b.ask_around(client(1), change(flags).bytes());
        assert_eq!(other(&reply), addr("203.0.113.2:3479"));
    }
}

#[test]
fn rfc5780_6_1_change_request_without_flags_goes_straight_back() {
    let mut b = full();
    let reply = b.ask(client(1), change(0).bytes());
    assert_eq!(origin(&reply), addr("203.0.113.1:3478"));
    // Bits that mean nothing are ignored.
    assert!(b.ask(client(1), change(!CHANGE_BOTH).bytes()).is_success());
}

#[test]
fn rfc5780_6_1_change_request_without_alternate_is_420() {
    let mut b = bench(vec![same("203.0.113.1"), same("2001:db8:5::1")], |_| {});
    for flags in [CHANGE_BOTH, CHANGE_ADDRESS, CHANGE_PORT, 0] {
        let reply = b.ask(client(1), change(flags).bytes());
        assert_eq!((reply.code(), reply.unknown()), (420, vec![0x0003]));
    }
}

#[test]
fn rfc5780_6_without_alternate_there_is_no_other_address() {
    let mut b = bench(vec![same("203.0.113.1"), same("2001:db8:5::1")], |_| {});
    let reply = b.ask(client(1), binding().bytes());
    assert_eq!(origin(&reply), addr("203.0.113.1:3478"));
    assert!(!reply.has(Attribute::OtherAddress), "an address of the other family is none");
}

#[test]
fn rfc5780_6_an_address_or_port_outside_the_four_has_no_alternate() {
    let mut b = full();
    for server in ["203.0.113.1:443", "203.0.113.9:3478"] {
        let reply = b.ask(to_server(server), binding().bytes());
        assert_eq!(origin(&reply), addr(server));
        assert!(!reply.has(Attribute::OtherAddress));
        assert_eq!(b.ask(to_server(server), change(CHANGE_PORT).bytes()).code(), 420);
    }
}

#[test]
fn rfc5780_6_1_behind_one_to_one_nat_clients_are_told_the_advertised_addresses() {
    let addresses = [("10.0.0.1", "203.0.113.1"), ("10.0.0.2", "203.0.113.2")];
    let addresses = addresses.map(|(local, advertised)| relay_address(local, advertised));
    let mut b = bench(addresses.into(), |_| {});
    let from = to_server("10.0.0.1:3478");
    let reply = b.ask(from, binding().bytes());
    assert_eq!(origin(&reply), addr("203.0.113.1:3478"));
    assert_eq!(other(&reply), addr("203.0.113.2:3479"));
    let (reply, server, _) = b.ask_around(from, change(CHANGE_BOTH).bytes());
    assert_eq!(server, addr("10.0.0.2:3479"), "sent from the address of this host");
    assert_eq!(origin(&reply), addr("203.0.113.2:3479"));
}

#[test]
fn rfc5780_6_1_off_means_its_attributes_are_unknown() {
    let mut b = Bench::new();
    let request = change(CHANGE_BOTH)
        .with(Attribute::ResponsePort, &[0x13, 0x88, 0, 0])
        .with(Attribute::Padding, &[0; 8]);
    let reply = b.ask(client(1), request.bytes());
    assert_eq!((reply.code(), reply.unknown()), (420, vec![0x0003, 0x0026, 0x0027]));
    let plain = b.ask(client(1), binding().bytes());
    assert!(!plain.has(Attribute::ResponseOrigin) && !plain.has(Attribute::MappedAddress));
}

#[test]
fn rfc5780_6_1_what_is_understood_is_not_listed_with_what_is_not() {
    let mut b = full();
    let reply = b.ask(client(1), change(CHANGE_BOTH).raw(0x7f00, b"").bytes());
    assert_eq!((reply.code(), reply.unknown()), (420, vec![0x7f00]));
}

#[test]
fn rfc5780_7_its_attributes_are_unknown_to_other_methods() {
    let mut b = full();
    let alice = b.login("alice", 1);
    for attribute in Attribute::DISCOVERY {
        let reply = b.request(&alice, allocate().with(attribute, &[0; 4]));
        assert_eq!((reply.code(), reply.unknown()), (420, vec![attribute.code()]));
    }
}

#[test]
fn rfc5780_7_5_response_port_is_another_port_of_the_sender() {
    let mut b = full();
    // The port alone and the port with two bytes of filling are both in use.
    for value in [&[0x1f, 0x90][..], &[0x1f, 0x90, 0, 0]] {
        let request = binding().with(Attribute::ResponsePort, value);
        let (reply, server, to) = b.ask_around(client(1), request.bytes());
        assert_eq!((server, to), (addr("203.0.113.1:3478"), addr("192.0.2.1:8080")));
        assert_eq!(reply.address(Attribute::XorMappedAddress), addr("192.0.2.1:5000"));
    }
    let own = binding().with(Attribute::ResponsePort, &5000u16.to_be_bytes());
    assert!(b.ask(client(1), own.bytes()).is_success(), "its own port is straight back");
}

#[test]
fn rfc5780_7_5_response_port_keeps_the_link_of_the_sender() {
    let mut b = full();
    let link_local =
        |port| SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), port, 0, 7));
    let five_tuple = FiveTuple::new(Transport::Udp, link_local(5000), addr("[fe80::2]:3478"));
    let request = binding().with(Attribute::ResponsePort, &[0x1f, 0x90]);
    let (_, _, to) = b.ask_around(Client { five_tuple, link: Link(1) }, request.bytes());
    assert_eq!(to, link_local(8080));
}

#[test]
fn rfc5780_7_5_response_port_goes_with_change_request() {
    let mut b = full();
    let request = change(CHANGE_BOTH).with(Attribute::ResponsePort, &[0x1f, 0x90, 0, 0]);
    let (_, server, to) = b.ask_around(client(1), request.bytes());
    assert_eq!((server, to), (addr("203.0.113.2:3479"), addr("192.0.2.1:8080")));
}

#[test]
fn rfc5780_7_5_response_port_needs_no_alternate() {
    let mut b = bench(vec![same("203.0.113.1")], |_| {});
    let request = binding().with(Attribute::ResponsePort, &[0x1f, 0x90, 0, 0]);
    let (_, _, to) = b.ask_around(client(1), request.bytes());
    assert_eq!(to, addr("192.0.2.1:8080"));
}

#[test]
fn rfc5780_7_6_padding_is_answered_with_padding() {
    let mut b = full();
    let request = binding().with(Attribute::Padding, &[b'x'; 1500]);
    let reply = b.ask(client(1), request.bytes());
    assert_eq!(reply.get(Attribute::Padding).unwrap().len(), 1500);
    assert!(reply.bytes.len() > 1500 - 28, "it does not fit one packet of an Ethernet");
}

#[test]
fn rfc5780_7_6_padding_is_never_longer_than_that_of_the_request() {
    let mut b = full();
    for (asked, given) in [(0, None), (1, Some(1)), (100, Some(100)), (9000, Some(1500))] {
        let request = binding().with(Attribute::Padding, &vec![b'x'; asked]);
        let reply = b.ask(client(1), request.fingerprint().bytes());
        assert_eq!(reply.get(Attribute::Padding).map(|p| p.len()), given);
    }
}

#[test]
fn rfc5780_6_1_padding_with_response_port_is_400() {
    let mut b = full();
    let request = binding()
        .with(Attribute::Padding, &[0; 100])
        .with(Attribute::ResponsePort, &[0x1f, 0x90, 0, 0]);
    assert_eq!(b.ask(client(1), request.bytes()).code(), 400);
}

#[test]
fn rfc5780_7_malformed_attributes_are_400() {
    let mut b = full();
    for request in [
        binding().with(Attribute::ChangeRequest, &[0; 3]),
        binding().with(Attribute::ChangeRequest, &[]),
        binding().with(Attribute::ResponsePort, &[1]),
        binding().with(Attribute::ResponsePort, &[0, 1, 2, 3, 4]),
        binding().with(Attribute::ResponsePort, &[0, 0, 0, 0]),
    ] {
        assert_eq!(b.ask(client(1), request.bytes()).code(), 400);
    }
}

#[test]
fn rfc5780_6_1_on_streams_only_the_addresses_are_told() {
    let mut b = full();
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let from = client_on(transport, 1);
        let reply = b.ask(from, binding().bytes());
        assert_eq!(origin(&reply), addr("203.0.113.1:3478"), "{transport}");
        assert_eq!(other(&reply), addr("203.0.113.2:3479"), "{transport}");
        for request in [
            change(CHANGE_PORT),
            binding().with(Attribute::ResponsePort, &[0x1f, 0x90, 0, 0]),
            binding().with(Attribute::Padding, &[0; 4]),
        ] {
            assert_eq!(b.ask(from, request.bytes()).code(), 400, "{transport}");
        }
    }
}

#[test]
fn rfc5780_10_answers_by_another_way_share_the_budget() {
    let mut b = two_addresses(|s| s.limits.answers_per_prefix = 1);
    b.ask_around(client(1), change(CHANGE_BOTH).bytes());
    let request = binding().with(Attribute::ResponsePort, &[0x1f, 0x90, 0, 0]);
    // A neighbour, through another address of the server: still the same prefix.
    b.ask_around(client(2), request.bytes());
    for request in [change(CHANGE_PORT), request, binding()] {
        assert_eq!(b.dropped(client(3), request.bytes()), DropReason::AnswerBudget);
    }
}

#[test]
fn rfc5780_10_an_answer_is_hardly_longer_than_its_request() {
    let mut b = full();
    let from = to_server("[2001:db8:5::1]:3478");
    for padding in [0, 4, 500, 1500, 4000] {
        let request = binding().with(Attribute::Padding, &vec![0; padding]);
        let reply = b.ask(from, request.bytes());
        // Four IPv6 addresses.
        assert!(reply.bytes.len() <= request.bytes().len() + 4 * 24);
    }
}
