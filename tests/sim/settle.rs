//! The ends of a run: what is left when everything has expired, and what every
//! client gets when nothing goes wrong.

use std::time::Duration;

use sturn::client::{Allocate, Attribute, Event as Told};
use sturn::net::Family;

use crate::client::Host;
use crate::setup::Worth;
use crate::wire;
use crate::world::{HOSTS, World, trace};

/// Every request is answered by then.
const ANSWERED: Duration = Duration::from_secs(60);

impl World {
    /// Lets everything expire; then nothing may be left anywhere.
    pub fn drain(&mut self) {
        self.asleep = true;
        self.advance(Duration::from_secs(5000));
        for (index, core) in self.cores.iter().enumerate() {
            assert_eq!(core.server.allocations(), 0, "shard {index} is empty");
            core.server.check_invariants(self.now);
        }
        assert!(self.model.allocations.is_empty(), "the model is empty");
        assert!(self.model.connections.is_empty(), "connections: {:?}", self.model.connections);
        self.peers.assert_empty();
        assert!(self.routes.is_empty(), "routes never removed: {:?}", self.routes);
        self.kernel.assert_empty();
        self.asleep = false;
    }

    /// Without loss and failures every client gets what it is due, and no more.
    pub fn settle(&mut self) {
        (self.loss, self.shell_failures, self.calm) = (0, 0, true);
        for shard in 0..self.cores.len() {
            self.set_draining(shard, false);
        }
        for number in 0..HOSTS {
            let identity = self.fresh_identity(number);
            let credential = self.hosts[number].credential.clone();
            self.hosts[number] = Host::new(&mut self.rng, credential, identity);
        }
        for host in 0..HOSTS {
            trace!(self, "host {host} asks for its due");
            self.claim(host);
        }
    }

    fn claim(&mut self, host: usize) {
        let quota = self.hosts[host].credential.quota.clone();
        let limits = &self.setup.settings.limits;
        let (per_user, most) = (limits.allocations_per_user as usize, limits.allocations);
        let taken = self.taken_at(self.shard_of(self.hosts[host].identity));
        let now = self.now;
        let expected = match self.hosts[host].credential.worth {
            Worth::Bad => Err(401),
            Worth::Until(end) | Worth::Token(end) if end < now.unix_secs() => Err(401),
            _ if taken >= most => Err(508),
            _ if per_user > 0 && self.model.count_of(now, &quota) >= per_user => Err(486),
            _ => Ok(()),
        };
        // One that ends while the request is under way makes room.
        let soon = now.mono + ANSWERED;
        let ending = self.model.allocations.values().any(|a| !a.is_alive(soon));
        let mut allocate = Allocate { family: Some(Family::V4), ..Allocate::default() };
        let settings = &self.setup.settings;
        let tcp = settings.relay.tcp && host % 4 == 3;
        let mobile = settings.mobility.is_some() && !tcp;
        if tcp {
            allocate.requested_transport = wire::TCP;
        }
        if mobile {
            self.allocate_mobile(host, &allocate);
        } else {
            self.hosts[host].client.allocate(now, allocate);
        }
        let outcome = self.until(host, outcome_of);
        let room = ending && matches!(expected, Err(486 | 508)) && outcome == Ok(());
        assert!(room || outcome == expected, "host {host} gets {outcome:?}, not {expected:?}");
        match outcome {
            Err(_) => {}
            Ok(()) if tcp => self.relay_tcp(host),
            Ok(()) => self.echo(host),
        }
        if outcome.is_ok() && mobile {
            self.wander(host);
        }
    }

    /// The allocations of a shard.
    fn taken_at(&self, shard: u16) -> usize {
        self.model.allocations.values().filter(|a| a.shard == shard).count()
    }

