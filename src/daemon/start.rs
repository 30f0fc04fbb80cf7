//! Opens every socket of every worker, then starts the workers: either all of it
//! works, or nothing has begun.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::sync::mpsc;

use super::addresses::Addresses;
use super::exit::Exit;
use super::{Failure, certificates, settings};
use crate::config::{self, Config};
use crate::io::{TcpListener, UdpOptions, UdpSocket, raise_descriptor_limit, tcp, udp};
use crate::net::HashSeed;
use crate::tls::Certificates;
use crate::turn::{Server, Settings, Shard};
use crate::worker::{
    DatagramListener, Mail, Mailbox, Parts, PortTable, Post, RelayConfig, StreamListener, Summary,
    Worker,
};

/// Connections that may wait to be accepted.
const BACKLOG: usize = 1024;

/// Receive and send buffer of a UDP listener, in bytes: all clients share it.
const LISTENER_BUFFER: usize = 4 << 20;

/// The workers at work.
pub(super) struct Running {
    posts: Vec<Post>,
    threads: Vec<thread::JoinHandle<()>>,
    ended: mpsc::UnboundedReceiver<io::Result<Summary>>,
    listeners: Listeners,
    certificates: Option<Arc<Certificates>>,
}

/// The sockets of one worker.
#[derive(Default)]
struct Sockets {
    udp: Vec<DatagramListener>,
    tcp: Vec<StreamListener>,
}

/// Where clients reach the server.
struct Listeners {
    udp: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    dtls: Vec<SocketAddr>,
}

impl Listeners {
    fn find(config: &Config) -> Result<Self, Failure> {
        let found = Self {
            udp: usable(&config.udp_listeners(), "udp", udp::is_port_taken)?,
            tcp: usable(&config.tcp_listeners(), "tcp", tcp::is_port_taken)?,
            tls: usable(&config.tls_listeners(), "tls", tcp::is_port_taken)?,
            dtls: usable(&config.dtls_listeners(), "dtls", udp::is_port_taken)?,
        };
        if [&found.udp, &found.tcp, &found.tls, &found.dtls].iter().all(|list| list.is_empty()) {
            let why = "nothing to listen on: listen.udp, listen.tcp and listen.tls are empty";
            return Err(Failure::new(Exit::Config, why));
        }
        Ok(found)
    }
}

/// Starts the server.
pub(super) fn start(config: &Config, addresses: &Addresses) -> Result<Running, Failure> {
    let descriptors = raise_descriptor_limit()?;
    check_relay_addresses(addresses)?;
    check_backends(config, addresses)?;
    let count = settings::worker_count(config);
    let certificates = certificates::load(config)?;
    let listeners = Listeners::find(config)?;
    let sockets = (0..count).map(|_| open(config, &listeners)).collect::<Result<Vec<_>, _>>()?;
    let seed = HashSeed::new(u64::from_ne_bytes(settings::random()?));
    let Affordable { connections, peer_connections } = Affordable::of(config, descriptors);
    let core = Arc::new(settings::core(config, addresses, peer_connections, count, seed)?);
    let passed = affordable_passed(config, descriptors);
    let shared = Shared { core, seed, certificates, connections, passed };
    let workers = assemble(config, addresses, &shared, sockets)?;
    let posts = workers.posts;
    let (sender, ended) = mpsc::unbounded_channel();
    let mut threads = Vec::new();
    for (index, worker) in workers.list.into_iter().enumerate() {
        let sender = sender.clone();
        let run = move || {
            // The receiver outlives the threads.
            let _ = sender.send(worker.run());
        };
        threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(run)?);
    }
    Ok(Running { posts, threads, ended, listeners, certificates: shared.certificates })
}

struct Assembled {
    list: Vec<Worker>,
    posts: Vec<Post>,
}

/// What all workers have in common.
struct Shared {
    core: Arc<Settings>,
    seed: HashSeed,
    certificates: Option<Arc<Certificates>>,
    connections: u32,
    /// Those of them that are passed to backends.
    passed: u32,
}

fn assemble(
    config: &Config,
    addresses: &Addresses,
    shared: &Shared,
    sockets: Vec<Sockets>,
) -> Result<Assembled, Failure> {
    let Shared { core, seed, certificates, connections, passed } = shared;
    let (seed, connections, passed) = (*seed, *connections, *passed);
    let backends = settings::backends(config);
    let cookie_secret = settings::random()?;
    let count = sockets.len();
    let locals = addresses.relay.iter().map(|a| a.local);
    let relay = RelayConfig {
        addresses: addresses.relay.clone(),
        ports: Arc::new(PortTable::new(locals, &core.relay.ports)),
        recv_buffer: settings::buffer(config.relay.socket_recv_buffer),
        send_buffer: settings::buffer(config.relay.socket_send_buffer),
        offload: config.udp.offload,
    };
    let boxes = (0..count).map(|_| Mailbox::new()).collect::<io::Result<Vec<_>>>()?;
    let (mailboxes, posts): (Vec<_>, Vec<_>) = boxes.into_iter().unzip();
    let mut list = Vec::new();
    for (index, (sockets, mailbox)) in sockets.into_iter().zip(mailboxes).enumerate() {
        let shard = Shard { index: index as u16, count: count as u16 };
        list.push(Worker::new(Parts {
            core: Server::new(core.clone(), shard, settings::random()?, seed, Instant::now()),
            index: shard.index,
            udp: sockets.udp,
            tcp: sockets.tcp,
            relay: relay.clone(),
            certificates: certificates.clone(),
            streams: settings::streams(config, connections, count as u32),
            dtls: settings::dtls(config, connections, count as u32, cookie_secret),
            backends: backends.clone(),
            passing: settings::passing(config, passed, count as u32),
            seed,
            mailbox,
            posts: posts.clone(),
        })?);
    }
    Ok(Assembled { list, posts })
}

