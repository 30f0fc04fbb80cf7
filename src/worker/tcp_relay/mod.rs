//! TCP relays (RFC 6062): their listeners, the connections with peers, and what
//! passes between those and clients' data connections.
//!
//! 1. The core has a relay opened: a listener, from whose port connections are
//!    made too, so that peers see the relayed transport address.
//! 2. A peer is connected to, or connects. Nothing is read from it: what it sends
//!    stays in the kernel, in order and bounded.
//! 3. A client binds it from a new connection, which comes to this worker if it
//!    was accepted by another (`hand_over`).
//! 4. Bytes pass both ways ([`Flow`]) until both sides have said their last.

mod peers;

use std::io;

use super::connection::Connection;
use super::flow::{Flow, Progress};
use super::token::{ConnectionId, Token};
use super::{ACCEPTS, Worker};
use crate::io::{Accept, Event, Interest, TcpStream};
use crate::net::{Now, PeerAddr, RelayedAddr};
use crate::turn::{ConnectionId as WireId, Input, Link, PeerLink, RelayId};
use peers::{Peer, Relay, Stage};

pub(super) use peers::TcpRelays;

/// A client's connection on its way to another worker, with the bytes that it
/// sent and nobody has used.
pub struct Moving {
    connection: Box<Connection>,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Moving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moving").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Worker {
    /// Opens the listener of a TCP relay.
    pub(super) fn open_tcp_relay(&mut self, now: Now, relay: RelayId) {
        let input = match self.try_open_tcp_relay(relay) {
            Ok((local, advertised)) => {
                Input::RelayOpened { relay, local, advertised, reserved: None }
            }
            Err(error) => {
                tracing::debug!(%error, family = %relay.family, "cannot open a TCP relay");
                Input::RelayFailed { relay }
            }
        };
        self.core.handle_input(now, input);
    }

    fn try_open_tcp_relay(
        &mut self,
        id: RelayId,
    ) -> io::Result<(RelayedAddr, std::net::SocketAddr)> {
        let (listener, local, advertised) = self.relays.open_listener(id.family)?;
        let index = self.tcp_relays.insert_relay(Relay { id, listener, local });
        let relay = self.tcp_relays.relay(index).ok_or(io::ErrorKind::NotFound)?;
        let token = Token::TcpRelay(index).encode();
        if let Err(error) = self.poll.add(&relay.listener, token, Interest::READ) {
            self.close_tcp_relay(id);
            return Err(error);
        }
        Ok((local, advertised))
    }

    /// Closes a TCP relay, if there is one of this id.
    pub(super) fn close_tcp_relay(&mut self, id: RelayId) {
        if let Some(relay) = self.tcp_relays.remove_relay(id) {
            self.relays.free_port(relay.local);
        }
    }

    /// Peers have connected to a TCP relay.
    pub(super) fn on_tcp_relay_ready(&mut self, now: Now, index: u32) {
        for _ in 0..ACCEPTS {
            let Some(relay) = self.tcp_relays.relay(index) else { return };
            let id = relay.id;
            match relay.listener.accept() {
                Ok(Accept::Stream(stream, from)) => {
                    let peer = PeerAddr::new(from);
                    if let Ok(link) = self.add_peer(stream, Stage::Waiting, Interest::NONE) {
                        self.core.handle_input(now, Input::PeerAccepted { relay: id, peer, link });
                    }
                }
                Ok(Accept::Aborted) => {}
                Ok(Accept::WouldBlock) | Err(_) => return,
                Ok(Accept::Exhausted(_)) => return self.pause_accepting(now),
            }
        }
    }

    pub(super) fn set_accepting_peers(&self, interest: Interest) {
        for (index, relay) in self.tcp_relays.relays() {
            // The listener was added when it was opened.
            let _ = self.poll.modify(&relay.listener, Token::TcpRelay(index).encode(), interest);
        }
    }

