//! UDP over loopback, both families.

mod trains;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::*;
use crate::io::loopback::{ANY_PORT, body, wait_for};
use crate::io::{Arena, Body, Header, Interest, Outgoing};

/// Everything a worker owns to receive and send.
struct Plane {
    arena: Arena,
    incoming: RecvBatch,
    outgoing: SendBatch,
}

impl Plane {
    fn new(slots: usize) -> Self {
        Self {
            arena: Arena::new(slots).unwrap(),
            incoming: RecvBatch::new(),
            outgoing: SendBatch::new(),
        }
    }

    fn send(&mut self, socket: &UdpSocket, messages: &[Outgoing]) -> SendReport {
        let order: Vec<u32> = (0..messages.len() as u32).collect();
        socket.send_batch(&mut self.outgoing, &self.arena, messages, &order)
    }

    /// Waits for `count` datagrams and returns each with its bytes.
    fn receive(&mut self, socket: &UdpSocket, count: usize) -> Vec<(Train, Vec<u8>)> {
        let mut all = Vec::new();
        while all.len() < count {
            wait_for(socket, Interest::READ);
            let max = count - all.len();
            let received = socket.recv_batch(&mut self.arena, &mut self.incoming, max).unwrap();
            assert_eq!(received.count, self.incoming.iter().len());
            all.extend(self.incoming.iter().map(|datagram| {
                (datagram, self.arena.bytes(datagram.slot)[..datagram.len].to_vec())
            }));
        }
        all
    }

    /// Waits for `count` datagrams, never asking for fewer than the arena holds.
    fn receive_into_free_slots(&mut self, socket: &UdpSocket, count: usize) -> usize {
        let mut got = 0;
        while got < count {
            wait_for(socket, Interest::READ);
            let received = socket.recv_batch(&mut self.arena, &mut self.incoming, BATCH).unwrap();
            got += received.count;
        }
        got
    }

    /// Waits for a datagram and for the sign of a pending ICMP error.
    fn receive_beside_an_error(&mut self, socket: &UdpSocket) -> usize {
        let deadline = Instant::now() + Duration::from_secs(10);
        let (mut got, mut icmp_error) = (0, false);
        while got == 0 || !icmp_error {
            assert!(Instant::now() < deadline, "{got} datagrams, error seen: {icmp_error}");
            assert!(wait_for(socket, Interest::READ).error);
            let received = socket.recv_batch(&mut self.arena, &mut self.incoming, BATCH).unwrap();
            got += received.count;
            icmp_error |= received.icmp_error;
        }
        got
    }

    fn nothing_to_receive(&mut self, socket: &UdpSocket) {
        let received = socket.recv_batch(&mut self.arena, &mut self.incoming, BATCH).unwrap();
        assert_eq!((received.count, received.drained), (0, true));
    }
}

fn bind(addr: SocketAddr) -> UdpSocket {
    UdpSocket::bind(addr, &UdpOptions::default()).unwrap()
}

fn sent(count: usize) -> SendReport {
    SendReport { sent: count, ..SendReport::default() }
}

#[test]
fn batches_keep_order_and_bytes_in_both_families() {
    const COUNT: u32 = 150;
    for addr in ANY_PORT {
        let (a, b) = (bind(addr), bind(addr));
        let to = b.local_addr().unwrap();
        let mut plane = Plane::new(400);
        let messages: Vec<_> = (0..COUNT)
            .map(|n| Outgoing::new(to, body(&mut plane.arena, &n.to_be_bytes())))
            .collect();
        // Any order, more than two system calls' worth, one message twice.
        let mut order: Vec<u32> = (0..COUNT).rev().collect();
        order.push(7);
        let report = a.send_batch(&mut plane.outgoing, &plane.arena, &messages, &order);
        assert_eq!(report, sent(order.len()));
        let got = plane.receive(&b, order.len());
        for (expected, (datagram, bytes)) in order.iter().zip(&got) {
            assert_eq!(bytes, &expected.to_be_bytes());
            assert_eq!(datagram.from, a.local_addr().unwrap());
            assert_eq!((datagram.local, datagram.tos, datagram.truncated), (None, 0, false));
        }
        plane.nothing_to_receive(&b);
    }
}

