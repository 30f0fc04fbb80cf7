//! A stream client: its socket, the beginning of a frame that is not complete,
//! and what waits to be written.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::egress::Chain;
use super::token::{ConnectionId, Token};
use crate::io::{Arena, Interest, Outgoing, Poll, StreamBatch, TcpStream};
use crate::net::FiveTuple;
use crate::turn::Client;

/// The connections of a worker.
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
    limit: usize,
}

struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) stream: TcpStream,
    pub(super) five_tuple: FiveTuple,
    /// A frame that has begun and not ended.
    pub(super) partial: Vec<u8>,
    /// Since when there has been one.
    pub(super) partial_since: Option<Instant>,
    /// Since when it has been without an allocation, as far as was looked.
    pub(super) idle_since: Instant,
    /// When its timer fires; others armed for it before count no more.
    pub(super) timer: Option<Instant>,
    pub(super) chain: Chain,
    queue: OutQueue,
    interest: Interest,
}

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() - self.free.len() >= self.limit
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.connection.as_deref_mut().filter(|_| slot.generation == id.generation)
    }

    pub(super) fn insert(
        &mut self,
        stream: TcpStream,
        five_tuple: FiveTuple,
        now: Instant,
        queue: usize,
    ) -> &mut Connection {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.connection.insert(Box::new(Connection {
            id: ConnectionId { index, generation: slot.generation },
            stream,
            five_tuple,
            partial: Vec::new(),
            partial_since: None,
            idle_since: now,
            timer: None,
            chain: Chain::default(),
            queue: OutQueue::new(queue),
            interest: Interest::READ,
        }))
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        self.get_mut(id)?;
        self.free.push(id.index);
        self.slots[id.index as usize].connection.take()
    }
}

impl Connection {
    pub(super) fn client(&self) -> Client {
        Client { five_tuple: self.five_tuple, link: Token::Connection(self.id).link() }
    }

    /// Lets that many bytes wait for the client.
    pub(super) fn set_queue_bound(&mut self, bytes: usize) {
        self.queue.bound = bytes;
    }

    /// Writes frames, and keeps what the kernel does not take. Returns how many
    /// media frames were dropped for it.
    pub(super) fn send(
        &mut self,
        scratch: &mut StreamBatch,
        arena: &Arena,
        messages: &[Outgoing],
        order: &[u32],
        poll: &Poll,
    ) -> io::Result<u64> {
        let mut rest = order;
        let mut sent = 0;
        while self.queue.is_empty() && !rest.is_empty() {
            sent = self.stream.write_vectored(scratch, arena, messages, rest)?;
            let whole = whole_frames(messages, rest, &mut sent);
            rest = &rest[whole..];
            if !rest.is_empty() && (sent > 0 || whole == 0) {
                break;
            }
        }
        let mut dropped = 0;
        for (i, &index) in rest.iter().enumerate() {
            let already = if i == 0 { sent } else { 0 };
            dropped += self.queue.push(&messages[index as usize], arena, already);
        }
        self.update_interest(poll)?;
        Ok(dropped)
    }

    /// Writes what waits.
    pub(super) fn drain(&mut self, poll: &Poll) -> io::Result<()> {
        while !self.queue.is_empty() {
            let sent = self.stream.write(self.queue.front())?;
            if sent == 0 {
                break;
            }
            self.queue.consume(sent);
        }
        self.update_interest(poll)
    }

