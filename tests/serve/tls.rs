//! TLS and DTLS beside plain STUN: one port for all of it, what is refused, what
//! is chosen, and clients that are slow or hostile on the way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVersion};
use rustls::version::{TLS12, TLS13};
use sturn::client::Allocate;

use crate::binding::binding_request;
use crate::setup::{DEADLINE, Peer, Server, Setup, number, relayed, wait_until};
use crate::streams::{connect, is_closed, read_answer, until_closed};
use crate::support::certificate::Certificate;
use crate::support::driver::{Driver, connected};
use crate::support::secure::{Dtls, Tls, Wanted, stream};

/// Between the bytes of a client that takes its time.
const DRIBBLE: Duration = Duration::from_millis(50);

#[test]
fn rfc7983_7_one_port_takes_stun_channel_data_and_dtls() {
    let server = Setup::new().tls().start();
    let peer = Peer::v4();
    let at = |how: fn(SocketAddr, &str, &str) -> Driver| how(server.addr(), "alice", "wonderland");
    // All of them at the same time, and each sends in turn.
    let mut clients = [at(Driver::udp), at(Driver::dtls), at(Driver::tcp), at(Driver::tls)];
    let relayed = clients.each_mut().map(|client| {
        let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
        client.channel_bind(None, peer.addr()).unwrap();
        relayed
    });
    for round in 0..20_u8 {
        for (client, relayed) in clients.iter_mut().zip(relayed) {
            client.send(peer.addr(), &[round; 100]).unwrap();
            assert_eq!(peer.receive(), (vec![round; 100], relayed));
            peer.send(relayed, &[!round; 100]);
            assert_eq!(client.expect_data(DEADLINE).unwrap().data, [!round; 100]);
        }
    }
}

#[test]
fn rfc7350_4_6_an_allocation_is_for_one_session() {
    let server = Setup::new().tls().start();
    for how in [Driver::tls, Driver::dtls] {
        let mut first = how(server.addr(), "alice", "wonderland");
        first.allocate(Allocate::default()).unwrap();
        let mut second = how(server.addr(), "alice", "wonderland");
        assert_eq!(second.refresh(None, None).unwrap_err().code(), 437);
        // Nor is what a plain client says from somewhere else of any use.
        assert_eq!(server.udp().refresh(None, None).unwrap_err().code(), 437);
        first.refresh(None, None).unwrap();
    }
}

#[test]
fn a_port_for_tls_takes_nothing_else() {
    // One worker, so that what is answered later was looked at later.
    let mut server = Setup::new().tls().set("workers.count", "1").start();
    for plain in [&binding_request(1)[..], b"GET / HTTP/1.1\r\n\r\n", &[0x40, 0, 0, 4, 1, 2, 3, 4]]
    {
        let mut stream = connect(server.tls_addr());
        stream.write_all(plain).unwrap();
        until_closed(&mut stream);
    }
    let plain = connected(server.tls_addr());
    plain.send(&binding_request(2)).unwrap();
    // A record of a session that there is not.
    plain.send(&[23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 2, 1, 2]).unwrap();
    server.dtls().binding().unwrap();
    assert_silent(&plain);
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 3, "{totals}");
    assert_eq!(number(&totals, "no_session"), 2, "{totals}");
    assert_eq!(number(&totals, "tls_failures"), 0, "{totals}");
}

#[test]
fn without_certificates_tls_and_dtls_are_strangers() {
    let mut server = Setup::new().set("workers.count", "1").start();
    let refused = Tls::connect(connect(server.addr()), &Wanted::default());
    assert!(refused.is_err());
    let hello = Dtls::abandon(connected(server.addr()), 1);
    server.udp().binding().unwrap();
    assert_silent(&hello.datagrams().socket);
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 1, "{totals}");
}

#[test]
fn dtls_can_be_switched_off_alone() {
    let server = Setup::new().tls().set("tls.dtls", "false").set("workers.count", "1").start();
    server.tls().binding().unwrap();
    let hello = Dtls::abandon(connected(server.addr()), 1);
    server.udp().binding().unwrap();
    assert_silent(&hello.datagrams().socket);
    UdpSocket::bind(server.tls_addr()).expect("nothing listens there over UDP");
}

#[test]
fn a_port_in_both_lists_takes_both() {
    let both = r#"["127.0.0.1:@port@"]"#;
    let server = Setup::new().tls().set("workers.count", "4").set("listen.tls", both).start();
    // With sockets of two kinds on one port the kernel would choose at random.
    for _ in 0..8 {
        for how in [Driver::udp, Driver::tcp, Driver::tls, Driver::dtls] {
            how(server.addr(), "", "").binding().unwrap();
        }
    }
}

