//! ICMP errors for datagrams that were relayed (RFC 8656 sections 11.5, 18.13).

use super::wire::{allocate, bind, family, permission};
use super::*;

struct Icmp {
    peer: &'static str,
    icmp_type: u8,
    code: u8,
    info: u32,
}

const UNREACHABLE: Icmp = Icmp { peer: PEER, icmp_type: 3, code: 3, info: 0 };

/// Lets an ICMP error come back to a relayed transport address; what the client gets.
fn report(b: &mut Bench, relayed: SocketAddr, icmp: &Icmp) -> Option<Reply> {
    let relay = b.relay_at(relayed).expect("the relay is open");
    let &Icmp { icmp_type, code, info, .. } = icmp;
    let peer = PeerAddr::new(addr(icmp.peer));
    b.input(Input::Icmp { relay, peer, icmp_type, code, info });
    let (to, reply) = b.shell.sent.pop_front()?;
    assert_eq!(to.five_tuple.client.socket(), client(1).five_tuple.client.socket());
    assert!(b.shell.sent.is_empty());
    let message = reply.message();
    assert_eq!((message.method(), message.class()), (Method::DATA, Class::Indication));
    assert_eq!(reply.address(Attribute::XorPeerAddress), addr(icmp.peer));
    assert!(!reply.has(Attribute::Data));
    Some(reply)
}

fn dual(b: &mut Bench) -> [SocketAddr; 2] {
    let alice = b.login("alice", 1);
    let request = allocate().with(Attribute::AdditionalAddressFamily, &family(Family::V6));
    let relayed = b.grant(&alice, request).relayed();
    b.grant(&alice, permission(&[PEER, PEER_V6]));
    [relayed[0], relayed[1]]
}

#[test]
fn rfc8656_18_13_icmp_has_seven_bits_of_type_nine_of_code_and_data() {
    let mut b = Bench::new();
    let [v4, v6] = dual(&mut b);
    let cases = [
        (v4, Icmp { peer: PEER, icmp_type: 3, code: 3, info: 0 }, [0, 0, 6, 3, 0, 0, 0, 0]),
        (v4, Icmp { peer: PEER, icmp_type: 3, code: 4, info: 1400 }, [0, 0, 6, 4, 0, 0, 5, 120]),
        (v4, Icmp { peer: PEER, icmp_type: 11, code: 0, info: 0 }, [0, 0, 22, 0, 0, 0, 0, 0]),
        (v6, Icmp { peer: PEER_V6, icmp_type: 1, code: 4, info: 0 }, [0, 0, 2, 4, 0, 0, 0, 0]),
        (v6, Icmp { peer: PEER_V6, icmp_type: 2, code: 0, info: 1280 }, [0, 0, 4, 0, 0, 0, 5, 0]),
        (v6, Icmp { peer: PEER_V6, icmp_type: 3, code: 255, info: 0 }, [0, 0, 6, 255, 0, 0, 0, 0]),
    ];
    for (relayed, icmp, expected) in cases {
        let reply = report(&mut b, relayed, &icmp).expect("told");
        assert_eq!(reply.get(Attribute::Icmp), Some(expected.to_vec()));
    }
}

#[test]
fn rfc8656_11_5_other_icmp_types_are_ignored() {
    let mut b = Bench::new();
    let [v4, v6] = dual(&mut b);
    for icmp_type in (0..=255).filter(|t| ![3, 11].contains(t)) {
        let icmp = Icmp { icmp_type, ..UNREACHABLE };
        assert_eq!(report(&mut b, v4, &icmp), None, "{icmp_type}");
    }
    for icmp_type in (0..=255).filter(|t| ![1, 2, 3].contains(t)) {
        let icmp = Icmp { peer: PEER_V6, icmp_type, code: 0, info: 0 };
        assert_eq!(report(&mut b, v6, &icmp), None, "{icmp_type}");
    }
}

#[test]
fn rfc8656_11_5_icmp_needs_a_permission() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    assert_eq!(report(&mut b, relayed, &UNREACHABLE), None);
    b.grant(&alice, permission(&[PEER]));
    assert!(report(&mut b, relayed, &UNREACHABLE).is_some());
    assert_eq!(report(&mut b, relayed, &Icmp { peer: OTHER_PEER, ..UNREACHABLE }), None);
    b.advance(secs(300));
    assert_eq!(report(&mut b, relayed, &UNREACHABLE), None);
}

#[test]
fn rfc8656_11_5_icmp_about_a_peer_with_a_channel_comes_as_an_indication() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    assert!(report(&mut b, relayed, &UNREACHABLE).is_some());
}

#[test]
fn rfc8656_11_5_icmp_for_a_relay_that_is_gone_is_ignored() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[PEER]));
    let relay = b.relay_at(relayed).unwrap();
    let icmp =
        || Input::Icmp { relay, peer: PeerAddr::new(addr(PEER)), icmp_type: 3, code: 3, info: 0 };
    b.skip(secs(600));
    b.input(icmp());
    assert!(b.shell.sent.is_empty(), "expired");
    b.advance(secs(1));
    b.input(icmp());
    assert!(b.shell.sent.is_empty(), "closed");
}
