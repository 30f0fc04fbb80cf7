//! The zero-copy reader.

use super::attribute::{Attribute, is_required};
use super::crc::crc32;
use super::error::ParseError;
use super::header::{self, Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId};
use super::integrity::{SHA1_LEN, SHA256_LEN};

/// At most this many distinct unknown attributes are listed in a 420 response.
pub const MAX_UNKNOWN: usize = 32;

const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// A STUN message in a packet. Parsing walks the attributes once and remembers
/// where each known one lies; the first of duplicates wins, and what follows
/// MESSAGE-INTEGRITY is ignored as RFC 8489 sections 9 and 14.5 ask.
#[derive(Clone)]
pub struct Message<'a> {
    bytes: &'a [u8],
    method: Method,
    class: Class,
    has_cookie: bool,
    /// Offset of the value and its length; an offset of 0 means absent.
    known: [(u16, u16); Attribute::COUNT],
    /// Where the attributes that count end: at the first integrity attribute.
    protected_end: usize,
    unknown: UnknownAttributes,
}

/// Comprehension-required attributes that this server does not know.
#[derive(Clone, Copy, Debug)]
pub struct UnknownAttributes {
    codes: [u16; MAX_UNKNOWN],
    len: u8,
}

impl UnknownAttributes {
    const NONE: Self = Self { codes: [0; MAX_UNKNOWN], len: 0 };

    /// The codes in order of appearance, each once.
    pub fn as_slice(&self) -> &[u16] {
        &self.codes[..usize::from(self.len)]
    }

    /// The same list with one more, if there is room for it.
    pub fn with(mut self, attribute: Attribute) -> Self {
        self.add(attribute.code());
        self
    }

    fn add(&mut self, code: u16) {
        if !self.as_slice().contains(&code) && usize::from(self.len) < MAX_UNKNOWN {
            self.codes[usize::from(self.len)] = code;
            self.len += 1;
        }
    }
}

