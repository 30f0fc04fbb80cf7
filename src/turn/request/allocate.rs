//! Allocate: the checks (RFC 8656 section 7.2). What follows them is in `opening`.

use super::family_of;
use crate::net::{Family, Now};
use crate::stun::{Attribute, ErrorCode, Message};
use crate::turn::allocation::{Allocation, Granted, Opening, Stage, slot};
use crate::turn::challenge::Authenticated;
use crate::turn::event::EndReason;
use crate::turn::reply::{Envelope, Reject};
use crate::turn::reservation::Token;
use crate::turn::settings::DefaultFamily;
use crate::turn::vocabulary::{AllocationId, Client, DropReason, PortRequest, RelayTransport};
use crate::turn::{Server, Timer};

/// The protocol numbers of REQUESTED-TRANSPORT.
const UDP: u8 = 17;
const TCP: u8 = 6;

/// Ports that one user can have set aside on a shard where there is no quota on
/// allocations.
const RESERVATIONS_PER_USER: u32 = 64;

/// The attributes of an Allocate request, checked against each other.
struct Wanted {
    transport: RelayTransport,
    families: [bool; 2],
    port: PortRequest,
    claim: Option<Token>,
    /// Set when one of two families cannot be relayed at all.
    address_error: Option<(Family, ErrorCode)>,
}

/// The families to relay, and the one of them that cannot be.
type Families = ([bool; 2], Option<(Family, ErrorCode)>);

impl Server {
    /// Starts an allocation, or repeats the answer of the one this request made.
    pub(super) fn on_allocate(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        envelope: &Envelope,
        who: Authenticated,
        reply: &mut [u8],
    ) -> Result<usize, Reject> {
        if let Some(id) = who.allocation
            && let Some(len) = self.repeat(now, from, id, envelope, reply)?
        {
            return Ok(len);
        }
        let lifetime = self.granted_lifetime(now, request, &who.identity, &who.key)?;
        let wanted = self.read_wanted(from, request)?;
        // Connections with peers stay with the client's own: RFC 6062 ties them.
        let mobile = self.wants_mobility(request)? && wanted.transport == RelayTransport::Udp;
        self.check_redirect(from)?;
        if self.table.len() + self.arrivals.len() >= self.settings.limits.allocations {
            return Err(Reject::Error(ErrorCode::INSUFFICIENT_CAPACITY, "Server is full"));
        }
        self.check_reservations(&who.identity.name, wanted.port)?;
        let deadline = now.mono + self.settings.lifetimes.pending;
        let opening = Opening {
            envelope: *envelope,
            lifetime,
            port: wanted.port,
            claim: wanted.claim,
            families: wanted.families,
            mobile,
            waiting: [false; 2],
            reserved: None,
            address_error: wanted.address_error,
            deadline,
        };
        let (transport, seed) = (wanted.transport, self.seed);
        let allocation =
            Allocation::new(from, who.identity, who.key, transport, opening, now.mono, seed);
        let id = self.table.insert(allocation);
        self.wheel.arm(deadline, Timer::Allocation(id));
        let started = self.start_opening(now, id);
        if let Err(reject) = started {
            self.discard_opening(id);
            return Err(reject);
        }
        Err(Reject::Queued)
    }

    /// A port that is set aside outlives its allocation, so quotas on allocations
    /// would not bound how many one user can keep from others.
    fn check_reservations(&self, owner: &str, port: PortRequest) -> Result<(), Reject> {
        let bound = match self.settings.limits.allocations_per_user {
            0 => RESERVATIONS_PER_USER,
            quota => quota,
        };
        if port == PortRequest::EvenAndReserveNext && self.reservations.held_by(owner) >= bound {
            return Err(Reject::Error(
                ErrorCode::INSUFFICIENT_CAPACITY,
                "Too many ports set aside",
            ));
        }
        Ok(())
    }

    /// An Allocate for a five-tuple that has an allocation: the same request again
    /// is answered alike, any other gets 437. `None` when the old one has expired.
    fn repeat(
        &mut self,
        now: Now,
        from: Client,
        id: AllocationId,
        envelope: &Envelope,
        reply: &mut [u8],
    ) -> Result<Option<usize>, Reject> {
        let Some(allocation) = self.table.get(id) else { return Ok(None) };
        if allocation.is_over(now.mono) {
            self.end_allocation(now, id, EndReason::Expired);
            return Ok(None);
        }
        match &allocation.stage {
            Stage::Opening(opening) if opening.envelope.id == envelope.id => {
                Err(Reject::Drop(DropReason::InProgress))
            }
            Stage::Live(granted)
                if granted.transaction == Some(envelope.id)
                    && allocation.client.five_tuple == from.five_tuple =>
            {
                let len = self.write_granted(id, allocation, granted, envelope, reply);
                len.map(Some).ok_or(Reject::Drop(DropReason::ReplyTooLong))
            }
            Stage::Opening(_) | Stage::Live(_) => Err(Reject::code(ErrorCode::ALLOCATION_MISMATCH)),
        }
    }

    /// The success response of an Allocate.
    pub(super) fn write_granted(
        &self,
        id: AllocationId,
        allocation: &Allocation,
        granted: &Granted,
        envelope: &Envelope,
        reply: &mut [u8],
    ) -> Option<usize> {
        envelope.success(reply, self.settings.software.as_deref(), |w| {
            for advertised in allocation.advertised().into_iter().flatten() {
                w.put_xor_address(Attribute::XorRelayedAddress, advertised);
            }
            let reflexive = allocation.client.five_tuple.client.socket();
            w.put_xor_address(Attribute::XorMappedAddress, reflexive);
            w.put_u32(Attribute::Lifetime, super::seconds(granted.lifetime));
            if let Some(token) = granted.token {
                w.put(Attribute::ReservationToken, &token);
            }
            if let Some(ticket) = self.ticket_of(id, allocation) {
                w.put(Attribute::MobilityTicket, &ticket);
            }
            if let Some((family, code)) = granted.address_error {
                w.put(Attribute::AddressErrorCode, &address_error(family, code));
            }
        })
    }

