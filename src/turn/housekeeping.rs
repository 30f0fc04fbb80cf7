//! What happens to allocations by themselves: expiry, and the end of connections.

use std::time::Instant;

use super::allocation::Stage;
use super::channels::Channel;
use super::connection::PeerEndReason;
use super::event::{EndReason, Event};
use super::reservation::Token;
use super::vocabulary::{AllocationId, Client, Link, Output, RelayId, RelayTransport, Route};
use super::{Server, Timer};
use crate::net::{Family, FiveTuple, Now};

impl Server {
    /// Makes sure that the allocation is looked at by `at`.
    pub(super) fn wake_by(&mut self, id: AllocationId, at: Instant) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        if allocation.wakes.is_none_or(|wakes| at < wakes) {
            allocation.wakes = Some(at);
            self.wheel.arm(at, Timer::Allocation(id));
        }
    }

    /// A timer of the allocation fired: whatever of it is due expires.
    pub(super) fn wake_allocation(&mut self, now: Now, id: AllocationId) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        if let Stage::Opening(opening) = &allocation.stage {
            if opening.deadline <= now.mono {
                self.discard_opening(id);
            }
            return;
        }
        if allocation.wakes.is_some_and(|wakes| wakes > now.mono) {
            // An earlier timer that a later one has taken over from.
            return;
        }
        allocation.wakes = None;
        let alive = |family| allocation.relay(family, now.mono).is_some();
        let (v4, v6) = (alive(Family::V4), alive(Family::V6));
        if !v4 && !v6 {
            return self.end_allocation(now, id, EndReason::Expired);
        }
        for (family, alive) in [(Family::V4, v4), (Family::V6, v6)] {
            if !alive {
                self.close_family(now, id, family);
            }
        }
        self.expire_parts(now, id);
        if let Some(next) = self.table.get(id).and_then(|a| a.next_expiry()) {
            self.wake_by(id, next);
        }
    }

    /// Drops channels and permissions that have expired.
    fn expire_parts(&mut self, now: Now, id: AllocationId) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        let over: Vec<u16> = allocation
            .channels
            .iter()
            .filter(|channel| channel.expires <= now.mono)
            .map(|channel| channel.number)
            .collect();
        allocation.permissions.retain(|_, permission| permission.expires > now.mono);
        for number in over {
            self.unbind(id, number);
        }
    }

    /// Takes a channel back, and its route.
    pub(super) fn unbind(&mut self, id: AllocationId, number: u16) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        let Some(Channel { peer, .. }) = allocation.channels.remove(number) else { return };
        let five_tuple = allocation.client.five_tuple;
        let relay = RelayId { allocation: id, family: peer.family() };
        let route = Route::Remove { five_tuple, channel: number, relay, peer };
        self.outputs.push_back(Output::Route(route));
    }

    /// Drops what one family of an allocation had.
    pub(super) fn close_family(&mut self, now: Now, id: AllocationId, family: Family) {
        self.end_connections(now, id, family, PeerEndReason::RelayClosed);
        let Some(allocation) = self.table.get_mut(id) else { return };
        let of_family = |channel: &&Channel| channel.peer.family() == family;
        let channels = allocation.channels.iter().filter(of_family);
        let channels: Vec<u16> = channels.map(|channel| channel.number).collect();
        allocation.permissions.retain(|ip, _| Family::of(*ip) != family);
        let relay = allocation.relays[super::allocation::slot(family)].take();
        let indexed = allocation.transport == RelayTransport::Udp;
        for number in channels {
            self.unbind(id, number);
        }
        if let Some(relay) = relay {
            if indexed {
                self.table.unindex_relay(relay.local.socket(), relay.advertised);
            }
            let relay = RelayId { allocation: id, family };
            self.outputs.push_back(Output::CloseRelay { relay });
        }
    }

    /// Ends a live allocation: routes, relay sockets and quota are given back.
    pub(super) fn end_allocation(&mut self, now: Now, id: AllocationId, reason: EndReason) {
        let Some(allocation) = self.table.get(id) else { return };
        let relayed = allocation.advertised();
        self.close_family(now, id, Family::V4);
        self.close_family(now, id, Family::V6);
        self.forget_move(id);
        let Some(allocation) = self.table.remove(id) else { return };
        if allocation.counted {
            self.release_quota(&allocation.identity.user);
        }
        self.outputs.push_back(Output::Event(Event::AllocationEnded {
            allocation: id,
            five_tuple: allocation.client.five_tuple,
            username: allocation.identity.name,
            relayed,
            age: now.mono.saturating_duration_since(allocation.created),
            traffic: allocation.traffic,
            reason,
        }));
    }

    /// A client's connection ended. An allocation cannot outlive the connection it
    /// is bound to, since its five-tuple can never send again; one that may follow
    /// its client can.
    pub(super) fn on_link_closed(&mut self, now: Now, five_tuple: FiveTuple, link: Link) {
        self.pending.forget(Client { five_tuple, link });
        self.arrivals.on_link_closed(Client { five_tuple, link });
        let Some(id) = self.table.find(&five_tuple) else { return };
        if self.table.get(id).is_some_and(|a| a.mobility.is_some()) {
            return self.on_mobile_link_closed(now, id, five_tuple, link);
        }
        let Some(allocation) = self.table.get(id).filter(|a| a.client.link == link) else { return };
        if allocation.is_live() {
            for family in [Family::V4, Family::V6] {
                self.end_connections(now, id, family, PeerEndReason::ControlClosed);
            }
            self.end_allocation(now, id, EndReason::ConnectionClosed);
        } else {
            self.discard_opening(id);
        }
    }

    /// Ends every allocation; the last call to a core.
    pub fn stop(&mut self, now: Now) {
        let ids: Vec<AllocationId> = self.table.iter().map(|(id, _)| id).collect();
        for id in ids {
            if self.table.get(id).is_some_and(|a| a.is_live()) {
                self.end_allocation(now, id, EndReason::Stopped);
            } else {
                self.discard_opening(id);
            }
        }
    }

    /// Whether a client has an allocation, or one on its way up.
    pub fn has_allocation(&self, five_tuple: &FiveTuple) -> bool {
        self.table.find(five_tuple).is_some() || self.arrivals.has(five_tuple)
    }

    /// A port that was set aside and not claimed is free again.
    pub(super) fn expire_reservation(&mut self, now: Now, token: Token) {
        if let Some(reserved) = self.reservations.expire(now.mono, token) {
            self.outputs.push_back(Output::ReleasePort { reserved });
        }
    }
}