    /// Asks for room to write while something waits; and while more than the
    /// bound waits, which only a client that asks without listening brings about,
    /// nothing more is read from it.
    fn update_interest(&mut self, poll: &Poll) -> io::Result<()> {
        let interest = match (self.queue.is_empty(), self.queue.is_over()) {
            (true, _) => Interest::READ,
            (false, false) => Interest::READ_WRITE,
            (false, true) => Interest::WRITE,
        };
        if interest != self.interest {
            poll.modify(&self.stream, Token::Connection(self.id).encode(), interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}

/// How many whole frames lie within `sent` bytes; what is left of `sent` is how
/// much of the next one went.
fn whole_frames(messages: &[Outgoing], order: &[u32], sent: &mut usize) -> usize {
    let mut whole = 0;
    for &index in order {
        let len = messages[index as usize].wire_len();
        if *sent < len {
            break;
        }
        *sent -= len;
        whole += 1;
    }
    whole
}

/// Frames that wait for a slow client, bounded in bytes. When media frames would
/// exceed the bound the oldest of them go; answers are never dropped.
struct OutQueue {
    bytes: VecDeque<u8>,
    frames: VecDeque<Frame>,
    bound: usize,
}

#[derive(Clone, Copy)]
struct Frame {
    /// Bytes of it that are still in the queue.
    len: usize,
    /// Whether it may be dropped: media, and no byte of it has gone yet.
    droppable: bool,
}

impl OutQueue {
    fn new(bound: usize) -> Self {
        Self { bytes: VecDeque::new(), frames: VecDeque::new(), bound }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn is_over(&self) -> bool {
        self.bytes.len() > self.bound
    }

    fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    fn consume(&mut self, mut sent: usize) {
        self.bytes.drain(..sent);
        while sent > 0 {
            let Some(frame) = self.frames.front_mut() else { break };
            let part = frame.len.min(sent);
            frame.len -= part;
            frame.droppable = false;
            sent -= part;
            if frame.len == 0 {
                self.frames.pop_front();
            }
        }
        if self.is_empty() {
            // A client that was slow once need not cost memory for ever.
            self.bytes = VecDeque::new();
            self.frames = VecDeque::new();
        }
    }

    /// Appends a frame of which `already` bytes have gone; returns how many
    /// frames were dropped to make room.
    fn push(&mut self, message: &Outgoing, arena: &Arena, already: usize) -> u64 {
        // Media goes behind a header; an answer is a body of its own.
        let media = !message.header.as_slice().is_empty();
        let len = message.wire_len() - already;
        let mut dropped = 0;
        while media && self.bytes.len() + len > self.bound && self.drop_oldest() {
            dropped += 1;
        }
        if media && already == 0 && self.bytes.len() + len > self.bound {
            return dropped + 1;
        }
        let range = message.body.start as usize..message.body.end as usize;
        let pieces = [
            message.header.as_slice(),
            &arena.bytes(message.body.slot)[range],
            &[0; 3][..message.pad.into()],
        ];
        let mut skip = already;
        for piece in pieces {
            let from = skip.min(piece.len());
            self.bytes.extend(&piece[from..]);
            skip -= from;
        }
        self.frames.push_back(Frame { len, droppable: media && already == 0 });
        dropped
    }

    fn drop_oldest(&mut self) -> bool {
        let mut start = 0;
        for i in 0..self.frames.len() {
            let frame = self.frames[i];
            if frame.droppable {
                self.bytes.drain(start..start + frame.len);
                self.frames.remove(i);
                return true;
            }
            start += frame.len;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Body, Header};

    struct Scene {
        arena: Arena,
        queue: OutQueue,
    }

    impl Scene {
        fn new(bound: usize) -> Self {
            Self { arena: Arena::new(64).unwrap(), queue: OutQueue::new(bound) }
        }

        fn message(&mut self, media: bool, fill: u8, len: usize) -> Outgoing {
            let slot = self.arena.take().unwrap();
            self.arena.bytes_mut(slot)[..len].fill(fill);
            let body = Body { slot, start: 0, end: len as u32 };
            let mut message = Outgoing::new("192.0.2.1:1".parse().unwrap(), body);
            if media {
                message.header = Header::new(&[0x40, 0, 0, len as u8]).unwrap();
                message.pad = (len.wrapping_neg() & 3) as u8;
            }
            message
        }

        fn push(&mut self, media: bool, fill: u8, len: usize) -> u64 {
            let message = self.message(media, fill, len);
            self.queue.push(&message, &self.arena, 0)
        }

        fn bytes(&self) -> Vec<u8> {
            self.queue.bytes.iter().copied().collect()
        }
    }

    #[test]
    fn the_oldest_media_goes_first_and_answers_stay() {
        let mut s = Scene::new(24);
        assert_eq!(s.push(true, 1, 4), 0);
        assert_eq!(s.push(false, 2, 8), 0);
        assert_eq!(s.push(true, 3, 4), 0);
        assert_eq!(s.push(true, 4, 4), 1, "frame 1 makes room");
        assert_eq!(s.push(false, 5, 20), 0, "an answer is kept above the bound");
        assert!(s.queue.is_over());
        assert_eq!(s.push(true, 6, 4), 3, "both media frames go, and the new one");
        let kept: Vec<u8> = [[2; 8].as_slice(), &[5; 20]].concat();
        assert_eq!(s.bytes(), kept);
    }

    #[test]
    fn a_frame_that_has_begun_is_never_cut() {
        let mut s = Scene::new(16);
        let message = s.message(true, 7, 6);
        assert_eq!(s.queue.push(&message, &s.arena, 5), 0);
        assert_eq!(s.bytes(), [7, 7, 7, 7, 7, 0, 0]);
        assert_eq!(s.push(true, 8, 4), 0);
        assert_eq!(s.push(true, 9, 4), 1);
        assert_eq!(s.bytes(), [7, 7, 7, 7, 7, 0, 0, 0x40, 0, 0, 4, 9, 9, 9, 9]);
        s.queue.consume(8);
        assert_eq!(s.push(true, 1, 8), 1, "the frame at the front has begun now; the new one goes");
        assert_eq!(s.bytes(), [0, 0, 4, 9, 9, 9, 9]);
        s.queue.consume(7);
        assert!(s.queue.is_empty());
    }
}
