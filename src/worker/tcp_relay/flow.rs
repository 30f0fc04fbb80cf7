//! The bytes of a data connection, both ways (RFC 6062 section 4.3): in order, with
//! the backpressure of the slower side, and with each side's end passed on.
//!
//! Between two plain connections bytes stay in the kernel. TLS clients' bytes pass
//! through memory, a bounded amount at a time.

use std::io;

use crate::io::{Interest, Pipe, ReadOutcome, TcpStream};
use crate::tls::MAX_PLAINTEXT;
use crate::worker::connection::{Connection, Layer, Scratch};

/// Reads of one direction per wake: no connection keeps the others waiting.
const READS: usize = 16;

/// What passes between a client's connection and a peer's.
pub(super) struct Flow {
    up: Direction,
    down: Direction,
    /// Whether readiness of each side is reported. One that has hung up is not
    /// watched: it would be reported for as long as the other side is slow.
    pub(super) watches_client: bool,
    pub(super) watches_peer: bool,
}

/// One direction.
struct Direction {
    /// What was read and not yet written, in memory.
    buffer: Vec<u8>,
    /// The same in the kernel; `None` where bytes have to be seen.
    pipe: Option<Pipe>,
    /// The source has said its last.
    ended: bool,
    /// The destination knows, or is gone.
    told: bool,
}

impl Flow {
    /// Between a client and a peer.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn new(client: &Connection) -> io::Result<Self> {
        let plain = matches!(client.layer, Layer::Plain);
        let pipe = || plain.then(Pipe::new).transpose();
        Ok(Self {
            up: Direction { buffer: Vec::new(), pipe: pipe()?, ended: false, told: false },
            down: Direction { buffer: Vec::new(), pipe: pipe()?, ended: false, told: false },
            watches_client: true,
            watches_peer: true,
        })
    }

    /// Puts what came behind the client's ConnectionBind in front.
    pub(super) fn begin_with(&mut self, early: &[u8]) {
        self.up.buffer.extend_from_slice(early);
    }

    /// Moves what can be moved; true when both directions are over.
    ///
    /// # Errors
    /// Either connection broke: what is left can reach nobody.
    pub(super) fn pump(
        &mut self,
        client: &mut Connection,
        peer: &TcpStream,
        room: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<bool> {
        self.pump_up(client, peer, room, scratch)?;
        self.pump_down(client, peer, room, scratch)?;
        Ok(self.up.told && self.down.told)
    }

    /// What each side is to be watched for: the client, the peer.
    pub(super) fn interests(&self, client: &Connection) -> (Interest, Interest) {
        let down_waits = self.down.holds() || !client.is_written();
        (
            interest(self.up.wants_more(), down_waits),
            interest(self.down.wants_more() && client.is_written(), self.up.holds()),
        )
    }

    /// Whether a side that is not watched has more to be read now: nothing else
    /// will say so.
    pub(super) fn goes_on_unwatched(&self) -> bool {
        !self.watches_client && self.up.wants_more() || !self.watches_peer && self.down.wants_more()
    }

    fn pump_up(
        &mut self,
        client: &mut Connection,
        peer: &TcpStream,
        room: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let up = &mut self.up;
        for _ in 0..READS {
            if !up.write(peer)? {
                return Ok(());
            }
            if up.ended {
                if !std::mem::replace(&mut up.told, true) {
                    peer.shutdown_write()?;
                }
                return Ok(());
            }
            let outcome = match &mut up.pipe {
                Some(pipe) => pipe.fill(&client.stream)?,
                None => client.read_data(room, &mut up.buffer, scratch)?,
            };
            match outcome {
                ReadOutcome::Data(_) => {}
                ReadOutcome::WouldBlock => return Ok(()),
                ReadOutcome::Closed => up.ended = true,
            }
        }
        Ok(())
    }

    fn pump_down(
        &mut self,
        client: &mut Connection,
        peer: &TcpStream,
        room: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let down = &mut self.down;
        for _ in 0..READS {
            // The answer to ConnectionBind goes first, and TLS before more of it.
            if !client.drain_data()? {
                return Ok(());
            }
            if let Some(pipe) = &mut down.pipe {
                pipe.drain(&client.stream)?;
                if !pipe.is_empty() {
                    return Ok(());
                }
            }
            if down.ended {
                if !std::mem::replace(&mut down.told, true) {
                    client.end_data()?;
                }
                return Ok(());
            }
            let outcome = match &mut down.pipe {
                Some(pipe) => pipe.fill(peer)?,
                None => {
                    let most = room.len().min(MAX_PLAINTEXT);
                    let outcome = peer.read(&mut room[..most])?;
                    if let ReadOutcome::Data(len) = outcome {
                        client.send_data(&room[..len], scratch)?;
                    }
                    outcome
                }
            };
            match outcome {
                ReadOutcome::Data(_) => {}
                ReadOutcome::WouldBlock => return Ok(()),
                ReadOutcome::Closed => down.ended = true,
            }
        }
        Ok(())
    }
}

impl Direction {
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
        }
        match &mut self.pipe {
            Some(pipe) => {
                pipe.drain(to)?;
                Ok(pipe.is_empty())
            }
            None => Ok(true),
        }
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
