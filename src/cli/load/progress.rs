//! From the first request of each client to the last: connecting, allocating, opening the
//! way to the peer, giving back; and storms, which do that over and over.

use std::io;
use std::time::Instant;

use super::flow::{PATIENCE, State};
use super::link::Link;
use super::plan::{By, Work};
use super::traffic::{PEERS, STREAMS, Traffic};
use super::trouble::{Trouble, is_about_credentials};
use super::wire;
use crate::client::{Allocate, Allocated, Event, Failure, Transaction};
use crate::io::Interest;
use crate::net::Family;

/// Clients of one thread that are on their way at once, but in a storm.
const AT_ONCE: usize = 64;

impl Traffic {
    /// Lets some more clients begin, and says whether all are ready.
    pub(super) fn prepare(&mut self, next: &mut usize) -> Result<bool, Trouble> {
        if self.plan.work == Work::Allocate {
            return Ok(true);
        }
        let mut on_their_way = self.flows.iter().filter(|flow| flow.is_on_its_way()).count();
        while on_their_way < AT_ONCE && *next < self.flows.len() {
            self.start(*next)?;
            *next += 1;
            on_their_way += 1;
        }
        Ok(self.flows.iter().all(|flow| flow.state == State::Ready))
    }

    /// How many clients are ready.
    pub(super) fn ready(&self) -> usize {
        self.flows.iter().filter(|flow| flow.state == State::Ready).count()
    }

    /// A client begins, for the first time or again.
    fn start(&mut self, index: usize) -> Result<(), Trouble> {
        let client = self.new_client(index)?;
        if self.plan.work == Work::Allocate {
            self.renew_path(index)?;
        }
        let flow = &mut self.flows[index];
        let link = Link::open(&self.plan, flow.path)?;
        if let Link::Stream(stream) = &link {
            self.poll
                .add(&stream.socket, STREAMS + index as u64, Interest::READ_WRITE)
                .map_err(|why| Trouble::System { what: "epoll", why })?;
            flow.awaits_room = true;
        }
        flow.link = Some(link);
        flow.client = client;
        flow.state = State::Connecting;
        flow.relayed = None;
        flow.since = self.now.mono;
        flow.measured = self.measuring;
        self.touched.push(index);
        Ok(())
    }

    /// Does what follows from all that has happened.
    pub(super) fn settle(&mut self) -> Result<(), Trouble> {
        while let Some(index) = self.touched.pop() {
            self.settle_one(index)?;
        }
        Ok(())
    }

    fn settle_one(&mut self, index: usize) -> Result<(), Trouble> {
        if self.flows[index].state == State::Connecting {
            let Some(link) = &mut self.flows[index].link else { return Ok(()) };
            if link.advance(&mut self.outbox, &self.sockets)? {
                self.on_connected(index);
            }
        }
        loop {
            let flow = &mut self.flows[index];
            if let Some(event) = flow.client.poll_event() {
                self.on_event(index, event)?;
            } else if let Some(message) = flow.client.poll_transmit() {
                let Some(link) = &mut flow.link else { continue };
                link.send(&mut self.outbox, &self.sockets, &message);
            } else {
                break;
            }
        }
        if let Some(Link::Stream(_)) = self.flows[index].link {
            self.to_flush.push(index);
        }
        Ok(())
    }

    fn on_connected(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        if self.plan.work == Work::Binding {
            flow.state = State::Ready;
            return;
        }
        // IPv4 is what every server gives without being asked.
        let family = Some(Family::of(self.plan.peer)).filter(|family| *family == Family::V6);
        flow.asked =
            Some(flow.client.allocate(self.now, Allocate { family, ..Allocate::default() }));
        flow.state = State::Allocating;
    }

    fn on_event(&mut self, index: usize, event: Event) -> Result<(), Trouble> {
        let flow = &mut self.flows[index];
        let is_answer = event.transaction().is_some() && event.transaction() == flow.asked;
        match event {
            Event::Allocated(allocated) => self.on_allocated(index, &allocated)?,
            Event::PermissionCreated { .. } | Event::ChannelBound { .. } if is_answer => {
                flow.state = State::Ready;
            }
            Event::Refreshed { .. } if is_answer && flow.state == State::Leaving => {
                self.tally.given_back += u64::from(self.leaving);
                self.on_gone(index);
            }
            Event::Failed(failure) => return self.on_failed(index, failure),
            Event::TimedOut { transaction } => return self.on_silence(index, transaction),
            Event::Unusable { why, .. } => return Err(Trouble::Unusable(why)),
            // Data of others, and answers that are not waited for.
            _ => {}
        }
        Ok(())
    }

    fn on_allocated(&mut self, index: usize, allocated: &Allocated) -> Result<(), Trouble> {
        let flow = &mut self.flows[index];
        flow.relayed = allocated.relayed.first().copied();
        flow.state = State::Allocated;
        if self.plan.work == Work::Allocate {
            self.arrived += 1;
            if flow.measured {
                self.tally.delivered += 1;
                self.tally.latency.record(Instant::now().saturating_duration_since(flow.since));
            }
        }
        if self.leaving || self.plan.work == Work::Allocate {
            self.give_back(index);
            return Ok(());
        }
        if !self.plan.relay_to_relay {
            let peer = self.sockets[PEERS].local_addr();
            flow.peer = Some(peer.map_err(|why| Trouble::System { what: "a UDP socket", why })?);
            self.open(index);
            return Ok(());
        }
        // Each of a pair is the other's peer.
        let other = index ^ 1;
        if self.flows[other].state == State::Allocated {
            self.flows[index].peer = self.flows[other].relayed;
            self.flows[other].peer = self.flows[index].relayed;
            self.open(index);
            self.open(other);
            self.touched.push(other);
        }
        Ok(())
    }

