//! Sending batches of datagrams.

use std::io;
use std::ops::AddAssign;
use std::os::fd::AsRawFd;

use super::control::ControlBuffer;
use super::error::is_icmp;
use super::{BATCH, Mode, UdpSocket};
use crate::io::address::RawAddr;
use crate::io::arena::Arena;
use crate::io::outgoing::{NO_PIECE, Outgoing, PIECES, gather};
use crate::io::socket::check_call;

/// The most datagrams in one train (UDP_SEGMENT). Kernels allow 64, newer ones 128.
const TRAIN_DATAGRAMS: usize = 64;

/// The most bytes in one train: what a datagram can hold, and headers.
const TRAIN_BYTES: usize = 65_000;

/// A datagram of this length fits through every link (RFC 8200 section 5).
const SEGMENT_SAFE: usize = 1_232;

/// Pieces that one call can send: several long trains.
const PIECES_MAX: usize = 4 * TRAIN_DATAGRAMS * PIECES;

impl UdpSocket {
    /// Sends `messages[order[0]]`, `messages[order[1]]` and so on, in that order,
    /// [`BATCH`] trains with one system call. Never blocks and never fails: UDP may
    /// lose datagrams, and what could not be sent is counted.
    ///
    /// On a socket with `offload`, neighbours of one length and destination leave
    /// as one train, the last of which may be shorter.
    ///
    /// A message the kernel refuses (too large, no route, forbidden) costs itself
    /// only: a refused train is sent again in single datagrams. When the send
    /// buffer is full the rest is dropped: whatever is queued behind it would be
    /// late. A pending ICMP error of an earlier datagram fails one call, so each
    /// train is tried twice before it counts as refused.
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
            let (run, mode) = next_run(messages, rest);
            rest = &rest[run.len()..];
            // A property of the socket: IPv4 has no control message for it.
            if self.enter_mode(mode).is_err() {
                report.dropped_error += run.len();
                continue;
            }
            self.send_run(scratch, arena, messages, run, &mut report);
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
        if let [only] = *run
            && let message = &messages[only as usize]
            && is_plain(message)
        {
            send_trains(&[single(message)], report, |_| self.sendto(message, arena));
            return;
        }
        let mut rest = run;
        while !rest.is_empty() && !report.full {
            let described = scratch.describe(self, arena, messages, rest, self.segment_max.get());
            let (mut done, mut refused) = (described, None);
            if let Some((train, error)) = self.send_described(scratch, report) {
                let before: usize = scratch.trains[..train].iter().map(|train| train.len).sum();
                done = before + scratch.trains[train].len;
                refused = Some((&rest[before..done], error));
            }
            if let Some((train, error)) = refused {
                self.send_apart(scratch, arena, messages, train, &error, report);
            }
            rest = &rest[done..];
        }
        report.dropped_full += rest.len();
    }

    /// Sends the trains that are described, up to one that is refused.
    fn send_described(
        &self,
        scratch: &mut SendBatch,
        report: &mut SendReport,
    ) -> Option<(usize, io::Error)> {
        let trains = std::mem::take(&mut scratch.trains);
        let send = |next| self.sendmmsg(scratch, next, trains.len());
        let refused = send_trains(&trains, report, send);
        scratch.trains = trains;
        refused
    }

    /// Sends the messages of a refused train one by one, and learns from it: if they
    /// are taken, it was refused for being a train.
    fn send_apart(
        &self,
        scratch: &mut SendBatch,
        arena: &Arena,
        messages: &[Outgoing],
        train: &[u32],
        error: &io::Error,
        report: &mut SendReport,
    ) {
        let (sent, segment) = (report.sent, messages[train[0] as usize].wire_len());
        scratch.describe(self, arena, messages, train, 0);
        // Each is refused for good, so nothing is left to be sent in another way.
        self.send_described(scratch, report);
        if report.sent == sent + train.len() {
            // A datagram longer than the MTU is EMSGSIZE, or EINVAL before Linux 6.14,
            // which may also mean that trains are unknown.
            let too_long = match error.raw_os_error() {
                Some(libc::EMSGSIZE) => true,
                Some(libc::EINVAL) => segment > SEGMENT_SAFE,
                _ => false,
            };
            self.segment_max.set(if too_long { segment - 1 } else { 0 });
        }
    }

    /// One message of one piece without extras: the cheapest call there is.
    fn sendto(&self, message: &Outgoing, arena: &Arena) -> io::Result<usize> {
        let mut name = RawAddr::EMPTY;
        let name_len = name.encode(&message.to);
        let body = message.body.of(arena);
        // SAFETY: `body` and `name` are valid for their lengths across the call.
        check_call(unsafe {
            libc::syscall(
                libc::SYS_sendto,
                self.fd.as_raw_fd(),
                body.as_ptr(),
                body.len(),
                0,
                name.as_ptr(),
                name_len,
            )
        })?;
        Ok(1)
    }

    /// Sends the trains described at `next..end` and returns how many went.
    fn sendmmsg(&self, scratch: &mut SendBatch, next: usize, end: usize) -> io::Result<usize> {
        let headers = &mut scratch.headers[next..end];
        // SAFETY: `describe_train` has pointed each of these headers at memory that
        // outlives the call: arrays of `scratch`, and bytes of the messages and
        // the arena, which `send_batch` keeps borrowed. The kernel only reads it.
        check_call(unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                0,
            )
        })
    }
}

