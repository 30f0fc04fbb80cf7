//! Which peers may be reached.
//!
//! Deny by default for everything that is not a host of the public internet: the
//! IANA special-purpose registries, multicast, broadcast and this server itself.
//! `peers.allow` and `peers.deny` refine that. The longest prefix decides; at the
//! same length a configured rule beats a built-in one, and deny beats allow. An
//! IPv6 address that wraps an IPv4 one must be allowed in both forms.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::settings::HostAddress;
use crate::net::canonical;

/// The built-in denies: network and what it is.
const SPECIAL_PURPOSE: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this network (RFC 791)"),
    ("10.0.0.0/8", "private use (RFC 1918)"),
    ("100.64.0.0/10", "shared address space (RFC 6598)"),
    ("127.0.0.0/8", "loopback (RFC 1122)"),
    ("169.254.0.0/16", "link local (RFC 3927)"),
    ("172.16.0.0/12", "private use (RFC 1918)"),
    ("192.0.0.0/24", "IETF protocol assignments (RFC 6890)"),
    ("192.0.2.0/24", "documentation (RFC 5737)"),
    ("192.31.196.0/24", "AS112 (RFC 7535)"),
    ("192.52.193.0/24", "AMT (RFC 7450)"),
    ("192.88.99.0/24", "6to4 relay anycast (RFC 7526)"),
    ("192.168.0.0/16", "private use (RFC 1918)"),
    ("192.175.48.0/24", "AS112 (RFC 7534)"),
    ("198.18.0.0/15", "benchmarking (RFC 2544)"),
    ("198.51.100.0/24", "documentation (RFC 5737)"),
    ("203.0.113.0/24", "documentation (RFC 5737)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved (RFC 1112)"),
    ("255.255.255.255/32", "limited broadcast (RFC 8190)"),
    ("::/128", "unspecified (RFC 4291)"),
    ("::1/128", "loopback (RFC 4291)"),
    ("::/96", "IPv4-compatible (RFC 4291)"),
    ("::ffff:0:0/96", "IPv4-mapped (RFC 4291)"),
    ("::ffff:0:0:0/96", "IPv4-translated (RFC 2765)"),
    ("64:ff9b:1::/48", "local-use NAT64 (RFC 8215)"),
    ("100::/64", "discard-only (RFC 6666)"),
    ("100:0:0:1::/64", "dummy prefix (RFC 9780)"),
    ("2001::/23", "IETF protocol assignments (RFC 2928)"),
    ("2001:db8::/32", "documentation (RFC 3849)"),
    ("2002::/16", "6to4 (RFC 3056)"),
    ("2620:4f:8000::/48", "AS112 (RFC 7534)"),
    ("3fff::/20", "documentation (RFC 9637)"),
    ("5f00::/16", "segment routing SIDs (RFC 9602)"),
    ("fc00::/7", "unique local (RFC 4193)"),
    ("fe80::/10", "link local (RFC 4291)"),
    ("fec0::/10", "site local (RFC 3879)"),
    ("ff00::/8", "multicast (RFC 4291)"),
];

/// The rules, ready to be asked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Strongest first.
    rules: Vec<Rule>,
    /// Addresses of relay sockets, local and advertised.
    relays: Vec<IpAddr>,
    relay_ports: RangeInclusive<u16>,
    listener_ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    net: IpNet,
    action: Action,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Deny,
    Allow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Configured,
    Own,
    BuiltIn(&'static str),
}

/// The answer about one peer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do with the peer.
    pub access: Access,
    /// The deciding rule, in words.
    pub rule: String,
}

/// What may be done with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Denied,
    /// Relay to it.
    Allowed,
    /// It is an address of this server's relay sockets: relay to relay ports, in
    /// user space where possible.
    OwnRelay {
        /// Whether its other ports may be reached too.
        others: bool,
    },
}

/// What [`Policy`] needs to know of this server.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    /// Addresses of relay sockets.
    pub relays: Vec<HostAddress>,
    /// Every other address of this host that is known.
    pub others: Vec<IpAddr>,
    /// Ports that the server listens on.
    pub listener_ports: Vec<u16>,
}

