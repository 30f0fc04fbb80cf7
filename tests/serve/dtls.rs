//! DTLS clients that flood, fall silent, forget, repeat themselves or get more
//! than a record holds.

use std::net::UdpSocket;

use sturn::client::Allocate;

use crate::setup::{DEADLINE, Peer, Server, Setup, number, random, relayed};
use crate::support::driver::{Driver, connected};
use crate::support::secure::{Dtls, Wanted};

/// What the server may grow by.
const GROWTH: u64 = 4 << 20;

/// ClientHellos of a flood.
const HELLOS: u64 = 100_000;

/// ClientHellos between two looks at whether the server is there: so few that its
/// receive buffers do not overflow, which would spare it the work.
const BURST: u64 = 200;

/// Where the random bytes of a ClientHello lie: behind the headers of record and
/// message, and the version.
const RANDOM: std::ops::Range<usize> = 27..59;

#[test]
fn hellos_of_strangers_cost_nothing() {
    let mut server = Setup::new().tls().start();
    let stranger = Dtls::abandon(connected(server.addr()), 1);
    let hello = &stranger.datagrams().written[0];
    flood(&server, hello, HELLOS / 20);
    let before = server.resident_memory();
    let answers = flood(&server, hello, HELLOS);
    assert!(answers > HELLOS / 4, "{answers} hellos were looked at");
    let grown = server.resident_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes for hellos of strangers");
    server.dtls().binding().unwrap();
}

