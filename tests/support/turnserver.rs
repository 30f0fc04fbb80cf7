//! Another server than our own: coturn as Debian ships it. For crates of tests that
//! have the `setup` of the server's tests.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use tempfile::TempDir;

use crate::setup::{skip, wait_until};
use crate::support::process::Process;

/// A running `turnserver` on loopback, in an address space of its own, with the user
/// alice (`wonderland`).
pub(crate) struct Coturn {
    address: SocketAddr,
    process: Process,
    _directory: TempDir,
}

impl Coturn {
    /// `None`, with a word about it, where coturn is not installed.
    #[track_caller]
    pub(crate) fn start(test: &str, arguments: &[&str]) -> Option<Self> {
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
            let mut probe = Command::new(env!("CARGO_BIN_EXE_sturn"));
            probe.args(["probe", &uri, "--timeout", "1s"]).output().unwrap().status.success()
        });
        Some(Self { address, process, _directory: directory })
    }

    pub(crate) fn uri(&self) -> String {
        format!("turn:{}", self.address)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
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
