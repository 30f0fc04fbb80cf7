//! Sending batches of datagrams.

use std::io;
use std::ops::AddAssign;
use std::os::fd::AsRawFd;

use super::control::ControlBuffer;
use super::error::is_icmp;
use super::{BATCH, UdpSocket};
use crate::io::address::RawAddr;
use crate::io::arena::Arena;
use crate::io::outgoing::{NO_PIECE, Outgoing, PIECES, gather};
use crate::io::socket::check_len;

impl UdpSocket {
    /// Sends `messages[order[0]]`, `messages[order[1]]` and so on, in that order,
    /// up to [`BATCH`] with one system call. Never blocks and never fails: UDP
    /// may lose datagrams, and what could not be sent is counted.
    ///
    /// A message the kernel refuses (too large, no route, forbidden) costs itself
    /// only. When the send buffer is full the rest is dropped: whatever is queued
    /// behind it would be late. A pending ICMP error of an earlier datagram fails
    /// one call, so each message is tried twice before it counts as refused.
    ///
    /// # Panics
    /// When `order` has an index outside `messages`, a body lies outside its
    /// slot, or padding is more than three bytes.
    pub fn send_batch(
        &self,
        scratch: &mut SendBatch,
        arena: &Arena,
        messages: &[Outgoing],
        order: &[u32],
    ) -> SendReport {
        let mut report = SendReport::default();
        let mut rest = order;
        while !rest.is_empty() && !report.full {
            let (run, dont_fragment) = next_run(messages, rest);
            rest = &rest[run.len()..];
            // A property of the socket: IPv4 has no control message for it.
            if dont_fragment && self.set_dont_fragment(true).is_err() {
                report.dropped_error += run.len();
                continue;
            }
            self.send_run(scratch, arena, messages, run, &mut report);
            if dont_fragment {
                // It worked a moment ago with the same option.
                let _ = self.set_dont_fragment(false);
            }
        }
        report.dropped_full += rest.len();
        report
    }

    fn send_run(
        &self,
        scratch: &mut SendBatch,
        arena: &Arena,
        messages: &[Outgoing],
        run: &[u32],
        report: &mut SendReport,
    ) {
        let chosen = |index: u32| &messages[index as usize];
        match *run {
            [only] if is_plain(chosen(only)) => {
                let message = chosen(only);
                send_each(1, report, |_| self.sendto(message, arena), |_| message);
            }
            _ => {
                for (index, &message) in run.iter().enumerate() {
                    scratch.describe(self, index, chosen(message), arena);
                }
                let send = |next| self.sendmmsg(scratch, next, run.len());
                send_each(run.len(), report, send, |index| chosen(run[index]));
            }
        }
    }

    /// One message of one piece without extras: the cheapest call there is.
    fn sendto(&self, message: &Outgoing, arena: &Arena) -> io::Result<usize> {
        let mut name = RawAddr::EMPTY;
        let name_len = name.encode(&message.to);
        let body = message.body.of(arena);
        // SAFETY: `body` and `name` are valid for their lengths across the call.
        check_len(unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                body.as_ptr().cast(),
                body.len(),
                0,
                name.as_ptr(),
                name_len,
            )
        })?;
        Ok(1)
    }

    /// Sends the messages described at `next..end` and returns how many went.
    fn sendmmsg(&self, scratch: &mut SendBatch, next: usize, end: usize) -> io::Result<usize> {
        let headers = &mut scratch.headers[next..end];
        // SAFETY: `describe` has pointed each of these headers at memory that
        // outlives the call: arrays of `scratch`, and bytes of the messages and
        // the arena, which `send_batch` keeps borrowed. The kernel only reads it.
        let result = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                0,
            )
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

/// The longest start of `order` that one call can send: at most [`BATCH`]
/// messages that agree about fragmentation. And what they agree on.
///
/// UDP_SEGMENT belongs here and in `describe`: neighbours with one destination
/// and one length can become one header with a segment size beside it.
#[inline]
fn next_run<'a>(messages: &[Outgoing], order: &'a [u32]) -> (&'a [u32], bool) {
    let flag = |index: &u32| messages[*index as usize].dont_fragment;
    let order = &order[..order.len().min(BATCH)];
    let dont_fragment = order.first().is_some_and(flag);
    let len = order.iter().position(|index| flag(index) != dont_fragment).unwrap_or(order.len());
    (&order[..len], dont_fragment)
}

