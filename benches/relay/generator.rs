//! The load: numbered packets through a relay, counted where they come out.
//!
//! Saturation is closed-loop. A lane (one direction) keeps at most
//! [`Load::window`] packets on the way, [`Load::flow_window`] of them in one
//! flow, and sends on as they arrive: the server always has a backlog, but one
//! that fits into the socket buffers. An open loop would overrun them, and the
//! CPU time of the packets that a server reads and then loses would be charged
//! to the few that it delivers.
//!
//! A packet counts when it carries this run's number, its flow's channel or peer,
//! and a sequence number not seen before; every 64th is compared byte by byte.

use std::io;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::clients::Clients;
use crate::fleet::{Fleet, channel};
use crate::packet::{self, By, Far, HEADROOM, Stamp};
use crate::streams::Streams;
use crate::sys::{self, Batch, SLOT, Shape, TRAIN_SLOT};

/// Packets, or trains of them, moved by one system call at most.
const BATCH: usize = 64;
/// How often a lane looks for arrivals. Looking all the time would take the
/// cache lines of the socket away from the server, which pays for getting them
/// back with every packet that it delivers.
const LOOK: Duration = Duration::from_micros(40);
/// A lane from which nothing arrived for so long writes off what is under way.
const STALL: Duration = Duration::from_millis(100);
/// How long nothing must arrive before a measurement begins.
const SILENCE: Duration = Duration::from_millis(30);
const SILENCE_DEADLINE: Duration = Duration::from_secs(5);

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// Client to peer.
    Up,
    /// Peer to client.
    Down,
    /// Client to client, through both their allocations.
    Across,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Bytes of application data in a packet.
    pub(crate) payload: usize,
    /// Consecutive packets of one flow. Over UDP more than one leave the generator
    /// with one buffer (`UDP_SEGMENT`).
    pub(crate) train: usize,
    /// Take trains as they come (`UDP_GRO`).
    pub(crate) take_trains: bool,
    /// Packets under way in one direction.
    pub(crate) window: usize,
    /// Packets under way in one flow and direction.
    pub(crate) flow_window: usize,
    /// Packets per second of all directions together; `None` saturates.
    pub(crate) rate: Option<f64>,
}

/// A relay that is ready: where its server listens and what it allocated.
pub(crate) struct Relay<'a> {
    pub(crate) pid: u32,
    pub(crate) server: SocketAddrV4,
    /// The relayed transport address of each flow.
    pub(crate) relayed: &'a [SocketAddrV4],
    pub(crate) clients: &'a Clients,
    pub(crate) peers: &'a Fleet,
    pub(crate) by: By,
}

/// One-way time through a relay, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) median: f64,
    /// 99 of 100 packets took no longer.
    pub(crate) p99: f64,
}

/// What was counted in one measurement.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    /// CPU time of the server in nanoseconds.
    pub(crate) cpu: u64,
    /// Nanoseconds that its threads waited for the core.
    pub(crate) waited: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    /// Packets that came after they had been written off, twice, or from an
    /// earlier measurement.
    pub(crate) late: u64,
    /// Packets that were damaged or misdelivered.
    pub(crate) strays: u64,
    /// Of loads that are paced: at saturation it would be that of the queues.
    pub(crate) latency: Option<Latency>,
}

impl Sample {
    /// CPU seconds per million packets delivered.
    pub(crate) fn cost(&self) -> f64 {
        self.cpu as f64 / 1e3 / self.delivered as f64
    }

    /// Packets delivered per second.
    pub(crate) fn rate(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }

