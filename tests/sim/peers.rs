//! Connections with peers (RFC 6062): the kernel that makes them, the model that
//! knows which of them there are, and the client connections bound to them.
//!
//! What has to be true of each: a Connect is answered once, a connection is closed
//! once, on one side or the other, and nothing is spliced that was not asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sturn::client::Attribute;
use sturn::net::{Family, FiveTuple, Now, PeerAddr};
use sturn::turn::{self, ConnectionId, Input, Link, Output, PeerLink, RelayId};

use crate::forecast::{error, success};
use crate::judge::Asker;
use crate::kernel::Socket;
use crate::model::{Allocation, Forecast, Model};
use crate::setup::Credential;
use crate::wire::{self, Class, Stun};
use crate::world::{DATA_HOSTS, Event, HOSTS, World, trace};

/// The kernel's connections with peers, and those on their way.
#[derive(Default)]
pub struct Peers {
    connecting: BTreeMap<(u16, ConnectionId), Asker>,
    links: BTreeMap<PeerLink, u16>,
    made: u64,
}

/// What the model knows of a connection with a peer.
#[derive(Clone, Debug)]
pub struct PeerConnection {
    control: FiveTuple,
    peer: SocketAddr,
    shard: u16,
    /// Once the peer is there.
    link: Option<PeerLink>,
    /// When it ends unless something comes of it.
    until: Instant,
    bound: bool,
}

impl Peers {
    pub fn assert_empty(&self) {
        assert!(self.connecting.is_empty(), "never answered: {:?}", self.connecting);
        assert!(self.links.is_empty(), "never closed: {:?}", self.links);
    }

    fn link(&mut self, shard: u16) -> PeerLink {
        self.made += 1;
        let link = PeerLink(self.made);
        self.links.insert(link, shard);
        link
    }

    fn any_link(&self, number: usize) -> Option<(PeerLink, u16)> {
        self.links.iter().nth(number % self.links.len().max(1)).map(|(link, shard)| (*link, *shard))
    }
}

impl Model {
    /// Connect (RFC 6062 section 5.2). What comes of it later is the peer's matter.
    pub fn forecast_connect(&self, now: Now, allocation: &Allocation, request: &Stun) -> Forecast {
        if allocation.transport != wire::TCP {
            return error(403);
        }
        let peer = request.addresses(wire::PEER)[0];
        if allocation.relay(Family::of(peer.ip()), now.mono).is_none() {
            return error(443);
        }
        if !self.may_send(peer) {
            return error(403);
        }
        let control = allocation.client.five_tuple;
        if self.connections_of(control).any(|c| c.peer == peer) {
            return error(446);
        }
        let limit = self.setup.settings.limits.peer_connections;
        if self.connections_of(control).count() >= limit { error(508) } else { success() }
    }

    /// ConnectionBind (RFC 6062 section 5.4).
    pub fn forecast_connection_bind(
        &self,
        now: Now,
        client: turn::Client,
        request: &Stun,
        credential: &Credential,
    ) -> Forecast {
        let id = request.u32(wire::CONNECTION_ID);
        let waiting = id.and_then(|id| self.connections.get(&id)).filter(|c| {
            let owner = self.alive(now, &c.control);
            let owned = owner.is_some_and(|a| {
                a.name == credential.name && a.relay(Family::of(c.peer.ip()), now.mono).is_some()
            });
            owned && c.link.is_some() && !c.bound && c.until > now.mono
        });
        let free = client.five_tuple.transport.is_stream() && self.at(&client.five_tuple).is_none();
        if free && waiting.is_some() { success() } else { error(400) }
    }

    /// The allocation that a ConnectionBind is about.
    pub fn named_allocation(&self, request: &Stun) -> Option<&Allocation> {
        let id =
            request.u32(wire::CONNECTION_ID).filter(|_| request.method == wire::CONNECTION_BIND)?;
        self.allocations.get(&self.connections.get(&id)?.control)
    }

    /// Whether a peer that connects is announced, and which of its connections ends.
    fn accepts(&self, now: Now, socket: Socket, peer: SocketAddr) -> Option<FiveTuple> {
        let holder = self.holder(now, socket.0, socket.1)?;
        let control = holder.client.five_tuple;
        let permitted = holder.permitted(now.mono).any(|ip| ip == peer.ip());
        let earlier = self.connections_of(control).find(|c| c.peer == peer);
        let connecting = earlier.is_some_and(|c| c.link.is_none());
        let others = self.connections_of(control).filter(|c| c.peer != peer).count();
        let room = others < self.setup.settings.limits.peer_connections;
        (permitted && self.may_send(peer) && !connecting && room).then_some(control)
    }

    fn connections_of(&self, control: FiveTuple) -> impl Iterator<Item = &PeerConnection> {
        self.connections.values().filter(move |c| c.control == control)
    }

    fn forget_link(&mut self, link: PeerLink) {
        self.connections.retain(|_, c| c.link != Some(link));
    }