#[test]
fn unused_slots_are_given_back_and_a_full_arena_receives_nothing() {
    let (a, b) = (bind(ANY_PORT[0]), bind(ANY_PORT[0]));
    let mut plane = Plane::new(4);
    let message = Outgoing::new(b.local_addr().unwrap(), body(&mut plane.arena, b"x"));
    assert_eq!(plane.send(&a, &[message; 5]), sent(5));
    // One slot holds the message, so three of the five fit.
    assert_eq!(plane.receive_into_free_slots(&b, 3), 3);
    assert_eq!(plane.arena.free_slots(), 0);
    wait_for(&b, Interest::READ);
    let received = b.recv_batch(&mut plane.arena, &mut plane.incoming, BATCH).unwrap();
    assert_eq!((received.count, received.drained, plane.incoming.iter().len()), (0, false, 0));
    plane.arena.reset();
    assert_eq!(plane.receive_into_free_slots(&b, 2), 2);
    assert_eq!(plane.arena.free_slots(), 2);
    plane.nothing_to_receive(&b);
    assert_eq!(plane.arena.free_slots(), 2);
}

#[test]
fn a_batch_may_move_between_calls() {
    let (a, b) = (bind(ANY_PORT[0]), bind(ANY_PORT[1]));
    let mut planes: Vec<Plane> = (0..3).map(|_| Plane::new(8)).collect();
    planes.swap(0, 2);
    for (round, mut plane) in planes.into_iter().enumerate() {
        // One plane serves sockets of both families in turn.
        for socket in [&a, &b] {
            let to = socket.local_addr().unwrap();
            let text = [round as u8; 9];
            let message = Outgoing {
                header: Header::new(&[1]).unwrap(),
                ..Outgoing::new(to, body(&mut plane.arena, &text))
            };
            assert_eq!(plane.send(socket, &[message]), sent(1));
            let got = plane.receive(socket, 1);
            assert_eq!((got[0].0.from, &got[0].1[1..]), (to, &text[..]));
        }
    }
}

#[test]
fn a_wildcard_listener_answers_from_the_address_it_was_asked_at() {
    let asked: IpAddr = "127.0.0.2".parse().unwrap();
    let cases = [
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), asked),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    for ((wildcard, asked), any) in cases.into_iter().zip(ANY_PORT) {
        let options = UdpOptions { packet_info: true, ..UdpOptions::default() };
        let server = UdpSocket::bind(SocketAddr::new(wildcard, 0), &options).unwrap();
        let server_addr = SocketAddr::new(asked, server.local_addr().unwrap().port());
        let client = bind(any);
        let mut plane = Plane::new(64);
        let question = Outgoing::new(server_addr, body(&mut plane.arena, b"?"));
        assert_eq!(plane.send(&client, &[question]), sent(1));
        let (datagram, _) = plane.receive(&server, 1)[0];
        assert_eq!(datagram.local, Some(asked));

        let answer_body = body(&mut plane.arena, b"!");
        let answer = Outgoing { from: datagram.local, ..Outgoing::new(datagram.from, answer_body) };
        assert_eq!(plane.send(&server, &[answer, answer]), sent(2));
        for (datagram, bytes) in plane.receive(&client, 2) {
            assert_eq!((datagram.from, &bytes[..]), (server_addr, &b"!"[..]));
        }
    }
}

#[test]
fn the_tos_byte_is_carried_per_message() {
    for addr in ANY_PORT {
        let options = UdpOptions { recv_tos: true, packet_info: true, ..UdpOptions::default() };
        let b = UdpSocket::bind(addr, &options).unwrap();
        let a = bind(addr);
        let to = b.local_addr().unwrap();
        let mut plane = Plane::new(16);
        let plain = Outgoing::new(to, body(&mut plane.arena, b"x"));
        // Expedited forwarding, then none, then AF41 with ECT(0).
        let marks = [0xb8, 0, 0x8a];
        let messages = marks.map(|tos| Outgoing { tos, ..plain });
        assert_eq!(plane.send(&a, &messages), sent(3));
        let got = plane.receive(&b, 3);
        assert_eq!(got.iter().map(|(datagram, _)| datagram.tos).collect::<Vec<_>>(), marks);
        assert!(got.iter().all(|(datagram, _)| datagram.local == Some(to.ip())));
    }
}

