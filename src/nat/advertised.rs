//! Whether OTHER-ADDRESS can be true (RFC 5780 section 7.4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::report::is_private;

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

/// Checks what the server at `server` says. A public address of a server that was
/// reached at a private one is fine: it is behind a 1:1 NAT.
pub(super) fn check(server: SocketAddr, other: SocketAddr) -> Result<(), Lie> {
    let (ip, own) = (other.ip(), server.ip());
    let why = if ip.is_ipv4() != own.is_ipv4() {
        LieKind::OtherFamily
    } else if ip.is_unspecified() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_have_names() {
        for (server, other, name) in [
            ("198.51.100.1:3478", "[2001:db8::1]:3479", "other-family"),
            ("198.51.100.1:3478", "0.0.0.0:3479", "unspecified"),
            ("[2001:db8::1]:3478", "[::]:3479", "unspecified"),
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
    fn what_can_be_true() {
        for (server, other) in [
            ("198.51.100.1:3478", "198.51.100.2:3479"),
            ("10.0.0.1:3478", "198.51.100.2:3479"),
            ("10.0.0.1:3478", "10.0.0.2:3479"),
            ("127.0.0.1:3478", "127.0.0.2:3479"),
            ("127.0.0.1:3478", "10.0.0.2:3479"),
            ("[2001:db8::1]:3478", "[2001:db8::2]:3479"),
        ] {
            assert_eq!(check(server.parse().unwrap(), other.parse().unwrap()), Ok(()));
        }
    }
}
