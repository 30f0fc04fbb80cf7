//! What a discovery has found, in the terms of RFC 4787.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::advertised::Lie;

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The server that was asked.
    pub server: SocketAddr,
    /// A second server that was asked for a mapping.
    pub second: Option<SocketAddr>,
    /// How the server was reached, or why not.
    pub contact: Contact,
    /// SOFTWARE of the server.
    pub software: Option<String>,
    /// OTHER-ADDRESS of the server: its alternate address and port.
    pub other_address: Option<SocketAddr>,
    /// RESPONSE-ORIGIN of the server. Behind a 1:1 NAT it differs from `server`.
    pub response_origin: Option<SocketAddr>,
    /// The local transport address of the first UDP socket.
    pub local: Option<SocketAddr>,
    /// The same socket's server-reflexive transport address.
    pub mapped: Option<SocketAddr>,
    /// Mapping behaviour for UDP (RFC 4787 section 4.1).
    pub mapping: Finding<Mapping>,
    /// Filtering behaviour for UDP (RFC 4787 section 5).
    pub filtering: Finding<Filtering>,
    /// Whether ports are preserved (RFC 4787 section 4.2).
    pub ports: Finding<Ports>,
    /// Which external addresses one internal address gets (RFC 4787 section 4.1).
    pub pooling: Finding<Pooling>,
    /// Hairpinning (RFC 4787 section 6).
    pub hairpin: Finding<Hairpin>,
    /// Whether fragmented datagrams reach the server (RFC 4787 section 10).
    pub request_fragments: Finding<Fragments>,
    /// Whether fragmented datagrams reach this host.
    pub response_fragments: Finding<Fragments>,
    /// Mapping behaviour for TCP (RFC 5382 section 4.1).
    pub tcp_mapping: Finding<Mapping>,
    /// How long an idle UDP mapping lives (RFC 4787 section 4.3).
    pub lifetime: Finding<Lifetime>,
    /// The server broke the protocol of the filtering test.
    pub misrouted: Option<Misrouted>,
}

impl Report {
    pub(super) fn new(server: SocketAddr, second: Option<SocketAddr>) -> Self {
        Self {
            server,
            second,
            contact: Contact::Nothing,
            software: None,
            other_address: None,
            response_origin: None,
            local: None,
            mapped: None,
            mapping: Finding::not_tested(),
            filtering: Finding::not_tested(),
            ports: Finding::not_tested(),
            pooling: Finding::not_tested(),
            hairpin: Finding::not_tested(),
            request_fragments: Finding::not_tested(),
            response_fragments: Finding::not_tested(),
            tcp_mapping: Finding::not_tested(),
            lifetime: Finding::not_tested(),
            misrouted: None,
        }
    }

    /// Whether the address that the server saw is this host's own; `None` if it
    /// saw none.
    pub fn is_untranslated(&self) -> Option<bool> {
        let (local, mapped) = (self.local?, self.mapped?);
        Some((local.ip(), local.port()) == (mapped.ip(), mapped.port()))
    }
}

/// A fact, or why it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding<T> {
    /// The fact.
    Known(T),
    /// The reason.
    Unknown(Unknown),
}

impl<T> Finding<T> {
    pub(super) fn not_tested() -> Self {
        Self::Unknown(Unknown::NotTested)
    }

    /// The fact.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(fact) => Some(fact),
            Self::Unknown(_) => None,
        }
    }

    /// The reason why it is not known.
    pub fn unknown(&self) -> Option<Unknown> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(why) => Some(*why),
        }
    }
}

/// Gives each variant of an enum its stable name and its text for people.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $stable:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name for programs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $stable,)* }
            }

            /// The text for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

named! {
    /// Why something is not known.
    Unknown {
        /// The discovery did not get there or was not asked to.
        NotTested = "not-tested", "not tested";
        /// The address is not translated, so there is nothing to find.
        NoNat = "no-nat", "no NAT";
        /// The server has one address only.
        NoOtherAddress = "no-other-address", "the server has no second address";
        /// The server's alternate address answers nobody.
        AlternateSilent = "alternate-silent", "the server's second address is silent";
        /// The server answered with an error.
        ServerRefuses = "server-refuses", "the server refuses the test";
        /// The server did as if it had not been asked.
        ServerIgnores = "server-ignores", "the server ignores what the test asks for";
        /// The server does not accept TCP connections.
        NoTcp = "no-tcp", "the server takes no TCP";
        /// The server closed the first connection before others could share its port.
        ConnectionClosed = "connection-closed", "the server closes connections at once";
        /// Too few answers came to tell silence from loss.
        Lost = "lost", "too many packets were lost";
        /// The mapping of one socket changed under way.
        Unstable = "unstable", "the mapping changed during the test";
        /// Sockets get different external addresses, so that one cannot ask for another.
        DifferentAddresses = "different-addresses", "sockets get different external addresses";
        /// The system would not send or bind.
        Local = "local-error", "this system would not send";
        /// The bound on the whole run was reached.
        OutOfTime = "out-of-time", "no time left";
    }
}

