//! The way between the host and the server: NATs in a row, and what goes wrong.

use std::net::SocketAddr;
use std::time::Instant;

use super::nat::Nat;

/// A payload that fits no Ethernet frame.
const FRAGMENTED: usize = 1472;

/// Where a packet of the host ends up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// On the Internet, from this address.
    Internet(SocketAddr),
    /// Back at the host.
    Host {
        from: SocketAddr,
        to: SocketAddr,
    },
    Nowhere,
}

/// NATs from the host outwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain(pub(super) Vec<Nat>);

impl Chain {
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        mut from: SocketAddr,
        to: SocketAddr,
        length: usize,
    ) -> Arrival {
        for level in 0..self.0.len() {
            let nat = &mut self.0[level];
            if nat.drops_fragments_out && length > FRAGMENTED {
                return Arrival::Nowhere;
            }
            let internal = from;
            from = nat.outbound(now, from, to);
            if to.ip() == nat.external && !nat.transparent {
                let Some(external) = nat.hairpin else { return Arrival::Nowhere };
                // The filter sees the external source, whatever the receiver sees.
                let Some(inside) = nat.inbound(now, from, to) else { return Arrival::Nowhere };
                let seen = if external { from } else { internal };
                return match self.inbound_below(level, now, seen, inside, length) {
                    Some(to) => Arrival::Host { from: seen, to },
                    None => Arrival::Nowhere,
                };
            }
        }
        Arrival::Internet(from)
    }

    pub(super) fn inbound(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        length: usize,
    ) -> Option<SocketAddr> {
        self.inbound_below(self.0.len(), now, from, to, length)
    }

    fn inbound_below(
        &mut self,
        level: usize,
        now: Instant,
        from: SocketAddr,
        mut to: SocketAddr,
        length: usize,
    ) -> Option<SocketAddr> {
        for nat in self.0[..level].iter_mut().rev() {
            if nat.drops_fragments_in && length > FRAGMENTED {
                return None;
            }
            to = nat.inbound(now, from, to)?;
        }
        Some(to)
    }
}

/// Numbers without a pattern, the same in each run (xorshift64*).
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