    /// What takes too long has been ended, once its shard was woken after that.
    pub fn assert_none_late(&self, shard: u16, before: Instant) {
        for (id, connection) in self.connections.iter().filter(|(_, c)| c.shard == shard) {
            let fine = connection.bound || connection.until > before;
            assert!(fine, "connection {id:x} has outlived its deadline");
        }
    }
}

/// What the cores want done with peers.
impl World {
    pub fn connect_peer(
        &mut self,
        shard: u16,
        relay: RelayId,
        id: ConnectionId,
        peer: PeerAddr,
        cause: Option<Asker>,
    ) {
        let asker = cause.expect("only a Connect makes connections");
        let socket = (shard, relay);
        assert!(self.kernel.is_listener(socket), "from the address of a TCP relay");
        assert!(self.kernel.local_of(socket).is_some(), "that is open");
        assert!(!self.setup.is_denied(peer.ip()), "nothing goes to {peer}");
        let question = self.queued.get(&asker).expect("the Connect was queued");
        let named = PeerAddr::new(question.request.addresses(wire::PEER)[0]).socket();
        assert_eq!(self.setup.local_of(named).unwrap_or(named), peer.socket(), "as it is bound");
        let until = self.now.mono + self.setup.settings.lifetimes.connect;
        let (control, link) = (asker.0.five_tuple, None);
        let made = PeerConnection { control, peer: named, shard, link, until, bound: false };
        assert!(self.model.connections.insert(id.0, made).is_none(), "an id names one connection");
        self.peers.connecting.insert((shard, id), asker);
        let silent = !self.calm && self.rng.permille(100);
        let delay = if silent { Duration::from_secs(50) } else { self.delay() };
        self.schedule(delay, Event::PeerAnswers { shard, id });
    }

    /// The peer has taken the connection, or not.
    pub fn peer_answers(&mut self, shard: u16, id: ConnectionId) {
        let Some(asker) = self.peers.connecting.remove(&(shard, id)) else { return };
        if !self.calm && self.rng.permille(300) {
            self.tally("peer refused");
            self.model.connections.remove(&id.0);
            self.input(shard, Input::PeerFailed { connection: id });
        } else {
            let link = self.peers.link(shard);
            let until = self.now.mono + self.setup.settings.lifetimes.connection_bind;
            let known = self.model.connections.get_mut(&id.0).expect("it was on its way");
            (known.link, known.until) = (Some(link), until);
            self.input(shard, Input::PeerConnected { connection: id, link });
        }
        self.assert_answered(asker);
    }

    pub fn cancel_connect(&mut self, shard: u16, id: ConnectionId) {
        let asker = self.peers.connecting.remove(&(shard, id)).expect("it was on its way");
        self.model.connections.remove(&id.0);
        self.tally("connection given up");
        if !self.model.closed.contains(&asker.0.link) {
            self.assert_answered(asker);
        }
        // The peer's answer may be on its way already.
        if self.rng.permille(300) {
            self.schedule(Duration::ZERO, Event::PeerAnswersLate { shard, id });
        }
    }

    /// Nobody waits for the connection any more: it is closed at once.
    pub fn peer_answers_late(&mut self, shard: u16, id: ConnectionId) {
        let link = self.peers.link(shard);
        self.input(shard, Input::PeerConnected { connection: id, link });
        assert!(!self.peers.links.contains_key(&link), "nobody wants it any more");
    }

    fn assert_answered(&self, asker: Asker) {
        let question = self.queued.get(&asker).expect("the Connect was queued");
        assert_eq!(question.times, 0, "a Connect is answered when its connection is decided");
    }

    /// Bytes pass from now on.
    pub fn splice(&mut self, shard: u16, client: Link, peer: PeerLink) {
        assert_eq!(self.peers.links.get(&peer), Some(&shard), "both ends are at one shard");
        let known = self.model.connections.values_mut().find(|c| c.link == Some(peer));
        let known = known.expect("the client knows its id");
        assert!(!known.bound, "it is bound once");
        known.bound = true;
        self.tally("connection bound");
        let host = self.hosts.iter_mut().find(|host| host.identity.link == client);
        let host = host.expect("the client's connection is there");
        assert!(host.data.peer.replace(peer).is_none(), "it is bound to one peer");
    }

    pub fn close_peer(&mut self, link: PeerLink) {
        assert!(self.peers.links.remove(&link).is_some(), "a connection is closed once");
        self.model.forget_link(link);
        self.end_data_connection(link);
    }

    /// The client's side goes with the peer's; the core knows.
    fn end_data_connection(&mut self, link: PeerLink) {
        let Some(host) = self.hosts.iter().position(|h| h.data.peer == Some(link)) else { return };
        self.fresh_start(host);
    }

