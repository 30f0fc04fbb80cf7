//! A client with an access token (RFC 7635): it signs with the key that came with
//! the token. The simulation's clients know passwords only, so what they send is
//! signed anew on its way out, and what they get on its way in.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use sturn::auth::{Algorithm, Key, TokenAlgorithm, TokenKey, Tokens};

use crate::setup::{REALM, START_UNIX};
use crate::wire::{self, Stun};

/// The name of the key that the server shares with the authorization server.
pub const KEY_NAME: &str = "north";

/// What the clients take for their password.
pub const PASSWORD: &str = "a password that nobody asks for";

const SERVER: &str = "turn.sim.example";
const SHARED: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const MAC_KEY: &[u8; 20] = b"twenty bytes of key!";

/// How far clocks may differ, in seconds: so much longer is a token taken.
const LEEWAY: u64 = 4;

/// A token and the key that came with it.
#[derive(Clone, Debug)]
pub struct Holder {
    token: Vec<u8>,
    /// What the clients choose from the server's offer.
    algorithm: Algorithm,
}

impl Holder {
    /// One with a token for so many seconds from the start on.
    pub fn new(lifetime: u32, algorithm: Algorithm) -> Self {
        Self { token: seal(lifetime), algorithm }
    }

    /// Until when the server takes a token, in seconds since the epoch.
    pub fn expiry(lifetime: u32) -> u64 {
        START_UNIX + u64::from(lifetime) + LEEWAY
    }

    /// What the server knows.
    pub fn tokens() -> Tokens {
        let key = TokenKey::new(KEY_NAME, TokenAlgorithm::A256Gcm, SHARED, 0..=u64::MAX);
        Tokens::new(SERVER, vec![key.expect("it has the right length")])
    }

    /// A request as the holder of the token makes it, with the token or without.
    pub fn sign(&self, request: Vec<u8>, with_token: bool) -> Vec<u8> {
        let Some(message) = Stun::parse(&request) else { return request };
        let Some(kind) = message.integrity_kind(&request) else { return request };
        let mut signed = request[..wire::HEADER_LEN].to_vec();
        let of_passwords =
            [wire::USERNAME, wire::USERHASH, wire::PASSWORD_ALGORITHM, wire::PASSWORD_ALGORITHMS];
        for (kind, value) in message.attributes.iter().filter(|(k, _)| !of_passwords.contains(k)) {
            wire::append(&mut signed, *kind, value);
        }
        wire::append(&mut signed, wire::USERNAME, KEY_NAME.as_bytes());
        if with_token {
            wire::append(&mut signed, wire::ACCESS_TOKEN, &self.token);
        }
        add_integrity(&mut signed, kind, MAC_KEY);
        wire::add_fingerprint(&mut signed);
        signed
    }

    /// An answer to it, as a client with a password expects it.
    pub fn sign_answer(&self, answer: Vec<u8>) -> Vec<u8> {
        let Some(message) = Stun::parse(&answer) else { return answer };
        let Some(kind) = message.integrity_kind(&answer) else { return answer };
        let at = message.integrity_at.expect("it has one");
        let mut check = answer[..at].to_vec();
        add_integrity(&mut check, kind, MAC_KEY);
        if check[at..] != answer[at..check.len()] {
            // Late, for whoever the client was before: as it came it helps nobody.
            return answer;
        }
        let algorithm = if kind == wire::INTEGRITY { Algorithm::Md5 } else { self.algorithm };
        let mut signed = answer[..at].to_vec();
        let key = Key::derive(algorithm, KEY_NAME, REALM, PASSWORD);
        add_integrity(&mut signed, kind, key.bytes());
        signed
    }
}

/// A token of RFC 7635 section 6.2.
fn seal(lifetime: u32) -> Vec<u8> {
    let mut content = (MAC_KEY.len() as u16).to_be_bytes().to_vec();
    content.extend(MAC_KEY);
    content.extend((START_UNIX << 16).to_be_bytes());
    content.extend(lifetime.to_be_bytes());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, SHARED).unwrap());
    let (nonce, aad) = (*b"a nonce once", Aad::from(SERVER.as_bytes()));
    let nonce_value = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce_value, aad, &mut content).unwrap();
    [&(nonce.len() as u16).to_be_bytes()[..], &nonce, &content].concat()
}

/// Appends an integrity attribute over all that is there.
fn add_integrity(bytes: &mut Vec<u8>, kind: u16, key: &[u8]) {
    let algorithm = if kind == wire::INTEGRITY {
        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY
    } else {
        hmac::HMAC_SHA256
    };
    let length = algorithm.digest_algorithm().output_len();
    wire::set_length(bytes, 4 + length);
    let tag = hmac::sign(&hmac::Key::new(algorithm, key), bytes);
    wire::append(bytes, kind, tag.as_ref());
}
