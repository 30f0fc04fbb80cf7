//! Data in both directions (RFC 8656 sections 11 and 12.4 to 12.7).

use super::wire::{Request, bind, channel_data, permission, refresh, send};
use super::*;

const DATAGRAMS: [Transport; 2] = [Transport::Udp, Transport::Dtls];
const STREAMS: [Transport; 2] = [Transport::Tcp, Transport::Tls];

/// A client with a channel to [`PEER`] and a permission for [`OTHER_PEER`].
fn ready(b: &mut Bench, transport: Transport) -> (Login, SocketAddr) {
    let (login, relayed) = b.allocated_on(transport, 1);
    b.grant(&login, bind(0x4000, PEER));
    b.grant(&login, permission(&[OTHER_PEER]));
    (login, relayed)
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8 | 1).collect()
}

#[test]
fn rfc8656_11_2_send_reaches_the_peer_from_the_relayed_address() {
    let mut b = Bench::new();
    let (_, relayed) = ready(&mut b, Transport::Udp);
    for len in [0, 1, 2, 3, 4, 1199, 1200] {
        let carried = b.carry(client(1), send(OTHER_PEER, &payload(len)).bytes());
        let expected = Carried::ToPeer {
            from: relayed,
            peer: addr(OTHER_PEER),
            data: payload(len),
            dont_fragment: false,
        };
        assert_eq!(carried, Ok(expected), "{len}");
    }
}

