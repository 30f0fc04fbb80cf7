//! Strangers cost no memory and get few answers, and clients are served all the
//! while.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use sturn::client::{Allocate, Client, Config};
use sturn::net::Transport;

use crate::setup::{DEADLINE, Peer, Server, Setup, number, random, relayed};
use crate::support::driver::{next_seed, now};

/// Source addresses and ports of a flood, and datagrams of each.
const SOURCES: usize = 500;
const EACH: usize = 400;
/// Datagrams between two looks at whether the server is there: so few that its
/// receive buffers do not overflow, which would spare it the work.
const BURST: usize = 100;
/// What the server may grow by.
const GROWTH: u64 = 4 << 20;

#[test]
fn garbage_from_everywhere_costs_nothing() {
    let mut server = Setup::new().tls().start();
    let mut noise = Noise(random() | 1);
    flood(&server, 20, &mut |datagram| noise.fill(datagram));
    let before = server.resident_memory();
    flood(&server, EACH, &mut |datagram| noise.fill(datagram));
    let grown = server.resident_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes for garbage");
    is_well(&server);

    let totals = server.stop();
    // Some of it is lost in the kernel, some is answered by chance.
    let wanted = (SOURCES * EACH / 4) as u64;
    let counted: u64 = ["not-stun", "malformed", "no-cookie", "no-allocation", "reserved-channel"]
        .into_iter()
        .filter(|reason| totals.contains(&format!("{reason}=")))
        .map(|reason| number(&totals, reason))
        .sum();
    assert!(counted > wanted, "{counted} of more than {wanted}: {totals}");
}

#[test]
fn requests_without_credentials_cost_nothing() {
    let mut server = Setup::new().tls().start();
    let mut client = Client::new(Config::new(Transport::Udp, "", "", next_seed()));
    client.allocate(now(), Allocate::default());
    let request = client.poll_transmit().unwrap();
    let mut noise = Noise(random() | 1);
    let mut allocate = |datagram: &mut Vec<u8>| {
        datagram.clone_from(&request);
        // Another transaction, and no FINGERPRINT that would not fit.
        datagram.truncate(request.len() - 8);
        datagram[3] -= 8;
        datagram[8..16].copy_from_slice(&noise.next().to_be_bytes());
    };
    flood(&server, 20, &mut allocate);
    let before = server.resident_memory();
    flood(&server, EACH, &mut allocate);
    let grown = server.resident_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes for requests of strangers");
    is_well(&server);
    assert!(server.descriptors() < 60);
}

#[test]
fn a_prefix_gets_so_many_answers_over_all_workers() {
    const RATE: usize = 8;
    let mut server = Setup::new()
        .set("workers.count", "4")
        .set("limits.answers-per-prefix", RATE.to_string())
        .start();
    let sources: Vec<UdpSocket> = (1..=40_u8).map(|i| source([127, 99, 1, i].into())).collect();
    let start = Instant::now();
    for round in 0..10_u8 {
        for source in &sources {
            source.send_to(&crate::binding::binding_request(round), server.addr()).unwrap();
        }
    }
    // Behind all of those on every worker, from another prefix and on TCP.
    for number in 0..16 {
        server.client(number).binding().unwrap_or_else(|error| panic!("client {number}: {error}"));
    }
    let answered: usize = sources.iter().map(answers).sum();
    let most = RATE * 2 + RATE * (1 + start.elapsed().as_secs() as usize);
    assert!((RATE..=most).contains(&answered), "{answered} answers, at most {most}");
    let totals = server.stop();
    assert!(number(&totals, "answer-budget") >= (400 - most) as u64, "{totals}");
}

#[test]
fn a_flood_on_a_relayed_address_stays_with_its_socket() {
    let mut server = Setup::new().tls().start();
    let mut client = server.udp();
    let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
    let before = server.resident_memory();
    let stranger = Peer::at([127, 0, 0, 77].into());
    let mut other = server.udp();
    for round in 0..50_000 {
        stranger.send(relayed, &[0; 500]);
        if round % 100 == 0 {
            other.binding().unwrap();
        }
    }
    let grown = server.resident_memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes");
    is_well(&server);
    let totals = server.stop();
    assert!(number(&totals, "no-permission") > 10_000, "{totals}");
}

/// Datagrams made by `fill` from many addresses and ports.
fn flood(server: &Server, each: usize, fill: &mut dyn FnMut(&mut Vec<u8>)) {
    let mut probe = server.tcp();
    let mut datagram = Vec::new();
    for index in 0..SOURCES {
        let [a, b] = (index as u16).to_be_bytes();
        // Prefixes of their own, and several ports of each address.
        let source = source([127, 32 + (a & 0x1f), b, 1].into());
        for count in 0..each {
            fill(&mut datagram);
            match source.send_to(&datagram, server.addr()) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => panic!("{error}"),
            }
            if count % BURST == 0 {
                probe.binding().unwrap();
            }
        }
    }
    probe.binding().unwrap();
}

/// New clients are served as if nothing had been.
fn is_well(server: &Server) {
    for (way, mut client) in server.every_way() {
        let relayed = relayed(&client.allocate(Allocate::default()).unwrap());
        let peer = Peer::v4();
        client.create_permission(&[peer.addr()]).unwrap();
        client.send(peer.addr(), b"out").unwrap();
        assert_eq!(peer.receive(), (b"out".to_vec(), relayed), "{way}");
        peer.send(relayed, b"back");
        assert_eq!(client.expect_data(DEADLINE).unwrap().data, b"back", "{way}");
    }
}

fn source(ip: Ipv4Addr) -> UdpSocket {
    UdpSocket::bind(SocketAddr::new(ip.into(), 0)).unwrap()
}

/// How many datagrams have come.
fn answers(source: &UdpSocket) -> usize {
    source.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut buffer = [0; 1500];
    std::iter::from_fn(|| source.recv(&mut buffer).ok()).count()
}

/// Datagrams of any length and content, half of them with the looks of something.
struct Noise(u64);

impl Noise {
    /// xorshift64: repeatable and as random as noise has to be.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, datagram: &mut Vec<u8>) {
        let length = self.next() as usize % 1400;
        datagram.clear();
        while datagram.len() < length {
            datagram.extend_from_slice(&self.next().to_be_bytes());
        }
        datagram.truncate(length);
        let body = datagram.len().saturating_sub(20) as u16 & !3;
        match (self.next() % 4, datagram.len() >= 20) {
            // A STUN header with a right length: of any method, and of Send.
            (0, true) => {
                datagram[0] &= 0x3f;
                datagram[2..4].copy_from_slice(&body.to_be_bytes());
                datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
                datagram.truncate(20 + usize::from(body));
            }
            // ChannelData with a right length.
            (1, true) => {
                let data = (datagram.len() - 4) as u16;
                datagram[0] = 0x40 | datagram[0] & 0x0f;
                datagram[2..4].copy_from_slice(&data.to_be_bytes());
            }
            _ => {}
        }
    }
}
