//! What every socket needs: opening, options, binding, names.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::address::RawAddr;

/// Opens an Internet socket of `addr`'s family; `kind` is `SOCK_DGRAM` or
/// `SOCK_STREAM`. It is non-blocking and closed on exec. An IPv6 socket never
/// takes IPv4 traffic: each family has its own socket, so no v4-mapped address
/// ever comes in.
pub(super) fn open(addr: &SocketAddr, kind: libc::c_int) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket(2) takes no pointers.
    let fd =
        check(unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the call above has just made `fd`; nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if addr.is_ipv6() {
        set_option(borrow(&socket), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(socket)
}

/// Binds a socket to a local address.
pub(super) fn bind(fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    let mut raw = RawAddr::EMPTY;
    let len = raw.encode(addr);
    // SAFETY: `raw` is a valid socket address of `len` bytes and lives across the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), raw.as_ptr(), len) })?;
    Ok(())
}

/// Whether `addr` cannot be bound because somebody holds it. `reuse_addr` asks
/// the question the way a TCP listener does, so that connections in TIME_WAIT
/// do not count. The probe never says SO_REUSEPORT: a holder that does still
/// conflicts with it.
pub(super) fn is_taken(addr: SocketAddr, kind: libc::c_int, reuse_addr: bool) -> io::Result<bool> {
    let probe = open(&addr, kind)?;
    if reuse_addr {
        set_option(borrow(&probe), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    match bind(borrow(&probe), &addr) {
        Ok(()) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(true),
        Err(e) => Err(e),
    }
}

/// Sets an option whose value is a C `int`.
pub(super) fn set_linger(fd: BorrowedFd<'_>, linger: libc::linger) -> io::Result<()> {
    // SAFETY: the value has the stated size and lives across the call.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is an int of the stated size and lives across the call.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Reads an option whose value is a C `int`.
pub(super) fn option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}

/// Sets the size of a socket buffer in bytes, beyond the system's limit where
/// the process may (CAP_NET_ADMIN), else up to it.
pub(super) fn set_buffer(
    fd: BorrowedFd<'_>,
    forced: libc::c_int,
    limited: libc::c_int,
    bytes: usize,
) -> io::Result<()> {
    let bytes = int(bytes);
    match set_option(fd, libc::SOL_SOCKET, forced, bytes) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            set_option(fd, libc::SOL_SOCKET, limited, bytes)
        }
        result => result,
    }
}

/// The address a socket is bound to.
pub(super) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    name_of(|addr, len| {
        // SAFETY: `addr` has room for `len` bytes; both live across the call.
        unsafe { libc::getsockname(fd.as_raw_fd(), addr, len) }
    })
}

/// The address a socket is connected to.
pub(super) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    name_of(|addr, len| {
        // SAFETY: `addr` has room for `len` bytes; both live across the call.
        unsafe { libc::getpeername(fd.as_raw_fd(), addr, len) }
    })
}

fn name_of(
    ask: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<SocketAddr> {
    let mut raw = RawAddr::EMPTY;
    let mut len = RawAddr::LEN as libc::socklen_t;
    check(ask(raw.as_mut_ptr(), &raw mut len))?;
    raw.decode().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// A C `int` from a size; what does not fit becomes the largest one.
pub(super) fn int(value: usize) -> libc::c_int {
    libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX)
}

/// Whole milliseconds, rounded up so that a wait is never cut short to a spin.
pub(super) fn millis_up(duration: Duration) -> libc::c_int {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX)
}

/// The result of a system call that returns −1 and sets `errno`.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that return a byte count.
pub(super) fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The same for calls made by number. On the data path that is done because the C
/// library's wrappers are cancellation points, which costs two atomic operations
/// per call in a process with threads.
#[inline]
pub(super) fn check_call(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    use std::os::fd::AsFd;
    fd.as_fd()
}
