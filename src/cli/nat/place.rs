//! A server as a person names it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use tokio::net::lookup_host;
use tokio::time::timeout_at;

use super::Stopped;
use crate::client::{Host, Uri, UriError};
use crate::nat::Outcome;

/// The longest name of a network interface in Linux.
const LONGEST_ZONE: usize = 15;

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    host: Host,
    /// The link of a link-local address, by name or number (RFC 4007 section 11).
    zone: Option<String>,
    port: u16,
}

impl Place {
    /// Reads `host`, `host:port`, an address, `[address]` or `[address]:port`, with
    /// or without `stun:` in front. An IPv6 address may have a zone.
    pub(super) fn parse(text: &str) -> Result<Self, UriError> {
        let text = text.strip_prefix("stun:").unwrap_or(text);
        let (text, zone) = take_zone(text)?;
        let uri: Uri = match text.parse::<Ipv6Addr>() {
            Ok(ip) => format!("stun:[{ip}]"),
            Err(_) => format!("stun:{text}"),
        }
        .parse()?;
        if zone.is_some() && !matches!(uri.host, Host::Ip(IpAddr::V6(_))) {
            return Err(UriError::BadHost(text));
        }
        Ok(Self { port: uri.port_or_default(), host: uri.host, zone })
    }

    /// The addresses of the host that are wanted, at least one, if they are known by then.
    pub(super) async fn resolve(
        &self,
        until: Instant,
        wanted: &mut dyn FnMut(&IpAddr) -> bool,
    ) -> Result<Vec<SocketAddr>, Stopped> {
        let missing = |why: String| Stopped::new(Outcome::NoHost, why);
        let found: Vec<SocketAddr> = match (&self.host, &self.zone) {
            (Host::Ip(ip), None) => vec![SocketAddr::new(*ip, self.port)],
            // The system knows the numbers of links.
            (Host::Ip(ip), Some(zone)) => lookup_host((format!("{ip}%{zone}"), self.port))
                .await
                .map_err(|e| missing(format!("{ip} has no zone {zone} here: {e}")))?
                .collect(),
            (Host::Name(name), _) => {
                timeout_at(until.into(), lookup_host((name.as_str(), self.port)))
                    .await
                    .map_err(|_| missing(format!("{name} does not resolve in time")))?
                    .map_err(|e| missing(format!("{name} does not resolve: {e}")))?
                    .collect()
            }
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
        match (&self.host, &self.zone) {
            (Host::Ip(ip), Some(zone)) => write!(f, "[{ip}%{zone}]:{}", self.port),
            (host, _) => write!(f, "{host}:{}", self.port),
        }
    }
}

/// Takes the zone out of `address%zone` or `[address%zone]:port`.
fn take_zone(text: &str) -> Result<(String, Option<String>), UriError> {
    let Some((before, after)) = text.split_once('%') else { return Ok((text.to_owned(), None)) };
    let (zone, behind) = match (before.starts_with('['), after.find(']')) {
        (true, Some(end)) => after.split_at(end),
        _ => (after, ""),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if zone.is_empty() || zone.len() > LONGEST_ZONE || !zone.chars().all(plain) {
        return Err(UriError::BadHost(text.to_owned()));
    }
    Ok((format!("{before}{behind}"), Some(zone.to_owned())))
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
            ("fe80::1%eth0", "[fe80::1%eth0]:3478"),
            ("[fe80::1%2]", "[fe80::1%2]:3478"),
            ("stun:[fe80::1%br-0.7]:80", "[fe80::1%br-0.7]:80"),
        ] {
            assert_eq!(Place::parse(text).map(|p| p.to_string()), Ok(expected.to_owned()));
        }
        for bad in
            ["", ":80", "a:", "a:0", "a:b", "a:65536", "a b", "[::1", "[::1]x", "[a]:1", "turn:a:1"]
        {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
        for bad in ["fe80::1%", "[fe80::1%]", "a%eth0", "192.0.2.1%eth0", "fe80::1%a b", "::%a%b"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
