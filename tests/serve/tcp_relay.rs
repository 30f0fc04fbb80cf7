//! TCP relays (RFC 6062): connections with peers, made and accepted at a relayed
//! transport address, and what passes through them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use stun_rs::attributes::turn::XorPeerAddress;
use sturn::client::{Allocate, Attribute, Event};

use crate::setup::{DEADLINE, Server, Setup, number, relayed, wait_until};
use crate::support::driver::{Driver, Error, now};

const CONNECT: u16 = 0x000A;
const CONNECTION_BIND: u16 = 0x000B;
const CONNECTION_ATTEMPT: u16 = 0x000C;
const CONNECTION_ID: u16 = 0x002A;

/// More data connections than are likely to be accepted by one of two workers.
const CONNECTIONS: usize = 12;

fn server() -> Server {
    Setup::new().set("relay.tcp", "true").start()
}

fn tcp() -> Allocate {
    Allocate { requested_transport: 6, ..Allocate::default() }
}

/// A client with a TCP allocation, and its relayed transport address.
fn allocation(server: &Server) -> (Driver, SocketAddr) {
    let mut control = server.tcp();
    let relayed = relayed(&control.allocate(tcp()).unwrap());
    (control, relayed)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    (stream, from)
}

fn connect(control: &mut Driver, peer: SocketAddr) -> Result<Vec<u8>, Error> {
    let attributes = control.request_raw(CONNECT, vec![XorPeerAddress::from(peer).into()])?;
    Ok(connection_id(&attributes))
}

#[track_caller]
fn connection_id(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let found = attributes.iter().find(|(kind, _)| *kind == CONNECTION_ID);
    let id = found.expect("CONNECTION-ID").1.clone();
    assert_eq!(id.len(), 4);
    id
}

/// A data connection that is bound: bytes from here on are the peer's.
#[track_caller]
fn bind(server: &Server, id: &[u8]) -> TcpStream {
    bind_and_send(server, id, b"")
}

/// The same with bytes behind the request. The answer is read to its end and no
/// further, since the peer's bytes follow it.
#[track_caller]
fn bind_and_send(server: &Server, id: &[u8], early: &[u8]) -> TcpStream {
    let mut data = server.tcp();
    // A first request, refused, so that the next one carries credentials.
    let unknown = vec![Attribute::Raw(CONNECTION_ID, vec![0; 4])];
    assert_eq!(data.request_raw(CONNECTION_BIND, unknown).unwrap_err().code(), 400);
    let attributes = vec![Attribute::Raw(CONNECTION_ID, id.to_vec())];
    data.client().request_raw(now(), CONNECTION_BIND, attributes);
    let mut bytes = data.client().poll_transmit().unwrap();
    bytes.extend(early);
    data.send_bytes(&bytes).unwrap();
    let mut stream = data.into_tcp_stream();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = read_exactly(&mut stream, 20);
    assert_eq!(head[..2], [0x01, 0x0b], "a success response");
    read_exactly(&mut stream, usize::from(u16::from_be_bytes([head[2], head[3]])));
    stream
}

