//! Bytes between a client's connection and another one, both ways: a peer's
//! (RFC 6062 section 4.3) or a backend's. They come in order, with the backpressure of
//! the slower side, and with each side's end passed on.
//!
//! Between two plain connections bytes stay in the kernel. TLS clients' bytes pass
//! through memory, a bounded amount at a time.

use std::io;

use super::connection::{Connection, Layer, Scratch};
use crate::io::{Interest, Pipe, Poll, ReadOutcome, TcpStream};
use crate::tls::MAX_PLAINTEXT;

/// Reads of one direction per wake: no connection keeps the others waiting.
const READS: usize = 4;

/// What passes between a client's connection and the other one, here the peer's.
pub(super) struct Flow {
    up: Direction,
    down: Direction,
    /// Whether readiness of each side is reported. One that has hung up is not
    /// watched: it would be reported for as long as the other side is slow.
    watches_client: bool,
    watches_peer: bool,
    /// What the peer is watched for, as far as that is known here.
    peer_interest: Option<Interest>,
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Both sides have said their last and know it of each other.
    pub(super) over: bool,
    /// There is more to move, and nothing will say so.
    pub(super) again: bool,
    /// Bytes read and written in this step.
    pub(super) moved: usize,
}

/// One direction.
struct Direction {
    /// What was read and not yet written, in memory.
    buffer: Vec<u8>,
    /// The same in the kernel; `None` where bytes have to be seen.
    pipe: Option<Pipe>,
    /// Bytes that were read and not yet counted elsewhere.
    passed: u64,
    /// The source has said its last, and the destination knows.
    ended: bool,
    /// Bytes read and written in this step.
    moved: usize,
}

impl Flow {
    /// Between a client and a peer, both of which a poll knows.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new(client: &Connection) -> io::Result<Self> {
        let plain = matches!(client.layer, Layer::Plain);
        Ok(Self {
            up: Direction::new(plain)?,
            down: Direction::new(plain)?,
            watches_client: true,
            watches_peer: true,
            peer_interest: None,
        })
    }

    /// Puts what was read of the client already in front.
    pub(super) fn begin_with(&mut self, early: &[u8]) {
        self.up.buffer.extend_from_slice(early);
        self.up.passed += early.len() as u64;
    }

    /// Moves what can be moved, and has both sides watched for what is next; `token`
    /// is the peer's.
    ///
    /// # Errors
    /// Either connection broke: what is left can reach nobody.
    pub(super) fn go_on(
        &mut self,
        client: &mut Connection,
        peer: &TcpStream,
        token: u64,
        room: &mut [u8],
        scratch: &mut Scratch,
        poll: &Poll,
    ) -> io::Result<Progress> {
        let over = self.pump(client, peer, room, scratch)?;
        let (of_client, of_peer) = self.interests(client);
        if self.watches_client {
            client.watch_for(of_client, poll)?;
        }
        if self.watches_peer && self.peer_interest != Some(of_peer) {
            poll.modify(peer, token, of_peer)?;
            self.peer_interest = Some(of_peer);
        }
        let again = !over && self.goes_on_unwatched();
        Ok(Progress { over, again, moved: self.up.moved + self.down.moved })
    }

    /// The client's connection reports an error or its end in both directions.
    pub(super) fn client_hung_up(&mut self, client: &Connection, poll: &Poll) {
        // A descriptor that was added and is still open can be removed.
        let _ = poll.remove(&client.stream);
        self.watches_client = false;
    }

    /// The same of the peer's.
    pub(super) fn peer_hung_up(&mut self, peer: &TcpStream, poll: &Poll) {
        // As above.
        let _ = poll.remove(peer);
        self.watches_peer = false;
    }

    fn pump(
        &mut self,
        client: &mut Connection,
        peer: &TcpStream,
        room: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<bool> {
        (self.up.moved, self.down.moved) = (0, 0);
        let mut ends = Ends { client, peer, room, scratch };
        self.up.pump(Way::Up, &mut ends)?;
        self.down.pump(Way::Down, &mut ends)?;
        Ok(self.up.ended && self.down.ended)
    }

    /// Bytes read from the client and from the peer since the last time.
    pub(super) fn take_passed(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.up.passed), std::mem::take(&mut self.down.passed))
    }

    /// What each side is to be watched for: the client, the peer.
    fn interests(&self, client: &Connection) -> (Interest, Interest) {
        let down_waits = self.down.holds() || !client.is_written();
        (
            interest(self.up.wants_more(), down_waits),
            interest(self.down.wants_more() && client.is_written(), self.up.holds()),
        )
    }

    /// Whether a side that is not watched has more to be read now: nothing else
    /// will say so.
    fn goes_on_unwatched(&self) -> bool {
        !self.watches_client && self.up.wants_more() || !self.watches_peer && self.down.wants_more()
    }
}

