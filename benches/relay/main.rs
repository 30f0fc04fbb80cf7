//! Servers side by side: CPU time per relayed packet.
//!
//! Each round starts each server in turn on one core, opens N allocations on
//! it with long-term credentials, and relays ChannelData through it from the
//! other core: up (client to peer), down, and both at once. What is compared
//! is the CPU time of all the server's threads per packet that came out; with
//! `--handshakes`, per TLS handshake.
//! `docs/benchmarks.md` tells how to read it; `scripts/bench` runs it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report on standard output is what it is for"
)]

mod certificate;
mod clients;
mod control;
mod fleet;
#[allow(dead_code, reason = "the wakeup benchmark nests it in a runtime")]
mod forwarder;
mod generator;
mod handshakes;
mod report;
mod servers;
mod spawn;
mod streams;
mod sys;
mod tls;

use std::env;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use certificate::KeyType;
use clients::{Clients, Transport};
use fleet::{FLOWS_MAX, Fleet};
use forwarder::Forwarder;
use generator::{Direction, Load, PAYLOAD_MAX, PAYLOAD_MIN, Relay, Sample};
use handshakes::Version;
use report::{HandshakePoint, Point};
use servers::{FORWARD, Front, Kind, Server};
use spawn::GENERATOR_CORE;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Before each measurement, so that caches and windows are as they stay.
const WARM_UP: Duration = Duration::from_millis(300);
/// Nothing is refreshed, so a server must be done before a permission ends.
const SERVER_SECONDS_MAX: f64 = 240.0;
/// A point whose loss is above this is measured again.
const LOSS_MAX: f64 = 0.02;
/// A server kept from its core for more of the time than this was not alone.
const DENIED_MAX: f64 = 0.1;
/// Bytes under way to one client on a stream: coturn drops what a client's socket
/// does not take at once when more than some 64 KiB wait for it.
const STREAM_WINDOW: usize = 32 << 10;

/// Compare the CPU time that TURN servers need per relayed packet.
#[derive(Parser)]
#[command(name = "scripts/bench")]
struct Options {
    /// Servers to measure, in the order of the rows.
    #[arg(long, value_delimiter = ',', default_value = "coturn,sturn,forwarder")]
    servers: Vec<Kind>,
    /// Numbers of allocations, each with one channel.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    allocations: Vec<usize>,
    /// Directions to relay in.
    #[arg(long, value_delimiter = ',', default_value = "up,down,both")]
    directions: Vec<Way>,
    /// How clients reach the server.
    #[arg(long, value_delimiter = ',', default_value = "udp")]
    transport: Vec<Transport>,
    /// Measure TLS handshakes instead of relaying.
    #[arg(long)]
    handshakes: bool,
    /// Bytes of application data in a packet.
    #[arg(long, value_delimiter = ',', default_value = "160")]
    payload: Vec<usize>,
    /// Consecutive packets of one allocation.
    #[arg(long, default_value_t = 1)]
    train: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds; the order of the servers alternates.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measurements of a point in a round at most, until one is undisturbed.
    #[arg(long, default_value_t = 5)]
    attempts: usize,
    /// Packets per second, all directions together, instead of saturation.
    #[arg(long)]
    rate: Option<f64>,
    /// Packets under way in one direction at saturation.
    #[arg(long, default_value_t = 128)]
    window: usize,
    /// Packets under way in one allocation and direction at saturation.
    #[arg(long, default_value_t = 64)]
    flow_window: usize,
    /// Write every round as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table, the machine and the command into a page.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        default_missing_value = "docs/benchmarks.md"
    )]
    write: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One or both directions.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Way {
    /// Client to peer.
    Up,
    /// Peer to client.
    Down,
    /// Up and down at once.
    Both,
}

