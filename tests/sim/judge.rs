//! Every call into a core, and whether what came of it is right.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sturn::auth::StoredKeys;
use sturn::client::{Event as Told, Problem};
use sturn::net::PeerAddr;
use sturn::turn::{self, EndReason, Forward, Input, Output, Ticket, Traffic, Verdict};

use crate::kernel::Socket;
use crate::model::{self, Delivery, Forecast, Target, Via};
use crate::wire::{self, Class, Stun};
use crate::world::{Event, World, shard_of, trace};

/// The wheel's resolution: what is due is done by then.
const TICK: Duration = Duration::from_millis(250);

/// How long messages between shards may take to move an allocation.
const ARRIVAL: Duration = Duration::from_secs(30);

/// A request that the core has not answered yet.
#[derive(Clone, Debug)]
pub struct Question {
    pub request: Stun,
    pub host: usize,
    /// It cannot be granted: it was altered on its way.
    pub altered: bool,
    /// What it may be answered with, once its user was looked up.
    pub forecast: Option<Forecast>,
    /// How many answers may come: a repeated request can be queued again.
    pub times: u32,
}

/// Names a request: whose, its transaction id, and whether it was altered.
pub type Asker = (turn::Client, [u8; 12], bool);

type User = Option<(Arc<str>, StoredKeys)>;

impl World {
    /// A datagram or frame of a client reaches its shard.
    pub fn client_packet(&mut self, host: usize, from: turn::Client, bytes: &[u8], altered: bool) {
        trace!(self, "host {host} {}: {}", from.five_tuple, wire::describe(bytes));
        let shard = self.shard_of(from);
        let now = self.now;
        let message = Stun::parse(bytes);
        let liar = self.hosts[host].liar;
        let forecast = message
            .as_ref()
            .filter(|m| m.class == Class::Request && !altered && m.method != wire::BINDING)
            .map(|m| self.model.forecast(now, from, m, liar, false));
        let mut reply = [0; turn::MAX_REPLY];
        let (verdict, outputs) =
            self.call(shard, |server| server.on_client(now, from, bytes, &mut reply));
        self.note(verdict);
        let answer = match verdict {
            Verdict::Reply { len } => Stun::parse(&reply[..len]),
            _ => None,
        };
        self.follow_moves(
            shard,
            &outputs,
            message.as_ref().zip(answer.as_ref()).map(|(m, a)| (from, m, a)),
        );
        let delivery = self.outbound(shard, from, bytes, message.as_ref());
        self.check_traffic(shard);
        match verdict {
            Verdict::Forward(forward) => {
                let delivery = delivery.expect("only data is forwarded");
                if matches!(forward, Forward::ToClient { .. }) {
                    self.tally("data to another relay of the shard");
                }
                self.deliver(shard, bytes, forward, &delivery);
            }
            Verdict::Drop(reason) => {
                assert!(delivery.is_none_or(|d| d == Delivery::Nowhere), "dropped: {reason:?}");
                if let (Some(message), false) = (&message, altered) {
                    self.judge_drop(message, reason);
                }
            }
            Verdict::Reply { len } => {
                assert!(delivery.is_none(), "data is not answered");
                let request = message.as_ref();
                self.judge_reply(from, request, answer.as_ref(), altered, forecast.as_ref());
                self.send_down(from, reply[..len].to_vec());
            }
            Verdict::ReplyFrom { .. } => panic!("NAT behaviour discovery is off"),
            Verdict::HandOver { shard: to } => {
                assert!(outputs.is_empty(), "nothing was kept of it");
                self.hand_connection_over(from, to);
            }
            Verdict::Queued => {
                let request = message.clone().expect("only a request waits");
                self.queue(host, from, request, altered, forecast.as_ref());
            }
        }
        let cause = message.map(|m| (from, m.id, altered));
        self.perform_followed(shard, outputs, cause);
    }

    /// A datagram reaches a relay socket.
    pub fn peer_packet(&mut self, socket: Socket, from: SocketAddr, bytes: &[u8]) {
        trace!(self, "peer {from} sends {} bytes to {socket:?}", bytes.len());
        let (shard, relay) = socket;
        let now = self.now;
        let expected = self.model.inbound(now, shard, relay, from, bytes.len());
        let (verdict, outputs) =
            self.call(shard, |s| s.on_peer(now, relay, PeerAddr::new(from), bytes.len()));
        self.check_traffic(shard);
        self.note(verdict);
        match verdict {
            Verdict::Forward(forward) => self.deliver(shard, bytes, forward, &expected),
            Verdict::Drop(reason) => assert_eq!(expected, Delivery::Nowhere, "{reason:?}"),
            Verdict::Reply { .. }
            | Verdict::ReplyFrom { .. }
            | Verdict::Queued
            | Verdict::HandOver { .. } => panic!("peers are not answered"),
        }
        assert!(outputs.is_empty(), "the data path wants nothing else: {outputs:?}");
    }

