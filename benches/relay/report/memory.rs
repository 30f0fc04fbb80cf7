//! Tables of memory.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Report, Rounds, Spread, base, samples_of};
use crate::servers::Kind;
use crate::sys::Memory;

/// What a server had in memory without allocations and with them.
#[derive(Clone, Copy)]
pub(crate) struct Holding {
    pub(crate) allocations: usize,
    pub(crate) before: Memory,
    pub(crate) after: Memory,
}

impl Holding {
    /// Bytes of resident memory that an allocation added.
    pub(crate) fn cost(&self) -> f64 {
        self.per_allocation(|memory| memory.resident)
    }

    fn anonymous(&self) -> f64 {
        self.per_allocation(|memory| memory.anonymous)
    }

    fn per_allocation(&self, of: fn(&Memory) -> u64) -> f64 {
        (of(&self.after) as f64 - of(&self.before) as f64) / self.allocations as f64
    }
}

/// The rounds of one number of allocations.
pub(crate) struct MemoryPoint {
    pub(crate) allocations: usize,
    pub(crate) servers: Rounds<Holding>,
}

impl Report {
    /// A report of memory: one row for each number of allocations and server.
    pub(crate) fn of_memory(points: &[MemoryPoint]) -> Self {
        let base = base(&points[0].servers);
        Self {
            table: table(points, base),
            points: points.iter().map(|point| point.json(base)).collect(),
            base,
            disturbed: false,
        }
    }
}

impl MemoryPoint {
    fn ratio(&self, samples: &[Holding], base: Kind) -> Spread {
        Spread::of_ratios(samples, samples_of(&self.servers, base), Holding::cost)
    }

    fn row(&self, text: &mut String, kind: Kind, samples: &[Holding], base: Kind) {
        let spread = |of: fn(&Holding) -> f64| Spread::of(samples.iter().map(of));
        let (cost, ratio) = (spread(Holding::cost), self.ratio(samples, base));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {:>5} | {kind:<9} | {:>6.1} | {:>6.1} | {:>6.0} | {:.0} .. {:.0} | {:.3} | \
             {:.3} .. {:.3} | {:>6.0} |",
            self.allocations,
            mebibytes(spread(|holding| holding.before.resident as f64).median),
            mebibytes(spread(|holding| holding.after.resident as f64).median),
            cost.median,
            cost.min,
            cost.max,
            ratio.median,
            ratio.min,
            ratio.max,
            spread(Holding::anonymous).median,
        );
    }

    fn json(&self, base: Kind) -> Value {
        let memory =
            |memory: Memory| json!({ "resident": memory.resident, "anonymous": memory.anonymous });
        let servers = self.servers.iter().map(|(kind, samples)| {
            let rounds = samples.iter().map(
                |holding| json!({ "before": memory(holding.before), "after": memory(holding.after) }),
            );
            json!({
                "server": kind.to_string(),
                "resident_per_allocation": Spread::of(samples.iter().map(Holding::cost)).json(),
                "ratio": self.ratio(samples, base).json(),
                "rounds": rounds.collect::<Vec<_>>(),
            })
        });
        json!({ "allocations": self.allocations, "servers": servers.collect::<Vec<_>>() })
    }
}

fn table(points: &[MemoryPoint], base: Kind) -> String {
    let mut text = format!(
        "| allocations | server | MiB before | MiB with them | bytes each | min .. max | x {base} | \
         min .. max | anonymous bytes each |\n|--:|---|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for point in points {
        for (kind, samples) in &point.servers {
            point.row(&mut text, *kind, samples, base);
        }
    }
    text
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
