//! Requests written by hand, because stun-rs would keep the load from being one.

use std::net::{Ipv4Addr, SocketAddrV4};

use md5::{Digest, Md5};
use ring::hmac;

use crate::control::{PASSWORD, USER};

const HEADER: usize = 20;
const COOKIE: u32 = 0x2112_a442;
/// MESSAGE-INTEGRITY with its head (RFC 8489 section 14.5).
const INTEGRITY: usize = 4 + 20;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const LIFETIME: u16 = 0x000d;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// A transaction id (RFC 8489 section 5).
pub(crate) type Id = [u8; 12];

/// Writes a Binding request.
pub(crate) fn binding(message: &mut Vec<u8>, id: Id) {
    begin(message, 0x0001, id);
}

/// Writes an Allocate request without credentials.
pub(crate) fn allocate(message: &mut Vec<u8>, id: Id) {
    begin(message, 0x0003, id);
    put(message, REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
}

/// Writes an Allocate request in answer to a challenge.
pub(crate) fn allocate_as(message: &mut Vec<u8>, id: Id, login: &Login) {
    allocate(message, id);
    login.sign(message);
}

/// Writes a Refresh request that ends an allocation.
pub(crate) fn release(message: &mut Vec<u8>, id: Id, login: &Login) {
    begin(message, 0x0004, id);
    put(message, LIFETIME, &[0; 4]);
    login.sign(message);
}

/// Long-term credentials for a server's challenge (RFC 8489 section 9.2).
pub(crate) struct Login {
    realm: Vec<u8>,
    nonce: Vec<u8>,
    key: hmac::Key,
}

impl Login {
    /// Answers the challenge in `response`; `None` if it is none. `last` spares deriving
    /// its key again.
    pub(crate) fn answer_to(response: &Response<'_>, last: Option<&Self>) -> Option<Self> {
        let realm = response.get(REALM)?;
        let key = match last.filter(|last| last.realm == realm) {
            Some(last) => last.key.clone(),
            None => {
                let of = [USER.as_bytes(), b":", realm, b":", PASSWORD.as_bytes()].concat();
                hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &Md5::digest(of))
            }
        };
        Some(Self { realm: realm.to_vec(), nonce: response.get(NONCE)?.to_vec(), key })
    }

    fn sign(&self, message: &mut Vec<u8>) {
        put(message, USERNAME, USER.as_bytes());
        put(message, REALM, &self.realm);
        put(message, NONCE, &self.nonce);
        let length = message.len() + INTEGRITY - HEADER;
        set_length(message, length);
        let tag = hmac::sign(&self.key, message);
        put(message, MESSAGE_INTEGRITY, tag.as_ref());
    }
}

/// A response that is whole.
pub(crate) struct Response<'a>(&'a [u8]);

impl<'a> Response<'a> {
    /// Reads one.
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let cookie = message.get(4..8)? == COOKIE.to_be_bytes();
        let length = usize::from(read_u16(message, 2)?);
        let is_response = message[0] & 0xc1 == 0x01;
        let whole = message.len() == HEADER + length;
        (cookie && is_response && whole).then_some(Self(message))
    }

    /// Method and class as they are on the wire.
    pub(crate) fn kind(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The transaction id.
    pub(crate) fn id(&self) -> Id {
        *self.0[8..].first_chunk().expect("the header is whole")
    }

    /// XOR-MAPPED-ADDRESS.
    pub(crate) fn mapped(&self) -> Option<SocketAddrV4> {
        read_address(self.get(XOR_MAPPED_ADDRESS)?)
    }

    /// XOR-RELAYED-ADDRESS.
    pub(crate) fn relayed(&self) -> Option<SocketAddrV4> {
        read_address(self.get(XOR_RELAYED_ADDRESS)?)
    }

    fn get(&self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = &self.0[HEADER..];
        loop {
            let (kind, length) = (read_u16(rest, 0)?, usize::from(read_u16(rest, 2)?));
            if kind == wanted {
                return rest.get(4..4 + length);
            }
            rest = rest.get(4 + length.next_multiple_of(4)..)?;
        }
    }
}

fn begin(message: &mut Vec<u8>, kind: u16, id: Id) {
    message.clear();
    message.extend(kind.to_be_bytes());
    message.extend([0; 2]);
    message.extend(COOKIE.to_be_bytes());
    message.extend(id);
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let length = message.len() - HEADER;
    set_length(message, length);
}

fn set_length(message: &mut [u8], length: usize) {
    message[2..4].copy_from_slice(&(length as u16).to_be_bytes());
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An IPv4 address in the form of RFC 8489 section 14.2.
fn read_address(value: &[u8]) -> Option<SocketAddrV4> {
    let (family, port) = (read_u16(value, 0)?, read_u16(value, 2)?);
    let address = u32::from_be_bytes(*value.get(4..)?.first_chunk()?);
    let ip = Ipv4Addr::from(address ^ COOKIE);
    (family == 1).then(|| SocketAddrV4::new(ip, port ^ (COOKIE >> 16) as u16))
}