/// The longest start of `order` that agrees about fragmentation, and what it
/// agrees on.
#[inline]
fn next_run<'a>(messages: &[Outgoing], order: &'a [u32]) -> (&'a [u32], Mode) {
    let flag = |index: &u32| messages[*index as usize].dont_fragment;
    let whole = order.first().is_some_and(flag);
    let len = order.iter().position(|index| flag(index) != whole).unwrap_or(order.len());
    (&order[..len], if whole { Mode::Whole } else { Mode::Fragmentable })
}

/// How many messages at the start of `order` can leave as one train: all to one
/// destination and of one length, at most `segment_max` bytes, but for the last, which
/// may be shorter.
#[inline]
pub(super) fn train_len(messages: &[Outgoing], order: &[u32], segment_max: usize) -> usize {
    let first = &messages[order[0] as usize];
    let segment = first.wire_len();
    if segment == 0 || segment > segment_max {
        return 1;
    }
    let (mut len, mut bytes) = (1, segment);
    for &index in order[1..].iter().take(TRAIN_DATAGRAMS - 1) {
        let next = &messages[index as usize];
        let size = next.wire_len();
        let joins = (1..=segment).contains(&size)
            && bytes + size <= TRAIN_BYTES
            && (next.to, next.from, next.tos) == (first.to, first.from, first.tos);
        if !joins {
            break;
        }
        len += 1;
        bytes += size;
        if size < segment {
            break;
        }
    }
    len
}

/// Whether the message is one piece and needs no control message.
#[inline]
fn is_plain(message: &Outgoing) -> bool {
    message.from.is_none()
        && message.tos == 0
        && message.pad == 0
        && message.header.as_slice().is_empty()
}

/// What accounting has to know of a train.
#[derive(Clone, Copy, Debug)]
struct Described {
    /// How many messages it has.
    len: usize,
    dont_fragment: bool,
}

fn single(message: &Outgoing) -> Described {
    Described { len: 1, dont_fragment: message.dont_fragment }
}

