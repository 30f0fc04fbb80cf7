//! UDP in: from listeners and relay sockets to the core, and its verdicts to the
//! egress.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use super::Worker;
use super::dtls::Arrival;
use super::token::Token;
use crate::io::{Body, Header, Outgoing, SlotId, Train, UdpSocket};
use crate::net::{FiveTuple, Now, PeerAddr, Transport};
use crate::stun::{Kind, classify};
use crate::turn::{Client, Forward, Input, MAX_REPLY, RelayId, Verdict};

/// Trains taken from a listener with one call. Most are of one datagram.
const LISTENER_BATCH: usize = 64;

/// Datagrams after which a listener has to wait for the next turn.
const LISTENER_BUDGET: usize = 256;

/// Slots for what DTLS sessions have to say to one batch.
const DTLS_SLOTS: usize = 32;

/// Trains first asked of a relay socket: most have one or two.
const RELAY_BATCH: usize = 8;

/// Datagrams after which a relay socket has to wait for the next turn.
const RELAY_BUDGET: usize = 64;

/// ICMP errors taken from a relay socket per turn.
const ERROR_BUDGET: usize = 16;

/// A socket for clients, and what it takes.
pub struct DatagramListener {
    /// The socket.
    pub socket: UdpSocket,
    /// Whether STUN and ChannelData may come as they are.
    pub plain: bool,
    /// Whether DTLS may come.
    pub dtls: bool,
}

/// A socket that clients send to.
pub(super) struct UdpListener {
    pub(super) socket: UdpSocket,
    plain: bool,
    dtls: bool,
    local: SocketAddr,
    /// Bound to every address: answers must say which one they come from.
    wildcard: bool,
    trains: TrainLength,
}

/// How many datagrams the trains of a socket have, so that no more trains are taken
/// than a budget of datagrams is good for. Short ones are forgotten at once, long
/// ones slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrainLength(usize);

impl Default for TrainLength {
    fn default() -> Self {
        Self(1)
    }
}

impl TrainLength {
    /// How many trains are about so many datagrams; one at least.
    #[inline]
    fn trains_of(self, datagrams: usize) -> usize {
        (datagrams / self.0).max(1)
    }

    #[inline]
    fn note(&mut self, trains: usize, datagrams: usize) {
        if trains > 0 {
            self.0 = datagrams.div_ceil(trains).max(self.0 * 7 / 8).max(1);
        }
    }
}

impl UdpListener {
    pub(super) fn new(listener: DatagramListener) -> io::Result<Self> {
        let DatagramListener { socket, plain, dtls } = listener;
        let local = socket.local_addr()?;
        let wildcard = local.ip().is_unspecified();
        Ok(Self { socket, plain, dtls, local, wildcard, trains: TrainLength::default() })
    }

    /// Whether it is bound to every address, `server` among them.
    fn covers(&self, server: SocketAddr) -> bool {
        self.wildcard
            && self.local.is_ipv4() == server.is_ipv4()
            && self.local.port() == server.port()
    }

    /// The source address that an answer from `server` has to name.
    #[inline]
    pub(super) fn source(&self, server: SocketAddr) -> Option<std::net::IpAddr> {
        self.wildcard.then(|| server.ip())
    }
}

/// Where the bytes of a packet lie, and how it was marked.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) slot: SlotId,
    /// Where in the slot the packet starts.
    pub(super) start: u32,
    pub(super) tos: u8,
}

impl Worker {
    pub(super) fn on_udp_ready(&mut self, now: Now, index: usize) {
        let mut budget = LISTENER_BUDGET;
        while budget > 0 {
            let taken = self.receive_from_clients(now, index, budget);
            budget = budget.saturating_sub(taken.unwrap_or(budget));
        }
    }

