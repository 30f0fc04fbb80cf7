//! Connections that are not for TURN, passed on to other servers as they come, so that
//! the web can be served on the same port.
//!
//! 1. A connection's first bytes name a backend (`opening`). The bytes are kept, a
//!    connection with the backend is begun, and nothing more is read of the client.
//! 2. It is there: a PROXY header, if the backend wants one, then what was kept.
//! 3. Bytes pass both ways ([`Flow`]) until both sides have said their last, one of
//!    them breaks, or neither has said anything for a while.
//!
//! What belongs to a passed connection lies in the client's [`Connection`] and ends with
//! it. Passing comes after everything that is TURN in a turn of the loop, and moves a
//! bounded number of bytes: downloads must not delay media.

mod health;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Worker;
use super::connection::{Connection, Layer};
use super::flow::{Flow, Progress};
use super::token::{ConnectionId, Token};
use crate::front::client_hello::{self, Peek};
use crate::front::proxy::{self, Addresses};
use crate::front::route::{self, Rule};
use crate::io::{Event, Events, Interest, TcpStream};
use crate::net::Now;
use crate::tls::{APPLICATION_PROTOCOLS, Certificates};
use health::Health;

/// Bytes that are read and written for all passed connections together per turn.
const BUDGET: usize = 512 << 10;

/// A server that connections are passed to. All workers have the same ones.
#[derive(Debug)]
pub struct Backend {
    rule: Rule,
    address: SocketAddr,
    proxy: Option<proxy::Version>,
    health: Health,
}

impl Backend {
    /// A backend at `address` for what `rule` takes; with `proxy` it is told the
    /// client's address by a PROXY protocol header.
    pub fn new(rule: Rule, address: SocketAddr, proxy: Option<proxy::Version>) -> Self {
        Self { rule, address, proxy, health: Health::default() }
    }
}

/// How a worker passes connections on.
#[derive(Clone, Debug)]
pub struct BackendLimits {
    /// Connections of this worker that are passed on at a time.
    pub connections: usize,
    /// How long connecting to a backend may take.
    pub connect: Duration,
    /// How long a passed connection may be silent on both sides.
    pub idle: Duration,
}

/// What became of connections that were for a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Passed on.
    pub connections: u64,
    /// Closed because there were too many.
    pub refused: u64,
    /// Closed because the backend could not be reached.
    pub failed: u64,
}

impl Passed {
    /// Adds what another worker did.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.refused += other.refused;
        self.failed += other.failed;
    }
}

/// The backends of a worker.
pub(super) struct Backends {
    list: Arc<[Backend]>,
    limits: BackendLimits,
    /// Connections that are passed on now.
    open: usize,
    /// Bytes that may still be moved in this turn.
    budget: usize,
    /// Passed connections with more to move that nothing will report.
    again: Vec<ConnectionId>,
    passed: Passed,
}

/// What a TLS connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Not to be told yet.
    NeedMore,
    /// For TURN, as far as anybody knows.
    Ours,
    /// For the backend of this index.
    Backend(usize),
}

/// The other half of a passed connection.
pub(super) struct Passage {
    backend: usize,
    stream: TcpStream,
    stage: Stage,
}

enum Stage {
    /// Not decided yet; what the backend gets first.
    Connecting(Vec<u8>),
    Flowing(Flow),
}

impl Backends {
    pub(super) fn new(list: Arc<[Backend]>, limits: BackendLimits) -> Self {
        Self { list, limits, open: 0, budget: 0, again: Vec::new(), passed: Passed::default() }
    }

    /// What was passed on so far.
    pub(super) fn passed(&self) -> Passed {
        self.passed
    }

