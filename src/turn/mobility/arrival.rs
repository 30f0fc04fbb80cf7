//! The new shard's side of a move: from a ticket of another shard to the allocation.

use super::{Luggage, Place};
use crate::net::{FiveTuple, HashSeed, Map, Now, map};
use crate::stun::{Attribute, Message};
use crate::turn::event::{EndReason, Event};
use crate::turn::pending::MAX_REQUEST;
use crate::turn::reply::{Envelope, Reject};
use crate::turn::shard::{MoveAsk, ShardMessage};
use crate::turn::vocabulary::{AllocationId, Client, DropReason, Output, RelayId, Verdict};
use crate::turn::{MAX_REPLY, Server};

/// Requests and questions that wait for one allocation to arrive.
const MAX_HELD: usize = 4;

/// Allocations that may come from other shards, each with the id it will have.
pub(in crate::turn) struct Arrivals {
    by_id: Map<AllocationId, Arrival>,
    by_five_tuple: Map<FiveTuple, AllocationId>,
    /// How many wait for the owner's answer.
    asking: usize,
    /// How many requests and questions wait.
    held: usize,
}

struct Arrival {
    client: Client,
    /// Where the allocation is now.
    owner: u16,
    there: AllocationId,
    /// A Refresh is on its way to the owner.
    asking: bool,
    /// The owner awaits the client here.
    granted: bool,
    /// The client has shown up, and the owner was told so.
    claimed: bool,
    /// The client's connection has ended: only its ticket leads here.
    adrift: bool,
    held: Vec<Held>,
}

/// What goes on when the allocation is here.
enum Held {
    Request(Client, Box<[u8]>),
    Ask(u16, Box<MoveAsk>),
}

impl Arrivals {
    pub(in crate::turn) fn new(seed: HashSeed) -> Self {
        Self { by_id: map(seed), by_five_tuple: map(seed), asking: 0, held: 0 }
    }

    pub(in crate::turn) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(in crate::turn) fn asking(&self) -> usize {
        self.asking
    }

    /// How many are sure to come unless they end: for the invariants.
    pub(in crate::turn) fn granted(&self) -> usize {
        self.by_id.values().filter(|a| a.granted).count()
    }

    pub(in crate::turn) fn has(&self, five_tuple: &FiveTuple) -> bool {
        self.by_five_tuple.contains_key(five_tuple)
    }

    fn of(&self, five_tuple: &FiveTuple) -> Option<AllocationId> {
        self.by_five_tuple.get(five_tuple).copied()
    }

    fn remove(&mut self, id: AllocationId) -> Option<Arrival> {
        let arrival = self.by_id.remove(&id)?;
        if !arrival.adrift {
            self.by_five_tuple.remove(&arrival.client.five_tuple);
        }
        self.asking -= usize::from(arrival.asking);
        self.held -= arrival.held.len();
        Some(arrival)
    }

    /// A client's connection ended; it may come back with its ticket.
    pub(in crate::turn) fn on_link_closed(&mut self, client: Client) {
        self.drop_held(client);
        let Some(id) = self.of(&client.five_tuple) else { return };
        if let Some(arrival) = self.by_id.get_mut(&id).filter(|a| a.client == client) {
            arrival.adrift = true;
            self.by_five_tuple.remove(&client.five_tuple);
        }
    }

    /// Nothing that a client has asked over a connection goes on when that has ended.
    fn drop_held(&mut self, client: Client) {
        if self.held == 0 {
            return;
        }
        for arrival in self.by_id.values_mut() {
            let before = arrival.held.len();
            arrival.held.retain(|held| !matches!(held, Held::Request(of, _) if *of == client));
            self.held -= before - arrival.held.len();
        }
    }

    /// What is true always: for the invariants.
    pub(in crate::turn) fn check(&self) {
        let asking = self.by_id.values().filter(|a| a.asking).count();
        assert_eq!(self.asking, asking, "asking arrivals are counted");
        let held: usize = self.by_id.values().map(|a| a.held.len()).sum();
        assert_eq!(self.held, held, "what is held is counted");
        for (five_tuple, id) in &self.by_five_tuple {
            let arrival = self.by_id.get(id).expect("a five-tuple leads to an arrival");
            assert!(arrival.client.five_tuple == *five_tuple && !arrival.adrift, "and back");
        }
        for arrival in self.by_id.values() {
            assert!(arrival.asking || arrival.granted, "an arrival waits for something");
            assert!(arrival.granted || !arrival.claimed, "only what was granted is claimed");
            assert!(arrival.held.is_empty() || arrival.claimed, "what is held is under way");
            assert!(arrival.held.len() <= MAX_HELD, "bounded");
        }
        let at_five_tuples = self.by_id.values().filter(|a| !a.adrift).count();
        assert_eq!(self.by_five_tuple.len(), at_five_tuples, "one arrival per five-tuple");
    }
}

