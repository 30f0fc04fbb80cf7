//! The relay sockets of a worker: opened and closed at the core's word.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::ports::PortTable;
use super::token::Token;
use crate::io::{Interest, Poll, UdpOptions, UdpSocket};
use crate::net::{Family, RelayedAddr};
use crate::turn::{PortRequest, RelayAddress, RelayId};

/// How often another process may turn out to hold a port that the table calls free.
const ATTEMPTS: usize = 16;

/// Where relay sockets are opened.
#[derive(Clone)]
pub struct RelayConfig {
    /// The addresses; of one family they are used in turn.
    pub addresses: Vec<RelayAddress>,
    /// Which ports are free.
    pub ports: Arc<PortTable>,
    /// Receive buffer in bytes; `None`: the system's default.
    pub recv_buffer: Option<usize>,
    /// Send buffer in bytes; `None`: the system's default.
    pub send_buffer: Option<usize>,
}

/// Relay sockets by [`RelayId::index`].
pub(super) struct RelaySockets {
    config: RelayConfig,
    sockets: Vec<Option<RelaySocket>>,
    /// Bound to the ports that are set aside, so that nobody else gets them.
    held: Vec<Held>,
    random: PortChoice,
    next_address: usize,
}

/// A relay socket and what is about to leave through it.
pub(super) struct RelaySocket {
    pub(super) id: RelayId,
    pub(super) socket: UdpSocket,
    local: RelayedAddr,
    /// Chain of messages in the egress, see there.
    pub(super) chain: super::egress::Chain,
}

/// A socket on a port that was set aside. It follows the port when another worker
/// gets it.
#[derive(Debug)]
pub struct Held {
    address: RelayedAddr,
    socket: UdpSocket,
}

/// A relay socket that was opened.
pub(super) struct Opened {
    pub(super) local: RelayedAddr,
    pub(super) advertised: SocketAddr,
    pub(super) reserved: Option<RelayedAddr>,
}

