//! Tables of what is counted by the piece: handshakes, requests, allocations.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{DENIED_MAX, Report, Rounds, Spread, base, samples_of};
use crate::servers::Kind;
use crate::tally::Tally;

/// The rounds of one kind of work.
pub(crate) struct WorkPoint {
    /// What it is, a cell for each of the table's columns.
    pub(crate) what: Vec<String>,
    pub(crate) servers: Rounds<Tally>,
}

impl Report {
    /// A report of work of which `unit` is one: one row for each point and server.
    pub(crate) fn of_work(columns: &[&str], unit: &str, points: &[WorkPoint]) -> Self {
        let base = base(&points[0].servers);
        Self {
            table: table(columns, unit, points, base),
            points: points.iter().map(|point| point.json(columns, base)).collect(),
            base,
            disturbed: points.iter().any(WorkPoint::disturbed),
        }
    }
}

impl WorkPoint {
    fn disturbed(&self) -> bool {
        let mut servers = self.servers.iter();
        servers
            .any(|(_, samples)| Spread::of(samples.iter().map(Tally::denied)).median > DENIED_MAX)
    }

    fn ratio(&self, samples: &[Tally], base: Kind) -> Spread {
        Spread::of_ratios(samples, samples_of(&self.servers, base), Tally::cost)
    }

    fn row(&self, text: &mut String, kind: Kind, samples: &[Tally], base: Kind) {
        let spread = |of: fn(&Tally) -> f64| Spread::of(samples.iter().map(of));
        let (cost, ratio) = (spread(Tally::cost), self.ratio(samples, base));
        self.what.iter().for_each(|cell| *text += &format!("| {cell} "));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {kind:<9} | {:>6.2} | {:.2} .. {:.2} | {:.3} | {:.3} .. {:.3} | {:>6.0} | {:>6.0} | \
             {:>3.0}% | {:.0}% |",
            cost.median,
            cost.min,
            cost.max,
            ratio.median,
            ratio.min,
            ratio.max,
            spread(Tally::per_core).median,
            spread(Tally::rate).median,
            100.0 * spread(Tally::busy).median,
            100.0 * spread(Tally::denied).median,
        );
    }

    fn json(&self, columns: &[&str], base: Kind) -> Value {
        let servers = self.servers.iter().map(|(kind, samples)| {
            let rounds = samples.iter().map(|sample| {
                json!({
                    "cpu_microseconds": sample.cost(), "seconds": sample.seconds,
                    "done": sample.done, "rate": sample.rate(),
                    "cpu_nanoseconds": sample.cpu, "waited_nanoseconds": sample.waited,
                })
            });
            json!({
                "server": kind.to_string(),
                "cpu_microseconds": Spread::of(samples.iter().map(Tally::cost)).json(),
                "ratio": self.ratio(samples, base).json(),
                "rounds": rounds.collect::<Vec<_>>(),
            })
        });
        let servers = servers.collect::<Vec<_>>();
        let mut point = json!({ "servers": servers });
        for (column, cell) in columns.iter().zip(&self.what) {
            point[*column] = cell.as_str().into();
        }
        point
    }
}

fn table(columns: &[&str], unit: &str, points: &[WorkPoint], base: Kind) -> String {
    let head: String = columns.iter().map(|column| format!("| {column} ")).collect();
    let rule = "|---".repeat(columns.len());
    let mut text = format!(
        "{head}| server | CPU us per {unit} | min .. max | x {base} | min .. max | \
         per CPU second | per second | busy | waited |\n\
         {rule}|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for point in points {
        for (kind, samples) in &point.servers {
            point.row(&mut text, *kind, samples, base);
        }
    }
    text
}
