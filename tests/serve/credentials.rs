//! Who gets in: time-limited credentials, old and new clients; and that a refusal
//! does not tell why.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use sturn::client::{Allocate, Client, Config, Event, Security};
use sturn::net::Transport;

use crate::setup::{DEADLINE, Setup};
use crate::support::driver::{Driver, next_seed, now};

#[test]
fn issued_credentials_work_until_they_expire() {
    let server = Setup::new()
        .unset("auth.users")
        .set("auth.secrets", r#"["the new secret", "the old secret"]"#)
        .start();
    for secret in ["the new secret", "the old secret"] {
        let (name, password) = issue(secret, "carol", "10m");
        for mut client in [
            Driver::udp(server.addr(), &name, &password),
            Driver::tcp(server.addr(), &name, &password),
            legacy(server.addr(), &name, &password),
        ] {
            client.allocate(Allocate::default()).unwrap();
            client.refresh(None, None).unwrap();
        }
        let tampered = format!("9{name}");
        let mut client = Driver::udp(server.addr(), &tampered, &password);
        assert_eq!(client.allocate(Allocate::default()).unwrap_err().code(), 401);
    }
    let (name, password) = issue("another secret", "carol", "10m");
    let mut client = Driver::udp(server.addr(), &name, &password);
    assert_eq!(client.allocate(Allocate::default()).unwrap_err().code(), 401);
}

#[test]
fn an_expired_credential_makes_no_allocation_and_keeps_the_one_it_made() {
    let server = Setup::new().set("auth.secrets", r#"["a secret"]"#).start();
    let (name, password) = issue("a secret", "carol", "2s");
    let mut early = Driver::udp(server.addr(), &name, &password);
    early.allocate(Allocate::default()).unwrap();
    crate::setup::wait_until("the credential is refused", || {
        let mut late = Driver::udp(server.addr(), &name, &password);
        late.allocate(Allocate::default()).is_err_and(|error| error.code() == 401)
    });
    early.refresh(None, None).expect("auth.expiry = allocate is about new allocations");
}

#[test]
fn clients_of_every_age_authenticate() {
    let server = Setup::new().start();
    for security in [Security::Legacy, Security::Full] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let config = Config::new(transport, "alice", "wonderland", next_seed());
            let mut client = Driver::with(server.addr(), Config { security, ..config });
            client.allocate(Allocate::default()).unwrap();
            client.refresh(None, None).unwrap();
        }
    }
}

#[test]
fn without_md5_only_new_clients_authenticate() {
    let server = Setup::new().set("auth.password-algorithms", r#"["sha-256"]"#).start();
    server.udp().allocate(Allocate::default()).unwrap();
    let refused = legacy(server.addr(), "alice", "wonderland").allocate(Allocate::default());
    assert!(refused.is_err(), "MD5 is not offered");
}

#[test]
fn a_stale_nonce_is_replaced_under_way() {
    let server = Setup::new().set("auth.nonce-lifetime", r#""1s""#).start();
    let mut client = server.udp();
    client.allocate(Allocate::default()).unwrap();
    let nonce = || |client: &mut Driver| client.client().challenge().unwrap().1.to_owned();
    let first = nonce()(&mut client);
    crate::setup::wait_until("a new nonce", || {
        client.refresh(None, None).unwrap();
        nonce()(&mut client) != first
    });
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let server = Setup::new().set("auth.secrets", r#"["a secret"]"#).start();
    let in_an_hour = now().unix.as_secs() + 3600;
    let limited = format!("{in_an_hour}:carol");
    for security in [Security::Legacy, Security::Full] {
        let refusals = [
            ("wrong password", refusal(server.addr(), security, "alice", "looking-glass")),
            ("unknown user", refusal(server.addr(), security, "mallory", "wonderland")),
            ("wrong secret", refusal(server.addr(), security, &limited, "cGFzc3dvcmQ=")),
            ("expired", refusal(server.addr(), security, "1000000000:carol", "cGFzc3dvcmQ=")),
        ];
        let (_, first) = &refusals[0];
        for (why, other) in &refusals[1..] {
            assert_eq!(first, other, "{security:?}: {why}");
        }
    }
}

/// The answer to a request with credentials that are refused, as bytes, without
/// what differs from answer to answer.
fn refusal(server: SocketAddr, security: Security, name: &str, password: &str) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let config = Config::new(Transport::Udp, name, password, next_seed());
    let mut client = Client::new(Config { security, ..config });
    client.allocate(now(), Allocate::default());
    let mut buffer = [0; 1500];
    loop {
        let request = client.poll_transmit().expect("the client goes on until it is refused");
        socket.send(&request).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        client.handle_receive(now(), &buffer[..length]);
        match client.poll_event() {
            None => {}
            Some(Event::Failed(failure)) => {
                assert_eq!(failure.code, 401);
                return masked(&buffer[..length]);
            }
            Some(other) => panic!("not refused: {other:?}"),
        }
    }
}

/// Zeros in place of transaction id, NONCE and FINGERPRINT.
fn masked(message: &[u8]) -> Vec<u8> {
    const NONCE: u16 = 0x0015;
    const FINGERPRINT: u16 = 0x8028;
    let mut bytes = message.to_vec();
    bytes[8..20].fill(0);
    let mut at = 20;
    while at < bytes.len() {
        let kind = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if kind == NONCE || kind == FINGERPRINT {
            bytes[at + 4..][..length].fill(0);
        }
        at += 4 + length.next_multiple_of(4);
    }
    bytes
}

fn legacy(server: SocketAddr, name: &str, password: &str) -> Driver {
    let config = Config::new(Transport::Udp, name, password, next_seed());
    Driver::with(server, Config { security: Security::Legacy, ..config })
}

/// Name and password of `sturn credentials`.
#[track_caller]
pub(crate) fn issue(secret: &str, user: &str, ttl: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sturn"))
        .args(["credentials", "--user", user, "--ttl", ttl])
        .args(["--url", "turn:127.0.0.1:3478", "--json"])
        .env("STURN_SECRET", secret)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let server = &json["iceServers"][0];
    let text = |member: &str| server[member].as_str().unwrap().to_owned();
    assert_eq!(server["urls"][0], "turn:127.0.0.1:3478");
    (text("username"), text("credential"))
}

/// A credential is not older than this test.
#[test]
fn issued_names_carry_their_expiry() {
    let before = now().unix;
    let (name, _) = issue("a secret", "carol", "1h");
    let (expiry, user) = name.split_once(':').unwrap();
    let lifetime = Duration::from_secs(expiry.parse().unwrap()) - before;
    assert_eq!(user, "carol");
    assert!((3599..=3610).contains(&lifetime.as_secs()), "{lifetime:?}");
}
