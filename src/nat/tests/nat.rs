//! A NAT, by the behaviours of RFC 4787.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::{Filtering, Mapping};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortPolicy {
    Preserve,
    KeepParity,
    Change,
}

#[derive(Clone, Debug)]
pub(super) struct Nat {
    pub(super) external: IpAddr,
    pub(super) mapping: Mapping,
    pub(super) filtering: Filtering,
    pub(super) ports: PortPolicy,
    /// Whether the inside reaches the external address, and is seen as external.
    pub(super) hairpin: Option<bool>,
    /// A firewall that does not translate.
    pub(super) transparent: bool,
    pub(super) drops_fragments_out: bool,
    pub(super) drops_fragments_in: bool,
    pub(super) blocks_udp: bool,
    pub(super) lifetime: Duration,
    pub(super) bindings: Vec<Binding>,
    pub(super) next_port: u16,
}

#[derive(Clone, Debug)]
pub(super) struct Binding {
    internal: SocketAddr,
    destination: Option<(IpAddr, u16)>,
    external: SocketAddr,
    used: Instant,
    sent_to: BTreeSet<SocketAddr>,
}

impl Nat {
    pub(super) fn new(external: &str, mapping: Mapping, filtering: Filtering) -> Self {
        Self {
            external: external.parse().unwrap(),
            mapping,
            filtering,
            ports: PortPolicy::Change,
            hairpin: None,
            transparent: false,
            drops_fragments_out: false,
            drops_fragments_in: false,
            blocks_udp: false,
            lifetime: Duration::from_secs(120),
            bindings: Vec::new(),
            next_port: 20_001,
        }
    }

    /// The source address outside.
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> SocketAddr {
        let destination = match self.mapping {
            Mapping::EndpointIndependent => None,
            Mapping::AddressDependent => Some((to.ip(), 0)),
            _ => Some((to.ip(), to.port())),
        };
        let lifetime = self.lifetime;
        self.bindings.retain(|b| now < b.used + lifetime);
        let known =
            self.bindings.iter().position(|b| b.internal == from && b.destination == destination);
        let index = known.unwrap_or_else(|| {
            let external = self.new_external(from);
            let sent_to = BTreeSet::new();
            self.bindings.push(Binding {
                internal: from,
                destination,
                external,
                used: now,
                sent_to,
            });
            self.bindings.len() - 1
        });
        let binding = &mut self.bindings[index];
        binding.used = now;
        binding.sent_to.insert(to);
        binding.external
    }

    /// The destination inside, if it lets the packet in.
    pub(super) fn inbound(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        let (filtering, lifetime) = (self.filtering, self.lifetime);
        let binding =
            self.bindings.iter_mut().find(|b| b.external == to && now < b.used + lifetime)?;
        let lets_in = match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => binding.sent_to.iter().any(|a| a.ip() == from.ip()),
            Filtering::AddressAndPortDependent => binding.sent_to.contains(&from),
        };
        if lets_in {
            binding.used = now;
        }
        lets_in.then_some(binding.internal)
    }

    fn new_external(&mut self, internal: SocketAddr) -> SocketAddr {
        if self.transparent {
            return internal;
        }
        let mut port = match self.ports {
            PortPolicy::Preserve => internal.port(),
            PortPolicy::KeepParity => self.next_port / 2 * 2 + internal.port() % 2,
            PortPolicy::Change => self.next_port,
        };
        // Up and down, odd and even.
        self.next_port = 20_000 + self.next_port.wrapping_mul(31).wrapping_add(7919) % 9973;
        while self.bindings.iter().any(|b| b.external.port() == port) {
            port = port.wrapping_add(2).max(1024);
        }
        SocketAddr::new(self.external, port)
    }
}
