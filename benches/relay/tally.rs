//! Things done for clients, and what they cost.

use std::io;
use std::time::Instant;

use crate::sys::{self, CpuTime};

/// What was counted in one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) seconds: f64,
    /// CPU time of the server in nanoseconds.
    pub(crate) cpu: u64,
    /// Nanoseconds that its threads waited for the core.
    pub(crate) waited: u64,
    pub(crate) done: u64,
}

impl Tally {
    /// CPU microseconds of the server for one.
    pub(crate) fn cost(&self) -> f64 {
        self.cpu as f64 / 1e3 / self.done as f64
    }

    /// How many in a second of the server's CPU time.
    pub(crate) fn per_core(&self) -> f64 {
        1e6 / self.cost()
    }

    /// How many per second as they came.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    /// Share of the time in which a thread of the server waited for the core.
    pub(crate) fn denied(&self) -> f64 {
        self.waited as f64 / 1e9 / self.seconds
    }

    /// Cores the server kept busy.
    pub(crate) fn busy(&self) -> f64 {
        self.cpu as f64 / 1e9 / self.seconds
    }
}

/// A measurement that has begun.
pub(crate) struct Watch {
    pid: u32,
    done: u64,
    cpu: CpuTime,
    start: Instant,
}

impl Watch {
    /// Begins with the server `pid`, which has `done` so many.
    pub(crate) fn start(pid: u32, done: u64) -> io::Result<Self> {
        Ok(Self { pid, done, cpu: sys::cpu_time(pid)?, start: Instant::now() })
    }

    /// Ends when the server has `done` so many in all.
    pub(crate) fn stop(&self, done: u64) -> io::Result<Tally> {
        let cpu = sys::cpu_time(self.pid)?;
        if done == self.done {
            return Err(io::Error::other("nothing was done"));
        }
        Ok(Tally {
            seconds: self.start.elapsed().as_secs_f64(),
            cpu: cpu.ran - self.cpu.ran,
            waited: cpu.waited - self.cpu.waited,
            done: done - self.done,
        })
    }
}
