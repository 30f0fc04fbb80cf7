//! Allocations that follow their clients (RFC 8016), as the model has them.
//!
//! 1. A Refresh with a good ticket is granted: the model learns the next ticket,
//!    and where the client is awaited. Data still goes to the old five-tuple.
//! 2. The allocation moves: within a shard with the first packet from the new
//!    five-tuple, to another shard in a message, during which it is nowhere.
//! 3. The ticket is used up.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sturn::net::{FiveTuple, Now};
use sturn::turn::{Client, Event as Said, Link, Output, RelayId, ShardMessage};

use crate::forecast::error;
use crate::model::{Allocation, Forecast, Model};
use crate::setup::Credential;
use crate::wire::{self, Class, Stun};
use crate::world::{Event, World, shard_of, trace};

/// The shard of an allocation that has left one and not arrived at the other.
pub const TRANSIT: u16 = u16::MAX;

/// How long the Refresh that a client has moved with is answered again.
const REPETITION: Duration = Duration::from_secs(30);

/// What a mobile allocation has besides.
#[derive(Clone, Debug)]
pub struct Mobile {
    /// The ticket that is good; empty while the answer with it is on its way.
    pub ticket: Vec<u8>,
    /// The one that was given out with a move, good once that is done.
    renewed: Option<Vec<u8>>,
    /// Where the client is awaited.
    next: Option<Client>,
    /// The ticket it has moved with last, and until when that may be repeated.
    last: Option<(Vec<u8>, Instant)>,
    /// Its client has no connection.
    adrift: bool,
}

impl Mobile {
    pub fn new(ticket: &[u8]) -> Self {
        let ticket = ticket.to_vec();
        Self { ticket, renewed: None, next: None, last: None, adrift: false }
    }
}

impl Allocation {
    pub fn is_adrift(&self) -> bool {
        self.mobile.as_ref().is_some_and(|m| m.adrift)
    }

    pub fn is_awaited_at(&self, five_tuple: &FiveTuple) -> bool {
        let next = self.mobile.as_ref().and_then(|m| m.next);
        next.is_some_and(|next| next.five_tuple == *five_tuple)
    }

    /// Whether the ticket of a Refresh is its own.
    pub fn is_named_by(&self, request: &Stun) -> bool {
        let ticket = request.get(wire::TICKET).filter(|_| request.is_moving_refresh());
        ticket.is_some_and(|ticket| {
            let last = self.mobile.as_ref().and_then(|m| m.last.as_ref());
            self.has_good_ticket(ticket) || last.is_some_and(|(used, _)| used == ticket)
        })
    }

    fn has_good_ticket(&self, ticket: &[u8]) -> bool {
        let good = |m: &Mobile| m.ticket == ticket || m.renewed.as_deref() == Some(ticket);
        self.mobile.as_ref().is_some_and(good)
    }

    /// Whether its client has moved to a five-tuple with this ticket, not long ago.
    fn has_moved_with(&self, now: Now, ticket: &[u8], to: &FiveTuple) -> bool {
        let last = self.mobile.as_ref().and_then(|m| m.last.as_ref());
        let recent = last.is_some_and(|(used, until)| used == ticket && now.mono < *until);
        recent && self.client.five_tuple == *to
    }

    /// The client is at the new five-tuple, and only there.
    fn settle(&mut self, now: Now, client: Client, with: Vec<u8>, ticket: &[u8], adrift: bool) {
        let last = Some((with, now.mono + REPETITION));
        self.client = client;
        self.id = None;
        self.mobile = Some(Mobile { last, adrift, ..Mobile::new(ticket) });
    }
}

impl Model {
    /// What a Refresh with a ticket may be answered with. Where the allocation is
    /// elsewhere or on its way the model does not say how the race goes.
    pub fn forecast_move(
        &self,
        now: Now,
        client: Client,
        request: &Stun,
        credential: &Credential,
    ) -> Forecast {
        if self.setup.settings.mobility.is_none() {
            return error(405);
        }
        let ticket = request.get(wire::TICKET).expect("it is a moving Refresh");
        let fits = |a: &&Allocation| {
            a.has_good_ticket(ticket) || a.has_moved_with(now, ticket, &client.five_tuple)
        };
        let Some(allocation) = self.allocations.values().find(fits) else {
            return Forecast { success: false, errors: BTreeSet::from([400, 437, 441]) };
        };
        let success = allocation.is_alive(now.mono) && allocation.name == credential.name;
        Forecast { success, errors: BTreeSet::from([400, 437, 441, 443, 508]) }
    }

