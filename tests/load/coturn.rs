//! Another server than our own: coturn as Debian ships it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use tempfile::TempDir;

use crate::run::{Run, SLOW, load, number, run};
use crate::setup::{skip, wait_until};
use crate::support::process::Process;

const LOOPBACK: [&str; 1] = ["--allow-loopback-peers"];

#[test]
fn everything_is_delivered_by_every_way() {
    let Some(server) = Coturn::start("coturn::everything_is_delivered", &LOOPBACK) else { return };
    let pid = server.process.id().to_string();
    for arguments in [
        &["--direction", "both", "--server-pid", &pid][..],
        &["--direction", "both", "--by", "send"],
        &["--direction", "both", "--relay-to-relay"],
        &["--direction", "both", "--own-sockets", "--train", "4"],
    ] {
        let run = load(&server.uri(), &[&["-n", "4"][..], arguments, &SLOW].concat());
        let report = run.delivers_all();
        assert_eq!(number(&report, "given-back"), 4, "{run}");
        assert_eq!(report.get("server-cpu").is_some(), arguments.contains(&"--server-pid"));
    }
    let stream = format!("{}?transport=tcp", server.uri());
    load(&stream, &[&["--direction", "both", "-n", "4"][..], &SLOW].concat()).delivers_all();
}

#[test]
fn storms_and_floods() {
    let Some(server) = Coturn::start("coturn::storms_and_floods", &LOOPBACK) else { return };
    for more in [&[][..], &["--own-sockets"]] {
        let storm = ["--work", "allocate", "-n", "4", "--rate", "100"];
        load(&server.uri(), &[&storm[..], more].concat()).delivers_all();
    }
    load(&server.uri(), &["--work", "binding", "-n", "4", "--rate", "1000"]).delivers_all();
}

#[test]
fn refusals() {
    let Some(server) = Coturn::start("coturn::refusals", &["--user-quota=3"]) else { return };
    let uri = server.uri();
    load(&uri, &[]).fails(69, "allow-loopback-peers");
    load(&uri, &["-n", "5"]).fails(69, "is refused: 4");
    run(&["load", &uri, "--user", "alice", "--password", "wrong"]).fails(77, "401");
}

/// A running `turnserver` on loopback, in an address space of its own.
struct Coturn {
    address: SocketAddr,
    process: Process,
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
            let Run { code, .. } = run(&["probe", &uri, "--timeout", "1s"]);
            code == 0
        });
        Some(Self { address, process, _directory: directory })
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