/// The id in the next ConnectionAttempt.
#[track_caller]
fn attempt(control: &mut Driver) -> Vec<u8> {
    let is_attempt =
        |event: &Event| matches!(event, Event::Indication { method: CONNECTION_ATTEMPT, .. });
    match control.expect_event(DEADLINE, is_attempt).unwrap() {
        Event::Indication { attributes, .. } => connection_id(&attributes),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn read_exactly(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[track_caller]
fn expect_end(stream: &mut TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not the end: {other:?}"),
    }
}

/// Bytes that show where one is missing or out of place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_be_bytes()).take(len).collect()
}

#[test]
fn peers_see_the_relayed_address_and_bytes_pass_both_ways() {
    let server = server();
    let (mut control, relayed) = allocation(&server);
    for number in 0..CONNECTIONS {
        let (listener, peer) = listener();
        let id = connect(&mut control, peer).unwrap();
        let (mut far, from) = accept(&listener);
        assert_eq!(from, relayed, "connection {number}");
        let mut near = bind(&server, &id);
        near.write_all(b"ping").unwrap();
        assert_eq!(read_exactly(&mut far, 4), b"ping");
        far.write_all(b"pong").unwrap();
        assert_eq!(read_exactly(&mut near, 4), b"pong");
    }
}

#[test]
fn megabytes_arrive_in_order_against_a_slow_reader() {
    let server = server();
    let (mut control, _) = allocation(&server);
    let (listener, peer) = listener();
    let id = connect(&mut control, peer).unwrap();
    let (far, _) = accept(&listener);
    let near = bind(&server, &id);
    let sent = pattern(8 << 20);
    let ways = [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)];
    let copies = ways.map(|(mut from, mut to)| {
        let (bytes, wanted) = (sent.clone(), sent.clone());
        let writing = thread::spawn(move || from.write_all(&bytes).unwrap());
        let reading = thread::spawn(move || {
            // Both windows are full before the first read.
            wait_until("something has come", || to.peek(&mut [0]).is_ok());
            let mut got = vec![0; wanted.len()];
            to.read_exact(&mut got).unwrap();
            assert!(got == wanted, "every byte in order");
        });
        (writing, reading)
    });
    for (writing, reading) in copies {
        writing.join().unwrap();
        reading.join().unwrap();
    }
}

#[test]
fn bytes_both_ways_are_in_the_log_and_the_totals() {
    for how in [Driver::tcp, Driver::tls] {
        let mut server = Setup::new().tls().set("relay.tcp", "true").start();
        let (mut control, _) = allocation(&server);
        let (listener, peer) = listener();
        let id = connect(&mut control, peer).unwrap();
        let (mut far, _) = accept(&listener);
        let mut data = how(server.addr(), "alice", "wonderland");
        let unknown = vec![Attribute::Raw(CONNECTION_ID, vec![0; 4])];
        assert_eq!(data.request_raw(CONNECTION_BIND, unknown).unwrap_err().code(), 400);
        data.request_raw(CONNECTION_BIND, vec![Attribute::Raw(CONNECTION_ID, id)]).unwrap();
        let sent = pattern(100_000);
        data.send_bytes(&sent).unwrap();
        assert!(read_exactly(&mut far, sent.len()) == sent);
        far.write_all(b"answer").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        // All six of them, and then the end.
        data.expect_close(DEADLINE).unwrap();
        control.refresh(Some(Duration::ZERO), None).unwrap();
        let ended = server.process().expect_line("allocation ended", DEADLINE);
        for line in [ended, server.stop()] {
            assert_eq!(number(&line, "bytes_to_peers"), 100_000, "{line}");
            assert_eq!(number(&line, "bytes_to_client"), 6, "{line}");
        }
    }
}

#[test]
fn each_end_is_passed_on_and_the_other_way_goes_on() {
    let server = server();
    let (mut control, _) = allocation(&server);
    let (listener, peer) = listener();
    let id = connect(&mut control, peer).unwrap();
    let (mut far, _) = accept(&listener);
    let mut near = bind(&server, &id);
    near.write_all(b"last words").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"last words");
    far.write_all(b"answer").unwrap();
    drop(far);
    heard.clear();
    near.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"answer");
    // Both have ended: the same peer can be connected to again.
    wait_until("the connection is forgotten", || connect(&mut control, peer).is_ok());
}

#[test]
fn the_end_is_passed_on_however_much_comes_before_it() {
    let server = server();
    let (mut control, _) = allocation(&server);
    // All of it is there when the first byte passes: one step more or less to the end.
    for length in (0..24).map(|steps| steps * 16_384) {
        let (listener, peer) = listener();
        let id = connect(&mut control, peer).unwrap();
        let (mut far, _) = accept(&listener);
        let sent = pattern(length);
        far.write_all(&sent).unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        let mut near = bind(&server, &id);
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).unwrap();
        assert!(heard == sent, "{} of {length}", heard.len());
        near.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut far);
    }
}

