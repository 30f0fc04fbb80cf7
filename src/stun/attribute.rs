//! The attributes this server understands.

use super::header::Method;

macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// An attribute this server understands. Every other attribute below
        /// 0x8000 makes a request fail with 420 (RFC 8489 section 6.3.1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Attribute { $($(#[$doc])* $name,)* }

        impl Attribute {
            /// How many there are; indexes are below it.
            pub(super) const COUNT: usize = [$($code as u16),*].len();

            /// The type on the wire.
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// The attribute with this type on the wire.
            #[inline]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    EARLY_ADDITIONAL_ADDRESS_FAMILY => Some(Self::AdditionalAddressFamily),
                    _ => None,
                }
            }
        }
    };
}

attributes! {
    /// MAPPED-ADDRESS (RFC 8489 section 14.1).
    MappedAddress = 0x0001,
    /// CHANGE-REQUEST (RFC 5780 section 7.2), in Binding requests only.
    ChangeRequest = 0x0003,
    /// USERNAME (RFC 8489 section 14.3).
    Username = 0x0006,
    /// MESSAGE-INTEGRITY (RFC 8489 section 14.5).
    MessageIntegrity = 0x0008,
    /// ERROR-CODE (RFC 8489 section 14.8).
    ErrorCode = 0x0009,
    /// UNKNOWN-ATTRIBUTES (RFC 8489 section 14.13).
    UnknownAttributes = 0x000A,
    /// CHANNEL-NUMBER (RFC 8656 section 18.1).
    ChannelNumber = 0x000C,
    /// LIFETIME (RFC 8656 section 18.2).
    Lifetime = 0x000D,
    /// XOR-PEER-ADDRESS (RFC 8656 section 18.3).
    XorPeerAddress = 0x0012,
    /// DATA (RFC 8656 section 18.4).
    Data = 0x0013,
    /// REALM (RFC 8489 section 14.9).
    Realm = 0x0014,
    /// NONCE (RFC 8489 section 14.10).
    Nonce = 0x0015,
    /// XOR-RELAYED-ADDRESS (RFC 8656 section 18.5).
    XorRelayedAddress = 0x0016,
    /// REQUESTED-ADDRESS-FAMILY (RFC 8656 section 18.6).
    RequestedAddressFamily = 0x0017,
    /// EVEN-PORT (RFC 8656 section 18.7).
    EvenPort = 0x0018,
    /// REQUESTED-TRANSPORT (RFC 8656 section 18.8).
    RequestedTransport = 0x0019,
    /// DONT-FRAGMENT (RFC 8656 section 18.9).
    DontFragment = 0x001A,
    /// ACCESS-TOKEN (RFC 7635 section 6.2); unknown where tokens are not taken.
    AccessToken = 0x001B,
    /// MESSAGE-INTEGRITY-SHA256 (RFC 8489 section 14.6).
    MessageIntegritySha256 = 0x001C,
    /// PASSWORD-ALGORITHM (RFC 8489 section 14.12).
    PasswordAlgorithm = 0x001D,
    /// USERHASH (RFC 8489 section 14.4).
    Userhash = 0x001E,
    /// XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
    XorMappedAddress = 0x0020,
    /// RESERVATION-TOKEN (RFC 8656 section 18.10).
    ReservationToken = 0x0022,
    /// PADDING (RFC 5780 section 7.6), in Binding only.
    Padding = 0x0026,
    /// RESPONSE-PORT (RFC 5780 section 7.5), in Binding requests only.
    ResponsePort = 0x0027,
    /// CONNECTION-ID (RFC 6062 section 6.2.1), in the methods of TCP relays only.
    ConnectionId = 0x002A,
    /// ADDITIONAL-ADDRESS-FAMILY (RFC 8656 section 18.11).
    AdditionalAddressFamily = 0x8000,
    /// ADDRESS-ERROR-CODE (RFC 8656 section 18.12).
    AddressErrorCode = 0x8001,
    /// PASSWORD-ALGORITHMS (RFC 8489 section 14.11).
    PasswordAlgorithms = 0x8002,
    /// ALTERNATE-DOMAIN (RFC 8489 section 14.16).
    AlternateDomain = 0x8003,
    /// ICMP (RFC 8656 section 18.13).
    Icmp = 0x8004,
    /// SOFTWARE (RFC 8489 section 14.14).
    Software = 0x8022,
    /// ALTERNATE-SERVER (RFC 8489 section 14.15).
    AlternateServer = 0x8023,
    /// FINGERPRINT (RFC 8489 section 14.7).
    Fingerprint = 0x8028,
    /// RESPONSE-ORIGIN (RFC 5780 section 7.3).
    ResponseOrigin = 0x802B,
    /// OTHER-ADDRESS (RFC 5780 section 7.4).
    OtherAddress = 0x802C,
    /// THIRD-PARTY-AUTHORIZATION (RFC 7635 section 6.1).
    ThirdPartyAuthorization = 0x802E,
    /// MOBILITY-TICKET (RFC 8016 section 3.3).
    MobilityTicket = 0x8030,
}

impl Attribute {
    /// What only NAT behaviour discovery asks for (RFC 5780 section 7): in other
    /// methods, and on servers without that usage, it is unknown.
    pub const DISCOVERY: [Self; 3] = [Self::ChangeRequest, Self::Padding, Self::ResponsePort];

    /// Whether messages of this method can have the attribute. What belongs to one
    /// usage is unknown to the methods of all others.
    pub(super) const fn belongs_to(self, method: Method) -> bool {
        match self {
            Self::ChangeRequest | Self::Padding | Self::ResponsePort => {
                matches!(method, Method::BINDING)
            }
            Self::ConnectionId => matches!(
                method,
                Method::CONNECT | Method::CONNECTION_BIND | Method::CONNECTION_ATTEMPT
            ),
            Self::AccessToken => !matches!(method, Method::BINDING),
            _ => true,
        }
    }
}

/// Attributes that only answers to RFC 3489 clients have. Everywhere else they
/// are unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Classic {
    /// SOURCE-ADDRESS (RFC 3489 section 11.2.5).
    SourceAddress = 0x0004,
    /// CHANGED-ADDRESS (RFC 3489 section 11.2.3).
    ChangedAddress = 0x0005,
}

/// What ADDITIONAL-ADDRESS-FAMILY was before RFC 8656 gave it a number; clients of
/// coturn before 4.8 send it so. Nothing else has this number.
const EARLY_ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8032;

/// Whether a receiver must understand the attribute to process the message
/// (RFC 8489 section 14).
pub(super) const fn is_required(code: u16) -> bool {
    code < 0x8000
}
