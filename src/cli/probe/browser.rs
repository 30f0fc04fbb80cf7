//! What a browser would make of the server, told from the report.

use serde::Serialize;

use super::finding::Finding;
use super::report::Path;
use crate::client::{Host, Scheme, Uri};
use crate::net::Transport;

/// What `RTCPeerConnection` would gather and say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Browser {
    /// The candidates that come from this server.
    pub(super) candidates: Vec<String>,
    /// An entry of `iceServers`; the password is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ice_server: Option<String>,
    /// What would be refused or done differently.
    pub(super) notes: Vec<String>,
}

/// An RTCIceServer.
#[derive(Serialize)]
struct IceServer<'a> {
    urls: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
}

impl Browser {
    /// Judges all ways; `user` is who the relay was tried as.
    pub(super) fn of(uri: &Uri, user: Option<&str>, paths: &[Path]) -> Self {
        Self {
            candidates: candidates(paths),
            ice_server: ice_server(uri, user, paths),
            notes: notes(uri, paths),
        }
    }
}

fn candidates(paths: &[Path]) -> Vec<String> {
    let mut list = Vec::new();
    for path in paths {
        // Browsers ask for their reflexive address over UDP only.
        if let (Transport::Udp, Some(mapped)) = (path.transport, path.mapped) {
            list.push(format!("srflx {mapped}"));
        }
        let works = path.failure().is_none() && path.transport != Transport::Dtls;
        for relayed in path.relayed.iter().filter(|_| works) {
            list.push(format!(
                "relay {relayed}, reached over {}",
                path.transport.name().to_uppercase()
            ));
        }
    }
    list
}

fn ice_server(uri: &Uri, user: Option<&str>, paths: &[Path]) -> Option<String> {
    let mut urls = Vec::new();
    let works = |path: &&Path| path.failure().is_none() && !path.is_skipped();
    for path in paths.iter().filter(works).filter(|path| path.transport != Transport::Dtls) {
        if !urls.contains(&path.url.as_str()) {
            urls.push(&path.url);
        }
    }
    if urls.is_empty() {
        return None;
    }
    let is_turn = uri.scheme.is_turn();
    let server = IceServer {
        urls,
        username: is_turn.then(|| user.unwrap_or("USER")),
        credential: is_turn.then_some("PASSWORD"),
    };
    Some(serde_json::to_string(&server).expect("strings are JSON"))
}

fn notes(uri: &Uri, paths: &[Path]) -> Vec<String> {
    let mut notes = Vec::new();
    let refused =
        paths.iter().flat_map(|path| &path.steps).filter_map(|step| step.finding.as_ref());
    if refused.clone().any(is_about_certificates) {
        notes.push(
            "refused: a browser does not accept this certificate, and asks nobody".to_owned(),
        );
    }
    if uri.scheme.is_secure() && matches!(uri.host, Host::Ip(_)) {
        notes.push(format!(
            "{} with an address: the certificate has to be made for {}, a name in it does not help",
            uri.scheme.name(),
            uri.host
        ));
    }
    if paths.iter().any(|path| path.via.is_some()) {
        notes.push("browsers look up no SRV records: write host and port into the URL".to_owned());
    }
    if paths.iter().any(|path| path.transport == Transport::Dtls) {
        notes.push("browsers speak no DTLS to a server: they need turns: over TCP".to_owned());
    }
    let tcp = |path: &Path| path.transport == Transport::Tcp && path.failure().is_none();
    if uri.scheme == Scheme::Turn && uri.transport.is_none() && paths.iter().any(tcp) {
        notes.push("turn: without ?transport= is UDP alone: list the TCP URL as well".to_owned());
    }
    notes
}

fn is_about_certificates(finding: &Finding) -> bool {
    matches!(
        finding,
        Finding::Expired { .. }
            | Finding::NotYetValid { .. }
            | Finding::WrongName { .. }
            | Finding::SelfSigned
            | Finding::UnknownIssuer { .. }
            | Finding::BadCertificate
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::super::report::tests::{path, step};
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    fn relaying(transport: Transport, url: &str) -> Path {
        let mut path = path(transport, vec![None, None]);
        path.url = url.to_owned();
        path.mapped = Some("198.51.100.7:4242".parse().unwrap());
        path.relayed = vec!["192.0.2.1:50000".parse().unwrap()];
        path
    }

    #[test]
    fn candidates_and_the_entry_for_them() {
        let paths = [
            relaying(Transport::Udp, "turn:example.org?transport=udp"),
            relaying(Transport::Tcp, "turn:example.org?transport=tcp"),
        ];
        let browser = Browser::of(&uri("turn:example.org"), Some("alice"), &paths);
        assert_eq!(
            browser.candidates,
            [
                "srflx 198.51.100.7:4242",
                "relay 192.0.2.1:50000, reached over UDP",
                "relay 192.0.2.1:50000, reached over TCP",
            ]
        );
        assert_eq!(
            browser.ice_server.unwrap(),
            r#"{"urls":["turn:example.org?transport=udp","turn:example.org?transport=tcp"],"username":"alice","credential":"PASSWORD"}"#
        );
        assert!(browser.notes[0].contains("?transport="), "{:?}", browser.notes);
    }

    #[test]
    fn what_failed_is_not_recommended() {
        let mut paths = [relaying(Transport::Udp, "turn:example.org?transport=udp")];
        paths[0].steps.push(step("relay-channels", Some(Finding::NoData)));
        let browser = Browser::of(&uri("turn:example.org?transport=udp"), Some("alice"), &paths);
        assert_eq!(browser.candidates, ["srflx 198.51.100.7:4242"]);
        assert_eq!(browser.ice_server, None);
    }

    #[test]
    fn a_certificate_that_was_overlooked_here_is_refused_there() {
        let mut paths = [relaying(Transport::Tls, "turns:192.0.2.1")];
        paths[0].steps[0].finding = Some(Finding::SelfSigned);
        paths[0].steps[0].verdict = Verdict::Warn;
        let notes = Browser::of(&uri("turns:192.0.2.1"), None, &paths).notes;
        assert!(notes[0].starts_with("refused:"), "{notes:?}");
        assert!(notes[1].contains("made for 192.0.2.1"), "{notes:?}");
    }

    #[test]
    fn stun_needs_no_credentials() {
        let mut paths = [relaying(Transport::Udp, "stun:example.org")];
        paths[0].relayed.clear();
        let browser = Browser::of(&uri("stun:example.org"), None, &paths);
        assert_eq!(browser.ice_server.unwrap(), r#"{"urls":["stun:example.org"]}"#);
    }

    #[test]
    fn srv_records_are_not_for_browsers() {
        let mut paths = [relaying(Transport::Udp, "turn:a.example.org:9?transport=udp")];
        paths[0].via = Some("_turn._udp a.example.org".to_owned());
        let notes = Browser::of(&uri("turn:example.org"), None, &paths).notes;
        assert!(notes[0].contains("SRV"), "{notes:?}");
    }
}
