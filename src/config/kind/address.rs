//! Addresses to listen and relay on, and networks of peers.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use toml::de::DeValue;

use super::{Kind, integer, or_refuse, quoted, read_items, write_items};
use crate::config::problem::{At, Report};
use crate::config::{HostAddress, document, every_family, suggest};
use crate::net::Family;

/// A list of transport addresses to listen on.
pub(crate) struct Listens {
    /// What an address without a port gets.
    pub(crate) port: u16,
}

impl Kind for Listens {
    type Value = Vec<SocketAddr>;

    fn expected(&self) -> String {
        "a list of addresses such as [\"0.0.0.0:3478\", \"[::]:3478\"]".into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        let mut all: Vec<SocketAddr> = Vec::new();
        read_items(self, at, report, |item, report| {
            let addresses = match listen_addresses(item.value, self.port) {
                Ok(addresses) => addresses,
                Err(expected) => {
                    report.refuse(item, format!("expected {expected}"));
                    return None;
                }
            };
            for address in addresses {
                if all.contains(&address) {
                    report.refuse(item, format!("{address} is given twice"));
                    return None;
                }
                all.push(address);
            }
            Some(())
        })?;
        Some(all)
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().map(|a| quoted(&a.to_string()))))
    }
}

/// A list of transport addresses of other servers.
pub(crate) struct Servers {
    pub(crate) default_port: u16,
}

impl Kind for Servers {
    type Value = Vec<SocketAddr>;

    fn expected(&self) -> String {
        "a list of addresses such as [\"203.0.113.9:3478\", \"[2001:db8::9]\"]".into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        let mut all: Vec<SocketAddr> = Vec::new();
        read_items(self, at, report, |item, report| {
            let address = match self.server(item.value) {
                Ok(address) if all.contains(&address) => Err(format!("{address} is given twice")),
                Ok(address) => Ok(address),
                Err(expected) => Err(format!("expected {expected}")),
            };
            all.push(address.map_err(|why| report.refuse(item, why)).ok()?);
            Some(())
        })?;
        Some(all)
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().map(|a| quoted(&a.to_string()))))
    }
}

impl Servers {
    fn server(&self, value: &DeValue<'_>) -> Result<SocketAddr, String> {
        const SHAPE: &str =
            "\"ADDRESS:PORT\" or an address, such as \"203.0.113.9:3478\" or \"[2001:db8::9]\"";
        let text = value.as_str().ok_or(SHAPE)?;
        let address = match bare_ip(text).parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.default_port),
            Err(_) => text.parse().map_err(|_| SHAPE)?,
        };
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err("the address and port of another server".into());
        }
        unicast(address)
    }
}

/// The transport address of another server.
pub(crate) struct Server;

impl Kind for Server {
    type Value = SocketAddr;

    fn expected(&self) -> String {
        "the address and port of another server, such as \"127.0.0.1:8443\" or \"[::1]:8443\""
            .into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
        let address: SocketAddr = or_refuse(self, at, report, |value| {
            let address: SocketAddr = value.as_str()?.parse().ok()?;
            (!address.ip().is_unspecified() && address.port() != 0).then_some(address)
        })?;
        let address = unicast(address);
        address.map_err(|expected| report.refuse(at, format!("expected {expected}"))).ok()
    }

    fn write(&self, value: &SocketAddr) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// What one entry stands for: an address with a port, an address alone (the
/// default port), or a port alone (both families).
fn listen_addresses(value: &DeValue<'_>, default_port: u16) -> Result<Vec<SocketAddr>, String> {
    const SHAPE: &str =
        "\"ADDRESS:PORT\", an address or a port, such as \"0.0.0.0:3478\", \"[::]:3478\" or 3478";
    const PORT: &str = "a port from 1 to 65535";
    let text = match (value, integer(value)) {
        (_, Some(port)) => {
            let port = u16::try_from(port).ok().filter(|p| *p > 0).ok_or(PORT)?;
            return Ok(every_family(port).to_vec());
        }
        (DeValue::String(text), _) => text.as_ref(),
        _ => return Err(SHAPE.into()),
    };
    if let Ok(ip) = bare_ip(text).parse::<IpAddr>() {
        return unicast(SocketAddr::new(ip, default_port)).map(|a| vec![a]);
    }
    let digits = text.strip_prefix(':').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let port = digits.parse().ok().filter(|p: &u16| *p > 0).ok_or(PORT)?;
        return Ok(every_family(port).to_vec());
    }
    let address: SocketAddr = text.parse().map_err(|_| SHAPE)?;
    if address.port() == 0 {
        return Err(PORT.into());
    }
    unicast(address).map(|a| vec![a])
}

