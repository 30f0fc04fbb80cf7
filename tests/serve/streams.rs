//! TCP: frames cut anywhere, clients that say half a word, nothing, or nonsense.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use sturn::client::{Allocate, Client, Config, Event};
use sturn::net::Transport;

use crate::binding::binding_request;
use crate::setup::{DEADLINE, Peer, Server, Setup, relayed, wait_until};
use crate::support::driver::{next_seed, now};

/// The smallest values a configuration may have, so that tests are short.
const SHORT: Duration = Duration::from_secs(1);

#[test]
fn requests_may_come_byte_by_byte() {
    let server = Setup::new().start();
    let peer = Peer::v4();
    for chunk in [1, 3, 7] {
        let mut stream = connect(server.addr());
        let mut client = client();
        client.allocate(now(), Allocate::default());
        let allocated = talk(&mut stream, &mut client, chunk, |event| match event {
            Event::Allocated(allocated) => Some(allocated),
            other => panic!("{other:?}"),
        });
        client.channel_bind(now(), None, peer.addr());
        talk(&mut stream, &mut client, chunk, |event| {
            matches!(event, Event::ChannelBound { .. }).then_some(())
        });
        for size in [0, 1, 2, 3, 200] {
            client.send(peer.addr(), &vec![9; size], false);
            write(&mut stream, &mut client, chunk);
            assert_eq!(peer.receive(), (vec![9; size], relayed(&allocated)));
        }
    }
}

#[test]
fn many_messages_may_come_in_one_segment() {
    let server = Setup::new().start();
    let mut stream = connect(server.addr());
    let mut segment: Vec<u8> = (0..50).flat_map(binding_request).collect();
    // ... and the beginning of one more.
    segment.extend_from_slice(&binding_request(50)[..11]);
    stream.write_all(&segment).unwrap();
    for transaction in 0..50 {
        assert_eq!(read_answer(&mut stream), [transaction; 12]);
    }
    stream.write_all(&binding_request(50)[11..]).unwrap();
    assert_eq!(read_answer(&mut stream), [50; 12]);
}

#[test]
fn data_and_requests_of_one_segment_keep_their_order() {
    let server = Setup::new().start();
    let mut stream = connect(server.addr());
    let mut client = client();
    let peer = Peer::v4();
    client.allocate(now(), Allocate::default());
    talk(&mut stream, &mut client, 1000, |event| {
        matches!(event, Event::Allocated(_)).then_some(())
    });
    client.channel_bind(now(), None, peer.addr());
    talk(&mut stream, &mut client, 1000, |event| {
        matches!(event, Event::ChannelBound { .. }).then_some(())
    });
    let mut segment = Vec::new();
    for round in 0..100_u8 {
        client.send(peer.addr(), &vec![round; usize::from(round)], false);
        segment.extend(client.poll_transmit().unwrap());
        segment.extend_from_slice(&binding_request(round));
    }
    stream.write_all(&segment).unwrap();
    for round in 0..100_u8 {
        assert_eq!(peer.receive().0, vec![round; usize::from(round)]);
        assert_eq!(read_answer(&mut stream), [round; 12]);
    }
}

