//! What is listened on, and what is worth a note.

use std::net::SocketAddr;

use sturn::config::Config;

use crate::keys::EVERY_KEY;
use crate::{STUN_ONLY, parse, refused};

#[test]
fn notes_tell_what_may_surprise() {
    let notes = parse(EVERY_KEY).unwrap().notes();
    assert_eq!(
        notes,
        [
            "user \"bob\" has no key-sha256: clients that choose SHA-256 cannot authenticate as this user",
            "user \"carol\" has no key: clients that choose MD5 cannot authenticate as this user",
        ]
    );
    let text = "[auth]\nsecrets = [\"s\"]\npassword-algorithms = [\"sha-256\"]\n";
    assert!(parse(text).unwrap().notes()[0].contains("without \"md5\""));
    assert!(Config::default().notes().is_empty());
    let text = "[auth]\nmode = \"none\"\n[nat-discovery]\naddresses = [\"192.0.2.1\", \"2001:db8::1\", \"2001:db8::2\"]\n";
    let notes = parse(text).unwrap().notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("one IPv4 address"), "{notes:?}");
}

#[test]
fn nat_discovery_listens_where_nobody_does_yet() {
    let listeners = |listen: &str| {
        let text = format!(
            "[auth]\nmode = \"none\"\n[listen]\n{listen}\n[nat-discovery]\naddresses = [\"192.0.2.1\", \"192.0.2.2\"]\n"
        );
        let config = parse(&text).unwrap();
        let texts =
            |list: Vec<SocketAddr>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        (texts(config.udp_listeners()), texts(config.tcp_listeners()))
    };
    let four = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"];
    assert_eq!(
        listeners("udp = [\"192.0.2.2:3479\"]\ntcp = []"),
        (["192.0.2.2:3479", four[0], four[1], four[2]].map(str::to_owned).into(), vec![])
    );
    // A listener on every address of the family covers the port; one of the other does not.
    let (udp, tcp) = listeners("udp = [\"0.0.0.0:3478\", \"[::]:3479\"]\ntcp = [443]");
    assert_eq!(udp, ["0.0.0.0:3478", "[::]:3479", four[1], four[3]]);
    assert_eq!(tcp, ["0.0.0.0:443", "[::]:443", four[0], four[1], four[2], four[3]]);
}

#[test]
fn ports_for_tls_alone_are_those_that_nothing_else_has() {
    let listeners = |text: &str| {
        let config = parse(&format!("[auth]\nmode = \"none\"\n{text}")).unwrap();
        let texts =
            |list: Vec<SocketAddr>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        (texts(config.tls_listeners()), texts(config.dtls_listeners()))
    };
    let none: Vec<String> = Vec::new();
    const CERTIFICATE: &str = "[tls]\ncertificates = [{ chain = \"c\", key = \"k\" }]\n";
    let with = |rest: &str, listen: &str| listeners(&format!("{CERTIFICATE}{rest}{listen}"));
    let default = ["0.0.0.0:5349", "[::]:5349"].map(str::to_owned).to_vec();
    assert_eq!(listeners("[listen]\ntls = [443]\n"), (none.clone(), none.clone()));
    assert_eq!(with("", ""), (default.clone(), default.clone()));
    assert_eq!(with("dtls = false\n", ""), (default, none));
    let (tls, dtls) = with("", "[listen]\ntcp = [5349]\ntls = [5349, 443]\n");
    assert_eq!(tls, ["0.0.0.0:443", "[::]:443"]);
    assert_eq!(dtls, ["0.0.0.0:5349", "[::]:5349", "0.0.0.0:443", "[::]:443"]);
    let (tls, _) = with("", "[listen]\ntcp = []\nudp = []\ntls = [\"192.0.2.1\"]\n");
    assert_eq!(tls, ["192.0.2.1:5349"]);
}

#[test]
fn a_port_for_tls_without_a_certificate_is_worth_a_note() {
    let notes = |text: &str| parse(&format!("{STUN_ONLY}{text}")).unwrap().notes();
    let told = notes("[listen]\ntls = [443]\n");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("TLS and DTLS need tls.certificates"), "{told:?}");
    assert_eq!(notes("[listen]\ntls = [443]\n[tls]\nself-signed = true\n"), [""; 0]);
}

#[test]
fn nat_discovery_needs_udp() {
    let text = "[auth]\nmode = \"none\"\n[listen]\nudp = []\n[nat-discovery]\naddresses = [\"192.0.2.1\"]\n";
    let problems = refused(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].ends_with("NAT discovery is for UDP, and listen.udp is empty"),
        "{problems:?}"
    );
}
