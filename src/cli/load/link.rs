//! The way of one client to the server: a path of a UDP socket, a connection, TLS over
//! one, or DTLS. Whole messages go in and come out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};

use openssl::ssl::{ErrorCode, SslStream};
use rustls::ClientConnection;

use super::outbox::{Outbox, Path};
use super::plan::Plan;
use super::trouble::Trouble;
use super::wire::Packet;
use crate::io::{ReadOutcome, TcpStream, UdpSocket};
use crate::net::Transport;
use crate::stun::framing::{self, Frame};

/// Reads of one stream in a turn at most: others want theirs, too.
const READS: usize = 4;

/// A client's way to the server.
pub(super) enum Link {
    Datagrams(Path),
    Stream(Box<Stream>),
    Dtls(Box<Dtls>),
}

/// A TCP connection, or TLS over one.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    server: SocketAddr,
    tls: Option<ClientConnection>,
    connected: bool,
    /// Bytes of messages that are not whole yet.
    incoming: Vec<u8>,
    /// Bytes for the socket, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
}

/// A DTLS session over a path.
pub(super) struct Dtls {
    path: Path,
    session: SslStream<Wire>,
}

/// Where OpenSSL finds the datagram that came, and leaves those that are to go.
#[derive(Default)]
struct Wire {
    received: Option<Vec<u8>>,
    to_send: Vec<Vec<u8>>,
}

impl Link {
    /// A new way by the plan's transport. Datagrams take `path`; a connection starts
    /// from `path.from`, if that says so.
    pub(super) fn open(plan: &Plan, path: Path) -> Result<Self, Trouble> {
        Ok(match plan.transport {
            Transport::Udp => Self::Datagrams(path),
            Transport::Tcp => Self::Stream(Box::new(Stream::open(plan.server, path.from, None)?)),
            Transport::Tls => {
                let session = plan.trust.tls_session().map_err(Trouble::Secure)?;
                Self::Stream(Box::new(Stream::open(plan.server, path.from, Some(session))?))
            }
            Transport::Dtls => {
                let secure = |error: &dyn ToString| Trouble::Secure(error.to_string());
                let ssl = plan.trust.dtls_session().map_err(|error| secure(&error))?;
                let session =
                    SslStream::new(ssl, Wire::default()).map_err(|error| secure(&error))?;
                Self::Dtls(Box::new(Dtls { path, session }))
            }
        })
    }

    /// Goes on with connecting and shaking hands, and says whether that is done.
    pub(super) fn advance(
        &mut self,
        outbox: &mut Outbox,
        sockets: &[UdpSocket],
    ) -> Result<bool, Trouble> {
        match self {
            Self::Datagrams(_) => Ok(true),
            Self::Stream(stream) => stream.advance(),
            Self::Dtls(dtls) => {
                let done = dtls.shake_hands();
                dtls.flush(outbox, sockets);
                done
            }
        }
    }

    /// Sends a whole message of the state machine.
    pub(super) fn send(&mut self, outbox: &mut Outbox, sockets: &[UdpSocket], message: &[u8]) {
        match self {
            Self::Datagrams(path) => outbox.push_bytes(sockets, *path, message),
            Self::Stream(stream) => stream.queue(|buffer| buffer.extend_from_slice(message)),
            Self::Dtls(dtls) => dtls.send(outbox, sockets, message),
        }
    }

    /// Sends a packet of the load; `payload` is what all of them have in common.
    #[inline]
    pub(super) fn send_packet(
        &mut self,
        outbox: &mut Outbox,
        sockets: &[UdpSocket],
        packet: &Packet,
        payload: &[u8],
    ) {
        match self {
            Self::Datagrams(path) => outbox.push(sockets, *path, packet),
            Self::Stream(stream) => stream.queue(|buffer| packet.append_to(buffer, payload)),
            Self::Dtls(dtls) => {
                let mut message = Vec::with_capacity(64 + payload.len());
                packet.append_to(&mut message, payload);
                dtls.send(outbox, sockets, &message);
            }
        }
    }

    /// Says goodbye, as far as that can be done at once.
    pub(super) fn close(&mut self, outbox: &mut Outbox, sockets: &[UdpSocket]) {
        match self {
            Self::Datagrams(_) => {}
            Self::Stream(stream) => {
                if let Some(tls) = &mut stream.tls {
                    tls.send_close_notify();
                }
                // The connection ends all the same.
                let _ = stream.flush();
            }
            Self::Dtls(dtls) => {
                // Without keys there is nothing to say.
                let _ = dtls.session.shutdown();
                dtls.flush(outbox, sockets);
            }
        }
    }
}

impl Stream {
    fn open(
        server: SocketAddr,
        from: Option<IpAddr>,
        tls: Option<ClientConnection>,
    ) -> Result<Self, Trouble> {
        let socket = match from {
            Some(from) => TcpStream::connect_from(SocketAddr::new(from, 0), server),
            None => TcpStream::connect(server),
        };
        let socket = socket.map_err(|why| Trouble::Connection { server, why })?;
        socket.set_nodelay(true).map_err(|why| Trouble::Connection { server, why })?;
        Ok(Self {
            socket,
            server,
            tls,
            connected: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
        })
    }