#[test]
fn header_body_and_padding_lie_behind_one_another_on_the_wire() {
    let (a, b) = (bind(ANY_PORT[0]), bind(ANY_PORT[0]));
    let mut plane = Plane::new(16);
    let plain = Outgoing::new(b.local_addr().unwrap(), body(&mut plane.arena, b"body"));
    let header = Header::new(&[0x40, 0x01, 0, 4]).unwrap();
    let longest = Header::new(&[9; Header::CAPACITY]).unwrap();
    let empty = Body { end: plain.body.start, ..plain.body };
    let messages = [
        plain,
        Outgoing { header, ..plain },
        Outgoing { pad: 3, ..plain },
        Outgoing { header: longest, pad: 1, ..plain },
        Outgoing { body: empty, ..plain },
    ];
    let expected = [
        b"body".to_vec(),
        b"\x40\x01\x00\x04body".to_vec(),
        b"body\0\0\0".to_vec(),
        [&[9; Header::CAPACITY][..], b"body\0"].concat(),
        Vec::new(),
    ];
    assert_eq!(plane.send(&a, &messages), sent(messages.len()));
    let got: Vec<_> = plane.receive(&b, 5).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(got, expected);
    // One at a time: the call for one bare datagram, and the general one.
    for (message, bytes) in messages.iter().zip(&expected) {
        assert_eq!(plane.send(&a, &[*message]), sent(1));
        assert_eq!(&plane.receive(&b, 1)[0].1, bytes);
    }
}

#[test]
fn a_datagram_longer_than_the_room_is_marked() {
    let (a, b) = (bind(ANY_PORT[0]), bind(ANY_PORT[0]));
    let mut plane = Plane::new(16);
    plane.incoming = RecvBatch::with_room(4);
    let to = b.local_addr().unwrap();
    let long = Outgoing::new(to, body(&mut plane.arena, b"12345"));
    let fits = Outgoing::new(to, body(&mut plane.arena, b"1234"));
    assert_eq!(plane.send(&a, &[long, fits]), sent(2));
    let got = plane.receive(&b, 2);
    assert_eq!((got[0].0.truncated, &got[0].1[..]), (true, &b"1234"[..]));
    assert_eq!((got[1].0.truncated, &got[1].1[..]), (false, &b"1234"[..]));
}

#[test]
fn the_largest_datagram_fits_a_slot() {
    let options =
        UdpOptions { recv_buffer: Some(1 << 20), send_buffer: Some(1 << 20), ..Default::default() };
    let a = UdpSocket::bind(ANY_PORT[0], &options).unwrap();
    let b = UdpSocket::bind(ANY_PORT[0], &options).unwrap();
    let mut plane = Plane::new(4);
    let largest = body(&mut plane.arena, &[5; 65_507]);
    assert_eq!(plane.send(&a, &[Outgoing::new(b.local_addr().unwrap(), largest)]), sent(1));
    let (datagram, bytes) = &plane.receive(&b, 1)[0];
    assert!(!datagram.truncated);
    assert_eq!(bytes, &[5; 65_507]);
}

#[test]
fn a_closed_peer_is_reported_and_stops_nobody_else() {
    for (addr, (icmp_type, code)) in ANY_PORT.into_iter().zip([(3, 3), (1, 4)]) {
        let options = UdpOptions { recv_errors: true, ..UdpOptions::default() };
        let relay = UdpSocket::bind(addr, &options).unwrap();
        let peer = bind(addr);
        let closed = {
            let socket = bind(addr);
            socket.local_addr().unwrap()
        };
        let mut plane = Plane::new(64);
        let payload = body(&mut plane.arena, b"x");
        let to_closed = Outgoing::new(closed, payload);
        let to_peer = Outgoing::new(peer.local_addr().unwrap(), payload);
        assert_eq!(relay.recv_error().unwrap(), None);

        // Sending: each error hits the message behind it, which still goes out.
        let messages = [to_closed, to_peer, to_closed, to_peer, to_peer];
        assert_eq!(plane.send(&relay, &messages), sent(5));
        assert_eq!(plane.send(&relay, &[to_closed]), sent(1));
        assert_eq!(plane.send(&relay, &[to_peer]), sent(1));
        assert_eq!(plane.receive(&peer, 4).len(), 4);

        // Receiving: the error is pending and a datagram is there.
        assert_eq!(plane.send(&relay, &[to_closed]), sent(1));
        let back = Outgoing::new(relay.local_addr().unwrap(), payload);
        assert_eq!(plane.send(&peer, &[back]), sent(1));
        assert_eq!(plane.receive_beside_an_error(&relay), 1);

        let report = IcmpError {
            peer: closed,
            icmp_type,
            code,
            info: 0,
            errno: libc::ECONNREFUSED,
            local_origin: false,
        };
        for _ in 0..4 {
            assert!(wait_for(&relay, Interest::NONE).error);
            assert_eq!(relay.recv_error().unwrap(), Some(report));
        }
        assert_eq!(relay.recv_error().unwrap(), None);
        // With the queue drained the socket is quiet again.
        assert_eq!(plane.send(&relay, &[to_peer]), sent(1));
        plane.nothing_to_receive(&relay);
    }
}

