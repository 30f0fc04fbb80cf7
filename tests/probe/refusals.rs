//! Servers that say no, and what the probe makes of it.

use std::net::SocketAddr;

use sturn::client::Allocate;

use crate::fake;
use crate::run::{probe, probe_as_alice, run};
use crate::setup::Setup;
use crate::wire::{
    ALLOCATE, BINDING, REFRESH, alternate, attribute, challenge, error, is_signed, lifetime,
    mapped, relayed, request_method, software, success,
};

#[test]
fn a_wrong_password() {
    let server = Setup::new().start();
    let uri = format!("turn:{}", server.addr());
    let run = probe(&uri, &["--user", "alice", "--password", "wrong"]);
    run.ends_with(2).found("allocate", "credentials-refused", "realm is \"example.org\"");
    assert_eq!(run.step_names(0), ["binding", "challenge", "allocate"]);
}

#[test]
fn a_wrong_secret() {
    let server = Setup::new().set("auth.secrets", r#"["s3cret"]"#).start();
    let uri = format!("turn:{}?transport=udp", server.addr());
    probe(&uri, &["--secret", "other"]).ends_with(2).found("allocate", "secret-refused", "clock");
}

#[test]
fn a_credential_that_has_ended() {
    let server = Setup::new().set("auth.secrets", r#"["s3cret"]"#).start();
    let uri = format!("turn:{}?transport=udp", server.addr());
    let arguments = ["--secret", "s3cret", "--user", "1600000000:alice"];
    probe(&uri, &arguments).ends_with(2).found("allocate", "username-expired", "days ago");
}

#[test]
fn a_quota_that_is_used_up() {
    let server = Setup::new().set("limits.allocations-per-user", "1").start();
    let mut other = server.udp();
    other.allocate(Allocate::default()).unwrap();
    let run = probe_as_alice(&format!("turn:{}", server.addr()), &[]);
    run.ends_with(5).found("allocate", "quota", "limits.allocations-per-user");
}

#[test]
fn no_port_left() {
    let server = Setup::new().relay_ports(2).start();
    let mut others = [server.udp(), server.udp()];
    for other in &mut others {
        other.allocate(Allocate::default()).unwrap();
    }
    let run = probe_as_alice(&format!("turn:{}?transport=udp", server.addr()), &[]);
    run.ends_with(5).found("allocate", "no-port", "relay.ports");
}

#[test]
fn stun_only() {
    let server = Setup::new().set("auth.mode", r#""none""#).unset("auth.users").start();
    let run = probe_as_alice(&format!("turn:{}?transport=udp", server.addr()), &[]);
    run.ends_with(5).found("challenge", "stun-only", "no TURN");
    probe(&format!("stun:{}", server.addr()), &[]).ends_with(0);
}

#[test]
fn stun_only_by_silence() {
    let server = turn(|_, _| None);
    let run = probe_as_alice(&format!("turn:{server}?transport=udp"), &["--timeout", "3s"]);
    run.ends_with(5).found("challenge", "stun-only", "no TURN");
}

#[test]
fn an_open_relay() {
    let server = turn(|request, from| {
        (request_method(request) == Some(ALLOCATE)).then(|| granted(request, from))
    });
    let run = probe_as_alice(&format!("turn:{server}?transport=udp"), &["--timeout", "3s"]);
    run.ends_with(76).found("challenge", "open-relay", "ANYBODY");
}

#[test]
fn a_challenge_without_realm() {
    let server = turn(|request, _| Some(error(request, 401, &[])));
    let run = probe_as_alice(&format!("turn:{server}?transport=udp"), &[]);
    run.ends_with(76).found("challenge", "no-challenge", "REALM");
}

#[test]
fn errors_that_an_allocate_can_meet() {
    for (code, exit, finding, hint) in [
        (403, 5, "forbidden", "may not"),
        (420, 5, "unknown-attribute", "0x0019"),
        (437, 5, "allocation-mismatch", "437"),
        (441, 2, "wrong-user", "another user"),
        (442, 5, "transport-refused", "442"),
        (486, 5, "quota", "486"),
        (500, 5, "server-error", "log"),
        (508, 5, "no-port", "508"),
    ] {
        let server = turn(move |request, _| {
            Some(match is_signed(request) {
                true => error(request, code, &[attribute(0x000A, &[0x00, 0x19])]),
                false => challenge(request),
            })
        });
        let run = probe_as_alice(&format!("turn:{server}?transport=udp"), &[]);
        run.ends_with(exit).found("allocate", finding, hint);
    }
}

#[test]
fn a_nonce_that_is_always_stale() {
    let server = turn(|request, _| {
        let again = [attribute(0x0014, b"fake"), attribute(0x0015, b"other")];
        Some(if is_signed(request) { error(request, 438, &again) } else { challenge(request) })
    });
    let run = probe_as_alice(&format!("turn:{server}?transport=udp"), &[]);
    run.ends_with(76).found("allocate", "stale-nonce", "load balancer");
}

#[test]
fn answers_that_are_not_signed() {
    let server = turn(|request, from| {
        Some(if is_signed(request) { granted(request, from) } else { challenge(request) })
    });
    let run = probe_as_alice(&format!("turn:{server}?transport=udp"), &["--timeout", "3s"]);
    run.ends_with(76).found("allocate", "bad-integrity", "signed");
}

#[test]
fn another_server_is_followed_once() {
    let real = Setup::new().start();
    let target = real.addr();
    let front = turn(move |request, _| Some(error(request, 300, &[alternate(target)])));
    let run = probe_as_alice(&format!("turn:{front}?transport=udp"), &["--packets", "3"]);
    run.ends_with(1).found("redirect", "redirected", "300");
    assert_eq!(run.step_names(0).last().unwrap(), "release");

    let loops = turn(move |request, _| Some(error(request, 300, &[alternate(front)])));
    let run = probe_as_alice(&format!("turn:{loops}?transport=udp"), &[]);
    run.ends_with(5).found("redirect", "redirected-again", "not followed");
}

#[test]
fn an_answer_that_is_malformed_is_not_silence() {
    let reason = [&[0, 0, 4, 0], &[b'x'; 9000][..]].concat();
    let server = fake::udp(move |request, _| {
        // A reason phrase far beyond the 763 bytes of RFC 8489 section 14.8.
        let mut answer = error(request, 400, &[]);
        answer.truncate(20);
        answer.extend(attribute(0x0009, &reason));
        let length = u16::try_from(answer.len() - 20).unwrap();
        answer[2..4].copy_from_slice(&length.to_be_bytes());
        Some(answer)
    });
    let run = probe(&format!("stun:{server}"), &["--timeout", "2s"]);
    run.ends_with(76).found("binding", "unusable-answer", "a defect of the server");
}

#[test]
fn an_alternate_server_that_is_nowhere() {
    for nowhere in ["127.0.0.1:0", "0.0.0.0:3478", "224.0.0.1:3478"] {
        let nowhere: SocketAddr = nowhere.parse().unwrap();
        let front = turn(move |request, _| Some(error(request, 300, &[alternate(nowhere)])));
        let run = probe_as_alice(&format!("turn:{front}?transport=udp"), &[]);
        run.ends_with(76).found("redirect", "redirected-nowhere", "alternate-server");
    }
}

#[test]
fn what_a_server_calls_itself_cannot_steer_the_terminal() {
    let server = fake::udp(|request, from| {
        Some(success(request, &[mapped(from), software("x\x1b]0;owned\x07")]))
    });
    let run = run(&["probe", &format!("stun:{server}")], &[]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.contains("owned") && !run.stdout.contains('\x1b'), "{:?}", run.stdout);
}

#[test]
fn nor_can_it_through_json() {
    let server = fake::udp(|request, from| {
        Some(success(request, &[mapped(from), software("x\x1b]0;owned\u{9c}\u{7f}")]))
    });
    let run = probe(&format!("stun:{server}"), &[]);
    let steers = |c: char| c.is_control() && c != '\n';
    assert!(!run.stdout.contains(steers), "{:?}", run.stdout);
    assert_eq!(run.json()["transports"][0]["software"], "x\x1b]0;owned\u{9c}\u{7f}");
}

#[test]
fn command_lines_that_make_no_sense() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let missing = missing.to_str().unwrap();
    for (arguments, code, said) in [
        (&["turn:a", "--user", "alice"][..], 64, "no password"),
        (&["turn:a", "--password", "b"], 64, "--user"),
        (&["turn:a", "--secret", "a", "--secret-file", "b"], 64, "cannot be used with"),
        (&["turn:a", "-4", "-6"], 64, "cannot be used with"),
        (&["turn://a"], 64, "write turn:HOST"),
        (&["example.org"], 64, "no scheme"),
        (&["turn:a", "--packets", "0"], 64, "1..=1000"),
        (&["turn:a", "--timeout", "0s"], 64, "from 1s to 1h"),
        (&["turn:a", "--dns", "x"], 64, "expected an address"),
        (&["turn:a", "--user", "a", "--password-file", missing], 66, "missing"),
        (&["turn:a", "--ca", missing], 66, "missing"),
    ] {
        let run = run(&[&["probe"], arguments].concat(), &[]);
        assert_eq!(run.code, code, "{run}");
        assert!(run.stderr.contains(said), "{run}");
        assert_eq!(run.stdout, "", "{run}");
    }
}

#[test]
fn help_has_the_exit_codes() {
    let run = run(&["probe", "--help"], &[]);
    assert_eq!(run.code, 0);
    for line in [
        "   0  all good",
        "   2  the credentials are refused",
        "  64  the command line is wrong",
        "  69  the server is not reached",
        "  76  no STUN behind that port",
    ] {
        assert!(run.stdout.contains(line), "{line}\n{}", run.stdout);
    }
}

/// A server that answers Binding, and other requests with what `answer` makes of them.
fn turn(answer: impl Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    fake::udp(move |request, from| match request_method(request)? {
        BINDING => Some(success(request, &[mapped(from)])),
        REFRESH if !is_signed(request) => Some(success(request, &[lifetime(0)])),
        _ => answer(request, from),
    })
}

fn granted(request: &[u8], from: SocketAddr) -> Vec<u8> {
    success(request, &[relayed("127.0.0.1:50000".parse().unwrap()), mapped(from), lifetime(600)])
}
