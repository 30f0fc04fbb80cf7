//! TCP: accepting, reading, and writing many frames with one call.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::address::RawAddr;
use super::arena::Arena;
use super::outgoing::{NO_PIECE, Outgoing, PIECES, gather};
use super::socket::{self, check, check_len, int, millis_up};

/// The most messages one [`TcpStream::write_vectored`] offers to the kernel; it
/// takes 1,024 pieces per call.
pub const FRAMES: usize = 256;

const _: () = assert!(FRAMES * PIECES <= 1_024);

/// Messages of up to so many bytes together are copied behind one another first:
/// for each piece that the kernel has to look at it takes longer than for copying
/// a packet, until the copies no longer stay in the processor's cache.
const TOGETHER: usize = 32 << 10;

/// A listening, non-blocking socket of one address family.
#[derive(Debug)]
pub struct TcpListener {
    fd: OwnedFd,
}

/// What came of an attempt to accept a connection.
#[derive(Debug)]
pub enum Accept {
    /// A connection and where it comes from.
    Stream(TcpStream, SocketAddr),
    /// Nobody is waiting.
    WouldBlock,
    /// The one waiting has gone, or its network has. Ask for the next.
    Aborted,
    /// Somebody is waiting but descriptors or memory have run out. The listener
    /// stays readable, so stop asking (`Interest::NONE`) until some are free.
    Exhausted(io::Error),
}