    /// Anything else that a core is told.
    pub fn input(&mut self, shard: u16, input: Input) {
        let outputs = self.ask_core(shard, input);
        self.perform_all(shard, outputs, None);
    }

    /// What a core wants done when it is told something.
    pub fn ask_core(&mut self, shard: u16, input: Input) -> Vec<Output> {
        let now = self.now;
        self.call(shard, |server| server.handle_input(now, input)).1
    }

    /// The answer to a lookup: the request that waited for it is judged like one
    /// that has just come in.
    pub fn key_arrives(&mut self, shard: u16, ticket: Ticket, user: User) {
        let asker = self.lookups.get(&(shard, ticket)).copied();
        if let Some(key) = asker
            && let Some(question) = self.queued.get_mut(&key)
        {
            let liar = self.hosts[question.host].liar;
            let failed = user.is_none();
            let forecast = self.model.forecast(self.now, key.0, &question.request, liar, failed);
            question.forecast = Some(forecast);
        }
        let now = self.now;
        let input = Input::Key { ticket, user };
        let ((), outputs) = self.call(shard, |server| server.handle_input(now, input));
        self.perform_all(shard, outputs, asker);
        // Without an answer it goes on as an opening, judged when that ends.
        if let Some(key) = asker
            && let Some(question) = self.queued.get_mut(&key).filter(|q| q.times > 0)
        {
            question.forecast = None;
            if question.request.method == wire::ALLOCATE {
                self.model.openings.insert((key.0.five_tuple, key.1), now.mono);
            }
        }
    }

    /// An ICMP error comes back to a relay socket.
    pub fn icmp(&mut self, socket: Socket, peer: SocketAddr, icmp_type: u8, code: u8, info: u32) {
        let (shard, relay) = socket;
        let now = self.now;
        // Told to the client when it may hear from that peer at all; whether the
        // peer's port may be sent to does not matter.
        let before = self.model.traffic.clone();
        let reported = matches!((peer.is_ipv4(), icmp_type), (true, 3 | 11) | (false, 1..=3));
        let known = self.model.known_outside(peer);
        let expected = self.model.hears(now, shard, relay, known).filter(|_| reported);
        assert_eq!(before, self.model.traffic, "an ICMP error is no traffic");
        let peer = PeerAddr::new(peer);
        let input = Input::Icmp { relay, peer, icmp_type, code, info };
        let ((), outputs) = self.call(shard, |server| server.handle_input(now, input));
        match (expected, &outputs[..]) {
            (None, []) => {}
            (Some(client), [Output::Send { client: to, message }]) => {
                self.tally("ICMP error told");
                assert_eq!((client, Some(known)), (*to, wire::icmp_peer(message)));
            }
            (expected, outputs) => panic!("ICMP for {expected:?} came to {outputs:?}"),
        }
        for output in outputs {
            if let Output::Send { client, message } = output {
                self.send_down(client, message.into());
            }
        }
    }

    /// A shard's timers.
    pub fn wake(&mut self, shard: u16) {
        let now = self.now;
        let ((), outputs) = self.call(shard, |server| server.handle_timeout(now));
        self.perform_all(shard, outputs, None);
        let next = self.cores[usize::from(shard)].server.poll_timeout();
        assert!(next.is_none_or(|at| at > now.mono), "what is due has been done");
        let Some(past) = now.mono.checked_sub(TICK) else { return };
        for allocation in self.model.allocations.values_mut().filter(|a| a.shard == shard) {
            let five_tuple = allocation.client.five_tuple;
            assert!(allocation.is_alive(past), "{five_tuple} has outlived its lifetime");
            allocation.tidy(past);
        }
        self.model.assert_none_late(shard, past);
        // A request may have waited for its allocation to arrive before it began.
        let patience = self.setup.settings.lifetimes.pending + 5 * TICK + ARRIVAL;
        let shards = self.setup.shards;
        self.model.openings.retain(|(five_tuple, _), since| {
            shard_of(five_tuple, shards) != shard || now.mono < *since + patience
        });
    }

