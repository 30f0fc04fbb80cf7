//! Sockets and the requests under way on them: who was asked what, what came back
//! and whether it may be believed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::{self, Answer, Ask, Garbage, Incoming, WireId, WireIds};
use super::{Action, Parity, Progress, SocketId};

/// Transmissions of a request that nobody answers. With a fifth of the packets lost
/// in each direction, an answer gets through all but one time in a thousand.
pub(super) const SENDS: u32 = 7;
/// Units of time until such a request is given up.
pub(super) const PATIENCE: u32 = last_word(SENDS);
/// Most bytes of a stream that wait for the rest of a message.
const STREAM_LIMIT: usize = 4096;

/// When transmission `k` is due, in units after the first: 0, 1, 3, 5, 7 and so on.
/// RFC 8489 section 6.2.1 doubles each wait; here it stays at two units, because a
/// dozen waiting requests in all are no load and somebody waits for the result.
pub(super) const fn offset(k: u32) -> u32 {
    if k == 0 { 0 } else { 2 * k - 1 }
}

/// When the last answer to `sends` transmissions is waited for, in units.
pub(super) const fn last_word(sends: u32) -> u32 {
    offset(sends - 1) + 4
}

/// Names a request and all its transmissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExchangeId(usize);

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered from where it was asked to be.
    Answered(Answer),
    /// Our request itself arrived at one of our sockets.
    Looped {
        /// The source that the socket saw.
        from: SocketAddr,
    },
    /// An error response.
    Refused { code: u16, reason: String },
    /// Answered, but from elsewhere.
    Misrouted { from: SocketAddr },
    /// Answered at another socket than the answer was to go to.
    Strayed,
    /// Nothing but bytes of no use came from there.
    Garbage(Garbage),
    /// Nothing came.
    Silence,
    /// The system would not send, or the connection failed.
    Unsendable(String),
    /// Time ran out in the middle.
    OutOfTime,
}

/// A request: what to send where, and from where and at which socket to expect the
/// answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) socket: SocketId,
    pub(super) to: SocketAddr,
    pub(super) ask: Ask,
    pub(super) answer_from: SocketAddr,
    pub(super) answer_at: SocketId,
    pub(super) sends: u32,
}

impl Request {
    /// A plain Binding request with the usual patience.
    pub(super) fn binding(socket: SocketId, to: SocketAddr) -> Self {
        let ask = Ask::Plain;
        Self { socket, to, ask, answer_from: to, answer_at: socket, sends: SENDS }
    }
}