    /// Asks for the way to the peer.
    fn open(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        let Some(peer) = flow.peer else { return };
        flow.asked = Some(match self.plan.by {
            By::Channel => flow.client.channel_bind(self.now, Some(wire::CHANNEL), peer),
            By::Send => flow.client.create_permission(self.now, &[peer]),
        });
        flow.state = State::Opening;
    }

    fn on_failed(&mut self, index: usize, failure: Failure) -> Result<(), Trouble> {
        let flow = &mut self.flows[index];
        if flow.state == State::Leaving || self.leaving {
            // The server has no such allocation, or none it would give back.
            self.on_gone(index);
            return Ok(());
        }
        if self.plan.work != Work::Allocate || is_about_credentials(failure.code) {
            self.fall_back(index);
            return Err(Trouble::Refused(failure));
        }
        let measured = flow.measured;
        *self.tally.refused.entry(failure.code).or_default() += u64::from(measured);
        self.on_gone(index);
        Ok(())
    }

    fn on_silence(&mut self, index: usize, transaction: Transaction) -> Result<(), Trouble> {
        let flow = &mut self.flows[index];
        if self.leaving || self.plan.work == Work::Allocate {
            if flow.asked == Some(transaction) {
                self.tally.left_behind += u64::from(self.leaving);
                self.on_gone(index);
            }
            return Ok(());
        }
        let what = match flow.state {
            State::Allocating => "Allocate",
            State::Opening if self.plan.by == By::Send => "CreatePermission",
            State::Opening => "ChannelBind",
            _ => "Refresh",
        };
        self.fall_back(index);
        Err(Trouble::Silent { what, server: self.plan.server })
    }

    /// A connection has failed. Of a client that leaves, the allocation has ended with it.
    pub(super) fn on_broken(&mut self, index: usize, trouble: Trouble) -> Result<(), Trouble> {
        if self.leaving || self.flows[index].state == State::Leaving {
            self.on_gone(index);
            return Ok(());
        }
        Err(trouble)
    }

    /// Nothing is waited for any more; what the client has it can give back.
    fn fall_back(&mut self, index: usize) {
        match self.flows[index].state {
            State::Allocating => self.on_gone(index),
            State::Opening => self.flows[index].state = State::Allocated,
            _ => {}
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) -> Result<(), Trouble> {
        let now = self.now;
        for index in 0..self.flows.len() {
            let flow = &mut self.flows[index];
            if flow.client.poll_timeout().is_some_and(|at| at <= now.mono) {
                flow.client.handle_timeout(now);
                self.touched.push(index);
            }
            if flow.state == State::Connecting {
                if now.mono.saturating_duration_since(flow.since) > PATIENCE {
                    let what = "a connection";
                    return Err(Trouble::Silent { what, server: self.plan.server });
                }
                // OpenSSL sends again what was lost when it is asked.
                self.touched.push(index);
            }
        }
        self.idle.append(&mut self.resting);
        Ok(())
    }
}

/// Storms.
impl Traffic {
    /// Begins as many allocations as may be begun now.
    pub(super) fn storm(&mut self, most: usize) -> Result<usize, Trouble> {
        let count = most.min(self.idle.len());
        for index in self.idle.drain(..count).collect::<Vec<_>>() {
            match self.start(index) {
                // Connections that have ended wait for a while before their port is free.
                Err(Trouble::Connection { why, .. }) if is_out_of_ports(&why) => {
                    self.resting.push(index);
                    continue;
                }
                started => started?,
            }
            self.sent += 1;
            self.tally.sent += u64::from(self.measuring);
        }
        Ok(count)
    }
}

/// The end.
impl Traffic {
    /// Begins to give back everything. What has been asked for comes first.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        for index in 0..self.flows.len() {
            if matches!(self.flows[index].state, State::Idle | State::Connecting) {
                self.on_gone(index);
            }
        }
    }

    /// Gives back some more, and says whether there is nothing left.
    pub(super) fn go_on_leaving(&mut self) -> bool {
        let mut under_way = 0;
        for index in 0..self.flows.len() {
            match self.flows[index].state {
                State::Gone => {}
                State::Allocating | State::Leaving => under_way += 1,
                State::Ready if self.plan.work == Work::Binding => self.on_gone(index),
                _ if under_way < AT_ONCE => {
                    self.give_back(index);
                    self.touched.push(index);
                    under_way += 1;
                }
                _ => under_way += 1,
            }
        }
        under_way == 0
    }

    /// Allocations that the server may still have.
    pub(super) fn left_behind(&self) -> u64 {
        self.flows.iter().filter(|flow| flow.may_be_allocated()).count() as u64
    }

    fn give_back(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        flow.asked = Some(flow.client.refresh(self.now, Some(std::time::Duration::ZERO), None));
        flow.state = State::Leaving;
    }

    /// The server has nothing of this client any more.
    fn on_gone(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        flow.state = State::Gone;
        flow.asked = None;
        if let Some(mut link) = flow.link.take() {
            link.close(&mut self.outbox, &self.sockets);
        }
        if self.plan.work == Work::Allocate && !self.leaving {
            flow.state = State::Idle;
            self.resting_or_idle(index);
        }
    }

    /// A client that was served begins again at once, another one after a pause.
    fn resting_or_idle(&mut self, index: usize) {
        if self.flows[index].relayed.is_some() {
            self.idle.push(index);
        } else {
            self.resting.push(index);
        }
    }
}

fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
}
