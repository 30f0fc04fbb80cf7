//! Socket addresses as the kernel lays them out, read and written as bytes.
//!
//! A `sockaddr_storage` has 128 bytes to clear and carry; an Internet address
//! needs 28, and written field by field it needs no `unsafe` either.

use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for a `sockaddr_in` or a `sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct RawAddr([u8; RawAddr::LEN]);

const V4_LEN: usize = size_of::<libc::sockaddr_in>();
const V6_LEN: usize = size_of::<libc::sockaddr_in6>();

// The byte positions used below, checked against the C structures.
const _: () = {
    assert!(size_of::<libc::sa_family_t>() == 2);
    assert!(offset_of!(libc::sockaddr_in, sin_family) == 0);
    assert!(offset_of!(libc::sockaddr_in, sin_port) == 2);
    assert!(offset_of!(libc::sockaddr_in, sin_addr) == 4);
    assert!(offset_of!(libc::sockaddr_in6, sin6_family) == 0);
    assert!(offset_of!(libc::sockaddr_in6, sin6_port) == 2);
    assert!(offset_of!(libc::sockaddr_in6, sin6_flowinfo) == 4);
    assert!(offset_of!(libc::sockaddr_in6, sin6_addr) == 8);
    assert!(offset_of!(libc::sockaddr_in6, sin6_scope_id) == 24);
    assert!(V6_LEN == RawAddr::LEN && V4_LEN <= RawAddr::LEN);
};

impl RawAddr {
    /// Size of the larger of the two layouts, in bytes.
    pub(super) const LEN: usize = 28;

    /// No address; the kernel is to fill it.
    pub(super) const EMPTY: Self = Self([0; Self::LEN]);

    /// Writes `addr` and returns how many bytes of the layout it uses.
    #[inline]
    pub(super) fn encode(&mut self, addr: &SocketAddr) -> libc::socklen_t {
        let raw = &mut self.0;
        raw[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(v4) => {
                raw[..2].copy_from_slice(&AF_INET.to_ne_bytes());
                raw[4..8].copy_from_slice(&v4.ip().octets());
                // `sin_zero`: may hold the rest of an IPv6 address.
                raw[8..16].fill(0);
                V4_LEN as libc::socklen_t
            }
            SocketAddr::V6(v6) => {
                raw[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                raw[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                raw[8..24].copy_from_slice(&v6.ip().octets());
                raw[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                V6_LEN as libc::socklen_t
            }
        }
    }

    /// The address, or `None` when its family is not an Internet family.
    #[inline]
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        decode(&self.0)
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        self.0.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        self.0.as_mut_ptr().cast()
    }
}

const AF_INET: u16 = libc::AF_INET as u16;
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// Reads a `sockaddr_in` or `sockaddr_in6` out of bytes; `None` when the family
/// is another one or the bytes are too few.
#[inline]
fn decode(raw: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*raw.first_chunk()?);
    let port = u16::from_be_bytes(*raw.get(2..)?.first_chunk()?);
    match family {
        AF_INET => {
            let octets: [u8; 4] = *raw.get(4..)?.first_chunk()?;
            Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(octets), port)))
        }
        AF_INET6 => {
            let flow = u32::from_be_bytes(*raw.get(4..)?.first_chunk()?);
            let octets: [u8; 16] = *raw.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*raw.get(24..)?.first_chunk()?);
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_way_there_and_back() {
        let mut raw = RawAddr::EMPTY;
        let v6 = SocketAddr::V6(SocketAddrV6::new("fe80::1:2".parse().unwrap(), 3478, 7, 3));
        assert_eq!(raw.encode(&v6), 28);
        assert_eq!(raw.decode(), Some(v6));
        // Over the remains of the longer one.
        let v4: SocketAddr = "192.0.2.1:65535".parse().unwrap();
        assert_eq!(raw.encode(&v4), 16);
        assert_eq!(raw.decode(), Some(v4));
        assert_eq!(raw.0[8..16], [0; 8]);
    }

    #[test]
    fn an_unknown_family_is_no_address() {
        assert_eq!(RawAddr::EMPTY.decode(), None);
        assert_eq!(decode(&AF_INET6.to_ne_bytes()), None);
    }
}
