//! The ways between hosts, peers and the server: datagrams that get lost, come twice
//! or late, and streams that come in pieces and end.

use std::net::SocketAddr;
use std::time::Duration;

use sturn::stun::framing::{self, Frame};
use sturn::turn::{self, Input, Link};

use crate::setup::Worth;
use crate::token::Holder;
use crate::wire::{self, Stun};
use crate::world::{Event, World, trace};

impl World {
    /// Some bytes of a client's stream arrive at the server, cut anywhere.
    pub fn stream_up(&mut self, host: usize, link: Link) {
        if self.hosts[host].identity.link != link {
            return;
        }
        let all = self.hosts[host].up.len();
        let some = if self.rng.permille(300) { all } else { self.rng.below(all + 1) };
        let at = &mut self.hosts[host];
        at.received.extend(at.up.drain(..some));
        if !at.up.is_empty() {
            let delay = self.delay();
            self.schedule(delay, Event::Up { host, link });
        }
        let from = self.hosts[host].identity;
        while self.hosts[host].identity.link == link {
            if self.hosts[host].data.peer.is_some() {
                return self.pass_to_peer(host);
            }
            match framing::next(&self.hosts[host].received) {
                Frame::Complete { message, frame } => {
                    let bytes: Vec<u8> = self.hosts[host].received.drain(..frame).collect();
                    let shard = self.shard_of(from);
                    self.client_packet(host, from, &bytes[..message], false);
                    if self.shard_of(from) != shard {
                        return self.read_again(host, from, bytes);
                    }
                }
                Frame::Partial { needed } => {
                    assert!(needed > self.hosts[host].received.len(), "more is needed");
                    break;
                }
                Frame::Broken => self.close_link(host),
            }
        }
    }

    /// The shard that a connection was handed to reads what the other has read.
    fn read_again(&mut self, host: usize, from: turn::Client, frame: Vec<u8>) {
        if self.hosts[host].identity == from {
            self.hosts[host].received.splice(0..0, frame);
            let delay = self.delay();
            self.schedule(delay, Event::Up { host, link: from.link });
        }
    }

    pub fn stream_down(&mut self, host: usize, link: Link) {
        if self.asleep || self.hosts[host].identity.link != link {
            return;
        }
        let all = self.hosts[host].down.len();
        if all == 0 {
            return;
        }
        let some = 1 + self.rng.below(all);
        let bytes: Vec<u8> = self.hosts[host].down.drain(..some).collect();
        if some < all {
            let delay = self.delay();
            self.schedule(delay, Event::Down { host, link });
        }
        self.hosts[host].client.handle_receive(self.now, &bytes);
        self.pump(host);
    }

    /// The client's connection ends; the host makes a new one and starts anew.
    pub fn close_link(&mut self, host: usize) {
        let gone = self.hosts[host].identity;
        trace!(self, "host {host} loses its connection {:?}", gone.link);
        let peer = self.hosts[host].data.peer;
        self.fresh_start(host);
        match peer {
            Some(link) => self.data_connection_closes(self.shard_of(gone), link),
            None => self.link_closed(gone),
        }
    }

    /// The host makes a new connection and starts anew.
    pub fn fresh_start(&mut self, host: usize) {
        let identity = self.fresh_identity(host);
        let credential = self.hosts[host].credential.clone();
        self.hosts[host].restart(&mut self.rng, credential, identity);
    }

    /// A core is told that a connection has ended: so has all that is bound to it.
    pub fn link_closed(&mut self, gone: turn::Client) {
        let shard = self.shard_of(gone);
        self.model.openings.retain(|(of, _), _| *of != gone.five_tuple);
        self.model.link_closes(gone.five_tuple, gone.link);
        self.input(shard, Input::LinkClosed { five_tuple: gone.five_tuple, link: gone.link });
        let left = self.model.allocations.get(&gone.five_tuple);
        assert!(left.is_none_or(|a| a.mobile.is_some()), "it ends with its link");
        let server = &self.cores[usize::from(shard)].server;
        assert!(!server.has_allocation(&gone.five_tuple), "it ends with its link");
    }

    pub fn peer_receives(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if !self.setup.peers.contains(&to) {
            return;
        }
        let answer_from = match self.rng.below(10) {
            0..6 => to,
            6 => SocketAddr::new(to.ip(), to.port() ^ 1),
            7 => self.rng.pick(&self.setup.peers),
            _ => return,
        };
        self.send_to_relay(answer_from, from, bytes);
    }

