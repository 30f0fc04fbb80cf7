//! Ports behind which there is no STUN server, or nobody at all.

use std::net::{TcpListener, UdpSocket};

use crate::fake;
use crate::run::{probe, probe_as_alice};
use crate::setup::Setup;

#[test]
fn closed_ports_say_so_at_once() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for transport in ["udp", "tcp"] {
        let run = probe(&format!("turn:{free}?transport={transport}"), &[]);
        run.ends_with(69);
        let step = if transport == "udp" { "binding" } else { "connect" };
        run.found(step, "port-closed", &transport.to_uppercase());
    }
    probe(&format!("turns:{free}"), &[]).ends_with(69).found("connect", "port-closed", "TLS");
}

#[test]
fn a_firewall_that_drops_udp() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let uri = format!("stun:{}", silent.local_addr().unwrap());
    probe(&uri, &["--timeout", "2s"]).ends_with(69).found("binding", "silent", "drops UDP");
}

#[test]
fn a_listener_that_never_answers() {
    // The kernel accepts for it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let run = probe(&format!("turn:{address}?transport=tcp"), &["--timeout", "3s"]);
    run.ends_with(69).found("binding", "silent", "drops TCP");
    let run = probe(&format!("turns:{address}"), &["--timeout", "3s"]);
    run.ends_with(69).found("tls", "silent", "drops TCP");
}

#[test]
fn web_servers() {
    let web = fake::tcp(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    let run = probe(&format!("turn:{web}?transport=tcp"), &[]);
    run.ends_with(76).found("binding", "http", "web server");
    let run = probe(&format!("turns:{web}"), &[]);
    run.ends_with(76).found("tls", "http", "web server");
}

#[test]
fn something_else() {
    let ssh = fake::tcp(b"SSH-2.0-OpenSSH_9.2\r\n");
    let run = probe(&format!("turn:{ssh}?transport=tcp"), &[]);
    run.ends_with(76).found("binding", "not-stun", "something else");
    let echo = fake::udp(|_, _| Some(b"What do you want?".to_vec()));
    let run = probe(&format!("stun:{echo}"), &["--timeout", "2s"]);
    run.ends_with(76).found("binding", "not-stun", "something else");
}

#[test]
fn a_server_that_hangs_up() {
    let rude = fake::tcp(b"");
    let run = probe(&format!("turn:{rude}?transport=tcp"), &[]);
    run.ends_with(76).found("binding", "closed", "hangs up");
}

#[test]
fn tls_on_a_plain_port() {
    let server = Setup::new().start();
    let run = probe_as_alice(&format!("turns:{}", server.addr()), &[]);
    run.ends_with(4).found("tls", "plain-on-tls-port", "transport=tcp");
}
