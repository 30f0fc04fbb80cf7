//! System calls and packet buffers: the only place with `unsafe`, and the only
//! place that knows what a socket is made of. It knows no STUN and decides
//! nothing; it speaks `std` addresses.
//!
//! | file | room |
//! |---|---|
//! | `poll` | [`Poll`]: readiness of thousands of descriptors; [`Waker`]: a knock from another thread |
//! | `arena` | [`Arena`]: the packet buffers of one batch |
//! | `outgoing` | [`Outgoing`]: one message to send, as pieces: header, body, padding |
//! | [`udp`] | [`UdpSocket`]: batches in, batches out, ICMP errors |
//! | [`tcp`] | [`TcpListener`], [`TcpStream`]: accept, read, many frames per write |
//! | `splice` | [`Pipe`]: bytes from one connection to another within the kernel |
//! | `address` | socket addresses as the kernel lays them out |
//! | `limits` | how many descriptors the process may have |
//! | `socket` | what every socket needs: open, options, bind, names |
//!
//! One worker thread owns one of each. Per batch: `Poll::wait`, then
//! `UdpSocket::recv_batch` into slots of the arena, then a list of `Outgoing`
//! that refer to those slots, then `UdpSocket::send_batch`, then `Arena::reset`.
//! Nothing on this way allocates: every array the kernel reads or fills is made
//! once and kept.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "sturn's io layer is written for Linux: epoll, recvmmsg, sendmmsg, the socket error queue"
);

mod address;
mod arena;
mod limits;
#[cfg(test)]
mod loopback;
mod outgoing;
mod poll;
mod socket;
mod splice;
pub mod tcp;
pub mod udp;

pub use arena::{Arena, MAX_DATAGRAM, SLOT, SlotId};
pub use limits::raise_descriptor_limit;
pub use outgoing::{Body, Header, Outgoing};
pub use poll::{Event, Events, Interest, Poll, Waker};
pub use splice::Pipe;
pub use tcp::{Accept, ReadOutcome, StreamBatch, TcpListener, TcpStream};
pub use udp::{
    IcmpError, Received, RecvBatch, SendBatch, SendReport, Train, UdpOptions, UdpSocket,
};
