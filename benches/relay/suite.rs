//! The tables of docs/benchmarks.md, each a command line of its own.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::options::{Options, Plan};
use crate::{Outcome, carry_out, report};

/// A table of the page.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Part {
    /// UDP, one packet at a time.
    Relay,
    /// UDP in trains.
    Trains,
    /// Trains for receivers that take packets one by one.
    TrainsNoGro,
    /// Send and Data indications.
    Indications,
    /// Between two allocations.
    RelayToRelay,
    /// Latency under a paced load.
    Latency,
    /// Clients on TCP and TLS.
    Streams,
    /// TLS handshakes.
    Handshakes,
    /// Lives of allocations.
    Allocate,
    /// Binding requests.
    Binding,
    /// Memory of allocations.
    Memory,
    /// Ten to ten thousand allocations.
    Scaling,
}

impl Part {
    /// The arguments that measure it: in full, and what is other with `--quick`.
    fn arguments(self) -> (&'static str, &'static str) {
        match self {
            Self::Relay => (
                "--servers coturn,sturn,forwarder,webrtc-rs --seconds 0.7",
                "--rounds 1 --seconds 0.3 --allocations 1,100",
            ),
            Self::Trains => (
                "--train 8 --payload 160,1200 --allocations 1,100 --directions up,down \
                 --servers coturn,sturn,forwarder,forwarder-gso --rounds 3 --seconds 0.5",
                "--rounds 1 --seconds 0.3 --allocations 100",
            ),
            Self::TrainsNoGro => (
                "--train 8 --no-gro --payload 160,1200 --allocations 1,100 --directions up,down \
                 --servers coturn,sturn,forwarder,forwarder-gso --rounds 3 --seconds 0.5",
                "--rounds 1 --seconds 0.3 --allocations 100 --payload 1200",
            ),
            Self::Indications => (
                "--by send --allocations 100 --directions up,down \
                 --servers coturn,sturn,webrtc-rs --seconds 0.7",
                "--rounds 1 --seconds 0.3",
            ),
            Self::RelayToRelay => (
                "--relay-to-relay --servers coturn,sturn,webrtc-rs --seconds 0.7",
                "--rounds 1 --seconds 0.3",
            ),
            Self::Latency => (
                "--rate 20000 --allocations 100 --directions up,down --seconds 1 \
                 --servers coturn,sturn,forwarder,webrtc-rs",
                "--rounds 1 --seconds 0.5",
            ),
            Self::Streams => (
                "--transport tcp,tls --payload 160,1200 --allocations 1,100 --rounds 3 \
                 --seconds 0.7",
                "--rounds 1 --seconds 0.3 --allocations 100 --directions both",
            ),
            Self::Handshakes => {
                ("--work handshakes --rounds 3 --seconds 1", "--rounds 1 --seconds 0.5")
            }
            Self::Allocate => (
                "--work allocate --servers coturn,sturn,webrtc-rs --seconds 1",
                "--rounds 1 --seconds 0.5",
            ),
            Self::Binding => (
                "--work binding --servers coturn,sturn,webrtc-rs --seconds 1",
                "--rounds 1 --seconds 0.5",
            ),
            Self::Memory => (
                "--work memory --servers coturn,sturn,webrtc-rs --rounds 3",
                "--rounds 1 --allocations 2000",
            ),
            Self::Scaling => (
                "--work scaling --rounds 3 --seconds 0.7",
                "--rounds 1 --seconds 0.3 --allocations 10,1000",
            ),
        }
    }

    /// Its name in the page and on the command line.
    fn name(self) -> String {
        let value = self.to_possible_value().expect("no part is hidden");
        value.get_name().to_owned()
    }
}

/// Measures the tables that are asked for, and prints and writes each when it is done.
/// Returns as JSON what came of each: one that fails does not cost the others, but is told
/// at once, and is one of the names returned.
pub(crate) fn run(options: &Options) -> Outcome<(Vec<Value>, Vec<String>)> {
    let all = Part::value_variants();
    let parts = if options.table.is_empty() { all } else { &options.table };
    let (mut tables, mut failed) = (Vec::new(), Vec::new());
    for part in parts {
        let (full, quick) = part.arguments();
        let mut arguments = split(full);
        if options.quick {
            override_with(&mut arguments, &split(quick));
        }
        override_with(&mut arguments, &Options::overrides());
        let (plan, name) = (Plan::parse(&arguments)?, part.name());
        match one(&name, &plan, &arguments, options.write.as_deref()) {
            Ok(table) => tables.push(table),
            Err(error) => {
                eprintln!("error: table {name}: {error}");
                failed.push(name);
            }
        }
    }
    Ok((tables, failed))
}

fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Puts options, each with its value, in the place of those of the same names.
fn override_with(arguments: &mut Vec<String>, others: &[String]) {
    for option in others.chunks_exact(2) {
        match arguments.iter().position(|argument| *argument == option[0]) {
            Some(at) => arguments[at + 1].clone_from(&option[1]),
            None => arguments.extend_from_slice(option),
        }
    }
}

fn one(name: &str, plan: &Plan, arguments: &[String], page: Option<&Path>) -> Outcome<Value> {
    let command = report::command(arguments);
    println!("\n{name}: {command}\n");
    let report = carry_out(plan)?;
    println!("{}", report.table);
    if let Some(page) = page {
        let machine = report::machine(&plan.all_servers())?;
        report::write_into(page, name, &machine, &command, &report.table)?;
    }
    Ok(json!({
        "table": name,
        "command": command,
        "base": report.base.to_string(),
        "points": report.points,
    }))
}
