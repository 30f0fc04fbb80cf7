//! What happens at random, and the quiet end in which everything must go well.

use std::net::SocketAddr;
use std::time::Duration;

use sturn::client::{Allocate, Attribute};
use sturn::net::Family;

use crate::setup::{LISTENER_PORT, Worth};
use crate::wire;
use crate::world::{Event, HOSTS, World, trace};

#[derive(Clone, Copy)]
enum Action {
    Advance,
    Freeze,
    Binding,
    Allocate,
    Refresh,
    Permission,
    Channel,
    Send,
    Raw,
    BadNonce,
    Spam,
    Icmp,
    CloseLink,
    Restart,
    Garbage,
    Roam,
    OldTicket,
    FirstPacket,
    Connect,
    PeerConnects,
    PeerCloses,
    DataBytes,
    Drain,
}

const ACTIONS: &[(u32, Action)] = &[
    (300, Action::Advance),
    (3, Action::Freeze),
    (20, Action::Binding),
    (120, Action::Allocate),
    (50, Action::Refresh),
    (90, Action::Permission),
    (90, Action::Channel),
    (200, Action::Send),
    (15, Action::Raw),
    (5, Action::BadNonce),
    (50, Action::Spam),
    (15, Action::Icmp),
    (8, Action::CloseLink),
    (8, Action::Restart),
    (25, Action::Garbage),
    (30, Action::Roam),
    (10, Action::OldTicket),
    (40, Action::FirstPacket),
    (60, Action::Connect),
    (25, Action::PeerConnects),
    (10, Action::PeerCloses),
    (20, Action::DataBytes),
    (3, Action::Drain),
];

impl World {
    /// One random action.
    pub fn step(&mut self) {
        if let Some((host, token)) = self.fresh_token.take()
            && self.rng.permille(700)
        {
            return self.claim_reserved(host, token);
        }
        if self.rng.permille(600) && self.bind_one() {
            return;
        }
        let action = self.rng.weighted(ACTIONS);
        let host = self.actor(action);
        match action {
            Action::Advance => {
                let longest =
                    self.rng.weighted(&[(600, 300), (350, 3_000), (45, 60_000), (5, 1_300_000)]);
                let by = Duration::from_millis(self.rng.within(0..longest));
                trace!(self, "{by:?} pass");
                self.advance(by);
            }
            Action::Freeze => {
                let by = Duration::from_secs(self.rng.pick(&[1, 30, 400, 1200]));
                trace!(self, "nothing runs for {by:?}");
                self.freeze(by);
            }
            Action::Spam => self.spam(),
            Action::Icmp => self.random_icmp(),
            Action::CloseLink if self.hosts[host].is_stream() => self.close_link(host),
            Action::CloseLink => {}
            Action::Restart => self.restart(host),
            Action::Garbage => self.garbage(host),
            Action::Roam => self.roam_with_ticket(host),
            Action::OldTicket => self.show_any_ticket(host),
            Action::FirstPacket => self.raw_channel_data(host),
            Action::PeerConnects => self.peer_connects(),
            Action::PeerCloses => self.peer_closes(),
            Action::DataBytes => {
                let bound = self.bound_hosts();
                if !bound.is_empty() {
                    let host = self.rng.pick(&bound);
                    self.send_to_bound_peer(host);
                }
            }
            Action::Drain => {
                let shard = self.rng.below(self.cores.len());
                self.set_draining(shard, !self.model.draining[shard]);
            }
            action => {
                self.ask(host, action);
                self.pump(host);
            }
        }
    }

    /// Who acts: any host, but data is mostly sent by those who can.
    fn actor(&mut self, action: Action) -> usize {
        let any = self.rng.below(HOSTS);
        let able: Vec<usize> = (0..HOSTS)
            .filter(|host| {
                let five_tuple = self.hosts[*host].identity.five_tuple;
                self.model.alive(self.now, &five_tuple).is_some()
            })
            .collect();
        let needs = matches!(
            action,
            Action::Permission
                | Action::Channel
                | Action::Send
                | Action::Refresh
                | Action::Roam
                | Action::OldTicket
                | Action::FirstPacket
                | Action::Connect
        );
        let able = match action {
            Action::Roam => (0..HOSTS).filter(|h| !self.hosts[*h].tickets.is_empty()).collect(),
            Action::Connect => self.with_tcp_allocation(&able),
            _ => able,
        };
        if needs && !able.is_empty() && self.rng.permille(800) { self.rng.pick(&able) } else { any }
    }

