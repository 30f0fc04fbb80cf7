//! Binding and what every message has in common (RFC 8489 sections 5 to 7, 12, 14).

use super::wire::{Request, UDP, allocate, bind, permission, refresh, send};
use super::*;
use crate::stun::TransactionId;

fn binding() -> Request {
    Request::new(Method::BINDING)
}

#[test]
fn rfc8489_12_binding_success_has_xor_mapped_address() {
    let mut b = Bench::new();
    let reply = b.ask(client(9), binding().bytes());
    assert!(reply.is_success());
    assert_eq!(reply.message().method(), Method::BINDING);
    assert_eq!(reply.address(Attribute::XorMappedAddress), addr("192.0.2.9:5000"));
    assert_eq!(reply.bytes.len(), 32, "nothing else is told to a stranger");
}

#[test]
fn rfc8489_14_2_xor_mapped_address_of_an_ipv6_client() {
    let mut b = Bench::new();
    let from = client_at(Transport::Udp, addr("[2001:db8:7::1]:1234"), 1);
    let reply = b.ask(from, binding().bytes());
    assert_eq!(reply.address(Attribute::XorMappedAddress), addr("[2001:db8:7::1]:1234"));
}

#[test]
fn rfc8489_14_2_a_v4_mapped_client_is_an_ipv4_client() {
    let mut b = Bench::new();
    let from = client_at(Transport::Udp, addr("[::ffff:192.0.2.7]:1234"), 1);
    let reply = b.ask(from, binding().bytes());
    assert_eq!(reply.address(Attribute::XorMappedAddress), addr("192.0.2.7:1234"));
}

#[test]
fn rfc8489_6_3_1_1_response_repeats_transaction_id_and_method() {
    let mut b = Bench::new();
    let id = [0xab; 12];
    let reply = b.ask(client(1), binding().id(id).bytes());
    assert_eq!(reply.message().transaction_id(), TransactionId(id));
    assert!(reply.message().has_cookie());
}

#[test]
fn rfc8489_12_binding_needs_no_state() {
    let mut b = Bench::new();
    b.ask(client(1), binding().bytes());
    assert_eq!(b.server.poll_timeout(), None);
    b.assert_idle();
}

#[test]
fn rfc8489_12_binding_is_answered_on_every_transport() {
    let mut b = Bench::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls] {
        assert!(b.ask(client_on(transport, 1), binding().bytes()).is_success(), "{transport}");
    }
}

#[test]
fn rfc8489_12_binding_ignores_credentials() {
    let mut b = Bench::new();
    let request = binding().with(Attribute::Username, b"nobody").sha1(b"no key of ours");
    assert!(b.ask(client(1), request.bytes()).is_success());
}

#[test]
fn rfc8489_6_3_1_unknown_required_attributes_of_binding_are_listed_in_420() {
    let mut b = Bench::new();
    let request = binding().raw(0x0024, &[0; 4]).raw(0x7f01, b"").raw(0x0024, b"twice");
    let reply = b.ask(client(1), request.bytes());
    assert_eq!(reply.code(), 420);
    assert_eq!(reply.unknown(), [0x0024, 0x7f01]);
    assert!(!reply.has(Attribute::Software));
}

#[test]
fn rfc8489_6_3_1_unknown_optional_attributes_are_ignored() {
    let mut b = Bench::new();
    let request = binding().raw(0x8000 | 0x3333, b"whatever").raw(0xffff, b"");
    assert!(b.ask(client(1), request.bytes()).is_success());
}

#[test]
fn rfc8489_7_fingerprint_is_answered_with_fingerprint() {
    let mut b = Bench::new();
    assert!(!b.ask(client(1), binding().bytes()).has(Attribute::Fingerprint));
    let reply = b.ask(client(1), binding().fingerprint().bytes());
    // Reading the reply has checked its value.
    assert!(reply.has(Attribute::Fingerprint));
    let challenge = b.ask(client(1), allocate().fingerprint().bytes());
    assert_eq!(challenge.code(), 401);
    assert!(challenge.has(Attribute::Fingerprint));
    let alice = b.login("alice", 1);
    let created = b.ask(client(1), alice.sign(allocate()).fingerprint().bytes());
    assert!(created.is_success() && alice.proves(&created));
    assert!(created.has(Attribute::Fingerprint), "also when the answer comes later");
    let refused = b.ask(client(1), alice.sign(permission(&[])).fingerprint().bytes());
    assert_eq!(refused.code(), 400);
    assert!(refused.has(Attribute::Fingerprint));
}

#[test]
fn rfc8489_7_wrong_fingerprint_is_not_stun() {
    let mut b = Bench::new();
    let mut bytes = binding().fingerprint().bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(b.dropped(client(1), &bytes), DropReason::WrongFingerprint);
}

#[test]
fn rfc8489_14_7_nothing_counts_behind_fingerprint() {
    let mut b = Bench::new();
    let request = binding().fingerprint();
    let mut bytes = request.bytes().to_vec();
    // The CRC covers a length that ends with FINGERPRINT, wherever the message ends.
    let len = (bytes.len() - 20 + 4) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes.extend([0x7f, 0x00, 0, 0]);
    assert!(b.ask(client(1), &bytes).is_success(), "an unknown attribute there is not seen");
}

#[test]
fn rfc8489_6_3_responses_are_never_answered() {
    let mut b = Bench::new();
    let methods = [Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method::CHANNEL_BIND];
    for method in methods {
        for class in [Class::Success, Class::Error] {
            let message = Request::of_class(method, class);
            assert_eq!(b.dropped(client(1), message.bytes()), DropReason::Unexpected);
        }
    }
}

