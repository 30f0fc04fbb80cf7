//! Stateless nonces with the nonce cookie of RFC 8489 section 9.2.
//!
//! A nonce is `obMatJos2`, the base64 of 24 feature bits, and the base64 of a
//! 32-bit time and 112 bits of HMAC-SHA256 over time, features and the client's
//! transport address. Nothing is stored; servers that share the key accept each
//! other's nonces.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hmac;

use crate::net::Now;
use crate::stun::constant_time_eq;

const COOKIE: &[u8; 9] = b"obMatJos2";
const TAG_LEN: usize = 14;
const BODY_LEN: usize = 4 + TAG_LEN;
const BODY_AT: usize = COOKIE.len() + 4;

/// Length of a nonce in bytes: all of them visible ASCII.
pub const NONCE_LEN: usize = BODY_AT + BODY_LEN / 3 * 4;

/// How far a fleet's clocks may disagree before a nonce from the future is refused.
const SKEW: Duration = Duration::from_secs(60);

/// STUN Security Feature bits (RFC 8489 section 18.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// PASSWORD-ALGORITHMS is in use.
    pub password_algorithms: bool,
    /// USERHASH is understood.
    pub username_anonymity: bool,
}

impl Features {
    fn bits(self) -> [u8; 3] {
        let first =
            u8::from(self.password_algorithms) << 7 | u8::from(self.username_anonymity) << 6;
        [first, 0, 0]
    }
}

/// What a nonce is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Made by this key for this client, and not too old.
    Valid,
    /// Anything else: too old, another client's, altered, or never ours.
    Stale,
}

/// Makes and checks nonces.
pub struct NonceKey {
    key: hmac::Key,
    features: Features,
    lifetime: Duration,
}

impl NonceKey {
    /// `secret` is any length; give a fleet the same one. `lifetime` is how long a
    /// nonce is accepted.
    pub fn new(secret: &[u8], features: Features, lifetime: Duration) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), features, lifetime }
    }

    /// Whether `nonce` starts with a cookie that announces PASSWORD-ALGORITHMS.
    pub fn announces_password_algorithms(nonce: &[u8]) -> bool {
        let Some(bits) = nonce.strip_prefix(COOKIE).and_then(|rest| rest.first_chunk::<4>()) else {
            return false;
        };
        let mut out = [0; 3];
        matches!(STANDARD_NO_PAD.decode_slice(bits, &mut out), Ok(3)) && out[0] & 0x80 != 0
    }

    /// A nonce for this client, valid from now.
    pub fn issue(&self, now: Now, client: SocketAddr) -> [u8; NONCE_LEN] {
        let time = (now.unix_secs() as u32).to_be_bytes();
        let mut body = [0; BODY_LEN];
        body[..4].copy_from_slice(&time);
        body[4..].copy_from_slice(&self.tag(time, client));
        let mut nonce = [0; NONCE_LEN];
        nonce[..COOKIE.len()].copy_from_slice(COOKIE);
        encode(&self.features.bits(), &mut nonce[COOKIE.len()..BODY_AT]);
        encode(&body, &mut nonce[BODY_AT..]);
        nonce
    }

    /// Checks a nonce that came back from `client`.
    pub fn check(&self, now: Now, client: SocketAddr, nonce: &[u8]) -> Freshness {
        match self.issued_at(client, nonce) {
            Some(issued) if self.is_fresh(now, issued) => Freshness::Valid,
            _ => Freshness::Stale,
        }
    }

    fn is_fresh(&self, now: Now, issued: u32) -> bool {
        // 32 bits of seconds wrap in 2106; the difference does not mind.
        let age = (now.unix_secs() as u32).wrapping_sub(issued);
        u64::from(age) <= self.lifetime.as_secs() || u64::from(age.wrapping_neg()) <= SKEW.as_secs()
    }

    /// The time in a nonce that this key made for this client.
    fn issued_at(&self, client: SocketAddr, nonce: &[u8]) -> Option<u32> {
        let nonce: &[u8; NONCE_LEN] = nonce.try_into().ok()?;
        let mut features = [0; 4];
        encode(&self.features.bits(), &mut features);
        let mut body = [0; BODY_LEN];
        STANDARD_NO_PAD.decode_slice(&nonce[BODY_AT..], &mut body).ok()?;
        let (time, tag) = body.split_first_chunk::<4>()?;
        let genuine = constant_time_eq(&self.tag(*time, client), tag)
            & constant_time_eq(&nonce[COOKIE.len()..BODY_AT], &features)
            & constant_time_eq(&nonce[..COOKIE.len()], COOKIE);
        genuine.then(|| u32::from_be_bytes(*time))
    }

    fn tag(&self, time: [u8; 4], client: SocketAddr) -> [u8; TAG_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"sturn nonce 1");
        context.update(&time);
        context.update(&self.features.bits());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&client.port().to_be_bytes());
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG_LEN]);
        tag
    }
}

