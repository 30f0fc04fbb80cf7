//! A [`Client`] over a real socket, for tests that read from top to bottom: each
//! call blocks until it is answered or its deadline has passed.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sturn::client::{
    Allocate, Allocated, Attribute, Client, Config, Event, Failure, Problem, RawAttribute,
    Transaction,
};
use sturn::net::{Family, Now, Transport};
use sturn::stun::framing::{self, Frame};

use super::secure::{Dtls, Tls, Wanted, stream};

/// How long a request may take before the test has failed. Generous: it is only
/// waited for when something is wrong.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// A client, its socket and the events nobody has asked for yet.
pub struct Driver {
    client: Client,
    socket: Socket,
    events: VecDeque<Event>,
    closed: bool,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<Tls>),
    Dtls(Box<Dtls>),
}

/// Why a request was not granted or data did not come.
#[derive(Debug)]
pub enum Error {
    /// The server answered with an error.
    Refused(Failure),
    /// The answer cannot be used.
    Unusable(Problem),
    /// The client has given up retransmitting.
    TimedOut,
    /// The deadline of the call has passed; with what came instead.
    Deadline(Vec<Event>),
    /// The server has closed the connection.
    Closed,
    /// The socket failed.
    Io(io::Error),
}

impl Error {
    /// The code of an error response; anything else fails the test.
    #[track_caller]
    pub fn code(&self) -> u16 {
        match self {
            Self::Refused(failure) => failure.code,
            other => panic!("not an error response: {other}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(failure) => write!(f, "refused: {} {}", failure.code, failure.reason),
            Self::Unusable(why) => write!(f, "unusable answer: {why}"),
            Self::TimedOut => f.write_str("no answer to any transmission"),
            Self::Deadline(events) => write!(f, "deadline passed; meanwhile: {events:?}"),
            Self::Closed => f.write_str("the server has closed the connection"),
            Self::Io(error) => write!(f, "socket: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// Data from a peer.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub peer: SocketAddr,
    /// The channel it came on, `None` for a Data indication.
    pub channel: Option<u16>,
    /// What was sent.
    pub data: Vec<u8>,
}

impl Driver {
    /// A client that talks UDP from a socket of its own.
    pub fn udp(server: SocketAddr, username: &str, password: &str) -> Self {
        Self::with(server, Config::new(Transport::Udp, username, password, next_seed()))
    }

    /// A client on a TCP connection of its own.
    pub fn tcp(server: SocketAddr, username: &str, password: &str) -> Self {
        Self::with(server, Config::new(Transport::Tcp, username, password, next_seed()))
    }

    /// A client on a TLS connection of its own, which trusts the certificate of
    /// this test run.
    pub fn tls(server: SocketAddr, username: &str, password: &str) -> Self {
        Self::with(server, Config::new(Transport::Tls, username, password, next_seed()))
    }

    /// The same on a DTLS session.
    pub fn dtls(server: SocketAddr, username: &str, password: &str) -> Self {
        Self::with(server, Config::new(Transport::Dtls, username, password, next_seed()))
    }

    /// A client with any settings, on a socket of its own.
    #[track_caller]
    pub fn with(server: SocketAddr, config: Config) -> Self {
        let wanted = Wanted::default();
        let socket = match config.transport {
            Transport::Udp => Socket::Udp(connected(server)),
            Transport::Tcp => Socket::Tcp(stream(server)),
            Transport::Tls => {
                let tls = Tls::connect(stream(server), &wanted);
                Socket::Tls(Box::new(tls.unwrap_or_else(|why| panic!("no TLS: {why}"))))
            }
            Transport::Dtls => {
                let dtls = Dtls::connect(connected(server), &wanted);
                Socket::Dtls(Box::new(dtls.unwrap_or_else(|why| panic!("no DTLS: {why}"))))
            }
        };
        Self::on(socket, config)
    }

    /// A client on a DTLS session that is there.
    pub fn on_dtls(dtls: Dtls, username: &str, password: &str) -> Self {
        let config = Config::new(Transport::Dtls, username, password, next_seed());
        Self::on(Socket::Dtls(Box::new(dtls)), config)
    }

    /// A client on a TLS connection that is there.
    pub fn on_tls(tls: Tls, username: &str, password: &str) -> Self {
        let config = Config::new(Transport::Tls, username, password, next_seed());
        Self::on(Socket::Tls(Box::new(tls)), config)
    }

    /// A client on a TCP connection that is there.
    pub fn on_tcp(stream: TcpStream, username: &str, password: &str) -> Self {
        let config = Config::new(Transport::Tcp, username, password, next_seed());
        Self::on(Socket::Tcp(stream), config)
    }

    fn on(socket: Socket, config: Config) -> Self {
        Self { client: Client::new(config), socket, events: VecDeque::new(), closed: false }
    }

    /// The state machine, for what has no method here. [`Driver::flush`] sends what
    /// it queues.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Our end of the socket.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.socket {
            Socket::Udp(socket) => socket.local_addr(),
            Socket::Tcp(stream) => stream.local_addr(),
            Socket::Tls(tls) => tls.stream_ref().local_addr(),
            Socket::Dtls(dtls) => dtls.datagrams().socket.local_addr(),
        }
        .unwrap()
    }

    /// Our socket over UDP or DTLS, to set options or to go past the client.
    pub fn udp_socket(&self) -> Option<&UdpSocket> {
        match &self.socket {
            Socket::Udp(socket) => Some(socket),
            Socket::Dtls(dtls) => Some(&dtls.datagrams().socket),
            Socket::Tcp(_) | Socket::Tls(_) => None,
        }
    }

    /// The connection, for what follows a ConnectionBind.
    pub fn into_tcp_stream(self) -> TcpStream {
        match self.socket {
            Socket::Tcp(stream) => stream,
            Socket::Udp(_) | Socket::Tls(_) | Socket::Dtls(_) => panic!("not a connection"),
        }
    }

    /// What a DTLS client wrote for its handshake, the oldest datagram first.
    pub fn handshake(&self) -> &[Vec<u8>] {
        match &self.socket {
            Socket::Dtls(dtls) => &dtls.datagrams().written,
            Socket::Udp(_) | Socket::Tcp(_) | Socket::Tls(_) => &[],
        }
    }

    /// Says over TLS or DTLS that this is the end; the socket stays open.
    pub fn close_notify(&mut self) -> Result<(), Error> {
        match &mut self.socket {
            Socket::Tls(tls) => tls.close(),
            Socket::Dtls(dtls) => dtls.close(),
            Socket::Udp(_) | Socket::Tcp(_) => Ok(()),
        }
        .map_err(Error::Io)
    }

    /// Binding: the server-reflexive transport address.
    pub fn binding(&mut self) -> Result<SocketAddr, Error> {
        let transaction = self.client.binding(now());
        match self.finish(transaction)? {
            Event::Bound { reflexive, .. } => Ok(reflexive),
            other => unreachable!("Binding ended in {other:?}"),
        }
    }

    /// Allocate.
    pub fn allocate(&mut self, allocate: Allocate) -> Result<Allocated, Error> {
        let transaction = self.client.allocate(now(), allocate);
        match self.finish(transaction)? {
            Event::Allocated(allocated) => Ok(allocated),
            other => unreachable!("Allocate ended in {other:?}"),
        }
    }

    /// Refresh: the lifetime granted.
    pub fn refresh(
        &mut self,
        lifetime: Option<Duration>,
        family: Option<Family>,
    ) -> Result<Duration, Error> {
        let transaction = self.client.refresh(now(), lifetime, family);
        match self.finish(transaction)? {
            Event::Refreshed { lifetime, .. } => Ok(lifetime),
            other => unreachable!("Refresh ended in {other:?}"),
        }
    }

    /// CreatePermission.
    pub fn create_permission(&mut self, peers: &[SocketAddr]) -> Result<(), Error> {
        let transaction = self.client.create_permission(now(), peers);
        self.finish(transaction).map(|_| ())
    }

    /// ChannelBind: the channel number.
    pub fn channel_bind(&mut self, channel: Option<u16>, peer: SocketAddr) -> Result<u16, Error> {
        let transaction = self.client.channel_bind(now(), channel, peer);
        match self.finish(transaction)? {
            Event::ChannelBound { channel, .. } => Ok(channel),
            other => unreachable!("ChannelBind ended in {other:?}"),
        }
    }

    /// Any request: the attributes of its success response.
    pub fn request_raw(
        &mut self,
        method: u16,
        attributes: Vec<Attribute>,
    ) -> Result<Vec<RawAttribute>, Error> {
        let transaction = self.client.request_raw(now(), method, attributes);
        match self.finish(transaction)? {
            Event::Answered { attributes, .. } => Ok(attributes),
            other => unreachable!("a raw request ended in {other:?}"),
        }
    }

    /// Sends data to a peer, on a channel if one is bound.
    pub fn send(&mut self, peer: SocketAddr, data: &[u8]) -> Result<(), Error> {
        self.client.send(peer, data, false);
        self.flush()
    }

    /// Sends bytes as they are, past the client.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.flush()?;
        write(&mut self.socket, bytes).map_err(Error::Io)
    }

    /// The same; returns the next message, which the client does not get to see.
    pub fn exchange_bytes(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        self.send_bytes(bytes)?;
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let (mut buffer, mut got) = (vec![0; 65_536], Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Deadline(Vec::new()));
            }
            match read(&mut self.socket, &mut buffer, left).map_err(Error::Io)? {
                Some(0) => return Err(Error::Closed),
                Some(length) => got.extend_from_slice(&buffer[..length]),
                None => continue,
            }
            // A datagram is a frame, of a stream it may be a part.
            if let Frame::Complete { message, frame } = framing::next(&got) {
                assert_eq!(frame, got.len(), "one question, one answer");
                got.truncate(message);
                return Ok(got);
            }
        }
    }

    /// The next data from any peer.
    pub fn expect_data(&mut self, within: Duration) -> Result<Received, Error> {
        let is_data = |event: &Event| matches!(event, Event::Data { .. });
        match self.expect_event(within, is_data)? {
            Event::Data { peer, channel, data } => Ok(Received { peer, channel, data }),
            other => unreachable!("{other:?} is not data"),
        }
    }

    /// The first event, past or future, that `wanted` accepts. The others stay.
    pub fn expect_event(
        &mut self,
        within: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event, Error> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(at) = self.events.iter().position(&wanted) {
                return Ok(self.events.remove(at).expect("the position was just found"));
            }
            if Instant::now() >= deadline {
                return Err(Error::Deadline(self.events.iter().cloned().collect()));
            }
            self.step(deadline)?;
        }
    }

    /// Waits until the server closes the connection.
    pub fn expect_close(&mut self, within: Duration) -> Result<(), Error> {
        match self.expect_event(within, |_| false) {
            Err(Error::Closed) => Ok(()),
            Err(Error::Io(error)) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(other) => Err(other),
            Ok(event) => unreachable!("{event:?} was not wanted"),
        }
    }

    /// Events that have come and that no call has taken.
    pub fn events(&mut self) -> Vec<Event> {
        self.collect_events();
        self.events.drain(..).collect()
    }

    /// Writes everything the client has queued.
    pub fn flush(&mut self) -> Result<(), Error> {
        while let Some(bytes) = self.client.poll_transmit() {
            write(&mut self.socket, &bytes).map_err(Error::Io)?;
        }
        Ok(())
    }

    /// Waits for the end of a transaction.
    fn finish(&mut self, transaction: Transaction) -> Result<Event, Error> {
        let ends = |event: &Event| event.transaction() == Some(transaction);
        match self.expect_event(REQUEST_DEADLINE, ends)? {
            Event::Failed(failure) => Err(Error::Refused(failure)),
            Event::Unusable { why, .. } => Err(Error::Unusable(why)),
            Event::TimedOut { .. } => Err(Error::TimedOut),
            event => Ok(event),
        }
    }

    /// Sends what is queued, waits for bytes, a timer or the deadline, and takes in
    /// what that brings.
    fn step(&mut self, deadline: Instant) -> Result<(), Error> {
        self.flush()?;
        if self.closed {
            return Err(Error::Closed);
        }
        let wake = self.client.poll_timeout().map_or(deadline, |timer| timer.min(deadline));
        // Zero would mean to wait for ever.
        let wait = wake.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut buffer = vec![0; 65_536];
        match read(&mut self.socket, &mut buffer, wait).map_err(Error::Io)? {
            Some(0) if !matches!(self.socket, Socket::Udp(_)) => self.closed = true,
            Some(length) => self.client.handle_receive(now(), &buffer[..length]),
            None => {}
        }
        self.client.handle_timeout(now());
        self.flush()?;
        self.collect_events();
        Ok(())
    }

    fn collect_events(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }
}

