//! The packets of one sender on one way, numbered: what is under way, what has arrived,
//! what is missing.

/// How many numbers behind the newest arrival a packet may come and still be told from
/// one that comes twice.
const REMEMBERED: u64 = 64;

/// One direction of one allocation.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// The flow whose client sends, or for whose client the peer sends.
    pub(super) flow: usize,
    /// Number of the next packet to send.
    next: u64,
    /// One more than the newest number that has arrived or is no longer waited for.
    expected: u64,
    /// Which of the numbers before `expected` have arrived; bit 0 is the one just before.
    seen: u64,
    /// Numbers from here on are measured.
    measured_from: u64,
    /// How many of these have arrived.
    delivered: u64,
    /// `next` at the last [`write_off`](Self::write_off).
    looked_at: u64,
}

/// What an arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It had not come before.
    First {
        /// How many packets are no longer under way: this one, and those it has overtaken.
        landed: u64,
        /// Whether it was sent while the measurement ran.
        measured: bool,
    },
    /// It had come before.
    Again,
    /// It comes so late that nobody remembers whether it had come before.
    Late,
    /// A number that was never sent.
    Unknown,
}

impl Lane {
    pub(super) fn new(flow: usize) -> Self {
        Self {
            flow,
            next: 0,
            expected: 0,
            seen: 0,
            measured_from: u64::MAX,
            delivered: 0,
            looked_at: 0,
        }
    }

    /// The number of the packet that is sent now; on the wire, its lower half.
    #[inline]
    pub(super) fn take_number(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        number as u32
    }

    /// Packets that may still arrive.
    #[inline]
    pub(super) fn under_way(&self) -> u64 {
        self.next - self.expected
    }

    /// Takes note of an arrival.
    #[inline]
    pub(super) fn arrive(&mut self, number: u32) -> Arrival {
        let back = u64::from((self.next as u32).wrapping_sub(number));
        let Some(number) = self.next.checked_sub(back).filter(|_| back > 0) else {
            return Arrival::Unknown;
        };
        let landed = if number >= self.expected {
            let ahead = number + 1 - self.expected;
            self.seen = self.shifted(ahead) | 1;
            self.expected = number + 1;
            ahead
        } else {
            let behind = self.expected - 1 - number;
            if behind >= REMEMBERED {
                return Arrival::Late;
            }
            if self.seen & (1 << behind) != 0 {
                return Arrival::Again;
            }
            self.seen |= 1 << behind;
            0
        };
        let measured = number >= self.measured_from;
        self.delivered += u64::from(measured);
        Arrival::First { landed, measured }
    }

    /// What has just arrived was no success.
    pub(super) fn undeliver(&mut self, measured: bool) {
        self.delivered -= u64::from(measured);
    }

    /// Gives up what was under way at the last call already, and says how many that are.
    pub(super) fn write_off(&mut self) -> u64 {
        let given_up = self.looked_at.saturating_sub(self.expected);
        self.seen = self.shifted(given_up);
        self.expected += given_up;
        self.looked_at = self.next;
        given_up
    }

    /// From here on packets are measured.
    pub(super) fn measure(&mut self) {
        self.measured_from = self.next;
        self.delivered = 0;
    }

    /// Packets sent since then, and how many of them have arrived.
    pub(super) fn measured(&self) -> (u64, u64) {
        (self.next.saturating_sub(self.measured_from), self.delivered)
    }

    fn shifted(&self, by: u64) -> u64 {
        if by >= REMEMBERED { 0 } else { self.seen << by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(count: u32) -> Lane {
        let mut lane = Lane::new(0);
        (0..count).for_each(|number| assert_eq!(lane.take_number(), number));
        lane
    }

    fn first(landed: u64, measured: bool) -> Arrival {
        Arrival::First { landed, measured }
    }

    #[test]
    fn what_is_overtaken_is_not_under_way_but_still_counts_when_it_comes() {
        let mut lane = sent(4);
        assert_eq!(lane.arrive(0), first(1, false));
        assert_eq!(lane.arrive(3), first(3, false), "1 and 2 are overtaken");
        assert_eq!(lane.under_way(), 0);
        assert_eq!(lane.arrive(1), first(0, false));
        assert_eq!(lane.arrive(1), Arrival::Again);
        assert_eq!(lane.arrive(3), Arrival::Again);
        assert_eq!(lane.arrive(4), Arrival::Unknown);
    }

    #[test]
    fn only_what_was_sent_in_the_measurement_is_measured() {
        let mut lane = sent(2);
        lane.measure();
        let number = lane.take_number();
        assert_eq!(lane.arrive(1), first(2, false));
        assert_eq!(lane.arrive(number), first(1, true));
        assert_eq!(lane.measured(), (1, 1));
    }

    #[test]
    fn silence_is_written_off_after_a_whole_interval() {
        let mut lane = sent(3);
        assert_eq!(lane.write_off(), 0, "they may have just been sent");
        lane.take_number();
        assert_eq!(lane.arrive(0), first(1, false));
        assert_eq!(lane.write_off(), 2);
        assert_eq!(lane.under_way(), 1);
        assert_eq!(lane.arrive(1), first(0, false), "late, and still for the first time");
        assert_eq!(lane.arrive(0), Arrival::Again);
        assert_eq!(lane.write_off(), 1);
        assert_eq!(lane.under_way(), 0);
    }

    #[test]
    fn what_is_too_late_is_not_counted() {
        let mut lane = sent(100);
        assert_eq!(lane.arrive(99), first(100, false));
        assert_eq!(lane.arrive(36), first(0, false));
        assert_eq!(lane.arrive(35), Arrival::Late);
    }

    #[test]
    fn numbers_outlive_their_lower_half() {
        let mut lane = Lane::new(0);
        lane.next = u64::from(u32::MAX);
        lane.expected = lane.next;
        let numbers = [lane.take_number(), lane.take_number()];
        assert_eq!(numbers, [u32::MAX, 0]);
        assert_eq!(lane.arrive(0), first(2, false));
        assert_eq!(lane.arrive(u32::MAX), first(0, false));
    }
}
