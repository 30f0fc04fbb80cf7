//! `turns:...?transport=udp`: the whole walk within DTLS, and what is wrong with
//! servers and their certificates there.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslOptions, SslStream};
use openssl::x509::X509;
use rcgen::date_time_ymd;
use tempfile::TempDir;

use crate::fake;
use crate::run::{Run, probe, probe_as_alice};
use crate::setup::{DEADLINE, Server, Setup};
use crate::support::certificate::Certificate;
use crate::support::secure::Datagrams;

/// A server with a certificate, and a file with who is to be trusted.
struct Site {
    server: Server,
    directory: TempDir,
}

impl Site {
    fn new(certificate: &Certificate) -> Self {
        let server = Setup::new().tls_with(&[certificate]).start();
        Self { server, directory: trusting(certificate) }
    }

    fn uri(&self) -> String {
        format!("turns:localhost:{}?transport=udp", self.server.addr().port())
    }

    #[track_caller]
    fn probe(&self, arguments: &[&str]) -> Run {
        self.probe_at(&self.uri(), arguments)
    }

    #[track_caller]
    fn probe_at(&self, uri: &str, arguments: &[&str]) -> Run {
        let ca = self.directory.path().join("ca.pem");
        let trusting = ["-4", "--ca", ca.to_str().unwrap()];
        probe_as_alice(uri, &[&trusting, arguments].concat())
    }
}

/// A directory with a file of certificates to trust, `ca.pem`.
fn trusting(certificate: &Certificate) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("ca.pem"), &certificate.chain).unwrap();
    directory
}

#[test]
fn all_steps_within_dtls() {
    let mut site = Site::new(&Certificate::new(&["localhost"], |_| ()));
    let run = site.probe(&["--packets", "20"]);
    run.ends_with(0).found_nothing();
    let names = run.step_names(0);
    assert_eq!(names[..3], ["dtls", "binding", "challenge"]);
    assert_eq!(names.last().unwrap(), "release");
    let report = run.json();
    let way = &report["transports"][0];
    assert_eq!(way["transport"], "dtls");
    assert_eq!(way["loss"], 0.0);
    let detail = way["steps"][0]["detail"].as_str().unwrap();
    for part in ["DTLS 1.2", "ECDHE", "ALPN stun.turn", "certificate localhost", "ends in"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert_eq!(report["browser"]["candidates"].as_array().unwrap().len(), 0, "browsers have none");
    assert!(report["browser"]["notes"][0].as_str().unwrap().contains("DTLS"), "{run}");
    // Sessions are ended, not left to time out.
    let totals = site.server.stop();
    assert_eq!(crate::setup::number(&totals, "tls_failures"), 0, "{totals}");
}

#[test]
fn flights_that_are_lost_are_sent_again() {
    let site = Site::new(&Certificate::new(&["localhost"], |_| ()));
    // The first hello, and the first that has the cookie.
    let count = AtomicU32::new(0);
    let front = fake::middlebox(site.server.addr(), move |_| {
        !matches!(count.fetch_add(1, Ordering::Relaxed), 0 | 3)
    });
    let uri = format!("turns:localhost:{}?transport=udp", front.port());
    let run = site.probe_at(&uri, &["--packets", "3", "--timeout", "60s"]);
    assert!(run.step_names(0).contains(&"challenge".to_owned()), "{run}");
    run.ends_with(0);
}

#[test]
fn certificates_are_judged_as_those_of_tls() {
    let expired = Certificate::new(&["localhost"], |leaf| {
        leaf.not_before = date_time_ymd(2020, 1, 1);
        leaf.not_after = date_time_ymd(2020, 4, 1);
    });
    let uri = format!("turns:localhost:{}?transport=udp", handshakes(&expired).port());
    let directory = trusting(&expired);
    let ca = directory.path().join("ca.pem");
    let run = probe(&uri, &["-4", "--ca", ca.to_str().unwrap()]);
    run.ends_with(4).found("dtls", "certificate-expired", "days ago");

    let site = Site::new(&Certificate::new(&["turn.example.org"], |_| ()));
    let hint = "for turn.example.org, not for localhost";
    site.probe(&[]).ends_with(4).found("dtls", "certificate-wrong-name", hint);

    let site = Site::new(&Certificate::new(&["localhost"], |_| ()));
    let run = probe(&site.uri(), &["-4"]);
    run.ends_with(4).found("dtls", "certificate-self-signed", "browsers refuse");
    let run = probe_as_alice(&site.uri(), &["-4", "--insecure", "--packets", "3"]);
    run.ends_with(1).found("dtls", "certificate-self-signed", "browsers refuse");
    assert_eq!(run.step_names(0).last().unwrap(), "release");
}

/// Shakes hands with one client, with a certificate that sturn would not serve with.
fn handshakes(certificate: &Certificate) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut context = SslContext::builder(SslMethod::dtls_server()).unwrap();
    context.set_options(SslOptions::NO_QUERY_MTU);
    context.set_certificate(&X509::from_der(&certificate.der).unwrap()).unwrap();
    let key = PKey::private_key_from_pem(certificate.key.as_bytes()).unwrap();
    context.set_private_key(&key).unwrap();
    let mut ssl = Ssl::new(&context.build()).unwrap();
    ssl.set_accept_state();
    ssl.set_mtu(1200).unwrap();
    thread::spawn(move || {
        let (_, client) = socket.peek_from(&mut [0; 1]).unwrap();
        socket.connect(client).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let datagrams = Datagrams { socket, written: Vec::new(), patience: usize::MAX };
        // What comes of it is the client's to tell.
        let _ = SslStream::new(ssl, datagrams).unwrap().do_handshake();
    });
    address
}

#[test]
fn a_port_without_dtls() {
    // Held, and never answered.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let uri = format!("turns:{}?transport=udp", silent.local_addr().unwrap());
    let run = probe(&uri, &["--timeout", "3s"]);
    run.ends_with(69).found("dtls", "silent", "does not speak DTLS");

    let plain = Setup::new().start();
    let uri = format!("turns:{}?transport=udp", plain.addr());
    let run = probe(&uri, &["--timeout", "6s"]);
    run.ends_with(4).found("dtls", "plain-on-tls-port", "use turn:");

    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = probe(&format!("turns:{closed}?transport=udp"), &["--timeout", "3s"]);
    run.ends_with(69).found("dtls", "port-closed", "nothing listens");
}

#[test]
fn something_else_that_answers() {
    let strange = fake::udp(|_, _| Some(b"SSH-2.0-OpenSSH".to_vec()));
    let run = probe(&format!("turns:{strange}?transport=udp"), &["--timeout", "4s"]);
    let report = run.json();
    let step = &report["transports"][0]["steps"][0];
    assert_eq!((&step["name"], &step["verdict"]), (&"dtls".into(), &"fail".into()), "{run}");
    assert_eq!(step["detail"], "the answer is not DTLS", "{run}");
}

#[test]
fn the_time_for_a_handshake_is_bounded() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let uri = format!("turns:{}?transport=udp", silent.local_addr().unwrap());
    let started = std::time::Instant::now();
    probe(&uri, &["--timeout", "1s"]).ends_with(69);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
