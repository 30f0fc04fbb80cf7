//! `sturn probe`: diagnoses any STUN or TURN server end to end.
//!
//! | file | room |
//! |---|---|
//! | `walk`, `handshake` | the steps of one way to the server, in order |
//! | `requests`, `relay` | what the steps ask, and numbered packets through the relay |
//! | `link`, `tap`, `tls`, `dtls` | sockets: one five-tuple and its sans-IO client, who answers, TLS |
//! | `finding`, `hints` | everything that can be found: exit code, name, hint |
//! | `settings` | who to be and how long it may take |
//! | `report`, `outcome` | what was found, as data, and what it comes to |
//! | `tell`, `text`, `browser` | steps as they happen, the report for people, what a browser makes of it |
//! | `statistics`, `certificate`, `calendar` | numbers, names and times |
//!
//! `link`, `tls`, `dtls`, `relay`, `requests`, `walk` and `handshake` do IO; the rest is pure.
//!
//! # JSON
//!
//! One object: `version`, a number; `uri`; `resolve`, a step; `resolved`, a list of `transport`, `address`
//! and, from SRV, `via`; `transports`, a list of `transport`, `address`, `url`, `via`,
//! `steps`, `mapped`, `software`, `relayed`, `rtt` (`min-ms`, `median-ms`, `p95-ms`,
//! `max-ms`), `loss` (0 to 1) and `jitter-ms`; `browser` with `candidates`,
//! `ice-server` and `notes`; `verdict`, `meaning` and `exit-code`. A step has `name`,
//! `verdict` (ok, skipped, warn, fail), `ms`, `detail` and, where something was found,
//! `finding` and `hint`. What is not known is left out.

mod browser;
mod calendar;
mod certificate;
mod dtls;
mod finding;
mod handshake;
mod hints;
mod link;
mod outcome;
mod relay;
mod report;
mod requests;
mod settings;
mod statistics;
mod tap;
mod tell;
mod text;
mod tls;
mod walk;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::ctrl_c;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::identity::{self, Login, LoginArgs};
use super::resolve::{Resolution, ResolveError, Resolver, Srv, Target};
use super::screen::escaped_json;
use super::{Failure, print, tell};
use crate::client::{Host, Protocol, Uri};
use crate::config::parse_duration;
use crate::daemon::Exit;
use crate::net::{Family, Transport};
use browser::Browser;
use finding::Finding;
use report::{Path, Report, Resolved, Step, Verdict, judge};
use settings::{Credentials, Settings};
use statistics::milliseconds;
use text::Console;
use tls::Trust;
use walk::walk;

/// Who a credential is made for that nobody named a user for.
const DEFAULT_USER: &str = "sturn-probe";
/// How long a credential is valid that is made for the probe, in seconds.
const VALIDITY: u64 = 3600;
/// The longest wait for one answer.
const MAX_PATIENCE: Duration = Duration::from_secs(5);
/// The least that a wide-area network needs.
const MIN_PATIENCE: Duration = Duration::from_millis(500);

/// The exit code of what Ctrl-C has ended, as shells have it.
const INTERRUPTED: u8 = 130;
/// How long an interrupted probe may take to give back what it has.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
#[command(after_help = format!("\
A turn: URI without ?transport= is tried over UDP and TCP, on each address of the name.
SRV records are looked up where the URI has no port (RFC 5928).

Secrets need not be in the command line, where other users see them: STURN_PASSWORD and
STURN_SECRET are read where no option gives one. With a secret a credential for one hour
is made, as `sturn credentials` does.

With --json the report is one object with version, uri, resolve, resolved, transports (each with
steps, rtt, loss, jitter-ms), browser, verdict and exit-code.

{}
Examples:
  sturn probe turn:example.org --user alice --password-file alice.password
  sturn probe 'turns:example.org?transport=tcp' --secret-file secret
  sturn probe stun:example.org", outcome::table()))]
pub(super) struct Args {
    /// The server: stun:, stuns:, turn: or turns:
    #[arg(value_name = "URI")]
    uri: Uri,
    #[command(flatten)]
    login: LoginArgs,
    /// IPv4 only
    #[arg(short = '4', long = "ipv4", conflicts_with = "v6")]
    v4: bool,
    /// IPv6 only
    #[arg(short = '6', long = "ipv6")]
    v6: bool,
    /// Address of this machine to probe from
    #[arg(long, value_name = "ADDR")]
    source: Option<IpAddr>,
    /// Time for all of it: 10s, 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_timeout)]
    timeout: Duration,
    /// Packets to relay
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    packets: u16,
    /// Certificates of authorities to trust besides the system's (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Tell of a bad certificate and go on
    #[arg(long)]
    insecure: bool,
    /// Ask this name server: address, or address and port
    #[arg(long, value_name = "ADDR", value_parser = parse_name_server)]
    dns: Option<SocketAddr>,
    /// Print the report as JSON and nothing else
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> ExitCode {
    match probe(args) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn probe(args: Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::OsError, format!("sturn: {error}")))?;
    let json = args.json;
    let mut console = Console::new(json);
    let report = runtime.block_on(until_interrupted(args, &mut console))?;
    // What a lookup has left running is not waited for.
    runtime.shutdown_background();
    let Some(report) = report else {
        tell("sturn: interrupted");
        return Ok(INTERRUPTED.into());
    };
    if json {
        print(&json_text(&report))?;
    }
    console.end(&report);
    console.finish()?;
    Ok(report.exit_code.into())
}

