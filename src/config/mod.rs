//! The configuration: a TOML file to valid settings, or every problem in it.
//!
//! [`Config`] is what the rest of the server sees: complete, valid, typed.
//! One table (`keys`) names each key with its kind and its documentation;
//! reading, the hints for unknown keys and `conf/sturn.full.toml` come from it.
//! To add a key: a field and its default here, an entry in the table.
//!
//! 1. `document` parses the TOML and walks it along the table;
//! 2. `kind` reads each value, or says what it expected instead;
//! 3. `rules` checks what only several keys together can get wrong.
//!
//! No step stops at the first problem.

#![forbid(unsafe_code)]

mod document;
mod full;
mod keys;
mod kind;
mod problem;
mod rules;
mod suggest;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::auth::Secret;

pub use full::full_file;
pub use kind::backends::{Backend, ProxyProtocol};
pub use kind::certificates::CertificateFiles;
pub use kind::duration::{format_duration, parse_duration};
pub use kind::ports::PortRange;
pub use kind::tokens::{TokenKey, TokenKeyBytes};
pub use kind::users::{Credential, KeyBytes, User};
pub use problem::{Problem, Problems};

/// Everything a person can set. Valid by construction when it comes from
/// [`Config::parse`] or [`Config::load`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// Where clients reach the server.
    pub listen: Listen,
    /// Where relayed transport addresses come from.
    pub relay: Relay,
    /// Who may use the relay.
    pub auth: Auth,
    /// STUN details.
    pub stun: Stun,
    /// Answers that tell clients what NAT they are behind.
    pub nat_discovery: NatDiscovery,
    /// What allocations can do, and how long they live.
    pub turn: Turn,
    /// Where clients are sent instead.
    pub alternate: Alternate,
    /// Upper bounds.
    pub limits: Limits,
    /// Which peers may be reached.
    pub peers: Peers,
    /// TLS and DTLS.
    pub tls: Tls,
    /// Client connections over TCP.
    pub tcp: Tcp,
    /// UDP sockets.
    pub udp: Udp,
    /// Where connections go that are not for TURN.
    pub backends: Backends,
    /// Threads.
    pub workers: Workers,
    /// Log output.
    pub log: Log,
}

/// `[listen]`: where clients reach the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// UDP transport addresses, without duplicates; the port is never 0.
    pub udp: Vec<SocketAddr>,
    /// TCP transport addresses, without duplicates; the port is never 0.
    pub tcp: Vec<SocketAddr>,
    /// Transport addresses for TLS over TCP and DTLS over UDP and nothing else,
    /// used when there are certificates.
    pub tls: Vec<SocketAddr>,
}

/// `[relay]`: where relayed transport addresses come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Relay {
    /// Addresses to relay on. Empty: find this machine's addresses at start.
    pub addresses: Vec<HostAddress>,
    /// Ports of relayed transport addresses.
    pub ports: PortRange,
    /// What an Allocate without REQUESTED-ADDRESS-FAMILY gets (RFC 8656 section 7.2).
    pub default_family: DefaultFamily,
    /// TCP relays (RFC 6062).
    pub tcp: bool,
    /// Receive buffer of each relay socket in bytes; 0 is the system's default.
    pub socket_recv_buffer: usize,
    /// Send buffer of each relay socket in bytes; 0 is the system's default.
    pub socket_send_buffer: usize,
}

/// An address of this host. Both members have the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address that sockets bind to.
    pub address: IpAddr,
    /// The address that clients are told; another one than `address` behind 1:1 NAT.
    pub advertise: IpAddr,
}

/// What an Allocate without REQUESTED-ADDRESS-FAMILY gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultFamily {
    /// IPv4, as RFC 8656 section 7.2 says.
    Ipv4,
    /// The family the client's packets came by.
    Client,
}