    /// Whom a connection is for that begins with these bytes of TLS.
    pub(super) fn of_tls(&self, start: &[u8], certificates: Option<&Certificates>) -> Route {
        if !self.list.iter().any(|backend| backend.rule.takes_tls()) {
            return Route::Ours;
        }
        let hello = match client_hello::peek(start) {
            Peek::NeedMore => return Route::NeedMore,
            // A client that our own TLS tells what is wrong with it.
            Peek::Malformed => return Route::Ours,
            Peek::Hello(hello) => hello,
        };
        let is_own = |wanted: &str| {
            let mut names = certificates.into_iter().flat_map(Certificates::list);
            names.any(|one| one.names.iter().any(|name| route::is_for(name, wanted)))
        };
        let rules = self.list.iter().map(|backend| &backend.rule);
        route::of_hello(rules, &hello, &APPLICATION_PROTOCOLS, is_own)
            .map_or(Route::Ours, Route::Backend)
    }

    /// The backend of connections without TLS.
    pub(super) fn of_plain(&self) -> Option<usize> {
        route::of_plain(self.list.iter().map(|backend| &backend.rule))
    }

    /// A passed connection has ended.
    pub(super) fn closed(&mut self) {
        self.open -= 1;
    }

    fn failed(&mut self, index: usize, error: &io::Error, now: Now) {
        self.passed.failed += 1;
        let Backend { address, health, .. } = &self.list[index];
        if health.failed(now) {
            tracing::warn!(backend = %address, %error, "cannot reach a backend");
        } else {
            tracing::debug!(backend = %address, %error, "cannot reach a backend");
        }
    }

    fn reached(&self, index: usize, now: Now) {
        let Backend { address, health, .. } = &self.list[index];
        if health.reached(now) {
            tracing::info!(backend = %address, "a backend can be reached again");
        }
    }
}

impl Worker {
    /// Passes a connection on that has begun with `start`.
    pub(super) fn pass(&mut self, now: Now, id: ConnectionId, backend: usize, start: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let backends = &mut self.backends;
        if backends.open >= backends.limits.connections {
            backends.passed.refused += 1;
            return self.close_connection(now, id);
        }
        let to = &backends.list[backend];
        let first = what_comes_first(to, connection, start);
        let begun = TcpStream::connect(to.address).and_then(|stream| {
            stream.set_nodelay(true)?;
            let token = Token::Backend(id).encode();
            self.poll.add(&stream, token, Interest::WRITE)?;
            // What a client does not read for a while is not lost: it may be a person.
            connection.stream.set_user_timeout(backends.limits.idle)?;
            connection.watch_for(Interest::NONE, &self.poll)?;
            Ok(stream)
        });
        match begun {
            Ok(stream) => {
                backends.open += 1;
                let stage = Stage::Connecting(first);
                connection.begin_passage(Passage { backend, stream, stage }, now.mono);
                let due = now.mono + backends.limits.connect;
                self.watch(id, due);
            }
            Err(error) => {
                backends.failed(backend, &error, now);
                self.close_connection(now, id);
            }
        }
    }

    /// Goes on with the passed connections that are ready. Those that the budget
    /// leaves are ready the next time too.
    pub(super) fn on_passages(&mut self, now: Now, events: &Events) {
        if self.backends.open == 0 {
            return;
        }
        self.backends.budget = BUDGET;
        for event in events.iter() {
            if self.backends.budget == 0 {
                return;
            }
            match Token::decode(event.token) {
                Token::Connection(id) => self.on_passed_client_ready(now, id, &event),
                Token::Backend(id) => self.on_backend_ready(now, id, &event),
                _ => {}
            }
        }
    }

    /// Moves on where nothing will report that it can be done; true when there was any.
    pub(super) fn pump_passed(&mut self, now: Now) -> bool {
        let again = std::mem::take(&mut self.backends.again);
        for id in &again {
            self.pump_passage(now, *id);
        }
        !again.is_empty()
    }

    /// Ends a passed connection that has been silent for too long, or whose backend
    /// takes too long to be reached.
    pub(super) fn check_passage(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(Passage { backend, stage, .. }) = connection.passage.as_deref() else { return };
        let limits = &self.backends.limits;
        let (backend, connecting) = (*backend, matches!(stage, Stage::Connecting(_)));
        let due = connection.idle_since + if connecting { limits.connect } else { limits.idle };
        if due > now.mono {
            return self.watch(id, due);
        }
        if connecting {
            self.backends.failed(backend, &io::ErrorKind::TimedOut.into(), now);
        } else {
            self.egress.losses.closed_connections += 1;
        }
        self.close_connection(now, id);
    }

