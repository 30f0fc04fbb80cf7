//! The allocations of a shard and the indexes that find them; the only owner of ids.

use std::net::SocketAddr;

use super::allocation::Allocation;
use super::vocabulary::{AllocationId, GENERATION_MASK, RelayId, RelayTransport};
use crate::net::{FiveTuple, HashSeed, Map, map};

pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// How many allocations there are.
    len: usize,
    /// An allocation on the move has two five-tuples, one without a client none.
    by_five_tuple: Map<FiveTuple, u32>,
    /// The relays that speak UDP, by advertised address, and by local address where
    /// that differs.
    by_relayed: Map<SocketAddr, RelayId>,
}

struct Slot {
    generation: u32,
    allocation: Option<Box<Allocation>>,
}

impl Table {
    pub(super) fn new(seed: HashSeed) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
            by_five_tuple: map(seed),
            by_relayed: map(seed),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The id of the allocation of a five-tuple.
    #[inline]
    pub(super) fn find(&self, five_tuple: &FiveTuple) -> Option<AllocationId> {
        let index = *self.by_five_tuple.get(five_tuple)?;
        Some(AllocationId { index, generation: self.slots[index as usize].generation })
    }

    #[inline]
    pub(super) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        let slot = self.slots.get(id.index as usize)?;
        slot.allocation.as_deref().filter(|_| slot.generation == id.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.allocation.as_deref_mut().filter(|_| slot.generation == id.generation)
    }

    /// The relay with this address, of whichever allocation.
    #[inline]
    pub(super) fn find_relayed(&self, address: SocketAddr) -> Option<RelayId> {
        self.by_relayed.get(&address).copied()
    }

    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let five_tuple = allocation.client.five_tuple;
        let id = self.reserve();
        self.fill(id, Box::new(allocation));
        self.index_client(five_tuple, id);
        id
    }

    /// An id for an allocation that is still to come.
    pub(super) fn reserve(&mut self) -> AllocationId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, allocation: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 allocations fit in memory")
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        AllocationId { index, generation: slot.generation }
    }

    /// The allocation that an id was reserved for.
    pub(super) fn fill(&mut self, id: AllocationId, allocation: Box<Allocation>) {
        let slot = &mut self.slots[id.index as usize];
        debug_assert!(slot.allocation.is_none() && slot.generation == id.generation, "reserved");
        slot.allocation = Some(allocation);
        self.len += 1;
    }

    /// An id that was reserved and is not needed.
    pub(super) fn release(&mut self, id: AllocationId) {
        debug_assert!(self.slots[id.index as usize].allocation.is_none(), "never filled");
        self.free.push(id.index);
    }

    /// A five-tuple leads to an allocation from now on.
    pub(super) fn index_client(&mut self, five_tuple: FiveTuple, id: AllocationId) {
        let previous = self.by_five_tuple.insert(five_tuple, id.index);
        debug_assert!(previous.is_none_or(|p| p == id.index), "one allocation per five-tuple");
    }

    /// A five-tuple leads to this allocation no more.
    pub(super) fn unindex_client(&mut self, five_tuple: &FiveTuple, id: AllocationId) {
        if self.by_five_tuple.get(five_tuple) == Some(&id.index) {
            self.by_five_tuple.remove(five_tuple);
        }
    }

    pub(super) fn remove(&mut self, id: AllocationId) -> Option<Box<Allocation>> {
        self.get(id)?;
        let allocation = self.slots[id.index as usize].allocation.take()?;
        self.free.push(id.index);
        self.len -= 1;
        self.unindex_client(&allocation.client.five_tuple, id);
        if allocation.transport == RelayTransport::Udp {
            for relay in allocation.relays.iter().flatten() {
                self.unindex_relay(relay.local.socket(), relay.advertised);
            }
        }
        Some(allocation)
    }

    pub(super) fn index_relay(&mut self, id: RelayId, local: SocketAddr, advertised: SocketAddr) {
        self.by_relayed.insert(advertised, id);
        self.by_relayed.insert(local, id);
    }

    pub(super) fn unindex_relay(&mut self, local: SocketAddr, advertised: SocketAddr) {
        self.by_relayed.remove(&advertised);
        self.by_relayed.remove(&local);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (AllocationId, &Allocation)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = AllocationId { index: index as u32, generation: slot.generation };
            slot.allocation.as_deref().map(|allocation| (id, allocation))
        })
    }

    /// How many five-tuples are indexed, for the invariants.
    pub(super) fn five_tuples_len(&self) -> usize {
        self.by_five_tuple.len()
    }

    /// How many relayed addresses are indexed, for the invariants.
    pub(super) fn relayed_len(&self) -> usize {
        self.by_relayed.len()
    }
}
