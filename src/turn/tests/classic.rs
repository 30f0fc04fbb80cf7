//! Clients of RFC 3489 (RFC 8489 section 11).

use super::wire::{Request, allocate};
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
