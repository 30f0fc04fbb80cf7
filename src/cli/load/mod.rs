//! `sturn load`: a load for any STUN or TURN server, and what it delivers.
//!
//! | file | room |
//! |---|---|
//! | `plan`, `identity`, `trust`, `target` | what is to be done, who the clients are, whom they trust, where the server is |
//! | `conduct` | the run: threads, phases, clocks, Ctrl-C |
//! | `worker` | one thread: waiting, receiving, sending |
//! | `traffic` | its clients, peers and lanes: packets out, packets in |
//! | `progress` | its clients from connecting to giving back; storms |
//! | `flow`, `link`, `outbox` | one client; its way to the server; datagrams that leave together |
//! | `course`, `lane` | how much may be sent, and what has arrived |
//! | `wire`, `stamp` | packets as they lie on the wire, and what they say of themselves |
//! | `histogram`, `tally`, `cpu` | numbers |
//! | `report`, `text`, `trouble` | the report, as data and for people; what went wrong |
//!
//! # How it measures
//!
//! Saturation is closed-loop: so many packets are under way in each direction and no more,
//! so that the server always has a backlog, but one that its socket buffers can hold. An
//! open loop would overrun them, and the CPU time of packets that the server reads and then
//! loses would be charged to the few that it delivers. With `--rate` the loop is open.
//!
//! Each packet has a number and the time of its sending in it. It counts when it comes out
//! where it should, for the first time, and was sent while the measurement ran.
//!
//! Control messages go through the client of this package, on a codec that is not the
//! server's; the packets of the load are made and read by hand.

mod conduct;
mod course;
mod cpu;
mod flow;
mod histogram;
mod identity;
mod lane;
mod link;
mod outbox;
mod plan;
mod progress;
mod report;
mod stamp;
mod tally;
mod target;
mod text;
mod traffic;
mod trouble;
mod trust;
mod wire;
mod worker;

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::screen::escaped_json;
use super::{Failure, print, tell};
use crate::client::{Scheme, Uri};
use crate::config::parse_duration;
use crate::daemon::Exit;
use crate::io::raise_descriptor_limit;
use crate::net::{Family, Transport};
use conduct::{Outcome, conduct};
use identity::Credentials;
use plan::{By, Direction, Plan, Work};
use report::Report;
use text::Ticker;
use trouble::Trouble;
use trust::Trust;

/// Clients of one thread: lanes, of which each has two at most, are numbered with 16 bits.
const MAX_PER_THREAD: usize = 30_000;
/// Longest payload in bytes, so that with its headers it is one record of DTLS.
const MAX_PAYLOAD: u16 = 16_000;
/// Descriptors that are not sockets of clients.
const OTHER_DESCRIPTORS: u64 = 64;
/// The exit code of what Ctrl-C has ended, as shells have it.
const INTERRUPTED: u8 = 130;

#[derive(clap::Args)]
#[command(after_help = "\
The load goes to this host only, unless --i-own-this-server is given.

At saturation (no --rate) --window packets are under way in each direction; what is measured
is how fast the server is, and latency is that of a full window. With --rate packets leave at
that rate, whatever arrives: that is how to measure latency and loss.

Peers are sockets of this host at --peer-address, which the server has to allow; with
--relay-to-relay clients send to each other's relayed addresses and need no permission of the
operator. On IPv4 loopback clients over UDP share a socket and differ in their source
addresses, which is faster; --own-sockets gives each its own.

Everything that was allocated is given back at the end and on Ctrl-C.

With --json the report is one object: what was asked for; setup-seconds; seconds, sent,
delivered, lost, loss (0 to 1), refused (by code), duplicates, late, strays, unsent,
per-second, bits-per-second (of payload), latency-us (mean, p50, p90, p99, p99.9, max),
server-cpu and generator-cpu (seconds, cores, seconds-per-million), given-back, left-behind,
interrupted.

