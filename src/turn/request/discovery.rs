//! NAT behaviour discovery, the server's side (RFC 5780 section 6): which of the
//! server's addresses an answer to Binding names, and which way it takes.
//!
//! A request may ask that its answer leave from the server's other address, other
//! port or both (CHANGE-REQUEST), or go to another port of the sender
//! (RESPONSE-PORT). The answer never goes to another host than the request came
//! from, is never longer than the request plus the addresses it names, and comes
//! out of the same budget as every answer to a stranger: that keeps the server
//! from being used as a reflector.

use std::net::SocketAddr;

use crate::net::{Family, Transport};
use crate::stun::{Attribute, ErrorCode, Message, UnknownAttributes, Writer};
use crate::turn::reply::Reject;
use crate::turn::settings::Discovery;
use crate::turn::vocabulary::Client;

/// CHANGE-REQUEST: answer from the other address, from the other port (RFC 5780
/// section 7.2).
const CHANGE_ADDRESS: u32 = 0b100;
const CHANGE_PORT: u32 = 0b010;

/// The longest PADDING of an answer: with it, the answer does not fit one packet
/// of an Ethernet. It fits the reply buffer.
const MAX_PADDING: usize = 1500;

/// The way of an answer, and what it says of the server's addresses.
pub(in crate::turn) struct Way {
    /// RESPONSE-ORIGIN: where the client will see the answer come from.
    pub(super) origin: SocketAddr,
    /// OTHER-ADDRESS: the server's other address and other port.
    pub(super) other: Option<SocketAddr>,
    /// When the answer does not just go back: the address of this host it leaves
    /// from, and where it goes.
    pub(super) detour: Option<(SocketAddr, SocketAddr)>,
    padding: usize,
}

/// What the server does not understand of a Binding request: also what it would
/// if it had the usage, or an alternate of the address that was asked.
///
/// RFC 3489 has none of the later attributes, but its clients send CHANGE-REQUEST
/// always: zero asks for nothing.
pub(super) fn unknown(
    discovery: Option<&Discovery>,
    from: Client,
    request: &Message<'_>,
) -> UnknownAttributes {
    let classic = !request.has_cookie();
    let asks_nothing = classic && request.get_u32(Attribute::ChangeRequest) == Some(Ok(0));
    let server = from.five_tuple.server;
    let has_other = discovery.is_some_and(|d| d.other(server, true, true).is_some());
    let is_unknown = |attribute: &Attribute| match attribute {
        Attribute::ChangeRequest => !has_other && !asks_nothing,
        _ => discovery.is_none() || classic,
    };
    Attribute::DISCOVERY
        .into_iter()
        .filter(|attribute| request.has(*attribute) && is_unknown(attribute))
        .fold(*request.unknown(), UnknownAttributes::with)
}

impl Way {
    /// The way that a request asks for.
    pub(super) fn of(
        discovery: Option<&Discovery>,
        from: Client,
        request: &Message<'_>,
    ) -> Result<Self, Reject> {
        let way = Self::back(discovery, from);
        let asks = Attribute::DISCOVERY.into_iter().any(|attribute| request.has(attribute));
        let Some(discovery) = discovery.filter(|_| asks) else { return Ok(way) };
        if from.five_tuple.transport != Transport::Udp {
            return Err(Reject::bad("CHANGE-REQUEST, RESPONSE-PORT and PADDING are for UDP"));
        }
        if request.has(Attribute::ResponsePort) && request.has(Attribute::Padding) {
            return Err(Reject::bad("RESPONSE-PORT and PADDING exclude each other"));
        }
        let padding = request.get(Attribute::Padding).map_or(0, <[u8]>::len).min(MAX_PADDING);
        way.changed(discovery, from, request)?.with_response_port(from, request).map(|mut way| {
            way.padding = padding;
            way
        })
    }

    /// The way that an RFC 3489 request asks for. There is no RESPONSE-ADDRESS: it
    /// would aim answers at third parties.
    pub(super) fn of_classic(
        discovery: Option<&Discovery>,
        from: Client,
        request: &Message<'_>,
    ) -> Result<Self, Reject> {
        let way = Self::back(discovery, from);
        match discovery {
            Some(discovery) if way.other.is_some() => way.changed(discovery, from, request),
            _ => Ok(way),
        }
    }