    /// Somebody with the same name claims a port that was set aside for `host`.
    fn claim_reserved(&mut self, host: usize, token: [u8; 8]) {
        let name = self.hosts[host].credential.name.clone();
        let others: Vec<usize> = (0..HOSTS)
            .filter(|h| {
                *h != host && self.hosts[*h].credential.name == name && !self.hosts[*h].liar
            })
            .collect();
        if others.is_empty() {
            return;
        }
        let host = self.rng.pick(&others);
        trace!(self, "host {host} claims {token:x?}");
        let allocate = Allocate { reservation_token: Some(token), ..Allocate::default() };
        self.hosts[host].client.allocate(self.now, allocate);
        self.pump(host);
    }

    fn ask(&mut self, host: usize, action: Action) {
        let now = self.now;
        match action {
            Action::Binding => {
                self.hosts[host].client.binding(now);
            }
            Action::Allocate => {
                let allocate = self.random_allocate(host);
                trace!(self, "host {host}: {allocate:?}");
                if self.rng.permille(300) {
                    self.allocate_mobile(host, &allocate);
                } else {
                    self.hosts[host].client.allocate(now, allocate);
                }
            }
            Action::Connect => {
                let peer = self.random_peer();
                self.connect(host, peer);
            }
            Action::Refresh => {
                let lifetime = self.rng.pick(&[None, Some(0), Some(30), Some(1200), Some(4000)]);
                let family = self.rng.pick(&[None, None, Some(Family::V4), Some(Family::V6)]);
                trace!(self, "host {host}: refresh {lifetime:?} {family:?}");
                self.hosts[host].client.refresh(now, lifetime.map(Duration::from_secs), family);
            }
            Action::Permission => {
                let peers: Vec<_> =
                    (0..1 + self.rng.below(3)).map(|_| self.random_peer()).collect();
                trace!(self, "host {host}: permissions for {peers:?}");
                self.hosts[host].client.create_permission(now, &peers);
            }
            Action::Channel => {
                let peer = self.random_peer();
                // The client itself does not know the channels of RFC 5766, so it asks
                // for one only where that is refused.
                let reserved = (!self.setup.settings.rfc5766_channels).then_some(0x5000);
                let number = self.rng.pick(&[None, None, Some(0x4000), Some(0x4FFF), reserved]);
                trace!(self, "host {host}: channel {number:x?} for {peer}");
                self.hosts[host].client.channel_bind(now, number, peer);
            }
            Action::Send => {
                let peer = self.random_peer();
                let data = self.payload();
                let dont_fragment = self.rng.permille(100);
                trace!(self, "host {host}: {} bytes for {peer}", data.len());
                self.hosts[host].client.send(peer, &data, dont_fragment);
            }
            Action::Raw => {
                let method =
                    self.rng.pick(&[wire::REFRESH, wire::CREATE_PERMISSION, wire::CONNECT, 0x0AB]);
                let kind = self.rng.pick(&[0x7001, 0x7ABC]);
                let attributes = vec![Attribute::Raw(kind, vec![1, 2, 3])];
                trace!(self, "host {host}: method {method:#x} with {kind:#x}");
                self.hosts[host].client.request_raw(now, method, attributes);
            }
            _ => {
                self.hosts[host].client.replace_nonce("obMatJos2gAAAbogus");
            }
        }
    }

    fn random_allocate(&mut self, host: usize) -> Allocate {
        let stream = self.hosts[host].is_stream();
        let tcp = stream && self.setup.settings.relay.tcp;
        let rng = &mut self.rng;
        let mut allocate = Allocate {
            lifetime: rng
                .pick(&[None, None, Some(10), Some(1100), Some(9999)])
                .map(Duration::from_secs),
            family: rng.pick(&[None, None, Some(Family::V4), Some(Family::V6)]),
            dont_fragment: rng.permille(100),
            ..Allocate::default()
        };
        match rng.below(12) {
            0..2 => allocate.even_port = Some(rng.permille(700)),
            2..4 => {
                allocate.family = None;
                allocate.additional_family = Some(Family::V6);
            }
            4..6 => {
                allocate.family = None;
                // One's own token, or that of somebody else, or none that exists.
                let of = if rng.permille(700) { host } else { rng.below(HOSTS) };
                allocate.reservation_token =
                    self.hosts[of].last_token.or(Some([0, 1, 2, 3, 4, 5, 6, 7]));
            }
            6 => {
                // Too much at once.
                allocate.additional_family = Some(rng.pick(&[Family::V6, Family::V4]));
                allocate.even_port = Some(true);
            }
            7 => allocate.requested_transport = wire::TCP,
            8..11 if tcp => allocate.requested_transport = wire::TCP,
            _ => {}
        }
        allocate
    }

