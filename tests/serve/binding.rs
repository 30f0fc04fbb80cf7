//! Binding: every transport and family, and from listeners on every address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use sturn::client::Allocate;

use crate::setup::{DEADLINE, Peer, Setup, relayed};
use crate::support::driver::Driver;

#[test]
fn every_transport_and_family_learns_its_reflexive_address() {
    let server = Setup::new().tls().start();
    for (way, mut client) in server.every_way() {
        assert_eq!(client.binding().unwrap(), client.local_addr(), "{way}");
    }
}

#[test]
fn a_listener_on_every_address_answers_from_the_one_that_was_asked() {
    let server = Setup::new()
        .set("listen.udp", r#"["0.0.0.0:@port@"]"#)
        .set("listen.tcp", r#"["0.0.0.0:@port@"]"#)
        .start();
    let second = SocketAddr::new(IpAddr::from([127, 0, 0, 2]), server.addr().port());

    // Not connected: the kernel lets answers from any address pass.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send_to(&binding_request(7), second).unwrap();
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, second);
    assert_eq!((&buffer[..2], &buffer[8..20]), (&[1, 1][..], &[7; 12][..]));
    assert!(length > 20);

    for mut client in
        [Driver::udp(second, "alice", "wonderland"), Driver::tcp(second, "alice", "wonderland")]
    {
        assert_eq!(client.binding().unwrap(), client.local_addr());
    }
}

#[test]
fn everything_for_a_client_comes_from_the_address_it_asked() {
    let server =
        Setup::new().set("listen.udp", r#"["0.0.0.0:@port@"]"#).set("listen.tcp", "[]").start();
    let second = SocketAddr::new(IpAddr::from([127, 0, 0, 2]), server.addr().port());
    // Connected to 127.0.0.2: what comes from elsewhere never arrives.
    let mut client = Driver::udp(second, "alice", "wonderland");
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let peer = Peer::v4();
    client.create_permission(&[peer.addr()]).unwrap();
    peer.send(relayed, b"as an indication");
    assert_eq!(client.expect_data(DEADLINE).unwrap().data, b"as an indication");
    client.channel_bind(None, peer.addr()).unwrap();
    peer.send(relayed, b"as ChannelData");
    assert_eq!(client.expect_data(DEADLINE).unwrap().data, b"as ChannelData");
}

#[test]
fn ipv6_listeners_on_every_address_answer() {
    let server = Setup::new()
        .set("listen.udp", r#"["127.0.0.1:@port@", "[::]:@port6@"]"#)
        .set("listen.tcp", r#"["[::]:@port6@"]"#)
        .start();
    for mut client in [Driver::udp(server.addr_v6(), "", ""), Driver::tcp(server.addr_v6(), "", "")]
    {
        assert_eq!(client.binding().unwrap(), client.local_addr());
    }
}

#[test]
fn without_authentication_it_is_a_stun_server_only() {
    let server = Setup::new()
        .set("auth.mode", r#""none""#)
        .unset("auth.realm")
        .unset("auth.users")
        .tls()
        .start();
    for (way, mut client) in server.every_way() {
        assert_eq!(client.binding().unwrap(), client.local_addr(), "{way}");
        let refused = client.allocate(Allocate::default()).unwrap_err();
        assert_eq!(refused.code(), 403, "{way}");
    }
}

/// A Binding request without attributes.
pub(crate) fn binding_request(transaction: u8) -> [u8; 20] {
    let mut request = [transaction; 20];
    request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
    request
}
