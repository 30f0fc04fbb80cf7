//! What the tests of this folder share: waiting for a socket, with a deadline.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use super::arena::Arena;
use super::outgoing::Body;
use super::poll::{Event, Events, Interest, Poll};

/// The loopback addresses of both families, port chosen by the kernel.
pub(super) const ANY_PORT: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0),
];

/// Waits until `fd` is as `interest` says, or has an error.
pub(super) fn wait_for(fd: impl AsFd, interest: Interest) -> Event {
    let poll = Poll::new().unwrap();
    poll.add(fd, 0, interest).unwrap();
    let mut events = Events::with_capacity(1);
    let count = poll.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
    assert_eq!(count, 1, "nothing happened within ten seconds");
    events.at(0)
}

/// A body in a new slot with these bytes, not at its start.
pub(super) fn body(arena: &mut Arena, bytes: &[u8]) -> Body {
    const START: usize = 20;
    let slot = arena.take().expect("the arena is large enough for the test");
    arena.bytes_mut(slot)[START..START + bytes.len()].copy_from_slice(bytes);
    let end = u32::try_from(START + bytes.len()).unwrap();
    Body { slot, start: START as u32, end }
}
