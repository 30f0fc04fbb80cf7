//! What a run has come to, as data.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;
use super::plan::{Plan, Work, name};
use super::tally::Tally;

/// Of the JSON.
const VERSION: u32 = 1;

/// The report. What is not known is left out.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    version: u32,
    pub(super) uri: String,
    pub(super) server: String,
    pub(super) transport: &'static str,
    pub(super) work: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media: Option<Media>,
    pub(super) allocations: usize,
    pub(super) threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    /// Until everything was allocated.
    pub(super) setup_seconds: f64,
    /// Of the measurement.
    pub(super) seconds: f64,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    /// 0 to 1, of what was sent.
    pub(super) loss: f64,
    /// By the codes of the error responses.
    pub(super) refused: BTreeMap<u16, u64>,
    duplicates: u64,
    late: u64,
    pub(super) strays: u64,
    pub(super) unsent: u64,
    pub(super) per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bits_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_us: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generator_cpu: Option<Cpu>,
    pub(super) given_back: u64,
    pub(super) left_behind: u64,
    pub(super) interrupted: bool,
}

/// What is particular to packets through allocations.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Media {
    pub(super) by: String,
    pub(super) direction: String,
    pub(super) relay_to_relay: bool,
    pub(super) payload: usize,
    pub(super) train: usize,
}

/// In microseconds.
#[derive(Serialize)]
pub(super) struct Latency {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// CPU time during the measurement.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cpu {
    pub(super) seconds: f64,
    /// Cores that were busy.
    pub(super) cores: f64,
    /// For a million of what was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds_per_million: Option<f64>,
}

/// What the conductor has measured.
pub(super) struct Times {
    pub(super) setup: Duration,
    pub(super) measured: Duration,
    pub(super) server_cpu: Option<Duration>,
    pub(super) generator_cpu: Option<Duration>,
    pub(super) interrupted: bool,
}

impl Report {
    pub(super) fn new(uri: String, plan: &Plan, tally: &Tally, times: &Times) -> Self {
        let seconds = times.measured.as_secs_f64();
        let per_second = tally.delivered as f64 / seconds;
        let is_media = plan.work == Work::Media;
        let cpu = |time: Duration| Cpu::new(time, seconds, tally.delivered);
        Self {
            version: VERSION,
            uri,
            server: plan.server.to_string(),
            transport: plan.transport.name(),
            work: name(&plan.work),
            media: is_media.then(|| Media {
                by: name(&plan.by),
                direction: name(&plan.direction),
                relay_to_relay: plan.relay_to_relay,
                payload: plan.payload,
                train: plan.train,
            }),
            allocations: plan.allocations,
            threads: plan.threads,
            rate: plan.rate,
            setup_seconds: times.setup.as_secs_f64(),
            seconds,
            sent: tally.sent,
            delivered: tally.delivered,
            lost: tally.lost(),
            loss: if tally.sent == 0 { 0.0 } else { tally.lost() as f64 / tally.sent as f64 },
            refused: tally.refused.clone(),
            duplicates: tally.duplicates,
            late: tally.late,
            strays: tally.strays,
            unsent: tally.unsent,
            per_second,
            bits_per_second: is_media.then_some(per_second * 8.0 * plan.payload as f64),
            latency_us: Latency::of(&tally.latency),
            server_cpu: times.server_cpu.map(cpu),
            generator_cpu: times.generator_cpu.map(cpu),
            given_back: tally.given_back,
            left_behind: tally.left_behind,
            interrupted: times.interrupted,
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Option<Self> {
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let quantile = |share| histogram.quantile(share).map(micros);
        Some(Self {
            mean: histogram.mean().map(micros)?,
            p50: quantile(0.5)?,
            p90: quantile(0.9)?,
            p99: quantile(0.99)?,
            p999: quantile(0.999)?,
            max: histogram.longest().map(micros)?,
        })
    }
}

impl Cpu {
    fn new(time: Duration, seconds: f64, delivered: u64) -> Self {
        let used = time.as_secs_f64();
        Self {
            seconds: used,
            cores: used / seconds,
            seconds_per_million: (delivered > 0).then(|| used * 1e6 / delivered as f64),
        }
    }
}
