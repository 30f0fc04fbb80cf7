//! URIs of servers: `stun:` and `stuns:` (RFC 7064), `turn:` and `turns:` (RFC 7065).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::net::Transport;

/// Port of `stun:` and `turn:` (RFC 8489 section 8.1).
const PLAIN_PORT: u16 = 3478;
/// Port of `stuns:` and `turns:`.
const SECURE_PORT: u16 = 5349;
/// The longest name of a host in the DNS (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;

/// The URI of a STUN or TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// What is in front of the colon.
    pub scheme: Scheme,
    /// Where the server is.
    pub host: Host,
    /// The port, if the URI names one.
    pub port: Option<u16>,
    /// `?transport=`, which only `turn:` and `turns:` may have.
    pub transport: Option<Protocol>,
}

/// The scheme of a [`Uri`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// STUN over UDP or TCP.
    Stun,
    /// STUN over TLS or DTLS.
    Stuns,
    /// TURN over UDP or TCP.
    Turn,
    /// TURN over TLS or DTLS.
    Turns,
}

/// The host of a [`Uri`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address; IPv6 stands in brackets.
    Ip(IpAddr),
    /// A name, in lower case and without a final dot.
    Name(String),
}

/// What `?transport=` says: the protocol below TLS or DTLS, if there is such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// UDP; with a secure scheme, DTLS over it.
    Udp,
    /// TCP; with a secure scheme, TLS over it.
    Tcp,
}

/// Why a text is no [`Uri`], in words for the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// There is no scheme.
    #[error("no scheme: write stun:HOST, stuns:HOST, turn:HOST or turns:HOST")]
    NoScheme,
    /// It is none of the four.
    #[error("unknown scheme {0:?}: expected stun, stuns, turn or turns")]
    UnknownScheme(String),
    /// These URIs have no authority part.
    #[error("no // behind the colon: write {scheme}:HOST", scheme = .0.name())]
    Slashes(Scheme),
    /// User and password are no part of these URIs (RFC 7065 section 3.1).
    #[error("no user in the URI: credentials are given apart from it")]
    User,
    /// The host is empty.
    #[error("no host behind the colon")]
    NoHost,
    /// The host is neither a name nor an address.
    #[error("{0:?} is neither a host name nor an address")]
    BadHost(String),
    /// An IPv6 address without brackets cannot be told from a port.
    #[error("an IPv6 address stands in brackets: [{0}]")]
    NoBrackets(Ipv6Addr),
    /// The port is no number from 1 to 65535.
    #[error("{0:?} is no port: expected 1 to 65535")]
    BadPort(String),
    /// Only TURN URIs have a transport (RFC 7064 section 3.1).
    #[error("{scheme}: has no ?transport=", scheme = .0.name())]
    TransportOfStun(Scheme),
    /// Something else than a known transport is behind the question mark.
    #[error("{0:?} is not understood: expected transport=udp or transport=tcp")]
    BadQuery(String),
}

impl Scheme {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stun => "stun",
            Self::Stuns => "stuns",
            Self::Turn => "turn",
            Self::Turns => "turns",
        }
    }

    /// Whether the server relays.
    pub fn is_turn(self) -> bool {
        matches!(self, Self::Turn | Self::Turns)
    }

    /// Whether TLS or DTLS is used.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Stuns | Self::Turns)
    }

    /// The port where the URI names none.
    pub fn default_port(self) -> u16 {
        if self.is_secure() { SECURE_PORT } else { PLAIN_PORT }
    }
}

impl Protocol {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl Uri {
    /// The transport that `?transport=` names, `None` if the URI leaves it open.
    pub fn transport(&self) -> Option<Transport> {
        let secure = self.scheme.is_secure();
        self.transport.map(|protocol| match (protocol, secure) {
            (Protocol::Udp, false) => Transport::Udp,
            (Protocol::Tcp, false) => Transport::Tcp,
            (Protocol::Udp, true) => Transport::Dtls,
            (Protocol::Tcp, true) => Transport::Tls,
        })
    }

    /// The port, or that of the scheme.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let (scheme, rest) = split_scheme(text)?;
        if rest.starts_with("//") {
            return Err(UriError::Slashes(scheme));
        }
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        if place.contains('@') {
            return Err(UriError::User);
        }
        let (host, port) = split_port(place)?;
        let transport = query.map(|query| parse_query(scheme, query)).transpose()?;
        Ok(Self {
            scheme,
            host: parse_host(host)?,
            port: port.map(parse_port).transpose()?,
            transport,
        })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme.name(), self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.transport {
            Some(protocol) => write!(f, "?transport={}", protocol.name()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Schemes are written in any case (RFC 3986 section 3.1).
fn split_scheme(text: &str) -> Result<(Scheme, &str), UriError> {
    let (name, rest) = text.split_once(':').ok_or(UriError::NoScheme)?;
    let all = [Scheme::Stun, Scheme::Stuns, Scheme::Turn, Scheme::Turns];
    match all.into_iter().find(|scheme| scheme.name().eq_ignore_ascii_case(name)) {
        Some(scheme) => Ok((scheme, rest)),
        // `example.org:3478` and `192.0.2.1:3478` are hosts, not schemes.
        None if name.contains('.') || name.starts_with('[') => Err(UriError::NoScheme),
        None => Err(UriError::UnknownScheme(name.to_owned())),
    }
}

/// Host and port as they are written.
fn split_port(place: &str) -> Result<(&str, Option<&str>), UriError> {
    if let Some(inside) = place.strip_prefix('[') {
        let bad = || UriError::BadHost(place.to_owned());
        let end = inside.find(']').ok_or_else(bad)? + 2;
        let (host, tail) = place.split_at(end);
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err(bad()),
        };
    }
    if let Ok(ip) = place.parse::<Ipv6Addr>() {
        return Err(UriError::NoBrackets(ip));
    }
    Ok(place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))))
}

