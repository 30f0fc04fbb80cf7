//! EVEN-PORT and RESERVATION-TOKEN over all workers.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use sturn::client::{Allocate, Allocated};

use crate::setup::{DEADLINE, Peer, Server, Setup, relayed, wait_until};
use crate::support::driver::{Driver, Error};

/// Pairs of clients after which both cases must have come up; that four workers
/// leave one of them out has odds below 1 in 10,000.
const ROUNDS: usize = 40;

#[test]
fn the_owner_gets_the_port_on_whatever_worker_the_second_request_lands() {
    let server = Setup::new().set("workers.count", "4").start();
    let (mut same, mut other) = (0, 0);
    for round in 0..ROUNDS {
        let mut rtp = server.client(round);
        let mut rtcp = server.client(round / 2);
        let claimant = shard_of(&mut rtcp);
        let allocated = rtp.allocate(even_and_next()).unwrap();
        let even = relayed(&allocated);
        assert_eq!(even.port() % 2, 0);
        let token = allocated.reservation_token.unwrap();

        let odd = relayed(&claim(&mut rtcp, token).unwrap());
        assert_eq!(odd, SocketAddr::new(even.ip(), even.port() + 1));
        reaches_a_peer(&mut rtcp, odd);
        let again = claim(&mut server.udp(), token).unwrap_err();
        assert_eq!(again.code(), 508, "a token is good once");

        if shard(token) == claimant {
            same += 1
        } else {
            other += 1
        }
        for mut client in [rtp, rtcp] {
            client.refresh(Some(Duration::ZERO), None).unwrap();
        }
        if same > 2 && other > 2 {
            return;
        }
    }
    panic!("{same} rounds on one worker, {other} over two: not both cases");
}

#[test]
fn a_token_is_of_no_use_to_anybody_else() {
    let server = Setup::new().set("workers.count", "4").start();
    let mut alice = server.udp();
    let allocated = alice.allocate(even_and_next()).unwrap();
    let token = allocated.reservation_token.unwrap();
    for _ in 0..8 {
        let mut bob = Driver::udp(server.addr(), "bob", "builder");
        assert_eq!(claim(&mut bob, token).unwrap_err().code(), 508);
    }
    let odd = relayed(&claim(&mut server.udp(), token).unwrap());
    assert_eq!(odd.port(), relayed(&allocated).port() + 1);
    let unknown = claim(&mut server.udp(), [0xff; 8]).unwrap_err();
    assert_eq!(unknown.code(), 508);
}

#[test]
fn a_port_set_aside_is_nobody_elses() {
    let server = Setup::new().set("workers.count", "4").relay_ports(2).start();
    let mut rtp = server.udp();
    let allocated = rtp.allocate(even_and_next()).unwrap();
    let even = relayed(&allocated);
    let odd = SocketAddr::new(even.ip(), even.port() + 1);
    for _ in 0..8 {
        assert_eq!(server.udp().allocate(Allocate::default()).unwrap_err().code(), 508);
    }
    assert!(UdpSocket::bind(odd).is_err(), "nor that of another process");
    // Deleting the first does not touch the second.
    rtp.refresh(Some(Duration::ZERO), None).unwrap();
    wait_until("the even port is free", || UdpSocket::bind(even).is_ok());
    let mut rtcp = server.udp();
    assert_eq!(relayed(&claim(&mut rtcp, allocated.reservation_token.unwrap()).unwrap()), odd);
    rtcp.refresh(Some(Duration::ZERO), None).unwrap();
    wait_until("the odd port is free", || UdpSocket::bind(odd).is_ok());
}

#[test]
fn without_a_free_pair_there_is_no_reservation() {
    let server = Setup::new().relay_ports(2).start();
    let even = Allocate { even_port: Some(false), ..Allocate::default() };
    let mut client = server.udp();
    let allocated = client.allocate(even).unwrap();
    assert_eq!(relayed(&allocated).port() % 2, 0);
    assert_eq!(allocated.reservation_token, None);
    // The odd one alone is neither a pair nor even.
    assert_eq!(server.udp().allocate(even_and_next()).unwrap_err().code(), 508);
    let even = Allocate { even_port: Some(false), ..Allocate::default() };
    assert_eq!(server.udp().allocate(even).unwrap_err().code(), 508);
    server.udp().allocate(Allocate::default()).unwrap();
}

pub(crate) fn even_and_next() -> Allocate {
    Allocate { even_port: Some(true), ..Allocate::default() }
}

/// The worker that a client's five-tuple belongs to: its tokens name it.
pub(crate) fn shard_of(client: &mut Driver) -> u16 {
    let allocated = client.allocate(even_and_next()).unwrap();
    client.refresh(Some(Duration::ZERO), None).unwrap();
    let token = allocated.reservation_token.unwrap();
    // The reservation goes the way of every other.
    shard(token)
}

pub(crate) fn shard(token: [u8; 8]) -> u16 {
    u16::from_be_bytes([token[0], token[1]])
}

fn claim(client: &mut Driver, token: [u8; 8]) -> Result<Allocated, Error> {
    client.allocate(Allocate { reservation_token: Some(token), ..Allocate::default() })
}

#[track_caller]
fn reaches_a_peer(client: &mut Driver, relayed: SocketAddr) {
    let peer = Peer::like(relayed);
    client.create_permission(&[peer.addr()]).unwrap();
    client.send(peer.addr(), b"out").unwrap();
    assert_eq!(peer.receive(), (b"out".to_vec(), relayed));
    peer.send(relayed, b"back");
    assert_eq!(client.expect_data(DEADLINE).unwrap().data, b"back");
}

/// Which workers two clients are on decides a test: more of them until both cases
/// are there.
impl Server {
    /// Clients with an allocation, their relayed transport address and worker.
    pub(crate) fn spread(&self, count: usize) -> Vec<(Driver, SocketAddr, u16)> {
        (0..count)
            .map(|number| {
                let mut client = self.client(number);
                let allocated = client.allocate(even_and_next()).unwrap();
                let worker = shard(allocated.reservation_token.unwrap());
                (client, relayed(&allocated), worker)
            })
            .collect()
    }
}
