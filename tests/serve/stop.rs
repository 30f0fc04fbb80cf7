//! The end: at once, with a word about what was done, and nothing left behind.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use sturn::client::Allocate;

use crate::setup::{DEADLINE, Peer, Setup, TOTALS, number, relayed};

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