    /// RFC 5780 section 6.1: what an answer says besides the mapped address.
    pub(super) fn describe(&self, from: Client, writer: &mut Writer<'_>) {
        writer.put_address(Attribute::MappedAddress, from.five_tuple.client.socket());
        writer.put_address(Attribute::ResponseOrigin, self.origin);
        if let Some(other) = self.other {
            writer.put_address(Attribute::OtherAddress, other);
        }
        if self.padding > 0 {
            writer.put_padding(self.padding);
        }
    }

    /// Back the way that the request came.
    fn back(discovery: Option<&Discovery>, from: Client) -> Self {
        let server = from.five_tuple.server;
        let other = discovery.and_then(|d| d.other(server, true, true));
        Self {
            origin: discovery.map_or(server, |d| d.advertised(server)),
            other: other.map(|o| o.advertised),
            detour: None,
            padding: 0,
        }
    }

    /// RFC 5780 section 6.1, table 1.
    fn changed(
        mut self,
        discovery: &Discovery,
        from: Client,
        request: &Message<'_>,
    ) -> Result<Self, Reject> {
        let flags = match request.get_u32(Attribute::ChangeRequest) {
            None => return Ok(self),
            Some(Ok(flags)) => flags,
            Some(Err(())) => return Err(Reject::bad("CHANGE-REQUEST is not 4 bytes")),
        };
        let (address, port) = (flags & CHANGE_ADDRESS != 0, flags & CHANGE_PORT != 0);
        let tuple = from.five_tuple;
        let source =
            discovery.other(tuple.server, address, port).ok_or(Reject::UnknownAttributes)?;
        self.origin = source.advertised;
        if source.local != tuple.server {
            self.detour = Some((source.local, tuple.client.socket()));
        }
        Ok(self)
    }

    /// RFC 5780 section 7.5: to another port of the same host.
    fn with_response_port(mut self, from: Client, request: &Message<'_>) -> Result<Self, Reject> {
        let port = match request.get(Attribute::ResponsePort) {
            None => return Ok(self),
            // The port alone, or followed by two bytes of filling: both are in use.
            Some(&[hi, lo] | &[hi, lo, _, _]) => u16::from_be_bytes([hi, lo]),
            Some(_) => return Err(Reject::bad("RESPONSE-PORT is not 2 bytes")),
        };
        if port == 0 {
            return Err(Reject::Error(ErrorCode::BAD_REQUEST, "RESPONSE-PORT is 0"));
        }
        let tuple = from.five_tuple;
        let source = self.detour.map_or(tuple.server, |(source, _)| source);
        // With the scope of a link-local sender.
        let mut target = tuple.client.socket();
        target.set_port(port);
        if source != tuple.server || target != tuple.client.socket() {
            self.detour = Some((source, target));
        }
        Ok(self)
    }
}

/// An address and port of the server.
pub(in crate::turn) struct Endpoint {
    /// On this host.
    local: SocketAddr,
    /// As clients see it.
    advertised: SocketAddr,
}

impl Discovery {
    /// How clients see an address and port of this host.
    fn advertised(&self, server: SocketAddr) -> SocketAddr {
        let known = self.addresses.iter().find(|a| a.local == server.ip());
        SocketAddr::new(known.map_or(server.ip(), |a| a.advertised), server.port())
    }

    /// The endpoint that differs from `server` in address, in port, or in both;
    /// `None` when `server` is none of the four that belong together.
    fn other(&self, server: SocketAddr, address: bool, port: bool) -> Option<Endpoint> {
        let family = Family::of(server.ip());
        let mut pair = self.addresses.iter().filter(|a| Family::of(a.local) == family);
        let (first, second) = (pair.next()?, pair.next()?);
        let (own, other) = match server.ip() {
            ip if ip == first.local => (first, second),
            ip if ip == second.local => (second, first),
            _ => return None,
        };
        let (own_port, other_port) = match self.ports {
            [a, b] if a == server.port() => (a, b),
            [a, b] if b == server.port() => (b, a),
            _ => return None,
        };
        let ip = if address { other } else { own };
        let port = if port { other_port } else { own_port };
        Some(Endpoint {
            local: SocketAddr::new(ip.local, port),
            advertised: SocketAddr::new(ip.advertised, port),
        })
    }
}
