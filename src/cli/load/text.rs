//! The report for people, and the line that shows that something happens.

use std::fmt::Write;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use super::report::{Cpu, Latency, Report};

/// The line of a run in progress, over and over at the same place of a terminal; a line
/// each elsewhere. Silent unless wanted.
pub(super) struct Ticker {
    shown: bool,
    in_place: bool,
    width: usize,
}

impl Ticker {
    pub(super) fn new(shown: bool) -> Self {
        Self { shown, in_place: io::stderr().is_terminal(), width: 0 }
    }

    pub(super) fn show(&mut self, line: &str) {
        if !self.shown {
            return;
        }
        let width = self.width.max(line.len());
        self.width = line.len();
        // Nobody is left to tell when standard error is closed.
        let _ = if self.in_place {
            write!(io::stderr().lock(), "\r{line:<width$}")
        } else {
            writeln!(io::stderr().lock(), "{line}")
        };
    }

    /// Makes room for other lines.
    pub(super) fn clear(&mut self) {
        if self.shown && self.in_place && self.width > 0 {
            let _ = write!(io::stderr().lock(), "\r{:1$}\r", "", self.width);
            self.width = 0;
        }
    }
}

/// What the progress line says while the load runs.
pub(super) fn progress(elapsed: Duration, unit: &str, per_second: f64, phase: &str) -> String {
    format!("{:6.1} s  {} {unit}/s  {phase}", elapsed.as_secs_f64(), grouped(per_second))
}

/// The report.
pub(super) fn text(report: &Report, unit: &str) -> String {
    let mut text = String::new();
    let mut line = |name: &str, what: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<10} {what}");
    };
    line("server", &format!("{} at {} over {}", report.uri, report.server, report.transport));
    line("load", &load(report, unit));
    line("delivered", &delivered(report, unit));
    line("lost", &lost(report));
    if let Some(latency) = &report.latency_us {
        line("latency", &latencies(latency));
    }
    if let Some(cpu) = &report.server_cpu {
        line("server CPU", &busy(cpu, unit));
    }
    if let Some(cpu) = &report.generator_cpu {
        line("own CPU", &busy(cpu, unit));
    }
    if report.left_behind > 0 {
        line(
            "left",
            &format!(
                "{} allocations were not given back in time; they end by themselves",
                report.left_behind
            ),
        );
    }
    text
}

fn load(report: &Report, unit: &str) -> String {
    let Report { allocations, seconds, setup_seconds, .. } = report;
    match &report.media {
        Some(media) => {
            let way = if media.relay_to_relay { " relay to relay" } else { "" };
            let train = if media.train > 1 {
                format!(" in trains of {}", media.train)
            } else {
                String::new()
            };
            let s = if *allocations == 1 { "" } else { "s" };
            format!(
                "{allocations} allocation{s}, set up in {setup_seconds:.2} s; {} bytes{train} by {}, {}{way}, for {seconds:.1} s",
                media.payload, media.by, media.direction
            )
        }
        None => format!("{unit} of {allocations} clients at once for {seconds:.1} s"),
    }
}

fn delivered(report: &Report, unit: &str) -> String {
    let mut what = format!(
        "{} of {} {unit}, {}/s",
        grouped(report.delivered as f64),
        grouped(report.sent as f64),
        grouped(report.per_second)
    );
    if let Some(bits) = report.bits_per_second {
        let _ = write!(what, ", {:.1} Mbit/s of payload", bits / 1e6);
    }
    what
}

fn lost(report: &Report) -> String {
    let mut what = format!("{} ({:.3} %)", grouped(report.lost as f64), report.loss * 100.0);
    for (code, count) in &report.refused {
        let _ = write!(what, ", {} refused with {code}", grouped(*count as f64));
    }
    if report.unsent > 0 {
        let _ = write!(what, ", {} more not sent by this host", grouped(report.unsent as f64));
    }
    if report.strays > 0 {
        let _ = write!(what, ", {} damaged or astray", grouped(report.strays as f64));
    }
    what
}

fn latencies(latency: &Latency) -> String {
    let Latency { p50, p90, p99, p999, max, .. } = latency;
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        time(*p50),
        time(*p90),
        time(*p99),
        time(*p999),
        time(*max)
    )
}

fn busy(cpu: &Cpu, unit: &str) -> String {
    let mut what = format!("{:.2} s, {:.2} cores", cpu.seconds, cpu.cores);
    if let Some(each) = cpu.seconds_per_million {
        let _ = write!(what, ", {each:.3} s per million {unit}");
    }
    what
}

fn time(micros: f64) -> String {
    if micros < 1e4 { format!("{micros:.0} us") } else { format!("{:.1} ms", micros / 1e3) }
}

/// A whole number in groups of three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let shown = [0.0, 999.4, 1000.0, 1_234_567.0].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([time(83.4), time(9999.0), time(12_345.0)], ["83 us", "9999 us", "12.3 ms"]);
    }
}
