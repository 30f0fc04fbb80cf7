//! Packets through allocations.

use std::collections::BTreeSet;

use crate::run::{SLOW, load, number, run};
use crate::setup::{self, Server, Setup};
use crate::support::process::Process;

/// What a server says at its end about one of its counters.
#[track_caller]
fn total(mut server: Server, name: &str) -> u64 {
    setup::number(&server.stop(), name)
}

fn uri(server: &Server) -> String {
    format!("turn:{}", server.addr())
}

#[test]
fn each_direction_by_each_way_delivers_everything() {
    let server = Setup::new().start();
    let mut delivered = [0, 0];
    for by in ["channel", "send"] {
        for direction in ["up", "down", "both"] {
            let arguments = ["--by", by, "--direction", direction, "-n", "3"];
            let report = load(&uri(&server), &[&arguments[..], &SLOW].concat()).delivers_all();
            let count = number(&report, "delivered");
            // 0.2 s at 500 a second, begun a little late perhaps.
            assert!((20..=110).contains(&count), "{by} {direction}: {report:#}");
            assert_eq!(report["media"]["direction"], direction);
            assert_eq!(report["media"]["by"], by);
            match direction {
                "up" => delivered[0] += count,
                "down" => delivered[1] += count,
                _ => {}
            }
        }
    }
    let mut server = server;
    let totals = server.stop();
    for (name, least) in [("packets_to_peers", delivered[0]), ("packets_to_client", delivered[1])] {
        assert!(setup::number(&totals, name) > least, "{name}: {totals}");
    }
}

#[test]
fn every_transport_and_family() {
    let server = Setup::new().tls().start();
    let chain = server.file("0.chain.pem");
    let secure = ["--ca", chain.to_str().unwrap()];
    let (v4, v6, tls) = (server.addr(), server.addr_v6(), server.tls_addr());
    for (uri, transport, arguments) in [
        (format!("turn:{v6}"), "udp", &[][..]),
        (format!("turn:{v6}?transport=tcp"), "tcp", &[]),
        (format!("turn:{v4}?transport=tcp"), "tcp", &[]),
        (format!("turns:{tls}"), "tls", &secure),
        (format!("turns:{tls}?transport=udp"), "dtls", &secure),
        (format!("turns:localhost:{}?transport=tcp", tls.port()), "tls", &["--insecure"]),
    ] {
        // A length that needs padding on streams.
        let more = ["--direction", "both", "-n", "2", "--payload", "101"];
        let report = load(&uri, &[&more[..], &SLOW, arguments].concat()).delivers_all();
        assert_eq!(report["transport"], transport, "{uri}");
    }
}

#[test]
fn certificates_are_looked_at() {
    let server = Setup::new().tls().start();
    for uri in [
        format!("turns:{}", server.tls_addr()),
        format!("turns:{}?transport=udp", server.tls_addr()),
    ] {
        load(&uri, &[]).fails(69, "--insecure");
    }
    load(&format!("turns:{}", server.tls_addr()), &["--ca", "/dev/null"]).fails(66, "/dev/null");
}

#[test]
fn saturation_delivers_as_fast_as_it_can() {
    let server = Setup::new().start();
    let uri = uri(&server);
    for arguments in [
        &["-n", "20", "--direction", "both"][..],
        &["-n", "20", "--own-sockets", "--train", "8", "--payload", "1200"],
        &["-n", "20", "--threads", "2", "--direction", "down"],
    ] {
        let report = load(&uri, arguments).report();
        assert!(number(&report, "delivered") <= number(&report, "sent"), "{report:#}");
        assert!(number(&report, "delivered") > 1000, "a packet each 300 us: {report:#}");
        let lost = number(&report, "lost");
        assert!(lost * 100 < number(&report, "sent"), "{report:#}");
    }
    let stream = load(&format!("{uri}?transport=tcp"), &["-n", "4", "--direction", "both"]);
    assert!(number(&stream.report(), "delivered") > 1000, "{stream}");
}

