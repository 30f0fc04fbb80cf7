//! Trains: what is sent as one arrives as if sent one by one.

use super::*;

const OFFLOAD: UdpOptions = UdpOptions {
    offload: true,
    recv_tos: true,
    packet_info: true,
    reuse_port: false,
    recv_buffer: Some(1 << 22),
    send_buffer: Some(1 << 22),
    recv_errors: false,
};

/// A datagram as the one who receives it sees it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    bytes: Vec<u8>,
    from: SocketAddr,
    local: Option<IpAddr>,
    tos: u8,
}

fn socket(addr: SocketAddr, offload: bool) -> UdpSocket {
    UdpSocket::bind(addr, &UdpOptions { offload, ..OFFLOAD }).unwrap()
}

/// The messages of a chatty peer: trains, odd ends, empty and large datagrams,
/// marks, headers and padding.
fn chatter(plane: &mut Plane, to: SocketAddr) -> Vec<Outgoing> {
    let lengths = [
        vec![160; 70],
        vec![160, 160, 40, 160, 161, 160],
        vec![0, 0, 1, 1, 0, 1_200],
        vec![1_200; 60],
        vec![1_472, 1_472, 1_473, 1_473, 9_000, 60_000, 3],
    ];
    let mut messages = Vec::new();
    for (nth, len) in lengths.into_iter().flatten().enumerate() {
        let bytes: Vec<u8> = (0..len).map(|at| (at + nth) as u8).collect();
        let mut message = Outgoing::new(to, body(&mut plane.arena, &bytes));
        if nth % 50 >= 40 {
            message.tos = 2 + (nth % 2) as u8;
        }
        if nth / 10 % 2 == 1 {
            message.header = Header::new(&(nth as u32).to_be_bytes()).unwrap();
        }
        if nth % 20 == 7 {
            message.pad = 3;
        }
        messages.push(message);
    }
    messages
}

/// Sends in portions that the receiver's buffer holds, and returns what came.
fn exchange(a: &UdpSocket, b: &UdpSocket, portion: usize) -> (Vec<Seen>, usize) {
    let mut plane = Plane::new(512);
    let messages = chatter(&mut plane, b.local_addr().unwrap());
    let order: Vec<u32> = (0..messages.len() as u32).collect();
    let (mut seen, mut trains) = (Vec::new(), 0);
    for order in order.chunks(portion) {
        let report = a.send_batch(&mut plane.outgoing, &plane.arena, &messages, order);
        assert_eq!(report, sent(order.len()));
        let target = seen.len() + order.len();
        while seen.len() < target {
            wait_for(b, Interest::READ);
            let mut arena = Arena::new(BATCH).unwrap();
            let received = b.recv_batch(&mut arena, &mut plane.incoming, BATCH).unwrap();
            trains += received.count;
            for train in plane.incoming.iter() {
                assert!(!train.truncated);
                let (from, local, tos) = (train.from, train.local, train.tos);
                seen.extend(train.datagrams().map(|datagram| {
                    let bytes = arena.bytes(train.slot)[datagram].to_vec();
                    Seen { bytes, from, local, tos }
                }));
            }
        }
    }
    plane.arena.reset();
    plane.nothing_to_receive(b);
    (seen, trains)
}

#[test]
fn trains_arrive_as_what_was_sent_one_by_one() {
    for addr in ANY_PORT {
        let reference = {
            let (a, b) = (socket(addr, false), socket(addr, false));
            let (seen, trains) = exchange(&a, &b, 1);
            assert_eq!(trains, seen.len());
            (seen, a.local_addr().unwrap())
        };
        for (sender, receiver) in [(true, false), (false, true), (true, true)] {
            for portion in [1, 8, 64, 150] {
                let (a, b) = (socket(addr, sender), socket(addr, receiver));
                let (mut seen, trains) = exchange(&a, &b, portion);
                for seen in &mut seen {
                    assert_eq!(seen.from, a.local_addr().unwrap());
                    seen.from = reference.1;
                }
                assert_eq!(seen, reference.0, "{sender} {receiver} {portion}");
                assert_eq!(a.segment_max.get() > 0, sender, "no train is refused for good");
                if sender && receiver && portion == 150 {
                    assert!(trains < seen.len() / 2, "{trains} trains of {}", seen.len());
                }
            }
        }
    }
}

