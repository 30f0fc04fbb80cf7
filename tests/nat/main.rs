//! `sturn nat` as a script meets it: against servers on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../support/process.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod process;
mod server;

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use process::Process;
use server::{Kind, Server};

const DEADLINE: Duration = Duration::from_secs(30);

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Run {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\n{}", self.all()))
    }

    fn all(&self) -> String {
        format!("exit {}\n{}{}", self.code, self.stderr, self.stdout)
    }
}

/// Runs `sturn nat` with a deadline.
#[track_caller]
fn nat(args: &[&str]) -> Run {
    nat_with(args, &[])
}

#[track_caller]
fn nat_with(args: &[&str], variables: &[(&str, &str)]) -> Run {
    end_of(start(args, variables), args)
}

fn start(args: &[&str], variables: &[(&str, &str)]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sturn"))
        .arg("nat")
        .args(args)
        .env_remove("STURN_SERVER")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

#[track_caller]
fn end_of(mut child: Child, args: &[&str]) -> Run {
    let started = Instant::now();
    while child.try_wait().expect("the child can be waited for").is_none() {
        if started.elapsed() > DEADLINE {
            let _ = child.kill();
            let mut stderr = String::new();
            let _ = child.stderr.take().map(|mut e| e.read_to_string(&mut stderr));
            panic!("sturn nat {args:?} did not end; it said:\n{stderr}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().expect("not ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        took: started.elapsed(),
    }
}

#[test]
fn the_open_internet_is_0() {
    let server = Server::start(Kind::Rfc5780);
    let name = server.name();
    let run = nat(&[&name]);
    assert_eq!(run.code, 0, "{}", run.all());
    for line in [
        "NAT        open internet",
        "           mapping    endpoint-independent",
        "           filtering  endpoint-independent",
        "ports      preserved (8 of 8)",
        "hairpin    not needed, no NAT",
    ] {
        assert!(run.stdout.lines().any(|found| found == line), "{line}\n{}", run.all());
    }
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 80), "{}", run.stdout);
    assert!(run.stderr.starts_with(&format!("Asking {name} ({name}) from 127.0.0.1; at most 16s")));
    assert!(run.took < Duration::from_secs(10), "nothing is silent: {:?}", run.took);
}

#[test]
fn json_is_one_object_with_the_fields_of_the_help() {
    let server = Server::start(Kind::Rfc5780);
    let run = nat(&[&server.name(), "--json"]);
    let json = run.json();
    assert_eq!(run.code, 0, "{}", run.all());
    assert_eq!(json["version"], 1);
    assert_eq!((&json["outcome"], &json["exit-code"]), (&"open-internet".into(), &0.into()));
    assert_eq!(json["problem"], Value::Null);
    assert_eq!(json["server"]["address"], server.name());
    assert_eq!(json["server"]["other-address"], server.other().to_string());
    assert_eq!(json["local-address"], json["mapped-address"]);
    assert_eq!(json["filtering"], "endpoint-independent");
    let ports = serde_json::json!({ "sockets": 8, "preserved": 8, "parity-preserved": 8 });
    assert_eq!(json["ports"], ports);
    assert_eq!((&json["hairpin"], &json["unknown"]["hairpin"]), (&Value::Null, &"no-nat".into()));
    assert_eq!(json["unknown"]["tcp-mapping"], "no-tcp");

    let help = nat(&["--help"]).stdout;
    let schema = help.split("JSON (--json), version 1").nth(1).unwrap();
    for field in json.as_object().unwrap().keys() {
        assert!(schema.contains(&format!("\n  {field} ")), "{field} is not in the help");
    }
}

#[test]
fn the_help_lists_the_exit_codes() {
    let run = nat(&["--help"]);
    assert_eq!(run.code, 0);
    for row in
        ["    0  open-internet", "   14  symmetric", "   21  not-decidable", "   76  protocol"]
    {
        assert!(run.stdout.contains(row), "{row}\n{}", run.stdout);
    }
}

#[test]
fn a_server_with_one_address_is_21() {
    let server = Server::start(Kind::OneAddress);
    let run = nat(&[&server.name()]);
    assert_eq!(run.code, 21, "{}", run.all());
    assert!(run.stdout.contains("cannot be told with this server"), "{}", run.stdout);
    assert!(run.stdout.contains("the server has no second address"), "{}", run.stdout);

    let second = Server::start(Kind::OneAddress);
    let run = nat(&[&server.name(), "--second", &second.name(), "--json"]);
    assert_eq!(run.json()["unknown"]["mapping"], "no-other-address", "both are 127.0.0.1");
}

#[test]
fn the_server_may_come_from_the_environment() {
    let server = Server::start(Kind::OneAddress);
    let run = nat_with(&[], &[("STURN_SERVER", &server.name())]);
    assert_eq!(run.code, 21, "{}", run.all());
    assert!(run.stderr.contains(&server.name()), "{}", run.stderr);
}

#[test]
fn a_silent_port_is_69_within_the_bound() {
    // Held, and never answered.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = silent.local_addr().unwrap().to_string();
    let run = nat(&[&name, "--timeout", "2s", "--json"]);
    assert_eq!(run.code, 69, "{}", run.all());
    assert_eq!(run.json()["outcome"], "unavailable");
    assert!(run.took < Duration::from_secs(4), "{:?}", run.took);
    assert!(run.stderr.contains("at most 2s"), "{}", run.stderr);
}

#[test]
fn a_server_that_answers_over_tcp_only_is_20() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = listener.local_addr().unwrap().to_string();
    let _tcp = server::serve_tcp(listener);
    let run = nat(&[&name, "--timeout", "2s", "--json"]);
    assert_eq!(run.code, 20, "{}", run.all());
    let json = run.json();
    assert_eq!(format!("127.0.0.1:{}", json["tcp-port"]), name);
    assert!(json["calls"].as_str().unwrap().contains("relay (TURN) over TCP"));
}