    /// Takes the allocation along twice; neither ticket is good a second time.
    fn wander(&mut self, host: usize) {
        for _ in 0..2 {
            let ticket = self.hosts[host].tickets.last().expect("it came with the answer").clone();
            self.roam(host);
            let taken = self.taken_at(self.shard_of(self.hosts[host].identity));
            match self.show(host, ticket.clone()) {
                Ok(()) => {}
                Err(508) if taken >= self.setup.settings.limits.allocations => return,
                other => panic!("host {host} takes it along: {other:?}"),
            }
            self.echo(host);
            // The Refresh may be repeated for a while, but elsewhere it moves nothing.
            let thief = (host + 4) % HOSTS;
            if self.model.alive(self.now, &self.hosts[thief].identity.five_tuple).is_none() {
                let credential = self.hosts[host].credential.clone();
                let identity = self.fresh_identity(thief);
                let own = self.hosts[thief].credential.clone();
                self.hosts[thief] = Host::new(&mut self.rng, credential, identity);
                let refused = self.show(thief, ticket);
                // Nobody is looked up outside for what is at another shard.
                assert!(matches!(refused, Err(400 | 401 | 437)), "a used ticket: {refused:?}");
                let identity = self.fresh_identity(thief);
                self.hosts[thief] = Host::new(&mut self.rng, own, identity);
            }
            self.echo(host);
        }
    }

    /// Shows a ticket and waits for the answer.
    fn show(&mut self, host: usize, ticket: Vec<u8>) -> Result<(), u16> {
        let attributes = vec![Attribute::Raw(wire::TICKET, ticket)];
        self.hosts[host].client.request_raw(self.now, wire::REFRESH, attributes);
        self.until(host, outcome_of)
    }

    /// A connection to a peer, bound and used.
    fn relay_tcp(&mut self, host: usize) {
        let peer = self.setup.peers[0];
        self.connect(host, peer);
        assert_eq!(self.until(host, outcome_of), Ok(()), "host {host} is connected to its peer");
        let id = self.hosts[host].waiting.pop().expect("the answer names the connection");
        let data = self.bind_data_connection(host, id);
        assert_eq!(self.until(data, outcome_of), Ok(()), "host {data} is bound to the peer");
        self.send_to_bound_peer(data);
        self.advance(Duration::from_secs(5));
        let at = &self.hosts[data].data;
        assert!(at.peer.is_some() && at.arrived == at.sent, "the peer gets all of it");
    }

    /// A permission, then data to a peer and back.
    fn echo(&mut self, host: usize) {
        let peer = self.setup.peers[0];
        self.hosts[host].client.create_permission(self.now, &[peer]);
        self.until(host, |event| matches!(event, Told::PermissionCreated { .. }).then_some(()));
        // The peer answers as it likes, so it may take several tries.
        let mut heard = false;
        for _ in 0..100 {
            let data = self.payload();
            self.hosts[host].client.send(peer, &data, false);
            heard |= self
                .within(host, Duration::from_secs(7), |event| {
                    matches!(event, Told::Data { .. }).then_some(())
                })
                .is_some();
            if heard {
                break;
            }
            // What lives no longer than a minute is not to end meanwhile.
            self.hosts[host].client.refresh(self.now, None, None);
        }
        assert!(heard, "host {host} hears from its peer");
    }

    /// Waits for an event that has to come.
    fn until<T>(&mut self, host: usize, wanted: impl Fn(&Told) -> Option<T>) -> T {
        self.within(host, ANSWERED, wanted).expect("the client is answered in time")
    }

    fn within<T>(
        &mut self,
        host: usize,
        patience: Duration,
        wanted: impl Fn(&Told) -> Option<T>,
    ) -> Option<T> {
        self.hosts[host].told.clear();
        self.pump(host);
        let end = self.now.mono + patience;
        while self.now.mono < end {
            self.advance(Duration::from_millis(100));
            if let Some(found) = self.hosts[host].told.iter().find_map(&wanted) {
                return Some(found);
            }
        }
        None
    }
}

/// How a request ended, for one that asked for nothing else.
fn outcome_of(event: &Told) -> Option<Result<(), u16>> {
    match event {
        Told::Allocated(_) | Told::Answered { .. } => Some(Ok(())),
        Told::Failed(failure) => Some(Err(failure.code)),
        _ => None,
    }
}