    /// A peer's address: a host's, a refused one, or one of this server's own.
    pub fn random_peer(&mut self) -> SocketAddr {
        let own = self.kernel.open_addresses();
        match self.rng.below(20) {
            0..11 => self.rng.pick(&self.setup.peers),
            11 => self.rng.pick(&self.setup.denied),
            12 => SocketAddr::new(self.rng.pick(&self.setup.peers).ip(), 0),
            13 => "8.8.4.4:50030".parse().unwrap(),
            14 => SocketAddr::new("8.8.4.4".parse().unwrap(), self.rng.pick(&[22, LISTENER_PORT])),
            15 if !own.is_empty() => self.rng.pick(&own),
            _ if !own.is_empty() => {
                let local = self.rng.pick(&own);
                self.setup.advertised_of(local).expect("it is an address of this host")
            }
            _ => self.rng.pick(&self.setup.peers),
        }
    }

    /// Data that has not been sent before, unless it is empty.
    pub fn payload(&mut self) -> Vec<u8> {
        let len = self.rng.weighted(&[(5, 0), (60, 20), (30, 100), (5, 1400)]);
        let mut data =
            vec![self.payloads as u8; if len == 0 { 0 } else { 8 + self.rng.below(len) }];
        self.payloads += 1;
        if let Some(head) = data.first_chunk_mut() {
            *head = self.payloads.to_be_bytes();
        }
        data
    }

    /// Somebody sends to a relayed transport address unasked.
    fn spam(&mut self) {
        let own = self.kernel.open_addresses();
        if own.is_empty() {
            return;
        }
        let local = self.rng.pick(&own);
        let from = self.random_peer();
        let data = self.payload();
        if self.setup.is_relay(from.ip()) {
            return;
        }
        let to = self.setup.advertised_of(local).expect("it is an address of this host");
        self.send_to_relay(from, to, data);
    }

    fn random_icmp(&mut self) {
        let own = self.kernel.open_addresses();
        if own.is_empty() {
            return;
        }
        let local = self.rng.pick(&own);
        let Some(socket) = self.kernel.socket_at(local) else { return };
        let peer = self.random_peer();
        if peer.is_ipv4() == local.is_ipv4() {
            let icmp_type = self.rng.pick(&[0, 1, 2, 3, 4, 11, 12]);
            trace!(self, "ICMP type {icmp_type} about {peer} at {local}");
            self.icmp(socket, peer, icmp_type, 4, 1280);
        }
    }

    /// A client starts anew; a datagram client keeps its address half of the time.
    fn restart(&mut self, host: usize) {
        if self.hosts[host].is_stream() {
            return self.close_link(host);
        }
        let keeps = self.rng.permille(500);
        let identity = if keeps { self.hosts[host].identity } else { self.fresh_identity(host) };
        let good = |c: &crate::setup::Credential| c.worth != Worth::Bad;
        let choice: Vec<_> = self.setup.credentials.iter().filter(|c| good(c)).cloned().collect();
        let credential = if self.hosts[host].liar {
            self.hosts[host].credential.clone()
        } else {
            self.rng.pick(&choice)
        };
        trace!(self, "host {host} starts anew as {}", credential.name);
        self.hosts[host].restart(&mut self.rng, credential, identity);
    }

    /// Bytes that no client would send.
    fn garbage(&mut self, host: usize) {
        let from = self.hosts[host].identity;
        let len = self.rng.pick(&[0, 1, 4, 19, 20, 21, 100, 1500]);
        let mut bytes = self.rng.vec(len);
        if self.rng.permille(700) {
            let class = self.rng.pick(&[0x00, 0x01, 0x40, 0x4F, 0x50, 0x16]);
            if let Some(first) = bytes.first_mut() {
                *first = class;
            }
        }
        if from.five_tuple.transport.is_stream() {
            self.hosts[host].up.extend(&bytes);
            self.schedule(Duration::ZERO, Event::Up { host, link: from.link });
        } else {
            let event = Event::ToServer { host, from, bytes, altered: true };
            self.schedule(Duration::ZERO, event);
        }
    }

    pub fn set_draining(&mut self, shard: usize, draining: bool) {
        trace!(self, "shard {shard} drains: {draining}");
        self.model.draining[shard] = draining;
        self.cores[shard].server.set_draining(draining);
    }

