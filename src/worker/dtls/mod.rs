//! DTLS clients (RFC 7350): datagrams of a listener to sessions, plaintext to the
//! core, and back.
//!
//! Nothing is kept for an address before it has returned a cookie. What a session
//! has to send leaves through the listener that the client came to.

mod clients;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::Worker;
use super::egress::Egress;
use super::packets::Origin;
use super::token::{ConnectionId, Token};
use crate::io::{Arena, Outgoing, SLOT, SlotId};
use crate::net::{FiveTuple, Now, Transport};
use crate::tls::dtls::{Session, Verdict as FrontVerdict, starts_with_hello};
use crate::tls::{MAX_PLAINTEXT, State};
use crate::turn::{Client, Input, Verdict};

pub(super) use clients::DtlsClients;
pub use clients::DtlsLimits;

/// A datagram on its way in.
#[derive(Clone)]
pub(super) struct Arrival {
    /// The listener.
    pub(super) listener: usize,
    pub(super) slot: SlotId,
    /// Where in the slot it lies.
    pub(super) datagram: Range<usize>,
    pub(super) from: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) tos: u8,
}

impl Worker {
    /// A datagram that looks like DTLS. What it means is written into its slot from
    /// `room` on; returns where there is room then.
    pub(super) fn on_dtls(&mut self, now: Now, arrival: &Arrival, room: usize) -> usize {
        let Arrival { slot, from, server, .. } = *arrival;
        let known = self.dtls.find(from, server);
        let datagram = &self.arena.bytes(slot)[arrival.datagram.clone()];
        // Also of a client that has forgotten its session.
        if known.is_none() || starts_with_hello(datagram) {
            match self.dtls.front.receive(now, from, server, datagram) {
                FrontVerdict::Verified(hello) => {
                    let begun = known.and_then(|id| self.dtls.begun_with(id, &hello));
                    let hello = datagram.to_vec();
                    return match begun {
                        Some(id) => self.on_record(now, arrival, id, room),
                        None => {
                            self.begin_session(now, arrival, known, &hello);
                            room
                        }
                    };
                }
                FrontVerdict::Answer(answer) => {
                    self.send_to_stranger(arrival.listener, server, from, &answer);
                    return room;
                }
                FrontVerdict::Drop(_) if known.is_none() => {
                    self.egress.losses.no_session += 1;
                    return room;
                }
                FrontVerdict::Drop(_) => {}
            }
        }
        let Some(id) = known else { return room };
        let id = self.dtls.receiver(id, &self.arena.bytes(slot)[arrival.datagram.clone()]);
        self.on_record(now, arrival, id, room)
    }

    /// A verified ClientHello. The session that was there goes on until the handshake
    /// of the new one is done (RFC 6347 section 4.2.8).
    fn begin_session(
        &mut self,
        now: Now,
        arrival: &Arrival,
        known: Option<ConnectionId>,
        datagram: &[u8],
    ) {
        let Arrival { listener, from, server, .. } = *arrival;
        let Some(certificates) = self.certificates.clone() else { return };
        let stale = known.and_then(|id| self.dtls.unfinished(id));
        if stale.is_none() && !self.dtls.has_room() {
            self.egress.losses.refused_connections += 1;
            return;
        }
        let FrontVerdict::Verified(hello) = self.dtls.front.receive(now, from, server, datagram)
        else {
            return;
        };
        match Session::accept(&certificates, self.dtls.limits, &hello, now.mono) {
            Ok(session) => {
                stale.inspect(|id| self.forget_session(now, *id));
                let five_tuple = FiveTuple::new(Transport::Dtls, from, server);
                let id = self.dtls.insert(now.mono, session, five_tuple, listener);
                self.send_pending(id, 0);
                self.watch_session(now, id);
            }
            Err((_, alert)) => {
                self.egress.losses.tls_failures += 1;
                if !alert.is_empty() {
                    self.send_to_stranger(listener, server, from, &alert);
                }
            }
        }
    }

    /// A datagram of a session: what it means goes to the core.
    fn on_record(&mut self, now: Now, arrival: &Arrival, id: ConnectionId, room: usize) -> usize {
        let Arrival { slot, ref datagram, tos, .. } = *arrival;
        let was_half_open = self.dtls.is_half_open(id);
        let Some(client) = self.dtls.get_mut(id) else { return room };
        let datagram = &self.arena.bytes(slot)[datagram.clone()];
        let mut received = client.session.receive(now.mono, datagram);
        let connected = client.session.state() == State::Connected;
        if let Some(old) = self.dtls.predecessor(id).filter(|_| connected) {
            self.forget_session(now, old);
        }
        let mut at = room;
        while received.is_ok() && at + MAX_PLAINTEXT <= SLOT {
            let Some(client) = self.dtls.get_mut(id) else { return at };
            let room = &mut self.arena.bytes_mut(slot)[at..];
            match client.session.read(room) {
                Ok(Some(len)) => {
                    let (from, origin) = (client.client(), Origin { slot, start: at as u32, tos });
                    self.on_plain_datagram(now, id, from, origin, len);
                    at += len;
                }
                Ok(None) => break,
                Err(error) => received = Err(error),
            }
        }
        self.send_pending(id, 0);
        self.dtls.settle(id, was_half_open);
        let state = self.dtls.get_mut(id).map(|client| client.session.state());
        if received.is_err() {
            self.egress.losses.tls_failures += 1;
        }
        if received.is_err() || state == Some(State::Closed) {
            self.end_session(now, id);
        }
        at
    }

