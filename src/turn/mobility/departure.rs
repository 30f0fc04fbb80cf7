//! The owner's side of a move: where the allocation is.

use super::{Luggage, Mobility, Next, Place, REPETITION};
use crate::net::{FiveTuple, Now};
use crate::stun::{Attribute, ErrorCode, Message};
use crate::turn::allocation::{Allocation, Stage};
use crate::turn::challenge::Authenticated;
use crate::turn::event::{AuthFailure, EndReason};
use crate::turn::reply::{Envelope, Reject};
use crate::turn::request::seconds;
use crate::turn::shard::{MoveAsk, ShardMessage};
use crate::turn::vocabulary::{AllocationId, Client, DropReason, Link, Output, Verdict};
use crate::turn::{MAX_REPLY, Server};

/// Where a client wants its allocation to go.
#[derive(Clone, Copy)]
pub(in crate::turn) enum Destination {
    /// To a five-tuple of this shard.
    Here(Client),
    /// To one of another shard.
    Away {
        /// The shard.
        shard: u16,
        /// The id that the allocation will have there.
        into: AllocationId,
        /// The client as that shard knows it.
        client: Client,
        /// That shard has no room.
        full: bool,
    },
}

impl Destination {
    fn five_tuple(self) -> FiveTuple {
        match self {
            Self::Here(client) | Self::Away { client, .. } => client.five_tuple,
        }
    }
}

