//! What a probe can find, and what it tells the person: one table from finding
//! to name, exit code and hint. Nothing here does IO.

use std::net::IpAddr;

use super::calendar;
use super::outcome::Outcome;
use super::report::Verdict;
use crate::net::Transport;
use crate::turn::policy::{Access, OwnAddresses, Policy};

/// Something that is worth a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    // Names.
    NameNotFound,
    OtherFamily,
    DnsUnanswered,
    // Ways to the server.
    PortClosed(Transport),
    Silent(Transport),
    NoRoute,
    SocketError,
    Closed,
    DtlsNotProbed,
    OutOfTime,
    // Who is behind the port.
    TlsOnPlainPort,
    PlainOnTlsPort,
    Http,
    NotStun,
    // TLS.
    Expired { ago: u64 },
    NotYetValid { ahead: u64 },
    WrongName { host: String, names: Vec<String> },
    SelfSigned,
    UnknownIssuer { issuer: String, alone: bool },
    BadCertificate,
    HandshakeFailed,
    AlpnRefused,
    ExpiresSoon { days: u64 },
    // Who may use it.
    OpenRelay,
    NoChallenge,
    StunOnly,
    NoCredentials,
    PasswordRefused { realm: Option<String> },
    SecretRefused { clock: u64 },
    UsernameExpired { ago: u64 },
    WrongUser,
    StaleNonce,
    BadIntegrity,
    // What the server refuses.
    Forbidden,
    UnknownAttribute(Vec<u16>),
    Mismatch,
    FamilyRefused,
    TransportRefused,
    Quota,
    NoPort,
    ServerError,
    RefusedOtherwise(u16),
    Redirected,
    RedirectedAgain,
    // The relay.
    PrivateRelayedAddress { relayed: IpAddr, server: IpAddr },
    SecondRefused,
    OwnRelayRefused,
    PeerRefused,
    PeersRefused,
    Untested,
    NoData,
    ClosedToOutside,
    NoHairpin,
    Loss,
    NotReleased,
}

impl Finding {
    /// What an error response to a TURN request means. 401 is judged by the caller,
    /// who knows the credentials, and 300 is followed.
    pub(super) fn of_code(code: u16, unknown: &[u16]) -> Self {
        match code {
            300 => Self::RedirectedAgain,
            403 => Self::Forbidden,
            420 => Self::UnknownAttribute(unknown.to_vec()),
            437 => Self::Mismatch,
            438 => Self::StaleNonce,
            440 | 443 => Self::FamilyRefused,
            441 => Self::WrongUser,
            442 => Self::TransportRefused,
            486 => Self::Quota,
            508 => Self::NoPort,
            500..600 => Self::ServerError,
            other => Self::RefusedOtherwise(other),
        }
    }

    /// What a 401 to a signed request means: `expires` is the time in the user name,
    /// `now` this machine's clock, both in seconds since the Unix epoch.
    pub(super) fn of_refused_credentials(
        expires: Option<u64>,
        from_secret: bool,
        now: u64,
        realm: Option<&str>,
    ) -> Self {
        match expires {
            Some(expires) if expires <= now => Self::UsernameExpired { ago: now - expires },
            _ if from_secret => Self::SecretRefused { clock: now },
            _ => Self::PasswordRefused { realm: realm.map(str::to_owned) },
        }
    }

    /// A relayed address that peers elsewhere cannot reach, given by a server that
    /// itself was reached at a public one.
    pub(super) fn of_relayed_address(relayed: IpAddr, server: IpAddr) -> Option<Self> {
        (is_special(relayed) && !is_special(server))
            .then_some(Self::PrivateRelayedAddress { relayed, server })
    }

