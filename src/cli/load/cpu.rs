//! How long processes have run, as the kernel counts it.

use std::fs;
use std::io;
use std::time::Duration;

/// Ticks of /proc/PID/stat in a second: Linux tells programs a hundred, whatever its
/// own clock.
const TICKS: u64 = 100;

/// The CPU time of all threads of these processes so far, kernel work for them included.
///
/// # Errors
/// When there is no such process.
pub(super) fn time(pids: &[u32]) -> io::Result<Duration> {
    pids.iter().map(|pid| of_one(*pid)).sum()
}

/// To the nanosecond where the kernel counts that, else to the hundredth of a second.
fn of_one(pid: u32) -> io::Result<Duration> {
    match scheduled(pid) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => ticks(pid),
    }
}

fn scheduled(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two calls.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let first = text.split_ascii_whitespace().next().and_then(|first| first.parse().ok());
        nanos += first.unwrap_or(0u64);
    }
    Ok(Duration::from_nanos(nanos))
}

fn ticks(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, which may have anything in it, ends at the last parenthesis.
    let fields: Vec<&str> =
        text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let (user, system) = (field(11), field(12));
    Ok(Duration::from_millis((user + system) * 1000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_by_both_counters_and_nobody_has_no_time() {
        let own = std::process::id();
        let before = (scheduled(own).unwrap(), ticks(own).unwrap());
        let started = std::time::Instant::now();
        let mut sum = 0u64;
        while scheduled(own).unwrap() < before.0 + Duration::from_millis(50)
            || ticks(own).unwrap() < before.1 + Duration::from_millis(50)
        {
            (0..100_000u64).for_each(|n| sum = std::hint::black_box(sum ^ n));
            assert!(started.elapsed() < Duration::from_secs(30), "no time passes");
        }
        assert!(time(&[own, own]).unwrap() > time(&[own]).unwrap());
        // Process ids end at 2^22.
        assert!(time(&[u32::MAX]).is_err());
    }
}
