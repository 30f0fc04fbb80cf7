//! Latencies, counted in buckets: any number of them in a fixed space, each known to
//! within 1.6 %.

use std::time::Duration;

/// Buckets for each power of two: the width of a bucket is a 64th of its value.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Longer than this is counted as this: about 73 minutes.
const LONGEST: u64 = (1 << 42) - 1;

/// How often each latency has occurred.
#[derive(Clone)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    longest: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; bucket(LONGEST) + 1], count: 0, sum: 0, longest: 0 }
    }

    /// Counts one.
    #[inline]
    pub(super) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST).min(LONGEST);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.sum += u128::from(nanos);
        self.longest = self.longest.max(nanos);
    }

    /// Adds what another one has counted.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += count;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.longest = self.longest.max(other.longest);
    }

    /// The latency that a share (0 to 1) of all do not exceed; `None` without any.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut counted = 0;
        let found = self.buckets.iter().position(|count| {
            counted += count;
            counted >= rank
        })?;
        Some(Duration::from_nanos(highest(found).min(self.longest)))
    }

    /// The mean; `None` without any.
    pub(super) fn mean(&self) -> Option<Duration> {
        let mean = self.sum.checked_div(u128::from(self.count))?;
        Some(Duration::from_nanos(u64::try_from(mean).unwrap_or(LONGEST)))
    }

    /// The longest; `None` without any.
    pub(super) fn longest(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.longest))
    }
}

/// The bucket of a number of nanoseconds: one each up to twice [`STEPS`], then
/// [`STEPS`] for each power of two.
#[inline]
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEP_BITS + 1);
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

/// The largest number of nanoseconds in a bucket.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - shift * STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_a_bucket_of_its_size() {
        let mut last = 0;
        for nanos in
            (0..1 << 14).chain((14..42).flat_map(|bits| {
                [(1 << bits) - 1, 1 << bits, (1 << bits) + 1, (1 << bits) * 3 / 2]
            }))
        {
            let (index, top) = (bucket(nanos), highest(bucket(nanos)));
            assert!(top >= nanos && top - nanos <= nanos / STEPS, "{nanos}: up to {top}");
            if nanos < 1 << 14 {
                assert!(index == last || index == last + 1, "{nanos}: {index} after {last}");
                last = index;
            }
        }
    }

    #[test]
    fn quantiles_of_a_thousand() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), None);
        assert_eq!((histogram.mean(), histogram.longest()), (None, None));
        (1..=1000).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        for (share, expected) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let found = histogram.quantile(share).unwrap();
            let expected = Duration::from_micros(expected);
            assert!(found >= expected && found - expected <= expected / 60, "{share}: {found:?}");
        }
        assert_eq!(histogram.longest(), Some(Duration::from_millis(1)));
        assert_eq!(histogram.mean(), Some(Duration::from_nanos(500_500)));
        let mut sum = Histogram::new();
        sum.add(&histogram);
        assert_eq!(sum.quantile(0.5), histogram.quantile(0.5));
    }

    #[test]
    fn the_longest_does_not_overflow() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.longest(), Some(Duration::from_nanos(LONGEST)));
    }
}
