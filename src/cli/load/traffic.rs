//! The clients of one thread, their peers, and the packets between them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::course::{Course, Pace, Way};
use super::flow::{Flow, State, client};
use super::lane::{Arrival, Lane};
use super::link::{Link, frames};
use super::outbox::{Outbox, Path};
use super::plan::{Direction, Plan, Work};
use super::stamp::{self, Clock, Stamp};
use super::tally::Tally;
use super::trouble::Trouble;
use super::wire::{self, Packet, Received};
use crate::io::{Interest, MAX_DATAGRAM, Poll, UdpOptions, UdpSocket};
use crate::net::Now;

/// Index of the peers' socket.
pub(super) const PEERS: usize = 0;
/// Tokens of connections: from here on, by client.
pub(super) const STREAMS: u64 = 1 << 32;
/// Room for what arrives between two looks, in bytes; the kernel gives what it may.
const MANY: usize = 4 << 20;
const FEW: usize = 1 << 19;
/// Below the ports that servers relay at (49152 and up) and those that the kernel gives.
const PEER_PORTS: std::ops::Range<u16> = 10_000..20_000;
const PEER_PORT_ATTEMPTS: u32 = 300;
/// One packet in so many is compared byte by byte.
const COMPARED: u32 = 64;

/// All that one thread has.
pub(super) struct Traffic {
    pub(super) plan: Arc<Plan>,
    /// The peers' socket, then those of clients.
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) poll: Poll,
    pub(super) flows: Vec<Flow>,
    /// Index of the first client among those of all threads.
    first: usize,
    lanes: Vec<Lane>,
    pub(super) courses: Vec<Course>,
    pub(super) outbox: Outbox,
    pub(super) tally: Tally,
    /// Whether the measurement runs.
    pub(super) measuring: bool,
    /// Whether what the server has is given back, and nothing else is begun.
    pub(super) leaving: bool,
    /// Clients to whom something has happened.
    pub(super) touched: Vec<usize>,
    /// Connections with something to write.
    pub(super) to_flush: Vec<usize>,
    /// Clients that may begin, in a storm; and those that begin again after a pause.
    pub(super) idle: Vec<usize>,
    pub(super) resting: Vec<usize>,
    /// Sent and arrived since the beginning, for the progress line.
    pub(super) sent: u64,
    pub(super) arrived: u64,
    pub(super) now: Now,
    clock: Clock,
    run: u16,
    payload: Vec<u8>,
    room: Vec<u8>,
}

impl Traffic {
    /// Opens the sockets of a thread.
    pub(super) fn new(plan: Arc<Plan>, thread: usize, run: u16) -> Result<Self, Trouble> {
        let share = plan.share(thread);
        let system = |why| Trouble::System { what: "sockets", why };
        let payload = wire::template(plan.payload);
        let poll = Poll::new().map_err(system)?;
        let sockets = sockets(&plan, share.len())?;
        for (token, socket) in (0u64..).zip(&sockets) {
            poll.add(socket, token, Interest::READ).map_err(system)?;
        }
        let mut traffic = Self {
            sockets,
            poll,
            flows: Vec::with_capacity(share.len()),
            first: share.start,
            lanes: Vec::new(),
            courses: Vec::new(),
            outbox: Outbox::new(&payload).map_err(system)?,
            tally: Tally::new(),
            measuring: false,
            leaving: false,
            touched: Vec::new(),
            to_flush: Vec::new(),
            idle: Vec::new(),
            resting: Vec::new(),
            sent: 0,
            arrived: 0,
            now: now(),
            clock: Clock::start(),
            run,
            payload,
            room: vec![0; MAX_DATAGRAM],
            plan,
        };
        for nth in 0..share.len() {
            let path = traffic.path(nth);
            let client = traffic.new_client(nth)?;
            traffic.flows.push(Flow::new(path, client));
        }
        traffic.lay_courses();
        Ok(traffic)
    }

    /// A state machine for a client that begins.
    pub(super) fn new_client(&self, flow: usize) -> Result<crate::client::Client, Trouble> {
        let identities = &self.plan.identities;
        let identity = &identities[(self.first + flow) % identities.len()];
        client(self.plan.transport, identity, self.plan.work == Work::Media)
    }