#[test]
fn what_is_no_stun_server_is_76() {
    for (kind, misbehaviour, words) in [
        (Kind::Garbage, "garbage", "bytes that are no STUN message"),
        (Kind::Unauthorized, "error-response", "credentials"),
        (Kind::Lying("0.0.0.0:3479"), "other-address-unspecified", "0.0.0.0:3479 is unspecified"),
        (Kind::Lying("127.0.0.1:3479"), "other-address-same-address", "same address as 127.0.0.1"),
        (Kind::Misrouting, "change-request-misrouted", "asked to answer from 127.0.0.2"),
    ] {
        let server = Server::start(kind);
        let run = nat(&[&server.name(), "--timeout", "2s"]);
        assert_eq!((run.code, run.stdout.as_str()), (76, ""), "{kind:?}\n{}", run.all());
        assert!(run.stderr.contains(words), "{kind:?}\n{}", run.stderr);
        let run = nat(&[&server.name(), "--timeout", "2s", "--json"]);
        assert_eq!(run.json()["misbehaviour"], misbehaviour, "{kind:?}\n{}", run.all());
        assert_eq!(run.json()["exit-code"], 76);
    }
}

#[test]
fn what_servers_say_does_not_turn_text_around() {
    let server = Server::start(Kind::Backwards);
    for arguments in [&["--timeout", "2s"][..], &["--timeout", "2s", "--json"]] {
        let run = nat(&[&[&*server.name()], arguments].concat());
        assert_eq!(run.code, 76, "{}", run.all());
        let (text, steers) = (run.all(), |c| matches!(c, '\u{202e}' | '\u{2066}'));
        assert!(text.contains("go") && text.contains("away"), "{text}");
        assert!(!text.contains(steers), "{text}");
    }
    let run = nat(&[&server.name(), "--timeout", "2s", "--json"]);
    assert!(run.json()["problem"].as_str().unwrap().contains("go\u{202e}away"), "{}", run.all());
}

#[test]
fn a_link_local_address_has_a_zone() {
    let run = nat(&["fe80::1%no-such-if0", "--timeout", "2s", "--json"]);
    assert_eq!(run.code, 68, "{}", run.all());
    assert!(run.json()["problem"].as_str().unwrap().contains("no zone no-such-if0"));

    let Some((address, zone)) = link_local() else {
        eprintln!("skipped: no interface has a link-local address");
        return;
    };
    let index: u32 = std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let server = UdpSocket::bind(SocketAddrV6::new(address, 0, 0, index)).unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = server.local_addr().unwrap().port();
    for zone in [zone, index.to_string()] {
        let arguments = [&*format!("[{address}%{zone}]:{port}"), "--timeout", "1s", "--json"];
        let child = start(&arguments, &[]);
        server.recv_from(&mut [0; 64]).expect("it is asked");
        assert_eq!(end_of(child, &arguments).code, 69);
    }
}

/// A link-local address of this host, and its interface.
fn link_local() -> Option<(Ipv6Addr, String)> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let bits = u128::from_str_radix(words.first()?, 16).ok()?;
        let address = Ipv6Addr::from(bits);
        // Permanent: a tentative one cannot be bound.
        (address.is_unicast_link_local() && *words.get(4)? == "80")
            .then(|| words.last().map(|name| (address, (*name).to_owned())))?
    })
}

