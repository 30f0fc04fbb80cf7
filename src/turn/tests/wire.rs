//! Messages as a client writes and reads them. The writing side shares no code
//! with the crate's writer, so that it can also write what no client should.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::Family;
use crate::stun::{
    Attribute, Class, MAGIC_COOKIE, Message, Method, Piece, TransactionId, decode_address,
    decode_xor_address, hmac_sha1, hmac_sha256,
};

/// A message under construction: attributes in the order of the calls.
#[derive(Clone)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

/// UDP in REQUESTED-TRANSPORT.
pub(super) const UDP: [u8; 4] = [17, 0, 0, 0];

/// A family in REQUESTED-ADDRESS-FAMILY and ADDITIONAL-ADDRESS-FAMILY.
pub(super) const fn family(family: Family) -> [u8; 4] {
    match family {
        Family::V4 => [1, 0, 0, 0],
        Family::V6 => [2, 0, 0, 0],
    }
}

/// An Allocate request for UDP.
pub(super) fn allocate() -> Request {
    Request::new(Method::ALLOCATE).with(Attribute::RequestedTransport, &UDP)
}

/// A Refresh request; without a lifetime the server chooses.
pub(super) fn refresh(lifetime: Option<u32>) -> Request {
    let request = Request::new(Method::REFRESH);
    match lifetime {
        Some(seconds) => request.lifetime(seconds),
        None => request,
    }
}

/// A CreatePermission request.
pub(super) fn permission(peers: &[&str]) -> Request {
    peers.iter().fold(Request::new(Method::CREATE_PERMISSION), |r, peer| r.peer(peer))
}

/// A ChannelBind request.
pub(super) fn bind(number: u16, peer: &str) -> Request {
    Request::new(Method::CHANNEL_BIND).channel(number).peer(peer)
}

/// A Send indication.
pub(super) fn send(peer: &str, data: &[u8]) -> Request {
    Request::indication(Method::SEND).peer(peer).with(Attribute::Data, data)
}

/// A ChannelData message without padding.
pub(super) fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

impl Request {
    /// A request with a transaction id of its own.
    pub(super) fn new(method: Method) -> Self {
        Self::of_class(method, Class::Request)
    }

    pub(super) fn indication(method: Method) -> Self {
        Self::of_class(method, Class::Indication)
    }

    pub(super) fn of_class(method: Method, class: Class) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        // Methods of this server are below 16, so their bits are not split.
        let mut bytes = (method.0 | class).to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.extend([0x5e, 0x57, 0x0f, 0x7e]);
        bytes.extend(NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Self { bytes }
    }

    /// Sets the transaction id; to be called before any IPv6 address goes in.
    pub(super) fn id(mut self, id: [u8; 12]) -> Self {
        self.bytes[8..20].copy_from_slice(&id);
        self
    }

    pub(super) fn transaction_id(&self) -> TransactionId {
        TransactionId(self.bytes[8..20].try_into().unwrap())
    }

    /// Appends an attribute.
    pub(super) fn with(self, attribute: Attribute, value: &[u8]) -> Self {
        self.raw(attribute.code(), value)
    }

