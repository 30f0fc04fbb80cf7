//! The core: everything RFC 8656 says, as one state machine per shard.
//!
//! # Contract
//!
//! Packets go in through [`Server::on_client`] and [`Server::on_peer`] and come
//! out as a [`Verdict`] that names a range of the same packet: no copy, no heap.
//! Whatever else the core wants is an [`Output`]. After every call, take outputs
//! from [`Server::poll_output`] until there are none; before waiting, ask
//! [`Server::poll_timeout`] and call [`Server::handle_timeout`] when that time has
//! come. Time and randomness are inputs. Nothing here panics on input.
//!
//! # The way of a request
//!
//! 1. `stun` reads the message; what is not one is dropped and counted.
//! 2. Binding is answered at once, without state.
//! 3. Everything else passes `challenge`: RFC 8489 section 9.2.4, in its order.
//! 4. One file per method under `request` grants it or gives a `Reject`.
//! 5. Here, and only here, a `Reject` becomes an error response.
//!
//! An Allocate that needs an answer from outside (a user's keys, a quota, a
//! reserved port, a relay socket) waits as an allocation in the stage `Opening`,
//! bounded in number and time; its response comes as [`Output::Send`].
//!
//! # The way of data
//!
//! `relay`: five-tuple to allocation, channel number or peer to the other side.
//! `tcp_relay`: a connection of the client and one with a peer, joined by the shell.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod allocation;
mod alternate;
mod budget;
mod challenge;
mod channels;
mod connection;
mod counters;
mod event;
mod housekeeping;
mod invariants;
mod mobility;
mod pending;
pub mod policy;
mod quota;
mod random;
mod relay;
mod reply;
mod request;
mod reservation;
mod settings;
mod shard;
mod table;
mod tcp_relay;
mod timers;
mod vocabulary;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use budget::AnswerBudget;
use connection::Connections;
use mobility::{Arrivals, Tickets};
use pending::Pending;
use quota::Ledger;
use random::{Random, Spread};
use reply::{Envelope, Reject};
use reservation::Reservations;
use table::Table;

use crate::auth::{Features, NONCE_LEN, NonceKey};
use crate::net::{HashSeed, Now, PeerAddr, Transport};
use crate::stun::{Attribute, Class, ErrorCode, Kind, Message, Method, classify};

pub use alternate::{Alternates, Redirect};
pub use connection::{ConnectionId, PeerEndReason, PeerLink};
pub use counters::{Counters, RequestResult};
pub use event::{AuthFailure, EndReason, Event};
pub use mobility::Luggage;
pub use settings::{
    AuthSettings, DefaultFamily, Discovery, ExpiryCheck, HostAddress, Lifetimes, Limits,
    RelaySettings, Settings,
};
pub use shard::{MoveAsk, Shard, ShardMessage};
pub use timers::Wheel;
pub use vocabulary::{
    AllocationId, Client, DropReason, Forward, Header, Input, Link, LookupName, Output,
    PortRequest, RelayId, RelayTransport, Route, Span, Ticket, Traffic, Verdict,
};

#[cfg(test)]
mod tests;

/// Room for every answer: the reply buffer given to [`Server::on_client`] should
/// have this many bytes.
pub const MAX_REPLY: usize = 2048;

/// The state of one shard.
pub struct Server {
    settings: Arc<Settings>,
    shard: Shard,
    seed: HashSeed,
    table: Table,
    pending: Pending,
    reservations: Reservations,
    connections: Connections,
    ledger: Ledger,
    nonces: NonceKey,
    /// `None`: allocations do not follow their clients.
    tickets: Option<Tickets>,
    arrivals: Arrivals,
    /// The value of PASSWORD-ALGORITHMS.
    algorithms: Box<[u8]>,
    budget: AnswerBudget,
    wheel: Wheel<Timer>,
    outputs: VecDeque<Output>,
    random: Random,
    spread: Spread,
    /// New allocations are refused; those that exist live on.
    draining: bool,
    /// How many clients were sent to another server: they go to each in turn.
    redirected: usize,
    counters: Counters,
    /// Kept between calls so that expiring timers allocates nothing.
    due: Vec<Timer>,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
enum Timer {
    Allocation(AllocationId),
    Reservation(reservation::Token),
    Pending(Ticket),
    Connection(ConnectionId),
}

impl Server {
    /// A shard without allocations. `random` is the source of tokens and must be
    /// secret and different for each shard; `seed` is the same for all of them.
    pub fn new(
        settings: Arc<Settings>,
        shard: Shard,
        random: [u8; 32],
        seed: HashSeed,
        start: Instant,
    ) -> Self {
        let (nonces, algorithms) = Self::nonce_key(&settings);
        let mut random = Random::new(random);
        let spread = Spread::new(u64::from_be_bytes(random.bytes()));
        Self {
            shard,
            seed,
            table: Table::new(seed),
            pending: Pending::new(seed),
            reservations: Reservations::new(seed),
            connections: Connections::new(seed),
            ledger: Ledger::new(seed),
            nonces,
            tickets: settings.mobility.as_deref().map(Tickets::new),
            arrivals: Arrivals::new(seed),
            algorithms,
            budget: AnswerBudget::new(settings.limits.answers_per_prefix, seed, start),
            wheel: Wheel::new(start),
            outputs: VecDeque::new(),
            random,
            spread,
            draining: false,
            redirected: 0,
            counters: Counters::default(),
            due: Vec::new(),
            settings,
        }
    }