/// The report, or nothing when the person has had enough. Then what was allocated is
/// given back first, unless they insist.
async fn until_interrupted(args: Args, console: &mut Console) -> Result<Option<Report>, Failure> {
    let (interrupt, interrupted) = watch::channel(false);
    let mut diagnosis = pin!(diagnose(args, console, interrupted));
    tokio::select! {
        report = &mut diagnosis => return report.map(Some),
        Ok(()) = ctrl_c() => {}
    }
    interrupt.send_replace(true);
    tokio::select! {
        _ = timeout(FAREWELL, diagnosis) => {}
        Ok(()) = ctrl_c() => {}
    }
    Ok(None)
}

fn json_text(report: &Report) -> String {
    let text = serde_json::to_string_pretty(report).expect("the report is JSON");
    escaped_json(&format!("{text}\n"))
}

async fn diagnose(
    args: Args,
    console: &mut Console,
    interrupted: watch::Receiver<bool>,
) -> Result<Report, Failure> {
    let deadline = Instant::now() + args.timeout;
    let credentials = credentials(&args)?;
    let user = credentials.as_ref().map(|c| c.identity.username.clone());
    let trust = Trust::load(args.ca.as_deref())
        .map_err(|error| Failure::new(Exit::NoInput, format!("sturn: {error}")))?;
    let family = family(&args);
    let resolver = Resolver::new(args.dns, family)
        .map_err(|error| Failure::new(Exit::OsError, format!("sturn: resolver: {error}")))?;

    console.line(&format!("{}, at most {} s", args.uri, args.timeout.as_secs_f64()));
    console.heading("name");
    let (resolve, targets) = look_up(&resolver, &args.uri, deadline).await;
    console.step(&resolve);
    let resolved = targets.iter().map(resolved).collect();
    let settings = Settings {
        uri: args.uri,
        source: args.source,
        credentials,
        packets: usize::from(args.packets),
        insecure: args.insecure,
        trust,
        patience: patience(args.timeout, targets.len()),
        deadline,
        interrupted,
    };
    let mut transports = Vec::new();
    for target in targets {
        if settings.is_interrupted() {
            break;
        }
        console.heading(&format!("{} {}", target.transport, target.address));
        let url = url(&settings.uri, &target).to_string();
        let via = target.via.as_ref().map(ToString::to_string);
        let path = Path::new(target.transport, target.address, url, via);
        transports.push(walk(&settings, path, console).await);
    }
    let outcome = judge(&resolve, &transports);
    Ok(Report {
        version: report::VERSION,
        uri: settings.uri.to_string(),
        resolve,
        resolved,
        browser: Browser::of(&settings.uri, user.as_deref(), &transports),
        transports,
        verdict: outcome.verdict(),
        meaning: outcome.meaning(),
        exit_code: outcome.code(),
    })
}

/// The first step, and where it leads.
async fn look_up(resolver: &Resolver, uri: &Uri, deadline: Instant) -> (Step, Vec<Target>) {
    let started = Instant::now();
    let step = |finding: Option<Finding>, detail: String| Step {
        name: "resolve",
        verdict: finding.as_ref().map_or(Verdict::Ok, Finding::verdict),
        ms: milliseconds(started.elapsed()),
        detail,
        hint: finding.as_ref().map(Finding::hint),
        finding,
    };
    match timeout_at(deadline, resolver.resolve(uri)).await {
        Ok(Ok(resolution)) => (step(None, describe(uri, &resolution)), resolution.targets),
        Ok(Err(error)) => {
            let finding = match error {
                ResolveError::NotFound(_) => Finding::NameNotFound,
                ResolveError::OtherFamily(..) => Finding::OtherFamily,
                ResolveError::Dns(..) => Finding::DnsUnanswered,
            };
            (step(Some(finding), error.to_string()), Vec::new())
        }
        Err(_) => (step(Some(Finding::DnsUnanswered), "no time left".to_owned()), Vec::new()),
    }
}