/// Descriptors of a connection with a peer: its own, and those of two pipes. That of
/// the client's connection is counted there.
const OF_PEER_CONNECTION: u64 = 5;

/// How many connections there may be. They take descriptors, and so does each
/// allocation: strangers that connect, and users with many peers, must not leave none
/// for relay sockets. Each kind gets a quarter at most.
struct Affordable {
    connections: u32,
    peer_connections: u32,
}

impl Affordable {
    fn of(config: &Config, descriptors: u64) -> Self {
        let share = |each: u64| u32::try_from(descriptors / 4 / each).unwrap_or(u32::MAX);
        let (connections, peer_connections) = (share(1), share(OF_PEER_CONNECTION));
        let limits = &config.limits;
        let too_few_for_peers = config.relay.tcp && limits.all_peer_connections > peer_connections;
        if limits.connections > connections || too_few_for_peers {
            tracing::warn!(
                descriptors,
                connections,
                peer_connections,
                "fewer descriptors than limits.connections, limits.all-peer-connections and \
                 limits.allocations need: raise LimitNOFILE (ulimit -n)"
            );
        }
        Self {
            connections: limits.connections.min(connections),
            peer_connections: limits.all_peer_connections.min(peer_connections),
        }
    }
}

/// How many connections may be passed to backends at a time. Besides the client's each
/// takes the backend's and two pipes, which have two ends; in all as many as connections
/// may take.
fn affordable_passed(config: &Config, descriptors: u64) -> u32 {
    const EACH: u64 = 5;
    let wanted = config.limits.backend_connections;
    let share = u32::try_from(descriptors / 4 / EACH).unwrap_or(u32::MAX);
    if wanted > share && !config.backends.servers.is_empty() {
        tracing::warn!(
            descriptors,
            connections = share,
            "fewer descriptors than limits.backend-connections needs: raise LimitNOFILE (ulimit -n)"
        );
    }
    wanted.min(share)
}

/// The listen addresses that this machine has. A port that is taken is an error;
/// no IPv6 at all is not, for a listener on every address.
fn usable(
    addresses: &[SocketAddr],
    protocol: &str,
    is_taken: impl Fn(SocketAddr) -> io::Result<bool>,
) -> Result<Vec<SocketAddr>, Failure> {
    let mut usable = Vec::new();
    for &address in addresses {
        match is_taken(address) {
            Ok(false) => usable.push(address),
            Ok(true) => {
                return Err(cannot_listen(protocol, address, &io::ErrorKind::AddrInUse.into()));
            }
            Err(error)
                if address.is_ipv6() && address.ip().is_unspecified() && has_no_ipv6(&error) =>
            {
                tracing::warn!(%address, protocol, "this machine has no IPv6: not listening there");
            }
            Err(error) => return Err(cannot_listen(protocol, address, &error)),
        }
    }
    Ok(usable)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Opens the sockets of a worker. With certificates every port takes TLS or DTLS
/// too; those of `listen.tls` take nothing else.
fn open(config: &Config, listeners: &Listeners) -> Result<Sockets, Failure> {
    let mut sockets = Sockets::default();
    let tls = config.serves_tls();
    let dtls = tls && config.tls.dtls;
    for (list, plain, name) in [(&listeners.udp, true, "udp"), (&listeners.dtls, false, "dtls")] {
        for &address in list {
            let socket = UdpSocket::bind(address, &udp_options(address, config.udp.offload));
            let socket = socket.map_err(|error| cannot_listen(name, address, &error))?;
            sockets.udp.push(DatagramListener { socket, plain, dtls });
        }
    }
    for (list, plain, name) in [(&listeners.tcp, true, "tcp"), (&listeners.tls, false, "tls")] {
        for &address in list {
            let socket = TcpListener::bind(address, true, BACKLOG);
            let socket = socket.map_err(|error| cannot_listen(name, address, &error))?;
            sockets.tcp.push(StreamListener { socket, plain, tls });
        }
    }
    Ok(sockets)
}

fn udp_options(address: SocketAddr, offload: bool) -> UdpOptions {
    UdpOptions {
        reuse_port: true,
        recv_buffer: Some(LISTENER_BUFFER),
        send_buffer: Some(LISTENER_BUFFER),
        packet_info: address.ip().is_unspecified(),
        recv_tos: true,
        offload,
        ..UdpOptions::default()
    }
}

fn cannot_listen(protocol: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let (exit, why) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            Exit::Unavailable,
            format!("another program has it (ss -lpn sport = :{} tells which)", address.port()),
        ),
        io::ErrorKind::AddrNotAvailable => {
            (Exit::Config, "this machine does not have that address".to_owned())
        }
        io::ErrorKind::PermissionDenied => (
            Exit::NoPermission,
            "not permitted: a port below 1024 needs CAP_NET_BIND_SERVICE".to_owned(),
        ),
        _ => (Exit::OsError, error.to_string()),
    };
    Failure::new(exit, format!("cannot listen on {protocol} {address}: {why}"))
}

