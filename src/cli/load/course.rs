//! The lanes of one thread that lead the same way take turns: how much may be sent now,
//! and by which lane.

use std::ops::Range;
use std::time::{Duration, Instant};

/// Packets that are sent without looking for arrivals in between.
const BATCH: usize = 64;
/// Packets under way of one lane at saturation, so that no lane takes all of a window.
const LANE_WINDOW: usize = 64;
/// Bytes under way of one lane on a stream: servers drop what a client's connection does
/// not take at once.
const STREAM_WINDOW: usize = 32 << 10;
/// A load that is later than this does not catch up: a burst would be another load.
const LATEST: f64 = 0.01;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From a client to its peer.
    Up,
    /// From the peer to a client.
    Down,
    /// From a client through two allocations to the next one.
    Across,
    /// To the server and back.
    Binding,
}

impl Way {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Up => "from clients to peers",
            Self::Down => "from peers to clients",
            Self::Across => "from relay to relay",
            Self::Binding => "to the server and back",
        }
    }
}

/// How fast packets leave.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As fast as they arrive: so many under way, of which a lane may have so many.
    Window { all: usize, lane: usize },
    /// So many a second.
    Rate(f64),
}

/// The lanes that lead one way.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) way: Way,
    pub(super) lanes: Range<usize>,
    pace: Pace,
    train: usize,
    /// The lane whose turn it is, counted within the course.
    cursor: usize,
    in_flight: usize,
    /// When counting for a rate began, and how many have been due since.
    began: Instant,
    due: f64,
}

impl Pace {
    /// At saturation: `window` packets of `frame` bytes under way.
    pub(super) fn saturating(window: usize, train: usize, frame: usize, is_stream: bool) -> Self {
        let lane =
            if is_stream { (STREAM_WINDOW / frame).clamp(1, LANE_WINDOW) } else { LANE_WINDOW };
        Self::Window { all: window.max(train), lane: lane.max(train) }
    }
}

impl Course {
    pub(super) fn new(way: Way, lanes: Range<usize>, pace: Pace, train: usize) -> Self {
        let began = Instant::now();
        Self { way, lanes, pace, train, cursor: 0, in_flight: 0, began, due: 0.0 }
    }

    /// The load begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.began = now;
        self.due = 0.0;
    }

    /// How many packets may leave now; none before it is worth it.
    pub(super) fn credit(&mut self, now: Instant) -> usize {
        match self.pace {
            Pace::Window { all, .. } => {
                let credit = all.saturating_sub(self.in_flight).min(BATCH.max(self.train));
                let worthwhile = (all / 8).clamp(1, BATCH / 2).max(self.train);
                if credit >= worthwhile { credit } else { 0 }
            }
            Pace::Rate(rate) => {
                let wanted = rate * now.saturating_duration_since(self.began).as_secs_f64();
                self.due = self.due.max(wanted - rate * LATEST - self.train as f64);
                let due = (wanted - self.due) as usize;
                if due >= self.train { due.min(BATCH.max(self.train)) } else { 0 }
            }
        }
    }

    /// How long until a packet is due; `None` where arrivals decide.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let Pace::Rate(rate) = self.pace else { return None };
        let at = Duration::try_from_secs_f64((self.due + self.train as f64) / rate);
        // A rate so slow that nothing is ever due.
        let at = at.unwrap_or(Duration::MAX);
        Some(at.saturating_sub(now.saturating_duration_since(self.began)))
    }

    /// The next lane, and how many of `credit` packets it sends, given how many of its own
    /// are under way; `None` at the end of a round or of the credit. Whole trains only.
    pub(super) fn next(
        &mut self,
        credit: usize,
        under_way: impl Fn(usize) -> u64,
    ) -> (usize, usize) {
        let lane = self.lanes.start + self.cursor;
        self.cursor = (self.cursor + 1) % self.lanes.len();
        let room = match self.pace {
            Pace::Window { lane: window, .. } => window.saturating_sub(under_way(lane) as usize),
            Pace::Rate(_) => usize::MAX,
        };
        // One lane alone fills its window; several take turns by train.
        let wanted = if self.lanes.len() == 1 { credit } else { self.train.min(credit) };
        (lane, wanted.min(room) / self.train * self.train)
    }

    /// So many packets have left.
    pub(super) fn left(&mut self, packets: usize) {
        self.in_flight += packets;
        self.due += packets as f64;
    }

    /// So many packets are no longer under way.
    #[inline]
    pub(super) fn landed(&mut self, packets: u64) {
        self.in_flight = self.in_flight.saturating_sub(packets as usize);
    }

    /// Packets under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(course: &Course, seconds: f64) -> Instant {
        course.began + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_window_is_filled_and_refilled_when_it_is_worth_it() {
        let pace = Pace::saturating(128, 1, 100, false);
        let mut course = Course::new(Way::Up, 0..1, pace, 1);
        let now = Instant::now();
        assert_eq!(course.credit(now), 64);
        assert_eq!(course.next(64, |_| 0), (0, 64));
        course.left(128);
        assert_eq!(course.credit(now), 0);
        course.landed(15);
        assert_eq!(course.credit(now), 0, "too few for a batch");
        course.landed(1);
        assert_eq!(course.credit(now), 16);
        assert_eq!(course.next(16, |_| 60), (0, 4), "a lane has a window of its own");
        assert_eq!(course.wait(now), None);
    }

    #[test]
    fn a_rate_is_kept_on_average_and_not_caught_up_with() {
        let mut course = Course::new(Way::Up, 0..1, Pace::Rate(1000.0), 1);
        let mut sent = 0;
        for step in 1..=1000 {
            let now = after(&course, f64::from(step) / 1000.0 + 1e-6);
            let credit = course.credit(now);
            course.left(credit);
            sent += credit;
        }
        assert!((999..=1001).contains(&sent), "{sent}");
        // A second of standstill.
        let late = course.credit(after(&course, 2.0));
        assert!((10..=12).contains(&late), "{late}");
    }

    #[test]
    fn a_train_waits_until_all_of_it_is_due() {
        let mut course = Course::new(Way::Down, 0..2, Pace::Rate(100.0), 8);
        let now = after(&course, 0.05);
        assert_eq!(course.credit(now), 0);
        assert_eq!(course.wait(now).map(|wait| wait.as_millis()), Some(30));
        let now = after(&course, 0.081);
        assert_eq!(course.credit(now), 8);
        assert_eq!(course.next(8, |_| 0), (0, 8));
        course.left(8);
        assert_eq!(course.credit(now), 0);
        assert_eq!(course.next(8, |_| 0), (1, 8), "lanes take turns");
    }

    #[test]
    fn streams_have_a_window_of_bytes() {
        let pace = Pace::saturating(128, 1, 1204, true);
        let mut course = Course::new(Way::Down, 0..1, pace, 1);
        assert_eq!(course.next(64, |_| 0), (0, 27));
    }
}