/// Whether the message is one piece and needs no control message.
#[inline]
fn is_plain(message: &Outgoing) -> bool {
    message.from.is_none()
        && message.tos == 0
        && message.pad == 0
        && message.header.as_slice().is_empty()
}

/// Calls `send` from the first unsent message on until all `count` are sent,
/// refused or dropped. `send` returns how many went, or why the first did not.
#[inline]
fn send_each<'a>(
    count: usize,
    report: &mut SendReport,
    mut send: impl FnMut(usize) -> io::Result<usize>,
    message: impl Fn(usize) -> &'a Outgoing,
) {
    let mut next = 0;
    let mut tried = false;
    while next < count {
        let error = match send(next) {
            Ok(sent) => {
                // After fewer than asked the kernel keeps the reason to itself;
                // the next call starts at the culprit and tells.
                report.sent += sent;
                next += sent;
                tried = false;
                continue;
            }
            Err(error) => error,
        };
        match failure(&error, message(next), tried) {
            Failure::Interrupted => continue,
            Failure::Retry => {
                tried = true;
                continue;
            }
            Failure::SocketFull => {
                report.full = true;
                report.dropped_full += count - next;
                return;
            }
            Failure::DeviceFull => report.dropped_full += 1,
            Failure::Refused => report.dropped_error += 1,
        }
        next += 1;
        tried = false;
    }
}

enum Failure {
    /// A signal; not an attempt.
    Interrupted,
    /// Perhaps an ICMP error left by another message.
    Retry,
    /// No room in the socket's send buffer.
    SocketFull,
    /// No room in the queue of this message's network device.
    DeviceFull,
    /// This message cannot be sent.
    Refused,
}

fn failure(error: &io::Error, message: &Outgoing, tried: bool) -> Failure {
    match error.raw_os_error() {
        Some(libc::EINTR) => Failure::Interrupted,
        Some(libc::EAGAIN) => Failure::SocketFull,
        Some(libc::ENOBUFS) => Failure::DeviceFull,
        // Its own doing; a second attempt would queue a second local error.
        Some(libc::EMSGSIZE) if message.dont_fragment => Failure::Refused,
        _ if is_icmp(error) && !tried => Failure::Retry,
        _ => Failure::Refused,
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Messages the kernel took.
    pub sent: usize,
    /// Messages dropped because a queue was full: the socket's or a device's.
    pub dropped_full: usize,
    /// Messages the kernel refused.
    pub dropped_error: usize,
    /// The socket's send buffer was full at the end.
    pub full: bool,
}

impl AddAssign for SendReport {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.dropped_full += other.dropped_full;
        self.dropped_error += other.dropped_error;
        self.full |= other.full;
    }
}

/// The arrays in which [`UdpSocket::send_batch`] describes messages to the
/// kernel; made once, used for any number of sockets one after the other.
///
/// The headers hold pointers to the other arrays. These are `Vec`s that are
/// never grown, so their elements stay where they are when the batch moves.
pub struct SendBatch {
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<[libc::iovec; PIECES]>,
    names: Vec<RawAddr>,
    controls: Vec<ControlBuffer>,
}

