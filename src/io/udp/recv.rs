//! Receiving batches of datagrams.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::control::ControlBuffer;
use super::error::is_icmp;
use super::{BATCH, IpFamily, UdpSocket};
use crate::io::address::RawAddr;
use crate::io::arena::{Arena, MAX_DATAGRAM, SlotId};
use crate::io::outgoing::NO_PIECE;
use crate::io::socket::check_call;

/// How often one call passes over a pending ICMP error before it leaves the rest
/// to the next turn. Errors can be caused faster than they are read.
const ERRORS_PASSED_OVER: usize = 4;

impl UdpSocket {
    /// Receives what is there, at most `max` trains, [`BATCH`], or as many as the
    /// arena has free slots, with one system call. A train is one datagram, or on
    /// a socket with `offload` several of one sender that the kernel has joined.
    /// Each lies at the start of its own slot; read them from `batch`. Nothing
    /// there is no error, and count zero.
    ///
    /// On a socket with `recv_errors` an ICMP error that came for an earlier
    /// datagram makes the kernel fail the next call once. That says nothing
    /// about this call, so it is passed over and reported in
    /// [`Received::icmp_error`]; the error itself is in
    /// [`recv_error`](Self::recv_error).
    ///
    /// # Errors
    /// None that a correct program sees, except ENOMEM.
    pub fn recv_batch(
        &self,
        arena: &mut Arena,
        batch: &mut RecvBatch,
        max: usize,
    ) -> io::Result<Received> {
        let asked = max.min(BATCH).min(arena.free_slots());
        let mut received = Received { count: 0, drained: false, icmp_error: false };
        batch.len = 0;
        if asked == 0 {
            return Ok(received);
        }
        let first = arena.take_many(asked).expect("not more than the free slots");
        batch.prepare(arena, first, asked, self.control);
        let result = self.recvmmsg(batch, asked, &mut received.icmp_error);
        let count = *result.as_ref().unwrap_or(&0);
        arena.give_back(asked - count);
        batch.family = self.family;
        batch.len = count;
        received.count = count;
        match result {
            Ok(count) => received.drained = count < asked,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => received.drained = true,
            Err(e) if is_icmp(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(received)
    }

    fn recvmmsg(
        &self,
        batch: &mut RecvBatch,
        asked: usize,
        icmp_error: &mut bool,
    ) -> io::Result<usize> {
        let mut passed_over = 0;
        loop {
            // SAFETY: `prepare` has pointed the first `asked` headers at memory
            // that outlives the call: addresses and control buffers in `batch`,
            // and slots of the arena that this call alone has taken. The lengths
            // are those of that memory. The arrays never move (see `RecvBatch`).
            let result = check_call(unsafe {
                libc::syscall(
                    libc::SYS_recvmmsg,
                    self.fd.as_raw_fd(),
                    batch.headers.as_mut_ptr(),
                    asked as libc::c_uint,
                    0,
                    std::ptr::null_mut::<libc::timespec>(),
                )
            });
            let error = match result {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            if is_icmp(&error) {
                *icmp_error = true;
                passed_over += 1;
                if passed_over <= ERRORS_PASSED_OVER {
                    continue;
                }
            } else if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
    }
}

/// What a receiving call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Trains in the batch.
    pub count: usize,
    /// The socket had no more than that. When not, there may be more.
    pub drained: bool,
    /// An ICMP error was pending: [`UdpSocket::recv_error`] has it.
    pub icmp_error: bool,
}

/// What one sender sent: one datagram, or several that the kernel has joined
/// (UDP_GRO). Their bytes are the first `len` of `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    /// Where it lies.
    pub slot: SlotId,
    /// Its length in bytes, as far as it fitted.
    pub len: usize,
    /// Bytes of each datagram but the last, which may have fewer.
    segment: usize,
    /// Its source.
    pub from: SocketAddr,
    /// The local address it came to; with `packet_info` only.
    pub local: Option<IpAddr>,
    /// Its TOS or traffic-class byte; with `recv_tos` only, else 0.
    pub tos: u8,
    /// It was longer than the room for it; the rest is lost.
    pub truncated: bool,
}

impl Train {
    /// Where in the slot each datagram lies, in the order of their sending. An
    /// empty datagram is one, too.
    #[inline]
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
        let Self { len, segment, .. } = *self;
        (0..len.div_ceil(segment).max(1)).map(move |nth| {
            let start = nth * segment;
            start..len.min(start + segment)
        })
    }
}

/// The arrays that [`UdpSocket::recv_batch`] has the kernel fill; made once, used
/// for any number of sockets one after the other.
///
/// The headers hold pointers to the other arrays. These are `Vec`s that are
/// never grown, so their elements stay where they are when the batch moves.
pub struct RecvBatch {
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
    names: Vec<RawAddr>,
    controls: Vec<ControlBuffer>,
    /// Slot of the first train; the others lie in the ones behind it.
    first: Option<SlotId>,
    len: usize,
    family: IpFamily,
}

// SAFETY: the pointers in `headers` lead to the batch's own arrays, which move
// with it, and in `pieces` to arena slots that are only written during a call.
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    /// A batch that receives whole datagrams, whatever their size.
    pub fn new() -> Self {
        Self::with_room(MAX_DATAGRAM)
    }