    /// Takes one batch from a listener, of about `budget` datagrams at most; returns
    /// how many it had, or `None` when that was all there is.
    fn receive_from_clients(&mut self, now: Now, index: usize, budget: usize) -> Option<usize> {
        let UdpListener { dtls, trains, .. } = self.udp[index];
        let asked = trains.trains_of(budget).min(LISTENER_BATCH);
        self.make_room(now, LISTENER_BATCH + if dtls { DTLS_SLOTS } else { 0 });
        let listener = &self.udp[index];
        // An error here is about memory; the loop will come back.
        let received = listener.socket.recv_batch(&mut self.arena, &mut self.received, asked);
        let Ok(received) = received else { return None };
        let mut taken = 0;
        for i in 0..received.count {
            let train = self.received.at(i);
            if train.truncated {
                self.egress.losses.truncated += 1;
                continue;
            }
            taken += train.datagrams().len();
            self.on_train(now, index, &train);
        }
        self.udp[index].trains.note(received.count, taken);
        (!received.drained).then_some(taken)
    }

    /// What a client has sent through a listener. Answers lie behind it.
    fn on_train(&mut self, now: Now, index: usize, train: &Train) {
        let UdpListener { plain, dtls, local, .. } = self.udp[index];
        let server = train.local.map_or(local, |ip| SocketAddr::new(ip, local.port()));
        let five_tuple = FiveTuple::new(Transport::Udp, train.from, server);
        let client = Client { five_tuple, link: Token::Udp(index as u32).link() };
        let (slot, tos) = (train.slot, train.tos);
        let mut room = train.len;
        for datagram in train.datagrams() {
            if dtls && self.is_dtls(slot, &datagram) {
                let arrival =
                    Arrival { listener: index, slot, datagram, from: train.from, server, tos };
                room = self.on_dtls(now, &arrival, room);
                continue;
            }
            if !plain {
                self.egress.losses.no_session += 1;
                continue;
            }
            let origin = Origin { slot, start: datagram.start as u32, tos };
            let (packets, free) = self.arena.split(slot, room);
            let reply = free.get_mut(..MAX_REPLY).unwrap_or_default();
            match self.core.on_client(now, client, &packets[datagram], reply) {
                Verdict::Forward(forward) => self.forward(origin, &forward),
                Verdict::Reply { len } => {
                    self.reply(index, server, train.from, body(slot, room, len));
                    room += len;
                }
                Verdict::ReplyFrom { len, server, client } => {
                    match self.listener_at(server) {
                        Some(index) => self.reply(index, server, client, body(slot, room, len)),
                        None => self.egress.losses.no_listener += 1,
                    }
                    room += len;
                }
                // Only connections are handed over.
                Verdict::Queued | Verdict::HandOver { .. } | Verdict::Drop(_) => {}
            }
        }
    }

    fn is_dtls(&self, slot: SlotId, datagram: &Range<usize>) -> bool {
        classify(&self.arena.bytes(slot)[datagram.clone()]) == Kind::Dtls
    }

    /// Sends an answer through a listener.
    #[inline]
    fn reply(&mut self, index: usize, server: SocketAddr, client: SocketAddr, body: Body) {
        let from = self.udp[index].source(server);
        self.egress.add_for_listener(index, Outgoing { from, ..Outgoing::new(client, body) });
    }

    /// The listener of this worker that can send from `server`. Every worker
    /// listens on every address, so each can answer from any of them.
    fn listener_at(&self, server: SocketAddr) -> Option<usize> {
        let exact = self.udp.iter().position(|listener| listener.local == server);
        exact.or_else(|| self.udp.iter().position(|listener| listener.covers(server)))
    }

    /// Reads a ready relay socket, with about `budget` datagrams at most; returns how
    /// many of the budget were used. What is left is read in the next turn.
    pub(super) fn on_relay_ready(
        &mut self,
        now: Now,
        id: RelayId,
        has_error: bool,
        budget: usize,
    ) -> usize {
        let errors_left = has_error && !self.read_errors(now, id);
        let budget = budget.min(RELAY_BUDGET);
        let mut most = RELAY_BATCH;
        let mut used = 0;
        let mut drained = false;
        while used < budget && !drained {
            self.make_room(now, most + DTLS_SLOTS);
            let Some(relay) = self.relays.get(id) else { return used };
            let asked = relay.trains.trains_of(budget - used).min(most);
            let received = relay.socket.recv_batch(&mut self.arena, &mut self.received, asked);
            let Ok(received) = received else { break };
            used += self.relay_received(now, id, received.count).max(1);
            drained = received.drained;
            most = RELAY_BUDGET - RELAY_BATCH;
        }
        if errors_left || !drained {
            self.relays.add_ready(id, errors_left);
        }
        used
    }

