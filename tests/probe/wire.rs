//! Just enough STUN for a fake server: responses byte by byte.

use std::net::SocketAddr;

pub(crate) const BINDING: u16 = 0x001;
pub(crate) const ALLOCATE: u16 = 0x003;
pub(crate) const REFRESH: u16 = 0x004;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// The method of a request, `None` for anything else.
pub(crate) fn request_method(bytes: &[u8]) -> Option<u16> {
    let first: [u8; 2] = *bytes.first_chunk()?;
    let kind = u16::from_be_bytes(first);
    (kind & 0xC110 == 0 && bytes.get(4..8)? == COOKIE).then_some(kind & 0x000F)
}

/// Whether a datagram carries data: ChannelData or an indication.
pub(crate) fn is_data(bytes: &[u8]) -> bool {
    let is_channel_data = (0x40..0x50).contains(&bytes[0]);
    let is_indication = bytes[0] < 0x40 && bytes[0] & 1 == 0 && bytes[1] & 0x10 != 0;
    is_channel_data || is_indication
}

/// Whether a request names a user.
pub(crate) fn is_signed(request: &[u8]) -> bool {
    request.windows(4).any(|bytes| bytes[..2] == [0x00, 0x08] && bytes[2..] == [0x00, 0x14])
}

/// A success response.
pub(crate) fn success(request: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    response(request, 0x0100, attributes)
}

/// An error response.
pub(crate) fn error(request: &[u8], code: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let value = [0, 0, (code / 100) as u8, (code % 100) as u8];
    let error = attribute(0x0009, &value);
    response(request, 0x0110, &[&[error], attributes].concat())
}

/// A 401 with realm and nonce.
pub(crate) fn challenge(request: &[u8]) -> Vec<u8> {
    error(request, 401, &[attribute(0x0014, b"fake"), attribute(0x0015, b"nonce")])
}

/// XOR-MAPPED-ADDRESS.
pub(crate) fn mapped(address: SocketAddr) -> Vec<u8> {
    attribute(0x0020, &xored(address))
}

/// XOR-RELAYED-ADDRESS.
pub(crate) fn relayed(address: SocketAddr) -> Vec<u8> {
    attribute(0x0016, &xored(address))
}

/// LIFETIME.
pub(crate) fn lifetime(seconds: u32) -> Vec<u8> {
    attribute(0x000D, &seconds.to_be_bytes())
}

/// ALTERNATE-SERVER.
pub(crate) fn alternate(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = address else { panic!("IPv4 only") };
    let port = address.port().to_be_bytes();
    attribute(0x8023, &[&[0, 1], &port[..], &v4.ip().octets()].concat())
}

/// SOFTWARE.
pub(crate) fn software(name: &str) -> Vec<u8> {
    attribute(0x8022, name.as_bytes())
}

pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn xored(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = address else { panic!("IPv4 only") };
    let port = (address.port() ^ 0x2112).to_be_bytes();
    let ip: Vec<u8> = v4.ip().octets().iter().zip(COOKIE).map(|(a, b)| a ^ b).collect();
    [&[0, 1], &port[..], &ip].concat()
}

fn response(request: &[u8], class: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = attributes.concat();
    let kind = u16::from_be_bytes([request[0], request[1]]) | class;
    let length = u16::try_from(body.len()).unwrap();
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), &request[4..20], &body].concat()
}