    /// Where a client's datagrams or connections leave.
    fn path(&self, flow: usize) -> Path {
        let from = self.plan.shares_socket.then(|| source(self.first + flow));
        let socket = if self.plan.shares_socket { PEERS + 1 } else { PEERS + 1 + flow };
        Path { socket, from, to: self.plan.server }
    }

    /// A five-tuple that the client has not had for long: a server may keep one for a while
    /// after its allocation has ended, and refuse another by it (437).
    pub(super) fn renew_path(&mut self, flow: usize) -> Result<(), Trouble> {
        self.flows[flow].rounds += 1;
        let rounds = self.flows[flow].rounds;
        if self.plan.shares_socket {
            let round = rounds % (SOURCES / self.plan.allocations);
            let from = source(round * self.plan.allocations + self.first + flow);
            self.flows[flow].path.from = Some(from);
        } else if rounds > 1 && !self.plan.transport.is_stream() {
            // What is still to be sent belongs to the old socket.
            self.outbox.flush(&self.sockets);
            let socket = client_socket(&self.plan, &own_options())?;
            let index = self.flows[flow].path.socket;
            self.poll
                .add(&socket, index as u64, Interest::READ)
                .map_err(|why| Trouble::System { what: "epoll", why })?;
            self.sockets[index] = socket;
        }
        Ok(())
    }

    /// Who sends which way. A lane is known by its index, so they are laid once.
    fn lay_courses(&mut self) {
        let plan = Arc::clone(&self.plan);
        let flows = self.flows.len();
        let mut ways: Vec<(Way, Vec<usize>)> = Vec::new();
        match plan.work {
            Work::Allocate => self.idle.extend(0..flows),
            Work::Binding => ways.push((Way::Binding, (0..flows).collect())),
            Work::Media if plan.relay_to_relay => {
                let sends = |flow: &usize| {
                    plan.sends(if flow.is_multiple_of(2) { Direction::Up } else { Direction::Down })
                };
                ways.push((Way::Across, (0..flows).filter(sends).collect()));
            }
            Work::Media => {
                let all = [(Way::Up, Direction::Up), (Way::Down, Direction::Down)];
                let wanted = all.into_iter().filter(|(_, direction)| plan.sends(*direction));
                ways.extend(wanted.map(|(way, _)| (way, (0..flows).collect())));
            }
        }
        let share = flows as f64 / plan.allocations as f64 / ways.len().max(1) as f64;
        let frame = plan.payload + 4;
        for (way, senders) in ways {
            let pace = match plan.rate {
                Some(rate) => Pace::Rate(rate * share),
                None => {
                    Pace::saturating(plan.window, plan.train, frame, plan.transport.is_stream())
                }
            };
            let start = self.lanes.len();
            self.lanes.extend(senders.into_iter().map(Lane::new));
            self.courses.push(Course::new(way, start..self.lanes.len(), pace, plan.train));
        }
    }
}

/// Sending.
impl Traffic {
    /// Sends what may be sent now.
    pub(super) fn fill(&mut self, at: Instant) {
        for course in 0..self.courses.len() {
            let credit = self.courses[course].credit(at);
            if credit > 0 {
                self.send_packets(course, credit, self.clock.tick(at));
            }
        }
    }

    /// Whole trains, lane by lane, at most one turn of each.
    fn send_packets(&mut self, course: usize, credit: usize, tick: u32) {
        let mut left = credit;
        for _ in 0..self.courses[course].lanes.len() {
            let lanes = &self.lanes;
            let (lane, packets) = self.courses[course].next(left, |lane| lanes[lane].under_way());
            for _ in 0..packets {
                self.send_packet(self.courses[course].way, lane, tick);
            }
            left -= packets;
            if left < self.plan.train {
                break;
            }
        }
        self.courses[course].left(credit - left);
        self.sent += (credit - left) as u64;
    }

