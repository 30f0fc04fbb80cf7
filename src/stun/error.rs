//! Why bytes are not a message, and the codes of error responses.

/// Why a packet is not a STUN or ChannelData message. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Shorter than its header.
    #[error("shorter than a header")]
    Short,
    /// The two top bits of a STUN message are not zero.
    #[error("not a STUN message")]
    NotStun,
    /// The length field does not fit the packet, or is not a multiple of four.
    #[error("length field does not fit the packet")]
    Length,
    /// An attribute runs over the end of the message.
    #[error("attribute runs over the end")]
    Attribute,
    /// FINGERPRINT is present and wrong.
    #[error("wrong FINGERPRINT")]
    Fingerprint,
    /// A ChannelData number outside 0x4000..=0x7FFF.
    #[error("not a channel number")]
    Channel,
}

/// An error code of RFC 8489 section 14.8, RFC 8656 section 19 or RFC 6062 section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $reason:literal,)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The reason phrase that goes with the code.
            pub const fn reason(self) -> &'static str {
                match self.0 { $($code => $reason,)* _ => "" }
            }
        }
    };
}

codes! {
    /// Another server is to be asked (RFC 8489 section 10).
    TRY_ALTERNATE = 300 "Try Alternate",
    /// The request was malformed.
    BAD_REQUEST = 400 "Bad Request",
    /// Credentials are missing or wrong.
    UNAUTHENTICATED = 401 "Unauthenticated",
    /// The peer address or the user is refused by policy.
    FORBIDDEN = 403 "Forbidden",
    /// Allocations do not follow their clients here (RFC 8016 section 3.4).
    MOBILITY_FORBIDDEN = 405 "Mobility Forbidden",
    /// A comprehension-required attribute is unknown.
    UNKNOWN_ATTRIBUTE = 420 "Unknown Attribute",
    /// No allocation for the five-tuple, or one too many.
    ALLOCATION_MISMATCH = 437 "Allocation Mismatch",
    /// The nonce is no longer valid.
    STALE_NONCE = 438 "Stale Nonce",
    /// The address family cannot be relayed.
    ADDRESS_FAMILY_NOT_SUPPORTED = 440 "Address Family not Supported",
    /// Not the user of the allocation.
    WRONG_CREDENTIALS = 441 "Wrong Credentials",
    /// The requested transport cannot be relayed.
    UNSUPPORTED_TRANSPORT = 442 "Unsupported Transport Protocol",
    /// A peer of another family than the allocation's.
    PEER_ADDRESS_FAMILY_MISMATCH = 443 "Peer Address Family Mismatch",
    /// There is a connection to that peer, or one is being made.
    CONNECTION_ALREADY_EXISTS = 446 "Connection Already Exists",
    /// No connection to the peer came about.
    CONNECTION_TIMEOUT_OR_FAILURE = 447 "Connection Timeout or Failure",
    /// The user's share is used up.
    ALLOCATION_QUOTA_REACHED = 486 "Allocation Quota Reached",
    /// The server failed; the client may try again.
    SERVER_ERROR = 500 "Server Error",
    /// The server has no port, or no room, left.
    INSUFFICIENT_CAPACITY = 508 "Insufficient Capacity",
}

impl ErrorCode {
    /// The number, 300..=699.
    pub const fn number(self) -> u16 {
        self.0
    }
}
