//! The value of MOBILITY-TICKET (RFC 8016 section 3.3): sealed, so that clients
//! can neither read nor make one.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::turn::vocabulary::AllocationId;

/// Shard, index, generation and number.
const CONTENT_LEN: usize = 2 + 4 + 4 + 4;

/// Length of a ticket in bytes.
pub(super) const TICKET_LEN: usize = NONCE_LEN + CONTENT_LEN + 16;

/// Where an allocation is to be found, and which of its tickets this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::turn) struct Place {
    pub(super) shard: u16,
    pub(super) allocation: AllocationId,
    /// Each move uses up one number.
    pub(super) number: u32,
}

/// Seals and opens tickets. Every shard has the same key.
pub(in crate::turn) struct Tickets {
    nonces: hmac::Key,
    seal: LessSafeKey,
}

impl Tickets {
    /// `secret` is any length; without it no ticket can be made.
    pub(in crate::turn) fn new(secret: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derive = |purpose: &[u8]| hmac::sign(&root, purpose);
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, derive(b"sturn ticket nonce 1").as_ref());
        let seal = UnboundKey::new(&AES_256_GCM, derive(b"sturn ticket seal 1").as_ref())
            .expect("SHA-256 gives the 32 bytes that AES-256 takes");
        Self { nonces, seal: LessSafeKey::new(seal) }
    }

    /// The ticket of a place. The same place has the same ticket always, so that a
    /// repeated request is answered alike.
    pub(super) fn seal(&self, place: Place) -> [u8; TICKET_LEN] {
        let content = encode(place);
        // Different contents have different nonces, as far as a MAC of 96 bits goes.
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&hmac::sign(&self.nonces, &content).as_ref()[..NONCE_LEN]);
        let mut ticket = [0; TICKET_LEN];
        ticket[..NONCE_LEN].copy_from_slice(&nonce);
        let sealed = &mut ticket[NONCE_LEN..NONCE_LEN + CONTENT_LEN];
        sealed.copy_from_slice(&content);
        let tag = self
            .seal
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), sealed)
            .expect("14 bytes are not too long to be sealed");
        ticket[NONCE_LEN + CONTENT_LEN..].copy_from_slice(tag.as_ref());
        ticket
    }

    /// The place in a ticket that was made with this key; `None` for anything else.
    pub(in crate::turn) fn open(&self, ticket: &[u8]) -> Option<Place> {
        let mut ticket: [u8; TICKET_LEN] = ticket.try_into().ok()?;
        let (nonce, sealed) = ticket.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let content = self.seal.open_in_place(nonce, Aad::empty(), sealed).ok()?;
        decode(content)
    }
}

fn encode(place: Place) -> [u8; CONTENT_LEN] {
    let mut content = [0; CONTENT_LEN];
    content[..2].copy_from_slice(&place.shard.to_be_bytes());
    content[2..6].copy_from_slice(&place.allocation.index.to_be_bytes());
    content[6..10].copy_from_slice(&place.allocation.generation.to_be_bytes());
    content[10..].copy_from_slice(&place.number.to_be_bytes());
    content
}

fn decode(content: &[u8]) -> Option<Place> {
    let (shard, rest) = content.split_first_chunk::<2>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let (generation, number) = rest.split_first_chunk::<4>()?;
    Some(Place {
        shard: u16::from_be_bytes(*shard),
        allocation: AllocationId {
            index: u32::from_be_bytes(*index),
            generation: u32::from_be_bytes(*generation),
        },
        number: u32::from_be_bytes(number.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        shard: 3,
        allocation: AllocationId { index: 0x0102_0304, generation: 0x3fff_ffff },
        number: 7,
    };

    #[test]
    fn tickets_open_with_the_key_they_were_sealed_with() {
        let ticket = Tickets::new(b"secret").seal(PLACE);
        assert_eq!(Tickets::new(b"secret").open(&ticket), Some(PLACE));
        assert_eq!(Tickets::new(b"another").open(&ticket), None);
        assert_eq!(Tickets::new(b"secret").seal(PLACE), ticket, "always the same");
        let next = Place { number: 8, ..PLACE };
        assert_ne!(Tickets::new(b"secret").seal(next)[..NONCE_LEN], ticket[..NONCE_LEN]);
    }

    #[test]
    fn no_bit_of_a_ticket_can_be_changed() {
        let tickets = Tickets::new(b"secret");
        let ticket = tickets.seal(PLACE);
        for bit in 0..TICKET_LEN * 8 {
            let mut altered = ticket;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tickets.open(&altered), None, "bit {bit}");
        }
        for len in [0, 1, NONCE_LEN, TICKET_LEN - 1] {
            assert_eq!(tickets.open(&ticket[..len]), None);
        }
    }

    #[test]
    fn a_ticket_does_not_show_what_is_in_it() {
        let ticket = Tickets::new(b"secret").seal(PLACE);
        let index = PLACE.allocation.index.to_be_bytes();
        assert!(!ticket.windows(4).any(|bytes| bytes == index));
    }
}
