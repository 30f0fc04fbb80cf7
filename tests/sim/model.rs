//! The shadow model: what each allocation, permission and channel should be, from
//! the requests that went in and the answers that came out, and nothing else.
//!
//! It is exact in time: whatever expires does so at its instant, whether the
//! server has tidied up yet or not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use sturn::net::{Family, FiveTuple, Now};
use sturn::turn::{Client, Link, RelayId, Traffic};

use crate::peers::PeerConnection;
use crate::roaming::{Mobile, TRANSIT};
use crate::setup::{Setup, Worth};
use crate::wire::{self, Stun};
use crate::world::shard_of;

/// An allocation that a client was granted.
#[derive(Clone, Debug)]
pub struct Allocation {
    pub client: Client,
    pub shard: u16,
    pub name: String,
    pub quota: String,
    /// The Allocate request that made it, while its client is where that came from.
    pub id: Option<[u8; 12]>,
    /// What it relays: the protocol number of UDP or TCP.
    pub transport: u8,
    /// What it has when it can follow its client.
    pub mobile: Option<Mobile>,
    pub relays: Vec<Relay>,
    pub permissions: BTreeMap<IpAddr, Instant>,
    pub channels: BTreeMap<u16, (SocketAddr, Instant)>,
    pub traffic: Traffic,
}

#[derive(Clone, Copy, Debug)]
pub struct Relay {
    pub id: RelayId,
    pub local: SocketAddr,
    pub advertised: SocketAddr,
    pub expires: Instant,
}

/// What a request may be answered with, if it is answered.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    pub success: bool,
    pub errors: BTreeSet<u16>,
}

/// Where data ought to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    ToPeer { relay: RelayId, peer: SocketAddr, dont_fragment: bool },
    ToClient { client: Client, via: Via },
    Nowhere,
}

/// How data reaches a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    Channel(u16),
    Indication(SocketAddr),
}

pub struct Model {
    pub setup: Rc<Setup>,
    pub allocations: BTreeMap<FiveTuple, Allocation>,
    /// Deleted by their clients; the server has yet to say so.
    pub deleted: BTreeMap<FiveTuple, Allocation>,
    /// Allocate requests without an answer so far, and since when.
    pub openings: BTreeMap<(FiveTuple, [u8; 12]), Instant>,
    /// For whom a nonce was made, and when (seconds since the epoch).
    pub nonces: BTreeMap<Vec<u8>, (SocketAddr, u64)>,
    pub traffic: Vec<Traffic>,
    /// Tickets that have moved an allocation: none of them does it again.
    pub used_tickets: BTreeSet<Vec<u8>>,
    /// Connections that ended while an allocation could outlive them.
    pub closed: BTreeSet<Link>,
    /// The connections with peers, by CONNECTION-ID.
    pub connections: BTreeMap<u32, PeerConnection>,
    /// Shards that take no new allocations.
    pub draining: Vec<bool>,
}

impl Model {
    pub fn new(setup: Rc<Setup>) -> Self {
        Self {
            traffic: vec![Traffic::default(); usize::from(setup.shards)],
            draining: vec![false; usize::from(setup.shards)],
            used_tickets: BTreeSet::new(),
            closed: BTreeSet::new(),
            connections: BTreeMap::new(),
            setup,
            allocations: BTreeMap::new(),
            deleted: BTreeMap::new(),
            openings: BTreeMap::new(),
            nonces: BTreeMap::new(),
        }
    }

    /// A success response to anything but Allocate has gone out.
    pub fn apply(&mut self, now: Now, client: Client, request: &Stun) {
        let lifetimes = &self.setup.settings.lifetimes;
        let (permission, channel) = (lifetimes.permission, lifetimes.channel);
        let allocation =
            self.allocations.get_mut(&client.five_tuple).expect("the forecast has seen it");
        match request.method {
            wire::CREATE_PERMISSION => {
                for peer in request.addresses(wire::PEER) {
                    allocation.permit(peer.ip(), now.mono + permission);
                }
            }
            wire::CHANNEL_BIND => {
                let (number, peer) = channel_request(request);
                let expires = now.mono + channel;
                allocation.channels.retain(|n, (p, _)| *n == number || *p != peer);
                allocation.channels.insert(number, (peer, expires));
                allocation.permit(peer.ip(), expires);
            }
            _ => self.apply_refresh(now, client.five_tuple, request),
        }
    }

    /// A Refresh was granted to the client of the allocation at a five-tuple.
    pub fn apply_refresh(&mut self, now: Now, five_tuple: FiveTuple, request: &Stun) {
        let lifetime = self.lifetime(now, request);
        let allocation = self.allocations.get_mut(&five_tuple).expect("the caller has found it");
        let asked = request.get(wire::FAMILY).map(|v| family(v[0]));
        allocation.refresh(now.mono, lifetime, asked);
        if allocation.relays.iter().all(|relay| relay.expires <= now.mono) {
            let gone = self.allocations.remove(&five_tuple).expect("found above");
            self.deleted.insert(five_tuple, gone);
        }
    }

