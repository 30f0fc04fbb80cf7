//! An allocation with its permissions and channels (RFC 8656 sections 3.2, 9, 12).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::channels::{Channel, Channels};
use super::mobility::Mobility;
use super::policy::Access;
use super::reservation::Token;
use super::vocabulary::{Client, PortRequest, RelayTransport, Traffic};
use crate::auth::{Identity, Key};
use crate::net::{Family, HashSeed, Map, PeerAddr, RelayedAddr, map};
use crate::stun::{ErrorCode, TransactionId};

use super::reply::Envelope;

/// What exists of an allocation from its first request to its end.
pub(super) struct Allocation {
    pub(super) client: Client,
    pub(super) identity: Identity,
    /// The key that proved the last request, so that the next needs no lookup.
    pub(super) key: Key,
    pub(super) stage: Stage,
    /// What its relayed transport addresses speak.
    pub(super) transport: RelayTransport,
    /// By family: IPv4, IPv6.
    pub(super) relays: [Option<Relay>; 2],
    pub(super) permissions: Map<IpAddr, Permission>,
    pub(super) channels: Channels,
    /// What it has when it may follow its client (RFC 8016).
    pub(super) mobility: Option<Box<Mobility>>,
    pub(super) traffic: Traffic,
    pub(super) created: Instant,
    /// Whether the user's home shard counts it.
    pub(super) counted: bool,
    /// The earliest timer armed for it, so that a refresh need not arm another.
    pub(super) wakes: Option<Instant>,
}

/// Where an allocation is in its life.
pub(super) enum Stage {
    /// Its Allocate request waits for answers from outside.
    Opening(Box<Opening>),
    /// It relays. What it takes to answer a retransmitted Allocate alike is kept.
    Live(Granted),
}

/// An Allocate request under way.
pub(super) struct Opening {
    pub(super) envelope: Envelope,
    pub(super) lifetime: Duration,
    pub(super) port: PortRequest,
    pub(super) claim: Option<Token>,
    pub(super) families: [bool; 2],
    /// The client wants to take it along (RFC 8016).
    pub(super) mobile: bool,
    /// Relay sockets that were asked for and not answered.
    pub(super) waiting: [bool; 2],
    pub(super) reserved: Option<RelayedAddr>,
    pub(super) address_error: Option<(Family, ErrorCode)>,
    pub(super) deadline: Instant,
}

/// What a successful Allocate was answered with (RFC 8656 section 7.3).
#[derive(Clone, Copy)]
pub(super) struct Granted {
    /// `None` when its client has another five-tuple now.
    pub(super) transaction: Option<TransactionId>,
    pub(super) lifetime: Duration,
    pub(super) token: Option<Token>,
    pub(super) address_error: Option<(Family, ErrorCode)>,
}

/// A relayed transport address.
#[derive(Clone, Copy)]
pub(super) struct Relay {
    pub(super) local: RelayedAddr,
    pub(super) advertised: SocketAddr,
    pub(super) expires: Instant,
}

/// Leave for a peer's address to send to the client (RFC 8656 section 9).
#[derive(Clone, Copy)]
pub(super) struct Permission {
    pub(super) expires: Instant,
    pub(super) access: Access,
}

/// Index of a family in arrays of two.
pub(super) const fn slot(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

impl Allocation {
    pub(super) fn new(
        client: Client,
        identity: Identity,
        key: Key,
        transport: RelayTransport,
        opening: Opening,
        created: Instant,
        seed: HashSeed,
    ) -> Self {
        Self {
            client,
            identity,
            key,
            stage: Stage::Opening(Box::new(opening)),
            transport,
            relays: [None; 2],
            permissions: map(seed),
            channels: Channels::new(seed),
            mobility: None,
            traffic: Traffic::default(),
            created,
            counted: false,
            wakes: None,
        }
    }

    /// Whether who has proven itself, at the allocation's five-tuple, is its owner.
    /// A token does not say who its holder is, and neither does the name of the key
    /// it is sealed with, which changes with that key: any good token will do.
    pub(super) fn is_owned_by(&self, identity: &Identity, key: &Key) -> bool {
        let by_token = |key: &Key| matches!(key, Key::Token(_));
        self.identity.name == identity.name && by_token(&self.key) == by_token(key)
            || by_token(&self.key) && by_token(key)
    }

    /// Whether who has proven itself, at any five-tuple, is its owner. There a token
    /// has to be the allocation's own, since whoever has another of the same key of
    /// an authorization server goes by the same name.
    pub(super) fn is_owned_anywhere_by(&self, identity: &Identity, key: &Key) -> bool {
        match (&self.key, key) {
            (Key::Token(_), _) | (_, Key::Token(_)) => self.key == *key,
            _ => self.identity.name == identity.name,
        }
    }

    /// Its owner has proven itself again. The key may be newer than the one the
    /// allocation came with, and so may be the token; quotas still count the first.
    pub(super) fn renew(&mut self, identity: &Identity, key: Key) {
        if self.identity.name != identity.name {
            self.identity.name = identity.name.clone();
        }
        self.identity.expires = identity.expires;
        self.key = key;
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live(_))
    }

    /// Whether it has expired and only waits to be cleaned up: it counts as none.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.is_live() && self.relays.iter().flatten().all(|relay| relay.expires <= now)
    }

    /// The relay of a family, unless it has expired.
    #[inline]
    pub(super) fn relay(&self, family: Family, now: Instant) -> Option<&Relay> {
        self.relays[slot(family)].as_ref().filter(|r| r.expires > now)
    }

    /// The addresses that the client was told.
    pub(super) fn advertised(&self) -> [Option<SocketAddr>; 2] {
        self.relays.map(|r| r.map(|r| r.advertised))
    }

    /// Gives leave, or prolongs it. Never shortens: a permission that came with a
    /// channel lasts as long as the channel.
    pub(super) fn permit(&mut self, ip: IpAddr, expires: Instant, access: Access) {
        let permission = self.permissions.entry(ip).or_insert(Permission { expires, access });
        permission.expires = permission.expires.max(expires);
        permission.access = access;
    }

    /// The access of a peer with a permission that is alive.
    #[inline]
    pub(super) fn permitted(&self, ip: IpAddr, now: Instant) -> Option<Access> {
        self.permissions.get(&ip).filter(|p| p.expires > now).map(|p| p.access)
    }

    /// The channel with this number, unless it has expired.
    #[inline]
    pub(super) fn channel(&self, number: u16, now: Instant) -> Option<Channel> {
        self.channels.numbered(number).filter(|c| c.expires > now)
    }

    /// The channel that is bound to this peer, unless it has expired.
    #[inline]
    pub(super) fn channel_to(&self, peer: PeerAddr, now: Instant) -> Option<u16> {
        self.channels.of_peer(peer).filter(|c| c.expires > now).map(|c| c.number)
    }

    /// When something of it expires next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let opening = match &self.stage {
            Stage::Opening(opening) => Some(opening.deadline),
            Stage::Live(_) => None,
        };
        let relays = self.relays.iter().flatten().map(|r| r.expires);
        let permissions = self.permissions.values().map(|p| p.expires);
        let channels = self.channels.iter().map(|c| c.expires);
        relays.chain(permissions).chain(channels).chain(opening).min()
    }
}
