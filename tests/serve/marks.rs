//! What packets carry besides their bytes: DSCP and ECN, and DONT-FRAGMENT.

use std::os::fd::AsRawFd;
use std::process::Command;

use sturn::client::Allocate;
use sturn::net::Family;

use crate::setup::{Peer, Server, Setup, relayed, skip};
use crate::support::driver::Driver;
use crate::sys;

/// Expedited forwarding, and ECN-capable.
const MARK: u8 = 0xb8 | 0b10;

#[test]
fn dscp_and_ecn_pass_both_ways() {
    let server = Setup::new().start();
    for family in [Family::V4, Family::V6] {
        let v6 = family == Family::V6;
        let to = if v6 { server.addr_v6() } else { server.addr() };
        let mut client = Driver::udp(to, "alice", "wonderland");
        let wanted = Allocate { family: Some(family), ..Allocate::default() };
        let relayed = relayed(&client.allocate(wanted).unwrap());
        let peer = Peer::like(relayed);
        client.create_permission(&[peer.addr()]).unwrap();
        let socket = client.udp_socket().expect("over UDP").try_clone().unwrap();
        socket.set_read_timeout(Some(crate::setup::DEADLINE)).unwrap();
        // By indication, then on a channel.
        for _ in 0..2 {
            for mark in [MARK, 0] {
                sys::set_tos(socket.as_raw_fd(), v6, mark);
                client.send(peer.addr(), b"marked").unwrap();
                let got = sys::receive_with_tos(peer.socket(), v6);
                assert_eq!(got, (b"marked".to_vec(), mark), "{family} to the peer");

                sys::set_tos(peer.socket().as_raw_fd(), v6, mark);
                peer.send(relayed, b"marked");
                let (frame, got) = sys::receive_with_tos(&socket, v6);
                assert!(frame.windows(6).any(|bytes| bytes == b"marked"));
                assert_eq!(got, mark, "{family} to the client");
            }
            sys::set_tos(socket.as_raw_fd(), v6, 0);
            client.channel_bind(None, peer.addr()).unwrap();
        }
    }
}

#[test]
fn dont_fragment_is_obeyed() {
    if !sys::enter_network_namespace() {
        return skip("dont_fragment_is_obeyed", "a network namespace needs root");
    }
    // What does not fit leaves in fragments, or not at all.
    let mtu = Command::new("ip").args(["link", "set", "lo", "mtu", "1500"]).status();
    assert!(mtu.is_ok_and(|status| status.success()));
    let mut server = Setup::new().start();
    for family in [Family::V4, Family::V6] {
        dont_fragment(&server, family);
    }
    let totals = server.stop();
    assert_eq!(crate::setup::number(&totals, "lost_send_refused"), 2, "{totals}");
}

fn dont_fragment(server: &Server, family: Family) {
    let mut client = server.tcp();
    let wanted = Allocate { family: Some(family), dont_fragment: true, ..Allocate::default() };
    let relayed = relayed(&client.allocate(wanted).unwrap());
    let peer = Peer::like(relayed);
    client.create_permission(&[peer.addr()]).unwrap();
    let mut send = |length: usize, dont_fragment: bool| {
        client.client().send(peer.addr(), &vec![0; length], dont_fragment);
        client.flush().unwrap();
    };
    send(1000, true);
    assert_eq!(peer.receive().0.len(), 1000, "{family}: it fits");
    send(3000, false);
    assert_eq!(peer.receive().0.len(), 3000, "{family}: in fragments");
    send(3001, true);
    send(3002, false);
    assert_eq!(peer.receive().0.len(), 3002, "{family}: the one before may not be fragmented");
}

#[test]
fn datagrams_leave_in_fragments_where_the_way_is_narrower() {
    const NAME: &str = "datagrams_leave_in_fragments_where_the_way_is_narrower";
    if !sys::enter_network_namespace() {
        return skip(NAME, "a network namespace needs root");
    }
    let only_v4 = r#"["127.0.0.1:@port@"]"#;
    let setup = Setup::new()
        .set("listen.udp", only_v4)
        .set("listen.tcp", only_v4)
        .set("relay.addresses", r#"["127.0.0.1"]"#);
    // Too narrow for IPv6, and for trains of most datagrams.
    let mtu = Command::new("ip").args(["link", "set", "lo", "mtu", "900"]).status();
    assert!(mtu.is_ok_and(|status| status.success()));
    let mut server = setup.start();
    let mut client = server.udp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peer = Peer::v4();
    client.channel_bind(None, peer.addr()).unwrap();
    // Alone and as trains.
    for count in [1, 5] {
        for length in [600, 871, 872, 873, 1_200, 1_500] {
            for nth in 0..count {
                client.client().send(peer.addr(), &vec![nth; length], false);
            }
            client.flush().unwrap();
            for nth in 0..count {
                assert_eq!(peer.receive().0, vec![nth; length]);
            }
            (0..count).for_each(|nth| peer.send(relayed, &vec![nth; length]));
            for nth in 0..count {
                let got = client.expect_data(crate::setup::DEADLINE).unwrap();
                assert_eq!(got.data, vec![nth; length]);
            }
        }
    }
    let totals = server.stop();
    assert_eq!(crate::setup::number(&totals, "lost_send_refused"), 0, "{totals}");
}