    fn on_plain_datagram(
        &mut self,
        now: Now,
        id: ConnectionId,
        from: Client,
        origin: Origin,
        len: usize,
    ) {
        let start = origin.start as usize;
        let packet = &self.arena.bytes(origin.slot)[start..start + len];
        match self.core.on_client(now, from, packet, &mut self.reply[..]) {
            Verdict::Forward(forward) => self.forward(origin, &forward),
            Verdict::Reply { len } => {
                let Some(client) = self.dtls.get_mut(id) else { return };
                // What cannot be sent has an end that the next receive finds.
                let _ = client.session.send([&self.reply[..len]], &mut self.plain);
                self.send_pending(id, 0);
            }
            Verdict::ReplyFrom { .. }
            | Verdict::HandOver { .. }
            | Verdict::Queued
            | Verdict::Drop(_) => {}
        }
    }

    /// Sends data to a DTLS client: the pieces become one record.
    pub(super) fn send_to_dtls(&mut self, id: ConnectionId, message: &Outgoing) {
        let Some(client) = self.dtls.get_mut(id) else {
            self.egress.losses.gone += 1;
            return;
        };
        let pieces = message.pieces(&self.arena);
        if client.session.send(pieces, &mut self.plain).is_err() {
            self.egress.losses.send_refused += 1;
        }
        self.send_pending(id, message.tos);
    }

    /// Sends what a session has to send.
    fn send_pending(&mut self, id: ConnectionId, tos: u8) {
        let Some(client) = self.dtls.get_mut(id) else { return };
        let FiveTuple { client: to, server, .. } = client.five_tuple;
        let from = self.udp[client.listener].source(server);
        for datagram in client.session.datagrams() {
            let to = to.socket();
            queue(&mut self.arena, &mut self.egress, client.listener, (from, to, tos), datagram);
        }
        client.session.clear_datagrams();
    }

    /// Sends to an address without a session.
    fn send_to_stranger(
        &mut self,
        listener: usize,
        server: SocketAddr,
        to: SocketAddr,
        data: &[u8],
    ) {
        let from = self.udp[listener].source(server);
        queue(&mut self.arena, &mut self.egress, listener, (from, to, 0), data);
    }

    /// Has a session looked at when it wants to be, or has been idle for too long.
    fn watch_session(&mut self, now: Now, id: ConnectionId) {
        let idle = self.limits.idle;
        let Some(client) = self.dtls.get_mut(id) else { return };
        let at = client.session.poll_timeout().unwrap_or(client.idle_since + idle).max(now.mono);
        if client.timer.is_none_or(|armed| at < armed) {
            client.timer = Some(at);
            self.stream_timers.arm(at, Token::Dtls(id));
        }
    }

    pub(super) fn on_session_timer(&mut self, now: Now, id: ConnectionId) {
        let was_half_open = self.dtls.is_half_open(id);
        let Some(client) = self.dtls.get_mut(id) else { return };
        if client.timer.is_none_or(|at| at > now.mono) {
            return;
        }
        client.timer = None;
        let handled = client.session.handle_timeout(now.mono);
        if self.core.has_allocation(&client.five_tuple) {
            client.idle_since = now.mono;
        }
        let idle = client.idle_since + self.limits.idle <= now.mono;
        self.send_pending(id, 0);
        self.dtls.settle(id, was_half_open);
        if handled.is_err() || idle {
            self.egress.losses.closed_connections += 1;
            return self.end_session(now, id);
        }
        self.watch_session(now, id);
    }

    pub(super) fn end_session(&mut self, now: Now, id: ConnectionId) {
        let Some(client) = self.dtls.get_mut(id) else { return };
        client.session.close();
        self.send_pending(id, 0);
        self.forget_session(now, id);
    }

    /// Ends a session without a word, since its client has none to hear it with.
    fn forget_session(&mut self, now: Now, id: ConnectionId) {
        if let Some(client) = self.dtls.remove(id) {
            let Client { five_tuple, link } = client.client();
            self.core.handle_input(now, Input::LinkClosed { five_tuple, link });
        }
    }
}

/// Puts a datagram into the arena and on its way: from, to, TOS.
fn queue(
    arena: &mut Arena,
    egress: &mut Egress,
    listener: usize,
    (from, to, tos): (Option<IpAddr>, SocketAddr, u8),
    datagram: &[u8],
) {
    let Some(body) = arena.store(datagram) else {
        egress.losses.send_buffer_full += 1;
        return;
    };
    egress.add_for_listener(listener, Outgoing { from, tos, ..Outgoing::new(to, body) });
}