#[test]
fn nonsense_in_the_place_of_a_handshake_is_a_failure() {
    let mut server = Setup::new().tls().start();
    let not_a_hello = [0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9];
    let mut stream = connect(server.addr());
    stream.write_all(&not_a_hello).unwrap();
    wait_until_ended(&mut stream);
    let mut forged = Tls::connect(connect(server.addr()), &Wanted::default()).unwrap();
    forged.stream().write_all(&[0x17, 3, 3, 0, 20]).unwrap();
    forged.stream().write_all(&[7; 20]).unwrap();
    wait_until_ended(forged.stream());
    server.tls().binding().unwrap();
    let totals = server.stop();
    assert_eq!(number(&totals, "tls_failures"), 2, "{totals}");
}

#[test]
fn tls_1_2_and_1_3_and_dtls_1_2_and_nothing_older() {
    let mut server = Setup::new().tls().start();
    for (version, expected) in
        [(&TLS12, rustls::ProtocolVersion::TLSv1_2), (&TLS13, rustls::ProtocolVersion::TLSv1_3)]
    {
        let wanted = Wanted { version: Some(version), ..Wanted::default() };
        let mut tls = Tls::connect(stream(server.addr()), &wanted).unwrap();
        assert_eq!(tls.version(), Some(expected));
        tls.write_all(&binding_request(1)).unwrap();
        assert_eq!(read_answer(&mut tls), [1; 12]);
    }
    let dtls = Dtls::connect(connected(server.addr()), &Wanted::default()).unwrap();
    assert_eq!(dtls.version(), "DTLSv1.2");
    for old in [SslVersion::TLS1, SslVersion::TLS1_1] {
        let refused = with_old_version(SslMethod::tls_client(), old, stream(server.addr()));
        assert!(refused.contains("alert"), "{old:?}: {refused}");
    }
    let socket = connected(server.addr());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let refused = with_old_version(SslMethod::dtls_client(), SslVersion::DTLS1, Raw(socket));
    assert!(refused.contains("alert"), "{refused}");
    let totals = server.stop();
    assert_eq!(number(&totals, "tls_failures"), 3, "{totals}");
}

#[test]
fn rfc7443_3_our_protocols_are_chosen_and_others_do_no_harm() {
    let server = Setup::new().tls().start();
    for (offered, chosen) in [
        (&["stun.turn"][..], Some("stun.turn")),
        (&["h2", "stun.nat-discovery", "stun.turn"], Some("stun.turn")),
        (&["stun.nat-discovery"], Some("stun.nat-discovery")),
        (&["h2", "http/1.1"], None),
        (&[], None),
    ] {
        let wanted = Wanted { protocols: offered, ..Wanted::default() };
        let tls = Tls::connect(stream(server.addr()), &wanted).unwrap();
        assert_eq!(tls.protocol(), chosen.map(str::as_bytes), "{offered:?} over TLS");
        Driver::on_tls(tls, "", "").binding().unwrap();
        let dtls = Dtls::connect(connected(server.addr()), &wanted).unwrap();
        assert_eq!(dtls.protocol(), chosen.map(str::as_bytes), "{offered:?} over DTLS");
        Driver::on_dtls(dtls, "", "").binding().unwrap();
    }
}

#[test]
fn the_certificate_is_for_the_name_that_the_client_asks_for() {
    let first = Certificate::new(&["one.example.org"], |_| ());
    let second = Certificate::new(&["two.example.org", "*.example.net"], |_| ());
    let server = Setup::new().tls_with(&[&first, &second]).start();
    for (name, expected) in
        [("one.example.org", &first), ("two.example.org", &second), ("TURN.example.net", &second)]
    {
        let trusted = vec![&first.der[..], &second.der[..]];
        let wanted = Wanted { name, trusted, ..Wanted::default() };
        let tls = Tls::connect(stream(server.addr()), &wanted).unwrap();
        assert!(tls.certificate() == expected.der, "{name} over TLS");
        let dtls = Dtls::connect(connected(server.addr()), &wanted).unwrap();
        assert!(dtls.certificate() == expected.der, "{name} over DTLS");
    }
    // For any other name it is the first, which is not for that name.
    let trusted = vec![&first.der[..], &second.der[..]];
    let wanted = Wanted { name: "three.example.org", trusted, ..Wanted::default() };
    assert!(Tls::connect(stream(server.addr()), &wanted).is_err());
    assert!(Dtls::connect(connected(server.addr()), &wanted).is_err());
}

