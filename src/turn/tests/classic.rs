//! Clients of RFC 3489 (RFC 8489 section 11).

use super::wire::{Reply, Request, allocate};
use super::*;

fn binding() -> Request {
    Request::new(Method::BINDING).classic()
}

fn classic() -> Bench {
    Bench::with(|s| s.rfc3489 = true)
}

#[test]
fn rfc8489_11_classic_binding_is_dropped_when_off() {
    let mut b = Bench::new();
    assert_eq!(b.dropped(client(1), binding().bytes()), DropReason::NoCookie);
}

#[test]
fn rfc8489_11_classic_binding_gets_mapped_address() {
    let mut b = classic();
    let reply = b.ask(client(1), binding().bytes());
    assert!(reply.is_success());
    // `ask` has compared the 16 bytes of the transaction id.
    assert!(!reply.message().has_cookie());
    assert_eq!(reply.plain_address(Attribute::MappedAddress), addr("192.0.2.1:5000"));
    assert!(!reply.has(Attribute::XorMappedAddress) && !reply.has(Attribute::Fingerprint));
}

#[test]
fn rfc8489_11_with_the_cookie_a_binding_is_modern_also_when_classic_is_on() {
    let mut b = classic();
    let reply = b.ask(client(1), Request::new(Method::BINDING).bytes());
    assert!(reply.has(Attribute::XorMappedAddress) && !reply.has(Attribute::MappedAddress));
}

#[test]
fn rfc8489_11_classic_is_binding_over_udp_only() {
    let mut b = classic();
    assert_eq!(b.dropped(client(1), allocate().classic().bytes()), DropReason::NoCookie);
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let from = client_on(transport, 1);
        assert_eq!(b.dropped(from, binding().bytes()), DropReason::NoCookie, "{transport}");
    }
}

#[test]
fn rfc8489_11_classic_answers_share_the_budget() {
    let mut b = Bench::with(|s| {
        s.rfc3489 = true;
        s.limits.answers_per_prefix = 1;
    });
    b.ask(client(1), binding().bytes());
    b.ask(client(1), binding().bytes());
    assert_eq!(b.dropped(client(1), binding().bytes()), DropReason::AnswerBudget);
}

/// The value of an attribute that only classic answers have, by its type.
fn classic_address(reply: &Reply, code: u16) -> Option<SocketAddr> {
    let head = [&code.to_be_bytes()[..], &[0, 8, 0, 1]].concat();
    let at = reply.bytes.windows(6).position(|bytes| bytes == head)?;
    let value = reply.bytes[at + 6..].first_chunk::<6>()?;
    let ip: [u8; 4] = value[2..].try_into().unwrap();
    Some(SocketAddr::from((ip, u16::from_be_bytes([value[0], value[1]]))))
}

const SOURCE_ADDRESS: u16 = 0x0004;
const CHANGED_ADDRESS: u16 = 0x0005;

fn change(flags: u32) -> Request {
    Request::new(Method::BINDING).with(Attribute::ChangeRequest, &flags.to_be_bytes()).classic()
}

#[test]
fn rfc3489_8_1_source_address_is_where_the_answer_comes_from() {
    let mut b = classic();
    let reply = b.ask(client(1), binding().bytes());
    assert_eq!(classic_address(&reply, SOURCE_ADDRESS), Some(addr("203.0.113.1:3478")));
    assert_eq!(classic_address(&reply, CHANGED_ADDRESS), None, "there is no other address");
}

#[test]
fn rfc3489_8_1_changed_address_is_the_other_address_and_port() {
    let mut b = super::discovery::two_addresses(|s| s.rfc3489 = true);
    // Clients of RFC 3489 send CHANGE-REQUEST always, with zero for no change.
    for request in [binding(), change(0)] {
        let reply = b.ask(client(1), request.bytes());
        assert_eq!(classic_address(&reply, SOURCE_ADDRESS), Some(addr("203.0.113.1:3478")));
        assert_eq!(classic_address(&reply, CHANGED_ADDRESS), Some(addr("203.0.113.2:3479")));
    }
}

#[test]
fn rfc3489_8_1_change_request_is_followed() {
    let mut b = super::discovery::two_addresses(|s| s.rfc3489 = true);
    let ways = [(6, "203.0.113.2:3479"), (4, "203.0.113.2:3478"), (2, "203.0.113.1:3479")];
    for (flags, source) in ways {
        let (reply, server, to) = b.ask_around(client(1), change(flags).bytes());
        assert_eq!((server, to), (addr(source), addr("192.0.2.1:5000")));
        assert_eq!(classic_address(&reply, SOURCE_ADDRESS), Some(addr(source)));
        assert_eq!(classic_address(&reply, CHANGED_ADDRESS), Some(addr("203.0.113.2:3479")));
    }
}

#[test]
fn rfc3489_8_1_change_request_without_another_address_is_refused() {
    let mut b = classic();
    assert!(b.ask(client(1), change(0).bytes()).is_success(), "nothing is asked for");
    let refused = b.ask(client(1), change(6).bytes());
    assert_eq!((refused.code(), refused.unknown()), (420, vec![0x0003, 0x0003]));
}

#[test]
fn rfc3489_11_2_10_an_odd_list_of_unknown_attributes_repeats_one() {
    let mut b = classic();
    let odd = Request::new(Method::BINDING).raw(0x7f00, b"").classic();
    let refused = b.ask(client(1), odd.bytes());
    assert_eq!((refused.code(), refused.unknown()), (420, vec![0x7f00, 0x7f00]));
    let even = Request::new(Method::BINDING).raw(0x7f00, b"").raw(0x7f01, b"").classic();
    let refused = b.ask(client(1), even.bytes());
    assert_eq!((refused.code(), refused.unknown()), (420, vec![0x7f00, 0x7f01]));
}

#[test]
fn rfc3489_11_2_2_response_address_is_refused() {
    let mut b = super::discovery::two_addresses(|s| s.rfc3489 = true);
    let victim = [0, 1, 0x13, 0x88, 198, 51, 100, 7];
    let request = Request::new(Method::BINDING).raw(0x0002, &victim).classic();
    assert_eq!(b.ask(client(1), request.bytes()).code(), 420);
}
