//! A run from beginning to end: the threads, the phases, the clocks, Ctrl-C.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, sleep_until};

use super::cpu;
use super::plan::{Plan, Work};
use super::report::Times;
use super::tally::Tally;
use super::text::{Ticker, progress};
use super::trouble::Trouble;
use super::worker::{Phase, Shared, Worker};
use crate::stun::Method;

/// How often the progress line changes.
const PROGRESS: Duration = Duration::from_secs(1);

/// What came of a run.
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// `None` when it ended before anything was measured.
    pub(super) times: Option<Times>,
    pub(super) trouble: Option<Trouble>,
    pub(super) interrupted: bool,
}

enum News {
    Ready,
    Ended(Box<(Tally, Option<Trouble>)>),
}

/// What is known at one end of the measurement.
struct Mark {
    at: Instant,
    server_cpu: Option<Duration>,
    generator_cpu: Option<Duration>,
}

/// Someone wants it to end.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

struct Conductor<'a> {
    plan: &'a Arc<Plan>,
    pids: &'a [u32],
    shared: Arc<Shared>,
    news: UnboundedReceiver<News>,
    interrupts: Interrupts,
    ticker: &'a mut Ticker,
    tally: Tally,
    trouble: Option<Trouble>,
    /// Threads that run, and those that are ready.
    running: usize,
    ready: usize,
    interrupted: bool,
}

/// Runs the plan. A second Ctrl-C ends the process at once.
///
/// # Errors
/// When this host has no sockets or threads for it, or there is no process `pids`.
pub(super) async fn conduct(
    plan: &Arc<Plan>,
    pids: &[u32],
    ticker: &mut Ticker,
) -> Result<Outcome, Trouble> {
    let system = |what| move |why| Trouble::System { what, why };
    cpu::time(pids).map_err(system("--server-pid"))?;
    let interrupts = Interrupts::new().map_err(system("signals"))?;
    let shared = Arc::new(Shared::default());
    let (sender, news) = unbounded_channel();
    let mut number = [0; 2];
    getrandom::fill(&mut number).map_err(|why| system("random numbers")(io::Error::other(why)))?;
    for nth in 0..plan.threads {
        let run = u16::from_be_bytes(number).wrapping_add(nth as u16);
        start(Worker::new(plan, &shared, nth, run)?, sender.clone()).map_err(system("a thread"))?;
    }
    let conductor = Conductor {
        plan,
        pids,
        shared,
        news,
        interrupts,
        ticker,
        tally: Tally::new(),
        trouble: None,
        running: plan.threads,
        ready: 0,
        interrupted: false,
    };
    Ok(conductor.run().await)
}

fn start(worker: Worker, sender: UnboundedSender<News>) -> io::Result<()> {
    let run = move || {
        // Whoever does not listen any more has given up.
        let done = worker.run(|| drop(sender.send(News::Ready)));
        let _ = sender.send(News::Ended(Box::new(done)));
    };
    thread::Builder::new().name("load".to_owned()).spawn(run).map(drop)
}