Exit codes: 0 the load ran, 64 the command line is wrong or the server is elsewhere, 66 a file
cannot be read, 69 the server does not answer, refuses or delivers nothing, 71 this host has
not enough of something, 77 the credentials are refused, 130 interrupted.

Examples:
  sturn load turn:127.0.0.1 --user alice --password wonderland --server-pid $(pidof sturn)
  sturn load turn:127.0.0.1 --secret-file secret --allocations 1000 --direction both
  sturn load 'turns:localhost?transport=tcp' --secret-file secret --rate 50000 --payload 1200
  sturn load turn:127.0.0.1 --secret-file secret --users 100 --work allocate --allocations 64
  sturn load stun:127.0.0.1 --work binding --allocations 8")]
pub(super) struct Args {
    /// The server: turn: or turns:, with ?transport=tcp or ?transport=udp; for --work binding
    /// also stun: or stuns:
    #[arg(value_name = "URI")]
    uri: Uri,
    #[command(flatten)]
    credentials: Credentials,
    /// What the server has to work on
    #[arg(long, value_enum, default_value_t = Work::Media)]
    work: Work,
    /// Allocations that are loaded; clients at once with --work allocate or binding
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    allocations: u32,
    /// Which way packets go
    #[arg(long, value_enum, default_value_t = Direction::Up)]
    direction: Direction,
    /// What carries packets between client and server
    #[arg(long, value_enum, default_value_t = By::Channel)]
    by: By,
    /// Send from each allocation to another one of the same server; up and down are the two of a pair
    #[arg(long)]
    relay_to_relay: bool,
    /// Application data in a packet, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 160, value_parser = clap::value_parser!(u16).range(stamp::LEN as i64..=MAX_PAYLOAD as i64))]
    payload: u16,
    /// Consecutive packets of one sender
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    train: u16,
    /// Packets, allocations or requests a second in all, instead of saturation
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Packets under way at saturation, for each thread and direction
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "rate")]
    window: u32,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    seconds: Duration,
    /// How long to load before that
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    warm_up: Duration,
    /// Threads of the load, among which allocations are spread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Address of this host where peers are; else the one it has towards the server
    #[arg(long, value_name = "ADDR", conflicts_with = "relay_to_relay")]
    peer_address: Option<IpAddr>,
    /// Give each client over UDP a socket of its own, on loopback too
    #[arg(long)]
    own_sockets: bool,
    /// Report the CPU time of this process of the server; may be given again
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// Certificates of authorities to trust besides the system's (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    insecure: bool,
    /// Load a server that is not on this host
    #[arg(long)]
    i_own_this_server: bool,
    /// Show progress on standard error also where that is no terminal
    #[arg(long, conflicts_with = "quiet")]
    progress: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match load(args) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn load(args: &Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::OsError, format!("sturn: {error}")))?;
    let plan = Arc::new(runtime.block_on(plan(args))?);
    room_for(&plan)?;
    let terminal = std::io::stderr().is_terminal();
    let mut ticker = Ticker::new(!args.quiet && (args.progress || (terminal && !args.json)));
    let outcome = runtime.block_on(conduct(&plan, &args.server_pid, &mut ticker));
    let mut outcome = outcome.map_err(|trouble| failure(&trouble))?;
    if let Some(trouble) = outcome.trouble(&plan) {
        return Err(failure(&trouble));
    }
    tell_report(args, &plan, &outcome)?;
    if outcome.interrupted {
        tell("sturn: interrupted");
        return Ok(INTERRUPTED.into());
    }
    Ok(Exit::Ok.into())
}

/// What was measured, also when the person has had enough.
fn tell_report(args: &Args, plan: &Plan, outcome: &Outcome) -> Result<(), Failure> {
    let Some(times) = &outcome.times else { return Ok(()) };
    let report = Report::new(args.uri.to_string(), plan, &outcome.tally, times);
    if args.json {
        let text = serde_json::to_string_pretty(&report).expect("the report is JSON");
        return print(&escaped_json(&format!("{text}\n")));
    }
    print(&text::text(&report, plan.work.unit()))
}