/// All sockets and requests.
#[derive(Debug)]
pub(super) struct Exchanges {
    unit: Duration,
    ids: WireIds,
    sockets: Vec<Socket>,
    exchanges: Vec<Exchange>,
    by_wire_id: BTreeMap<WireId, ExchangeId>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Socket {
    state: SocketState,
    /// The remote end, of a TCP socket.
    peer: Option<SocketAddr>,
    stream: Vec<u8>,
}

#[derive(Debug)]
enum SocketState {
    Opening,
    Open { local: SocketAddr },
    Closed { why: String },
}

#[derive(Debug)]
struct Exchange {
    request: Request,
    bytes: Vec<u8>,
    /// The first transmission; `None` while the socket is being opened.
    started: Option<Instant>,
    sent: u32,
    /// What came that does not end the exchange, the worst of it.
    meanwhile: Option<Outcome>,
    outcome: Option<Outcome>,
}

impl Exchanges {
    pub(super) fn new(unit: Duration, seed: &[u8; 32]) -> Self {
        Self {
            unit,
            ids: WireIds::new(seed),
            sockets: Vec::new(),
            exchanges: Vec::new(),
            by_wire_id: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// The unit that all waits are multiples of.
    pub(super) fn unit(&self) -> Duration {
        self.unit
    }

    pub(super) fn open_udp(&mut self, parity: Option<Parity>) -> SocketId {
        let socket = self.add_socket(None);
        self.actions.push_back(Action::OpenUdp { socket, parity });
        socket
    }

    /// Connects, from the port of another connection if one is named.
    pub(super) fn open_tcp(&mut self, to: SocketAddr, port_of: Option<SocketId>) -> SocketId {
        let local = port_of.and_then(|socket| self.local(socket));
        let socket = self.add_socket(Some(to));
        self.actions.push_back(Action::OpenTcp { socket, to, local });
        socket
    }

    fn add_socket(&mut self, peer: Option<SocketAddr>) -> SocketId {
        let id = SocketId(u32::try_from(self.sockets.len()).expect("a few dozen sockets"));
        self.sockets.push(Socket { state: SocketState::Opening, peer, stream: Vec::new() });
        id
    }

    /// Gives a socket back to the system.
    pub(super) fn close(&mut self, socket: SocketId) {
        self.actions.push_back(Action::Close { socket });
    }

    /// Tells whoever waits.
    pub(super) fn tell(&mut self, news: Progress) {
        self.actions.push_back(Action::Report(news));
    }

    /// Where a socket is bound, once it is open.
    pub(super) fn local(&self, socket: SocketId) -> Option<SocketAddr> {
        match self.sockets[socket.index()].state {
            SocketState::Open { local } => Some(local),
            _ => None,
        }
    }

    /// Starts a request, now or as soon as its socket is open.
    pub(super) fn ask(&mut self, now: Instant, request: Request) -> ExchangeId {
        let exchange_id = ExchangeId(self.exchanges.len());
        let id = self.ids.next_id();
        let mut exchange = Exchange {
            request,
            bytes: wire::encode(request.ask, id),
            started: None,
            sent: 0,
            meanwhile: None,
            outcome: None,
        };
        match &self.sockets[request.socket.index()].state {
            SocketState::Opening => {}
            SocketState::Open { .. } => exchange.started = Some(now),
            SocketState::Closed { why } => {
                exchange.outcome = Some(Outcome::Unsendable(why.clone()));
            }
        }
        self.by_wire_id.insert(id, exchange_id);
        self.exchanges.push(exchange);
        self.transmit_due(now);
        exchange_id
    }

    /// How a request ended, `None` while it is under way.
    pub(super) fn outcome(&self, id: ExchangeId) -> Option<&Outcome> {
        self.exchanges[id.0].outcome.as_ref()
    }

    /// The answer, if that is how it ended.
    pub(super) fn answer(&self, id: ExchangeId) -> Option<&Answer> {
        match self.outcome(id) {
            Some(Outcome::Answered(answer)) => Some(answer),
            _ => None,
        }
    }

    /// What came so far that is not the answer.
    pub(super) fn meanwhile(&self, id: ExchangeId) -> Option<&Outcome> {
        self.exchanges[id.0].meanwhile.as_ref()
    }

    /// Whether all of these have ended.
    pub(super) fn all_over(&self, ids: &[ExchangeId]) -> bool {
        ids.iter().all(|id| self.outcome(*id).is_some())
    }

    /// Ends a request whose answer is no longer of interest.
    pub(super) fn stop(&mut self, id: ExchangeId) {
        self.exchanges[id.0].outcome.get_or_insert(Outcome::OutOfTime);
    }

    /// Ends everything.
    pub(super) fn stop_all(&mut self) {
        for exchange in &mut self.exchanges {
            exchange.outcome.get_or_insert(Outcome::OutOfTime);
        }
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When something is to be sent or given up.
    pub(super) fn due(&self) -> Option<Instant> {
        self.exchanges.iter().filter_map(|exchange| exchange.due(self.unit)).min()
    }
}

/// Inputs.
impl Exchanges {
    pub(super) fn handle_opened(&mut self, now: Instant, socket: SocketId, local: SocketAddr) {
        self.sockets[socket.index()].state = SocketState::Open { local };
        for exchange in self.on(socket) {
            exchange.started.get_or_insert(now);
        }
        self.transmit_due(now);
    }

    pub(super) fn handle_closed(&mut self, socket: SocketId, why: &str) {
        self.sockets[socket.index()].state = SocketState::Closed { why: why.to_owned() };
        for exchange in self.on(socket) {
            let last = exchange.meanwhile.take();
            let outcome = last.unwrap_or_else(|| Outcome::Unsendable(why.to_owned()));
            exchange.outcome.get_or_insert(outcome);
        }
    }

    /// A datagram could not be sent. The exchange goes on: the next one may.
    pub(super) fn handle_send_error(&mut self, socket: SocketId, to: SocketAddr, why: &str) {
        for exchange in self.on(socket).filter(|exchange| exchange.request.to == to) {
            exchange.meanwhile.get_or_insert_with(|| Outcome::Unsendable(why.to_owned()));
        }
    }

    pub(super) fn handle_receive(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        let Some(peer) = self.sockets[socket.index()].peer else {
            return self.handle_message(socket, from, bytes);
        };
        if !matches!(self.sockets[socket.index()].state, SocketState::Open { .. }) {
            return; // given up already
        }
        self.sockets[socket.index()].stream.extend_from_slice(bytes);
        loop {
            let stream = &mut self.sockets[socket.index()].stream;
            match wire::message_length(stream) {
                Ok(Some(length)) if stream.len() >= length => {
                    let message: Vec<u8> = stream.drain(..length).collect();
                    self.handle_message(socket, peer, &message);
                }
                Ok(_) if stream.len() < STREAM_LIMIT => break,
                Ok(_) => return self.give_up(socket, peer, Garbage::NotStun),
                Err(garbage) => return self.give_up(socket, peer, garbage),
            }
        }
    }

    /// Nothing of use can follow on a stream that has gone astray, however much does.
    fn give_up(&mut self, socket: SocketId, peer: SocketAddr, garbage: Garbage) {
        self.handle_garbage(socket, peer, garbage);
        self.sockets[socket.index()].stream = Vec::new();
        self.handle_closed(socket, "the server sent bytes that are no STUN message");
        self.close(socket);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.transmit_due(now);
    }

    fn handle_message(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        let (id, incoming) = match wire::decode(bytes) {
            Ok(decoded) => decoded,
            Err(garbage) => return self.handle_garbage(socket, from, garbage),
        };
        let Some(ExchangeId(index)) = self.by_wire_id.get(&id).copied() else {
            return self.handle_garbage(socket, from, Garbage::OtherTransaction);
        };
        let exchange = &mut self.exchanges[index];
        if exchange.outcome.is_some() {
            return; // a duplicate, or too late
        }
        match exchange.judge(socket, from, incoming) {
            (true, outcome) => exchange.outcome = Some(outcome),
            (false, outcome) => exchange.meanwhile = Some(outcome),
        }
    }

    /// Counts only from where an answer is expected, and only if none comes.
    fn handle_garbage(&mut self, socket: SocketId, from: SocketAddr, garbage: Garbage) {
        for exchange in self.on(socket) {
            if exchange.outcome.is_none() && same_endpoint(exchange.request.answer_from, from) {
                exchange.meanwhile.get_or_insert(Outcome::Garbage(garbage));
            }
        }
    }

    fn on(&mut self, socket: SocketId) -> impl Iterator<Item = &mut Exchange> {
        self.exchanges.iter_mut().filter(move |exchange| exchange.request.socket == socket)
    }

    fn transmit_due(&mut self, now: Instant) {
        let Self { exchanges, sockets, actions, unit, .. } = self;
        for exchange in exchanges {
            let is_stream = sockets[exchange.request.socket.index()].peer.is_some();
            while exchange.due(*unit).is_some_and(|due| due <= now) {
                if exchange.sent >= exchange.request.sends {
                    let outcome = exchange.meanwhile.take().unwrap_or(Outcome::Silence);
                    exchange.outcome = Some(outcome);
                    break;
                }
                let again = exchange.sent > 0;
                exchange.sent += 1;
                // A stream delivers or breaks; only the waiting is the same.
                if !(is_stream && again) {
                    let Request { socket, to, .. } = exchange.request;
                    let bytes = exchange.bytes.clone();
                    actions.push_back(Action::Send { socket, to, bytes });
                }
            }
        }
    }
}

impl Exchange {
    fn due(&self, unit: Duration) -> Option<Instant> {
        let units = if self.sent < self.request.sends {
            offset(self.sent)
        } else {
            last_word(self.request.sends)
        };
        self.started.filter(|_| self.outcome.is_none()).map(|started| started + unit * units)
    }

    /// What a message with this transaction id means, and whether it is final.
    fn judge(&self, socket: SocketId, from: SocketAddr, incoming: Incoming) -> (bool, Outcome) {
        let expected = same_endpoint(from, self.request.answer_from);
        match incoming {
            Incoming::Request if expected && socket == self.request.socket => {
                (false, Outcome::Garbage(Garbage::NotBinding))
            }
            Incoming::Request => (true, Outcome::Looped { from }),
            Incoming::Success(_) if socket != self.request.answer_at => (false, Outcome::Strayed),
            Incoming::Success(answer) if expected => (true, Outcome::Answered(answer)),
            Incoming::Success(_) => (false, Outcome::Misrouted { from }),
            // An error comes from where the request went, whatever it asked for.
            Incoming::Error { code, reason } => {
                let asked = same_endpoint(from, self.request.to);
                (asked || expected, Outcome::Refused { code, reason })
            }
        }
    }
}

/// Scope and flow label of IPv6 do not tell endpoints apart here.
pub(super) fn same_endpoint(a: SocketAddr, b: SocketAddr) -> bool {
    (a.ip(), a.port()) == (b.ip(), b.port())
}