#[test]
fn handshakes_that_are_not_done_are_bounded() {
    const MOST: u64 = 8;
    const TRIED: u64 = 200;
    let mut server = Setup::new()
        .tls()
        .set("workers.count", "1")
        .set("tls.handshakes", MOST.to_string())
        .set("tls.handshake-timeout", r#""30s""#)
        .start();
    let mut before_it = server.dtls();
    before_it.allocate(Allocate::default()).unwrap();
    let before = server.resident_memory();
    // Clients that return the cookie and then never say anything again.
    let silent: Vec<Dtls> =
        (0..TRIED).map(|_| Dtls::abandon(connected(server.addr()), 2)).collect();
    server.udp().binding().unwrap();
    let grown = server.resident_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes for {MOST} handshakes");
    let one_more = Dtls::abandon(connected(server.addr()), 2);
    before_it.refresh(None, None).expect("sessions that are there go on");
    server.tls().binding().unwrap();
    drop((silent, one_more));
    let totals = server.stop();
    assert_eq!(number(&totals, "refused_connections"), TRIED - MOST + 1, "{totals}");
}

#[test]
fn handshakes_that_are_not_done_in_time_make_room() {
    let mut server = Setup::new()
        .tls()
        .set("workers.count", "1")
        .set("tls.handshakes", "1")
        .set("tls.handshake-timeout", r#""2s""#)
        .start();
    let _silent = Dtls::abandon(connected(server.addr()), 2);
    // Comes in once the silent one is given up: its hello is sent again until then.
    Driver::dtls(server.addr(), "", "").binding().unwrap();
    let totals = server.stop();
    assert!(number(&totals, "refused_connections") >= 1, "{totals}");
    assert_eq!(number(&totals, "closed_connections"), 1, "{totals}");
}

#[test]
fn rfc6347_4_2_8_a_client_that_forgot_its_session_begins_anew() {
    let mut server = Setup::new().tls().start();
    let peer = Peer::v4();
    let mut first = server.dtls();
    let before = relayed(&first.allocate(Allocate::default()).unwrap());
    let socket = first.udp_socket().unwrap().try_clone().unwrap();
    // As after a crash: no farewell.
    drop(first);
    let dtls = Dtls::connect(socket, &Wanted::default()).unwrap();
    let mut second = Driver::on_dtls(dtls, "alice", "wonderland");
    let ended = server.process().expect_line("allocation ended", DEADLINE);
    assert!(ended.contains(&format!("relayed={before}")), "{ended}");
    let after = relayed(&second.allocate(Allocate::default()).unwrap());
    second.channel_bind(None, peer.addr()).unwrap();
    peer.send(after, b"to the new one");
    assert_eq!(second.expect_data(DEADLINE).unwrap().data, b"to the new one");
}

#[test]
fn rfc6347_4_2_8_a_session_goes_on_until_the_new_handshake_is_done() {
    let mut server = Setup::new().tls().set("workers.count", "1").start();
    let mut client = server.dtls();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peer = Peer::v4();
    client.channel_bind(None, peer.addr()).unwrap();
    for _ in 0..2 {
        // The cookie comes back, and then nothing; a second time it is another hello.
        drop(Dtls::abandon(client.udp_socket().unwrap().try_clone().unwrap(), 2));
        client.refresh(None, None).expect("the session goes on");
        peer.send(relayed, b"both ways");
        assert_eq!(client.expect_data(DEADLINE).unwrap().data, b"both ways");
    }
    let socket = client.udp_socket().unwrap().try_clone().unwrap();
    let second = Dtls::connect(socket, &Wanted::default()).unwrap();
    server.process().expect_line("allocation ended", DEADLINE);
    Driver::on_dtls(second, "alice", "wonderland").allocate(Allocate::default()).unwrap();
    let totals = server.stop();
    assert_eq!(number(&totals, "tls_failures"), 0, "{totals}");
}

#[test]
fn rfc6347_4_2_8_a_handshake_that_finds_no_room_ends_no_session() {
    let mut server =
        Setup::new().tls().set("workers.count", "1").set("tls.handshakes", "1").start();
    let mut client = server.dtls();
    client.allocate(Allocate::default()).unwrap();
    let elsewhere = Dtls::abandon(connected(server.addr()), 2);
    let socket = client.udp_socket().unwrap().try_clone().unwrap();
    drop(Dtls::abandon(socket, 2));
    client.refresh(None, None).expect("the session goes on");
    let totals = server.stop();
    assert_eq!(number(&totals, "refused_connections"), 1, "{totals}");
    drop(elsewhere);
}

#[test]
fn a_handshake_that_is_given_up_leaves_the_session_as_it_was() {
    let mut server = Setup::new()
        .tls()
        .set("workers.count", "1")
        .set("tls.handshakes", "1")
        .set("tls.handshake-timeout", r#""1s""#)
        .start();
    let mut client = server.dtls();
    client.allocate(Allocate::default()).unwrap();
    let socket = client.udp_socket().unwrap().try_clone().unwrap();
    drop(Dtls::abandon(socket.try_clone().unwrap(), 2));
    // Comes in once that is given up: its hello is sent again until then.
    Driver::dtls(server.addr(), "", "").binding().unwrap();
    client.refresh(None, None).expect("the session goes on");
    // And it can be replaced after that.
    let second = Dtls::connect(socket, &Wanted::default()).unwrap();
    Driver::on_dtls(second, "alice", "wonderland").allocate(Allocate::default()).unwrap();
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 1, "{totals}");
}

#[test]
fn what_comes_again_or_is_forged_does_not_end_a_session() {
    let mut server = Setup::new().tls().start();
    let mut client = server.dtls();
    client.allocate(Allocate::default()).unwrap();
    let handshake = client.handshake().to_vec();
    let mut cookieless = handshake[0].clone();
    cookieless[RANDOM].fill(7);
    let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    let sealed = [&[23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 1, 9, 0, 40][..], &[9; 40]].concat();
    let close = [&[21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 1, 9, 0, 26][..], &[9; 26]].concat();
    let socket = client.udp_socket().unwrap();
    for datagram in handshake.iter().chain([&cookieless, &alert.to_vec(), &sealed, &close]) {
        socket.send(datagram).unwrap();
    }
    client.refresh(None, None).expect("the session goes on");
    let totals = server.stop();
    assert_eq!(number(&totals, "tls_failures"), 0, "{totals}");
}

#[test]
fn data_that_no_record_holds_is_dropped() {
    let mut server = Setup::new().tls().start();
    let mut client = server.dtls();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peer = Peer::v4();
    client.channel_bind(None, peer.addr()).unwrap();
    for length in [16_380, 16_381, 60_000, 1] {
        peer.send(relayed, &vec![1; length]);
    }
    assert_eq!(client.expect_data(DEADLINE).unwrap().data.len(), 16_380);
    assert_eq!(client.expect_data(DEADLINE).unwrap().data.len(), 1);
    let totals = server.stop();
    assert_eq!(number(&totals, "lost_send_refused"), 2, "{totals}");
}

#[test]
fn a_session_is_answered_from_the_address_that_it_asked() {
    let server = Setup::new()
        .tls()
        .set("listen.udp", r#"["0.0.0.0:@port@"]"#)
        .set("listen.tcp", "[]")
        .start();
    // Connected to 127.0.0.2: what comes from elsewhere never arrives.
    let second = ([127, 0, 0, 2], server.addr().port()).into();
    let mut client = Driver::dtls(second, "alice", "wonderland");
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peer = Peer::v4();
    client.create_permission(&[peer.addr()]).unwrap();
    peer.send(relayed, b"hello");
    assert_eq!(client.expect_data(DEADLINE).unwrap().data, b"hello");
}

#[test]
fn sessions_count_as_connections() {
    let mut server =
        Setup::new().tls().set("workers.count", "1").set("limits.connections", "3").start();
    let mut clients: Vec<Driver> = (0..3).map(|_| server.dtls()).collect();
    for client in &mut clients {
        client.allocate(Allocate::default()).unwrap();
    }
    drop(Dtls::abandon(connected(server.addr()), 2));
    clients[0].close_notify().unwrap();
    // Its hello is sent again, should it come before the farewell.
    server.dtls().binding().unwrap();
    for client in &mut clients[1..] {
        client.refresh(None, None).expect("those before it are not touched");
    }
    let totals = server.stop();
    assert!(number(&totals, "refused_connections") >= 1, "{totals}");
}

/// ClientHellos without a cookie from many ports; how many answers came.
fn flood(server: &Server, hello: &[u8], count: u64) -> u64 {
    let sources: Vec<UdpSocket> = (0..100).map(|_| connected(server.addr())).collect();
    for source in &sources {
        source.set_nonblocking(true).unwrap();
    }
    let mut answers = 0;
    for number in 0..count {
        let mut hello = hello.to_vec();
        hello[RANDOM][..8].copy_from_slice(&random().to_be_bytes());
        hello[RANDOM][8..16].copy_from_slice(&u64::to_be_bytes(number));
        let source = &sources[number as usize % sources.len()];
        source.send(&hello).unwrap();
        let mut answer = [0; 2048];
        while let Ok(length) = source.recv(&mut answer) {
            assert!(length < hello.len(), "{length} bytes for {}", hello.len());
            answers += 1;
        }
        if number % BURST == 0 {
            server.tcp().binding().unwrap();
        }
    }
    answers
}
