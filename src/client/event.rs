//! What a client tells its owner.

use std::net::SocketAddr;
use std::time::Duration;

use crate::net::Family;

use super::Transaction;

/// Something that happened. Those with a [`Transaction`] end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Binding request was answered.
    Bound {
        /// What was asked.
        transaction: Transaction,
        /// The server-reflexive transport address.
        reflexive: SocketAddr,
        /// RESPONSE-ORIGIN, if the server speaks RFC 5780.
        response_origin: Option<SocketAddr>,
        /// OTHER-ADDRESS, if the server speaks RFC 5780.
        other_address: Option<SocketAddr>,
    },
    /// An Allocate request was granted.
    Allocated(Allocated),
    /// A Refresh request was granted.
    Refreshed {
        /// What was asked.
        transaction: Transaction,
        /// Until the allocation ends; zero if it has ended.
        lifetime: Duration,
    },
    /// A CreatePermission request was granted.
    PermissionCreated {
        /// What was asked.
        transaction: Transaction,
    },
    /// A ChannelBind request was granted.
    ChannelBound {
        /// What was asked.
        transaction: Transaction,
        /// The channel number.
        channel: u16,
        /// The peer behind it.
        peer: SocketAddr,
    },
    /// A request made with [`Client::request_raw`](super::Client::request_raw) was granted.
    Answered {
        /// What was asked.
        transaction: Transaction,
        /// The method of the response.
        method: u16,
        /// Its attributes up to the integrity attributes.
        attributes: Vec<RawAttribute>,
    },
    /// The server answered with an error.
    Failed(Failure),
    /// No request could be made of what was asked, or the answer is beyond use.
    Unusable {
        /// What was asked.
        transaction: Transaction,
        /// What is wrong.
        why: Problem,
    },
    /// No answer came in time (RFC 8489 section 6.2).
    TimedOut {
        /// What was asked.
        transaction: Transaction,
    },
    /// A peer sent data.
    Data {
        /// Who.
        peer: SocketAddr,
        /// The channel it came on, `None` for a Data indication.
        channel: Option<u16>,
        /// What.
        data: Vec<u8>,
    },
    /// The server received an ICMP packet about data for a peer (RFC 8656
    /// section 11.5).
    Icmp {
        /// The peer the data was for.
        peer: SocketAddr,
        /// ICMP type.
        icmp_type: u8,
        /// ICMP code.
        code: u16,
        /// Error data: for "packet too big" the MTU.
        info: [u8; 4],
    },
    /// The server sent an indication other than Data.
    Indication {
        /// Its method.
        method: u16,
        /// Its attributes.
        attributes: Vec<RawAttribute>,
    },
    /// Something arrived that had to be discarded. Transactions go on.
    Invalid {
        /// What is wrong with it.
        why: Problem,
    },
}

/// What an Allocate request has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// What was asked.
    pub transaction: Transaction,
    /// The relayed transport addresses: one, or two of different families.
    pub relayed: Vec<SocketAddr>,
    /// The server-reflexive transport address.
    pub reflexive: SocketAddr,
    /// Until the allocation ends, unless refreshed.
    pub lifetime: Duration,
    /// The right to the next higher port, where EVEN-PORT asked to reserve it.
    pub reservation_token: Option<[u8; 8]>,
    /// Why the additional family was not allocated (RFC 8656 section 18.12).
    pub address_error: Option<(Family, u16)>,
}

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was asked.
    pub transaction: Transaction,
    /// The method of the response.
    pub method: u16,
    /// ERROR-CODE: 300 to 699.
    pub code: u16,
    /// The reason phrase.
    pub reason: String,
    /// UNKNOWN-ATTRIBUTES of a 420.
    pub unknown_attributes: Vec<u16>,
    /// ALTERNATE-SERVER of a 300.
    pub alternate_server: Option<SocketAddr>,
}

/// Type and value of an attribute as on the wire, without padding.
pub type RawAttribute = (u16, Vec<u8>);

impl Event {
    /// The transaction that this event ends.
    pub fn transaction(&self) -> Option<Transaction> {
        match self {
            Self::Bound { transaction, .. }
            | Self::Refreshed { transaction, .. }
            | Self::PermissionCreated { transaction }
            | Self::ChannelBound { transaction, .. }
            | Self::Answered { transaction, .. }
            | Self::Unusable { transaction, .. }
            | Self::TimedOut { transaction } => Some(*transaction),
            Self::Allocated(allocated) => Some(allocated.transaction),
            Self::Failed(failure) => Some(failure.transaction),
            Self::Data { .. }
            | Self::Icmp { .. }
            | Self::Indication { .. }
            | Self::Invalid { .. } => None,
        }
    }
}

/// What can be wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither STUN nor ChannelData, or not whole. A stream ends here.
    #[error("neither a STUN message nor ChannelData")]
    Framing,
    /// The STUN message does not decode.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// FINGERPRINT is there and wrong.
    #[error("FINGERPRINT does not match")]
    Fingerprint,
    /// The answer to a signed request is not signed the same way (RFC 8489 section 9.2.5).
    #[error("response of class {class} to a signed request lacks its integrity attribute")]
    IntegrityMissing {
        /// "success" or the error code.
        class: String,
    },
    /// The integrity attribute is wrong.
    #[error("integrity of the response does not match")]
    IntegrityMismatch,
    /// The nonce says that password algorithms are offered and none are: somebody
    /// took them out (RFC 8489 section 9.2.5).
    #[error("PASSWORD-ALGORITHMS is missing though the nonce announces it")]
    BidDown,
    /// PASSWORD-ALGORITHMS lists neither MD5 nor SHA-256.
    #[error("no password algorithm in common")]
    NoCommonAlgorithm,
    /// An attribute that the message has to have is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An attribute that must be understood is not.
    #[error("unknown comprehension-required attribute {0:#06x}")]
    UnknownRequired(u16),
    /// Servers do not send requests.
    #[error("a request from the server")]
    UnexpectedRequest,
    /// ChannelData on a channel that was never asked for.
    #[error("ChannelData on unbound channel {0:#06x}")]
    UnboundChannel(u16),
    /// An attribute cannot be encoded.
    #[error("not encodable: {0}")]
    Unencodable(String),
    /// Data that fits no datagram.
    #[error("{0} bytes fit no datagram")]
    TooLong(usize),
}
