//! What can go wrong, in a line for the person who ran it: what happened, and what to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::super::screen::printable;
use crate::client::{Failure, Problem};
use crate::daemon::Exit;
use crate::stun::Method;

/// Why there is no load, or no more.
#[derive(Debug)]
pub(super) enum Trouble {
    /// An error response.
    Refused(Failure),
    /// No answer to a request, or no connection.
    Silent {
        /// What was waited for: `Allocate`, `a TLS handshake`.
        what: &'static str,
        server: SocketAddr,
    },
    /// An answer that cannot be used.
    Unusable(Problem),
    /// A connection failed.
    Connection { server: SocketAddr, why: io::Error },
    /// The server has closed a connection.
    Closed(SocketAddr),
    /// TLS or DTLS said no.
    Secure(String),
    /// This host said no.
    System { what: &'static str, why: io::Error },
    /// The peers' address is none of this host.
    PeerAddress { address: std::net::IpAddr, why: io::Error },
    /// Every request was refused.
    AllRefused { method: Method, code: u16 },
    /// Nothing of what was sent has arrived.
    NothingArrived { way: &'static str, sent: u64 },
}

impl Trouble {
    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Refused(failure) if is_about_credentials(failure.code) => Exit::NoPermission,
            Self::System { .. } => Exit::OsError,
            Self::PeerAddress { .. } => Exit::Usage,
            _ => Exit::Unavailable,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(failure) => {
                let Failure { method, code, reason, .. } = failure;
                refused(Method(*method), *code, &printable(reason), f)
            }
            Self::AllRefused { method, code } => refused(*method, *code, "each time", f),
            Self::Silent { what, server } => {
                write!(
                    f,
                    "no answer to {what} from {server}: is the server there, and does a firewall let it through?"
                )
            }
            Self::Unusable(why) => write!(f, "an answer of no use: {why}"),
            Self::Connection { server, why } if why.kind() == io::ErrorKind::ConnectionRefused => {
                write!(f, "nothing listens at {server} on TCP")
            }
            Self::Connection { server, why } => write!(f, "connection to {server}: {why}"),
            Self::Closed(server) => write!(
                f,
                "{server} has closed a connection: see its log; it may limit connections of one address"
            ),
            Self::Secure(why) => {
                write!(
                    f,
                    "no secure connection: {why} (--ca trusts an authority, --insecure anybody)"
                )
            }
            Self::System { what, why } => write!(f, "{what}: {why}"),
            Self::PeerAddress { address, why } => {
                write!(f, "--peer-address {address}: {why}: it has to be an address of this host")
            }
            Self::NothingArrived { way, sent } => write!(
                f,
                "nothing arrived {way}, of {sent} packets: can the relayed address and the peer's \
                 reach each other (--peer-address)? Is the peer's port one of the server's relay ports?"
            ),
        }
    }
}

fn refused(method: Method, code: u16, reason: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{} is refused: {code}", method.name())?;
    if !reason.is_empty() {
        write!(f, " {reason}")?;
    }
    match hint(method, code) {
        Some(hint) => write!(f, ": {hint}"),
        None => Ok(()),
    }
}

fn hint(method: Method, code: u16) -> Option<&'static str> {
    let peer = matches!(method, Method::CREATE_PERMISSION | Method::CHANNEL_BIND);
    Some(match code {
        300 => "it sends clients to another server; ask that one",
        401 => "wrong user, password or secret, or none given",
        403 if peer => {
            "allow the peer's address in the server (sturn: peers.allow; coturn: allowed-peer-ip, \
             allow-loopback-peers), choose another with --peer-address, or use --relay-to-relay"
        }
        437 => "an allocation of an earlier run still lives at this address; wait or restart",
        438 => "each nonce is stale at once: is there a balancer in front of several servers?",
        440 | 443 => "the relay has no address of the family of --peer-address",
        441 => "the allocation belongs to another user",
        486 => {
            "the user's quota; raise it, ask for fewer --allocations, or with --secret spread \
             them over several --users"
        }
        508 => {
            "no relay ports or memory left; raise the server's limit or ask for fewer --allocations"
        }
        _ => return None,
    })
}

/// Whether another attempt ends in the same way.
pub(super) fn is_about_credentials(code: u16) -> bool {
    matches!(code, 401 | 438 | 441)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let mut client = crate::client::Client::new(crate::client::Config::new(
            crate::net::Transport::Udp,
            "",
            "",
            [0; 32],
        ));
        let now =
            crate::net::Now { mono: std::time::Instant::now(), unix: std::time::Duration::ZERO };
        let transaction = client.binding(now);
        let said = |method: Method, code, reason: &str| {
            Trouble::Refused(Failure {
                transaction,
                method: method.0,
                code,
                reason: reason.to_owned(),
                unknown_attributes: Vec::new(),
                alternate_server: None,
            })
            .to_string()
        };
        let peer = said(Method::CHANNEL_BIND, 403, "Forbidden");
        assert!(
            peer.starts_with("ChannelBind is refused: 403 Forbidden: allow the peer"),
            "{peer}"
        );
        assert_eq!(said(Method::ALLOCATE, 403, "No"), "Allocate is refused: 403 No");
        assert!(said(Method::ALLOCATE, 486, "Quota").contains("--users"));
        assert!(!said(Method::ALLOCATE, 401, "\x1b[31m").contains('\x1b'));
    }
}
