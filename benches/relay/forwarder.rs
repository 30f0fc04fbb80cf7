//! The floor: a UDP forwarder that does a relay's socket work and nothing else.
//!
//! One listener for all clients, one relay socket for each of them, level-
//! triggered epoll, `recvmmsg` and `sendmmsg`. Up it cuts the four bytes of the
//! ChannelData header off, down it writes them; a client's address is the index of
//! the relay socket, so nothing is looked up, checked or timed.
//!
//! With offload it takes trains of datagrams whole (`UDP_GRO`) and sends them on
//! whole (`UDP_SEGMENT`).

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::fleet::{CHANNEL_HEADER, Fleet, channel};
use crate::sys::{self, Batch, Epoll, Shape, TRAIN_SLOT};

/// Packets, or trains of them, moved by one system call at most.
const BATCH: usize = 64;
/// Datagrams of one train at most, which is the kernel's bound.
const TRAIN: usize = 64;
/// In front of what a peer sent: a header for each datagram of a train but the last,
/// then one for the last, which may be shorter.
const HEADROOM: usize = 2 * CHANNEL_HEADER;
/// Receive buffer of each socket in bytes: what is measured is not how much fits.
const RECEIVE_BUFFER: i32 = 1 << 20;
/// The listener's token; relay sockets have their index.
const LISTENER: usize = usize::MAX;

/// What one [`Forwarder::turn`] found.
pub(crate) struct Turn {
    /// Sockets that were ready.
    pub(crate) ready: usize,
    /// Whether more may be waiting than was taken.
    pub(crate) more: bool,
}

/// The sockets and buffers of one forwarder.
pub(crate) struct Forwarder {
    epoll: Epoll,
    listener: UdpSocket,
    relays: Vec<UdpSocket>,
    clients: Vec<SocketAddrV4>,
    peers: Vec<SocketAddrV4>,
    batch: Batch,
}

