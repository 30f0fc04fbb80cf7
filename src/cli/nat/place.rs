//! A server as a person names it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::net::lookup_host;
use tokio::time::timeout_at;

use super::Stopped;
use crate::nat::Outcome;

/// The port of STUN (RFC 8489 section 18.6).
const PORT: u16 = 3478;

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    host: String,
    port: u16,
}

impl Place {
    /// Reads `host`, `host:port`, an address, `[address]` or `[address]:port`, with
    /// or without `stun:` in front.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a host, host:port or [address]:port";
        let text = text.strip_prefix("stun:").unwrap_or(text);
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(EXPECTED)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| EXPECTED)?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
        } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
            (text, Some(""))
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
                None => (text, Some("")),
            }
        };
        let port = match port.ok_or(EXPECTED)? {
            "" => PORT,
            port => port.parse().ok().filter(|port| *port != 0).ok_or(EXPECTED)?,
        };
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
        if host.is_empty() || host.contains(is_odd) {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// The addresses of the host that are wanted, at least one, if they are known by then.
    pub(super) async fn resolve(
        &self,
        until: Instant,
        wanted: &mut dyn FnMut(&IpAddr) -> bool,
    ) -> Result<Vec<SocketAddr>, Stopped> {
        let missing = |why: String| Stopped::new(Outcome::NoHost, why);
        let found = timeout_at(until.into(), lookup_host((self.host.as_str(), self.port)))
            .await
            .map_err(|_| missing(format!("{} does not resolve in time", self.host)))?
            .map_err(|e| missing(format!("{} does not resolve: {e}", self.host)))?;
        let addresses: Vec<SocketAddr> = found.filter(|address| wanted(&address.ip())).collect();
        if addresses.is_empty() {
            let why = format!("{} has no address of the wanted family", self.host);
            return Err(missing(why));
        }
        Ok(addresses)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, expected) in [
            ("example.org", "example.org:3478"),
            ("example.org:19302", "example.org:19302"),
            ("stun:example.org:19302", "example.org:19302"),
            ("192.0.2.1", "192.0.2.1:3478"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("2001:db8::1", "[2001:db8::1]:3478"),
            ("[2001:db8::1]", "[2001:db8::1]:3478"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(Place::parse(text).map(|p| p.to_string()), Ok(expected.to_owned()));
        }
        for bad in
            ["", ":80", "a:", "a:0", "a:b", "a:65536", "a b", "[::1", "[::1]x", "[a]:1", "turn:a:1"]
        {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