    /// Calls a core, and checks what is always true afterwards.
    fn call<T>(
        &mut self,
        shard: u16,
        call: impl FnOnce(&mut turn::Server) -> T,
    ) -> (T, Vec<Output>) {
        let server = &mut self.cores[usize::from(shard)].server;
        let result = call(server);
        server.check_invariants(self.now);
        let outputs: Vec<Output> = std::iter::from_fn(|| server.poll_output()).collect();
        for output in &outputs {
            self.digest(format!("{output:?}").as_bytes());
        }
        (result, outputs)
    }

    fn check_traffic(&self, shard: u16) {
        let counted = self.cores[usize::from(shard)].server.counters().traffic;
        let expected = self.model.traffic[usize::from(shard)];
        assert_eq!(counted, expected, "the traffic of shard {shard} is counted right");
    }

    pub fn perform_all(&mut self, shard: u16, outputs: Vec<Output>, cause: Option<Asker>) {
        self.check_traffic(shard);
        self.follow_moves(shard, &outputs, None);
        self.perform_followed(shard, outputs, cause);
    }

    fn perform_followed(&mut self, shard: u16, outputs: Vec<Output>, cause: Option<Asker>) {
        // Answers first: they say why an allocation has ended.
        let (answers, rest): (Vec<_>, Vec<_>) =
            outputs.into_iter().partition(|output| matches!(output, Output::Send { .. }));
        for output in answers.into_iter().chain(rest) {
            self.perform(shard, output, cause);
        }
        assert!(self.model.deleted.is_empty(), "what a client has deleted is gone at once");
        self.applied.clear();
    }

    fn note(&mut self, verdict: Verdict) {
        self.digest(format!("{verdict:?}").as_bytes());
    }

