//! The relay sockets of a worker: opened and closed at the core's word.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::egress::Chain;
use super::packets::TrainLength;
use super::ports::PortTable;
use super::token::Token;
use crate::io::{Interest, Poll, TcpListener, UdpOptions, UdpSocket};
use crate::net::{Family, RelayedAddr};
use crate::turn::{HostAddress, PortRequest, RelayId};

/// How often another process may turn out to hold a port that the table calls free.
const ATTEMPTS: usize = 16;

/// Peers that may wait to be accepted by a TCP relay.
const PEERS_WAITING: usize = 64;

/// Where relay sockets are opened.
#[derive(Clone)]
pub struct RelayConfig {
    /// The addresses; of one family they are used in turn.
    pub addresses: Vec<HostAddress>,
    /// Which ports are free.
    pub ports: Arc<PortTable>,
    /// Receive buffer in bytes; `None`: the system's default.
    pub recv_buffer: Option<usize>,
    /// Send buffer in bytes; `None`: the system's default.
    pub send_buffer: Option<usize>,
    /// Whether datagrams come and go in trains.
    pub offload: bool,
}

/// Relay sockets by [`RelayId::index`].
pub(super) struct RelaySockets {
    config: RelayConfig,
    sockets: Vec<Option<RelaySocket>>,
    /// Bound to the ports that are set aside, so that nobody else gets them.
    held: HashMap<RelayedAddr, UdpSocket>,
    /// Those to read, in the order in which they have waited. The kernel tells of
    /// each only once.
    ready: VecDeque<RelayId>,
    random: PortChoice,
    /// Per family, how many addresses were used.
    turns: [usize; 2],
}

/// A relay socket and what is about to leave through it.
pub(super) struct RelaySocket {
    pub(super) id: RelayId,
    pub(super) socket: UdpSocket,
    local: RelayedAddr,
    pub(super) chain: Chain,
    pub(super) trains: TrainLength,
    /// Whether it is in the queue of those to read.
    is_ready: bool,
    /// Whether ICMP errors are to be read, too.
    has_error: bool,
}

/// A socket on its way to another worker, which gets its port.
#[derive(Debug)]
pub struct Held {
    address: RelayedAddr,
    socket: UdpSocket,
}

impl Held {
    /// The family of its address.
    pub(super) fn family(&self) -> Family {
        self.address.family()
    }
}

/// A socket on a port that is taken.
struct Fresh {
    address: HostAddress,
    port: u16,
    socket: UdpSocket,
    reserved: Option<RelayedAddr>,
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
            held: HashMap::new(),
            ready: VecDeque::new(),
            random: PortChoice::default(),
            turns: [0; 2],
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

    /// Has a relay socket read in its turn.
    #[inline]
    pub(super) fn add_ready(&mut self, id: RelayId, has_error: bool) {
        let Some(relay) = self.get_mut(id) else { return };
        relay.has_error |= has_error;
        if !std::mem::replace(&mut relay.is_ready, true) {
            self.ready.push_back(id);
        }
    }

    /// The relay socket that has waited longest to be read, and whether it has
    /// errors. One that has more than is taken must be added again.
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<(RelayId, bool)> {
        let id = self.ready.pop_front()?;
        // Those closed since then have nothing.
        let has_error = self.get_mut(id).is_some_and(|relay| {
            relay.is_ready = false;
            std::mem::take(&mut relay.has_error)
        });
        Some((id, has_error))
    }

    /// How many wait to be read.
    #[inline]
    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn open(
        &mut self,
        id: RelayId,
        port: PortRequest,
        poll: &Poll,
    ) -> io::Result<Opened> {
        let fresh = match port {
            PortRequest::Reserved(reserved) => self.open_reserved(reserved)?,
            other => self.open_fresh(id.family, other)?,
        };
        let Fresh { address, port, socket, reserved } = fresh;
        let local = RelayedAddr::new(SocketAddr::new(address.local, port));
        if let Err(error) = self.register(id, local, socket, poll) {
            reserved.into_iter().for_each(|reserved| self.release(reserved));
            return Err(error);
        }
        let advertised = SocketAddr::new(address.advertised, local.port());
        Ok(Opened { local, advertised, reserved })
    }

    /// Gives up an open relay socket, for the worker that its allocation moves to.
    /// What is about to leave through it is lost.
    pub(super) fn detach(&mut self, id: RelayId, poll: &Poll) -> Option<Held> {
        let slot = self.sockets.get_mut(id.index())?;
        let relay = slot.take_if(|relay| relay.id == id)?;
        // It was added when it was opened, and an event more would find no relay.
        let _ = poll.remove(&relay.socket);
        Some(Held { address: relay.local, socket: relay.socket })
    }

    /// Takes over a relay socket of another worker.
    ///
    /// # Errors
    /// When the kernel has no room for its events; its port is free then.
    pub(super) fn attach(&mut self, id: RelayId, held: Held, poll: &Poll) -> io::Result<()> {
        self.register(id, held.address, held.socket, poll)
    }

