//! One five-tuple: a socket, and the sans-IO client that speaks over it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::super::identity::Identity;
use super::dtls::Dtls;
use super::tap::{Speaker, Tap};
use crate::client::{Client, Config, Event, Failure, Problem, Retransmission, Transaction};
use crate::net::{Now, Transport};

/// Largest datagram, and a good size for reads from a stream.
const BUFFER: usize = 65_536;
/// How long a server may take to let go of what an interrupted probe has.
const FAREWELL: Duration = Duration::from_millis(800);
/// Data from peers that nobody has taken yet; more is lost.
const BACKLOG: usize = 4096;

/// A socket and its client.
pub(super) struct Link {
    socket: Socket,
    client: Client,
    transport: Transport,
    patience: Duration,
    tap: Tap,
    events: VecDeque<Event>,
    local: SocketAddr,
    /// When the whole probe has to be over.
    deadline: Instant,
    /// Whether the person has had enough.
    interrupted: watch::Receiver<bool>,
    /// Whether what is left to do is done in any case.
    leaving: bool,
    /// Whether a message has come from the server.
    heard: bool,
    /// Why the last message was discarded that came while an answer is waited for.
    discarded: Option<Problem>,
    buffer: Vec<u8>,
}

/// Where the bytes go.
pub(super) enum Socket {
    Udp(UdpSocket),
    Dtls(Box<Dtls>),
    Stream(Box<dyn Stream>),
}

/// A TCP connection, or TLS over one.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum LinkError {
    /// None in time.
    Silent,
    /// The whole probe has no time left.
    OutOfTime,
    /// The person has had enough.
    Interrupted,
    /// Nothing listens there.
    PortClosed,
    /// The connection ended.
    Closed,
    /// This machine has no way there.
    NoRoute,
    /// Somebody on the way says that it cannot or may not be reached.
    Rejected,
    /// Who answers does not speak STUN.
    Foreign(Speaker),
    /// The socket failed.
    Io(io::Error),
    /// An error response.
    Refused(Failure),
    /// An answer beyond use.
    Unusable(Problem),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::PortClosed,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                Self::Closed
            }
            // Local causes are told apart where a socket is connected.
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Self::Rejected,
            ErrorKind::TimedOut => Self::Silent,
            _ => Self::Io(error),
        }
    }
}

impl Link {
    /// A link over a socket that is connected to the server. A request is given up
    /// after about `patience`, and everything at `deadline` or when it is interrupted.
    pub(super) fn new(
        (socket, local): (Socket, SocketAddr),
        transport: Transport,
        identity: &Identity,
        patience: Duration,
        deadline: Instant,
        interrupted: watch::Receiver<bool>,
    ) -> Result<Self, LinkError> {
        Ok(Self {
            socket,
            client: client(transport, identity, patience)?,
            transport,
            patience,
            tap: Tap::new(transport.is_stream()),
            events: VecDeque::new(),
            local,
            deadline,
            interrupted,
            leaving: false,
            heard: false,
            discarded: None,
            buffer: vec![0; BUFFER],
        })
    }

    /// Starts over as somebody else. No transaction may be in flight.
    pub(super) fn identify(&mut self, identity: &Identity) -> Result<(), LinkError> {
        self.client = client(self.transport, identity, self.patience)?;
        Ok(())
    }

