//! What one thread counts; the sum of them is what the report is made of.

use std::collections::BTreeMap;

use super::histogram::Histogram;

/// Counts of what was sent while the measurement ran.
#[derive(Clone)]
pub(super) struct Tally {
    /// Packets, allocations or requests that were begun.
    pub(super) sent: u64,
    /// Those that arrived, or were granted.
    pub(super) delivered: u64,
    /// Packets sent and delivered by the way they go: one may be closed.
    pub(super) ways: BTreeMap<&'static str, (u64, u64)>,
    /// Those that this host did not send.
    pub(super) unsent: u64,
    /// Those that were refused, by the code of the error response.
    pub(super) refused: BTreeMap<u16, u64>,
    /// Packets that came twice.
    pub(super) duplicates: u64,
    /// Packets that came too late to be counted.
    pub(super) late: u64,
    /// Packets that were damaged or came out elsewhere.
    pub(super) strays: u64,
    pub(super) latency: Histogram,
    /// Allocations that were given back, and those the server may still have.
    pub(super) given_back: u64,
    pub(super) left_behind: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            sent: 0,
            delivered: 0,
            ways: BTreeMap::new(),
            unsent: 0,
            refused: BTreeMap::new(),
            duplicates: 0,
            late: 0,
            strays: 0,
            latency: Histogram::new(),
            given_back: 0,
            left_behind: 0,
        }
    }

    /// Adds what another thread has counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        for (way, (sent, delivered)) in &other.ways {
            let sum = self.ways.entry(*way).or_default();
            *sum = (sum.0 + sent, sum.1 + delivered);
        }
        self.unsent += other.unsent;
        for (code, count) in &other.refused {
            *self.refused.entry(*code).or_default() += count;
        }
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.strays += other.strays;
        self.latency.add(&other.latency);
        self.given_back += other.given_back;
        self.left_behind += other.left_behind;
    }

    /// A way on which nothing of what was sent has arrived, and how much that was.
    pub(super) fn closed_way(&self) -> Option<(&'static str, u64)> {
        let closed = |(sent, delivered): &(u64, u64)| *sent > 0 && *delivered == 0;
        let found = self.ways.iter().find(|(_, counts)| closed(counts));
        found.map(|(way, (sent, _))| (*way, *sent))
    }

    /// What was sent, and neither arrived nor was refused.
    pub(super) fn lost(&self) -> u64 {
        let answered = self.delivered + self.refused.values().sum::<u64>();
        self.sent.saturating_sub(self.unsent).saturating_sub(answered)
    }
}
