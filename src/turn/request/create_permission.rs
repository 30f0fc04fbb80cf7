//! CreatePermission (RFC 8656 section 10): all peers of a request, or none.

use super::peer_of;
use crate::net::Now;
use crate::stun::{Attribute, ErrorCode, Message};
use crate::turn::Server;
use crate::turn::reply::{Envelope, Reject};
use crate::turn::vocabulary::{AllocationId, DropReason};

impl Server {
    /// Gives leave to every peer in the request.
    pub(super) fn on_create_permission(
        &mut self,
        now: Now,
        id: AllocationId,
        request: &Message<'_>,
        envelope: &Envelope,
        reply: &mut [u8],
    ) -> Result<usize, Reject> {
        self.check_peers(now, id, request)?;
        let expires = now.mono + self.settings.lifetimes.permission;
        for value in request.all(Attribute::XorPeerAddress) {
            let (peer, access) = self.check_peer(now, id, peer_of(request, value)?, false)?;
            if let Some(allocation) = self.table.get_mut(id) {
                allocation.permit(peer.ip(), expires, access);
            }
        }
        self.wake_by(id, expires);
        envelope
            .success(reply, self.settings.software.as_deref(), |_| {})
            .ok_or(Reject::Drop(DropReason::ReplyTooLong))
    }

    /// The first pass: nothing is changed unless every peer is fine.
    fn check_peers(
        &mut self,
        now: Now,
        id: AllocationId,
        request: &Message<'_>,
    ) -> Result<(), Reject> {
        let mut peers = 0;
        let mut new = Vec::new();
        for value in request.all(Attribute::XorPeerAddress) {
            let (peer, _) = self.check_peer(now, id, peer_of(request, value)?, false)?;
            peers += 1;
            let known = self.table.get(id).is_some_and(|a| a.permissions.contains_key(&peer.ip()));
            if !known {
                new.push(peer.ip());
            }
        }
        // A peer may be named more than once, with different ports.
        new.sort_unstable();
        new.dedup();
        if peers == 0 {
            return Err(Reject::bad("XOR-PEER-ADDRESS missing"));
        }
        let held = self.table.get(id).map_or(0, |a| a.permissions.len());
        if held + new.len() > self.settings.limits.permissions {
            return Err(Reject::Error(ErrorCode::INSUFFICIENT_CAPACITY, "Too many permissions"));
        }
        Ok(())
    }
}
