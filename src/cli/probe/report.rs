//! What a probe has found out, as data: the text on the terminal and the JSON are
//! made of this and of nothing else.

use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use super::browser::Browser;
use super::finding::Finding;
use super::outcome::Outcome;
use super::statistics::Rtt;
use crate::net::Transport;

/// How one step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should.
    Ok,
    /// Not tried, with the reason.
    Skipped,
    /// It works, but somebody should know.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// For people: what matters stands out.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One step of the diagnosis.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// How long it took, in milliseconds.
    pub(super) ms: f64,
    /// What was seen.
    pub(super) detail: String,
    /// What was found, by name.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "finding_name")]
    pub(super) finding: Option<Finding>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// What was found on one way to the server.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Path {
    #[serde(serialize_with = "transport_name")]
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    /// What a client writes to come this way.
    pub(super) url: String,
    /// The SRV record that led here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) via: Option<String>,
    pub(super) steps: Vec<Step>,
    /// Our address as the server sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mapped: Option<SocketAddr>,
    /// SOFTWARE of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) software: Option<String>,
    /// The relayed transport addresses.
    pub(super) relayed: Vec<SocketAddr>,
    /// Round trips through the relay: out by one allocation, back by another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt: Option<Rtt>,
    /// Part of the packets that did not come back, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jitter_ms: Option<f64>,
}

/// An address that the name led to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Resolved {
    #[serde(serialize_with = "transport_name")]
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) via: Option<String>,
}

/// Raised when a field changes its meaning or goes away, not when one is added.
pub(super) const VERSION: u32 = 1;

/// Everything.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    pub(super) version: u32,
    pub(super) uri: String,
    /// The step that led to `resolved`.
    pub(super) resolve: Step,
    pub(super) resolved: Vec<Resolved>,
    pub(super) transports: Vec<Path>,
    pub(super) browser: Browser,
    pub(super) verdict: Verdict,
    /// The exit code in words.
    pub(super) meaning: &'static str,
    pub(super) exit_code: u8,
}

impl Path {
    /// Nothing tried yet.
    pub(super) fn new(
        transport: Transport,
        address: SocketAddr,
        url: String,
        via: Option<String>,
    ) -> Self {
        Self {
            transport,
            address,
            url,
            via,
            steps: Vec::new(),
            mapped: None,
            software: None,
            relayed: Vec::new(),
            rtt: None,
            loss: None,
            jitter_ms: None,
        }
    }

    /// The first step that failed.
    pub(super) fn failure(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.verdict == Verdict::Fail)
    }

    /// Whether the way was not tried at all.
    pub(super) fn is_skipped(&self) -> bool {
        self.steps.iter().all(|step| step.verdict == Verdict::Skipped)
    }

    fn has_warning(&self) -> bool {
        self.steps.iter().any(|step| step.verdict == Verdict::Warn)
    }

    fn is_open_relay(&self) -> bool {
        self.steps.iter().any(|step| step.finding == Some(Finding::OpenRelay))
    }

    /// How many steps went well before the first that failed.
    fn reach(&self) -> usize {
        self.steps.iter().take_while(|step| step.verdict != Verdict::Fail).count()
    }
}

/// What all of it comes to, by the rule in [`super::outcome::table`].
pub(super) fn judge(resolve: &Step, paths: &[Path]) -> Outcome {
    if let Some(finding) = resolve.finding.as_ref().filter(|_| resolve.verdict == Verdict::Fail) {
        return finding.outcome();
    }
    if paths.iter().any(Path::is_open_relay) {
        return Outcome::Protocol;
    }
    let tried: Vec<&Path> = paths.iter().filter(|path| !path.is_skipped()).collect();
    let failed = tried.iter().filter(|path| path.failure().is_some()).count();
    if tried.is_empty() {
        return Outcome::Unreachable;
    }
    if failed == 0 {
        let warned =
            resolve.verdict == Verdict::Warn || tried.iter().any(|path| path.has_warning());
        return if warned { Outcome::Warnings } else { Outcome::Good };
    }
    if failed < tried.len() {
        return Outcome::Warnings;
    }
    // Of equals the first, which is the preferred one.
    let furthest = tried.iter().rev().max_by_key(|path| path.reach());
    let finding = furthest.and_then(|path| path.failure()).and_then(|step| step.finding.as_ref());
    finding.map_or(Outcome::Protocol, Finding::outcome)
}

