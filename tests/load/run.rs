//! Runs `sturn load` and reads its report.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::setup::DEADLINE;

/// Alice, a short run, JSON.
const USUAL: [&str; 9] = [
    "--user",
    "alice",
    "--password",
    "wonderland",
    "--seconds",
    "0.2",
    "--warm-up",
    "0.05",
    "--json",
];

/// So slow that nothing can be lost.
pub(crate) const SLOW: [&str; 2] = ["--rate", "500"];

/// What a run has left.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    arguments: String,
}

/// A load by alice, as JSON.
#[track_caller]
pub(crate) fn load(uri: &str, arguments: &[&str]) -> Run {
    run(&[&["load", uri], &USUAL[..], arguments].concat())
}

/// Any command line.
#[track_caller]
pub(crate) fn run(arguments: &[&str]) -> Run {
    let mut child = command(arguments).spawn().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("sturn {arguments:?} did not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().expect("not ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        arguments: arguments.join(" "),
    }
}

/// `sturn` with its output captured and nothing in its environment that would count.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sturn"));
    command.args(arguments).env_remove("STURN_PASSWORD").env_remove("STURN_SECRET");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Run {
    /// The report of a run that went well.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        assert_eq!(self.code, 0, "{self}");
        assert_eq!(self.stderr, "", "{self}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// Expects that something was sent and all of it has arrived; the report.
    #[track_caller]
    pub(crate) fn delivers_all(&self) -> Value {
        let report = self.report();
        let sent = number(&report, "sent");
        assert!(sent > 0, "{self}");
        assert_eq!(number(&report, "delivered"), sent, "{self}");
        for nothing in ["lost", "unsent", "duplicates", "late", "strays", "left-behind"] {
            assert_eq!(number(&report, nothing), 0, "{nothing}: {self}");
        }
        report
    }

    /// Expects an exit code and one line on standard error with `said` in it.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, said: &str) -> &Self {
        assert_eq!(self.code, code, "{self}");
        assert_eq!(self.stdout, "", "{self}");
        assert!(self.stderr.starts_with("sturn: ") && self.stderr.contains(said), "{self}");
        assert_eq!(self.stderr.lines().count(), 1, "{self}");
        self
    }
}

/// A whole number of a report.
#[track_caller]
pub(crate) fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {report:#}"))
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr, arguments } = self;
        write!(f, "sturn {arguments}: exit code {code}\n{stdout}\n{stderr}")
    }
}