/// A UDP socket of its own that talks to `server` only.
pub fn connected(server: SocketAddr) -> UdpSocket {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket
}

/// The two clocks.
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Now { mono: Instant::now(), unix }
}

/// A seed that no other client of this test run has.
pub fn next_seed() -> [u8; 32] {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&std::process::id().to_be_bytes());
    seed[4..8].copy_from_slice(&COUNTER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    seed
}

fn write(socket: &mut Socket, bytes: &[u8]) -> io::Result<()> {
    match socket {
        Socket::Udp(socket) => match socket.send(bytes) {
            // The error of an earlier datagram: nobody listened then. It may now.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                socket.send(bytes).map(|_| ())
            }
            sent => sent.map(|_| ()),
        },
        Socket::Tcp(stream) => stream.write_all(bytes),
        Socket::Tls(tls) => tls.write_all(bytes),
        Socket::Dtls(dtls) => dtls.send(bytes),
    }
}

/// Bytes, or `None` when the wait is over. Zero bytes are the end of a stream.
fn read(socket: &mut Socket, buffer: &mut [u8], wait: Duration) -> io::Result<Option<usize>> {
    let read = match socket {
        Socket::Udp(socket) => {
            socket.set_read_timeout(Some(wait))?;
            socket.recv(buffer)
        }
        Socket::Tcp(stream) => {
            stream.set_read_timeout(Some(wait))?;
            stream.read(buffer)
        }
        Socket::Tls(tls) => {
            tls.stream().set_read_timeout(Some(wait))?;
            tls.read(buffer)
        }
        Socket::Dtls(dtls) => {
            dtls.datagrams().socket.set_read_timeout(Some(wait))?;
            dtls.receive(buffer)
        }
    };
    match read {
        Ok(length) => Ok(Some(length)),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
            // A server that is not up yet; retransmission deals with it.
            ErrorKind::ConnectionRefused if matches!(socket, Socket::Udp(_)) => Ok(None),
            _ => Err(error),
        },
    }
}