    /// A datagram at a relay socket. While that is on its way to another shard the
    /// kernel keeps it.
    pub fn relay_receives(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let Some(socket) = self.kernel.socket_at(to) else { return };
        if self.kernel.is_moving(socket) {
            let event = Event::ToRelay { from, to, bytes };
            return self.schedule(Duration::from_millis(20), event);
        }
        if !self.kernel.is_listener(socket) {
            self.peer_packet(socket, from, &bytes);
        }
    }

    /// A datagram from outside to an address that a relay is known by.
    pub fn send_to_relay(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if let Some(local) = self.setup.local_of(to).filter(|l| l.is_ipv4() == from.is_ipv4()) {
            let delay = self.delay();
            self.schedule(delay, Event::ToRelay { from, to: local, bytes });
        }
    }

    /// Takes all that a client wants sent, and looks at all that it reports.
    pub fn pump(&mut self, host: usize) {
        while let Some(bytes) = self.hosts[host].client.poll_transmit() {
            self.send_up(host, bytes);
        }
        self.look_at_events(host);
    }

    pub fn send_up(&mut self, host: usize, bytes: Vec<u8>) {
        let bytes = self.with_token(host, bytes);
        let from = self.hosts[host].identity;
        if from.five_tuple.transport.is_stream() {
            self.hosts[host].up.extend(&bytes);
            // Behind a signed ConnectionBind a client may go on at once, at the risk
            // that what it sends is read too early when its user is looked up first.
            let binds = Stun::parse(&bytes)
                .is_some_and(|m| m.method == wire::CONNECTION_BIND && m.integrity_at.is_some());
            let sure = !self.calm || self.hosts[host].credential.worth == Worth::Good;
            if binds && sure && self.rng.permille(500) {
                self.send_to_bound_peer(host);
            }
            let delay = self.delay();
            return self.schedule(delay, Event::Up { host, link: from.link });
        }
        // Lost, altered, twice, late: as a network does it.
        if self.loss > 0 && self.rng.permille(20) {
            let other = self.alter(bytes.clone());
            let altered = other != bytes;
            let delay = self.delay();
            self.schedule(delay, Event::ToServer { host, from, bytes: other, altered });
        }
        for bytes in self.copies(bytes) {
            let delay = self.delay();
            self.schedule(delay, Event::ToServer { host, from, bytes, altered: false });
        }
    }

    /// A request of whoever has a token is signed with what came with that. The
    /// token itself comes with each Allocate and most others, and with a repetition
    /// when it came before.
    fn with_token(&self, host: usize, bytes: Vec<u8>) -> Vec<u8> {
        let Some(holder) = self.holder_at(host) else { return bytes };
        let sent = Stun::parse(&bytes).is_some_and(|m| m.method == wire::ALLOCATE || m.id[0] < 180);
        holder.sign(bytes, sent)
    }

    fn holder_at(&self, host: usize) -> Option<&Holder> {
        let has_one = matches!(self.hosts[host].credential.worth, Worth::Token(_));
        self.setup.holder.as_ref().filter(|_| has_one)
    }

    fn copies(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if self.rng.permille(self.loss) {
            return Vec::new();
        }
        let twice = self.loss > 0 && self.rng.permille(50);
        if twice { vec![bytes.clone(), bytes] } else { vec![bytes] }
    }

    /// Changes bytes, but not behind the integrity attribute, where an attribute
    /// that turns into another one is rightly ignored.
    pub fn alter(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self.rng.below(4) {
            0 => bytes.truncate(self.rng.below(bytes.len() + 1)),
            1 => {
                let len = 1 + self.rng.below(8);
                let more = self.rng.vec(len);
                bytes.extend(more);
            }
            _ => {
                let end = bytes.len().saturating_sub(8).max(1);
                for _ in 0..1 + self.rng.below(2) {
                    let at = self.rng.below(end);
                    bytes[at] ^= 1 << self.rng.below(8);
                }
            }
        }
        bytes
    }

    /// A message from the server to a client.
    pub fn send_down(&mut self, to: turn::Client, bytes: Vec<u8>) {
        let Some(host) = self.hosts.iter().position(|h| h.identity == to) else { return };
        let holder = self.holder_at(host);
        let bytes = holder.map_or(bytes.clone(), |holder| holder.sign_answer(bytes));
        if to.five_tuple.transport.is_stream() {
            self.hosts[host].down.extend(&bytes);
            let delay = self.delay();
            return self.schedule(delay, Event::Down { host, link: to.link });
        }
        for bytes in self.copies(bytes) {
            let delay = self.delay();
            self.schedule(delay, Event::ToHost { host, to, bytes });
        }
    }
}