/// The arguments, checked.
async fn plan(args: &Args) -> Result<Plan, Failure> {
    check(args)?;
    let target = target::look_up(&args.uri).await?;
    let server = target.address;
    if !args.i_own_this_server && !target::is_local(server.ip()) {
        return Err(target::refusal(&args.uri, server));
    }
    let peer = match args.peer_address {
        Some(address) => address,
        None => target::address_towards(server)?,
    };
    let run = args.warm_up + args.seconds;
    let trust = Trust::new(target.transport, &args.uri.host, args.ca.as_deref(), args.insecure)
        .map_err(|why| Failure::new(Exit::NoInput, format!("sturn: {why}")))?;
    Ok(Plan {
        server,
        transport: target.transport,
        trust,
        work: args.work,
        by: args.by,
        direction: args.direction,
        relay_to_relay: args.relay_to_relay,
        allocations: args.allocations as usize,
        payload: usize::from(args.payload),
        train: usize::from(args.train),
        rate: args.rate,
        window: args.window as usize,
        warm_up: args.warm_up,
        duration: args.seconds,
        threads: usize::from(args.threads),
        peer,
        identities: args.credentials.identities(run.as_secs())?,
        shares_socket: shares_socket(args, target.transport, server),
    })
}

/// What the types of the arguments do not say.
fn check(args: &Args) -> Result<(), Failure> {
    let clients = args.allocations as usize;
    let threads = usize::from(args.threads);
    let stun = matches!(args.uri.scheme, Scheme::Stun | Scheme::Stuns);
    let units = if args.relay_to_relay { clients / 2 } else { clients };
    let wrong = if stun && args.work != Work::Binding {
        "a stun: server has no allocations: write turn:, or --work binding"
    } else if args.relay_to_relay && !clients.is_multiple_of(2) {
        "--relay-to-relay needs an even number of --allocations, two for each pair"
    } else if args.relay_to_relay && args.work != Work::Media {
        "--relay-to-relay is for --work media"
    } else if units < threads {
        "more --threads than --allocations to share among them"
    } else if clients.div_ceil(threads) >= MAX_PER_THREAD {
        "more than 30,000 --allocations of one thread: give it more --threads"
    } else if args.seconds.is_zero() {
        "--seconds has to be more than 0"
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Usage, format!("sturn: {wrong}")))
}

/// Only IPv4 has a whole network of loopback addresses.
fn shares_socket(args: &Args, transport: Transport, server: SocketAddr) -> bool {
    let is_plain = transport != Transport::Dtls;
    is_plain
        && !args.own_sockets
        && server.ip().is_loopback()
        && Family::of(server.ip()) == Family::V4
}

/// Whether there are descriptors for all sockets.
fn room_for(plan: &Plan) -> Result<(), Failure> {
    let needed = match plan.transport {
        Transport::Udp if plan.shares_socket => 0,
        _ => plan.allocations as u64,
    };
    let limit = raise_descriptor_limit().unwrap_or(u64::MAX);
    if needed + OTHER_DESCRIPTORS + plan.threads as u64 * 4 <= limit {
        return Ok(());
    }
    let why =
        format!("sturn: {needed} sockets are too many for this process: ulimit -n is {limit}");
    Err(Failure::new(Exit::OsError, why))
}

fn failure(trouble: &Trouble) -> Failure {
    Failure::new(trouble.exit(), format!("sturn: {trouble}"))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (1e-3..=1e9).contains(rate));
    rate.ok_or_else(|| "expected a number a second, more than 0".to_owned())
}

/// A number of seconds, or a duration as elsewhere.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    number
        .or_else(|| parse_duration(text))
        .filter(|duration| *duration <= Duration::from_secs(30 * 86_400))
        .ok_or_else(|| "expected seconds such as 10 or 0.5, or 90s, 10m, 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_unit() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_seconds("0"), Ok(Duration::ZERO));
        for wrong in ["-1", "x", "nan", "1e9"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
        assert!(parse_rate("0").is_err() && parse_rate("nan").is_err());
    }
}