    /// What LIFETIME of a request comes to.
    pub fn lifetime(&self, now: Now, request: &Stun) -> Duration {
        let lifetimes = &self.setup.settings.lifetimes;
        // No allocation outlives the token of its client.
        let most = match self.credential(request, false).map(|c| c.worth) {
            Some(Worth::Token(end)) => end.saturating_sub(now.unix_secs()).max(1),
            _ => u64::MAX,
        };
        match request.u32(wire::LIFETIME).map(u64::from) {
            Some(0) if request.method == wire::REFRESH => Duration::ZERO,
            asked => asked
                .map_or(lifetimes.default, Duration::from_secs)
                .clamp(lifetimes.default, lifetimes.max)
                .min(Duration::from_secs(most)),
        }
    }

    pub fn alive(&self, now: Now, five_tuple: &FiveTuple) -> Option<&Allocation> {
        self.allocations.get(five_tuple).filter(|a| a.is_alive(now.mono))
    }

    /// The allocation that requests from a five-tuple are about: the one that is
    /// there, or awaited there by the same shard.
    pub fn at(&self, five_tuple: &FiveTuple) -> Option<&Allocation> {
        let there = self.allocations.get(five_tuple).filter(|a| a.shard != TRANSIT);
        there.or_else(|| {
            let shard = shard_of(five_tuple, self.setup.shards);
            self.allocations.values().find(|a| a.shard == shard && a.is_awaited_at(five_tuple))
        })
    }

    /// The live allocations of a user, over all shards.
    pub fn count_of(&self, now: Now, quota: &str) -> usize {
        self.allocations.values().filter(|a| a.quota == quota && a.is_alive(now.mono)).count()
    }

    /// Where ChannelData or a Send indication of a client ought to go. `neighbour`
    /// tells which socket of this shard has an address.
    pub fn outbound(
        &mut self,
        now: Now,
        five_tuple: FiveTuple,
        target: Target,
        len: usize,
        neighbour: impl Fn(SocketAddr) -> Option<RelayId>,
    ) -> Delivery {
        let Some(allocation) = self.allocations.get(&five_tuple) else { return Delivery::Nowhere };
        if allocation.shard == TRANSIT || allocation.transport == wire::TCP {
            return Delivery::Nowhere;
        }
        let (peer, dont_fragment) = match target {
            Target::Channel(number) => match allocation.channel(number, now.mono) {
                Some(peer) => (peer, false),
                None => return Delivery::Nowhere,
            },
            Target::Peer(peer, _) if !allocation.permitted(now.mono).any(|ip| ip == peer.ip()) => {
                return Delivery::Nowhere;
            }
            Target::Peer(peer, dont_fragment) => (peer, dont_fragment),
        };
        let Some(relay) = allocation.relay(Family::of(peer.ip()), now.mono).copied() else {
            return Delivery::Nowhere;
        };
        if !self.may_send(peer) {
            return Delivery::Nowhere;
        }
        let shard = allocation.shard;
        self.count(five_tuple, |traffic| {
            traffic.packets_to_peers += 1;
            traffic.bytes_to_peers += len as u64;
        });
        if !self.setup.is_relay(peer.ip()) {
            return Delivery::ToPeer { relay: relay.id, peer, dont_fragment };
        }
        let local = self.setup.local_of(peer).unwrap_or(peer);
        match neighbour(local) {
            Some(other) => self.inbound(now, shard, other, relay.local, len),
            None => Delivery::ToPeer { relay: relay.id, peer: local, dont_fragment },
        }
    }

    /// Where a datagram that arrived at a relay socket ought to go.
    pub fn inbound(
        &mut self,
        now: Now,
        shard: u16,
        relay: RelayId,
        from: SocketAddr,
        len: usize,
    ) -> Delivery {
        let known = self.known_outside(from);
        let found = self.holder(now, shard, relay);
        let found = found.filter(|a| !a.is_adrift());
        let Some(allocation) = found else { return Delivery::Nowhere };
        let channel = allocation.channel_to(known, now.mono);
        let permitted = allocation.permitted(now.mono).any(|ip| ip == known.ip());
        let via = match channel {
            Some(number) => Via::Channel(number),
            None if permitted && self.may_send(known) => Via::Indication(known),
            None => return Delivery::Nowhere,
        };
        let client = allocation.client;
        self.count(client.five_tuple, |traffic| {
            traffic.packets_to_client += 1;
            traffic.bytes_to_client += len as u64;
        });
        Delivery::ToClient { client, via }
    }

