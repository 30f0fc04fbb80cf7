//! Allocations that follow their clients (RFC 8016).
//!
//! A client that has a new address shows the ticket it was given with its
//! allocation, in a Refresh from its new five-tuple:
//!
//! 1. The Refresh is checked where the allocation is: signed by its owner, with a
//!    ticket that was not used yet. The answer has the next ticket.
//! 2. The old five-tuple stays in use until the client shows up at the new one
//!    with anything else than that Refresh, or the old connection ends.
//! 3. Then the allocation has moved, and the first ticket is used up.
//!
//! A client that never hears the answer repeats its Refresh and gets the same
//! answer. Until step 3 it may also try again from a third five-tuple.
//!
//! The new five-tuple mostly comes to another shard, which then keeps an `arrival`:
//! an id for the allocation, so that the next ticket can name it. The Refresh goes
//! to the owner as it came (`MoveAsk`) and its answer comes back (`MoveAnswer`). The
//! first packet from the new five-tuple, or the end of the old connection
//! (`MoveNow`), makes the new shard claim the allocation (`MoveClaim`), and the owner hands over all of it (`MoveDone`), relay sockets
//! included. Whatever ends a move that was granted is told (`MoveGone`): for each
//! grant one of the last two is sent.
//!
//! `departure` is the owner's side, `arrival` the new shard's.

mod arrival;
mod departure;
mod ticket;

use std::fmt;
use std::time::{Duration, Instant};

pub(super) use arrival::Arrivals;
pub(super) use departure::Destination;
pub(super) use ticket::{Place, Tickets};

use super::Server;
use super::allocation::{Allocation, slot};
use super::channels::Channel;
use super::event::Event;
use super::reply::Reject;
use super::vocabulary::{AllocationId, Client, Output, RelayId, Route};
use crate::net::{Family, FiveTuple};
use crate::stun::{Attribute, ErrorCode, Message};

/// How long a repetition of the Refresh that a client has moved with is answered
/// (RFC 8016 section 3.2.2).
const REPETITION: Duration = Duration::from_secs(30);

/// What an allocation has when its client asked for mobility.
pub(super) struct Mobility {
    /// The number of the ticket that is good.
    pub(super) number: u16,
    /// The one after it is good too: it was given out for a move within this shard.
    pub(super) renewed: bool,
    /// Where the client is going.
    pub(super) next: Option<Next>,
    /// The ticket of the last move, and until when its Refresh may be repeated.
    pub(super) used: Option<(Place, Instant)>,
    /// The client's connection has ended: it has no five-tuple, only its ticket.
    pub(super) adrift: bool,
}

/// A five-tuple from which the client has shown its ticket, and nothing else yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// At this shard.
    Here(Client),
    /// At another shard, where the allocation will have this id.
    Away { shard: u16, into: AllocationId, client: Client },
}

/// An allocation on its way to another shard.
pub struct Luggage {
    pub(super) allocation: Box<Allocation>,
    /// Where its client was.
    pub(super) previous: FiveTuple,
}

impl Luggage {
    /// The families it relays.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let relays = self.allocation.relays;
        [Family::V4, Family::V6].into_iter().filter(move |family| relays[slot(*family)].is_some())
    }
}

impl fmt::Debug for Luggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Luggage").field(&self.allocation.client.five_tuple).finish()
    }
}

impl Mobility {
    /// Of a new allocation.
    pub(super) fn new() -> Self {
        Self { number: 0, renewed: false, next: None, used: None, adrift: false }
    }

    /// The number of the ticket that the client was given last.
    fn newest(&self) -> u16 {
        self.number.wrapping_add(u16::from(self.renewed))
    }
}

impl Allocation {
    /// Whether this is the five-tuple that its client is going to.
    #[inline]
    pub(super) fn is_awaited_at(&self, five_tuple: &FiveTuple) -> bool {
        let next = self.mobility.as_ref().and_then(|m| m.next.as_ref());
        matches!(next, Some(Next::Here(client)) if client.five_tuple == *five_tuple)
    }

    /// Whether its client is at no five-tuple.
    #[inline]
    pub(super) fn is_adrift(&self) -> bool {
        self.mobility.as_ref().is_some_and(|m| m.adrift)
    }
}

impl Server {
    /// Whether an Allocate asks for mobility: 405 where it is off.
    pub(super) fn wants_mobility(&self, request: &Message<'_>) -> Result<bool, Reject> {
        match request.get(Attribute::MobilityTicket) {
            None => Ok(false),
            Some([]) if self.tickets.is_none() => Err(Reject::code(ErrorCode::MOBILITY_FORBIDDEN)),
            Some([]) => Ok(true),
            Some(_) => Err(Reject::bad("MOBILITY-TICKET of an Allocate is not empty")),
        }
    }

    /// The value of MOBILITY-TICKET for an allocation of this shard.
    pub(super) fn ticket_of(
        &self,
        id: AllocationId,
        allocation: &Allocation,
    ) -> Option<[u8; ticket::TICKET_LEN]> {
        let number = allocation.mobility.as_ref()?.newest();
        let place = Place { shard: self.shard.index, allocation: id, number };
        Some(self.tickets.as_ref()?.seal(place))
    }

    /// The allocation that a request is about: the one of its five-tuple, else the
    /// one of this shard that its ticket names.
    pub(super) fn subject(&self, from: Client, request: &Message<'_>) -> Option<AllocationId> {
        let of_five_tuple = self.table.find(&from.five_tuple);
        of_five_tuple.or_else(|| {
            let place = self.place_in(request)?;
            let here = place.shard == self.shard.index;
            (here && self.table.get(place.allocation).is_some()).then_some(place.allocation)
        })
    }

    /// What the ticket of a Refresh says.
    fn place_in(&self, request: &Message<'_>) -> Option<Place> {
        let ticket = request.get(Attribute::MobilityTicket)?;
        let is_refresh = request.method() == crate::stun::Method::REFRESH;
        self.tickets.as_ref().filter(|_| is_refresh)?.open(ticket)
    }

    /// The routes of all channels are gone, or back, with the client's five-tuple.
    fn route_all(&mut self, id: AllocationId, add: bool) {
        let Some(allocation) = self.table.get(id) else { return };
        let five_tuple = allocation.client.five_tuple;
        for &Channel { number: channel, peer, .. } in allocation.channels.iter() {
            let relay = RelayId { allocation: id, family: peer.family() };
            let local = allocation.relays[slot(peer.family())].map(|r| r.local);
            let route = match local.filter(|_| add) {
                Some(local) => Route::Add { five_tuple, channel, relay, local, peer },
                None => Route::Remove { five_tuple, channel, relay, peer },
            };
            self.outputs.push_back(Output::Route(route));
        }
    }

    fn tell_moved(&mut self, id: AllocationId, previous: FiveTuple) {
        let Some(allocation) = self.table.get(id) else { return };
        self.outputs.push_back(Output::Event(Event::AllocationMoved {
            allocation: id,
            five_tuple: allocation.client.five_tuple,
            previous,
            username: allocation.identity.name.clone(),
            relayed: allocation.advertised(),
        }));
    }
}
