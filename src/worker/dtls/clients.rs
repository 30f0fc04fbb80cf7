//! The DTLS clients of a worker, by address and by the number in their link.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::net::{FiveTuple, HashSeed, Map, map};
use crate::tls::State;
use crate::tls::dtls::{Front, Hello, Limits, Session};
use crate::turn::Client;
use crate::worker::token::{ConnectionId, Token};

/// A client with a session.
pub(in crate::worker) struct DtlsClient {
    pub(super) id: ConnectionId,
    pub(super) session: Session,
    pub(super) five_tuple: FiveTuple,
    /// The listener it came to, and is answered through.
    pub(super) listener: usize,
    /// Since when it has been without an allocation, as far as was looked.
    pub(super) idle_since: Instant,
    /// When its timer fires; others armed for it before count no more.
    pub(super) timer: Option<Instant>,
    /// The session at the same address that takes the place of this one once its
    /// handshake is done.
    successor: Option<ConnectionId>,
}

impl DtlsClient {
    pub(super) fn client(&self) -> Client {
        Client { five_tuple: self.five_tuple, link: Token::Dtls(self.id).link() }
    }

    fn address(&self) -> (SocketAddr, SocketAddr) {
        (self.five_tuple.client.socket(), self.five_tuple.server)
    }

    fn is_half_open(&self) -> bool {
        self.session.state() == State::Handshaking
    }
}

/// How DTLS clients are treated.
#[derive(Clone, Debug)]
pub struct DtlsLimits {
    /// Sessions of this worker.
    pub sessions: usize,
    /// Of these, handshakes that are not done.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// The secret of cookies; all workers have the same.
    pub cookie_secret: [u8; 32],
}

pub(in crate::worker) struct DtlsClients {
    pub(super) front: Front,
    pub(super) limits: Limits,
    most: DtlsLimits,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_address: Map<(SocketAddr, SocketAddr), ConnectionId>,
    half_open: usize,
}

struct Slot {
    generation: u32,
    client: Option<Box<DtlsClient>>,
}

impl DtlsClients {
    pub(in crate::worker) fn new(most: DtlsLimits, seed: HashSeed) -> Self {
        Self {
            front: Front::new(&most.cookie_secret),
            limits: Limits { handshake: most.handshake, ..Limits::default() },
            most,
            slots: Vec::new(),
            free: Vec::new(),
            by_address: map(seed),
            half_open: 0,
        }
    }

    /// The session of a client; not the one that is to take its place.
    pub(super) fn find(&self, client: SocketAddr, server: SocketAddr) -> Option<ConnectionId> {
        self.by_address.get(&(client, server)).copied()
    }

    /// Which of the sessions at the address of `known` began with a hello.
    pub(super) fn begun_with(
        &self,
        known: ConnectionId,
        hello: &Hello<'_>,
    ) -> Option<ConnectionId> {
        let mut both = [Some(known), self.get(known)?.successor].into_iter().flatten();
        both.find(|id| self.get(*id).is_some_and(|c| c.session.began_with(hello)))
    }

    /// Which of the sessions at the address of `known` a datagram is for. While there
    /// are two, one of them shakes hands, and the other has done that.
    pub(super) fn receiver(&self, known: ConnectionId, datagram: &[u8]) -> ConnectionId {
        let successor = self.get(known).and_then(|client| client.successor);
        successor.filter(|_| belongs_to_handshake(datagram)).unwrap_or(known)
    }

    /// The session that gives way when another one begins at its address: one whose
    /// handshake is not done.
    pub(super) fn unfinished(&self, known: ConnectionId) -> Option<ConnectionId> {
        let client = self.get(known)?;
        client.successor.or_else(|| client.is_half_open().then_some(known))
    }

    /// The session whose place this one is to take.
    pub(super) fn predecessor(&self, id: ConnectionId) -> Option<ConnectionId> {
        self.by_address.get(&self.get(id)?.address()).copied().filter(|known| *known != id)
    }

    pub(in crate::worker) fn ids(&self) -> Vec<ConnectionId> {
        self.slots.iter().filter_map(|slot| Some(slot.client.as_ref()?.id)).collect()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&DtlsClient> {
        let slot = self.slots.get(id.index as usize)?;
        slot.client.as_deref().filter(|_| slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut DtlsClient> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.client.as_deref_mut().filter(|_| slot.generation == id.generation)
    }

    /// Whether there is room for another handshake.
    pub(super) fn has_room(&self) -> bool {
        let sessions = self.slots.len() - self.free.len();
        self.half_open < self.most.handshakes && sessions < self.most.sessions
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        session: Session,
        five_tuple: FiveTuple,
        listener: usize,
    ) -> ConnectionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, client: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let id = ConnectionId { index, generation: slot.generation };
        let client = DtlsClient {
            id,
            session,
            five_tuple,
            listener,
            idle_since: now,
            timer: None,
            successor: None,
        };
        self.half_open += usize::from(client.is_half_open());
        let known = *self.by_address.entry(client.address()).or_insert(id);
        slot.client = Some(Box::new(client));
        self.set_successor(known, (known != id).then_some(id));
        id
    }

    /// Counts again what a call to the session may have changed.
    pub(super) fn settle(&mut self, id: ConnectionId, was_half_open: bool) {
        let Some(client) = self.get_mut(id) else { return };
        if was_half_open && !client.is_half_open() {
            self.half_open -= 1;
        }
    }

    pub(super) fn is_half_open(&self, id: ConnectionId) -> bool {
        self.get(id).is_some_and(|client| client.is_half_open())
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<DtlsClient>> {
        let half_open = self.is_half_open(id);
        self.get_mut(id)?;
        let client = self.slots[id.index as usize].client.take()?;
        self.half_open -= usize::from(half_open);
        self.free.push(id.index);
        let known = self.by_address.get(&client.address()).copied();
        match (known, client.successor) {
            (Some(known), _) if known != id => self.set_successor(known, None),
            (_, Some(successor)) => {
                self.by_address.insert(client.address(), successor);
            }
            (_, None) => {
                self.by_address.remove(&client.address());
            }
        }
        Some(client)
    }

    fn set_successor(&mut self, known: ConnectionId, successor: Option<ConnectionId>) {
        if let Some(client) = self.get_mut(known) {
            client.successor = successor;
        }
    }
}

/// Whether a datagram begins with something of a handshake. Alerts and data with
/// keys are for the session that has them.
fn belongs_to_handshake(datagram: &[u8]) -> bool {
    const CHANGE_CIPHER_SPEC: u8 = 20;
    const HANDSHAKE: u8 = 22;
    let plaintext = datagram.get(3..5) == Some(&[0, 0]);
    plaintext || matches!(datagram.first(), Some(&(CHANGE_CIPHER_SPEC | HANDSHAKE)))
}
