//! What a packet says of itself: which run, which lane, which number, when it left.
//! It is as long as a transaction id, so that a Binding request can carry it, too.

use std::time::{Duration, Instant};

/// Bytes of a stamp, and so the smallest payload.
pub(super) const LEN: usize = 12;
/// Bits that a tick is coarser than a nanosecond: a `u32` of ticks of 64 ns lasts
/// 275 seconds, longer than any packet is under way.
const TICK_BITS: u32 = 6;

/// A stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The run, so that what an earlier one left under way is told apart.
    pub(super) run: u16,
    /// Index of the lane.
    pub(super) lane: u16,
    /// The number of the packet in its lane, the lower half of it.
    pub(super) sequence: u32,
    /// When it left, in ticks of [`Clock`].
    pub(super) sent: u32,
}

impl Stamp {
    /// As it lies in the packet.
    #[inline]
    pub(super) fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..2].copy_from_slice(&self.run.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.lane.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sent.to_be_bytes());
        bytes
    }

    /// The stamp that `bytes` begin with; `None` when they are too few.
    #[inline]
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let &[r0, r1, l0, l1, n0, n1, n2, n3, t0, t1, t2, t3] = bytes.first_chunk::<LEN>()?;
        Some(Self {
            run: u16::from_be_bytes([r0, r1]),
            lane: u16::from_be_bytes([l0, l1]),
            sequence: u32::from_be_bytes([n0, n1, n2, n3]),
            sent: u32::from_be_bytes([t0, t1, t2, t3]),
        })
    }
}

/// Tells ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The tick of a moment; it wraps.
    #[inline]
    pub(super) fn tick(self, at: Instant) -> u32 {
        (at.saturating_duration_since(self.start).as_nanos() >> TICK_BITS) as u32
    }

    /// The time from one tick to another.
    #[inline]
    pub(super) fn between(sent: u32, arrived: u32) -> Duration {
        Duration::from_nanos(u64::from(arrived.wrapping_sub(sent)) << TICK_BITS)
    }
}

/// The byte of a payload at `at`, behind the stamp: damage shows.
pub(super) fn filler(at: usize) -> u8 {
    (at as u8).wrapping_mul(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { run: 0xABCD, lane: 513, sequence: u32::MAX, sent: 0x0102_0304 };
        assert_eq!(Stamp::decode(&stamp.encode()), Some(stamp));
        assert_eq!(Stamp::decode(&stamp.encode()[1..]), None);
    }

    #[test]
    fn ticks_that_wrap_tell_the_time_all_the_same() {
        let clock = Clock::start();
        let later = clock.start + Duration::from_secs(274);
        let after = later + Duration::from_secs(3);
        assert!(clock.tick(after) < clock.tick(later), "it has wrapped");
        let between = Clock::between(clock.tick(later), clock.tick(after));
        assert!(
            between.abs_diff(Duration::from_secs(3)) < Duration::from_nanos(128),
            "{between:?}"
        );
    }
}