#[test]
fn relay_to_relay_needs_no_peers() {
    // Loopback denied, as is the default: only the server's own relay ports are left.
    let server = Setup::new().unset("peers.allow").start();
    for (direction, arguments) in [("both", &[][..]), ("up", &["--by", "send"])] {
        let more = ["--relay-to-relay", "-n", "4", "--direction", direction];
        load(&uri(&server), &[&more[..], &SLOW, arguments].concat()).delivers_all();
    }
    load(&uri(&server), &[]).fails(69, "403");
}

#[test]
fn many_allocations_are_all_given_back() {
    let server = Setup::new().set("workers.count", "1").relay_ports(120).start();
    let report = load(&uri(&server), &["-n", "120", "--direction", "both"]).report();
    assert_eq!((number(&report, "given-back"), number(&report, "left-behind")), (120, 0));
    let again = load(&uri(&server), &["-n", "120", "--own-sockets", "--rate", "2000"]);
    assert_eq!(number(&again.delivers_all(), "given-back"), 120, "all ports were free again");
    assert!(total(server, "packets_to_peers") > 0);
}

#[test]
fn the_schema_of_the_report() {
    let mut server = Setup::new().start();
    let pid = server.process().id().to_string();
    let run = load(&uri(&server), &["--server-pid", &pid, "--rate", "2000", "--train", "4"]);
    let report = run.delivers_all();
    let names: BTreeSet<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "version",
        "uri",
        "server",
        "transport",
        "work",
        "media",
        "allocations",
        "threads",
        "rate",
        "setup-seconds",
        "seconds",
        "sent",
        "delivered",
        "lost",
        "loss",
        "refused",
        "duplicates",
        "late",
        "strays",
        "unsent",
        "per-second",
        "bits-per-second",
        "latency-us",
        "server-cpu",
        "generator-cpu",
        "given-back",
        "left-behind",
        "interrupted",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let float = |value: &serde_json::Value| value.as_f64().unwrap();
    let latency =
        ["p50", "p90", "p99", "p99.9", "max"].map(|name| float(&report["latency-us"][name]));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{report:#}");
    let cpu = &report["server-cpu"];
    let delivered = number(&report, "delivered") as f64;
    let each = float(&cpu["seconds"]) * 1e6 / delivered;
    assert!(each > 0.0 && (float(&cpu["seconds-per-million"]) / each - 1.0).abs() < 1e-6);
    let rate = delivered / float(&report["seconds"]);
    assert!((float(&report["per-second"]) / rate - 1.0).abs() < 1e-6, "{report:#}");
    assert!((float(&report["bits-per-second"]) / (rate * 8.0 * 160.0) - 1.0).abs() < 1e-6);
    assert_eq!((report["version"].as_u64(), report["media"]["train"].as_u64()), (Some(1), Some(4)));
}

#[test]
fn people_get_text_and_a_line_of_progress() {
    let server = Setup::new().start();
    let uri = uri(&server);
    let alice = ["load", &uri, "--user", "alice", "--password", "wonderland", "--warm-up", "0"];
    let plain = run(&[&alice[..], &SLOW, &["--seconds", "0.2"]].concat());
    assert_eq!((plain.code, plain.stderr.as_str()), (0, ""), "{plain}");
    for start in ["server  ", "load  ", "delivered  ", "lost       0 (0.000 %)", "latency    p50 "]
    {
        assert!(plain.stdout.lines().any(|line| line.starts_with(start)), "{start}\n{plain}");
    }
    let shown = run(&[&alice[..], &SLOW, &["--seconds", "1.2", "--progress"]].concat());
    assert!(shown.stderr.contains(" packets/s"), "{shown}");
}

#[test]
fn a_server_that_stops_is_noticed() {
    let server = Setup::new().start();
    let uri = format!("{}?transport=tcp", uri(&server));
    let arguments = ["--seconds", "60", "--warm-up", "0"];
    let alice = ["load", &uri, "--user", "alice", "--password", "wonderland"];
    let mut load = Process::spawn(&mut crate::run::command(&[&alice[..], &arguments].concat()));
    let mut server = server;
    server.process().expect_line("allocation created", setup::DEADLINE);
    server.stop();
    assert_eq!(load.wait(setup::DEADLINE).code(), Some(69));
    load.expect_line("has closed a connection", setup::DEADLINE);
}
