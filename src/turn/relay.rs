//! The data path (RFC 8656 sections 11 and 12): from a packet to a [`Forward`].
//!
//! Nothing here allocates, copies data or logs. A datagram that the client sends
//! to another allocation of this shard goes straight to that allocation's client,
//! with the checks of both sides.

use super::Server;
use super::policy::Access;
use super::vocabulary::{
    AllocationId, Client, DropReason, Forward, Header, Output, RelayId, RelayTransport, Span,
    Verdict,
};
use crate::net::{Family, Now, PeerAddr};
use crate::stun::{
    Attribute, Class, Message, Method, TransactionId, Writer, channel_data, decode_xor_address,
};

/// Data on its way from a client to a peer.
struct Outbound {
    allocation: AllocationId,
    peer: PeerAddr,
    access: Access,
    data: Span,
    dont_fragment: bool,
}

impl Server {
    /// ChannelData from a client (RFC 8656 section 12.6).
    #[inline]
    pub(super) fn relay_channel_data(&mut self, now: Now, from: Client, packet: &[u8]) -> Verdict {
        let (number, data) = match channel_data::parse(packet) {
            Ok(parsed) => parsed,
            Err(error) => return Verdict::Drop(error.into()),
        };
        let Some(id) = self.table.find(&from.five_tuple) else {
            return Verdict::Drop(self.without_allocation(from));
        };
        if self.table.get(id).is_some_and(|a| a.is_awaited_at(&from.five_tuple)) {
            self.complete_move(now, id);
        }
        let Some(allocation) = self.table.get(id) else {
            return Verdict::Drop(DropReason::NoAllocation);
        };
        // A channel's permission lasts as long as the channel does.
        let Some(channel) = allocation.channel(number, now.mono) else {
            let reserved = !self.may_be_channel(number);
            return Verdict::Drop(if reserved {
                DropReason::ReservedChannel
            } else {
                DropReason::NoChannel
            });
        };
        self.send_out(
            now,
            &Outbound {
                allocation: id,
                peer: channel.peer,
                access: channel.access,
                data: data.into(),
                dont_fragment: false,
            },
        )
    }

    /// A Send indication (RFC 8656 section 11.2). Anything wrong with it is dropped.
    pub(super) fn relay_send_indication(
        &mut self,
        now: Now,
        from: Client,
        m: &Message<'_>,
    ) -> Verdict {
        if !m.has_cookie() {
            return Verdict::Drop(DropReason::NoCookie);
        }
        if !m.unknown().as_slice().is_empty() {
            return Verdict::Drop(DropReason::UnknownAttribute);
        }
        let (Some(peer), Some(data)) = (m.get(Attribute::XorPeerAddress), m.range(Attribute::Data))
        else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let Some(peer) = decode_xor_address(peer, m.transaction_id()) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let peer = PeerAddr::new(peer);
        let Some(id) = self.table.find(&from.five_tuple) else {
            return Verdict::Drop(self.without_allocation(from));
        };
        if self.table.get(id).is_some_and(|a| a.is_awaited_at(&from.five_tuple)) {
            self.complete_move(now, id);
        }
        let Some(allocation) = self.table.get(id) else {
            return Verdict::Drop(DropReason::NoAllocation);
        };
        if allocation.transport == RelayTransport::Tcp {
            return Verdict::Drop(DropReason::RelayTransport);
        }
        let Some(access) = allocation.permitted(peer.ip(), now.mono) else {
            return Verdict::Drop(DropReason::NoPermission);
        };
        let dont_fragment = m.has(Attribute::DontFragment);
        self.send_out(
            now,
            &Outbound { allocation: id, peer, access, data: data.into(), dont_fragment },
        )
    }

    /// The checks of both ways out, and the way in to another allocation here.
    #[inline]
    fn send_out(&mut self, now: Now, out: &Outbound) -> Verdict {
        let &Outbound { allocation: id, peer, access, data, dont_fragment } = out;
        if !self.settings.policy.port_is_fine(access, peer.port()) {
            return Verdict::Drop(DropReason::PeerDenied);
        }
        let family = peer.family();
        let Some(allocation) = self.table.get_mut(id) else {
            return Verdict::Drop(DropReason::NoAllocation);
        };
        let Some(relay) = allocation.relay(family, now.mono) else {
            return Verdict::Drop(DropReason::PeerFamily);
        };
        let advertised = relay.advertised;
        allocation.traffic.packets_to_peers += 1;
        allocation.traffic.bytes_to_peers += data.len() as u64;
        self.counters.traffic.packets_to_peers += 1;
        self.counters.traffic.bytes_to_peers += data.len() as u64;
        let relay = RelayId { allocation: id, family };
        if !matches!(access, Access::OwnRelay { .. }) {
            let relays_only = false;
            return Verdict::Forward(Forward::ToPeer {
                relay,
                peer,
                data,
                dont_fragment,
                relays_only,
            });
        }
        if let Some(target) = self.table.find_relayed(peer.socket()) {
            return self.relay_peer_data(now, target, PeerAddr::new(advertised), data);
        }
        // Another shard's: through the kernel, to the address as bound here. The
        // advertised one may lead out to a NAT that does not turn it back.
        let local = self.settings.relay.local_of(peer.socket()).unwrap_or(peer.socket());
        let relays_only = access == Access::OwnRelay { others: false };
        let peer = PeerAddr::new(local);
        Verdict::Forward(Forward::ToPeer { relay, peer, data, dont_fragment, relays_only })
    }

