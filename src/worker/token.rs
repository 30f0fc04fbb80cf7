//! What an event is about, packed into the kernel's 64 bits of event data, and
//! the [`Link`]s given to the core.

use crate::turn::{Link, RelayId};

/// A connection of this worker; the generation tells it from earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// The owner of a file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Relay(RelayId),
    Udp(u32),
    Tcp(u32),
    Connection(ConnectionId),
    /// A DTLS client: no descriptor of its own.
    Dtls(ConnectionId),
    /// The listener of a TCP relay.
    TcpRelay(u32),
    /// A connection with a peer.
    Peer(ConnectionId),
    /// The connection with a backend that this client's connection is passed to.
    Backend(ConnectionId),
    Mailbox,
}

const OWN: u64 = 1 << 63;
const KIND_SHIFT: u32 = 60;
const UDP: u64 = 0;
const TCP: u64 = 1;
const CONNECTION: u64 = 2;
const MAILBOX: u64 = 3;
const DTLS: u64 = 4;
const TCP_RELAY: u64 = 5;
const PEER: u64 = 6;
const BACKEND: u64 = 7;

/// Connections per worker: 2^28, more than there are file descriptors.
const INDEX_BITS: u32 = 28;

impl ConnectionId {
    fn encode(self) -> u64 {
        u64::from(self.generation) << INDEX_BITS | u64::from(self.index)
    }

    fn decode(token: u64) -> Self {
        let index = token as u32 & ((1 << INDEX_BITS) - 1);
        Self { index, generation: (token >> INDEX_BITS) as u32 }
    }
}

impl Token {
    pub(super) fn encode(self) -> u64 {
        let own = |kind: u64, rest: u64| OWN | kind << KIND_SHIFT | rest;
        match self {
            Self::Relay(relay) => relay.token(),
            Self::Udp(index) => own(UDP, index.into()),
            Self::Tcp(index) => own(TCP, index.into()),
            Self::Connection(id) => own(CONNECTION, id.encode()),
            Self::Dtls(id) => own(DTLS, id.encode()),
            Self::TcpRelay(index) => own(TCP_RELAY, index.into()),
            Self::Peer(id) => own(PEER, id.encode()),
            Self::Backend(id) => own(BACKEND, id.encode()),
            Self::Mailbox => own(MAILBOX, 0),
        }
    }

    pub(super) fn decode(token: u64) -> Self {
        if token & OWN == 0 {
            return Self::Relay(RelayId::from_token(token));
        }
        match (token >> KIND_SHIFT) & 7 {
            UDP => Self::Udp(token as u32),
            TCP => Self::Tcp(token as u32),
            CONNECTION => Self::Connection(ConnectionId::decode(token)),
            DTLS => Self::Dtls(ConnectionId::decode(token)),
            TCP_RELAY => Self::TcpRelay(token as u32),
            PEER => Self::Peer(ConnectionId::decode(token)),
            BACKEND => Self::Backend(ConnectionId::decode(token)),
            _ => Self::Mailbox,
        }
    }

    pub(super) fn link(self) -> Link {
        Link(self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let connection = ConnectionId { index: (1 << INDEX_BITS) - 1, generation: u32::MAX };
        for token in
            [Token::Udp(7), Token::Tcp(u32::MAX), Token::Connection(connection), Token::Mailbox]
                .into_iter()
                .chain([Token::Dtls(connection), Token::Peer(connection), Token::TcpRelay(9)])
                .chain([Token::Backend(connection)])
        {
            assert_eq!(Token::decode(token.encode()), token);
        }
        for raw in [0u64, 1, 2, 0x1234_5678_9abc_def0, (1 << 63) - 1] {
            assert_eq!(Token::decode(raw).encode(), raw);
        }
    }
}
