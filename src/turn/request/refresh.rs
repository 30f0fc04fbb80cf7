//! Refresh (RFC 8656 section 8).

use std::time::Duration;

use super::{family_of, seconds};
use crate::net::{Family, Now};
use crate::stun::{Attribute, ErrorCode, Message};
use crate::turn::Server;
use crate::turn::allocation::slot;
use crate::turn::event::EndReason;
use crate::turn::reply::{Envelope, Reject};
use crate::turn::vocabulary::AllocationId;

impl Server {
    /// Prolongs an allocation, or ends it with a lifetime of zero. With
    /// REQUESTED-ADDRESS-FAMILY only that family of a dual allocation.
    pub(super) fn on_refresh(
        &mut self,
        now: Now,
        id: AllocationId,
        request: &Message<'_>,
        envelope: &Envelope,
        reply: &mut [u8],
    ) -> Result<usize, Reject> {
        let (family, lifetime) = self.read_refresh(now, id, request)?;
        self.apply_refresh(now, id, family, lifetime);
        let software = self.settings.software.as_deref();
        envelope
            .success(reply, software, |w| w.put_u32(Attribute::Lifetime, seconds(lifetime)))
            .ok_or(Reject::Drop(crate::turn::DropReason::ReplyTooLong))
    }

    /// Which family of an allocation is to live for how long; zero ends it.
    pub(in crate::turn) fn read_refresh(
        &self,
        now: Now,
        id: AllocationId,
        request: &Message<'_>,
    ) -> Result<(Option<Family>, Duration), Reject> {
        let family =
            request.get(Attribute::RequestedAddressFamily).map(family_of).transpose().map_err(
                |reject| match reject {
                    // A family that does not exist cannot be the allocation's.
                    Reject::Error(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED, _) => {
                        Reject::code(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH)
                    }
                    other => other,
                },
            )?;
        let allocation =
            self.table.get(id).ok_or_else(|| Reject::code(ErrorCode::ALLOCATION_MISMATCH))?;
        if family.is_some_and(|family| allocation.relay(family, now.mono).is_none()) {
            return Err(Reject::code(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH));
        }
        let lifetime = match request.get_u32(Attribute::Lifetime) {
            Some(Ok(0)) => Duration::ZERO,
            _ => self.granted_lifetime(now, request, &allocation.identity, &allocation.key)?,
        };
        Ok((family, lifetime))
    }

    pub(in crate::turn) fn apply_refresh(
        &mut self,
        now: Now,
        id: AllocationId,
        family: Option<Family>,
        lifetime: Duration,
    ) {
        if lifetime.is_zero() {
            self.end_families(now, id, family);
        } else {
            self.prolong(now, id, family, lifetime);
        }
    }

    fn prolong(&mut self, now: Now, id: AllocationId, family: Option<Family>, lifetime: Duration) {
        let expires = now.mono + lifetime;
        if let Some(allocation) = self.table.get_mut(id) {
            for which in [Family::V4, Family::V6] {
                if family.is_none_or(|f| f == which)
                    && let Some(relay) = &mut allocation.relays[slot(which)]
                    && relay.expires > now.mono
                {
                    relay.expires = expires;
                }
            }
        }
        self.wake_by(id, expires);
    }

    fn end_families(&mut self, now: Now, id: AllocationId, family: Option<Family>) {
        let other_stays = family.is_some_and(|family| {
            self.table.get(id).is_some_and(|a| a.relay(family.other(), now.mono).is_some())
        });
        match family {
            Some(family) if other_stays => self.close_family(now, id, family),
            _ => self.end_allocation(now, id, EndReason::Deleted),
        }
    }
}
