//! NAT behaviour discovery (RFC 5780): what kind of NAT a client is behind.
//!
//! The client's procedure as a state machine without sockets. It speaks through
//! the crate `stun-rs` and shares no codec with the server, whose side of the
//! usage is part of the core (`turn/request/discovery`).
//!
//! # Contract
//!
//! [`Discovery::new`], then: do what [`Discovery::poll_action`] says until it says
//! nothing more, and wait for [`Discovery::poll_timeout`] or a packet, whichever
//! comes first. What happens goes in: [`Discovery::handle_opened`],
//! [`Discovery::handle_closed`], [`Discovery::handle_send_error`],
//! [`Discovery::handle_receive`], [`Discovery::handle_timeout`]. At the end
//! [`Discovery::report`] has the facts; [`classify`] and [`calls`] read them.
//!
//! # Flow
//!
//! 1. Contact: a Binding request over UDP, and one over TCP in parallel. If only TCP
//!    answers, at the same port or at 443, UDP is blocked. An OTHER-ADDRESS that
//!    cannot be true ends the discovery.
//! 2. Tests, all at once and each on sockets of its own, since what one sends would
//!    open the filter that another is about to measure: mapping, filtering, ports,
//!    hairpinning, fragments, TCP mapping.
//! 3. If asked for: the lifetime of a mapping, which takes as long as it lives.
//!
//! An answer is proof; silence is believed only while the same socket is answered
//! otherwise and the silent address has answered somebody else.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod advertised;
mod behaviour;
mod exchange;
mod report;
mod verdict;
mod wire;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use behaviour::{
    Alive, FilteringTest, FragmentsTest, HairpinTest, LifetimeTest, MappingTest, PortsTest, Target,
    TcpTest,
};
use exchange::{ExchangeId, Exchanges, Outcome as Ended, Request};

pub use advertised::{Lie, LieKind};
pub use report::{
    Contact, Filtering, Finding, Fragments, Hairpin, Lifetime, Mapping, Misbehaviour, Misrouted,
    Pooling, Ports, Report, Unknown,
};
pub use verdict::{Outcome, calls, classify};

/// The longest way through the tests, in units of time: hairpinning in three
/// exchanges after the contact, and some slack for the shell.
const UNITS: u32 = 4 * exchange::PATIENCE + 4;
/// Exchanges in a row that a lifetime takes, besides the wait.
const LIFETIME_EXCHANGES: u32 = 6;
/// Where TCP passes when nothing else does.
const HTTPS: u16 = 443;

/// What to find out.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// A server, best one with RFC 5780.
    pub server: SocketAddr,
    /// Another STUN server, of use if the first has one address only.
    pub second: Option<SocketAddr>,
    /// Bound on the whole discovery without the lifetime. All waits are fractions
    /// of it; a request is first repeated after 1/64 of it.
    pub timeout: Duration,
    /// Measure the lifetime of a mapping, up to this.
    pub lifetime: Option<Duration>,
    /// Source of all transaction ids.
    pub seed: [u8; 32],
}

impl Question {
    /// The longest that the lifetime may take on top of `timeout`: what is asked before
    /// and behind the longest wait may go unanswered, too.
    pub fn longest_lifetime(&self) -> Option<Duration> {
        let around = self.timeout / UNITS * LIFETIME_EXCHANGES * exchange::PATIENCE;
        self.lifetime.map(|longest| longest + around)
    }
}

/// Names a socket. They are numbered from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(u32);

impl SocketId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Parity of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// 0, 2, 4, ...
    Even,
    /// 1, 3, 5, ...
    Odd,
}

impl Parity {
    /// Whether a port is of this parity.
    pub fn fits(self, port: u16) -> bool {
        port.is_multiple_of(2) == (self == Self::Even)
    }
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bind a UDP socket to a port that no other socket here has had, and say
    /// [`Discovery::handle_opened`] or [`Discovery::handle_closed`].
    OpenUdp {
        /// Its name from now on.
        socket: SocketId,
        /// The parity of its port; if no such port is free, any port.
        parity: Option<Parity>,
    },
    /// Connect a TCP socket, and say the same. It shares its port with others, so
    /// SO_REUSEADDR and SO_REUSEPORT are to be set.
    OpenTcp {
        /// Its name from now on.
        socket: SocketId,
        /// The other end.
        to: SocketAddr,
        /// The local address, if not any.
        local: Option<SocketAddr>,
    },
    /// Send a datagram, or bytes on the stream.
    Send {
        /// From here.
        socket: SocketId,
        /// There.
        to: SocketAddr,
        /// This.
        bytes: Vec<u8>,
    },
    /// Close a socket.
    Close {
        /// This one.
        socket: SocketId,
    },
    /// Tell whoever waits.
    Report(Progress),
}

/// News for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The measurement of the lifetime starts; it ends at the latest after this.
    MeasuringLifetime {
        /// The longest wait.
        longest: Duration,
    },
    /// A mapping was alive after so long without a packet.
    MappingAlive {
        /// So long.
        after: Duration,
    },
    /// A mapping was gone after so long without a packet.
    MappingGone {
        /// So long.
        after: Duration,
    },
}