    /// Starts a data connection, if there is something to bind it to.
    fn bind_one(&mut self) -> bool {
        let waiting: Vec<usize> =
            (0..HOSTS).filter(|host| !self.hosts[*host].waiting.is_empty()).collect();
        if waiting.is_empty() {
            return false;
        }
        let host = self.rng.pick(&waiting);
        let id = self.hosts[host].waiting.pop().expect("it has one");
        // Somebody else who knows the id, or one that does not exist.
        let (by, id) = match self.rng.below(12) {
            0 => (self.rng.below(HOSTS), id),
            1 => (host, self.rng.next() as u32),
            _ => (host, id),
        };
        self.bind_data_connection(by, id);
        true
    }

    fn with_tcp_allocation(&self, hosts: &[usize]) -> Vec<usize> {
        let is_tcp = |host: &&usize| {
            let five_tuple = self.hosts[**host].identity.five_tuple;
            self.model.alive(self.now, &five_tuple).is_some_and(|a| a.transport == wire::TCP)
        };
        hosts.iter().filter(is_tcp).copied().collect()
    }

    /// Allocate with an empty MOBILITY-TICKET.
    pub fn allocate_mobile(&mut self, host: usize, allocate: &Allocate) {
        let byte = |kind, value: u8| Attribute::Raw(kind, vec![value, 0, 0, 0]);
        let family = |family| if family == Family::V4 { 1 } else { 2 };
        let mut list = vec![byte(wire::TRANSPORT, allocate.requested_transport)];
        let lifetime = allocate.lifetime.map(|l| (l.as_secs() as u32).to_be_bytes().to_vec());
        list.extend(lifetime.map(|value| Attribute::Raw(wire::LIFETIME, value)));
        list.extend(allocate.family.map(|f| byte(wire::FAMILY, family(f))));
        list.extend(allocate.additional_family.map(|f| byte(wire::ADDITIONAL, family(f))));
        let even = allocate.even_port.map(|reserve| vec![if reserve { 0x80 } else { 0 }]);
        list.extend(even.map(|value| Attribute::Raw(wire::EVEN_PORT, value)));
        let token = allocate.reservation_token.map(|token| token.to_vec());
        list.extend(token.map(|value| Attribute::Raw(wire::TOKEN, value)));
        list.extend(
            allocate.dont_fragment.then(|| Attribute::Raw(wire::DONT_FRAGMENT, Vec::new())),
        );
        list.push(Attribute::Raw(wire::TICKET, Vec::new()));
        self.hosts[host].client.request_raw(self.now, wire::ALLOCATE, list);
    }

    /// The client goes elsewhere and shows the ticket it has got last, or not.
    fn roam_with_ticket(&mut self, host: usize) {
        let Some(ticket) = self.hosts[host].tickets.last().cloned() else { return };
        self.roam(host);
        let lifetime = self.rng.pick(&[None, None, Some(0u32), Some(1200)]);
        let mut attributes = vec![Attribute::Raw(wire::TICKET, ticket)];
        attributes
            .extend(lifetime.map(|l| Attribute::Raw(wire::LIFETIME, l.to_be_bytes().to_vec())));
        self.hosts[host].client.request_raw(self.now, wire::REFRESH, attributes);
        self.pump(host);
    }

    /// Any ticket of anybody, from where the client is.
    fn show_any_ticket(&mut self, host: usize) {
        let of = if self.rng.permille(700) { host } else { self.rng.below(HOSTS) };
        if self.hosts[of].tickets.is_empty() {
            return;
        }
        let ticket = self.rng.pick(&self.hosts[of].tickets);
        trace!(self, "host {host} shows a ticket of host {of}");
        let attributes = vec![Attribute::Raw(wire::TICKET, ticket)];
        self.hosts[host].client.request_raw(self.now, wire::REFRESH, attributes);
        self.pump(host);
    }

    /// ChannelData as a client sends it that has just moved and knows its channels.
    fn raw_channel_data(&mut self, host: usize) {
        let five_tuple = self.hosts[host].identity.five_tuple;
        let Some(allocation) = self.model.at(&five_tuple) else { return };
        let channels: Vec<u16> = allocation.channels.keys().copied().collect();
        let number = if channels.is_empty() { 0x4000 } else { self.rng.pick(&channels) };
        let data = self.payload();
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(&data);
        if five_tuple.transport.is_stream() {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        trace!(self, "host {host}: {} bytes on channel {number:#x}", data.len());
        self.send_up(host, bytes);
    }
}
