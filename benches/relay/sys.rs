//! The system calls of the benchmarks: batches, readiness, pinning, CPU time.
//!
//! It is on purpose not `src/io`: a yardstick made of the thing it measures
//! would hide that thing's mistakes.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Bytes of one packet slot; larger datagrams are truncated.
pub(crate) const SLOT: usize = 2048;
/// Bytes of a slot for a train of datagrams: the longest that the kernel makes.
pub(crate) const TRAIN_SLOT: usize = 65_536;

/// Space for the control messages of one datagram, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Sent: the source address and the length of a segment. Received: that length and
/// the time of arrival.
// SAFETY: arithmetic on constants.
const CONTROL: usize = unsafe {
    libc::CMSG_SPACE(size_of::<libc::timespec>() as u32)
        + libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32)
} as usize;

/// What the slots of a [`Batch`] are for.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes of a slot.
    pub(crate) slot: usize,
    /// Pieces that a message can be made of.
    pub(crate) pieces: usize,
    /// Take what the kernel says of a datagram: where a train is cut, when it came.
    pub(crate) control: bool,
}

impl Shape {
    /// Datagrams alone.
    pub(crate) const SINGLE: Self = Self { slot: SLOT, pieces: 1, control: false };
}

/// Packet slots with the headers that `recvmmsg` and `sendmmsg` read.
///
/// A packet received into a slot can be sent from it: [`Batch::aim`] gives it
/// another destination and another byte range, nothing is copied.
pub(crate) struct Batch {
    shape: Shape,
    slots: Box<[u8]>,
    names: Box<[libc::sockaddr_in]>,
    /// As many in a row for each message as the shape has pieces.
    iovecs: Box<[libc::iovec]>,
    controls: Box<[Control]>,
    headers: Box<[libc::mmsghdr]>,
    /// Headroom + 1 of a slot that is ready to receive, 0 of one in use: a
    /// wake for one packet must not pay for preparing a whole batch.
    armed: Box<[usize]>,
}

impl Default for Batch {
    /// A batch of no slots.
    fn default() -> Self {
        Self::new(0)
    }
}

impl Batch {
    /// A batch of `count` empty slots for datagrams alone.
    pub(crate) fn new(count: usize) -> Self {
        Self::shaped(count, Shape::SINGLE)
    }

    /// A batch of `count` empty slots.
    pub(crate) fn shaped(count: usize, shape: Shape) -> Self {
        // SAFETY: all-zero is a valid value of these C structures.
        let (name, iovec, header) = unsafe {
            (
                std::mem::zeroed::<libc::sockaddr_in>(),
                std::mem::zeroed::<libc::iovec>(),
                std::mem::zeroed::<libc::mmsghdr>(),
            )
        };
        let mut batch = Self {
            shape,
            slots: vec![0; count * shape.slot].into_boxed_slice(),
            names: vec![name; count].into_boxed_slice(),
            iovecs: vec![iovec; count * shape.pieces].into_boxed_slice(),
            controls: vec![Control([0; CONTROL]); count].into_boxed_slice(),
            headers: vec![header; count].into_boxed_slice(),
            armed: vec![0; count].into_boxed_slice(),
        };
        // The boxes never move or grow, so these pointers stay valid.
        for i in 0..count {
            let header = &mut batch.headers[i].msg_hdr;
            header.msg_name = ptr::from_mut(&mut batch.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            header.msg_iov = ptr::from_mut(&mut batch.iovecs[i * shape.pieces]);
            header.msg_iovlen = 1;
        }
        batch
    }

    /// Receives up to `count` datagrams into the slots from `first` on, each
    /// after `headroom` free bytes. Returns 0 when the socket is empty.
    pub(crate) fn receive(
        &mut self,
        fd: RawFd,
        first: usize,
        count: usize,
        headroom: usize,
    ) -> io::Result<usize> {
        for i in first..first + count {
            if self.armed[i] != headroom + 1 {
                self.arm(i, headroom);
            }
        }
        let headers = &mut self.headers[first..first + count];
        // SAFETY: every header points into the boxes of `self`, which outlive the call.
        let got = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                count as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let got = usize::try_from(got).or_else(|_| would_block_is(0))?;
        self.armed[first..first + got].fill(0);
        Ok(got)
    }

    fn arm(&mut self, i: usize, headroom: usize) {
        let control = self.shape.control;
        let slot = &mut self.slots[i * self.shape.slot..][headroom..self.shape.slot];
        self.iovecs[i * self.shape.pieces] =
            libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        let header = &mut self.headers[i].msg_hdr;
        header.msg_iovlen = 1;
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_control =
            if control { self.controls[i].0.as_mut_ptr().cast() } else { ptr::null_mut() };
        header.msg_controllen = if control { CONTROL } else { 0 };
        self.armed[i] = headroom + 1;
    }

    /// Sends the messages `first .. first + count`; returns how many the kernel
    /// took, 0 when the socket is full.
    pub(crate) fn send(&mut self, fd: RawFd, first: usize, count: usize) -> io::Result<usize> {
        let headers = &mut self.headers[first..first + count];
        // SAFETY: as in `receive`.
        let sent =
            unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
        usize::try_from(sent).or_else(|_| would_block_is(0))
    }

    /// Sends the messages `first .. first + count`, whatever it takes; a datagram
    /// the kernel refuses is skipped, as a server would.
    pub(crate) fn send_all(&mut self, fd: RawFd, first: usize, count: usize) {
        let (mut at, end) = (first, first + count);
        while at < end {
            match self.send(fd, at, end - at) {
                Ok(sent) => at += sent,
                Err(_) => at += 1,
            }
        }
    }

    /// Length in bytes of what was received into slot `i`.
    pub(crate) fn received(&self, i: usize) -> usize {
        self.headers[i].msg_len as usize
    }

    /// Length in bytes of each datagram that was received into slot `i`; the last
    /// one may be shorter.
    pub(crate) fn segment(&self, i: usize) -> usize {
        let segment = self.control::<libc::c_int>(i, libc::SOL_UDP, libc::UDP_GRO);
        segment.map_or(self.received(i), |bytes| bytes as usize).max(1)
    }

    /// The datagrams that were received into slot `i` without headroom.
    pub(crate) fn datagrams(&self, i: usize) -> std::slice::Chunks<'_, u8> {
        self.slot(i)[..self.received(i)].chunks(self.segment(i))
    }