#[test]
fn a_stream_may_be_split_after_every_byte() {
    let server = Setup::new().tls().start();
    for version in [&TLS12, &TLS13] {
        for at_once in [1, 2, 5] {
            let wanted = Wanted { version: Some(version), ..Wanted::default() };
            let slices = Slices { stream: stream(server.addr()), at_once };
            let mut tls = Tls::connect(slices, &wanted).unwrap();
            for round in 0..3 {
                tls.write_all(&binding_request(round)).unwrap();
                assert_eq!(read_answer(&mut tls), [round; 12], "{at_once} bytes at once");
            }
        }
    }
}

#[test]
fn records_and_messages_need_not_end_together() {
    let server = Setup::new().tls().start();
    let mut tls = Tls::connect(stream(server.addr()), &Wanted::default()).unwrap();
    // Each byte a record of its own.
    for byte in binding_request(1) {
        tls.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_answer(&mut tls), [1; 12]);
    // Many messages in one record, and the beginning of one more.
    let mut record: Vec<u8> = (0..50).flat_map(binding_request).collect();
    record.extend_from_slice(&binding_request(50)[..11]);
    tls.write_all(&record).unwrap();
    for transaction in 0..50 {
        assert_eq!(read_answer(&mut tls), [transaction; 12]);
    }
    tls.write_all(&binding_request(50)[11..]).unwrap();
    assert_eq!(read_answer(&mut tls), [50; 12]);
}

#[test]
fn each_message_to_a_client_is_a_record_of_its_own() {
    let server = Setup::new().tls().start();
    // What is not data is no record of this kind in TLS 1.2.
    let wanted = Wanted { version: Some(&TLS12), ..Wanted::default() };
    let recorder = Recorder { stream: stream(server.addr()), bytes: Vec::new() };
    let mut tls = Tls::connect(recorder, &wanted).unwrap();
    tls.write_all(&(0..50).flat_map(binding_request).collect::<Vec<u8>>()).unwrap();
    for transaction in 0..50 {
        assert_eq!(read_answer(&mut tls), [transaction; 12]);
    }
    let mut records = &tls.stream().bytes[..];
    let mut data = 0;
    while let [kind, _, _, high, low, rest @ ..] = records {
        data += u32::from(*kind == 23);
        records = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    assert_eq!(data, 50);
}

#[test]
fn a_handshake_has_to_be_done_in_time() {
    let mut server = patient_for_a_second();
    let hello = client_hello();
    for sent in [2, 5, 60, hello.len()] {
        let mut stream = connect(server.addr());
        stream.write_all(&hello[..sent]).unwrap();
        let waited = wait_until_ended(&mut stream);
        assert!(waited > SHORT / 2, "{sent} bytes: closed after {waited:?}");
    }
    // One that goes on and on: a hello that promises more than ever comes.
    let mut dribbling = connect(server.addr());
    dribbling.set_read_timeout(Some(DRIBBLE)).unwrap();
    dribbling.write_all(&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3]).unwrap();
    let begin = Instant::now();
    wait_until("the connection is closed", || {
        dribbling.write_all(&[0]).is_err() || is_closed(&mut dribbling)
    });
    assert!(begin.elapsed() > SHORT / 2);
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 5, "{totals}");
}

#[test]
fn half_a_message_within_tls_and_then_silence_ends_the_connection() {
    let mut server = patient_for_a_second();
    let mut silent = server.tls();
    silent.binding().unwrap();
    let mut tls = Tls::connect(stream(server.addr()), &Wanted::default()).unwrap();
    tls.write_all(&binding_request(1)[..7]).unwrap();
    let begin = Instant::now();
    let closed = tls.read(&mut [0; 64]);
    assert!(matches!(closed, Ok(0)), "a close_notify, not {closed:?}");
    assert!(begin.elapsed() > SHORT / 2);
    silent.binding().expect("a client that has said all of what it began to say may be silent");
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 1, "{totals}");
}

