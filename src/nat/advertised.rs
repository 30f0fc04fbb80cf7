//! Whether OTHER-ADDRESS can be true (RFC 5780 section 7.4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::report::is_private;
use crate::net::{Embedding, embedding};

/// An OTHER-ADDRESS that cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie {
    /// What the server says.
    pub other: SocketAddr,
    /// Where it was reached.
    pub server: SocketAddr,
    /// Why it cannot be.
    pub why: LieKind,
}

/// Why an OTHER-ADDRESS cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LieKind {
    /// IPv4 for IPv6 or the other way round.
    OtherFamily,
    /// 0.0.0.0 or ::.
    Unspecified,
    /// A multicast address.
    Multicast,
    /// The broadcast address.
    Broadcast,
    /// A loopback address, of a server that is not on this host.
    Loopback,
    /// A private address, of a server that has a public one.
    Private,
    /// The address that was asked.
    SameAddress,
    /// The port that was asked, or 0.
    SamePort,
}

impl LieKind {
    /// The stable name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherFamily => "other-family",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SameAddress => "same-address",
            Self::SamePort => "same-port",
        }
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { other, server, why } = self;
        write!(f, "its OTHER-ADDRESS {other} ")?;
        match why {
            LieKind::OtherFamily => write!(f, "is of another address family than {server}"),
            LieKind::Unspecified => f.write_str("is unspecified"),
            LieKind::Multicast => f.write_str("is a multicast address"),
            LieKind::Broadcast => f.write_str("is the broadcast address"),
            LieKind::Loopback => write!(f, "is a loopback address, unlike {server}"),
            LieKind::Private => write!(f, "is private, while {server} is public"),
            LieKind::SameAddress => write!(f, "has the same address as {server}"),
            LieKind::SamePort if other.port() == 0 => f.write_str("has port 0"),
            LieKind::SamePort => write!(f, "has the same port as {server}"),
        }
    }
}

/// Where to find the endpoint that the server at `server` calls `other`, as seen from
/// here; `None` if there is no telling.
///
/// A host without IPv4 reaches IPv4 servers through a translator (NAT64), and such a
/// server speaks of IPv4 addresses. Its own one, RESPONSE-ORIGIN, shows where in IPv6
/// addresses of the translator they stand (RFC 6052 section 2.2, prefixes of 96 bits).
pub(super) fn locate(
    server: SocketAddr,
    origin: Option<SocketAddr>,
    mapped: SocketAddr,
    other: SocketAddr,
) -> Result<Option<SocketAddr>, Lie> {
    if let (SocketAddr::V6(outside), SocketAddr::V4(inside), true) =
        (server, other, mapped.is_ipv4())
    {
        let mut octets = outside.ip().octets();
        let [.., a, b, c, d] = octets;
        if origin.is_none_or(|origin| origin.ip() != IpAddr::from([a, b, c, d])) {
            return Ok(None);
        }
        octets[12..].copy_from_slice(&inside.ip().octets());
        // Nothing of what makes a lie is in the prefix.
        let server = SocketAddr::from(([a, b, c, d], server.port()));
        return check(server, other).map(|()| Some((octets, other.port()).into()));
    }
    check(server, other).map(|()| Some(other))
}

/// Checks what the server at `server` says. A public address of a server that was
/// reached at a private one is fine: it is behind a 1:1 NAT.
fn check(server: SocketAddr, other: SocketAddr) -> Result<(), Lie> {
    let (ip, own) = (unwrapped(other.ip()), unwrapped(server.ip()));
    let why = if ip.is_ipv4() != own.is_ipv4() {
        LieKind::OtherFamily
    } else if ip.is_unspecified() || is_this_network(ip) {
        LieKind::Unspecified
    } else if ip.is_multicast() {
        LieKind::Multicast
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        LieKind::Broadcast
    } else if ip == own {
        LieKind::SameAddress
    } else if ip.is_loopback() && !own.is_loopback() {
        LieKind::Loopback
    } else if is_private(ip) && !is_private(own) && !own.is_loopback() {
        LieKind::Private
    } else if other.port() == server.port() || other.port() == 0 {
        LieKind::SamePort
    } else {
        return Ok(());
    };
    Err(Lie { other, server, why })
}

