//! What to relay on, and which addresses are this server's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::settings;
use crate::config::Config;
use crate::net::Family;
use crate::turn::HostAddress;

/// Addresses found at start.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Where relay sockets are bound, and what clients are told.
    pub(super) relay: Vec<HostAddress>,
    /// Every other address of this host.
    pub(super) own: Vec<IpAddr>,
    /// Whether `relay` was found rather than configured.
    found: bool,
}

impl Addresses {
    /// Takes the configured relay addresses. Without any: the addresses listened
    /// on, and for listeners on every address the one that the default route uses.
    pub(super) fn find(config: &Config) -> Self {
        let configured: Vec<_> =
            config.relay.addresses.iter().map(settings::host_address).collect();
        let found = configured.is_empty();
        let relay = if found { detect(config) } else { configured };
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let own = interfaces
            .iter()
            .map(if_addrs::Interface::ip)
            .chain(listeners(config).iter().map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified()))
            // What reaches us through 1:1 NAT is us too.
            .chain(config.nat_discovery.addresses.iter().map(|a| a.advertise))
            .filter(|ip| !relay.iter().any(|r| r.local == *ip || r.advertised == *ip))
            .collect();
        Self { relay, own, found }
    }

    /// A relay address that only this machine or its LAN can reach is the most
    /// common reason for calls that do not connect.
    pub(super) fn warn_about_private(&self) {
        for relay in &self.relay {
            let ip = relay.advertised;
            if ip.is_loopback() {
                tracing::warn!(
                    address = %ip,
                    "relaying on loopback: only clients and peers on this machine can be reached"
                );
            } else if self.found && is_private(ip) {
                tracing::warn!(
                    address = %ip,
                    "relaying on a private address: clients outside this network need \
                     relay.addresses = [{{ address = \"{ip}\", advertise = \"PUBLIC-IP\" }}]"
                );
            }
        }
    }
}

fn listeners(config: &Config) -> Vec<SocketAddr> {
    config.udp_listeners().into_iter().chain(config.tcp_listeners()).collect()
}

fn detect(config: &Config) -> Vec<HostAddress> {
    let mut ips: Vec<IpAddr> = Vec::new();
    let mut add = |ip: IpAddr| {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    };
    for addr in config.listen.udp.iter().chain(&config.listen.tcp) {
        if !addr.ip().is_unspecified() {
            add(addr.ip());
        } else if let Some(ip) = route_source(Family::of(addr.ip())) {
            add(ip);
        }
    }
    if ips.is_empty() {
        ips.push(Ipv4Addr::LOCALHOST.into());
    }
    ips.into_iter().map(|ip| HostAddress { local: ip, advertised: ip }).collect()
}

/// The source address that the kernel would use towards the internet. Connecting a
/// UDP socket looks the route up and sends nothing.
fn route_source(family: Family) -> Option<IpAddr> {
    let (any, outside): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        Family::V6 => {
            (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
        }
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((outside, 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    let usable = !ip.is_unspecified() && !ip.is_loopback() && !is_link_local(ip);
    usable.then_some(ip)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64,
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}