    /// What peers have sent to a relay socket; returns how many datagrams it was.
    fn relay_received(&mut self, now: Now, id: RelayId, count: usize) -> usize {
        let mut taken = 0;
        for i in 0..count {
            let train = self.received.at(i);
            if train.truncated {
                self.egress.losses.truncated += 1;
                continue;
            }
            let from = PeerAddr::new(train.from);
            for datagram in train.datagrams() {
                taken += 1;
                if let Verdict::Forward(forward) = self.core.on_peer(now, id, from, datagram.len())
                {
                    let start = datagram.start as u32;
                    self.forward(Origin { slot: train.slot, start, tos: train.tos }, &forward);
                }
            }
        }
        if let Some(relay) = self.relays.get_mut(id) {
            relay.trains.note(count, taken);
        }
        taken
    }

    /// Reads the ICMP errors of a relay socket; true when none are left.
    fn read_errors(&mut self, now: Now, relay: RelayId) -> bool {
        for _ in 0..ERROR_BUDGET {
            let Some(socket) = self.relays.get(relay) else { return true };
            let Ok(Some(error)) = socket.socket.recv_error() else { return true };
            let peer = PeerAddr::new(error.peer);
            let (icmp_type, code, info) = (error.icmp_type, error.code, error.info);
            self.core.handle_input(now, Input::Icmp { relay, peer, icmp_type, code, info });
        }
        false
    }

    /// Hands a part of a packet to the egress.
    #[inline]
    pub(super) fn forward(&mut self, origin: Origin, forward: &Forward) {
        let body = |data: crate::turn::Span| Body {
            slot: origin.slot,
            start: origin.start + data.start,
            end: origin.start + data.end,
        };
        match *forward {
            Forward::ToPeer { relay, peer, data, dont_fragment, relays_only } => {
                if relays_only && !self.relays.is_relay(peer.socket()) {
                    self.egress.losses.no_relay += 1;
                    return;
                }
                let message = Outgoing {
                    tos: origin.tos,
                    dont_fragment,
                    ..Outgoing::new(peer.socket(), body(data))
                };
                self.egress.add_for_peer(&mut self.relays, relay, message);
            }
            Forward::ToClient { link, client, server, header, data, padding } => {
                let (len, bytes) = header.parts();
                let mut message = Outgoing {
                    header: Header::from_parts(len, bytes),
                    pad: padding,
                    tos: origin.tos,
                    ..Outgoing::new(client.socket(), body(data))
                };
                match Token::decode(link.0) {
                    Token::Udp(index) => {
                        message.from = self.udp[index as usize].source(server);
                        self.egress.add_for_listener(index as usize, message);
                    }
                    Token::Connection(id) => {
                        self.egress.add_for_connection(&mut self.connections, id, message);
                    }
                    Token::Dtls(id) => self.send_to_dtls(id, &message),
                    Token::Relay(_)
                    | Token::Tcp(_)
                    | Token::TcpRelay(_)
                    | Token::Peer(_)
                    | Token::Backend(_)
                    | Token::Mailbox => {}
                }
            }
        }
    }
}

