//! What the cores of different shards say to each other.
//!
//! A client's packets arrive at one shard, but two things belong to the whole
//! server: how many allocations a user has, and a port that was set aside for a
//! later request. Each user has a home shard that counts; a reservation token
//! names the shard that keeps the port. Questions and answers are values that the
//! shells carry; allocations are named by ids that become stale by themselves.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::vocabulary::AllocationId;
use crate::net::{HashSeed, RelayedAddr};

/// Which shard this is, of how many.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// Number of this shard, below `count`.
    pub index: u16,
    /// How many shards there are.
    pub count: u16,
}

impl Shard {
    /// The only shard.
    pub const ONLY: Self = Self { index: 0, count: 1 };

    /// The shard that counts a user's allocations. `seed` is the same everywhere.
    pub(super) fn home_of(self, user: &str, seed: HashSeed) -> u16 {
        (seed.hash_one(user) % u64::from(self.count)) as u16
    }
}

/// A message between shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardMessage {
    /// May this user have one more allocation?
    QuotaAsk {
        /// The asker's allocation.
        allocation: AllocationId,
        /// The user.
        user: Arc<str>,
    },
    /// The answer; `granted` means it is counted already.
    QuotaAnswer {
        /// The asker's allocation.
        allocation: AllocationId,
        /// The user.
        user: Arc<str>,
        /// Whether there was room.
        granted: bool,
    },
    /// One allocation less.
    QuotaRelease {
        /// The user.
        user: Arc<str>,
    },
    /// Who holds this token wants the port.
    ReservationClaim {
        /// The asker's allocation.
        allocation: AllocationId,
        /// RESERVATION-TOKEN.
        token: [u8; 8],
        /// The full name of the user who asks.
        username: Arc<str>,
    },
    /// The answer; with an address the port is the asker's now.
    ReservationAnswer {
        /// The asker's allocation.
        allocation: AllocationId,
        /// The relayed transport address that was set aside.
        reserved: Option<RelayedAddr>,
    },
}
