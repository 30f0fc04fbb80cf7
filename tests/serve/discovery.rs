//! NAT behaviour discovery (RFC 5780): answers leave from the address that was
//! asked for, whichever worker gives them.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use stun_rs::attributes::discovery::{
    ChangeRequest, ChangeRequestFlags, OtherAddress, Padding, ResponseOrigin, ResponsePort,
};
use stun_rs::attributes::stun::{ErrorCode, XorMappedAddress};
use stun_rs::methods::BINDING;
use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunAttribute, StunMessage,
    StunMessageBuilder,
};

use crate::setup::{DEADLINE, Peer, Server, Setup, number};

/// More sockets than are likely to fall to one of two workers.
const SOCKETS: usize = 16;

fn encode(attributes: Vec<StunAttribute>) -> Vec<u8> {
    let message = attributes
        .into_iter()
        .fold(
            StunMessageBuilder::new(BINDING, MessageClass::Request),
            StunMessageBuilder::with_attribute,
        )
        .build();
    let mut bytes = vec![0; 4096];
    let len = MessageEncoderBuilder::default().build().encode(&mut bytes, &message).unwrap();
    bytes.truncate(len);
    bytes
}

fn change(address: bool, port: bool) -> Vec<u8> {
    let flags = match (address, port) {
        (true, true) => ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort,
        (true, false) => ChangeRequestFlags::ChangeIp.into(),
        (false, true) => ChangeRequestFlags::ChangePort.into(),
        (false, false) => return encode(vec![ChangeRequest::new(None).into()]),
    };
    encode(vec![ChangeRequest::new(Some(flags)).into()])
}

fn decode(bytes: &[u8]) -> StunMessage {
    MessageDecoderBuilder::default().build().decode(bytes).unwrap().0
}

#[track_caller]
fn receive(peer: &Peer) -> (StunMessage, SocketAddr) {
    let (bytes, from) = peer.receive();
    (decode(&bytes), from)
}

#[track_caller]
fn origin(message: &StunMessage) -> SocketAddr {
    let attribute = message.get::<ResponseOrigin>().expect("RESPONSE-ORIGIN");
    *attribute.as_response_origin().unwrap().socket_address()
}

#[track_caller]
fn other(message: &StunMessage) -> SocketAddr {
    let attribute = message.get::<OtherAddress>().expect("OTHER-ADDRESS");
    *attribute.as_other_address().unwrap().socket_address()
}

fn code(message: &StunMessage) -> u16 {
    let attribute = message.get::<ErrorCode>().expect("ERROR-CODE");
    attribute.as_error_code().unwrap().error_code().error_code()
}

/// Address one and two, port one and two: the four endpoints of a server.
fn endpoints(server: &Server) -> [[SocketAddr; 2]; 2] {
    let ports = [server.addr().port(), server.port_of("alternate")];
    [server.addr().ip(), server.relay_v4()].map(|ip| ports.map(|port| SocketAddr::new(ip, port)))
}

/// Asks each endpoint, from many sockets, for an answer from every other one.
#[track_caller]
fn every_answer_leaves_from_where_it_should(server: &Server) {
    let at = endpoints(server);
    for _ in 0..SOCKETS {
        let client = Peer::v4();
        for (a, p) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for (address, port) in [(false, false), (true, false), (false, true), (true, true)] {
                client.send(at[a][p], &change(address, port));
                let (answer, from) = receive(&client);
                let wanted = at[a ^ usize::from(address)][p ^ usize::from(port)];
                assert_eq!(from, wanted, "asked {}, change {address} {port}", at[a][p]);
                assert_eq!(origin(&answer), wanted);
                assert_eq!(other(&answer), at[a ^ 1][p ^ 1]);
            }
        }
    }
}

#[test]
fn answers_leave_from_the_address_asked_for() {
    let server = Setup::new().discovery().start();
    every_answer_leaves_from_where_it_should(&server);
}

