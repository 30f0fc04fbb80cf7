//! Runs `sturn probe --json` and reads its report.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than any `--timeout` in these tests.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a run has left.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    arguments: String,
}

/// A probe as JSON.
#[track_caller]
pub(crate) fn probe(uri: &str, arguments: &[&str]) -> Run {
    run(&[&["probe", uri, "--json"], arguments].concat(), &[])
}

/// A probe as alice, whom the tests' servers know.
#[track_caller]
pub(crate) fn probe_as_alice(uri: &str, arguments: &[&str]) -> Run {
    probe(uri, &[&["--user", "alice", "--password", "wonderland"], arguments].concat())
}

/// Any command line.
#[track_caller]
pub(crate) fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sturn"))
        .args(arguments)
        .env_remove("STURN_PASSWORD")
        .env_remove("STURN_SECRET")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("sturn {arguments:?} did not end: {}", String::from_utf8_lossy(&output.stdout));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().expect("not ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        arguments: arguments.join(" "),
    }
}

impl Run {
    /// The report.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}\n{self}", self.arguments))
    }

    /// Expects an exit code, which the report has as well.
    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self}");
        assert_eq!(self.json()["exit-code"], code, "{self}");
        self
    }

    /// Expects that a step has found this, and that the hint says so.
    #[track_caller]
    pub(crate) fn found(&self, step: &str, finding: &str, hint: &str) -> &Self {
        let report = self.json();
        let mut steps = self.steps(&report).into_iter().chain([&report["resolve"]]);
        let found = steps.find(|s| s["name"] == step && s["finding"] == finding);
        let found = found.unwrap_or_else(|| panic!("{step} did not find {finding}\n{self}"));
        assert!(found["hint"].as_str().unwrap().contains(hint), "{found}");
        self
    }

    /// Expects that nothing was found on any way.
    #[track_caller]
    pub(crate) fn found_nothing(&self) -> &Self {
        let report = self.json();
        for step in self.steps(&report) {
            assert_eq!(step.get("finding"), None, "{self}");
        }
        self
    }

    /// The names of the steps of one way.
    #[track_caller]
    pub(crate) fn step_names(&self, way: usize) -> Vec<String> {
        let report = self.json();
        let steps = report["transports"][way]["steps"].as_array().unwrap();
        steps.iter().map(|step| step["name"].as_str().unwrap().to_owned()).collect()
    }

    fn steps<'a>(&self, report: &'a Value) -> Vec<&'a Value> {
        let ways = report["transports"].as_array().unwrap();
        ways.iter().flat_map(|way| way["steps"].as_array().unwrap()).collect()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr, arguments } = self;
        write!(f, "sturn {arguments}: exit code {code}\n{stdout}\n{stderr}")
    }
}
