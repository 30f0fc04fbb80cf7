//! Bytes from one TCP connection to another without copying them through the
//! program: splice(2) through a pipe.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::socket::{check, check_len};
use super::tcp::{ReadOutcome, TcpStream};

/// The most bytes moved with one call, and what a pipe of the kernel holds.
const MOST: usize = 64 << 10;

/// One direction between two connections: what was read from one and not yet
/// written to the other stays in the kernel.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
}

impl Pipe {
    /// An empty pipe: two descriptors and no pages yet.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two descriptors.
        check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        // SAFETY: the call above has just made both; nobody else owns them.
        let [reader, writer] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self { reader, writer, held: 0 })
    }

    /// Whether everything that went in has come out.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves what has arrived at a connection into the pipe. While it is not empty
    /// the answer may be [`ReadOutcome::WouldBlock`] because there is no room.
    ///
    /// # Errors
    /// The connection broke: `ConnectionReset`, `TimedOut`.
    pub fn fill(&mut self, from: &TcpStream) -> io::Result<ReadOutcome> {
        match splice(from, &self.writer) {
            Ok(0) => Ok(ReadOutcome::Closed),
            Ok(len) => {
                self.held += len;
                Ok(ReadOutcome::Data(len))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(ReadOutcome::WouldBlock),
            Err(e) => Err(e),
        }
    }

    /// Moves what is in the pipe to a connection; returns how many bytes it took.
    ///
    /// # Errors
    /// The connection broke: `BrokenPipe`, `ConnectionReset`.
    pub fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let mut moved = 0;
        while self.held > 0 {
            match splice(&self.reader, to) {
                Ok(len) => {
                    self.held -= len;
                    moved += len;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(moved)
    }
}

fn splice(from: &impl std::os::fd::AsFd, to: &impl std::os::fd::AsFd) -> io::Result<usize> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    loop {
        // SAFETY: no offsets are given, as sockets and pipes have none.
        let moved = check_len(unsafe {
            libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), MOST, flags)
        });
        match moved {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            moved => return moved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::loopback::{ANY_PORT, wait_for};
    use crate::io::{Accept, Interest, TcpListener};
    use std::io::{Read as _, Write as _};

    fn pair() -> (TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind(ANY_PORT[0], false, 4).unwrap();
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        far.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        wait_for(&listener, Interest::READ);
        let Accept::Stream(near, _) = listener.accept().unwrap() else { panic!("connected") };
        (near, far)
    }

    #[test]
    fn bytes_pass_in_order_and_the_end_is_told() {
        let (from, mut writer) = pair();
        let (to, mut reader) = pair();
        let mut pipe = Pipe::new().unwrap();
        assert_eq!(pipe.fill(&from).unwrap(), ReadOutcome::WouldBlock);
        let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let wanted = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            got
        });
        loop {
            wait_for(&from, Interest::READ);
            if pipe.fill(&from).unwrap() == ReadOutcome::Closed {
                break;
            }
            while !pipe.is_empty() {
                wait_for(&to, Interest::WRITE);
                pipe.drain(&to).unwrap();
            }
        }
        to.shutdown_write().unwrap();
        writing.join().unwrap();
        assert!(reading.join().unwrap() == wanted, "every byte in order");
    }

    #[test]
    fn a_receiver_that_has_gone_is_an_error_and_no_signal() {
        let (from, mut writer) = pair();
        let (to, reader) = pair();
        drop(reader);
        let mut pipe = Pipe::new().unwrap();
        let mut broken = false;
        // The first bytes make the far end answer with a reset.
        for _ in 0..100 {
            writer.write_all(b"more").unwrap();
            wait_for(&from, Interest::READ);
            assert!(matches!(pipe.fill(&from).unwrap(), ReadOutcome::Data(_)));
            broken = pipe.drain(&to).is_err();
            if broken {
                break;
            }
        }
        assert!(broken);
    }
}
