//! The keys of long-term credentials (RFC 8489 sections 9.2.2 and 18.5.1).

use md5::{Digest, Md5};
use ring::digest;

/// A password algorithm (RFC 8489 section 18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// MD5, the only one before RFC 8489.
    Md5,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Md5 => 0x0001,
            Self::Sha256 => 0x0002,
        }
    }

    /// The algorithm with this number.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            0x0001 => Some(Self::Md5),
            0x0002 => Some(Self::Sha256),
            _ => None,
        }
    }
}

/// The key of a client's HMACs: made from user name, realm and password, or out
/// of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// 16 bytes: MD5 of `user:realm:password`.
    Md5([u8; 16]),
    /// 32 bytes: SHA-256 of `user:realm:password`.
    Sha256([u8; 32]),
    /// What a token brought (RFC 7635).
    Token(MacKey),
}

/// The MAC key of a token: 20 to 64 bytes, or 16 of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacKey {
    len: u8,
    bytes: [u8; Self::MAX],
}

impl MacKey {
    /// 160 bits, which every server takes (RFC 7635 section 6.2).
    const MIN: usize = 20;
    /// A block of the hashes; HMAC shortens what is longer.
    const MAX: usize = 64;

    /// `None` when it is too short or too long.
    pub fn new(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        (key.len() >= Self::MIN).then_some(Self { len: key.len() as u8, bytes })
    }

    /// Its first 16 bytes: coturn, both client and server, signs with no more of it.
    pub fn shortened(mut self) -> Self {
        self.bytes[16..].fill(0);
        self.len = 16;
        self
    }

    /// The key itself.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Key {
    /// The MD5 key, SIP's H(A1).
    pub fn md5(user: &str, realm: &str, password: &str) -> Self {
        let mut hash = Md5::new();
        for part in [user, ":", realm, ":", password] {
            hash.update(part);
        }
        Self::Md5(hash.finalize().into())
    }

    /// The SHA-256 key.
    pub fn sha256(user: &str, realm: &str, password: &str) -> Self {
        Self::Sha256(sha256(&[user, ":", realm, ":", password]))
    }

    /// The key for the given algorithm.
    pub fn derive(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::md5(user, realm, password),
            Algorithm::Sha256 => Self::sha256(user, realm, password),
        }
    }

    /// Which algorithm made it; `None` for the key of a token.
    pub fn algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::Md5(_) => Some(Algorithm::Md5),
            Self::Sha256(_) => Some(Algorithm::Sha256),
            Self::Token(_) => None,
        }
    }

    /// The key itself.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Md5(key) => key,
            Self::Sha256(key) => key,
            Self::Token(key) => key.bytes(),
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Md5(_) => "Md5",
            Self::Sha256(_) => "Sha256",
            Self::Token(_) => "Token",
        };
        write!(f, "{kind}(***)")
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(***)")
    }
}

/// What is kept of a user's password: one key per algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredKeys {
    /// The MD5 key, when known.
    pub md5: Option<[u8; 16]>,
    /// The SHA-256 key, when known.
    pub sha256: Option<[u8; 32]>,
}

impl StoredKeys {
    /// Both keys of a password.
    pub fn from_password(user: &str, realm: &str, password: &str) -> Self {
        let (mut keys, password) = (Self::default(), opaque(password));
        for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
            match Key::derive(algorithm, user, realm, &password) {
                Key::Md5(key) => keys.md5 = Some(key),
                Key::Sha256(key) => keys.sha256 = Some(key),
                Key::Token(_) => unreachable!("no password makes the key of a token"),
            }
        }
        keys
    }

    /// The key for the given algorithm, when known.
    pub fn get(&self, algorithm: Algorithm) -> Option<Key> {
        match algorithm {
            Algorithm::Md5 => self.md5.map(Key::Md5),
            Algorithm::Sha256 => self.sha256.map(Key::Sha256),
        }
    }
}

/// USERHASH of a user (RFC 8489 section 14.4).
pub fn userhash(user: &str, realm: &str) -> [u8; 32] {
    sha256(&[user, ":", realm])
}

/// Applies the OpaqueString profile (RFC 8265 section 4.2) as far as it changes
/// text: non-ASCII spaces become spaces, and the result is in NFC. Text that the
/// profile forbids is left as it is: it will simply match no client's.
pub fn opaque(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    use precis_core::profile::PrecisFastInvocation;
    precis_profiles::OpaqueString::enforce(text).map_or_else(|_| text.to_owned(), Into::into)
}

fn sha256(parts: &[&str]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8489_9_2_2_md5_example() {
        let key = Key::md5("user", "realm", "pass");
        let expected = 0x8493_fbc5_3ba5_82fb_4c04_4c45_6bdc_40eb_u128.to_be_bytes();
        assert_eq!(key.bytes(), expected);
    }

    #[test]
    fn rfc8489_9_2_2_opaque_string_is_applied_to_passwords() {
        assert_eq!(opaque("pass\u{a0}word"), "pass word");
        let plain = StoredKeys::from_password("u", "r", "e\u{301}");
        assert_eq!(plain, StoredKeys::from_password("u", "r", "\u{e9}"));
    }

    #[test]
    fn keys_do_not_show_themselves() {
        assert_eq!(format!("{:?}", Key::md5("a", "b", "c")), "Md5(***)");
    }
}