impl Server {
    /// Takes care of a request that is about an allocation of another shard:
    /// [`Reject::Queued`]. `Ok` when it is for this one.
    ///
    /// A client that does not own its address must not make shards write to each
    /// other, so the nonce comes first.
    pub(in crate::turn) fn pass_on(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
    ) -> Result<(), Reject> {
        let has_integrity = request.has(Attribute::MessageIntegrity)
            || request.has(Attribute::MessageIntegritySha256);
        if !has_integrity || self.table.find(&from.five_tuple).is_some() {
            return Ok(());
        }
        let of_five_tuple = self.arrivals.of(&from.five_tuple);
        let place = self.place_in(request);
        let elsewhere = place.filter(|p| p.shard != self.shard.index && p.shard < self.shard.count);
        let arriving =
            place.map(|p| p.allocation).filter(|id| self.arrivals.by_id.contains_key(id));
        let here = of_five_tuple.or(arriving.filter(|_| elsewhere.is_none()));
        if here.is_none() && elsewhere.is_none() {
            return Ok(());
        }
        self.check_nonce_of(now, from, request)?;
        if request.bytes().len() > MAX_REQUEST {
            return Err(Reject::bad("request too long"));
        }
        match (here, elsewhere) {
            (Some(id), Some(place)) if self.is_awaited_for(id, place) => {
                self.ask_again(id, request)
            }
            (Some(id), _) => {
                let held = Held::Request(from, request.bytes().into());
                Err(if self.hold(id, held) {
                    Reject::Queued
                } else {
                    Reject::Drop(DropReason::InProgress)
                })
            }
            (None, Some(place)) => self.await_arrival(from, place, request),
            (None, None) => Ok(()),
        }
    }

    /// Whether a ticket is the one that the client was awaited here for.
    fn is_awaited_for(&self, id: AllocationId, place: Place) -> bool {
        self.arrivals
            .by_id
            .get(&id)
            .is_some_and(|a| !a.claimed && (a.owner, a.there) == (place.shard, place.allocation))
    }

    /// A repetition of the Refresh: its answer may have been lost.
    fn ask_again(&mut self, id: AllocationId, request: &Message<'_>) -> Result<(), Reject> {
        if self.arrivals.by_id.get(&id).is_none_or(|a| a.asking) {
            return Err(Reject::Drop(DropReason::InProgress));
        }
        self.ask_owner(id, request);
        Err(Reject::Queued)
    }

    fn await_arrival(
        &mut self,
        from: Client,
        place: Place,
        request: &Message<'_>,
    ) -> Result<(), Reject> {
        if self.arrivals.asking >= self.settings.limits.pending {
            return Err(Reject::Drop(DropReason::TooManyPending));
        }
        let id = self.table.reserve();
        let arrival = Arrival {
            client: from,
            owner: place.shard,
            there: place.allocation,
            asking: false,
            granted: false,
            claimed: false,
            adrift: false,
            held: Vec::new(),
        };
        self.arrivals.by_id.insert(id, arrival);
        self.arrivals.by_five_tuple.insert(from.five_tuple, id);
        self.ask_owner(id, request);
        Err(Reject::Queued)
    }

    fn ask_owner(&mut self, into: AllocationId, request: &Message<'_>) {
        // This one is counted already.
        let full = self.table.len() + self.arrivals.len() > self.settings.limits.allocations;
        let Some(arrival) = self.arrivals.by_id.get_mut(&into) else { return };
        arrival.asking = true;
        self.arrivals.asking += 1;
        let message = ShardMessage::MoveAsk(Box::new(MoveAsk {
            allocation: arrival.there,
            into,
            client: arrival.client,
            again: arrival.granted,
            full: full && !arrival.granted,
            request: request.bytes().into(),
        }));
        self.outputs.push_back(Output::ToShard { shard: arrival.owner, message });
    }

    /// The owner's answer to a Refresh.
    pub(in crate::turn) fn on_move_answer(
        &mut self,
        into: AllocationId,
        granted: bool,
        reply: Box<[u8]>,
    ) {
        let Some(arrival) = self.arrivals.by_id.get_mut(&into) else { return };
        self.arrivals.asking -= usize::from(std::mem::take(&mut arrival.asking));
        arrival.granted |= granted;
        let (client, keep) = (arrival.client, arrival.granted);
        if !arrival.adrift && !reply.is_empty() {
            self.outputs.push_back(Output::Send { client, message: reply });
        }
        if !keep {
            self.arrivals.remove(into);
            self.table.release(into);
        }
    }

    /// Why data from a five-tuple without an allocation is dropped. When one is to
    /// come, the client has just shown up for it.
    #[cold]
    pub(in crate::turn) fn without_allocation(&mut self, from: Client) -> DropReason {
        match self.arrivals.of(&from.five_tuple) {
            Some(id) if self.claim(id) => DropReason::InProgress,
            _ => DropReason::NoAllocation,
        }
    }

