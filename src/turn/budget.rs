//! How many unauthenticated answers a source prefix gets over UDP.
//!
//! A UDP source address is not proven, so every answer could be aimed at a
//! victim. A token bucket per IPv4 /24 or IPv6 /48 bounds what the server can be
//! made to send to one network. The buckets are a table of fixed size, indexed by
//! a keyed hash, so that strangers cost no memory and cannot choose whom they
//! collide with.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Instant;

use crate::net::HashSeed;

const BUCKETS: usize = 8192;

/// Token buckets per source prefix.
pub(super) struct AnswerBudget {
    buckets: Vec<Bucket>,
    seed: HashSeed,
    per_second: u32,
    start: Instant,
}

/// Tokens in thousandths, and when they were counted, in milliseconds.
#[derive(Clone, Copy)]
struct Bucket {
    millitokens: u32,
    at_ms: u32,
}

impl AnswerBudget {
    /// `per_second` answers, twice as many in a burst; 0: no limit.
    pub(super) fn new(per_second: u32, seed: HashSeed, start: Instant) -> Self {
        let full = Bucket { millitokens: Self::burst(per_second), at_ms: 0 };
        let count = if per_second == 0 { 0 } else { BUCKETS };
        Self { buckets: vec![full; count], seed, per_second, start }
    }

    fn burst(per_second: u32) -> u32 {
        per_second.saturating_mul(2000)
    }

    /// Takes one answer from the source's budget; false when it is used up.
    pub(super) fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let slot = self.seed.hash_one(prefix(source)) as usize % BUCKETS;
        let now_ms = now.saturating_duration_since(self.start).as_millis() as u32;
        let bucket = &mut self.buckets[slot];
        let gained = now_ms.wrapping_sub(bucket.at_ms).saturating_mul(self.per_second);
        bucket.millitokens =
            bucket.millitokens.saturating_add(gained).min(Self::burst(self.per_second));
        bucket.at_ms = now_ms;
        let enough = bucket.millitokens >= 1000;
        if enough {
            bucket.millitokens -= 1000;
        }
        enough
    }
}

/// The prefix that shares a budget: /24 or /48.
fn prefix(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(u32::from(ip) >> 8),
        IpAddr::V6(ip) => 1 << 63 | (u128::from(ip) >> 80) as u64,
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test starts its own clock")]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn a_prefix_is_bounded_and_recovers_and_others_are_not_touched() {
        let t0 = Instant::now();
        let mut budget = AnswerBudget::new(10, HashSeed::new(3), t0);
        let answered =
            (0..255u8).filter(|i| budget.take(t0, IpAddr::from([192, 0, 2, *i]))).count();
        assert_eq!(answered, 20);
        assert!(budget.take(t0, ip("198.51.100.1")));
        let later = t0 + Duration::from_millis(500);
        assert_eq!((0..50).filter(|_| budget.take(later, ip("192.0.2.9"))).count(), 5);
    }

    #[test]
    fn ipv6_shares_by_48_bits() {
        let t0 = Instant::now();
        let mut budget = AnswerBudget::new(1, HashSeed::new(3), t0);
        assert!(budget.take(t0, ip("2001:db8:1:1::1")));
        assert!(budget.take(t0, ip("2001:db8:1:2::1")));
        assert!(!budget.take(t0, ip("2001:db8:1:3::1")));
        assert!(budget.take(t0, ip("2001:db8:2::1")));
    }

    #[test]
    fn zero_means_no_limit() {
        let mut budget = AnswerBudget::new(0, HashSeed::new(3), Instant::now());
        assert!((0..10_000).all(|_| budget.take(Instant::now(), ip("192.0.2.1"))));
    }
}
