//! Ctrl-C: what was allocated is given back before the end.

use std::time::{Duration, Instant};

use crate::run::command;
use crate::setup::{DEADLINE, Setup};
use crate::support::process::Process;

/// A person waits for it.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn an_interrupted_load_gives_back_what_it_has_and_tells_what_it_saw() {
    interrupted("udp");
}

#[test]
fn an_interrupted_load_over_a_stream_does_as_well() {
    interrupted("tcp");
}

#[track_caller]
fn interrupted(transport: &str) {
    let mut server = Setup::new().start();
    let uri = format!("turn:{}?transport={transport}", server.addr());
    let alice = ["--user", "alice", "--password", "wonderland", "-n", "20", "--json"];
    let long = ["--seconds", "600", "--warm-up", "0", "--rate", "500", "--progress"];
    let arguments = [&["load", &uri][..], &alice, &long].concat();
    let mut load = Process::spawn(&mut command(&arguments));
    load.expect_line("packets/s", DEADLINE);
    let started = Instant::now();
    load.signal("INT");
    assert_eq!(load.wait(DEADLINE).code(), Some(130));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    load.expect_line("sturn: interrupted", DEADLINE);
    load.expect_line("\"interrupted\": true", DEADLINE);
    load.expect_line("\"lost\": 0", DEADLINE);
    load.expect_line("\"given-back\": 20", DEADLINE);
    load.expect_line("\"left-behind\": 0", DEADLINE);
    server.stop();
    let log = server.process().last_lines();
    assert_eq!(log.matches("reason=deleted by client").count(), 20, "{transport}:\n{log}");
}

#[test]
fn an_interrupt_while_allocating_leaves_nothing_behind() {
    let mut server = Setup::new().start();
    let uri = format!("turn:{}", server.addr());
    let arguments = ["--user", "alice", "--password", "wonderland", "--work", "allocate"];
    let long = ["-n", "8", "--seconds", "600", "--rate", "40", "--quiet"];
    let mut load = Process::spawn(&mut command(&[&["load", &uri][..], &arguments, &long].concat()));
    server.process().expect_line("allocation created", DEADLINE);
    load.signal("TERM");
    assert_eq!(load.wait(DEADLINE).code(), Some(130));
    server.stop();
    let log = server.process().last_lines();
    let ended = log.matches("allocation ended").count();
    assert!(ended > 0 && log.matches("reason=deleted by client").count() == ended, "{log}");
}

#[test]
fn an_interrupt_before_anything_is_allocated_ends_at_once() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    let uri = format!("turn:{}", silent.local_addr().unwrap());
    let mut load = Process::spawn(&mut command(&["load", &uri, "--json"]));
    // It asks, so it listens for the signal.
    silent.recv_from(&mut [0; 64]).unwrap();
    let started = Instant::now();
    load.signal("INT");
    assert_eq!(load.wait(DEADLINE).code(), Some(130));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert!(!load.last_lines().contains('{'), "there is nothing to report");
}
