//! What the standard library has no call for: marks of packets and namespaces.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, RawFd};
use std::process::Command;
use std::ptr;

/// Puts this thread, and the processes it starts from now on, into a network
/// namespace of its own with only loopback. False without the right to do so.
pub(crate) fn enter_network_namespace() -> bool {
    // SAFETY: no memory is passed.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "no loopback in the namespace");
    true
}

/// Sets DSCP and ECN of what a socket sends.
pub(crate) fn set_tos(socket: RawFd, v6: bool, tos: u8) {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
    set_option(socket, level, name, libc::c_int::from(tos));
}

/// Has the kernel cut what a UDP socket sends into datagrams of that length; 0: as
/// it is.
pub(crate) fn set_segment(socket: RawFd, bytes: u16) {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, libc::c_int::from(bytes));
}

/// Receives a datagram and its DSCP and ECN.
pub(crate) fn receive_with_tos(socket: &impl AsRawFd, v6: bool) -> (Vec<u8>, u8) {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVTOS)
    };
    set_option(socket.as_raw_fd(), level, name, 1);
    receive_control(socket.as_raw_fd()).expect("a datagram within the deadline")
}

fn set_option(socket: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives until the call returns and has the length given.
    let done =
        unsafe { libc::setsockopt(socket, level, name, ptr::from_ref(&value).cast(), length) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn receive_control(socket: RawFd) -> io::Result<(Vec<u8>, u8)> {
    let mut data = vec![0_u8; 65_536];
    let mut control = [0_u64; 16];
    let mut piece = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control);
    // SAFETY: the pointers in the message are valid for the lengths beside them.
    let length = unsafe { libc::recvmsg(socket, &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    data.truncate(length);
    let mut tos = None;
    // SAFETY: the kernel has filled in the control messages that are walked, and
    // those looked at hold at least the byte or the int that is read.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(&raw const message);
        while !at.is_null() {
            match ((*at).cmsg_level, (*at).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_TOS) => tos = Some(*libc::CMSG_DATA(at)),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let value = libc::CMSG_DATA(at).cast::<libc::c_int>().read_unaligned();
                    tos = u8::try_from(value).ok();
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(&raw const message, at);
        }
    }
    Ok((data, tos.expect("the kernel tells the mark")))
}
