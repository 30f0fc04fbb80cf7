//! `sturn nat`: which NAT this host is behind.

mod driver;
mod json;
mod place;
mod reach;
mod text;

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::screen::{escaped_json, printable};
use super::{print, tell};
use crate::config::{format_duration, parse_duration};
use crate::nat::{self, Contact, Outcome, Question, Report};
use driver::Binding;
use place::Place;
use reach::Way;

/// The public server of a well-known implementation of RFC 5780.
const PUBLIC_SERVER: &str = "stunserver2025.stunprotocol.org:3478";

/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

#[derive(clap::Args)]
#[command(after_help = "\
Exit codes and JSON fields: sturn nat --help", after_long_help = long_help())]
pub(super) struct Args {
    /// STUN server to ask, best one with RFC 5780; without one, a public server
    #[arg(value_name = "HOST[:PORT]", env = "STURN_SERVER", hide_env_values = true, default_value = PUBLIC_SERVER,
          value_parser = Place::parse)]
    server: Place,
    /// Another STUN server, to learn the mapping where the first has one address only
    #[arg(long, value_name = "HOST[:PORT]", value_parser = Place::parse)]
    second: Option<Place>,
    /// Use IPv4 only
    #[arg(short = '4', long = "ipv4", conflicts_with = "ipv6")]
    ipv4: bool,
    /// Use IPv6 only
    #[arg(short = '6', long = "ipv6")]
    ipv6: bool,
    /// Send from this address of this host
    #[arg(long, value_name = "ADDR")]
    source: Option<IpAddr>,
    /// Send through this network interface
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Bound on the whole run without --lifetime; names are looked up within half of it,
    /// and requests are first repeated after 1/64 of what is left
    #[arg(long, value_name = "DURATION", default_value = "16s", value_parser = parse_timeout)]
    timeout: Duration,
    /// Measure how long an idle UDP mapping lives, up to MAX; takes as long as it lives
    #[arg(long, value_name = "MAX", num_args = 0..=1, require_equals = true,
          default_missing_value = "10m", value_parser = parse_lifetime)]
    lifetime: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is told at the end.
struct Told {
    /// The server as it was named.
    name: String,
    outcome: Outcome,
    /// The facts, unless it ended before there were any.
    report: Option<Report>,
    /// What is in the way, in a sentence.
    problem: Option<String>,
}

/// Why there is nothing to report.
struct Stopped {
    outcome: Outcome,
    problem: String,
}

impl Stopped {
    fn new(outcome: Outcome, problem: impl Into<String>) -> Self {
        Self { outcome, problem: problem.into() }
    }
}

pub(super) fn run(args: &Args) -> ExitCode {
    let name = args.server.to_string();
    let told = match discover(args) {
        Ok(report) => Told {
            name,
            outcome: nat::classify(&report),
            problem: problem(&report),
            report: Some(report),
        },
        Err(Stopped { outcome, problem }) => {
            Told { name, outcome, report: None, problem: Some(problem) }
        }
    };
    if args.json {
        let text = escaped_json(&json::object(&told));
        return finish(&text, told.outcome);
    }
    if let Some(problem) = &told.problem {
        tell(&printable(&format!("sturn: {name}: {problem}", name = told.name)));
    }
    let text = told.report.as_ref().map(text::report).unwrap_or_default();
    finish(&text, told.outcome)
}

fn finish(text: &str, outcome: Outcome) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::from(outcome.code()),
        Err(failure) => failure.report(),
    }
}

fn discover(args: &Args) -> Result<Report, Stopped> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Stopped::new(Outcome::Local, format!("no runtime: {e}")))?;
    let done = runtime.block_on(async {
        // Before the first packet: from then on Ctrl-C asks for what is known.
        let mut interrupts = signal(SignalKind::interrupt())
            .map_err(|e| Stopped::new(Outcome::Local, format!("no signals: {e}")))?;
        let (binding, question) = tokio::select! {
            biased;
            _ = interrupts.recv() => {
                return Err(Stopped::new(Outcome::Inconclusive, "interrupted".to_owned()));
            }
            prepared = prepare(args) => prepared?,
        };
        announce(args, &question, &binding);
        driver::drive(question, binding, interrupts).await
    });
    // A lookup that still waits for a name server is not waited for.
    runtime.shutdown_background();
    done
}

