//! The channels of an allocation (RFC 8656 section 12), found by number and by peer.

use std::cell::Cell;
use std::time::Instant;

use super::policy::Access;
use crate::net::{HashSeed, Map, PeerAddr, map};

/// A channel number bound to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) peer: PeerAddr,
    pub(super) expires: Instant,
    pub(super) access: Access,
}

/// At most one channel of each number and one of each peer, expired ones included.
pub(super) struct Channels {
    by_number: Map<u16, Channel>,
    by_peer: Map<PeerAddr, u16>,
    /// The one that was asked for last. Of the channels of a call one carries nearly
    /// everything, and it lies here, beside the allocation.
    recent: Cell<Option<Channel>>,
}

impl Channels {
    pub(super) fn new(seed: HashSeed) -> Self {
        Self { by_number: map(seed), by_peer: map(seed), recent: Cell::new(None) }
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// The channel of this number.
    #[inline]
    pub(super) fn numbered(&self, number: u16) -> Option<Channel> {
        match self.recent.get() {
            Some(recent) if recent.number == number => Some(recent),
            _ => self.look_up(number),
        }
    }

    /// The channel that is bound to this peer.
    #[inline]
    pub(super) fn of_peer(&self, peer: PeerAddr) -> Option<Channel> {
        match self.recent.get() {
            Some(recent) if recent.peer == peer => Some(recent),
            _ => self.look_up(*self.by_peer.get(&peer)?),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.by_number.values()
    }

    /// Binds a channel, or prolongs it. Another channel of its number or its peer must
    /// have been removed.
    pub(super) fn bind(&mut self, channel: Channel) {
        self.by_number.insert(channel.number, channel);
        self.by_peer.insert(channel.peer, channel.number);
        self.recent.set(Some(channel));
    }

    pub(super) fn remove(&mut self, number: u16) -> Option<Channel> {
        let channel = self.by_number.remove(&number)?;
        if self.by_peer.get(&channel.peer) == Some(&number) {
            self.by_peer.remove(&channel.peer);
        }
        if self.recent.get().is_some_and(|recent| recent.number == number) {
            self.recent.set(None);
        }
        Some(channel)
    }

    /// Panics when number and peer do not lead to the same channels.
    pub(super) fn check_invariants(&self) {
        for (number, channel) in &self.by_number {
            assert_eq!(channel.number, *number, "a channel lies at its number");
            assert_eq!(self.by_peer.get(&channel.peer), Some(number), "channel and peer agree");
        }
        assert_eq!(self.by_number.len(), self.by_peer.len(), "one channel per peer");
        if let Some(recent) = self.recent.get() {
            assert_eq!(self.by_number.get(&recent.number), Some(&recent), "not out of date");
        }
    }

    #[inline]
    fn look_up(&self, number: u16) -> Option<Channel> {
        let found = self.by_number.get(&number).copied();
        if found.is_some() {
            self.recent.set(found);
        }
        found
    }
}
