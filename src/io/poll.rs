//! Readiness of many descriptors (epoll) and a knock from
//! another thread (eventfd).

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::socket::{check, check_len, int, millis_up};

/// Waits for readiness of any number of descriptors.
///
/// A descriptor is reported again until what it reports has been dealt with, so a
/// loop may read part of a queue and come back; one added with
/// [`Interest::READ_ONCE`] is not. Errors and hang-ups are always reported,
/// whatever the interest.
///
/// The descriptor of a `Poll` becomes readable when any of its members is ready,
/// so one `Poll` can be waited for inside another loop ([`AsFd`]).
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    /// Whether the kernel can wait for less than a millisecond (epoll_pwait2,
    /// Linux 5.11); cleared the first time it says that it cannot.
    precise: Cell<bool>,
}

impl Poll {
    /// An empty set.
    ///
    /// # Errors
    /// What epoll_create1(2) reports: no descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call above has just made `fd`; nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { epoll, precise: Cell::new(true) })
    }

    /// Adds a descriptor; its events carry `token`. Closing the descriptor
    /// removes it.
    ///
    /// # Errors
    /// What epoll_ctl(2) reports: already added, no memory, watch limit reached.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token, interest)
    }

    /// Changes token and interest of a descriptor that was added.
    ///
    /// # Errors
    /// What epoll_ctl(2) reports: not added.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), token, interest)
    }

    /// Removes a descriptor.
    ///
    /// # Errors
    /// What epoll_ctl(2) reports: not added.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0, Interest::NONE)
    }

    /// Waits until something is ready or `timeout` is over (`None`: for ever)
    /// and returns how many events there are. A signal ends the wait with none.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        events.len = 0;
        let result = if self.precise.get() {
            match self.wait_precise(events, timeout) {
                // EPERM: a system-call filter older than the call.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.precise.set(false);
                    self.wait_coarse(events, timeout)
                }
                result => result,
            }
        } else {
            self.wait_coarse(events, timeout)
        };
        match result {
            Ok(count) => events.len = count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(events.len)
    }

    fn wait_precise(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(KernelTimespec::from);
        let pointer = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // Called by number: older C libraries lack the wrapper, not the kernel.
        // SAFETY: `raw` has room for as many events as announced; `timeout` lives
        // across the call and has the kernel's 64-bit layout; no signal mask.
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                events.raw.as_mut_ptr(),
                int(events.raw.len()),
                pointer,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn wait_coarse(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map_or(-1, millis_up);
        // SAFETY: `raw` has room for as many events as announced.
        let result = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.raw.as_mut_ptr(),
                int(events.raw.len()),
                timeout,
            )
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.0, u64: token };
        // SAFETY: `event` lives across the call, which copies it.
        check(unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event)
        })?;
        Ok(())
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// What to report about a descriptor, besides errors and hang-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(u32);

impl Interest {
    /// Nothing else: a paused descriptor.
    pub const NONE: Self = Self(0);
    /// Something to read, or to accept.
    pub const READ: Self = Self(libc::EPOLLIN as u32);
    /// Something to read, told once (edge-triggered): whoever is told reads until
    /// nothing is left, or remembers to. It saves the kernel looking again.
    pub const READ_ONCE: Self = Self((libc::EPOLLIN | libc::EPOLLET) as u32);
    /// Room to write.
    pub const WRITE: Self = Self(libc::EPOLLOUT as u32);
    /// Both.
    pub const READ_WRITE: Self = Self(Self::READ.0 | Self::WRITE.0);
}

/// What one wait reported; made once and reused.
pub struct Events {
    raw: Vec<libc::epoll_event>,
    len: usize,
}

impl Events {
    /// Room for `capacity` events per wait, at least one. What does not fit is
    /// reported by the next wait; the kernel takes turns.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { raw: vec![libc::epoll_event { events: 0, u64: 0 }; capacity.max(1)], len: 0 }
    }

    /// The event at `index`, counted from 0 to what the wait returned.
    ///
    /// # Panics
    /// When the last wait reported fewer events.
    #[inline]
    pub fn at(&self, index: usize) -> Event {
        Event::from(&self.raw[..self.len][index])
    }

    /// The events of the last wait.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event> + '_ {
        self.raw[..self.len].iter().map(Event::from)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Readiness of one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the descriptor was added with.
    pub token: u64,
    /// There is something to read or accept, or the peer has closed its side.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// An error is pending. On a UDP socket with `recv_errors`: drain
    /// [`recv_error`](super::UdpSocket::recv_error), or it is reported for ever.
    pub error: bool,
    /// Both directions are closed.
    pub hangup: bool,
}

impl From<&libc::epoll_event> for Event {
    #[inline]
    fn from(raw: &libc::epoll_event) -> Self {
        // Copied out: the structure is packed on x86-64.
        let (events, token) = (raw.events, raw.u64);
        let has = |flag: libc::c_int| events & flag as u32 != 0;
        Self {
            token,
            readable: has(libc::EPOLLIN),
            writable: has(libc::EPOLLOUT),
            error: has(libc::EPOLLERR),
            hangup: has(libc::EPOLLHUP),
        }
    }
}

/// The kernel's time structure of the calls added since 2038 became a concern:
/// 64 bits everywhere, unlike the C library's `timespec` on 32-bit systems.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