/// Calls `send` from the first unsent train on until all are sent, dropped or
/// refused. `send` returns how many went, or why the first did not. Ends early at
/// a refused train of several messages, of which only some may be at fault:
/// returns which, and why.
#[inline]
fn send_trains(
    trains: &[Described],
    report: &mut SendReport,
    mut send: impl FnMut(usize) -> io::Result<usize>,
) -> Option<(usize, io::Error)> {
    let messages = |trains: &[Described]| trains.iter().map(|train| train.len).sum::<usize>();
    let mut next = 0;
    let mut tried = false;
    while next < trains.len() {
        let train = trains[next];
        let error = match send(next) {
            Ok(sent) => {
                // After fewer than asked the kernel keeps the reason to itself;
                // the next call starts at the culprit and tells.
                report.sent += messages(&trains[next..next + sent]);
                next += sent;
                tried = false;
                continue;
            }
            Err(error) => error,
        };
        match failure(&error, train.dont_fragment, tried) {
            Failure::Interrupted => continue,
            Failure::Retry => {
                tried = true;
                continue;
            }
            Failure::SocketFull => {
                report.full = true;
                report.dropped_full += messages(&trains[next..]);
                return None;
            }
            Failure::DeviceFull => report.dropped_full += train.len,
            Failure::Refused if train.len > 1 => return Some((next, error)),
            Failure::Refused => report.dropped_error += 1,
        }
        next += 1;
        tried = false;
    }
    None
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

fn failure(error: &io::Error, dont_fragment: bool, tried: bool) -> Failure {
    match error.raw_os_error() {
        Some(libc::EINTR) => Failure::Interrupted,
        Some(libc::EAGAIN) => Failure::SocketFull,
        Some(libc::ENOBUFS) => Failure::DeviceFull,
        // Its own doing; a second attempt would queue a second local error.
        Some(libc::EMSGSIZE) if dont_fragment => Failure::Refused,
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

/// The arrays in which [`UdpSocket::send_batch`] describes trains to the kernel;
/// made once, used for any number of sockets one after the other.
///
/// The headers hold pointers to the other arrays. These are `Vec`s that are
/// never grown, so their elements stay where they are when the batch moves.
pub struct SendBatch {
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
    names: Vec<RawAddr>,
    controls: Vec<ControlBuffer>,
    /// The trains that are described, in the order of their headers.
    trains: Vec<Described>,
}

// SAFETY: the pointers in `headers` lead to the batch's own arrays, which move
// with it; those in `pieces` are only followed during a call that sets them.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Room to describe [`BATCH`] trains.
    pub fn new() -> Self {
        // SAFETY: all-zero is a valid `mmsghdr`: null pointers and zero lengths.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let mut batch = Self {
            headers: vec![header; BATCH],
            pieces: vec![NO_PIECE; PIECES_MAX],
            names: vec![RawAddr::EMPTY; BATCH],
            controls: vec![ControlBuffer::EMPTY; BATCH],
            trains: Vec::with_capacity(BATCH),
        };
        let (names, controls) = (batch.names.as_mut_ptr(), batch.controls.as_mut_ptr());
        for (index, header) in batch.headers.iter_mut().enumerate() {
            // SAFETY: both arrays have as many elements as there are headers.
            unsafe {
                header.msg_hdr.msg_name = names.add(index).cast();
                header.msg_hdr.msg_control = controls.add(index).cast();
            }
        }
        batch
    }

    /// Makes trains of datagrams of at most `segment_max` bytes from the start of
    /// `order`, as many as there is room for, and returns how many messages they have:
    /// one at least.
    #[inline]
    fn describe(
        &mut self,
        socket: &UdpSocket,
        arena: &Arena,
        messages: &[Outgoing],
        order: &[u32],
        segment_max: usize,
    ) -> usize {
        self.trains.clear();
        let (mut at, mut pieces) = (0, 0);
        while at < order.len() && self.trains.len() < BATCH {
            let len = train_len(messages, &order[at..], segment_max);
            if pieces + len * PIECES > PIECES_MAX {
                break;
            }
            let train = &order[at..at + len];
            let place = (self.trains.len(), pieces);
            pieces += self.describe_train(socket, arena, messages, train, place);
            let dont_fragment = messages[train[0] as usize].dont_fragment;
            self.trains.push(Described { len, dont_fragment });
            at += len;
        }
        at
    }

    /// Describes one train with the header and from the piece of these numbers on;
    /// returns how many pieces it takes.
    #[inline]
    fn describe_train(
        &mut self,
        socket: &UdpSocket,
        arena: &Arena,
        messages: &[Outgoing],
        train: &[u32],
        (index, first_piece): (usize, usize),
    ) -> usize {
        let mut end = first_piece;
        for &message in train {
            let room = self.pieces[end..].first_chunk_mut().expect("room for each message");
            end += gather(&messages[message as usize], arena, room);
        }
        let first = &messages[train[0] as usize];
        // It fits into an Ethernet frame where there are several.
        let segment = (train.len() > 1).then(|| first.wire_len() as u16);
        let control = self.controls[index].encode(socket.family, first.from, first.tos, segment);
        let header = &mut self.headers[index].msg_hdr;
        header.msg_namelen = self.names[index].encode(&first.to);
        header.msg_iov = self.pieces[first_piece..].as_mut_ptr();
        header.msg_iovlen = (end - first_piece) as _;
        header.msg_controllen = control as _;
        end - first_piece
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
        let mut report = SendReport::default();
        let mut steps = script.iter();
        let send = |next| {
            let (asked, answer) = steps.next().expect("a call the script does not have");
            assert_eq!(next, *asked);
            answer.map_err(io::Error::from_raw_os_error)
        };
        let refused =
            send_trains(&vec![Described { len: 1, dont_fragment }; count], &mut report, send);
        assert!(refused.is_none());
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
    fn runs_end_at_a_change_of_fragmentation() {
        let mut arena = Arena::new(1).unwrap();
        let body = Body { slot: arena.take().unwrap(), start: 0, end: 1 };
        let plain = Outgoing::new(([127, 0, 0, 1], 9).into(), body);
        let messages = [plain, Outgoing { dont_fragment: true, ..plain }];
        assert_eq!(next_run(&messages, &[0, 0, 1]), (&[0, 0][..], Mode::Fragmentable));
        assert_eq!(next_run(&messages, &[1, 0, 1]), (&[1][..], Mode::Whole));
        assert_eq!(next_run(&messages, &[0; BATCH + 1]).0.len(), BATCH + 1);
    }
}
