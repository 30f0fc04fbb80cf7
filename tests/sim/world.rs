//! The world of one run: shards, hosts, peers and what is on the way between
//! them, in virtual time.
//!
//! 1. `advance` moves time on from event to event;
//! 2. every call into a core goes through here and is judged (`judge`);
//! 3. what the core wants done is done, later, by `perform` and `happen`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sturn::auth::{StoredKeys, userhash};
use sturn::net::{FiveTuple, HashSeed, Now, Transport};
use sturn::turn::{
    self, ConnectionId, Event as Said, Input, Link, LookupName, Output, PortRequest, RelayId,
    Route, Server, Shard, ShardMessage, Ticket,
};

use crate::client::{Host, identity};
use crate::judge::{Asker, Question};
use crate::kernel::{Kernel, Socket};
use crate::model::Model;
use crate::peers::Peers;
use crate::rng::Rng;
use crate::setup::{REALM, START_UNIX, Setup, Worth};

thread_local! {
    /// The last actions of the run on this thread, when they are wanted.
    pub static TRACE: RefCell<Option<VecDeque<String>>> = const { RefCell::new(None) };
}

const TRACE_LENGTH: usize = 30;
pub const HOSTS: usize = 9;
/// Hosts behind those, whose connections are only for data from TCP relays.
pub const DATA_HOSTS: usize = 4;

/// Remembers an action for the report of a failed run.
macro_rules! trace {
    ($world:expr, $($what:tt)*) => {
        $crate::world::remember($world.since_start(), || format!($($what)*))
    };
}
pub(crate) use trace;

pub fn remember(at: Duration, what: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        let Some(trace) = trace else { return };
        if trace.len() == TRACE_LENGTH {
            trace.pop_front();
        }
        trace.push_back(format!("{:>12.3}s  {}", at.as_secs_f64(), what()));
    });
}

/// The kernel keeps a five-tuple on one shard.
pub fn shard_of(five_tuple: &FiveTuple, shards: u16) -> u16 {
    let text = five_tuple.client.to_string();
    text.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31) ^ u16::from(byte)) % shards
}

