//! A stream client: its socket, what lies between that and STUN, the beginning of
//! a frame that is not complete, and what waits to be written.

mod layer;
mod queue;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::backend::Passage;
use super::egress::Chain;
use super::token::{ConnectionId, Token};
use crate::front::proxy::Addresses;
use crate::io::{Arena, Interest, Outgoing, Poll, ReadOutcome, TcpStream};
use crate::net::{FiveTuple, Transport};
use crate::tls::{Certificates, Session};
use crate::turn::Client;
use layer::Tls;
use queue::OutQueue;

pub(super) use layer::{Layer, Scratch};

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
    pub(super) layer: Layer,
    /// What may come first.
    pub(super) accepts: Accepts,
    /// The connection with a peer that it is bound to (RFC 6062).
    pub(super) data: Option<ConnectionId>,
    /// The connection with a backend that it is passed to.
    pub(super) passage: Option<Box<Passage>>,
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

/// What a connection may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepts {
    /// STUN and ChannelData as they are.
    pub(super) plain: bool,
    /// TLS.
    pub(super) tls: bool,
    /// A PROXY protocol header, before either.
    pub(super) proxy: bool,
}

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() - self.free.len() >= self.limit
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.slots.iter().filter_map(|slot| Some(slot.connection.as_ref()?.id)).collect()
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.connection.as_deref_mut().filter(|_| slot.generation == id.generation)
    }

    pub(super) fn insert(
        &mut self,
        stream: TcpStream,
        five_tuple: FiveTuple,
        accepts: Accepts,
        now: Instant,
        queue: usize,
    ) -> &mut Connection {
        let (index, generation) = self.take_slot();
        self.slots[index as usize].connection.insert(Box::new(Connection {
            id: ConnectionId { index, generation },
            stream,
            five_tuple,
            layer: Layer::Unknown,
            accepts,
            data: None,
            passage: None,
            partial: Vec::new(),
            partial_since: None,
            idle_since: now,
            timer: None,
            chain: Chain::default(),
            queue: OutQueue::new(queue),
            interest: Interest::READ,
        }))
    }

    /// Takes in a connection of another worker; it gets another number.
    pub(super) fn adopt(&mut self, mut connection: Box<Connection>) -> ConnectionId {
        let (index, generation) = self.take_slot();
        connection.id = ConnectionId { index, generation };
        connection.timer = None;
        let id = connection.id;
        self.slots[index as usize].connection = Some(connection);
        id
    }

    fn take_slot(&mut self) -> (u32, u32) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        (index, slot.generation)
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

    /// A proxy has said whom the connection is from, or that it is its own.
    pub(super) fn on_behalf_of(&mut self, addresses: Option<Addresses>) {
        // One header counts; what comes after it is the client's.
        self.accepts.proxy = false;
        if let Some(Addresses { source, destination }) = addresses {
            self.five_tuple = FiveTuple::new(Transport::Tcp, source, destination);
        }
    }

    /// Goes on within TLS; the next bytes are those of the client's hello.
    pub(super) fn begin_tls(&mut self, certificates: &Arc<Certificates>, now: Instant) {
        let FiveTuple { client, server, .. } = self.five_tuple;
        self.five_tuple = FiveTuple::new(Transport::Tls, client.socket(), server);
        // The handshake has begun with the first byte of it.
        let since = self.partial_since.take().unwrap_or(now);
        self.partial = Vec::new();
        self.layer = Layer::Tls(Box::new(Tls::new(Session::new(certificates.clone()), since)));
    }

    /// When the TLS handshake began, while it lasts.
    pub(super) fn handshaking_since(&self) -> Option<Instant> {
        match &self.layer {
            Layer::Tls(tls) => tls.handshaking_since(),
            Layer::Plain | Layer::Unknown => None,
        }
    }

    /// Looks at what the last read has left of a TLS record; true when it is another
    /// one than before.
    pub(super) fn note_record(&mut self, now: Instant) -> bool {
        match &mut self.layer {
            Layer::Tls(tls) => tls.note_record(now),
            Layer::Plain | Layer::Unknown => false,
        }
    }

    /// Since when a frame has been incomplete, or the record that it lies in. A data
    /// connection has no frames, and its records may wait for a slow peer.
    pub(super) fn unfinished_since(&self) -> Option<Instant> {
        let record = match &self.layer {
            Layer::Tls(tls) if self.data.is_none() => tls.record_since(),
            Layer::Tls(_) | Layer::Plain | Layer::Unknown => None,
        };
        [self.partial_since, record].into_iter().flatten().min()
    }

    /// Reads from a TLS client, or takes what was read of it already, and appends
    /// the plaintext to `plain`.
    pub(super) fn read_tls(
        &mut self,
        cipher: Cipher<'_>,
        plain: &mut Vec<u8>,
        scratch: &mut Scratch,
        poll: &Poll,
    ) -> io::Result<ReadOutcome> {
        let Layer::Tls(tls) = &mut self.layer else { return Ok(ReadOutcome::WouldBlock) };
        let outcome = match cipher {
            Cipher::Fresh(room) => tls.read(&self.stream, room, plain, scratch)?,
            Cipher::Taken(bytes) => tls.take(&self.stream, bytes, plain, scratch)?,
        };
        self.update_interest(poll)?;
        Ok(outcome)
    }

    /// Writes frames, and keeps what the kernel does not take. Returns how many
    /// media frames were dropped for it.
    pub(super) fn send(
        &mut self,
        scratch: &mut Scratch,
        arena: &Arena,
        messages: &[Outgoing],
        order: &[u32],
        poll: &Poll,
    ) -> io::Result<u64> {
        let mut rest = order;
        let mut already = 0;
        if self.queue.is_empty() {
            let whole = match &mut self.layer {
                Layer::Tls(tls) => tls.send(&self.stream, scratch, arena, messages, order)?,
                Layer::Plain | Layer::Unknown => {
                    write_plain(&self.stream, scratch, arena, messages, order, &mut already)?
                }
            };
            rest = &order[whole..];
        }
        let mut dropped = 0;
        for (i, &index) in rest.iter().enumerate() {
            let already = if i == 0 { already } else { 0 };
            dropped += self.queue.push(&messages[index as usize], arena, already);
        }
        self.update_interest(poll)?;
        Ok(dropped)
    }

    /// Writes what waits.
    pub(super) fn drain(&mut self, poll: &Poll) -> io::Result<()> {
        if let Layer::Tls(tls) = &mut self.layer {
            tls.drain(&self.stream, &mut self.queue)?;
            return self.update_interest(poll);
        }
        self.drain_plain()?;
        self.update_interest(poll)
    }

    /// Forgets the media that waits; answers stay.
    pub(super) fn drop_media(&mut self) {
        self.queue.drop_media();
    }

    /// Whether the kernel has taken everything.
    pub(super) fn is_written(&self) -> bool {
        let layer_is = match &self.layer {
            Layer::Tls(tls) => tls.is_written(),
            Layer::Plain | Layer::Unknown => true,
        };
        layer_is && self.queue.is_empty()
    }

    /// Has a poll report the connection, which it did not know before.
    pub(super) fn register(&mut self, poll: &Poll) -> io::Result<()> {
        self.interest = Interest::READ;
        poll.add(&self.stream, Token::Connection(self.id).encode(), self.interest)?;
        self.update_interest(poll)
    }

    /// Changes what the connection is watched for.
    pub(super) fn watch_for(&mut self, interest: Interest, poll: &Poll) -> io::Result<()> {
        if interest != self.interest {
            poll.modify(&self.stream, Token::Connection(self.id).encode(), interest)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// Reads bytes of a data connection within TLS.
    pub(super) fn read_data(
        &mut self,
        room: &mut [u8],
        plain: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> io::Result<ReadOutcome> {
        match &mut self.layer {
            Layer::Tls(tls) => tls.read(&self.stream, room, plain, scratch),
            Layer::Plain | Layer::Unknown => Ok(ReadOutcome::WouldBlock),
        }
    }

    /// Writes bytes of a data connection within TLS. Those that the kernel does not
    /// take wait; then [`Self::drain_data`] comes before more.
    pub(super) fn send_data(&mut self, bytes: &[u8], scratch: &mut Scratch) -> io::Result<()> {
        match &mut self.layer {
            Layer::Tls(tls) => tls.send_bytes(&self.stream, bytes, scratch),
            Layer::Plain | Layer::Unknown => Ok(()),
        }
    }

    /// Writes what waits; true when nothing is left.
    pub(super) fn drain_data(&mut self) -> io::Result<bool> {
        if let Layer::Tls(tls) = &mut self.layer {
            tls.drain(&self.stream, &mut self.queue)?;
        } else {
            self.drain_plain()?;
        }
        Ok(self.is_written())
    }

    /// Tells the client that the peer has said its last.
    pub(super) fn end_data(&mut self) -> io::Result<()> {
        self.say_goodbye();
        self.stream.shutdown_write()
    }

    fn drain_plain(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            let sent = self.stream.write(self.queue.front())?;
            if sent == 0 {
                break;
            }
            self.queue.consume(sent);
        }
        Ok(())
    }

    /// Tells a TLS client that this is the end and no attack.
    pub(super) fn say_goodbye(&mut self) {
        if let Layer::Tls(tls) = &mut self.layer {
            tls.close(&self.stream);
        }
    }

    /// Asks for room to write while something waits; and while more than the
    /// bound waits, which only a client that asks without listening brings about,
    /// nothing more is read from it.
    fn update_interest(&mut self, poll: &Poll) -> io::Result<()> {
        let interest = match (self.is_written(), self.queue.is_over()) {
            (true, _) => Interest::READ,
            (false, false) => Interest::READ_WRITE,
            (false, true) => Interest::WRITE,
        };
        self.watch_for(interest, poll)
    }
}

/// What a TLS client sent.
pub(super) enum Cipher<'a> {
    /// Still to be read, into this room.
    Fresh(&'a mut [u8]),
    /// Read already.
    Taken(&'a [u8]),
}

/// Writes messages as they are; returns how many went whole, and in `already` how
/// much of the next one.
fn write_plain(
    stream: &TcpStream,
    scratch: &mut Scratch,
    arena: &Arena,
    messages: &[Outgoing],
    order: &[u32],
    already: &mut usize,
) -> io::Result<usize> {
    let mut gone = 0;
    while gone < order.len() {
        let rest = &order[gone..];
        *already = stream.write_vectored(&mut scratch.batch, arena, messages, rest)?;
        let whole = whole_frames(messages, rest, already);
        gone += whole;
        if *already > 0 || whole == 0 {
            break;
        }
    }
    Ok(gone)
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
