//! One worker: a thread that owns one shard of everything.
//!
//! Its listeners (SO_REUSEPORT: the kernel keeps a five-tuple on one worker), its
//! core [`Server`], relay sockets, connections, timers and counters. Workers share
//! nothing but the port table, which is lock-free; what crosses goes through
//! bounded mailboxes.
//!
//! # The loop
//!
//! One wait for everything, then in this order, each with a budget per turn:
//!
//! 1. packets: UDP listeners first, then relay sockets, some of each ready socket;
//! 2. streams: one read of each ready connection;
//! 3. messages of other workers;
//! 4. new connections;
//! 5. connections that are passed on to a backend;
//! 6. timers.
//!
//! Packets lie in the arena until `flush` has sent what became of
//! them; then the arena is empty again. What the core asks for in between is
//! carried out in `effects`.

mod backend;
mod clock;
mod connection;
mod dtls;
mod effects;
mod egress;
mod flow;
mod mailbox;
mod opening;
mod packets;
mod ports;
mod relay_sockets;
mod stop;
mod streams;
mod tcp_relay;
mod token;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::io::{Arena, Events, Interest, Poll, RecvBatch};
use crate::net::{HashSeed, Now};
use crate::tls::Certificates;
use crate::turn::{Counters, MAX_REPLY, Server, Wheel};

use backend::Backends;
use clock::Clock;
use connection::Connections;
use dtls::DtlsClients;
use egress::Egress;
use relay_sockets::RelaySockets;
use tcp_relay::TcpRelays;
use token::{ConnectionId, Token};

pub use backend::{Backend, BackendLimits, Passed};
pub use dtls::DtlsLimits;
pub use mailbox::{Mail, Mailbox, Post};
pub use packets::DatagramListener;
pub use ports::PortTable;
pub use relay_sockets::{Held, RelayConfig};
pub use streams::StreamListener;
pub use tcp_relay::Moving;

/// Packet buffers of a worker. A turn of the loop flushes when they run out.
const SLOTS: usize = 512;

/// Readiness events taken per turn.
const EVENTS: usize = 1024;

/// Datagrams taken from all relay sockets together per turn: what peers send must
/// not keep clients waiting.
const RELAY_BUDGET: usize = 2048;

/// Bytes read from a TLS client at once: a few records.
const CIPHER: usize = 64 << 10;

/// Connections accepted per turn and listener.
const ACCEPTS: usize = 16;

/// How long accepting pauses when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How the worker treats stream clients.
#[derive(Clone, Debug)]
pub struct StreamLimits {
    /// Connections of this worker.
    pub connections: usize,
    /// How long a connection may be without an allocation.
    pub idle: Duration,
    /// How long a frame that has begun may take to complete.
    pub frame: Duration,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// Bytes that may wait for a slow client.
    pub queue: usize,
    /// Whose PROXY protocol headers are believed.
    pub proxies: Vec<IpNet>,
}

/// What a worker is made of.
pub struct Parts {
    /// Its number and its core.
    pub core: Server,
    /// Number of this worker.
    pub index: u16,
    /// Its sockets for clients.
    pub udp: Vec<DatagramListener>,
    /// Its listeners for clients.
    pub tcp: Vec<StreamListener>,
    /// The certificates of TLS and DTLS; `None`: neither is served.
    pub certificates: Option<Arc<Certificates>>,
    /// Where its relay sockets are opened.
    pub relay: RelayConfig,
    /// How it treats stream clients.
    pub streams: StreamLimits,
    /// How it treats DTLS clients.
    pub dtls: DtlsLimits,
    /// Where connections go that are not for TURN.
    pub backends: Arc<[Backend]>,
    /// How it passes them on.
    pub passing: BackendLimits,
    /// The hasher of its maps.
    pub seed: HashSeed,
    /// Its mailbox.
    pub mailbox: Mailbox,
    /// The mailboxes of all workers, by number.
    pub posts: Vec<Post>,
}