/// `[::1]` is `::1`.
fn bare_ip(text: &str) -> &str {
    text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text)
}

fn unicast(address: SocketAddr) -> Result<SocketAddr, String> {
    let ip = address.ip();
    if ip.to_canonical() != ip {
        return Err(format!("\"{}\"", SocketAddr::new(ip.to_canonical(), address.port())));
    }
    if ip.is_multicast() || is_broadcast(ip) {
        return Err("a unicast address".into());
    }
    Ok(address)
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}

/// A list of addresses of this host.
pub(crate) struct Hosts;

const HOST: &str =
    "an address such as \"192.0.2.1\" or { address = \"10.0.0.5\", advertise = \"203.0.113.5\" }";

impl Kind for Hosts {
    type Value = Vec<HostAddress>;

    fn expected(&self) -> String {
        format!("a list, each entry {HOST}")
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        let mut all: Vec<HostAddress> = Vec::new();
        read_items(self, at, report, |item, report| {
            let host = host(item, report)?;
            for known in &all {
                if known.address == host.address {
                    report.refuse(item, format!("{} is given twice", host.address));
                    return None;
                }
                if known.advertise == host.advertise {
                    report.refuse(item, format!("{} is advertised twice", host.advertise));
                    return None;
                }
            }
            all.push(host);
            Some(())
        })?;
        Some(all)
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().map(|host| {
            let address = quoted(&host.address.to_string());
            if host.address == host.advertise {
                return address;
            }
            let advertise = quoted(&host.advertise.to_string());
            format!("{{ address = {address}, advertise = {advertise} }}")
        })))
    }
}

fn host(at: &At<'_>, report: &mut Report<'_>) -> Option<HostAddress> {
    let DeValue::Table(table) = at.value else {
        let address = host_address(at, HOST, report)?;
        return Some(HostAddress { address, advertise: address });
    };
    let (mut address, mut advertise, mut sound) = (None, None, true);
    for (name, value) in table {
        let member = document::at(format!("{}.{}", at.key, name.get_ref()), value);
        let slot = match name.get_ref().as_ref() {
            "address" => &mut address,
            "advertise" => &mut advertise,
            other => {
                let hint = suggest::member(other, &["address", "advertise"]);
                report.refuse_at(name.span().start, &member.key, hint);
                sound = false;
                continue;
            }
        };
        *slot = host_address(&member, "an address such as \"192.0.2.1\"", report);
        sound &= slot.is_some();
    }
    if !sound {
        return None;
    }
    let Some(address) = address else {
        report.refuse(at, format!("expected {HOST}"));
        return None;
    };
    let advertise = advertise.unwrap_or(address);
    if Family::of(address) != Family::of(advertise) {
        report.refuse(at, "expected two addresses of the same family");
        return None;
    }
    Some(HostAddress { address, advertise })
}

/// An address that one host can have.
fn host_address(at: &At<'_>, shape: &str, report: &mut Report<'_>) -> Option<IpAddr> {
    let Some(ip) = at.value.as_str().and_then(|t| bare_ip(t).parse::<IpAddr>().ok()) else {
        report.refuse(at, format!("expected {shape}"));
        return None;
    };
    if ip.to_canonical() != ip {
        report.refuse(at, format!("expected \"{}\"", ip.to_canonical()));
        return None;
    }
    if ip.is_unspecified() || ip.is_multicast() || is_broadcast(ip) {
        report.refuse(at, "expected the address of one host, not a wildcard or a group");
        return None;
    }
    Some(ip)
}

/// A network in CIDR notation; a bare address is a network of one host.
pub(crate) struct Network;

impl Kind for Network {
    type Value = IpNet;

    fn expected(&self) -> String {
        "a network such as \"10.0.0.0/8\" or an address".into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<IpNet> {
        let net = or_refuse(self, at, report, |v| {
            let text = v.as_str()?;
            text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
        })?;
        if let Some(v4) = unmapped(net) {
            // Peers are compared in canonical form: the mapped one would never match.
            report.refuse(at, format!("expected \"{v4}\""));
            return None;
        }
        if net != net.trunc() {
            let host = IpNet::from(net.addr());
            report.refuse(
                at,
                format!("expected the network \"{}\", or \"{host}\" for the host", net.trunc()),
            );
            return None;
        }
        Some(net)
    }

    fn write(&self, value: &IpNet) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// The IPv4 network that a network of v4-mapped addresses stands for.
fn unmapped(net: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else { return None };
    let v4 = v6.addr().to_ipv4_mapped()?;
    let prefix = v6.prefix_len().checked_sub(96)?;
    Some(IpNet::new(v4.into(), prefix).expect("at most 128 - 96 bits").trunc())
}
