//! Clients with a connection each, in the clear or within TLS.
//!
//! Every message is a TLS record of its own, as a client's is that sends each
//! when it has it. Messages of one connection that are due at the same time are
//! written with one call: the server cannot tell, and the generator keeps up.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};

use crate::sys::{self, Epoll};
use crate::tls;

/// Connections looked at by one wait.
const EVENTS: usize = 256;
/// Bytes read at once.
const READ: usize = 256 << 10;
/// A handshake and everything else that blocks takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connections of all clients. Both directions of a load share them.
pub(crate) struct Streams(RefCell<State>);

struct State {
    tls: Option<Arc<ClientConfig>>,
    /// In the order of the flows.
    connections: Vec<Connection>,
    epoll: Epoll,
    events: Vec<libc::epoll_event>,
    buffer: Box<[u8]>,
    /// Connections with something to write.
    touched: Vec<usize>,
}

struct Connection {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    /// What was read and is no whole message yet.
    inbox: Vec<u8>,
    /// What the kernel has still to take.
    outbox: Vec<u8>,
}

impl Streams {
    /// No connections yet; those to come are within TLS if there is a `tls`.
    pub(crate) fn new(tls: Option<Arc<ClientConfig>>) -> io::Result<Self> {
        Ok(Self(RefCell::new(State {
            tls,
            connections: Vec::new(),
            epoll: Epoll::new()?,
            events: sys::events(EVENTS),
            buffer: vec![0; READ].into(),
            touched: Vec::new(),
        })))
    }

    /// Connects client `flow`, unless it is. Clients connect in their order.
    pub(crate) fn connect(&self, flow: usize, server: SocketAddrV4) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        if flow < state.connections.len() {
            return Ok(());
        }
        assert_eq!(flow, state.connections.len(), "clients connect in their order");
        let connection = Connection::open(server, state.tls.as_ref())?;
        state.epoll.add(connection.stream.as_raw_fd(), flow)?;
        state.connections.push(connection);
        Ok(())
    }

    /// Has client `flow` send a message with the next [`Self::flush`].
    pub(crate) fn push(&self, flow: usize, message: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        let connection = &mut state.connections[flow];
        match &mut connection.tls {
            Some(tls) => tls.writer().write_all(message).expect("its buffer has no bound"),
            None => connection.outbox.extend_from_slice(message),
        }
        if state.touched.last() != Some(&flow) {
            state.touched.push(flow);
        }
    }

    /// Writes what was pushed. What a kernel buffer has no room for is written by
    /// the next call.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let State { connections, touched, .. } = &mut *self.0.borrow_mut();
        let mut failed = None;
        touched.retain(|&flow| {
            let connection = &mut connections[flow];
            connection.write().unwrap_or_else(|error| {
                failed = Some(error);
                false
            });
            !connection.outbox.is_empty()
        });
        failed.map_or(Ok(()), Err)
    }

    /// Reads once from every connection that is ready, and hands each whole message
    /// to `take` with its client. True when anything was read.
    pub(crate) fn receive(&self, mut take: impl FnMut(usize, &[u8])) -> io::Result<bool> {
        let State { connections, epoll, events, buffer, .. } = &mut *self.0.borrow_mut();
        let ready = epoll.wait(events, 0)?;
        for event in &events[..ready] {
            let flow = event.u64 as usize;
            connections[flow].read(buffer, |message| take(flow, message))?;
        }
        Ok(ready > 0)
    }
}

impl Connection {
    fn open(server: SocketAddrV4, config: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let tls = config.map(|config| tls::shake_hands(config, &mut stream)).transpose()?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, tls, inbox: Vec::new(), outbox: Vec::new() })
    }

    /// Writes what the kernel takes; true when that was all.
    fn write(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.outbox)?;
            }
        }
        match self.stream.write(&self.outbox) {
            Ok(written) => drop(self.outbox.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(self.outbox.is_empty())
    }

    fn read(&mut self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let len = match self.stream.read(buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        match &mut self.tls {
            None => self.inbox.extend_from_slice(&buffer[..len]),
            Some(tls) => tls::decrypt(tls, &buffer[..len], &mut self.inbox)?,
        }
        let mut at = 0;
        while let Some((message, frame)) = next_message(&self.inbox[at..])? {
            take(&self.inbox[at..at + message]);
            at += frame;
        }
        self.inbox.drain(..at);
        Ok(())
    }
}

/// Length of the first message, without and with padding, when it is whole
/// (RFC 8656 section 12.5).
fn next_message(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(&[first, _, high, low]) = bytes.first_chunk() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let message = match first >> 6 {
        0 => 20 + length,
        1 => 4 + length,
        _ => return Err(io::Error::other("bytes from the server that begin no message")),
    };
    let frame = message.next_multiple_of(4);
    Ok((bytes.len() >= frame).then_some((message, frame)))
}
