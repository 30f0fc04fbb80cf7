//! The end of a worker: whoever is still there is told so.
//!
//! 1. The core ends every allocation, and what it has to say goes out.
//! 2. DTLS clients get a close_notify each. It may be lost, as everything there.
//! 3. Connections that are passed to a backend are reset: they are not at their end.
//! 4. Stream clients get the answers that wait for them, then the close_notify of
//!    TLS, then the end of the stream. Those that do not read are waited for, all
//!    together for [`FAREWELL`] and no longer.

use std::io;
use std::time::Duration;

use super::connection::Connection;
use super::token::{ConnectionId, Token};
use super::{Summary, Worker};
use crate::io::{Events, Interest, Poll, ReadOutcome};
use crate::net::Now;

/// How long clients may take to receive the answers that wait for them.
const FAREWELL: Duration = Duration::from_secs(1);

/// DTLS sessions that are ended between two flushes: each takes a slot.
const SESSIONS: usize = 64;

/// Reads of what a client has sent and nobody will look at.
const READS: usize = 4;

impl Worker {
    /// Ends everything, and says what was done in all.
    pub(super) fn stop(mut self, events: &mut Events) -> Summary {
        let now = self.clock.read();
        // Nobody else comes in.
        self.tcp.clear();
        self.core.stop(now);
        self.finish(now);
        self.end_sessions(now);
        self.end_streams(now, events);
        Summary {
            core: self.core.counters().clone(),
            losses: self.egress.losses,
            passed: self.backends.passed(),
        }
    }

    fn end_sessions(&mut self, now: Now) {
        for some in self.dtls.ids().chunks(SESSIONS) {
            self.make_room(now, some.len());
            for id in some {
                self.end_session(now, *id);
            }
        }
        self.finish(now);
    }

    fn end_streams(&mut self, now: Now, events: &mut Events) {
        // The worker's own would report what nobody looks at any more.
        let Ok(poll) = Poll::new() else { return };
        let mut slow = 0_usize;
        for id in self.connections.ids() {
            if self.connections.get_mut(id).is_some_and(|c| c.passage.is_some()) {
                self.break_passage(now, id);
                continue;
            }
            let token = Token::Connection(id).encode();
            let wait = |connection: &mut Connection| {
                // What comes late is of no use.
                connection.drop_media();
                poll.add(&connection.stream, token, Interest::WRITE)
            };
            slow += usize::from(!self.end_stream(id, wait));
        }
        let deadline = now.mono + FAREWELL;
        while slow > 0 {
            let left = deadline.saturating_duration_since(self.clock.read().mono);
            if left.is_zero() || poll.wait(events, Some(left)).is_err() {
                return;
            }
            for event in events.iter() {
                if let Token::Connection(id) = Token::decode(event.token)
                    && self.end_stream(id, |_| Ok(()))
                {
                    slow -= 1;
                }
            }
        }
    }

    /// Tells a client everything, and closes its connection. False when it has to be
    /// waited for; then `wait` was called.
    fn end_stream(
        &mut self,
        id: ConnectionId,
        wait: impl FnOnce(&mut Connection) -> io::Result<()>,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let told = tell(connection, &mut self.cipher);
        let waits = matches!(told, Ok(false)) && wait(connection).is_ok();
        if !waits {
            self.connections.remove(id);
        }
        !waits
    }
}

/// True when everything was said.
///
/// # Errors
/// The connection has broken: nothing can be said.
fn tell(connection: &mut Connection, room: &mut [u8]) -> io::Result<bool> {
    if !connection.drain_data()? {
        return Ok(false);
    }
    connection.end_data()?;
    // Closed with something unread in it a connection is reset, and then what has
    // just been sent may never be read.
    for _ in 0..READS {
        if !matches!(connection.stream.read(room)?, ReadOutcome::Data(_)) {
            break;
        }
    }
    Ok(true)
}
