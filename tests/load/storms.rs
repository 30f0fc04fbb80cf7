//! Allocations made and given back, and Binding requests.

use crate::run::{load, number, run};
use crate::setup::{Server, Setup};

/// No limit on answers to strangers, which storms are.
fn server() -> Server {
    Setup::new()
        .tls()
        .set("limits.answers-per-prefix", "0")
        .set("auth.secrets", r#"["s3cret"]"#)
        .start()
}

#[test]
fn allocations_are_made_and_given_back_by_every_transport() {
    let mut server = server();
    let (plain, tls) = (server.addr(), server.tls_addr());
    for uri in [
        format!("turn:{plain}"),
        format!("turn:{}", server.addr_v6()),
        format!("turn:{plain}?transport=tcp"),
        format!("turns:{tls}"),
        format!("turns:{tls}?transport=udp"),
    ] {
        let run = load(&uri, &["--work", "allocate", "-n", "4", "--insecure"]);
        let report = run.delivers_all();
        assert!(number(&report, "delivered") > 0, "{run}");
        assert!(report["latency-us"]["p50"].as_f64().unwrap() > 0.0, "{run}");
        assert_eq!(report.get("media"), None);
    }
    server.stop();
    let log = server.process().last_lines();
    let ended = log.matches("allocation ended").count();
    assert!(ended > 0 && log.matches("reason=deleted by client").count() == ended, "{log}");
}

#[test]
fn a_rate_of_allocations_is_kept() {
    let server = server();
    let arguments = ["--work", "allocate", "-n", "8", "--rate", "100", "--own-sockets"];
    let run = load(&format!("turn:{}", server.addr()), &arguments);
    let sent = number(&run.delivers_all(), "sent");
    assert!((15..=22).contains(&sent), "{run}");
}

#[test]
fn several_users_share_the_quota_of_one_each() {
    let mut setup = Setup::new().set("auth.secrets", r#"["s3cret"]"#);
    setup = setup.unset("auth.users").set("limits.allocations-per-user", "2");
    let server = setup.start();
    let uri = format!("turn:{}", server.addr());
    let with = |users| {
        let arguments = ["load", &uri, "--secret", "s3cret", "-n", "6", "--users", users];
        run(&[&arguments[..], &["--rate", "500", "--seconds", "0.2", "--json"]].concat())
    };
    with("1").fails(69, "486");
    with("3").delivers_all();
}

#[test]
fn binding_requests_are_answered() {
    let server = server();
    for uri in [
        format!("stun:{}", server.addr()),
        format!("stun:{}", server.addr_v6()),
        format!("turn:{}?transport=tcp", server.addr()),
        format!("stuns:{}", server.tls_addr()),
    ] {
        let flood = ["--work", "binding", "-n", "3", "--rate", "1000", "--insecure"];
        let run = load(&uri, &flood);
        let report = run.delivers_all();
        assert!(number(&report, "delivered") > 120, "{run}");
        assert_eq!(report["work"], "binding");
    }
    let saturated = load(&format!("stun:{}", server.addr()), &["--work", "binding", "-n", "3"]);
    assert!(number(&saturated.report(), "delivered") > 1000, "{saturated}");
}

#[test]
fn what_is_lost_is_counted() {
    // Over own sockets all strangers are of one network, of which few are answered.
    let server = Setup::new().set("limits.answers-per-prefix", "50").start();
    let flood = ["--work", "binding", "-n", "2", "--rate", "5000", "--own-sockets"];
    let run = load(&format!("stun:{}", server.addr()), &flood);
    let report = run.report();
    let [sent, delivered, lost] = ["sent", "delivered", "lost"].map(|name| number(&report, name));
    assert_eq!(delivered + lost, sent, "{run}");
    assert!(delivered <= 300 && lost >= 400, "{run}");
    let loss = report["loss"].as_f64().unwrap();
    assert!((loss - lost as f64 / sent as f64).abs() < 1e-9, "{run}");
}
