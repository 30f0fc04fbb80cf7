//! UDP sockets: listeners that many clients share and relay sockets, one per
//! relayed transport address.
//!
//! `recv` reads batches, `send` writes them, `error` reads the ICMP errors that
//! earlier datagrams caused, `control` packs and unpacks what travels beside a
//! datagram (its local address, its TOS byte).

mod control;
mod error;
mod recv;
mod send;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::socket;

pub use error::IcmpError;
pub use recv::{Received, RecvBatch, Train};
pub use send::{SendBatch, SendReport};

/// The most trains of datagrams one system call receives or sends.
pub const BATCH: usize = 64;

/// A bound, unconnected, non-blocking UDP socket of one address family.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    family: IpFamily,
    /// Whether received datagrams carry control messages. When not, the kernel
    /// is not offered a buffer for them.
    control: bool,
    /// The longest datagrams that may leave in trains; 0: none. Lowered for good when
    /// the kernel refuses: a device has a smaller MTU, or cannot cut at all (IPsec).
    segment_max: Cell<usize>,
    /// The mode that the socket is in.
    mode: Cell<Mode>,
}

/// How a UDP socket is set up. The default is that of a relay socket without
/// any extra: every field off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpOptions {
    /// Share the port with other sockets of this user; the kernel spreads
    /// datagrams over them by source and destination (SO_REUSEPORT).
    pub reuse_port: bool,
    /// Receive buffer in bytes (the kernel doubles it for its own use); `None`
    /// leaves the system's default.
    pub recv_buffer: Option<usize>,
    /// Send buffer in bytes, likewise.
    pub send_buffer: Option<usize>,
    /// Report the local address of each datagram; for sockets bound to the
    /// wildcard address, which must answer from the address they were asked at.
    pub packet_info: bool,
    /// Report the TOS or traffic-class byte of each datagram.
    pub recv_tos: bool,
    /// Queue the ICMP errors that datagrams sent from this socket cause, for
    /// [`UdpSocket::recv_error`].
    pub recv_errors: bool,
    /// Let the kernel join datagrams of one sender that come together (UDP_GRO),
    /// and hand it datagrams to one destination as one train to cut (UDP_SEGMENT):
    /// each train costs about as much as one datagram.
    pub offload: bool,
}

/// Whether what a socket sends may be fragmented on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// DF is set (IPv4), or it leaves unfragmented (IPv6). What exceeds the path MTU
    /// as the kernel knows it fails with EMSGSIZE.
    Whole,
    /// DF is not set, and what is too large is fragmented. For IPv4 the kernel is
    /// also told not to believe ICMP about path MTUs: without DF it has no use for
    /// it, and the errors that datagrams sent whole have caused stay readable (in
    /// the plain "don't" mode the kernel hides them).
    Fragmentable,
}