    /// Share of the packets that was lost, 0 to 1; if nothing came out, all.
    pub(crate) fn loss(&self) -> f64 {
        if self.delivered == 0 {
            return 1.0;
        }
        self.lost as f64 / (self.lost + self.delivered) as f64
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

/// Loads `relay` for `warm_up`, then for `duration` under measurement.
pub(crate) fn measure(
    relay: &Relay<'_>,
    directions: &[Direction],
    load: &Load,
    warm_up: Duration,
    duration: Duration,
) -> io::Result<Sample> {
    await_silence(relay)?;
    let run = fresh_run();
    let lane = |&direction| Lane::new(direction, run, relay, load);
    let mut lanes: Vec<Lane<'_>> = directions.iter().map(lane).collect::<io::Result<_>>()?;
    drive(&mut lanes, load, warm_up)?;
    lanes.iter_mut().for_each(|lane| lane.latencies.clear());
    let (begin, before, start) = (totals(&lanes), sys::cpu_time(relay.pid)?, Instant::now());
    drive(&mut lanes, load, duration)?;
    let (end, after, seconds) =
        (totals(&lanes), sys::cpu_time(relay.pid)?, start.elapsed().as_secs_f64());
    Ok(Sample {
        seconds,
        cpu: after.ran - before.ran,
        waited: after.waited - before.waited,
        delivered: end.delivered - begin.delivered,
        lost: end.lost - begin.lost,
        late: end.late,
        strays: end.strays,
        latency: latency(&mut lanes),
    })
}

/// Discards what an earlier measurement left under way.
fn await_silence(relay: &Relay<'_>) -> io::Result<()> {
    let mut batch = Batch::new(BATCH);
    let (start, mut last) = (Instant::now(), Instant::now());
    while last.elapsed() < SILENCE {
        let to_clients = relay.clients.receive(&mut batch, |_| ())?;
        if to_clients || batch.receive(relay.peers.descriptor(), 0, BATCH, 0)? > 0 {
            last = Instant::now();
        }
        if start.elapsed() > SILENCE_DEADLINE {
            return Err(io::Error::other("packets of an earlier run do not stop arriving"));
        }
    }
    Ok(())
}

fn drive(lanes: &mut [Lane<'_>], load: &Load, duration: Duration) -> io::Result<()> {
    let start = Instant::now();
    let mut look = start;
    let rate = load.rate.map(|rate| rate / lanes.len() as f64);
    lanes.iter_mut().for_each(|lane| lane.begin(start));
    loop {
        let now = Instant::now();
        if now - start >= duration {
            return Ok(());
        }
        let looks = now >= look;
        if looks {
            look = now + LOOK;
        } else if rate.is_none() {
            std::hint::spin_loop();
            continue;
        }
        for lane in &mut *lanes {
            if looks {
                lane.drain(now)?;
            }
            let credit = match rate {
                None => lane.credit(),
                Some(rate) => lane.due(rate, now - start),
            };
            if credit > 0 {
                lane.fill(credit)?;
            }
        }
    }
}

fn totals(lanes: &[Lane<'_>]) -> Sample {
    lanes.iter().fold(Sample::default(), |sum, lane| Sample {
        delivered: sum.delivered + lane.delivered,
        lost: sum.lost + lane.lost,
        late: sum.late + lane.late,
        strays: sum.strays + lane.strays,
        ..sum
    })
}

fn latency(lanes: &mut [Lane<'_>]) -> Option<Latency> {
    let mut all: Vec<u64> =
        lanes.iter_mut().flat_map(|lane| std::mem::take(&mut lane.latencies)).collect();
    all.sort_unstable();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100] as f64 / 1e3;
    (!all.is_empty()).then(|| Latency { median: at(50), p99: at(99) })
}

/// Nanoseconds since the epoch, on the clock that the kernel marks arrivals with.
fn unix_time() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64
}

/// A number that no other measurement on this machine has at the same time.
fn fresh_run() -> u32 {
    (unix_time() >> 10) as u32 ^ std::process::id().rotate_left(16)
}

#[derive(Clone, Copy, Default)]
struct Flow {
    /// Number of the next packet to send.
    next: u64,
    /// Number of the next packet to arrive; loopback keeps the order.
    expected: u64,
}

struct Lane<'a> {
    direction: Direction,
    run: u32,
    load: Load,
    relay: &'a Relay<'a>,
    flows: Vec<Flow>,
    cursor: usize,
    in_flight: usize,
    sent_since_start: u64,
    last_arrival: Instant,
    delivered: u64,
    lost: u64,
    late: u64,
    strays: u64,
    /// Nanoseconds on the way, of every packet of a paced load.
    latencies: Vec<u64>,
    outgoing: Batch,
    incoming: Batch,
}

impl<'a> Lane<'a> {
    fn new(direction: Direction, run: u32, relay: &'a Relay<'a>, load: &Load) -> io::Result<Self> {
        let sending = Shape { slot: SLOT, pieces: load.train, control: false };
        let mut outgoing = Batch::shaped(BATCH, sending);
        (0..BATCH).for_each(|i| packet::fill(outgoing.slot_mut(i)));
        let mut lane = Self {
            direction,
            run: run.wrapping_add(direction as u32),
            load: *load,
            relay,
            flows: vec![Flow::default(); relay.relayed.len()],
            cursor: 0,
            in_flight: 0,
            sent_since_start: 0,
            last_arrival: Instant::now(),
            delivered: 0,
            lost: 0,
            late: 0,
            strays: 0,
            latencies: Vec::new(),
            outgoing,
            incoming: Batch::default(),
        };
        if let End::Datagrams(sink) = lane.sink() {
            let trains = load.train > 1 && load.take_trains;
            if trains {
                sys::receive_trains(sink.descriptor())?;
            }
            if load.rate.is_some() {
                sys::note_arrivals(sink.descriptor())?;
            }
            let slot = if trains { TRAIN_SLOT } else { SLOT };
            lane.incoming = Batch::shaped(BATCH, Shape { slot, pieces: 1, control: true });
        }
        Ok(lane)
    }

    fn begin(&mut self, now: Instant) {
        self.sent_since_start = 0;
        self.last_arrival = now;
    }

    /// Packets that the window has room for, when enough for a good batch.
    fn credit(&self) -> usize {
        let credit = self.load.window.saturating_sub(self.in_flight).min(BATCH);
        let worthwhile = (self.load.window / 8).clamp(1, BATCH / 2).max(self.load.train);
        if credit >= worthwhile { credit } else { 0 }
    }

    /// Packets that are due after `elapsed` at `rate`, when a whole train is.
    fn due(&self, rate: f64, elapsed: Duration) -> usize {
        let due = (rate * elapsed.as_secs_f64()) as u64 - self.sent_since_start;
        if due >= self.load.train as u64 { due.min(BATCH as u64) as usize } else { 0 }
    }

    /// Sends trains round robin, up to `credit` packets.
    fn fill(&mut self, credit: usize) -> io::Result<()> {
        let train = self.load.train;
        let sent = if self.load.rate.is_some() { unix_time() } else { 0 };
        let mut count = 0;
        for _ in 0..self.flows.len() {
            let flow = self.cursor;
            let under_way = (self.flows[flow].next - self.flows[flow].expected) as usize;
            let room = match self.load.rate {
                None => self.load.flow_window.max(train).saturating_sub(under_way),
                Some(_) => BATCH,
            };
            // One flow alone fills its window; several take turns by train.
            let wanted = if self.flows.len() == 1 { credit / train * train } else { train };
            let packets = wanted.min(room / train * train);
            if count + packets > credit {
                break;
            }
            (0..packets).for_each(|at| self.write(count + at, flow, sent));
            count += packets;
            self.cursor = (flow + 1) % self.flows.len();
        }
        match self.source() {
            End::Datagrams(fleet) => {
                self.outgoing.send_all(fleet.descriptor(), 0, count / train);
            }
            End::Streams(streams) => streams.flush()?,
        }
        self.in_flight += count;
        self.sent_since_start += count as u64;
        Ok(())
    }

    /// Writes the next packet of `flow` into slot `i`, as a message or as a part of a
    /// train, which begins at a multiple of its length.
    fn write(&mut self, i: usize, flow: usize, sent: u64) {
        let sequence = self.flows[flow].next;
        self.flows[flow].next += 1;
        let stamp = Stamp { run: self.run, flow, sequence, sent };
        let (far, train) = (self.far(flow), self.load.train);
        let slot = self.outgoing.slot_mut(i);
        stamp.write(slot);
        let (start, end, to) = match self.direction {
            Direction::Up | Direction::Across => {
                let (start, end) = packet::wrap(slot, far, self.load.payload);
                (start, end, self.relay.server)
            }
            Direction::Down => (HEADROOM, HEADROOM + self.load.payload, self.relay.relayed[flow]),
        };
        match self.source() {
            End::Datagrams(fleet) => {
                let message = i / train;
                if i.is_multiple_of(train) {
                    let segment = (train > 1).then_some((end - start) as u16);
                    self.outgoing.begin(message, to, Some(fleet.address(flow)), segment);
                }
                self.outgoing.add(message, i, start, end - start);
            }
            // On a stream a frame is padded (RFC 8656 section 12.5).
            End::Streams(streams) => {
                let frame = (end - start).next_multiple_of(4);
                streams.push(flow, &self.outgoing.slot(i)[start..start + frame]);
            }
        }
    }

    /// Takes what has arrived.
    fn drain(&mut self, now: Instant) -> io::Result<()> {
        if let End::Streams(streams) = self.source() {
            // What there was no room for before.
            streams.flush()?;
        }
        match self.sink() {
            End::Datagrams(fleet) => self.drain_datagrams(now, fleet)?,
            End::Streams(streams) => {
                let (server, read) = (self.relay.server, unix_time());
                if streams.receive(|flow, frame| self.count(frame, Some(flow), server, read))? {
                    self.last_arrival = now;
                }
            }
        }
        if self.in_flight > 0 && now - self.last_arrival > STALL {
            self.write_off(now);
        }
        Ok(())
    }

    fn drain_datagrams(&mut self, now: Instant, sink: &Fleet) -> io::Result<()> {
        for _ in 0..4 {
            let mut incoming = std::mem::take(&mut self.incoming);
            let got = incoming.receive(sink.descriptor(), 0, BATCH, 0)?;
            for i in 0..got {
                let (source, arrived) = (incoming.source(i), incoming.arrived(i));
                let datagrams = incoming.datagrams(i);
                datagrams.for_each(|bytes| self.count(bytes, None, source, arrived.unwrap_or(0)));
            }
            self.incoming = incoming;
            if got > 0 {
                self.last_arrival = now;
            }
            if got < BATCH {
                break;
            }
        }
        Ok(())
    }

    /// Counts a packet from `source` that `arrived` then, on the connection of a flow if
    /// there are any.
    fn count(
        &mut self,
        packet: &[u8],
        connection: Option<usize>,
        source: SocketAddrV4,
        arrived: u64,
    ) {
        let Some(stamp) = self.recognise(packet, connection, source) else {
            self.strays += 1;
            return;
        };
        let Stamp { run, flow, sequence, sent } = stamp;
        let state = &mut self.flows[flow];
        if run != self.run || sequence < state.expected {
            self.late += 1;
            return;
        }
        let skipped = sequence - state.expected;
        state.expected = sequence + 1;
        self.lost += skipped;
        self.delivered += 1;
        self.in_flight -= 1 + skipped as usize;
        if self.load.rate.is_some() {
            self.latencies.push(arrived.saturating_sub(sent));
        }
    }

    /// The stamp of a packet that came out where it should.
    fn recognise(
        &self,
        packet: &[u8],
        connection: Option<usize>,
        source: SocketAddrV4,
    ) -> Option<Stamp> {
        let (far, payload) = match self.direction {
            Direction::Up => (None, packet),
            Direction::Down | Direction::Across => {
                let (far, payload) = packet::unwrap(packet)?;
                (Some(far), payload)
            }
        };
        let stamp = Stamp::read(payload)?;
        let state = self.flows.get(stamp.flow)?;
        let placed = match far {
            None => source == self.relay.relayed[stamp.flow],
            Some(far) => {
                source == self.relay.server
                    && connection.is_none_or(|of| of == self.receiver(stamp.flow))
                    && far == self.sender(stamp.flow)
            }
        };
        let of_this_run = stamp.run == self.run;
        let numbered = payload.len() == self.load.payload && stamp.sequence < state.next;
        let intact = stamp.sequence % 64 != 0 || packet::is_intact(payload);
        let known = placed && intact && (numbered || !of_this_run);
        known.then_some(stamp)
    }

    /// Whom the client of `flow` sends to.
    fn far(&self, flow: usize) -> Far {
        match self.relay.by {
            By::Channel => Far::Channel(channel(flow)),
            By::Send if self.direction == Direction::Across => {
                Far::Peer(self.relay.relayed[partner(flow)])
            }
            By::Send => Far::Peer(Fleet::peer_address(flow, self.relay.peers.port())),
        }
    }

    /// The client that gets what is sent in `flow`.
    fn receiver(&self, flow: usize) -> usize {
        if self.direction == Direction::Across { partner(flow) } else { flow }
    }

    /// Whom that client hears from.
    fn sender(&self, flow: usize) -> Far {
        match (self.relay.by, self.direction) {
            (By::Channel, _) => Far::Channel(channel(self.receiver(flow))),
            (By::Send, Direction::Across) => Far::Peer(self.relay.relayed[flow]),
            (By::Send, _) => Far::Peer(Fleet::peer_address(flow, self.relay.peers.port())),
        }
    }

    fn write_off(&mut self, now: Instant) {
        for flow in &mut self.flows {
            self.lost += flow.next - flow.expected;
            flow.expected = flow.next;
        }
        self.in_flight = 0;
        self.last_arrival = now;
    }

    fn source(&self) -> End<'a> {
        match self.direction {
            Direction::Up | Direction::Across => End::of(self.relay.clients),
            Direction::Down => End::Datagrams(self.relay.peers),
        }
    }

    fn sink(&self) -> End<'a> {
        match self.direction {
            Direction::Up => End::Datagrams(self.relay.peers),
            Direction::Down | Direction::Across => End::of(self.relay.clients),
        }
    }
}

/// The other allocation of a pair.
pub(crate) fn partner(flow: usize) -> usize {
    flow ^ 1
}

/// Where a lane's packets leave from, or arrive.
enum End<'a> {
    Datagrams(&'a Fleet),
    Streams(&'a Streams),
}

impl<'a> End<'a> {
    fn of(clients: &'a Clients) -> Self {
        match clients {
            Clients::Datagrams(fleet) => Self::Datagrams(fleet),
            Clients::Streams(streams) => Self::Streams(streams),
        }
    }
}