    #[inline]
    fn send_packet(&mut self, way: Way, lane: usize, tick: u32) {
        let Self { plan, flows, lanes, outbox, sockets, payload, .. } = self;
        let sequence = lanes[lane].take_number();
        let stamp = Stamp { run: self.run, lane: lane as u16, sequence, sent: tick };
        let index = lanes[lane].flow;
        let flow = &mut flows[index];
        let packet = match way {
            Way::Down => {
                let to = flow.relayed.expect("a load begins when all have an allocation");
                let path = Path { socket: PEERS, from: None, to };
                outbox.push(sockets, path, &Packet::from_peer(stamp, plan.payload));
                return;
            }
            Way::Binding => Packet::binding(stamp),
            Way::Up | Way::Across => {
                let peer = flow.peer.expect("a load begins when all have a peer");
                let is_stream = plan.transport.is_stream();
                Packet::to_peer(plan.by, peer, is_stream, stamp, plan.payload)
            }
        };
        let Some(link) = &mut flow.link else { return };
        link.send_packet(outbox, sockets, &packet, payload);
        if matches!(link, Link::Stream(_)) && self.to_flush.last() != Some(&index) {
            self.to_flush.push(index);
        }
    }

    /// Hands everything to the kernel.
    pub(super) fn flush(&mut self) -> Result<(), Trouble> {
        self.outbox.flush(&self.sockets);
        while let Some(index) = self.to_flush.pop() {
            let flow = &mut self.flows[index];
            let Some(Link::Stream(stream)) = &mut flow.link else { continue };
            let awaits_room = match stream.flush() {
                Ok(done) => !done,
                Err(trouble) => {
                    self.on_broken(index, trouble)?;
                    continue;
                }
            };
            if awaits_room != flow.awaits_room {
                flow.awaits_room = awaits_room;
                let interest = if awaits_room { Interest::READ_WRITE } else { Interest::READ };
                let token = STREAMS + index as u64;
                self.poll
                    .modify(&stream.socket, token, interest)
                    .map_err(|why| Trouble::System { what: "epoll", why })?;
            }
        }
        Ok(())
    }
}

