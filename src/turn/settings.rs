//! What the core needs to know of the configuration.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::alternate::Alternates;
use super::policy::Policy;
use crate::auth::{Algorithm, Directory, Tokens};
use crate::net::Family;

/// Everything the core of a shard is configured with. Shared by all shards.
#[derive(Debug)]
pub struct Settings {
    /// Authentication.
    pub auth: AuthSettings,
    /// Lifetimes.
    pub lifetimes: Lifetimes,
    /// Bounds.
    pub limits: Limits,
    /// What can be relayed.
    pub relay: RelaySettings,
    /// Which peers may be reached.
    pub policy: Policy,
    /// NAT behaviour discovery (RFC 5780); `None`: Binding is answered without it.
    pub discovery: Option<Discovery>,
    /// The servers that clients are sent to instead; `None`: nowhere.
    pub alternates: Option<Alternates>,
    /// The secret that mobility tickets are sealed with (RFC 8016), of any length;
    /// `None`: allocations do not follow their clients.
    pub mobility: Option<Box<[u8]>>,
    /// Answer Binding requests of RFC 3489 clients.
    pub rfc3489: bool,
    /// Let clients bind the channels that RFC 5766 had and RFC 8656 reserves.
    pub rfc5766_channels: bool,
    /// SOFTWARE in authenticated responses; `None`: not sent.
    pub software: Option<Box<str>>,
}

/// Authentication.
#[derive(Debug)]
pub struct AuthSettings {
    /// Users and secrets; `None`: STUN only, TURN requests are refused.
    pub directory: Option<Arc<Directory>>,
    /// The keys of tokens (RFC 7635); `None`: tokens are not taken.
    pub tokens: Option<Arc<Tokens>>,
    /// Ask the shell for users that the directory does not know.
    pub external: bool,
    /// Password algorithms in order of preference (RFC 8489 section 14.11).
    pub algorithms: Vec<Algorithm>,
    /// The key of nonces; shared by a fleet.
    pub nonce_secret: Box<[u8]>,
    /// How long a nonce is accepted.
    pub nonce_lifetime: Duration,
    /// When a time-limited credential is looked at again.
    pub expiry: ExpiryCheck,
}

/// What the end of a time-limited credential means for a live allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryCheck {
    /// Looked at when an allocation is made; it can be refreshed on and on.
    Allocate,
    /// Looked at with every request; once expired the allocation cannot be refreshed.
    Refresh,
}

/// Lifetimes (RFC 8656 sections 7.2, 9 and 12).
#[derive(Clone, Debug)]
pub struct Lifetimes {
    /// Of an allocation, unless the client asks for more.
    pub default: Duration,
    /// The most a client can ask for.
    pub max: Duration,
    /// Of a permission: 5 minutes.
    pub permission: Duration,
    /// Of a channel: 10 minutes.
    pub channel: Duration,
    /// Of a port set aside by EVEN-PORT: 30 seconds.
    pub reservation: Duration,
    /// How long a request waits for an answer from outside.
    pub pending: Duration,
    /// How long a connection to a peer may take to come about, 30 seconds or more
    /// (RFC 6062 section 5.2).
    pub connect: Duration,
    /// How long a connection with a peer waits for its ConnectionBind: 30 seconds
    /// (RFC 6062 sections 5.2 and 5.3).
    pub connection_bind: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            default: Duration::from_secs(600),
            max: Duration::from_secs(3600),
            permission: Duration::from_secs(300),
            channel: Duration::from_secs(600),
            reservation: Duration::from_secs(30),
            pending: Duration::from_secs(5),
            connect: Duration::from_secs(30),
            connection_bind: Duration::from_secs(30),
        }
    }
}

/// Bounds on what clients can make the server keep.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Allocations of one shard.
    pub allocations: usize,
    /// Allocations of one user, over all shards; zero means no bound.
    pub allocations_per_user: u32,
    /// Permissions of one allocation.
    pub permissions: usize,
    /// Channels of one allocation.
    pub channels: usize,
    /// Connections with peers of one TCP allocation, those on their way included.
    pub peer_connections: usize,
    /// The same of one shard, of which one user has at most half.
    pub all_peer_connections: usize,
    /// Requests of one shard that wait for an answer from outside.
    pub pending: usize,
    /// Unauthenticated UDP answers per second and source prefix (IPv4 /24, IPv6
    /// /48), twice as many in a burst; zero means no bound.
    pub answers_per_prefix: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: 100_000,
            allocations_per_user: 0,
            permissions: 256,
            channels: 256,
            peer_connections: 64,
            all_peer_connections: 4000,
            pending: 1024,
            answers_per_prefix: 500,
        }
    }
}

/// The addresses and ports between which CHANGE-REQUEST chooses (RFC 5780
/// section 6). The shell listens on each address with each port.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// At most two of a family. Where there is one, clients learn where an answer
    /// came from, and CHANGE-REQUEST is refused.
    pub addresses: Vec<HostAddress>,
    /// Two different ports.
    pub ports: [u16; 2],
}

/// What can be relayed.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// The addresses of relay sockets and what clients are told instead of them.
    pub addresses: Vec<HostAddress>,
    /// The ports of relay sockets.
    pub ports: RangeInclusive<u16>,
    /// The family of an allocation whose client does not ask for one.
    pub default_family: DefaultFamily,
    /// Relay TCP too (RFC 6062), for clients on TCP and TLS.
    pub tcp: bool,
}

/// An address that sockets are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address on this host.
    pub local: IpAddr,
    /// The address that reaches it from outside; the same unless behind 1:1 NAT.
    pub advertised: IpAddr,
}

impl RelaySettings {
    /// Whether a family can be relayed.
    pub fn supports(&self, family: Family) -> bool {
        self.addresses.iter().any(|a| Family::of(a.local) == family)
    }

    /// The local address behind an advertised one.
    pub(super) fn local_of(&self, advertised: SocketAddr) -> Option<SocketAddr> {
        let a = self.addresses.iter().find(|a| a.advertised == advertised.ip())?;
        Some(SocketAddr::new(a.local, advertised.port()))
    }

    /// The advertised address in front of a local one that differs from it.
    pub(super) fn advertised_of(&self, local: SocketAddr) -> Option<SocketAddr> {
        let a = self.addresses.iter().find(|a| a.local == local.ip() && a.advertised != a.local)?;
        self.ports.contains(&local.port()).then(|| SocketAddr::new(a.advertised, local.port()))
    }
}

/// The family of an allocation whose client does not ask for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultFamily {
    /// IPv4, as RFC 8656 section 7.2 says.
    V4,
    /// The family the client speaks to the server.
    Client,
}
