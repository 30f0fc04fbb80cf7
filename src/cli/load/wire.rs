//! Packets that carry stamps, as they lie on the wire: ChannelData, Send and Data
//! indications, bare datagrams of peers, Binding requests and their answers.

use std::net::SocketAddr;

use super::plan::By;
use super::stamp::{self, Stamp, filler};
use crate::stun::{
    Attribute, Class, HEADER_LEN, Message, Method, TransactionId, Writer, channel_data,
};

/// The channel of every allocation: each has one.
pub(super) const CHANNEL: u16 = 0x4000;

/// The longest start of a packet: a Send indication to an IPv6 peer and a stamp.
const START_MAX: usize = HEADER_LEN + 24 + 4 + stamp::LEN;

/// A packet to send: its start, stamp included, then filler, then padding.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    bytes: [u8; START_MAX],
    len: usize,
    /// Bytes of payload behind the stamp: what lies at the same place in the filler.
    pub(super) rest: usize,
    /// Zero bytes at the end.
    pub(super) pad: u8,
}

impl Packet {
    /// From a client to a peer.
    #[inline]
    pub(super) fn to_peer(
        by: By,
        peer: SocketAddr,
        is_stream: bool,
        stamp: Stamp,
        payload: usize,
    ) -> Self {
        let padding = channel_data::padding(payload) as u8;
        match by {
            By::Channel => {
                let header = channel_data::header(CHANNEL, payload as u16);
                Self::of(&header, stamp, payload, if is_stream { padding } else { 0 })
            }
            By::Send => {
                let mut header = [0; START_MAX];
                let id = TransactionId(stamp.encode());
                let mut writer = Writer::new(&mut header, Method::SEND, Class::Indication, id);
                writer.put_xor_address(Attribute::XorPeerAddress, peer);
                let len = writer.put_head_only(Attribute::Data, payload);
                let len = len.expect("the header has room for an address");
                Self::of(&header[..len], stamp, payload, padding)
            }
        }
    }

    /// From a peer to a relayed transport address.
    #[inline]
    pub(super) fn from_peer(stamp: Stamp, payload: usize) -> Self {
        Self::of(&[], stamp, payload, 0)
    }

    /// A Binding request, whose transaction id is the stamp.
    pub(super) fn binding(stamp: Stamp) -> Self {
        let mut header = [0; HEADER_LEN];
        let id = TransactionId(stamp.encode());
        let writer = Writer::new(&mut header, Method::BINDING, Class::Request, id);
        writer.finish().expect("a header has room for a message without attributes");
        let mut packet = Self { bytes: [0; START_MAX], len: HEADER_LEN, rest: 0, pad: 0 };
        packet.bytes[..HEADER_LEN].copy_from_slice(&header);
        packet
    }

    /// The bytes up to the end of the stamp.
    #[inline]
    pub(super) fn start(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Appends the whole packet to `buffer`.
    pub(super) fn append_to(&self, buffer: &mut Vec<u8>, payload: &[u8]) {
        buffer.extend_from_slice(self.start());
        buffer.extend_from_slice(&payload[stamp::LEN..][..self.rest]);
        buffer.extend_from_slice(&[0; 3][..usize::from(self.pad)]);
    }

    #[inline]
    fn of(header: &[u8], stamp: Stamp, payload: usize, pad: u8) -> Self {
        let len = header.len() + stamp::LEN;
        let mut bytes = [0; START_MAX];
        bytes[..header.len()].copy_from_slice(header);
        bytes[header.len()..len].copy_from_slice(&stamp.encode());
        Self { bytes, len, rest: payload - stamp::LEN, pad }
    }
}

/// What a client received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    /// Data from a peer.
    Payload(&'a [u8]),
    /// The answer to a Binding request with this stamp: it was granted, or refused with
    /// this code.
    Bound(Stamp, Result<(), u16>),
    /// Anything else: for the state machine.
    Control,
}

/// Tells what a message from the server is. `flood` says that Binding requests carry
/// stamps.
#[inline]
pub(super) fn received(message: &[u8], flood: bool) -> Received<'_> {
    if let Ok((channel, data)) = channel_data::parse(message) {
        return if channel == CHANNEL {
            Received::Payload(&message[data])
        } else {
            Received::Control
        };
    }
    match message.first_chunk::<2>() {
        Some([0x00, 0x17]) => data_indication(message).map_or(Received::Control, Received::Payload),
        Some([0x01, 0x01 | 0x11]) if flood => bound(message).unwrap_or(Received::Control),
        _ => Received::Control,
    }
}

