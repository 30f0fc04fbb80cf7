//! A server that cannot start says why in one line, with an exit code that tells
//! a script, and leaves nothing behind.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::setup::{DEADLINE, Setup, skip};

const NOBODY: u32 = 65_534;

#[test]
fn a_udp_port_that_another_program_has() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let run = Run::of(&listening(&[address], &[]));
    run.fails(69, &["udp", &address.to_string(), "another program has it"]);
}

#[test]
fn a_udp_port_that_another_program_has_on_every_address() {
    let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], taken.local_addr().unwrap().port()));
    Run::of(&listening(&[address], &[])).fails(69, &["udp", &address.to_string()]);
}

#[test]
fn a_tcp_port_that_another_program_has_leaves_udp_unbound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let run = Run::of(&listening(&[address], &[address]));
    run.fails(69, &["tcp", &address.to_string(), "another program has it"]);
    UdpSocket::bind(address).expect("nothing is left bound");
}

#[test]
fn a_second_server_does_not_share_the_ports_of_the_first() {
    let mut first = Setup::new().tls().start();
    let (v4, v6) = (first.addr(), first.addr_v6());
    for (udp, tcp) in
        [(vec![v4], vec![]), (vec![], vec![v4]), (vec![v6], vec![]), (vec![], vec![v6])]
    {
        let run = Run::of(&listening(&udp, &tcp));
        run.fails(69, &["another program has it"]);
    }
    for (way, mut client) in first.every_way() {
        client.binding().unwrap_or_else(|error| panic!("{way}: {error}"));
    }
    first.stop();
}

#[test]
fn an_address_of_another_machine() {
    let address = SocketAddr::from(([203, 0, 113, 1], 3478));
    let why = "this machine does not have that address";
    Run::of(&listening(&[address], &[])).fails(78, &["udp", "203.0.113.1:3478", why]);
    Run::of(&listening(&[], &[address])).fails(78, &["tcp", "203.0.113.1:3478", why]);
}

#[test]
fn a_relay_address_of_another_machine() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = Setup::new()
        .set("listen.udp", format!("[\"{free}\"]"))
        .set("listen.tcp", "[]")
        .set("relay.addresses", r#"["203.0.113.1"]"#)
        .text();
    Run::of(&config)
        .fails(78, &["relay", "203.0.113.1", "this machine does not have that address"]);
    UdpSocket::bind(free).expect("nothing is left bound");
}

#[test]
fn a_privileged_port_without_the_privilege() {
    let test = "a_privileged_port_without_the_privilege";
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|first| first.trim().parse::<u16>().unwrap() < 1000) {
        return skip(test, "every port is unprivileged here");
    }
    let address = SocketAddr::from(([127, 0, 0, 1], 999));
    for config in [listening(&[address], &[]), listening(&[], &[address])] {
        let run = Run::unprivileged(&config);
        run.fails(77, &["127.0.0.1:999", "CAP_NET_BIND_SERVICE"]);
    }
}

#[test]
fn a_file_that_is_not_there() {
    let run = Run::serve(Command::new(BINARY), Path::new("no-such-file.toml"));
    run.fails(66, &["no-such-file.toml"]);
}

#[test]
fn a_file_that_is_no_configuration() {
    Run::of("listen = ").fails(78, &["sturn.toml"]);
    Run::of("[auth]\nmode = \"none\"\n[listen]\nupd = []\n")
        .fails(78, &["listen.upd", "listen.udp"]);
    let nobody =
        Setup::new().unset("auth.users").text().replace("@port@", "1").replace("@port6@", "1");
    Run::of(&nobody).fails(78, &["auth"]);
}

#[test]
fn a_backend_that_is_this_server_by_its_public_address() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = Setup::new()
        .set("listen.udp", format!("[\"{free}\"]"))
        .set("listen.tcp", r#"["0.0.0.0:3999"]"#)
        .advertise("203.0.113.5")
        .set("backends.servers", r#"[{ plain = true, address = "203.0.113.5:3999" }]"#)
        .text();
    Run::of(&config).fails(78, &["203.0.113.5:3999", "this server listens there itself"]);
}

#[test]
fn nothing_to_listen_on() {
    Run::of(&listening(&[], &[])).fails(78, &["listen.udp", "listen.tcp"]);
}

const BINARY: &str = env!("CARGO_BIN_EXE_sturn");

fn listening(udp: &[SocketAddr], tcp: &[SocketAddr]) -> String {
    let list = |addresses: &[SocketAddr]| {
        let quoted: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        format!("[{}]", quoted.join(", "))
    };
    Setup::new().set("listen.udp", list(udp)).set("listen.tcp", list(tcp)).text()
}

/// A server that has ended by itself.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    #[track_caller]
    fn of(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sturn.toml");
        fs::write(&file, config).unwrap();
        Self::serve(Command::new(BINARY), &file)
    }

    /// Run as nobody where this test is root, else as whoever this test is.
    #[track_caller]
    fn unprivileged(config: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sturn.toml");
        fs::write(&file, config).unwrap();
        // SAFETY: no arguments, no failure.
        if unsafe { libc::geteuid() } != 0 {
            return Self::serve(Command::new(BINARY), &file);
        }
        // Where the binary lies nobody may have no way to.
        let binary = directory.path().join("sturn");
        // By another process: one that other tests start at this moment would inherit
        // the open file from us, and a file open for writing cannot be run.
        let copied = Command::new("cp").arg(BINARY).arg(&binary).status().unwrap();
        assert!(copied.success());
        for (path, mode) in [(directory.path(), 0o755), (&*file, 0o644), (&*binary, 0o755)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut command = Command::new(binary);
        command.uid(NOBODY).gid(NOBODY);
        Self::serve(command, &file)
    }

    #[track_caller]
    fn serve(mut command: Command, config: &Path) -> Self {
        let mut child = command
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + DEADLINE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("it has started: {:?}", child.wait_with_output().unwrap());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Ended with this code and one line with these words.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {}", self.stderr);
        }
    }
}
