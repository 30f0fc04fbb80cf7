//! The process: start, signals, end, logs.
//!
//! 1. `addresses` finds what to relay on and which addresses are our own;
//! 2. `settings` turns the configuration into what cores and workers take;
//! 3. `start` opens every socket, and only then starts the workers;
//! 4. here: wait for a signal, stop the workers, say what they did.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Config, Origin};
use crate::turn::DropReason;
use crate::turn::policy::Access;
use crate::worker::Summary;

mod addresses;
mod banner;
mod certificates;
mod exit;
pub mod log;
mod settings;
mod start;

pub use exit::Exit;

use addresses::Addresses;
use start::Running;

/// How often the files of certificates are looked at: renewals come months apart.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);

/// Why the server did not start, or ended by itself: one line for a person.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    why: String,
}

impl Failure {
    fn new(exit: Exit, why: impl Into<String>) -> Self {
        Self { exit, why: why.into() }
    }
}

/// Runs the server until it is told to stop.
pub fn serve(config: Config, origin: &Origin) -> ExitCode {
    let guard = match log::start(&config.log) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("sturn: {error}");
            return Exit::Software.into();
        }
    };
    let outcome = run(config, origin);
    if let Err(failure) = &outcome {
        tracing::error!("{}", failure.why);
    }
    drop(guard);
    outcome.map_or_else(|failure| failure.exit.into(), |()| ExitCode::SUCCESS)
}

fn run(mut config: Config, origin: &Origin) -> Result<(), Failure> {
    let guest = match origin {
        Origin::Embedded => {
            config.tls.self_signed = true;
            Some(banner::invite_guest(&mut config)?)
        }
        Origin::File(_) => None,
    };
    let addresses = Addresses::find(&config);
    let running = start::start(&config, &addresses)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = %origin,
        workers = running.workers(),
        udp = %list(running.udp()),
        tcp = %list(running.tcp()),
        tls = %list(running.tls()),
        dtls = %list(running.dtls()),
        relay = %list(addresses.relay.iter().map(|a| a.advertised)),
        nat_discovery = %discovery(&config),
        "sturn is ready"
    );
    running.certificates().map(certificates::announce);
    addresses.warn_about_private();
    for note in config.notes() {
        tracing::warn!("{note}");
    }
    if let Some(guest) = guest {
        banner::print(&guest, &config, &running, &addresses);
    }
    let summary = wait(running, &config)?;
    report(&summary);
    Ok(())
}

/// What NAT discovery answers with.
fn discovery(config: &Config) -> String {
    let config::NatDiscovery { addresses, ports: [first, second] } = &config.nat_discovery;
    match addresses.as_slice() {
        [] => "off (nat-discovery.addresses is empty)".to_owned(),
        some => format!("{} ports {first},{second}", list(some.iter().map(|a| a.advertise))),
    }
}

/// Waits for a signal, then for the workers.
fn wait(running: Running, config: &Config) -> Result<Summary, Failure> {
    let os_error = |error: std::io::Error| Failure::new(Exit::OsError, error.to_string());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(os_error)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(os_error)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(os_error)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(os_error)?;
        let mut running = running;
        let mut files = certificates::Watch::new(config);
        let mut look = tokio::time::interval(LOOK_AT_FILES);
        loop {
            tokio::select! {
                _ = terminate.recv() => break tracing::info!("stopping on SIGTERM"),
                _ = interrupt.recv() => break tracing::info!("stopping on SIGINT"),
                // Calls must not end because a terminal was closed or a log rotated.
                _ = hangup.recv() => {
                    tracing::warn!(
                        "SIGHUP: reading certificates again; a changed configuration needs a restart"
                    );
                    renew_certificates(&mut running, config).await;
                }
                _ = look.tick(), if config.serves_tls() => {
                    if files.has_changed() {
                        renew_certificates(&mut running, config).await;
                    }
                }
                why = running.worker_ended() => return Err(Failure::new(Exit::Software, why)),
            }
        }
        running.stop().await.map_err(|why| Failure::new(Exit::Software, why))
    })
}

/// Reads the certificates again. Broken ones leave those in use as they are.
async fn renew_certificates(running: &mut Running, config: &Config) {
    if config.tls.certificates.is_empty() {
        return;
    }
    match certificates::load(config) {
        Ok(Some(renewed)) => {
            certificates::announce(&renewed);
            running.renew(renewed).await;
        }
        Ok(None) => {}
        Err(failure) => {
            tracing::error!("{}; keeping the certificates in use", failure.why);
        }
    }
}

/// Loads and checks the certificates of `config`, as [`serve`] does before it
/// listens. One line for each: names and end, or for the one made at start that
/// there will be one; none when TLS is not served.
///
/// # Errors
///
/// Every problem, one line each, with the file.
pub fn check_certificates(config: &Config) -> Result<Vec<String>, String> {
    match certificates::load(config) {
        Ok(loaded) => Ok(loaded.as_deref().map(certificates::summary).unwrap_or_default()),
        Err(failure) => Err(failure.why),
    }
}

/// Says whether the policy of `config` lets a peer be reached, and by which rule.
pub fn explain(config: &Config, ip: IpAddr, port: Option<u16>) -> String {
    let policy = settings::policy(config, &Addresses::find(config));
    let decision = policy.explain(ip, port);
    let verdict = if decision.access == Access::Denied { "denied" } else { "allowed" };
    let peer =
        port.map_or_else(|| ip.to_string(), |p| std::net::SocketAddr::new(ip, p).to_string());
    format!("{peer}: {verdict}: {}\n", decision.rule)
}

/// What the workers did, in one line; what was dropped, in another.
fn report(summary: &Summary) {
    let traffic = summary.core.traffic;
    let drops: Vec<String> = DropReason::ALL
        .into_iter()
        .filter(|reason| summary.core.drops(*reason) > 0)
        .map(|reason| format!("{}={}", reason.label(), summary.core.drops(reason)))
        .collect();
    let (losses, passed) = (summary.losses, summary.passed);
    tracing::info!(
        packets_to_peers = traffic.packets_to_peers,
        bytes_to_peers = traffic.bytes_to_peers,
        packets_to_client = traffic.packets_to_client,
        bytes_to_client = traffic.bytes_to_client,
        dropped = %drops.join(","),
        lost_send_buffer_full = losses.send_buffer_full,
        lost_send_refused = losses.send_refused,
        lost_truncated = losses.truncated,
        lost_slow_client = losses.slow_client,
        lost_gone = losses.gone,
        lost_no_relay = losses.no_relay,
        lost_no_listener = losses.no_listener,
        refused_connections = losses.refused_connections,
        closed_connections = losses.closed_connections,
        tls_failures = losses.tls_failures,
        no_session = losses.no_session,
        passed_connections = passed.connections,
        passed_refused = passed.refused,
        passed_failed = passed.failed,
        "stopped"
    );
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}