    /// When the kernel put slot `i`'s datagram into the socket, in nanoseconds since
    /// the epoch, where the socket was asked for it.
    pub(crate) fn arrived(&self, i: usize) -> Option<u64> {
        let time = self.control::<libc::timespec>(i, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)?;
        Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// The control message of this kind that came with slot `i`.
    fn control<T: Copy>(&self, i: usize, level: libc::c_int, kind: libc::c_int) -> Option<T> {
        if !self.shape.control {
            return None;
        }
        let header = &self.headers[i].msg_hdr;
        // SAFETY: the kernel has filled the buffer of this header with whole messages
        // and set its length; `T` is plain data of the length that the kind has.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                if (*message).cmsg_level == level && (*message).cmsg_type == kind {
                    return Some(libc::CMSG_DATA(message).cast::<T>().read_unaligned());
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        None
    }

    /// Where the datagram in slot `i` came from.
    pub(crate) fn source(&self, i: usize) -> SocketAddrV4 {
        let name = &self.names[i];
        SocketAddrV4::new(u32::from_be(name.sin_addr.s_addr).into(), u16::from_be(name.sin_port))
    }

    /// The bytes of slot `i`.
    pub(crate) fn slot(&self, i: usize) -> &[u8] {
        &self.slots[i * self.shape.slot..][..self.shape.slot]
    }

    /// The bytes of slot `i`, to write.
    pub(crate) fn slot_mut(&mut self, i: usize) -> &mut [u8] {
        &mut self.slots[i * self.shape.slot..][..self.shape.slot]
    }

    /// Makes message `i` send the bytes `start .. start + length` of slot `i` to `to`,
    /// from the local address `from` where one is given.
    pub(crate) fn aim(
        &mut self,
        i: usize,
        start: usize,
        length: usize,
        to: SocketAddrV4,
        from: Option<Ipv4Addr>,
    ) {
        self.begin(i, to, from, None);
        self.add(i, i, start, length);
    }

    /// Makes message `i` one without pieces to `to`, from the local address `from`
    /// where one is given. The kernel cuts it into datagrams of `segment` bytes if
    /// that is given (`UDP_SEGMENT`).
    pub(crate) fn begin(
        &mut self,
        i: usize,
        to: SocketAddrV4,
        from: Option<Ipv4Addr>,
        segment: Option<u16>,
    ) {
        self.armed[i] = 0;
        self.names[i] = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
            sin_zero: [0; 8],
        };
        let header = &mut self.headers[i].msg_hdr;
        header.msg_iovlen = 0;
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_control = ptr::null_mut();
        header.msg_controllen = 0;
        if let Some(from) = from {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            self.append_control(i, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        if let Some(segment) = segment {
            self.append_control(i, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
    }

    /// Appends the bytes `start .. start + length` of slot `slot` to message `i`.
    pub(crate) fn add(&mut self, i: usize, slot: usize, start: usize, length: usize) {
        let bytes = &mut self.slots[slot * self.shape.slot..][start..start + length];
        let header = &mut self.headers[i].msg_hdr;
        assert!(header.msg_iovlen < self.shape.pieces, "a message of more pieces than its shape");
        self.iovecs[i * self.shape.pieces + header.msg_iovlen] =
            libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
        header.msg_iovlen += 1;
    }

    fn append_control<T>(&mut self, i: usize, level: libc::c_int, kind: libc::c_int, value: T) {
        let header = &mut self.headers[i].msg_hdr;
        let at = header.msg_controllen;
        let length = size_of::<T>() as u32;
        // SAFETY: arithmetic, then writes that the assertion has found room for, in a
        // buffer that is aligned, as every message is that follows a whole one.
        unsafe {
            let space = libc::CMSG_SPACE(length) as usize;
            assert!(at + space <= CONTROL, "room for two control messages");
            let message = self.controls[i].0[at..].as_mut_ptr().cast::<libc::cmsghdr>();
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = libc::CMSG_LEN(length) as usize;
            libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = at + space;
        }
    }
}

/// One epoll instance, level-triggered, waiting for readability.
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the descriptor is fresh and owned by nobody else.
        unsafe {
            let fd = checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Watches `fd`; its events carry `token`.
    pub(crate) fn add(&self, fd: RawFd, token: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token as u64 };
        // SAFETY: `event` lives through the call.
        unsafe { checked(libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event)) }
            .map(drop)
    }

    /// Waits up to `milliseconds` (0: not at all) and returns the number of `events` filled.
    pub(crate) fn wait(
        &self,
        events: &mut [libc::epoll_event],
        milliseconds: i32,
    ) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `events.len()` events.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as i32,
                milliseconds,
            )
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Room for `count` events of [`Epoll::wait`].
pub(crate) fn events(count: usize) -> Vec<libc::epoll_event> {
    vec![libc::epoll_event { events: 0, u64: 0 }; count]
}

/// Pins the calling thread, and what it starts, to one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    // SAFETY: plain values; `set` is as long as the call is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        checked(libc::sched_setaffinity(0, size_of_val(&set), &set)).map(drop)
    }
}

