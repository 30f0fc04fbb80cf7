//! Which TLS connections are passed on, and that nothing of them is changed.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use sturn::client::Allocate;

use super::web::{Web, exchange, read_exactly, secure};
use crate::setup::{DEADLINE, Setup, number};
use crate::streams::{connect, until_closed};
use crate::support::certificate::{Certificate, NAME};
use crate::support::driver::Driver;
use crate::support::secure::{Tls, Wanted, stream};

const WEB: &str = "www.example.org";

fn backend(rule: &str, backend: SocketAddr) -> Setup {
    let entry = format!("[{{ {rule}, address = \"{backend}\" }}]");
    Setup::new().tls().set("backends.servers", entry)
}

/// The first bytes of a client that asks for this.
fn client_hello(name: &str, protocols: &[&str]) -> Vec<u8> {
    let mut hello = Vec::new();
    let wanted = Wanted { name, protocols, ..Wanted::default() };
    Tls::<std::net::TcpStream>::client(&wanted).write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn https_ends_at_the_backend_with_its_certificate_while_turns_goes_on() {
    let web = Web::v4();
    let certificate = Certificate::new(&[WEB, "blog.example.org"], |_| ());
    let rule = "names = [\"www.example.org\", \"*.example.org\"]";
    let mut server = backend(rule, web.addr()).start();
    let mut relayed = server.tls();
    relayed.allocate(Allocate::default()).unwrap();
    for (address, name) in
        [(server.addr(), WEB), (server.tls_addr(), "blog.example.org"), (server.tls_addr_v6(), WEB)]
    {
        let wanted = Wanted {
            name,
            protocols: &["h2", "http/1.1"],
            trusted: vec![&certificate.der],
            version: None,
        };
        let (mut near, mut far) = thread::scope(|scope| {
            let client = scope.spawn(|| Tls::connect(stream(address), &wanted).unwrap());
            let mut far = secure(web.accept(), &certificate);
            far.conn.complete_io(&mut far.sock).unwrap();
            (client.join().unwrap(), far)
        });
        assert_eq!(near.certificate(), certificate.der);
        assert_eq!(near.protocol(), Some(&b"h2"[..]));
        exchange(&mut near, &mut far);
        server.tls().binding().unwrap();
        relayed.refresh(None, None).unwrap();
    }
    let totals = server.stop();
    assert_eq!(number(&totals, "passed_connections"), 3, "{totals}");
    assert_eq!(number(&totals, "tls_failures"), 0, "{totals}");
}

#[test]
fn protocols_of_turn_win_over_any_name() {
    let web = Web::v4();
    let server = backend(&format!("names = [\"{NAME}\", \"*\"]"), web.addr()).start();
    for protocols in [&["stun.turn"][..], &["h2", "stun.nat-discovery"], &["http/1.1", "stun.turn"]]
    {
        let wanted = Wanted { protocols, ..Wanted::default() };
        let tls = Tls::connect(stream(server.addr()), &wanted).unwrap();
        assert_eq!(tls.certificate(), Certificate::shared().der);
        Driver::on_tls(tls, "alice", "wonderland").allocate(Allocate::default()).unwrap();
    }
    assert!(web.is_unused());
    // The same name without them.
    connect(server.addr()).write_all(&client_hello(NAME, &[])).unwrap();
    web.accept();
}

#[test]
fn one_name_serves_browsers_pages_and_their_calls() {
    let web = Web::v4();
    let server = backend("alpn = [\"h2\", \"http/1.1\"]", web.addr()).start();
    // WebRTC offers no protocol; some clients know no names; others offer their own.
    for protocols in [&[][..], &["webrtc"]] {
        let wanted = Wanted { protocols, ..Wanted::default() };
        let tls = Tls::connect(stream(server.addr()), &wanted).unwrap();
        assert_eq!(tls.certificate(), Certificate::shared().der);
        Driver::on_tls(tls, "alice", "wonderland").binding().unwrap();
    }
    assert!(web.is_unused());
    for protocols in [&["h2"][..], &["http/1.1"], &["h3", "http/1.1"]] {
        let hello = client_hello(NAME, protocols);
        connect(server.addr()).write_all(&hello).unwrap();
        assert_eq!(read_exactly(&mut web.accept(), hello.len()), hello);
    }
}

#[test]
fn an_asterisk_is_every_name_without_a_certificate_here() {
    let web = Web::v4();
    let server = backend("names = [\"*\"]", web.addr()).start();
    server.tls().binding().unwrap();
    let wanted = Wanted { name: "127.0.0.1", protocols: &[], ..Wanted::default() };
    // To an address a client sends no name.
    Tls::connect(stream(server.addr()), &wanted).unwrap();
    assert!(web.is_unused());
    let hello = client_hello("anything.test", &[]);
    connect(server.addr()).write_all(&hello).unwrap();
    assert_eq!(read_exactly(&mut web.accept(), hello.len()), hello);
}

#[test]
fn without_certificates_of_its_own_it_passes_tls_on_too() {
    let web = Web::v4();
    let entry = format!("[{{ names = [\"{WEB}\"], address = \"{}\" }}]", web.addr());
    let server = Setup::new().set("backends.servers", entry).start();
    let hello = client_hello(WEB, &[]);
    connect(server.addr()).write_all(&hello).unwrap();
    assert_eq!(read_exactly(&mut web.accept(), hello.len()), hello);
    let mut other = connect(server.addr());
    other.write_all(&client_hello("other.test", &[])).unwrap();
    until_closed(&mut other);
}

#[test]
fn a_hello_may_come_in_any_pieces_and_records() {
    let web = Web::v4();
    let server = backend(&format!("names = [\"{WEB}\"]"), web.addr()).start();
    let whole = client_hello(WEB, &["h2"]);
    // The same message in records with three bytes of it each.
    let records: Vec<u8> = whole[5..]
        .chunks(3)
        .flat_map(|part| [&[22, 3, 1, 0, part.len() as u8], part].concat())
        .collect();
    for (hello, piece) in [(&whole, 1), (&whole, 7), (&records, 1), (&records, 1000)] {
        let mut near = connect(server.addr());
        for bytes in hello.chunks(piece) {
            near.write_all(bytes).unwrap();
            // As far as we can bring it about, a segment of its own.
            thread::yield_now();
        }
        let mut far = web.accept();
        assert_eq!(read_exactly(&mut far, hello.len()), *hello);
        exchange(&mut near, &mut far);
    }
    // One that is ours in the same pieces.
    let mut ours = connect(server.addr());
    for byte in client_hello(NAME, &[]) {
        ours.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_exactly(&mut ours, 1), [22], "our ServerHello");
}

#[test]
fn half_a_hello_gets_the_time_of_a_handshake() {
    let web = Web::v4();
    let mut server = backend(&format!("names = [\"{WEB}\"]"), web.addr())
        .set("tls.handshake-timeout", r#""1s""#)
        .set("tcp.frame-timeout", r#""1h""#)
        .set("tcp.idle-timeout", r#""1h""#)
        .start();
    let hello = client_hello(WEB, &[]);
    for half in [&hello[..hello.len() / 2], &hello[..3]] {
        let mut stream = connect(server.addr());
        stream.write_all(half).unwrap();
        let waited = until_closed(&mut stream);
        assert!(waited > Duration::from_millis(500), "closed after {waited:?}");
    }
    // A byte now and then does not buy more of it.
    let mut dribbling = connect(server.addr());
    dribbling.write_all(&hello[..10]).unwrap();
    dribbling.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let begin = Instant::now();
    for byte in &hello[10..] {
        match dribbling.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => break,
        }
        if dribbling.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "still open");
    }
    assert!(web.is_unused());
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 3, "{totals}");
}

#[test]
fn a_hello_without_an_end_is_kept_no_longer_than_a_hello_can_be() {
    let web = Web::v4();
    let server = backend(&format!("names = [\"{WEB}\"]"), web.addr()).start();
    let mut stream = connect(server.addr());
    // A message of 16 KiB that is never complete, in records of 1 KiB.
    let mut record = vec![22, 3, 1, 4, 0, 1, 0, 0x3f, 0xff];
    record.resize(5 + 1024, 0);
    let begin = Instant::now();
    let mut sent = 0;
    while stream.write_all(&record).is_ok() {
        sent += record.len();
        record[5..9].fill(0);
        assert!(begin.elapsed() < DEADLINE, "{sent} bytes are taken");
    }
    assert!(web.is_unused());
    server.tls().binding().unwrap();
}
