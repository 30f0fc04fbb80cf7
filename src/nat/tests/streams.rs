//! TCP connections that end or go astray, and a hurried Ctrl-C, step by step.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::{
    Action, Contact, Discovery, Finding, Misbehaviour, Outcome, Question, SocketId, Unknown, calls,
    classify,
};
use super::addr;
use super::server::Server;

const UDP: SocketId = SocketId(0);
const TCP: SocketId = SocketId(1);
const UNIT: Duration = Duration::from_millis(250);

/// A discovery whose first two sockets are open, and the first request on each.
struct Start {
    now: Instant,
    server: Server,
    discovery: Discovery,
    requests: [Vec<u8>; 2],
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn start() -> Start {
    let (now, server) = (Instant::now(), Server::new());
    let question = Question {
        server: server.primary,
        second: None,
        timeout: Duration::from_secs(16),
        lifetime: None,
        seed: [3; 32],
    };
    let mut discovery = Discovery::new(now, question);
    discovery.handle_opened(now, UDP, here(UDP));
    discovery.handle_opened(now, TCP, here(TCP));
    let sent = actions(&mut discovery);
    let requests = [UDP, TCP].map(|wanted| {
        let mut bytes = sent.iter().filter_map(|action| match action {
            Action::Send { socket, bytes, .. } if *socket == wanted => Some(bytes.clone()),
            _ => None,
        });
        bytes.next().expect("it asks at once")
    });
    Start { now, server, discovery, requests }
}

fn here(socket: SocketId) -> SocketAddr {
    SocketAddr::new(addr("203.0.113.9:0").ip(), [5000, 6000][socket.index()])
}

fn actions(discovery: &mut Discovery) -> Vec<Action> {
    std::iter::from_fn(|| discovery.poll_action()).collect()
}

impl Start {
    fn answer(&mut self, socket: SocketId) {
        let request = &self.requests[socket.index()];
        let answer = self.server.on_tcp(here(socket), self.server.primary, request).unwrap();
        self.discovery.handle_receive(self.now, socket, self.server.primary, &answer);
    }
}

#[test]
fn connections_are_compared_only_from_one_port() {
    let mut start = start();
    start.answer(TCP);
    start.discovery.handle_closed(start.now, TCP, "the server closed the connection");
    start.answer(UDP);
    let ports = actions(&mut start.discovery).into_iter().filter_map(|action| match action {
        Action::OpenTcp { local, .. } => Some(local),
        _ => None,
    });
    assert_eq!(ports.collect::<Vec<_>>(), [], "another port has another mapping in any case");
    start.discovery.interrupt();
    let report = start.discovery.report().unwrap();
    assert_eq!(report.tcp_mapping, Finding::Unknown(Unknown::ConnectionClosed));
}

#[test]
fn a_stream_that_goes_astray_is_closed() {
    for astray in [&b"220 mail.example.org ESMTP"[..], &[0x01; 20], &[0x00, 0x01, 0xFF, 0xFC]] {
        let mut start = start();
        // A STUN message may not be longer than any answer is.
        let endless = [astray, &[0x21, 0x12, 0xA4, 0x42], &[0; 5000]].concat();
        start.discovery.handle_receive(start.now, TCP, start.server.primary, &endless);
        let closed = actions(&mut start.discovery).contains(&Action::Close { socket: TCP });
        assert!(closed, "{astray:?}");
        // What was on its way nevertheless changes nothing.
        start.discovery.handle_receive(start.now, TCP, start.server.primary, &endless);
        assert_eq!(actions(&mut start.discovery), []);
        // UDP is silent, so the stream has the last word.
        for step in 0..64 {
            start.discovery.handle_timeout(start.now + UNIT * step);
        }
        let report = start.discovery.report().unwrap();
        let Contact::Misbehaves(Misbehaviour::Garbage { .. }) = report.contact else {
            panic!("{report:?}")
        };
    }
}

#[test]
fn ctrl_c_before_an_answer_says_nothing_of_the_server() {
    let mut start = start();
    start.discovery.interrupt();
    let report = start.discovery.report().unwrap();
    assert_eq!(report.contact, Contact::Interrupted);
    assert_eq!((classify(report), calls(report)), (Outcome::Inconclusive, None));
}