/// Something on its way.
pub enum Event {
    ToServer {
        host: usize,
        from: turn::Client,
        bytes: Vec<u8>,
        altered: bool,
    },
    Up {
        host: usize,
        link: Link,
    },
    ToHost {
        host: usize,
        to: turn::Client,
        bytes: Vec<u8>,
    },
    Down {
        host: usize,
        link: Link,
    },
    ToPeer {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    ToRelay {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Open {
        socket: Socket,
        request: PortRequest,
    },
    Key {
        shard: u16,
        ticket: Ticket,
        name: LookupName,
    },
    Mail {
        from: u16,
        to: u16,
        message: ShardMessage,
    },
    /// A connection that its client has left ends.
    Closed {
        client: turn::Client,
    },
    PeerAnswers {
        shard: u16,
        id: ConnectionId,
    },
    PeerAnswersLate {
        shard: u16,
        id: ConnectionId,
    },
}

pub struct Core {
    pub server: Server,
    /// When it asked to be woken, and when the shell gets round to it.
    wake: Option<(Instant, Instant)>,
}

pub struct World {
    pub rng: Rng,
    pub setup: Rc<Setup>,
    pub start: Instant,
    pub now: Now,
    pub cores: Vec<Core>,
    pub hosts: Vec<Host>,
    /// Hosts that are switched off neither send nor listen.
    pub asleep: bool,
    pub kernel: Kernel,
    pub peers: Peers,
    pub model: Model,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    pub connections: u64,
    pub payloads: u64,
    /// Requests that the core keeps.
    pub queued: HashMap<Asker, Question>,
    pub lookups: BTreeMap<(u16, Ticket), Asker>,
    pub routes: BTreeSet<String>,
    /// In thousandths.
    pub loss: u64,
    pub shell_failures: u64,
    /// Connections that were handed to another shard than the kernel's choice.
    homes: HashMap<FiveTuple, u16>,
    /// When the last message from one shard to another arrives: they keep their order.
    mail: BTreeMap<(u16, u16), Instant>,
    /// The answer to a Refresh that another shard has granted is passed on.
    pub relaying_answer: bool,
    /// Answers of this call that the model knows of already.
    pub applied: BTreeSet<[u8; 12]>,
    /// A reservation token that a host has just been given.
    pub fresh_token: Option<(usize, [u8; 8])>,
    /// Nothing takes long, so that nothing is given up.
    pub calm: bool,
    /// A digest of all that came out of the cores, to compare two runs.
    pub digest: u64,
    /// What has come about, to see that the runs go everywhere.
    pub tally: Tally,
}

/// How often each thing has happened.
pub type Tally = BTreeMap<String, u64>;

impl World {
    pub fn new(seed: u64, hash_seed: HashSeed) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Rc::new(Setup::new(&mut rng, hash_seed));
        let start = Instant::now();
        let now = Now { mono: start, unix: Duration::from_secs(START_UNIX) };
        let cores = (0..setup.shards)
            .map(|index| {
                let shard = Shard { index, count: setup.shards };
                let secret = rng.bytes::<32>();
                let server =
                    Server::new(setup.settings.clone(), shard, secret, setup.hash_seed, start);
                Core { server, wake: None }
            })
            .collect();
        let mut world = Self {
            rng,
            start,
            now,
            cores,
            hosts: Vec::new(),
            asleep: false,
            kernel: Kernel::default(),
            peers: Peers::default(),
            model: Model::new(setup.clone()),
            events: BTreeMap::new(),
            sequence: 0,
            connections: 0,
            payloads: 0,
            queued: HashMap::new(),
            lookups: BTreeMap::new(),
            routes: BTreeSet::new(),
            loss: setup.loss,
            shell_failures: setup.shell_failures,
            homes: HashMap::new(),
            mail: BTreeMap::new(),
            relaying_answer: false,
            applied: BTreeSet::new(),
            fresh_token: None,
            calm: false,
            digest: 0xcbf2_9ce4_8422_2325,
            tally: Tally::new(),
            setup,
        };
        for number in 0..HOSTS + DATA_HOSTS {
            let identity = world.fresh_identity(number);
            let credential =
                world.setup.credentials[number % world.setup.credentials.len()].clone();
            world.hosts.push(Host::new(&mut world.rng, credential, identity));
        }
        world
    }

    pub fn tally(&mut self, what: &str) {
        match self.tally.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.tally.insert(what.to_owned(), 1)),
        }
    }

    /// A host's next connection; its transport and family stay what they are.
    pub fn fresh_identity(&mut self, number: usize) -> turn::Client {
        self.connections += 1;
        let transports = match number {
            0..HOSTS => [Transport::Udp, Transport::Tcp, Transport::Dtls, Transport::Tls],
            _ => [Transport::Tcp, Transport::Tls, Transport::Tcp, Transport::Tls],
        };
        identity(number, self.connections, number % 3 == 2, transports[number % 4])
    }

    pub fn shard_of(&self, client: turn::Client) -> u16 {
        let home = self.homes.get(&client.five_tuple).copied();
        home.unwrap_or_else(|| shard_of(&client.five_tuple, self.setup.shards))
    }

    /// A connection goes to another shard, with every byte that was not used.
    pub fn hand_connection_over(&mut self, from: turn::Client, to: u16) {
        assert!(from.five_tuple.transport.is_stream(), "only connections change hands");
        assert!(to < self.setup.shards && to != self.shard_of(from), "to another shard");
        self.homes.insert(from.five_tuple, to);
        self.tally("connection handed over");
    }

    pub fn since_start(&self) -> Duration {
        self.now.mono - self.start
    }

    pub fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now.mono + delay, self.sequence), event);
    }

    pub fn delay(&mut self) -> Duration {
        let slow = if self.calm { 20 } else { 3000 };
        Duration::from_millis(self.rng.weighted(&[(70, 20), (25, 200), (5, slow)]))
            .mul_f64(self.rng.below(100) as f64 / 100.0)
    }

    /// Lets time pass, event by event.
    pub fn advance(&mut self, by: Duration) {
        let target = self.now.mono + by;
        while let Some(at) = self.next_instant().filter(|at| *at <= target) {
            self.set_time(at.max(self.now.mono));
            self.run_due();
        }
        self.set_time(target);
    }

    /// The machine was suspended: everything of that time is late.
    pub fn freeze(&mut self, by: Duration) {
        self.set_time(self.now.mono + by);
        self.run_due();
    }

    fn set_time(&mut self, to: Instant) {
        self.now = self.now.after(to - self.now.mono);
    }

    fn next_instant(&mut self) -> Option<Instant> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let hosts = self.hosts.iter().filter(|_| !self.asleep);
        let hosts = hosts.filter_map(|host| host.client.poll_timeout()).min();
        let cores = (0..self.cores.len()).filter_map(|shard| self.wake_of(shard)).min();
        [event, hosts, cores].into_iter().flatten().min()
    }

    /// When the shell will call `handle_timeout`: never early, now and then late.
    fn wake_of(&mut self, shard: usize) -> Option<Instant> {
        let core = &mut self.cores[shard];
        let asked = core.server.poll_timeout()?;
        if core.wake.is_none_or(|(known, _)| known != asked) {
            let late = if self.rng.permille(100) { self.rng.within(0..900) } else { 0 };
            core.wake = Some((asked, asked + Duration::from_millis(late)));
        }
        core.wake.map(|(_, at)| at)
    }

    fn run_due(&mut self) {
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.now.mono) {
            let event = entry.remove();
            self.happen(event);
        }
        for shard in 0..self.cores.len() {
            if self.wake_of(shard).is_some_and(|at| at <= self.now.mono) {
                self.wake(shard as u16);
            }
        }
        for host in 0..self.hosts.len() {
            let due = self.hosts[host].client.poll_timeout();
            if !self.asleep && due.is_some_and(|at| at <= self.now.mono) {
                self.hosts[host].client.handle_timeout(self.now);
                self.pump(host);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToServer { host, from, bytes, altered } => {
                self.client_packet(host, from, &bytes, altered);
            }
            Event::Up { host, link } => self.stream_up(host, link),
            Event::ToHost { host, to, bytes } => {
                if !self.asleep && self.hosts[host].identity == to {
                    self.hosts[host].client.handle_receive(self.now, &bytes);
                    self.pump(host);
                }
            }
            Event::Down { host, link } => self.stream_down(host, link),
            Event::ToPeer { from, to, bytes } => self.peer_receives(from, to, bytes),
            Event::ToRelay { from, to, bytes } => {
                self.relay_receives(from, to, bytes);
            }
            Event::Open { socket, request } => self.open(socket, request),
            Event::Key { shard, ticket, name } => self.answer_lookup(shard, ticket, &name),
            Event::Mail { from, to, message } => {
                trace!(self, "shard {from} to shard {to}: {message:?}");
                for (_, relay) in message.moved_relays() {
                    self.kernel.arrive((to, relay));
                }
                self.relaying_answer = matches!(message, ShardMessage::MoveAnswer { .. });
                self.input(to, Input::FromShard { shard: from, message });
                self.relaying_answer = false;
            }
            Event::Closed { client } => self.link_closed(client),
            Event::PeerAnswers { shard, id } => self.peer_answers(shard, id),
            Event::PeerAnswersLate { shard, id } => self.peer_answers_late(shard, id),
        }
    }

    fn open(&mut self, socket: Socket, request: PortRequest) {
        let fail = self.rng.permille(self.shell_failures);
        let answer = self.kernel.open(&mut self.rng, &self.setup, socket, request, fail);
        trace!(self, "shard {} gets {answer:?}", socket.0);
        self.input(socket.0, answer);
    }

    fn answer_lookup(&mut self, shard: u16, ticket: Ticket, name: &LookupName) {
        let refuse = self.rng.permille(self.shell_failures);
        let known = self.setup.credentials.iter().find(|c| {
            c.worth == Worth::External
                && match name {
                    LookupName::Name(name) => **name == *c.name,
                    LookupName::Hash(hash) => *hash == userhash(&c.name, REALM),
                }
        });
        let user = known.filter(|_| !refuse).map(|c| {
            (c.name.as_str().into(), StoredKeys::from_password(&c.name, REALM, &c.password))
        });
        trace!(self, "shard {shard} learns that {name:?} is {}", user.is_some());
        self.key_arrives(shard, ticket, user);
    }

    /// Does what a core asks for.
    pub fn perform(&mut self, shard: u16, output: Output, cause: Option<Asker>) {
        match output {
            Output::Send { client, message } => {
                self.judge_send(shard, client, &message, cause);
                self.send_down(client, message.into());
            }
            Output::OpenRelay { relay, port, transport } => {
                self.kernel.ask((shard, relay), transport);
                let delay = if self.rng.permille(self.shell_failures / 4) {
                    Duration::from_secs(8)
                } else {
                    self.delay()
                };
                self.schedule(delay, Event::Open { socket: (shard, relay), request: port });
            }
            Output::CloseRelay { relay } => self.kernel.close((shard, relay)),
            Output::ConnectPeer { relay, connection, peer, relays_only } => {
                assert_eq!(relays_only, self.setup.is_relay(peer.ip()), "{peer}");
                self.connect_peer(shard, relay, connection, peer, cause);
            }
            Output::CancelConnect { connection } => self.cancel_connect(shard, connection),
            Output::Splice { client, peer } => self.splice(shard, client, peer),
            Output::ClosePeer { link } => self.close_peer(link),
            Output::ReleasePort { reserved } => self.kernel.release(reserved),
            Output::LookupKey { ticket, name } => {
                // Whose request has waited for an allocation to arrive is not known here.
                assert!(cause.is_some() || self.may_arrive(), "only requests name users");
                self.lookups.extend(cause.map(|asker| ((shard, ticket), asker)));
                if !self.rng.permille(self.shell_failures / 4) {
                    let delay = self.delay();
                    self.schedule(delay, Event::Key { shard, ticket, name });
                }
            }
            Output::Route(route) => self.route(shard, route),
            Output::ToShard { shard: to, message } => {
                assert!(to != shard && to < self.setup.shards, "to another shard that exists");
                // Never lost, but now and then later than anybody waits for.
                let late = !self.calm && self.rng.permille(50);
                let delay = if late { Duration::from_secs(6) } else { self.delay() };
                let last = self.mail.get(&(shard, to)).copied().unwrap_or(self.now.mono);
                let at = last.max(self.now.mono + delay);
                self.mail.insert((shard, to), at);
                self.schedule(at - self.now.mono, Event::Mail { from: shard, to, message });
            }
            Output::Event(event) => self.hear(shard, event),
        }
    }

    fn route(&mut self, shard: u16, route: Route) {
        let name = |five_tuple, channel, relay: RelayId, peer| {
            format!("{shard} {five_tuple} {channel:x} {relay:?} {peer}")
        };
        match route {
            Route::Add { five_tuple, channel, relay, local, peer } => {
                let added = self.routes.insert(name(five_tuple, channel, relay, peer));
                assert!(added, "a route is added once");
                assert_eq!(self.kernel.local_of((shard, relay)), Some(local.socket()));
            }
            Route::Remove { five_tuple, channel, relay, peer } => {
                let removed = self.routes.remove(&name(five_tuple, channel, relay, peer));
                assert!(removed, "a route is removed once, after it was added");
            }
        }
    }

    fn hear(&mut self, shard: u16, event: Said) {
        match event {
            Said::AllocationEnded { five_tuple, traffic, reason, .. } => {
                trace!(self, "shard {shard} ends {five_tuple}: {reason}");
                self.tally(&format!("allocation {reason}"));
                self.judge_end(five_tuple, traffic, reason);
            }
            Said::PeerDenied { rule, .. } => assert!(!rule.is_empty(), "a refusal has a reason"),
            Said::PeerConnectionEnded { reason, .. } => {
                self.tally(&format!("peer connection {reason}"));
            }
            Said::AllocationCreated { .. }
            | Said::AllocationMoved { .. }
            | Said::PeerConnectionBound { .. }
            | Said::AuthenticationFailed { .. } => {}
        }
    }
}
