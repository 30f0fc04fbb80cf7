//! PROXY protocol headers that tell a backend where clients are.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use super::REQUEST;
use super::web::{Web, exchange, read_exactly};
use crate::setup::Setup;
use crate::streams::connect;

fn told(backend: SocketAddr, version: &str) -> Setup {
    let entry =
        format!("[{{ plain = true, address = \"{backend}\", proxy-protocol = \"{version}\" }}]");
    Setup::new().set("backends.servers", entry)
}

/// What a backend is to read before a request, by the text of the protocol.
fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let octets = |address: SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let length = if source.is_ipv4() { 12 } else { 36 };
    [
        b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec(),
        vec![family, 0, length],
        octets(source),
        octets(destination),
        source.port().to_be_bytes().to_vec(),
        destination.port().to_be_bytes().to_vec(),
    ]
    .concat()
}

#[track_caller]
fn expect(web: &Web, near: &mut TcpStream, header: &[u8]) {
    let mut far = web.accept();
    let wanted = [header, REQUEST].concat();
    assert_eq!(read_exactly(&mut far, wanted.len()), wanted);
    exchange(near, &mut far);
}

#[test]
fn a_backend_is_told_the_address_of_a_client_in_either_family() {
    for (version, header) in [("v1", v1 as fn(SocketAddr, SocketAddr) -> Vec<u8>), ("v2", v2)] {
        // The backend's own family does not count.
        for web in [Web::v4(), Web::at("[::1]:0")] {
            let server = told(web.addr(), version).start();
            for address in [server.addr(), server.addr_v6()] {
                let mut near = connect(address);
                near.write_all(REQUEST).unwrap();
                let header = header(near.local_addr().unwrap(), address);
                expect(&web, &mut near, &header);
            }
        }
    }
}

#[test]
fn what_a_load_balancer_says_of_a_client_goes_on_to_the_backend() {
    let web = Web::v4();
    let server = told(web.addr(), "v2").set("tcp.proxies", "[\"127.0.0.1\", \"::1\"]").start();
    let v6: [SocketAddr; 2] =
        ["[2001:db8::7]:40000".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()];
    let v4: [SocketAddr; 2] =
        ["203.0.113.7:40000".parse().unwrap(), "192.0.2.1:443".parse().unwrap()];
    for address in [server.addr(), server.addr_v6()] {
        for [source, destination] in [v4, v6] {
            for before in [v1(source, destination), v2(source, destination)] {
                let mut near = connect(address);
                near.write_all(&before).unwrap();
                near.write_all(REQUEST).unwrap();
                expect(&web, &mut near, &v2(source, destination));
            }
        }
        // One that speaks for itself is the client.
        let mut near = connect(address);
        near.write_all(&[b"PROXY UNKNOWN\r\n", REQUEST].concat()).unwrap();
        let header = v2(near.local_addr().unwrap(), address);
        expect(&web, &mut near, &header);
    }
}
