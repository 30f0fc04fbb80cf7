//! One timer wheel for the whole core.
//!
//! Slots of a quarter second, 4096 of them. Arming is a push, the next deadline
//! is found by two bit scans. What lies beyond the horizon waits in the last slot
//! and moves on when the wheel gets there, so no timer fires early. Timers are not
//! taken back: whoever is woken looks whether it is still time.

use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(250);
const SLOTS: usize = 4096;
const WORDS: usize = SLOTS / 64;

/// A wheel of timers with payload `T`.
#[derive(Debug)]
pub struct Wheel<T> {
    /// Timers with the tick at which they fire.
    slots: Vec<Vec<(u64, T)>>,
    /// One bit per slot that is not empty.
    occupied: [u64; WORDS],
    /// One bit per word of `occupied` that is not zero.
    summary: u64,
    start: Instant,
    /// Ticks since `start` that have been expired.
    now: u64,
    /// Kept between calls so that expiring allocates nothing.
    fired: Vec<(u64, T)>,
}

impl<T> Wheel<T> {
    /// An empty wheel; no deadline may lie before `start`.
    pub fn new(start: Instant) -> Self {
        let slots = std::iter::repeat_with(Vec::new).take(SLOTS).collect();
        Self { slots, occupied: [0; WORDS], summary: 0, start, now: 0, fired: Vec::new() }
    }

    /// Arms a timer. It fires at the first tick that is not before `deadline`.
    pub fn arm(&mut self, deadline: Instant, timer: T) {
        self.place(self.tick_at_or_after(deadline), timer);
    }

    /// When to call [`expire`](Self::expire) next: when a timer fires, or when one
    /// that is more than the horizon of 17 minutes away has to move on.
    pub fn next(&self) -> Option<Instant> {
        let first = (self.now + 1) as usize % SLOTS;
        let slot = self.occupied_from(first)?;
        let ahead = (slot + SLOTS - first) % SLOTS;
        Some(self.time_of(self.now + 1 + ahead as u64))
    }

    /// Moves every timer that is due into `due`.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<T>) {
        let target =
            (now.saturating_duration_since(self.start).as_nanos() / TICK.as_nanos()) as u64;
        while self.now < target {
            // Empty slots are skipped in one step.
            let first = (self.now + 1) as usize % SLOTS;
            let Some(slot) = self.occupied_from(first) else {
                self.now = target;
                return;
            };
            let ahead = ((slot + SLOTS - first) % SLOTS) as u64;
            if self.now + 1 + ahead > target {
                self.now = target;
                return;
            }
            self.now += 1 + ahead;
            self.empty(slot, due);
        }
    }

    /// Fires the timers of the slot whose tick has come.
    fn empty(&mut self, slot: usize, due: &mut Vec<T>) {
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        if self.occupied[slot / 64] == 0 {
            self.summary &= !(1 << (slot / 64));
        }
        let mut fired = std::mem::take(&mut self.fired);
        std::mem::swap(&mut fired, &mut self.slots[slot]);
        for (tick, timer) in fired.drain(..) {
            if tick <= self.now {
                due.push(timer);
            } else {
                self.place(tick, timer);
            }
        }
        self.fired = fired;
    }

    fn place(&mut self, tick: u64, timer: T) {
        let at = tick.clamp(self.now + 1, self.now + SLOTS as u64 - 1);
        let slot = at as usize % SLOTS;
        self.slots[slot].push((tick, timer));
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.summary |= 1 << (slot / 64);
    }

    /// The first slot at or after `from`, going round, that is not empty.
    fn occupied_from(&self, from: usize) -> Option<usize> {
        let (word, bit) = (from / 64, from % 64);
        let here = self.occupied[word] & (!0 << bit);
        if here != 0 {
            return Some(word * 64 + here.trailing_zeros() as usize);
        }
        // `summary` says which other words to look at; the word we started in
        // comes last, for its bits before `from`.
        let later = self.summary & (!0u64).checked_shl(word as u32 + 1).unwrap_or(0);
        let next = if later != 0 { later } else { self.summary };
        let word = (next != 0).then(|| next.trailing_zeros() as usize)?;
        Some(word * 64 + self.occupied[word].trailing_zeros() as usize)
    }

    fn tick_at_or_after(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_nanos().div_ceil(TICK.as_nanos()) as u64
    }

    fn time_of(&self, tick: u64) -> Instant {
        self.start + TICK * u32::try_from(tick).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn fires_at_the_first_tick_that_is_not_early() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new(t0);
        wheel.arm(t0 + ms(1), 'a');
        wheel.arm(t0 + ms(600), 'b');
        assert_eq!(wheel.next(), Some(t0 + ms(250)));
        let mut due = Vec::new();
        wheel.expire(t0 + ms(249), &mut due);
        assert!(due.is_empty());
        wheel.expire(t0 + ms(250), &mut due);
        assert_eq!(due, ['a']);
        assert_eq!(wheel.next(), Some(t0 + ms(750)));
        wheel.expire(t0 + ms(10_000), &mut due);
        assert_eq!(due, ['a', 'b']);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn deadlines_beyond_the_horizon_wake_early_and_fire_in_time() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new(t0);
        let deadline = t0 + Duration::from_secs(100_000);
        wheel.arm(deadline, ());
        assert!(wheel.next().unwrap() < t0 + Duration::from_secs(1024));
        let mut due = Vec::new();
        while let Some(next) = wheel.next() {
            assert!(due.is_empty());
            wheel.expire(next, &mut due);
            assert_eq!(due.is_empty(), next < deadline);
        }
        assert_eq!(due.len(), 1);
    }

    #[test]
    fn a_wheel_that_slept_for_hours_fires_nothing_early() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new(t0);
        let late = t0 + Duration::from_secs(10_000);
        wheel.arm(late + ms(5_000), ());
        let mut due = Vec::new();
        wheel.expire(late, &mut due);
        assert!(due.is_empty());
        assert_eq!(wheel.next(), Some(late + ms(5_000)));
    }

    proptest! {
        #[test]
        fn no_timer_is_lost_or_early(
            steps in proptest::collection::vec((0u64..4_000_000, 0u64..2_000_000), 1..200)
        ) {
            let t0 = Instant::now();
            let mut wheel = Wheel::new(t0);
            let (mut now, mut armed, mut fired) = (t0, 0, 0);
            let mut due = Vec::new();
            for (delay, step) in steps {
                wheel.arm(now + ms(delay), now + ms(delay));
                armed += 1;
                now += ms(step);
                let next = wheel.next();
                wheel.expire(now, &mut due);
                prop_assert!(due.is_empty() || next.unwrap() <= now);
                for deadline in due.drain(..) {
                    prop_assert!(deadline <= now);
                    fired += 1;
                }
            }
            wheel.expire(now + ms(5_000_000), &mut due);
            prop_assert_eq!(fired + due.len(), armed);
        }
    }
}