impl Outcome {
    /// For people.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Good => Verdict::Ok,
            Self::Warnings => Verdict::Warn,
            _ => Verdict::Fail,
        }
    }
}

fn transport_name<S: Serializer>(transport: &Transport, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(transport.name())
}

fn finding_name<S: Serializer>(finding: &Option<Finding>, to: S) -> Result<S::Ok, S::Error> {
    finding.as_ref().map(Finding::name).serialize(to)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A step that found this, or that went well.
    pub(in super::super) fn step(name: &'static str, finding: Option<Finding>) -> Step {
        Step {
            name,
            verdict: finding.as_ref().map_or(Verdict::Ok, Finding::verdict),
            ms: 1.0,
            detail: String::new(),
            hint: finding.as_ref().map(Finding::hint),
            finding,
        }
    }

    /// A way with steps that found these.
    pub(in super::super) fn path(transport: Transport, found: Vec<Option<Finding>>) -> Path {
        let mut path = Path::new(
            transport,
            "192.0.2.1:3478".parse().unwrap(),
            "turn:192.0.2.1".to_owned(),
            None,
        );
        path.steps = found.into_iter().map(|finding| step("step", finding)).collect();
        path
    }

    fn outcome(found: Vec<Vec<Option<Finding>>>) -> Outcome {
        let paths: Vec<Path> = found.into_iter().map(|f| path(Transport::Udp, f)).collect();
        judge(&step("resolve", None), &paths)
    }

    #[test]
    fn all_good_some_and_none() {
        let closed = || Some(Finding::PortClosed(Transport::Tcp));
        assert_eq!(outcome(vec![vec![None, None], vec![None]]), Outcome::Good);
        assert_eq!(outcome(vec![vec![None, Some(Finding::Loss)]]), Outcome::Warnings);
        assert_eq!(outcome(vec![vec![None], vec![closed()]]), Outcome::Warnings);
        assert_eq!(outcome(vec![vec![closed()], vec![closed()]]), Outcome::Unreachable);
    }

    #[test]
    fn the_way_that_got_furthest_decides() {
        let silent = vec![Some(Finding::Silent(Transport::Udp))];
        let refused = vec![None, None, Some(Finding::Quota)];
        assert_eq!(outcome(vec![silent.clone(), refused.clone()]), Outcome::Refused);
        assert_eq!(outcome(vec![refused, silent.clone()]), Outcome::Refused);
        // A warning does not stop a way, and of equals the first counts.
        let relay = vec![Some(Finding::ClosedToOutside), Some(Finding::NoData)];
        let tls = vec![None, Some(Finding::SelfSigned)];
        assert_eq!(outcome(vec![relay, tls, silent]), Outcome::Relay);
    }

    #[test]
    fn an_open_relay_outweighs_what_works() {
        assert_eq!(
            outcome(vec![vec![None], vec![None, Some(Finding::OpenRelay)]]),
            Outcome::Protocol
        );
    }

    #[test]
    fn what_was_not_tried_does_not_count() {
        let none = || vec![Some(Finding::NoRoute)];
        assert_eq!(outcome(vec![vec![None], none()]), Outcome::Good);
        assert_eq!(outcome(vec![none()]), Outcome::Unreachable);
        assert_eq!(outcome(vec![none(), vec![None]]), Outcome::Good);
    }

    #[test]
    fn a_name_that_leads_nowhere() {
        let resolve = step("resolve", Some(Finding::NameNotFound));
        assert_eq!(judge(&resolve, &[]), Outcome::NoName);
    }
}