    /// From now on only what is to be given back is asked for: that is not interrupted,
    /// but does not take long if the rest was.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        if *self.interrupted.borrow() {
            self.deadline = self.deadline.min(Instant::now() + FAREWELL);
        }
    }

    /// Our end of the five-tuple.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The client, to start transactions and to queue data.
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What the last response carried.
    pub(super) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Waits for the end of a transaction.
    pub(super) async fn finish(&mut self, transaction: Transaction) -> Result<Event, LinkError> {
        self.discarded = None;
        loop {
            self.flush().await?;
            let ours = |event: &Event| event.transaction() == Some(transaction);
            if let Some(at) = self.events.iter().position(ours) {
                let event = self.events.remove(at).expect("the position was just found");
                return self.judge(event);
            }
            self.wait().await?;
        }
    }

    /// The next data from a peer among what has come.
    pub(super) fn take_data(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let at = self.events.iter().position(|event| matches!(event, Event::Data { .. }))?;
        match self.events.remove(at)? {
            Event::Data { peer, data, .. } => Some((peer, data)),
            _ => None,
        }
    }

    /// Writes all that the client has queued.
    pub(super) async fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(bytes) = self.client.poll_transmit() {
            let written = timeout_at(self.deadline, write(&mut self.socket, &bytes)).await;
            match written.map_err(|_| LinkError::OutOfTime)? {
                // The ICMP error of an earlier datagram; `wait` judges it.
                Err(e) if is_icmp(&e) && !self.is_stream() => {
                    if !self.heard {
                        return Err(e.into());
                    }
                }
                written => written?,
            }
        }
        self.collect_events();
        Ok(())
    }

    /// Waits for bytes or a timer and takes in what that brings. It writes nothing, so
    /// that it may be given up at any await.
    pub(super) async fn wait(&mut self) -> Result<(), LinkError> {
        let timer = self.client.poll_timeout().map(Instant::from_std);
        let wake = timer.map_or(self.deadline, |timer| timer.min(self.deadline));
        let read = tokio::select! {
            biased;
            Ok(_) = self.interrupted.wait_for(|now| *now), if !self.leaving => {
                return Err(LinkError::Interrupted);
            }
            read = timeout_at(wake, read(&mut self.socket, &mut self.buffer)) => read,
        };
        match read {
            Ok(Ok(0)) if !self.is_udp() => return Err(LinkError::Closed),
            Ok(Ok(length)) => self.take_in(length)?,
            Ok(Err(e)) if is_icmp(&e) && !self.is_stream() && self.heard => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) if Instant::now() >= self.deadline => return Err(LinkError::OutOfTime),
            Err(_) => {}
        }
        self.client.handle_timeout(now());
        self.collect_events();
        Ok(())
    }

    fn collect_events(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Invalid { why } if is_about_answers(&why) => self.discarded = Some(why),
                event if event.transaction().is_some() => self.events.push_back(event),
                event @ Event::Data { .. } if self.events.len() < BACKLOG => {
                    self.events.push_back(event);
                }
                // Nobody asks for it, and a server can send any number.
                _ => {}
            }
        }
    }

    fn take_in(&mut self, length: usize) -> Result<(), LinkError> {
        let bytes = &self.buffer[..length];
        self.tap.listen(bytes);
        match self.tap.speaker() {
            Some(Speaker::Stun) => self.heard = true,
            // Only a datagram may be forged or a stray.
            Some(other) if !self.is_udp() => return Err(LinkError::Foreign(other)),
            _ => {}
        }
        self.client.handle_receive(now(), bytes);
        Ok(())
    }

    fn judge(&self, event: Event) -> Result<Event, LinkError> {
        match event {
            Event::Failed(failure) => Err(LinkError::Refused(failure)),
            Event::Unusable { why, .. } => Err(LinkError::Unusable(why)),
            Event::TimedOut { .. } => Err(match (self.tap.speaker(), &self.discarded) {
                (Some(speaker), _) if !self.heard => LinkError::Foreign(speaker),
                (_, Some(why)) => LinkError::Unusable(why.clone()),
                _ => LinkError::Silent,
            }),
            event => Ok(event),
        }
    }

    fn is_udp(&self) -> bool {
        matches!(self.socket, Socket::Udp(_))
    }

    fn is_stream(&self) -> bool {
        matches!(self.socket, Socket::Stream(_))
    }
}

fn client(
    transport: Transport,
    identity: &Identity,
    patience: Duration,
) -> Result<Client, LinkError> {
    let mut config = Config::new(transport, &identity.username, &identity.password, seed()?);
    // Servers sign few of their errors; a refusal is what a probe is after.
    config.accept_unsigned_errors = true;
    config.retransmission = retransmission(patience);
    config.software = Some(concat!("sturn probe ", env!("CARGO_PKG_VERSION")).to_owned());
    Ok(Client::new(config))
}

/// The two clocks.
pub(super) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now().into_std(), unix }
}

/// A UDP socket that sends to and receives from `server` only.
pub(super) async fn udp(
    server: SocketAddr,
    source: Option<IpAddr>,
) -> Result<(UdpSocket, SocketAddr), LinkError> {
    let socket = UdpSocket::bind(SocketAddr::new(source.unwrap_or(any(server)), 0)).await?;
    // Nothing is sent yet, so that no answer can come from anywhere else than here.
    socket.connect(server).await.map_err(|error| match error.into() {
        LinkError::Rejected => LinkError::NoRoute,
        error => error,
    })?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// A TCP connection.
pub(super) async fn tcp(
    server: SocketAddr,
    source: Option<IpAddr>,
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), LinkError> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let connected = timeout_at(deadline, socket.connect(server)).await;
    let stream = match connected.map_err(|_| LinkError::Silent)?.map_err(LinkError::from) {
        Ok(stream) => stream,
        Err(LinkError::Rejected) => {
            // Whether that was this machine or the network, a look at the routes tells.
            udp(server, source).await?;
            return Err(LinkError::Rejected);
        }
        Err(error) => return Err(error),
    };
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    Ok((stream, local))
}

/// Whether a message was discarded that may have been the answer.
fn is_about_answers(why: &Problem) -> bool {
    matches!(
        why,
        Problem::Malformed(_)
            | Problem::Fingerprint
            | Problem::IntegrityMismatch
            | Problem::IntegrityMissing { .. }
    )
}

/// Whether this is the ICMP error of an earlier datagram.
pub(super) fn is_icmp(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
    )
}

fn any(server: SocketAddr) -> IpAddr {
    match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

async fn read(socket: &mut Socket, buffer: &mut [u8]) -> io::Result<usize> {
    match socket {
        Socket::Udp(socket) => socket.recv(buffer).await,
        Socket::Dtls(dtls) => dtls.read(buffer).await,
        Socket::Stream(stream) => stream.read(buffer).await,
    }
}

async fn write(socket: &mut Socket, bytes: &[u8]) -> io::Result<()> {
    match socket {
        Socket::Udp(socket) => socket.send(bytes).await.map(|_| ()),
        Socket::Dtls(dtls) => dtls.write(bytes).await,
        Socket::Stream(stream) => {
            stream.write_all(bytes).await?;
            stream.flush().await
        }
    }
}

/// Five transmissions within `patience`: at 0, 1, 3, 7 and 15 of its 19 parts.
fn retransmission(patience: Duration) -> Retransmission {
    Retransmission { rto: patience / 19, rc: 5, rm: 4, ti: patience }
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(seed)
}
