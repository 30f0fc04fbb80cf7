//! Another server than our own: coturn as Debian ships it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use tempfile::TempDir;

use crate::run::{Run, probe, probe_as_alice, run};
use crate::setup::{skip, wait_until};
use crate::support::process::Process;

#[test]
fn all_good() {
    let Some(server) = Coturn::start("coturn::all_good", &["--allow-loopback-peers"]) else {
        return;
    };
    let run = probe_as_alice(&server.uri(), &["--packets", "10"]);
    run.ends_with(0).found_nothing();
    let software = run.json()["transports"][0]["software"].clone();
    assert!(software.as_str().unwrap().starts_with("Coturn"), "{software}");
}

#[test]
fn a_wrong_password() {
    let Some(server) = Coturn::start("coturn::a_wrong_password", &[]) else { return };
    let run = probe(&server.uri(), &["--user", "alice", "--password", "wrong"]);
    run.ends_with(2).found("allocate", "credentials-refused", "realm is \"example.org\"");
}

#[test]
fn an_open_relay() {
    let Some(server) = Coturn::start("coturn::an_open_relay", &["--no-auth"]) else { return };
    probe(&server.uri(), &[]).ends_with(76).found("challenge", "open-relay", "lt-cred-mech");
}

#[test]
fn a_quota_of_one() {
    let arguments = ["--allow-loopback-peers", "--user-quota=1"];
    let Some(server) = Coturn::start("coturn::a_quota_of_one", &arguments) else { return };
    let run = probe_as_alice(&server.uri(), &["--packets", "5"]);
    run.ends_with(1).found("second-allocation", "second-allocation-refused", "several");
}

#[test]
fn stun_only() {
    let Some(server) = Coturn::start("coturn::stun_only", &["--stun-only"]) else { return };
    let run = probe_as_alice(&server.uri(), &["--timeout", "6s"]);
    run.ends_with(5).found("challenge", "stun-only", "no TURN");
}

#[test]
fn peers_that_are_denied() {
    let Some(server) = Coturn::start("coturn::peers_that_are_denied", &[]) else { return };
    let run = probe_as_alice(&server.uri(), &[]);
    run.ends_with(1).found("permission", "own-relay-refused", "both use this server");
    run.found("peer", "relay-untested", "another network");
}

/// A running `turnserver` on loopback, in an address space of its own.
struct Coturn {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Coturn {
    /// `None`, with a word about it, where coturn is not installed.
    #[track_caller]
    fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        if Command::new("turnserver").arg("--version").output().is_err() {
            skip(test, "turnserver is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let address = free_port();
        let port = format!("--listening-port={}", address.port());
        let file = |option: &str, name: &str| {
            format!("{option}={}", directory.path().join(name).display())
        };
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout"]);
        command.args(["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", &port]);
        command.args(["--simple-log", &file("--pidfile", "pid"), &file("--userdb", "db")]);
        if !arguments.contains(&"--no-auth") {
            command.args(["--lt-cred-mech", "--user=alice:wonderland", "--realm=example.org"]);
        }
        command.args(arguments);
        let mut process = Process::spawn(&mut command);
        let uri = format!("stun:{address}");
        wait_until("turnserver answers", || {
            assert!(process.exit_status().is_none(), "it has ended:\n{}", process.last_lines());
            let Run { code, .. } = run(&["probe", &uri, "--timeout", "1s"], &[]);
            code == 0
        });
        Some(Self { address, _process: process, _directory: directory })
    }

    fn uri(&self) -> String {
        format!("turn:{}", self.address)
    }
}

/// Free for both UDP and TCP.
fn free_port() -> SocketAddr {
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
