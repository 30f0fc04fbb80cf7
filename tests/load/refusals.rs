//! What is wrong is said in a line, with an exit code for scripts.

use std::net::UdpSocket;

use crate::run::{load, run};
use crate::setup::Setup;

#[test]
fn servers_elsewhere_are_not_loaded_unasked() {
    for uri in ["turn:198.51.100.1", "turn:[2001:db8::1]:3478?transport=tcp"] {
        load(uri, &[]).fails(64, "--i-own-this-server");
    }
    // Asked, it tries: nobody answers there, or no way leads there.
    let run = load("turn:198.51.100.1", &["--i-own-this-server", "--peer-address", "198.51.100.7"]);
    run.fails(64, "--peer-address 198.51.100.7");
}

#[test]
fn a_wrong_password_or_secret() {
    let server = Setup::new().start();
    let uri = format!("turn:{}", server.addr());
    for work in ["media", "allocate"] {
        let alice = ["load", &uri, "--user", "alice", "--password", "wrong", "--work", work];
        run(&alice).fails(77, "401");
    }
    run(&["load", &uri, "--secret", "wrong"]).fails(77, "wrong user, password or secret");
    run(&["load", &uri]).fails(77, "401");
}

#[test]
fn a_peer_that_is_not_allowed() {
    let server = Setup::new().set("peers.allow", r#"["::1"]"#).start();
    let uri = format!("turn:{}", server.addr());
    load(&uri, &[]).fails(69, "ChannelBind is refused: 403");
    load(&uri, &["--by", "send"]).fails(69, "CreatePermission is refused: 403");
    load(&uri, &["--peer-address", "::1", "--rate", "500"]).delivers_all();
}

#[test]
fn a_quota() {
    let server = Setup::new().set("limits.allocations-per-user", "3").start();
    let uri = format!("turn:{}", server.addr());
    load(&uri, &["-n", "5"]).fails(69, "486");
    // What was allocated before the refusal is given back.
    load(&uri, &["-n", "3", "--rate", "500"]).delivers_all();
}

#[test]
fn nobody_there() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = taken.local_addr().unwrap();
    load(&format!("turn:{silent}?transport=tcp"), &[]).fails(69, "nothing listens");
    load("turn:nowhere.invalid", &[]).fails(69, "nowhere.invalid");
}

#[test]
fn command_lines_that_make_no_sense() {
    for (uri, arguments, said) in [
        ("stun:127.0.0.1", &[][..], "--work binding"),
        ("turn:127.0.0.1", &["--relay-to-relay", "-n", "3"], "even"),
        ("turn:127.0.0.1", &["--threads", "2"], "--threads"),
        ("turn:127.0.0.1", &["-n", "30001"], "--threads"),
        ("turn:127.0.0.1", &["--users", "2"], "--secret"),
    ] {
        load(uri, arguments).fails(64, said);
    }
    run(&["load", "turn:127.0.0.1", "--seconds", "0"]).fails(64, "--seconds");
    let none = load("turn:127.0.0.1", &["--server-pid", "4294967295"]);
    none.fails(71, "--server-pid");
}

#[test]
fn a_way_that_is_closed() {
    // Only relays are peers here, and the peers' port could be one.
    let mut setup = Setup::new().unset("peers.allow").set("relay.ports", "\"10000-20000\"");
    setup = setup.set("relay.addresses", "[\"127.127.3.1\"]");
    let server = setup.start();
    let both = ["--direction", "both", "--peer-address", "127.127.3.1", "--rate", "500"];
    let run = load(&format!("turn:{}", server.addr()), &both);
    run.fails(69, "nothing arrived from clients to peers");
}