impl Way {
    fn directions(self) -> &'static [Direction] {
        match self {
            Self::Up => &[Direction::Up],
            Self::Down => &[Direction::Down],
            Self::Both => &[Direction::Up, Direction::Down],
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        })
    }
}

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
    let args: Vec<String> = env::args().collect();
    if let [_, mode, count, client_port, peer_port] = args.as_slice()
        && mode == FORWARD
    {
        let ports = (client_port.parse()?, peer_port.parse()?);
        let mut forwarder = Forwarder::bind(count.parse()?, ports.0, ports.1)?;
        forwarder.announce()?;
        return Ok(forwarder.run()?);
    }
    let options = Options::parse();
    check(&options)?;
    if options.handshakes {
        return run_handshakes(&options);
    }
    let points = measure(&options)?;
    for line in report::machine(&options)? {
        println!("{line}");
    }
    if points.iter().any(Point::disturbed) {
        eprintln!("warning: other processes ran on the server's core; see the column \"waited\"");
    }
    println!("\n{}", report::table(&points, &options));
    if let Some(file) = &options.json {
        let report = report::json(&points, &options)?;
        fs::write(file, format!("{report:#}\n"))?;
    }
    if let Some(page) = &options.write {
        let udp = options.transport == [Transport::Udp];
        let part = if udp { "relay" } else { "streams" };
        report::write_into(page, part, &report::table(&points, &options), &options)?;
    }
    Ok(())
}

fn run_handshakes(options: &Options) -> Outcome<()> {
    let points = measure_handshakes(options)?;
    for line in report::machine(options)? {
        println!("{line}");
    }
    println!("\n{}", report::handshake_table(&points, options));
    if let Some(file) = &options.json {
        let report = report::handshake_json(&points, options)?;
        fs::write(file, format!("{report:#}\n"))?;
    }
    if let Some(page) = &options.write {
        let table = report::handshake_table(&points, options);
        report::write_into(page, "handshakes", &table, options)?;
    }
    Ok(())
}

fn check(options: &Options) -> Outcome<()> {
    let fail = |text: String| Err(text.into());
    if options.servers.is_empty() || options.rounds == 0 {
        return fail("at least one server and one round".to_owned());
    }
    if !options.payload.iter().all(|bytes| (PAYLOAD_MIN..=PAYLOAD_MAX).contains(bytes)) {
        return fail(format!("--payload is from {PAYLOAD_MIN} to {PAYLOAD_MAX}"));
    }
    if !options.allocations.iter().all(|count| (1..=FLOWS_MAX).contains(count)) {
        return fail(format!("--allocations are from 1 to {FLOWS_MAX}"));
    }
    if !(1..=32).contains(&options.train) || options.window < 2 * options.train {
        return fail("--train is from 1 to 32 and at most half of --window".to_owned());
    }
    let measurements = options.directions.len() * options.payload.len() * options.attempts;
    let per_server = options.seconds * measurements as f64;
    if !(0.1..SERVER_SECONDS_MAX).contains(&per_server) {
        return fail(format!("--seconds is too small or too large ({per_server} s per server)"));
    }
    Ok(())
}

fn measure(options: &Options) -> Outcome<Vec<Point>> {
    sys::pin(GENERATOR_CORE)?;
    let mut points = Vec::new();
    for &transport in &options.transport {
        for &allocations in &options.allocations {
            let mut rows = rows(options, transport, allocations);
            let servers = rows[0].servers.len();
            for round in 0..options.rounds {
                for server in in_turn(servers, round) {
                    one_server(options, server, &mut rows)
                        .map_err(|error| format!("round {}: {error}", round + 1))?;
                }
            }
            points.append(&mut rows);
        }
    }
    Ok(points)
}

/// Rows without samples for what one start of a server is good for.
fn rows(options: &Options, transport: Transport, allocations: usize) -> Vec<Point> {
    let served = |kind: &&Kind| **kind != Kind::Forwarder || transport == Transport::Udp;
    let servers: Vec<Kind> = options.servers.iter().filter(served).copied().collect();
    let empty = || servers.iter().map(|kind| (*kind, Vec::new())).collect();
    let row = |payload, way| Point { transport, payload, allocations, way, servers: empty() };
    let ways = || options.directions.iter().copied();
    options.payload.iter().flat_map(|&payload| ways().map(move |way| row(payload, way))).collect()
}

