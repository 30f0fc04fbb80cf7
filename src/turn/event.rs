//! What the core has to say for the log: types only, no logic.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connection::PeerEndReason;
use super::vocabulary::{AllocationId, Traffic};
use crate::net::{FiveTuple, PeerAddr};

/// Things worth a log line.
#[derive(Debug)]
pub enum Event {
    /// An allocation came up.
    AllocationCreated {
        /// Its id within this shard.
        allocation: AllocationId,
        /// The client.
        five_tuple: FiveTuple,
        /// The full user name.
        username: Arc<str>,
        /// The addresses that the client was told.
        relayed: [Option<SocketAddr>; 2],
        /// How long it lives without a refresh.
        lifetime: Duration,
    },
    /// An allocation has followed its client (RFC 8016).
    AllocationMoved {
        /// Its id within this shard.
        allocation: AllocationId,
        /// The client.
        five_tuple: FiveTuple,
        /// Where the client was.
        previous: FiveTuple,
        /// The full user name.
        username: Arc<str>,
        /// The addresses that the client was told.
        relayed: [Option<SocketAddr>; 2],
    },
    /// An allocation ended.
    AllocationEnded {
        /// Its id within this shard.
        allocation: AllocationId,
        /// The client.
        five_tuple: FiveTuple,
        /// The full user name.
        username: Arc<str>,
        /// The addresses that the client was told.
        relayed: [Option<SocketAddr>; 2],
        /// How long it lived.
        age: Duration,
        /// What it relayed.
        traffic: Traffic,
        /// Why it ended.
        reason: EndReason,
    },
    /// A peer address was refused.
    PeerDenied {
        /// The client.
        five_tuple: FiveTuple,
        /// The full user name.
        username: Arc<str>,
        /// The peer.
        peer: PeerAddr,
        /// The deciding rule, in words.
        rule: String,
    },
    /// Bytes pass between a client and a peer (RFC 6062).
    PeerConnectionBound {
        /// The allocation.
        allocation: AllocationId,
        /// The client's data connection.
        five_tuple: FiveTuple,
        /// The full user name.
        username: Arc<str>,
        /// The peer.
        peer: PeerAddr,
    },
    /// A connection with a peer is over (RFC 6062).
    PeerConnectionEnded {
        /// The allocation.
        allocation: AllocationId,
        /// The peer.
        peer: PeerAddr,
        /// How long there was anything of it.
        age: Duration,
        /// Why it is over.
        reason: PeerEndReason,
    },
    /// Credentials were refused.
    AuthenticationFailed {
        /// The client.
        five_tuple: FiveTuple,
        /// What is wrong with them.
        reason: AuthFailure,
    },
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client asked for it (Refresh with a lifetime of zero).
    Deleted,
    /// Nobody refreshed it.
    Expired,
    /// The client's connection ended.
    ConnectionClosed,
    /// Its relay socket was lost.
    RelayLost,
    /// The server stops.
    Stopped,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "deleted by client",
            Self::Expired => "expired",
            Self::ConnectionClosed => "connection closed",
            Self::RelayLost => "relay socket lost",
            Self::Stopped => "server stopped",
        })
    }
}

/// Why credentials were refused. Clients see 401 for the first three alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// No such user, an expired time-limited name, or an unknown USERHASH.
    UnknownUser,
    /// The token is not for this server, not sealed with this key, too old or not
    /// the sender's (RFC 7635).
    BadToken,
    /// The integrity check failed: wrong password.
    WrongPassword,
    /// The nonce is too old, or not this client's.
    StaleNonce,
    /// Not the user of the allocation.
    NotTheOwner,
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownUser => "unknown user, wrong secret or expired credential",
            Self::BadToken => "invalid or expired token",
            Self::WrongPassword => "wrong password",
            Self::StaleNonce => "stale nonce",
            Self::NotTheOwner => "not the user of the allocation",
        })
    }
}
