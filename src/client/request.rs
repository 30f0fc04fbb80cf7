//! The requests a client can make, as attributes.

use std::net::SocketAddr;
use std::time::Duration;

use stun_rs::attributes::turn::{
    AdditionalAddressFamily, ChannelNumber, DontFragment, EvenPort, LifeTime,
    RequestedAddressFamily, RequestedTrasport, ReservationToken, XorPeerAddress,
};
use stun_rs::{AddressFamily, MessageMethod, StunAttribute, methods, protocols};

use crate::net::Family;

use super::event::Problem;

/// REQUESTED-TRANSPORT, for protocols that `stun-rs` has no name for.
const REQUESTED_TRANSPORT: u16 = 0x0019;
const PROTOCOL_UDP: u8 = 17;

/// An attribute to send: one that `stun-rs` encodes, or type and value as they are.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// Encoded by `stun-rs`.
    Typed(Box<StunAttribute>),
    /// Type and value; length and padding are added.
    Raw(u16, Vec<u8>),
}

impl<T: Into<StunAttribute>> From<T> for Attribute {
    fn from(attribute: T) -> Self {
        Self::Typed(Box::new(attribute.into()))
    }
}

/// What to ask of an allocation (RFC 8656 section 7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocate {
    /// LIFETIME, in whole seconds.
    pub lifetime: Option<Duration>,
    /// REQUESTED-ADDRESS-FAMILY.
    pub family: Option<Family>,
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub additional_family: Option<Family>,
    /// EVEN-PORT, and whether the next higher port shall be reserved.
    pub even_port: Option<bool>,
    /// RESERVATION-TOKEN of an earlier allocation.
    pub reservation_token: Option<[u8; 8]>,
    /// DONT-FRAGMENT.
    pub dont_fragment: bool,
    /// REQUESTED-TRANSPORT: an IP protocol number.
    pub requested_transport: u8,
}

impl Default for Allocate {
    /// A UDP allocation that leaves everything else to the server.
    fn default() -> Self {
        Self {
            lifetime: None,
            family: None,
            additional_family: None,
            even_port: None,
            reservation_token: None,
            dont_fragment: false,
            requested_transport: PROTOCOL_UDP,
        }
    }
}

impl Allocate {
    fn attributes(&self) -> Vec<Attribute> {
        let mut list = vec![requested_transport(self.requested_transport)];
        list.extend(self.lifetime.map(lifetime));
        list.extend(self.family.map(|f| RequestedAddressFamily::new(family(f)).into()));
        list.extend(self.additional_family.map(|f| AdditionalAddressFamily::new(family(f)).into()));
        list.extend(self.even_port.map(|reserve| EvenPort::new(reserve).into()));
        list.extend(self.reservation_token.map(|token| ReservationToken::from(token).into()));
        list.extend(self.dont_fragment.then(|| DontFragment::default().into()));
        list
    }
}

/// A request, kept until it is answered: retries after 401 and 438 are made of it.
#[derive(Debug)]
pub(super) enum Request {
    Binding,
    Allocate(Allocate),
    Refresh { lifetime: Option<Duration>, family: Option<Family> },
    CreatePermission { peers: Vec<SocketAddr> },
    ChannelBind { channel: u16, peer: SocketAddr },
    Raw { method: u16, attributes: Vec<Attribute> },
}

impl Request {
    pub(super) fn method(&self) -> Result<MessageMethod, Problem> {
        Ok(match self {
            Self::Binding => methods::BINDING,
            Self::Allocate(_) => methods::ALLOCATE,
            Self::Refresh { .. } => methods::REFRESH,
            Self::CreatePermission { .. } => methods::CREATE_PERMMISSION,
            Self::ChannelBind { .. } => methods::CHANNEL_BIND,
            Self::Raw { method, .. } => MessageMethod::try_from(*method)
                .map_err(|error| Problem::Unencodable(error.to_string()))?,
        })
    }

    pub(super) fn is_binding(&self) -> bool {
        match self {
            Self::Binding => true,
            Self::Raw { method, .. } => *method == methods::BINDING.as_u16(),
            _ => false,
        }
    }

    pub(super) fn attributes(&self) -> Vec<Attribute> {
        match self {
            Self::Binding => Vec::new(),
            Self::Allocate(allocate) => allocate.attributes(),
            Self::Refresh { lifetime: asked, family: of } => asked
                .map(lifetime)
                .into_iter()
                .chain(of.map(|f| RequestedAddressFamily::new(family(f)).into()))
                .collect(),
            Self::CreatePermission { peers } => {
                peers.iter().map(|peer| XorPeerAddress::from(*peer).into()).collect()
            }
            Self::ChannelBind { channel, peer } => {
                vec![ChannelNumber::new(*channel).into(), XorPeerAddress::from(*peer).into()]
            }
            Self::Raw { attributes, .. } => attributes.clone(),
        }
    }
}

fn requested_transport(protocol: u8) -> Attribute {
    if protocol == PROTOCOL_UDP {
        RequestedTrasport::new(protocols::UDP).into()
    } else {
        Attribute::Raw(REQUESTED_TRANSPORT, vec![protocol, 0, 0, 0])
    }
}

fn lifetime(asked: Duration) -> Attribute {
    LifeTime::new(u32::try_from(asked.as_secs()).unwrap_or(u32::MAX)).into()
}

fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::IPv4,
        Family::V6 => AddressFamily::IPv6,
    }
}