    /// A Refresh with a ticket was granted.
    fn move_granted(&mut self, now: Now, to: Client, request: &Stun, answer: &Stun) {
        let shown = request.get(wire::TICKET).expect("it is a moving Refresh");
        let lifetime = self.lifetime(now, request).as_secs() as u32;
        assert_eq!(answer.u32(wire::LIFETIME), Some(lifetime));
        let good = |a: &&mut Allocation| a.has_good_ticket(shown);
        let credential = self.credential(request, false).expect("a known user").name.clone();
        if let Some(allocation) = self.allocations.values_mut().find(good) {
            assert!(!self.used_tickets.contains(shown), "a ticket moves an allocation once");
            assert_eq!(allocation.name, credential, "an allocation is its owner's");
            let mobile = allocation.mobile.as_mut().expect("it has a ticket");
            if mobile.renewed.as_deref() == Some(shown) {
                mobile.ticket = shown.to_vec();
            }
            mobile.renewed = answer.get(wire::TICKET).map(<[u8]>::to_vec);
            mobile.next = Some(to);
            let home = allocation.client.five_tuple;
            return self.apply_refresh(now, home, request);
        }
        let moved = |a: &&mut Allocation| a.has_moved_with(now, shown, &to.five_tuple);
        let shards = self.setup.shards;
        let allocation = self.allocations.values_mut().find(moved);
        let allocation = allocation.expect("a ticket that is used up is not good again");
        assert_eq!(allocation.name, credential, "an allocation is its owner's");
        let mobile = allocation.mobile.as_mut().expect("it has moved");
        if let Some(ticket) = answer.get(wire::TICKET) {
            // The next one for another shard has been told there only.
            let home = allocation.shard;
            let here = |next: Client| shard_of(&next.five_tuple, shards) == home;
            let renewed = mobile.renewed.as_ref().filter(|_| mobile.next.is_some_and(here));
            let newest = renewed.unwrap_or(&mobile.ticket);
            assert_eq!(ticket, newest, "the same answer as before");
        }
        self.apply_refresh(now, to.five_tuple, request);
    }

    /// The client has shown up at the five-tuple, at the same shard.
    fn moved_within(&mut self, now: Now, previous: FiveTuple, five_tuple: FiveTuple) {
        let mut allocation = self.allocations.remove(&previous).expect("it was there");
        let mobile = allocation.mobile.take().expect("only mobile ones move");
        let next = mobile.next.filter(|next| next.five_tuple == five_tuple);
        let next = next.expect("a move was granted");
        let ticket = mobile.renewed.expect("a ticket came with the grant");
        self.used_tickets.insert(mobile.ticket.clone());
        let adrift = self.closed.contains(&next.link);
        allocation.settle(now, next, mobile.ticket, &ticket, adrift);
        self.insert_moved(five_tuple, allocation);
    }

    /// The allocation leaves its shard; its sockets have new ids.
    fn hand_over(&mut self, now: Now, shard: u16, ids: &[(RelayId, RelayId)]) -> FiveTuple {
        let holds = |a: &&Allocation| {
            a.shard == shard && a.relays.iter().any(|r| ids.iter().any(|(old, _)| *old == r.id))
        };
        let leaving = self.allocations.values().find(holds).expect("somebody has the sockets");
        let previous = leaving.client.five_tuple;
        let next = leaving.mobile.as_ref().and_then(|m| m.next).expect("a move was granted");
        self.moved_within(now, previous, next.five_tuple);
        let allocation = self.allocations.get_mut(&next.five_tuple).expect("just moved");
        allocation.shard = TRANSIT;
        for relay in &mut allocation.relays {
            if let Some((_, new)) = ids.iter().find(|(old, _)| *old == relay.id) {
                relay.id = *new;
            }
        }
        next.five_tuple
    }

    fn arrived(&mut self, shard: u16, five_tuple: FiveTuple) {
        let allocation = self.allocations.get_mut(&five_tuple).expect("it was on its way");
        assert_eq!(allocation.shard, TRANSIT, "it arrives once");
        allocation.shard = shard;
        let gone = self.closed.contains(&allocation.client.link);
        allocation.mobile.as_mut().expect("it has moved").adrift = gone;
    }

    fn insert_moved(&mut self, five_tuple: FiveTuple, allocation: Allocation) {
        let other = self.allocations.insert(five_tuple, allocation);
        assert!(other.is_none(), "one allocation for each five-tuple");
    }

    /// A connection is about to be reported as ended: whether what is bound to it
    /// may live on.
    pub fn link_closes(&mut self, five_tuple: FiveTuple, link: Link) {
        self.closed.insert(link);
        for allocation in self.allocations.values_mut() {
            let (shard, home) = (allocation.shard, allocation.client.five_tuple == five_tuple);
            let Some(mobile) = &mut allocation.mobile else { continue };
            let here = |next: Client| shard_of(&next.five_tuple, self.setup.shards) == shard;
            let next_here = mobile.next.filter(|next| here(*next));
            if next_here.is_some_and(|next| next.link == link) {
                mobile.next = None;
            } else if home && shard != TRANSIT && next_here.is_none() {
                mobile.adrift = true;
            }
        }
    }
}

