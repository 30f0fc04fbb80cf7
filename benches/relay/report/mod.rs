//! What was measured, as tables for people, as JSON and in a page.

mod memory;
mod relay;
mod work;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::Outcome;
use crate::servers::{Kind, version};

pub(crate) use memory::{Holding, MemoryPoint};
pub(crate) use relay::Point;
pub(crate) use work::WorkPoint;

/// A server kept from its core for more of the time than this was not alone.
pub(crate) const DENIED_MAX: f64 = 0.1;

/// What came of a plan.
pub(crate) struct Report {
    /// For people, in Markdown.
    pub(crate) table: String,
    /// Everything, every round included.
    pub(crate) points: Value,
    /// The server that the others are compared with.
    pub(crate) base: Kind,
    /// Whether a server was kept from its core in most rounds.
    pub(crate) disturbed: bool,
}

/// Median, minimum and maximum of the rounds.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { median: f64::midpoint(low, high), min: values[0], max: values[values.len() - 1] }
    }

    /// Spread of the ratios within a round.
    fn of_ratios<S>(samples: &[S], base: &[S], cost: fn(&S) -> f64) -> Self {
        Self::of(samples.iter().zip(base).map(|(sample, base)| cost(sample) / cost(base)))
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// For each server one sample a round, in the order of the rounds.
pub(crate) type Rounds<S> = Vec<(Kind, Vec<S>)>;

/// No rounds yet.
pub(crate) fn no_rounds<S>(servers: &[Kind]) -> Rounds<S> {
    servers.iter().map(|kind| (*kind, Vec::new())).collect()
}

fn samples_of<S>(rounds: &Rounds<S>, kind: Kind) -> &[S] {
    rounds.iter().find(|(of, _)| *of == kind).map_or(&[], |(_, samples)| samples)
}

/// coturn if it was measured, else the first.
fn base<S>(rounds: &Rounds<S>) -> Kind {
    let named = rounds.iter().find(|(kind, _)| *kind == Kind::Coturn);
    named.unwrap_or(&rounds[0]).0
}

/// The command that measures what these arguments say.
pub(crate) fn command(arguments: &[String]) -> String {
    let program = ["scripts/bench".to_owned()];
    program.iter().chain(arguments).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Replaces the part of `page` between the markers of the table named `name`.
pub(crate) fn write_into(
    page: &Path,
    name: &str,
    machine: &[String],
    command: &str,
    table: &str,
) -> Outcome<()> {
    let begin = format!("<!-- {name}: begin, written by scripts/bench --write -->\n");
    let end = format!("<!-- {name}: end -->");
    let text = fs::read_to_string(page)?;
    let missing = || format!("{}: no {} .. {end}", page.display(), begin.trim());
    let (before, rest) = text.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    let list: String = machine.iter().map(|line| format!("- {line}\n")).collect();
    let part = format!("{list}- Command: `{command}`\n\n{table}");
    Ok(fs::write(page, format!("{before}{begin}\n{part}\n{end}{after}"))?)
}

/// The machine and the versions, a line each.
pub(crate) fn machine(servers: &[Kind]) -> Outcome<Vec<String>> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(": ").map_or("?", |(_, value)| value).to_owned()
    };
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let versions: Vec<String> =
        servers.iter().map(|kind| version(*kind)).collect::<Outcome<_>>()?;
    Ok(vec![
        format!(
            "CPU: {} (family {}, model {}), {cores} cores; server on core 0, load on core 1",
            field("model name"),
            field("cpu family"),
            field("model\t"),
        ),
        format!("Kernel: {}", kernel.trim()),
        format!("Servers: {}; commit {}", versions.join(", "), commit.unwrap_or_default()),
    ])
}
