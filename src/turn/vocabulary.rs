//! The words between the core and its shell: types only, no logic.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::connection::{ConnectionId, PeerLink};
use super::event::Event;
use super::shard::ShardMessage;
use crate::auth::StoredKeys;
use crate::net::{ClientAddr, Family, FiveTuple, PeerAddr, RelayedAddr};
use crate::stun::ParseError;

/// An allocation of this shard. The generation makes the id of a gone allocation
/// different from the id of the one that took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.index, self.generation)
    }
}

/// One relayed transport address of an allocation: at most one per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId {
    /// The allocation.
    pub allocation: AllocationId,
    /// The family of the relayed transport address.
    pub family: Family,
}

impl RelayId {
    /// Packs the id into a number that fits the kernel's 64 bits of event data;
    /// the top bit stays clear for the shell's own tokens.
    pub fn token(self) -> u64 {
        let family = u64::from(self.family == Family::V6);
        u64::from(self.allocation.generation & GENERATION_MASK) << 33
            | u64::from(self.allocation.index) << 1
            | family
    }

    /// A dense index: no other relay of this shard has it at the same time.
    pub fn index(self) -> usize {
        self.allocation.index as usize * 2 + usize::from(self.family == Family::V6)
    }

    /// The reverse of [`token`](Self::token).
    pub fn from_token(token: u64) -> Self {
        let family = if token & 1 == 1 { Family::V6 } else { Family::V4 };
        let generation = (token >> 33) as u32 & GENERATION_MASK;
        Self { allocation: AllocationId { index: (token >> 1) as u32, generation }, family }
    }
}

/// Generations have 30 bits, so that a [`RelayId`] fits 63 bits.
pub(super) const GENERATION_MASK: u32 = (1 << 30) - 1;

/// The shell's handle for the socket or connection through which a client speaks.
/// The core only keeps it and gives it back. It is never used again for another
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub u64);

/// A client and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// What identifies its allocation.
    pub five_tuple: FiveTuple,
    /// Where answers to it go out.
    pub link: Link,
}

/// What to do with the packet in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send a part of it on.
    Forward(Forward),
    /// An answer to the sender was written into the reply buffer.
    Reply {
        /// Length of the answer in bytes.
        len: usize,
    },
    /// The same, but it leaves from another address of the server or goes to
    /// another port of the sender (RFC 5780). Over UDP only.
    ReplyFrom {
        /// Length of the answer in bytes.
        len: usize,
        /// The address of this host to send from.
        server: SocketAddr,
        /// Where to send it.
        client: SocketAddr,
    },
    /// Nothing now; an [`Output`] will follow. On a stream, take the outputs before
    /// the next frame is read: an [`Output::Splice`] may be among them.
    Queued,
    /// Another shard has to see this packet: the client's connection moves there
    /// with every byte that was read and not used, this packet first, and is
    /// handed to that shard's core again. Over streams only, and only for clients
    /// of whom this core keeps nothing. Nothing was answered or counted.
    HandOver {
        /// The shard that the connection belongs to from now on.
        shard: u16,
    },
    /// Nothing at all.
    Drop(DropReason),
}

/// Where a part of the packet in hand goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Out of a relay socket to a peer.
    ToPeer {
        /// The relay socket.
        relay: RelayId,
        /// The peer.
        peer: PeerAddr,
        /// The application data within the packet.
        data: Span,
        /// The datagram must not be fragmented (DONT-FRAGMENT).
        dont_fragment: bool,
        /// The peer is an address of this server, and only its relay sockets may be
        /// reached there: send only if the port belongs to one.
        relays_only: bool,
    },
    /// To a client, behind a header.
    ToClient {
        /// The client's socket or connection.
        link: Link,
        /// The client.
        client: ClientAddr,
        /// The local address to send from.
        server: SocketAddr,
        /// The bytes that go in front of the data.
        header: Header,
        /// The application data within the packet.
        data: Span,
        /// Zero bytes that follow the data, 0..=3.
        padding: u8,
    },
}

/// A range of bytes in the packet in hand. `Range<u32>`, but `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an empty datagram is a datagram")]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// As an index into the packet.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start as u32, end: range.end as u32 }
    }
}

/// Bytes in front of forwarded data: a ChannelData header, or a Data indication
/// up to its DATA attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub(super) len: u8,
    pub(super) bytes: [u8; Self::MAX],
}

impl Header {
    /// The longest: STUN header, XOR-PEER-ADDRESS with IPv6, head of DATA.
    pub const MAX: usize = 48;

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The bytes with what follows them, and how many of them count.
    pub fn parts(&self) -> (u8, &[u8; Self::MAX]) {
        (self.len, &self.bytes)
    }
}

/// A question waiting for an answer from outside. Stale tickets are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// What a relayed transport address speaks: REQUESTED-TRANSPORT (RFC 8656 section
/// 18.8, RFC 6062 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayTransport {
    /// A UDP socket.
    Udp,
    /// A TCP listener, whose address connections to peers come from as well.
    Tcp,
}