    /// The allocation whose relayed transport address a socket stands for.
    pub fn holder(&self, now: Now, shard: u16, relay: RelayId) -> Option<&Allocation> {
        self.allocations.values().find(|a| {
            let here = |r: &Relay| r.id == relay && r.expires > now.mono;
            a.shard == shard && a.relays.iter().any(here)
        })
    }

    /// The client behind a socket, if it has leave to hear from a peer.
    pub fn hears(&self, now: Now, shard: u16, relay: RelayId, peer: SocketAddr) -> Option<Client> {
        let holder = self.holder(now, shard, relay)?;
        let hears = !holder.is_adrift() && holder.permitted(now.mono).any(|ip| ip == peer.ip());
        hears.then_some(holder.client)
    }

    /// Relay sockets are known by their advertised addresses.
    pub fn known_outside(&self, from: SocketAddr) -> SocketAddr {
        let on_relay = self.setup.is_relay(from.ip()) && self.setup.ports().contains(&from.port());
        self.setup.advertised_of(from).filter(|_| on_relay).unwrap_or(from)
    }

    fn count(&mut self, five_tuple: FiveTuple, add: impl Fn(&mut Traffic)) {
        let allocation = self.allocations.get_mut(&five_tuple).expect("the caller has found it");
        add(&mut allocation.traffic);
        add(&mut self.traffic[usize::from(allocation.shard)]);
    }
}

/// What a client's data names as its destination.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Channel(u16),
    Peer(SocketAddr, bool),
}

impl Allocation {
    pub fn is_alive(&self, now: Instant) -> bool {
        self.relays.iter().any(|relay| relay.expires > now)
    }

    pub fn relay(&self, family: Family, now: Instant) -> Option<&Relay> {
        self.relays.iter().find(|r| Family::of(r.local.ip()) == family && r.expires > now)
    }

    /// Permissions end with the relayed transport address of their family.
    pub fn permitted(&self, now: Instant) -> impl Iterator<Item = IpAddr> {
        let relayed = move |ip: &IpAddr| self.relay(Family::of(*ip), now).is_some();
        let alive = self.permissions.iter().filter(move |(_, expires)| **expires > now);
        alive.map(|(ip, _)| *ip).filter(relayed)
    }

    fn permit(&mut self, ip: IpAddr, expires: Instant) {
        let entry = self.permissions.entry(ip).or_insert(expires);
        *entry = expires.max(*entry);
    }

    pub fn channel(&self, number: u16, now: Instant) -> Option<SocketAddr> {
        let alive = self.channels.get(&number).filter(|(_, expires)| *expires > now);
        alive.map(|(peer, _)| *peer).filter(|p| self.relay(Family::of(p.ip()), now).is_some())
    }

    pub fn channel_to(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        let mut alive = self.channels.iter().filter(|(_, (_, expires))| *expires > now);
        alive.find(|(_, (bound, _))| *bound == peer).map(|(number, _)| *number)
    }

    pub fn refresh(&mut self, now: Instant, lifetime: Duration, family: Option<Family>) {
        let of = |ip: IpAddr| family.is_none_or(|f| f == Family::of(ip));
        for relay in self.relays.iter_mut().filter(|r| r.expires > now && of(r.local.ip())) {
            relay.expires = now + lifetime;
        }
        if lifetime.is_zero() {
            self.permissions.retain(|ip, _| !of(*ip));
            self.channels.retain(|_, (peer, _)| !of(peer.ip()));
        }
    }

    /// Forgets what has expired, after the server had its chance to.
    pub fn tidy(&mut self, before: Instant) {
        self.permissions.retain(|_, expires| *expires > before);
        self.channels.retain(|_, (_, expires)| *expires > before);
    }
}

pub fn family(value: u8) -> Family {
    if value == 2 { Family::V6 } else { Family::V4 }
}

pub fn channel_request(request: &Stun) -> (u16, SocketAddr) {
    let number = request.get(wire::CHANNEL_NUMBER).expect("the client always names one");
    let peer = request.addresses(wire::PEER)[0];
    (u16::from_be_bytes([number[0], number[1]]), peer)
}

/// What a client gets out of a message.
pub fn received(bytes: &[u8]) -> Option<(Via, Vec<u8>)> {
    if let Some((number, data)) = wire::channel_data(bytes) {
        return Some((Via::Channel(number), data.to_vec()));
    }
    let message = Stun::parse(bytes)?;
    let is_data = message.class == wire::Class::Indication && message.method == wire::DATA_METHOD;
    let peer = *message.addresses(wire::PEER).first()?;
    is_data.then(|| Some((Via::Indication(peer), message.get(wire::DATA)?.to_vec())))?
}
