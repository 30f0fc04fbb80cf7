//! The writer: fills a buffer of the caller's, integrity and fingerprint last.

use std::net::SocketAddr;

use super::address;
use super::attribute::{Attribute, Classic};
use super::error::ErrorCode;
use super::header::{self, Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId};
use super::integrity::{Piece, hmac_sha1, hmac_sha256};
use super::message::fingerprint;

/// Writes one message. Running out of room is remembered and told by
/// [`finish`](Self::finish); the calls between need no checks.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
    id: TransactionId,
    overflow: bool,
}

impl<'a> Writer<'a> {
    /// Starts a message.
    pub fn new(buffer: &'a mut [u8], method: Method, class: Class, id: TransactionId) -> Self {
        let mut writer = Self { buffer, len: 0, id, overflow: false };
        writer.push(&header::join(method, class).to_be_bytes());
        writer.push(&[0, 0]);
        writer.push(&MAGIC_COOKIE.to_be_bytes());
        writer.push(&id.0);
        writer
    }

    /// Starts a response to an RFC 3489 request: its 16-byte transaction id stands
    /// where cookie and id are now.
    pub fn classic(buffer: &'a mut [u8], method: Method, class: Class, id: [u8; 16]) -> Self {
        let mut writer = Self { buffer, len: 0, id: TransactionId([0; 12]), overflow: false };
        writer.push(&header::join(method, class).to_be_bytes());
        writer.push(&[0, 0]);
        writer.push(&id);
        writer
    }

    /// Appends an attribute; its padding is zero.
    pub fn put(&mut self, attribute: Attribute, value: &[u8]) {
        self.put_code(attribute.code(), value);
    }

    /// Appends an address for an RFC 3489 client.
    pub fn put_classic(&mut self, attribute: Classic, addr: SocketAddr) {
        let mut value = [0; address::MAX_LEN];
        let len = address::encode(addr, &mut value);
        self.put_code(attribute as u16, &value[..len]);
    }

    /// Appends PADDING (RFC 5780 section 7.6): `len` bytes that mean nothing.
    pub fn put_padding(&mut self, len: usize) {
        self.head(Attribute::Padding.code(), len);
        for _ in 0..len.div_ceil(4) {
            self.push(&[0; 4]);
        }
    }

    fn put_code(&mut self, code: u16, value: &[u8]) {
        self.head(code, value.len());
        self.push(value);
        self.push(&[0; 3][..value.len().wrapping_neg() & 3]);
    }

    /// Appends the head of an attribute whose value the caller sends behind the
    /// message: the message's length counts `len` and its padding already.
    pub fn put_head_only(mut self, attribute: Attribute, len: usize) -> Option<usize> {
        self.head(attribute.code(), len);
        let total = self.len + len.next_multiple_of(4);
        self.set_length(total);
        (!self.overflow && total - HEADER_LEN <= 0xffff).then_some(self.len)
    }

    /// Appends a 32-bit value.
    pub fn put_u32(&mut self, attribute: Attribute, value: u32) {
        self.put(attribute, &value.to_be_bytes());
    }

    /// Appends an address as it is (MAPPED-ADDRESS).
    pub fn put_address(&mut self, attribute: Attribute, addr: SocketAddr) {
        let mut value = [0; address::MAX_LEN];
        let len = address::encode(addr, &mut value);
        self.put(attribute, &value[..len]);
    }

    /// Appends an address XORed with cookie and transaction id.
    pub fn put_xor_address(&mut self, attribute: Attribute, addr: SocketAddr) {
        self.put_address(attribute, address::xor(addr, self.id));
    }

    /// Appends ERROR-CODE (RFC 8489 section 14.8) with the given reason phrase.
    pub fn put_error(&mut self, code: ErrorCode, reason: &str) {
        let number = code.number();
        self.head(Attribute::ErrorCode.code(), 4 + reason.len());
        self.push(&[0, 0, (number / 100) as u8, (number % 100) as u8]);
        self.push(reason.as_bytes());
        self.push(&[0; 3][..reason.len().wrapping_neg() & 3]);
    }

    /// Appends UNKNOWN-ATTRIBUTES (RFC 8489 section 14.13).
    pub fn put_unknown(&mut self, codes: &[u16]) {
        self.head(Attribute::UnknownAttributes.code(), codes.len() * 2);
        for code in codes {
            self.push(&code.to_be_bytes());
        }
        if codes.len() % 2 == 1 {
            self.push(&[0, 0]);
        }
    }

    /// Appends MESSAGE-INTEGRITY over all before it.
    pub fn put_integrity_sha1(&mut self, key: &[u8]) {
        self.set_length(self.len + 24);
        let tag = hmac_sha1(key, &[Piece::Slice(self.written())]);
        self.put(Attribute::MessageIntegrity, &tag);
    }

    /// Appends MESSAGE-INTEGRITY-SHA256 over all before it.
    pub fn put_integrity_sha256(&mut self, key: &[u8]) {
        self.set_length(self.len + 36);
        let tag = hmac_sha256(key, &[Piece::Slice(self.written())]);
        self.put(Attribute::MessageIntegritySha256, &tag);
    }

    /// Appends FINGERPRINT; nothing may follow.
    pub fn put_fingerprint(&mut self) {
        self.set_length(self.len + 8);
        let crc = fingerprint(&[self.written()]);
        self.put_u32(Attribute::Fingerprint, crc);
    }

    /// Appends UNKNOWN-ATTRIBUTES as RFC 3489 section 11.2.10 has it: an odd list
    /// is made even by repeating one.
    pub fn put_unknown_classic(&mut self, codes: &[u16]) {
        let repeated = codes.last().filter(|_| codes.len() % 2 == 1);
        self.head(Attribute::UnknownAttributes.code(), codes.len().next_multiple_of(2) * 2);
        for code in codes.iter().chain(repeated) {
            self.push(&code.to_be_bytes());
        }
    }

    /// Completes the message: its length in bytes, or `None` when the buffer was too small.
    pub fn finish(mut self) -> Option<usize> {
        self.set_length(self.len);
        (!self.overflow).then_some(self.len)
    }

    fn written(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn head(&mut self, code: u16, len: usize) {
        self.push(&code.to_be_bytes());
        match u16::try_from(len) {
            Ok(len) => self.push(&len.to_be_bytes()),
            Err(_) => self.overflow = true,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.len..self.len + bytes.len()) {
            Some(room) if !self.overflow => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.overflow = true,
        }
    }

    /// Sets the header's length field for a message of `total` bytes.
    fn set_length(&mut self, total: usize) {
        match (u16::try_from(total.saturating_sub(HEADER_LEN)), self.buffer.get_mut(2..4)) {
            (Ok(len), Some(field)) => field.copy_from_slice(&len.to_be_bytes()),
            _ => self.overflow = true,
        }
    }
}