impl Forwarder {
    /// Binds a listener and `count` relay sockets on loopback for the clients
    /// and peers that have these two ports.
    pub(crate) fn bind(
        count: usize,
        client_port: u16,
        peer_port: u16,
        offload: bool,
    ) -> io::Result<Self> {
        let bind = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            sys::set_receive_buffer(socket.as_raw_fd(), RECEIVE_BUFFER)?;
            if offload {
                sys::receive_trains(socket.as_raw_fd())?;
            }
            Ok(socket)
        };
        let shape = if offload {
            Shape { slot: TRAIN_SLOT, pieces: 2 * TRAIN, control: true }
        } else {
            Shape::SINGLE
        };
        let this = Self {
            epoll: Epoll::new()?,
            listener: bind()?,
            relays: (0..count).map(|_| bind()).collect::<io::Result<_>>()?,
            clients: (0..count).map(|i| Fleet::client_address(i, client_port)).collect(),
            peers: (0..count).map(|i| Fleet::peer_address(i, peer_port)).collect(),
            batch: Batch::shaped(BATCH, shape),
        };
        this.epoll.add(this.listener.as_raw_fd(), LISTENER)?;
        for (token, relay) in this.relays.iter().enumerate() {
            this.epoll.add(relay.as_raw_fd(), token)?;
        }
        Ok(this)
    }

    /// Prints the ports, the listener's first, on one line, for the process
    /// that started this one.
    pub(crate) fn announce(&self) -> io::Result<()> {
        let mut line = String::new();
        for socket in [&self.listener].into_iter().chain(&self.relays) {
            line += &format!("{} ", socket.local_addr()?.port());
        }
        writeln!(io::stdout(), "{line}")
    }

    /// A descriptor of the epoll, to nest it in another one.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.epoll.as_fd().try_clone_to_owned()
    }

    /// Waits up to `milliseconds` and forwards what is there.
    pub(crate) fn turn(
        &mut self,
        events: &mut [libc::epoll_event],
        milliseconds: i32,
    ) -> io::Result<Turn> {
        let ready = self.epoll.wait(events, milliseconds)?;
        let mut more = ready == events.len();
        let mut held = 0;
        for event in &events[..ready] {
            match event.u64 as usize {
                LISTENER => {
                    self.flush(&mut held);
                    more |= self.up()?;
                }
                relay => more |= self.down(relay, &mut held)?,
            }
        }
        self.flush(&mut held);
        Ok(Turn { ready, more })
    }

    /// Serves for ever on an epoll loop of its own.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = sys::events(BATCH);
        loop {
            self.turn(&mut events, 1000)?;
        }
    }

    /// Client to peer: runs of packets of one flow leave in one call.
    fn up(&mut self) -> io::Result<bool> {
        let got = self.batch.receive(self.listener.as_raw_fd(), 0, BATCH, 0)?;
        let mut run = 0;
        let mut of = None;
        for i in 0..got {
            let flow = self.flow_of(i);
            if flow != of {
                self.send_up(of, run, i - run);
                (run, of) = (i, flow);
            }
            if let Some(flow) = flow {
                self.cut_headers(i, self.peers[flow]);
            }
        }
        self.send_up(of, run, got - run);
        Ok(got == BATCH)
    }

    fn cut_headers(&mut self, i: usize, peer: SocketAddrV4) {
        let (length, segment) = (self.batch.received(i), self.batch.segment(i));
        let train = (segment < length).then_some((segment - CHANNEL_HEADER) as u16);
        self.batch.begin(i, peer, None, train);
        for start in (0..length).step_by(segment) {
            let datagram = segment.min(length - start);
            self.batch.add(i, i, start + CHANNEL_HEADER, datagram - CHANNEL_HEADER);
        }
    }

    fn send_up(&mut self, flow: Option<usize>, first: usize, count: usize) {
        if let Some(flow) = flow {
            self.batch.send_all(self.relays[flow].as_raw_fd(), first, count);
        }
    }

    fn flow_of(&self, i: usize) -> Option<usize> {
        let flow = Fleet::client_at(*self.batch.source(i).ip())?;
        let (length, segment) = (self.batch.received(i), self.batch.segment(i));
        let last = length - length.saturating_sub(1) / segment * segment;
        (flow < self.relays.len() && last > CHANNEL_HEADER).then_some(flow)
    }

    /// Peer to client: packets of all ready relay sockets leave together.
    fn down(&mut self, relay: usize, held: &mut usize) -> io::Result<bool> {
        if *held == BATCH {
            self.flush(held);
        }
        let (first, room) = (*held, BATCH - *held);
        let fd = self.relays[relay].as_raw_fd();
        let got = self.batch.receive(fd, first, room, HEADROOM)?;
        (first..first + got).for_each(|i| self.write_headers(i, relay));
        *held += got;
        Ok(got == room)
    }

    fn write_headers(&mut self, i: usize, relay: usize) {
        let (length, segment) = (self.batch.received(i), self.batch.segment(i));
        let before_last = length.saturating_sub(1) / segment * segment;
        let header = |length: usize| {
            let ([a, b], [c, d]) = (channel(relay).to_be_bytes(), (length as u16).to_be_bytes());
            [a, b, c, d]
        };
        let slot = self.batch.slot_mut(i);
        slot[..CHANNEL_HEADER].copy_from_slice(&header(segment));
        slot[CHANNEL_HEADER..HEADROOM].copy_from_slice(&header(length - before_last));
        if before_last == 0 {
            let start = HEADROOM - CHANNEL_HEADER;
            self.batch.aim(i, start, CHANNEL_HEADER + length, self.clients[relay], None);
            return;
        }
        let train = (CHANNEL_HEADER + segment) as u16;
        self.batch.begin(i, self.clients[relay], None, Some(train));
        for start in (0..length).step_by(segment) {
            let header = if start == before_last { CHANNEL_HEADER } else { 0 };
            self.batch.add(i, i, header, CHANNEL_HEADER);
            self.batch.add(i, i, HEADROOM + start, segment.min(length - start));
        }
    }

    fn flush(&mut self, held: &mut usize) {
        self.batch.send_all(self.listener.as_raw_fd(), 0, std::mem::take(held));
    }
}