#[test]
fn a_flood_does_not_hold_up_the_clock() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = listener.local_addr().unwrap().to_string();
    server::flood(UdpSocket::bind(&*name).unwrap(), listener);
    let run = nat(&[&name, "--timeout", "2s", "--json"]);
    assert_eq!(run.code, 76, "{}", run.all());
    assert_eq!(run.json()["misbehaviour"], "garbage");
    assert!(run.took < Duration::from_secs(4), "{:?}", run.took);
}

#[test]
fn nobody_has_to_read_standard_error() {
    let server = Server::start(Kind::OneAddress);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_sturn"))
        .args(["nat", &server.name(), "--timeout", "2s", "--json"])
        .stderr(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(21));
    serde_json::from_slice::<Value>(&output.stdout).unwrap();
}

#[test]
fn ctrl_c_does_not_blame_the_server() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let args = [&*silent.local_addr().unwrap().to_string(), "--json"];
    let child = start(&args, &[]);
    // It asks, so it listens for the signal.
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    silent.recv_from(&mut [0; 64]).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let run = end_of(child, &args);
    assert_eq!(run.code, 22, "{}", run.all());
    assert_eq!(run.json()["outcome"], "inconclusive");
    assert!(run.json()["problem"].as_str().unwrap().contains("interrupted"));
}

#[test]
fn a_name_that_does_not_resolve_is_68() {
    let run = nat(&["host.invalid", "--timeout", "10s", "--json"]);
    assert_eq!(run.code, 68, "{}", run.all());
    assert_eq!(run.json()["outcome"], "no-host");
    let run = nat(&["-6", "127.0.0.1"]);
    assert_eq!(run.code, 68, "{}", run.all());
}

#[test]
fn what_this_host_cannot_do_is_71() {
    for args in
        [&["127.0.0.1", "--interface", "no-such-if0"][..], &["127.0.0.1", "--source", "192.0.2.77"]]
    {
        let run = nat(args);
        assert_eq!(run.code, 71, "{args:?}\n{}", run.all());
        assert!(run.stdout.is_empty() && !run.stderr.is_empty());
    }
}

#[test]
fn a_wrong_command_line_is_64() {
    for args in [
        &["-4", "-6", "127.0.0.1"][..],
        &["127.0.0.1:99999"],
        &["127.0.0.1", "--timeout", "0s"],
        &["127.0.0.1", "--lifetime=never"],
        &["127.0.0.1", "--source", "eth0"],
        &["one", "two"],
    ] {
        let run = nat(args);
        assert_eq!((run.code, run.stdout.as_str()), (64, ""), "{args:?}\n{}", run.all());
    }
}

#[test]
fn the_source_is_the_one_that_was_named() {
    let server = Server::start(Kind::Rfc5780);
    let run = nat(&[&server.name(), "--source", "127.0.0.5", "--json"]);
    assert_eq!(run.code, 0, "{}", run.all());
    assert!(run.json()["mapped-address"].as_str().unwrap().starts_with("127.0.0.5:"));
}

/// Another implementation of the server's side, with TCP.
#[test]
fn coturn_on_loopback() {
    if Command::new("turnserver").arg("--version").output().is_err() {
        eprintln!("skipped: turnserver (package coturn) is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [port, alternate] = server::free_port_pair();
    let option = |name: &str, value: &str| format!("--{name}={value}");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut coturn = Process::spawn(
        Command::new("turnserver").args(["-n", "--no-tls", "--no-dtls", "--no-cli", "-v"]).args([
            option("listening-ip", "127.0.0.1"),
            option("listening-ip", "127.0.0.2"),
            option("listening-port", &port.to_string()),
            option("alt-listening-port", &alternate.to_string()),
            option("log-file", "stdout"),
            option("pidfile", &path("pid")),
            option("userdb", &path("db")),
        ]),
    );
    coturn.expect_line("IO method (admin thread)", DEADLINE);
    let name = format!("127.0.0.1:{port}");
    let json = {
        let run = nat(&[&name, "--json"]);
        assert_eq!(run.code, 0, "{}", run.all());
        run.json()
    };
    assert_eq!(json["server"]["other-address"], format!("127.0.0.2:{alternate}"));
    for fact in ["mapping", "filtering", "tcp-mapping"] {
        assert_eq!(json[fact], "endpoint-independent", "{json:#}");
    }
    let fragments = serde_json::json!({ "requests": "pass", "responses": "pass" });
    assert_eq!(json["fragments"], fragments);
}