#[test]
fn one_message_too_large_costs_itself_only() {
    for addr in ANY_PORT {
        let (a, b) = (bind(addr), bind(addr));
        let to = b.local_addr().unwrap();
        let mut plane = Plane::new(64);
        let small = Outgoing::new(to, body(&mut plane.arena, b"x"));
        let large = Outgoing { body: Body { start: 0, end: 65_536, ..small.body }, ..small };
        let report = plane.send(&a, &[large, small, large, large, small]);
        assert_eq!(report, SendReport { sent: 2, dropped_error: 3, ..Default::default() });
        let report = plane.send(&a, &[large]);
        assert_eq!(report, SendReport { dropped_error: 1, ..Default::default() });
        assert_eq!(plane.receive(&b, 2).len(), 2);
        plane.nothing_to_receive(&b);
    }
}

#[test]
fn a_destination_of_the_other_family_costs_itself_only() {
    let (a, b) = (bind(ANY_PORT[0]), bind(ANY_PORT[0]));
    let mut plane = Plane::new(16);
    let right = Outgoing::new(b.local_addr().unwrap(), body(&mut plane.arena, b"x"));
    let wrong = Outgoing { to: "[::1]:9".parse().unwrap(), ..right };
    let port_zero = Outgoing { to: "127.0.0.1:0".parse().unwrap(), ..right };
    let foreign = Outgoing { from: Some("192.0.2.1".parse().unwrap()), ..right };
    let report = plane.send(&a, &[wrong, right, port_zero, foreign, right]);
    assert_eq!(report, SendReport { sent: 2, dropped_error: 3, ..Default::default() });
    assert_eq!(plane.receive(&b, 2).len(), 2);
}

#[test]
fn asking_for_no_fragmentation_is_obeyed_message_by_message() {
    for addr in ANY_PORT {
        let (a, b) = (bind(addr), bind(addr));
        let names = IpFamily::of(&addr).options();
        let mode = || socket::option(a.as_fd(), names.level, names.mtu_discover).unwrap();
        let mut plane = Plane::new(64);
        let to = b.local_addr().unwrap();
        let short = Outgoing::new(to, body(&mut plane.arena, b"x"));
        let long = Outgoing::new(to, body(&mut plane.arena, &[0; 1_233]));
        let whole = |message| Outgoing { dont_fragment: true, ..message };
        assert_eq!(mode(), names.fragmentable);
        for (message, expected) in [
            (short, names.fragmentable),
            (whole(long), names.whole),
            (long, names.fragmentable),
            (whole(short), names.whole),
            (short, names.fragmentable),
        ] {
            assert_eq!(plane.send(&a, &[message]), sent(1));
            assert_eq!(mode(), expected);
        }
        assert_eq!(plane.send(&a, &[short, whole(long), long, whole(short), long]), sent(5));
        assert_eq!(mode(), names.fragmentable);
        assert_eq!(plane.receive(&b, 10).len(), 10);
    }
}

#[test]
fn a_second_holder_of_the_port_is_noticed_although_it_would_share() {
    for addr in ANY_PORT {
        let options = UdpOptions { reuse_port: true, ..UdpOptions::default() };
        let first = UdpSocket::bind(addr, &options).unwrap();
        let held = first.local_addr().unwrap();
        assert!(is_port_taken(held).unwrap());
        let second = UdpSocket::bind(held, &options).unwrap();
        drop(first);
        assert!(is_port_taken(held).unwrap());
        drop(second);
        assert!(!is_port_taken(held).unwrap());
        assert!(!is_port_taken(addr).unwrap(), "port 0");
    }
    let foreign = "192.0.2.1:0".parse().unwrap();
    assert_eq!(is_port_taken(foreign).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
}

#[test]
fn sockets_are_set_up_as_asked() {
    let size = 100_000;
    let options =
        UdpOptions { recv_buffer: Some(size), send_buffer: Some(size), ..UdpOptions::default() };
    for addr in ANY_PORT {
        let socket = UdpSocket::bind(addr, &options).unwrap();
        let (recv, send) = socket.buffer_sizes().unwrap();
        assert!(recv >= size && send >= size, "{recv} {send}");
        // SAFETY: the calls take no pointers.
        let (status, flags) = unsafe {
            let fd = socket.as_fd().as_raw_fd();
            (libc::fcntl(fd, libc::F_GETFL), libc::fcntl(fd, libc::F_GETFD))
        };
        assert!(status & libc::O_NONBLOCK != 0 && flags & libc::FD_CLOEXEC != 0);
    }
}