    /// The name for scripts.
    pub(super) fn name(&self) -> &'static str {
        self.row().0
    }

    /// How bad it is.
    pub(super) fn verdict(&self) -> Verdict {
        self.row().1
    }

    /// Which exit code it leads to if it is what decides.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            _ if self.verdict() != Verdict::Fail => Outcome::Warnings,
            Self::NameNotFound | Self::OtherFamily | Self::DnsUnanswered => Outcome::NoName,
            Self::PortClosed(_) | Self::Silent(_) | Self::SocketError | Self::OutOfTime => {
                Outcome::Unreachable
            }
            Self::TlsOnPlainPort
            | Self::PlainOnTlsPort
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::WrongName { .. }
            | Self::SelfSigned
            | Self::UnknownIssuer { .. }
            | Self::BadCertificate
            | Self::HandshakeFailed => Outcome::Tls,
            Self::PasswordRefused { .. }
            | Self::SecretRefused { .. }
            | Self::UsernameExpired { .. }
            | Self::WrongUser => Outcome::Credentials,
            Self::PrivateRelayedAddress { .. } | Self::NoData | Self::PeersRefused => {
                Outcome::Relay
            }
            Self::Closed
            | Self::Http
            | Self::NotStun
            | Self::OpenRelay
            | Self::NoChallenge
            | Self::StaleNonce
            | Self::BadIntegrity => Outcome::Protocol,
            _ => Outcome::Refused,
        }
    }

    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::PortClosed(transport) => format!(
                "nothing listens there for {}: is the server running, does it listen on this \
                 address and port (sturn: [listen]; coturn: listening-ip, listening-port), or \
                 does a firewall reject it?",
                transport.name().to_uppercase()
            ),
            Self::Silent(transport) => format!(
                "no answer at all: a firewall or security group that drops {} to this port, \
                 a wrong address, or a server that is down",
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
    fn row(&self) -> (&'static str, Verdict, &'static str) {
        use Verdict::{Fail, Skipped, Warn};
        match self {
            Self::NameNotFound => (
                "name-not-found",
                Fail,
                "check the spelling; if the name is new, its records may not be everywhere yet",
            ),
            Self::OtherFamily => (
                "other-family",
                Fail,
                "leave -4 or -6 out, or give the name a record of that family",
            ),
            Self::DnsUnanswered => (
                "dns-unanswered",
                Fail,
                "the name server gives no answer: check this machine's DNS, or name another with --dns",
            ),
            Self::PortClosed(_) => ("port-closed", Fail, ""),
            Self::Silent(_) => ("silent", Fail, ""),
            Self::NoRoute => ("no-route", Skipped, "this machine has no route to that address"),
            Self::SocketError => (
                "socket-error",
                Fail,
                "this is about the machine that probes, not about the server",
            ),
            Self::Closed => (
                "closed",
                Fail,
                "the server hangs up without an answer: another protocol, a proxy in front of it, or a limit on connections",
            ),
            Self::DtlsNotProbed => (
                "dtls-not-probed",
                Skipped,
                "DTLS is not probed yet; browsers reach a turns: server over TLS",
            ),
            Self::OutOfTime => (
                "out-of-time",
                Fail,
                "the time for the whole probe is over: give it more with --timeout, or probe one transport",
            ),
            Self::TlsOnPlainPort => (
                "tls-on-plain-port",
                Fail,
                "this port speaks TLS: use turns: (stuns:), or the port for plain TCP",
            ),
            Self::PlainOnTlsPort => (
                "plain-on-tls-port",
                Fail,
                "this port speaks plain STUN, not TLS: use turn:...?transport=tcp, or set up TLS for it",
            ),
            Self::Http => (
                "http",
                Fail,
                "a web server answers on this port: a wrong port, or a proxy that does not hand STUN on",
            ),
            Self::NotStun => ("not-stun", Fail, "something else than STUN answers on this port"),
            Self::Expired { .. } => ("certificate-expired", Fail, ""),
            Self::NotYetValid { .. } => ("certificate-not-yet-valid", Fail, ""),
            Self::WrongName { .. } => ("certificate-wrong-name", Fail, ""),
            Self::SelfSigned => (
                "certificate-self-signed",
                Fail,
                "the certificate is signed by itself: browsers refuse it and there is no button to accept it for TURN; use one of a public authority, or --ca FILE if your clients trust this one",
            ),
            Self::UnknownIssuer { .. } => ("certificate-unknown-issuer", Fail, ""),
            Self::BadCertificate => {
                ("certificate-bad", Fail, "the certificate cannot be used for TLS servers as it is")
            }
            Self::HandshakeFailed => (
                "tls-handshake-failed",
                Fail,
                "the server does not complete a TLS 1.2 or 1.3 handshake; its log should say why",
            ),
            Self::AlpnRefused => (
                "alpn-refused",
                Warn,
                "the server hangs up on ALPN stun.turn (RFC 7443); without ALPN, as browsers do it, TLS works",
            ),
            Self::ExpiresSoon { .. } => ("certificate-expires-soon", Warn, ""),
            Self::OpenRelay => (
                "open-relay",
                Fail,
                "ANYBODY can relay through this server without credentials, also into its own network. Set up users or a secret now (coturn: lt-cred-mech with user= or use-auth-secret; sturn: [auth])",
            ),
            Self::NoChallenge => (
                "no-challenge",
                Fail,
                "a 401 without REALM and NONCE cannot be answered: the server does not follow RFC 8489 section 9.2",
            ),
            Self::StunOnly => (
                "stun-only",
                Fail,
                "it answers STUN but no TURN: a STUN server, or TURN is turned off (sturn: auth.mode; coturn: stun-only); for STUN alone probe stun:",
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
                "each nonce is refused as soon as it is given: servers behind a load balancer without a common nonce key, or a clock that jumps",
            ),
            Self::BadIntegrity => (
                "bad-integrity",
                Fail,
                "the server's answers are signed with another key, or something on the way changes them",
            ),
            Self::Forbidden => {
                ("forbidden", Fail, "this user or address may not have an allocation")
            }
            Self::UnknownAttribute(_) => ("unknown-attribute", Fail, ""),
            Self::Mismatch => (
                "allocation-mismatch",
                Fail,
                "437: the server has another idea of this five-tuple's allocation: a reused port whose old allocation lives on, or a NAT or load balancer that changed the way",
            ),
            Self::FamilyRefused => (
                "family-refused",
                Fail,
                "the server does not relay in this address family: it has no relay address of it",
            ),
            Self::TransportRefused => (
                "transport-refused",
                Fail,
                "442: the server does not relay UDP, which every WebRTC client needs",
            ),
            Self::Quota => (
                "quota",
                Fail,
                "486: this user's quota is used up: allocations of sessions that ended hard last up to their lifetime (sturn: limits.allocations-per-user; coturn: user-quota, total-quota)",
            ),
            Self::NoPort => (
                "no-port",
                Fail,
                "508: no relay port or no capacity is left: widen the range or wait (sturn: relay.ports, limits.allocations; coturn: min-port, max-port)",
            ),
            Self::ServerError => {
                ("server-error", Fail, "the server failed; its log should say why")
            }
            Self::RefusedOtherwise(_) => ("refused", Fail, ""),
            Self::Redirected => (
                "redirected",
                Warn,
                "300: the server sends its clients elsewhere; browsers follow, other clients may not",
            ),
            Self::RedirectedAgain => (
                "redirected-again",
                Fail,
                "the server that this one names sends its clients on again: that is not followed further",
            ),
            Self::PrivateRelayedAddress { .. } => ("private-relayed-address", Fail, ""),
            Self::SecondRefused => (
                "second-allocation-refused",
                Warn,
                "a second allocation of the same user is refused: a browser makes several, and the relay can only be tried with a peer on this machine",
            ),
            Self::OwnRelayRefused => (
                "own-relay-refused",
                Warn,
                "the server refuses its own relayed addresses as peers: two clients that both use this server will not reach each other (sturn: [peers]; coturn: allowed-peer-ip)",
            ),
            Self::PeerRefused => (
                "peer-refused",
                Warn,
                "the server refuses this machine's public address as a peer; so will it refuse others (sturn: sturn explain ADDRESS; coturn: denied-peer-ip)",
            ),
            Self::Untested => (
                "relay-untested",
                Warn,
                "no data was relayed: the server refuses its own relayed addresses as peers, and the address of this machine is private, which servers refuse for good reason. Probe from another network",
            ),
            Self::PeersRefused => (
                "peers-refused",
                Fail,
                "the server denies its own relayed address and this machine's as peers, so nothing can be relayed for a test; its peer rules are too strict (sturn: [peers]; coturn: denied-peer-ip)",
            ),
            Self::NoData => (
                "no-data",
                Fail,
                "the allocation exists, but no data comes through: the relay ports are closed (open the whole range for UDP in firewall and security group; sturn: relay.ports, coturn: min-port to max-port), or something on the way drops what is not a STUN request",
            ),
            Self::ClosedToOutside => (
                "relay-ports-closed",
                Warn,
                "between two relayed addresses data passes, but none that this machine sends to the relayed address by UDP: the range of relay ports is closed in the server's firewall, or UDP is blocked here",
            ),
            Self::NoHairpin => (
                "no-hairpin",
                Warn,
                "data from this machine passes, but not from one relayed address to another: two clients that both use this server will not reach each other (1:1 NAT that does not turn packets back; sturn: advertise, coturn: external-ip)",
            ),
            Self::Loss => {
                ("loss", Warn, "packets are lost on the way; over UDP that may be this network")
            }
            Self::NotReleased => (
                "not-released",
                Warn,
                "the allocation goes on after a Refresh with lifetime zero: ports and quota stay taken until it ends",
            ),
        }
    }
}