fn parse_port(text: &str) -> Result<u16, UriError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| UriError::BadPort(text.to_owned()))
}

fn parse_host(text: &str) -> Result<Host, UriError> {
    if text.is_empty() {
        return Err(UriError::NoHost);
    }
    let bad = || UriError::BadHost(text.to_owned());
    if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inside.parse().map(|ip| Host::Ip(IpAddr::V6(ip))).map_err(|_| bad());
    }
    if let Ok(ip) = text.parse() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    // The last label of a name is never all digits: that is a mistyped address.
    let numeric =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    let fine = !numeric && name.len() <= MAX_NAME && name.split('.').all(is_label);
    if fine { Ok(Host::Name(name.to_ascii_lowercase())) } else { Err(bad()) }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&text.len()) && text.bytes().all(inner)
}

fn parse_query(scheme: Scheme, query: &str) -> Result<Protocol, UriError> {
    let bad = || UriError::BadQuery(query.to_owned());
    let (key, value) = query.split_once('=').ok_or_else(bad)?;
    if !key.eq_ignore_ascii_case("transport") {
        return Err(bad());
    }
    if !scheme.is_turn() {
        return Err(UriError::TransportOfStun(scheme));
    }
    let all = [Protocol::Udp, Protocol::Tcp];
    all.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(value)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_a_uri_says() {
        for (text, host, port, transport) in [
            ("stun:example.org", "example.org", 3478, None),
            ("stuns:example.org", "example.org", 5349, None),
            ("turn:example.org", "example.org", 3478, None),
            ("turns:example.org", "example.org", 5349, None),
            ("turn:example.org:8000", "example.org", 8000, None),
            ("turn:example.org?transport=udp", "example.org", 3478, Some(Transport::Udp)),
            ("turn:192.0.2.1:3478?transport=tcp", "192.0.2.1", 3478, Some(Transport::Tcp)),
            ("turns:[2001:db8::1]:443?transport=tcp", "[2001:db8::1]", 443, Some(Transport::Tls)),
            ("turns:example.org?transport=udp", "example.org", 5349, Some(Transport::Dtls)),
            ("stun:[::1]", "[::1]", 3478, None),
            ("turn:turn_1.example-x.org", "turn_1.example-x.org", 3478, None),
            ("turn:intranet", "intranet", 3478, None),
        ] {
            let uri = uri(text);
            assert_eq!(uri.host.to_string(), host, "{text}");
            assert_eq!(uri.port_or_default(), port, "{text}");
            assert_eq!(uri.transport(), transport, "{text}");
            assert_eq!(uri.to_string(), text);
        }
    }

    #[test]
    fn case_and_a_final_dot_do_not_matter() {
        let plain = uri("turn:example.org?transport=tcp");
        assert_eq!(uri("TURN:Example.ORG.?Transport=TCP"), plain);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("", "no scheme"),
            ("example.org", "no scheme"),
            ("example.org:3478", "no scheme"),
            ("192.0.2.1:3478", "no scheme"),
            ("[::1]:3478", "no scheme"),
            ("http://example.org", "unknown scheme \"http\""),
            ("turn://example.org", "write turn:HOST"),
            ("turns://example.org", "write turns:HOST"),
            ("turn:alice@example.org", "credentials"),
            ("turn:", "no host"),
            ("turn::3478", "no host"),
            ("turn:?transport=udp", "no host"),
            ("turn:2001:db8::1", "[2001:db8::1]"),
            ("turn:::1", "[::1]"),
            ("turn:[::1", "neither"),
            ("turn:[::1]3478", "neither"),
            ("turn:[192.0.2.1]", "neither"),
            ("turn:a b", "neither"),
            ("turn:a..b", "neither"),
            ("turn:192.0.2", "neither"),
            ("turn:192.0.2.256", "neither"),
            ("turn:example.org:", "\"\" is no port"),
            ("turn:example.org:0", "\"0\" is no port"),
            ("turn:example.org:+1", "\"+1\" is no port"),
            ("turn:example.org:65536", "\"65536\" is no port"),
            ("turn:example.org?transport=sctp", "transport=sctp"),
            ("turn:example.org?tls", "not understood"),
            ("stun:example.org?transport=udp", "stun: has no ?transport="),
        ] {
            let error = text.parse::<Uri>().expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_back(text in "(stuns?|turns?):[a-zA-Z0-9.:\\[\\]?=@-]{0,40}") {
            if let Ok(uri) = text.parse::<Uri>() {
                let written = uri.to_string().parse::<Uri>();
                proptest::prop_assert_eq!(written.as_ref(), Ok(&uri));
            }
        }
    }
}
