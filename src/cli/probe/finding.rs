//! What a probe can find, and which exit code each leads to. Names,
//! verdicts and hints are in `hints.rs`. Nothing here does IO.

use std::net::IpAddr;

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
    Rejected(Transport),
    NoRoute,
    SocketError,
    Closed,
    OutOfTime,
    // Who is behind the port.
    TlsOnPlainPort,
    PlainOnTlsPort,
    Http,
    NotStun,
    UnusableAnswer,
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
    RedirectedNowhere,
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
    /// itself was reached at a public one; or one that leads nowhere but to the host it
    /// is on.
    pub(super) fn of_relayed_address(relayed: IpAddr, server: IpAddr) -> Option<Self> {
        let stays_there = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        (is_special(relayed) && !is_special(server) || stays_there(relayed) && !stays_there(server))
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
            Self::PortClosed(_)
            | Self::Silent(_)
            | Self::Rejected(_)
            | Self::SocketError
            | Self::OutOfTime => Outcome::Unreachable,
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
            | Self::UnusableAnswer
            | Self::OpenRelay
            | Self::NoChallenge
            | Self::RedirectedNowhere
            | Self::StaleNonce
            | Self::BadIntegrity => Outcome::Protocol,
            _ => Outcome::Refused,
        }
    }
}

/// Whether an address is none of a host on the public internet. The server's
/// built-in peer rules know all of these networks.
pub(super) fn is_special(ip: IpAddr) -> bool {
    let policy = Policy::new(&[], &[], &OwnAddresses::default(), 0..=0);
    policy.check_ip(ip) == Access::Denied
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
            Rejected(Transport::Tcp),
            NoRoute,
            SocketError,
            Closed,
            OutOfTime,
            TlsOnPlainPort,
            PlainOnTlsPort,
            Http,
            NotStun,
            UnusableAnswer,
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
            RedirectedNowhere,
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
            (Rejected(Transport::Udp), Outcome::Unreachable, "rejects UDP"),
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
    fn a_relayed_address_where_nobody_gets() {
        let fault = |relayed: &str, server: &str| {
            Finding::of_relayed_address(ip(relayed), ip(server)).map(|finding| finding.hint())
        };
        for relayed in ["10.0.0.5", "172.31.1.1", "127.0.0.1", "100.64.0.1", "0.0.0.0", "fd00::1"] {
            let hint = fault(relayed, "8.8.8.8").expect(relayed);
            assert!(hint.contains(&format!("external-ip=8.8.8.8/{relayed}")), "{hint}");
            assert!(hint.contains("advertise = \"8.8.8.8\""), "{hint}");
        }
        for relayed in ["127.0.0.1", "0.0.0.0"] {
            assert!(fault(relayed, "192.168.1.5").is_some(), "{relayed}");
        }
        for (relayed, server) in
            [("10.0.0.5", "10.0.0.5"), ("127.0.0.1", "127.0.0.1"), ("1.1.1.1", "8.8.8.8")]
        {
            assert_eq!(fault(relayed, server), None);
        }
    }
}
