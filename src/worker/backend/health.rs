//! Whether a backend can be reached, as all workers together see it: each change is
//! told once, however many clients meet with it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::net::Now;

/// Seconds without a failure before a backend is said to be back. One that fails now
/// and then is down all the while, and not a line in the log each time.
const CALM: u64 = 10;

/// What is known of a backend.
#[derive(Debug, Default)]
pub(super) struct Health {
    down: AtomicBool,
    /// The last failure, in seconds since the Unix epoch.
    failed_at: AtomicU64,
}

impl Health {
    /// It could not be reached; true when that is news.
    pub(super) fn failed(&self, now: Now) -> bool {
        self.failed_at.store(now.unix.as_secs(), Ordering::Relaxed);
        !self.down.swap(true, Ordering::Relaxed)
    }

    /// It could be reached; true when that is news.
    pub(super) fn reached(&self, now: Now) -> bool {
        // Two loads and no store for as long as nothing changes.
        if !self.down.load(Ordering::Relaxed) {
            return false;
        }
        let calm_since = self.failed_at.load(Ordering::Relaxed);
        now.unix.as_secs().saturating_sub(calm_since) >= CALM
            && self.down.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn each_change_is_news_once() {
        let start = Now { mono: Instant::now(), unix: Duration::from_secs(1_800_000_000) };
        let at = |seconds| start.after(Duration::from_secs(seconds));
        let health = Health::default();
        assert!(!health.reached(at(0)), "as expected");
        assert!(health.failed(at(1)));
        assert!(!health.failed(at(2)));
        assert!(!health.reached(at(2 + CALM - 1)), "it may still come and go");
        assert!(!health.failed(at(20)));
        assert!(!health.reached(at(20 + CALM - 1)), "counted from the last failure");
        assert!(health.reached(at(20 + CALM)));
        assert!(!health.reached(at(20 + CALM)));
        assert!(health.failed(at(40)), "the next change");
    }
}