/// Which port a new relay socket is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRequest {
    /// Any free one.
    Any,
    /// An even one (EVEN-PORT, R = 0).
    Even,
    /// An even one whose next-higher neighbour is free too and is set aside (R = 1).
    EvenAndReserveNext,
    /// The one that was set aside before; it is already marked as used.
    Reserved(RelayedAddr),
}

/// What comes into the core from outside, other than packets.
#[derive(Debug)]
pub enum Input {
    /// The answer to [`Output::LookupKey`]; `None`: there is no such user.
    Key {
        /// The question.
        ticket: Ticket,
        /// The full user name and its keys.
        user: Option<(Arc<str>, StoredKeys)>,
    },
    /// The answer to [`Output::OpenRelay`].
    RelayOpened {
        /// The question.
        relay: RelayId,
        /// The address of the socket on this host.
        local: RelayedAddr,
        /// The address that clients are told.
        advertised: SocketAddr,
        /// The port set aside for [`PortRequest::EvenAndReserveNext`].
        reserved: Option<RelayedAddr>,
    },
    /// The other answer to [`Output::OpenRelay`].
    RelayFailed {
        /// The question.
        relay: RelayId,
    },
    /// An ICMP error came back for a datagram that a relay socket sent.
    Icmp {
        /// The relay socket.
        relay: RelayId,
        /// Where the datagram was going.
        peer: PeerAddr,
        /// ICMP or ICMPv6 type.
        icmp_type: u8,
        /// ICMP or ICMPv6 code.
        code: u8,
        /// The next-hop MTU for "packet too big" errors, else 0.
        info: u32,
    },
    /// The answer to [`Output::ConnectPeer`]: the peer took the connection.
    PeerConnected {
        /// The question.
        connection: ConnectionId,
        /// The connection. Its data is not read before [`Output::Splice`].
        link: PeerLink,
    },
    /// The other answer to [`Output::ConnectPeer`]: refused, unreachable, or no
    /// socket was left.
    PeerFailed {
        /// The question.
        connection: ConnectionId,
    },
    /// A peer has connected to the listener of a TCP relay.
    PeerAccepted {
        /// The relay.
        relay: RelayId,
        /// The peer.
        peer: PeerAddr,
        /// The connection. Its data is not read before [`Output::Splice`].
        link: PeerLink,
    },
    /// Bytes have passed on a connection that is spliced, since the last time.
    PeerTraffic {
        /// The connection.
        link: PeerLink,
        /// From the client.
        bytes_to_peer: u64,
        /// From the peer.
        bytes_to_client: u64,
    },
    /// A connection with a peer is over, and the shell has closed it. Of one that
    /// is spliced: both sides, whichever ended first, once what was read is
    /// delivered; the client's side is not told as [`Input::LinkClosed`]. Of one
    /// that is not: it broke. A peer that has only finished sending is not over:
    /// what it sent is still to be delivered.
    PeerClosed {
        /// The connection.
        link: PeerLink,
    },
    /// A client's connection ended; its allocation goes with it.
    LinkClosed {
        /// The client.
        five_tuple: FiveTuple,
        /// The connection that ended.
        link: Link,
    },
    /// A message of another shard's core.
    FromShard {
        /// The sender.
        shard: u16,
        /// What it says.
        message: ShardMessage,
    },
}

/// What the core asks of its shell.
#[derive(Debug)]
pub enum Output {
    /// Send a message that was not an immediate reply.
    Send {
        /// The client.
        client: Client,
        /// The whole message.
        message: Box<[u8]>,
    },
    /// Open a relay socket; answer with [`Input::RelayOpened`] or [`Input::RelayFailed`].
    OpenRelay {
        /// The id it will have.
        relay: RelayId,
        /// Which port.
        port: PortRequest,
        /// A UDP socket or a TCP listener.
        transport: RelayTransport,
    },
    /// Close a relay socket and free its port. The connections of a TCP relay are
    /// gone by then: each got its [`Output::ClosePeer`] or [`Output::CancelConnect`].
    CloseRelay {
        /// The relay socket.
        relay: RelayId,
    },
    /// Connect to a peer from the address of a TCP relay; answer with
    /// [`Input::PeerConnected`] or [`Input::PeerFailed`].
    ConnectPeer {
        /// The relay.
        relay: RelayId,
        /// Names the question.
        connection: ConnectionId,
        /// The peer, as it is reached from this host.
        peer: PeerAddr,
        /// The peer is an address of this server, and only its relay sockets may be
        /// reached there: connect only if the port belongs to one.
        relays_only: bool,
    },
    /// Give up a connection that is being made; no answer is waited for any more.
    CancelConnect {
        /// The question.
        connection: ConnectionId,
    },
    /// From now on bytes pass between a client's connection and a peer's as they
    /// are, in both directions, beginning with what either has sent already. Comes
    /// behind the [`Output::Send`] with the response, which goes out first. The core
    /// sees nothing of the client's connection any more.
    Splice {
        /// The client's side.
        client: Link,
        /// The peer's side.
        peer: PeerLink,
    },
    /// Close a connection with a peer; of one that is spliced, both sides. Not
    /// answered with [`Input::PeerClosed`].
    ClosePeer {
        /// The connection.
        link: PeerLink,
    },
    /// Free a port that was set aside and never used.
    ReleasePort {
        /// The address set aside.
        reserved: RelayedAddr,
    },
    /// Find the keys of a user; answer with [`Input::Key`].
    LookupKey {
        /// The question.
        ticket: Ticket,
        /// The user.
        name: LookupName,
    },
    /// A channel's route came up or went away, for accelerators below the core.
    Route(Route),
    /// Deliver to another shard's core as [`Input::FromShard`]. Never lost, and in
    /// order. Ports and relay sockets that the message is about go with it
    /// ([`ShardMessage::ReservationAnswer`], [`ShardMessage::moved_relays`]).
    ToShard {
        /// The receiver.
        shard: u16,
        /// What to say.
        message: ShardMessage,
    },
    /// Something to log.
    Event(Event),
}

