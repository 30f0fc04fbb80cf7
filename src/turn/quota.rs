//! How many allocations each user has, counted at the user's home shard.

use std::sync::Arc;

use crate::net::{HashSeed, Map, map};

/// Allocations per user. An entry exists only while its count is above zero.
pub(super) struct Ledger {
    counts: Map<Arc<str>, u32>,
}

impl Ledger {
    pub(super) fn new(seed: HashSeed) -> Self {
        Self { counts: map(seed) }
    }

    /// Counts one more, unless the user has `limit` already.
    pub(super) fn try_add(&mut self, user: &Arc<str>, limit: u32) -> bool {
        let count = self.counts.entry(user.clone()).or_insert(0);
        let granted = *count < limit;
        *count += u32::from(granted);
        granted
    }

    /// Counts one less.
    pub(super) fn remove(&mut self, user: &str) {
        if let Some(count) = self.counts.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(user);
            }
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.values().map(|c| u64::from(*c)).sum()
    }
}