#[test]
fn answers_leave_from_the_address_asked_for_also_through_wildcard_listeners() {
    let server = Setup::new()
        .discovery()
        .set("listen.udp", r#"["0.0.0.0:@port@", "0.0.0.0:@alternate@"]"#)
        .set("listen.tcp", "[]")
        .start();
    every_answer_leaves_from_where_it_should(&server);
}

#[test]
fn an_answer_goes_to_the_response_port() {
    let server = Setup::new().discovery().start();
    for _ in 0..SOCKETS {
        let (asker, other) = (Peer::v4(), Peer::v4());
        let request = encode(vec![ResponsePort::from(other.addr().port()).into()]);
        asker.send(server.addr(), &request);
        let (answer, from) = receive(&other);
        assert_eq!(from, server.addr());
        let mapped = answer.get::<XorMappedAddress>().unwrap();
        assert_eq!(*mapped.as_xor_mapped_address().unwrap().socket_address(), asker.addr());
        assert!(!asker.has_received());
    }
}

#[test]
fn padding_comes_back_in_an_answer_of_more_than_one_packet() {
    let server = Setup::new().discovery().start();
    let client = Peer::v4();
    client.send(server.addr(), &encode(vec![Padding::new("p".repeat(1500)).unwrap().into()]));
    let (bytes, _) = client.receive();
    assert!(bytes.len() > 1500, "{}", bytes.len());
    assert!(decode(&bytes).get::<Padding>().is_some());
}

#[test]
fn every_endpoint_answers_over_tcp_too() {
    use std::io::{Read as _, Write as _};
    let server = Setup::new().discovery().start();
    let at = endpoints(&server);
    for (a, p) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut stream = TcpStream::connect(at[a][p]).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&encode(vec![])).unwrap();
        let mut head = [0; 20];
        stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        stream.read_exact(&mut body).unwrap();
        let answer = decode(&[&head[..], &body].concat());
        assert_eq!((origin(&answer), other(&answer)), (at[a][p], at[a ^ 1][p ^ 1]));
    }
}

#[test]
fn with_one_address_it_says_so_and_refuses_to_change() {
    let mut server =
        Setup::new().discovery().set("nat-discovery.addresses", r#"["127.0.0.1"]"#).start();
    server.process().expect_line("one IPv4 address", DEADLINE);
    let client = Peer::v4();
    client.send(server.addr(), &encode(vec![]));
    let (answer, _) = receive(&client);
    assert_eq!(origin(&answer), server.addr());
    assert!(answer.get::<OtherAddress>().is_none());
    client.send(server.addr(), &change(true, true));
    assert_eq!(code(&receive(&client).0), 420);
}

#[test]
fn without_the_usage_it_says_so_and_answers_are_short() {
    let mut server = Setup::new().start();
    server.process().expect_line("nat_discovery=off", DEADLINE);
    let client = Peer::v4();
    client.send(server.addr(), &encode(vec![]));
    let (bytes, _) = client.receive();
    assert_eq!(bytes.len(), 32, "header and XOR-MAPPED-ADDRESS");
    client.send(server.addr(), &change(true, true));
    assert_eq!(code(&receive(&client).0), 420);
}

/// CHANGED-ADDRESS of RFC 3489: type, length, family, port, address.
const CHANGED_ADDRESS: [u8; 6] = [0, 5, 0, 8, 0, 1];

#[test]
fn a_client_of_rfc_3489_is_answered_from_the_address_asked_for() {
    let server = Setup::new().discovery().set("stun.rfc3489", "true").start();
    let at = endpoints(&server);
    let client = Peer::v4();
    for (flags, from) in [(0, at[0][0]), (2, at[0][1]), (4, at[1][0]), (6, at[1][1])] {
        let mut request = vec![0, 1, 0, 8];
        request.extend(b"sixteen id bytes");
        request.extend([0, 3, 0, 4, 0, 0, 0, flags]);
        client.send(server.addr(), &request);
        let (answer, source) = client.receive();
        assert_eq!(source, from, "flags {flags:#b}");
        assert_eq!(answer[4..20], request[4..20]);
        let changed = [&at[1][1].port().to_be_bytes()[..], &octets(at[1][1])].concat();
        let wanted = [&CHANGED_ADDRESS[..], &changed].concat();
        assert!(answer.windows(wanted.len()).any(|bytes| bytes == wanted), "{answer:02x?}");
    }
}

fn octets(address: SocketAddr) -> [u8; 4] {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    address.ip().octets()
}

#[test]
fn nobody_gets_more_answers_by_asking_for_them_elsewhere() {
    const RATE: usize = 8;
    let mut server = Setup::new()
        .discovery()
        .set("workers.count", "1")
        .set("limits.answers-per-prefix", RATE.to_string())
        .start();
    let asker = UdpSocket::bind("127.0.77.1:0").unwrap();
    // Where all answers would go: the victim of a forged request.
    let victim = UdpSocket::bind("127.0.77.1:0").unwrap();
    let port = victim.local_addr().unwrap().port();
    let flags = ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort;
    let request =
        encode(vec![ChangeRequest::new(Some(flags)).into(), ResponsePort::from(port).into()]);
    let start = std::time::Instant::now();
    for _ in 0..400 {
        asker.send_to(&request, server.addr()).unwrap();
    }
    // Behind all of those on the only worker, from another prefix.
    let client = Peer::v4();
    client.send(server.addr(), &encode(vec![]));
    receive(&client);
    victim.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let answers = std::iter::from_fn(|| victim.recv_from(&mut [0; 2048]).ok()).count();
    let most = RATE * 2 + RATE * (1 + start.elapsed().as_secs() as usize);
    assert!((RATE..=most).contains(&answers), "{answers} answers, at most {most}");
    let totals = server.stop();
    assert!(number(&totals, "answer-budget") >= (400 - most) as u64, "{totals}");
}