    /// The client's old connection has ended. When the new one has ended, too, the
    /// client may not have got its next ticket: then the allocation stays where the
    /// old ticket leads, and the new one leads there by way of this shard.
    pub(in crate::turn) fn on_move_now(&mut self, into: AllocationId) {
        if self.arrivals.by_id.get(&into).is_some_and(|arrival| !arrival.adrift) {
            self.claim(into);
        }
    }

    /// Asks for the allocation, once; false when it was not granted so far.
    fn claim(&mut self, into: AllocationId) -> bool {
        let Some(arrival) = self.arrivals.by_id.get_mut(&into).filter(|a| a.granted) else {
            return false;
        };
        if !std::mem::replace(&mut arrival.claimed, true) {
            let message = ShardMessage::MoveClaim { allocation: arrival.there, into };
            self.outputs.push_back(Output::ToShard { shard: arrival.owner, message });
        }
        true
    }

    fn hold(&mut self, id: AllocationId, held: Held) -> bool {
        if !self.claim(id) {
            return false;
        }
        let arrival = self.arrivals.by_id.get_mut(&id).filter(|a| a.held.len() < MAX_HELD);
        let Some(arrival) = arrival else { return false };
        arrival.held.push(held);
        self.arrivals.held += 1;
        true
    }

    /// A question about an allocation that is to arrive here waits until it has;
    /// any other comes back.
    pub(super) fn hold_ask(&mut self, shard: u16, ask: Box<MoveAsk>) -> Option<Box<MoveAsk>> {
        let id = ask.allocation;
        if !self.arrivals.by_id.contains_key(&id) {
            return Some(ask);
        }
        let into = ask.into;
        if !self.hold(id, Held::Ask(shard, ask)) {
            // The client will ask again.
            let message = ShardMessage::MoveAnswer { into, granted: false, reply: [].into() };
            self.outputs.push_back(Output::ToShard { shard, message });
        }
        None
    }

    /// The allocation is here. Its relay sockets have these ids already.
    pub(in crate::turn) fn on_move_done(&mut self, now: Now, into: AllocationId, luggage: Luggage) {
        let families = luggage.families();
        let Luggage { mut allocation, previous } = luggage;
        let Some(arrival) = self.arrivals.remove(into) else {
            // Nobody waits for it any more.
            for family in families {
                let relay = RelayId { allocation: into, family };
                self.outputs.push_back(Output::CloseRelay { relay });
            }
            if allocation.counted {
                self.release_quota(&allocation.identity.user);
            }
            self.outputs.push_back(Output::Event(Event::AllocationEnded {
                allocation: into,
                five_tuple: previous,
                username: allocation.identity.name.clone(),
                relayed: allocation.advertised(),
                age: now.mono.saturating_duration_since(allocation.created),
                traffic: allocation.traffic,
                reason: EndReason::ConnectionClosed,
            }));
            return;
        };
        if let Some(mobility) = &mut allocation.mobility {
            mobility.adrift = arrival.adrift;
        }
        let relays = allocation.relays;
        let expiry = allocation.next_expiry();
        self.table.fill(into, allocation);
        if !arrival.adrift {
            self.table.index_client(arrival.client.five_tuple, into);
        }
        for (family, relay) in families.zip(relays.into_iter().flatten()) {
            let id = RelayId { allocation: into, family };
            self.table.index_relay(id, relay.local.socket(), relay.advertised);
        }
        self.route_all(into, true);
        if let Some(at) = expiry {
            self.wake_by(into, at);
        }
        self.tell_moved(into, previous);
        self.resume(now, arrival.held);
    }

    /// The allocation will not come.
    pub(in crate::turn) fn on_move_gone(&mut self, now: Now, into: AllocationId) {
        if let Some(arrival) = self.arrivals.remove(into) {
            self.table.release(into);
            self.resume(now, arrival.held);
        }
    }

    /// What has waited goes on.
    fn resume(&mut self, now: Now, held: Vec<Held>) {
        for held in held {
            match held {
                Held::Ask(shard, ask) => self.on_move_ask(now, shard, ask),
                Held::Request(client, bytes) => self.go_on(now, client, &bytes),
            }
        }
    }

    fn go_on(&mut self, now: Now, client: Client, bytes: &[u8]) {
        let Ok(request) = Message::parse(bytes) else { return };
        let mut reply = [0; MAX_REPLY];
        let mut envelope = Envelope::of(&request);
        let granted = self.dispatch(now, client, &request, &mut envelope, &mut reply);
        match self.conclude(now, client, &request, &envelope, granted, &mut reply) {
            Verdict::Reply { len } => {
                let message = reply[..len].into();
                self.outputs.push_back(Output::Send { client, message });
            }
            Verdict::Drop(reason) => self.counters.dropped(reason),
            Verdict::Queued
            | Verdict::HandOver { .. }
            | Verdict::ReplyFrom { .. }
            | Verdict::Forward(_) => {}
        }
    }
}