#[test]
fn half_a_message_and_then_silence_ends_the_connection() {
    let server = Setup::new().set("tcp.frame-timeout", r#""1s""#).start();
    let whole = {
        let mut bytes = binding_request(1).to_vec();
        bytes[3] = 200;
        bytes
    };
    for half in [&whole[..], &whole[..1]] {
        let mut stream = connect(server.addr());
        stream.write_all(half).unwrap();
        let waited = until_closed(&mut stream);
        assert!(waited > SHORT / 2, "{half:?}: closed after {waited:?}");
    }
}

#[test]
fn a_message_that_dribbles_in_does_not_keep_a_connection() {
    let server = Setup::new().set("tcp.frame-timeout", r#""1s""#).start();
    let mut stream = connect(server.addr());
    let mut allocation = server.tcp();
    allocation.allocate(Allocate::default()).unwrap();
    stream.write_all(&[0, 1, 0x10, 0, 0x21, 0x12, 0xa4, 0x42]).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    wait_until("the connection is closed", || {
        let written = stream.write_all(&[0]);
        written.is_err() || is_closed(&mut stream)
    });
    allocation.binding().expect("others are not touched");
}

#[test]
fn silence_ends_a_connection_without_an_allocation_only() {
    let mut server =
        Setup::new().set("tcp.idle-timeout", r#""1s""#).set("tcp.frame-timeout", r#""1s""#).start();
    let mut with = server.tcp();
    with.allocate(Allocate::default()).unwrap();
    let mut silent = connect(server.addr());
    let mut spoke_once = connect(server.addr());
    spoke_once.write_all(&binding_request(1)).unwrap();
    assert_eq!(read_answer(&mut spoke_once), [1; 12]);
    let waited = until_closed(&mut silent);
    assert!(waited > SHORT / 2, "closed after {waited:?}");
    until_closed(&mut spoke_once);

    // Twice the time again, by a connection that starts after those ended.
    for _ in 0..2 {
        until_closed(&mut connect(server.addr()));
    }
    with.refresh(None, None).expect("a client with an allocation may be silent");
    with.refresh(Some(Duration::ZERO), None).unwrap();
    with.expect_close(DEADLINE).expect("now it has none");
    let totals = server.stop();
    assert_eq!(crate::setup::number(&totals, "closed_connections"), 5, "{totals}");
}

#[test]
fn other_protocols_are_hung_up_on_at_once() {
    let server = Setup::new().set("tcp.frame-timeout", r#""1h""#).start();
    let tls_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let no_cookie = [0, 1, 0, 0, 1, 2, 3, 4];
    let odd_length = [0, 1, 0, 3, 0x21, 0x12, 0xa4, 0x42];
    let ssh = b"\xffSSH";
    let channel_data = [0x40, 0, 0, 8, 1, 2, 3];
    let http = b"GET / HTTP/1.1\r\n\r\n";
    for nonsense in [&tls_hello[..], &no_cookie, &odd_length, ssh, &channel_data, http] {
        let mut stream = connect(server.addr());
        stream.write_all(nonsense).unwrap();
        let waited = until_closed(&mut stream);
        assert!(waited < DEADLINE, "{nonsense:x?}");
    }
    server.tcp().binding().unwrap();
}

#[test]
fn the_end_of_a_connection_is_the_end_of_its_allocation() {
    for abruptly in [false, true] {
        let mut server = Setup::new().start();
        let mut stream = connect(server.addr());
        let mut client = client();
        client.allocate(now(), Allocate::default());
        let relayed = talk(&mut stream, &mut client, 1000, |event| match event {
            Event::Allocated(allocated) => Some(relayed(&allocated)),
            other => panic!("{other:?}"),
        });
        assert!(UdpSocket::bind(relayed).is_err(), "the relay socket is there");
        if abruptly {
            reset(&stream);
        }
        drop(stream);
        let line = server.process().expect_line("allocation ended", DEADLINE);
        assert!(line.contains("connection closed"), "{line}");
        assert!(line.contains(&format!("relayed={relayed}")), "{line}");
        wait_until("the port is free", || UdpSocket::bind(relayed).is_ok());
    }
}

#[test]
fn an_allocation_is_bound_to_its_connection() {
    let server = Setup::new().start();
    let mut client = server.tcp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let mut other = server.tcp();
    assert_eq!(other.refresh(None, None).unwrap_err().code(), 437);
    let peer = Peer::v4();
    client.create_permission(&[peer.addr()]).unwrap();
    peer.send(relayed, b"for the first");
    assert_eq!(client.expect_data(DEADLINE).unwrap().data, b"for the first");
    other.binding().unwrap();
    assert_eq!(other.events(), []);
}

#[test]
fn a_thousand_connections_come_and_go() {
    let mut server = Setup::new().start();
    for round in 0..10 {
        let mut streams: Vec<TcpStream> = (0..100).map(|_| connect(server.addr())).collect();
        for stream in &mut streams {
            stream.write_all(&binding_request(round)).unwrap();
        }
        for stream in &mut streams {
            assert_eq!(read_answer(stream), [round; 12]);
        }
    }
    wait_until("their descriptors are closed", || server.descriptors() < 60);
}

fn client() -> Client {
    Client::new(Config::new(Transport::Tcp, "alice", "wonderland", next_seed()))
}

pub(crate) fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Writes what the client has to say in pieces of `chunk` bytes, each a segment of
/// its own as far as we can bring that about.
fn write(stream: &mut TcpStream, client: &mut Client, chunk: usize) {
    while let Some(bytes) = client.poll_transmit() {
        for piece in bytes.chunks(chunk) {
            stream.write_all(piece).unwrap();
            std::thread::yield_now();
        }
    }
}

/// Lets a client talk until `wanted` has found its event.
fn talk<T>(
    stream: &mut TcpStream,
    client: &mut Client,
    chunk: usize,
    wanted: impl Fn(Event) -> Option<T>,
) -> T {
    let mut buffer = [0; 4096];
    loop {
        write(stream, client, chunk);
        if let Some(found) = client.poll_event().and_then(&wanted) {
            return found;
        }
        let length = stream.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "the server has closed the connection");
        client.handle_receive(now(), &buffer[..length]);
    }
}

/// The transaction id of the next message, a Binding success response.
#[track_caller]
pub(crate) fn read_answer(stream: &mut impl Read) -> [u8; 12] {
    let mut header = [0; 20];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[..2], [1, 1]);
    let mut attributes = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
    stream.read_exact(&mut attributes).unwrap();
    header[8..].try_into().unwrap()
}

/// How long the server lets a connection live.
#[track_caller]
pub(crate) fn until_closed(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    assert!(is_closed(stream), "the connection is still open");
    start.elapsed()
}

/// Whether the connection ends before the read timeout.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(length) => panic!("{length} bytes instead of the end"),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionReset => true,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => false,
            _ => panic!("{error}"),
        },
    }
}

/// Makes closing a connection send a RST.
pub(crate) fn reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the value lives until the call returns and has the length given.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            length,
        )
    };
    assert_eq!(done, 0);
}

impl Server {
    /// Descriptors it has open.
    pub(crate) fn descriptors(&mut self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process().id())).unwrap().count()
    }
}