impl Conductor<'_> {
    async fn run(mut self) -> Outcome {
        let began = Instant::now();
        self.until_ready(began).await;
        let setup = began.elapsed();
        let times = if self.is_over() { None } else { self.measure(setup).await };
        self.shared.enter(Phase::Stop);
        while self.running > 0 {
            tokio::select! {
                news = self.news.recv() => self.on_news(news),
                () = self.interrupts.next() => {
                    if self.interrupted {
                        break;
                    }
                    self.interrupted = true;
                }
            }
        }
        self.ticker.clear();
        let Self { tally, trouble, interrupted, .. } = self;
        Outcome { tally, times, trouble, interrupted }
    }

    async fn until_ready(&mut self, began: Instant) {
        while self.ready < self.plan.threads && !self.is_over() {
            tokio::select! {
                news = self.news.recv() => self.on_news(news),
                () = self.interrupts.next() => self.interrupted = true,
                () = sleep(PROGRESS) => {
                    let ready = self.shared.ready.load(Ordering::Relaxed) as i64;
                    self.ticker.show(&format!(
                        "{:6.1} s  {} of {} clients are ready",
                        began.elapsed().as_secs_f64(), ready.max(0), self.plan.allocations
                    ));
                }
            }
        }
    }

    /// Warms up and measures.
    async fn measure(&mut self, setup: Duration) -> Option<Times> {
        self.shared.enter(Phase::WarmUp);
        self.let_run(self.plan.warm_up, "warming up").await;
        if self.is_over() {
            return None;
        }
        let before = self.mark();
        self.shared.enter(Phase::Measure);
        self.let_run(self.plan.duration, "").await;
        let after = self.mark();
        self.shared.enter(Phase::Stop);
        let spent = |before: Option<Duration>, after: Option<Duration>| {
            Some(after?.saturating_sub(before?))
        };
        Some(Times {
            setup,
            measured: after.at - before.at,
            server_cpu: spent(before.server_cpu, after.server_cpu),
            generator_cpu: spent(before.generator_cpu, after.generator_cpu),
            interrupted: self.interrupted,
        })
    }

    async fn let_run(&mut self, duration: Duration, phase: &str) {
        let began = Instant::now();
        let end = (began + duration).into();
        let mut last = (began, self.shared.arrived.load(Ordering::Relaxed));
        while !self.is_over() {
            tokio::select! {
                () = sleep_until(end) => return,
                news = self.news.recv() => self.on_news(news),
                () = self.interrupts.next() => self.interrupted = true,
                () = sleep_until((last.0 + PROGRESS).into()) => {
                    let (now, arrived) =
                        (Instant::now(), self.shared.arrived.load(Ordering::Relaxed));
                    let per_second = (arrived - last.1) as f64 / (now - last.0).as_secs_f64();
                    let unit = self.plan.work.unit();
                    self.ticker.show(&progress(now - began, unit, per_second, phase));
                    last = (now, arrived);
                }
            }
        }
    }

    fn mark(&self) -> Mark {
        let time = |pids: &[u32]| cpu::time(pids).ok();
        Mark {
            at: Instant::now(),
            server_cpu: if self.pids.is_empty() { None } else { time(self.pids) },
            generator_cpu: time(&[std::process::id()]),
        }
    }

    fn on_news(&mut self, news: Option<News>) {
        match news {
            Some(News::Ready) => self.ready += 1,
            Some(News::Ended(done)) => {
                let (tally, trouble) = *done;
                self.running -= 1;
                self.tally.add(&tally);
                if trouble.is_some() {
                    // The others have no reason to go on.
                    self.shared.enter(Phase::Stop);
                }
                self.trouble = self.trouble.take().or(trouble);
            }
            None => self.running = 0,
        }
    }

    fn is_over(&self) -> bool {
        self.interrupted || self.trouble.is_some() || self.running < self.plan.threads
    }
}

impl Outcome {
    /// What went wrong, if only that nothing came out.
    pub(super) fn trouble(&mut self, plan: &Plan) -> Option<Trouble> {
        if self.trouble.is_some() || self.times.is_none() || self.interrupted {
            return self.trouble.take();
        }
        let tally = &self.tally;
        let method = match plan.work {
            Work::Media => {
                let (way, sent) = tally.closed_way()?;
                return Some(Trouble::NothingArrived { way, sent });
            }
            Work::Allocate => Method::ALLOCATE,
            Work::Binding => Method::BINDING,
        };
        if tally.sent == 0 || tally.delivered > 0 {
            return None;
        }
        Some(match tally.refused.keys().next() {
            Some(code) => Trouble::AllRefused { method, code: *code },
            None => Trouble::Silent { what: method.name(), server: plan.server },
        })
    }
}

impl Interrupts {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
