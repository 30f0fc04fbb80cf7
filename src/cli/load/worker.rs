//! One thread of load: prepare, load, measure, wait for what is still under way, give
//! back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::{Plan, Work};
use super::tally::Tally;
use super::traffic::{STREAMS, Traffic, now};
use super::trouble::Trouble;
use crate::io::{Arena, Events, RecvBatch, udp};

/// How often saturation looks for arrivals. Looking all the time would take the cache
/// lines of the sockets away from the server.
const LOOK: Duration = Duration::from_micros(40);
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How long a packet may take before the window no longer waits for it.
const STALL: Duration = Duration::from_millis(500);
/// How long a run waits for what is under way at its end.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// How long giving back may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Batches of one socket in a turn at most.
const BATCHES: usize = 4;
/// Events of one wait.
const EVENTS: usize = 256;

/// How far a run has come. It only goes down the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Clients connect and allocate.
    Prepare,
    /// The load runs, unmeasured.
    WarmUp,
    /// The load runs.
    Measure,
    /// Nothing more is sent.
    Stop,
}

/// What the threads and their conductor tell each other.
#[derive(Default)]
pub(super) struct Shared {
    phase: AtomicU8,
    /// Clients that are ready.
    pub(super) ready: AtomicU64,
    /// Sent and arrived so far, measured or not.
    pub(super) sent: AtomicU64,
    pub(super) arrived: AtomicU64,
}

impl Shared {
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Release);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Prepare,
            1 => Phase::WarmUp,
            2 => Phase::Measure,
            _ => Phase::Stop,
        }
    }
}

/// A thread's part.
pub(super) struct Worker {
    traffic: Traffic,
    shared: Arc<Shared>,
    events: Events,
    inbox: Arena,
    batch: RecvBatch,
    next_tick: Instant,
    next_write_off: Instant,
    /// What has been published of `ready`, `sent` and `arrived`.
    published: (u64, u64, u64),
    /// The pace of a storm: begun for it, and when.
    storm: Storm,
}

/// Allocations that are due.
struct Storm {
    rate: Option<f64>,
    began: Instant,
    due: f64,
}

impl Worker {
    /// A worker with its sockets open.
    pub(super) fn new(
        plan: &Arc<Plan>,
        shared: &Arc<Shared>,
        thread: usize,
        run: u16,
    ) -> Result<Self, Trouble> {
        let traffic = Traffic::new(Arc::clone(plan), thread, run)?;
        let share = traffic.flows.len() as f64 / plan.allocations as f64;
        let now = Instant::now();
        Ok(Self {
            traffic,
            shared: Arc::clone(shared),
            events: Events::with_capacity(EVENTS),
            inbox: Arena::new(udp::BATCH).map_err(|why| Trouble::System { what: "memory", why })?,
            batch: RecvBatch::new(),
            next_tick: now,
            next_write_off: now,
            published: (0, 0, 0),
            storm: Storm { rate: plan.rate.map(|rate| rate * share), began: now, due: 0.0 },
        })
    }

    /// Does all of it. `ready` is called when everything is prepared. What was counted is
    /// there even if something went wrong.
    pub(super) fn run(mut self, ready: impl FnOnce()) -> (Tally, Option<Trouble>) {
        let done = self.prepare(ready).and_then(|()| self.load());
        let done = done.and_then(|()| self.await_stragglers());
        self.traffic.sum_up();
        // What goes wrong on the way out shows in what is left behind.
        let _ = self.leave();
        self.traffic.tally.left_behind += self.traffic.left_behind();
        (self.traffic.tally, done.err())
    }

    fn prepare(&mut self, ready: impl FnOnce()) -> Result<(), Trouble> {
        let mut next = 0;
        while !self.traffic.prepare(&mut next)? {
            if self.shared.phase() == Phase::Stop {
                return Ok(());
            }
            self.turn(TICK)?;
        }
        ready();
        // Until the others are ready, too.
        while self.shared.phase() == Phase::Prepare {
            self.turn(TICK)?;
        }
        Ok(())
    }

    fn load(&mut self) -> Result<(), Trouble> {
        let began = Instant::now();
        self.traffic.begin(began);
        self.storm.began = began;
        let mut look = began;
        loop {
            match self.shared.phase() {
                Phase::Stop => return Ok(()),
                Phase::Measure if !self.traffic.measuring => self.traffic.measure(),
                _ => {}
            }
            let wait = self.wait(look);
            self.turn(wait)?;
            let at = Instant::now();
            look = at + LOOK;
            if self.traffic.plan.work == Work::Allocate {
                self.storm(at)?;
                self.traffic.settle()?;
            } else {
                self.traffic.fill(at);
            }
            self.traffic.flush()?;
        }
    }

