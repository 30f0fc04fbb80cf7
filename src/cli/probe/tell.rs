//! How a step is told: on the terminal at once, and in the report.

use tokio::time::Instant;

use super::finding::Finding;
use super::link::LinkError;
use super::report::{Step, Verdict};
use super::statistics::milliseconds;
use super::tap::Speaker;
use super::walk::{Stop, Walk};
use crate::client::{Failure, Problem};

impl Walk<'_> {
    pub(super) fn went_well(&mut self, name: &'static str, started: Instant, detail: String) {
        self.tell(name, started, Verdict::Ok, detail, None);
    }

    pub(super) fn found(
        &mut self,
        name: &'static str,
        started: Instant,
        detail: String,
        finding: Finding,
    ) {
        self.tell(name, started, finding.verdict(), detail, Some(finding));
    }

    /// A failure that the person has asked to overlook.
    pub(super) fn overlooked(
        &mut self,
        name: &'static str,
        started: Instant,
        detail: String,
        finding: Finding,
    ) {
        self.tell(name, started, Verdict::Warn, detail, Some(finding));
    }

    /// A finding that ends the way if it is a failure.
    pub(super) fn stops(
        &mut self,
        name: &'static str,
        started: Instant,
        detail: String,
        finding: Finding,
    ) -> Result<(), Stop> {
        let fails = finding.verdict() == Verdict::Fail;
        self.found(name, started, detail, finding);
        if fails { Err(Stop) } else { Ok(()) }
    }

    pub(super) fn fails<T>(
        &mut self,
        name: &'static str,
        started: Instant,
        detail: &str,
        finding: Finding,
    ) -> Result<T, Stop> {
        self.found(name, started, detail.to_owned(), finding);
        Err(Stop)
    }

    /// A step that ended without an answer, or with a refusal that speaks for itself.
    pub(super) fn broke<T>(
        &mut self,
        name: &'static str,
        started: Instant,
        error: &LinkError,
    ) -> Result<T, Stop> {
        let finding = self.judge(error);
        self.fails(name, started, &describe(error), finding)
    }

    pub(super) fn skipped(&mut self, name: &'static str, started: Instant, detail: String) {
        self.tell(name, started, Verdict::Skipped, detail, None);
    }

    fn tell(
        &mut self,
        name: &'static str,
        started: Instant,
        verdict: Verdict,
        detail: String,
        finding: Option<Finding>,
    ) {
        // What is cut short says nothing about the server.
        if self.settings.is_interrupted() {
            return;
        }
        let ms = milliseconds(started.elapsed());
        let hint = finding.as_ref().map(Finding::hint);
        let step = Step { name, verdict, ms, detail, finding, hint };
        self.console.step(&step);
        self.path.steps.push(step);
    }

    /// What an error means on its own.
    pub(super) fn judge(&self, error: &LinkError) -> Finding {
        match error {
            LinkError::Silent => Finding::Silent(self.transport),
            // Nobody is told of it.
            LinkError::OutOfTime | LinkError::Interrupted => Finding::OutOfTime,
            LinkError::PortClosed => Finding::PortClosed(self.transport),
            LinkError::Closed => Finding::Closed,
            LinkError::NoRoute => Finding::NoRoute,
            LinkError::Rejected => Finding::Rejected(self.transport),
            LinkError::Io(_) => Finding::SocketError,
            LinkError::Foreign(Speaker::Tls) => Finding::TlsOnPlainPort,
            LinkError::Foreign(Speaker::Http) => Finding::Http,
            LinkError::Foreign(_) => Finding::NotStun,
            LinkError::Unusable(
                Problem::IntegrityMismatch | Problem::IntegrityMissing { .. } | Problem::BidDown,
            ) => Finding::BadIntegrity,
            LinkError::Unusable(Problem::Framing) => Finding::NotStun,
            LinkError::Unusable(_) => Finding::UnusableAnswer,
            LinkError::Refused(failure) => {
                Finding::of_code(failure.code, &failure.unknown_attributes)
            }
        }
    }
}

/// What happened, in a few words.
pub(super) fn describe(error: &LinkError) -> String {
    match error {
        LinkError::Silent => "no answer".to_owned(),
        LinkError::OutOfTime => "no time left".to_owned(),
        LinkError::Interrupted => "interrupted".to_owned(),
        LinkError::PortClosed => "connection refused".to_owned(),
        LinkError::Closed => "connection closed".to_owned(),
        LinkError::NoRoute => "network unreachable".to_owned(),
        LinkError::Rejected => "unreachable, says the network".to_owned(),
        LinkError::Io(error) => error.to_string(),
        LinkError::Foreign(Speaker::Tls) => "TLS answers".to_owned(),
        LinkError::Foreign(Speaker::Http) => "HTTP answers".to_owned(),
        LinkError::Foreign(_) => "the answer is not STUN".to_owned(),
        LinkError::Unusable(why) => why.to_string(),
        LinkError::Refused(failure) => refusal(failure),
    }
}

/// Code and reason of an error response.
pub(super) fn refusal(failure: &Failure) -> String {
    format!("{} {}", failure.code, failure.reason).trim_end().to_owned()
}
