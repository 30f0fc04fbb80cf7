//! Round-trip times, jitter and loss of packets that came back.

use std::time::Duration;

use serde::Serialize;

/// What a run of numbered packets has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Statistics {
    /// Packets sent.
    pub(super) sent: usize,
    /// Packets that came back.
    pub(super) received: usize,
    /// Round-trip times, if any packet came back.
    pub(super) rtt: Option<Rtt>,
    /// Interarrival jitter (RFC 3550 section 6.4.1), in milliseconds.
    pub(super) jitter_ms: f64,
}

/// Round-trip times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Rtt {
    pub(super) min_ms: f64,
    pub(super) median_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) max_ms: f64,
}

impl Statistics {
    /// Of one packet each: when it came back after its sending, `None` if it did not.
    pub(super) fn of(packets: &[Option<Duration>]) -> Self {
        let in_order: Vec<f64> = packets.iter().flatten().map(|rtt| milliseconds(*rtt)).collect();
        Self {
            sent: packets.len(),
            received: in_order.len(),
            rtt: rtt(&in_order),
            jitter_ms: round(jitter(&in_order)),
        }
    }

    /// The part of packets that did not come back, 0 to 1.
    pub(super) fn loss(&self) -> f64 {
        if self.sent == 0 {
            return 0.0;
        }
        let lost = self.sent - self.received;
        round(lost as f64 / self.sent as f64)
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1e3)
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn rtt(in_order: &[f64]) -> Option<Rtt> {
    let mut sorted = in_order.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Rtt {
        min_ms: *sorted.first()?,
        median_ms: percentile(&sorted, 50),
        p95_ms: percentile(&sorted, 95),
        max_ms: *sorted.last()?,
    })
}

/// The smallest value that so many percent of all values do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// The running mean of RFC 3550 over the differences of consecutive transit times.
/// Here the transit is the whole round trip, so one clock measures both ends.
fn jitter(in_order: &[f64]) -> f64 {
    in_order
        .windows(2)
        .fold(0.0, |jitter, pair| jitter + ((pair[1] - pair[0]).abs() - jitter) / 16.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(values: &[u64]) -> Vec<Option<Duration>> {
        values.iter().map(|value| Some(Duration::from_millis(*value))).collect()
    }

    #[test]
    fn nothing_sent_and_nothing_back() {
        let none = Statistics::of(&[]);
        assert_eq!((none.sent, none.received, none.rtt, none.loss()), (0, 0, None, 0.0));
        let lost = Statistics::of(&[None, None]);
        assert_eq!((lost.sent, lost.received, lost.rtt, lost.loss()), (2, 0, None, 1.0));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        let rtt = Statistics::of(&ms(&hundred)).rtt.unwrap();
        assert_eq!(rtt, Rtt { min_ms: 1.0, median_ms: 50.0, p95_ms: 95.0, max_ms: 100.0 });
        let one = Statistics::of(&ms(&[7])).rtt.unwrap();
        assert_eq!(one, Rtt { min_ms: 7.0, median_ms: 7.0, p95_ms: 7.0, max_ms: 7.0 });
    }

    #[test]
    fn loss_is_a_fraction_and_gaps_do_not_count_as_jitter() {
        let mut packets = ms(&[10, 10, 10]);
        packets.insert(1, None);
        let statistics = Statistics::of(&packets);
        assert_eq!((statistics.received, statistics.loss(), statistics.jitter_ms), (3, 0.25, 0.0));
    }

    #[test]
    fn jitter_is_that_of_rfc_3550() {
        // |D| is 16 each time: 16/16 = 1, then 1 + 15/16.
        assert_eq!(Statistics::of(&ms(&[10, 26, 10])).jitter_ms, 1.938);
    }
}
