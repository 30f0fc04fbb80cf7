//! Data both ways, ICMP, and streams that are split anywhere.

use proptest::prelude::*;
use stun_rs::attributes::turn::{Icmp, IcmpCode, IcmpType};

use super::*;

const PEER: &str = "192.0.2.50:7000";

fn config(transport: Transport) -> Config {
    Config::new(transport, USER, PASSWORD, [7; 32])
}

fn indication(method: stun_rs::MessageMethod, attributes: &[Attribute]) -> Vec<u8> {
    codec::encode(MessageClass::Indication, method, [1; 12], attributes, None, false).unwrap()
}

fn data_indication(data: &[u8]) -> Vec<u8> {
    let peer = XorPeerAddress::from(addr(PEER));
    indication(methods::DATA, &[peer.into(), Data::new(data).into()])
}

fn with_channel(transport: Transport, now: Now) -> Client {
    let mut client = allocated(config(transport), now);
    client.channel_bind(now, Some(0x4005), addr(PEER));
    let request = sent(&mut client);
    client.handle_receive(now, &request.success(&[]));
    client.poll_event().unwrap();
    client
}

#[test]
fn data_goes_in_indications_until_the_channel_is_confirmed() {
    let now = start();
    let mut client = allocated(config(Transport::Udp), now);
    client.channel_bind(now, Some(0x4005), addr(PEER));
    let bind = sent(&mut client);
    client.send(addr(PEER), b"early", false);
    let early = sent(&mut client);
    assert_eq!(early.message.method(), methods::SEND);
    assert_eq!(early.message.class(), MessageClass::Indication);
    assert_eq!(&**early.message.get::<Data>().unwrap().as_data().unwrap(), b"early");
    let peer = early.message.get::<XorPeerAddress>().unwrap();
    assert_eq!(*peer.as_xor_peer_address().unwrap().socket_address(), addr(PEER));

    client.handle_receive(now, &bind.success(&[]));
    client.send(addr(PEER), b"later", false);
    assert_eq!(client.poll_transmit().unwrap(), b"\x40\x05\x00\x05later");
}

#[test]
fn a_refused_channel_is_forgotten() {
    let now = start();
    let mut client = allocated(config(Transport::Udp), now);
    client.channel_bind(now, Some(0x4005), addr(PEER));
    let bind = sent(&mut client);
    client.handle_receive(now, &bind.error(403, Vec::new()));
    client.poll_event().unwrap();
    client.handle_receive(now, b"\x40\x05\x00\x01x");
    let why = Problem::UnboundChannel(0x4005);
    assert_eq!(client.poll_event(), Some(Event::Invalid { why }));
}

#[test]
fn dont_fragment_needs_an_indication() {
    let mut client = with_channel(Transport::Udp, start());
    client.send(addr(PEER), b"x", true);
    assert!(sent(&mut client).has::<DontFragment>());
}

#[test]
fn channel_data_is_padded_on_streams_only() {
    for (transport, expected) in
        [(Transport::Udp, &b"\x40\x05\x00\x01x"[..]), (Transport::Tcp, b"\x40\x05\x00\x01x\0\0\0")]
    {
        let mut client = with_channel(transport, start());
        client.send(addr(PEER), b"x", false);
        assert_eq!(client.poll_transmit().unwrap(), expected);
    }
}

#[test]
fn data_that_fits_no_datagram_is_refused_and_the_largest_is_not() {
    let mut client = with_channel(Transport::Udp, start());
    let data = vec![0; MAX_DATA + 1];
    client.send(addr(PEER), &data, false);
    let why = Problem::TooLong(MAX_DATA + 1);
    assert_eq!(client.poll_event(), Some(Event::Invalid { why }));
    assert_eq!(client.poll_transmit(), None);
    client.send(addr("[2001:db8::1]:9"), &data[1..], true);
    assert_eq!(client.poll_transmit().unwrap().len().div_ceil(4) * 4, 65_508);
}

#[test]
fn data_and_channel_data_arrive() {
    let now = start();
    let mut client = with_channel(Transport::Udp, now);
    client.handle_receive(now, &data_indication(b"one"));
    client.handle_receive(now, b"\x40\x05\x00\x03two\0");
    client.handle_receive(now, b"\x40\x05\x00\x00");
    let peer = addr(PEER);
    let channel = Some(0x4005);
    for (channel, data) in [(None, &b"one"[..]), (channel, b"two"), (channel, b"")] {
        let data = data.to_vec();
        assert_eq!(client.poll_event(), Some(Event::Data { peer, channel, data }));
    }
}

#[test]
fn channel_data_may_overtake_the_answer_to_channel_bind() {
    let now = start();
    let mut client = allocated(config(Transport::Udp), now);
    client.channel_bind(now, Some(0x4005), addr(PEER));
    client.handle_receive(now, b"\x40\x05\x00\x03now");
    assert!(matches!(client.poll_event(), Some(Event::Data { channel: Some(0x4005), .. })));
}

#[test]
fn icmp_errors_are_told() {
    let now = start();
    let mut client = allocated(config(Transport::Udp), now);
    let (kind, code) = (IcmpType::new(3).unwrap(), IcmpCode::new(4).unwrap());
    let error = Icmp::new(kind, code, [0, 0, 0x05, 0x78]);
    let peer = XorPeerAddress::from(addr(PEER));
    client.handle_receive(now, &indication(methods::DATA, &[peer.into(), error.into()]));
    assert_eq!(
        client.poll_event(),
        Some(Event::Icmp { peer: addr(PEER), icmp_type: 3, code: 4, info: [0, 0, 0x05, 0x78] })
    );
}

