//! Messages with any attributes in any order, signed or not.

use sturn::stun::{HEADER_LEN, MAGIC_COOKIE, Piece, hmac_sha1, hmac_sha256};

pub const ALLOCATE: u16 = 0x003;
pub const REFRESH: u16 = 0x004;
pub const SEND: u16 = 0x016;
pub const CREATE_PERMISSION: u16 = 0x008;
pub const CHANNEL_BIND: u16 = 0x009;
pub const CONNECT: u16 = 0x00A;
pub const CONNECTION_BIND: u16 = 0x00B;

pub const USERNAME: u16 = 0x0006;
pub const CHANNEL_NUMBER: u16 = 0x000C;
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
pub const DATA: u16 = 0x0013;
pub const CONNECTION_ID: u16 = 0x002A;
pub const ACCESS_TOKEN: u16 = 0x001B;
pub const MOBILITY_TICKET: u16 = 0x8030;
pub const REALM: u16 = 0x0014;
pub const NONCE: u16 = 0x0015;
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
pub const PASSWORD_ALGORITHM: u16 = 0x001D;
pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
pub const USERHASH: u16 = 0x001E;

const MESSAGE_INTEGRITY: u16 = 0x0008;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;

/// A message under construction.
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// `kind` is method and class as they stand in the first two bytes.
    pub fn new(kind: u16, id: [u8; 12]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.extend(id);
        Self { bytes }
    }

    /// Appends an attribute, unless the message would get too long.
    pub fn put(mut self, kind: u16, value: &[u8]) -> Self {
        if self.bytes.len() + value.len() > 0xfff0 {
            return self;
        }
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// MESSAGE-INTEGRITY over all before it.
    pub fn sign_sha1(mut self, key: &[u8]) -> Self {
        self.set_length(24);
        let tag = hmac_sha1(key, &[Piece::Slice(&self.bytes)]);
        self.put(MESSAGE_INTEGRITY, &tag)
    }

    /// MESSAGE-INTEGRITY-SHA256 over all before it.
    pub fn sign_sha256(mut self, key: &[u8]) -> Self {
        self.set_length(36);
        let tag = hmac_sha256(key, &[Piece::Slice(&self.bytes)]);
        self.put(MESSAGE_INTEGRITY_SHA256, &tag)
    }

    pub fn build(mut self) -> Vec<u8> {
        self.set_length(0);
        self.bytes
    }

    fn set_length(&mut self, more: usize) {
        let length = (self.bytes.len() - HEADER_LEN + more) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// The value of an XOR-PEER-ADDRESS with an IPv4 address.
pub fn xor_v4(ip: [u8; 4], port: u16) -> [u8; 8] {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let [hi, lo] = port.to_be_bytes();
    let mut value = [0, 1, hi ^ cookie[0], lo ^ cookie[1], 0, 0, 0, 0];
    for (i, byte) in ip.into_iter().enumerate() {
        value[4 + i] = byte ^ cookie[i];
    }
    value
}

/// The value of an XOR-PEER-ADDRESS with an IPv6 address.
pub fn xor_v6(ip: [u8; 16], port: u16, id: [u8; 12]) -> [u8; 20] {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let [hi, lo] = port.to_be_bytes();
    let mut value = [0; 20];
    value[..4].copy_from_slice(&[0, 2, hi ^ cookie[0], lo ^ cookie[1]]);
    let mask = cookie.into_iter().chain(id);
    for ((to, byte), mask) in value[4..].iter_mut().zip(ip).zip(mask) {
        *to = byte ^ mask;
    }
    value
}