    /// FNV-1a.
    fn digest(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// Where a client's packet ought to go, when it is data.
    fn outbound(
        &mut self,
        shard: u16,
        from: turn::Client,
        bytes: &[u8],
        message: Option<&Stun>,
    ) -> Option<Delivery> {
        let (target, data) = match (wire::channel_data(bytes), message) {
            (Some((number, data)), _) => (Target::Channel(number), data),
            (None, Some(m)) if m.class == Class::Indication && m.method == wire::SEND => {
                let (Some(value), Some(data)) = (m.get(wire::PEER), m.get(wire::DATA)) else {
                    return Some(Delivery::Nowhere);
                };
                let peer = m.xor_address(value).filter(|_| !m.has_unknown_required());
                let Some(peer) = peer else { return Some(Delivery::Nowhere) };
                let peer = PeerAddr::new(peer).socket();
                (Target::Peer(peer, m.get(wire::DONT_FRAGMENT).is_some()), data)
            }
            _ => return None,
        };
        let kernel = &self.kernel;
        let neighbour = |local| kernel.datagram_socket_of(shard, local).map(|s| s.1);
        Some(self.model.outbound(self.now, from.five_tuple, target, data.len(), neighbour))
    }

    /// Data leaves the server: to whom it should, exactly as it came.
    fn deliver(&mut self, shard: u16, packet: &[u8], forward: Forward, expected: &Delivery) {
        match forward {
            Forward::ToPeer { relay, peer, data, dont_fragment, relays_only } => {
                let bytes = wire::payload(packet);
                assert_eq!(&packet[data.range()], bytes, "exactly the data is sent on");
                let peer = peer.socket();
                assert_eq!(relays_only, self.setup.is_relay(peer.ip()), "{peer}");
                assert_eq!(*expected, Delivery::ToPeer { relay, peer, dont_fragment });
                self.send_to_peer((shard, relay), peer, bytes.to_vec());
            }
            Forward::ToClient { link, client, server, header, data, padding } => {
                let Delivery::ToClient { client: owner, via } = *expected else {
                    panic!("data for {client}, but {expected:?}");
                };
                assert_eq!(
                    (link, client, server),
                    (owner.link, owner.five_tuple.client, owner.five_tuple.server)
                );
                let data = &packet[data.range()];
                let mut bytes = [header.as_slice(), data].concat();
                bytes.resize(bytes.len() + usize::from(padding), 0);
                assert_eq!(
                    model::received(&bytes),
                    Some((via, data.to_vec())),
                    "what the client sees"
                );
                self.tally(match via {
                    Via::Channel(_) => "data on a channel",
                    Via::Indication(_) => "data in an indication",
                });
                if owner.five_tuple.transport.is_stream() {
                    assert_eq!(bytes.len() % 4, 0, "padded in a stream");
                }
                let host = self.hosts.iter_mut().find(|h| h.identity == owner);
                if let Some(host) = host {
                    host.expected.insert((via, data.to_vec()));
                }
                self.send_down(owner, bytes);
            }
        }
    }

    fn send_to_peer(&mut self, socket: Socket, peer: SocketAddr, bytes: Vec<u8>) {
        let local = self.kernel.local_of(socket).expect("data leaves through an open socket");
        let delay = self.delay();
        if self.setup.is_relay(peer.ip()) {
            let nat = self.setup.advertised_of(local) != Some(local);
            self.tally(if nat { "data to the kernel behind NAT" } else { "data to the kernel" });
            assert_eq!(self.setup.local_of(peer).unwrap_or(peer), peer, "not out and back in");
            self.schedule(delay, Event::ToRelay { from: local, to: peer, bytes });
        } else {
            self.tally("data to a peer");
            assert!(!self.setup.is_denied(peer.ip()), "nothing goes to {peer}");
            let from = self.setup.advertised_of(local).expect("it is an address of this host");
            self.schedule(delay, Event::ToPeer { from, to: peer, bytes });
        }
    }

    /// An allocation has ended: for a reason that holds, with the right sums.
    pub fn judge_end(
        &mut self,
        five_tuple: sturn::net::FiveTuple,
        traffic: Traffic,
        reason: EndReason,
    ) {
        let gone = if reason == EndReason::Deleted {
            self.model.deleted.remove(&five_tuple)
        } else {
            self.model.allocations.remove(&five_tuple)
        };
        let gone = gone.unwrap_or_else(|| panic!("{five_tuple} had an allocation to end"));
        assert_eq!(traffic, gone.traffic, "the traffic of {five_tuple}");
        if reason == EndReason::Expired {
            assert!(!gone.is_alive(self.now.mono), "{five_tuple} has not expired");
        }
        assert_ne!(reason, EndReason::Stopped);
    }

    /// What a client reports: data and grants as they were made, no complaints.
    pub fn look_at_events(&mut self, host: usize) {
        while let Some(event) = self.hosts[host].client.poll_event() {
            trace!(self, "host {host} is told {event:?}");
            let at = &mut self.hosts[host];
            match event {
                Told::Data { peer, channel, ref data } => {
                    let via = channel.map_or(Via::Indication(peer), Via::Channel);
                    assert!(
                        at.expected.contains(&(via, data.clone())),
                        "data from {peer} for host {host}"
                    );
                }
                Told::Answered { method, ref attributes, .. } => {
                    let get = |kind| attributes.iter().find(|(k, _)| *k == kind).map(|(_, v)| v);
                    if let wire::ALLOCATE | wire::REFRESH = method {
                        at.tickets.extend(get(wire::TICKET).cloned());
                    }
                    let id = get(wire::CONNECTION_ID).filter(|_| method == wire::CONNECT);
                    at.waiting.extend(id.map(|id| connection_id(id)));
                    if let (wire::ALLOCATE, Some(token)) = (method, get(wire::TOKEN)) {
                        let token = token[..].try_into().expect("eight bytes");
                        at.last_token = Some(token);
                        self.fresh_token = Some((host, token));
                    }
                }
                Told::Indication { method: wire::CONNECTION_ATTEMPT, ref attributes } => {
                    let id = attributes.iter().find(|(kind, _)| *kind == wire::CONNECTION_ID);
                    at.waiting.push(connection_id(&id.expect("it names the connection").1));
                }
                Told::Allocated(ref allocated) => {
                    let mine = allocated.relayed.iter().all(|r| at.granted.contains(r));
                    assert!(mine, "granted to host {host}");
                    at.last_token = allocated.reservation_token.or(at.last_token);
                    self.fresh_token = allocated.reservation_token.map(|token| (host, token));
                }
                Told::Bound { reflexive, .. } => {
                    assert_eq!(reflexive, at.identity.five_tuple.client.socket());
                }
                // The client has forgotten an allocation that data still came for.
                Told::Invalid { why: Problem::UnboundChannel(_) } => {}
                // The answer to a copy that was altered on its way.
                Told::Invalid { why: Problem::IntegrityMissing { .. } } if self.setup.loss > 0 => {}
                Told::Invalid { ref why } => panic!("host {host} got something invalid: {why}"),
                Told::Unusable { ref why, .. } => panic!("host {host} cannot use an answer: {why}"),
                _ => {}
            }
            self.hosts[host].told.push(event);
        }
    }
}

fn connection_id(value: &[u8]) -> u32 {
    u32::from_be_bytes(value.try_into().expect("four bytes"))
}
