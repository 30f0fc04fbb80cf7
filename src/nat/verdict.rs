//! From facts to one word and one sentence.

use super::report::{Contact, Filtering, Finding, Mapping, Report, Unknown};

/// How a discovery ended, each with its exit code and its stable name: the one
/// table that help, JSON and the process's exit code are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// No NAT, and everything comes in.
    OpenInternet = 0,
    /// No NAT, and not everything comes in.
    Firewall = 10,
    /// Endpoint-independent mapping and filtering.
    FullCone = 11,
    /// Endpoint-independent mapping, address-dependent filtering.
    RestrictedCone = 12,
    /// Endpoint-independent mapping, address-and-port-dependent filtering.
    PortRestrictedCone = 13,
    /// Any other mapping.
    Symmetric = 14,
    /// The server answers over TCP but not over UDP.
    UdpBlocked = 20,
    /// The server does not offer what it takes.
    NotDecidable = 21,
    /// The tests contradict each other or were lost.
    Inconclusive = 22,
    /// The command line is wrong.
    Usage = 64,
    /// The server's name does not resolve.
    NoHost = 68,
    /// Nothing answers.
    Unavailable = 69,
    /// This system could not do its part.
    Local = 71,
    /// What answers does not do as a STUN server has to.
    Protocol = 76,
}

impl Outcome {
    /// All of them, by exit code.
    pub const ALL: [Self; 14] = [
        Self::OpenInternet,
        Self::Firewall,
        Self::FullCone,
        Self::RestrictedCone,
        Self::PortRestrictedCone,
        Self::Symmetric,
        Self::UdpBlocked,
        Self::NotDecidable,
        Self::Inconclusive,
        Self::Usage,
        Self::NoHost,
        Self::Unavailable,
        Self::Local,
        Self::Protocol,
    ];

    /// The exit code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The stable name for programs.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The classic name, or what stands in its place, for people.
    pub fn text(self) -> &'static str {
        self.row().1
    }

    /// One line for the help.
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::OpenInternet => ("open-internet", "open internet", "no NAT, everything comes in"),
            Self::Firewall => {
                ("firewall", "firewall, no NAT", "public address, but unasked packets are dropped")
            }
            Self::FullCone => {
                ("full-cone", "full cone", "one mapping for all, everything comes in")
            }
            Self::RestrictedCone => (
                "restricted-cone",
                "restricted cone",
                "one mapping for all, only known addresses come in",
            ),
            Self::PortRestrictedCone => (
                "port-restricted-cone",
                "port-restricted cone",
                "one mapping for all, only known addresses and ports come in",
            ),
            Self::Symmetric => ("symmetric", "symmetric", "another mapping for each destination"),
            Self::UdpBlocked => {
                ("udp-blocked", "UDP blocked", "the server answers over TCP but not over UDP")
            }
            Self::NotDecidable => (
                "not-decidable",
                "not decidable with this server",
                "the server lacks RFC 5780, so the class is open",
            ),
            Self::Inconclusive => {
                ("inconclusive", "inconclusive", "tests contradict each other or were lost")
            }
            Self::Usage => ("usage", "usage", "wrong command line"),
            Self::NoHost => ("no-host", "no such host", "the server's name does not resolve"),
            Self::Unavailable => {
                ("unavailable", "no answer", "nothing answers, neither over UDP nor over TCP")
            }
            Self::Local => {
                ("local-error", "local error", "this system has no route or cannot send")
            }
            Self::Protocol => (
                "protocol-error",
                "no usable STUN server",
                "what answers is no STUN server, refuses, or gives a false OTHER-ADDRESS",
            ),
        }
    }
}

/// The class, or why there is none.
pub fn classify(report: &Report) -> Outcome {
    match &report.contact {
        Contact::Udp => {}
        Contact::TcpOnly { .. } => return Outcome::UdpBlocked,
        Contact::Nothing => return Outcome::Unavailable,
        Contact::Interrupted => return Outcome::Inconclusive,
        Contact::Local { .. } => return Outcome::Local,
        Contact::Misbehaves(_) => return Outcome::Protocol,
    }
    if report.misrouted.is_some() {
        return Outcome::Protocol;
    }
    match (report.mapping, report.filtering) {
        (Finding::Known(mapping), _) if mapping != Mapping::EndpointIndependent => {
            Outcome::Symmetric
        }
        // Not even one mapping is stable: whatever else was seen is chance.
        (Finding::Unknown(Unknown::Unstable), _) => Outcome::Inconclusive,
        (mapping, Finding::Known(filtering)) if report.is_untranslated() == Some(true) => {
            match (mapping, filtering) {
                (_, Filtering::EndpointIndependent) => Outcome::OpenInternet,
                _ => Outcome::Firewall,
            }
        }
        (Finding::Known(_), Finding::Known(filtering)) => match filtering {
            Filtering::EndpointIndependent => Outcome::FullCone,
            Filtering::AddressDependent => Outcome::RestrictedCone,
            Filtering::AddressAndPortDependent => Outcome::PortRestrictedCone,
        },
        (mapping, filtering) => undecided(mapping.unknown(), filtering.unknown()),
    }
}

/// The server's fault if nothing but the server is in the way.
fn undecided(mapping: Option<Unknown>, filtering: Option<Unknown>) -> Outcome {
    let server_lacks = |why: Unknown| {
        matches!(why, Unknown::NoOtherAddress | Unknown::ServerRefuses | Unknown::ServerIgnores)
    };
    if mapping.into_iter().chain(filtering).all(server_lacks) {
        Outcome::NotDecidable
    } else {
        Outcome::Inconclusive
    }
}

/// One sentence on what it means for calls. `None` where nothing was learnt about
/// this host's network.
pub fn calls(report: &Report) -> Option<&'static str> {
    Some(match classify(report) {
        Outcome::OpenInternet => {
            "Direct calls work with everybody who can use UDP; no relay is needed."
        }
        Outcome::Firewall if lets_known_addresses_in(report) => {
            "Direct calls work with everybody who can use UDP, since both sides send first; \
             no relay is needed."
        }
        Outcome::FullCone | Outcome::RestrictedCone => {
            "Direct calls work with everybody who can use UDP, also behind symmetric NATs; \
             no relay is needed."
        }
        Outcome::Firewall | Outcome::PortRestrictedCone => {
            "Direct calls work with everybody but those behind symmetric NATs; with those a \
             relay (TURN) is needed."
        }
        Outcome::Symmetric => {
            "Direct calls work only with open, full-cone and restricted-cone peers; with all \
             others a relay (TURN) is needed."
        }
        Outcome::UdpBlocked => {
            "No direct calls: a relay (TURN) over TCP or TLS is needed for every call."
        }
        Outcome::NotDecidable | Outcome::Inconclusive if report.contact == Contact::Udp => {
            undecided_calls(report)
        }
        _ => return None,
    })
}

/// Whether a peer that sends from another port than it was told gets through, as
/// those behind symmetric NATs do.
fn lets_known_addresses_in(report: &Report) -> bool {
    report.filtering == Finding::Known(Filtering::AddressDependent)
}

fn undecided_calls(report: &Report) -> &'static str {
    if report.mapping == Finding::Known(Mapping::EndpointIndependent) {
        "Direct calls work at least with everybody but those behind symmetric NATs; have a \
         relay (TURN) ready for the rest."
    } else if report.is_untranslated() == Some(true) {
        "No NAT is in the way, so direct calls should work; a firewall cannot be ruled out."
    } else {
        "Whether direct calls work cannot be told; have a relay (TURN) ready."
    }
}