fn encode(bytes: &[u8], out: &mut [u8]) {
    STANDARD_NO_PAD
        .encode_slice(bytes, out)
        .expect("three bytes become four characters, and the room is made for them");
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test starts its own clock")]
mod tests {
    use super::*;
    use std::time::Instant;

    fn now(unix: u64) -> Now {
        Now { mono: Instant::now(), unix: Duration::from_secs(unix) }
    }

    fn key(secret: &[u8]) -> NonceKey {
        let features = Features { password_algorithms: true, username_anonymity: false };
        NonceKey::new(secret, features, Duration::from_secs(600))
    }

    const T: u64 = 1_700_000_000;

    fn client() -> SocketAddr {
        "192.0.2.1:5000".parse().unwrap()
    }

    #[test]
    fn rfc8489_9_2_nonce_starts_with_the_cookie_and_features() {
        let nonce = key(b"secret").issue(now(T), client());
        assert_eq!(&nonce[..13], b"obMatJos2gAAA");
        assert!(NonceKey::announces_password_algorithms(&nonce));
        assert!(nonce.iter().all(u8::is_ascii_graphic));
    }

    #[test]
    fn rfc8489_9_2_4_nonce_belongs_to_address_and_port() {
        let nonce = key(b"secret").issue(now(T), client());
        assert_eq!(key(b"secret").check(now(T), client(), &nonce), Freshness::Valid);
        for other in ["192.0.2.1:5001", "192.0.2.2:5000", "[2001:db8::1]:5000"] {
            let other = other.parse().unwrap();
            assert_eq!(key(b"secret").check(now(T), other, &nonce), Freshness::Stale);
        }
    }

    #[test]
    fn nonces_expire_and_tolerate_a_fleets_clock_skew() {
        let nonce = key(b"secret").issue(now(T), client());
        for (at, expected) in [
            (T + 600, Freshness::Valid),
            (T + 601, Freshness::Stale),
            (T - 60, Freshness::Valid),
            (T - 61, Freshness::Stale),
        ] {
            assert_eq!(key(b"secret").check(now(at), client(), &nonce), expected, "{at}");
        }
    }

    #[test]
    fn a_fleet_with_one_key_accepts_each_others_nonces() {
        let nonce = key(b"shared").issue(now(T), client());
        assert_eq!(key(b"shared").check(now(T), client(), &nonce), Freshness::Valid);
        assert_eq!(key(b"another").check(now(T), client(), &nonce), Freshness::Stale);
    }

    #[test]
    fn rfc8489_9_2_1_no_character_of_a_nonce_can_be_changed() {
        let nonce = key(b"secret").issue(now(T), client());
        for i in 0..nonce.len() {
            let mut altered = nonce;
            altered[i] = if altered[i] == b'A' { b'B' } else { b'A' };
            assert_eq!(key(b"secret").check(now(T), client(), &altered), Freshness::Stale, "{i}");
        }
        assert_eq!(key(b"secret").check(now(T), client(), &nonce[13..]), Freshness::Stale);
        assert_eq!(key(b"secret").check(now(T), client(), b""), Freshness::Stale);
    }
}
