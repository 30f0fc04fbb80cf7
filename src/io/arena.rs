//! The packet buffers of one batch.
//!
//! A bump allocator over one mapping: receiving takes slots, sending refers to
//! them, and after the flush [`Arena::reset`] makes all of them free at once.

use std::io;
use std::ptr::NonNull;

use super::outgoing::Body;

/// The largest UDP datagram, in bytes, with or without receive offload.
pub const MAX_DATAGRAM: usize = 65_535;

/// Bytes of one slot: any datagram or train of them, and behind it as much again
/// for what is made of them: replies, plaintext. Pages that nobody writes to cost
/// nothing.
///
/// The last 64 make the distance between slots an odd number of cache lines
/// (2,305). Were it a multiple of a large power of two, the first lines of all
/// packets, the ones every packet touches, would share a few cache sets and
/// evict one another. An odd distance walks through all sets of a cache with a
/// power of two of them before it meets the first again.
pub const SLOT: usize = 2 * 65_536 + ROOM + 64;

/// Bytes behind a train that are free even when as much was written as it has.
const ROOM: usize = 16_384;

const _: () = assert!(SLOT.is_multiple_of(64) && (SLOT / 64) % 2 == 1);
const _: () = assert!(SLOT - 2 * MAX_DATAGRAM >= ROOM);

/// One buffer of an [`Arena`]. It stays a valid index after a reset, but then
/// names whatever the next batch writes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(u32);

impl SlotId {
    /// The slot `count` places behind this one.
    pub(super) fn behind(self, count: usize) -> Self {
        Self(self.0 + u32::try_from(count).expect("a batch has at most a few hundred slots"))
    }
}

/// Packet buffers for one batch: `slots` buffers of [`SLOT`] bytes.
///
/// The memory comes from the kernel zeroed and page by page as it is touched:
/// slots that only ever see small packets cost one or two pages each.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    slots: u32,
    next: u32,
    /// The slot that [`store`](Self::store) fills, and how far it has.
    shelf: Option<(SlotId, usize)>,
}