impl UdpSocket {
    /// Opens a socket, sets it up and binds it. An IPv6 socket is IPv6 only.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` from bind(2);
    /// EMFILE or ENFILE when descriptors run out; what an option reports.
    pub fn bind(addr: SocketAddr, options: &UdpOptions) -> io::Result<Self> {
        let fd = socket::open(&addr, libc::SOCK_DGRAM)?;
        let family = IpFamily::of(&addr);
        let socket = Self {
            fd,
            family,
            control: options.packet_info || options.recv_tos || options.offload,
            segment_max: Cell::new(if options.offload { family.segment_max() } else { 0 }),
            mode: Cell::new(Mode::Fragmentable),
        };
        socket.set_up(options)?;
        socket::bind(socket.as_fd(), &addr)?;
        Ok(socket)
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self.as_fd())
    }

    /// The sizes of the receive and send buffer that the kernel granted, in
    /// bytes, its own overhead included.
    ///
    /// # Errors
    /// None that a correct program sees.
    pub fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        let size = |name| {
            let bytes = socket::option(self.as_fd(), libc::SOL_SOCKET, name)?;
            Ok::<_, io::Error>(usize::try_from(bytes).unwrap_or(0))
        };
        Ok((size(libc::SO_RCVBUF)?, size(libc::SO_SNDBUF)?))
    }

    fn set_up(&self, options: &UdpOptions) -> io::Result<()> {
        let fd = self.as_fd();
        let names = self.family.options();
        let on = |wanted: bool, level, name| {
            if wanted { socket::set_option(fd, level, name, 1) } else { Ok(()) }
        };
        on(options.reuse_port, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        on(options.packet_info, names.level, names.packet_info)?;
        on(options.recv_tos, names.level, names.recv_tos)?;
        on(options.recv_errors, names.level, names.recv_errors)?;
        if options.offload {
            // A kernel without it (before 5.0) hands over one datagram at a time.
            let _ = socket::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
        }
        self.set_mode(Mode::Fragmentable)?;
        if let Some(bytes) = options.recv_buffer {
            socket::set_buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes)?;
        }
        if let Some(bytes) = options.send_buffer {
            socket::set_buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes)?;
        }
        Ok(())
    }

    /// Puts the socket into a mode: a system call if it is in the other one.
    fn enter_mode(&self, mode: Mode) -> io::Result<()> {
        if self.mode.get() == mode { Ok(()) } else { self.set_mode(mode) }
    }

    fn set_mode(&self, mode: Mode) -> io::Result<()> {
        let names = self.family.options();
        let value = match mode {
            Mode::Whole => names.whole,
            Mode::Fragmentable => names.fragmentable,
        };
        socket::set_option(self.as_fd(), names.level, names.mtu_discover, value)?;
        self.mode.set(mode);
        Ok(())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether another socket holds this UDP address, even one that would share it
/// (SO_REUSEPORT): how a second server on the same port is noticed before the
/// kernel hands it half of the first one's clients. Port 0 is never taken.
///
/// # Errors
/// Other reasons why the address cannot be bound: not a local address, a
/// privileged port.
pub fn is_port_taken(addr: SocketAddr) -> io::Result<bool> {
    socket::is_taken(addr, libc::SOCK_DGRAM, false)
}

/// The family of a socket, which decides the names of its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IpFamily {
    V4,
    V6,
}

/// What one family calls its options and control messages.
struct OptionNames {
    level: libc::c_int,
    /// Switches packet information on.
    packet_info: libc::c_int,
    recv_tos: libc::c_int,
    recv_errors: libc::c_int,
    mtu_discover: libc::c_int,
    fragmentable: libc::c_int,
    whole: libc::c_int,
    /// The control message with the local address, both directions.
    packet_info_message: libc::c_int,
    /// The control message with the TOS byte, both directions.
    tos_message: libc::c_int,
}

impl IpFamily {
    fn of(addr: &SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The longest datagram that fits into an Ethernet frame: the kernel refuses to
    /// cut a train into what it would have to fragment.
    fn segment_max(self) -> usize {
        match self {
            Self::V4 => 1_500 - 28,
            Self::V6 => 1_500 - 48,
        }
    }

    #[inline]
    fn options(self) -> &'static OptionNames {
        match self {
            Self::V4 => &V4,
            Self::V6 => &V6,
        }
    }
}

static V4: OptionNames = OptionNames {
    level: libc::IPPROTO_IP,
    packet_info: libc::IP_PKTINFO,
    recv_tos: libc::IP_RECVTOS,
    recv_errors: libc::IP_RECVERR,
    mtu_discover: libc::IP_MTU_DISCOVER,
    fragmentable: libc::IP_PMTUDISC_OMIT,
    whole: libc::IP_PMTUDISC_DO,
    packet_info_message: libc::IP_PKTINFO,
    tos_message: libc::IP_TOS,
};

static V6: OptionNames = OptionNames {
    level: libc::IPPROTO_IPV6,
    packet_info: libc::IPV6_RECVPKTINFO,
    recv_tos: libc::IPV6_RECVTCLASS,
    recv_errors: libc::IPV6_RECVERR,
    mtu_discover: libc::IPV6_MTU_DISCOVER,
    // Not the mode of IPv4: only the sender fragments in IPv6, so it has to
    // believe ICMP about path MTUs.
    fragmentable: libc::IPV6_PMTUDISC_DONT,
    whole: libc::IPV6_PMTUDISC_DO,
    packet_info_message: libc::IPV6_PKTINFO,
    tos_message: libc::IPV6_TCLASS,
};