    /// A datagram for a relayed transport address (RFC 8656 section 11.3).
    #[inline]
    pub(super) fn relay_peer_data(
        &mut self,
        now: Now,
        relay: RelayId,
        from: PeerAddr,
        data: Span,
    ) -> Verdict {
        let from = self.as_known_outside(from);
        let Some(allocation) = self.table.get_mut(relay.allocation) else {
            return Verdict::Drop(DropReason::RelayGone);
        };
        if allocation.relay(relay.family, now.mono).is_none() {
            return Verdict::Drop(DropReason::RelayGone);
        }
        if allocation.is_adrift() {
            return Verdict::Drop(DropReason::ClientAway);
        }
        let channel = allocation.channel_to(from, now.mono);
        if channel.is_none() {
            match allocation.permitted(from.ip(), now.mono) {
                Some(access) if self.settings.policy.port_is_fine(access, from.port()) => {}
                Some(_) => return Verdict::Drop(DropReason::PeerDenied),
                None => return Verdict::Drop(DropReason::NoPermission),
            }
        }
        allocation.traffic.packets_to_client += 1;
        allocation.traffic.bytes_to_client += data.len() as u64;
        self.counters.traffic.packets_to_client += 1;
        self.counters.traffic.bytes_to_client += data.len() as u64;
        let client = allocation.client;
        let padded = channel_data::padding(data.len()) as u8;
        let (header, padding) = match channel {
            Some(number) => {
                let stream = client.five_tuple.transport.is_stream();
                (channel_header(number, data.len()), if stream { padded } else { 0 })
            }
            None => match data_header(TransactionId(self.spread.next()), from, data.len()) {
                Some(header) => (header, padded),
                None => return Verdict::Drop(DropReason::Malformed),
            },
        };
        Verdict::Forward(Forward::ToClient {
            link: client.link,
            client: client.five_tuple.client,
            server: client.five_tuple.server,
            header,
            data,
            padding,
        })
    }

    /// A peer that is a relay socket of this server is known to clients by its
    /// advertised address, also when its datagram came the short way.
    #[inline]
    pub(super) fn as_known_outside(&self, from: PeerAddr) -> PeerAddr {
        self.settings.relay.advertised_of(from.socket()).map_or(from, PeerAddr::new)
    }

    /// An ICMP error for a datagram that a relay socket sent: told to the client
    /// when it has leave to hear from that peer (RFC 8656 section 11.5).
    pub(super) fn on_icmp(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        icmp_type: u8,
        code: u8,
        info: u32,
    ) {
        let peer = self.as_known_outside(peer);
        if !is_reported(peer.family(), icmp_type) {
            return;
        }
        let Some(allocation) = self.table.get(relay.allocation) else { return };
        if allocation.relay(relay.family, now.mono).is_none()
            || allocation.permitted(peer.ip(), now.mono).is_none()
            || allocation.is_adrift()
        {
            return;
        }
        let client = allocation.client;
        let id = TransactionId(self.spread.next());
        let mut buffer = [0; 64];
        let mut writer = Writer::new(&mut buffer, Method::DATA, Class::Indication, id);
        writer.put_xor_address(Attribute::XorPeerAddress, peer.socket());
        writer.put(Attribute::Icmp, &icmp_value(icmp_type, code, info));
        if let Some(len) = writer.finish() {
            self.outputs.push_back(Output::Send { client, message: buffer[..len].into() });
        }
    }
}

/// The ICMP errors that are passed on (RFC 8656 section 11.5): destination
/// unreachable, time exceeded, and for IPv6 packet too big.
fn is_reported(family: Family, icmp_type: u8) -> bool {
    match family {
        Family::V4 => matches!(icmp_type, 3 | 11),
        Family::V6 => matches!(icmp_type, 1..=3),
    }
}

/// The value of the ICMP attribute (RFC 8656 section 18.13): 7 bits of type and 9
/// of code behind 16 reserved bits, and 32 bits of error data.
fn icmp_value(icmp_type: u8, code: u8, info: u32) -> [u8; 8] {
    let [hi, lo] = ((u16::from(icmp_type) << 9) | u16::from(code)).to_be_bytes();
    let [a, b, c, d] = info.to_be_bytes();
    [0, 0, hi, lo, a, b, c, d]
}

#[inline]
fn channel_header(number: u16, len: usize) -> Header {
    let mut bytes = [0; Header::MAX];
    bytes[..channel_data::HEADER_LEN].copy_from_slice(&channel_data::header(number, len as u16));
    Header { len: channel_data::HEADER_LEN as u8, bytes }
}

/// A Data indication up to the value of its DATA attribute.
fn data_header(id: TransactionId, peer: PeerAddr, len: usize) -> Option<Header> {
    let mut bytes = [0; Header::MAX];
    let mut writer = Writer::new(&mut bytes, Method::DATA, Class::Indication, id);
    writer.put_xor_address(Attribute::XorPeerAddress, peer.socket());
    let len = writer.put_head_only(Attribute::Data, len)?;
    Some(Header { len: len as u8, bytes })
}