/// Whether an address is none of a host on the public internet. The server's
/// built-in peer rules know all of these networks.
pub(super) fn is_special(ip: IpAddr) -> bool {
    let policy = Policy::new(&[], &[], &OwnAddresses::default(), 0..=0);
    policy.check_ip(ip) == Access::Denied
}

fn wrong_name(host: &str, names: &[String]) -> String {
    let list = if names.is_empty() { "no name at all".into() } else { names.join(", ") };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// One of each.
    fn all() -> Vec<Finding> {
        use Finding::*;
        let names = vec!["a.example.org".to_owned()];
        vec![
            NameNotFound,
            OtherFamily,
            DnsUnanswered,
            PortClosed(Transport::Udp),
            Silent(Transport::Tls),
            NoRoute,
            SocketError,
            Closed,
            DtlsNotProbed,
            OutOfTime,
            TlsOnPlainPort,
            PlainOnTlsPort,
            Http,
            NotStun,
            Expired { ago: 90_000 },
            NotYetValid { ahead: 7200 },
            WrongName { host: "b.example.org".into(), names },
            SelfSigned,
            UnknownIssuer { issuer: "R3".into(), alone: true },
            BadCertificate,
            HandshakeFailed,
            AlpnRefused,
            ExpiresSoon { days: 3 },
            OpenRelay,
            NoChallenge,
            StunOnly,
            NoCredentials,
            PasswordRefused { realm: Some("example.org".into()) },
            SecretRefused { clock: 1_700_000_000 },
            UsernameExpired { ago: 60 },
            WrongUser,
            StaleNonce,
            BadIntegrity,
            Forbidden,
            UnknownAttribute(vec![0x19]),
            Mismatch,
            FamilyRefused,
            TransportRefused,
            Quota,
            NoPort,
            ServerError,
            RefusedOtherwise(499),
            Redirected,
            RedirectedAgain,
            PrivateRelayedAddress { relayed: ip("10.0.0.5"), server: ip("8.8.8.8") },
            SecondRefused,
            OwnRelayRefused,
            PeerRefused,
            PeersRefused,
            Untested,
            NoData,
            ClosedToOutside,
            NoHairpin,
            Loss,
            NotReleased,
        ]
    }

    #[test]
    fn every_finding_has_a_name_of_its_own_and_a_hint() {
        let mut names: Vec<&str> = all().iter().map(Finding::name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for finding in all() {
            assert!(finding.hint().len() > 20, "{finding:?}: {}", finding.hint());
            let fails = finding.verdict() == Verdict::Fail;
            assert_eq!(fails, finding.outcome() != Outcome::Warnings, "{finding:?}");
        }
    }

    #[test]
    fn hints_name_the_cause_and_the_setting() {
        use Finding::*;
        for (finding, outcome, words) in [
            (NameNotFound, Outcome::NoName, "spelling"),
            (PortClosed(Transport::Udp), Outcome::Unreachable, "UDP"),
            (Silent(Transport::Tls), Outcome::Unreachable, "drops TCP"),
            (TlsOnPlainPort, Outcome::Tls, "use turns:"),
            (PlainOnTlsPort, Outcome::Tls, "?transport=tcp"),
            (Http, Outcome::Protocol, "web server"),
            (Expired { ago: 172_800 }, Outcome::Tls, "2 days ago"),
            (NotYetValid { ahead: 7200 }, Outcome::Tls, "clock"),
            (SelfSigned, Outcome::Tls, "signed by itself"),
            (UnknownIssuer { issuer: "R3".into(), alone: true }, Outcome::Tls, "fullchain.pem"),
            (UnknownIssuer { issuer: "Us".into(), alone: false }, Outcome::Tls, "--ca"),
            (ExpiresSoon { days: 3 }, Outcome::Warnings, "3 days"),
            (OpenRelay, Outcome::Protocol, "ANYBODY"),
            (StunOnly, Outcome::Refused, "no TURN"),
            (SecretRefused { clock: 0 }, Outcome::Credentials, "1970-01-01 00:00 UTC"),
            (UsernameExpired { ago: 3600 }, Outcome::Credentials, "1 hour ago"),
            (Mismatch, Outcome::Refused, "437"),
            (Quota, Outcome::Refused, "limits.allocations-per-user"),
            (NoPort, Outcome::Refused, "relay.ports"),
            (TransportRefused, Outcome::Refused, "442"),
            (UnknownAttribute(vec![0x8000]), Outcome::Refused, "0x8000"),
            (Redirected, Outcome::Warnings, "300"),
            (NoData, Outcome::Relay, "relay.ports"),
            (ClosedToOutside, Outcome::Warnings, "firewall"),
            (NoHairpin, Outcome::Warnings, "external-ip"),
        ] {
            assert_eq!(finding.outcome(), outcome, "{finding:?}");
            let hint = finding.hint();
            assert!(hint.contains(words), "{finding:?}: {hint}");
        }
    }

    #[test]
    fn a_wrong_name_is_told_with_the_right_ones() {
        let names = vec!["a.example.org".to_owned(), "b.example.org".to_owned()];
        let hint = Finding::WrongName { host: "c.example.org".into(), names: names.clone() }.hint();
        assert!(hint.contains("for a.example.org, b.example.org, not for c.example.org"), "{hint}");
        let hint = Finding::WrongName { host: "192.0.2.1".into(), names }.hint();
        assert!(hint.contains("instead of the address"), "{hint}");
    }

    #[test]
    fn error_codes() {
        for (code, name) in [
            (300, "redirected-again"),
            (403, "forbidden"),
            (420, "unknown-attribute"),
            (437, "allocation-mismatch"),
            (438, "stale-nonce"),
            (440, "family-refused"),
            (441, "wrong-user"),
            (442, "transport-refused"),
            (486, "quota"),
            (500, "server-error"),
            (508, "no-port"),
            (499, "refused"),
        ] {
            assert_eq!(Finding::of_code(code, &[]).name(), name);
        }
    }

    #[test]
    fn why_credentials_are_refused() {
        let refused = Finding::of_refused_credentials;
        let realm = Some("example.org");
        assert_eq!(refused(Some(100), true, 160, realm), Finding::UsernameExpired { ago: 60 });
        assert_eq!(refused(Some(100), false, 160, realm), Finding::UsernameExpired { ago: 60 });
        assert_eq!(refused(Some(200), true, 160, realm), Finding::SecretRefused { clock: 160 });
        let password = Finding::PasswordRefused { realm: Some("example.org".into()) };
        assert_eq!(refused(None, false, 160, realm), password);
        assert!(password.hint().contains("realm is \"example.org\""));
    }

    #[test]
    fn a_private_relayed_address_is_a_fault_of_public_servers_only() {
        let fault = |relayed: &str, server: &str| {
            Finding::of_relayed_address(ip(relayed), ip(server)).map(|finding| finding.hint())
        };
        for relayed in ["10.0.0.5", "172.31.1.1", "127.0.0.1", "100.64.0.1", "0.0.0.0", "fd00::1"] {
            let hint = fault(relayed, "8.8.8.8").expect(relayed);
            assert!(hint.contains(&format!("external-ip=8.8.8.8/{relayed}")), "{hint}");
            assert!(hint.contains("advertise = \"8.8.8.8\""), "{hint}");
        }
        for (relayed, server) in
            [("10.0.0.5", "10.0.0.5"), ("127.0.0.1", "127.0.0.1"), ("1.1.1.1", "8.8.8.8")]
        {
            assert_eq!(fault(relayed, server), None);
        }
    }
}
