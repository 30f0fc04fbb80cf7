//! ICMP errors that datagrams sent earlier have caused.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use super::UdpSocket;
use super::control::messages;
use crate::io::address::RawAddr;
use crate::io::socket::check_len;

/// An error report about a datagram this socket has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Where the datagram was going. The port is 0 in IPv4 reports of local
    /// origin: the kernel takes it from the socket, which is not connected.
    pub peer: SocketAddr,
    /// ICMP or ICMPv6 type, by the peer's family; 0 when of local origin.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code; 0 when of local origin.
    pub code: u8,
    /// What the type adds: the MTU of the link for "fragmentation needed" and
    /// "packet too big" (in bytes, also when of local origin), else 0.
    pub info: u32,
    /// The error number the kernel made of it, such as ECONNREFUSED.
    pub errno: i32,
    /// This host noticed by itself; there was no ICMP packet.
    pub local_origin: bool,
}

/// Room for the report with its offender's address, and for the packet
/// information and TOS byte the kernel puts in front of it when those are on.
const REPORT_CONTROL: usize = 256;

#[repr(C, align(8))]
struct ReportControl([u8; REPORT_CONTROL]);

impl UdpSocket {
    /// The oldest queued report, or `None` when there is none. Sockets bound
    /// without `recv_errors` never have one. Read until `None` when
    /// [`Event::error`](crate::io::Event::error) or
    /// [`Received::icmp_error`](super::Received::icmp_error) is set.
    ///
    /// # Errors
    /// None that a correct program sees, except ENOMEM.
    pub fn recv_error(&self) -> io::Result<Option<IcmpError>> {
        let mut name = RawAddr::EMPTY;
        let mut control = ReportControl([0; REPORT_CONTROL]);
        loop {
            let control_len = match self.read_report(&mut name, &mut control) {
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            // Reports of another kind (such as transmit time stamps) are not
            // errors; they are passed over.
            let report = report(&control.0[..control_len.min(REPORT_CONTROL)], name.decode());
            if report.is_some() {
                return Ok(report);
            }
        }
    }

    /// Reads the error queue's head and returns the length of its control messages.
    fn read_report(&self, name: &mut RawAddr, control: &mut ReportControl) -> io::Result<usize> {
        // SAFETY: all-zero is a valid `msghdr`. No data is asked for: the start
        // of the datagram that failed is of no interest.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_namelen = RawAddr::LEN as libc::socklen_t;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = REPORT_CONTROL as _;
        // SAFETY: both buffers have the stated lengths and live across the call.
        check_len(unsafe {
            libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE)
        })?;
        #[allow(clippy::unnecessary_cast, reason = "not a usize in every C library")]
        let control_len = header.msg_controllen as usize;
        Ok(control_len)
    }
}

fn report(control: &[u8], peer: Option<SocketAddr>) -> Option<IcmpError> {
    let peer = peer?;
    let message = messages(control).find(|message| {
        matches!(
            (message.level, message.kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        )
    })?;
    if message.data.len() < size_of::<libc::sock_extended_err>() {
        return None;
    }
    // SAFETY: the data is long enough, any bytes make a valid structure of
    // integers, and the read asks for no alignment.
    let raw = unsafe { message.data.as_ptr().cast::<libc::sock_extended_err>().read_unaligned() };
    let local_origin = match raw.ee_origin {
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => false,
        libc::SO_EE_ORIGIN_LOCAL => true,
        _ => return None,
    };
    Some(IcmpError {
        peer,
        icmp_type: raw.ee_type,
        code: raw.ee_code,
        info: raw.ee_info,
        errno: i32::try_from(raw.ee_errno).unwrap_or(0),
        local_origin,
    })
}

/// Whether the error is one that the kernel makes of an ICMP message and leaves
/// on the socket: it says that an earlier datagram failed, not that this call did.
pub(super) fn is_icmp(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::ENETDOWN
                | libc::EACCES
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EMSGSIZE
        )
    )
}
