//! Self-contained tokens of an authorization server (RFC 7635).
//!
//! A web application that shares a key with this server seals a fresh MAC key, the
//! time and a lifetime into a token. The client gets token and MAC key, signs with
//! the one and sends the other; nothing is stored or asked here. USERNAME names
//! the key that the token is sealed with. The name of this server is sealed in as
//! well, so that a token for one server opens at no other.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;

use super::directory::Identity;
use super::key::MacKey;
use crate::net::Now;

/// How far the clocks may differ, in seconds (RFC 7635 section 7).
const DELTA: u64 = 5;

/// The longest ACCESS-TOKEN that is opened, in bytes: all that is sealed in has
/// less than half of that.
const MAX_TOKEN: usize = 256;

/// How tokens are sealed (RFC 7635 section 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// AES-128 in Galois/Counter Mode.
    A128Gcm,
    /// AES-256 in Galois/Counter Mode.
    A256Gcm,
}

impl TokenAlgorithm {
    /// Length of its keys in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::A128Gcm => 16,
            Self::A256Gcm => 32,
        }
    }
}

/// A key that an authorization server has, too.
pub struct TokenKey {
    id: Box<str>,
    key: LessSafeKey,
    valid: RangeInclusive<u64>,
}

impl TokenKey {
    /// `id` is what clients send as USERNAME; `valid` are the times, in seconds
    /// since the epoch, at which tokens may have been sealed with it.
    ///
    /// `None` when the key has another length than its algorithm takes.
    pub fn new(
        id: &str,
        algorithm: TokenAlgorithm,
        key: &[u8],
        valid: RangeInclusive<u64>,
    ) -> Option<Self> {
        let aead = match algorithm {
            TokenAlgorithm::A128Gcm => &AES_128_GCM,
            TokenAlgorithm::A256Gcm => &AES_256_GCM,
        };
        let key = LessSafeKey::new(UnboundKey::new(aead, key).ok()?);
        Some(Self { id: id.into(), key, valid })
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, ***)", self.id)
    }
}

/// The keys with which tokens for this server are sealed.
#[derive(Debug)]
pub struct Tokens {
    server: Box<str>,
    keys: Vec<TokenKey>,
}

impl Tokens {
    /// `server` is the name under which authorization servers know this one.
    pub fn new(server: &str, keys: Vec<TokenKey>) -> Self {
        Self { server: server.into(), keys }
    }

    /// The value of THIRD-PARTY-AUTHORIZATION (RFC 7635 section 6.1).
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Opens an ACCESS-TOKEN that was sealed with the key `id` and is valid now:
    /// who it is for, and the key that the request is signed with.
    ///
    /// A token has no subject. What tells its holder from others, for quotas, is
    /// the name of the key with a hash of the MAC key.
    pub fn open(&self, now: Now, id: &str, token: &[u8]) -> Option<(Identity, MacKey)> {
        let key = self.keys.iter().find(|key| *key.id == *id)?;
        let token = unseal(key, &self.server, token)?;
        if !key.valid.contains(&token.sealed) {
            return None;
        }
        let (now, lifetime) = (now.unix_secs(), u64::from(token.lifetime));
        if now.abs_diff(token.sealed) >= lifetime + DELTA {
            return None;
        }
        let name: Arc<str> = id.into();
        let user = format!("{id}:{}", fingerprint(&token.mac_key)).into();
        let expires = Some(token.sealed.saturating_add(lifetime + DELTA - 1));
        Some((Identity { name, user, expires }, token.mac_key))
    }
}

/// What is sealed in a token.
struct Content {
    mac_key: MacKey,
    /// When it was made, in seconds since the epoch.
    sealed: u64,
    /// In seconds.
    lifetime: u32,
}