    fn advance(&mut self) -> Result<bool, Trouble> {
        if !self.advance_connection()? {
            return Ok(false);
        }
        self.flush()?;
        Ok(self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking()))
    }

    /// Whether the TCP connection is there.
    pub(super) fn advance_connection(&mut self) -> Result<bool, Trouble> {
        if !self.connected {
            match self.socket.connected() {
                Ok(()) => self.connected = true,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(why) => return Err(self.broken(why)),
            }
        }
        Ok(true)
    }

    /// Queues a message that `write` appends.
    fn queue(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.tls {
            None => write(&mut self.outgoing),
            Some(tls) => {
                let mut message = Vec::new();
                write(&mut message);
                // A writer without a limit takes everything.
                let _ = tls.writer().write_all(&message);
            }
        }
    }

    /// Writes what the kernel takes, and says whether that was everything.
    pub(super) fn flush(&mut self) -> Result<bool, Trouble> {
        if !self.connected {
            return Ok(false);
        }
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            tls.write_tls(&mut self.outgoing).expect("a vector takes everything");
        }
        while self.written < self.outgoing.len() {
            match self.socket.write(&self.outgoing[self.written..]) {
                Ok(0) => return Ok(false),
                Ok(len) => self.written += len,
                Err(why) => return Err(self.broken(why)),
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads what has come, with the help of `room`, and takes the bytes of messages:
    /// [`frames`] finds them.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> Result<Vec<u8>, Trouble> {
        for _ in 0..READS {
            match self.socket.read(room).map_err(|why| self.broken(why))? {
                ReadOutcome::WouldBlock => break,
                ReadOutcome::Closed => return Err(Trouble::Closed(self.server)),
                ReadOutcome::Data(len) => self.take(&room[..len])?,
            }
        }
        Ok(std::mem::take(&mut self.incoming))
    }

    /// Keeps what is no whole message yet.
    pub(super) fn keep(&mut self, rest: Vec<u8>) {
        self.incoming = rest;
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        let Some(tls) = &mut self.tls else {
            self.incoming.extend_from_slice(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes).map_err(|error| Trouble::Secure(error.to_string()))?;
            let state =
                tls.process_new_packets().map_err(|error| Trouble::Secure(error.to_string()))?;
            let start = self.incoming.len();
            self.incoming.resize(start + state.plaintext_bytes_to_read(), 0);
            match tls.reader().read_exact(&mut self.incoming[start..]) {
                Ok(()) => {}
                Err(_) => return Err(Trouble::Closed(self.server)),
            }
        }
        Ok(())
    }

    fn broken(&self, why: io::Error) -> Trouble {
        match why.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Trouble::Closed(self.server),
            _ => Trouble::Connection { server: self.server, why },
        }
    }
}

/// The whole messages at the start of `buffer`, which then begins with the rest.
///
/// # Errors
/// Bytes that are no message.
pub(super) fn frames(buffer: &mut Vec<u8>, mut take: impl FnMut(&[u8])) -> Result<(), Trouble> {
    let mut taken = 0;
    loop {
        match framing::next(&buffer[taken..]) {
            Frame::Complete { message, frame } => {
                take(&buffer[taken..taken + message]);
                taken += frame;
            }
            Frame::Partial { .. } => break,
            Frame::Broken => return Err(Trouble::Unusable(crate::client::Problem::Framing)),
        }
    }
    buffer.drain(..taken);
    Ok(())
}

impl Dtls {
    fn shake_hands(&mut self) -> Result<bool, Trouble> {
        match self.session.do_handshake() {
            Ok(()) => Ok(true),
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(false),
            Err(error) => Err(Trouble::Secure(self.words(&error))),
        }
    }

    /// Takes a datagram; what it says is then there to [`read`](Self::read).
    pub(super) fn take(&mut self, datagram: &[u8]) {
        self.session.get_mut().received = Some(datagram.to_vec());
    }

    /// The next message; `None` when there is none.
    pub(super) fn read(&mut self, room: &mut [u8]) -> Result<Option<usize>, Trouble> {
        match self.session.ssl_read(room) {
            Ok(len) => Ok(Some(len)),
            Err(error) => match error.code() {
                ErrorCode::WANT_READ => Ok(None),
                ErrorCode::ZERO_RETURN => Err(Trouble::Closed(self.path.to)),
                _ => Err(Trouble::Secure(self.words(&error))),
            },
        }
    }

    fn send(&mut self, outbox: &mut Outbox, sockets: &[UdpSocket], message: &[u8]) {
        // A session that has failed says so when it is read.
        let _ = self.session.ssl_write(message);
        self.flush(outbox, sockets);
    }

    fn flush(&mut self, outbox: &mut Outbox, sockets: &[UdpSocket]) {
        for datagram in self.session.get_mut().to_send.drain(..) {
            outbox.push_bytes(sockets, self.path, &datagram);
        }
    }

    fn words(&self, error: &openssl::ssl::Error) -> String {
        let verified = self.session.ssl().verify_result();
        if verified != openssl::x509::X509VerifyResult::OK {
            return format!("the certificate is refused: {}", verified.error_string());
        }
        let first = error.ssl_error().and_then(|stack| stack.errors().first());
        let reason = first.and_then(openssl::error::Error::reason);
        reason.map_or_else(|| error.to_string(), str::to_owned)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.received.take().ok_or(ErrorKind::WouldBlock)?;
        let len = datagram.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.to_send.push(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
