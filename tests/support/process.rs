//! Processes that tests start: their output is kept, and they end with the test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Lines of output that are kept.
const KEPT_LINES: usize = 500;
/// Lines of output that are shown when a test fails.
const SHOWN_LINES: usize = 40;
/// How often the exit of a process is looked for.
const POLL: Duration = Duration::from_millis(10);

/// A running process. Dropped, it is killed by its own id; if the test is failing,
/// its last lines are printed.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Output {
    lines: Mutex<VecDeque<String>>,
    more: Condvar,
}

impl Process {
    /// Starts a command with its output captured.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let output = Arc::new(Output::default());
        let readers = vec![
            collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&output)),
            collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&output)),
        ];
        Self { name, child, output, readers }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for a line that contains `text`, also among those already written.
    #[track_caller]
    pub fn expect_line(&mut self, text: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        let mut lines = self.output.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(lines);
                panic!("{} did not write {text:?} in {within:?}", self.name);
            }
            lines = self.output.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The last lines of standard output and standard error.
    pub fn last_lines(&self) -> String {
        let lines = self.output.lines.lock().unwrap();
        let skip = lines.len().saturating_sub(SHOWN_LINES);
        lines.iter().skip(skip).map(|line| format!("  {line}\n")).collect()
    }

    /// Sends a signal by name, such as `TERM` or `HUP`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(status.success(), "cannot send {name} to {}", self.name);
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} still runs after {within:?}", self.name);
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("last lines of {}:\n{}", self.name, self.last_lines());
        }
    }
}

fn collect(stream: impl Read + Send + 'static, output: Arc<Output>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let mut lines = output.lines.lock().unwrap();
            if lines.len() == KEPT_LINES {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(&line).into_owned());
            output.more.notify_all();
        }
    })
}
