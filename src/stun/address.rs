//! Transport addresses on the wire (RFC 8489 sections 14.1 and 14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{MAGIC_COOKIE, TransactionId};

const FAMILY_V4: u8 = 0x01;
const FAMILY_V6: u8 = 0x02;

/// Longest encoded address value in bytes.
pub(super) const MAX_LEN: usize = 20;

/// Reads a MAPPED-ADDRESS-like value. `None` when it is malformed.
pub fn decode_address(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, hi, lo], ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([hi, lo]);
    let ip = match family {
        FAMILY_V4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        FAMILY_V6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads an XOR-MAPPED-ADDRESS-like value. `None` when it is malformed.
pub fn decode_xor_address(value: &[u8], id: TransactionId) -> Option<SocketAddr> {
    decode_address(value).map(|addr| xor(addr, id))
}

/// Writes the value of an address attribute into `out`; returns its length.
pub(super) fn encode(addr: SocketAddr, out: &mut [u8; MAX_LEN]) -> usize {
    out[0] = 0;
    out[2..4].copy_from_slice(&addr.port().to_be_bytes());
    match addr.ip() {
        IpAddr::V4(ip) => {
            out[1] = FAMILY_V4;
            out[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            out[1] = FAMILY_V6;
            out[4..20].copy_from_slice(&ip.octets());
            20
        }
    }
}

/// XORs port and address with the cookie and, for IPv6, the transaction id.
/// Its own inverse.
pub(super) fn xor(addr: SocketAddr, id: TransactionId) -> SocketAddr {
    let port = addr.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match addr.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip) ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => {
            let mut mask = [0; 16];
            mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            mask[4..].copy_from_slice(&id.0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) ^ u128::from_be_bytes(mask)))
        }
    };
    SocketAddr::new(ip, port)
}