/// Names to addresses, and the local address that leads to the server.
async fn prepare(args: &Args) -> Result<(Binding, Question), Stopped> {
    let mut wanted = |ip: &IpAddr| match (args.ipv4, args.ipv6, args.source) {
        (true, ..) => ip.is_ipv4(),
        (_, true, _) => ip.is_ipv6(),
        (.., Some(source)) => ip.is_ipv4() == source.is_ipv4(),
        _ => true,
    };
    let started = Instant::now();
    // Names may take half of the time, so that the rest is worth having.
    let until = started + args.timeout / 2;
    let addresses = args.server.resolve(until, &mut wanted).await?;
    let interface = args.interface.as_deref();
    let ways = ways(&addresses, args.source, interface).await?;
    let (server, binding) = reach::first_to_answer(ways, args.timeout / 8).await;
    let mut same_family = |ip: &IpAddr| ip.is_ipv4() == server.is_ipv4();
    let second = match &args.second {
        Some(place) => place.resolve(until, &mut same_family).await?.first().copied(),
        None => None,
    };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| Stopped::new(Outcome::Local, format!("no randomness: {e}")))?;
    let timeout = args.timeout.saturating_sub(started.elapsed());
    let lifetime = args.lifetime;
    Ok((binding, Question { server, second, timeout, lifetime, seed }))
}

/// The addresses to which there is a route, in order; at least one.
async fn ways(
    addresses: &[SocketAddr],
    source: Option<IpAddr>,
    interface: Option<&str>,
) -> Result<Vec<Way>, Stopped> {
    let (mut ways, mut why) = (Vec::new(), String::new());
    for &server in addresses.iter().take(MOST_ADDRESSES) {
        match Binding::towards(server, source, interface).await {
            Ok(binding) => ways.push(Way { server, binding }),
            Err(problem) if why.is_empty() => why = problem,
            Err(_) => {}
        }
    }
    if ways.is_empty() { Err(Stopped::new(Outcome::Local, why)) } else { Ok(ways) }
}

/// On standard error, so that whoever waits knows for what and how long.
fn announce(args: &Args, question: &Question, binding: &Binding) {
    let bound = format_duration(args.timeout);
    let (name, server) = (&args.server, question.server);
    let mut line = format!("Asking {name} ({server}) from {}; at most {bound}", binding.local());
    if let Some(longest) = question.longest_lifetime() {
        let longest = Duration::from_secs(longest.as_secs() + 1);
        // Writing to a string does not fail.
        let _ = write!(line, ", then up to {} for the lifetime", format_duration(longest));
    }
    tell(&printable(&line));
}

/// What is in the way, if it is not a NAT.
fn problem(report: &Report) -> Option<String> {
    match &report.contact {
        Contact::Udp => report.misrouted.map(|misrouted| {
            format!("the server is misconfigured: {misrouted}; no class can be told with it")
        }),
        Contact::TcpOnly { port } => {
            Some(format!("no answer over UDP, but one over TCP at port {port}"))
        }
        Contact::Nothing => Some(
            "nothing answers, neither over UDP nor over TCP: the server is down, or a firewall \
             drops everything"
                .to_owned(),
        ),
        Contact::Interrupted => Some("interrupted before anything answered".to_owned()),
        Contact::Local { why } => Some(format!("this system cannot send: {why}")),
        Contact::Misbehaves(how) => Some(format!("not usable as a STUN server here: {how}")),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    parse_bounded(text, Duration::from_secs(1), Duration::from_secs(600))
}

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    parse_bounded(text, Duration::from_secs(1), Duration::from_secs(24 * 3600))
}

fn parse_bounded(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    parse_duration(text).filter(|found| (least..=most).contains(found)).ok_or_else(|| {
        format!(
            "expected a duration from {} to {}, such as 30s",
            format_duration(least),
            format_duration(most)
        )
    })
}

fn long_help() -> String {
    let mut help = "Exit codes:\n".to_owned();
    // Writing to a string does not fail.
    for outcome in Outcome::ALL {
        let (code, name) = (outcome.code(), outcome.name());
        let _ = writeln!(help, "  {code:>3}  {name:<21} {}", outcome.meaning());
    }
    let _ = writeln!(
        help,
        "\nJSON (--json), version {}; null: not known, and \"unknown\" says why:",
        json::VERSION
    );
    for (field, what) in json::FIELDS {
        let _ = writeln!(help, "  {field:<16} {what}");
    }
    help.push_str(
        "\nExamples:\n  \
         sturn nat\n  \
         sturn nat stun.example.org --json\n  \
         sturn nat stun.example.org --second stun.example.net:3478\n  \
         sturn nat stun.example.org --interface eth0 --lifetime=5m",
    );
    help
}
