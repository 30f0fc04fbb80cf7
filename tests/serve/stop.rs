//! The end: at once, with a word about what was done, and nothing left behind.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use sturn::client::Allocate;

use crate::binding::binding_request;
use crate::setup::{DEADLINE, Peer, Server, Setup, TOTALS, number, relayed};
use crate::streams::read_answer;
use crate::support::driver::Error;

/// A second is what a person and a service manager expect; the rest is for a
/// machine with more to do.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn both_signals_end_it_soon_and_in_order() {
    for signal in ["TERM", "INT"] {
        let mut server = Setup::new().set("workers.count", "3").start();
        let mut clients: Vec<_> = (0..10).map(|number| server.client(number)).collect();
        let peer = Peer::v4();
        let mut relays = Vec::new();
        for client in &mut clients {
            let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
            client.channel_bind(None, peer.addr()).unwrap();
            client.send(peer.addr(), &[1; 10]).unwrap();
            assert_eq!(peer.receive().1, relayed);
            peer.send(relayed, &[2; 20]);
            client.expect_data(DEADLINE).unwrap();
            relays.push(relayed);
        }
        let start = Instant::now();
        server.process().signal(signal);
        let status = server.process().wait(DEADLINE);
        let took = start.elapsed();
        assert_eq!(status.code(), Some(0), "SIG{signal}");
        assert!(took < SOON, "SIG{signal}: {took:?}");

        server.process().expect_line(&format!("stopping on SIG{signal}"), DEADLINE);
        let totals = server.process().expect_line(TOTALS, DEADLINE);
        assert_eq!(number(&totals, "packets_to_peers"), 10, "{totals}");
        assert_eq!(number(&totals, "bytes_to_peers"), 100, "{totals}");
        assert_eq!(number(&totals, "packets_to_client"), 10, "{totals}");
        assert_eq!(number(&totals, "bytes_to_client"), 200, "{totals}");
        for relayed in relays {
            let line = server.process().expect_line(&format!("relayed={relayed} seconds"), SOON);
            assert!(line.contains("allocation ended") && line.contains("server stopped"), "{line}");
            UdpSocket::bind(relayed).expect("nothing is left bound");
        }
        for client in clients.iter_mut().skip(1).step_by(2) {
            client.expect_close(DEADLINE).unwrap();
        }
    }
}

#[test]
fn it_stops_under_load() {
    let mut server = Setup::new().start();
    let mut client = server.udp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peer = Peer::v4();
    client.channel_bind(None, peer.addr()).unwrap();
    let socket = peer.socket().try_clone().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let flood = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            // Once the server is gone, nobody is there to receive.
            let _ = socket.send_to(&[0; 1000], relayed);
        }
    });
    client.expect_data(DEADLINE).unwrap();
    let start = Instant::now();
    server.process().signal("TERM");
    let status = server.process().wait(DEADLINE);
    let took = start.elapsed();
    stop.send(()).unwrap();
    flood.join().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(took < SOON, "{took:?}");
}

#[test]
fn clients_over_tls_dtls_and_tcp_are_told() {
    let mut server = Setup::new().tls().start();
    let mut ways = server.every_way();
    ways.retain(|(way, _)| !way.starts_with("UDP"));
    for (_, client) in &mut ways {
        client.allocate(Allocate::default()).unwrap();
    }
    server.stop();
    for (way, client) in &mut ways {
        // Without a close_notify, or with a reset, it is another error.
        let end = client.expect_event(DEADLINE, |_| false);
        assert!(matches!(end, Err(Error::Closed)), "{way}: {end:?}");
    }
}

/// Requests whose answers exceed what the kernel keeps for one that does not read,
/// and not what the server does.
const REQUESTS: u8 = 250;
const ROUNDS: usize = 10;

/// A client whose answers wait for it, all of its requests being read.
fn client_that_does_not_read(server: &Server) -> TcpStream {
    let mut allocation = server.tcp();
    allocation.allocate(Allocate::default()).unwrap();
    let mut stream = allocation.into_tcp_stream();
    let requests: Vec<u8> = (0..REQUESTS).flat_map(binding_request).collect();
    for _ in 0..ROUNDS {
        stream.write_all(&requests).unwrap();
    }
    // The worker has one turn for each.
    for _ in 0..2 * ROUNDS {
        server.tcp().binding().unwrap();
    }
    stream
}

#[test]
fn answers_that_wait_arrive_before_the_end() {
    let mut server = Setup::new().set("workers.count", "1").start();
    let mut stream = client_that_does_not_read(&server);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    server.process().signal("TERM");
    server.process().expect_line("stopping on SIGTERM", DEADLINE);
    for _ in 0..ROUNDS {
        for number in 0..REQUESTS {
            assert_eq!(read_answer(&mut stream), [number; 12]);
        }
    }
    assert_eq!(stream.read(&mut [0]).expect("the end, and no reset"), 0);
    assert_eq!(server.process().wait(DEADLINE).code(), Some(0));
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let mut server = Setup::new().set("workers.count", "1").start();
    let stream = client_that_does_not_read(&server);
    let start = Instant::now();
    server.stop();
    let took = start.elapsed();
    assert!(took < SOON, "{took:?}");
    drop(stream);
}
