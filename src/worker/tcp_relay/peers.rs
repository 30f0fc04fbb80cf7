//! The listeners of TCP relays and the connections with peers, by number.

use std::collections::HashMap;

use crate::io::{TcpListener, TcpStream};
use crate::net::RelayedAddr;
use crate::turn::{ConnectionId as WireId, PeerLink, RelayId};
use crate::worker::flow::Flow;
use crate::worker::token::{ConnectionId, Token};

/// The socket of a TCP relay.
pub(super) struct Relay {
    pub(super) id: RelayId,
    pub(super) listener: TcpListener,
    pub(super) local: RelayedAddr,
}

/// A connection with a peer.
pub(super) struct Peer {
    pub(super) id: ConnectionId,
    pub(super) stream: TcpStream,
    pub(super) stage: Stage,
}

/// Where it is in its life.
pub(super) enum Stage {
    /// Not decided yet.
    Connecting(WireId),
    /// There; nothing is read before it is bound.
    Waiting,
    /// Bound to a client's connection.
    Flowing(ConnectionId, Box<Flow>),
}

impl Peer {
    pub(super) fn link(&self) -> PeerLink {
        PeerLink(Token::Peer(self.id).encode())
    }
}

/// All of a worker.
#[derive(Default)]
pub(in crate::worker) struct TcpRelays {
    relays: Vec<Option<Relay>>,
    by_relay: HashMap<RelayId, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    connecting: HashMap<WireId, ConnectionId>,
}

struct Slot {
    generation: u32,
    peer: Option<Box<Peer>>,
}

impl TcpRelays {
    pub(super) fn insert_relay(&mut self, relay: Relay) -> u32 {
        let index = match self.relays.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.relays.push(None);
                self.relays.len() - 1
            }
        };
        self.by_relay.insert(relay.id, index as u32);
        self.relays[index] = Some(relay);
        index as u32
    }

    pub(super) fn relay(&self, index: u32) -> Option<&Relay> {
        self.relays.get(index as usize)?.as_ref()
    }

    /// The relays and their numbers.
    pub(super) fn relays(&self) -> impl Iterator<Item = (u32, &Relay)> {
        let numbered = self.relays.iter().enumerate();
        numbered.filter_map(|(index, relay)| Some((index as u32, relay.as_ref()?)))
    }

    pub(super) fn find_relay(&self, id: RelayId) -> Option<&Relay> {
        self.relay(*self.by_relay.get(&id)?)
    }

    pub(super) fn remove_relay(&mut self, id: RelayId) -> Option<Relay> {
        let index = self.by_relay.remove(&id)?;
        self.relays.get_mut(index as usize)?.take()
    }

    pub(super) fn insert(&mut self, stream: TcpStream, stage: Stage) -> ConnectionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, peer: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let id = ConnectionId { index, generation: slot.generation };
        if let Stage::Connecting(connection) = stage {
            self.connecting.insert(connection, id);
        }
        slot.peer = Some(Box::new(Peer { id, stream, stage }));
        id
    }

    pub(super) fn find_connecting(&self, connection: WireId) -> Option<ConnectionId> {
        self.connecting.get(&connection).copied()
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Peer> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.peer.as_deref_mut().filter(|_| slot.generation == id.generation)
    }

    /// A connection that was being made is there, or is not.
    pub(super) fn decided(&mut self, id: ConnectionId) -> Option<WireId> {
        let Stage::Connecting(connection) = self.get_mut(id)?.stage else { return None };
        self.connecting.remove(&connection);
        self.get_mut(id)?.stage = Stage::Waiting;
        Some(connection)
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<Peer>> {
        self.decided(id);
        self.get_mut(id)?;
        self.free.push(id.index);
        self.slots[id.index as usize].peer.take()
    }
}
