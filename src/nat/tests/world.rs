//! Host, network and server around one discovery, in virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::{Action, Discovery, Parity, Progress, Question, Report, SocketId};
use super::addr;
use super::nat::Nat;
use super::network::{Arrival, Chain, Rng};
use super::server::Server;

/// More steps than any run takes.
const MOST_STEPS: u32 = 200_000;

pub(super) struct World {
    pub(super) server: Server,
    pub(super) second: Option<Server>,
    pub(super) lifetime: Option<Duration>,
    /// Percent of datagrams that are lost, each way.
    pub(super) loss: u64,
    /// Percent that arrive twice.
    pub(super) duplicates: u64,
    /// Percent of answers that are preceded by forged ones.
    pub(super) forged: u64,
    /// What the system says to a datagram that it does not send.
    pub(super) send_error: Option<&'static str>,
    /// When to press Ctrl-C.
    pub(super) interrupt_after: Option<Duration>,
    host: SocketAddr,
    udp: Chain,
    tcp: Chain,
    rng: Rng,
}

pub(super) struct Run {
    pub(super) report: Report,
    pub(super) took: Duration,
    pub(super) news: Vec<Progress>,
}

enum Event {
    AtServer { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    AtHost { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Connected { socket: SocketId, local: SocketAddr },
    Refused { socket: SocketId },
    Stream { socket: SocketId, from: SocketAddr, bytes: Vec<u8> },
}

struct Host {
    locals: BTreeMap<SocketId, SocketAddr>,
    remotes: BTreeMap<SocketId, SocketAddr>,
    next_port: u16,
}

impl World {
    pub(super) fn new(nats: Vec<Nat>) -> Self {
        let host = if nats.is_empty() || nats[0].transparent { "203.0.113.9" } else { "10.0.0.2" };
        Self {
            server: Server::new(),
            second: None,
            lifetime: None,
            loss: 0,
            duplicates: 0,
            forged: 0,
            send_error: None,
            interrupt_after: None,
            host: addr(&format!("{host}:0")),
            udp: Chain(nats.clone()),
            tcp: Chain(nats),
            rng: Rng(0x9E37_79B9_7F4A_7C15),
        }
    }

    pub(super) fn seed(mut self, seed: u64) -> Self {
        self.rng = Rng((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        self
    }

    pub(super) fn run(mut self) -> Run {
        let start = start();
        let mut now = start;
        let question = Question {
            server: self.server.primary,
            second: self.second.as_ref().map(|second| second.primary),
            timeout: Duration::from_secs(16),
            lifetime: self.lifetime,
            seed: [3; 32],
        };
        let mut discovery = Discovery::new(now, question);
        let mut host =
            Host { locals: BTreeMap::new(), remotes: BTreeMap::new(), next_port: 40_000 };
        let mut queue: BTreeMap<(Instant, u64), Event> = BTreeMap::new();
        let (mut order, mut news) = (0, Vec::new());
        for _ in 0..MOST_STEPS {
            let mut later = Vec::new();
            while let Some(action) = discovery.poll_action() {
                if let Action::Report(progress) = action {
                    news.push(progress);
                } else {
                    self.act(now, &mut host, &mut discovery, action, &mut later);
                }
            }
            if let Some(report) = discovery.report() {
                return Run { report: report.clone(), took: now - start, news };
            }
            for (delay, event) in later {
                order += 1;
                queue.insert((now + delay, order), event);
            }
            let timeout = discovery.poll_timeout().expect("it waits for something");
            let next = queue.keys().next().map(|(at, _)| *at);
            if let Some(at) = self.interrupt_after.filter(|after| timeout > start + *after) {
                now = start + at;
                discovery.interrupt();
            } else if next.is_some_and(|at| at <= timeout) {
                let ((at, _), event) = queue.pop_first().unwrap();
                now = at;
                let mut later = Vec::new();
                self.happen(now, &mut host, &mut discovery, event, &mut later);
                for (delay, event) in later {
                    order += 1;
                    queue.insert((now + delay, order), event);
                }
            } else {
                now = now.max(timeout);
                discovery.handle_timeout(now);
            }
        }
        panic!("no end after {MOST_STEPS} steps; {:?} elapsed", now - start);
    }

    fn act(
        &mut self,
        now: Instant,
        host: &mut Host,
        discovery: &mut Discovery,
        action: Action,
        later: &mut Vec<(Duration, Event)>,
    ) {
        match action {
            Action::OpenUdp { socket, parity } => {
                let local = host.bind(socket, self.host, parity);
                discovery.handle_opened(now, socket, local);
            }
            Action::OpenTcp { socket, to, local } => {
                let local = local.unwrap_or_else(|| host.bind(socket, self.host, None));
                host.locals.insert(socket, local);
                host.remotes.insert(socket, to);
                if self.server.web_only && to.port() != 443 {
                    return;
                }
                let delay = self.delay();
                later.push((
                    delay,
                    match self.server.accepts(to) {
                        true => Event::Connected { socket, local },
                        false => Event::Refused { socket },
                    },
                ));
            }
            Action::Send { socket, to, bytes } if host.remotes.contains_key(&socket) => {
                self.send_tcp(now, host.locals[&socket], socket, to, &bytes, later);
            }
            Action::Send { socket, to, .. } if self.send_error.is_some() => {
                discovery.handle_send_error(socket, to, self.send_error.unwrap());
            }
            Action::Send { socket, to, bytes } => {
                let from = host.locals[&socket];
                let arrival = self.udp.outbound(now, from, to, bytes.len());
                let blocked = self.udp.0.iter().any(|nat| nat.blocks_udp);
                let event = match arrival {
                    _ if blocked => return,
                    Arrival::Internet(from) => Event::AtServer { from, to, bytes },
                    Arrival::Host { from, to } => Event::AtHost { from, to, bytes },
                    Arrival::Nowhere => return,
                };
                self.carry(event, later);
            }
            Action::Close { .. } | Action::Report(_) => {}
        }
    }

    fn happen(
        &mut self,
        now: Instant,
        host: &mut Host,
        discovery: &mut Discovery,
        event: Event,
        later: &mut Vec<(Duration, Event)>,
    ) {
        match event {
            Event::AtServer { from, to, bytes } => {
                let of_second = |s: &&Server| s.primary == to;
                let server = self.second.as_ref().filter(of_second).unwrap_or(&self.server);
                let Some((origin, destination, answer)) = server.on_udp(from, to, &bytes) else {
                    return;
                };
                if self.rng.percent(self.forged) {
                    self.forge(now, from, to, &answer, later);
                }
                if let Some(inside) = self.udp.inbound(now, origin, destination, answer.len()) {
                    self.carry(Event::AtHost { from: origin, to: inside, bytes: answer }, later);
                }
            }
            Event::AtHost { from, to, bytes } => {
                let socket = host
                    .locals
                    .iter()
                    .find(|(id, local)| **local == to && !host.remotes.contains_key(id));
                if let Some((socket, _)) = socket {
                    discovery.handle_receive(now, *socket, from, &bytes);
                }
            }
            Event::Connected { socket, local } => discovery.handle_opened(now, socket, local),
            Event::Refused { socket } => discovery.handle_closed(now, socket, "refused"),
            Event::Stream { socket, from, bytes } => {
                discovery.handle_receive(now, socket, from, &bytes);
            }
        }
    }

    /// The answer to another transaction from the right source, and one with the
    /// right transaction from a stranger.
    fn forge(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        answer: &[u8],
        later: &mut Vec<(Duration, Event)>,
    ) {
        let mut wrong = answer.to_vec();
        wrong[10] ^= 0xFF;
        for (origin, bytes) in [(to, wrong), (addr("192.0.2.66:666"), answer.to_vec())] {
            if let Some(inside) = self.udp.inbound(now, origin, from, bytes.len()) {
                later.push((
                    Duration::from_millis(1),
                    Event::AtHost { from: origin, to: inside, bytes },
                ));
            }
        }
    }

    fn send_tcp(
        &mut self,
        now: Instant,
        from: SocketAddr,
        socket: SocketId,
        to: SocketAddr,
        bytes: &[u8],
        later: &mut Vec<(Duration, Event)>,
    ) {
        let Arrival::Internet(outside) = self.tcp.outbound(now, from, to, 0) else { return };
        let Some(answer) = self.server.on_tcp(outside, to, bytes) else { return };
        // In two pieces, the first of which ends inside the header.
        let delay = self.delay();
        let (head, tail) = answer.split_at(5);
        for (delay, bytes) in [(delay, head), (delay + Duration::from_millis(1), tail)] {
            later.push((delay, Event::Stream { socket, from: to, bytes: bytes.to_vec() }));
        }
    }

    fn carry(&mut self, event: Event, later: &mut Vec<(Duration, Event)>) {
        if self.rng.percent(self.loss) {
            return;
        }
        if self.rng.percent(self.duplicates)
            && let Event::AtHost { from, to, bytes } = &event
        {
            let copy = Event::AtHost { from: *from, to: *to, bytes: bytes.clone() };
            later.push((self.delay(), copy));
        }
        later.push((self.delay(), event));
    }

    /// Spread enough that packets overtake each other.
    fn delay(&mut self) -> Duration {
        Duration::from_millis(5 + self.rng.below(60))
    }
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn start() -> Instant {
    Instant::now()
}

impl Host {
    fn bind(&mut self, socket: SocketId, host: SocketAddr, parity: Option<Parity>) -> SocketAddr {
        // Apart, so that what a NAT gives to one does not collide with another.
        self.next_port += 17;
        while !parity.is_none_or(|parity| parity.fits(self.next_port)) {
            self.next_port += 1;
        }
        let local = SocketAddr::new(host.ip(), self.next_port);
        self.locals.insert(socket, local);
        local
    }
}
