//! Backends that are not there, and how many connections are passed on for how long.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::web::{Web, exchange, read_exactly};
use super::{REQUEST, passed, plain};
use crate::setup::{DEADLINE, Server, number, wait_until};
use crate::streams::{connect, until_closed};

/// The least that timeouts may be.
const SHORT: &str = r#""1s""#;

/// A request that ends without an answer; how long that took.
#[track_caller]
fn refused(server: SocketAddr) -> Duration {
    let mut near = connect(server);
    near.write_all(REQUEST).unwrap();
    until_closed(&mut near)
}

#[track_caller]
fn warnings(server: &mut Server, backend: SocketAddr) -> usize {
    let line = server.process().expect_line("cannot reach a backend", DEADLINE);
    assert!(line.contains(&format!("backend={backend}")), "{line}");
    let lines = server.process().last_lines();
    lines.lines().filter(|line| line.contains("cannot reach a backend")).count()
}

#[test]
fn a_backend_that_is_not_there_ends_connections_with_one_warning() {
    let web = Web::v4();
    let address = web.addr();
    drop(web);
    let mut server = plain(address).set("workers.count", "2").start();
    let idle = server.descriptors();
    for _ in 0..12 {
        refused(server.addr());
    }
    assert_eq!(warnings(&mut server, address), 1);
    wait_until("descriptors are closed", || server.descriptors() <= idle);
    // It comes back, and nobody has to do anything about it.
    let web = Web::at(&address.to_string());
    let (mut near, mut far) = passed(server.addr(), &web);
    exchange(&mut near, &mut far);
    server.tcp().binding().unwrap();
    let totals = server.stop();
    assert_eq!(number(&totals, "passed_failed"), 12, "{totals}");
    assert_eq!(number(&totals, "passed_connections"), 1, "{totals}");
}

#[test]
fn a_backend_that_does_not_answer_is_given_up() {
    let web = Web::v4();
    let _waiting = fill(web.listener());
    let mut server = plain(web.addr())
        .set("backends.connect-timeout", SHORT)
        .set("backends.idle-timeout", r#""1h""#)
        .start();
    let waited = refused(server.addr());
    assert!(waited > Duration::from_millis(500), "after {waited:?}");
    assert_eq!(warnings(&mut server, web.addr()), 1);
    let totals = server.stop();
    assert_eq!(number(&totals, "passed_failed"), 1, "{totals}");
}

#[test]
fn a_client_that_does_not_wait_for_the_backend_costs_nothing() {
    let web = Web::v4();
    let _waiting = fill(web.listener());
    let mut server = plain(web.addr())
        .set("workers.count", "1")
        .set("limits.backend-connections", "1")
        .set("backends.connect-timeout", r#""5m""#)
        .start();
    let idle = server.descriptors();
    let mut near = connect(server.addr());
    near.write_all(REQUEST).unwrap();
    // The client's and the backend's.
    wait_until("it connects", || server.descriptors() == idle + 2);
    refused(server.addr());
    reset(near);
    wait_until("it is given up", || server.descriptors() <= idle);
    let totals = server.stop();
    assert_eq!(number(&totals, "passed_refused"), 1, "{totals}");
    assert_eq!(number(&totals, "passed_failed"), 0, "{totals}");
}

#[test]
fn so_many_are_passed_on_and_no_more() {
    let web = Web::v4();
    let mut server =
        plain(web.addr()).set("workers.count", "1").set("limits.backend-connections", "2").start();
    let mut first = passed(server.addr(), &web);
    let mut second = passed(server.addr(), &web);
    for _ in 0..3 {
        refused(server.addr());
    }
    assert!(web.is_unused());
    exchange(&mut first.0, &mut first.1);
    server.tcp().binding().expect("clients of TURN are not meant");
    drop(first);
    wait_until("there is room again", || {
        let mut near = connect(server.addr());
        near.write_all(REQUEST).unwrap();
        near.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        !crate::streams::is_closed(&mut near)
    });
    exchange(&mut second.0, &mut second.1);
    let totals = server.stop();
    assert!(number(&totals, "passed_refused") >= 3, "{totals}");
    assert_eq!(number(&totals, "passed_connections"), 3, "{totals}");
}

#[test]
fn silence_on_both_sides_ends_a_passed_connection() {
    let web = Web::v4();
    let server = plain(web.addr())
        .set("backends.idle-timeout", SHORT)
        .set("tcp.idle-timeout", r#""1h""#)
        .start();
    let (mut near, mut far) = passed(server.addr(), &web);
    let waited = until_closed(&mut near);
    assert!(waited > Duration::from_millis(500), "after {waited:?}");
    until_closed(&mut far);
}

#[test]
fn a_passed_connection_may_be_silent_for_longer_than_one_of_turn() {
    let web = Web::v4();
    let server = plain(web.addr())
        .set("tcp.idle-timeout", SHORT)
        .set("tcp.frame-timeout", SHORT)
        .set("backends.idle-timeout", r#""1h""#)
        .start();
    let (mut near, mut far) = passed(server.addr(), &web);
    // Twice the time, by one that ends.
    for _ in 0..2 {
        until_closed(&mut connect(server.addr()));
    }
    exchange(&mut near, &mut far);
}

/// Lets nobody else connect: the queue of those who wait is full.
fn fill(listener: &TcpListener) -> Vec<TcpStream> {
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let soon = Duration::from_millis(300);
    let waiting: Vec<_> =
        (0..4).map_while(|_| TcpStream::connect_timeout(&address, soon).ok()).collect();
    assert!(waiting.len() < 4, "the queue has no end");
    waiting
}

/// Ends a connection with a RST.
fn reset(stream: TcpStream) {
    crate::streams::reset(&stream);
    drop(stream);
}

#[test]
fn an_answer_that_breaks_off_does_not_look_complete() {
    let web = Web::v4();
    let mut server = plain(web.addr()).start();
    // The backend breaks the connection, and then the server ends.
    let (mut near, mut far) = passed(server.addr(), &web);
    far.write_all(b"HTTP/1.1 200 OK\r\n\r\nhal").unwrap();
    assert_eq!(read_exactly(&mut near, 22).len(), 22);
    reset(far);
    let broken = near.read(&mut [0; 9]).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);

    let (mut near, mut far) = passed(server.addr(), &web);
    far.write_all(b"half").unwrap();
    assert_eq!(read_exactly(&mut near, 4), b"half");
    server.stop();
    for side in [&mut near, &mut far] {
        assert_eq!(side.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