fn describe(uri: &Uri, resolution: &Resolution) -> String {
    if let Host::Ip(_) = uri.host {
        return "the URI has an address".to_owned();
    }
    let mut ips: Vec<String> = Vec::new();
    for target in &resolution.targets {
        let text = match &target.via {
            Some(via) => format!("{} ({via})", target.address),
            None => target.address.ip().to_string(),
        };
        if !ips.contains(&text) {
            ips.push(text);
        }
    }
    let srv = match &resolution.srv {
        Srv::NotAsked | Srv::Used => String::new(),
        Srv::None => ", no SRV records".to_owned(),
        Srv::Unanswered(why) => format!(", SRV records unknown: {why}"),
    };
    let more = if resolution.more { "; there are more, which are not tried" } else { "" };
    format!("{}{srv}{more}", ips.join(", "))
}

fn resolved(target: &Target) -> Resolved {
    Resolved {
        transport: target.transport,
        address: target.address,
        via: target.via.as_ref().map(ToString::to_string),
    }
}

/// What a client writes that looks up no SRV records.
fn url(uri: &Uri, target: &Target) -> Uri {
    let protocol = match target.transport {
        Transport::Udp | Transport::Dtls => Protocol::Udp,
        Transport::Tcp | Transport::Tls => Protocol::Tcp,
    };
    let port = target.address.port();
    Uri {
        scheme: uri.scheme,
        host: target.via.as_ref().map_or_else(|| uri.host.clone(), |v| Host::Name(v.host.clone())),
        port: Some(port).filter(|port| *port != uri.scheme.default_port()),
        transport: uri.scheme.is_turn().then_some(protocol),
    }
}

/// How long one answer may take, so that silence on all ways but one leaves time for it.
fn patience(timeout: Duration, ways: usize) -> Duration {
    let ways = u32::try_from(ways).unwrap_or(u32::MAX).max(1);
    (timeout / ways.saturating_add(1)).clamp(MIN_PATIENCE, MAX_PATIENCE)
}

fn family(args: &Args) -> Option<Family> {
    let asked = match (args.v4, args.v6) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    };
    asked.or(args.source.map(Family::of))
}

/// Who to be, if anybody.
fn credentials(args: &Args) -> Result<Option<Credentials>, Failure> {
    Ok(match args.login.login()? {
        Login::Nobody => None,
        Login::User(identity) => {
            let expires = identity::expiry(&identity.username);
            Some(Credentials { identity, expires, from_secret: false })
        }
        Login::Secret { secret, user } => {
            let until = link::now().unix_secs().saturating_add(VALIDITY);
            let user = user.as_deref().unwrap_or(DEFAULT_USER);
            let (identity, end) = identity::made(&secret, user, until);
            Some(Credentials { identity, expires: Some(end), from_secret: true })
        }
    })
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
    parse_duration(text)
        .filter(|timeout| bounds.contains(timeout))
        .ok_or_else(|| "expected a duration from 1s to 1h".to_owned())
}

fn parse_name_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    bare.or_else(|_| text.parse())
        .map_err(|_| "expected an address such as 192.0.2.53 or 192.0.2.53:5353".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_everywhere_else_leaves_time_for_the_last_way() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(seconds(30), 1), seconds(5));
        assert_eq!(patience(seconds(30), 9), seconds(3));
        assert_eq!(patience(seconds(1), 9), MIN_PATIENCE);
    }

    #[test]
    fn name_servers() {
        assert_eq!(parse_name_server("192.0.2.53"), Ok("192.0.2.53:53".parse().unwrap()));
        assert_eq!(parse_name_server("[::1]:5353"), Ok("[::1]:5353".parse().unwrap()));
        assert!(parse_name_server("example.org").is_err());
    }

    #[test]
    fn the_url_of_a_way() {
        let target = |transport, port, via: Option<&str>| Target {
            transport,
            address: SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            via: via.map(|host| super::super::resolve::Via {
                service: "_turn._udp",
                host: host.into(),
            }),
        };
        let url = |text: &str, target| url(&text.parse().unwrap(), &target).to_string();
        assert_eq!(
            url("turn:example.org", target(Transport::Udp, 3478, None)),
            "turn:example.org?transport=udp"
        );
        assert_eq!(
            url("turn:example.org", target(Transport::Udp, 9, Some("a.example.org"))),
            "turn:a.example.org:9?transport=udp"
        );
        assert_eq!(
            url("turns:example.org", target(Transport::Tls, 443, None)),
            "turns:example.org:443?transport=tcp"
        );
        assert_eq!(url("stun:example.org", target(Transport::Udp, 3478, None)), "stun:example.org");
    }
}
