//! Connections that are not for TURN come to a backend, byte for byte, and those that
//! are do not.

mod bounds;
mod headers;
mod tls;
mod web;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use sturn::client::Allocate;

use crate::setup::{Setup, number, wait_until};
use crate::streams::{connect, until_closed};
use web::{Web, exchange, read_exactly};

/// How browsers begin.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n";

/// More than the kernel holds for two connections.
const LARGE: usize = 24 << 20;

/// What the server may grow by, however slow a backend or a client is.
const GROWTH: u64 = 3 << 20;

/// A server that passes plain connections to `backend`.
fn plain(backend: SocketAddr) -> Setup {
    Setup::new().set("backends.servers", format!("[{{ plain = true, address = \"{backend}\" }}]"))
}

/// A connection that has begun with a request which the backend has.
#[track_caller]
fn passed(server: SocketAddr, web: &Web) -> (TcpStream, TcpStream) {
    let mut near = connect(server);
    near.write_all(REQUEST).unwrap();
    let mut far = web.accept();
    assert_eq!(read_exactly(&mut far, REQUEST.len()), REQUEST);
    (near, far)
}

/// Bytes that show where one is missing or out of place.
fn pattern(length: usize) -> Vec<u8> {
    let words = (0..).flat_map(|i: u32| i.wrapping_mul(2_654_435_761).to_be_bytes());
    words.take(length).collect()
}

#[test]
fn http_reaches_a_backend_while_turn_goes_on_at_the_same_port() {
    let web = Web::v4();
    let mut server = plain(web.addr()).tls().start();
    let mut relayed = server.tcp();
    relayed.allocate(Allocate::default()).unwrap();
    for address in [server.addr(), server.addr_v6(), server.tls_addr()] {
        let (mut near, mut far) = passed(address, &web);
        for (way, mut client) in server.every_way() {
            client.binding().unwrap_or_else(|error| panic!("{way}: {error}"));
        }
        relayed.refresh(None, None).unwrap();
        far.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        assert_eq!(read_exactly(&mut near, 17), b"HTTP/1.1 200 OK\r\n");
    }
    assert!(web.is_unused(), "nothing of TURN has come to it");
    let totals = server.stop();
    assert_eq!(number(&totals, "passed_connections"), 3, "{totals}");
    assert_eq!(number(&totals, "closed_connections"), 0, "{totals}");
}

#[test]
fn what_only_looks_like_channel_data_is_passed_on() {
    let web = Web::v4();
    let server = plain(web.addr()).start();
    for first in [&b"LOCK /file HTTP/1.1\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"\x80\x2e\x01"] {
        let mut near = connect(server.addr());
        near.write_all(first).unwrap();
        let mut far = web.accept();
        assert_eq!(read_exactly(&mut far, first.len()), first);
        exchange(&mut near, &mut far);
    }
}

#[test]
fn without_a_backend_for_it_a_connection_ends() {
    let web = Web::v4();
    let entry = format!("[{{ names = [\"www.example.org\"], address = \"{}\" }}]", web.addr());
    let mut server = Setup::new().tls().set("backends.servers", entry).start();
    for first in [REQUEST, b"SSH-2.0-OpenSSH_9.2\r\n", b"\xff\xff\xff\xff", b"@PT / HTTP/1.1\r\n"] {
        let mut stream = connect(server.addr());
        stream.write_all(first).unwrap();
        until_closed(&mut stream);
    }
    assert!(web.is_unused());
    server.tcp().binding().unwrap();
    let totals = server.stop();
    assert_eq!(number(&totals, "passed_connections"), 0, "{totals}");
    assert_eq!(number(&totals, "closed_connections"), 4, "{totals}");
}

#[test]
fn megabytes_pass_both_ways_and_each_end_is_told() {
    let web = Web::v4();
    let mut server = plain(web.addr()).start();
    let idle = server.descriptors();
    let (mut near, mut far) = passed(server.addr(), &web);
    let body = pattern(LARGE);
    thread::scope(|scope| {
        let mut upload = near.try_clone().unwrap();
        scope.spawn({
            let body = &body;
            move || {
                upload.write_all(body).unwrap();
                upload.shutdown(Shutdown::Write).unwrap();
            }
        });
        scope.spawn({
            let body = &body;
            move || {
                let mut got = Vec::new();
                far.read_to_end(&mut got).unwrap();
                assert!(got == *body, "{} bytes up", got.len());
                // The client's end has come; the answer goes all the same.
                far.write_all(body).unwrap();
            }
        });
        let mut got = Vec::new();
        near.read_to_end(&mut got).unwrap();
        assert!(got == body, "{} bytes down", got.len());
    });
    wait_until("descriptors are closed", || server.descriptors() <= idle);
}

#[test]
fn a_backend_may_end_first_and_still_listen() {
    let web = Web::v4();
    let server = plain(web.addr()).start();
    let (mut near, mut far) = passed(server.addr(), &web);
    far.write_all(b"early answer").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    near.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"early answer");
    near.write_all(b"the rest").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    got.clear();
    far.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"the rest");
}

#[test]
fn an_end_that_comes_at_once_is_told_to_the_other_side() {
    let web = Web::v4();
    let mut server = plain(web.addr()).start();
    let idle = server.descriptors();
    for _ in 0..20 {
        let (near, mut far) = passed(server.addr(), &web);
        drop(near);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
        drop(far);
        let (mut near, far) = passed(server.addr(), &web);
        drop(far);
        until_closed(&mut near);
    }
    wait_until("descriptors are closed", || server.descriptors() <= idle);
}

#[test]
fn a_slow_side_holds_the_other_back_and_costs_no_memory() {
    let web = Web::v4();
    let mut server = plain(web.addr()).set("workers.count", "1").start();
    let (near, far) = passed(server.addr(), &web);
    // Both ways once, so that buffers kept for later are there.
    exchange(&mut &near, &mut &far);
    let before = server.resident_memory();
    for (mut from, mut to) in [(&near, &far), (&far, &near)] {
        from.set_nonblocking(true).unwrap();
        let mut other = server.tcp();
        let mut sent = 0;
        let chunk = pattern(64 << 10);
        // Until nothing is taken although the server had time for it.
        let mut refused = 0;
        while refused < 20 {
            match from.write(&chunk[sent % chunk.len()..]) {
                Ok(length) => (sent, refused) = (sent + length, 0),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    refused += 1;
                    // Answered in another turn of the only worker's loop.
                    other.binding().unwrap();
                }
            }
            assert!(sent < 20 * LARGE, "somebody keeps {sent} bytes");
        }
        let grown = server.resident_memory().saturating_sub(before);
        assert!(grown < GROWTH, "{grown} bytes for {sent} that nobody reads");
        let got = read_exactly(&mut to, sent);
        assert!(got.chunks(chunk.len()).all(|part| *part == chunk[..part.len()]), "out of order");
        from.set_nonblocking(false).unwrap();
    }
    exchange(&mut &near, &mut &far);
}
