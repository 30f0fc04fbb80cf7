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
}

struct Reservation {
    address: RelayedAddr,
    owner: Arc<str>,
    expires: Instant,
}

impl Reservations {
    pub(super) fn new(seed: HashSeed) -> Self {
        Self { by_token: map(seed) }
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
                slot.insert(Reservation { address, owner, expires });
                return token;
            }
        }
    }

    /// Hands the port to its owner, once.
    pub(super) fn claim(&mut self, now: Instant, token: Token, user: &str) -> Option<RelayedAddr> {
        let r = self.by_token.get(&token)?;
        let rightful = *r.owner == *user && r.expires > now;
        rightful.then(|| self.by_token.remove(&token)).flatten().map(|r| r.address)
    }

    /// Forgets a reservation that is over; its address is to be freed.
    pub(super) fn expire(&mut self, now: Instant, token: Token) -> Option<RelayedAddr> {
        let over = self.by_token.get(&token)?.expires <= now;
        over.then(|| self.by_token.remove(&token)).flatten().map(|r| r.address)
    }
}