#[test]
fn rfc8489_6_3_2_indications_are_never_answered() {
    let mut b = Bench::new();
    for method in [Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method::DATA] {
        let message = Request::indication(method).raw(0x7f01, b"");
        assert_eq!(b.dropped(client(1), message.bytes()), DropReason::Unexpected);
    }
    let malformed = Request::indication(Method::SEND);
    assert_eq!(b.dropped(client(1), malformed.bytes()), DropReason::Malformed);
}

#[test]
fn rfc8489_6_3_2_indication_with_unknown_required_attribute_is_discarded() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    let message = send(PEER, b"data").raw(0x7f01, b"");
    assert_eq!(b.carry(client(1), message.bytes()), Err(DropReason::UnknownAttribute));
    let message = send(PEER, b"data").raw(0xff01, b"");
    assert!(b.carry(client(1), message.bytes()).is_ok());
}

#[test]
fn rfc8489_6_3_requests_of_unknown_methods_are_discarded() {
    let mut b = Bench::new();
    for method in [Method(0x00), Method(0x02), Method(0x0a), Method::SEND, Method::DATA] {
        let request = Request::new(method);
        assert_eq!(b.dropped(client(1), request.bytes()), DropReason::UnknownMethod, "{method:?}");
    }
}

#[test]
fn rfc8489_5_a_cookie_is_needed() {
    let mut b = Bench::new();
    assert_eq!(b.dropped(client(1), binding().classic().bytes()), DropReason::NoCookie);
    assert_eq!(b.dropped(client(1), allocate().classic().bytes()), DropReason::NoCookie);
    let indication = send(PEER, b"").classic();
    assert_eq!(b.dropped(client(1), indication.bytes()), DropReason::NoCookie);
}

#[test]
fn rfc8489_6_3_ill_formed_messages_are_discarded() {
    let mut b = Bench::new();
    let good = binding().with(Attribute::Software, b"client").bytes().to_vec();
    for cut in 1..good.len() {
        assert_eq!(b.dropped(client(1), &good[..cut]), DropReason::Malformed, "cut at {cut}");
    }
    let mut over = good.clone();
    over[23] = 200;
    assert_eq!(b.dropped(client(1), &over), DropReason::Malformed);
    let mut odd = good;
    odd[3] += 2;
    assert_eq!(b.dropped(client(1), &odd), DropReason::Malformed);
}

#[test]
fn rfc7983_7_what_is_neither_stun_nor_channel_data_is_discarded() {
    let mut b = Bench::new();
    for first in (4..=63).chain(128..=255u8) {
        assert_eq!(b.dropped(client(1), &[first; 24]), DropReason::NotStun, "{first}");
    }
    assert_eq!(b.dropped(client(1), &[]), DropReason::NotStun);
}

#[test]
fn rfc8489_14_the_first_of_duplicate_attributes_counts() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let request = allocate().lifetime(1000).lifetime(2000);
    assert_eq!(b.grant(&alice, request).lifetime(), 1000);
}

#[test]
fn rfc8489_14_14_software_is_told_to_authenticated_clients_only() {
    let mut b = Bench::new();
    assert!(!b.ask(client(1), binding().bytes()).has(Attribute::Software));
    assert!(!b.ask(client(1), allocate().bytes()).has(Attribute::Software));
    // `grant` and `refuse` check that it is there.
    let alice = b.login("alice", 1);
    b.grant(&alice, allocate());
    assert_eq!(b.refuse(&alice, allocate()), 437);
    let mut quiet = Bench::with(|s| s.software = None);
    let alice = quiet.login("alice", 1);
    let reply = quiet.ask(client(1), alice.sign(allocate()).bytes());
    assert!(reply.is_success() && !reply.has(Attribute::Software));
}

#[test]
fn rfc8489_6_3_1_unknown_attributes_of_turn_methods_are_told_after_authentication_only() {
    let mut b = Bench::new();
    let strange =
        |r: Request| r.raw(0x7f02, b"x").raw(0x8f02, b"y").raw(0x0024, &[0; 4]).raw(0x7f02, b"");
    assert_eq!(b.ask(client(1), strange(allocate()).bytes()).code(), 401);
    let alice = b.login("alice", 1);
    let wrong = Login { password: "wrong".into(), ..alice.clone() };
    assert_eq!(b.ask(client(1), wrong.sign(strange(allocate())).bytes()).code(), 401);
    for request in [allocate(), refresh(None), permission(&[PEER]), bind(0x4000, PEER)] {
        let reply = b.request(&alice, strange(request));
        assert_eq!((reply.code(), reply.unknown()), (420, vec![0x7f02, 0x0024]));
    }
    assert_eq!(b.server.allocations(), 0);
}

#[test]
fn rfc8489_14_13_many_unknown_attributes_still_give_an_answer() {
    let mut b = Bench::new();
    let request = (0x7000..0x7100).fold(binding(), |r, code| r.raw(code, b""));
    let reply = b.ask(client(1), request.bytes());
    assert_eq!(reply.code(), 420);
    assert_eq!(reply.unknown(), (0x7000..0x7020).collect::<Vec<u16>>(), "the first 32");
}

#[test]
fn rfc8489_6_3_1_reserved_attribute_types_of_other_usages_are_unknown() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    // CHANGE-REQUEST, PRIORITY, CONNECTION-ID, ACCESS-TOKEN, MOBILITY's neighbours.
    for code in [0x0003, 0x0024, 0x002a, 0x001b] {
        let request = Request::new(Method::ALLOCATE)
            .with(Attribute::RequestedTransport, &UDP)
            .raw(code, &[0; 4]);
        assert_eq!(b.refuse(&alice, request), 420, "{code:#x}");
    }
}
