//! Allocations of one server talk to each other: of one worker and of two, also
//! where the address that clients are told leads nowhere from here.

use std::net::SocketAddr;

use sturn::client::Allocate;
use sturn::net::Family;

use crate::setup::{DEADLINE, Peer, Server, Setup};
use crate::support::driver::{Driver, Received};

/// So many that two of them share one of four workers, and that not all of them
/// do (odds 1 in 10^9).
const CLIENTS: usize = 16;
/// Pairs of each kind that are tried.
const PAIRS: usize = 5;

const SIZES: [usize; 5] = [0, 1, 1200, 9000, 60_000];

#[test]
fn allocations_of_one_worker_and_of_two_talk() {
    let server = Setup::new().set("workers.count", "4").start();
    let relay = server.relay_v4();
    talk(&server, |address| assert_eq!(address.ip(), relay));
}

#[test]
fn they_talk_by_an_advertised_address_that_does_not_lead_back() {
    let server = Setup::new().set("workers.count", "4").advertise("203.0.113.9").start();
    talk(&server, |address| assert_eq!(address.ip().to_string(), "203.0.113.9"));
}

#[test]
fn an_advertised_address_needs_no_leave_and_gives_none_to_other_ports() {
    let server = Setup::new().unset("peers.allow").advertise("203.0.113.9").start();
    let (mut one, mut two) = (server.udp(), server.tcp());
    let first = one.allocate(Allocate::default()).unwrap().relayed[0];
    let second = two.allocate(Allocate::default()).unwrap().relayed[0];
    one.channel_bind(None, second).unwrap();
    two.create_permission(&[first]).unwrap();
    one.send(second, b"hello").unwrap();
    assert_eq!(two.expect_data(DEADLINE).unwrap().peer, first);
    let listener = SocketAddr::new(second.ip(), server.addr().port());
    assert_eq!(one.channel_bind(None, listener).unwrap_err().code(), 403);
}

#[test]
fn they_talk_over_ipv6() {
    let server = Setup::new().set("workers.count", "4").start();
    let wanted = || Allocate { family: Some(Family::V6), ..Allocate::default() };
    let mut clients: Vec<(Driver, SocketAddr)> = (0..8)
        .map(|number| {
            let mut client = server.client(number);
            let relayed = client.allocate(wanted()).unwrap().relayed[0];
            assert!(relayed.is_ipv6());
            (client, relayed)
        })
        .collect();
    for i in 1..clients.len() {
        let (before, after) = clients.split_at_mut(i);
        pair(&mut before[i - 1], &mut after[0]);
    }
}

#[test]
fn only_with_permission_of_both() {
    let server = Setup::new().set("workers.count", "4").start();
    let mut clients = server.spread(CLIENTS);
    let (same, other) = pairs(&clients);
    let first = same[0];
    // Permissions are for addresses, and all relays here have one: clients that
    // have given none yet.
    let untouched = |&&(i, j): &&Pair| ![i, j].iter().any(|x| [first.0, first.1].contains(x));
    let second = *other.iter().find(untouched).unwrap();
    for (i, j) in [first, second] {
        let (one, two) = two_of(&mut clients, i, j);
        let witness = Peer::v4();
        one.0.create_permission(&[two.1, witness.addr()]).unwrap();
        one.0.send(two.1, b"not yet").unwrap();
        // Behind it through the same relay socket, then behind it at the other worker.
        one.0.send(witness.addr(), b"not yet").unwrap();
        witness.receive();
        two.0.binding().unwrap();
        two.0.create_permission(&[one.1]).unwrap();
        one.0.send(two.1, b"now").unwrap();
        assert_eq!(two.0.expect_data(DEADLINE).unwrap().data, b"now");
    }
}

/// Several pairs on one worker and several over two.
fn talk(server: &Server, check: impl Fn(SocketAddr)) {
    let mut clients = server.spread(CLIENTS);
    clients.iter().for_each(|(_, relayed, _)| check(*relayed));
    let (same, other) = pairs(&clients);
    assert!(!same.is_empty() && !other.is_empty(), "workers {:?}", workers(&clients));
    for (i, j) in same.into_iter().take(PAIRS).chain(other.into_iter().take(PAIRS)) {
        let (one, two) = two_of(&mut clients, i, j);
        let (mut a, mut b) = ((&mut one.0, one.1), (&mut two.0, two.1));
        both_ways(&mut a, &mut b);
    }
}

/// A client, its relayed transport address and its worker.
type Placed = (Driver, SocketAddr, u16);

/// Indexes of two clients, the lower one first.
type Pair = (usize, usize);

fn workers(clients: &[Placed]) -> Vec<u16> {
    clients.iter().map(|(_, _, worker)| *worker).collect()
}

/// Pairs of clients on one worker, and over two; each client in few of them.
fn pairs(clients: &[Placed]) -> (Vec<Pair>, Vec<Pair>) {
    let workers = workers(clients);
    let all = (1..workers.len()).flat_map(|d| (d..workers.len()).map(move |j| (j - d, j)));
    all.partition(|&(i, j)| workers[i] == workers[j])
}

fn two_of(clients: &mut [Placed], i: usize, j: usize) -> (&mut Placed, &mut Placed) {
    let (before, after) = clients.split_at_mut(j);
    (&mut before[i], &mut after[0])
}

fn pair(one: &mut (Driver, SocketAddr), two: &mut (Driver, SocketAddr)) {
    both_ways(&mut (&mut one.0, one.1), &mut (&mut two.0, two.1));
}

/// By indications, then on channels, every size.
fn both_ways(one: &mut (&mut Driver, SocketAddr), two: &mut (&mut Driver, SocketAddr)) {
    one.0.create_permission(&[two.1]).unwrap();
    two.0.create_permission(&[one.1]).unwrap();
    one_way(one, two, None);
    one_way(two, one, None);
    let there = one.0.channel_bind(None, two.1).unwrap();
    let back = two.0.channel_bind(None, one.1).unwrap();
    one_way(one, two, Some(back));
    one_way(two, one, Some(there));
}

fn one_way(
    from: &mut (&mut Driver, SocketAddr),
    to: &mut (&mut Driver, SocketAddr),
    channel: Option<u16>,
) {
    for size in SIZES {
        let data = vec![size as u8; size];
        from.0.send(to.1, &data).unwrap();
        let got = to.0.expect_data(DEADLINE).unwrap();
        assert!(got == Received { peer: from.1, channel, data }, "{size} bytes, {channel:?}");
    }
}