    /// The client's side is closed, and so is the peer's.
    pub fn data_connection_closes(&mut self, shard: u16, link: PeerLink) {
        self.peers.links.remove(&link);
        self.model.forget_link(link);
        self.input(shard, Input::PeerClosed { link });
    }

    /// What came over a client's connection behind the ConnectionBind.
    pub fn pass_to_peer(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        at.data.arrived.append(&mut at.received);
        let whole = at.data.sent.starts_with(&at.data.arrived);
        assert!(whole, "the peer gets what is behind the ConnectionBind, from the first byte");
        if !at.data.arrived.is_empty() {
            self.tally("bytes passed to a peer");
        }
    }
}

/// What peers and clients do.
impl World {
    /// A peer connects to a TCP relay, with leave or without.
    pub fn peer_connects(&mut self) {
        let listeners = self.kernel.open_listeners();
        if listeners.is_empty() {
            return;
        }
        let socket = self.rng.pick(&listeners);
        let local = self.kernel.local_of(socket).expect("it is open");
        let from = self.random_peer();
        if from.is_ipv4() != local.is_ipv4() || self.setup.is_relay(from.ip()) {
            return;
        }
        let (shard, relay) = socket;
        let link = self.peers.link(shard);
        let expected = self.model.accepts(self.now, socket, from);
        trace!(self, "peer {from} connects to {local}: {expected:?}");
        let peer = PeerAddr::new(from);
        let outputs = self.ask_core(shard, Input::PeerAccepted { relay, peer, link });
        let told = outputs.iter().find_map(|output| match output {
            Output::Send { client, message } => attempt(message).map(|told| (*client, told)),
            _ => None,
        });
        assert_eq!(told.map(|(client, _)| client.five_tuple), expected, "who is told of {from}");
        let Some((client, (told, id))) = told else {
            return self.perform_all(shard, outputs, None);
        };
        assert_eq!(told, from, "the client is told who connects");
        self.tally("peer accepted");
        // An earlier connection of the same peer ends first.
        self.perform_all(shard, outputs, None);
        let until = self.now.mono + self.setup.settings.lifetimes.connection_bind;
        let (control, link) = (client.five_tuple, Some(link));
        let made = PeerConnection { control, peer: from, shard, link, until, bound: false };
        assert!(self.model.connections.insert(id, made).is_none(), "an id names one connection");
    }

    /// A peer closes a connection.
    pub fn peer_closes(&mut self) {
        let number = self.rng.below(1000);
        let Some((link, shard)) = self.peers.any_link(number) else { return };
        trace!(self, "{link:?} ends");
        self.end_data_connection(link);
        self.data_connection_closes(shard, link);
    }

    pub fn connect(&mut self, host: usize, peer: SocketAddr) {
        trace!(self, "host {host}: connect to {peer}");
        let peer = stun_rs::attributes::turn::XorPeerAddress::from(peer);
        let attributes = vec![Attribute::from(peer)];
        self.hosts[host].client.request_raw(self.now, wire::CONNECT, attributes);
    }

    /// A new connection of a host is bound to one with a peer.
    pub fn bind_data_connection(&mut self, host: usize, id: u32) -> usize {
        let data = HOSTS + self.rng.below(DATA_HOSTS);
        self.close_link(data);
        let (credential, liar) = (self.hosts[host].credential.clone(), self.hosts[host].liar);
        let identity = self.hosts[data].identity;
        self.hosts[data].restart(&mut self.rng, credential, identity);
        self.hosts[data].liar = liar;
        self.hosts[data].data.id = Some(id);
        trace!(self, "host {host} binds connection {id:x} as host {data}");
        let attributes = vec![Attribute::Raw(wire::CONNECTION_ID, id.to_be_bytes().to_vec())];
        self.hosts[data].client.request_raw(self.now, wire::CONNECTION_BIND, attributes);
        self.pump(data);
        data
    }

    /// More bytes for a peer, or some that follow a ConnectionBind at once.
    pub fn send_to_bound_peer(&mut self, host: usize) {
        let len = 1 + self.rng.below(40);
        let bytes = self.rng.vec(len);
        let at = &mut self.hosts[host];
        at.data.sent.extend(&bytes);
        at.up.extend(&bytes);
        let (link, delay) = (at.identity.link, self.delay());
        self.schedule(delay, Event::Up { host, link });
    }

    pub fn bound_hosts(&self) -> Vec<usize> {
        (HOSTS..HOSTS + DATA_HOSTS).filter(|h| self.hosts[*h].data.peer.is_some()).collect()
    }
}

/// Peer and CONNECTION-ID of a ConnectionAttempt indication.
pub fn attempt(message: &[u8]) -> Option<(SocketAddr, u32)> {
    let message = Stun::parse(message)?;
    let is_attempt =
        message.class == Class::Indication && message.method == wire::CONNECTION_ATTEMPT;
    let peer = *message.addresses(wire::PEER).first()?;
    is_attempt.then_some((peer, message.u32(wire::CONNECTION_ID)?))
}
