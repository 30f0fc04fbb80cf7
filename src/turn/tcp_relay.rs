//! The life of a connection with a peer (RFC 6062).
//!
//! 1. It begins with a Connect request (`request::connect`), or with a peer that
//!    connects to the listener of an allocation that has given it leave.
//! 2. The peer takes it, or does not: the Connect request is answered. Of a peer
//!    that came by itself the client is told in a ConnectionAttempt indication.
//! 3. A ConnectionBind on another connection of the client binds it
//!    (`request::connection_bind`). Until then nothing is read from the peer, so
//!    that what it sends waits in order, in a buffer that is bounded: the kernel's.
//! 4. The shell passes bytes; the core only keeps that there is a connection.
//! 5. It ends with either side, with its allocation, or when 2 or 3 take too long.

use std::sync::Arc;

use super::allocation::Allocation;
use super::connection::{Connection, ConnectionId, PeerEndReason, PeerLink, Stage};
use super::counters::RequestResult;
use super::event::Event;
use super::reply::Envelope;
use super::vocabulary::{AllocationId, Client, DropReason, Output, RelayId, RelayTransport};
use super::{MAX_REPLY, Server, Timer};
use crate::net::{Family, Now, PeerAddr};
use crate::stun::{Attribute, Class, ErrorCode, Method, TransactionId, Writer};

impl Server {
    /// Step 2 of a Connect request that came through (RFC 6062 section 5.2).
    pub(super) fn on_peer_connected(&mut self, now: Now, id: ConnectionId, link: PeerLink) {
        let deadline = now.mono + self.settings.lifetimes.connection_bind;
        let Some(envelope) = self.connections.connected(id, link, deadline) else {
            // The request was given up meanwhile.
            self.outputs.push_back(Output::ClosePeer { link });
            return;
        };
        self.wheel.arm(deadline, Timer::Connection(id));
        let Some(client) = self.control_of(id) else { return };
        let mut reply = [0; MAX_REPLY];
        let software = self.settings.software.as_deref();
        let len = envelope.success(&mut reply, software, |w| {
            w.put_u32(Attribute::ConnectionId, id.0);
        });
        self.counters.request(envelope.method, RequestResult::Success);
        if let Some(len) = len {
            self.outputs.push_back(Output::Send { client, message: reply[..len].into() });
        }
    }

    /// Step 2 of a Connect request that did not.
    pub(super) fn on_peer_failed(&mut self, now: Now, id: ConnectionId) {
        let connecting = |c: &Connection| matches!(c.stage, Stage::Connecting(..));
        if self.connections.get(id).is_some_and(connecting) {
            self.end_connection(now, id, PeerEndReason::Failed);
        }
    }

    /// Steps 1 and 2 of a connection that a peer has made (RFC 6062 section 5.3).
    pub(super) fn on_peer_accepted(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        link: PeerLink,
    ) {
        let peer = self.as_known_outside(peer);
        if let Err(reason) = self.accept(now, relay, peer, link) {
            self.counters.dropped(reason);
            self.outputs.push_back(Output::ClosePeer { link });
        }
    }

    /// The shell has passed bytes.
    pub(super) fn on_peer_traffic(&mut self, link: PeerLink, to_peer: u64, to_client: u64) {
        let connection = self.connections.find(link).and_then(|id| self.connections.get(id));
        let Some(connection) = connection else { return };
        let Some(allocation) = self.table.get_mut(connection.allocation) else { return };
        for traffic in [&mut allocation.traffic, &mut self.counters.traffic] {
            traffic.bytes_to_peers += to_peer;
            traffic.bytes_to_client += to_client;
        }
    }

    /// A connection is over for the shell: the peer's end, or that of the client's
    /// connection it was bound to.
    pub(super) fn on_peer_closed(&mut self, now: Now, link: PeerLink) {
        let Some(id) = self.connections.find(link) else { return };
        let Some(connection) = self.connections.remove(id) else { return };
        self.report_end(now, &connection, PeerEndReason::Closed);
    }

    /// A timer of a connection fired.
    pub(super) fn wake_connection(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        if connection.deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        let reason = match connection.stage {
            Stage::Connecting(..) => PeerEndReason::TimedOut,
            Stage::Pending(..) | Stage::Bound(_) => PeerEndReason::NotBound,
        };
        self.end_connection(now, id, reason);
    }

    /// Ends the connections of a relayed transport address that goes away.
    pub(super) fn end_connections(
        &mut self,
        now: Now,
        allocation: AllocationId,
        family: Family,
        reason: PeerEndReason,
    ) {
        for id in self.connections.of(allocation, family) {
            self.end_connection(now, id, reason);
        }
    }

    /// Arms the timer of a new connection.
    pub(super) fn add_connection(&mut self, connection: Connection) -> Option<ConnectionId> {
        let deadline = connection.deadline();
        let id = self.connections.add(self.shard, &mut self.random, connection)?;
        if let Some(deadline) = deadline {
            self.wheel.arm(deadline, Timer::Connection(id));
        }
        Some(id)
    }