/// Which direction.
#[derive(Clone, Copy)]
enum Way {
    /// From the client to the peer.
    Up,
    /// From the peer to the client.
    Down,
}

/// Both connections, and room to read.
struct Ends<'a> {
    client: &'a mut Connection,
    peer: &'a TcpStream,
    room: &'a mut [u8],
    scratch: &'a mut Scratch,
}

impl Direction {
    fn new(plain: bool) -> io::Result<Self> {
        let pipe = plain.then(Pipe::new).transpose()?;
        Ok(Self { buffer: Vec::new(), pipe, passed: 0, ended: false, moved: 0 })
    }

    fn pump(&mut self, way: Way, ends: &mut Ends<'_>) -> io::Result<()> {
        for _ in 0..READS {
            if !ends.write(way, self)? || self.ended {
                return Ok(());
            }
            match ends.read(way, self)? {
                ReadOutcome::Data(_) => {}
                ReadOutcome::WouldBlock => return Ok(()),
                ReadOutcome::Closed => {
                    // All that came before has been written, so no event would
                    // bring us back to say so.
                    self.ended = true;
                    return ends.tell(way);
                }
            }
        }
        Ok(())
    }

    fn holds(&self) -> bool {
        !self.buffer.is_empty() || self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty())
    }

    fn wants_more(&self) -> bool {
        !self.ended && !self.holds()
    }

    /// Writes what is held to a plain connection; true when nothing is left.
    fn write(&mut self, to: &TcpStream) -> io::Result<bool> {
        while !self.buffer.is_empty() {
            let sent = to.write(&self.buffer)?;
            if sent == 0 {
                return Ok(false);
            }
            self.buffer.drain(..sent);
            self.moved += sent;
        }
        if self.buffer.capacity() > 0 && self.pipe.is_some() {
            // What was read before there was a pipe has gone, and nothing follows.
            self.buffer = Vec::new();
        }
        match &mut self.pipe {
            Some(pipe) => {
                self.moved += pipe.drain(to)?;
                Ok(pipe.is_empty())
            }
            None => Ok(true),
        }
    }
}

impl Ends<'_> {
    /// Writes what is held for the destination; true when nothing is left.
    fn write(&mut self, way: Way, held: &mut Direction) -> io::Result<bool> {
        match way {
            Way::Up => held.write(self.peer),
            // The answer to ConnectionBind goes first, and TLS before more of it.
            Way::Down => Ok(self.client.drain_data()? && held.write(&self.client.stream)?),
        }
    }

    /// Tells the destination that this was all.
    fn tell(&mut self, way: Way) -> io::Result<()> {
        match way {
            Way::Up => self.peer.shutdown_write(),
            Way::Down => self.client.end_data(),
        }
    }

    /// Reads once. What comes for TLS goes on to the client at once.
    fn read(&mut self, way: Way, into: &mut Direction) -> io::Result<ReadOutcome> {
        let (outcome, passed) = match (&mut into.pipe, way) {
            (Some(pipe), Way::Up) => counted(pipe.fill(&self.client.stream)?),
            (Some(pipe), Way::Down) => counted(pipe.fill(self.peer)?),
            (None, Way::Up) => {
                let held = into.buffer.len();
                let outcome = self.client.read_data(self.room, &mut into.buffer, self.scratch)?;
                (outcome, into.buffer.len() - held)
            }
            (None, Way::Down) => {
                let most = self.room.len().min(MAX_PLAINTEXT);
                let outcome = self.peer.read(&mut self.room[..most])?;
                if let ReadOutcome::Data(len) = outcome {
                    self.client.send_data(&self.room[..len], self.scratch)?;
                }
                counted(outcome)
            }
        };
        into.passed += passed as u64;
        into.moved += passed;
        Ok(outcome)
    }
}

/// An outcome with its bytes.
fn counted(outcome: ReadOutcome) -> (ReadOutcome, usize) {
    match outcome {
        ReadOutcome::Data(len) => (outcome, len),
        ReadOutcome::WouldBlock | ReadOutcome::Closed => (outcome, 0),
    }
}

fn interest(read: bool, write: bool) -> Interest {
    match (read, write) {
        (true, true) => Interest::READ_WRITE,
        (true, false) => Interest::READ,
        (false, true) => Interest::WRITE,
        (false, false) => Interest::NONE,
    }
}