/// `len` bytes of a slot, from `start` on.
fn body(slot: SlotId, start: usize, len: usize) -> Body {
    Body { slot, start: start as u32, end: (start + len) as u32 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::{
        BackendLimits, DtlsLimits, Mail, Mailbox, Parts, PortTable, RelayConfig, StreamLimits,
        Summary,
    };
    use super::*;
    use crate::io::UdpOptions;
    use crate::net::HashSeed;
    use crate::turn::policy::{OwnAddresses, Policy};
    use crate::turn::{
        AuthSettings, DefaultFamily, Discovery, ExpiryCheck, HostAddress, Lifetimes, Limits,
        RelaySettings, Server, Settings, Shard,
    };

    /// A worker on 127.0.0.1 alone, whose core believes that it listens on the other
    /// addresses of NAT discovery as well.
    fn worker(socket: UdpSocket, mailbox: Mailbox) -> Worker {
        let local = socket.local_addr().unwrap();
        let seed = HashSeed::new(1);
        let core = Server::new(
            Arc::new(settings(local.port())),
            Shard { index: 0, count: 1 },
            [1; 32],
            seed,
            Instant::now(),
        );
        let streams = StreamLimits {
            connections: 1,
            idle: Duration::from_secs(1),
            frame: Duration::from_secs(1),
            handshake: Duration::from_secs(1),
            queue: 1,
            proxies: Vec::new(),
        };
        let dtls = DtlsLimits {
            sessions: 1,
            handshakes: 1,
            handshake: Duration::from_secs(1),
            cookie_secret: [1; 32],
        };
        let relay = RelayConfig {
            addresses: Vec::new(),
            ports: Arc::new(PortTable::new([], &(1..=1))),
            recv_buffer: None,
            send_buffer: None,
            offload: true,
        };
        let (connect, idle) = (Duration::from_secs(1), Duration::from_secs(1));
        let passing = BackendLimits { connections: 1, connect, idle };
        let udp = vec![DatagramListener { socket, plain: true, dtls: false }];
        Worker::new(Parts {
            core,
            index: 0,
            udp,
            tcp: Vec::new(),
            certificates: None,
            relay,
            streams,
            dtls,
            backends: Arc::new([]),
            passing,
            seed,
            mailbox,
            posts: Vec::new(),
        })
        .unwrap()
    }

    fn settings(port: u16) -> Settings {
        let host = |last: u8| HostAddress {
            local: [127, 0, 0, last].into(),
            advertised: [127, 0, 0, last].into(),
        };
        Settings {
            auth: AuthSettings {
                directory: None,
                tokens: None,
                external: false,
                algorithms: Vec::new(),
                nonce_secret: [1; 32].into(),
                nonce_lifetime: Duration::from_secs(1),
                expiry: ExpiryCheck::Allocate,
            },
            lifetimes: Lifetimes::default(),
            limits: Limits::default(),
            relay: RelaySettings {
                addresses: Vec::new(),
                ports: 1..=1,
                default_family: DefaultFamily::V4,
                tcp: false,
            },
            policy: Policy::new(&[], &[], &OwnAddresses::default(), 1..=1),
            discovery: Some(Discovery { addresses: vec![host(1), host(2)], ports: [port, 1] }),
            alternates: None,
            mobility: None,
            rfc3489: false,
            rfc5766_channels: false,
            software: None,
        }
    }

    #[test]
    fn long_trains_are_expected_for_a_while() {
        let mut length = TrainLength::default();
        assert_eq!(length.trains_of(256), 256);
        length.note(64, 64 * 64);
        assert_eq!((length.trains_of(256), length.trains_of(63)), (4, 1));
        // One short train does not make the next sixty-four welcome.
        length.note(4, 4);
        assert_eq!(length.trains_of(256), 4);
        (0..40).for_each(|_| length.note(1, 1));
        assert_eq!(length, TrainLength::default());
        length.note(0, 0);
        assert_eq!(length, TrainLength::default());
    }

    #[test]
    fn an_answer_that_no_listener_can_send_is_counted() {
        let socket =
            UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &UdpOptions::default()).unwrap();
        let server = socket.local_addr().unwrap();
        let (mailbox, post) = Mailbox::new().unwrap();
        let worker = worker(socket, mailbox);
        let running = std::thread::spawn(move || worker.run().unwrap());
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Binding with CHANGE-REQUEST: another address; then without.
        let plain = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
        let mut change = [&plain[..], &[0, 3, 0, 4, 0, 0, 0, 4]].concat();
        change[3] = 8;
        client.send_to(&change, server).unwrap();
        client.send_to(&plain, server).unwrap();
        let mut answer = [0; 500];
        let (_, from) = client.recv_from(&mut answer).expect("the second is answered");
        assert_eq!(from, server);
        assert!(post.send(Mail::Stop).is_ok());
        let Summary { losses, .. } = running.join().unwrap();
        assert_eq!(losses.no_listener, 1);
    }
}
