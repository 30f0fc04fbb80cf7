//! The simulated host: the ports of relay sockets. It notices every port that is
//! leaked, freed twice or used by two, and every relay closed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use sturn::net::{Family, RelayedAddr};
use sturn::turn::{Input, PortRequest, RelayId, RelayTransport};

use crate::rng::Rng;
use crate::setup::{LISTENER_PORT, Setup};

/// A relay socket, named by its shard and the core's id.
pub type Socket = (u16, RelayId);

#[derive(Default)]
pub struct Kernel {
    ports: BTreeMap<SocketAddr, Port>,
    sockets: BTreeMap<Socket, SocketAddr>,
    /// Every socket ever asked for: ids are not used again.
    asked: BTreeSet<Socket>,
    /// Listeners of TCP relays.
    listeners: BTreeSet<Socket>,
    /// Sockets on their way to another shard.
    moving: BTreeSet<Socket>,
}

#[derive(Debug, PartialEq, Eq)]
enum Port {
    Open(Socket),
    SetAside,
}

impl Kernel {
    /// The core asks for a socket.
    pub fn ask(&mut self, socket: Socket, transport: RelayTransport) {
        assert!(self.asked.insert(socket), "{socket:?} is asked for once");
        if transport == RelayTransport::Tcp {
            self.listeners.insert(socket);
        }
    }

    /// A socket goes to another shard, together with a message.
    pub fn hand_over(&mut self, from: Socket, to: Socket) {
        assert!(self.asked.insert(to), "{to:?} is a new id");
        let local = self.sockets.remove(&from).expect("only an open socket changes hands");
        self.ports.insert(local, Port::Open(to));
        self.sockets.insert(to, local);
        self.moving.insert(to);
    }

    /// The message with a socket has arrived.
    pub fn arrive(&mut self, socket: Socket) {
        assert!(self.moving.remove(&socket), "{socket:?} was on its way");
    }

    /// Whether a socket has left one shard and not arrived at the other.
    pub fn is_moving(&self, socket: Socket) -> bool {
        self.moving.contains(&socket)
    }

    pub fn is_listener(&self, socket: Socket) -> bool {
        self.listeners.contains(&socket)
    }

    /// The open listeners of TCP relays, in order.
    pub fn open_listeners(&self) -> Vec<Socket> {
        self.sockets.keys().filter(|socket| self.is_listener(**socket)).copied().collect()
    }

    /// Opens what was asked for, if there is a port.
    pub fn open(
        &mut self,
        rng: &mut Rng,
        setup: &Setup,
        socket: Socket,
        request: PortRequest,
        fail: bool,
    ) -> Input {
        let relay = socket.1;
        let claimed = match request {
            PortRequest::Reserved(address) => {
                let address = address.socket();
                let was = self.ports.remove(&address);
                assert_eq!(was, Some(Port::SetAside), "{address} was set aside");
                Some(address)
            }
            _ => None,
        };
        if fail {
            return Input::RelayFailed { relay };
        }
        let Some(local) = claimed.or_else(|| self.free(rng, setup, relay.family, request)) else {
            return Input::RelayFailed { relay };
        };
        self.ports.insert(local, Port::Open(socket));
        self.sockets.insert(socket, local);
        let reserved = (request == PortRequest::EvenAndReserveNext).then(|| {
            let next = SocketAddr::new(local.ip(), local.port() + 1);
            self.ports.insert(next, Port::SetAside);
            RelayedAddr::new(next)
        });
        let advertised = setup.advertised_of(local).expect("it is an address of this host");
        Input::RelayOpened { relay, local: RelayedAddr::new(local), advertised, reserved }
    }

    fn free(
        &self,
        rng: &mut Rng,
        setup: &Setup,
        family: Family,
        request: PortRequest,
    ) -> Option<SocketAddr> {
        let ip = setup.settings.relay.addresses.iter().find(|r| Family::of(r.local) == family)?;
        let is_free = |port: u16| {
            setup.ports().contains(&port)
                && port != LISTENER_PORT
                && !self.ports.contains_key(&SocketAddr::new(ip.local, port))
        };
        let fits = |port: u16| match request {
            PortRequest::Any => is_free(port),
            PortRequest::Even => port.is_multiple_of(2) && is_free(port),
            PortRequest::EvenAndReserveNext => {
                port.is_multiple_of(2) && is_free(port) && is_free(port + 1)
            }
            PortRequest::Reserved(_) => false,
        };
        let choice: Vec<u16> = setup.ports().filter(|port| fits(*port)).collect();
        (!choice.is_empty()).then(|| SocketAddr::new(ip.local, rng.pick(&choice)))
    }

    pub fn close(&mut self, socket: Socket) {
        let local = self.sockets.remove(&socket).expect("a socket is closed once, while open");
        assert_eq!(self.ports.remove(&local), Some(Port::Open(socket)), "{local} was its port");
    }

    pub fn release(&mut self, reserved: RelayedAddr) {
        let was = self.ports.remove(&reserved.socket());
        assert_eq!(was, Some(Port::SetAside), "{reserved} was set aside, and is freed once");
    }

    /// The socket bound to an address of this host.
    pub fn socket_at(&self, local: SocketAddr) -> Option<Socket> {
        match self.ports.get(&local)? {
            Port::Open(socket) => Some(*socket),
            Port::SetAside => None,
        }
    }

    /// Where a socket is bound.
    pub fn local_of(&self, socket: Socket) -> Option<SocketAddr> {
        self.sockets.get(&socket).copied()
    }

    /// The socket for datagrams that a shard has at an address of this host.
    pub fn datagram_socket_of(&self, shard: u16, local: SocketAddr) -> Option<Socket> {
        let socket = self.socket_at(local).filter(|socket| socket.0 == shard)?;
        (!self.is_listener(socket) && !self.is_moving(socket)).then_some(socket)
    }

    /// The addresses of all sockets, in order.
    pub fn open_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.values().copied().collect()
    }

    pub fn assert_empty(&self) {
        assert!(self.sockets.is_empty(), "relays never closed: {:?}", self.sockets);
        assert!(self.ports.is_empty(), "ports never freed: {:?}", self.ports);
        assert!(self.moving.is_empty(), "sockets that never arrived: {:?}", self.moving);
    }
}
