//! The report as a person reads it, line by line while it comes about.

use std::fmt::Write;

use super::super::screen::printable;
use super::super::{Failure, print};
use super::report::{Report, Step};

/// Where hints begin: below the details.
const INDENT: usize = 42;

/// Standard output, unless JSON is wanted: that comes at the end and alone.
pub(super) struct Console {
    quiet: bool,
    failure: Option<Failure>,
}

impl Console {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, failure: None }
    }

    /// What the following steps are about.
    pub(super) fn heading(&mut self, text: &str) {
        self.write(&format!("\n{}\n", printable(text)));
    }

    /// A line of its own.
    pub(super) fn line(&mut self, text: &str) {
        self.write(&format!("{}\n", printable(text)));
    }

    /// A step, and the hint below it.
    pub(super) fn step(&mut self, step: &Step) {
        self.write(&self::step(step));
    }

    /// What a browser would make of it, and the end.
    pub(super) fn end(&mut self, report: &Report) {
        self.write(&end(report));
    }

    /// Whether all could be written.
    pub(super) fn finish(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }

    fn write(&mut self, text: &str) {
        if self.quiet || self.failure.is_some() {
            return;
        }
        self.failure = print(text).err();
    }
}

fn step(step: &Step) -> String {
    let Step { name, verdict, ms, detail, hint, .. } = step;
    let mut text =
        format!("  {name:<18} {ms:>8.1} ms  {:<7} {}", verdict.word(), printable(detail));
    text.truncate(text.trim_end().len());
    text.push('\n');
    if let Some(hint) = hint {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:INDENT$}hint: {}", "", printable(hint));
    }
    text
}

fn end(report: &Report) -> String {
    let mut text = "\nin a browser\n".to_owned();
    let browser = &report.browser;
    let mut line = |name: &str, what: &str| {
        let _ = writeln!(text, "  {name:<10} {}", printable(what));
    };
    for candidate in &browser.candidates {
        line("candidate", candidate);
    }
    if browser.candidates.is_empty() {
        line("candidate", "none from this server");
    }
    for note in &browser.notes {
        line("note", note);
    }
    if let Some(server) = &browser.ice_server {
        line("iceServers", server);
    }
    let _ = writeln!(
        text,
        "\n{}: {} (exit code {})",
        report.verdict.word(),
        report.meaning,
        report.exit_code
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::finding::Finding;
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn a_step_with_its_hint() {
        let finding = Finding::Loss;
        let shown = step(&Step {
            name: "relay-channels",
            verdict: Verdict::Warn,
            ms: 1234.56,
            detail: "9 of 10".to_owned(),
            hint: Some("look".to_owned()),
            finding: Some(finding),
        });
        let expected = "  relay-channels       1234.6 ms  warn    9 of 10\n";
        assert_eq!(shown.lines().next(), expected.lines().next());
        let column = expected.find("9 of 10").unwrap();
        assert_eq!(shown.lines().nth(1).unwrap().find("hint: look"), Some(column));
    }
}