/// Receiving.
impl Traffic {
    /// A datagram at one of the sockets.
    #[inline]
    pub(super) fn on_datagram(
        &mut self,
        socket: usize,
        local: Option<IpAddr>,
        datagram: &[u8],
        at: Instant,
    ) -> Result<(), Trouble> {
        let tick = self.clock.tick(at);
        if socket == PEERS {
            self.on_payload(None, datagram, tick);
            return Ok(());
        }
        let index = match local {
            Some(local) => index_of(local)
                .and_then(|index| (index % self.plan.allocations).checked_sub(self.first)),
            None => Some(socket - PEERS - 1),
        };
        let Some(index) = index.filter(|index| *index < self.flows.len()) else { return Ok(()) };
        match &mut self.flows[index].link {
            Some(Link::Datagrams(_)) => self.on_message(index, datagram, tick),
            Some(Link::Dtls(dtls)) => {
                dtls.take(datagram);
                self.touched.push(index);
                if self.flows[index].state != State::Connecting {
                    let read = self.read_dtls(index, tick);
                    return read.or_else(|trouble| self.on_broken(index, trouble));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn read_dtls(&mut self, index: usize, tick: u32) -> Result<(), Trouble> {
        let mut room = std::mem::take(&mut self.room);
        let done = loop {
            let Some(Link::Dtls(dtls)) = &mut self.flows[index].link else { break Ok(()) };
            match dtls.read(&mut room) {
                Ok(Some(len)) => self.on_message(index, &room[..len], tick),
                Ok(None) => break Ok(()),
                Err(trouble) => break Err(trouble),
            }
        };
        self.room = room;
        done
    }

    /// A connection with something to read, or with room to write.
    pub(super) fn on_stream(&mut self, index: usize, at: Instant) -> Result<(), Trouble> {
        let read = self.read_stream(index, at);
        read.or_else(|trouble| self.on_broken(index, trouble))
    }

    fn read_stream(&mut self, index: usize, at: Instant) -> Result<(), Trouble> {
        let Some(Link::Stream(stream)) = &mut self.flows[index].link else { return Ok(()) };
        self.touched.push(index);
        self.to_flush.push(index);
        if !stream.advance_connection()? {
            return Ok(());
        }
        let mut buffer = stream.receive(&mut self.room)?;
        let tick = self.clock.tick(at);
        frames(&mut buffer, |message| self.on_message(index, message, tick))?;
        if let Some(Link::Stream(stream)) = &mut self.flows[index].link {
            stream.keep(buffer);
        }
        Ok(())
    }

    #[inline]
    fn on_message(&mut self, index: usize, message: &[u8], tick: u32) {
        match wire::received(message, self.plan.work == Work::Binding) {
            Received::Payload(payload) => self.on_payload(Some(index), payload, tick),
            Received::Bound(stamp, granted) => self.on_bound(index, stamp, granted, tick),
            Received::Control => {
                self.flows[index].client.handle_receive(self.now, message);
                self.touched.push(index);
            }
        }
    }

    /// A packet of the load, at a client or at the peers.
    #[inline]
    fn on_payload(&mut self, client: Option<usize>, payload: &[u8], tick: u32) {
        let stamp = Stamp::decode(payload).filter(|stamp| stamp.run == self.run);
        let Some(stamp) = stamp else {
            self.tally.strays += 1;
            return;
        };
        let placed = self.course_of(stamp.lane).is_some_and(|course| {
            let flow = self.lanes[usize::from(stamp.lane)].flow;
            match self.courses[course].way {
                Way::Up => client.is_none(),
                Way::Down => client == Some(flow),
                Way::Across => client == Some(flow ^ 1),
                Way::Binding => false,
            }
        });
        let intact = payload.len() == self.payload.len()
            && (!stamp.sequence.is_multiple_of(COMPARED)
                || wire::is_intact(payload, &self.payload));
        if placed && intact { self.count(stamp, tick) } else { self.tally.strays += 1 }
    }

    fn on_bound(&mut self, index: usize, stamp: Stamp, granted: Result<(), u16>, tick: u32) {
        let lane = self.lanes.get(usize::from(stamp.lane));
        if stamp.run != self.run || lane.is_none_or(|lane| lane.flow != index) {
            self.tally.strays += 1;
            return;
        }
        match granted {
            Ok(()) => self.count(stamp, tick),
            Err(code) => {
                let lane = &mut self.lanes[usize::from(stamp.lane)];
                if let Arrival::First { landed, measured } = lane.arrive(stamp.sequence) {
                    lane.undeliver(measured);
                    self.courses[0].landed(landed);
                    *self.tally.refused.entry(code).or_default() += u64::from(measured);
                }
            }
        }
    }

    #[inline]
    fn count(&mut self, stamp: Stamp, tick: u32) {
        let Some(course) = self.course_of(stamp.lane) else { return };
        match self.lanes[usize::from(stamp.lane)].arrive(stamp.sequence) {
            Arrival::First { landed, measured } => {
                self.courses[course].landed(landed);
                self.arrived += 1;
                if measured {
                    self.tally.latency.record(Clock::between(stamp.sent, tick));
                }
            }
            Arrival::Again => self.tally.duplicates += 1,
            Arrival::Late => self.tally.late += 1,
            Arrival::Unknown => self.tally.strays += 1,
        }
    }

    #[inline]
    fn course_of(&self, lane: u16) -> Option<usize> {
        let lane = usize::from(lane);
        self.courses.iter().position(|course| course.lanes.contains(&lane))
    }
}

/// The measurement.
impl Traffic {
    /// The load begins.
    pub(super) fn begin(&mut self, at: Instant) {
        self.courses.iter_mut().for_each(|course| course.begin(at));
    }

    /// From here on it is measured.
    pub(super) fn measure(&mut self) {
        self.measuring = true;
        self.tally = Tally::new();
        self.outbox.take_unsent();
        self.lanes.iter_mut().for_each(Lane::measure);
    }

    /// Gives up what has not arrived for long, so that the load goes on.
    pub(super) fn write_off(&mut self) {
        for course in &mut self.courses {
            let given_up = self.lanes[course.lanes.clone()].iter_mut().map(Lane::write_off).sum();
            course.landed(given_up);
        }
    }

    /// Packets that may still arrive.
    pub(super) fn in_flight(&self) -> usize {
        self.courses.iter().map(Course::in_flight).sum()
    }

    /// The sums, when nothing more will arrive.
    pub(super) fn sum_up(&mut self) {
        if !self.measuring {
            return;
        }
        self.tally.unsent = self.outbox.take_unsent();
        for course in &self.courses {
            let counts = self.lanes[course.lanes.clone()].iter().map(Lane::measured);
            let (sent, delivered) =
                counts.fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1));
            self.tally.sent += sent;
            self.tally.delivered += delivered;
            self.tally.ways.insert(course.way.name(), (sent, delivered));
        }
    }
}

/// The two clocks.
pub(super) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix }
}