impl Server {
    /// A Refresh with MOBILITY-TICKET (RFC 8016 section 3.2.2), from a client that
    /// has proven who it is.
    pub(in crate::turn) fn on_moving_refresh(
        &mut self,
        now: Now,
        to: Destination,
        request: &Message<'_>,
        envelope: &Envelope,
        who: &Authenticated,
        reply: &mut [u8],
    ) -> Result<usize, Reject> {
        let Some(tickets) = &self.tickets else {
            return Err(Reject::code(ErrorCode::MOBILITY_FORBIDDEN));
        };
        let ticket = request.get(Attribute::MobilityTicket).unwrap_or_default();
        let place =
            tickets.open(ticket).ok_or_else(|| Reject::bad("MOBILITY-TICKET is not valid"))?;
        let repeated = self.moved_with(now, to, place);
        let id = match repeated {
            Some(id) => id,
            None => self.mover(now, to, place)?,
        };
        self.check_owner(id, to, who)?;
        if repeated.is_none() {
            self.check_move(id, to, place)?;
        }
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.renew(&who.identity, who.key);
        }
        let (family, lifetime) = self.read_refresh(now, id, request)?;
        self.apply_refresh(now, id, family, lifetime);
        let next = match repeated {
            Some(_) => self.table.get(id).and_then(|a| self.ticket_of(id, a)),
            None => self.grant_move(id, to, place),
        };
        let software = self.settings.software.as_deref();
        let len = envelope.success(reply, software, |w| {
            w.put_u32(Attribute::Lifetime, seconds(lifetime));
            // Nothing is left to move when the Refresh has ended the allocation.
            if let Some(ticket) = next {
                w.put(Attribute::MobilityTicket, &ticket);
            }
        });
        if self.table.get(id).is_some_and(Allocation::is_adrift)
            && matches!(to, Destination::Here(_))
        {
            self.complete_move(now, id);
        }
        len.ok_or(Reject::Drop(DropReason::ReplyTooLong))
    }

    /// The allocation that has come to this five-tuple with this very ticket, when
    /// that was a moment ago.
    fn moved_with(&self, now: Now, to: Destination, place: Place) -> Option<AllocationId> {
        let id = self.table.find(&to.five_tuple())?;
        let allocation = self.table.get(id).filter(|a| !a.is_over(now.mono))?;
        let (used, until) = allocation.mobility.as_ref()?.used?;
        let at = allocation.client.five_tuple == to.five_tuple();
        (at && used == place && now.mono < until).then_some(id)
    }

    /// The allocation of a ticket: 437 when it is gone.
    fn mover(&self, now: Now, to: Destination, place: Place) -> Result<AllocationId, Reject> {
        let gone = || Reject::code(ErrorCode::ALLOCATION_MISMATCH);
        if place.shard != self.shard.index {
            return Err(gone());
        }
        let id = place.allocation;
        let live = self.table.get(id).is_some_and(|a| a.is_live() && !a.is_over(now.mono));
        // One five-tuple, one allocation.
        let taken = self.table.find(&to.five_tuple()).is_some_and(|other| other != id);
        if live && !taken { Ok(id) } else { Err(gone()) }
    }

    fn check_owner(
        &mut self,
        id: AllocationId,
        to: Destination,
        who: &Authenticated,
    ) -> Result<(), Reject> {
        if self.table.get(id).is_some_and(|a| a.is_owned_anywhere_by(&who.identity, &who.key)) {
            return Ok(());
        }
        let (Destination::Here(client) | Destination::Away { client, .. }) = to;
        self.report(client, AuthFailure::NotTheOwner);
        Err(Reject::code(ErrorCode::WRONG_CREDENTIALS))
    }

    /// Whether the ticket is still good, and says something new.
    fn check_move(&self, id: AllocationId, to: Destination, place: Place) -> Result<(), Reject> {
        let Some((allocation, mobility)) =
            self.table.get(id).and_then(|a| Some((a, a.mobility.as_ref()?)))
        else {
            return Err(Reject::bad("MOBILITY-TICKET is not valid"));
        };
        let renewed = mobility.renewed && place.number == mobility.newest();
        if place.number != mobility.number && !renewed {
            return Err(Reject::bad("MOBILITY-TICKET was used"));
        }
        let same = allocation.client.five_tuple == to.five_tuple() && !mobility.adrift
            || renewed && allocation.is_awaited_at(&to.five_tuple());
        if same {
            return Err(Reject::bad("MOBILITY-TICKET, but the five-tuple is the same"));
        }
        if matches!(to, Destination::Away { full: true, .. }) {
            return Err(Reject::Error(ErrorCode::INSUFFICIENT_CAPACITY, "Server is full"));
        }
        Ok(())
    }

    /// The client is awaited at its new five-tuple; returns the next ticket. `None`
    /// when there is no allocation any more.
    fn grant_move(
        &mut self,
        id: AllocationId,
        to: Destination,
        place: Place,
    ) -> Option<[u8; super::ticket::TICKET_LEN]> {
        let mobility = self.table.get_mut(id)?.mobility.as_mut()?;
        // Whoever shows the newer ticket has got it, and needs the older no more.
        mobility.number = place.number;
        let before = mobility.next.take();
        let next = match to {
            Destination::Here(client) => Next::Here(client),
            Destination::Away { shard, into, client, .. } => Next::Away { shard, into, client },
        };
        mobility.renewed = matches!(next, Next::Here(_));
        mobility.next = Some(next);
        if let Some(before) = before.filter(|before| *before != next) {
            self.call_off(id, before);
        }
        let number = place.number.wrapping_add(1);
        let next = match next {
            Next::Here(client) => {
                self.table.index_client(client.five_tuple, id);
                Place { shard: self.shard.index, allocation: id, number }
            }
            Next::Away { shard, into, .. } => Place { shard, allocation: into, number },
        };
        self.tickets.as_ref().map(|tickets| tickets.seal(next))
    }

    /// A move that was granted is off.
    fn call_off(&mut self, id: AllocationId, next: Next) {
        match next {
            Next::Here(client) => self.table.unindex_client(&client.five_tuple, id),
            Next::Away { shard, into, .. } => {
                let message = ShardMessage::MoveGone { into };
                self.outputs.push_back(Output::ToShard { shard, message });
            }
        }
    }

    /// The allocation ends, and with it the move that was granted.
    pub(in crate::turn) fn forget_move(&mut self, id: AllocationId) {
        let next = self.table.get_mut(id).and_then(|a| a.mobility.as_mut()?.next.take());
        if let Some(next) = next {
            self.call_off(id, next);
        }
    }

    /// The client has shown up where it is awaited, at this shard: the allocation
    /// has moved.
    pub(in crate::turn) fn complete_move(&mut self, now: Now, id: AllocationId) {
        let Some((previous, client)) = self.table.get(id).and_then(|a| {
            let Some(Next::Here(client)) = a.mobility.as_ref()?.next else { return None };
            Some((a.client.five_tuple, client))
        }) else {
            return;
        };
        self.route_all(id, false);
        if !self.table.get(id).is_some_and(Allocation::is_adrift) {
            self.table.unindex_client(&previous, id);
        }
        if let Some(allocation) = self.table.get_mut(id) {
            let shard = self.shard.index;
            settle(allocation, client, now, |number| Place { shard, allocation: id, number });
        }
        self.route_all(id, true);
        self.tell_moved(id, previous);
    }

    /// The allocation goes to the shard at which the client has shown up.
    fn hand_over(&mut self, now: Now, id: AllocationId) {
        let next = self.table.get(id).and_then(|a| a.mobility.as_ref()?.next);
        let Some(Next::Away { shard, into, client }) = next else { return };
        self.route_all(id, false);
        let Some(mut allocation) = self.table.remove(id) else { return };
        let previous = allocation.client.five_tuple;
        let here = self.shard.index;
        settle(&mut allocation, client, now, |number| Place {
            shard: here,
            allocation: id,
            number,
        });
        allocation.wakes = None;
        let luggage = Box::new(Luggage { allocation, previous });
        let message = ShardMessage::MoveDone { from: id, into, luggage };
        self.outputs.push_back(Output::ToShard { shard, message });
    }

    /// The client cannot be at its old five-tuple any more. Whether it is at the new
    /// one, and has got the next ticket there, the other shard knows.
    fn send_for_client(&mut self, id: AllocationId) {
        let next = self.table.get(id).and_then(|a| a.mobility.as_ref()?.next);
        if let Some(Next::Away { shard, into, .. }) = next {
            let message = ShardMessage::MoveNow { into };
            self.outputs.push_back(Output::ToShard { shard, message });
        }
    }

    /// A client's connection ended. The allocation stays for the client to come
    /// back to with its ticket; where it is awaited already, it is from now on.
    pub(in crate::turn) fn on_mobile_link_closed(
        &mut self,
        now: Now,
        id: AllocationId,
        five_tuple: FiveTuple,
        link: Link,
    ) {
        let closed = Client { five_tuple, link };
        let Some(allocation) = self.table.get_mut(id) else { return };
        let at_home = allocation.client == closed;
        let Some(mobility) = &mut allocation.mobility else { return };
        match mobility.next {
            Some(Next::Here(client)) if client == closed => {
                mobility.next = None;
                self.table.unindex_client(&five_tuple, id);
            }
            _ if !at_home || mobility.adrift => {}
            Some(Next::Here(_)) => self.complete_move(now, id),
            Some(Next::Away { .. }) | None => {
                mobility.adrift = true;
                self.table.unindex_client(&five_tuple, id);
                self.send_for_client(id);
            }
        }
    }

    /// Another shard has got a Refresh with a ticket of this one.
    pub(in crate::turn) fn on_move_ask(&mut self, now: Now, shard: u16, ask: Box<MoveAsk>) {
        let Some(ask) = self.hold_ask(shard, ask) else { return };
        let MoveAsk { into, client, again, full, request, allocation: id } = *ask;
        let mut reply = [0; MAX_REPLY];
        let len = match Message::parse(&request) {
            // Called off meanwhile, and told so: the id that it was to have is no more.
            _ if again && !self.is_awaited_away(id, shard, into) => 0,
            Ok(request) => {
                let to = Destination::Away { shard, into, client, full };
                self.answer_move(now, client, to, &request, &mut reply)
            }
            Err(_) => 0,
        };
        let granted = self.is_awaited_away(id, shard, into);
        let message = ShardMessage::MoveAnswer { into, granted, reply: reply[..len].into() };
        self.outputs.push_back(Output::ToShard { shard, message });
        if granted && self.table.get(id).is_some_and(Allocation::is_adrift) {
            self.send_for_client(id);
        }
    }

    /// Whether the client is awaited at another shard under this id.
    fn is_awaited_away(&self, id: AllocationId, at: u16, under: AllocationId) -> bool {
        let next = self.table.get(id).and_then(|a| a.mobility.as_ref()?.next);
        matches!(next, Some(Next::Away { shard, into, .. }) if (shard, into) == (at, under))
    }

    /// Writes the answer to a Refresh that came to another shard; its length, zero
    /// for none.
    fn answer_move(
        &mut self,
        now: Now,
        client: Client,
        to: Destination,
        request: &Message<'_>,
        reply: &mut [u8],
    ) -> usize {
        let mut envelope = Envelope::of(request);
        // Nobody is looked up outside: the owner proves itself with the key that
        // the allocation knows, everybody else is refused.
        let granted = self
            .authenticate(now, client, request, &mut envelope, Some(&None))
            .and_then(|who| self.on_moving_refresh(now, to, request, &envelope, &who, reply));
        match self.conclude(now, client, request, &envelope, granted, reply) {
            Verdict::Reply { len } => len,
            Verdict::Drop(reason) => {
                self.counters.dropped(reason);
                0
            }
            Verdict::Queued
            | Verdict::HandOver { .. }
            | Verdict::ReplyFrom { .. }
            | Verdict::Forward(_) => 0,
        }
    }

    /// The client has shown up at another shard. A claim that fits no grant came
    /// when the grant was taken back, which the other shard is told already.
    pub(in crate::turn) fn on_move_claim(
        &mut self,
        now: Now,
        shard: u16,
        id: AllocationId,
        into: AllocationId,
    ) {
        if !self.is_awaited_away(id, shard, into) {
            return;
        }
        if self.table.get(id).is_some_and(|a| a.is_over(now.mono)) {
            return self.end_allocation(now, id, EndReason::Expired);
        }
        self.hand_over(now, id);
    }
}

/// The allocation is at its client's new five-tuple: the ticket is used up, the one
/// after it is good.
fn settle(allocation: &mut Allocation, client: Client, now: Now, place: impl FnOnce(u16) -> Place) {
    allocation.client = client;
    if let Stage::Live(granted) = &mut allocation.stage {
        // The Allocate came from another five-tuple.
        granted.transaction = None;
    }
    if let Some(mobility) = &mut allocation.mobility {
        let number = mobility.number;
        let used = Some((place(number), now.mono + REPETITION));
        **mobility = Mobility { number: number.wrapping_add(1), used, ..Mobility::new() };
    }
}