    /// How long to sleep. At saturation the time is spent awake: being woken takes longer.
    fn wait(&self, look: Instant) -> Duration {
        let at = Instant::now();
        let plan = &self.traffic.plan;
        match (plan.work, plan.rate) {
            // Whatever happens next wakes.
            (Work::Allocate, None) => TICK,
            (Work::Allocate, Some(_)) => self.storm.wait(at).min(TICK),
            (_, Some(_)) => {
                let waits = self.traffic.courses.iter().filter_map(|course| course.wait(at));
                waits.min().unwrap_or(TICK).min(TICK)
            }
            (_, None) => {
                while Instant::now() < look {
                    std::hint::spin_loop();
                }
                Duration::ZERO
            }
        }
    }

    fn storm(&mut self, at: Instant) -> Result<(), Trouble> {
        let due = self.storm.due_at(at);
        let begun = self.traffic.storm(due)?;
        self.storm.due += begun as f64;
        Ok(())
    }

    /// What is under way at the end still counts.
    fn await_stragglers(&mut self) -> Result<(), Trouble> {
        let deadline = Instant::now() + STRAGGLERS;
        let is_storm = self.traffic.plan.work == Work::Allocate;
        while Instant::now() < deadline {
            let waiting = if is_storm {
                self.traffic.flows.iter().any(super::flow::Flow::is_on_its_way)
            } else {
                self.traffic.in_flight() > 0
            };
            if !waiting {
                break;
            }
            self.turn(Duration::from_millis(1))?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Trouble> {
        let deadline = Instant::now() + FAREWELL;
        self.traffic.leave();
        while !self.traffic.go_on_leaving() && Instant::now() < deadline {
            self.traffic.settle()?;
            self.traffic.flush()?;
            self.turn(TICK)?;
        }
        self.traffic.settle()?;
        self.traffic.flush()
    }

    /// Waits for something to happen and does what follows from it.
    fn turn(&mut self, wait: Duration) -> Result<(), Trouble> {
        let system = |why| Trouble::System { what: "epoll", why };
        let events = self.traffic.poll.wait(&mut self.events, Some(wait)).map_err(system)?;
        self.traffic.now = now();
        for index in 0..events {
            let token = self.events.at(index).token;
            match token.checked_sub(STREAMS) {
                Some(client) => self.traffic.on_stream(client as usize, Instant::now())?,
                None => self.receive(token as usize)?,
            }
        }
        if self.traffic.now.mono >= self.next_tick {
            self.next_tick = self.traffic.now.mono + TICK;
            self.traffic.tick()?;
            self.publish();
        }
        if self.traffic.now.mono >= self.next_write_off {
            self.next_write_off = self.traffic.now.mono + STALL;
            self.traffic.write_off();
        }
        self.traffic.settle()?;
        self.traffic.flush()
    }

    fn receive(&mut self, socket: usize) -> Result<(), Trouble> {
        let Self { traffic, inbox, batch, .. } = self;
        for _ in 0..BATCHES {
            let received = traffic.sockets[socket]
                .recv_batch(inbox, batch, udp::BATCH)
                .map_err(|why| Trouble::System { what: "a UDP socket", why })?;
            let at = Instant::now();
            for train in batch.iter() {
                for range in train.datagrams() {
                    let datagram = &inbox.bytes(train.slot)[range];
                    traffic.on_datagram(socket, train.local, datagram, at)?;
                }
            }
            inbox.reset();
            if received.drained {
                break;
            }
        }
        Ok(())
    }

    /// Tells the conductor how things are.
    fn publish(&mut self) {
        let Traffic { sent, arrived, .. } = self.traffic;
        let ready = self.traffic.ready() as u64;
        let (old_ready, old_sent, old_arrived) = self.published;
        // Wrapping: what was ready may no longer be.
        self.shared.ready.fetch_add(ready.wrapping_sub(old_ready), Ordering::Relaxed);
        self.shared.sent.fetch_add(sent - old_sent, Ordering::Relaxed);
        self.shared.arrived.fetch_add(arrived - old_arrived, Ordering::Relaxed);
        self.published = (ready, sent, arrived);
    }
}

impl Storm {
    /// How many may begin now.
    fn due_at(&mut self, at: Instant) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        let wanted = rate * at.saturating_duration_since(self.began).as_secs_f64();
        // What could not begin in time is not made up for.
        self.due = self.due.max(wanted - rate / 10.0 - 1.0);
        (wanted - self.due) as usize
    }

    fn wait(&self, at: Instant) -> Duration {
        let Some(rate) = self.rate else { return TICK };
        let next = Duration::try_from_secs_f64((self.due + 1.0) / rate).unwrap_or(Duration::MAX);
        next.saturating_sub(at.saturating_duration_since(self.began))
    }
}