    pub(super) fn connect_peer(
        &mut self,
        now: Now,
        relay: RelayId,
        connection: WireId,
        peer: PeerAddr,
        relays_only: bool,
    ) {
        let local = self.tcp_relays.find_relay(relay).map(|relay| relay.local);
        let allowed = !relays_only || self.relays.is_relay(peer.socket());
        let started = match local.filter(|_| allowed) {
            Some(local) => TcpStream::connect_from(local.socket(), peer.socket()),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        let added = started.and_then(|stream| {
            self.add_peer(stream, Stage::Connecting(connection), Interest::WRITE)
        });
        if added.is_err() {
            self.core.handle_input(now, Input::PeerFailed { connection });
        }
    }

    fn add_peer(
        &mut self,
        stream: TcpStream,
        stage: Stage,
        interest: Interest,
    ) -> io::Result<PeerLink> {
        stream.set_nodelay(true)?;
        let id = self.tcp_relays.insert(stream, stage);
        let Some(peer) = self.tcp_relays.get_mut(id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let link = peer.link();
        if let Err(error) = self.poll.add(&peer.stream, link.0, interest) {
            self.tcp_relays.remove(id);
            return Err(error);
        }
        Ok(link)
    }

    pub(super) fn cancel_connect(&mut self, connection: WireId) {
        if let Some(id) = self.tcp_relays.find_connecting(connection) {
            self.tcp_relays.remove(id);
        }
    }

    /// Closes a connection with a peer, and the client's that is bound to it.
    pub(super) fn close_peer(&mut self, link: PeerLink) {
        let Token::Peer(id) = Token::decode(link.0) else { return };
        let Some(peer) = self.tcp_relays.remove(id) else { return };
        if let Stage::Flowing(client, _) = peer.stage
            && let Some(mut connection) = self.connections.remove(client)
        {
            connection.say_goodbye();
        }
    }

    pub(super) fn on_peer_ready(&mut self, now: Now, id: ConnectionId, event: &Event) {
        let Some(peer) = self.tcp_relays.get_mut(id) else { return };
        match peer.stage {
            Stage::Connecting(_) => self.on_connect_decided(now, id),
            Stage::Waiting => {
                if event.error || event.hangup {
                    self.peer_is_over(now, id);
                }
            }
            Stage::Flowing(_, ref mut flow) => {
                if event.error || event.hangup {
                    flow.peer_hung_up(&peer.stream, &self.poll);
                }
                self.pump(now, id);
            }
        }
    }

    fn on_connect_decided(&mut self, now: Now, id: ConnectionId) {
        let Some(Peer { stream, .. }) = self.tcp_relays.get_mut(id) else { return };
        let connected = stream.connected();
        if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        let Some(connection) = self.tcp_relays.decided(id) else { return };
        let Some(peer) = self.tcp_relays.get_mut(id) else { return };
        let link = peer.link();
        let quiet = connected.and_then(|()| self.poll.modify(&peer.stream, link.0, Interest::NONE));
        let input = match quiet {
            Ok(()) => Input::PeerConnected { connection, link },
            Err(_) => {
                self.tcp_relays.remove(id);
                Input::PeerFailed { connection }
            }
        };
        self.core.handle_input(now, input);
    }

    /// Joins a client's connection with a peer's. Bytes pass after the next flush,
    /// which sends the answer to the client's ConnectionBind.
    pub(super) fn splice(&mut self, now: Now, client: Link, link: PeerLink) {
        let (Token::Connection(client), Token::Peer(id)) =
            (Token::decode(client.0), Token::decode(link.0))
        else {
            return;
        };
        let flow = self.connections.get_mut(client).map(|connection| {
            connection.data = Some(id);
            Flow::new(connection)
        });
        match (flow, self.tcp_relays.get_mut(id)) {
            (Some(Ok(flow)), Some(peer)) => {
                peer.stage = Stage::Flowing(client, Box::new(flow));
                self.spliced.push(id);
            }
            _ => self.peer_is_over(now, id),
        }
    }

    /// What came behind a client's ConnectionBind is the first that the peer gets.
    pub(super) fn begin_with(&mut self, id: ConnectionId, early: &[u8]) {
        if let Some(Peer { stage: Stage::Flowing(_, flow), .. }) = self.tcp_relays.get_mut(id) {
            flow.begin_with(early);
        }
    }

    /// Begins to pass bytes where that was asked for; true when there was any.
    pub(super) fn pump_spliced(&mut self, now: Now) -> bool {
        let spliced = std::mem::take(&mut self.spliced);
        for id in &spliced {
            self.pump(now, *id);
        }
        !spliced.is_empty()
    }

    /// A client's data connection is ready.
    pub(super) fn on_data_ready(&mut self, now: Now, id: ConnectionId, event: &Event) {
        if (event.error || event.hangup)
            && let Some(Peer { stage: Stage::Flowing(client, flow), .. }) =
                self.tcp_relays.get_mut(id)
            && let Some(connection) = self.connections.get_mut(*client)
        {
            flow.client_hung_up(connection, &self.poll);
        }
        self.pump(now, id);
    }

    /// Passes on what has come from either side.
    pub(super) fn pump(&mut self, now: Now, id: ConnectionId) {
        let Some(peer) = self.tcp_relays.get_mut(id) else { return };
        let token = peer.link().0;
        let Peer { stream, stage: Stage::Flowing(client, flow), .. } = peer else { return };
        let Some(connection) = self.connections.get_mut(*client) else {
            return self.peer_is_over(now, id);
        };
        let (room, scratch) = (&mut self.cipher, &mut self.egress.streams);
        let progress = flow.go_on(connection, stream, token, room, scratch, &self.poll);
        let (bytes_to_peer, bytes_to_client) = flow.take_passed();
        if bytes_to_peer + bytes_to_client > 0 {
            let link = PeerLink(token);
            let passed = Input::PeerTraffic { link, bytes_to_peer, bytes_to_client };
            self.core.handle_input(now, passed);
        }
        match progress {
            Ok(Progress { over: false, again: false, .. }) => {}
            Ok(Progress { over: false, again: true, .. }) => self.spliced.push(id),
            Ok(_) => self.peer_is_over(now, id),
            Err(_) => {
                // Neither side is to take what it got for all there is. Both sockets
                // are closed either way.
                let _ = connection.stream.reset_on_close();
                let _ = stream.reset_on_close();
                self.peer_is_over(now, id);
            }
        }
    }

    /// A connection with a peer is over, and so is the client's that is bound to it.
    fn peer_is_over(&mut self, now: Now, id: ConnectionId) {
        let link = PeerLink(Token::Peer(id).encode());
        self.close_peer(link);
        self.core.handle_input(now, Input::PeerClosed { link });
    }

    /// Sends a connection to the worker whose allocation it is about.
    pub(super) fn hand_over(&mut self, id: ConnectionId, shard: u16, bytes: Vec<u8>) {
        let Some(mut connection) = self.connections.remove(id) else { return };
        connection.partial = Vec::new();
        connection.partial_since = None;
        // A descriptor that was added and is still open can be removed.
        let _ = self.poll.remove(&connection.stream);
        self.mail.send_connection(shard, Moving { connection, bytes });
    }

    /// A connection that another worker has handed over.
    pub(super) fn on_moved_here(&mut self, now: Now, moving: Moving) {
        let Moving { connection, bytes } = moving;
        if self.connections.is_full() {
            self.egress.losses.refused_connections += 1;
            return;
        }
        let id = self.connections.adopt(connection);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.register(&self.poll).is_err() {
            self.connections.remove(id);
            return;
        }
        self.watch(id, now.mono + self.limits.idle);
        self.on_plaintext(now, id, &bytes);
    }
}
