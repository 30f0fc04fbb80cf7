//! Requests that wait for the keys of their user: bounded in number, size and time.

use crate::net::{HashSeed, Map, Now, map};
use std::time::Instant;

use super::vocabulary::{Client, LookupName, Ticket};

/// The longest request that is kept, in bytes. A longer one is refused.
pub(super) const MAX_REQUEST: usize = 1500;

pub(super) struct Pending {
    by_ticket: Map<u64, Parked>,
    by_client: Map<Client, u64>,
    next: u64,
}

/// A request as it came in.
pub(super) struct Parked {
    pub(super) client: Client,
    pub(super) request: Box<[u8]>,
    pub(super) name: LookupName,
    deadline: Instant,
}

impl Pending {
    pub(super) fn new(seed: HashSeed) -> Self {
        Self { by_ticket: map(seed), by_client: map(seed), next: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    /// Whether this client has a request waiting already; one is enough, since a
    /// client that waits sends the same one again.
    pub(super) fn has(&self, client: Client) -> bool {
        self.by_client.contains_key(&client)
    }

    pub(super) fn park(
        &mut self,
        client: Client,
        request: &[u8],
        name: LookupName,
        deadline: Instant,
    ) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.by_client.insert(client, ticket);
        self.by_ticket.insert(ticket, Parked { client, request: request.into(), name, deadline });
        Ticket(ticket)
    }

    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Parked> {
        let parked = self.by_ticket.remove(&ticket.0)?;
        self.by_client.remove(&parked.client);
        Some(parked)
    }

    /// Forgets a request whose answer did not come; the client will repeat it.
    pub(super) fn expire(&mut self, now: Now, ticket: Ticket) {
        if self.by_ticket.get(&ticket.0).is_some_and(|p| p.deadline <= now.mono) {
            self.take(ticket);
        }
    }

    /// Forgets what a client that is gone was waiting for.
    pub(super) fn forget(&mut self, client: Client) {
        if let Some(ticket) = self.by_client.get(&client).copied() {
            self.take(Ticket(ticket));
        }
    }
}