/// IPv4 in the clothes of IPv6 is IPv4, but a tunnel's end may have many addresses.
fn unwrapped(ip: IpAddr) -> IpAddr {
    match embedding(ip) {
        Some((v4, Embedding::V4Mapped | Embedding::V4Compatible | Embedding::Nat64)) => v4.into(),
        _ => ip,
    }
}

/// 0.0.0.0/8 (RFC 1122 section 3.2.1.3).
fn is_this_network(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_have_names() {
        for (server, other, name) in [
            ("198.51.100.1:3478", "[2001:db8::1]:3479", "other-family"),
            ("198.51.100.1:3478", "0.0.0.0:3479", "unspecified"),
            ("198.51.100.1:3478", "0.0.0.9:3479", "unspecified"),
            ("[2001:db8::1]:3478", "[::]:3479", "unspecified"),
            ("[2001:db8::1]:3478", "[::ffff:198.51.100.2]:3479", "other-family"),
            ("[64:ff9b::c633:6401]:3478", "[64:ff9b::a00:1]:3479", "private"),
            ("198.51.100.1:3478", "224.0.0.1:3479", "multicast"),
            ("[2001:db8::1]:3478", "[ff02::1]:3479", "multicast"),
            ("198.51.100.1:3478", "255.255.255.255:3479", "broadcast"),
            ("198.51.100.1:3478", "127.0.0.1:3479", "loopback"),
            ("[2001:db8::1]:3478", "[::1]:3479", "loopback"),
            ("198.51.100.1:3478", "10.1.2.3:3479", "private"),
            ("198.51.100.1:3478", "100.64.0.1:3479", "private"),
            ("198.51.100.1:3478", "169.254.1.1:3479", "private"),
            ("[2001:db8::1]:3478", "[fd00::1]:3479", "private"),
            ("[2001:db8::1]:3478", "[fe80::1]:3479", "private"),
            ("198.51.100.1:3478", "198.51.100.1:3479", "same-address"),
            ("127.0.0.1:3478", "127.0.0.1:3479", "same-address"),
            ("198.51.100.1:3478", "198.51.100.2:3478", "same-port"),
            ("198.51.100.1:3478", "198.51.100.2:0", "same-port"),
        ] {
            let lie = check(server.parse().unwrap(), other.parse().unwrap()).unwrap_err();
            assert_eq!(lie.why.name(), name);
            assert!(lie.to_string().starts_with(&format!("its OTHER-ADDRESS {other} ")), "{lie}");
        }
    }

    #[test]
    fn through_a_translator() {
        let server = "[2001:db8:64::c633:6401]:3478".parse().unwrap();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (origin, mapped) = (at("198.51.100.1:3478"), at("203.0.113.7:5000"));
        let found = |origin, other| locate(server, origin, mapped, at(other));
        let other = at("[2001:db8:64::c633:6402]:3479");
        assert_eq!(found(Some(origin), "198.51.100.2:3479"), Ok(Some(other)));
        assert_eq!(found(None, "198.51.100.2:3479"), Ok(None));
        assert_eq!(found(Some(at("198.51.100.9:3478")), "198.51.100.2:3479"), Ok(None));
        assert_eq!(found(Some(origin), "10.0.0.1:3479").unwrap_err().why, LieKind::Private);
        assert_eq!(found(Some(origin), "198.51.100.1:1").unwrap_err().why, LieKind::SameAddress);
        // Without a translator it is a lie.
        let seen = at("[2001:db8::9]:5000");
        let lie = locate(server, Some(origin), seen, at("198.51.100.2:3479")).unwrap_err();
        assert_eq!(lie.why, LieKind::OtherFamily);
    }

    #[test]
    fn what_can_be_true() {
        for (server, other) in [
            ("198.51.100.1:3478", "198.51.100.2:3479"),
            ("10.0.0.1:3478", "198.51.100.2:3479"),
            ("10.0.0.1:3478", "10.0.0.2:3479"),
            ("127.0.0.1:3478", "127.0.0.2:3479"),
            ("127.0.0.1:3478", "10.0.0.2:3479"),
            ("[2001:db8::1]:3478", "[2001:db8::2]:3479"),
            ("[2002:c633:6401::1]:3478", "[2002:c633:6401::2]:3479"),
        ] {
            assert_eq!(check(server.parse().unwrap(), other.parse().unwrap()), Ok(()));
        }
    }
}
