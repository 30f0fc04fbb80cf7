//! Handshakes and data over networks that lose, repeat and reorder.

use std::thread;
use std::time::{Duration, Instant};

use super::super::super::certificates::tests::{Kind, certificates};
use super::*;

/// Nothing takes longer, however much is lost.
const DEADLINE: Duration = Duration::from_secs(120);

const SEEDS: u64 = 24;

/// One direction of a network, repeatable but for OpenSSL's clocks.
struct Network {
    state: u64,
    /// Datagrams on their way.
    held: Vec<Vec<u8>>,
    lost: u32,
}

impl Network {
    fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, held: Vec::new(), lost: 0 }
    }

    /// A number below `bound`.
    fn draw(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) % bound
    }

    /// Takes datagrams in, and lets out those that arrive now.
    fn carry(&mut self, datagrams: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        for datagram in datagrams {
            match self.draw(100) {
                0..15 => self.lost += 1,
                15..30 => self.held.extend([datagram.clone(), datagram]),
                _ => self.held.push(datagram),
            }
        }
        let mut out = Vec::new();
        while !self.held.is_empty() && self.draw(4) > 0 {
            let next = self.draw(self.held.len() as u64) as usize;
            out.push(self.held.swap_remove(next));
        }
        out
    }
}

struct Call {
    client: Client,
    server: Server,
    to_server: Network,
    to_client: Network,
}

impl Call {
    fn new(seed: u64, certificates: &Arc<Certificates>) -> Self {
        // The smaller, the more datagrams there are to lose.
        let limits = Limits { datagram: 300 + 100 * (seed % 4) as u16, handshake: DEADLINE };
        Self {
            client: Client::new(&Wishes::default()),
            server: Server::new(certificates, limits),
            to_server: Network::new(seed),
            to_client: Network::new(!seed),
        }
    }

    fn step(&mut self, now: Now) {
        self.client.step();
        for datagram in self.to_server.carry(self.client.take_datagrams()) {
            self.server.receive(now, &datagram);
        }
        self.server.handle_timeout(now);
        let out = std::mem::take(&mut self.server.out);
        let longest = usize::from(self.server.limits.datagram);
        assert!(out.iter().all(|datagram| datagram.len() <= longest), "longer than {longest}");
        for datagram in self.to_client.carry(out) {
            self.client.receive(&datagram);
        }
        // Data until some has arrived either way.
        if self.client.connected && self.server.plain.is_empty() {
            self.client.send(b"ping");
        }
        if self.server.is_connected() && self.client.plain.is_empty() {
            self.server.send(&[b"pong"]);
        }
    }

    fn is_done(&self) -> bool {
        !self.client.plain.is_empty() && !self.server.plain.is_empty()
    }
}

/// RFC 6347 section 4.2.4.
#[test]
#[expect(clippy::disallowed_methods, reason = "OpenSSL's clocks are real")]
fn a_lost_flight_is_sent_again_without_being_asked() {
    let mut client = Client::new(&Wishes::default());
    let mut server = Server::new(&super::sessions::certificate(), Limits::default());
    let (start, begin) = (Instant::now(), now());
    let hello = first_hello(&mut client);
    server.receive(begin, &hello);
    client.receive(&server.out.pop().unwrap());
    for datagram in client.take_datagrams() {
        server.receive(begin, &datagram);
    }
    let lost = std::mem::take(&mut server.out);
    let mut now = begin;
    while server.out.is_empty() {
        let due = server.session.as_ref().unwrap().poll_timeout().unwrap();
        assert!(start.elapsed() < DEADLINE, "nothing is sent again");
        thread::sleep(due.saturating_duration_since(begin.mono + start.elapsed()));
        now = begin.after(start.elapsed());
        server.handle_timeout(now);
    }
    assert!(start.elapsed() >= Duration::from_millis(900));
    let bytes = |flight: &[Vec<u8>]| flight.iter().map(Vec::len).sum::<usize>();
    assert!(bytes(&server.out) >= bytes(&lost), "all of it, in as many datagrams as it likes");
    let next = server.session.as_ref().unwrap().poll_timeout().unwrap();
    assert_eq!(next, now.mono + Duration::from_secs(2), "twice as long");
    for datagram in std::mem::take(&mut server.out) {
        client.receive(&datagram);
    }
    settle(now, &mut client, &mut server);
    assert!(client.connected && server.is_connected());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "OpenSSL's clocks are real")]
fn sessions_begin_and_carry_data_whatever_is_lost() {
    let keys = [Kind::Rsa, Kind::P256].map(|kind| certificates(&[(kind, &["turn.example.org"])]));
    let mut calls: Vec<_> =
        (0..SEEDS).map(|seed| (seed, Call::new(seed, &keys[(seed % 2) as usize]))).collect();
    let (start, begin) = (Instant::now(), now());
    let mut lost = 0;
    while !calls.is_empty() {
        let now = begin.after(start.elapsed());
        for (_, call) in &mut calls {
            call.step(now);
        }
        calls.retain(|(_, call)| {
            let done = call.is_done();
            if done {
                assert!(call.client.plain.iter().all(|plain| plain == b"pong"));
                assert!(call.server.plain.iter().all(|plain| plain == b"ping"));
                assert_eq!(call.server.begun, 1);
                lost += call.to_server.lost + call.to_client.lost;
            }
            !done
        });
        let open: Vec<_> = calls.iter().map(|(seed, _)| seed).collect();
        assert!(start.elapsed() < DEADLINE, "not done with seeds {open:?}");
        // Gives OpenSSL's clocks time to go on.
        thread::sleep(Duration::from_millis(5));
    }
    assert!(lost > SEEDS as u32, "only {lost} datagrams were lost");
}