impl RelaySockets {
    pub(super) fn new(config: RelayConfig) -> Self {
        Self {
            config,
            sockets: Vec::new(),
            held: Vec::new(),
            random: PortChoice::default(),
            next_address: 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, id: RelayId) -> Option<&RelaySocket> {
        self.sockets.get(id.index())?.as_ref().filter(|relay| relay.id == id)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: RelayId) -> Option<&mut RelaySocket> {
        self.sockets.get_mut(id.index())?.as_mut().filter(|relay| relay.id == id)
    }

    pub(super) fn open(
        &mut self,
        id: RelayId,
        port: PortRequest,
        poll: &Poll,
    ) -> io::Result<Opened> {
        let (address, socket, reserved) = match port {
            PortRequest::Reserved(reserved) => self.open_reserved(reserved)?,
            other => self.open_fresh(id.family, other)?,
        };
        let local = RelayedAddr::new(socket.local_addr()?);
        poll.add(&socket, Token::Relay(id).encode(), Interest::READ)?;
        if self.sockets.len() <= id.index() {
            self.sockets.resize_with(id.index() + 1, || None);
        }
        self.sockets[id.index()] =
            Some(RelaySocket { id, socket, local, chain: Default::default() });
        let advertised = SocketAddr::new(address.advertised, local.port());
        Ok(Opened { local, advertised, reserved })
    }

    /// Closes a relay socket and frees its port; the kernel forgets its events.
    pub(super) fn close(&mut self, id: RelayId) {
        let Some(slot) = self.sockets.get_mut(id.index()) else { return };
        if let Some(relay) = slot.take_if(|relay| relay.id == id) {
            self.config.ports.free(relay.local.ip(), relay.local.port());
        }
    }

    /// Gives up a port that was set aside, for another worker to use.
    pub(super) fn hand_over(&mut self, reserved: RelayedAddr) -> Option<Held> {
        let at = self.held.iter().position(|held| held.address == reserved)?;
        Some(self.held.swap_remove(at))
    }

    /// Takes over a port that another worker had set aside.
    pub(super) fn take_over(&mut self, held: Held) {
        self.held.push(held);
    }

    /// Frees a port that was set aside.
    pub(super) fn release(&mut self, reserved: RelayedAddr) {
        self.hand_over(reserved);
        self.config.ports.free(reserved.ip(), reserved.port());
    }

    fn open_fresh(
        &mut self,
        family: Family,
        port: PortRequest,
    ) -> io::Result<(RelayAddress, UdpSocket, Option<RelayedAddr>)> {
        let address = self.next_address(family).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let ip = address.local;
        let ports = self.config.ports.clone();
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        let mut refused = Vec::new();
        let mut opened = None;
        for _ in 0..ATTEMPTS {
            let random = self.random.next()?;
            let taken = match port {
                PortRequest::EvenAndReserveNext => ports.take_pair(ip, random),
                PortRequest::Even => ports.take(ip, true, random),
                PortRequest::Any | PortRequest::Reserved(_) => ports.take(ip, false, random),
            };
            let Some(number) = taken else { break };
            let pair = port == PortRequest::EvenAndReserveNext;
            match self.bind_one_or_two(ip, number, pair) {
                Ok((socket, held)) => {
                    let next = held.as_ref().map(|held| held.address);
                    self.held.extend(held);
                    opened = Some((address, socket, next));
                    break;
                }
                Err(error) => {
                    // Kept until the end, so that the next attempt is another one.
                    refused.push(number);
                    refused.extend(pair.then_some(number + 1));
                    last = error;
                }
            }
            if last.kind() != io::ErrorKind::AddrInUse {
                break;
            }
        }
        for number in refused {
            ports.free(ip, number);
        }
        opened.ok_or(last)
    }

    fn open_reserved(
        &mut self,
        reserved: RelayedAddr,
    ) -> io::Result<(RelayAddress, UdpSocket, Option<RelayedAddr>)> {
        let known = self.config.addresses.iter().find(|a| a.local == reserved.ip()).copied();
        let address = known.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = match self.hand_over(reserved) {
            Some(held) => Ok(held.socket),
            None => self.bind(reserved.ip(), reserved.port()),
        };
        match socket {
            Ok(socket) => Ok((address, socket, None)),
            Err(error) => {
                self.release(reserved);
                Err(error)
            }
        }
    }

    fn bind_one_or_two(
        &self,
        ip: IpAddr,
        port: u16,
        pair: bool,
    ) -> io::Result<(UdpSocket, Option<Held>)> {
        let socket = self.bind(ip, port)?;
        let held = pair.then(|| -> io::Result<Held> {
            let socket = self.bind(ip, port + 1)?;
            Ok(Held { address: RelayedAddr::new(SocketAddr::new(ip, port + 1)), socket })
        });
        Ok((socket, held.transpose()?))
    }

    fn bind(&self, ip: IpAddr, port: u16) -> io::Result<UdpSocket> {
        let options = UdpOptions {
            recv_buffer: self.config.recv_buffer,
            send_buffer: self.config.send_buffer,
            recv_tos: true,
            recv_errors: true,
            ..UdpOptions::default()
        };
        UdpSocket::bind(SocketAddr::new(ip, port), &options)
    }

    /// The addresses of a family in turn.
    fn next_address(&mut self, family: Family) -> Option<RelayAddress> {
        let of_family: Vec<RelayAddress> = self
            .config
            .addresses
            .iter()
            .filter(|a| Family::of(a.local) == family)
            .copied()
            .collect();
        self.next_address = self.next_address.wrapping_add(1);
        of_family.get(self.next_address % of_family.len().max(1)).copied()
    }
}

/// Random numbers for ports, fetched from the kernel a block at a time.
#[derive(Default)]
struct PortChoice {
    block: Vec<u8>,
}

impl PortChoice {
    fn next(&mut self) -> io::Result<u32> {
        if self.block.len() < 4 {
            self.block.resize(256, 0);
            getrandom::fill(&mut self.block).map_err(io::Error::other)?;
        }
        let rest = self.block.len() - 4;
        let mut word = [0; 4];
        word.copy_from_slice(&self.block[rest..]);
        self.block.truncate(rest);
        Ok(u32::from_ne_bytes(word))
    }
}
