//! What is to be done: the arguments, checked and made definite.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::ValueEnum;

use super::super::identity::Identity;
use super::trust::Trust;
use crate::net::Transport;

/// What the server has to work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Work {
    /// Packets through allocations
    Media,
    /// Allocations, made and given back
    Allocate,
    /// Binding requests
    Binding,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Direction {
    /// From clients to peers
    Up,
    /// From peers to clients
    Down,
    /// Both at once
    Both,
}

/// What packets between client and server are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// ChannelData
    Channel,
    /// Send and Data indications
    Send,
}

/// All that the threads have to know.
pub(super) struct Plan {
    pub(super) server: SocketAddr,
    pub(super) transport: Transport,
    pub(super) trust: Trust,
    pub(super) work: Work,
    pub(super) by: By,
    pub(super) direction: Direction,
    pub(super) relay_to_relay: bool,
    /// Allocations in all, or clients where nothing is allocated for long.
    pub(super) allocations: usize,
    /// Bytes of application data in a packet.
    pub(super) payload: usize,
    /// Consecutive packets of one sender.
    pub(super) train: usize,
    /// Packets, allocations or requests a second in all; `None` saturates.
    pub(super) rate: Option<f64>,
    /// Packets under way at saturation, of one thread and direction.
    pub(super) window: usize,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    pub(super) threads: usize,
    /// The address of this host at which peers are.
    pub(super) peer: IpAddr,
    /// Who the clients are, in turn.
    pub(super) identities: Vec<Identity>,
    /// Whether clients share a socket and differ in their source addresses, which only
    /// loopback has enough of.
    pub(super) shares_socket: bool,
}

impl Work {
    /// What is counted.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Media => "packets",
            Self::Allocate => "allocations",
            Self::Binding => "requests",
        }
    }
}

impl Plan {
    /// Clients of one thread: equal shares, and pairs stay together.
    pub(super) fn share(&self, thread: usize) -> std::ops::Range<usize> {
        let unit = if self.relay_to_relay { 2 } else { 1 };
        let units = self.allocations / unit;
        let start = |thread: usize| units * thread / self.threads * unit;
        start(thread)..start(thread + 1)
    }

    /// Whether packets leave in this direction.
    pub(super) fn sends(&self, direction: Direction) -> bool {
        self.direction == direction || self.direction == Direction::Both
    }
}

/// The name of a value as it is typed.
pub(super) fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