/// A worker, ready to run.
pub struct Worker {
    core: Server,
    poll: Poll,
    arena: Arena,
    received: RecvBatch,
    egress: Egress,
    udp: Vec<packets::UdpListener>,
    tcp: Vec<StreamListener>,
    relays: RelaySockets,
    tcp_relays: TcpRelays,
    /// Connections with peers whose bytes may pass once the answers have gone.
    spliced: Vec<ConnectionId>,
    connections: Connections,
    backends: Backends,
    certificates: Option<Arc<Certificates>>,
    dtls: DtlsClients,
    /// What was read from a TLS client, and what it means.
    cipher: Box<[u8]>,
    plain: Vec<u8>,
    /// Where the core writes answers to stream clients, which are packed from here.
    reply: Box<[u8; MAX_REPLY]>,
    /// Wakes connections to look at their deadlines.
    stream_timers: Wheel<Token>,
    limits: StreamLimits,
    mail: mailbox::Exchange,
    clock: Clock,
    accept_paused_until: Option<Instant>,
    stopping: bool,
}

/// What a worker did, told at its end.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What its core counted.
    pub core: Counters,
    /// What its sockets lost.
    pub losses: Losses,
    /// What it passed on to backends.
    pub passed: Passed,
}

impl Summary {
    /// Adds what another worker did.
    pub fn add(&mut self, other: &Self) {
        self.core.add(&other.core);
        self.passed.add(&other.passed);
        let (mine, others) = (&mut self.losses, other.losses);
        mine.send_buffer_full += others.send_buffer_full;
        mine.send_refused += others.send_refused;
        mine.truncated += others.truncated;
        mine.slow_client += others.slow_client;
        mine.gone += others.gone;
        mine.no_relay += others.no_relay;
        mine.no_listener += others.no_listener;
        mine.refused_connections += others.refused_connections;
        mine.closed_connections += others.closed_connections;
        mine.tls_failures += others.tls_failures;
        mine.no_session += others.no_session;
    }
}

/// Packets that were lost around the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Datagrams for which a send buffer had no room.
    pub send_buffer_full: u64,
    /// Datagrams that the kernel refused: too large, no route.
    pub send_refused: u64,
    /// Datagrams longer than a buffer.
    pub truncated: u64,
    /// Frames dropped because a stream client was too slow.
    pub slow_client: u64,
    /// Messages for a connection that is gone.
    pub gone: u64,
    /// Datagrams to a relay port of this server that no relay socket has.
    pub no_relay: u64,
    /// Answers from an address of NAT discovery on which this worker does not listen.
    pub no_listener: u64,
    /// Connections refused because there are too many.
    pub refused_connections: u64,
    /// Connections closed for what they sent, or did not send in time.
    pub closed_connections: u64,
    /// Sessions of TLS or DTLS that failed.
    pub tls_failures: u64,
    /// Datagrams that belong to no DTLS session, or should.
    pub no_session: u64,
}