#[test]
fn what_a_peer_sent_before_it_hung_up_reaches_a_slow_client() {
    let server = server();
    let (mut control, _) = allocation(&server);
    let (listener, peer) = listener();
    let id = connect(&mut control, peer).unwrap();
    let (mut far, _) = accept(&listener);
    let mut near = bind(&server, &id);
    near.shutdown(Shutdown::Write).unwrap();
    expect_end(&mut far);
    let sent = pattern(8 << 20);
    let wanted = sent.clone();
    let writing = thread::spawn(move || far.write_all(&sent).unwrap());
    // Nothing is read before the peer's window is full or it has hung up.
    wait_until("something has come", || near.peek(&mut [0]).is_ok());
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).unwrap();
    assert!(heard == wanted, "all of it: {} of {}", heard.len(), wanted.len());
    writing.join().unwrap();
}

#[test]
fn a_peer_that_connects_is_announced_and_what_it_sent_is_kept() {
    let server = server();
    let (mut control, relayed) = allocation(&server);
    control.create_permission(&["127.0.0.1:1".parse().unwrap()]).unwrap();
    for _ in 0..CONNECTIONS {
        let mut far = TcpStream::connect(relayed).unwrap();
        far.set_read_timeout(Some(DEADLINE)).unwrap();
        let early = pattern(100_000);
        far.write_all(&early).unwrap();
        let id = attempt(&mut control);
        let mut near = bind(&server, &id);
        assert!(read_exactly(&mut near, early.len()) == early, "in order, before anything else");
        near.write_all(b"thanks").unwrap();
        assert_eq!(read_exactly(&mut far, 6), b"thanks");
    }
}

#[test]
fn a_peer_without_permission_is_closed() {
    let server = server();
    let (mut control, relayed) = allocation(&server);
    let mut far = TcpStream::connect(relayed).unwrap();
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    expect_end(&mut far);
    let attempts = control.events();
    assert!(attempts.is_empty(), "{attempts:?}");
}

#[test]
fn what_comes_behind_the_bind_request_is_the_peers() {
    let server = server();
    let (mut control, _) = allocation(&server);
    for _ in 0..CONNECTIONS {
        let (listener, peer) = listener();
        let id = connect(&mut control, peer).unwrap();
        let (mut far, _) = accept(&listener);
        let _near = bind_and_send(&server, &id, b"no time to wait");
        assert_eq!(read_exactly(&mut far, 15), b"no time to wait");
    }
}

#[test]
fn a_peer_that_refuses_gives_447_and_one_that_is_connected_446() {
    let server = server();
    let (mut control, _) = allocation(&server);
    let nobody = listener().1;
    assert_eq!(connect(&mut control, nobody).unwrap_err().code(), 447);
    let (listener, peer) = listener();
    connect(&mut control, peer).unwrap();
    let _far = accept(&listener);
    assert_eq!(connect(&mut control, peer).unwrap_err().code(), 446);
    let denied = "10.0.0.1:80".parse().unwrap();
    assert_eq!(connect(&mut control, denied).unwrap_err().code(), 403);
}

#[test]
fn the_end_of_the_control_connection_ends_the_others() {
    let server = server();
    let (mut control, relayed) = allocation(&server);
    let (listener, peer) = listener();
    let id = connect(&mut control, peer).unwrap();
    let (mut far, _) = accept(&listener);
    let mut near = bind(&server, &id);
    drop(control);
    expect_end(&mut far);
    expect_end(&mut near);
    wait_until("the port is free", || TcpListener::bind(relayed).is_ok());
}

#[test]
fn two_clients_of_one_server_connect_through_it() {
    let server = server();
    let (mut first, _) = allocation(&server);
    let (mut second, relayed) = allocation(&server);
    second.create_permission(&["127.0.0.1:1".parse().unwrap(), relayed]).unwrap();
    let id = {
        // The relays of this server have an address of their own.
        let permission = [SocketAddr::new(server.relay_v4(), 1)];
        second.create_permission(&permission).unwrap();
        connect(&mut first, relayed).unwrap()
    };
    let mut near = bind(&server, &id);
    let other = attempt(&mut second);
    let mut far = bind(&server, &other);
    near.write_all(b"across").unwrap();
    assert_eq!(read_exactly(&mut far, 6), b"across");
    far.write_all(b"and back").unwrap();
    assert_eq!(read_exactly(&mut near, 8), b"and back");
}

#[test]
fn off_means_442() {
    let server = Setup::new().start();
    assert_eq!(server.tcp().allocate(tcp()).unwrap_err().code(), 442);
}
