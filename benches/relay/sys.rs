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

/// Space for one `IP_PKTINFO` control message, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

// SAFETY: arithmetic on a constant.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32) } as usize;

/// Packet slots with the headers that `recvmmsg` and `sendmmsg` read.
///
/// A packet received into a slot can be sent from it: [`Batch::aim`] gives it
/// another destination and another byte range, nothing is copied.
pub(crate) struct Batch {
    slots: Box<[[u8; SLOT]]>,
    names: Box<[libc::sockaddr_in]>,
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
    /// A batch of `count` empty slots.
    pub(crate) fn new(count: usize) -> Self {
        // SAFETY: all-zero is a valid value of these C structures.
        let (name, iovec, header) = unsafe {
            (
                std::mem::zeroed::<libc::sockaddr_in>(),
                std::mem::zeroed::<libc::iovec>(),
                std::mem::zeroed::<libc::mmsghdr>(),
            )
        };
        let mut batch = Self {
            slots: vec![[0; SLOT]; count].into_boxed_slice(),
            names: vec![name; count].into_boxed_slice(),
            iovecs: vec![iovec; count].into_boxed_slice(),
            controls: vec![Control([0; CONTROL]); count].into_boxed_slice(),
            headers: vec![header; count].into_boxed_slice(),
            armed: vec![0; count].into_boxed_slice(),
        };
        // The boxes never move or grow, so these pointers stay valid.
        for i in 0..count {
            let header = &mut batch.headers[i].msg_hdr;
            header.msg_name = ptr::from_mut(&mut batch.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            header.msg_iov = ptr::from_mut(&mut batch.iovecs[i]);
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
        self.iovecs[i] = libc::iovec {
            iov_base: self.slots[i][headroom..].as_mut_ptr().cast(),
            iov_len: SLOT - headroom,
        };
        let header = &mut self.headers[i].msg_hdr;
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_control = ptr::null_mut();
        header.msg_controllen = 0;
        self.armed[i] = headroom + 1;
    }

    /// Sends the slots `first .. first + count`; returns how many the kernel
    /// took, 0 when the socket is full.
    pub(crate) fn send(&mut self, fd: RawFd, first: usize, count: usize) -> io::Result<usize> {
        let headers = &mut self.headers[first..first + count];
        // SAFETY: as in `receive`.
        let sent =
            unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
        usize::try_from(sent).or_else(|_| would_block_is(0))
    }

    /// Sends the slots `first .. first + count`, whatever it takes; a datagram
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

    /// Length in bytes of the datagram received into slot `i`.
    pub(crate) fn received(&self, i: usize) -> usize {
        self.headers[i].msg_len as usize
    }

    /// Where the datagram in slot `i` came from.
    pub(crate) fn source(&self, i: usize) -> SocketAddrV4 {
        let name = &self.names[i];
        SocketAddrV4::new(u32::from_be(name.sin_addr.s_addr).into(), u16::from_be(name.sin_port))
    }

    /// The bytes of slot `i`.
    pub(crate) fn slot(&self, i: usize) -> &[u8; SLOT] {
        &self.slots[i]
    }

    /// The bytes of slot `i`, to write.
    pub(crate) fn slot_mut(&mut self, i: usize) -> &mut [u8; SLOT] {
        &mut self.slots[i]
    }

    /// Makes slot `i` send its bytes `start .. start + length` to `to`, from
    /// the local address `from` where one is given.
    pub(crate) fn aim(
        &mut self,
        i: usize,
        start: usize,
        length: usize,
        to: SocketAddrV4,
        from: Option<Ipv4Addr>,
    ) {
        self.armed[i] = 0;
        let bytes = &mut self.slots[i][start..start + length];
        self.iovecs[i] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
        self.names[i] = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
            sin_zero: [0; 8],
        };
        let header = &mut self.headers[i].msg_hdr;
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_control = ptr::null_mut();
        header.msg_controllen = 0;
        let Some(from) = from else { return };
        header.msg_control = self.controls[i].0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL;
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        // SAFETY: the control buffer is aligned and has room for exactly this message.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = libc::IPPROTO_IP;
            (*message).cmsg_type = libc::IP_PKTINFO;
            (*message).cmsg_len = libc::CMSG_LEN(size_of_val(&info) as u32) as usize;
            libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().write_unaligned(info);
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
    let set = |option| {
        // SAFETY: the option's value is the `bytes` of this frame.
        unsafe {
            checked(libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                option,
                ptr::from_ref(&bytes).cast(),
                size_of_val(&bytes) as u32,
            ))
        }
    };
    set(libc::SO_RCVBUFFORCE).or_else(|_| set(libc::SO_RCVBUF)).map(drop)
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

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn would_block_is(value: usize) -> io::Result<usize> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(value) } else { Err(error) }
}
