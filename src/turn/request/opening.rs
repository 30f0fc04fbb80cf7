//! An allocation on its way up: quota, reserved port, relay sockets.
//!
//! 1. The user's home shard says whether there is room (only with a quota).
//! 2. With RESERVATION-TOKEN, the shard that keeps the port hands it over.
//! 3. The shell opens a relay socket per family.
//! 4. The response goes out, and the allocation is live.
//!
//! Each answer may come at once or later, or never: then the deadline ends it and
//! the client's next retransmission starts anew.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::net::{Family, Now, RelayedAddr};
use crate::stun::ErrorCode;
use crate::turn::allocation::{Allocation, Granted, Opening, Relay, Stage, slot};
use crate::turn::counters::RequestResult;
use crate::turn::event::{EndReason, Event};
use crate::turn::mobility::Mobility;
use crate::turn::reply::Reject;
use crate::turn::reservation;
use crate::turn::shard::ShardMessage;
use crate::turn::vocabulary::{AllocationId, Output, PortRequest, RelayId, RelayTransport};
use crate::turn::{MAX_REPLY, Server, Timer};

impl Server {
    /// Step 1.
    pub(super) fn start_opening(&mut self, now: Now, id: AllocationId) -> Result<(), Reject> {
        let limit = self.settings.limits.allocations_per_user;
        let Some(allocation) = self.table.get_mut(id) else { return Ok(()) };
        if limit == 0 {
            return self.claim_or_open(now, id);
        }
        let user = allocation.identity.user.clone();
        let home = self.shard.home_of(&user, self.seed);
        if home != self.shard.index {
            let message = ShardMessage::QuotaAsk { allocation: id, user };
            self.outputs.push_back(Output::ToShard { shard: home, message });
            return Ok(());
        }
        allocation.counted = self.ledger.try_add(&user, limit);
        if allocation.counted { self.claim_or_open(now, id) } else { Err(quota_reached()) }
    }

    /// Step 2.
    fn claim_or_open(&mut self, now: Now, id: AllocationId) -> Result<(), Reject> {
        let Some(opening) = self.opening_mut(id) else { return Ok(()) };
        let Some(token) = opening.claim else {
            self.open_relays(id);
            return Ok(());
        };
        let keeper = reservation::shard_of(token);
        let username = self.table.get(id).map(|a| a.identity.name.clone()).unwrap_or_default();
        if keeper == self.shard.index || keeper >= self.shard.count {
            let reserved = self.reservations.claim(now.mono, token, &username);
            return self.use_reserved(id, reserved);
        }
        let message = ShardMessage::ReservationClaim { allocation: id, token, username };
        self.outputs.push_back(Output::ToShard { shard: keeper, message });
        Ok(())
    }

    fn use_reserved(
        &mut self,
        id: AllocationId,
        reserved: Option<RelayedAddr>,
    ) -> Result<(), Reject> {
        let Some(reserved) = reserved else {
            return Err(Reject::Error(ErrorCode::INSUFFICIENT_CAPACITY, "No such reservation"));
        };
        match self.opening_mut(id) {
            Some(opening) => {
                opening.families[slot(reserved.family())] = true;
                opening.port = PortRequest::Reserved(reserved);
                self.open_relays(id);
            }
            None => self.outputs.push_back(Output::ReleasePort { reserved }),
        }
        Ok(())
    }

    /// Step 3.
    fn open_relays(&mut self, id: AllocationId) {
        let Some(transport) = self.table.get(id).map(|a| a.transport) else { return };
        let Some(opening) = self.opening_mut(id) else { return };
        opening.waiting = opening.families;
        let (waiting, port) = (opening.waiting, opening.port);
        for family in [Family::V4, Family::V6] {
            if waiting[slot(family)] {
                let relay = RelayId { allocation: id, family };
                self.outputs.push_back(Output::OpenRelay { relay, port, transport });
            }
        }
    }