    fn read_wanted(&self, from: Client, request: &Message<'_>) -> Result<Wanted, Reject> {
        let transport = self.transport_of(from, request)?;
        let requested = request.get(Attribute::RequestedAddressFamily);
        let additional = request.get(Attribute::AdditionalAddressFamily);
        let even_port = even_port(request)?;
        if let Some(token) = request.get(Attribute::ReservationToken) {
            if even_port.is_some() || requested.is_some() || additional.is_some() {
                return Err(Reject::bad("RESERVATION-TOKEN stands alone"));
            }
            let token =
                token.try_into().map_err(|_| Reject::bad("RESERVATION-TOKEN is not 8 bytes"))?;
            // The family is that of the reserved address.
            let families = [false; 2];
            return Ok(Wanted {
                transport,
                families,
                port: PortRequest::Any,
                claim: Some(token),
                address_error: None,
            });
        }
        let port = match even_port {
            None => PortRequest::Any,
            Some(false) => PortRequest::Even,
            Some(true) => PortRequest::EvenAndReserveNext,
        };
        let (families, address_error) = match (requested, additional) {
            (Some(_), Some(_)) => {
                return Err(Reject::bad(
                    "REQUESTED- and ADDITIONAL-ADDRESS-FAMILY exclude each other",
                ));
            }
            (None, Some(value)) => {
                if even_port == Some(true) {
                    return Err(Reject::bad(
                        "EVEN-PORT cannot reserve with ADDITIONAL-ADDRESS-FAMILY",
                    ));
                }
                self.both_families(value)?
            }
            (requested, None) => (self.one_family(from, requested)?, None),
        };
        Ok(Wanted { transport, families, port, claim: None, address_error })
    }

    /// REQUESTED-TRANSPORT (RFC 8656 section 7.2); TCP is for clients that can make
    /// connections, and has no pairs of ports and no datagrams (RFC 6062 section 5.1).
    fn transport_of(&self, from: Client, request: &Message<'_>) -> Result<RelayTransport, Reject> {
        match request.get(Attribute::RequestedTransport) {
            None => return Err(Reject::bad("REQUESTED-TRANSPORT missing")),
            Some([UDP, _, _, _]) => return Ok(RelayTransport::Udp),
            Some([TCP, _, _, _]) if self.settings.relay.tcp => {}
            Some([_, _, _, _]) => return Err(Reject::code(ErrorCode::UNSUPPORTED_TRANSPORT)),
            Some(_) => return Err(Reject::bad("REQUESTED-TRANSPORT is not 4 bytes")),
        }
        if !from.five_tuple.transport.is_stream() {
            return Err(Reject::bad("TCP relays are for clients on TCP and TLS"));
        }
        let of_udp = [Attribute::EvenPort, Attribute::ReservationToken, Attribute::DontFragment];
        if of_udp.into_iter().any(|attribute| request.has(attribute)) {
            return Err(Reject::bad("TCP excludes EVEN-PORT, RESERVATION-TOKEN and DONT-FRAGMENT"));
        }
        Ok(RelayTransport::Tcp)
    }

    fn one_family(&self, from: Client, requested: Option<&[u8]>) -> Result<[bool; 2], Reject> {
        let family = match (requested, self.settings.relay.default_family) {
            (Some(value), _) => family_of(value)?,
            (None, DefaultFamily::V4) => Family::V4,
            (None, DefaultFamily::Client) => from.five_tuple.client.family(),
        };
        if !self.settings.relay.supports(family) {
            return Err(Reject::code(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED));
        }
        let mut families = [false; 2];
        families[slot(family)] = true;
        Ok(families)
    }

    /// IPv4 and IPv6; one of them may be missing here (RFC 8656 section 7.2).
    fn both_families(&self, value: &[u8]) -> Result<Families, Reject> {
        if !matches!(family_of(value), Ok(Family::V6)) {
            return Err(Reject::bad("ADDITIONAL-ADDRESS-FAMILY is not IPv6"));
        }
        let code = ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED;
        let relay = &self.settings.relay;
        match (relay.supports(Family::V4), relay.supports(Family::V6)) {
            (true, true) => Ok(([true, true], None)),
            (true, false) => Ok(([true, false], Some((Family::V6, code)))),
            (false, true) => Ok(([false, true], Some((Family::V4, code)))),
            (false, false) => Err(Reject::code(code)),
        }
    }
}

/// EVEN-PORT and its R bit (RFC 8656 section 18.7).
fn even_port(request: &Message<'_>) -> Result<Option<bool>, Reject> {
    match request.get(Attribute::EvenPort) {
        None => Ok(None),
        Some([flags]) => Ok(Some(flags & 0x80 != 0)),
        Some(_) => Err(Reject::bad("EVEN-PORT is not 1 byte")),
    }
}

/// The value of ADDRESS-ERROR-CODE (RFC 8656 section 18.12), without reason phrase.
fn address_error(family: Family, code: ErrorCode) -> [u8; 4] {
    let family = match family {
        Family::V4 => 0x01,
        Family::V6 => 0x02,
    };
    [family, 0, (code.number() / 100) as u8, (code.number() % 100) as u8]
}
