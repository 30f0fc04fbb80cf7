//! MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 (RFC 8489 sections 14.5, 14.6).

use ring::hmac;

use super::header::HEADER_LEN;
use super::message::Message;

/// Length of MESSAGE-INTEGRITY in bytes.
pub const SHA1_LEN: usize = 20;

/// Length of MESSAGE-INTEGRITY-SHA256 in bytes. TURN does not allow truncation.
pub const SHA256_LEN: usize = 32;

/// Which of the two attributes protects a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

/// Whether the message's MESSAGE-INTEGRITY is right under `key`. False when absent.
pub fn verify_sha1(message: &Message<'_>, key: &[u8]) -> bool {
    let Some((offset, value)) = message.integrity_sha1() else { return false };
    let tag = hmac_sha1(key, &covered(message.bytes(), offset, SHA1_LEN));
    constant_time_eq(&tag, value)
}

/// Whether the message's MESSAGE-INTEGRITY-SHA256 is right under `key`. False when absent.
pub fn verify_sha256(message: &Message<'_>, key: &[u8]) -> bool {
    let Some((offset, value)) = message.integrity_sha256() else { return false };
    let tag = hmac_sha256(key, &covered(message.bytes(), offset, SHA256_LEN));
    constant_time_eq(&tag, value)
}

/// The bytes that an integrity attribute at `offset` covers, as pieces: type,
/// the length the header would have if the attribute were the last, the rest.
fn covered(bytes: &[u8], offset: usize, value_len: usize) -> [Piece<'_>; 3] {
    let length = (offset + 4 + value_len - HEADER_LEN) as u16;
    [
        Piece::Slice(&bytes[..2]),
        Piece::Length(length.to_be_bytes()),
        Piece::Slice(&bytes[4..offset]),
    ]
}

/// A run of bytes under an HMAC.
pub enum Piece<'a> {
    /// Bytes of the message.
    Slice(&'a [u8]),
    /// A patched length field.
    Length([u8; 2]),
}

/// HMAC-SHA1 over several pieces taken as one.
pub fn hmac_sha1(key: &[u8], pieces: &[Piece<'_>]) -> [u8; SHA1_LEN] {
    tag(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key, pieces)
}

/// HMAC-SHA256 over several pieces taken as one.
pub fn hmac_sha256(key: &[u8], pieces: &[Piece<'_>]) -> [u8; SHA256_LEN] {
    tag(hmac::HMAC_SHA256, key, pieces)
}

fn tag<const N: usize>(algorithm: hmac::Algorithm, key: &[u8], pieces: &[Piece<'_>]) -> [u8; N] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for piece in pieces {
        match piece {
            Piece::Slice(bytes) => context.update(bytes),
            Piece::Length(bytes) => context.update(bytes),
        }
    }
    let mut out = [0; N];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// Compares without telling by time where the first difference is.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && std::hint::black_box(a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y))) == 0
}
