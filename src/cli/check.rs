//! `sturn check`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Failure, load, print};
use crate::config::{self, Auth, AuthMode, Config, Relay, format_duration};
use crate::daemon::{self, Exit};

#[derive(clap::Args)]
#[command(
    override_usage = "sturn check FILE\n       sturn check --print-full",
    after_help = "\
Every problem is one line: file, line, key, value and what was expected. The
certificates are loaded and checked as at the start of the server.
Exit code 0: valid. 66: the file cannot be read. 78: not valid.

Examples:
  sturn check /etc/sturn/sturn.toml
  sturn check --print-full > sturn.full.toml"
)]
pub(super) struct Args {
    /// The file to validate
    #[arg(value_name = "FILE", required_unless_present = "print_full")]
    file: Option<PathBuf>,
    /// Print a reference file: every key with its default and its documentation
    #[arg(long, conflicts_with = "file")]
    print_full: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Some(file) = &args.file else { return print(&config::full_file()) };
    let config = load(file).map_err(|failure| with_count(failure, file))?;
    let certificates = daemon::check_certificates(&config).map_err(|problems| {
        let lines: Vec<_> =
            problems.lines().map(|line| format!("{}: {line}", file.display())).collect();
        with_count(Failure::new(Exit::Config, lines.join("\n")), file)
    })?;
    print(&summary(file, &config, &certificates))
}

/// Ends a list of problems with their number, which may have scrolled away.
fn with_count(mut failure: Failure, file: &Path) -> Failure {
    let count = failure.message.lines().count();
    if failure.exit == Exit::Config && count > 1 {
        let _ = write!(failure.message, "\n{}: {count} problems", file.display());
    }
    failure
}

/// What the server would do, without any secret.
fn summary(file: &Path, config: &Config, certificates: &[String]) -> String {
    let mut text = format!("{}: ok\n", file.display());
    let mut line = |name: &str, what: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<8}{what}");
    };
    line("listen", listens("udp", &config.udp_listeners()));
    line("", listens("tcp", &config.tcp_listeners()));
    // What is left when clients reach them on the others, which take TLS too.
    for (name, addresses) in [("tls", config.tls_listeners()), ("dtls", config.dtls_listeners())] {
        if !addresses.is_empty() {
            line("", listens(name, &addresses));
        }
    }
    for certificate in certificates {
        line("tls", certificate.clone());
    }
    line("relay", relay(&config.relay));
    line("auth", auth(&config.auth));
    line("peers", peers(config));
    line("limits", limits(config));
    for note in config.notes() {
        line("note", note);
    }
    text
}

fn listens(transport: &str, addresses: &[SocketAddr]) -> String {
    if addresses.is_empty() {
        return format!("{transport} off");
    }
    format!("{transport} {}", join(addresses.iter()))
}

fn relay(relay: &Relay) -> String {
    let addresses = if relay.addresses.is_empty() {
        "this machine's addresses, found at start".to_owned()
    } else {
        join(relay.addresses.iter().map(|a| {
            if a.address == a.advertise {
                a.address.to_string()
            } else {
                format!("{} advertised as {}", a.address, a.advertise)
            }
        }))
    };
    format!("{addresses}; ports {} ({} for each address)", relay.ports, relay.ports.count())
}

fn auth(auth: &Auth) -> String {
    match auth.mode {
        AuthMode::None => "none: STUN only, every TURN request is refused".into(),
        AuthMode::LongTerm => format!(
            "realm \"{}\"; {}, {}",
            auth.realm,
            count(auth.users.len(), "user"),
            count(auth.secrets.len(), "shared secret")
        ),
    }
}

fn peers(config: &Config) -> String {
    let extra = |nets: &[ipnet::IpNet], word| match nets {
        [] => String::new(),
        nets => format!("; also {word} {}", join(nets.iter())),
    };
    let peers = &config.peers;
    format!(
        "special-purpose networks denied{}{}",
        extra(&peers.allow, "allowed:"),
        extra(&peers.deny, "denied:")
    )
}

fn limits(config: &Config) -> String {
    let limits = &config.limits;
    let per_user = match limits.allocations_per_user {
        0 => "no limit for each user".to_owned(),
        n => format!("{n} for each user"),
    };
    format!(
        "{} allocations, {per_user}; lifetimes {} to {}",
        limits.allocations,
        format_duration(config.turn.default_lifetime),
        format_duration(config.turn.max_lifetime)
    )
}

fn count(n: usize, what: &str) -> String {
    match n {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

fn join<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
