//! Processes under test: pinned, bounded in time, gone when dropped.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

/// The core of the server under test.
pub(crate) const SERVER_CORE: usize = 0;
/// The core of the load.
pub(crate) const GENERATOR_CORE: usize = 1;
/// How long a process may take until it serves.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(30);

/// A running process, killed and reaped when dropped.
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command` on [`SERVER_CORE`], both outputs into one file.
    pub(crate) fn start(mut command: Command, name: &str) -> io::Result<Self> {
        let output = env::temp_dir().join(format!("sturn-bench-{}-{name}.out", std::process::id()));
        let file = File::create(&output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // SAFETY: system calls alone, allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                sys::die_with_parent()?;
                sys::raise_descriptor_limit()?;
                sys::pin(SERVER_CORE)
            });
        }
        Ok(Self { child: command.spawn()?, output })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far.
    pub(crate) fn written(&self) -> String {
        fs::read(&self.output)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// `error` with the state of the process and its last lines.
    pub(crate) fn explain(&mut self, error: &dyn std::fmt::Display) -> Box<dyn Error> {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("ended, {status}"),
            _ => "still running".to_owned(),
        };
        let written = self.written();
        let lines: Vec<&str> = written.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n    ");
        format!("{error}\n  process {state}; its last lines:\n    {last}").into()
    }

    /// Tries `probe` until it gives something, the process ends or the
    /// deadline passes.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut probe: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Box<dyn Error>> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(found) = probe(self) {
                return Ok(found);
            }
            if Instant::now() > deadline || self.child.try_wait()?.is_some() {
                return Err(self.explain(&format!("it did not come to {what}")));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.output);
    }
}

/// A forwarder process that serves.
pub(crate) struct ForwarderProcess {
    pub(crate) process: Process,
    pub(crate) listener: SocketAddrV4,
    pub(crate) relayed: Vec<SocketAddrV4>,
}

/// Starts `command` with the count and the two ports appended, which makes it
/// run a [`crate::forwarder::Forwarder`], and reads the ports it announces.
pub(crate) fn spawn_forwarder(
    mut command: Command,
    count: usize,
    client_port: u16,
    peer_port: u16,
) -> Result<ForwarderProcess, Box<dyn Error>> {
    command.args([count.to_string(), client_port.to_string(), peer_port.to_string()]);
    let mut process = Process::start(command, "forwarder")?;
    let addresses = process.until("announce its ports", |process| {
        let written = process.written();
        let line = written.strip_suffix('\n')?;
        line.split_whitespace()
            .map(|port| Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().ok()?)))
            .collect::<Option<Vec<_>>>()
            .filter(|ports| ports.len() == count + 1)
    })?;
    Ok(ForwarderProcess { process, listener: addresses[0], relayed: addresses[1..].to_vec() })
}
