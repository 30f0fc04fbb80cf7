//! The TURN client of webrtc-rs, a codec and a state machine that share nothing
//! with this server: it allocates, and exchanges data with a peer both ways.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use support::server::Sturn;

/// How long anything may take before the test has failed.
const DEADLINE: Duration = Duration::from_secs(10);

const CONFIG: &str = r#"
listen.udp = ["127.0.0.1:@port@"]
listen.tcp = []
relay.addresses = ["127.0.0.1"]
auth.realm = "example.org"
auth.users = [{ name = "alice", password = "wonderland" }]
peers.allow = ["127.0.0.0/8"]
workers.count = 2
"#;

#[tokio::test]
async fn data_goes_both_ways() {
    let sturn = Sturn::start(CONFIG);
    let client = client(sturn.addr(), "wonderland").await;
    let relay = timeout(DEADLINE, client.allocate()).await.unwrap().unwrap();
    let relayed = relay.local_addr().unwrap();
    assert_eq!(relayed.ip().to_string(), "127.0.0.1");

    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer_address = peer.local_addr().unwrap();
    // The first packets go as Send indications, later ones as ChannelData: this
    // client binds a channel by itself as soon as it has sent to a peer.
    for round in 0..20_u8 {
        let ping = vec![round; 1 + 50 * usize::from(round)];
        timeout(DEADLINE, relay.send_to(&ping, peer_address)).await.unwrap().unwrap();
        let (data, from) = receive(&peer).await;
        assert_eq!((data, from), (ping, relayed));

        let pong = vec![!round; 1000 - 50 * usize::from(round)];
        peer.send_to(&pong, relayed).await.unwrap();
        let mut buffer = vec![0; 2000];
        let (length, from) =
            timeout(DEADLINE, relay.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!((&buffer[..length], from), (&pong[..], peer_address));
    }
    client.close().await.unwrap();
}

#[tokio::test]
async fn it_learns_its_reflexive_address() {
    let sturn = Sturn::start(CONFIG);
    let client = client(sturn.addr(), "wonderland").await;
    let reflexive = timeout(DEADLINE, client.send_binding_request()).await.unwrap().unwrap();
    assert_eq!(reflexive.ip().to_string(), "127.0.0.1");
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_gets_no_relay() {
    let sturn = Sturn::start(CONFIG);
    let client = client(sturn.addr(), "looking-glass").await;
    let refused = timeout(DEADLINE, client.allocate()).await.unwrap();
    let Err(error) = refused else { panic!("an allocation for a wrong password") };
    assert!(error.to_string().contains("401"), "{error}");
    client.close().await.unwrap();
}

async fn client(server: SocketAddr, password: &str) -> Client {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = ClientConfig {
        stun_serv_addr: server.to_string(),
        turn_serv_addr: server.to_string(),
        username: "alice".to_owned(),
        password: password.to_owned(),
        realm: String::new(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(socket),
        vnet: None,
    };
    let client = Client::new(config).await.unwrap();
    client.listen().await.unwrap();
    client
}

async fn receive(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 2000];
    let (length, from) = timeout(DEADLINE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    (buffer, from)
}
