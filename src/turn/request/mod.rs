//! One file per method. Each grants a request by writing the success response,
//! or gives a [`Reject`].

mod allocate;
mod binding;
mod channel_bind;
mod connect;
mod connection_bind;
mod create_permission;
mod discovery;
mod opening;
mod refresh;

use std::net::SocketAddr;
use std::time::Duration;

use super::Server;
use super::challenge::{Authenticated, ExternalKeys};
use super::event::{AuthFailure, Event};
use super::mobility::Destination;
use super::policy::Access;
use super::reply::{Envelope, Reject};
use super::vocabulary::{AllocationId, Client, DropReason, Output};
use crate::auth::{Identity, Key};
use crate::net::{Family, Now, PeerAddr};
use crate::stun::{Attribute, ErrorCode, Message, Method, decode_xor_address};

impl Server {
    /// Authenticates a request and hands it to its method.
    pub(super) fn dispatch(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        envelope: &mut Envelope,
        reply: &mut [u8],
    ) -> Result<usize, Reject> {
        self.dispatch_with(now, from, request, envelope, None, reply)
    }

    pub(super) fn dispatch_with(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        envelope: &mut Envelope,
        external: Option<&ExternalKeys>,
        reply: &mut [u8],
    ) -> Result<usize, Reject> {
        let method = request.method();
        let known = match method {
            Method::ALLOCATE
            | Method::REFRESH
            | Method::CREATE_PERMISSION
            | Method::CHANNEL_BIND => true,
            Method::CONNECT | Method::CONNECTION_BIND => self.settings.relay.tcp,
            _ => false,
        };
        if !known {
            return Err(Reject::Drop(DropReason::UnknownMethod));
        }
        self.pass_on(now, from, request)?;
        let who = self.authenticate(now, from, request, envelope, external)?;
        if method == Method::ALLOCATE {
            return self.on_allocate(now, from, request, envelope, who, reply);
        }
        if method == Method::CONNECTION_BIND {
            return self.on_connection_bind(now, from, request, envelope, &who);
        }
        if method == Method::REFRESH && request.has(Attribute::MobilityTicket) {
            let to = Destination::Here(from);
            return self.on_moving_refresh(now, to, request, envelope, &who, reply);
        }
        let id = self.owned_allocation(now, from, &who)?;
        if self.table.get(id).is_some_and(|a| a.is_awaited_at(&from.five_tuple)) {
            self.complete_move(now, id);
        }
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.renew(&who.identity, who.key);
        }
        match method {
            Method::REFRESH => self.on_refresh(now, id, request, envelope, reply),
            Method::CREATE_PERMISSION => {
                self.on_create_permission(now, id, request, envelope, reply)
            }
            Method::CONNECT => self.on_connect(now, id, request, envelope),
            _ => self.on_channel_bind(now, id, request, envelope, reply),
        }
    }

    /// The live allocation that a request is about: 437 without one, 441 when it
    /// is somebody else's (RFC 8656 section 5).
    fn owned_allocation(
        &mut self,
        now: Now,
        from: Client,
        who: &Authenticated,
    ) -> Result<AllocationId, Reject> {
        let live = who
            .allocation
            .filter(|id| self.table.get(*id).is_some_and(|a| a.is_live() && !a.is_over(now.mono)));
        let Some((id, allocation)) = live.and_then(|id| Some((id, self.table.get(id)?))) else {
            return Err(Reject::code(ErrorCode::ALLOCATION_MISMATCH));
        };
        if !allocation.is_owned_by(&who.identity, &who.key) {
            self.report(from, AuthFailure::NotTheOwner);
            return Err(Reject::code(ErrorCode::WRONG_CREDENTIALS));
        }
        Ok(id)
    }

    /// Whether a peer may be reached, before it is given a permission or a channel:
    /// 443 for the wrong family, 403 when policy refuses.
    fn check_peer(
        &mut self,
        now: Now,
        id: AllocationId,
        peer: SocketAddr,
        with_port: bool,
    ) -> Result<(PeerAddr, Access), Reject> {
        let peer = PeerAddr::new(peer);
        let allocation =
            self.table.get(id).ok_or_else(|| Reject::code(ErrorCode::ALLOCATION_MISMATCH))?;
        if allocation.relay(peer.family(), now.mono).is_none() {
            return Err(Reject::code(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH));
        }
        let policy = &self.settings.policy;
        let access =
            if with_port { policy.check(peer.socket()) } else { policy.check_ip(peer.ip()) };
        if access != Access::Denied {
            return Ok((peer, access));
        }
        let rule = policy.explain(peer.ip(), with_port.then_some(peer.port())).rule;
        let event = Event::PeerDenied {
            five_tuple: allocation.client.five_tuple,
            username: allocation.identity.name.clone(),
            peer,
            rule,
        };
        self.outputs.push_back(Output::Event(event));
        Err(Reject::code(ErrorCode::FORBIDDEN))
    }

    /// The lifetime to grant (RFC 8656 section 7.2).
    fn granted_lifetime(
        &self,
        now: Now,
        request: &Message<'_>,
        identity: &Identity,
        key: &Key,
    ) -> Result<Duration, Reject> {
        let lifetimes = &self.settings.lifetimes;
        let asked = match request.get_u32(Attribute::Lifetime) {
            Some(Ok(seconds)) => Duration::from_secs(seconds.into()),
            Some(Err(())) => return Err(Reject::bad("LIFETIME is not 4 bytes")),
            None => lifetimes.default,
        };
        let granted = asked.clamp(lifetimes.default, lifetimes.max);
        Ok(within_token(now, granted, identity, key))
    }
}

/// No allocation outlives the token that its client has come with (RFC 7635 section
/// 9).
fn within_token(now: Now, lifetime: Duration, identity: &Identity, key: &Key) -> Duration {
    let end = identity.expires.filter(|_| matches!(key, Key::Token(_)));
    let left = end.map(|at| Duration::from_secs(at.saturating_sub(now.unix_secs()).max(1)));
    left.map_or(lifetime, |left| lifetime.min(left))
}

/// The peers of a request, 400 when one is malformed.
fn peer_of(request: &Message<'_>, value: &[u8]) -> Result<SocketAddr, Reject> {
    decode_xor_address(value, request.transaction_id())
        .ok_or_else(|| Reject::bad("XOR-PEER-ADDRESS is malformed"))
}

/// Whole seconds for a LIFETIME attribute.
pub(super) fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}

/// The family in a REQUESTED-ADDRESS-FAMILY-like attribute (RFC 8656 section
/// 18.6): 440 for families that do not exist, 400 for a wrong length.
fn family_of(value: &[u8]) -> Result<Family, Reject> {
    match value {
        [0x01, _, _, _] => Ok(Family::V4),
        [0x02, _, _, _] => Ok(Family::V6),
        [_, _, _, _] => Err(Reject::code(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)),
        _ => Err(Reject::bad("address family is not 4 bytes")),
    }
}
