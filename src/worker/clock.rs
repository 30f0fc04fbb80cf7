//! The only place that reads the time for a shard: once per turn of the loop.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::net::Now;

pub(super) struct Clock;

impl Clock {
    pub(super) fn start() -> Self {
        Self
    }

    pub(super) fn read(&self) -> Now {
        // A clock before 1970 has no valid time-limited credentials anyway.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Instant::now(), unix }
    }

    pub(super) fn until(&self, at: Instant) -> Duration {
        at.saturating_duration_since(Instant::now())
    }
}
