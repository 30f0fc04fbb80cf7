//! Limits hold exactly, over all workers, and end when what they count ends.

use std::io::Read;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use sturn::client::Allocate;
use sturn::net::Family;

use crate::setup::{DEADLINE, Server, Setup, wait_until};
use crate::support::driver::{Driver, Error};

const CLIENTS: usize = 24;
const WORKERS: &str = "4";

#[test]
fn a_user_gets_exactly_so_many_allocations_over_all_workers() {
    let server =
        Setup::new().set("workers.count", WORKERS).set("limits.allocations-per-user", "5").start();
    let (mut granted, refused) = allocate_at_once(&server);
    assert_eq!((granted.len(), refused.len()), (5, CLIENTS - 5));
    assert!(refused.iter().all(|error| error.code() == 486), "{refused:?}");
    let mut bob = Driver::udp(server.addr(), "bob", "builder");
    bob.allocate(Allocate::default()).expect("the limit is for each user");

    // Deleted, closed: each makes room for exactly one.
    let mut deleted = granted.pop().unwrap();
    deleted.refresh(Some(Duration::ZERO), None).unwrap();
    let mut one_more = server.udp();
    wait_until("room after a deletion", || one_more.allocate(Allocate::default()).is_ok());
    assert_eq!(deleted.allocate(Allocate::default()).unwrap_err().code(), 486);
}

#[test]
fn every_place_comes_back_when_connections_close() {
    let server =
        Setup::new().set("workers.count", WORKERS).set("limits.allocations-per-user", "5").start();
    for _ in 0..3 {
        let mut clients: Vec<Driver> = (0..5).map(|_| server.tcp()).collect();
        for client in &mut clients {
            wait_until("room", || client.allocate(Allocate::default()).is_ok());
        }
        assert_eq!(server.tcp().allocate(Allocate::default()).unwrap_err().code(), 486);
    }
}

#[test]
fn the_user_of_a_time_limited_credential_is_the_part_behind_the_separator() {
    let server = Setup::new()
        .set("auth.secrets", r#"["a shared secret"]"#)
        .set("limits.allocations-per-user", "1")
        .start();
    let client = |ttl: &str, user: &str| {
        let (name, password) = crate::credentials::issue("a shared secret", user, ttl);
        Driver::udp(server.addr(), &name, &password)
    };
    let (mut first, mut second) = (client("1h", "carol"), client("2h", "carol"));
    first.allocate(Allocate::default()).unwrap();
    assert_eq!(second.allocate(Allocate::default()).unwrap_err().code(), 486);
    client("1h", "dave").allocate(Allocate::default()).unwrap();
}

#[test]
fn when_all_relay_ports_are_taken_it_says_so_and_recovers() {
    let server = Setup::new().set("workers.count", WORKERS).relay_ports(6).start();
    let (mut granted, refused) = allocate_at_once(&server);
    assert_eq!((granted.len(), refused.len()), (6, CLIENTS - 6));
    assert!(refused.iter().all(|error| error.code() == 508), "{refused:?}");
    // The other family has ports of its own.
    let wanted = Allocate { family: Some(Family::V6), ..Allocate::default() };
    server.udp().allocate(wanted).unwrap();
    granted.pop().unwrap().refresh(Some(Duration::ZERO), None).unwrap();
    let mut one_more = server.udp();
    wait_until("a port is free again", || one_more.allocate(Allocate::default()).is_ok());
    assert_eq!(server.udp().allocate(Allocate::default()).unwrap_err().code(), 508);
}

#[test]
fn a_dual_allocation_lives_with_the_family_that_has_a_port() {
    let server = Setup::new().set("workers.count", "1").relay_ports(2).start();
    let mut others = [server.udp(), server.tcp()];
    for client in &mut others {
        client.allocate(Allocate::default()).unwrap();
    }
    let wanted = Allocate { additional_family: Some(Family::V6), ..Allocate::default() };
    let allocated = server.udp().allocate(wanted).unwrap();
    assert_eq!(allocated.relayed.len(), 1);
    assert!(allocated.relayed[0].is_ipv6());
    assert_eq!(allocated.address_error, Some((Family::V4, 508)));
}

#[test]
fn the_server_has_room_for_so_many_allocations() {
    let server = Setup::new().set("workers.count", "1").set("limits.allocations", "3").start();
    let (mut granted, refused) = allocate_at_once(&server);
    assert_eq!((granted.len(), refused.len()), (3, CLIENTS - 3));
    assert!(refused.iter().all(|error| error.code() == 508), "{refused:?}");
    granted.pop().unwrap().refresh(Some(Duration::ZERO), None).unwrap();
    server.udp().allocate(Allocate::default()).unwrap();
}

#[test]
fn permissions_and_channels_are_limited() {
    let server = Setup::new().set("limits.permissions", "3").set("limits.channels", "2").start();
    let mut client = server.udp();
    client.allocate(Allocate::default()).unwrap();
    let peers: Vec<_> = (1..=4_u8).map(|i| ([127, 0, 0, i], 9999).into()).collect();
    client.create_permission(&peers[..3]).unwrap();
    assert_eq!(client.create_permission(&peers[3..]).unwrap_err().code(), 508);
    client.create_permission(&peers[..3]).expect("refreshing those it has");
    client.channel_bind(None, peers[0]).unwrap();
    client.channel_bind(None, peers[1]).unwrap();
    assert_eq!(client.channel_bind(None, peers[2]).unwrap_err().code(), 508);
    client.channel_bind(None, peers[0]).expect("refreshing one it has");
}

#[test]
fn so_many_connections_and_no_more() {
    let mut server = Setup::new().set("workers.count", "1").set("limits.connections", "4").start();
    let mut clients: Vec<Driver> = (0..4).map(|_| server.tcp()).collect();
    for client in &mut clients {
        client.binding().unwrap();
    }
    let mut fifth = TcpStream::connect(server.addr()).unwrap();
    fifth.set_read_timeout(Some(DEADLINE)).unwrap();
    let closed = fifth.read(&mut [0]);
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    for client in &mut clients {
        client.binding().expect("those before it are not touched");
    }
    drop(clients.pop());
    // Whether the server has noticed the end yet is only seen by trying.
    wait_until("room for a connection", || server.tcp().binding().is_ok());
    let totals = server.stop();
    assert!(crate::setup::number(&totals, "refused_connections") >= 1, "{totals}");
}

/// Many clients of alice over UDP and TCP, all at the same time.
fn allocate_at_once(server: &Server) -> (Vec<Driver>, Vec<Error>) {
    let clients: Vec<Driver> = (0..CLIENTS).map(|number| server.client(number)).collect();
    let started: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let outcome = client.allocate(Allocate::default());
                outcome.map(|_| client)
            })
        })
        .collect();
    let outcomes = started.into_iter().map(|thread| thread.join().unwrap());
    let (mut granted, mut refused) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(client) => granted.push(client),
            Err(error) => refused.push(error),
        }
    }
    (granted, refused)
}
