//! Datagrams to send, collected until a batch of them can go.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::stamp;
use super::wire::Packet;
use crate::io::{Arena, Body, Header, Outgoing, SendBatch, SlotId, UdpSocket};

/// Datagrams that are collected at most.
pub(super) const CAPACITY: usize = 256;
/// Slots for what is copied: several times as much as a capacity of long packets.
const SLOTS: usize = 32;

/// Where a datagram leaves and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Index of the socket.
    pub(super) socket: usize,
    /// The source address, where several clients share a socket.
    pub(super) from: Option<IpAddr>,
    pub(super) to: SocketAddr,
}

/// Datagrams of any of a worker's sockets, in the order of their sending.
pub(super) struct Outbox {
    arena: Arena,
    /// The slot that has the payload all packets share.
    payload: SlotId,
    messages: Vec<Outgoing>,
    /// Neighbours that leave by the same socket.
    runs: Vec<(usize, Range<usize>)>,
    order: Vec<u32>,
    scratch: SendBatch,
    copy: Vec<u8>,
    /// Datagrams that this host did not send: its buffers were full, or it may not.
    unsent: u64,
}

impl Outbox {
    /// An empty outbox for packets with this payload.
    ///
    /// # Errors
    /// When there is no address space.
    pub(super) fn new(payload: &[u8]) -> io::Result<Self> {
        let mut arena = Arena::new(SLOTS)?;
        let slot = arena.take().expect("a new arena has free slots");
        arena.bytes_mut(slot)[..payload.len()].copy_from_slice(payload);
        Ok(Self {
            arena,
            payload: slot,
            messages: Vec::with_capacity(CAPACITY),
            runs: Vec::with_capacity(CAPACITY),
            order: (0..CAPACITY as u32).collect(),
            scratch: SendBatch::new(),
            copy: Vec::new(),
            unsent: 0,
        })
    }

    /// Whether it has to be flushed before more goes in.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.messages.len() == CAPACITY || self.arena.free_slots() < 2
    }

    /// Adds a packet.
    #[inline]
    pub(super) fn push(&mut self, sockets: &[UdpSocket], path: Path, packet: &Packet) {
        if let Some(header) = Header::new(packet.start()) {
            let start = stamp::LEN as u32;
            let body = Body { slot: self.payload, start, end: start + packet.rest as u32 };
            self.add(sockets, path, header, body, packet.pad);
            return;
        }
        // Longer than a header can be: the start is copied in front of its payload.
        let mut whole = std::mem::take(&mut self.copy);
        whole.clear();
        packet.append_to(&mut whole, self.arena.bytes(self.payload));
        self.push_bytes(sockets, path, &whole);
        self.copy = whole;
    }

    /// Adds a datagram of these bytes.
    pub(super) fn push_bytes(&mut self, sockets: &[UdpSocket], path: Path, bytes: &[u8]) {
        if self.is_full() {
            self.flush(sockets);
        }
        let body = self.arena.store(bytes).expect("an arena that is not full has a slot");
        self.add(sockets, path, Header::EMPTY, body, 0);
    }

    /// Sends everything.
    pub(super) fn flush(&mut self, sockets: &[UdpSocket]) {
        for (socket, run) in self.runs.drain(..) {
            let report = sockets[socket].send_batch(
                &mut self.scratch,
                &self.arena,
                &self.messages,
                &self.order[run],
            );
            self.unsent += (report.dropped_full + report.dropped_error) as u64;
        }
        self.messages.clear();
        self.arena.reset();
        // The first slot again, and what is in it: nobody else has written there.
        self.payload = self.arena.take().expect("an arena that was reset has free slots");
    }

    /// How many datagrams this host has not sent since the last call.
    pub(super) fn take_unsent(&mut self) -> u64 {
        std::mem::take(&mut self.unsent)
    }

    #[inline]
    fn add(&mut self, sockets: &[UdpSocket], path: Path, header: Header, body: Body, pad: u8) {
        if self.messages.len() == CAPACITY {
            self.flush(sockets);
        }
        let at = self.messages.len();
        let from = path.from;
        self.messages.push(Outgoing { from, header, pad, ..Outgoing::new(path.to, body) });
        match self.runs.last_mut() {
            Some((socket, run)) if *socket == path.socket => run.end = at + 1,
            _ => self.runs.push((path.socket, at..at + 1)),
        }
    }
}
