//! What was measured, as a table for people, as JSON and into a page.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::certificate::KeyType;
use crate::clients::Transport;
use crate::generator::Sample;
use crate::handshakes::{self, Version};
use crate::servers::{Kind, version};
use crate::{DENIED_MAX, Options, Outcome, Way};

/// The rounds of one point: transport, payload, allocations and directions.
pub(crate) struct Point {
    pub(crate) transport: Transport,
    /// Bytes of application data in a packet.
    pub(crate) payload: usize,
    pub(crate) allocations: usize,
    pub(crate) way: Way,
    /// For each server one sample a round, in the order of the rounds.
    pub(crate) servers: Vec<(Kind, Vec<Sample>)>,
}

impl Point {
    /// Whether a server was kept from its core in most rounds.
    pub(crate) fn disturbed(&self) -> bool {
        let mut servers = self.servers.iter();
        servers
            .any(|(_, samples)| Spread::of(samples.iter().map(Sample::denied)).median > DENIED_MAX)
    }

    fn of(&self, kind: Kind) -> &[Sample] {
        self.servers.iter().find(|(of, _)| *of == kind).map_or(&[], |(_, samples)| samples)
    }

    /// Spread over the rounds of a server's cost divided by that of `base`.
    fn ratio(&self, kind: Kind, base: Kind) -> Spread {
        let pairs = self.of(kind).iter().zip(self.of(base));
        Spread::of(pairs.map(|(sample, base)| sample.cost() / base.cost()))
    }
}

/// The rounds of one kind of handshake.
pub(crate) struct HandshakePoint {
    pub(crate) key_type: KeyType,
    pub(crate) version: Version,
    /// For each server one sample a round, in the order of the rounds.
    pub(crate) servers: Vec<(Kind, Vec<handshakes::Sample>)>,
}

impl HandshakePoint {
    fn of(&self, kind: Kind) -> &[handshakes::Sample] {
        self.servers.iter().find(|(of, _)| *of == kind).map_or(&[], |(_, samples)| samples)
    }

    fn ratio(&self, kind: Kind, base: Kind) -> Spread {
        let pairs = self.of(kind).iter().zip(self.of(base));
        Spread::of(pairs.map(|(sample, base)| sample.cost() / base.cost()))
    }
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

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// The server that the others are compared with.
fn base(options: &Options) -> Kind {
    let named = options.servers.iter().find(|kind| **kind == Kind::Coturn);
    *named.unwrap_or(&options.servers[0])
}

/// The table, one row for each point and server.
pub(crate) fn table(points: &[Point], options: &Options) -> String {
    let base = base(options);
    let mut text = format!(
        "| clients | bytes | allocations | direction | server | CPU s per million | min .. max | x {base} | \
         min .. max | pps | busy | waited | loss |\n|---|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for point in points {
        for (kind, samples) in &point.servers {
            let spread = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
            let (cost, ratio) = (spread(Sample::cost), point.ratio(*kind, base));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {:>4} | {:>4} | {:<4} | {kind:<9} | {:>6.3} | {:.3} .. {:.3} | {:.3} | \
                 {:.3} .. {:.3} | {:>7.0} | {:>3.0}% | {:.0}% | {:.2}% |",
                point.transport,
                point.payload,
                point.allocations,
                point.way.to_string(),
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
        }
    }
    text
}

/// Everything, every round included.
pub(crate) fn json(points: &[Point], options: &Options) -> Outcome<Value> {
    let base = base(options);
    let server = |point: &Point, kind: Kind, samples: &[Sample]| {
        let rounds = samples.iter().map(|sample| {
            json!({
                "cpu_seconds_per_million": sample.cost(), "cpu_nanoseconds": sample.cpu, "waited_nanoseconds": sample.waited,
                "seconds": sample.seconds, "delivered": sample.delivered,
                "lost": sample.lost, "late": sample.late,
            })
        });
        json!({
            "server": kind.to_string(),
            "cpu_seconds_per_million": Spread::of(samples.iter().map(Sample::cost)).json(),
            "delivered_per_second": Spread::of(samples.iter().map(Sample::rate)).json(),
            "loss": Spread::of(samples.iter().map(Sample::loss)).json(),
            "ratio": point.ratio(kind, base).json(),
            "rounds": rounds.collect::<Vec<_>>(),
        })
    };
    let points = points.iter().map(|point| {
        let servers = point.servers.iter().map(|(kind, samples)| server(point, *kind, samples));
        json!({
            "transport": point.transport.to_string(),
            "payload": point.payload,
            "allocations": point.allocations,
            "direction": point.way.to_string(),
            "servers": servers.collect::<Vec<_>>(),
        })
    });
    Ok(json!({
        "machine": machine(options)?,
        "command": command(),
        "base": base.to_string(),
        "train": options.train,
        "rate": options.rate,
        "window": options.window,
        "points": points.collect::<Vec<_>>(),
    }))
}

/// The table of handshakes, one row for each kind and server.
pub(crate) fn handshake_table(points: &[HandshakePoint], options: &Options) -> String {
    let base = base(options);
    let mut text = format!(
        "| certificate | version | server | CPU us per handshake | min .. max | x {base} | \
         min .. max | per CPU second | busy | waited |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for point in points {
        for (kind, samples) in &point.servers {
            let spread = |of: fn(&handshakes::Sample) -> f64| Spread::of(samples.iter().map(of));
            let cost = spread(handshakes::Sample::cost);
            let ratio = point.ratio(*kind, base);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {kind:<9} | {:>6.1} | {:.1} .. {:.1} | {:.3} | {:.3} .. {:.3} | \
                 {:>5.0} | {:>3.0}% | {:.0}% |",
                point.key_type,
                point.version,
                cost.median,
                cost.min,
                cost.max,
                ratio.median,
                ratio.min,
                ratio.max,
                spread(handshakes::Sample::per_core).median,
                100.0 * spread(handshakes::Sample::busy).median,
                100.0 * spread(handshakes::Sample::denied).median,
            );
        }
    }
    text
}