impl From<Duration> for KernelTimespec {
    fn from(duration: Duration) -> Self {
        Self {
            seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(duration.subsec_nanos()),
        }
    }
}

/// Ends another thread's wait. Clones knock on the same door.
///
/// The sleeper adds it to its [`Poll`] for reading. Put the message into the
/// mailbox first, then [`wake`](Self::wake); the other side first
/// [`drain`](Self::drain)s and then empties the mailbox. In that order no
/// message is left behind, and knocks on a door that is already being answered
/// cost no system call.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Door>);

#[derive(Debug)]
struct Door {
    event: OwnedFd,
    knocked: AtomicBool,
}

impl Waker {
    /// A door nobody has knocked on.
    ///
    /// # Errors
    /// What eventfd(2) reports: no descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        // SAFETY: the call above has just made `fd`; nobody else owns it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(Door { event, knocked: AtomicBool::new(false) })))
    }

    /// Knocks. Any thread, never blocks.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn wake(&self) -> io::Result<()> {
        // Acquire and release on both sides: whoever sees the other's knock also
        // sees what was put into the mailbox before it.
        if self.0.knocked.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let one = 1u64;
        // SAFETY: eight readable bytes, as the call wants.
        let result = check_len(unsafe {
            libc::write(self.0.event.as_raw_fd(), (&raw const one).cast(), size_of::<u64>())
        });
        match result {
            // A full counter has been knocked on, too.
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(()),
        }
    }

    /// Answers all knocks so far; the descriptor is no longer readable.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn drain(&self) -> io::Result<()> {
        let mut count = 0u64;
        // SAFETY: eight writable bytes, as the call wants.
        let result = check_len(unsafe {
            libc::read(self.0.event.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>())
        });
        // After the read: a knock in between is answered by the mailbox being
        // emptied next, and must not be dropped from the counter unseen.
        self.0.knocked.swap(false, Ordering::AcqRel);
        match result {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(()),
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_below_a_millisecond_is_neither_a_spin_nor_a_millisecond() {
        let poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let timeout = Duration::from_micros(200);
        // A busy machine may be late once; the shortest of many waits is honest.
        let shortest = (0..100)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(poll.wait(&mut events, Some(timeout)).unwrap(), 0);
                start.elapsed()
            })
            .min()
            .unwrap();
        assert!(shortest >= timeout, "returned early: {shortest:?}");
        if poll.precise.get() {
            assert!(shortest < Duration::from_millis(1), "rounded up: {shortest:?}");
        }
    }

    #[test]
    fn the_coarse_wait_rounds_up() {
        let poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let start = Instant::now();
        assert_eq!(poll.wait_coarse(&mut events, Some(Duration::from_micros(1))).unwrap(), 0);
        assert!(start.elapsed() >= Duration::from_millis(1));
        assert_eq!(millis_up(Duration::ZERO), 0);
        assert_eq!(millis_up(Duration::from_micros(1_001)), 2);
        assert_eq!(millis_up(Duration::MAX), libc::c_int::MAX);
    }

    #[test]
    fn both_waits_report_the_same_event() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new().unwrap();
        poll.add(&waker.0.event, u64::MAX - 1, Interest::READ).unwrap();
        waker.wake().unwrap();
        let mut events = Events::with_capacity(4);
        let expected = Event {
            token: u64::MAX - 1,
            readable: true,
            writable: false,
            error: false,
            hangup: false,
        };
        for precise in [true, false] {
            poll.precise.set(precise);
            assert_eq!(poll.wait(&mut events, None).unwrap(), 1);
            assert_eq!(events.at(0), expected);
            assert_eq!(events.iter().collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn interest_changes_and_ends() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new().unwrap();
        let now = Some(Duration::ZERO);
        let mut events = Events::with_capacity(4);
        poll.add(&waker, 1, Interest::NONE).unwrap();
        waker.wake().unwrap();
        assert_eq!(poll.wait(&mut events, now).unwrap(), 0);
        poll.modify(&waker, 2, Interest::READ_WRITE).unwrap();
        assert_eq!(poll.wait(&mut events, now).unwrap(), 1);
        let event = events.at(0);
        assert_eq!((event.token, event.readable, event.writable), (2, true, true));
        poll.remove(&waker).unwrap();
        assert_eq!(poll.wait(&mut events, now).unwrap(), 0);
        assert_eq!(events.iter().len(), 0);
        assert!(poll.remove(&waker).is_err());
    }

    #[test]
    fn another_thread_ends_the_wait_and_no_message_is_left_behind() {
        const MESSAGES: u32 = 10_000;
        let poll = Poll::new().unwrap();
        let waker = Waker::new().unwrap();
        poll.add(&waker, 7, Interest::READ).unwrap();
        let (mailbox, messages) = mpsc::channel();
        let sender = std::thread::spawn({
            let waker = waker.clone();
            move || {
                for message in 0..MESSAGES {
                    mailbox.send(message).unwrap();
                    waker.wake().unwrap();
                }
            }
        });
        let mut events = Events::with_capacity(4);
        let mut next = 0;
        while next < MESSAGES {
            let count = poll.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(count == 1, "{} messages never announced", MESSAGES - next);
            waker.drain().unwrap();
            for message in messages.try_iter() {
                assert_eq!(message, next);
                next += 1;
            }
        }
        sender.join().unwrap();
        waker.drain().unwrap();
        assert_eq!(poll.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0);
    }
}