#[test]
fn a_session_without_an_allocation_ends_after_a_while() {
    let server = Setup::new().tls().set("tcp.idle-timeout", r#""1s""#).start();
    for how in [Driver::tls, Driver::dtls] {
        let mut with = how(server.addr(), "alice", "wonderland");
        with.allocate(Allocate::default()).unwrap();
        let mut without = how(server.addr(), "", "");
        without.binding().unwrap();
        without.expect_close(DEADLINE).unwrap();
        // Twice the time again, by one that starts after that ended.
        for _ in 0..2 {
            how(server.addr(), "", "").expect_close(DEADLINE).unwrap();
        }
        with.refresh(None, None).expect("a client with an allocation may be silent");
    }
}

#[test]
fn the_end_of_a_session_is_the_end_of_its_allocation() {
    for how in [Driver::tls, Driver::dtls] {
        let mut server = Setup::new().tls().start();
        let mut client = how(server.addr(), "alice", "wonderland");
        let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
        client.close_notify().unwrap();
        let line = server.process().expect_line("allocation ended", DEADLINE);
        assert!(line.contains("connection closed"), "{line}");
        assert!(line.contains(&format!("relayed={relayed}")), "{line}");
        wait_until("the port is free", || UdpSocket::bind(relayed).is_ok());
    }
}

#[test]
fn a_connection_that_breaks_ends_its_allocation() {
    let mut server = Setup::new().tls().start();
    let mut client = server.tls();
    client.allocate(Allocate::default()).unwrap();
    drop(client);
    let line = server.process().expect_line("allocation ended", DEADLINE);
    assert!(line.contains("connection closed"), "{line}");
}

/// The smallest values that a configuration may have, so that tests are short.
const SHORT: Duration = Duration::from_secs(1);

/// Gives handshakes and messages a second, and connections all the time.
fn patient_for_a_second() -> Server {
    Setup::new()
        .tls()
        .set("tls.handshake-timeout", r#""1s""#)
        .set("tcp.frame-timeout", r#""1s""#)
        .set("tcp.idle-timeout", r#""1h""#)
        .start()
}

/// What a client says first.
fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    Tls::<TcpStream>::client(&Wanted::default()).write_tls(&mut hello).unwrap();
    hello
}

/// Waits for the end, whatever comes before it; how long that took.
#[track_caller]
fn wait_until_ended(stream: &mut TcpStream) -> Duration {
    let begin = Instant::now();
    match io::copy(stream, &mut io::sink()) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("no end: {error}"),
    }
    begin.elapsed()
}

/// Nothing has come to a socket that was answered after.
#[track_caller]
fn assert_silent(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    let received = socket.recv(&mut [0; 2048]);
    assert!(received.is_err(), "{received:?} bytes");
}

/// Why a server refuses a client that knows no newer version than this.
fn with_old_version<S: Read + Write>(method: SslMethod, version: SslVersion, stream: S) -> String {
    let mut context = SslContext::builder(method).unwrap();
    context.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
    context.set_min_proto_version(Some(version)).unwrap();
    context.set_max_proto_version(Some(version)).unwrap();
    let mut ssl = Ssl::new(&context.build()).unwrap();
    ssl.set_connect_state();
    let mut stream = SslStream::new(ssl, stream).unwrap();
    stream.do_handshake().unwrap_err().to_string()
}

/// A connected UDP socket as a stream of datagrams.
struct Raw(UdpSocket);

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that keeps what the server wrote.
struct Recorder {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Read for Recorder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A connection that takes a few bytes at a time, each time a segment of its own as
/// far as we can bring that about.
struct Slices {
    stream: TcpStream,
    at_once: usize,
}

impl Read for Slices {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Slices {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        std::thread::yield_now();
        self.stream.write(&bytes[..bytes.len().min(self.at_once)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn a_record_that_dribbles_in_does_not_keep_a_connection() {
    let mut server = Setup::new().tls().set("tcp.frame-timeout", r#""1s""#).start();
    let mut others = server.tls();
    others.allocate(Allocate::default()).unwrap();
    for version in [&TLS12, &TLS13] {
        let wanted = Wanted { version: Some(version), ..Wanted::default() };
        let mut tls = Tls::connect(stream(server.addr()), &wanted).unwrap();
        tls.write_all(&binding_request(1)).unwrap();
        assert_eq!(read_answer(&mut tls), [1; 12]);
        // A record of data, whole, and the header of one that never ends.
        tls.write_all(&binding_request(2)).unwrap();
        tls.stream().write_all(&[0x17, 3, 3, 0x10, 0]).unwrap();
        assert_eq!(read_answer(&mut tls), [2; 12]);
        let stream = tls.stream();
        stream.set_read_timeout(Some(DRIBBLE)).unwrap();
        wait_until("the connection is closed", || {
            stream.write_all(&[0]).is_err() || has_ended(stream)
        });
    }
    others.binding().expect("others are not touched");
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 2, "{totals}");
    assert_eq!(number(&totals, "tls_failures"), 0, "{totals}");
}

/// Whether a connection is over, whatever came before its end.
fn has_ended(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}