/// `[auth]`: who may use the relay.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Long-term credentials, or none at all.
    pub mode: AuthMode,
    /// The REALM attribute; at most 127 characters (RFC 8489 section 14.9).
    pub realm: String,
    /// Users known by name; the names differ.
    pub users: Vec<User>,
    /// Keys of tokens from authorization servers (RFC 7635); the ids differ.
    pub oauth_keys: Vec<TokenKey>,
    /// The name under which authorization servers know this one; not empty where
    /// there are keys.
    pub oauth_server_name: String,
    /// Shared secrets of time-limited credentials; all are accepted, the first issues.
    pub secrets: Vec<Secret>,
    /// How long a nonce is accepted.
    pub nonce_lifetime: Duration,
    /// The key of the nonces; at least 16 characters. `None`: random for each start.
    pub nonce_key: Option<Secret>,
    /// What the expiry of a time-limited credential ends.
    pub expiry: Expiry,
    /// PASSWORD-ALGORITHMS in order of preference; not empty, without duplicates.
    pub password_algorithms: Vec<PasswordAlgorithm>,
    /// Between expiry and user in the username of a time-limited credential; not a digit.
    pub username_separator: char,
}

/// How requests are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// The long-term credential mechanism (RFC 8489 section 9.2).
    LongTerm,
    /// STUN only: every TURN request is refused.
    None,
}

/// What happens to an allocation when its time-limited credential expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The expiry is checked when the allocation is made; it may be refreshed ever after.
    Allocate,
    /// The expiry is checked on every request: a refresh after it is refused.
    Refresh,
}

/// A password algorithm (RFC 8489 section 18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordAlgorithm {
    /// MD5, what clients before RFC 8489 know.
    Md5,
    /// SHA-256.
    Sha256,
}

/// `[stun]`: STUN details.
#[derive(Clone, Debug, PartialEq)]
pub struct Stun {
    /// Answer Binding requests without the magic cookie, as RFC 3489 clients send them.
    pub rfc3489: bool,
    /// Send the SOFTWARE attribute.
    pub software: bool,
}

/// `[nat-discovery]`: answers that tell clients what NAT they are behind.
#[derive(Clone, Debug, PartialEq)]
pub struct NatDiscovery {
    /// At most two addresses of a family; empty: NAT discovery is off.
    pub addresses: Vec<HostAddress>,
    /// The port that clients know, and the other one; they differ.
    pub ports: [u16; 2],
}

/// `[turn]`: allocations; their lifetimes are in whole seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What an Allocate or Refresh without LIFETIME gets; also the least that is granted.
    pub default_lifetime: Duration,
    /// The most that is granted; not below `default_lifetime`.
    pub max_lifetime: Duration,
    /// Channels 0x5000 to 0x7FFF may be bound, as in RFC 5766.
    pub rfc5766_channels: bool,
    /// Allocations follow clients whose address changes (RFC 8016).
    pub mobility: bool,
}

/// `[alternate]`: other servers that take clients over from this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternate {
    /// For clients over UDP and TCP, without duplicates.
    pub servers: Vec<SocketAddr>,
    /// For clients over TLS and DTLS, without duplicates.
    pub tls_servers: Vec<SocketAddr>,
    /// The name in the certificate of `tls_servers`; empty: the same as here.
    pub domain: String,
    /// When clients are sent there.
    pub when: When,
}

/// When new allocations are made elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// While this server drains.
    Draining,
    /// Always.
    Always,
}

/// `[limits]`: upper bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Allocations in all.
    pub allocations: u32,
    /// Allocations of one user; 0 is no limit.
    pub allocations_per_user: u32,
    /// Permissions of one allocation.
    pub permissions: u32,
    /// Channels of one allocation.
    pub channels: u32,
    /// Connections of one allocation with peers over TCP.
    pub peer_connections: u32,
    /// The same in all; one user has at most half.
    pub all_peer_connections: u32,
    /// Client connections over TCP in all.
    pub connections: u32,
    /// Those of them that are passed to backends.
    pub backend_connections: u32,
    /// Requests waiting for an answer from outside the core, such as a relay socket.
    pub pending_requests: u32,
    /// Unauthenticated UDP answers a second for each source prefix (IPv4 /24,
    /// IPv6 /48), in bursts of up to twice as many; 0 is no limit.
    pub answers_per_prefix: u32,
}