    pub(in crate::turn) fn on_relay_opened(
        &mut self,
        now: Now,
        relay: RelayId,
        local: RelayedAddr,
        advertised: SocketAddr,
        reserved: Option<RelayedAddr>,
    ) {
        let id = relay.allocation;
        let Some(opening) = self.opening_mut(id).filter(|o| o.waiting[slot(relay.family)]) else {
            // The request was given up meanwhile.
            self.outputs.push_back(Output::CloseRelay { relay });
            if let Some(reserved) = reserved {
                self.outputs.push_back(Output::ReleasePort { reserved });
            }
            return;
        };
        opening.waiting[slot(relay.family)] = false;
        opening.reserved = reserved;
        let expires = now.mono + opening.lifetime;
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.relays[slot(relay.family)] = Some(Relay { local, advertised, expires });
            // Datagrams that stay in user space find their relay; TCP has none.
            if allocation.transport == RelayTransport::Udp {
                self.table.index_relay(relay, local.socket(), advertised);
            }
        }
        self.conclude_opening(now, id);
    }

    /// A relay socket did not open, or was lost on its way to this shard.
    pub(in crate::turn) fn on_relay_failed(&mut self, now: Now, relay: RelayId) {
        if self.table.get(relay.allocation).is_some_and(Allocation::is_live) {
            return self.lose_relay(now, relay);
        }
        let Some(opening) = self.opening_mut(relay.allocation) else { return };
        opening.waiting[slot(relay.family)] = false;
        opening.address_error = Some((relay.family, ErrorCode::INSUFFICIENT_CAPACITY));
        self.conclude_opening(now, relay.allocation);
    }

    fn lose_relay(&mut self, now: Now, relay: RelayId) {
        self.close_family(now, relay.allocation, relay.family);
        let rest = self.table.get(relay.allocation).map(|a| a.relays.iter().any(Option::is_some));
        if rest == Some(false) {
            self.end_allocation(now, relay.allocation, EndReason::RelayLost);
        }
    }

    /// Step 4, once every relay socket was answered.
    fn conclude_opening(&mut self, now: Now, id: AllocationId) {
        let Some(opening) = self.opening_mut(id) else { return };
        if opening.waiting.contains(&true) {
            return;
        }
        if self.table.get(id).is_some_and(|a| a.relays.iter().all(Option::is_none)) {
            self.fail_opening(
                id,
                &Reject::Error(ErrorCode::INSUFFICIENT_CAPACITY, "No relay port is free"),
            );
        } else {
            self.go_live(now, id);
        }
    }

    fn go_live(&mut self, now: Now, id: AllocationId) {
        let Some(allocation) = self.table.get_mut(id) else { return };
        let Stage::Opening(opening) = &allocation.stage else { return };
        let (envelope, reserved) = (opening.envelope, opening.reserved);
        // Time has passed since the request.
        let (asked, identity) = (opening.lifetime, &allocation.identity);
        let lifetime = super::within_token(now, asked, identity, &allocation.key);
        let mut granted = Granted {
            transaction: Some(envelope.id),
            lifetime,
            token: None,
            address_error: opening.address_error,
        };
        let mobile = opening.mobile;
        let owner: Arc<str> = allocation.identity.name.clone();
        if let Some(address) = reserved {
            let expires = now.mono + self.settings.lifetimes.reservation;
            let shard = self.shard.index;
            let token =
                self.reservations.add(shard, address, owner.clone(), expires, &mut self.random);
            self.wheel.arm(expires, Timer::Reservation(token));
            granted.token = Some(token);
        }
        allocation.mobility = mobile.then(|| Box::new(Mobility::new()));
        allocation.stage = Stage::Live(granted);
        // The client counts from this answer, whenever the relay sockets opened.
        for relay in allocation.relays.iter_mut().flatten() {
            relay.expires = now.mono + lifetime;
        }
        let event = Event::AllocationCreated {
            allocation: id,
            five_tuple: allocation.client.five_tuple,
            username: owner,
            relayed: allocation.advertised(),
            lifetime,
        };
        let client = allocation.client;
        self.outputs.push_back(Output::Event(event));
        self.wake_by(id, now.mono + lifetime);
        self.counters.request(envelope.method, RequestResult::Success);
        let mut reply = [0; MAX_REPLY];
        if let Some(allocation) = self.table.get(id)
            && let Some(len) = self.write_granted(id, allocation, &granted, &envelope, &mut reply)
        {
            self.outputs.push_back(Output::Send { client, message: reply[..len].into() });
        }
    }

    /// An allocation did not come up: the client is told, nothing stays.
    fn fail_opening(&mut self, id: AllocationId, reject: &Reject) {
        let Reject::Error(code, reason) = *reject else { return };
        let Some(allocation) = self.table.get(id) else { return };
        let Stage::Opening(opening) = &allocation.stage else { return };
        let (envelope, client) = (opening.envelope, allocation.client);
        let mut reply = [0; MAX_REPLY];
        let software = self.settings.software.as_deref();
        let len = envelope.error(&mut reply, software, code, reason, |_| {});
        self.counters.request(envelope.method, RequestResult::Error(code));
        if let Some(len) = len {
            self.outputs.push_back(Output::Send { client, message: reply[..len].into() });
        }
        self.discard_opening(id);
    }

    /// Removes an allocation that is not live, with what it holds.
    pub(in crate::turn) fn discard_opening(&mut self, id: AllocationId) {
        let Some(allocation) = self.table.remove(id) else { return };
        for (family, relay) in [Family::V4, Family::V6].into_iter().zip(allocation.relays) {
            if relay.is_some() {
                let relay = RelayId { allocation: id, family };
                self.outputs.push_back(Output::CloseRelay { relay });
            }
        }
        if let Stage::Opening(opening) = &allocation.stage
            && let Some(reserved) = opening.reserved
        {
            self.outputs.push_back(Output::ReleasePort { reserved });
        }
        if allocation.counted {
            self.release_quota(&allocation.identity.user);
        }
    }

    pub(in crate::turn) fn release_quota(&mut self, user: &Arc<str>) {
        let home = self.shard.home_of(user, self.seed);
        if home == self.shard.index {
            self.ledger.remove(user);
        } else {
            let message = ShardMessage::QuotaRelease { user: user.clone() };
            self.outputs.push_back(Output::ToShard { shard: home, message });
        }
    }

    /// Questions and answers of other shards.
    pub(in crate::turn) fn on_shard_message(
        &mut self,
        now: Now,
        shard: u16,
        message: ShardMessage,
    ) {
        match message {
            ShardMessage::QuotaAsk { allocation, user } => {
                let limit = self.settings.limits.allocations_per_user;
                let granted = self.ledger.try_add(&user, limit);
                let message = ShardMessage::QuotaAnswer { allocation, user, granted };
                self.outputs.push_back(Output::ToShard { shard, message });
            }
            ShardMessage::QuotaAnswer { allocation, user, granted } => {
                self.on_quota_answer(now, allocation, &user, granted);
            }
            ShardMessage::QuotaRelease { user } => self.ledger.remove(&user),
            ShardMessage::ReservationClaim { allocation, token, username } => {
                let reserved = self.reservations.claim(now.mono, token, &username);
                let message = ShardMessage::ReservationAnswer { allocation, reserved };
                self.outputs.push_back(Output::ToShard { shard, message });
            }
            ShardMessage::ReservationAnswer { allocation, reserved } => {
                if let Err(reject) = self.use_reserved(allocation, reserved) {
                    self.fail_opening(allocation, &reject);
                }
            }
            ShardMessage::MoveAsk(ask) => self.on_move_ask(now, shard, ask),
            ShardMessage::MoveAnswer { into, granted, reply } => {
                self.on_move_answer(into, granted, reply);
            }
            ShardMessage::MoveNow { into } => self.on_move_now(into),
            ShardMessage::MoveClaim { allocation, into } => {
                self.on_move_claim(now, shard, allocation, into);
            }
            ShardMessage::MoveDone { into, luggage, .. } => self.on_move_done(now, into, *luggage),
            ShardMessage::MoveGone { into } => self.on_move_gone(now, into),
        }
    }

    fn on_quota_answer(&mut self, now: Now, id: AllocationId, user: &Arc<str>, granted: bool) {
        match self.table.get_mut(id).filter(|a| !a.is_live()) {
            Some(allocation) => allocation.counted = granted,
            None if granted => return self.release_quota(user),
            None => return,
        }
        let next = if granted { self.claim_or_open(now, id) } else { Err(quota_reached()) };
        if let Err(reject) = next {
            self.fail_opening(id, &reject);
        }
    }

    fn opening_mut(&mut self, id: AllocationId) -> Option<&mut Opening> {
        match &mut self.table.get_mut(id)?.stage {
            Stage::Opening(opening) => Some(opening),
            Stage::Live(_) => None,
        }
    }
}

fn quota_reached() -> Reject {
    Reject::code(ErrorCode::ALLOCATION_QUOTA_REACHED)
}
