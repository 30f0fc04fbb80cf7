//! Another server than our own: coturn as Debian ships it.

use crate::run::{probe, probe_as_alice};
use crate::turnserver::Coturn;

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