impl Worker {
    /// Registers the sockets of a worker. Nothing is read before
    /// [`run`](Self::run).
    ///
    /// # Errors
    /// When the kernel has no room for the event queue.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut udp = Vec::new();
        for (index, listener) in parts.udp.into_iter().enumerate() {
            let listener = packets::UdpListener::new(listener)?;
            poll.add(&listener.socket, Token::Udp(index as u32).encode(), Interest::READ)?;
            udp.push(listener);
        }
        let mut tcp = Vec::new();
        for (index, listener) in parts.tcp.into_iter().enumerate() {
            poll.add(&listener.socket, Token::Tcp(index as u32).encode(), Interest::READ)?;
            tcp.push(listener);
        }
        poll.add(parts.mailbox.waker(), Token::Mailbox.encode(), Interest::READ)?;
        let clock = Clock::start();
        Ok(Self {
            core: parts.core,
            poll,
            arena: Arena::new(SLOTS)?,
            received: RecvBatch::new(),
            egress: Egress::new(udp.len(), SLOTS),
            udp,
            tcp,
            relays: RelaySockets::new(parts.relay),
            tcp_relays: TcpRelays::default(),
            spliced: Vec::new(),
            connections: Connections::new(parts.streams.connections),
            backends: Backends::new(parts.backends, parts.passing),
            certificates: parts.certificates,
            dtls: DtlsClients::new(parts.dtls, parts.seed),
            cipher: vec![0; CIPHER].into(),
            plain: Vec::new(),
            reply: Box::new([0; MAX_REPLY]),
            stream_timers: Wheel::new(clock.read().mono),
            limits: parts.streams,
            mail: mailbox::Exchange::new(parts.index, parts.mailbox, parts.posts),
            clock,
            accept_paused_until: None,
            stopping: false,
        })
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// When waiting for events fails, which no correct program sees.
    pub fn run(mut self) -> io::Result<Summary> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stopping {
            let timeout = self.timeout();
            self.poll.wait(&mut events, timeout)?;
            let now = self.clock.read();
            self.turn(now, &events);
        }
        Ok(self.stop(&mut events))
    }

    fn turn(&mut self, now: Now, events: &Events) {
        let (mut streams, mut control) = (false, false);
        // 1. packets
        for event in events.iter() {
            match Token::decode(event.token) {
                Token::Relay(_) => {}
                Token::Udp(index) => self.on_udp_ready(now, index as usize),
                Token::Connection(_) | Token::Peer(_) => streams = true,
                Token::Tcp(_) | Token::TcpRelay(_) | Token::Mailbox => control = true,
                // They are woken by timers.
                Token::Dtls(_) => {}
                Token::Backend(_) => {}
            }
        }
        self.on_relays(now, events);
        // 2. streams
        if streams {
            for event in events.iter() {
                match Token::decode(event.token) {
                    Token::Connection(id) => self.on_connection_ready(now, id, &event),
                    Token::Peer(id) => self.on_peer_ready(now, id, &event),
                    _ => {}
                }
            }
        }
        self.carry_out(now);
        self.flush(now);
        if control {
            self.on_control(now, events);
        }
        // 5. connections that are passed on
        self.on_passages(now, events);
        // 6. timers
        self.on_timers(now);
        self.finish(now);
        self.mail.deliver();
    }

    /// Reads the ready relay sockets, each once. Those that the budget leaves come
    /// first the next time.
    fn on_relays(&mut self, now: Now, events: &Events) {
        for event in events.iter() {
            if let Token::Relay(relay) = Token::decode(event.token) {
                self.relays.add_ready(relay, event.error);
            }
        }
        let mut budget = RELAY_BUDGET;
        for _ in 0..self.relays.ready_count() {
            if budget == 0 {
                return;
            }
            let Some((relay, has_error)) = self.relays.next_ready() else { return };
            budget = budget.saturating_sub(self.on_relay_ready(now, relay, has_error, budget));
        }
    }

    /// Does and sends what is left: sending may close a connection, which leaves
    /// something to do.
    fn finish(&mut self, now: Now) {
        self.carry_out(now);
        while self.flush(now) || self.pump_spliced(now) || self.pump_passed(now) {
            self.carry_out(now);
        }
    }

    /// 3. messages of other workers, 4. new connections.
    fn on_control(&mut self, now: Now, events: &Events) {
        for event in events.iter() {
            if Token::decode(event.token) == Token::Mailbox {
                self.on_mail(now);
            }
        }
        for event in events.iter() {
            match Token::decode(event.token) {
                Token::Tcp(index) => self.on_accept_ready(now, index as usize),
                Token::TcpRelay(index) => self.on_tcp_relay_ready(now, index),
                _ => {}
            }
        }
        self.carry_out(now);
    }

    fn on_timers(&mut self, now: Now) {
        if self.core.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.core.handle_timeout(now);
        }
        if self.stream_timers.next().is_some_and(|at| at <= now.mono) {
            self.on_stream_timers(now);
        }
        if self.accept_paused_until.is_some_and(|at| at <= now.mono) {
            self.resume_accepting();
        }
    }

    /// How long the next wait may take.
    fn timeout(&self) -> Option<Duration> {
        if self.relays.ready_count() > 0 {
            return Some(Duration::ZERO);
        }
        let deadlines =
            [self.core.poll_timeout(), self.stream_timers.next(), self.accept_paused_until];
        let wait = deadlines.into_iter().flatten().min().map(|at| self.clock.until(at));
        match self.mail.retry_after() {
            Some(retry) => Some(wait.map_or(retry, |wait| wait.min(retry))),
            None => wait,
        }
    }

    /// Sends everything that lies in the arena, then empties it. True when that
    /// closed connections.
    fn flush(&mut self, now: Now) -> bool {
        let broken = self.egress.flush(
            &mut self.arena,
            &self.udp,
            &mut self.relays,
            &mut self.connections,
            &self.poll,
        );
        let closed = !broken.is_empty();
        for id in broken {
            self.close_connection(now, id);
        }
        closed
    }

    /// Makes room in the arena for at least `slots` packets.
    fn make_room(&mut self, now: Now, slots: usize) {
        if self.arena.free_slots() < slots {
            self.carry_out(now);
            self.flush(now);
        }
    }
}
