//! Tables of relayed packets.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{DENIED_MAX, Report, Rounds, Spread, base, samples_of};
use crate::clients::Transport;
use crate::generator::{Latency, Sample};
use crate::options::Way;
use crate::servers::Kind;

/// The rounds of one point: transport, payload, allocations and directions.
pub(crate) struct Point {
    pub(crate) transport: Transport,
    /// Bytes of application data in a packet.
    pub(crate) payload: usize,
    pub(crate) allocations: usize,
    pub(crate) way: Way,
    pub(crate) servers: Rounds<Sample>,
}

impl Report {
    /// A report of relaying: one row for each point and server.
    pub(crate) fn of_relaying(points: &[Point]) -> Self {
        let base = base(&points[0].servers);
        let paced = points[0].servers[0].1[0].latency.is_some();
        Self {
            table: table(points, base, paced),
            points: points.iter().map(|point| point.json(base)).collect(),
            base,
            disturbed: points.iter().any(Point::disturbed),
        }
    }
}

impl Point {
    /// Whether a server was kept from its core in most rounds.
    fn disturbed(&self) -> bool {
        let mut servers = self.servers.iter();
        servers
            .any(|(_, samples)| Spread::of(samples.iter().map(Sample::denied)).median > DENIED_MAX)
    }

    /// Spread over the rounds of a server's cost divided by that of `base`.
    fn ratio(&self, samples: &[Sample], base: Kind) -> Spread {
        Spread::of_ratios(samples, samples_of(&self.servers, base), Sample::cost)
    }

    fn row(&self, text: &mut String, kind: Kind, samples: &[Sample], base: Kind) {
        let spread = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
        let (cost, ratio) = (spread(Sample::cost), self.ratio(samples, base));
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "| {} | {:>4} | {:>5} | {:<4} | {kind:<9} | {:>6.3} | {:.3} .. {:.3} | {:.3} | \
             {:.3} .. {:.3} | {:>7.0} | {:>3.0}% | {:.0}% | {:.2}% |",
            self.transport,
            self.payload,
            self.allocations,
            self.way.to_string(),
            cost.median,
            cost.min,
            cost.max,
            ratio.median,
            ratio.min,
            ratio.max,
            spread(Sample::rate).median,
            100.0 * spread(Sample::busy).median,
            100.0 * spread(Sample::denied).median,
            100.0 * spread(Sample::loss).median,
        );
        if let Some((median, p99)) = latencies(samples) {
            let _ = write!(text, " {:>4.0} | {:>5.0} |", median.median, p99.median);
        }
        text.push('\n');
    }

    fn json(&self, base: Kind) -> Value {
        let server = |kind: Kind, samples: &[Sample]| {
            json!({
                "server": kind.to_string(),
                "cpu_seconds_per_million": Spread::of(samples.iter().map(Sample::cost)).json(),
                "delivered_per_second": Spread::of(samples.iter().map(Sample::rate)).json(),
                "loss": Spread::of(samples.iter().map(Sample::loss)).json(),
                "ratio": self.ratio(samples, base).json(),
                "rounds": samples.iter().map(round).collect::<Vec<_>>(),
            })
        };
        let servers = self.servers.iter().map(|(kind, samples)| server(*kind, samples));
        json!({
            "transport": self.transport.to_string(),
            "payload": self.payload,
            "allocations": self.allocations,
            "direction": self.way.to_string(),
            "servers": servers.collect::<Vec<_>>(),
        })
    }
}

fn table(points: &[Point], base: Kind, paced: bool) -> String {
    let mut text = format!(
        "| clients | bytes | allocations | direction | server | CPU s per million | min .. max | \
         x {base} | min .. max | pps | busy | waited | loss |"
    );
    let mut rule = "|---|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|".to_owned();
    if paced {
        text += " p50 us | p99 us |";
        rule += "--:|--:|";
    }
    text = format!("{text}\n{rule}\n");
    for point in points {
        for (kind, samples) in &point.servers {
            point.row(&mut text, *kind, samples, base);
        }
    }
    text
}

/// Median and 99th percentile of the time on the way, over the rounds.
fn latencies(samples: &[Sample]) -> Option<(Spread, Spread)> {
    let all: Option<Vec<Latency>> = samples.iter().map(|sample| sample.latency).collect();
    let all = all.filter(|all| !all.is_empty())?;
    let spread = |of: fn(&Latency) -> f64| Spread::of(all.iter().map(of));
    Some((spread(|latency| latency.median), spread(|latency| latency.p99)))
}

fn round(sample: &Sample) -> Value {
    json!({
        "cpu_seconds_per_million": sample.cost(), "cpu_nanoseconds": sample.cpu,
        "waited_nanoseconds": sample.waited, "seconds": sample.seconds,
        "delivered": sample.delivered, "lost": sample.lost, "late": sample.late,
        "latency_microseconds": sample.latency.map(|latency| {
            json!({ "median": latency.median, "p99": latency.p99 })
        }),
    })
}
