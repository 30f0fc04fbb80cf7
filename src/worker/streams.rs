//! TCP in: new connections, their bytes as frames, their deadlines and ends.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::connection::{Accepts, Cipher, Connection, Layer};
use super::packets::Origin;
use super::token::{ConnectionId, Token};
use super::{ACCEPT_PAUSE, ACCEPTS, Worker};
use crate::io::{
    Accept, Body, Event, Interest, Outgoing, ReadOutcome, SLOT, SlotId, TcpListener, TcpStream,
};
use crate::net::{FiveTuple, Now, Transport};
use crate::stun::framing::{self, Frame};
use crate::stun::{Kind, classify};
use crate::turn::{Client, Input, Verdict};

/// How long the kernel tries to deliver to a client that does not answer.
const USER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Bytes read at once from a client without an allocation, which bounds the
/// answers it can cause; also the longest frame it can send.
const STRANGER_READ: usize = 4096;

/// Bytes that may wait for such a client.
const STRANGER_QUEUE: usize = 16 << 10;

/// Bytes of media that may lie unsent in the kernel: what waits with us instead
/// can still be dropped for newer.
const UNSENT: usize = 64 << 10;

/// A socket that clients connect to.
pub struct StreamListener {
    /// The socket.
    pub socket: TcpListener,
    /// Whether STUN may come as it is.
    pub plain: bool,
    /// Whether TLS may come.
    pub tls: bool,
}

/// Answers of one read, packed into as few slots as possible.
struct Answers {
    slot: Option<(SlotId, u32)>,
}

impl Worker {
    pub(super) fn on_accept_ready(&mut self, now: Now, index: usize) {
        for _ in 0..ACCEPTS {
            match self.tcp[index].socket.accept() {
                Ok(Accept::Stream(stream, from)) => self.on_accepted(now, index, stream, from),
                Ok(Accept::Aborted) => {}
                Ok(Accept::WouldBlock) | Err(_) => return,
                Ok(Accept::Exhausted(_)) => return self.pause_accepting(now),
            }
        }
    }

    fn on_accepted(&mut self, now: Now, index: usize, stream: TcpStream, from: SocketAddr) {
        if self.connections.is_full() {
            self.egress.losses.refused_connections += 1;
            return;
        }
        // A connection that has broken already is as good as none.
        let Ok(server) = stream.local_addr() else { return };
        let set_up = stream
            .set_nodelay(true)
            .and(stream.set_user_timeout(USER_TIMEOUT))
            .and(stream.set_not_sent_low_at(UNSENT));
        if set_up.is_err() {
            return;
        }
        let StreamListener { plain, tls, .. } = self.tcp[index];
        let proxy = self.limits.proxies.iter().any(|network| network.contains(&from.ip()));
        let accepts = Accepts { plain, tls, proxy };
        let five_tuple = FiveTuple::new(Transport::Tcp, from, server);
        let connection =
            self.connections.insert(stream, five_tuple, accepts, now.mono, self.limits.queue);
        let token = Token::Connection(connection.id);
        if self.poll.add(&connection.stream, token.encode(), Interest::READ).is_err() {
            let id = connection.id;
            self.connections.remove(id);
            return;
        }
        let id = connection.id;
        self.watch(id, now.mono + self.limits.idle);
    }

    /// Has a connection looked at by `at`. One timer per connection counts.
    pub(super) fn watch(&mut self, id: ConnectionId, at: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.timer.is_none_or(|armed| at < armed) {
            connection.timer = Some(at);
            self.stream_timers.arm(at, Token::Connection(id));
        }
    }

    /// No descriptors left: new connections wait in the kernel for a while.
    pub(super) fn pause_accepting(&mut self, now: Now) {
        self.accept_paused_until = Some(now.mono + ACCEPT_PAUSE);
        self.set_accepting(Interest::NONE);
    }

    pub(super) fn resume_accepting(&mut self) {
        self.accept_paused_until = None;
        self.set_accepting(Interest::READ);
    }

    fn set_accepting(&self, interest: Interest) {
        for (index, listener) in self.tcp.iter().enumerate() {
            let token = Token::Tcp(index as u32).encode();
            // The listener was added at the start and stays.
            let _ = self.poll.modify(&listener.socket, token, interest);
        }
        self.set_accepting_peers(interest);
    }