    fn on_passed_client_ready(&mut self, now: Now, id: ConnectionId, event: &Event) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(mut passage) = connection.passage.take() else { return };
        let hung_up = event.error || event.hangup;
        let gone = match &mut passage.stage {
            Stage::Connecting(_) => hung_up,
            Stage::Flowing(flow) => {
                if hung_up {
                    flow.client_hung_up(connection, &self.poll);
                }
                false
            }
        };
        connection.passage = Some(passage);
        if gone {
            self.close_connection(now, id);
        } else {
            self.pump_passage(now, id);
        }
    }

    fn on_backend_ready(&mut self, now: Now, id: ConnectionId, event: &Event) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(Passage { stream, stage, .. }) = connection.passage.as_deref_mut() else { return };
        match stage {
            Stage::Connecting(_) => self.on_backend_decided(now, id),
            Stage::Flowing(flow) => {
                if event.error || event.hangup {
                    flow.peer_hung_up(stream, &self.poll);
                }
                self.pump_passage(now, id);
            }
        }
    }

    fn on_backend_decided(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(mut passage) = connection.passage.take() else { return };
        let backend = passage.backend;
        let flow = passage.stream.connected().and_then(|()| Flow::new(connection));
        let decided = flow.map(|mut flow| {
            if let Stage::Connecting(first) = &passage.stage {
                flow.begin_with(first);
            }
            passage.stage = Stage::Flowing(flow);
        });
        connection.passage = Some(passage);
        match decided {
            Ok(()) => {
                self.backends.passed.connections += 1;
                self.backends.reached(backend, now);
                connection.idle_since = now.mono;
                self.pump_passage(now, id);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                self.backends.failed(backend, &error, now);
                self.close_connection(now, id);
            }
        }
    }

    /// Passes on what has come from either side.
    fn pump_passage(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        // Out of the connection, which the flow is about.
        let Some(mut passage) = connection.passage.take() else { return };
        let Passage { stream, stage, .. } = &mut *passage;
        let (room, scratch) = (&mut self.cipher, &mut self.egress.streams);
        let token = Token::Backend(id).encode();
        let progress = match stage {
            Stage::Connecting(_) => Ok(Progress { over: false, again: false, moved: 0 }),
            Stage::Flowing(flow) => {
                flow.go_on(connection, stream, token, room, scratch, &self.poll)
            }
        };
        connection.passage = Some(passage);
        match progress {
            Ok(Progress { over: false, again, moved }) => {
                if moved > 0 {
                    connection.idle_since = now.mono;
                }
                self.backends.budget = self.backends.budget.saturating_sub(moved);
                if again {
                    self.backends.again.push(id);
                }
            }
            Ok(_) => self.close_connection(now, id),
            Err(_) => self.break_passage(now, id),
        }
    }

    /// Ends a passed connection before its time: both sides are to know that what they
    /// got is not all.
    pub(super) fn break_passage(&mut self, now: Now, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(passage) = &connection.passage
        {
            // Sockets that are closed either way.
            let _ = connection.stream.reset_on_close();
            let _ = passage.stream.reset_on_close();
        }
        self.close_connection(now, id);
    }
}

impl Connection {
    /// Goes on as one that is passed to a backend, from `now` on.
    fn begin_passage(&mut self, passage: Passage, now: Instant) {
        // Nothing of it is for us.
        self.layer = Layer::Plain;
        self.partial = Vec::new();
        self.partial_since = None;
        self.idle_since = now;
        self.passage = Some(Box::new(passage));
    }
}

/// The PROXY header, if the backend wants one, and the client's first bytes.
fn what_comes_first(backend: &Backend, connection: &Connection, start: &[u8]) -> Vec<u8> {
    let mut first = Vec::new();
    if let Some(version) = backend.proxy {
        let five_tuple = connection.five_tuple;
        let (source, destination) = (five_tuple.client.socket(), five_tuple.server);
        proxy::write(&Addresses { source, destination }, version, &mut first);
    }
    first.extend_from_slice(start);
    first
}