fn data_indication(message: &[u8]) -> Option<&[u8]> {
    Message::parse(message).ok()?.get(Attribute::Data)
}

fn bound(message: &[u8]) -> Option<Received<'static>> {
    let message = Message::parse(message).ok().filter(Message::has_cookie)?;
    let stamp = Stamp::decode(&message.transaction_id().0)?;
    match (message.class(), message.get(Attribute::ErrorCode)) {
        (Class::Success, _) => {
            message.get(Attribute::XorMappedAddress).map(|_| Received::Bound(stamp, Ok(())))
        }
        (_, Some(&[_, _, class, number, ..])) => {
            let code = u16::from(class & 7) * 100 + u16::from(number);
            Some(Received::Bound(stamp, Err(code)))
        }
        _ => None,
    }
}

/// A payload of `len` bytes without its stamp.
pub(super) fn template(len: usize) -> Vec<u8> {
    (0..len).map(filler).collect()
}

/// Whether a payload is as it was sent.
#[inline]
pub(super) fn is_intact(payload: &[u8], template: &[u8]) -> bool {
    payload.len() == template.len() && payload[stamp::LEN..] == template[stamp::LEN..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 1, lane: 2, sequence: 3, sent: 4 };

    fn whole(packet: &Packet, payload: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet.append_to(&mut bytes, &template(payload));
        bytes
    }

    #[test]
    fn channel_data_is_padded_on_streams_only() {
        let peer = "192.0.2.1:1".parse().unwrap();
        for (is_stream, len) in [(false, 4 + 21), (true, 4 + 24)] {
            let bytes = whole(&Packet::to_peer(By::Channel, peer, is_stream, STAMP, 21), 21);
            assert_eq!(bytes.len(), len);
            let Received::Payload(payload) = received(&bytes, false) else { panic!("{bytes:?}") };
            assert_eq!(Stamp::decode(payload), Some(STAMP));
            assert!(is_intact(payload, &template(21)));
        }
    }

    #[test]
    fn a_send_indication_says_whom_it_is_for() {
        for peer in ["192.0.2.1:9", "[2001:db8::1]:9"] {
            let peer: SocketAddr = peer.parse().unwrap();
            let bytes = whole(&Packet::to_peer(By::Send, peer, false, STAMP, 21), 21);
            let message = Message::parse(&bytes).unwrap();
            assert_eq!((message.method(), message.class()), (Method::SEND, Class::Indication));
            let address = message.get(Attribute::XorPeerAddress).unwrap();
            let decoded = crate::stun::decode_xor_address(address, message.transaction_id());
            assert_eq!(decoded, Some(peer));
            let payload = message.get(Attribute::Data).unwrap();
            assert_eq!(Stamp::decode(payload), Some(STAMP));
            assert!(is_intact(payload, &template(21)));
        }
    }

    #[test]
    fn damage_is_seen() {
        let mut bytes = whole(&Packet::from_peer(STAMP, 40), 40);
        assert!(is_intact(&bytes, &template(40)));
        assert!(!is_intact(&bytes[..39], &template(40)));
        bytes[39] ^= 1;
        assert!(!is_intact(&bytes, &template(40)));
    }

    #[test]
    fn an_answer_to_a_flood_has_the_stamp_of_its_request() {
        let request = whole(&Packet::binding(STAMP), 12);
        let id = Message::parse(&request).unwrap().transaction_id();
        for (class, granted) in [(Class::Success, Ok(())), (Class::Error, Err(400))] {
            let mut answer = [0; 64];
            let mut writer = Writer::new(&mut answer, Method::BINDING, class, id);
            writer.put_xor_address(Attribute::XorMappedAddress, "192.0.2.1:1".parse().unwrap());
            if granted.is_err() {
                writer.put_error(crate::stun::ErrorCode::BAD_REQUEST, "");
            }
            let len = writer.finish().unwrap();
            assert_eq!(received(&answer[..len], true), Received::Bound(STAMP, granted));
            assert_eq!(received(&answer[..len], false), Received::Control);
        }
        assert_eq!(received(&request, true), Received::Control);
    }
}
