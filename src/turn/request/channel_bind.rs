//! ChannelBind (RFC 8656 section 12).

use super::peer_of;
use crate::net::{Now, PeerAddr};
use crate::stun::{Attribute, ErrorCode, Message, channel_data};
use crate::turn::Server;
use crate::turn::channels::Channel;
use crate::turn::policy::Access;
use crate::turn::reply::{Envelope, Reject};
use crate::turn::vocabulary::{AllocationId, DropReason, Output, RelayId, RelayTransport, Route};

impl Server {
    /// Binds a channel number to a peer, or prolongs the binding. The peer's
    /// address gets a permission that lasts as long as the binding.
    pub(super) fn on_channel_bind(
        &mut self,
        now: Now,
        id: AllocationId,
        request: &Message<'_>,
        envelope: &Envelope,
        reply: &mut [u8],
    ) -> Result<usize, Reject> {
        if self.table.get(id).is_some_and(|a| a.transport == RelayTransport::Tcp) {
            return Err(Reject::Error(ErrorCode::FORBIDDEN, "Channels need a UDP allocation"));
        }
        let number = self.channel_number(request)?;
        let value = request
            .get(Attribute::XorPeerAddress)
            .ok_or_else(|| Reject::bad("XOR-PEER-ADDRESS missing"))?;
        let (peer, access) = self.check_peer(now, id, peer_of(request, value)?, true)?;
        self.check_binding(now, id, number, peer)?;
        self.bind(now, id, number, peer, access);
        envelope
            .success(reply, self.settings.software.as_deref(), |_| {})
            .ok_or(Reject::Drop(DropReason::ReplyTooLong))
    }

    fn channel_number(&self, request: &Message<'_>) -> Result<u16, Reject> {
        let value = request
            .get(Attribute::ChannelNumber)
            .ok_or_else(|| Reject::bad("CHANNEL-NUMBER missing"))?;
        let [hi, lo, _, _] = *value else {
            return Err(Reject::bad("CHANNEL-NUMBER is not 4 bytes"));
        };
        let number = u16::from_be_bytes([hi, lo]);
        if self.may_be_channel(number) {
            Ok(number)
        } else {
            Err(Reject::bad("CHANNEL-NUMBER out of range"))
        }
    }

    /// Whether clients can bind this number here.
    pub(in crate::turn) fn may_be_channel(&self, number: u16) -> bool {
        channel_data::NUMBERS.contains(&number)
            || self.settings.rfc5766_channels && channel_data::RFC5766_NUMBERS.contains(&number)
    }

    /// A number has one peer and a peer one number (RFC 8656 section 12.2).
    fn check_binding(
        &mut self,
        now: Now,
        id: AllocationId,
        number: u16,
        peer: PeerAddr,
    ) -> Result<(), Reject> {
        let limits = &self.settings.limits;
        let allocation =
            self.table.get(id).ok_or_else(|| Reject::code(ErrorCode::ALLOCATION_MISMATCH))?;
        if allocation.channel(number, now.mono).is_some_and(|c| c.peer != peer) {
            return Err(Reject::bad("Channel is bound to another peer"));
        }
        if allocation.channel_to(peer, now.mono).is_some_and(|n| n != number) {
            return Err(Reject::bad("Peer is bound to another channel"));
        }
        let full = allocation.channels.len() >= limits.channels
            && allocation.channels.numbered(number).is_none();
        let no_permission = allocation.permissions.len() >= limits.permissions
            && !allocation.permissions.contains_key(&peer.ip());
        if full || no_permission {
            return Err(Reject::Error(ErrorCode::INSUFFICIENT_CAPACITY, "Too many channels"));
        }
        Ok(())
    }

    fn bind(&mut self, now: Now, id: AllocationId, number: u16, peer: PeerAddr, access: Access) {
        let expires = now.mono + self.settings.lifetimes.channel;
        // Expired bindings of either side may still lie around.
        let Some(allocation) = self.table.get(id) else { return };
        let fresh = allocation.channel(number, now.mono).is_none();
        let stale = allocation.channels.of_peer(peer).map(|c| c.number).filter(|n| *n != number);
        if fresh {
            self.unbind(id, number);
        }
        if let Some(stale) = stale {
            self.unbind(id, stale);
        }
        let Some(allocation) = self.table.get_mut(id) else { return };
        allocation.channels.bind(Channel { number, peer, expires, access });
        allocation.permit(peer.ip(), expires, access);
        let five_tuple = allocation.client.five_tuple;
        if let Some(relay) = allocation.relay(peer.family(), now.mono)
            && fresh
        {
            let local = relay.local;
            let relay = RelayId { allocation: id, family: peer.family() };
            let route = Route::Add { five_tuple, channel: number, relay, local, peer };
            self.outputs.push_back(Output::Route(route));
        }
        self.wake_by(id, expires);
    }
}