/// The order of the servers alternates, so that none is always warm.
fn in_turn(servers: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..servers).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Measures one server in every row and adds a sample to each.
fn one_server(options: &Options, server: usize, rows: &mut [Point]) -> Outcome<()> {
    let Point { transport, allocations, .. } = rows[0];
    let kind = rows[0].servers[server].0;
    let (clients, peers) = (Clients::new(transport)?, Fleet::peers()?);
    let front = Front { transport, key_type: KeyType::Ecdsa };
    let mut running = Server::start(kind, front, allocations, &clients, &peers)?;
    for row in rows {
        let relay = Relay {
            pid: running.process.pid(),
            server: running.address,
            relayed: &running.relayed,
            clients: &clients,
            peers: &peers,
        };
        let sample = clean_sample(options, &relay, row).map_err(|error| {
            let what =
                format!("{kind}, {transport}, {allocations} allocations, {}: {error}", row.way);
            running.process.explain(&what)
        })?;
        eprintln!(
            "{kind:<9} {transport} {:>4} {allocations:>5} {:<4} {:>7.3} CPU s per million \
             {:>8.0} pps {:>5.2}% lost",
            row.payload,
            row.way,
            sample.cost(),
            sample.rate(),
            100.0 * sample.loss(),
        );
        row.servers[server].1.push(sample);
    }
    Ok(())
}

fn measure_handshakes(options: &Options) -> Outcome<Vec<HandshakePoint>> {
    sys::pin(GENERATOR_CORE)?;
    let servers: Vec<Kind> =
        options.servers.iter().filter(|kind| **kind != Kind::Forwarder).copied().collect();
    let mut points = Vec::new();
    for key_type in [KeyType::Ecdsa, KeyType::Rsa] {
        let empty = || servers.iter().map(|kind| (*kind, Vec::new())).collect();
        let mut rows = [Version::Tls13, Version::Tls12].map(|version| HandshakePoint {
            key_type,
            version,
            servers: empty(),
        });
        for round in 0..options.rounds {
            for server in in_turn(servers.len(), round) {
                shake_hands_with(options, server, &mut rows)
                    .map_err(|error| format!("round {}: {error}", round + 1))?;
            }
        }
        points.extend(rows);
    }
    Ok(points)
}

/// Measures one server's handshakes in both versions and adds a sample to each row.
fn shake_hands_with(options: &Options, server: usize, rows: &mut [HandshakePoint]) -> Outcome<()> {
    let (kind, key_type) = (rows[0].servers[server].0, rows[0].key_type);
    let (clients, peers) = (Clients::new(Transport::Tls)?, Fleet::peers()?);
    let front = Front { transport: Transport::Tls, key_type };
    let mut running = Server::start(kind, front, 0, &clients, &peers)?;
    let duration = Duration::from_secs_f64(options.seconds);
    for row in rows {
        let (pid, address) = (running.process.pid(), running.address);
        let sample = handshakes::measure(pid, address, row.version, WARM_UP, duration);
        let sample = sample.map_err(|error| {
            running.process.explain(&format!("{kind}, {key_type}, {}: {error}", row.version))
        })?;
        eprintln!(
            "{kind:<9} {key_type} {} {:>7.1} CPU us per handshake {:>7.0}/s, busy {:.0}%",
            row.version,
            sample.cost(),
            sample.rate(),
            100.0 * sample.busy(),
        );
        row.servers[server].1.push(sample);
    }
    Ok(())
}

/// Measures until the server had its core and lost little: on a machine that
/// does other work too, it can be kept waiting for longer than its sockets can
/// hold. Of attempts that were all disturbed the least disturbed one counts,
/// unless it lost too much.
fn clean_sample(options: &Options, relay: &Relay<'_>, row: &Point) -> Outcome<Sample> {
    let load = Load {
        payload: row.payload,
        train: options.train,
        window: options.window,
        flow_window: match row.transport {
            Transport::Udp => options.flow_window,
            Transport::Tcp | Transport::Tls => options.flow_window.min(STREAM_WINDOW / row.payload),
        },
        rate: options.rate,
    };
    let duration = Duration::from_secs_f64(options.seconds);
    let mut best: Option<Sample> = None;
    for _ in 0..options.attempts {
        let sample = generator::measure(relay, row.way.directions(), &load, WARM_UP, duration)?;
        if sample.strays > 0 {
            return Err(format!("damaged or misdelivered packets: {sample:?}").into());
        }
        if sample.loss() <= LOSS_MAX {
            if sample.denied() <= DENIED_MAX {
                return Ok(sample);
            }
            best = best.filter(|best| best.denied() <= sample.denied()).or(Some(sample));
        }
        eprintln!(
            "disturbed: {:.1}% lost, the server waited for its core {:.0}% of the time",
            100.0 * sample.loss(),
            100.0 * sample.denied(),
        );
    }
    best.ok_or_else(|| format!("more than {LOSS_MAX} lost in each attempt").into())
}
