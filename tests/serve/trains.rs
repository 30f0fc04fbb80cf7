//! Datagrams that come in trains (UDP GSO on the other side) are relayed as if
//! they had come one by one.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use sturn::client::Allocate;

use crate::setup::{DEADLINE, Peer, Server, Setup, relayed};
use crate::support::driver::Driver;
use crate::sys;

/// Length of the datagrams of a train, and of all of it: ends that fit and ends
/// that do not, the longest train, datagrams larger than an Ethernet frame, one of
/// no bytes.
const TRAINS: [(usize, usize); 10] = [
    (160, 8 * 160),
    (1_200, 8 * 1_200),
    (160, 8 * 160 - 1),
    (160, 7 * 160 + 1),
    (5, 64 * 5),
    (1, 3),
    (900, 64 * 900),
    (1_473, 3 * 1_473),
    (9_000, 9_000),
    (100, 0),
];

/// ECN-capable, and a DSCP.
const MARK: u8 = 0x88 | 0b01;

#[test]
fn trains_are_relayed_like_single_datagrams() {
    for offload in ["true", "false"] {
        let server = Setup::new().tls().set("udp.offload", offload).start();
        for (way, mut client) in server.every_way() {
            let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
            let peer = Peer::v4();
            client.create_permission(&[peer.addr()]).unwrap();
            // By indication, then on a channel.
            for _ in 0..2 {
                down(way, &mut client, &peer, relayed);
                client.channel_bind(None, peer.addr()).unwrap();
            }
        }
        up(&server);
    }
}

/// From a peer that sends trains to a client that gets them one by one.
fn down(way: &str, client: &mut Driver, peer: &Peer, relayed: SocketAddr) {
    for (segment, total) in TRAINS {
        for mark in [0, MARK] {
            sys::set_tos(peer.socket().as_raw_fd(), false, mark);
            let bytes = numbered(total);
            send_train(peer.socket(), relayed, &bytes, segment);
            for (nth, expected) in datagrams(&bytes, segment).enumerate() {
                let got = client.expect_data(DEADLINE).unwrap();
                assert_eq!(got.peer, peer.addr(), "{way}");
                assert_eq!(got.data, expected, "{way}: {segment} of {total}, the {nth}th");
            }
        }
    }
    sys::set_tos(peer.socket().as_raw_fd(), false, 0);
}

/// From a client that sends trains of ChannelData to two peers in turns.
fn up(server: &Server) {
    let mut client = server.udp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peers = [Peer::v4(), Peer::v4()];
    let channels = [0, 1].map(|i: usize| client.channel_bind(None, peers[i].addr()).unwrap());
    let socket = client.udp_socket().expect("over UDP").try_clone().unwrap();
    for length in [0, 1, 3, 160, 1_200] {
        for both in [false, true] {
            for mark in [0, MARK] {
                sys::set_tos(socket.as_raw_fd(), false, mark);
                let mut train = Vec::new();
                let mut expected = [Vec::new(), Vec::new()];
                for nth in 0..40_u8 {
                    let to = usize::from(both && nth % 3 == 0);
                    let data = vec![nth; length];
                    train.extend(channels[to].to_be_bytes());
                    train.extend((length as u16).to_be_bytes());
                    train.extend(&data);
                    expected[to].push(data);
                }
                send_train(&socket, server.addr(), &train, 4 + length);
                for (peer, expected) in peers.iter().zip(&expected) {
                    for data in expected {
                        let (got, tos) = sys::receive_with_tos(peer.socket(), false);
                        assert_eq!((&got, tos), (data, mark), "{length} bytes, both: {both}");
                    }
                }
            }
        }
    }
    assert!(peers.iter().all(|peer| !peer.has_received()), "{relayed}");
}

#[test]
fn every_request_of_a_train_is_answered() {
    const REQUESTS: u8 = 64;
    let server = Setup::new().start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    // Binding requests without attributes (RFC 8489 section 5).
    let request = |nth: u8| [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[nth; 12]].concat();
    let train: Vec<u8> = (0..REQUESTS).flat_map(request).collect();
    send_train(&socket, server.addr(), &train, request(0).len());
    for nth in 0..REQUESTS {
        let mut buffer = [0; 1_500];
        let length = socket.recv(&mut buffer).expect("an answer within the deadline");
        assert_eq!(buffer[..2], [1, 1], "a success response of {length} bytes");
        assert_eq!(buffer[8..20], [nth; 12]);
    }
}

/// Bytes that differ from their neighbours.
fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// The datagrams of a train; one of no bytes is one.
fn datagrams(bytes: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    let empty = bytes.is_empty().then_some(bytes);
    bytes.chunks(segment).chain(empty)
}

/// Sends a train with one call, which the kernel hands to the server as one; what
/// it would not cut goes one by one.
fn send_train(socket: &UdpSocket, to: SocketAddr, bytes: &[u8], segment: usize) {
    // Datagrams that have to be fragmented are not cut.
    let cut = bytes.len() > segment && segment <= 1_472;
    sys::set_segment(socket.as_raw_fd(), if cut { segment as u16 } else { 0 });
    let parts: Vec<&[u8]> = if cut { vec![bytes] } else { datagrams(bytes, segment).collect() };
    for part in parts {
        assert_eq!(socket.send_to(part, to).unwrap(), part.len());
    }
    sys::set_segment(socket.as_raw_fd(), 0);
}
