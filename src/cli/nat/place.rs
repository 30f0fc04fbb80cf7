//! A server as a person names it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use tokio::net::lookup_host;
use tokio::time::timeout_at;

use super::Stopped;
use crate::client::{Host, Uri, UriError};
use crate::nat::Outcome;

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    host: Host,
    port: u16,
}

impl Place {
    /// Reads `host`, `host:port`, an address, `[address]` or `[address]:port`, with
    /// or without `stun:` in front.
    pub(super) fn parse(text: &str) -> Result<Self, UriError> {
        let text = text.strip_prefix("stun:").unwrap_or(text);
        let uri: Uri = match text.parse::<Ipv6Addr>() {
            Ok(ip) => format!("stun:[{ip}]"),
            Err(_) => format!("stun:{text}"),
        }
        .parse()?;
        Ok(Self { port: uri.port_or_default(), host: uri.host })
    }

    /// The addresses of the host that are wanted, at least one, if they are known by then.
    pub(super) async fn resolve(
        &self,
        until: Instant,
        wanted: &mut dyn FnMut(&IpAddr) -> bool,
    ) -> Result<Vec<SocketAddr>, Stopped> {
        let missing = |why: String| Stopped::new(Outcome::NoHost, why);
        let found: Vec<SocketAddr> = match &self.host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, self.port)],
            Host::Name(name) => timeout_at(until.into(), lookup_host((name.as_str(), self.port)))
                .await
                .map_err(|_| missing(format!("{name} does not resolve in time")))?
                .map_err(|e| missing(format!("{name} does not resolve: {e}")))?
                .collect(),
        };
        let mut addresses = found;
        addresses.retain(|address| wanted(&address.ip()));
        if addresses.is_empty() {
            let why = format!("{} has no address of the wanted family", self.host);
            return Err(missing(why));
        }
        Ok(addresses)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
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
            ("Example.ORG.", "example.org:3478"),
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
