//! Where the load goes, and whether it may: by default to this host only.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::super::Failure;
use super::super::resolve::{Resolver, Target};
use crate::client::Uri;
use crate::daemon::Exit;

/// The first way to the server of a URI.
///
/// # Errors
/// A name that leads nowhere.
pub(super) async fn look_up(uri: &Uri) -> Result<Target, Failure> {
    let resolver = Resolver::new(None, None)
        .map_err(|error| Failure::new(Exit::OsError, format!("sturn: resolver: {error}")))?;
    let resolution = resolver.resolve(uri).await;
    let resolution =
        resolution.map_err(|error| Failure::new(Exit::Unavailable, format!("sturn: {error}")))?;
    let first = resolution.targets.into_iter().next();
    first.ok_or_else(|| Failure::new(Exit::Unavailable, format!("sturn: {uri} leads nowhere")))
}

/// Whether an address is one of this host's own.
pub(super) fn is_local(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    ip.is_loopback() || interfaces.iter().any(|interface| interface.ip() == ip)
}

/// The refusal of a server elsewhere.
pub(super) fn refusal(uri: &Uri, address: SocketAddr) -> Failure {
    Failure::new(
        Exit::Usage,
        format!(
            "sturn: {uri} is {address}, which is not this host: to load a server takes bandwidth \
             and allocations away from its users. If it is yours to load, say --i-own-this-server"
        ),
    )
}

/// The address of this host from which packets go to the server: where peers are unless
/// told otherwise.
///
/// # Errors
/// No route to the server.
pub(super) fn address_towards(server: SocketAddr) -> Result<IpAddr, Failure> {
    let found = match server {
        SocketAddr::V4(_) => UdpSocket::bind("0.0.0.0:0"),
        SocketAddr::V6(_) => UdpSocket::bind("[::]:0"),
    }
    // This sends nothing; the kernel looks at its routes.
    .and_then(|socket| socket.connect(server).and_then(|()| socket.local_addr()));
    match found {
        Ok(address) => Ok(address.ip()),
        Err(why) => {
            Err(Failure::new(Exit::Unavailable, format!("sturn: no way to {server}: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_others() {
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["198.51.100.1", "2001:db8::1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
        for interface in if_addrs::get_if_addrs().unwrap() {
            assert!(is_local(interface.ip()), "{}", interface.ip());
        }
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        let from = |server: &str| address_towards(server.parse().unwrap()).ok().unwrap();
        assert_eq!(from("127.0.0.1:3478"), "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(from("[::1]:3478"), "::1".parse::<IpAddr>().unwrap());
    }
}
