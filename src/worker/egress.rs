//! What leaves: messages of one turn, grouped by the socket they leave through.
//!
//! Messages name bytes in the arena and are sent before it is emptied. Those of
//! one listener are sent in order of arrival; those of one relay socket or
//! connection hang together in a chain through `next`, so that grouping costs a
//! few writes and no search. The lists grow to what one turn can make and stay.

use super::Losses;
use super::connection::{Connections, Scratch};
use super::packets::UdpListener;
use super::relay_sockets::RelaySockets;
use super::token::ConnectionId;
use crate::io::{Arena, Outgoing, Poll, SendBatch, SendReport};
use crate::turn::RelayId;

/// The messages of one relay socket or connection in this turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
}

const NONE: u32 = u32::MAX;

impl Default for Chain {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

pub(super) struct Egress {
    messages: Vec<Outgoing>,
    /// Of each message, the next one in its chain.
    next: Vec<u32>,
    /// Per listener, its messages.
    listeners: Vec<Vec<u32>>,
    /// Relay sockets with a chain.
    relays: Vec<RelayId>,
    /// Connections with a chain.
    connections: Vec<ConnectionId>,
    order: Vec<u32>,
    datagrams: SendBatch,
    pub(super) streams: Scratch,
    pub(super) losses: Losses,
}

impl Egress {
    pub(super) fn new(listeners: usize, capacity: usize) -> Self {
        Self {
            messages: Vec::with_capacity(capacity),
            next: Vec::with_capacity(capacity),
            listeners: vec![Vec::with_capacity(capacity); listeners],
            relays: Vec::with_capacity(capacity),
            connections: Vec::with_capacity(capacity),
            order: Vec::with_capacity(capacity),
            datagrams: SendBatch::new(),
            streams: Scratch::new(),
            losses: Losses::default(),
        }
    }

    /// A datagram to a client.
    #[inline]
    pub(super) fn add_for_listener(&mut self, listener: usize, message: Outgoing) {
        let index = self.push(message);
        self.listeners[listener].push(index);
    }

    /// A datagram to a peer.
    #[inline]
    pub(super) fn add_for_peer(
        &mut self,
        relays: &mut RelaySockets,
        id: RelayId,
        message: Outgoing,
    ) {
        let Some(relay) = relays.get_mut(id) else {
            self.losses.gone += 1;
            return;
        };
        let index = self.push(message);
        if self.append(&mut relay.chain, index) {
            self.relays.push(id);
        }
    }

    /// A frame to a stream client.
    pub(super) fn add_for_connection(
        &mut self,
        connections: &mut Connections,
        id: ConnectionId,
        message: Outgoing,
    ) {
        let Some(connection) = connections.get_mut(id) else {
            self.losses.gone += 1;
            return;
        };
        let index = self.push(message);
        if self.append(&mut connection.chain, index) {
            self.connections.push(id);
        }
    }

    /// Sends everything, empties the arena, and names connections that broke.
    pub(super) fn flush(
        &mut self,
        arena: &mut Arena,
        udp: &[UdpListener],
        relays: &mut RelaySockets,
        connections: &mut Connections,
        poll: &Poll,
    ) -> Vec<ConnectionId> {
        let mut broken = Vec::new();
        if !self.messages.is_empty() {
            self.flush_listeners(arena, udp);
            self.flush_relays(arena, relays);
            self.flush_connections(arena, connections, poll, &mut broken);
            self.messages.clear();
            self.next.clear();
        }
        arena.reset();
        broken
    }

    fn flush_listeners(&mut self, arena: &Arena, udp: &[UdpListener]) {
        for (listener, order) in udp.iter().zip(&mut self.listeners) {
            if order.is_empty() {
                continue;
            }
            let report =
                listener.socket.send_batch(&mut self.datagrams, arena, &self.messages, order);
            order.clear();
            count(&mut self.losses, report);
        }
    }

    fn flush_relays(&mut self, arena: &Arena, relays: &mut RelaySockets) {
        for id in self.relays.drain(..) {
            let Some(relay) = relays.get_mut(id) else { continue };
            collect(&mut self.order, &self.next, &mut relay.chain);
            let report =
                relay.socket.send_batch(&mut self.datagrams, arena, &self.messages, &self.order);
            count(&mut self.losses, report);
        }
    }

    fn flush_connections(
        &mut self,
        arena: &Arena,
        connections: &mut Connections,
        poll: &Poll,
        broken: &mut Vec<ConnectionId>,
    ) {
        for id in self.connections.drain(..) {
            let Some(connection) = connections.get_mut(id) else { continue };
            collect(&mut self.order, &self.next, &mut connection.chain);
            let sent = connection.send(&mut self.streams, arena, &self.messages, &self.order, poll);
            match sent {
                Ok(dropped) => self.losses.slow_client += dropped,
                Err(_) => broken.push(id),
            }
        }
    }

    #[inline]
    fn push(&mut self, message: Outgoing) -> u32 {
        let index = self.messages.len() as u32;
        self.messages.push(message);
        self.next.push(NONE);
        index
    }

    /// Hangs a message at the end of a chain; true when it is the first.
    #[inline]
    fn append(&mut self, chain: &mut Chain, index: u32) -> bool {
        let first = chain.first == NONE;
        if first {
            chain.first = index;
        } else {
            self.next[chain.last as usize] = index;
        }
        chain.last = index;
        first
    }
}

/// Moves a chain into `order`, first message first.
fn collect(order: &mut Vec<u32>, next: &[u32], chain: &mut Chain) {
    order.clear();
    let mut at = std::mem::take(chain).first;
    while at != NONE {
        order.push(at);
        at = next[at as usize];
    }
}

fn count(losses: &mut Losses, report: SendReport) {
    losses.send_buffer_full += report.dropped_full as u64;
    losses.send_refused += report.dropped_error as u64;
}
