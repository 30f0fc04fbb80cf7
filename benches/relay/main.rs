//! Servers side by side: the CPU time and the memory that their work takes.
//!
//! Each round starts each server in turn on one core and gives it work from the other
//! core. Most of it is relaying: N allocations are opened with long-term credentials,
//! and packets go through them up (client to peer), down, or both at once. What is
//! compared is the CPU time of all the server's threads per packet that came out, or
//! per handshake, request or allocation, or its memory per allocation.
//! `docs/benchmarks.md` tells how to read it; `scripts/bench` runs it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report on standard output is what it is for"
)]

mod certificate;
mod clients;
mod control;
mod exchanges;
mod fleet;
#[allow(dead_code, reason = "the wakeup benchmark nests it in a runtime")]
mod forwarder;
mod generator;
mod handshakes;
mod options;
mod packet;
mod relaying;
mod report;
mod requests;
mod servers;
mod spawn;
mod streams;
mod suite;
mod sys;
mod tally;
mod tls;
mod webrtc_rs;
mod work;

use std::env;
use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use exchanges::Cycle;
use forwarder::Forwarder;
use options::{Options, Plan, Work};
use report::Report;
use servers::{FORWARD, FORWARD_TRAINS, WEBRTC_RS};
use spawn::GENERATOR_CORE;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Before each measurement, so that caches and windows are as they stay.
const WARM_UP: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    if serve_as_asked()? {
        return Ok(());
    }
    let (options, own_plan) = Options::read()?;
    sys::pin(GENERATOR_CORE)?;
    let machine = report::machine(&options.plan.all_servers())?;
    machine.iter().for_each(|line| println!("{line}"));
    let (tables, failed) = if own_plan {
        let report = carry_out(&options.plan)?;
        println!("\n{}", report.table);
        (vec![json!({ "base": report.base.to_string(), "points": report.points })], Vec::new())
    } else {
        suite::run(&options)?
    };
    if let Some(file) = &options.json {
        let arguments: Vec<String> =
            env::args().skip(1).filter(|argument| argument != "--bench").collect();
        let command = report::command(&arguments);
        let report = json!({ "machine": machine, "command": command, "tables": tables });
        fs::write(file, format!("{report:#}\n"))?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("not measured: {}", failed.join(", ")).into())
}

/// Carries out a plan.
fn carry_out(plan: &Plan) -> Outcome<Report> {
    let report = match plan.work {
        Work::Relay | Work::Scaling => relaying::measure(plan),
        Work::Allocate => work::measure_exchanges(plan, Cycle::Allocation),
        Work::Binding => work::measure_exchanges(plan, Cycle::Binding),
        Work::Handshakes => work::measure_handshakes(plan),
        Work::Memory => work::measure_memory(plan),
    }?;
    if report.disturbed {
        eprintln!("warning: other processes ran on the server's core; see the column \"waited\"");
    }
    Ok(report)
}

/// The order of the servers alternates, so that none is always warm.
fn in_turn(servers: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..servers).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Is a server of its own for ever, if that is what the arguments say.
fn serve_as_asked() -> Outcome<bool> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [mode @ (FORWARD | FORWARD_TRAINS), count, client_port, peer_port] => {
            let (client_port, peer_port) = (client_port.parse()?, peer_port.parse()?);
            let offload = mode == FORWARD_TRAINS;
            let mut forwarder = Forwarder::bind(count.parse()?, client_port, peer_port, offload)?;
            forwarder.announce()?;
            forwarder.run()?;
            Ok(true)
        }
        [WEBRTC_RS, address] => {
            webrtc_rs::serve(address.parse()?)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}