#[test]
fn a_train_ends_at_a_shorter_datagram_another_destination_or_mark() {
    let mut plane = Plane::new(16);
    let [x, y] = [9, 10].map(|port| SocketAddr::new(ANY_PORT[0].ip(), port));
    let long = Outgoing::new(x, body(&mut plane.arena, &[0; 100]));
    let short = Outgoing::new(x, body(&mut plane.arena, &[0; 99]));
    let empty = Outgoing::new(x, body(&mut plane.arena, b""));
    let large = Outgoing::new(x, body(&mut plane.arena, &[0; 1_473]));
    let marked = Outgoing { tos: 1, ..long };
    let messages = [long, short, empty, large, marked, Outgoing { to: y, ..long }];
    let len = |order: &[u32]| super::super::send::train_len(&messages, order, 1_472);
    assert_eq!(len(&[0, 0, 0]), 3);
    assert_eq!(len(&[0, 0, 1, 0]), 3, "the last may be shorter");
    assert_eq!(len(&[1, 0]), 1, "but not longer");
    assert_eq!(len(&[0, 2]), 1);
    assert_eq!(len(&[2, 2]), 1);
    assert_eq!(len(&[3, 3]), 1);
    assert_eq!(len(&[0, 4]), 1);
    assert_eq!(len(&[4, 4, 0]), 2);
    assert_eq!(len(&[0, 5]), 1);
    assert_eq!(len(&[0; 65]), 64);
}

#[test]
fn a_refused_train_is_sent_in_single_datagrams() {
    let (a, b) = (socket(ANY_PORT[0], true), bind(ANY_PORT[0]));
    let mut plane = Plane::new(16);
    let to = b.local_addr().unwrap();
    let fine = Outgoing::new(to, body(&mut plane.arena, b"abcd"));
    let port_zero = Outgoing { to: SocketAddr::new(to.ip(), 0), ..fine };
    let foreign = Outgoing { from: Some("192.0.2.1".parse().unwrap()), ..fine };
    let messages = [fine, fine, port_zero, port_zero, fine, foreign, foreign, fine];
    let report = plane.send(&a, &messages);
    assert_eq!(report, SendReport { sent: 4, dropped_error: 4, ..Default::default() });
    assert_eq!(plane.receive(&b, 4).len(), 4);
    assert_eq!(a.segment_max.get(), 1_472, "it was not for being trains");
}

#[test]
fn a_train_to_a_closed_port_stops_no_other() {
    for addr in ANY_PORT {
        let options = UdpOptions { recv_errors: true, ..OFFLOAD };
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
        let messages = [to_closed, to_closed, to_peer, to_peer, to_closed, to_closed, to_peer];
        assert_eq!(plane.send(&relay, &messages), sent(7));
        assert_eq!(plane.receive(&peer, 3).len(), 3);
        assert!(relay.segment_max.get() > 0);
    }
}

#[test]
fn a_narrow_device_ends_trains_of_long_datagrams_only() {
    // SAFETY: no memory is passed. It moves this thread alone, which is the test's own.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return; // Without the right to do so; CI has it.
    }
    let ip = |words: &[&str]| {
        assert!(std::process::Command::new("ip").args(words).status().unwrap().success());
    };
    ip(&["link", "set", "lo", "up", "mtu", "1400"]);
    let (a, b) = (socket(ANY_PORT[0], true), socket(ANY_PORT[0], true));
    let mut plane = Plane::new(64);
    let to = b.local_addr().unwrap();
    let long = Outgoing::new(to, body(&mut plane.arena, &[1; 1_390]));
    let fits = Outgoing::new(to, body(&mut plane.arena, &[2; 1_372]));
    // What exceeds the MTU arrives in fragments, the messages around it as they were.
    assert_eq!(plane.send(&a, &[fits, fits, long, long, long, fits]), sent(6));
    let lengths = |plane: &mut Plane, count: usize| {
        let (mut lengths, mut trains) = (Vec::new(), 0);
        while lengths.len() < count {
            wait_for(&b, Interest::READ);
            plane.arena.reset();
            b.recv_batch(&mut plane.arena, &mut plane.incoming, BATCH).unwrap();
            trains += plane.incoming.iter().len();
            let all = plane.incoming.iter().flat_map(|train| train.datagrams());
            lengths.extend(all.map(|datagram| datagram.len()));
        }
        (lengths, trains)
    };
    assert_eq!(lengths(&mut plane, 6).0, [1_372, 1_372, 1_390, 1_390, 1_390, 1_372]);
    assert_eq!(a.segment_max.get(), 1_389, "it knows better now");
    plane.arena.reset();
    let fits = Outgoing::new(to, body(&mut plane.arena, &[3; 1_372]));
    assert_eq!(plane.send(&a, &[fits; 5]), sent(5));
    assert_eq!(lengths(&mut plane, 5), (vec![1_372; 5], 1), "and shorter ones are a train");
}