/// `[peers]`: which peers may be reached. Longest prefix wins, deny wins ties.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers {
    /// Networks allowed although they are denied by default.
    pub allow: Vec<IpNet>,
    /// Networks denied although they are allowed by default.
    pub deny: Vec<IpNet>,
}

/// `[tls]`: TLS and DTLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Certificates; a client gets the first for the name that it asks for.
    pub certificates: Vec<CertificateFiles>,
    /// Serve with a certificate made at start when there is no other.
    pub self_signed: bool,
    /// DTLS over UDP.
    pub dtls: bool,
    /// How long a TLS or DTLS handshake may take.
    pub handshake_timeout: Duration,
    /// DTLS handshakes in progress.
    pub handshakes: u32,
}

/// `[tcp]`: client connections over TCP.
#[derive(Clone, Debug, PartialEq)]
pub struct Tcp {
    /// How long a connection without an allocation may be silent.
    pub idle_timeout: Duration,
    /// How long a started frame may take to arrive in full.
    pub frame_timeout: Duration,
    /// Bound of each connection's output queue in bytes.
    pub queue: usize,
    /// Whose PROXY protocol headers are believed.
    pub proxies: Vec<IpNet>,
}

/// `[udp]`: UDP sockets.
#[derive(Clone, Debug, PartialEq)]
pub struct Udp {
    /// Whether datagrams go to and come from the kernel in trains.
    pub offload: bool,
}

/// `[backends]`: where connections go that are not for TURN.
#[derive(Clone, Debug, PartialEq)]
pub struct Backends {
    /// The servers, in order of preference; none of them is this one.
    pub servers: Vec<Backend>,
    /// How long connecting to one may take.
    pub connect_timeout: Duration,
    /// How long a passed connection may be silent on both sides.
    pub idle_timeout: Duration,
}

/// `[workers]`: threads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workers {
    /// Worker threads; 0 is one for each CPU this process may use.
    pub count: u32,
}

/// `[log]`: log output.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A level, or filter directives such as `info,sturn::turn=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the configuration in force came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No file was given: [`Config::default`].
    Embedded,
    /// This file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("the embedded default"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Why [`Config::load`] failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The file was read, but is not valid.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl Config {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// [`LoadError::Unreadable`] when it cannot be read, [`LoadError::Invalid`]
    /// with every problem in it otherwise.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path)
            .map_err(|why| LoadError::Unreadable { path: path.to_owned(), why })?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| document::not_utf8(path, &bytes[..e.valid_up_to()]))?;
        Ok(Self::parse(text, path)?)
    }

    /// Validates the text of a configuration file. `file` names it in problems;
    /// relative paths of secret files start at its directory. Secrets in files and
    /// in the environment are read now.
    ///
    /// # Errors
    /// Every problem in the text, in the order of its lines.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problems> {
        let mut report = problem::Report::new(text, file);
        let config = document::read(&mut report);
        if let Some(config) = &config {
            rules::check(config, &mut report);
        }
        match (config, report.finish()) {
            (Some(config), None) => Ok(config),
            (_, problems) => Err(problems.expect("no config without a problem")),
        }
    }

    /// Every transport address for clients over UDP: `listen.udp`, and those of
    /// NAT discovery that it does not cover.
    pub fn udp_listeners(&self) -> Vec<SocketAddr> {
        self.with_discovery(&self.listen.udp)
    }

    /// The same over TCP; none when `listen.tcp` is empty.
    pub fn tcp_listeners(&self) -> Vec<SocketAddr> {
        match self.listen.tcp.as_slice() {
            [] => Vec::new(),
            listed => self.with_discovery(listed),
        }
    }

    /// Whether there is a certificate to serve TLS and DTLS with.
    pub fn serves_tls(&self) -> bool {
        self.tls.self_signed || !self.tls.certificates.is_empty()
    }

    /// Every transport address for TLS over TCP alone; none without certificates. One
    /// that is for clients over TCP as well takes TLS there.
    pub fn tls_listeners(&self) -> Vec<SocketAddr> {
        self.secure_listeners(self.serves_tls(), &self.tcp_listeners())
    }

    /// The same for DTLS over UDP.
    pub fn dtls_listeners(&self) -> Vec<SocketAddr> {
        self.secure_listeners(self.serves_tls() && self.tls.dtls, &self.udp_listeners())
    }

    fn secure_listeners(&self, served: bool, plain: &[SocketAddr]) -> Vec<SocketAddr> {
        let listed = if served { &self.listen.tls[..] } else { &[] };
        listed.iter().filter(|address| !plain.contains(address)).copied().collect()
    }

    fn with_discovery(&self, listed: &[SocketAddr]) -> Vec<SocketAddr> {
        let NatDiscovery { addresses, ports } = &self.nat_discovery;
        let wanted = addresses.iter().flat_map(|a| ports.map(|p| SocketAddr::new(a.address, p)));
        let missing = wanted.filter(|address| {
            let wildcard = every_family(address.port());
            let mut known = listed.iter();
            !known.any(|l| l == address || wildcard.contains(l) && l.is_ipv4() == address.is_ipv4())
        });
        listed.iter().copied().chain(missing).collect()
    }

    /// Whether a TCP connection to `address` would end at this server itself, on a host
    /// with the addresses that `is_own` tells.
    pub fn listens_at(&self, address: SocketAddr, is_own: impl Fn(IpAddr) -> bool) -> bool {
        let everywhere = every_family(address.port());
        self.tcp_listeners().iter().chain(&self.tls_listeners()).any(|listener| {
            let same_family = listener.is_ipv4() == address.is_ipv4();
            *listener == address
                || everywhere.contains(listener) && same_family && is_own(address.ip())
        })
    }

    /// What is valid but may surprise, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        rules::notes(self)
    }
}

