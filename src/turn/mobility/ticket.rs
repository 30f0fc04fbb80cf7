//! The value of MOBILITY-TICKET (RFC 8016 section 3.3): sealed, so that clients
//! can neither read nor make one.
//!
//! A MAC over the content is also what the content is masked with (a synthetic
//! IV, as in RFC 5297): no nonce is needed, and the same content has the same
//! ticket always. Coturn's client takes a ticket for a string of at most 32
//! characters, so it is one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hmac;

use crate::stun::constant_time_eq;
use crate::turn::vocabulary::AllocationId;

/// Shard, index, generation and number.
const CONTENT_LEN: usize = 2 + 4 + 4 + 2;

/// 96 bits that nobody guesses.
const TAG_LEN: usize = 12;

/// Tag and masked content.
const SEALED_LEN: usize = TAG_LEN + CONTENT_LEN;

/// Length of a ticket in bytes: all of them visible ASCII.
pub(super) const TICKET_LEN: usize = SEALED_LEN / 3 * 4;

/// Where an allocation is to be found, and which of its tickets this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::turn) struct Place {
    pub(super) shard: u16,
    pub(super) allocation: AllocationId,
    /// Each move uses up one number.
    pub(super) number: u16,
}

/// Seals and opens tickets. Every shard has the same key.
pub(in crate::turn) struct Tickets {
    tags: hmac::Key,
    masks: hmac::Key,
}

impl Tickets {
    /// `secret` is any length; without it no ticket can be made.
    pub(in crate::turn) fn new(secret: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derive =
            |purpose: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, purpose).as_ref());
        Self { tags: derive(b"sturn ticket tag 1"), masks: derive(b"sturn ticket mask 1") }
    }

    /// The ticket of a place.
    pub(super) fn seal(&self, place: Place) -> [u8; TICKET_LEN] {
        let content = encode(place);
        let tag = self.tag(&content);
        let mut sealed = [0; SEALED_LEN];
        sealed[..TAG_LEN].copy_from_slice(&tag);
        sealed[TAG_LEN..].copy_from_slice(&self.mask(&tag, content));
        let mut ticket = [0; TICKET_LEN];
        STANDARD_NO_PAD
            .encode_slice(sealed, &mut ticket)
            .expect("three bytes become four characters, and the room is made for them");
        ticket
    }

    /// The place in a ticket that was made with this key; `None` for anything else.
    pub(in crate::turn) fn open(&self, ticket: &[u8]) -> Option<Place> {
        let ticket: &[u8; TICKET_LEN] = ticket.try_into().ok()?;
        let mut sealed = [0; SEALED_LEN];
        STANDARD_NO_PAD.decode_slice(ticket, &mut sealed).ok()?;
        let (tag, masked) = sealed.split_first_chunk::<TAG_LEN>()?;
        let content = self.mask(tag, masked.try_into().ok()?);
        constant_time_eq(&self.tag(&content), tag).then(|| decode(&content)).flatten()
    }

    fn tag(&self, content: &[u8; CONTENT_LEN]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&hmac::sign(&self.tags, content).as_ref()[..TAG_LEN]);
        tag
    }

    /// Hides content, or shows it again.
    fn mask(&self, tag: &[u8; TAG_LEN], mut content: [u8; CONTENT_LEN]) -> [u8; CONTENT_LEN] {
        let mask = hmac::sign(&self.masks, tag);
        content.iter_mut().zip(mask.as_ref()).for_each(|(byte, mask)| *byte ^= mask);
        content
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
        number: u16::from_be_bytes(number.try_into().ok()?),
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
        let next = Tickets::new(b"secret").seal(next);
        let alike = next.iter().zip(&ticket).filter(|(a, b)| a == b).count();
        assert!(alike < TICKET_LEN / 2, "another number makes another ticket: {alike}");
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
        for len in [0, 1, TAG_LEN, TICKET_LEN - 1] {
            assert_eq!(tickets.open(&ticket[..len]), None);
        }
    }

    #[test]
    fn a_ticket_does_not_show_what_is_in_it() {
        let ticket = Tickets::new(b"secret").seal(PLACE);
        assert!(ticket.len() <= 32 && ticket.iter().all(u8::is_ascii_graphic));
        let sealed = STANDARD_NO_PAD.decode(ticket).unwrap();
        let index = PLACE.allocation.index.to_be_bytes();
        assert!(!sealed.windows(4).any(|bytes| bytes == index));
    }
}