#[test]
fn other_indications_are_passed_on_raw() {
    let now = start();
    let mut client = client(Transport::Tcp);
    let attempt = stun_rs::MessageMethod::try_from(0x00C).unwrap();
    client.handle_receive(now, &indication(attempt, &[Attribute::Raw(0x002A, vec![0, 0, 0, 1])]));
    let attributes = vec![(0x002A, vec![0, 0, 0, 1])];
    assert_eq!(client.poll_event(), Some(Event::Indication { method: 0x00C, attributes }));
}

#[test]
fn what_is_neither_stun_nor_channel_data_is_invalid() {
    let now = start();
    for bytes in [&b""[..], b"\x40", b"\x80\x00\x00\x00", b"\x50\x00\x00\x00", b"\x40\x05\0\x09x"] {
        let mut client = with_channel(Transport::Udp, now);
        client.handle_receive(now, bytes);
        assert_eq!(client.poll_event(), Some(Event::Invalid { why: Problem::Framing }));
    }
}

/// A stream as a server might send it: an answer, data in both forms with every
/// amount of padding, and another answer.
fn conversation(client: &mut Client, now: Now) -> (Vec<u8>, usize) {
    client.refresh(now, None, None);
    let refresh = sent(client);
    let mut stream = refresh.success(&[LifeTime::new(600).into()]);
    for data in [&b"a"[..], b"ab", b"abc", b"abcd", b""] {
        stream.extend(framing::channel_data(0x4005, data, true));
        stream.extend(data_indication(data));
    }
    client.create_permission(now, &[addr(PEER)]);
    let permission = sent(client);
    stream.extend(permission.success(&[]));
    (stream, 12)
}

#[test]
fn a_stream_can_be_split_at_every_byte() {
    let now = start();
    let whole = {
        let mut client = with_channel(Transport::Tcp, now);
        let (stream, frames) = conversation(&mut client, now);
        client.handle_receive(now, &stream);
        let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
        assert_eq!(events.len(), frames);
        events
    };
    let length = conversation(&mut with_channel(Transport::Tcp, now), now).0.len();
    for split in 1..length {
        let mut client = with_channel(Transport::Tcp, now);
        let (stream, _) = conversation(&mut client, now);
        client.handle_receive(now, &stream[..split]);
        client.handle_receive(now, &stream[split..]);
        let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
        assert_eq!(events, whole, "split at {split}");
    }
    let mut client = with_channel(Transport::Tcp, now);
    let (stream, _) = conversation(&mut client, now);
    stream.iter().for_each(|byte| client.handle_receive(now, &[*byte]));
    let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
    assert_eq!(events, whole, "byte by byte");
}

#[test]
fn a_stream_that_loses_its_frames_stays_broken() {
    let now = start();
    let mut client = with_channel(Transport::Tcp, now);
    client.handle_receive(now, b"\x40\x05\x00\x01x\0\0\0");
    client.handle_receive(now, b"GET / HTTP/1.1\r\n");
    assert!(matches!(client.poll_event(), Some(Event::Data { .. })));
    // "G" is 0x47, a channel of length 0x5420; only what follows can be told.
    assert_eq!(client.poll_event(), None);
    let mut client = with_channel(Transport::Tcp, now);
    client.handle_receive(now, b"\xFF\xFF\xFF\xFF");
    assert_eq!(client.poll_event(), Some(Event::Invalid { why: Problem::Framing }));
    client.handle_receive(now, b"\x40\x05\x00\x01x\0\0\0");
    assert_eq!(client.poll_event(), None);
}

#[test]
fn a_stream_with_a_wrong_cookie_or_length_is_broken() {
    let now = start();
    for bytes in [&b"\x01\x01\x00\x00\x00\x00\x00\x00"[..], b"\x01\x01\x00\x02"] {
        let mut client = with_channel(Transport::Tcp, now);
        client.handle_receive(now, bytes);
        assert_eq!(client.poll_event(), Some(Event::Invalid { why: Problem::Framing }));
    }
}

proptest! {
    /// Nothing a server can send makes the client panic: noise, and real messages
    /// with a few bytes changed.
    #[test]
    fn hostile_servers_do_no_harm(
        noise in proptest::collection::vec(any::<u8>(), 0..64),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let now = start();
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut client = client(transport);
            client.allocate(now, Allocate::default());
            let request = sent(&mut client);
            let mut asked = challenge(NONCE);
            asked.push(error_code(401));
            asked.push(algorithms(&[AlgorithmId::MD5, AlgorithmId::SHA256]));
            // Without FINGERPRINT, so that changes get past it.
            let reply = |class, attributes: &[Attribute]| {
                let id = *request.message.transaction_id().as_bytes();
                codec::encode(class, methods::ALLOCATE, id, attributes, None, false).unwrap()
            };
            let mut messages = vec![
                data_indication(b"d"),
                reply(MessageClass::ErrorResponse, &asked),
                reply(MessageClass::SuccessResponse, &granted()),
            ];
            for message in &mut messages {
                for (at, value) in &changes {
                    let at = at.index(message.len());
                    message[at] = *value;
                }
                client.handle_receive(now, message);
            }
            client.handle_receive(now, &noise);
            while client.poll_event().is_some() {}
        }
    }
}
