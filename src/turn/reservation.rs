//! Ports set aside by EVEN-PORT (RFC 8656 section 7.2): each has an owner, ends
//! after a while, and is handed out once.

use std::sync::Arc;
use std::time::Instant;

use super::random::Random;
use crate::net::{HashSeed, Map, RelayedAddr, map};

/// A RESERVATION-TOKEN. The first two bytes name the shard that keeps the port.
pub(super) type Token = [u8; 8];

/// The shard that keeps the port behind a token.
pub(super) fn shard_of(token: Token) -> u16 {
    u16::from_be_bytes([token[0], token[1]])
}

pub(super) struct Reservations {
    by_token: Map<Token, Reservation>,
    /// How many each owner has; no entry for none.
    by_owner: Map<Arc<str>, u32>,
}

struct Reservation {
    address: RelayedAddr,
    owner: Arc<str>,
    expires: Instant,
}

impl Reservations {
    pub(super) fn new(seed: HashSeed) -> Self {
        Self { by_token: map(seed), by_owner: map(seed) }
    }

    /// How many ports are kept for `owner`.
    pub(super) fn held_by(&self, owner: &str) -> u32 {
        self.by_owner.get(owner).copied().unwrap_or(0)
    }

    /// Keeps a port for `owner`; returns the token that claims it.
    pub(super) fn add(
        &mut self,
        shard: u16,
        address: RelayedAddr,
        owner: Arc<str>,
        expires: Instant,
        random: &mut Random,
    ) -> Token {
        loop {
            let [s0, s1] = shard.to_be_bytes();
            let [a, b, c, d, e, f] = random.bytes();
            let token = [s0, s1, a, b, c, d, e, f];
            if let hashbrown::hash_map::Entry::Vacant(slot) = self.by_token.entry(token) {
                *self.by_owner.entry(owner.clone()).or_insert(0) += 1;
                slot.insert(Reservation { address, owner, expires });
                return token;
            }
        }
    }

    /// Hands the port to its owner, once.
    pub(super) fn claim(&mut self, now: Instant, token: Token, user: &str) -> Option<RelayedAddr> {
        let r = self.by_token.get(&token)?;
        let rightful = *r.owner == *user && r.expires > now;
        if rightful { self.remove(token) } else { None }
    }

    /// Forgets a reservation that is over; its address is to be freed.
    pub(super) fn expire(&mut self, now: Instant, token: Token) -> Option<RelayedAddr> {
        let over = self.by_token.get(&token)?.expires <= now;
        if over { self.remove(token) } else { None }
    }

    fn remove(&mut self, token: Token) -> Option<RelayedAddr> {
        let reservation = self.by_token.remove(&token)?;
        if let Some(count) = self.by_owner.get_mut(&reservation.owner) {
            *count -= 1;
            if *count == 0 {
                self.by_owner.remove(&reservation.owner);
            }
        }
        Some(reservation.address)
    }
}