/// Asks the kernel to kill this process when the thread that started it ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe { checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)) }.map(drop)
}

/// Gives a socket a receive buffer of `bytes`, past the system's limit where
/// the process may.
pub(crate) fn set_receive_buffer(fd: RawFd, bytes: i32) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// Has a socket take datagrams that belong together as one train (`UDP_GRO`).
pub(crate) fn receive_trains(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Has the kernel note when a datagram came to a socket (`SO_TIMESTAMPNS`).
pub(crate) fn note_arrivals(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Lets this process open as many descriptors as it may.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    // SAFETY: `limit` lives through both calls.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        checked(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        checked(libc::setrlimit(libc::RLIMIT_NOFILE, &limit)).map(drop)
    }
}

fn set_option(fd: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is the `value` of this frame.
    unsafe {
        let bytes = size_of_val(&value) as u32;
        checked(libc::setsockopt(fd, level, option, ptr::from_ref(&value).cast(), bytes)).map(drop)
    }
}

/// How long the threads of a process have run and waited so far.
#[derive(Clone, Copy)]
pub(crate) struct CpuTime {
    /// Nanoseconds on a core, kernel work in the threads' context included.
    pub(crate) ran: u64,
    /// Nanoseconds ready to run while the core did something else.
    pub(crate) waited: u64,
}

/// The CPU time of all threads of a process.
pub(crate) fn cpu_time(pid: u32) -> io::Result<CpuTime> {
    let mut sum = CpuTime { ran: 0, waited: 0 };
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let mut fields = text.split(' ').map_while(|field| field.parse::<u64>().ok());
        let (Some(ran), Some(waited)) = (fields.next(), fields.next()) else {
            return Err(io::Error::other(format!("unknown schedstat: {text}")));
        };
        sum.ran += ran;
        sum.waited += waited;
    }
    Ok(sum)
}

/// Memory of a process in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Resident, shared pages included.
    pub(crate) resident: u64,
    /// Resident and of no file: its heap and stacks.
    pub(crate) anonymous: u64,
}

/// What a process has in memory.
pub(crate) fn memory(pid: u32) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        let value =
            text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        let value = value.and_then(|kilobytes| kilobytes.parse::<u64>().ok());
        value.map(|kilobytes| kilobytes << 10).ok_or_else(|| io::Error::other("no such field"))
    };
    Ok(Memory { resident: field("Rss:")?, anonymous: field("Pss_Anon:")? })
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn would_block_is(value: usize) -> io::Result<usize> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(value) } else { Err(error) }
}
