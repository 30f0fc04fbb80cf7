//! A ClientHello in a datagram, as strangers send it (RFC 6347 section 4.2.1).

use super::front::DropReason;
use super::{CLIENT_HELLO, HANDSHAKE_HEADER, RECORD_HANDSHAKE, RECORD_HEADER};
use crate::front::Reader;

/// Highest message number of a hello. A cookie that has aged between two hellos
/// makes a client send a third one; more than a few are not sent in earnest.
const MAX_MESSAGE_SEQUENCE: u16 = 3;

const RANDOM_LEN: usize = 32;

/// A whole ClientHello, in one record that holds nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The record with its header; what follows in the datagram is left out.
    pub(super) record: &'a [u8],
    /// Number of the record, 48 bits.
    pub(super) record_sequence: u64,
    /// Number of the message: how many hellos the client has sent before.
    pub(super) message_sequence: u16,
    /// The client's version, random and session identifier.
    pub(super) opening: &'a [u8],
    pub(super) random: [u8; RANDOM_LEN],
    pub(super) cookie: &'a [u8],
    /// Cipher suites and compression methods.
    pub(super) algorithms: &'a [u8],
    pub(super) extensions: &'a [u8],
}

/// Whether a datagram begins with a plaintext record that begins with a ClientHello.
pub fn starts_with_hello(datagram: &[u8]) -> bool {
    let is = |at: usize, byte: u8| datagram.get(at) == Some(&byte);
    is(0, RECORD_HANDSHAKE) && is(3, 0) && is(4, 0) && is(RECORD_HEADER, CLIENT_HELLO)
}

impl<'a> Hello<'a> {
    /// Reads the ClientHello at the front of a datagram.
    pub(super) fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        if !starts_with_hello(datagram) {
            return Err(DropReason::NotHello);
        }
        let mut reader = Reader::new(datagram);
        let hello = Self::parse_record(&mut reader, datagram).ok_or(DropReason::Malformed)?;
        hello.ok_or(DropReason::Fragmented)
    }

    /// `Some(None)` is a fragment of a hello.
    fn parse_record(reader: &mut Reader<'a>, datagram: &'a [u8]) -> Option<Option<Self>> {
        let [_, major, _, _, _, sequence @ ..] = reader.array::<11>()?;
        let record_sequence = sequence.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let fragment = reader.vector16()?;
        let record = &datagram[..RECORD_HEADER + fragment.len()];

        let mut message = Reader::new(fragment);
        let _kind = message.u8()?;
        let len = message.u24()?;
        let message_sequence = message.u16()?;
        let (offset, part) = (message.u24()?, message.u24()?);
        if offset != 0 || part != len {
            return Some(None);
        }
        // Each message before took a record of its own.
        let plausible = message_sequence <= MAX_MESSAGE_SEQUENCE
            && record_sequence >= u64::from(message_sequence);
        if major != 0xfe || message.rest().len() != len || !plausible {
            return None;
        }
        let numbers = (record_sequence, message_sequence);
        Self::parse_body(message.rest(), record, numbers).map(Some)
    }

    fn parse_body(
        body: &'a [u8],
        record: &'a [u8],
        (record_sequence, message_sequence): (u64, u16),
    ) -> Option<Self> {
        let mut reader = Reader::new(body);
        let [0xfe, _] = reader.array()? else { return None };
        let random = reader.array()?;
        let _session_id = reader.vector8().filter(|id| id.len() <= 32)?;
        let opening = &body[..body.len() - reader.rest().len()];
        let cookie = reader.vector8()?;
        let behind_cookie = reader.rest();
        let _suites = reader.vector16().filter(|suites| suites.len() >= 2)?;
        let _compression = reader.vector8().filter(|methods| !methods.is_empty())?;
        let extensions = reader.rest();
        let algorithms = &behind_cookie[..behind_cookie.len() - extensions.len()];
        Some(Self {
            record,
            record_sequence,
            message_sequence,
            opening,
            random,
            cookie,
            algorithms,
            extensions,
        })
    }

    /// The hello as the client sent it, or would have sent it, `before` messages
    /// earlier: without a cookie.
    pub(super) fn without_cookie(&self, before: u16) -> Vec<u8> {
        let body_len = self.opening.len() + 1 + self.algorithms.len() + self.extensions.len();
        let record_sequence = (self.record_sequence - u64::from(before)).to_be_bytes();
        let message_sequence = (self.message_sequence - before).to_be_bytes();
        let message_len = u24(body_len);
        let mut out = Vec::with_capacity(self.record.len());
        out.extend_from_slice(&self.record[..5]);
        out.extend_from_slice(&record_sequence[2..]);
        // A record has a 16-bit length, and this one is not longer than it was.
        out.extend_from_slice(&((HANDSHAKE_HEADER + body_len) as u16).to_be_bytes());
        out.push(CLIENT_HELLO);
        out.extend_from_slice(&message_len);
        out.extend_from_slice(&message_sequence);
        out.extend_from_slice(&u24(0));
        out.extend_from_slice(&message_len);
        out.extend_from_slice(self.opening);
        out.push(0);
        out.extend_from_slice(self.algorithms);
        out.extend_from_slice(self.extensions);
        out
    }
}

/// The lower 24 bits, as a length is written.
pub(super) fn u24(len: usize) -> [u8; 3] {
    let [.., a, b, c] = len.to_be_bytes();
    [a, b, c]
}