impl World {
    /// Follows the moves in what a core wants done. `granted` is an answer that
    /// the core gave at once.
    pub fn follow_moves(
        &mut self,
        shard: u16,
        outputs: &[Output],
        granted: Option<(Client, &Stun, &Stun)>,
    ) {
        for output in outputs {
            match output {
                Output::ToShard { message: ShardMessage::MoveAnswer { reply, .. }, .. } => {
                    self.granted_elsewhere(reply);
                }
                // One of several that have waited: the last of them counts.
                Output::Send { client, message } => self.granted_late(*client, message),
                Output::ToShard { shard: to, message } => self.sockets_leave(shard, *to, message),
                Output::Event(Said::AllocationMoved { five_tuple, previous, .. }) => {
                    self.moved(shard, *five_tuple, *previous, outputs, granted);
                }
                _ => {}
            }
        }
    }

    /// The owner's answer to a Refresh that came to another shard.
    fn granted_elsewhere(&mut self, reply: &[u8]) {
        let Some(answer) = Stun::parse(reply) else { return };
        let asker = self.queued.iter().find(|((_, id, _), _)| *id == answer.id);
        let (client, _, altered) = *asker.expect("somebody has asked").0;
        // Its nonce is as old as the answer, which takes time to get there.
        self.remember_nonce(client, &answer);
        if answer.class == Class::Error {
            return;
        }
        assert!(!altered || self.queued.contains_key(&(client, answer.id, false)));
        let request = self.queued[&(client, answer.id, false)].request.clone();
        trace!(self, "{} may move", client.five_tuple);
        self.model.move_granted(self.now, client, &request, &answer);
        self.tally("move to another shard granted");
    }

    /// The answer to a Refresh with a ticket that has waited here.
    fn granted_late(&mut self, client: Client, message: &[u8]) {
        let Some(answer) = Stun::parse(message).filter(|a| a.class == Class::Success) else {
            return;
        };
        let question = self.queued.get(&(client, answer.id, false));
        let request = question.map(|q| q.request.clone()).filter(Stun::is_moving_refresh);
        if let Some(request) = request.filter(|_| answer.method == wire::REFRESH) {
            self.granted_move(client, &request, &answer);
            self.applied.insert(answer.id);
        }
    }

    fn sockets_leave(&mut self, shard: u16, to: u16, message: &ShardMessage) {
        let ids: Vec<(RelayId, RelayId)> = message.moved_relays().collect();
        if ids.is_empty() {
            return;
        }
        let five_tuple = self.model.hand_over(self.now, shard, &ids);
        trace!(self, "shard {shard} hands the allocation for {five_tuple} over to {to}");
        for (old, new) in ids {
            self.kernel.hand_over((shard, old), (to, new));
        }
    }

    fn moved(
        &mut self,
        shard: u16,
        five_tuple: FiveTuple,
        previous: FiveTuple,
        outputs: &[Output],
        granted: Option<(Client, &Stun, &Stun)>,
    ) {
        trace!(self, "shard {shard} has the client of {previous} at {five_tuple}");
        if self.model.allocations.get(&five_tuple).is_some_and(|a| a.shard == TRANSIT) {
            self.tally("allocation moved to another shard");
            return self.model.arrived(shard, five_tuple);
        }
        self.tally("allocation moved within a shard");
        let known = self.model.allocations.get(&previous);
        if !known.is_some_and(|a| a.is_awaited_at(&five_tuple)) {
            // Without an old five-tuple it moves with the answer to its Refresh.
            self.grant_now(five_tuple, outputs, granted);
        }
        self.model.moved_within(self.now, previous, five_tuple);
    }

    fn grant_now(
        &mut self,
        five_tuple: FiveTuple,
        outputs: &[Output],
        granted: Option<(Client, &Stun, &Stun)>,
    ) {
        if let Some((client, request, answer)) = granted.filter(|g| g.0.five_tuple == five_tuple) {
            self.model.move_granted(self.now, client, request, answer);
            self.applied.insert(answer.id);
            return;
        }
        let sent = outputs.iter().find_map(|output| match output {
            Output::Send { client, message } if client.five_tuple == five_tuple => {
                Some((*client, Stun::parse(message).expect("whole messages are sent")))
            }
            _ => None,
        });
        let (client, answer) = sent.expect("a move is answered");
        let question = &self.queued[&(client, answer.id, false)];
        let request = question.request.clone();
        self.model.move_granted(self.now, client, &request, &answer);
        self.applied.insert(answer.id);
    }

    /// A success response to a Refresh with a ticket. What the owner at another
    /// shard has granted, or what is done already, is not done twice.
    pub fn granted_move(&mut self, from: Client, request: &Stun, answer: &Stun) {
        if !self.relaying_answer && !self.applied.contains(&answer.id) {
            self.model.move_granted(self.now, from, request, answer);
        }
    }

    /// The host has another address; its old connection ends sooner or later.
    pub fn roam(&mut self, host: usize) {
        let old = self.hosts[host].identity;
        let identity = self.fresh_identity(host);
        trace!(self, "host {host} goes from {} to {}", old.five_tuple, identity.five_tuple);
        self.hosts[host].roam(&mut self.rng, identity);
        if old.five_tuple.transport.is_stream() {
            let late = self.rng.permille(500);
            let delay =
                std::time::Duration::from_millis(if late { self.rng.within(0..60_000) } else { 0 });
            self.schedule(delay, Event::Closed { client: old });
        }
    }
}
