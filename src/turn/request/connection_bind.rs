//! ConnectionBind (RFC 6062 section 5.4): a connection of the client, on which
//! nothing else has happened, becomes the other end of a connection with a peer.
//!
//! 1. The CONNECTION-ID names the shard that has the connection with the peer.
//!    When that is another one, the client's connection moves there first.
//! 2. The request is authenticated like every other. The nonce and the key of the
//!    control connection count too, as far as they are the owner's.
//! 3. The response goes out, and bytes pass.

use crate::net::Now;
use crate::stun::{Attribute, Message, Method};
use crate::turn::challenge::Authenticated;
use crate::turn::connection::{ConnectionId, Stage};
use crate::turn::counters::RequestResult;
use crate::turn::event::Event;
use crate::turn::reply::{Envelope, Reject};
use crate::turn::vocabulary::{AllocationId, Client, DropReason, Output, Verdict};
use crate::turn::{MAX_REPLY, Server};

impl Server {
    /// Step 1: where a request has to go before anything else, not even its sender
    /// is looked at. A client of whom there is something here stays.
    pub(in crate::turn) fn bound_elsewhere(
        &self,
        from: Client,
        request: &Message<'_>,
    ) -> Option<Verdict> {
        if request.method() != Method::CONNECTION_BIND || !self.settings.relay.tcp {
            return None;
        }
        let shard = self.shard.of_connection(connection_id(request)?);
        let elsewhere = shard != self.shard.index && shard < self.shard.count;
        let free = from.five_tuple.transport.is_stream()
            && !self.has_allocation(&from.five_tuple)
            && !self.pending.has(from);
        (elsewhere && free).then_some(Verdict::HandOver { shard })
    }

    /// The allocation with the connection that a ConnectionBind names.
    pub(in crate::turn) fn named_allocation(&self, request: &Message<'_>) -> Option<AllocationId> {
        let asked = request.method() == Method::CONNECTION_BIND;
        let id = connection_id(request).filter(|_| asked)?;
        self.connections.get(id).map(|connection| connection.allocation)
    }

    /// Step 3.
    pub(super) fn on_connection_bind(
        &mut self,
        now: Now,
        from: Client,
        request: &Message<'_>,
        envelope: &Envelope,
        who: &Authenticated,
    ) -> Result<usize, Reject> {
        if !from.five_tuple.transport.is_stream() {
            return Err(Reject::bad("ConnectionBind is for TCP and TLS"));
        }
        if who.allocation.is_some() {
            return Err(Reject::bad("ConnectionBind on a connection with an allocation"));
        }
        let id = connection_id(request)
            .ok_or_else(|| Reject::bad("CONNECTION-ID missing or not 4 bytes"))?;
        if !self.may_bind(now, id, who) {
            return Err(Reject::bad("No such connection waits"));
        }
        let mut reply = [0; MAX_REPLY];
        let len = envelope
            .success(&mut reply, self.settings.software.as_deref(), |_| {})
            .ok_or(Reject::Drop(DropReason::ReplyTooLong))?;
        self.splice(from, id, &reply[..len], envelope);
        Err(Reject::Queued)
    }

    /// Whether a connection waits for its ConnectionBind, and for this user's.
    fn may_bind(&self, now: Now, id: ConnectionId, who: &Authenticated) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        let waits = matches!(connection.stage, Stage::Pending(_, until) if until > now.mono);
        waits
            && self.table.get(connection.allocation).is_some_and(|allocation| {
                allocation.is_owned_anywhere_by(&who.identity, &who.key)
                    && allocation.relay(connection.peer.family(), now.mono).is_some()
            })
    }

    /// Response first: behind it everything is the peer's.
    fn splice(&mut self, from: Client, id: ConnectionId, response: &[u8], envelope: &Envelope) {
        let Some(peer) = self.connections.bind(id) else { return };
        self.counters.request(envelope.method, RequestResult::Success);
        self.outputs.push_back(Output::Send { client: from, message: response.into() });
        self.outputs.push_back(Output::Splice { client: from.link, peer });
        let bound = self.connections.get(id);
        if let Some((connection, allocation)) =
            bound.and_then(|c| Some((c, self.table.get(c.allocation)?)))
        {
            self.outputs.push_back(Output::Event(Event::PeerConnectionBound {
                allocation: connection.allocation,
                five_tuple: from.five_tuple,
                username: allocation.identity.name.clone(),
                peer: connection.peer,
            }));
        }
    }
}

/// CONNECTION-ID (RFC 6062 section 6.2.1).
fn connection_id(request: &Message<'_>) -> Option<ConnectionId> {
    request.get_u32(Attribute::ConnectionId)?.ok().map(ConnectionId)
}
