//! The two ends of the load: many addresses behind one socket each.
//!
//! Loopback answers for all of 127.0.0.0/8, so one socket bound to every
//! address can be ten thousand clients: each packet names its source address
//! (`IP_PKTINFO`). The server sees as many five-tuples, and the generator
//! moves them in full batches instead of a system call per client and packet,
//! which is what keeps it faster than the servers it loads.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use crate::sys;

/// Bytes of a ChannelData header (RFC 8656 section 12.4).
pub(crate) const CHANNEL_HEADER: usize = 4;
/// Most flows of one run: servers relay from 16,384 ports.
pub(crate) const FLOWS_MAX: usize = 12_000;

/// The channel numbers that a client can bind (RFC 8656 section 12). A channel
/// belongs to an allocation, so those of different clients may be the same.
const CHANNELS: usize = 0x1000;
/// Receive buffer of the generator: it must never be the one that drops.
const RECEIVE_BUFFER: i32 = 32 << 20;

/// The channel number that flow `flow` binds.
pub(crate) fn channel(flow: usize) -> u16 {
    0x4000 + (flow % CHANNELS) as u16
}

/// All clients, or all peers.
pub(crate) struct Fleet {
    socket: UdpSocket,
    first: Ipv4Addr,
    port: u16,
}

impl Fleet {
    const CLIENTS: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
    const PEERS: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 1);

    /// The clients, on a free port.
    pub(crate) fn clients() -> io::Result<Self> {
        Self::bind(Self::CLIENTS)
    }

    /// The peers, on a free port.
    pub(crate) fn peers() -> io::Result<Self> {
        Self::bind(Self::PEERS)
    }

    /// Address of client `i` of a fleet on `port`.
    pub(crate) fn client_address(i: usize, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(nth(Self::CLIENTS, i), port)
    }

    /// Which client has this address.
    pub(crate) fn client_at(address: Ipv4Addr) -> Option<usize> {
        Some(u32::from(address).checked_sub(u32::from(Self::CLIENTS))? as usize)
    }

    /// Address of peer `i` of a fleet on `port`.
    pub(crate) fn peer_address(i: usize, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(nth(Self::PEERS, i), port)
    }

    /// The port that all members share.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// IP address of member `i`.
    pub(crate) fn address(&self, i: usize) -> Ipv4Addr {
        nth(self.first, i)
    }

    /// The socket, for [`sys::Batch`].
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn bind(first: Ipv4Addr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        sys::set_receive_buffer(socket.as_raw_fd(), RECEIVE_BUFFER)?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, first, port })
    }
}

fn nth(first: Ipv4Addr, i: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + i as u32)
}