impl Policy {
    /// Puts built-in, own and configured rules in order.
    pub fn new(
        allow: &[IpNet],
        deny: &[IpNet],
        own: &OwnAddresses,
        relay_ports: RangeInclusive<u16>,
    ) -> Self {
        let mut rules = Vec::new();
        let mut add = |net, action, source| rules.push(Rule { net, action, source });
        for net in deny {
            add(net.trunc(), Action::Deny, Source::Configured);
        }
        for net in allow {
            add(net.trunc(), Action::Allow, Source::Configured);
        }
        let relays: Vec<IpAddr> =
            own.relays.iter().flat_map(|relay| [relay.advertised, relay.local]).collect();
        // Loopback is denied as such, and opened as such: it is every host's own.
        for ip in relays.iter().chain(&own.others).filter(|ip| !ip.is_loopback()) {
            add(host(*ip), Action::Deny, Source::Own);
        }
        for (net, what) in SPECIAL_PURPOSE {
            let net = net.parse().expect("the table above parses; a test reads all of it");
            add(net, Action::Deny, Source::BuiltIn(what));
        }
        // Stable: within one length the order above stands, so configured rules
        // come before own and built-in ones, and deny before allow.
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.net.prefix_len()));
        Self { rules, relays, relay_ports, listener_ports: own.listener_ports.clone() }
    }

    /// Whether an address may be given a permission. Ports do not matter yet.
    pub fn check_ip(&self, ip: IpAddr) -> Access {
        let (access, rule) = self.deciding(ip);
        let refused =
            access == Access::Denied && rule.is_some_and(|rule| rule.source == Source::Configured);
        // Only the address itself: wrapped in IPv6 it would leave this host.
        if self.relays.contains(&ip.to_canonical()) && !refused {
            return Access::OwnRelay { others: access == Access::Allowed };
        }
        access
    }

    /// Whether datagrams may be sent to this transport address.
    pub fn check(&self, peer: SocketAddr) -> Access {
        match self.check_ip(peer.ip()) {
            access if self.port_is_fine(access, peer.port()) => access,
            _ => Access::Denied,
        }
    }

    /// Whether a port can be sent to, at an address with this access.
    #[inline]
    pub fn port_is_fine(&self, access: Access, port: u16) -> bool {
        match access {
            Access::Denied => false,
            Access::Allowed | Access::OwnRelay { others: true } => port != 0,
            Access::OwnRelay { others: false } => self.is_relay_port(port),
        }
    }

    /// The same answers with the rule that decided.
    pub fn explain(&self, ip: IpAddr, port: Option<u16>) -> Decision {
        let access = self.check_ip(ip);
        let (_, rule) = self.deciding(ip);
        let inner = canonical(ip);
        let via = if inner == ip { String::new() } else { format!(" (wraps {inner})") };
        let text =
            rule.map_or_else(|| "no rule matches: public address".to_owned(), Rule::to_string);
        match (access, port) {
            (Access::Denied, _) => Decision { access, rule: format!("{text}{via}") },
            (_, Some(0)) => {
                Decision { access: Access::Denied, rule: "port 0 cannot be a peer".to_owned() }
            }
            (Access::OwnRelay { .. }, Some(port)) if self.is_relay_port(port) => Decision {
                access,
                rule: format!("built-in: {inner} port {port} is a relay port of this server"),
            },
            (Access::OwnRelay { others: false }, Some(port)) => Decision {
                access: Access::Denied,
                rule: format!("port {port} of this server is not a relay port"),
            },
            (Access::OwnRelay { others: false }, None) => Decision {
                access,
                rule: format!(
                    "built-in: {inner} is a relay address of this server, relay ports only"
                ),
            },
            _ => Decision { access, rule: format!("{text}{via}") },
        }
    }

    fn is_relay_port(&self, port: u16) -> bool {
        self.relay_ports.contains(&port) && !self.listener_ports.contains(&port)
    }

    /// The access of an address and the rule that decides it: of the rules for
    /// the address as written and for the one it wraps, the stricter.
    fn deciding(&self, ip: IpAddr) -> (Access, Option<&Rule>) {
        let outer = self.first_match(ip);
        let wrapped = canonical(ip);
        if wrapped == ip {
            return outer;
        }
        let inner = self.first_match(wrapped);
        if inner.0 == Access::Denied || outer.0 != Access::Denied { inner } else { outer }
    }

    fn first_match(&self, ip: IpAddr) -> (Access, Option<&Rule>) {
        let rule = self.rules.iter().find(|rule| rule.net.contains(&ip));
        let access = match rule.map(|rule| rule.action) {
            Some(Action::Deny) => Access::Denied,
            Some(Action::Allow) | None => Access::Allowed,
        };
        (access, rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, self.action) {
            (Source::Configured, Action::Deny) => write!(f, "peers.deny {}", self.net),
            (Source::Configured, _) => write!(f, "peers.allow {}", self.net),
            (Source::Own, _) => write!(f, "built-in: {} is this server", self.net.addr()),
            (Source::BuiltIn(what), _) => write!(f, "built-in: {} is {what}", self.net),
        }
    }
}

fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|s| s.parse().unwrap()).collect()
    }

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let relay = HostAddress { local: ip("10.0.0.5"), advertised: ip("8.8.4.4") };
        let own = OwnAddresses {
            relays: vec![relay],
            others: vec![ip("8.8.4.5")],
            listener_ports: vec![3478, 50_000],
        };
        Policy::new(&nets(allow), &nets(deny), &own, 49_152..=65_535)
    }

    #[test]
    fn special_purpose_addresses_are_denied_in_every_wrapping() {
        let p = policy(&[], &[]);
        for denied in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "fec0::1",
            "2001:db8::1",
            "100::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "2001::1",
            "3fff::1",
            "5f00::1",
            "2002:808:808::1",
            "2606:4700::5efe:10.0.0.1",
        ] {
            assert_eq!(p.check_ip(ip(denied)), Access::Denied, "{denied}");
        }
    }

    #[test]
    fn public_addresses_are_allowed() {
        let p = policy(&[], &[]);
        for allowed in [
            "8.8.8.8",
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(p.check_ip(ip(allowed)), Access::Allowed, "{allowed}");
        }
    }

    #[test]
    fn longest_prefix_wins_and_deny_wins_ties() {
        let p = policy(&["10.1.0.0/16", "9.9.9.0/24"], &["10.1.2.0/24", "9.9.9.0/24", "9.0.0.0/8"]);
        assert_eq!(p.check_ip(ip("10.1.1.1")), Access::Allowed);
        assert_eq!(p.check_ip(ip("10.1.2.1")), Access::Denied);
        assert_eq!(p.check_ip(ip("10.2.0.1")), Access::Denied);
        assert_eq!(p.check_ip(ip("9.9.9.9")), Access::Denied);
        assert_eq!(p.check_ip(ip("9.1.1.1")), Access::Denied);
    }

    #[test]
    fn a_configured_allow_beats_the_same_built_in_prefix_but_not_a_longer_one() {
        assert_eq!(policy(&["127.0.0.0/8"], &[]).check_ip(ip("127.0.0.1")), Access::Allowed);
        assert_eq!(policy(&["0.0.0.0/0"], &[]).check_ip(ip("127.0.0.1")), Access::Denied);
    }

    #[test]
    fn a_wrapped_address_must_be_allowed_inside_too() {
        let p = policy(&["::/0"], &["8.8.8.8/32"]);
        assert_eq!(p.check_ip(ip("64:ff9b::8.8.8.8")), Access::Denied);
        assert_eq!(p.check_ip(ip("64:ff9b::8.8.8.9")), Access::Allowed);
    }

    #[test]
    fn the_server_itself_is_denied_but_for_its_relay_ports() {
        let p = policy(&[], &[]);
        let check = |s: &str| p.check(s.parse().unwrap());
        assert_eq!(check("8.8.4.4:50001"), Access::OwnRelay { others: false });
        assert_eq!(check("10.0.0.5:50001"), Access::OwnRelay { others: false });
        assert_eq!(check("8.8.4.4:22"), Access::Denied);
        assert_eq!(
            check("8.8.4.4:50000"),
            Access::Denied,
            "a listener port inside the relay range"
        );
        assert_eq!(check("8.8.4.5:50001"), Access::Denied);
        assert_eq!(check("8.8.8.8:0"), Access::Denied);
        assert_eq!(check("8.8.8.8:1"), Access::Allowed);
    }

    #[test]
    fn a_configured_deny_closes_relay_to_relay_too() {
        let check = |deny: &[&str], peer: &str| policy(&[], deny).check(peer.parse().unwrap());
        assert_eq!(check(&["8.8.4.4/32"], "8.8.4.4:50001"), Access::Denied);
        assert_eq!(check(&["10.0.0.0/8"], "10.0.0.5:50001"), Access::OwnRelay { others: false });
    }

    #[test]
    fn a_wrapped_relay_address_is_no_relay_address() {
        let p = policy(&[], &[]);
        for wrapped in ["[::8.8.4.4]", "[2002:808:404::]", "[fe80::5efe:8.8.4.4]"] {
            assert_eq!(p.check(format!("{wrapped}:50001").parse().unwrap()), Access::Denied);
        }
    }

    #[test]
    fn loopback_relays_reach_loopback_peers_only_when_loopback_is_allowed() {
        let relay = HostAddress { local: ip("127.0.0.1"), advertised: ip("127.0.0.1") };
        let own = OwnAddresses { relays: vec![relay], ..OwnAddresses::default() };
        let check = |allow: &[&str]| {
            let p = Policy::new(&nets(allow), &[], &own, 49_152..=65_535);
            ["127.0.0.1:3480", "127.0.0.1:50000"].map(|peer| p.check(peer.parse().unwrap()))
        };
        let own = |others| Access::OwnRelay { others };
        assert_eq!(check(&[]), [Access::Denied, own(false)]);
        assert_eq!(check(&["127.0.0.0/8"]), [own(true), own(true)]);
    }

    #[test]
    fn explain_names_the_rule() {
        let p = policy(&["10.1.0.0/16"], &[]);
        let rule = |s: &str, port| p.explain(ip(s), port).rule;
        assert_eq!(rule("10.1.0.1", None), "peers.allow 10.1.0.0/16");
        assert_eq!(rule("192.168.0.1", None), "built-in: 192.168.0.0/16 is private use (RFC 1918)");
        assert_eq!(rule("8.8.8.8", None), "no rule matches: public address");
        assert_eq!(rule("8.8.4.4", Some(22)), "port 22 of this server is not a relay port");
        assert_eq!(
            rule("64:ff9b::127.0.0.1", None),
            "built-in: 127.0.0.0/8 is loopback (RFC 1122) (wraps 127.0.0.1)"
        );
    }
}
