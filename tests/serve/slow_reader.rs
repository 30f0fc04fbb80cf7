//! A client over TCP that reads slower than its peers send: media is dropped,
//! answers are not, and the server's memory does not grow with it.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use sturn::client::{Allocate, Event};

use crate::setup::{DEADLINE, Peer, Server, Setup, number, relayed};
use crate::support::driver::Driver;
use crate::support::secure::{Tls, Wanted, stream};

/// More than all kernel buffers on the way hold.
const FLOOD: usize = 60 << 20;
const DATAGRAM: usize = 1200;
/// What the server may grow by: a queue of 256 KiB, and what an allocator keeps.
const GROWTH: u64 = 3 << 20;

#[test]
fn media_is_dropped_and_answers_arrive() {
    let server = Setup::new().set("workers.count", "1").set("tcp.queue", r#""256KiB""#).start();
    let client = server.tcp();
    media_is_dropped(server, client);
}

#[test]
fn media_within_tls_is_dropped_and_answers_arrive() {
    let queue = r#""256KiB""#;
    let server = Setup::new().tls().set("workers.count", "1").set("tcp.queue", queue).start();
    let client = server.tls();
    media_is_dropped(server, client);
}

fn media_is_dropped(mut server: Server, mut client: Driver) {
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peer = Peer::v4();
    client.channel_bind(None, peer.addr()).unwrap();
    let mut other = server.udp();
    // Once there and back, so that buffers kept for later are there.
    peer.send(relayed, &[0; DATAGRAM]);
    client.expect_data(DEADLINE).unwrap();
    let before = server.resident_memory();

    let mut sequence = 0_u64;
    while sequence < (FLOOD / DATAGRAM) as u64 {
        let mut datagram = [0; DATAGRAM];
        datagram[..8].copy_from_slice(&sequence.to_be_bytes());
        peer.send(relayed, &datagram);
        sequence += 1;
        if sequence.is_multiple_of(64) {
            // Others are served meanwhile, and the relay socket's buffer is emptied.
            other.binding().unwrap();
        }
    }
    let grown = server.resident_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes for one slow client");

    // Asked while everything is full: the answer waits behind what is queued.
    let transaction = client.client().refresh(crate::support::driver::now(), None, None);
    client.flush().unwrap();
    let mut last = None;
    let mut received = 0;
    let deadline = Instant::now() + 3 * DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "no answer, {received} datagrams");
        match client.expect_event(DEADLINE, |_| true).unwrap() {
            Event::Data { data, .. } => {
                let number = u64::from_be_bytes(data[..8].try_into().unwrap());
                assert_eq!(data.len(), DATAGRAM);
                assert!(last < Some(number), "{number} after {last:?}");
                last = Some(number);
                received += 1;
            }
            Event::Refreshed { transaction: answered, lifetime } => {
                assert_eq!((answered, lifetime), (transaction, Duration::from_secs(600)));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(received < sequence, "nothing was dropped");

    // And it is a client like any other again.
    peer.send(relayed, &[0xff; DATAGRAM]);
    let is_last = |event: &Event| matches!(event, Event::Data { data, .. } if data[0] == 0xff);
    client.expect_event(DEADLINE, is_last).unwrap();
    client.send(peer.addr(), b"still here").unwrap();
    assert_eq!(peer.receive(), (b"still here".to_vec(), relayed));
    let totals = server.stop();
    assert!(number(&totals, "lost_slow_client") > 0, "{totals}");
}

#[test]
fn a_client_that_asks_and_never_listens_costs_no_memory() {
    let server = Setup::new().tls().set("workers.count", "1").start();
    let deaf = stream(server.addr());
    deaf.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    never_listens(server, deaf);
}

#[test]
fn a_client_that_asks_within_tls_and_never_listens_costs_no_memory() {
    let server = Setup::new().tls().set("workers.count", "1").start();
    let mut deaf = Tls::connect(stream(server.addr()), &Wanted::default()).unwrap();
    deaf.stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    never_listens(server, deaf);
}

fn never_listens(mut server: Server, mut deaf: impl Write) {
    let requests: Vec<u8> = (0..200).flat_map(crate::binding::binding_request).collect();
    let before = server.resident_memory();
    // Until our side is full as well: the server has stopped reading.
    let mut written = 0;
    let stuck = loop {
        match deaf.write(&requests[written % 20..]) {
            Ok(length) => written += length,
            Err(error) => break error,
        }
        assert!(written < 512 << 20, "the server reads on and on");
        server.udp().binding().unwrap();
    };
    assert!(matches!(stuck.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stuck}");
    let grown = server.resident_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes for one deaf client");
    server.tcp().binding().unwrap();
}