// SAFETY: the arena is the only owner of its mapping, like a `Vec<u8>`.
unsafe impl Send for Arena {}
// SAFETY: a shared arena hands out shared slices only.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves address space for `slots` buffers.
    ///
    /// # Errors
    /// `InvalidInput` for zero or more than `u32::MAX` slots, otherwise what
    /// mmap(2) reports (no address space left).
    pub fn new(slots: usize) -> io::Result<Self> {
        let (Ok(count), Some(len)) = (u32::try_from(slots), slots.checked_mul(SLOT)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if count == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice
        // overlaps no memory of the program.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap never returns page zero unasked");
        Ok(Self { base, slots: count, next: 0, shelf: None })
    }

    /// Takes a free slot; `None` when the batch has used them all. The slot
    /// holds what an earlier batch left there.
    #[inline]
    pub fn take(&mut self) -> Option<SlotId> {
        self.take_many(1)
    }

    /// Takes `count` neighbouring slots and returns the first; `None` when there
    /// are not that many left, and then none is taken.
    #[inline]
    pub fn take_many(&mut self, count: usize) -> Option<SlotId> {
        if count > self.free_slots() {
            return None;
        }
        let first = self.next;
        self.next += u32::try_from(count).expect("not more than the free slots, a u32");
        Some(SlotId(first))
    }

    /// Copies a message of ours into a slot that it shares with others of its kind;
    /// `None` when there is no room for it.
    pub fn store(&mut self, message: &[u8]) -> Option<Body> {
        let fits = self.shelf.filter(|(_, used)| used + message.len() <= SLOT);
        let (slot, start) = match fits {
            Some(shelf) => shelf,
            None => (self.take()?, 0),
        };
        let end = start + message.len();
        self.bytes_mut(slot).get_mut(start..end)?.copy_from_slice(message);
        self.shelf = Some((slot, end));
        Some(Body { slot, start: start as u32, end: end as u32 })
    }

    /// Gives back the last `count` slots taken.
    #[inline]
    pub(super) fn give_back(&mut self, count: usize) {
        let count = u32::try_from(count).expect("not more than the slots taken, a u32");
        self.next = self.next.checked_sub(count).expect("only taken slots are given back");
    }

    /// How many slots can still be taken.
    #[inline]
    pub fn free_slots(&self) -> usize {
        (self.slots - self.next) as usize
    }

    /// Makes every slot free again. Called once per batch, after the flush.
    #[inline]
    pub fn reset(&mut self) {
        self.next = 0;
        self.shelf = None;
    }

    /// The whole buffer of a slot, [`SLOT`] bytes.
    ///
    /// # Panics
    /// When `slot` comes from a larger arena.
    #[inline]
    pub fn bytes(&self, slot: SlotId) -> &[u8] {
        let start = self.start_of(slot);
        // SAFETY: `start_of` proves that the SLOT bytes at `start` lie in the
        // mapping, which is initialised (zeroed) memory and lives as long as
        // `self`; the shared borrow of `self` keeps writers away.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), SLOT) }
    }

    /// The whole buffer of a slot, for writing.
    ///
    /// # Panics
    /// When `slot` comes from a larger arena.
    #[inline]
    pub fn bytes_mut(&mut self, slot: SlotId) -> &mut [u8] {
        let start = self.start_of(slot);
        // SAFETY: as in `bytes`; the exclusive borrow of `self` keeps all others away.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), SLOT) }
    }

    /// The first `at` bytes of a slot for reading and the room behind them for
    /// writing, so that a reply is written behind the request it answers.
    ///
    /// # Panics
    /// When `at` is larger than [`SLOT`] or `slot` comes from a larger arena.
    #[inline]
    pub fn split(&mut self, slot: SlotId, at: usize) -> (&[u8], &mut [u8]) {
        let (message, room) = self.bytes_mut(slot).split_at_mut(at);
        (message, room)
    }

    #[inline]
    fn start_of(&self, slot: SlotId) -> NonNull<u8> {
        assert!(slot.0 < self.slots, "a slot of another arena");
        // SAFETY: the mapping has `slots * SLOT` bytes and the index is below `slots`.
        unsafe { self.base.add(slot.0 as usize * SLOT) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; no slice outlives `self`.
        // A failure would mean the arguments are not that mapping; nothing to do then.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.slots as usize * SLOT) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_run_out_and_come_back_with_a_reset() {
        let mut arena = Arena::new(3).unwrap();
        let first = arena.take().unwrap();
        assert_eq!(arena.free_slots(), 2);
        assert_eq!(arena.take_many(3), None, "more than is left takes nothing");
        assert_eq!(arena.free_slots(), 2);
        let pair = arena.take_many(2).unwrap();
        assert_eq!(pair, first.behind(1));
        assert_eq!(arena.take(), None);
        arena.give_back(1);
        assert_eq!(arena.take(), Some(first.behind(2)));
        arena.reset();
        assert_eq!(arena.free_slots(), 3);
        assert_eq!(arena.take(), Some(first));
    }

    #[test]
    fn slots_are_apart_and_writable_to_the_last_byte() {
        let mut arena = Arena::new(2).unwrap();
        let (a, b) = (arena.take().unwrap(), arena.take().unwrap());
        arena.bytes_mut(a).fill(1);
        assert!(arena.bytes(b).iter().all(|&byte| byte == 0));
        arena.bytes_mut(b).fill(2);
        assert!(arena.bytes(a).iter().all(|&byte| byte == 1));
        assert_eq!(arena.bytes(a).len(), SLOT);
    }

    #[test]
    fn stored_messages_share_a_slot_until_it_is_full() {
        let mut arena = Arena::new(3).unwrap();
        let received = arena.take().unwrap();
        let bodies: Vec<Body> = (0..3).map(|i| arena.store(&[i; SLOT / 2]).unwrap()).collect();
        assert_eq!(bodies.iter().map(|body| body.slot == received).collect::<Vec<_>>(), [false; 3]);
        assert_eq!((bodies[0].slot, bodies[1].slot), (received.behind(1), received.behind(1)));
        assert_eq!(bodies[2].slot, received.behind(2));
        for (i, body) in bodies.iter().enumerate() {
            assert_eq!(body.of(&arena), [i as u8; SLOT / 2]);
        }
        assert_eq!(arena.store(&[0; SLOT]), None, "no slot is left");
        arena.reset();
        assert_eq!(arena.store(b"abc").unwrap().slot, received);
        assert_eq!(arena.store(&[0; SLOT + 1]), None, "longer than a slot");
    }

    #[test]
    fn a_reply_is_written_behind_its_request() {
        let mut arena = Arena::new(1).unwrap();
        let slot = arena.take().unwrap();
        arena.bytes_mut(slot)[..3].copy_from_slice(b"abc");
        let (request, room) = arena.split(slot, 3);
        assert_eq!(room.len(), SLOT - 3);
        room[..3].copy_from_slice(request);
        assert_eq!(&arena.bytes(slot)[..6], b"abcabc");
    }

    #[test]
    #[should_panic(expected = "a slot of another arena")]
    fn a_slot_of_a_larger_arena_is_refused() {
        let mut large = Arena::new(2).unwrap();
        let small = Arena::new(1).unwrap();
        large.take().unwrap();
        let second = large.take().unwrap();
        let _ = small.bytes(second);
    }

    #[test]
    fn sizes_nobody_can_map_are_errors() {
        assert_eq!(Arena::new(0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(Arena::new(usize::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
