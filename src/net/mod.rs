//! Plain words shared by every layer: addresses by role, transports,
//! five-tuples and time as an input.
//!
//! Nothing here touches a socket. Addresses have one newtype per role, so that
//! a peer address cannot be used where a client address is meant.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod canonical;
mod map;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use canonical::{Embedding, canonical, embedding};
pub use map::{HashSeed, Map, map};

/// The current time, read once per batch by the shell and passed inwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic time; every lifetime and timer is measured on it.
    pub mono: Instant,
    /// Time since the Unix epoch; needed for time-limited credentials and nonces.
    pub unix: Duration,
}

impl Now {
    /// The same two clocks, `by` later.
    pub fn after(self, by: Duration) -> Self {
        Self { mono: self.mono + by, unix: self.unix + by }
    }

    /// Whole seconds since the Unix epoch.
    pub fn unix_secs(self) -> u64 {
        self.unix.as_secs()
    }
}

/// How a client reaches the server (RFC 8656 section 3.1, RFC 7350 for DTLS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Plain UDP.
    Udp,
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// DTLS over UDP.
    Dtls,
}

impl Transport {
    /// Whether messages are framed out of a byte stream. On a stream ChannelData
    /// is padded to four bytes (RFC 8656 section 12.5) and nothing is retransmitted.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }

    /// Lower-case name as used in logs and metrics labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// IP address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The other family.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

macro_rules! address_role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Wraps a transport address, in canonical form: a v4-mapped IPv6
            /// address becomes IPv4, flow label is dropped.
            pub fn new(addr: SocketAddr) -> Self {
                Self(unmap(addr))
            }

            /// The transport address.
            pub fn socket(self) -> SocketAddr {
                self.0
            }

            /// The IP address.
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port.
            pub fn port(self) -> u16 {
                self.0.port()
            }

            /// The address family.
            pub fn family(self) -> Family {
                Family::of(self.0.ip())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address_role! {
    /// Where a client's packets come from, as the server sees it: the client's
    /// server-reflexive transport address.
    ClientAddr
}
address_role! {
    /// The transport address of a peer: a host the client exchanges data with
    /// through its relayed transport address.
    PeerAddr
}
address_role! {
    /// A relayed transport address: the address on the server that peers send to
    /// and see data coming from. This is the address as bound on this host; what
    /// clients are told is the *advertised* address (behind 1:1 NAT they differ).
    RelayedAddr
}

/// Undoes the two spellings under which one endpoint could get two keys: the
/// v4-mapped form and a non-zero flow label. The scope of a link-local address stays.
fn unmap(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(mut v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => {
                v6.set_flowinfo(0);
                SocketAddr::V6(v6)
            }
        },
    }
}

/// Client address and port, server address and port, and the transport between
/// them: what identifies an allocation (RFC 8656 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// The transport the client uses.
    pub transport: Transport,
    /// The client's side.
    pub client: ClientAddr,
    /// The server's side: the local address the packet arrived at.
    pub server: SocketAddr,
}

impl FiveTuple {
    /// Builds a five-tuple; the only constructor, so that keys are always canonical.
    pub fn new(transport: Transport, client: SocketAddr, server: SocketAddr) -> Self {
        Self { transport, client: ClientAddr::new(client), server: unmap(server) }
    }
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.transport, self.client, self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn v4_mapped_and_v4_are_one_client() {
        let plain = ClientAddr::new(addr("192.0.2.1:5000"));
        let mapped = ClientAddr::new(addr("[::ffff:192.0.2.1]:5000"));
        assert_eq!(plain, mapped);
        assert_eq!(mapped.family(), Family::V4);
    }

    #[test]
    fn flow_label_is_not_part_of_a_key() {
        let a =
            SocketAddr::V6(std::net::SocketAddrV6::new("2001:db8::1".parse().unwrap(), 1, 7, 0));
        assert_eq!(PeerAddr::new(a), PeerAddr::new(addr("[2001:db8::1]:1")));
    }
}