/// The token of RFC 7635 section 6.2: a nonce behind its length, and the rest
/// sealed.
fn unseal(key: &TokenKey, server: &str, token: &[u8]) -> Option<Content> {
    let (len, rest) = token.split_first_chunk::<2>()?;
    if usize::from(u16::from_be_bytes(*len)) != NONCE_LEN || token.len() > MAX_TOKEN {
        return None;
    }
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
    let mut buffer = [0; MAX_TOKEN];
    let buffer = buffer.get_mut(..sealed.len())?;
    buffer.copy_from_slice(sealed);
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let content = key.key.open_in_place(nonce, Aad::from(server.as_bytes()), buffer).ok()?;
    let (len, rest) = content.split_first_chunk::<2>()?;
    let (mac_key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let (time, lifetime) = rest.split_first_chunk::<8>()?;
    Some(Content {
        mac_key: MacKey::new(mac_key)?,
        // 48 bits of seconds, then 16 of fractions.
        sealed: u64::from_be_bytes(*time) >> 16,
        lifetime: u32::from_be_bytes(lifetime.try_into().ok()?),
    })
}

/// Enough of a hash to tell MAC keys apart, in hexadecimal.
fn fingerprint(key: &MacKey) -> String {
    let hash = digest::digest(&digest::SHA256, key.bytes());
    hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test starts its own clock")]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use std::time::{Duration, Instant};

    const SEALED: u64 = 1_700_000_000;
    const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

    fn at(unix: u64) -> Now {
        Now { mono: Instant::now(), unix: Duration::from_secs(unix) }
    }

    fn tokens(server: &str) -> Tokens {
        let key = |id, algorithm, key| TokenKey::new(id, algorithm, key, 0..=u64::MAX).unwrap();
        let keys = vec![
            key("north", TokenAlgorithm::A256Gcm, &KEY[..]),
            key("south", TokenAlgorithm::A128Gcm, &KEY[..16]),
        ];
        Tokens::new(server, keys)
    }

    /// turnutils_oauth -e -i turn.example.org -j north -k KEY -n A256GCM -p ZZZ… -r 3600
    /// with a key, nonce and time of ours.
    const NORTH: &str =
        "AAxub25jZS1ub25jZSFekIAu3vAzro2Z8DRrRL3t1YZaBHZ1/CKkhvWR3Vx6zcnJInWMcILtWr+nSPObZhIEVg==";
    /// The same with A128GCM and half of the key.
    const SOUTH: &str =
        "AAxub25jZS1ub25jZSFlH86wwpFNGUEKDPMH5ty+j/uOg1K6OiTBB/w8Dv5tK5f3Bp9RgOBR6g8nalssg+OwXA==";

    #[test]
    fn rfc7635_6_2_tokens_of_another_implementation_open() {
        for (id, token) in [("north", NORTH), ("south", SOUTH)] {
            let token = STANDARD.decode(token).unwrap();
            let opened = tokens("turn.example.org").open(at(SEALED), id, &token);
            let (identity, key) = opened.expect("it opens");
            assert_eq!(key.bytes(), [b'Z'; 20]);
            assert_eq!((&*identity.name, identity.expires), (id, Some(SEALED + 3604)));
            assert!(identity.user.starts_with(&format!("{id}:")), "{}", identity.user);
            assert_eq!(identity.user.len(), id.len() + 17);
        }
    }

    #[test]
    fn rfc7635_7_a_token_is_for_one_server_and_one_key() {
        let token = STANDARD.decode(NORTH).unwrap();
        assert!(tokens("turn.example.com").open(at(SEALED), "north", &token).is_none());
        for id in ["south", "nobody", ""] {
            assert!(tokens("turn.example.org").open(at(SEALED), id, &token).is_none());
        }
    }

    #[test]
    fn rfc7635_7_lifetime_and_five_seconds_around_the_time_of_sealing() {
        let token = STANDARD.decode(NORTH).unwrap();
        for (time, good) in [
            (SEALED - 3605, false),
            (SEALED - 3604, true),
            (SEALED, true),
            (SEALED + 3604, true),
            (SEALED + 3605, false),
        ] {
            let opened = tokens("turn.example.org").open(at(time), "north", &token);
            assert_eq!(opened.is_some(), good, "{time}");
        }
    }

    #[test]
    fn keys_are_good_for_tokens_of_their_time() {
        let token = STANDARD.decode(NORTH).unwrap();
        for (valid, good) in
            [(0..=SEALED - 1, false), (SEALED..=SEALED, true), (SEALED + 1..=u64::MAX, false)]
        {
            let key = TokenKey::new("north", TokenAlgorithm::A256Gcm, KEY, valid).unwrap();
            let tokens = Tokens::new("turn.example.org", vec![key]);
            assert_eq!(tokens.open(at(SEALED), "north", &token).is_some(), good);
        }
        assert!(TokenKey::new("north", TokenAlgorithm::A256Gcm, &KEY[..16], 0..=1).is_none());
    }

    #[test]
    fn no_part_of_a_token_can_be_changed_or_left_out() {
        let token = STANDARD.decode(NORTH).unwrap();
        let tokens = tokens("turn.example.org");
        for i in 0..token.len() {
            let mut altered = token.clone();
            altered[i] ^= 0x10;
            assert!(tokens.open(at(SEALED), "north", &altered).is_none(), "byte {i}");
            assert!(tokens.open(at(SEALED), "north", &token[..i]).is_none(), "{i} bytes");
        }
        assert!(tokens.open(at(SEALED), "north", &[0xff; 2000]).is_none());
    }

    #[test]
    fn keys_do_not_show_themselves() {
        let shown = format!("{:?}", tokens("turn.example.org"));
        assert!(shown.contains("north") && !shown.contains("0123"), "{shown}");
    }
}
