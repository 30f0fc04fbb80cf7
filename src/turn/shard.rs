//! What the cores of different shards say to each other.
//!
//! A client's packets arrive at one shard, but two things belong to the whole
//! server: how many allocations a user has, and a port that was set aside for a
//! later request. Each user has a home shard that counts; a reservation token
//! names the shard that keeps the port. Questions and answers are values that the
//! shells carry; allocations are named by ids that become stale by themselves.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::connection::ConnectionId;
use super::mobility::Luggage;
use super::vocabulary::{AllocationId, Client, RelayId};
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

    /// How many bits it takes to name a shard.
    fn bits(self) -> u32 {
        u32::from(self.count).next_power_of_two().trailing_zeros()
    }

    /// A CONNECTION-ID of this shard: the shard's number in as many of the top bits
    /// as that takes, then random ones, 16 at least.
    pub(super) fn connection_id(self, random: u32) -> ConnectionId {
        let random_bits = u32::BITS - self.bits();
        let mask = u32::MAX >> self.bits();
        // Of a single shard nothing of the id is its number.
        let number = u32::from(self.index).checked_shl(random_bits).unwrap_or(0);
        ConnectionId(number | random & mask)
    }

    /// The shard that an id names; it need not exist.
    pub(super) fn of_connection(self, id: ConnectionId) -> u16 {
        id.0.checked_shr(u32::BITS - self.bits()).unwrap_or(0) as u16
    }

    /// The shard that counts a user's allocations. `seed` is the same everywhere.
    pub(super) fn home_of(self, user: &str, seed: HashSeed) -> u16 {
        (seed.hash_one(user) % u64::from(self.count)) as u16
    }
}

/// A message between shards. Those from one to another arrive in their order.
#[derive(Debug)]
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
    /// A client has shown a ticket of the receiver (RFC 8016).
    MoveAsk(Box<MoveAsk>),
    /// The answer to it.
    MoveAnswer {
        /// The asker's id.
        into: AllocationId,
        /// Whether the client is awaited there now: `MoveDone` or `MoveGone` follows.
        granted: bool,
        /// The response for the client; empty for none.
        reply: Box<[u8]>,
    },
    /// The client's old connection has ended: it is to be found at the new one only.
    MoveNow {
        /// The receiver's id.
        into: AllocationId,
    },
    /// The client has shown up where it is awaited.
    MoveClaim {
        /// The receiver's allocation.
        allocation: AllocationId,
        /// The id it will have.
        into: AllocationId,
    },
    /// The allocation is the receiver's now; the relay sockets come along.
    MoveDone {
        /// The id it had.
        from: AllocationId,
        /// The id it has.
        into: AllocationId,
        /// All of it.
        luggage: Box<Luggage>,
    },
    /// The allocation will not come.
    MoveGone {
        /// The id it would have had.
        into: AllocationId,
    },
}

/// A Refresh with a ticket that names an allocation of another shard.
#[derive(Debug)]
pub struct MoveAsk {
    /// The allocation there.
    pub(super) allocation: AllocationId,
    /// The id that it will have here.
    pub(super) into: AllocationId,
    /// Where the request came from.
    pub(super) client: Client,
    /// It was granted before; the client repeats its Refresh.
    pub(super) again: bool,
    /// There is no room for it here.
    pub(super) full: bool,
    /// The request as it came.
    pub(super) request: Box<[u8]>,
}

impl ShardMessage {
    /// The relay sockets that change hands with the message: the id that each has
    /// had with the sender, and the one it has with the receiver.
    pub fn moved_relays(&self) -> impl Iterator<Item = (RelayId, RelayId)> + use<> {
        let moved = match self {
            Self::MoveDone { from, into, luggage } => Some((*from, *into, luggage.families())),
            _ => None,
        };
        moved.into_iter().flat_map(|(from, into, families)| {
            let of = |allocation, family| RelayId { allocation, family };
            families.map(move |family| (of(from, family), of(into, family)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_names_its_shard_whatever_is_random() {
        for count in [1, 2, 3, 4, 5, 64, 1000, u16::MAX] {
            for index in [0, count / 2, count - 1] {
                let shard = Shard { index, count };
                for random in [0, 1, 0x8000_0000, 0x1234_5678, u32::MAX] {
                    assert_eq!(shard.of_connection(shard.connection_id(random)), index);
                }
                assert_ne!(shard.connection_id(0), shard.connection_id(0xffff));
            }
        }
    }

    #[test]
    fn a_connection_id_can_name_a_shard_that_is_not_there() {
        let shard = Shard { index: 0, count: 3 };
        assert_eq!(shard.of_connection(ConnectionId(u32::MAX)), 3);
    }
}