/// The procedure.
#[derive(Debug)]
pub struct Discovery {
    question: Question,
    deadline: Instant,
    exchanges: Exchanges,
    phase: Phase,
    report: Report,
}

#[derive(Debug)]
enum Phase {
    Contact(ContactPhase),
    Tests(Box<TestsPhase>),
    Lifetime(Box<LifetimeTest>),
    Done,
}

#[derive(Debug)]
struct ContactPhase {
    socket: SocketId,
    udp: ExchangeId,
    tcp: (SocketId, ExchangeId),
    https: Option<ExchangeId>,
}

#[derive(Debug)]
struct TestsPhase {
    target: Target,
    mapping: MappingTest,
    filtering: FilteringTest,
    ports: PortsTest,
    hairpin: HairpinTest,
    fragments: FragmentsTest,
    tcp: TcpTest,
}

impl Discovery {
    /// Starts; the first actions are ready.
    pub fn new(now: Instant, question: Question) -> Self {
        let mut exchanges = Exchanges::new(question.timeout / UNITS, &question.seed);
        let server = question.server;
        let socket = exchanges.open_udp(None);
        let udp = exchanges.ask(now, Request::binding(socket, server));
        let tcp_socket = exchanges.open_tcp(server, None);
        let tcp = exchanges.ask(now, Request::binding(tcp_socket, server));
        let contact = ContactPhase { socket, udp, tcp: (tcp_socket, tcp), https: None };
        Self {
            question,
            deadline: now + question.timeout,
            exchanges,
            phase: Phase::Contact(contact),
            report: Report::new(server, question.second),
        }
    }

    /// A socket was opened and is bound to `local`.
    pub fn handle_opened(&mut self, now: Instant, socket: SocketId, local: SocketAddr) {
        self.exchanges.handle_opened(now, socket, local);
        self.step(now);
    }

    /// A socket could not be opened, or a connection ended.
    pub fn handle_closed(&mut self, now: Instant, socket: SocketId, why: &str) {
        self.exchanges.handle_closed(socket, why);
        self.step(now);
    }

    /// The system refused to send a datagram.
    pub fn handle_send_error(&mut self, socket: SocketId, to: SocketAddr, why: &str) {
        self.exchanges.handle_send_error(socket, to, why);
    }

    /// A datagram arrived, or bytes of a stream.
    pub fn handle_receive(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        bytes: &[u8],
    ) {
        self.exchanges.handle_receive(socket, from, bytes);
        self.step(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.exchanges.handle_timeout(now);
        if now >= self.deadline && !matches!(self.phase, Phase::Lifetime(_)) {
            self.exchanges.stop_all();
        }
        self.step(now);
    }

    /// Ends the discovery with what is known so far.
    pub fn interrupt(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Done => {}
            Phase::Contact(_) => self.report.contact = Contact::Interrupted,
            Phase::Tests(tests) => self.conclude(&tests),
            Phase::Lifetime(test) => self.report.lifetime = test.finding(),
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.exchanges.poll_action()
    }

    /// When [`Discovery::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Done => return None,
            Phase::Contact(_) => Some(self.deadline),
            Phase::Tests(tests) => {
                let due = tests.filtering.due(self.exchanges.unit());
                due.into_iter().chain([self.deadline]).min()
            }
            Phase::Lifetime(test) => test.due(),
        };
        own.into_iter().chain(self.exchanges.due()).min()
    }

    /// The facts, once there are no more to come.
    pub fn report(&self) -> Option<&Report> {
        matches!(self.phase, Phase::Done).then_some(&self.report)
    }
}

impl Discovery {
    /// Goes on as far as what is known allows.
    fn step(&mut self, now: Instant) {
        loop {
            let next = match &mut self.phase {
                Phase::Done => return,
                Phase::Contact(_) => self.step_contact(now),
                Phase::Tests(tests) => match tests.step(now, &mut self.exchanges) {
                    true => Some(self.finish_tests(now)),
                    false => None,
                },
                Phase::Lifetime(test) => match test.step(now, &mut self.exchanges) {
                    true => {
                        self.report.lifetime = test.finding();
                        Some(Phase::Done)
                    }
                    false => None,
                },
            };
            match next {
                Some(phase) => self.phase = phase,
                None => return,
            }
        }
    }

    fn step_contact(&mut self, now: Instant) -> Option<Phase> {
        let Phase::Contact(contact) = &mut self.phase else { return None };
        let (socket, tcp) = (contact.socket, contact.tcp);
        self.report.local = self.exchanges.local(socket);
        let outcome = self.exchanges.outcome(contact.udp)?.clone();
        self.report.contact = match outcome {
            Ended::Answered(answer) => {
                self.report.contact = Contact::Udp;
                self.report.mapped = Some(answer.mapped);
                self.report.software = answer.software;
                self.report.other_address = answer.other;
                self.report.response_origin = answer.origin;
                return Some(self.start_tests(now, socket, tcp, answer.mapped));
            }
            Ended::Refused { code, reason } => {
                Contact::Misbehaves(Misbehaviour::Error { code, reason })
            }
            Ended::Misrouted { from } => Contact::Misbehaves(Misbehaviour::AnswersFrom { from }),
            Ended::Garbage(what) => {
                Contact::Misbehaves(Misbehaviour::Garbage { what: what.to_string() })
            }
            ended => match contact.over_tcp(now, &mut self.exchanges, self.question.server)? {
                Contact::Nothing => match ended {
                    Ended::Unsendable(why) => Contact::Local { why },
                    _ => Contact::Nothing,
                },
                over_tcp => over_tcp,
            },
        };
        Some(Phase::Done)
    }