// SAFETY: the pointers in `headers` lead to the batch's own arrays, which move
// with it; those in `pieces` are only followed during a call that sets them.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Room to describe [`BATCH`] messages.
    pub fn new() -> Self {
        // SAFETY: all-zero is a valid `mmsghdr`: null pointers and zero lengths.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let mut batch = Self {
            headers: vec![header; BATCH],
            pieces: vec![[NO_PIECE; PIECES]; BATCH],
            names: vec![RawAddr::EMPTY; BATCH],
            controls: vec![ControlBuffer::EMPTY; BATCH],
        };
        let (pieces, names) = (batch.pieces.as_mut_ptr(), batch.names.as_mut_ptr());
        let controls = batch.controls.as_mut_ptr();
        for (index, header) in batch.headers.iter_mut().enumerate() {
            // SAFETY: all arrays have BATCH elements, as many as there are headers.
            unsafe {
                header.msg_hdr.msg_iov = pieces.add(index).cast();
                header.msg_hdr.msg_name = names.add(index).cast();
                header.msg_hdr.msg_control = controls.add(index).cast();
            }
        }
        batch
    }

    #[inline]
    fn describe(&mut self, socket: &UdpSocket, index: usize, message: &Outgoing, arena: &Arena) {
        let control = self.controls[index].encode(socket.family, message.from, message.tos);
        let pieces = gather(message, arena, &mut self.pieces[index]);
        let header = &mut self.headers[index].msg_hdr;
        header.msg_namelen = self.names[index].encode(&message.to);
        header.msg_iovlen = pieces as _;
        header.msg_controllen = control as _;
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendBatch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Body;

    /// Sends `count` messages through a kernel that follows a script: each step
    /// is the message it is asked to start at and its answer.
    fn play(
        count: usize,
        dont_fragment: bool,
        script: &[(usize, Result<usize, i32>)],
    ) -> SendReport {
        let mut arena = Arena::new(1).unwrap();
        let body = Body { slot: arena.take().unwrap(), start: 0, end: 1 };
        let message = Outgoing { dont_fragment, ..Outgoing::new(([127, 0, 0, 1], 9).into(), body) };
        let mut report = SendReport::default();
        let mut steps = script.iter();
        let send = |next| {
            let (asked, answer) = steps.next().expect("a call the script does not have");
            assert_eq!(next, *asked);
            answer.map_err(io::Error::from_raw_os_error)
        };
        send_each(count, &mut report, send, |_| &message);
        assert_eq!(steps.next(), None, "calls that were not made");
        report
    }

    #[test]
    fn a_full_socket_drops_the_rest_at_once() {
        let report = play(64, false, &[(0, Ok(10)), (10, Err(libc::EAGAIN))]);
        let expected = SendReport { sent: 10, dropped_full: 54, dropped_error: 0, full: true };
        assert_eq!(report, expected);
    }

    #[test]
    fn a_full_device_drops_one() {
        let report = play(5, false, &[(0, Ok(2)), (2, Err(libc::ENOBUFS)), (3, Ok(2))]);
        let expected = SendReport { sent: 4, dropped_full: 1, dropped_error: 0, full: false };
        assert_eq!(report, expected);
    }

    #[test]
    fn what_may_be_a_pending_error_is_tried_twice_and_what_is_not_once() {
        let refused = Err(libc::ECONNREFUSED);
        let script = [
            (0, refused),
            (0, Ok(1)),
            (1, refused),
            (1, refused),
            (2, Err(libc::EINVAL)),
            (3, Ok(1)),
        ];
        let expected = SendReport { sent: 2, dropped_error: 2, ..SendReport::default() };
        assert_eq!(play(4, false, &script), expected);
        // Asking for no fragmentation and too large: no doubt whose error it is.
        let script = [(0, Err(libc::EMSGSIZE)), (1, Ok(1))];
        let expected = SendReport { sent: 1, dropped_error: 1, ..SendReport::default() };
        assert_eq!(play(2, true, &script), expected);
    }

    #[test]
    fn signals_do_not_count_as_attempts() {
        let interrupted = Err(libc::EINTR);
        let script = [(0, interrupted), (0, Err(libc::EHOSTUNREACH)), (0, interrupted), (0, Ok(1))];
        let expected = SendReport { sent: 1, ..SendReport::default() };
        assert_eq!(play(1, false, &script), expected);
    }

    #[test]
    fn runs_end_at_a_change_of_fragmentation_and_at_the_batch() {
        let mut arena = Arena::new(1).unwrap();
        let body = Body { slot: arena.take().unwrap(), start: 0, end: 1 };
        let plain = Outgoing::new(([127, 0, 0, 1], 9).into(), body);
        let messages = [plain, Outgoing { dont_fragment: true, ..plain }];
        assert_eq!(next_run(&messages, &[0, 0, 1]), (&[0, 0][..], false));
        assert_eq!(next_run(&messages, &[1, 0, 1]), (&[1][..], true));
        assert_eq!(next_run(&messages, &[0; BATCH + 1]).0.len(), BATCH);
    }
}