    fn accept(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        link: PeerLink,
    ) -> Result<(), DropReason> {
        let allocation = relay.allocation;
        let owner = self.table.get(allocation).filter(|a| a.transport == RelayTransport::Tcp);
        let owner = owner.filter(|a| a.relay(relay.family, now.mono).is_some());
        let Some(owner) = owner else { return Err(DropReason::RelayGone) };
        let access = owner.permitted(peer.ip(), now.mono).ok_or(DropReason::NoPermission)?;
        if !self.settings.policy.port_is_fine(access, peer.port()) {
            return Err(DropReason::PeerDenied);
        }
        let client = owner.client;
        self.make_way(now, allocation, peer)?;
        let user = self.room_for_peer(allocation).ok_or(DropReason::TooManyConnections)?;
        let deadline = now.mono + self.settings.lifetimes.connection_bind;
        let stage = Stage::Pending(link, deadline);
        let connection = Connection { allocation, user, peer, created: now.mono, stage };
        let id = self.add_connection(connection).ok_or(DropReason::TooManyConnections)?;
        self.announce(client, peer, id);
        Ok(())
    }

    /// Whether an allocation may have another connection: the user it counts for. Each
    /// takes descriptors, of which one user, with however many allocations, must leave
    /// some for the others.
    pub(super) fn room_for_peer(&self, allocation: AllocationId) -> Option<Arc<str>> {
        let user = &self.table.get(allocation)?.identity.user;
        let limits = &self.settings.limits;
        let all = limits.all_peer_connections;
        let fits = self.connections.count_of(allocation) < limits.peer_connections
            && self.connections.count_of_user(user) < all.div_ceil(2)
            && self.connections.len() < all;
        fits.then(|| user.clone())
    }

    /// Two connections between the same two transport addresses cannot be: when the
    /// peer comes again, its earlier connection is over, whether or not the shell
    /// has seen that. One that is being made fails or comes through by itself.
    fn make_way(
        &mut self,
        now: Now,
        allocation: AllocationId,
        peer: PeerAddr,
    ) -> Result<(), DropReason> {
        let Some(earlier) = self.connections.find_peer(allocation, peer) else { return Ok(()) };
        if self.connections.get(earlier).is_some_and(|c| c.link().is_none()) {
            return Err(DropReason::ConnectionExists);
        }
        self.end_connection(now, earlier, PeerEndReason::Replaced);
        Ok(())
    }

    /// The ConnectionAttempt indication. Like every indication it is not protected.
    fn announce(&mut self, client: Client, peer: PeerAddr, id: ConnectionId) {
        let transaction = TransactionId(self.spread.next());
        let mut buffer = [0; 64];
        let mut writer =
            Writer::new(&mut buffer, Method::CONNECTION_ATTEMPT, Class::Indication, transaction);
        writer.put_xor_address(Attribute::XorPeerAddress, peer.socket());
        writer.put_u32(Attribute::ConnectionId, id.0);
        if let Some(len) = writer.finish() {
            self.outputs.push_back(Output::Send { client, message: buffer[..len].into() });
        }
    }

    /// Ends a connection that the shell still has. A Connect request that waits for
    /// it is answered with 447, if there is still somebody to answer.
    fn end_connection(&mut self, now: Now, id: ConnectionId, reason: PeerEndReason) {
        let control = self.control_of(id);
        let Some(connection) = self.connections.remove(id) else { return };
        match &connection.stage {
            Stage::Connecting(envelope, _) => {
                if reason != PeerEndReason::Failed {
                    self.outputs.push_back(Output::CancelConnect { connection: id });
                }
                if let Some(client) = control.filter(|_| reason != PeerEndReason::ControlClosed) {
                    self.refuse_connect(client, envelope);
                }
            }
            Stage::Pending(link, _) | Stage::Bound(link) => {
                self.outputs.push_back(Output::ClosePeer { link: *link });
            }
        }
        self.report_end(now, &connection, reason);
    }

    fn refuse_connect(&mut self, client: Client, envelope: &Envelope) {
        let code = ErrorCode::CONNECTION_TIMEOUT_OR_FAILURE;
        let mut reply = [0; MAX_REPLY];
        let software = self.settings.software.as_deref();
        let len = envelope.error(&mut reply, software, code, code.reason(), |_| {});
        self.counters.request(envelope.method, RequestResult::Error(code));
        if let Some(len) = len {
            self.outputs.push_back(Output::Send { client, message: reply[..len].into() });
        }
    }

    fn report_end(&mut self, now: Now, connection: &Connection, reason: PeerEndReason) {
        self.outputs.push_back(Output::Event(Event::PeerConnectionEnded {
            allocation: connection.allocation,
            peer: connection.peer,
            age: now.mono.saturating_duration_since(connection.created),
            reason,
        }));
    }

    /// The client behind a connection, by its control connection.
    fn control_of(&self, id: ConnectionId) -> Option<Client> {
        let allocation = self.connections.get(id)?.allocation;
        self.table.get(allocation).map(|allocation: &Allocation| allocation.client)
    }
}
