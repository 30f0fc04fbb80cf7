//! Load balancers in front: the PROXY protocol's header names the client, if it
//! comes from where the configuration says.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use sturn::client::Allocate;

use crate::binding::binding_request;
use crate::setup::{DEADLINE, Peer, Setup, number, relayed};
use crate::streams::{connect, read_answer, until_closed};
use crate::support::driver::Driver;
use crate::support::secure::{Tls, Wanted};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 3478\r\n";
const V1_CLIENT: &str = "203.0.113.7:40000";

const V2_CLIENT: &str = "[2001:db8::7]:40001";

#[test]
fn a_proxy_names_the_client_before_plain_and_before_tls() {
    let mut server = trusting("127.0.0.1").start();
    for (header, client) in [(V1.to_vec(), V1_CLIENT), (v2(), V2_CLIENT)] {
        let client: SocketAddr = client.parse().unwrap();
        let mut plain = Driver::on_tcp(behind(server.addr(), &header), "alice", "wonderland");
        assert_eq!(plain.binding().unwrap(), client);
        for tls_addr in [server.addr(), server.tls_addr()] {
            let stream = behind(tls_addr, &header);
            let tls = Tls::connect(stream, &Wanted::default()).unwrap();
            let mut tls = Driver::on_tls(tls, "alice", "wonderland");
            assert_eq!(tls.binding().unwrap(), client);
        }
        let allocated = plain.allocate(Allocate::default()).unwrap();
        assert_eq!(allocated.reflexive, client);
        let relayed = relayed(&allocated);
        let peer = Peer::v4();
        plain.channel_bind(None, peer.addr()).unwrap();
        plain.send(peer.addr(), b"out").unwrap();
        assert_eq!(peer.receive(), (b"out".to_vec(), relayed));
        peer.send(relayed, b"back");
        assert_eq!(plain.expect_data(DEADLINE).unwrap().data, b"back");
        server.process().expect_line(&format!("client={client}"), DEADLINE);
    }
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 0, "{totals}");
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let server = trusting("127.0.0.1").start();
    for header in [V1.to_vec(), v2()] {
        let bytes = [&header[..], &binding_request(1)].concat();
        for at in 1..bytes.len() {
            let mut stream = connect(server.addr());
            stream.write_all(&bytes[..at]).unwrap();
            // As far as we can bring it about, a segment of its own.
            std::thread::yield_now();
            stream.write_all(&bytes[at..]).unwrap();
            assert_eq!(read_answer(&mut stream), [1; 12], "after {at} bytes");
        }
    }
}

#[test]
fn a_proxy_may_speak_for_itself() {
    let server = trusting("127.0.0.0/24").start();
    // Its own health check, a client that it cannot name, and no header at all.
    let local = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
    for header in [&local[..], b"PROXY UNKNOWN\r\n", b""] {
        let stream = behind(server.addr(), header);
        let mut client = Driver::on_tcp(stream, "alice", "wonderland");
        assert_eq!(client.binding().unwrap(), client.local_addr());
    }
}

#[test]
fn from_elsewhere_a_header_ends_the_connection() {
    let mut server = trusting("127.0.0.2").start();
    for header in [V1.to_vec(), v2()] {
        for address in [server.addr(), server.tls_addr()] {
            let mut stream = connect(address);
            stream.write_all(&header).unwrap();
            until_closed(&mut stream);
        }
    }
    server.tcp().binding().unwrap();
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 4, "{totals}");
}

#[test]
fn headers_that_are_malformed_or_repeated_end_the_connection() {
    let mut server = trusting("127.0.0.1").start();
    let unknown_version = [&SIGNATURE[..], &[0x31, 0x11, 0, 12], &[1; 12]].concat();
    let twice = [V1, V1].concat();
    for bytes in [&b"PROXY TCP4 203.0.113.7 192.0.2.1 40000\r\n"[..], &unknown_version, &twice] {
        let mut stream = connect(server.addr());
        stream.write_all(bytes).unwrap();
        until_closed(&mut stream);
    }
    let totals = server.stop();
    assert_eq!(number(&totals, "closed_connections"), 3, "{totals}");
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for a client over IPv6, with an extension to skip.
fn v2() -> Vec<u8> {
    let mut header = [&SIGNATURE[..], &[0x21, 0x21, 0, 36 + 5]].concat();
    let address = |last: u8| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    header.extend(address(7));
    header.extend(address(1));
    header.extend(40_001_u16.to_be_bytes());
    header.extend(3478_u16.to_be_bytes());
    header.extend([4, 0, 2, 0, 0]);
    header
}

fn trusting(network: &str) -> Setup {
    Setup::new().tls().set("tcp.proxies", format!("[\"{network}\"]"))
}

/// A connection that begins with these bytes.
fn behind(server: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = connect(server);
    stream.write_all(header).unwrap();
    stream
}