impl TcpListener {
    /// Opens a listener. An IPv6 listener is IPv6 only. With `reuse_port` several
    /// listeners of this user share the address and the kernel spreads
    /// connections over them. `backlog` is the number of connections that may
    /// wait to be accepted; the system may allow fewer.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` from bind(2) and
    /// listen(2); EMFILE or ENFILE when descriptors run out.
    pub fn bind(addr: SocketAddr, reuse_port: bool, backlog: usize) -> io::Result<Self> {
        let listener = Self { fd: socket::open(&addr, libc::SOCK_STREAM)? };
        let fd = listener.as_fd();
        // A restarted server must not wait for old connections to expire.
        socket::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        if reuse_port {
            socket::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        socket::bind(fd, &addr)?;
        // SAFETY: the call takes no pointers.
        check(unsafe { libc::listen(fd.as_raw_fd(), int(backlog)) })?;
        Ok(listener)
    }

    /// Accepts one connection; the stream is non-blocking and closed on exec.
    ///
    /// # Errors
    /// None that a correct program sees; what happens in operation is an
    /// [`Accept`].
    pub fn accept(&self) -> io::Result<Accept> {
        let mut name = RawAddr::EMPTY;
        loop {
            let mut len = RawAddr::LEN as libc::socklen_t;
            // SAFETY: `name` has room for `len` bytes; both live across the call.
            let result = check(unsafe {
                libc::accept4(
                    self.fd.as_raw_fd(),
                    name.as_mut_ptr(),
                    &raw mut len,
                    libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                )
            });
            match result {
                Ok(fd) => {
                    // SAFETY: the call above has just made `fd`; nobody else owns it.
                    let stream = TcpStream { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
                    // The kernel gives no address when the peer has reset already.
                    return Ok(match name.decode() {
                        Some(from) => Accept::Stream(stream, from),
                        None => Accept::Aborted,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return not_accepted(e),
            }
        }
    }

    /// The address the listener is bound to.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self.as_fd())
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn not_accepted(error: io::Error) -> io::Result<Accept> {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Ok(Accept::WouldBlock),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            Ok(Accept::Exhausted(error))
        }
        // accept(2) also hands over what went wrong on the new connection; EPERM
        // is a firewall's word.
        Some(
            libc::ECONNABORTED
            | libc::EPERM
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET
            | libc::EOPNOTSUPP
            | libc::ETIMEDOUT,
        ) => Ok(Accept::Aborted),
        _ => Err(error),
    }
}

/// Whether another socket listens on this TCP address, even one that would share
/// it (SO_REUSEPORT). Connections of an earlier server that have yet to expire
/// do not count. Port 0 is never taken.
///
/// # Errors
/// Other reasons why the address cannot be bound: not a local address, a
/// privileged port.
pub fn is_port_taken(addr: SocketAddr) -> io::Result<bool> {
    socket::is_taken(addr, libc::SOCK_STREAM, true)
}

/// A connected, non-blocking TCP socket.
#[derive(Debug)]
pub struct TcpStream {
    fd: OwnedFd,
}

/// What came of an attempt to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// This many bytes, at least one.
    Data(usize),
    /// Nothing yet.
    WouldBlock,
    /// The peer has closed its side; nothing more will come.
    Closed,
}

impl TcpStream {
    /// Starts to connect. The stream becomes writable when it is decided: then ask
    /// [`connected`](Self::connected).
    ///
    /// # Errors
    /// What is known at once: no route, no ports, no descriptors.
    pub fn connect(peer: SocketAddr) -> io::Result<Self> {
        let stream = Self { fd: socket::open(&peer, libc::SOCK_STREAM)? };
        stream.start_to_connect(peer)?;
        Ok(stream)
    }

    /// Starts to connect from `local`, whose port a listener may have too (both say
    /// SO_REUSEADDR and SO_REUSEPORT). The stream becomes writable when it is
    /// decided: then ask [`connected`](Self::connected).
    ///
    /// # Errors
    /// What is known at once: `AddrInUse` when the same connection exists already,
    /// no route, no descriptors.
    pub fn connect_from(local: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        let stream = Self { fd: socket::open(&local, libc::SOCK_STREAM)? };
        socket::set_option(stream.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        socket::set_option(stream.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        socket::bind(stream.as_fd(), &local)?;
        stream.start_to_connect(peer)?;
        Ok(stream)
    }

    fn start_to_connect(&self, peer: SocketAddr) -> io::Result<()> {
        let mut name = RawAddr::EMPTY;
        let len = name.encode(&peer);
        // SAFETY: `name` is a valid socket address of `len` bytes and lives across the call.
        let started = check(unsafe { libc::connect(self.fd.as_raw_fd(), name.as_ptr(), len) });
        match started {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
            _ => Ok(()),
        }
    }

    /// Whether a connection that was begun has come about.
    ///
    /// # Errors
    /// Why it has not: `ConnectionRefused`, `TimedOut`, an unreachable peer; or
    /// `WouldBlock` while that is open.
    pub fn connected(&self) -> io::Result<()> {
        match socket::option(self.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR)? {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        match socket::peer_addr(self.as_fd()) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(e) => Err(e),
        }
    }

    /// Reads what is there, up to the length of `buffer`, which must not be empty.
    ///
    /// # Errors
    /// The connection broke: `ConnectionReset`, `TimedOut`, an unreachable peer.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<ReadOutcome> {
        debug_assert!(!buffer.is_empty(), "an empty read looks like the end of the stream");
        loop {
            // SAFETY: `buffer` is writable for its length.
            let result = check_len(unsafe {
                libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            });
            return match result {
                Ok(0) => Ok(ReadOutcome::Closed),
                Ok(len) => Ok(ReadOutcome::Data(len)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(ReadOutcome::WouldBlock),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
        }
    }

    /// Writes bytes and returns how many the kernel took; 0 when it has no room.
    ///
    /// # Errors
    /// The connection broke: `BrokenPipe`, `ConnectionReset`, `TimedOut`.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        accepted(|| {
            // SAFETY: `bytes` is readable for its length.
            unsafe {
                libc::send(
                    self.fd.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    libc::MSG_NOSIGNAL,
                )
            }
        })
    }

    /// Writes header, body and padding of `messages[order[0]]`,
    /// `messages[order[1]]` and so on with one system call, [`FRAMES`] of them at
    /// most, and returns how many bytes the kernel took; 0 when it has no room.
    /// It may end anywhere inside a message: compare with
    /// [`Outgoing::wire_len`].
    ///
    /// # Errors
    /// The connection broke: `BrokenPipe`, `ConnectionReset`, `TimedOut`.
    ///
    /// # Panics
    /// When `order` has an index outside `messages`, a body lies outside its
    /// slot, or padding is more than three bytes.
    pub fn write_vectored(
        &self,
        scratch: &mut StreamBatch,
        arena: &Arena,
        messages: &[Outgoing],
        order: &[u32],
    ) -> io::Result<usize> {
        if let Some(bytes) = scratch.put_together(arena, messages, order) {
            return self.write(bytes);
        }
        let count = scratch.describe(arena, messages, order);
        // SAFETY: all-zero is a valid `msghdr`: no name, no control messages.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = scratch.pieces.as_mut_ptr();
        header.msg_iovlen = count as _;
        accepted(|| {
            // SAFETY: the first `count` pieces point at bytes of the messages and
            // the arena, which stay borrowed across the call; the kernel only
            // reads them.
            unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) }
        })
    }

    /// Tells the peer that nothing more will come; reading goes on.
    ///
    /// # Errors
    /// `NotConnected` when the connection has broken.
    pub fn shutdown_write(&self) -> io::Result<()> {
        // SAFETY: the call takes no pointers.
        check(unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_WR) })?;
        Ok(())
    }

    /// The local address of the connection.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self.as_fd())
    }

    /// The peer's address of the connection.
    ///
    /// # Errors
    /// `NotConnected` when the connection has broken.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_addr(self.as_fd())
    }

    /// Sends small writes at once instead of waiting to fill a segment.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.set_tcp(libc::TCP_NODELAY, libc::c_int::from(on))
    }

    /// Reports room to write only while fewer than `bytes` wait unsent in the
    /// kernel. What waits in the program instead can still be dropped or
    /// reordered.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn set_not_sent_low_at(&self, bytes: usize) -> io::Result<()> {
        self.set_tcp(libc::TCP_NOTSENT_LOWAT, int(bytes))
    }

    /// Breaks the connection when sent bytes stay unacknowledged for this long,
    /// in steps of a millisecond; zero is the system's default.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_tcp(libc::TCP_USER_TIMEOUT, millis_up(timeout))
    }

    /// Has the connection reset when it is closed, so that nobody takes what has
    /// arrived for all there is.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn reset_on_close(&self) -> io::Result<()> {
        socket::set_linger(self.as_fd(), libc::linger { l_onoff: 1, l_linger: 0 })
    }

    /// Probes a silent peer after `idle` and then every `interval`, both in whole
    /// seconds of at least one, and breaks the connection after `probes`
    /// unanswered ones.
    ///
    /// # Errors
    /// EINVAL for more than 32,767 seconds or 127 probes, or no probes.
    pub fn set_keepalive(&self, idle: Duration, interval: Duration, probes: u8) -> io::Result<()> {
        self.set_tcp(libc::TCP_KEEPIDLE, seconds(idle))?;
        self.set_tcp(libc::TCP_KEEPINTVL, seconds(interval))?;
        self.set_tcp(libc::TCP_KEEPCNT, libc::c_int::from(probes))?;
        socket::set_option(self.as_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
    }

    /// Sets the size of the send buffer in bytes and switches its growth off.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        socket::set_buffer(self.as_fd(), libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes)
    }

    fn set_tcp(&self, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        socket::set_option(self.as_fd(), libc::IPPROTO_TCP, name, value)
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Repeats a write that a signal interrupted; a full buffer accepts no bytes.
fn accepted(mut write: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match check_len(write()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

fn seconds(duration: Duration) -> libc::c_int {
    libc::c_int::try_from(duration.as_secs().max(1)).unwrap_or(libc::c_int::MAX)
}

/// Where [`TcpStream::write_vectored`] lays frames out for the kernel; made once,
/// used for any number of streams one after the other.
pub struct StreamBatch {
    pieces: Vec<libc::iovec>,
    together: Vec<u8>,
}

// SAFETY: the pointers in `pieces` are only followed during a call that sets them.
unsafe impl Send for StreamBatch {}

impl StreamBatch {
    /// Room to describe [`FRAMES`] messages.
    pub fn new() -> Self {
        Self { pieces: vec![NO_PIECE; FRAMES * PIECES], together: Vec::with_capacity(TOGETHER) }
    }

    /// Copies the messages one behind the other, if they are few enough bytes.
    fn put_together(
        &mut self,
        arena: &Arena,
        messages: &[Outgoing],
        order: &[u32],
    ) -> Option<&[u8]> {
        self.together.clear();
        for &index in order.iter().take(FRAMES) {
            let message = &messages[index as usize];
            if self.together.len() + message.wire_len() > TOGETHER {
                return None;
            }
            for piece in message.pieces(arena) {
                self.together.extend_from_slice(piece);
            }
        }
        Some(&self.together)
    }

    /// Describes the messages one behind the other and returns the number of pieces.
    fn describe(&mut self, arena: &Arena, messages: &[Outgoing], order: &[u32]) -> usize {
        let mut used = 0;
        for &index in order.iter().take(FRAMES) {
            let place = self.pieces[used..].first_chunk_mut().expect("PIECES for each of FRAMES");
            used += gather(&messages[index as usize], arena, place);
        }
        used
    }
}

impl Default for StreamBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for StreamBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamBatch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::loopback::{ANY_PORT, body, wait_for};
    use crate::io::{Header, Interest};
    use std::io::{Read, Write};

    /// Our end of a connection and a blocking client's end.
    fn connect(addr: SocketAddr) -> (TcpListener, TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind(addr, false, 16).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        wait_for(&listener, Interest::READ);
        let Accept::Stream(stream, from) = listener.accept().unwrap() else {
            panic!("a connection is waiting");
        };
        assert_eq!(from, client.local_addr().unwrap());
        (listener, stream, client)
    }

    fn read_some(stream: &TcpStream, buffer: &mut [u8]) -> ReadOutcome {
        wait_for(stream, Interest::READ);
        stream.read(buffer).unwrap()
    }

    #[test]
    fn connects_from_the_port_of_a_listener() {
        for addr in ANY_PORT {
            let listener = TcpListener::bind(addr, true, 16).unwrap();
            let peer = TcpListener::bind(addr, false, 16).unwrap();
            let (local, remote) = (listener.local_addr().unwrap(), peer.local_addr().unwrap());
            let stream = TcpStream::connect_from(local, remote).unwrap();
            wait_for(&stream, Interest::WRITE);
            stream.connected().unwrap();
            let Accept::Stream(_, from) = peer.accept().unwrap() else { panic!("it is there") };
            assert_eq!(from, local, "peers see the relayed transport address");
            let again = TcpStream::connect_from(local, remote).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AddrNotAvailable, "{again}");
        }
    }

    #[test]
    fn a_refused_connection_says_so() {
        let nobody = TcpListener::bind(ANY_PORT[0], false, 1).unwrap().local_addr().unwrap();
        let local = TcpListener::bind(ANY_PORT[0], true, 1).unwrap();
        let stream = TcpStream::connect_from(local.local_addr().unwrap(), nobody).unwrap();
        wait_for(&stream, Interest::WRITE);
        assert_eq!(stream.connected().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn accepts_reads_writes_and_closes_in_both_families() {
        for addr in ANY_PORT {
            let (listener, stream, mut client) = connect(addr);
            assert!(matches!(listener.accept().unwrap(), Accept::WouldBlock));
            assert_eq!(stream.local_addr().unwrap(), listener.local_addr().unwrap());
            assert_eq!(stream.peer_addr().unwrap(), client.local_addr().unwrap());

            let mut buffer = [0; 16];
            assert_eq!(stream.read(&mut buffer).unwrap(), ReadOutcome::WouldBlock);
            client.write_all(b"ping").unwrap();
            assert_eq!(read_some(&stream, &mut buffer), ReadOutcome::Data(4));
            assert_eq!(&buffer[..4], b"ping");

            assert_eq!(stream.write(b"pong").unwrap(), 4);
            stream.shutdown_write().unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"pong");
            drop(client);
            assert_eq!(read_some(&stream, &mut buffer), ReadOutcome::Closed);
        }
    }

    #[test]
    fn a_broken_connection_is_an_error_and_no_signal() {
        let (_listener, stream, client) = connect(ANY_PORT[0]);
        assert_eq!(stream.write(b"unread").unwrap(), 6);
        // Closing with unread bytes resets the connection.
        wait_for(&client, Interest::READ);
        drop(client);
        wait_for(&stream, Interest::READ);
        let error = stream.read(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(stream.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn frames_lie_behind_one_another_on_the_wire() {
        let (_listener, stream, mut client) = connect(ANY_PORT[0]);
        let mut arena = Arena::new(2).unwrap();
        let mut scratch = StreamBatch::new();
        let to = stream.peer_addr().unwrap();
        let first = Outgoing {
            header: Header::new(&[0x40, 1, 0, 3]).unwrap(),
            pad: 1,
            ..Outgoing::new(to, body(&mut arena, b"abc"))
        };
        let second = Outgoing::new(to, body(&mut arena, b"defg"));
        let messages = [first, second];
        let order = [1, 0, 1];
        let len: usize = order.iter().map(|&i| messages[i as usize].wire_len()).sum();
        let written = stream.write_vectored(&mut scratch, &arena, &messages, &order).unwrap();
        assert_eq!(written, len);
        let mut got = vec![0; len];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, b"defg\x40\x01\x00\x03abc\0defg");
        // More than one call takes: the rest is the caller's to offer again.
        let order = [1; FRAMES + 1];
        let written = stream.write_vectored(&mut scratch, &arena, &messages, &order).unwrap();
        assert_eq!(written, FRAMES * 4);
        assert_eq!(stream.write_vectored(&mut scratch, &arena, &messages, &[]).unwrap(), 0);
    }

    #[test]
    fn frames_lie_the_same_way_when_they_are_too_long_to_copy() {
        let (_listener, stream, mut client) = connect(ANY_PORT[0]);
        let mut arena = Arena::new(1).unwrap();
        let mut scratch = StreamBatch::new();
        let to = stream.peer_addr().unwrap();
        let payload: Vec<u8> = (0..TOGETHER / 3).map(|n| n as u8).collect();
        let message = Outgoing {
            header: Header::new(&[0x40, 1, 0, 0]).unwrap(),
            pad: 2,
            ..Outgoing::new(to, body(&mut arena, &payload))
        };
        let frame = [&[0x40, 1, 0, 0], &payload[..], &[0, 0]].concat();
        for count in 1..=4 {
            let order = vec![0; count];
            let written = stream.write_vectored(&mut scratch, &arena, &[message], &order).unwrap();
            assert_eq!(written, count * frame.len());
            let copied = scratch.put_together(&arena, &[message], &order).is_some();
            assert_eq!(copied, count < 3);
            let mut got = vec![0; written];
            client.read_exact(&mut got).unwrap();
            assert!(got == frame.repeat(count), "{count} frames");
        }
    }

    #[test]
    fn a_slow_reader_gets_partial_writes_and_every_byte() {
        const ROUNDS: usize = 40;
        let (_listener, stream, mut client) = connect(ANY_PORT[0]);
        stream.set_send_buffer(4_096).unwrap();
        let mut arena = Arena::new(1).unwrap();
        let mut scratch = StreamBatch::new();
        let payload: Vec<u8> = (0..60_000u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
        let body = body(&mut arena, &payload);
        let to = stream.peer_addr().unwrap();
        let message = Outgoing { pad: 3, ..Outgoing::new(to, body) };
        let frame = [&payload[..], &[0; 3]].concat();

        let mut partial = 0;
        let mut refused = 0;
        let mut wanted = Vec::new();
        let mut got = Vec::new();
        let mut chunk = vec![0; 100_000];
        for _ in 0..ROUNDS {
            let mut at = 0;
            while at < frame.len() {
                let written = if at == 0 {
                    stream.write_vectored(&mut scratch, &arena, &[message], &[0]).unwrap()
                } else {
                    stream.write(&frame[at..]).unwrap()
                };
                partial += usize::from(written > 0 && written < frame.len() - at);
                at += written;
                if written == 0 {
                    refused += 1;
                    let len = client.read(&mut chunk).unwrap();
                    got.extend_from_slice(&chunk[..len]);
                }
            }
            wanted.extend_from_slice(&frame);
        }
        stream.shutdown_write().unwrap();
        client.read_to_end(&mut got).unwrap();
        assert!(partial > 0 && refused > 0, "{partial} partial, {refused} refused");
        assert!(got == wanted, "bytes lost or out of order");
    }

    #[test]
    fn running_out_of_descriptors_is_told_from_nobody_waiting() {
        let refused = |code| not_accepted(io::Error::from_raw_os_error(code));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(matches!(refused(code), Ok(Accept::Exhausted(_))));
        }
        for code in [libc::ECONNABORTED, libc::EPROTO, libc::EPERM] {
            assert!(matches!(refused(code), Ok(Accept::Aborted)));
        }
        assert!(matches!(refused(libc::EAGAIN), Ok(Accept::WouldBlock)));
        assert!(refused(libc::EBADF).is_err());
    }

    #[test]
    fn a_second_listener_is_noticed_although_it_would_share() {
        for addr in ANY_PORT {
            let first = TcpListener::bind(addr, true, 16).unwrap();
            let held = first.local_addr().unwrap();
            assert!(is_port_taken(held).unwrap());
            let second = TcpListener::bind(held, true, 16).unwrap();
            drop(first);
            assert!(is_port_taken(held).unwrap());
            let third = TcpListener::bind(held, false, 16).unwrap_err();
            assert_eq!(third.kind(), io::ErrorKind::AddrInUse);
            drop(second);
            assert!(!is_port_taken(held).unwrap());
        }
    }

    #[test]
    fn connections_of_an_earlier_listener_do_not_hold_the_port() {
        let (listener, stream, client) = connect(ANY_PORT[0]);
        let held = listener.local_addr().unwrap();
        drop(listener);
        assert!(!is_port_taken(held).unwrap(), "an open connection");
        // Our side closes first, so it is the one in TIME_WAIT.
        stream.shutdown_write().unwrap();
        drop(stream);
        drop(client);
        assert!(!is_port_taken(held).unwrap(), "a connection in TIME_WAIT");
        TcpListener::bind(held, false, 16).unwrap();
    }

    #[test]
    fn options_reach_the_kernel() {
        let (_listener, stream, _client) = connect(ANY_PORT[1]);
        stream.set_nodelay(true).unwrap();
        stream.set_not_sent_low_at(16_384).unwrap();
        stream.set_user_timeout(Duration::from_micros(29_999_001)).unwrap();
        let (idle, interval) = (Duration::from_secs(60), Duration::from_millis(10));
        stream.set_keepalive(idle, interval, 3).unwrap();
        let expected = [
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
            (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 16_384),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 30_000),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 60),
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 1),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        ];
        for (level, name, value) in expected {
            assert_eq!(socket::option(stream.as_fd(), level, name).unwrap(), value);
        }
    }
}