/// Everything about handshakes, every round included.
pub(crate) fn handshake_json(points: &[HandshakePoint], options: &Options) -> Outcome<Value> {
    let base = base(options);
    let points = points.iter().map(|point| {
        let servers = point.servers.iter().map(|(kind, samples)| {
            let rounds = samples.iter().map(|sample| {
                json!({
                    "cpu_microseconds_per_handshake": sample.cost(), "seconds": sample.seconds,
                    "handshakes": sample.handshakes, "rate": sample.rate(),
                    "waited_nanoseconds": sample.waited,
                })
            });
            json!({
                "server": kind.to_string(),
                "cpu_microseconds_per_handshake":
                    Spread::of(samples.iter().map(handshakes::Sample::cost)).json(),
                "ratio": point.ratio(*kind, base).json(),
                "rounds": rounds.collect::<Vec<_>>(),
            })
        });
        json!({
            "certificate": point.key_type.to_string(),
            "version": point.version.to_string(),
            "servers": servers.collect::<Vec<_>>(),
        })
    });
    Ok(json!({
        "machine": machine(options)?,
        "command": command(),
        "base": base.to_string(),
        "points": points.collect::<Vec<_>>(),
    }))
}

/// Replaces the part of `page` between the markers of the table named `name`.
pub(crate) fn write_into(page: &Path, name: &str, table: &str, options: &Options) -> Outcome<()> {
    let begin = format!("<!-- {name}: begin, written by scripts/bench --write -->\n");
    let end = format!("<!-- {name}: end -->");
    let text = fs::read_to_string(page)?;
    let missing = || format!("{}: no {} .. {end}", page.display(), begin.trim());
    let (before, rest) = text.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    let list: String = machine(options)?.iter().map(|line| format!("- {line}\n")).collect();
    let part = format!("{list}- Command: `{}`\n\n{table}", command());
    Ok(fs::write(page, format!("{before}{begin}\n{part}\n{end}{after}"))?)
}

/// The machine and the versions, a line each.
pub(crate) fn machine(options: &Options) -> Outcome<Vec<String>> {
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
        options.servers.iter().map(|kind| version(*kind)).collect::<Outcome<_>>()?;
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

fn command() -> String {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    ["scripts/bench".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}
