//! Permissions and channels as far as a client has to know them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The lowest channel number (RFC 8656 section 12).
const FIRST_CHANNEL: u16 = 0x4000;
/// The highest channel number.
const LAST_CHANNEL: u16 = 0x4FFF;

/// Peers of the allocation.
#[derive(Debug, Default)]
pub(super) struct Peers {
    permitted: BTreeMap<IpAddr, SocketAddr>,
    channels: BTreeMap<u16, SocketAddr>,
    /// Channels that the server has confirmed; only these carry our data.
    confirmed: BTreeSet<u16>,
    by_peer: BTreeMap<SocketAddr, u16>,
}

impl Peers {
    /// The channel for a peer: its own, or else the lowest free one. When all
    /// 4096 are taken, the last: the server will refuse it.
    pub(super) fn channel_for(&self, peer: SocketAddr) -> u16 {
        let own = self.channels.iter().find(|(_, bound)| **bound == peer).map(|(c, _)| *c);
        own.or_else(|| {
            (FIRST_CHANNEL..=LAST_CHANNEL).find(|channel| !self.channels.contains_key(channel))
        })
        .unwrap_or(LAST_CHANNEL)
    }

    /// Remembers that a channel was asked for, so that data on it is understood.
    pub(super) fn expect(&mut self, channel: u16, peer: SocketAddr) {
        if !self.confirmed.contains(&channel) {
            self.channels.insert(channel, peer);
        }
    }

    /// Forgets a channel that was refused, unless an earlier answer confirmed it.
    pub(super) fn unexpect(&mut self, channel: u16) {
        if !self.confirmed.contains(&channel) {
            self.channels.remove(&channel);
        }
    }

    /// The server has bound a channel.
    pub(super) fn confirm(&mut self, channel: u16, peer: SocketAddr) {
        self.channels.insert(channel, peer);
        self.confirmed.insert(channel);
        self.by_peer.insert(peer, channel);
        self.permit(peer);
    }

    /// The server has created a permission.
    pub(super) fn permit(&mut self, peer: SocketAddr) {
        self.permitted.insert(peer.ip(), peer);
    }

    /// The channel on which data goes to a peer.
    pub(super) fn bound_channel(&self, peer: SocketAddr) -> Option<u16> {
        self.by_peer.get(&peer).copied()
    }

    /// The peer behind a channel.
    pub(super) fn peer_of(&self, channel: u16) -> Option<SocketAddr> {
        self.channels.get(&channel).copied()
    }

    /// One address for each permission.
    pub(super) fn permitted(&self) -> Vec<SocketAddr> {
        self.permitted.values().copied().collect()
    }

    /// All confirmed channels.
    pub(super) fn bound(&self) -> Vec<(u16, SocketAddr)> {
        self.by_peer.iter().map(|(peer, channel)| (*channel, *peer)).collect()
    }
}
