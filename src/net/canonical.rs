//! The one function that unwraps an address before anything is decided about it.
//!
//! An IPv4 address can be written inside an IPv6 one in several ways, and a
//! policy that looks at the outer form only can be walked around. Every peer
//! address passes [`canonical`] before a policy sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How an IPv4 address was wrapped in an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embedding {
    /// `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2).
    V4Mapped,
    /// `::a.b.c.d`, deprecated (RFC 4291 section 2.5.5.1).
    V4Compatible,
    /// `::ffff:0:a.b.c.d` (RFC 2765 section 2.1).
    V4Translated,
    /// `2002:aabb:ccdd::/48` (RFC 3056).
    SixToFour,
    /// `64:ff9b::a.b.c.d` (RFC 6052) and the /96 form of `64:ff9b:1::/48` (RFC 8215).
    Nat64,
    /// `2001::/32`, client address in the last 32 bits, inverted (RFC 4380).
    Teredo,
    /// `...:0:5efe:a.b.c.d` with any prefix (RFC 5214).
    Isatap,
}

/// The address that packets sent to `ip` would end at: the IPv4 address inside
/// `ip` when there is one, else `ip` itself.
pub fn canonical(ip: IpAddr) -> IpAddr {
    embedding(ip).map_or(ip, |(v4, _)| IpAddr::V4(v4))
}

/// The IPv4 address wrapped in `ip` and the form of the wrapping, if any.
pub fn embedding(ip: IpAddr) -> Option<(Ipv4Addr, Embedding)> {
    let IpAddr::V6(v6) = ip else { return None };
    let s = v6.segments();
    let v4 = |hi: u16, lo: u16| Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo));
    let last = v4(s[6], s[7]);
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some((last, Embedding::V4Mapped)),
        [0, 0, 0, 0, 0xffff, 0, ..] => Some((last, Embedding::V4Translated)),
        [0, 0, 0, 0, 0, 0, ..] if v6 != Ipv6Addr::UNSPECIFIED && v6 != Ipv6Addr::LOCALHOST => {
            Some((last, Embedding::V4Compatible))
        }
        [0x2002, hi, lo, ..] => Some((v4(hi, lo), Embedding::SixToFour)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, _, _, _, ..] => {
            Some((last, Embedding::Nat64))
        }
        [0x2001, 0, ..] => Some((v4(!s[6], !s[7]), Embedding::Teredo)),
        [.., 0x0000 | 0x0200, 0x5efe, _, _] => Some((last, Embedding::Isatap)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn every_wrapping_of_loopback_is_loopback() {
        for wrapped in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::127.0.0.1",
            "2001:0:1234:5678:0:ffff:80ff:fffe",
            "2001:db8::5efe:127.0.0.1",
            "2001:db8::200:5efe:127.0.0.1",
        ] {
            assert_eq!(canonical(ip(wrapped)), ip("127.0.0.1"), "{wrapped}");
        }
    }

    #[test]
    fn plain_addresses_stay() {
        for plain in ["192.0.2.1", "::", "::1", "2001:db8::1", "fe80::1", "2606:4700::1111"] {
            assert_eq!(canonical(ip(plain)), ip(plain));
        }
    }
}
