//! `sturn explain`.

use std::net::{IpAddr, SocketAddr};

use super::{ConfigArg, Failure, print};
use crate::daemon;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sturn explain 10.0.0.7
  sturn explain '[2001:db8::1]:5000' --config /etc/sturn/sturn.toml")]
pub(super) struct Args {
    /// Address of a peer, with a port or without
    #[arg(value_name = "PEER", value_parser = parse_peer)]
    peer: Peer,
    #[command(flatten)]
    config: ConfigArg,
}

/// A peer as a person names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    ip: IpAddr,
    port: Option<u16>,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let (config, _) = args.config.load()?;
    print(&daemon::explain(&config, args.peer.ip, args.peer.port))
}

fn parse_peer(text: &str) -> Result<Peer, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Peer { ip: address.ip(), port: Some(address.port()) });
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().map_err(|_| {
        "expected an address such as 192.0.2.1, 192.0.2.1:5000 or [2001:db8::1]:5000".to_owned()
    })?;
    Ok(Peer { ip, port: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_with_and_without_port() {
        let peer = |ip: &str, port| Ok(Peer { ip: ip.parse().unwrap(), port });
        assert_eq!(parse_peer("192.0.2.1"), peer("192.0.2.1", None));
        assert_eq!(parse_peer("192.0.2.1:5000"), peer("192.0.2.1", Some(5000)));
        assert_eq!(parse_peer("2001:db8::1"), peer("2001:db8::1", None));
        assert_eq!(parse_peer("[2001:db8::1]"), peer("2001:db8::1", None));
        assert_eq!(parse_peer("[2001:db8::1]:0"), peer("2001:db8::1", Some(0)));
        for bad in ["", "example.org", "192.0.2.1:70000", "192.0.2", "10.0.0.0/8"] {
            assert!(parse_peer(bad).is_err(), "{bad}");
        }
    }
}
