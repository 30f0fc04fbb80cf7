//! What works, and what works with a warning.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::fake;
use crate::run::{probe, probe_as_alice, run};
use crate::setup::Setup;
use crate::support::driver::Driver;
use crate::wire::is_data;

const ALL_STEPS: [&str; 12] = [
    "connect",
    "binding",
    "challenge",
    "allocate",
    "second-allocation",
    "permission",
    "peer",
    "relay-indications",
    "channel",
    "relay-channels",
    "refresh",
    "release",
];

#[test]
fn all_steps_over_udp_and_tcp() {
    let server = Setup::new().start();
    let uri = format!("turn:{}", server.addr());
    let run = probe_as_alice(&uri, &[]);
    run.ends_with(0).found_nothing();
    assert_eq!(run.step_names(0), ALL_STEPS[1..]);
    assert_eq!(run.step_names(1), ALL_STEPS);
}

#[test]
fn the_report_as_json() {
    let server = Setup::new().start();
    let uri = format!("turn:{}?transport=udp", server.addr());
    let run = probe_as_alice(&uri, &["--packets", "20"]);
    let report = run.ends_with(0).json();
    assert_eq!((&report["version"], &report["uri"]), (&1.into(), &uri.into()));
    assert_eq!(report["verdict"], "ok");
    assert_eq!(report["resolve"]["verdict"], "ok");
    assert_eq!(report["resolved"][0]["transport"], "udp");
    assert_eq!(report["resolved"][0]["address"], server.addr().to_string());
    let way = &report["transports"][0];
    assert_eq!(way["transport"], "udp");
    assert_eq!(way["address"], server.addr().to_string());
    assert!(way["software"].as_str().unwrap_or_default().starts_with("sturn"), "{way}");
    let relayed: Vec<&str> =
        way["relayed"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert!(relayed[0].starts_with(&format!("{}:", server.relay_v4())), "{relayed:?}");
    assert!(relayed[1].starts_with("[::1]:"), "{relayed:?}");
    let rtt = |name: &str| way["rtt"][name].as_f64().unwrap();
    assert!(rtt("min-ms") > 0.0 && rtt("min-ms") <= rtt("median-ms"), "{way}");
    assert!(rtt("median-ms") <= rtt("p95-ms") && rtt("p95-ms") <= rtt("max-ms"), "{way}");
    assert_eq!(way["loss"], 0.0);
    assert!(way["jitter-ms"].as_f64().unwrap() >= 0.0);
    for step in way["steps"].as_array().unwrap() {
        assert_eq!(step["verdict"], "ok", "{step}");
        assert!(step["ms"].as_f64().unwrap() >= 0.0, "{step}");
    }
    let browser = &report["browser"];
    assert!(browser["candidates"][0].as_str().unwrap().starts_with("srflx 127.0.0.1:"));
    assert!(browser["ice-server"].as_str().unwrap().contains("\"credential\":\"PASSWORD\""));
    assert!(!run.stdout.contains("wonderland"), "{run}");
}

#[test]
fn the_report_for_people_and_no_secret_in_it() {
    let server = Setup::new().start();
    let uri = format!("turn:{}?transport=tcp", server.addr());
    let run = run(&["probe", &uri, "--user", "alice"], &[("STURN_PASSWORD", "wonderland")]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run}");
    for step in ALL_STEPS {
        assert!(
            run.stdout.lines().any(|line| line.trim_start().starts_with(step)),
            "{step}\n{run}"
        );
    }
    assert!(run.stdout.ends_with("ok: all good (exit code 0)\n"), "{run}");
    assert!(run.stdout.contains("iceServers"), "{run}");
    assert!(!run.stdout.contains("wonderland"), "{run}");
}

#[test]
fn over_ipv6() {
    let server = Setup::new().start();
    let run = probe_as_alice(&format!("turn:{}", server.addr_v6()), &["--packets", "5"]);
    run.ends_with(0).found_nothing();
}

#[test]
fn a_name_in_one_family() {
    let server = Setup::new().start();
    let uri = format!("turn:localhost:{}?transport=tcp", server.addr().port());
    let run = probe_as_alice(&uri, &["-4", "--packets", "5"]);
    let report = run.ends_with(0).json();
    assert_eq!(report["resolved"].as_array().unwrap().len(), 1);
    assert_eq!(report["resolved"][0]["address"], server.addr().to_string());
}

#[test]
fn from_an_address_of_choice() {
    let server = Setup::new().start();
    let uri = format!("turn:{}", server.addr());
    let report =
        probe_as_alice(&uri, &["--source", "127.0.0.7", "--packets", "5"]).ends_with(0).json();
    for way in report["transports"].as_array().unwrap() {
        assert!(way["mapped"].as_str().unwrap().starts_with("127.0.0.7:"), "{way}");
    }
}

#[test]
fn credentials_from_a_secret_in_a_file_and_in_the_environment() {
    let server = Setup::new().set("auth.secrets", r#"["s3cret"]"#).start();
    let uri = format!("turn:{}?transport=udp", server.addr());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "s3cret\n").unwrap();
    let file = file.to_str().unwrap();
    probe(&uri, &["--secret-file", file, "--packets", "3"]).ends_with(0);
    let from_environment =
        run(&["probe", &uri, "--json", "--user", "carol"], &[("STURN_SECRET", "s3cret")]);
    let report = from_environment.ends_with(0).json();
    assert!(report["browser"]["ice-server"].as_str().unwrap().contains(":carol"), "{report}");
}

#[test]
fn stun_alone() {
    let server = Setup::new().start();
    let run = probe(&format!("stun:{}", server.addr()), &[]);
    run.ends_with(0).found_nothing();
    assert_eq!(run.step_names(0), ["binding"]);
}

#[test]
fn without_credentials_the_relay_is_not_tried() {
    let server = Setup::new().start();
    let run = probe(&format!("turn:{}?transport=udp", server.addr()), &[]);
    run.ends_with(1).found("allocate", "no-credentials", "--user");
}

#[test]
fn nothing_is_left_allocated() {
    let server = Setup::new().set("limits.allocations-per-user", "2").start();
    let uri = format!("turn:{}", server.addr());
    // Each run has two allocations at a time on each of its ways.
    for _ in 0..2 {
        probe_as_alice(&uri, &["--packets", "1"]).ends_with(0).found_nothing();
    }
    let mut client = Driver::udp(server.addr(), "alice", "wonderland");
    client.allocate(sturn::client::Allocate::default()).unwrap();
}

#[test]
fn one_transport_of_two_is_a_warning() {
    let server = Setup::new().set("listen.tcp", "[]").start();
    let run = probe_as_alice(&format!("turn:{}", server.addr()), &["--packets", "3"]);
    run.ends_with(1).found("connect", "port-closed", "listens there for TCP");
}

#[test]
fn a_user_with_room_for_one_allocation() {
    let server = Setup::new().set("limits.allocations-per-user", "1").start();
    let run = probe_as_alice(&format!("turn:{}?transport=udp", server.addr()), &["--packets", "5"]);
    run.ends_with(1).found("second-allocation", "second-allocation-refused", "several");
    // The data was relayed all the same: to a socket of this machine.
    assert_eq!(run.json()["transports"][0]["loss"], 0.0);
}

#[test]
fn a_server_that_denies_private_peers() {
    let server = Setup::new().unset("peers.allow").start();
    let run = probe_as_alice(&format!("turn:{}?transport=udp", server.addr()), &["--packets", "5"]);
    let report = run.ends_with(0).found_nothing().json();
    let steps = report["transports"][0]["steps"].as_array().unwrap();
    let peer = steps.iter().find(|step| step["name"] == "peer").unwrap();
    assert_eq!(peer["verdict"], "skipped");
    assert!(peer["detail"].as_str().unwrap().contains("as it should"), "{peer}");
}

#[test]
fn relay_ports_that_are_closed_to_the_outside() {
    // Nothing is bound at the address that clients are told.
    let server = Setup::new().advertise("127.9.9.9").start();
    let run = probe_as_alice(&format!("turn:{}?transport=udp", server.addr()), &["--packets", "5"]);
    run.ends_with(1).found("peer", "relay-ports-closed", "firewall");
    let relayed = run.json()["transports"][0]["relayed"][0].clone();
    assert!(relayed.as_str().unwrap().starts_with("127.9.9.9:"), "{relayed}");
}

#[test]
fn behind_a_nat_that_loses_packets() {
    let server = Setup::new().start();
    let count = AtomicUsize::new(0);
    let is_lost = move |bytes: &[u8]| {
        bytes[0] >= 0x40 && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(10)
    };
    let middlebox = fake::middlebox(server.addr(), move |bytes| !is_lost(bytes));
    let run = probe_as_alice(&format!("turn:{middlebox}?transport=udp"), &["--packets", "30"]);
    run.ends_with(1).found("relay-channels", "loss", "lost");
    let report = run.json();
    let way = &report["transports"][0];
    let loss = way["loss"].as_f64().unwrap();
    // A packet crosses the box four times on its way there and back.
    assert!((0.2..0.6).contains(&loss), "{loss}");
    let binding = way["steps"][0]["detail"].as_str().unwrap();
    assert!(binding.contains("NAT in between"), "{binding}");
}

#[test]
fn data_that_never_arrives() {
    let server = Setup::new().start();
    let middlebox = fake::middlebox(server.addr(), |bytes| !is_data(bytes));
    let run = probe_as_alice(&format!("turn:{middlebox}?transport=udp"), &["--packets", "5"]);
    run.ends_with(3).found("relay-indications", "no-data", "relay.ports");
    // What was allocated is given back all the same.
    assert_eq!(run.step_names(0).last().unwrap(), "release");
}

#[test]
fn it_is_over_when_the_time_is() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let uri = format!("turn:{}?transport=udp", silent.local_addr().unwrap());
    let started = Instant::now();
    probe_as_alice(&uri, &["--timeout", "2s"]).ends_with(69);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