/// The peers' socket, and those that `clients` need.
fn sockets(plan: &Plan, clients: usize) -> Result<Vec<UdpSocket>, Trouble> {
    let options = UdpOptions { recv_buffer: Some(MANY), offload: true, ..UdpOptions::default() };
    let mut sockets = vec![peers_socket(plan.peer, &options)?];
    if plan.transport.is_stream() {
        return Ok(sockets);
    }
    if plan.shares_socket {
        sockets.push(client_socket(plan, &UdpOptions { packet_info: true, ..options })?);
    } else {
        for _ in 0..clients {
            sockets.push(client_socket(plan, &own_options())?);
        }
    }
    Ok(sockets)
}

/// At a port that is most likely none of the server's relay ports: what is sent to one of
/// these on the server's own address is for another of its clients.
fn peers_socket(address: IpAddr, options: &UdpOptions) -> Result<UdpSocket, Trouble> {
    let count = PEER_PORTS.len() as u32;
    // Runs at the same time begin at different ones.
    let first = std::process::id() % count;
    let ports = (0..count.min(PEER_PORT_ATTEMPTS))
        .map(|nth| PEER_PORTS.start + ((first + nth) % count) as u16);
    for port in ports.chain([0]) {
        match UdpSocket::bind(SocketAddr::new(address, port), options) {
            Err(why) if why.kind() == io::ErrorKind::AddrInUse && port != 0 => {}
            bound => return bound.map_err(|why| Trouble::PeerAddress { address, why }),
        }
    }
    unreachable!("port 0 ends the loop")
}

fn own_options() -> UdpOptions {
    UdpOptions { recv_buffer: Some(FEW), offload: true, ..UdpOptions::default() }
}

fn client_socket(plan: &Plan, options: &UdpOptions) -> Result<UdpSocket, Trouble> {
    UdpSocket::bind(SocketAddr::new(any(plan.server.ip()), 0), options)
        .map_err(|why| Trouble::System { what: "a UDP socket", why })
}

fn any(server: IpAddr) -> IpAddr {
    match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Source addresses on loopback that [`source`] can give.
const SOURCES: usize = 254 << 14;

/// The source address of a client on loopback. Neighbours are in networks of their own:
/// what a server allows per network is not what is to be measured.
fn source(index: usize) -> IpAddr {
    let [.., high, middle, low] = index.to_be_bytes();
    Ipv4Addr::new(127, 128 | (middle & 0x3F), low, 1 + (high << 2 | middle >> 6)).into()
}

/// The client that has this source address.
fn index_of(source: IpAddr) -> Option<usize> {
    let IpAddr::V4(source) = source else { return None };
    let [_, b, low, d] = source.octets();
    let high = usize::from(d.checked_sub(1)?);
    Some(high << 14 | usize::from(b & 0x3F) << 8 | usize::from(low))
}

// A stamp is a transaction id, and its lane has sixteen bits.
const _: () = assert!(stamp::LEN == 12 && 2 * super::MAX_PER_THREAD <= u16::MAX as usize + 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_their_source() {
        let mut last = None;
        for index in (0..5000).chain([16_383, 16_384, 49_999, SOURCES - 1]) {
            let source = source(index);
            assert!(source.is_loopback());
            assert_eq!(index_of(source), Some(index));
            assert_ne!(last.replace(source), Some(source));
        }
        assert_eq!(source(0), "127.128.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(index_of("::1".parse().unwrap()), None);
    }
}
