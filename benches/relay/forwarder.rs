//! The floor: a UDP forwarder that does a relay's socket work and nothing else.
//!
//! One listener for all clients, one relay socket for each of them, level-
//! triggered epoll, `recvmmsg` and `sendmmsg`. Up it cuts the four bytes of the
//! ChannelData header off, down it writes them; the channel number is the
//! index of the relay socket, so nothing is looked up, checked or timed.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::fleet::{CHANNEL_HEADER, Fleet, channel};
use crate::sys::{self, Batch, Epoll};

/// Packets moved by one system call at most.
const BATCH: usize = 64;
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
    pub(crate) fn bind(count: usize, client_port: u16, peer_port: u16) -> io::Result<Self> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let this = Self {
            epoll: Epoll::new()?,
            listener: bind()?,
            relays: (0..count).map(|_| bind()).collect::<io::Result<_>>()?,
            clients: (0..count).map(|i| Fleet::client_address(i, client_port)).collect(),
            peers: (0..count).map(|i| Fleet::peer_address(i, peer_port)).collect(),
            batch: Batch::new(BATCH),
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
                let length = self.batch.received(i) - CHANNEL_HEADER;
                self.batch.aim(i, CHANNEL_HEADER, length, self.peers[flow], None);
            }
        }
        self.send_up(of, run, got - run);
        Ok(got == BATCH)
    }

    fn send_up(&mut self, flow: Option<usize>, first: usize, count: usize) {
        if let Some(flow) = flow {
            self.batch.send_all(self.relays[flow].as_raw_fd(), first, count);
        }
    }

    fn flow_of(&self, i: usize) -> Option<usize> {
        let slot = self.batch.slot(i);
        let number = u16::from_be_bytes([slot[0], slot[1]]);
        let flow = usize::from(number.checked_sub(channel(0))?);
        (flow < self.relays.len() && self.batch.received(i) > CHANNEL_HEADER).then_some(flow)
    }

    /// Peer to client: packets of all ready relay sockets leave together.
    fn down(&mut self, relay: usize, held: &mut usize) -> io::Result<bool> {
        if *held == BATCH {
            self.flush(held);
        }
        let (first, room) = (*held, BATCH - *held);
        let fd = self.relays[relay].as_raw_fd();
        let got = self.batch.receive(fd, first, room, CHANNEL_HEADER)?;
        for i in first..first + got {
            let length = self.batch.received(i);
            let slot = self.batch.slot_mut(i);
            slot[..2].copy_from_slice(&channel(relay).to_be_bytes());
            slot[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            self.batch.aim(i, 0, CHANNEL_HEADER + length, self.clients[relay], None);
        }
        *held += got;
        Ok(got == room)
    }

    fn flush(&mut self, held: &mut usize) {
        self.batch.send_all(self.listener.as_raw_fd(), 0, std::mem::take(held));
    }
}
