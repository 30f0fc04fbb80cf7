//! What lies between the bytes of a connection and STUN.

use std::io::{self, IoSlice};
use std::time::Instant;

use super::OutQueue;
use crate::io::{Arena, Outgoing, ReadOutcome, StreamBatch, TcpStream};
use crate::tls::{self, MAX_PLAINTEXT, State};

/// Plaintext encrypted and offered to the kernel at once, until a frame goes beyond
/// it. What it does not take of that is sent
/// in any case and never dropped for newer, so it must not be much.
const BURST: usize = MAX_PLAINTEXT;

/// What was found at the front of a connection.
pub(in crate::worker) enum Layer {
    /// Nothing yet: too few bytes have come to tell.
    Unknown,
    /// STUN and ChannelData.
    Plain,
    /// The same within TLS.
    Tls(Box<Tls>),
}

/// A session, and what of it the kernel did not take.
pub(in crate::worker) struct Tls {
    session: tls::Session,
    since: Instant,
    unsent: Vec<u8>,
    /// The record that has begun and not ended, by number, and since when it is here.
    record: Option<(u64, Instant)>,
}

/// Room for one write, made once and used for any number of connections.
pub(in crate::worker) struct Scratch {
    pub(super) batch: StreamBatch,
    cipher: Vec<u8>,
}

impl Scratch {
    pub(in crate::worker) fn new() -> Self {
        Self { batch: StreamBatch::new(), cipher: Vec::new() }
    }
}

/// The first of `order` that make up a burst: at least one.
fn burst<'a>(messages: &[Outgoing], order: &'a [u32]) -> &'a [u32] {
    let mut bytes = 0;
    let count = order.iter().take_while(|&&index| {
        let goes = bytes < BURST;
        bytes += messages[index as usize].wire_len();
        goes
    });
    &order[..count.count()]
}

/// A stream that is over, in one way or another.
fn over(why: tls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Tls {
    pub(super) fn new(session: tls::Session, now: Instant) -> Self {
        Self { session, since: now, unsent: Vec::new(), record: None }
    }

    /// When the handshake began, while it lasts.
    pub(super) fn handshaking_since(&self) -> Option<Instant> {
        (self.session.state() == State::Handshaking).then_some(self.since)
    }

    /// Looks at what the last read has left of a record; true when it is another one
    /// than before.
    pub(super) fn note_record(&mut self, now: Instant) -> bool {
        let unfinished = self.session.unfinished_record();
        let begun = unfinished.filter(|number| self.record.is_none_or(|(old, _)| old != *number));
        if begun.is_some() || unfinished.is_none() {
            self.record = begun.map(|number| (number, now));
        }
        begun.is_some()
    }

    /// Since when there has been a record that is not complete, after the handshake,
    /// which has a deadline of its own.
    pub(super) fn record_since(&self) -> Option<Instant> {
        self.record.map(|(_, since)| since).filter(|_| self.handshaking_since().is_none())
    }

    /// Whether the kernel has taken everything.
    pub(super) fn is_written(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Reads once, at most what `cipher` holds, and appends the plaintext to
    /// `plain`. What the session has to say to it is written.
    pub(super) fn read(
        &mut self,
        stream: &TcpStream,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> io::Result<ReadOutcome> {
        match stream.read(cipher)? {
            ReadOutcome::Data(len) => self.take(stream, &cipher[..len], plain, scratch),
            outcome => Ok(outcome),
        }
    }

    /// The same with bytes that were read already.
    pub(super) fn take(
        &mut self,
        stream: &TcpStream,
        cipher: &[u8],
        plain: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> io::Result<ReadOutcome> {
        let received = self.session.receive(cipher, plain);
        scratch.cipher.clear();
        self.session.write(&mut scratch.cipher);
        let written = self.write(stream, &scratch.cipher);
        // The alert has gone, as far as it could.
        let state = received.map_err(over)?;
        written?;
        Ok(if state == State::Closed {
            ReadOutcome::Closed
        } else {
            ReadOutcome::Data(cipher.len())
        })
    }

    /// Writes as many of the messages as the kernel takes right away; returns how
    /// many. The rest is still plaintext, and may be dropped.
    ///
    /// Each message is a record of its own: clients exist that read one message
    /// from a record and wait for the next one with the rest of it.
    pub(super) fn send(
        &mut self,
        stream: &TcpStream,
        scratch: &mut Scratch,
        arena: &Arena,
        messages: &[Outgoing],
        order: &[u32],
    ) -> io::Result<usize> {
        let mut taken = 0;
        while taken < order.len() && self.is_written() {
            let burst = burst(messages, &order[taken..]);
            let pieces = burst.iter().map(|&index| messages[index as usize].pieces(arena));
            let pieces = pieces.map(|pieces| pieces.map(IoSlice::new));
            scratch.cipher.clear();
            self.session.send_each(pieces, &mut scratch.cipher).map_err(over)?;
            taken += burst.len();
            self.write(stream, &scratch.cipher)?;
        }
        Ok(taken)
    }

    /// Writes what is left over, then what waits in the queue.
    pub(super) fn drain(&mut self, stream: &TcpStream, queue: &mut OutQueue) -> io::Result<()> {
        loop {
            let rest = std::mem::take(&mut self.unsent);
            self.write(stream, &rest)?;
            let waiting = queue.front();
            if !self.is_written() || waiting.is_empty() {
                return Ok(());
            }
            let len = waiting.len().min(MAX_PLAINTEXT);
            let sent = self.session.send(&mut [IoSlice::new(&waiting[..len])], &mut self.unsent);
            sent.map_err(over)?;
            queue.consume(len);
        }
    }

    /// Writes bytes as they are, past the queue; what the kernel does not take waits.
    pub(super) fn send_bytes(
        &mut self,
        stream: &TcpStream,
        bytes: &[u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        scratch.cipher.clear();
        let sent = self.session.send(&mut [IoSlice::new(bytes)], &mut scratch.cipher);
        sent.map_err(over)?;
        self.write(stream, &scratch.cipher)
    }

    /// Says goodbye, as far as the kernel takes it.
    pub(super) fn close(&mut self, stream: &TcpStream) {
        self.session.close();
        let mut farewell = std::mem::take(&mut self.unsent);
        self.session.write(&mut farewell);
        // The connection is closed in any case.
        let _ = stream.write(&farewell);
    }

    fn write(&mut self, stream: &TcpStream, cipher: &[u8]) -> io::Result<()> {
        let sent = if self.is_written() && !cipher.is_empty() { stream.write(cipher)? } else { 0 };
        self.unsent.extend_from_slice(&cipher[sent..]);
        if self.unsent.is_empty() {
            // A client that was slow once need not cost memory for ever.
            self.unsent = Vec::new();
        }
        Ok(())
    }
}
