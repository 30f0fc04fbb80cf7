//! What a finding is called, how bad it is, and what to do about it: one table.

use std::net::IpAddr;

use super::calendar;
use super::certificate;
use super::finding::Finding;
use super::report::Verdict;
use crate::net::Transport;

impl Finding {
    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::PortClosed(transport) => format!(
                "nothing listens there for {}: is the server running, does it listen on this \
                 address and port (sturn: [listen]; coturn: listening-ip, listening-port), or \
                 does a firewall reject it?",
                transport.name().to_uppercase()
            ),
            Self::Silent(Transport::Dtls) => "no answer at all: a server that does not speak \
                 DTLS, a firewall or security group that drops UDP to this port, a wrong \
                 address, or a server that is down"
                .to_owned(),
            Self::Silent(transport) => format!(
                "no answer at all: a firewall or security group that drops {} to this port, \
                 a wrong address, or a server that is down",
                if transport.is_stream() { "TCP" } else { "UDP" }
            ),
            Self::Rejected(transport) => format!(
                "a router or firewall on the way says that the address is not there or must not \
                 be reached (ICMP): a firewall that rejects {} to this port, a wrong address, or \
                 a server that is down",
                if transport.is_stream() { "TCP" } else { "UDP" }
            ),
            Self::Expired { ago } => format!(
                "the certificate ended {} ago: renew it, and make sure that the server loads \
                 the new one; browsers refuse it",
                calendar::span(*ago)
            ),
            Self::NotYetValid { ahead } => format!(
                "the certificate begins in {}: either it was made on a machine whose clock is \
                 ahead, or the clock here is behind",
                calendar::span(*ahead)
            ),
            Self::WrongName { host, names } => wrong_name(host, names),
            Self::UnknownIssuer { issuer, alone } => unknown_issuer(issuer, *alone),
            Self::ExpiresSoon { days } => {
                format!("the certificate ends in {days} days: see that its renewal works")
            }
            Self::PasswordRefused { realm: Some(realm) } => format!(
                "wrong user or password. The realm is \"{realm}\": stored keys (not passwords) \
                 only fit the realm they were made for"
            ),
            Self::SecretRefused { clock } => format!(
                "the server computes another password: another secret than here, or none. \
                 The clock here says {}; where the server's is hours ahead, a fresh credential \
                 has already ended there",
                calendar::text(*clock)
            ),
            Self::UsernameExpired { ago } => format!(
                "the user name is time-limited and ended {} ago by this machine's clock: issue \
                 a new one (sturn credentials), or set the clock",
                calendar::span(*ago)
            ),
            Self::UnknownAttribute(attributes) => format!(
                "the server does not know a required attribute ({}): an old server, or one that \
                 leaves the feature out",
                attributes.iter().map(|a| format!("{a:#06x}")).collect::<Vec<_>>().join(", ")
            ),
            Self::PrivateRelayedAddress { relayed, server } => format!(
                "peers cannot reach {relayed}. The server is behind 1:1 NAT and does not know: \
                 set the public address, {server} if it is the same (sturn: relay.addresses = \
                 [{{ address = \"{relayed}\", advertise = \"{server}\" }}]; coturn: \
                 external-ip={server}/{relayed})"
            ),
            Self::RefusedOtherwise(code) => {
                format!("the server's log should say why it answers {code}")
            }
            fixed => fixed.row().2.to_owned(),
        }
    }

    /// Name, verdict and, where it needs no details, hint.
    #[expect(clippy::too_many_lines, reason = "a table")]
    pub(super) fn row(&self) -> (&'static str, Verdict, &'static str) {
        use Verdict::{Fail, Skipped, Warn};
        match self {
            Self::NameNotFound => (
                "name-not-found",
                Fail,
                "check the spelling; if the name is new, its records may not be everywhere \
                 yet",
            ),
            Self::OtherFamily => (
                "other-family",
                Fail,
                "leave -4 or -6 out, or give the name a record of that family",
            ),
            Self::DnsUnanswered => (
                "dns-unanswered",
                Fail,
                "the name server gives no answer: check this machine's DNS, or name another \
                 with --dns",
            ),
            Self::PortClosed(_) => ("port-closed", Fail, ""),
            Self::Silent(_) => ("silent", Fail, ""),
            Self::Rejected(_) => ("rejected", Fail, ""),
            Self::NoRoute => ("no-route", Skipped, "this machine has no route to that address"),
            Self::SocketError => (
                "socket-error",
                Fail,
                "this is about the machine that probes, not about the server",
            ),
            Self::Closed => (
                "closed",
                Fail,
                "the server hangs up without an answer: another protocol, a proxy in front \
                 of it, or a limit on connections",
            ),
            Self::OutOfTime => (
                "out-of-time",
                Fail,
                "the time for the whole probe is over: give it more with --timeout, or \
                 probe one transport",
            ),
            Self::TlsOnPlainPort => (
                "tls-on-plain-port",
                Fail,
                "this port speaks TLS: use turns: (stuns:), or the port for plain TCP",
            ),
            Self::PlainOnTlsPort => (
                "plain-on-tls-port",
                Fail,
                "this port speaks plain STUN, not TLS: use turn: with the same ?transport= \
                 (?transport=tcp for TLS), or set up TLS for it",
            ),
            Self::Http => (
                "http",
                Fail,
                "a web server answers on this port: a wrong port, or a proxy that does not \
                 hand STUN on",
            ),
            Self::NotStun => ("not-stun", Fail, "something else than STUN answers on this port"),
            Self::UnusableAnswer => (
                "unusable-answer",
                Fail,
                "the answer is STUN, but not as the standard has it: a defect of the server, or \
                 something on the way that changes it",
            ),
            Self::Expired { .. } => ("certificate-expired", Fail, ""),
            Self::NotYetValid { .. } => ("certificate-not-yet-valid", Fail, ""),
            Self::WrongName { .. } => ("certificate-wrong-name", Fail, ""),
            Self::SelfSigned => (
                "certificate-self-signed",
                Fail,
                "the certificate is signed by itself: browsers refuse it and there is no \
                 button to accept it for TURN; use one of a public authority, or --ca FILE \
                 if your clients trust this one",
            ),
            Self::UnknownIssuer { .. } => ("certificate-unknown-issuer", Fail, ""),
            Self::BadCertificate => {
                ("certificate-bad", Fail, "the certificate cannot be used for TLS servers as it is")
            }
            Self::HandshakeFailed => (
                "tls-handshake-failed",
                Fail,
                "the server does not complete a TLS 1.2 or 1.3 handshake; its log should \
                 say why",
            ),
            Self::AlpnRefused => (
                "alpn-refused",
                Warn,
                "the server hangs up on ALPN stun.turn (RFC 7443); without ALPN, as \
                 browsers do it, TLS works",
            ),
            Self::ExpiresSoon { .. } => ("certificate-expires-soon", Warn, ""),
            Self::OpenRelay => (
                "open-relay",
                Fail,
                "ANYBODY can relay through this server without credentials, also into its \
                 own network. Set up users or a secret now (coturn: lt-cred-mech with user= \
                 or use-auth-secret; sturn: [auth])",
            ),
            Self::NoChallenge => (
                "no-challenge",
                Fail,
                "a 401 without REALM and NONCE cannot be answered: the server does not \
                 follow RFC 8489 section 9.2",
            ),
            Self::StunOnly => (
                "stun-only",
                Fail,
                "it answers STUN but no TURN: a STUN server, or TURN is turned off (sturn: \
                 auth.mode; coturn: stun-only); for STUN alone probe stun:",
            ),
            Self::NoCredentials => (
                "no-credentials",
                Warn,
                "the relay was not tried: give --user with --password or --secret",
            ),
            Self::PasswordRefused { .. } => ("credentials-refused", Fail, "wrong user or password"),
            Self::SecretRefused { .. } => ("secret-refused", Fail, ""),
            Self::UsernameExpired { .. } => ("username-expired", Fail, ""),
            Self::WrongUser => ("wrong-user", Fail, "the allocation belongs to another user"),
            Self::StaleNonce => (
                "stale-nonce",
                Fail,
                "each nonce is refused as soon as it is given: servers behind a load \
                 balancer without a common nonce key, or a clock that jumps",
            ),
            Self::BadIntegrity => (
                "bad-integrity",
                Fail,
                "the server's answers are signed with another key, or something on the way \
                 changes them",
            ),
            Self::Forbidden => {
                ("forbidden", Fail, "this user or address may not have an allocation")
            }
            Self::UnknownAttribute(_) => ("unknown-attribute", Fail, ""),
            Self::Mismatch => (
                "allocation-mismatch",
                Fail,
                "437: the server has another idea of this five-tuple's allocation: a reused \
                 port whose old allocation lives on, or a NAT or load balancer that changed \
                 the way",
            ),
            Self::FamilyRefused => (
                "family-refused",
                Fail,
                "the server does not relay in this address family: it has no relay address \
                 of it",
            ),
            Self::TransportRefused => (
                "transport-refused",
                Fail,
                "442: the server does not relay UDP, which every WebRTC client needs",
            ),
            Self::Quota => (
                "quota",
                Fail,
                "486: this user's quota is used up: allocations of sessions that ended hard \
                 last up to their lifetime (sturn: limits.allocations-per-user; coturn: \
                 user-quota, total-quota)",
            ),
            Self::NoPort => (
                "no-port",
                Fail,
                "508: no relay port or no capacity is left: widen the range or wait (sturn: \
                 relay.ports, limits.allocations; coturn: min-port, max-port)",
            ),
            Self::ServerError => {
                ("server-error", Fail, "the server failed; its log should say why")
            }
            Self::RefusedOtherwise(_) => ("refused", Fail, ""),
            Self::Redirected => (
                "redirected",
                Warn,
                "300: the server sends its clients elsewhere; browsers follow, other \
                 clients may not",
            ),
            Self::RedirectedAgain => (
                "redirected-again",
                Fail,
                "the server that this one names sends its clients on again: that is not \
                 followed further",
            ),
            Self::RedirectedNowhere => (
                "redirected-nowhere",
                Fail,
                "300: the server sends its clients to an address where they cannot reach any \
                 server (coturn: alternate-server)",
            ),
            Self::PrivateRelayedAddress { .. } => ("private-relayed-address", Fail, ""),
            Self::SecondRefused => (
                "second-allocation-refused",
                Warn,
                "a second allocation of the same user is refused: a browser makes several, \
                 and the relay can only be tried with a peer on this machine",
            ),
            Self::OwnRelayRefused => (
                "own-relay-refused",
                Warn,
                "the server refuses its own relayed addresses as peers: two clients that \
                 both use this server will not reach each other (sturn: [peers]; coturn: \
                 allowed-peer-ip)",
            ),
            Self::PeerRefused => (
                "peer-refused",
                Warn,
                "the server refuses this machine's public address as a peer; so will it \
                 refuse others (sturn: sturn explain ADDRESS; coturn: denied-peer-ip)",
            ),
            Self::Untested => (
                "relay-untested",
                Warn,
                "no data was relayed: the server refuses its own relayed addresses as \
                 peers, and the address of this machine is private, which servers refuse \
                 for good reason. Probe from another network",
            ),
            Self::PeersRefused => (
                "peers-refused",
                Fail,
                "the server denies its own relayed address and this machine's as peers, so \
                 nothing can be relayed for a test; its peer rules are too strict (sturn: \
                 [peers]; coturn: denied-peer-ip)",
            ),
            Self::NoData => (
                "no-data",
                Fail,
                "the allocation exists, but no data comes through: the relay ports are \
                 closed (open the whole range for UDP in firewall and security group; \
                 sturn: relay.ports, coturn: min-port to max-port), or something on the way \
                 drops what is not a STUN request",
            ),
            Self::ClosedToOutside => (
                "relay-ports-closed",
                Warn,
                "between two relayed addresses data passes, but none that this machine \
                 sends to the relayed address by UDP: the range of relay ports is closed in \
                 the server's firewall, or UDP is blocked here",
            ),
            Self::NoHairpin => (
                "no-hairpin",
                Warn,
                "data from this machine passes, but not from one relayed address to \
                 another: two clients that both use this server will not reach each other \
                 (1:1 NAT that does not turn packets back; sturn: advertise, coturn: \
                 external-ip)",
            ),
            Self::Loss => {
                ("loss", Warn, "packets are lost on the way; over UDP that may be this network")
            }
            Self::NotReleased => (
                "not-released",
                Warn,
                "the allocation goes on after a Refresh with lifetime zero: ports and quota \
                 stay taken until it ends",
            ),
        }
    }
}

fn wrong_name(host: &str, names: &[String]) -> String {
    let list = if names.is_empty() { "no name at all".into() } else { certificate::list(names) };
    let ip = host.parse::<IpAddr>().is_ok();
    let advice = if ip {
        "write one of its names instead of the address into the URI"
    } else {
        "use one of these names, or a certificate that has this one as subjectAltName"
    };
    format!("the certificate is for {list}, not for {host}: {advice}; browsers refuse it")
}

fn unknown_issuer(issuer: &str, alone: bool) -> String {
    let sent = if alone {
        "The server sends no intermediate certificate: it should send the whole chain \
         (fullchain.pem, not cert.pem)"
    } else {
        "If this is a private authority, give its certificate with --ca"
    };
    format!("this machine does not know the issuer \"{issuer}\". {sent}; browsers refuse it")
}