impl<'a> Message<'a> {
    /// Reads the message that fills `bytes`.
    ///
    /// # Errors
    /// A [`ParseError`] when the bytes are not one well-formed STUN message:
    /// too short, top bits set, a length field that differs from the packet's
    /// length, an attribute over the end, or a wrong FINGERPRINT.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Some(&[t0, t1, l0, l1, c0, c1, c2, c3]) = bytes.first_chunk::<8>() else {
            return Err(ParseError::Short);
        };
        if bytes.len() < HEADER_LEN {
            return Err(ParseError::Short);
        }
        let ty = u16::from_be_bytes([t0, t1]);
        if ty & 0xc000 != 0 {
            return Err(ParseError::NotStun);
        }
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        if !len.is_multiple_of(4) || len != bytes.len() - HEADER_LEN {
            return Err(ParseError::Length);
        }
        let (method, class) = header::split(ty);
        let mut message = Self {
            bytes,
            method,
            class,
            has_cookie: u32::from_be_bytes([c0, c1, c2, c3]) == MAGIC_COOKIE,
            known: [(0, 0); Attribute::COUNT],
            protected_end: bytes.len(),
            unknown: UnknownAttributes::NONE,
        };
        message.index_attributes()?;
        Ok(message)
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether the magic cookie is there; without it the sender speaks RFC 3489.
    pub fn has_cookie(&self) -> bool {
        self.has_cookie
    }

    /// The transaction id.
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        TransactionId(id)
    }

    /// The value of the first attribute of this kind.
    #[inline]
    pub fn get(&self, attribute: Attribute) -> Option<&'a [u8]> {
        let (offset, len) = self.known[attribute as usize];
        let start = usize::from(offset);
        (offset != 0).then(|| &self.bytes[start..start + usize::from(len)])
    }

    /// Where the value of the first attribute of this kind lies in the message.
    #[inline]
    pub fn range(&self, attribute: Attribute) -> Option<std::ops::Range<usize>> {
        let (offset, len) = self.known[attribute as usize];
        let start = usize::from(offset);
        (offset != 0).then(|| start..start + usize::from(len))
    }

    /// Whether the attribute is there.
    #[inline]
    pub fn has(&self, attribute: Attribute) -> bool {
        self.known[attribute as usize].0 != 0
    }

    /// A 32-bit value; `Some(Err(()))` when the attribute has another length.
    pub fn get_u32(&self, attribute: Attribute) -> Option<Result<u32, ()>> {
        self.get(attribute).map(|v| v.try_into().map(u32::from_be_bytes).map_err(|_| ()))
    }

    /// Every value of this kind that counts, in order.
    pub fn all(&self, attribute: Attribute) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (bytes, end) = (self.bytes, self.protected_end);
        let mut at = HEADER_LEN;
        std::iter::from_fn(move || {
            while at < end {
                let (code, value, next) = attribute_at(bytes, at)?;
                at = next;
                if code == attribute.code() {
                    return Some(value);
                }
            }
            None
        })
    }

    /// Comprehension-required attributes that are not known.
    pub fn unknown(&self) -> &UnknownAttributes {
        &self.unknown
    }

    /// Offset of the attribute and value of MESSAGE-INTEGRITY, when it has the right length.
    pub(super) fn integrity_sha1(&self) -> Option<(usize, &'a [u8])> {
        self.integrity(Attribute::MessageIntegrity, SHA1_LEN)
    }

    /// The same for MESSAGE-INTEGRITY-SHA256.
    pub(super) fn integrity_sha256(&self) -> Option<(usize, &'a [u8])> {
        self.integrity(Attribute::MessageIntegritySha256, SHA256_LEN)
    }

    fn integrity(&self, attribute: Attribute, len: usize) -> Option<(usize, &'a [u8])> {
        let value = self.get(attribute).filter(|v| v.len() == len)?;
        Some((usize::from(self.known[attribute as usize].0) - 4, value))
    }

    fn index_attributes(&mut self) -> Result<(), ParseError> {
        let mut at = HEADER_LEN;
        while at < self.bytes.len() {
            let (code, value, next) = attribute_at(self.bytes, at).ok_or(ParseError::Attribute)?;
            self.index(code, at, value.len());
            if code == Attribute::Fingerprint.code() {
                self.check_fingerprint(at, value)?;
                // FINGERPRINT is the last attribute; nothing after it counts.
                break;
            }
            at = next;
        }
        Ok(())
    }

    #[inline]
    fn index(&mut self, code: u16, at: usize, len: usize) {
        let attribute = Attribute::from_code(code);
        let after_integrity = self.protected_end < self.bytes.len();
        match attribute {
            Some(Attribute::Fingerprint) => {}
            // Only MESSAGE-INTEGRITY-SHA256 counts behind MESSAGE-INTEGRITY, and
            // nothing but FINGERPRINT behind MESSAGE-INTEGRITY-SHA256.
            Some(Attribute::MessageIntegritySha256) => {
                if self.has(Attribute::MessageIntegritySha256) {
                    return;
                }
            }
            _ if after_integrity => return,
            None if is_required(code) => return self.unknown.add(code),
            None => return,
            Some(known) if !known.belongs_to(self.method) => {
                return self.unknown.add(code);
            }
            Some(_) => {}
        }
        if let Some(attribute) = attribute
            && !self.has(attribute)
        {
            // A message is at most 65,555 bytes, but an attribute at or past
            // 65,532 has no room for a value; its offset still fits.
            let Ok(offset) = u16::try_from(at + 4) else { return };
            self.known[attribute as usize] = (offset, len as u16);
            if matches!(attribute, Attribute::MessageIntegrity | Attribute::MessageIntegritySha256)
            {
                self.protected_end = self.protected_end.min(at);
            }
        }
    }

    fn check_fingerprint(&self, at: usize, value: &[u8]) -> Result<(), ParseError> {
        let value: [u8; 4] = value.try_into().map_err(|_| ParseError::Fingerprint)?;
        let length = ((at + 8 - HEADER_LEN) as u16).to_be_bytes();
        let crc = fingerprint(&[&self.bytes[..2], &length, &self.bytes[4..at]]);
        if u32::from_be_bytes(value) == crc { Ok(()) } else { Err(ParseError::Fingerprint) }
    }
}

/// The value of FINGERPRINT over a message given in pieces.
pub(super) fn fingerprint(pieces: &[&[u8]]) -> u32 {
    crc32(pieces) ^ FINGERPRINT_XOR
}

/// Type and value of the attribute at `at`, and where the next one starts.
/// `None` when it runs over the end.
#[inline]
fn attribute_at(bytes: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let (&[t0, t1, l0, l1], rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let padded = len.next_multiple_of(4);
    if padded > rest.len() {
        return None;
    }
    Some((u16::from_be_bytes([t0, t1]), &rest[..len], at + 4 + padded))
}
