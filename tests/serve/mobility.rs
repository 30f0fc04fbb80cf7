//! Allocations that follow their clients (RFC 8016), over sockets of the kernel and
//! over all workers.

use std::net::{SocketAddr, UdpSocket};

use sturn::client::Attribute;
use sturn::client::RawAttribute;

use crate::setup::{DEADLINE, Peer, Setup, wait_until};
use crate::support::driver::{Driver, Error};

const ALLOCATE: u16 = 0x003;
const REFRESH: u16 = 0x004;
const LIFETIME: u16 = 0x000D;
const RELAYED: u16 = 0x0016;
const TRANSPORT: u16 = 0x0019;
const TICKET: u16 = 0x8030;

/// So many that some are between two of four workers, and some within one (odds
/// below 1 in 10,000 that it is not so).
const MOVES: usize = 32;

#[test]
fn an_allocation_follows_its_client_over_transports_and_workers() {
    let mut server = Setup::new().set("workers.count", "4").set("turn.mobility", "true").start();
    let peer = Peer::v4();
    let mut home = server.udp();
    let (relayed, mut ticket) = allocate(&mut home);
    home.create_permission(&[peer.addr()]).unwrap();
    hears(&mut home, &peer, relayed, b"at home");
    for number in 0..MOVES {
        let mut next = if number % 3 == 2 { server.tcp() } else { server.udp() };
        let shown = show(&mut next, &ticket).unwrap();
        assert_ne!(shown, ticket);
        hears(&mut home, &peer, relayed, b"still at home");
        arrives(&mut next, &peer, relayed);
        hears(&mut next, &peer, relayed, b"moved");
        assert_eq!(show(&mut server.udp(), &ticket).unwrap_err().code() / 100, 4, "used up");
        (home, ticket) = (next, shown);
    }
    let zero = Attribute::Raw(LIFETIME, vec![0; 4]);
    home.request_raw(REFRESH, vec![zero]).unwrap();
    wait_until("the relay port is free", || UdpSocket::bind(relayed).is_ok());
    server.process().expect_line("allocation moved", DEADLINE);
}

#[test]
fn a_client_that_has_lost_its_connection_comes_back() {
    let server = Setup::new().set("workers.count", "4").set("turn.mobility", "true").start();
    let peer = Peer::v4();
    let mut home = server.tcp();
    let (relayed, mut ticket) = allocate(&mut home);
    home.create_permission(&[peer.addr()]).unwrap();
    for _ in 0..8 {
        drop(home);
        let mut next = server.tcp();
        ticket = show(&mut next, &ticket).unwrap();
        arrives(&mut next, &peer, relayed);
        hears(&mut next, &peer, relayed, b"back again");
        home = next;
    }
}

#[test]
fn off_unless_the_configuration_says_so() {
    let server = Setup::new().start();
    let refused = server.udp().request_raw(ALLOCATE, wanted()).unwrap_err();
    assert_eq!(refused.code(), 405);
}

fn wanted() -> Vec<Attribute> {
    vec![Attribute::Raw(TRANSPORT, vec![17, 0, 0, 0]), Attribute::Raw(TICKET, Vec::new())]
}

/// The relayed transport address and the ticket of a new allocation.
#[track_caller]
fn allocate(client: &mut Driver) -> (SocketAddr, Vec<u8>) {
    let answer = client.request_raw(ALLOCATE, wanted()).unwrap();
    let relayed = value(&answer, RELAYED);
    let port = u16::from_be_bytes([relayed[2], relayed[3]]) ^ 0x2112;
    let ip = [relayed[4] ^ 0x21, relayed[5] ^ 0x12, relayed[6] ^ 0xa4, relayed[7] ^ 0x42];
    (SocketAddr::from((ip, port)), value(&answer, TICKET))
}

/// A Refresh with a ticket: the next ticket.
fn show(client: &mut Driver, ticket: &[u8]) -> Result<Vec<u8>, Error> {
    let answer = client.request_raw(REFRESH, vec![Attribute::Raw(TICKET, ticket.to_vec())])?;
    Ok(value(&answer, TICKET))
}

#[track_caller]
fn value(answer: &[RawAttribute], kind: u16) -> Vec<u8> {
    let found = answer.iter().find(|attribute| attribute.0 == kind);
    found.unwrap_or_else(|| panic!("no {kind:#x} in {answer:?}")).1.clone()
}

/// The client sends until the peer hears it: what comes first to another worker
/// makes the allocation come, and is lost.
#[track_caller]
fn arrives(client: &mut Driver, peer: &Peer, relayed: SocketAddr) {
    // What an earlier client has sent may still come.
    let data = client.local_addr().to_string();
    wait_until("the allocation is where its client is", || {
        client.send(peer.addr(), data.as_bytes()).unwrap();
        while peer.has_received() {
            let (heard, from) = peer.receive();
            assert_eq!(from, relayed);
            if heard == data.as_bytes() {
                return true;
            }
        }
        false
    });
}

/// What the peer sends comes to this client.
#[track_caller]
fn hears(client: &mut Driver, peer: &Peer, relayed: SocketAddr, data: &[u8]) {
    peer.send(relayed, data);
    assert_eq!(client.expect_data(DEADLINE).unwrap().data, data);
}