/// How a request names its user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LookupName {
    /// USERNAME.
    Name(Arc<str>),
    /// USERHASH (RFC 8489 section 14.4).
    Hash([u8; 32]),
}

/// A pair of directions that a channel opens between a client and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// ChannelData with this number from the client goes to the peer, and back.
    Add {
        /// The client's side.
        five_tuple: FiveTuple,
        /// The channel number.
        channel: u16,
        /// The relay socket.
        relay: RelayId,
        /// The address of the relay socket on this host.
        local: RelayedAddr,
        /// The peer.
        peer: PeerAddr,
    },
    /// The route is gone.
    Remove {
        /// The client's side.
        five_tuple: FiveTuple,
        /// The channel number.
        channel: u16,
        /// The relay socket.
        relay: RelayId,
        /// The peer.
        peer: PeerAddr,
    },
}

/// Bytes and packets of application data, as counted by the core. Between a client and
/// a peer over TCP (RFC 6062) there are bytes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams from the client to peers.
    pub packets_to_peers: u64,
    /// Their application data in bytes.
    pub bytes_to_peers: u64,
    /// Datagrams from peers to the client.
    pub packets_to_client: u64,
    /// Their application data in bytes.
    pub bytes_to_client: u64,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a packet was dropped. Each has a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// All of them.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$name),*];

            /// A short name for logs and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

drop_reasons! {
    /// Neither STUN nor ChannelData by its first byte.
    NotStun = "not-stun",
    /// A STUN message or ChannelData that is cut short, too long or ill-formed.
    Malformed = "malformed",
    /// FINGERPRINT is wrong.
    WrongFingerprint = "wrong-fingerprint",
    /// No magic cookie, and RFC 3489 is off or the request is not Binding.
    NoCookie = "no-cookie",
    /// A reserved channel number.
    ReservedChannel = "reserved-channel",
    /// A response or an indication that a server does not take.
    Unexpected = "unexpected",
    /// A method that this server does not have.
    UnknownMethod = "unknown-method",
    /// An indication with an unknown comprehension-required attribute.
    UnknownAttribute = "unknown-attribute",
    /// Data from a client without an allocation.
    NoAllocation = "no-allocation",
    /// Data to a channel that is not bound.
    NoChannel = "no-channel",
    /// No permission for the peer.
    NoPermission = "no-permission",
    /// The peer address is refused by policy.
    PeerDenied = "peer-denied",
    /// A peer of a family that the allocation does not relay.
    PeerFamily = "peer-family",
    /// The budget of unauthenticated answers of the client's prefix is used up.
    AnswerBudget = "answer-budget",
    /// Datagrams for an allocation that relays TCP.
    RelayTransport = "relay-transport",
    /// A peer connected while the allocation had all the connections it may have.
    TooManyConnections = "too-many-connections",
    /// A peer connected while a connection to it was being made.
    ConnectionExists = "connection-exists",
    /// A request that is already being worked on.
    InProgress = "in-progress",
    /// Too many requests wait for an answer from outside.
    TooManyPending = "too-many-pending",
    /// The client's connection has ended, and it has not come back so far.
    ClientAway = "client-away",
    /// The relay socket is gone.
    RelayGone = "relay-gone",
    /// The answer did not fit the reply buffer.
    ReplyTooLong = "reply-too-long",
}

impl From<ParseError> for DropReason {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::NotStun => Self::NotStun,
            ParseError::Short | ParseError::Length | ParseError::Attribute => Self::Malformed,
            ParseError::Fingerprint => Self::WrongFingerprint,
            ParseError::Channel => Self::ReservedChannel,
        }
    }
}
