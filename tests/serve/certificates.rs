//! Certificates that cannot be used: the server does not start, `sturn check`
//! finds it before, and both say which file it is and why.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rcgen::date_time_ymd;
use sturn::client::Allocate;
use tempfile::TempDir;

use crate::setup::{DEADLINE, Server, Setup, wait_until};
use crate::support::certificate::{Certificate, NAME};
use crate::support::driver::connected;
use crate::support::secure::{Dtls, Tls, Wanted, stream};

const BINARY: &str = env!("CARGO_BIN_EXE_sturn");

#[test]
fn an_expired_certificate() {
    let site = Site::new();
    let expired = Certificate::new(&["turn.example.org"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 4, 1);
    });
    site.write("chain.pem", &expired.chain).write("key.pem", &expired.key);
    site.is_refused(&["chain.pem", "expired on 2020-04-01"]);
}

#[test]
fn a_certificate_of_tomorrow() {
    let site = Site::new();
    let early = Certificate::new(&["turn.example.org"], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2090, 4, 1);
    });
    site.write("chain.pem", &early.chain).write("key.pem", &early.key);
    site.is_refused(&["chain.pem", "not valid before 2090-01-01"]);
}

#[test]
fn a_key_of_another_certificate() {
    let site = Site::new();
    let other = Certificate::new(&["turn.example.org"], |_| ());
    site.write("chain.pem", &Certificate::shared().chain).write("key.pem", &other.key);
    site.is_refused(&["key.pem", "does not belong to", "chain.pem"]);
}

#[test]
fn files_that_are_not_there_or_not_what_they_should_be() {
    let site = Site::new();
    let shared = Certificate::shared();
    site.write("key.pem", &shared.key);
    site.is_refused(&["chain.pem", "No such file or directory"]);
    site.write("chain.pem", "not a certificate");
    site.is_refused(&["chain.pem", "no certificate in it"]);
    site.write("chain.pem", &shared.chain.replace("MII", "MIJ"));
    site.is_refused(&["chain.pem", "malformed"]);
    site.write("chain.pem", &shared.chain).write("key.pem", &shared.chain);
    site.is_refused(&["key.pem", "no private key in it"]);
    fs::remove_file(site.path("key.pem")).unwrap();
    site.is_refused(&["key.pem", "No such file or directory"]);
    fs::create_dir(site.path("key.pem")).unwrap();
    site.is_refused(&["key.pem", "Is a directory"]);
}

#[test]
fn every_problem_is_told_at_once() {
    let site = Site::new();
    let shared = Certificate::shared();
    site.write("chain.pem", &shared.chain).write("key.pem", "");
    site.write("more.pem", "").write("sturn.toml", &Setup::new()
        .set("tls.certificates", r#"[{ chain = "chain.pem", key = "key.pem" }, { chain = "more.pem", key = "more.pem" }, { chain = "gone.pem", key = "gone.pem" }]"#)
        .text()
        .replace("@port@", "3478")
        .replace("@port6@", "3478"));
    for command in [&["serve", "--config"][..], &["check"]] {
        let output = site.run(command);
        assert_eq!(output.status.code(), Some(78));
        let lines = String::from_utf8(output.stderr).unwrap();
        for file in ["key.pem", "more.pem", "gone.pem"] {
            let of_it = lines.lines().filter(|line| line.contains(file)).count();
            assert_eq!(of_it, 1, "{file} in {lines}");
        }
    }
}

#[test]
fn check_names_the_certificates() {
    let site = Site::new();
    let certificate = Certificate::new(&["turn.example.org", "*.example.net"], |_| ());
    site.write("chain.pem", &certificate.chain).write("key.pem", &certificate.key);
    let output = site.run(&["check"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("chain.pem for turn.example.org, *.example.net, "), "{text}");
    assert!(text.contains("tls 0.0.0.0:5349, [::]:5349"), "{text}");
    assert!(text.contains("dtls 0.0.0.0:5349, [::]:5349"), "{text}");
}

/// The certificate that a new client is shown over TLS, and over DTLS.
fn shown(server: &Server, trusted: &[&Certificate]) -> [Vec<u8>; 2] {
    let trusted = trusted.iter().map(|certificate| &certificate.der[..]).collect();
    let wanted = Wanted { trusted, ..Wanted::default() };
    let tls = Tls::connect(stream(server.addr()), &wanted).unwrap();
    let dtls = Dtls::connect(connected(server.addr()), &wanted).unwrap();
    [tls.certificate().to_vec(), dtls.certificate()]
}

#[test]
fn renewed_certificates_are_taken_and_sessions_go_on() {
    let (old, new) =
        (Certificate::shared(), Certificate::new(&["renewed.example.org", NAME], |_| ()));
    let both = [old, &new];
    let mut server = Setup::new().tls().start();
    let mut clients = [server.tls(), server.dtls()];
    for client in &mut clients {
        client.allocate(Allocate::default()).unwrap();
    }
    // A chain without its key leaves things as they are.
    fs::write(server.file("0.chain.pem"), &new.chain).unwrap();
    server.process().signal("HUP");
    let line = server.process().expect_line("keeping the certificates in use", DEADLINE);
    assert!(line.contains("0.key.pem") && line.contains("does not belong to"), "{line}");
    assert!(shown(&server, &both).iter().all(|shown| *shown == old.der));

    fs::write(server.file("0.key.pem"), &new.key).unwrap();
    server.process().signal("HUP");
    wait_until("the new certificate is shown", || {
        shown(&server, &both).iter().all(|shown| *shown == new.der)
    });
    for client in &mut clients {
        client.refresh(None, None).unwrap();
    }
}

#[test]
fn renewed_certificates_are_noticed_without_a_signal() {
    let (old, new) =
        (Certificate::shared(), Certificate::new(&["renewed.example.org", NAME], |_| ()));
    let both = [old, &new];
    let server = Setup::new().tls().start();
    assert!(shown(&server, &both).iter().all(|shown| *shown == old.der));
    fs::write(server.file("0.chain.pem"), &new.chain).unwrap();
    fs::write(server.file("0.key.pem"), &new.key).unwrap();
    wait_until("the new certificate is shown", || {
        shown(&server, &both).iter().all(|shown| *shown == new.der)
    });
}

/// A directory with a configuration whose certificate is in `chain.pem` and `key.pem`.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        let text = Setup::new()
            .set("tls.certificates", r#"[{ chain = "chain.pem", key = "key.pem" }]"#)
            .text();
        site.write("sturn.toml", &text.replace("@port@", "3478").replace("@port6@", "3478"));
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    /// Runs from elsewhere: paths start at the directory of the configuration.
    fn run(&self, command: &[&str]) -> Output {
        let mut sturn = Command::new(BINARY);
        sturn.args(command).arg(self.path("sturn.toml")).current_dir(Path::new("/"));
        sturn.output().unwrap()
    }

    /// `serve` and `check` end with 78 and one line with these words.
    #[track_caller]
    fn is_refused(&self, words: &[&str]) {
        for command in [&["serve", "--config"][..], &["check"]] {
            let output = self.run(command);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{command:?}: {text}");
            assert_eq!(text.lines().count(), 1, "{command:?}: {text}");
            for word in [&["tls.certificates"], words].concat() {
                assert!(text.contains(word), "{command:?}: no {word:?} in {text}");
            }
        }
    }
}