/// The port of STUN and TURN (RFC 8656 section 20), used where an address names none.
const DEFAULT_PORT: u16 = 3478;

/// The port of STUN and TURN over TLS and DTLS (RFC 8656 section 20).
const DEFAULT_TLS_PORT: u16 = 5349;

/// The wildcard address of each family, with `port`.
fn every_family(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

impl Default for Listen {
    fn default() -> Self {
        let both = every_family(DEFAULT_PORT).to_vec();
        Self { udp: both.clone(), tcp: both, tls: every_family(DEFAULT_TLS_PORT).to_vec() }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            ports: PortRange::default(),
            default_family: DefaultFamily::Ipv4,
            tcp: false,
            socket_recv_buffer: 0,
            socket_send_buffer: 0,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::LongTerm,
            realm: "sturn".into(),
            users: Vec::new(),
            oauth_keys: Vec::new(),
            oauth_server_name: String::new(),
            secrets: Vec::new(),
            nonce_lifetime: Duration::from_secs(3600),
            nonce_key: None,
            expiry: Expiry::Allocate,
            password_algorithms: vec![PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5],
            username_separator: ':',
        }
    }
}

impl Default for Stun {
    fn default() -> Self {
        Self { rfc3489: false, software: true }
    }
}

impl Default for NatDiscovery {
    fn default() -> Self {
        Self { addresses: Vec::new(), ports: [DEFAULT_PORT, DEFAULT_PORT + 1] }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            default_lifetime: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3600),
            rfc5766_channels: false,
            mobility: false,
        }
    }
}

impl Default for Alternate {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            tls_servers: Vec::new(),
            domain: String::new(),
            when: When::Draining,
        }
    }
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
            connections: 20_000,
            backend_connections: 5000,
            pending_requests: 1024,
            answers_per_prefix: 500,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            self_signed: false,
            dtls: true,
            handshake_timeout: Duration::from_secs(15),
            handshakes: 1000,
        }
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            proxies: Vec::new(),
            idle_timeout: Duration::from_secs(60),
            frame_timeout: Duration::from_secs(10),
            queue: 256 * 1024,
        }
    }
}

impl Default for Udp {
    fn default() -> Self {
        Self { offload: true }
    }
}

impl Default for Backends {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}
