//! `sturn serve` and nothing else: what it prints works as it is.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use openssl::hash::MessageDigest;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode};
use sturn::client::Allocate;

use crate::setup::{DEADLINE, skip};
use crate::support::driver::Driver;
use crate::support::process::Process;
use crate::support::secure::stream;
use crate::sys;

#[test]
fn what_a_first_run_prints_works() {
    let test = "what_a_first_run_prints_works";
    // The default ports are only there once on a machine.
    if !sys::enter_network_namespace() && UdpSocket::bind("0.0.0.0:3478").is_err() {
        return skip(test, "port 3478 is taken, and a network namespace needs root");
    }
    let mut process = Process::spawn(
        Command::new(env!("CARGO_BIN_EXE_sturn")).arg("serve").env_remove("STURN_CONFIG"),
    );
    process.expect_line("A lasting setup: conf/sturn.toml", DEADLINE);
    for listener in [
        "udp       0.0.0.0:3478",
        "udp       [::]:3478",
        "tcp       0.0.0.0:3478",
        "dtls      0.0.0.0:5349",
        "tls       0.0.0.0:5349",
    ] {
        process.expect_line(listener, DEADLINE);
    }
    let password = value(&mut process, "    password  ");
    assert!(password.len() >= 24, "{password}");

    let urls = process.expect_line("urls: [", DEADLINE);
    let username = quoted(&process.expect_line("username: ", DEADLINE)).remove(0);
    let credential = quoted(&process.expect_line("credential: ", DEADLINE)).remove(0);
    assert_eq!(credential, password);
    let urls = quoted(&urls);
    assert_eq!(urls.len(), 2, "{urls:?}");
    let mut clients: Vec<(Driver, SocketAddr)> = urls
        .iter()
        .map(|url| {
            let (server, transport) = parse(url);
            let mut client = match transport {
                "udp" => Driver::udp(server, &username, &credential),
                "tcp" => Driver::tcp(server, &username, &credential),
                other => panic!("{other} in {url}"),
            };
            let relayed = client.allocate(Allocate::default()).unwrap().relayed[0];
            (client, relayed)
        })
        .collect();

    // Peers on this machine are out of bounds; another client of the server is not.
    let (one, two) = clients.split_at_mut(1);
    let (one, two) = (&mut one[0], &mut two[0]);
    let local = SocketAddr::from(([127, 0, 0, 1], 22));
    assert_eq!(one.0.channel_bind(None, local).unwrap_err().code(), 403);
    one.0.create_permission(&[two.1]).unwrap();
    two.0.create_permission(&[one.1]).unwrap();
    one.0.send(two.1, b"hello").unwrap();
    let got = two.0.expect_data(DEADLINE).unwrap();
    assert_eq!((got.peer, &got.data[..]), (one.1, &b"hello"[..]));
    let mut stranger = Driver::udp(parse(&urls[0]).0, &username, "not the password");
    assert_eq!(stranger.allocate(Allocate::default()).unwrap_err().code(), 401);

    is_served_with_the_certificate_of(&mut process);
    process.signal("INT");
    assert_eq!(process.wait(DEADLINE).code(), Some(0));
}

/// The certificate made up for this run is the one whose fingerprint is printed.
fn is_served_with_the_certificate_of(process: &mut Process) {
    let printed = value(process, "    sha256    ");
    let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
    context.set_verify(SslVerifyMode::NONE);
    let context = context.build();
    for port in [3478, 5349] {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let mut tls = SslStream::new(Ssl::new(&context).unwrap(), stream(server)).unwrap();
        tls.connect().unwrap();
        let digest = tls.ssl().peer_certificate().unwrap().digest(MessageDigest::sha256()).unwrap();
        let seen: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(seen.join(":"), printed);
    }
}

#[test]
fn every_first_run_has_a_password_of_its_own() {
    let test = "every_first_run_has_a_password_of_its_own";
    if !sys::enter_network_namespace() {
        return skip(test, "a network namespace needs root");
    }
    let run = || {
        let mut process = Process::spawn(
            Command::new(env!("CARGO_BIN_EXE_sturn")).arg("serve").env_remove("STURN_CONFIG"),
        );
        value(&mut process, "    password  ")
    };
    assert_ne!(run(), run());
}

/// The word behind a label of the banner.
#[track_caller]
fn value(process: &mut Process, label: &str) -> String {
    let line = process.expect_line(label, DEADLINE);
    let (_, rest) = line.split_once(label).unwrap();
    rest.split_ascii_whitespace().next().unwrap().to_owned()
}

/// The texts in double quotes.
fn quoted(line: &str) -> Vec<String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Address and transport of `turn:ADDRESS:PORT?transport=T`.
#[track_caller]
fn parse(url: &str) -> (SocketAddr, &str) {
    let (address, transport) =
        url.strip_prefix("turn:").unwrap().split_once("?transport=").unwrap();
    (address.parse().unwrap(), transport)
}