    pub(super) fn on_connection_ready(&mut self, now: Now, id: ConnectionId, event: &Event) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Some(peer) = connection.data {
            return self.on_data_ready(now, peer, event);
        }
        if connection.passage.is_some() {
            // Later in the turn: see `on_passages`.
            return;
        }
        if event.writable && connection.drain(&self.poll).is_err() {
            return self.close_connection(now, id);
        }
        if event.readable || event.error || event.hangup {
            self.read_connection(now, id);
        }
    }

    /// One read, and every frame that it completes.
    fn read_connection(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let known = self.core.has_allocation(&connection.five_tuple);
        connection.set_queue_bound(if known { self.limits.queue } else { STRANGER_QUEUE });
        match connection.layer {
            Layer::Tls(_) => self.read_tls(now, id, known),
            Layer::Plain | Layer::Unknown => self.read_plain(now, id, known),
        }
    }

    /// Reads behind what is kept of a frame.
    fn read_plain(&mut self, now: Now, id: ConnectionId, known: bool) {
        // One slot for what is read, at most two for answers to it.
        self.make_room(now, 3);
        let (Some(slot), Some(connection)) = (self.arena.take(), self.connections.get_mut(id))
        else {
            return;
        };
        let buffer = self.arena.bytes_mut(slot);
        let held = connection.partial.len();
        buffer[..held].copy_from_slice(&connection.partial);
        let room = if known { buffer.len() } else { buffer.len().min(held + STRANGER_READ) };
        let len = match connection.stream.read(&mut buffer[held..room]) {
            Ok(ReadOutcome::Data(len)) => held + len,
            Ok(ReadOutcome::WouldBlock) => return,
            Ok(ReadOutcome::Closed) | Err(_) => return self.close_connection(now, id),
        };
        match connection.layer {
            Layer::Unknown => self.on_opening(now, id, slot, len),
            Layer::Plain | Layer::Tls(_) => self.on_bytes(now, id, slot, len),
        }
    }

    fn read_tls(&mut self, now: Now, id: ConnectionId, known: bool) {
        let mut cipher = std::mem::take(&mut self.cipher);
        let room = if known { cipher.len() } else { STRANGER_READ };
        self.decrypt(now, id, Cipher::Fresh(&mut cipher[..room]));
        self.cipher = cipher;
    }

    /// Takes what a TLS client sent, and every frame in it.
    pub(super) fn decrypt(&mut self, now: Now, id: ConnectionId, cipher: Cipher<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let streams = &mut self.egress.streams;
        let outcome = connection.read_tls(cipher, &mut plain, streams, &self.poll);
        if connection.note_record(now.mono) {
            self.watch(id, now.mono + self.limits.frame);
        }
        // What came before the end counts.
        self.on_plaintext(now, id, &plain);
        self.plain = plain;
        match outcome {
            Ok(ReadOutcome::Data(_) | ReadOutcome::WouldBlock) => {}
            Ok(ReadOutcome::Closed) => self.close_connection(now, id),
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    self.egress.losses.tls_failures += 1;
                }
                self.close_connection(now, id);
            }
        }
    }

    /// Puts plaintext behind what is kept of a frame, a slot at a time.
    pub(super) fn on_plaintext(&mut self, now: Now, id: ConnectionId, mut plain: &[u8]) {
        while !plain.is_empty() {
            self.make_room(now, 3);
            let (Some(slot), Some(connection)) = (self.arena.take(), self.connections.get_mut(id))
            else {
                return;
            };
            let buffer = self.arena.bytes_mut(slot);
            let held = connection.partial.len();
            let part = plain.len().min(buffer.len() - held);
            buffer[..held].copy_from_slice(&connection.partial);
            buffer[held..held + part].copy_from_slice(&plain[..part]);
            plain = &plain[part..];
            self.on_bytes(now, id, slot, held + part);
        }
    }

    /// Every whole frame in a slot; the rest of it is kept.
    pub(super) fn on_bytes(&mut self, now: Now, id: ConnectionId, slot: SlotId, len: usize) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let client = connection.client();
        let known = self.core.has_allocation(&client.five_tuple);
        let progress = self.on_frames(now, client, slot, len, known);
        let rest = |worker: &Self, at: usize| worker.arena.bytes(slot)[at..len].to_vec();
        match progress {
            Ok(Progress::Queued(at)) => {
                let rest = rest(self, at);
                return self.go_on(now, id, &rest);
            }
            Ok(Progress::Elsewhere(shard, at)) => {
                let rest = rest(self, at);
                self.carry_out(now);
                self.flush(now);
                return self.hand_over(id, shard, rest);
            }
            Ok(Progress::Done(_)) | Err(NotFrames) => {}
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        match progress {
            Ok(Progress::Done(consumed)) if known || len - consumed <= STRANGER_READ => {
                let rest = &self.arena.bytes(slot)[consumed..len];
                if keep_partial(connection, now, rest, consumed > 0) {
                    self.watch(id, now.mono + self.limits.frame);
                }
            }
            Ok(_) | Err(NotFrames) => {
                self.egress.losses.closed_connections += 1;
                self.close_connection(now, id);
            }
        }
    }

    /// After a request that was not answered at once: what the core wants is done
    /// before the bytes behind it are looked at, since they may be another's now.
    fn go_on(&mut self, now: Now, id: ConnectionId, rest: &[u8]) {
        self.carry_out(now);
        self.flush(now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.partial = Vec::new();
        connection.partial_since = None;
        match connection.data {
            Some(peer) => self.begin_with(peer, rest),
            None => self.on_plaintext(now, id, rest),
        }
    }

    /// Hands whole frames in a slot to the core. Nobody has a channel before an
    /// allocation, but "GET" looks like one.
    fn on_frames(
        &mut self,
        now: Now,
        client: Client,
        slot: SlotId,
        len: usize,
        known: bool,
    ) -> Result<Progress, NotFrames> {
        let mut answers = Answers { slot: None };
        let mut at = 0;
        while at < len {
            let bytes = &self.arena.bytes(slot)[at..len];
            if !known && classify(bytes) == Kind::ChannelData {
                return Err(NotFrames);
            }
            let (message, frame) = match framing::next(bytes) {
                Frame::Complete { message, frame } => (message, frame),
                Frame::Partial { .. } => break,
                Frame::Broken => return Err(NotFrames),
            };
            let verdict = self.core.on_client(now, client, &bytes[..message], &mut self.reply[..]);
            match verdict {
                Verdict::Forward(forward) => {
                    self.forward(Origin { slot, start: at as u32, tos: 0 }, &forward);
                }
                Verdict::Reply { len } => self.answer(client, &mut answers, len),
                Verdict::Queued => return Ok(Progress::Queued(at + frame)),
                Verdict::HandOver { shard } => return Ok(Progress::Elsewhere(shard, at)),
                // What leaves another way than it came does so over UDP.
                Verdict::ReplyFrom { .. } | Verdict::Drop(_) => {}
            }
            at += frame;
        }
        Ok(Progress::Done(at))
    }

    /// Sends the first `len` bytes of the reply buffer.
    fn answer(&mut self, client: Client, answers: &mut Answers, len: usize) {
        let fits = |at: u32| at as usize + len <= SLOT;
        let (slot, start) = match answers.slot.filter(|(_, at)| fits(*at)) {
            Some(place) => place,
            None => match self.arena.take() {
                Some(slot) => (slot, 0),
                // A client that asks for more than 128 KiB of answers in one read.
                None => {
                    self.egress.losses.slow_client += 1;
                    return;
                }
            },
        };
        let end = start + len as u32;
        let place = &mut self.arena.bytes_mut(slot)[start as usize..end as usize];
        place.copy_from_slice(&self.reply[..len]);
        answers.slot = Some((slot, end));
        if let Token::Connection(id) = Token::decode(client.link.0) {
            let body = Body { slot, start, end };
            let message = Outgoing::new(client.five_tuple.client.socket(), body);
            self.egress.add_for_connection(&mut self.connections, id, message);
        }
    }

    pub(super) fn on_stream_timers(&mut self, now: Now) {
        let mut due = Vec::new();
        self.stream_timers.expire(now.mono, &mut due);
        for token in due {
            match token {
                Token::Connection(id) => self.check_deadlines(now, id),
                Token::Dtls(id) => self.on_session_timer(now, id),
                _ => {}
            }
        }
    }

    fn check_deadlines(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.timer.is_none_or(|at| at > now.mono) {
            return;
        }
        connection.timer = None;
        if connection.passage.is_some() {
            return self.check_passage(now, id);
        }
        if connection.data.is_some() || self.core.has_allocation(&connection.five_tuple) {
            connection.idle_since = now.mono;
        }
        let frame = self.limits.of_partial(connection);
        let frame_due = connection.unfinished_since().map(|since| since + frame);
        let handshake_due = connection.handshaking_since().map(|at| at + self.limits.handshake);
        let idle_due = connection.idle_since + self.limits.idle;
        let next = [frame_due, handshake_due].into_iter().flatten().fold(idle_due, Instant::min);
        if next <= now.mono {
            self.egress.losses.closed_connections += 1;
            return self.close_connection(now, id);
        }
        self.watch(id, next);
    }

    pub(super) fn close_connection(&mut self, now: Now, id: ConnectionId) {
        if let Some(mut connection) = self.connections.remove(id) {
            if connection.passage.is_some() {
                // The core has never heard of it.
                return self.backends.closed();
            }
            connection.say_goodbye();
            let Client { five_tuple, link } = connection.client();
            self.core.handle_input(now, Input::LinkClosed { five_tuple, link });
        }
    }
}

/// The bytes are neither STUN nor ChannelData.
#[derive(Clone, Copy)]
struct NotFrames;

/// How far the frames in a slot were taken.
#[derive(Clone, Copy)]
enum Progress {
    /// To the last whole one; the rest starts there.
    Done(usize),
    /// Behind a request that the core has not answered at once.
    Queued(usize),
    /// Before a request that another worker is to answer.
    Elsewhere(u16, usize),
}

/// Keeps the beginning of a frame; true when it is a new one, whose deadline is to
/// be watched.
pub(super) fn keep_partial(
    connection: &mut Connection,
    now: Now,
    rest: &[u8],
    completed: bool,
) -> bool {
    connection.partial.clear();
    connection.partial.extend_from_slice(rest);
    if rest.is_empty() {
        // Nothing is kept for a client that says nothing.
        connection.partial = Vec::new();
        connection.partial_since = None;
        return false;
    }
    let new = completed || connection.partial_since.is_none();
    if new {
        connection.partial_since = Some(now.mono);
    }
    new
}