/// Tells at start, not at the first call, that a relay address is not ours.
fn check_relay_addresses(addresses: &Addresses) -> Result<(), Failure> {
    for relay in &addresses.relay {
        let address = SocketAddr::new(relay.local, 0);
        if let Err(error) = UdpSocket::bind(address, &UdpOptions::default()) {
            let why = match error.kind() {
                io::ErrorKind::AddrNotAvailable => {
                    "this machine does not have that address (behind 1:1 NAT: \
                     { address = \"LOCAL-IP\", advertise = \"PUBLIC-IP\" })"
                        .to_owned()
                }
                _ => error.to_string(),
            };
            let why = format!("cannot relay on {}: relay.addresses: {why}", relay.local);
            return Err(Failure::new(Exit::Config, why));
        }
    }
    Ok(())
}

/// A backend that is this server would get its own connections for ever.
fn check_backends(config: &Config, addresses: &Addresses) -> Result<(), Failure> {
    let is_own = |ip: IpAddr| {
        let relays = addresses.relay.iter().flat_map(|relay| [relay.local, relay.advertised]);
        ip.is_loopback() || addresses.own.contains(&ip) || relays.into_iter().any(|own| own == ip)
    };
    for config::Backend { address, .. } in &config.backends.servers {
        if config.listens_at(*address, is_own) {
            let why = format!(
                "cannot pass to {address}: backends.servers: this server listens there itself"
            );
            return Err(Failure::new(Exit::Config, why));
        }
    }
    Ok(())
}

impl Running {
    pub(super) fn workers(&self) -> usize {
        self.posts.len()
    }

    /// The UDP addresses listened on.
    pub(super) fn udp(&self) -> &[SocketAddr] {
        &self.listeners.udp
    }

    /// The TCP addresses listened on.
    pub(super) fn tcp(&self) -> &[SocketAddr] {
        &self.listeners.tcp
    }

    /// The TCP addresses listened on for TLS alone.
    pub(super) fn tls(&self) -> &[SocketAddr] {
        &self.listeners.tls
    }

    /// The UDP addresses listened on for DTLS alone.
    pub(super) fn dtls(&self) -> &[SocketAddr] {
        &self.listeners.dtls
    }

    /// The certificates in use.
    pub(super) fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_deref()
    }

    /// Gives the workers other certificates; sessions keep those that they have.
    pub(super) async fn renew(&mut self, certificates: Arc<Certificates>) {
        for post in &self.posts {
            deliver(post, Mail::Certificates(certificates.clone())).await;
        }
        self.certificates = Some(certificates);
    }

    /// Returns when a worker has ended although nobody told it to, with the reason.
    pub(super) async fn worker_ended(&mut self) -> String {
        match self.ended.recv().await {
            Some(Err(error)) => format!("a worker has failed: {error}"),
            Some(Ok(_)) | None => "a worker has ended".to_owned(),
        }
    }

    /// Stops the workers and adds up what they did.
    pub(super) async fn stop(mut self) -> Result<Summary, String> {
        for post in &self.posts {
            deliver(post, Mail::Stop).await;
        }
        let mut total = Summary::default();
        for _ in 0..self.threads.len() {
            match self.ended.recv().await {
                Some(Ok(summary)) => total.add(&summary),
                Some(Err(error)) => return Err(format!("a worker has failed: {error}")),
                None => return Err("a worker has ended without a word".to_owned()),
            }
        }
        for thread in self.threads {
            thread.join().map_err(|_| "a worker has panicked".to_owned())?;
        }
        Ok(total)
    }
}

/// A full mailbox is emptied within a turn of the worker's loop.
async fn deliver(post: &Post, mut mail: Mail) {
    while let Err(back) = post.send(mail) {
        mail = back;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_both_kinds_leave_half_of_the_descriptors() {
        let mut config = Config::default();
        config.relay.tcp = true;
        let Affordable { connections, peer_connections } = Affordable::of(&config, 2000);
        assert_eq!((connections, peer_connections), (500, 100));
        assert!(u64::from(connections) + OF_PEER_CONNECTION * u64::from(peer_connections) <= 1000);
        let Affordable { connections, peer_connections } = Affordable::of(&config, u64::MAX);
        let wanted = &config.limits;
        assert_eq!(
            (connections, peer_connections),
            (wanted.connections, wanted.all_peer_connections)
        );
    }
}
