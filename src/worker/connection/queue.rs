//! What waits for a slow client.

use std::collections::VecDeque;

use crate::io::{Arena, Outgoing};

/// Frames that wait for a slow client, bounded in bytes. When media frames would
/// exceed the bound the oldest of them go; answers are never dropped.
pub(super) struct OutQueue {
    bytes: VecDeque<u8>,
    frames: VecDeque<Frame>,
    pub(super) bound: usize,
}

#[derive(Clone, Copy)]
struct Frame {
    /// Bytes of it that are still in the queue.
    len: usize,
    /// Whether it may be dropped: media, and no byte of it has gone yet.
    droppable: bool,
}

impl OutQueue {
    pub(super) fn new(bound: usize) -> Self {
        Self { bytes: VecDeque::new(), frames: VecDeque::new(), bound }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        self.bytes.len() > self.bound
    }

    pub(super) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    pub(super) fn consume(&mut self, mut sent: usize) {
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
    pub(super) fn push(&mut self, message: &Outgoing, arena: &Arena, already: usize) -> u64 {
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
        let mut skip = already;
        for piece in message.pieces(arena) {
            let from = skip.min(piece.len());
            self.bytes.extend(&piece[from..]);
            skip -= from;
        }
        self.frames.push_back(Frame { len, droppable: media && already == 0 });
        dropped
    }

    /// Drops all media but a frame that has begun.
    pub(super) fn drop_media(&mut self) {
        while self.drop_oldest() {}
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