    /// Reads a socket from now on, or closes it and frees its port.
    fn register(
        &mut self,
        id: RelayId,
        local: RelayedAddr,
        socket: UdpSocket,
        poll: &Poll,
    ) -> io::Result<()> {
        if let Err(error) = poll.add(&socket, Token::Relay(id).encode(), Interest::READ_ONCE) {
            self.config.ports.free(local.ip(), local.port());
            return Err(error);
        }
        if self.sockets.len() <= id.index() {
            self.sockets.resize_with(id.index() + 1, || None);
        }
        let relay = RelaySocket {
            id,
            socket,
            local,
            chain: Chain::default(),
            trains: TrainLength::default(),
            is_ready: false,
            has_error: false,
        };
        if let Some(old) = self.sockets[id.index()].replace(relay) {
            // Given up before it was answered; its CloseRelay is still to come and
            // will not find it.
            self.config.ports.free(old.local.ip(), old.local.port());
        }
        Ok(())
    }

    /// Opens the listener of a TCP relay on a free port, at the addresses of the
    /// family in turn; it, its address, and that which clients are told.
    pub(super) fn open_listener(
        &mut self,
        family: Family,
    ) -> io::Result<(TcpListener, RelayedAddr, SocketAddr)> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let addresses: Vec<_> = self.of_family(family).collect();
        for address in addresses {
            let mut refused = Vec::new();
            let mut opened = None;
            for _ in 0..ATTEMPTS {
                let random = self.random.next()?;
                let Some(port) = self.config.ports.take(address.local, false, random) else {
                    break;
                };
                let local = SocketAddr::new(address.local, port);
                match TcpListener::bind(local, true, PEERS_WAITING) {
                    Ok(listener) => {
                        opened = Some((listener, port));
                        break;
                    }
                    Err(error) => {
                        refused.push(port);
                        last = error;
                    }
                }
            }
            refused.into_iter().for_each(|port| self.config.ports.free(address.local, port));
            if let Some((listener, port)) = opened {
                let local = RelayedAddr::new(SocketAddr::new(address.local, port));
                return Ok((listener, local, SocketAddr::new(address.advertised, port)));
            }
        }
        Err(last)
    }

    /// Frees the port of a TCP relay.
    pub(super) fn free_port(&self, local: RelayedAddr) {
        self.config.ports.free(local.ip(), local.port());
    }

    /// Closes a relay socket and frees its port; the kernel forgets its events.
    pub(super) fn close(&mut self, id: RelayId) {
        let Some(slot) = self.sockets.get_mut(id.index()) else { return };
        if let Some(relay) = slot.take_if(|relay| relay.id == id) {
            self.config.ports.free(relay.local.ip(), relay.local.port());
        }
    }

    /// Whether a relay socket of any worker has this address.
    pub(super) fn is_relay(&self, address: SocketAddr) -> bool {
        self.config.ports.is_taken(address.ip(), address.port())
    }

    /// Gives up a port that was set aside, for another worker to use.
    pub(super) fn hand_over(&mut self, address: RelayedAddr) -> Option<Held> {
        self.held.remove(&address).map(|socket| Held { address, socket })
    }

    /// Takes over a port that another worker had set aside.
    pub(super) fn take_over(&mut self, held: Held) {
        self.held.insert(held.address, held.socket);
    }

    /// Frees a port that was set aside.
    pub(super) fn release(&mut self, reserved: RelayedAddr) {
        self.held.remove(&reserved);
        self.config.ports.free(reserved.ip(), reserved.port());
    }

    /// Opens a socket on a free port, at the addresses of the family in turn.
    fn open_fresh(&mut self, family: Family, port: PortRequest) -> io::Result<Fresh> {
        let count = self.of_family(family).count();
        let turn = &mut self.turns[usize::from(family == Family::V6)];
        *turn = turn.wrapping_add(1);
        let turn = *turn;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for i in 0..count {
            let nth = (turn % count + i) % count;
            let Some(address) = self.of_family(family).nth(nth) else { break };
            match self.open_at(address, port) {
                Ok(fresh) => return Ok(fresh),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn of_family(&self, family: Family) -> impl Iterator<Item = HostAddress> + '_ {
        self.config.addresses.iter().filter(move |a| Family::of(a.local) == family).copied()
    }

    fn open_at(&mut self, address: HostAddress, port: PortRequest) -> io::Result<Fresh> {
        let ip = address.local;
        let pair = port == PortRequest::EvenAndReserveNext;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        let mut refused = Vec::new();
        let mut fresh = None;
        for _ in 0..ATTEMPTS {
            let random = self.random.next()?;
            let ports = &self.config.ports;
            let taken = match port {
                PortRequest::EvenAndReserveNext => ports.take_pair(ip, random),
                PortRequest::Even => ports.take(ip, true, random),
                PortRequest::Any | PortRequest::Reserved(_) => ports.take(ip, false, random),
            };
            let Some(number) = taken else { break };
            match self.bind_one_or_two(ip, number, pair) {
                Ok((socket, held)) => {
                    let reserved = held.map(|held| {
                        let address = held.address;
                        self.take_over(held);
                        address
                    });
                    fresh = Some(Fresh { address, port: number, socket, reserved });
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
            self.config.ports.free(ip, number);
        }
        fresh.ok_or(last)
    }

    fn open_reserved(&mut self, reserved: RelayedAddr) -> io::Result<Fresh> {
        let known = self.config.addresses.iter().find(|a| a.local == reserved.ip()).copied();
        let address = known.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = match self.hand_over(reserved) {
            Some(held) => Ok(held.socket),
            None => self.bind(reserved.ip(), reserved.port()),
        };
        match socket {
            Ok(socket) => Ok(Fresh { address, port: reserved.port(), socket, reserved: None }),
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
            offload: self.config.offload,
            ..UdpOptions::default()
        };
        UdpSocket::bind(SocketAddr::new(ip, port), &options)
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