    /// A batch that keeps at most `room` bytes of each datagram, and marks longer
    /// ones as truncated. It bounds the memory that large datagrams touch.
    pub fn with_room(room: usize) -> Self {
        // SAFETY: all-zero is a valid `mmsghdr`: null pointers and zero lengths.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let mut batch = Self {
            headers: vec![header; BATCH],
            pieces: vec![libc::iovec { iov_len: room.min(MAX_DATAGRAM), ..NO_PIECE }; BATCH],
            names: vec![RawAddr::EMPTY; BATCH],
            controls: vec![ControlBuffer::EMPTY; BATCH],
            first: None,
            len: 0,
            family: IpFamily::V4,
        };
        let (pieces, names) = (batch.pieces.as_mut_ptr(), batch.names.as_mut_ptr());
        let controls = batch.controls.as_mut_ptr();
        for (index, header) in batch.headers.iter_mut().enumerate() {
            // SAFETY: all arrays have BATCH elements, as many as there are headers.
            unsafe {
                header.msg_hdr.msg_iov = pieces.add(index);
                header.msg_hdr.msg_name = names.add(index).cast();
                header.msg_hdr.msg_control = controls.add(index).cast();
            }
            header.msg_hdr.msg_iovlen = 1;
        }
        batch
    }

    /// The trains of the last call, in order of arrival.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Train> + '_ {
        (0..self.len).map(|index| self.at(index))
    }

    /// One train of the last call, counted from 0 to [`Received::count`].
    ///
    /// # Panics
    /// When the last call received fewer.
    #[inline]
    pub fn at(&self, index: usize) -> Train {
        assert!(index < self.len, "a train that was not received");
        let header = &self.headers[index];
        let first = self.first.expect("a batch that received has slots");
        let from = self.names[index].decode();
        #[allow(clippy::unnecessary_cast, reason = "not a usize in every C library")]
        let control_len = header.msg_hdr.msg_controllen as usize;
        let arrival = self.controls[index].decode(self.family, control_len);
        let len = header.msg_len as usize;
        Train {
            slot: first.behind(index),
            len,
            segment: arrival.segment.unwrap_or(len).max(1),
            from: from.expect("the kernel names the source of every Internet datagram"),
            local: arrival.local,
            tos: arrival.tos,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    /// Points the first `count` headers at the slots from `first` on and puts
    /// back what the kernel overwrote: the lengths.
    #[inline]
    fn prepare(&mut self, arena: &mut Arena, first: SlotId, count: usize, control: bool) {
        self.first = Some(first);
        let control_len = if control { ControlBuffer::LEN } else { 0 };
        for index in 0..count {
            self.pieces[index].iov_base = arena.bytes_mut(first.behind(index)).as_mut_ptr().cast();
            let header = &mut self.headers[index].msg_hdr;
            header.msg_namelen = RawAddr::LEN as libc::socklen_t;
            header.msg_controllen = control_len as _;
        }
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