    /// Appends an attribute of any type.
    pub(super) fn raw(mut self, code: u16, value: &[u8]) -> Self {
        self.bytes.extend(code.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(0);
        self
    }

    pub(super) fn lifetime(self, seconds: u32) -> Self {
        self.with(Attribute::Lifetime, &seconds.to_be_bytes())
    }

    pub(super) fn peer(self, peer: &str) -> Self {
        let value = xor_address(peer.parse().unwrap(), self.transaction_id());
        self.with(Attribute::XorPeerAddress, &value)
    }

    pub(super) fn channel(self, number: u16) -> Self {
        let [hi, lo] = number.to_be_bytes();
        self.with(Attribute::ChannelNumber, &[hi, lo, 0, 0])
    }

    /// Appends MESSAGE-INTEGRITY.
    pub(super) fn sha1(mut self, key: &[u8]) -> Self {
        self.set_length(24);
        let tag = hmac_sha1(key, &[Piece::Slice(&self.bytes)]);
        self.with(Attribute::MessageIntegrity, &tag)
    }

    /// Appends MESSAGE-INTEGRITY-SHA256.
    pub(super) fn sha256(mut self, key: &[u8]) -> Self {
        self.set_length(36);
        let tag = hmac_sha256(key, &[Piece::Slice(&self.bytes)]);
        self.with(Attribute::MessageIntegritySha256, &tag)
    }

    /// Appends FINGERPRINT.
    pub(super) fn fingerprint(mut self) -> Self {
        self.set_length(8);
        let value = crc32(&self.bytes) ^ 0x5354_554e;
        self.with(Attribute::Fingerprint, &value.to_be_bytes())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The message without the magic cookie, as of RFC 3489.
    pub(super) fn classic(mut self) -> Self {
        self.bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        self
    }

    fn set_length(&mut self, more: usize) {
        let len = (self.bytes.len() - 20 + more) as u16;
        self.bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

/// A message from the server, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
}

impl Reply {
    pub(super) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("the server writes well-formed messages")
    }

    pub(super) fn is_success(&self) -> bool {
        self.message().class() == Class::Success
    }

    /// The number in ERROR-CODE; 0 for a success response.
    pub(super) fn code(&self) -> u16 {
        match self.message().class() {
            Class::Error => {
                let value = self.get(Attribute::ErrorCode).expect("an error has a code");
                assert_eq!(value[..2], [0, 0], "reserved bits");
                u16::from(value[2]) * 100 + u16::from(value[3])
            }
            Class::Success => 0,
            other => panic!("not a response: {other:?}"),
        }
    }

    pub(super) fn get(&self, attribute: Attribute) -> Option<Vec<u8>> {
        self.message().get(attribute).map(<[u8]>::to_vec)
    }

    pub(super) fn has(&self, attribute: Attribute) -> bool {
        self.message().has(attribute)
    }

    /// Every value of an attribute, in order.
    pub(super) fn all(&self, attribute: Attribute) -> Vec<Vec<u8>> {
        self.message().all(attribute).map(<[u8]>::to_vec).collect()
    }

    pub(super) fn address(&self, attribute: Attribute) -> SocketAddr {
        let value = self.get(attribute).expect("the address is there");
        decode_xor_address(&value, self.message().transaction_id()).expect("it is well-formed")
    }

    pub(super) fn plain_address(&self, attribute: Attribute) -> SocketAddr {
        decode_address(&self.get(attribute).expect("the address is there")).unwrap()
    }

    /// XOR-RELAYED-ADDRESS, every one.
    pub(super) fn relayed(&self) -> Vec<SocketAddr> {
        let id = self.message().transaction_id();
        self.all(Attribute::XorRelayedAddress)
            .iter()
            .map(|value| decode_xor_address(value, id).unwrap())
            .collect()
    }

    /// LIFETIME in seconds.
    pub(super) fn lifetime(&self) -> u32 {
        let value = self.message().get_u32(Attribute::Lifetime);
        value.expect("LIFETIME is there").expect("and four bytes long")
    }

    /// UNKNOWN-ATTRIBUTES.
    pub(super) fn unknown(&self) -> Vec<u16> {
        let value = self.get(Attribute::UnknownAttributes).expect("the list is there");
        value.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }
}

/// The value of an XOR address attribute (RFC 8489 section 14.2).
pub(super) fn xor_address(addr: SocketAddr, id: TransactionId) -> Vec<u8> {
    let mut mask = MAGIC_COOKIE.to_be_bytes().to_vec();
    mask.extend(id.0);
    let (family, ip) = match addr.ip() {
        std::net::IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        std::net::IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut value = vec![0, family];
    value.extend(addr.port().to_be_bytes().iter().zip(&mask).map(|(a, b)| a ^ b));
    value.extend(ip.iter().zip(&mask).map(|(a, b)| a ^ b));
    value
}

/// The CRC of FINGERPRINT, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}