    fn start_tests(
        &mut self,
        now: Instant,
        socket: SocketId,
        (tcp_socket, tcp): (SocketId, ExchangeId),
        mapped: SocketAddr,
    ) -> Phase {
        let primary = self.question.server;
        let origin = self.report.response_origin;
        let locate = |other| advertised::locate(primary, origin, mapped, other);
        let other = match self.report.other_address.map_or(Ok(None), locate) {
            Ok(other) => other,
            Err(lie) => {
                self.report.contact = Contact::Misbehaves(Misbehaviour::Lies(lie));
                return Phase::Done;
            }
        };
        let target = Target { primary, other };
        let exchanges = &mut self.exchanges;
        Phase::Tests(Box::new(TestsPhase {
            target,
            mapping: MappingTest::new(socket, target, mapped, self.question.second),
            filtering: FilteringTest::new(now, exchanges, target),
            ports: PortsTest::new(now, exchanges, target),
            hairpin: HairpinTest::new(now, exchanges, target),
            fragments: FragmentsTest::new(now, exchanges, target),
            tcp: TcpTest::new(target, tcp_socket, tcp),
        }))
    }

    fn finish_tests(&mut self, now: Instant) -> Phase {
        let Phase::Tests(tests) = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Phase::Done;
        };
        self.conclude(&tests);
        let Some(longest) = self.question.lifetime else { return Phase::Done };
        if self.report.is_untranslated() == Some(true)
            && self.report.filtering == Finding::Known(Filtering::EndpointIndependent)
        {
            self.report.lifetime = Finding::Unknown(Unknown::NoNat);
            return Phase::Done;
        }
        let test = LifetimeTest::new(now, &mut self.exchanges, tests.target, longest);
        Phase::Lifetime(Box::new(test))
    }

    fn conclude(&mut self, tests: &TestsPhase) {
        let exchanges = &self.exchanges;
        let alive: Alive = tests.mapping.alive(exchanges);
        let report = &mut self.report;
        report.mapping = tests.mapping.finding(exchanges);
        report.filtering = tests.filtering.finding(exchanges, alive);
        report.misrouted = tests.filtering.misrouted(exchanges);
        report.ports = tests.ports.ports(exchanges);
        report.pooling = tests.ports.pooling(exchanges);
        report.hairpin = tests.hairpin.finding(exchanges);
        report.request_fragments = tests.fragments.requests(exchanges);
        report.response_fragments = tests.fragments.responses(exchanges);
        report.tcp_mapping = tests.tcp.finding(exchanges);
    }
}

impl ContactPhase {
    /// What TCP says when UDP is silent; `None` while it has not said.
    fn over_tcp(
        &mut self,
        now: Instant,
        exchanges: &mut Exchanges,
        server: SocketAddr,
    ) -> Option<Contact> {
        let (_, tcp) = self.tcp;
        // At once: a firewall that drops what it does not like lets the first
        // connection wait for longer than there is time.
        let https = *self.https.get_or_insert_with(|| {
            let to = SocketAddr::new(server.ip(), HTTPS);
            let socket = exchanges.open_tcp(to, None);
            exchanges.ask(now, Request::binding(socket, to))
        });
        match exchanges.outcome(tcp) {
            Some(Ended::Answered(_)) => return Some(Contact::TcpOnly { port: server.port() }),
            Some(Ended::Refused { code, reason }) => {
                let (code, reason) = (*code, reason.clone());
                return Some(Contact::Misbehaves(Misbehaviour::Error { code, reason }));
            }
            Some(Ended::Garbage(what)) => {
                let what = what.to_string();
                return Some(Contact::Misbehaves(Misbehaviour::Garbage { what }));
            }
            _ => {}
        }
        // Whatever else is there need not speak STUN: nobody said it would.
        match exchanges.outcome(https) {
            Some(Ended::Answered(_)) => Some(Contact::TcpOnly { port: HTTPS }),
            Some(_) if exchanges.outcome(tcp).is_some() => Some(Contact::Nothing),
            _ => None,
        }
    }
}

impl TestsPhase {
    /// Every test goes on as far as it can; true when all are over.
    fn step(&mut self, now: Instant, exchanges: &mut Exchanges) -> bool {
        [
            self.mapping.step(now, exchanges),
            self.filtering.step(now, exchanges),
            self.ports.step(exchanges),
            self.hairpin.step(now, exchanges),
            self.fragments.step(now, exchanges),
            self.tcp.step(now, exchanges),
        ]
        .iter()
        .all(|over| *over)
    }
}