    /// A packet from a client: a datagram, or one frame of a stream. An immediate
    /// answer is written into `reply`.
    #[inline]
    pub fn on_client(
        &mut self,
        now: Now,
        from: Client,
        packet: &[u8],
        reply: &mut [u8],
    ) -> Verdict {
        let verdict = match classify(packet) {
            Kind::ChannelData => self.relay_channel_data(now, from, packet),
            Kind::Stun => self.on_stun(now, from, packet, reply),
            Kind::Dtls | Kind::Other => Verdict::Drop(DropReason::NotStun),
        };
        if let Verdict::Drop(reason) = verdict {
            self.counters.dropped(reason);
        }
        verdict
    }

    /// A datagram of `len` bytes that a relay socket received.
    #[inline]
    pub fn on_peer(&mut self, now: Now, relay: RelayId, from: PeerAddr, len: usize) -> Verdict {
        let verdict = self.relay_peer_data(now, relay, from, Span { start: 0, end: len as u32 });
        if let Verdict::Drop(reason) = verdict {
            self.counters.dropped(reason);
        }
        verdict
    }

    /// Anything else that happened outside.
    pub fn handle_input(&mut self, now: Now, input: Input) {
        match input {
            Input::Key { ticket, user } => self.on_key(now, ticket, user),
            Input::RelayOpened { relay, local, advertised, reserved } => {
                self.on_relay_opened(now, relay, local, advertised, reserved);
            }
            Input::RelayFailed { relay } => self.on_relay_failed(now, relay),
            Input::Icmp { relay, peer, icmp_type, code, info } => {
                self.on_icmp(now, relay, peer, icmp_type, code, info);
            }
            Input::PeerConnected { connection, link } => {
                self.on_peer_connected(now, connection, link);
            }
            Input::PeerFailed { connection } => self.on_peer_failed(now, connection),
            Input::PeerAccepted { relay, peer, link } => {
                self.on_peer_accepted(now, relay, peer, link);
            }
            Input::PeerTraffic { link, bytes_to_peer, bytes_to_client } => {
                self.on_peer_traffic(link, bytes_to_peer, bytes_to_client);
            }
            Input::PeerClosed { link } => self.on_peer_closed(now, link),
            Input::LinkClosed { five_tuple, link } => self.on_link_closed(now, five_tuple, link),
            Input::FromShard { shard, message } => self.on_shard_message(now, shard, message),
        }
    }

    /// Lets everything expire that is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now.mono, &mut due);
        for timer in due.drain(..) {
            match timer {
                Timer::Allocation(id) => self.wake_allocation(now, id),
                Timer::Reservation(token) => self.expire_reservation(now, token),
                Timer::Pending(ticket) => self.pending.expire(now, ticket),
                Timer::Connection(id) => self.wake_connection(now, id),
            }
        }
        self.due = due;
    }

    /// The next thing to be done outside.
    #[inline]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many allocations there are, those still opening included.
    pub fn allocations(&self) -> usize {
        self.table.len()
    }

    /// Checks that the parts of the state agree with each other.
    ///
    /// # Panics
    /// When they do not: that is a bug. For tests and simulation.
    pub fn check_invariants(&self, now: Now) {
        invariants::check(self, now);
    }

    fn on_stun(&mut self, now: Now, from: Client, packet: &[u8], reply: &mut [u8]) -> Verdict {
        let message = match Message::parse(packet) {
            Ok(message) => message,
            Err(error) => return Verdict::Drop(error.into()),
        };
        match message.class() {
            Class::Indication if message.method() == Method::SEND => {
                self.relay_send_indication(now, from, &message)
            }
            Class::Request if message.has_cookie() => self.on_request(now, from, &message, reply),
            Class::Request => self.on_classic_request(now, from, &message, reply),
            Class::Indication | Class::Success | Class::Error => {
                Verdict::Drop(DropReason::Unexpected)
            }
        }
    }