named! {
    /// What decides on the external port that a packet leaves from.
    Mapping {
        /// One for all destinations.
        EndpointIndependent = "endpoint-independent", "endpoint-independent";
        /// One for each destination address.
        AddressDependent = "address-dependent", "address-dependent";
        /// One for each destination address and port.
        AddressAndPortDependent = "address-and-port-dependent", "address-and-port-dependent";
        /// One of the two above; which one could not be told.
        Dependent = "dependent", "dependent on the destination";
    }
}

named! {
    /// Whose packets come in through a mapping.
    Filtering {
        /// Everybody's.
        EndpointIndependent = "endpoint-independent", "endpoint-independent";
        /// Those of addresses that were sent to.
        AddressDependent = "address-dependent", "address-dependent";
        /// Those of addresses and ports that were sent to.
        AddressAndPortDependent = "address-and-port-dependent", "address-and-port-dependent";
    }
}

named! {
    /// Whether two sockets behind the NAT reach each other at their mapped addresses.
    Hairpin {
        /// They do and see each other's mapped address (RFC 4787 REQ-9).
        External = "external", "yes";
        /// They do and see each other's internal address.
        Internal = "internal", "yes, with internal source address";
        /// They do not.
        No = "no", "no";
    }
}

named! {
    /// What happens to a datagram that does not fit one packet.
    Fragments {
        /// It arrives.
        Pass = "pass", "pass";
        /// It does not arrive.
        Drop = "drop", "dropped";
    }
}

named! {
    /// Which external addresses the sockets of one host get.
    Pooling {
        /// All the same.
        Paired = "paired", "paired";
        /// Different ones.
        Arbitrary = "arbitrary", "arbitrary";
    }
}

/// What became of the ports of several sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Sockets whose mapped address was learnt.
    pub sockets: u32,
    /// Those whose external port is their internal port.
    pub preserved: u32,
    /// Those whose external port is even where the internal port is, and odd where
    /// that is odd.
    pub parity_preserved: u32,
}

/// Bounds of the lifetime of an idle mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// A mapping was alive after this.
    pub at_least: Duration,
    /// A mapping was gone after this; `None` if all were alive.
    pub less_than: Option<Duration>,
}

/// How the server was reached, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It answered over UDP.
    Udp,
    /// It answered over TCP only.
    TcpOnly {
        /// The port it answered at.
        port: u16,
    },
    /// Nothing answered.
    Nothing,
    /// Nobody waited for an answer.
    Interrupted,
    /// This system could not send.
    Local {
        /// What it said.
        why: String,
    },
    /// Something answered, and not as a STUN server does.
    Misbehaves(Misbehaviour),
}

/// What a server does that none should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Bytes of no use.
    Garbage {
        /// What they are.
        what: String,
    },
    /// An error response to a plain Binding request.
    Error {
        /// ERROR-CODE.
        code: u16,
        /// The reason phrase.
        reason: String,
    },
    /// The answer came from elsewhere.
    AnswersFrom {
        /// From there.
        from: SocketAddr,
    },
    /// OTHER-ADDRESS cannot be true.
    Lies(Lie),
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage { what } => write!(f, "it answers with {what}"),
            Self::Error { code: 401, .. } => f.write_str(
                "it wants credentials even for a Binding request (401), so it is of no use here",
            ),
            Self::Error { code, reason } if reason.is_empty() => {
                write!(f, "it answers a plain Binding request with error {code}")
            }
            Self::Error { code, reason } => {
                write!(f, "it answers a plain Binding request with error {code} ({reason})")
            }
            Self::AnswersFrom { from } => {
                write!(f, "its answers come from {from}, where nobody was asked")
            }
            Self::Lies(lie) => lie.fmt(f),
        }
    }
}

/// An answer to CHANGE-REQUEST came from the wrong address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misrouted {
    /// Where the answer was to come from.
    pub expected: SocketAddr,
    /// Where it came from.
    pub from: SocketAddr,
}

impl fmt::Display for Misrouted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, from } = self;
        write!(f, "asked to answer from {expected}, it answers from {from}")
    }
}

/// Whether nobody else on the Internet can have this address.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64; // RFC 6598
            ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