#[test]
fn rfc8656_11_2_dont_fragment_is_passed_on() {
    let mut b = Bench::new();
    ready(&mut b, Transport::Udp);
    for message in [
        send(OTHER_PEER, b"x").with(Attribute::DontFragment, b""),
        Request::indication(Method::SEND)
            .with(Attribute::DontFragment, b"")
            .peer(OTHER_PEER)
            .with(Attribute::Data, b"x"),
    ] {
        match b.carry(client(1), message.bytes()) {
            Ok(Carried::ToPeer { dont_fragment, .. }) => assert!(dont_fragment),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rfc8656_11_2_send_without_peer_or_data_is_discarded() {
    let mut b = Bench::new();
    ready(&mut b, Transport::Udp);
    let message = || Request::indication(Method::SEND);
    for broken in [
        message(),
        message().peer(OTHER_PEER),
        message().with(Attribute::Data, b"x"),
        message().with(Attribute::XorPeerAddress, b"").with(Attribute::Data, b"x"),
        message()
            .with(Attribute::XorPeerAddress, &[0, 3, 0, 0, 1, 2, 3, 4])
            .with(Attribute::Data, b"x"),
    ] {
        assert_eq!(b.dropped(client(1), broken.bytes()), DropReason::Malformed);
    }
}

#[test]
fn rfc8656_11_2_send_without_an_allocation_is_discarded() {
    let mut b = Bench::new();
    assert_eq!(b.dropped(client(1), send(PEER, b"x").bytes()), DropReason::NoAllocation);
    ready(&mut b, Transport::Udp);
    assert_eq!(b.dropped(client(2), send(PEER, b"x").bytes()), DropReason::NoAllocation);
    let tcp = client_on(Transport::Tcp, 1);
    assert_eq!(b.dropped(tcp, send(PEER, b"x").bytes()), DropReason::NoAllocation);
}

#[test]
fn rfc8656_11_2_send_does_not_make_a_permission() {
    let mut b = Bench::new();
    let (_, relayed) = b.allocated("alice", 1);
    b.dropped(client(1), send(PEER, b"x").bytes());
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_11_2_send_needs_no_credentials_and_ignores_them() {
    let mut b = Bench::new();
    let (alice, _) = ready(&mut b, Transport::Udp);
    let wrong = Login { password: "wrong".into(), ..alice };
    let message = wrong.sign(send(OTHER_PEER, b"x"));
    assert!(b.carry(client(1), message.bytes()).is_ok());
}

#[test]
fn rfc8489_14_5_data_behind_message_integrity_is_not_sent() {
    let mut b = Bench::new();
    ready(&mut b, Transport::Udp);
    let message = Request::indication(Method::SEND).peer(OTHER_PEER).sha1(b"k");
    let smuggled = message.with(Attribute::Data, b"x");
    assert_eq!(b.dropped(client(1), smuggled.bytes()), DropReason::Malformed);
}

#[test]
fn rfc8656_11_3_data_indication_carries_peer_and_data() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let mut b = Bench::new();
        let (login, relayed) = ready(&mut b, transport);
        for len in [0, 1, 2, 3, 4, 5, 1199, 1472, 65_000] {
            let carried = b.peer_sends(relayed, OTHER_PEER, &payload(len)).unwrap();
            let Carried::ToClient { link, client, server, bytes } = carried else { panic!() };
            assert_eq!(link, login.client.link);
            assert_eq!(client, login.client.five_tuple.client.socket());
            assert_eq!(server, login.client.five_tuple.server);
            assert_eq!(data_indication(&bytes), (addr(OTHER_PEER), payload(len)), "{len}");
        }
    }
}

#[test]
fn rfc8656_11_3_data_indication_of_an_ipv6_peer() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let family = super::wire::family(Family::V6);
    let request = super::wire::allocate().with(Attribute::RequestedAddressFamily, &family);
    let relayed = b.grant(&alice, request).relayed()[0];
    b.grant(&alice, permission(&[PEER_V6]));
    for len in [0, 1, 1200] {
        let bytes = b.peer_sends(relayed, PEER_V6, &payload(len)).unwrap().for_client();
        assert_eq!(data_indication(&bytes), (addr(PEER_V6), payload(len)));
    }
}

#[test]
fn rfc8489_5_every_indication_has_its_own_transaction_id() {
    let mut b = Bench::new();
    let (_, relayed) = ready(&mut b, Transport::Udp);
    let ids: BTreeSet<[u8; 12]> = (0..1000)
        .map(|_| {
            let bytes = b.peer_sends(relayed, OTHER_PEER, b"x").unwrap().for_client();
            bytes[8..20].try_into().unwrap()
        })
        .collect();
    assert_eq!(ids.len(), 1000);
}

#[test]
fn a_datagram_too_long_for_a_data_indication_is_dropped() {
    let mut b = Bench::new();
    let (_, relayed) = ready(&mut b, Transport::Tcp);
    let longest = 0xfffc - 12 - 4;
    let bytes = b.peer_sends(relayed, OTHER_PEER, &payload(longest)).unwrap().for_client();
    assert_eq!(data_indication(&bytes).1.len(), longest);
    let longer = b.peer_sends(relayed, OTHER_PEER, &payload(longest + 1));
    assert_eq!(longer, Err(DropReason::Malformed));
}

#[test]
fn rfc8656_12_5_channel_data_on_udp_may_be_padded_or_not() {
    for transport in DATAGRAMS {
        let mut b = Bench::new();
        let (login, relayed) = ready(&mut b, transport);
        for len in [0, 1, 2, 3, 4, 5, 1199] {
            let mut message = channel_data(0x4000, &payload(len));
            for pad in 0..4 {
                let carried = b.carry(login.client, &message);
                let expected = Carried::ToPeer {
                    from: relayed,
                    peer: addr(PEER),
                    data: payload(len),
                    dont_fragment: false,
                };
                assert_eq!(carried, Ok(expected), "{len} bytes, {pad} of padding");
                message.push(0xee);
            }
            assert_eq!(b.carry(login.client, &message), Err(DropReason::Malformed));
        }
    }
}

#[test]
fn rfc8656_12_5_channel_data_to_a_datagram_client_is_not_padded() {
    for transport in DATAGRAMS {
        let mut b = Bench::new();
        let (_, relayed) = ready(&mut b, transport);
        for len in [0, 1, 2, 3, 4, 5, 1199, 65_507] {
            let bytes = b.peer_sends(relayed, PEER, &payload(len)).unwrap().for_client();
            assert_eq!(bytes, channel_data(0x4000, &payload(len)));
        }
    }
}

#[test]
fn rfc8656_12_5_channel_data_on_a_stream_is_padded() {
    for transport in STREAMS {
        let mut b = Bench::new();
        let (login, relayed) = ready(&mut b, transport);
        for len in [0, 1, 2, 3, 4, 5, 1199, 65_507] {
            let bytes = b.peer_sends(relayed, PEER, &payload(len)).unwrap().for_client();
            assert_eq!(bytes.len() % 4, 0);
            let mut padded = channel_data(0x4000, &payload(len));
            padded.resize(padded.len().next_multiple_of(4), 0);
            assert_eq!(bytes, padded);
            // The shell hands frames over without their padding, or with it.
            let plain = channel_data(0x4000, &payload(len));
            for message in [&plain, &padded] {
                let (peer, data) = b.carry(login.client, message).unwrap().for_peer();
                assert_eq!((peer, data), (addr(PEER), payload(len)));
            }
        }
    }
}

#[test]
fn rfc8656_12_6_channel_data_for_an_unbound_channel_is_discarded() {
    let mut b = Bench::new();
    let (login, _) = ready(&mut b, Transport::Udp);
    let message = channel_data(0x4001, b"x");
    assert_eq!(b.dropped(login.client, &message), DropReason::NoChannel);
    assert_eq!(b.dropped(client(2), &message), DropReason::NoAllocation);
}

#[test]
fn rfc8656_12_6_channel_data_that_is_cut_short_is_discarded() {
    let mut b = Bench::new();
    let (login, _) = ready(&mut b, Transport::Udp);
    let message = channel_data(0x4000, b"12345678");
    for cut in 1..message.len() {
        assert_eq!(b.dropped(login.client, &message[..cut]), DropReason::Malformed, "{cut}");
    }
}

#[test]
fn rfc8656_12_reserved_channel_numbers_are_discarded() {
    let mut b = Bench::new();
    let (login, _) = ready(&mut b, Transport::Udp);
    for number in [0x5000, 0x6123, 0x7fff, 0x8000, 0xfeff] {
        let message = channel_data(number, b"12345678901234567890");
        let reason =
            if number < 0x8000 { DropReason::ReservedChannel } else { DropReason::NotStun };
        assert_eq!(b.dropped(login.client, &message), reason, "{number:#x}");
    }
}

#[test]
fn rfc8656_12_7_a_peer_with_a_channel_is_heard_through_it() {
    let mut b = Bench::new();
    let (_, relayed) = ready(&mut b, Transport::Udp);
    let bytes = b.peer_sends(relayed, PEER, b"x").unwrap().for_client();
    assert_eq!(bytes, channel_data(0x4000, b"x"));
    let bytes = b.peer_sends(relayed, OTHER_PEER, b"x").unwrap().for_client();
    assert_eq!(data_indication(&bytes).0, addr(OTHER_PEER));
}

#[test]
fn rfc8656_11_3_a_peer_without_permission_is_not_heard() {
    let mut b = Bench::new();
    let (_, relayed) = ready(&mut b, Transport::Udp);
    let stranger = b.peer_sends(relayed, "198.51.100.9:9", b"x");
    assert_eq!(stranger, Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_11_2_a_bad_port_is_refused_although_the_address_has_permission() {
    let mut b = Bench::new();
    ready(&mut b, Transport::Udp);
    assert_eq!(
        b.carry(client(1), send("198.51.100.8:0", b"x").bytes()),
        Err(DropReason::PeerDenied)
    );
}

#[test]
fn rfc8656_11_2_data_to_a_family_that_is_not_relayed_is_discarded() {
    let mut b = Bench::new();
    ready(&mut b, Transport::Udp);
    let sent = b.carry(client(1), send(PEER_V6, b"x").bytes());
    assert_eq!(sent, Err(DropReason::NoPermission));
}

#[test]
fn traffic_is_counted_in_application_data() {
    let mut b = Bench::new();
    let (login, relayed) = ready(&mut b, Transport::Udp);
    b.carry(login.client, &channel_data(0x4000, &payload(10))).unwrap();
    b.carry(login.client, send(OTHER_PEER, &payload(20)).bytes()).unwrap();
    b.peer_sends(relayed, PEER, &payload(3)).unwrap();
    b.dropped(login.client, &channel_data(0x4003, &payload(1000)));
    let expected = crate::turn::Traffic {
        packets_to_peers: 2,
        bytes_to_peers: 30,
        packets_to_client: 1,
        bytes_to_client: 3,
    };
    assert_eq!(b.server.counters().traffic, expected);
    b.grant(&login, refresh(Some(0)));
    match b.shell.events.last() {
        Some(Event::AllocationEnded { traffic, .. }) => assert_eq!(*traffic, expected),
        other => panic!("{other:?}"),
    }
}
