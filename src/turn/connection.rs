//! The connections with peers of TCP allocations (RFC 6062): what they are called,
//! and the table of a shard that finds them.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::hash_map::Entry;

use super::random::Random;
use super::reply::Envelope;
use super::shard::Shard;
use super::vocabulary::AllocationId;
use crate::net::{Family, HashSeed, Map, PeerAddr, map};

/// The shell's handle for a TCP connection with a peer (RFC 6062: a peer data
/// connection). It is never used again for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerLink(pub u64);

/// What a CONNECTION-ID (RFC 6062 section 6.2.1) names: a connection with a peer,
/// from the moment it is asked for or accepted. It cannot be guessed, and its top
/// bits name the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Why a connection with a peer is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEndReason {
    /// The peer did not take it.
    Failed,
    /// The peer did not answer in time.
    TimedOut,
    /// No ConnectionBind came in time.
    NotBound,
    /// One of its sides closed it.
    Closed,
    /// The same peer has connected anew.
    Replaced,
    /// The relayed transport address is gone.
    RelayClosed,
    /// The client's control connection ended.
    ControlClosed,
}

impl fmt::Display for PeerEndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "not connected",
            Self::TimedOut => "connecting timed out",
            Self::NotBound => "not bound in time",
            Self::Closed => "closed",
            Self::Replaced => "replaced by a newer one",
            Self::RelayClosed => "relay closed",
            Self::ControlClosed => "control connection closed",
        })
    }
}

/// A connection with a peer, on its way or there.
pub(super) struct Connection {
    pub(super) allocation: AllocationId,
    /// Whose it is, as quotas count.
    pub(super) user: Arc<str>,
    /// As the client knows it.
    pub(super) peer: PeerAddr,
    pub(super) created: Instant,
    pub(super) stage: Stage,
}

/// Where a connection is in its life.
pub(super) enum Stage {
    /// A Connect request waits for the peer, no longer than this.
    Connecting(Box<Envelope>, Instant),
    /// It waits for its ConnectionBind, no longer than this.
    Pending(PeerLink, Instant),
    /// Bytes pass.
    Bound(PeerLink),
}

impl Connection {
    /// The shell's handle, once there is one.
    pub(super) fn link(&self) -> Option<PeerLink> {
        match self.stage {
            Stage::Connecting(..) => None,
            Stage::Pending(link, _) | Stage::Bound(link) => Some(link),
        }
    }

    /// When it is over unless something comes of it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Connecting(_, deadline) | Stage::Pending(_, deadline) => Some(deadline),
            Stage::Bound(_) => None,
        }
    }
}

/// The connections of a shard, and the only place where their ids are made.
pub(super) struct Connections {
    by_id: Map<ConnectionId, Connection>,
    by_link: Map<PeerLink, ConnectionId>,
    /// An allocation has one connection with a peer, as its address has with the
    /// peer's.
    by_peer: Map<(AllocationId, PeerAddr), ConnectionId>,
    /// As many as one allocation may have; no entry for none.
    by_allocation: Map<AllocationId, Vec<ConnectionId>>,
    /// How many each user has; no entry for none.
    by_user: Map<Arc<str>, usize>,
}

/// How often an id is drawn before the shard counts as full. Ids have 16 random
/// bits or more, so that one miss is rare and this many are not seen.
const DRAWS: usize = 32;

impl Connections {
    pub(super) fn new(seed: HashSeed) -> Self {
        Self {
            by_id: map(seed),
            by_link: map(seed),
            by_peer: map(seed),
            by_allocation: map(seed),
            by_user: map(seed),
        }
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.by_id.get(&id)
    }

    pub(super) fn find(&self, link: PeerLink) -> Option<ConnectionId> {
        self.by_link.get(&link).copied()
    }

    pub(super) fn find_peer(
        &self,
        allocation: AllocationId,
        peer: PeerAddr,
    ) -> Option<ConnectionId> {
        self.by_peer.get(&(allocation, peer)).copied()
    }

    /// How many an allocation has.
    pub(super) fn count_of(&self, allocation: AllocationId) -> usize {
        self.by_allocation.get(&allocation).map_or(0, Vec::len)
    }

    /// How many a user has.
    pub(super) fn count_of_user(&self, user: &str) -> usize {
        self.by_user.get(user).copied().unwrap_or(0)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Those of an allocation with peers of a family.
    pub(super) fn of(&self, allocation: AllocationId, family: Family) -> Vec<ConnectionId> {
        let all = self.by_allocation.get(&allocation).into_iter().flatten().copied();
        all.filter(|id| self.get(*id).is_some_and(|c| c.peer.family() == family)).collect()
    }

    /// Enters a connection; there is none between its allocation and its peer.
    /// `None`: no id is left.
    pub(super) fn add(
        &mut self,
        shard: Shard,
        random: &mut Random,
        connection: Connection,
    ) -> Option<ConnectionId> {
        let mut draw = || shard.connection_id(u32::from_be_bytes(random.bytes()));
        let id = (0..DRAWS).map(|_| draw()).find(|id| !self.by_id.contains_key(id))?;
        let (allocation, peer) = (connection.allocation, connection.peer);
        self.by_link.extend(connection.link().map(|link| (link, id)));
        let previous = self.by_peer.insert((allocation, peer), id);
        debug_assert!(previous.is_none(), "one connection per peer");
        self.by_allocation.entry(allocation).or_default().push(id);
        *self.by_user.entry(connection.user.clone()).or_default() += 1;
        self.by_id.insert(id, connection);
        Some(id)
    }

    /// The peer took the connection; it waits for its ConnectionBind until then.
    /// Gives the Connect request that waited.
    pub(super) fn connected(
        &mut self,
        id: ConnectionId,
        link: PeerLink,
        deadline: Instant,
    ) -> Option<Envelope> {
        let connection = self.by_id.get_mut(&id)?;
        let Stage::Connecting(envelope, _) = &connection.stage else { return None };
        let envelope = **envelope;
        connection.stage = Stage::Pending(link, deadline);
        self.by_link.insert(link, id);
        Some(envelope)
    }

    /// Bytes pass from now on: the peer's side, if it was waiting for that.
    pub(super) fn bind(&mut self, id: ConnectionId) -> Option<PeerLink> {
        let connection = self.by_id.get_mut(&id)?;
        let Stage::Pending(link, _) = connection.stage else { return None };
        connection.stage = Stage::Bound(link);
        Some(link)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.by_id.remove(&id)?;
        if let Some(link) = connection.link() {
            self.by_link.remove(&link);
        }
        self.by_peer.remove(&(connection.allocation, connection.peer));
        if let Entry::Occupied(mut entry) = self.by_allocation.entry(connection.allocation) {
            entry.get_mut().retain(|other| *other != id);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
        if let Entry::Occupied(mut entry) = self.by_user.entry(connection.user.clone()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        Some(connection)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.by_id.iter().map(|(id, connection)| (*id, connection))
    }

    /// How many there are: by id, by link, by peer, by allocation and by user, for the
    /// invariants.
    pub(super) fn lens(&self) -> [usize; 5] {
        let of_allocations = self.by_allocation.values().map(Vec::len).sum();
        let of_users = self.by_user.values().sum();
        [self.by_id.len(), self.by_link.len(), self.by_peer.len(), of_allocations, of_users]
    }
}