    fn on_request(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        reply: &mut [u8],
    ) -> Verdict {
        if request.method() == Method::BINDING {
            return self.on_binding(now, from, request, reply);
        }
        if let Some(elsewhere) = self.bound_elsewhere(from, request) {
            return elsewhere;
        }
        let mut envelope = Envelope::of(request);
        let granted = self.dispatch(now, from, request, &mut envelope, reply);
        self.conclude(now, from, request, &envelope, granted, reply)
    }

    /// Turns what a request came to into a verdict: the one place where a
    /// [`Reject`] becomes an error response.
    fn conclude(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        envelope: &Envelope,
        granted: Result<usize, Reject>,
        reply: &mut [u8],
    ) -> Verdict {
        let method = envelope.method;
        let result = match &granted {
            Ok(_) => RequestResult::Success,
            Err(Reject::Error(code, _) | Reject::Challenge(code, _)) => RequestResult::Error(*code),
            Err(Reject::UnknownAttributes) => RequestResult::Error(ErrorCode::UNKNOWN_ATTRIBUTE),
            Err(Reject::Alternate(_)) => RequestResult::Error(ErrorCode::TRY_ALTERNATE),
            Err(Reject::Drop(reason)) => return Verdict::Drop(*reason),
            Err(Reject::Queued) => return Verdict::Queued,
        };
        if granted.is_err() && envelope.signature.is_none() && !self.may_answer(now, from) {
            return Verdict::Drop(DropReason::AnswerBudget);
        }
        self.counters.request(method, result);
        let len = match granted {
            Ok(len) => Some(len),
            Err(reject) => self.write_reject(now, from, request, envelope, &reject, reply),
        };
        len.map_or(Verdict::Drop(DropReason::ReplyTooLong), |len| Verdict::Reply { len })
    }

    fn write_reject(
        &self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        envelope: &Envelope,
        reject: &Reject,
        reply: &mut [u8],
    ) -> Option<usize> {
        let software = self.settings.software.as_deref();
        match *reject {
            Reject::Error(code, reason) => envelope.error(reply, software, code, reason, |_| {}),
            Reject::Challenge(code, reason) => {
                let nonce: [u8; NONCE_LEN] =
                    self.nonces.issue(now, from.five_tuple.client.socket());
                let realm = self.settings.auth.directory.as_ref().map_or("", |d| d.realm());
                envelope.error(reply, software, code, reason, |w| {
                    w.put(Attribute::Realm, realm.as_bytes());
                    w.put(Attribute::Nonce, &nonce);
                    w.put(Attribute::PasswordAlgorithms, &self.algorithms);
                    let tokens = self.settings.auth.tokens.as_deref();
                    if let Some(tokens) = tokens.filter(|_| code == ErrorCode::UNAUTHENTICATED) {
                        w.put(Attribute::ThirdPartyAuthorization, tokens.server().as_bytes());
                    }
                })
            }
            Reject::UnknownAttributes => {
                let code = ErrorCode::UNKNOWN_ATTRIBUTE;
                envelope.error(reply, software, code, code.reason(), |w| {
                    w.put_unknown(self.unknown_in(request).as_slice());
                })
            }
            Reject::Alternate(alternate) => {
                let code = ErrorCode::TRY_ALTERNATE;
                envelope.error(reply, software, code, code.reason(), |w| {
                    self.write_alternate(&alternate, w);
                })
            }
            Reject::Drop(_) | Reject::Queued => None,
        }
    }

    /// Whether the budget allows an unauthenticated answer. On a stream the
    /// source is proven, and so is it behind DTLS.
    fn may_answer(&mut self, now: Now, from: Client) -> bool {
        from.five_tuple.transport != Transport::Udp
            || self.budget.take(now.mono, from.five_tuple.client.ip())
    }

    /// The nonce key and the value of PASSWORD-ALGORITHMS that belong to settings.
    fn nonce_key(settings: &Settings) -> (NonceKey, Box<[u8]>) {
        let auth = &settings.auth;
        let userhash = auth.directory.as_ref().is_some_and(|d| d.supports_userhash());
        let features = Features { password_algorithms: true, username_anonymity: userhash };
        let algorithms = auth.algorithms.iter().flat_map(|a| {
            let [hi, lo] = a.number().to_be_bytes();
            [hi, lo, 0, 0]
        });
        let key = NonceKey::new(&auth.nonce_secret, features, auth.nonce_lifetime);
        (key, algorithms.collect())
    }
}
