//! Gives the discovery its sockets and its clock.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::super::tell;
use super::Stopped;
use crate::config::format_duration;
use crate::nat::{Action, Discovery, Parity, Progress, Question, Report, SocketId};

/// The largest datagram.
const DATAGRAM: usize = 65_535;
/// Packets that wait to be looked at; what comes beyond waits in the system, or is
/// lost there.
const BACKLOG: usize = 256;
/// How often a port of the wanted parity is looked for.
const TRIES: usize = 64;

/// From where to send: one address of this host, and maybe an interface.
#[derive(Clone)]
pub(super) struct Binding {
    local: IpAddr,
    scope: u32,
    interface: Option<Vec<u8>>,
}

impl Binding {
    /// Asks the system which local address leads to the server, so that all sockets
    /// have that one, and "not translated" can be told from it.
    pub(super) async fn towards(
        server: SocketAddr,
        source: Option<IpAddr>,
        interface: Option<&str>,
    ) -> Result<Self, String> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let from = source.unwrap_or(any);
        if from.is_ipv4() != server.is_ipv4() {
            return Err(format!("--source {from} is of another address family than {server}"));
        }
        let interface = interface.map(|name| name.as_bytes().to_vec());
        // A link-local source is of the same link as the server.
        let start = Self { local: from, scope: scope(server), interface: None }.any_port();
        let socket =
            UdpSocket::bind(start).await.map_err(|e| format!("cannot bind {from}: {e}"))?;
        if let Some(name) = &interface {
            let shown = String::from_utf8_lossy(name);
            socket
                .bind_device(Some(name))
                .map_err(|e| format!("cannot use interface {shown}: {e}"))?;
        }
        socket.connect(server).await.map_err(|e| format!("no route to {server}: {e}"))?;
        let local = socket.local_addr().map_err(|e| format!("no local address: {e}"))?;
        Ok(Self { local: local.ip(), scope: scope(local), interface })
    }

    /// The address.
    pub(super) fn local(&self) -> IpAddr {
        self.local
    }

    fn any_port(&self) -> SocketAddr {
        let mut address = SocketAddr::new(self.local, 0);
        if let SocketAddr::V6(v6) = &mut address {
            v6.set_scope_id(self.scope);
        }
        address
    }

    pub(super) async fn udp(&self, parity: Option<Parity>) -> io::Result<UdpSocket> {
        // Those that do not fit are held, so that the system offers others.
        let mut others = Vec::new();
        loop {
            let socket = UdpSocket::bind(self.any_port()).await?;
            let port = socket.local_addr()?.port();
            if parity.is_none_or(|parity| parity.fits(port)) || others.len() == TRIES {
                if let Some(name) = &self.interface {
                    socket.bind_device(Some(name))?;
                }
                return Ok(socket);
            }
            others.push(socket);
        }
    }

    pub(super) async fn tcp(
        &self,
        to: SocketAddr,
        local: Option<SocketAddr>,
    ) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        if let Some(name) = &self.interface {
            socket.bind_device(Some(name))?;
        }
        socket.bind(local.unwrap_or_else(|| self.any_port()))?;
        socket.connect(to).await
    }
}

/// The link of a link-local address, 0 for any other.
fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    }
}

/// What the sockets' tasks say.
enum Event {
    Opened(SocketId, SocketAddr),
    Closed(SocketId, String),
    Received(SocketId, SocketAddr, Vec<u8>),
}

/// An open socket.
enum Socket {
    Udp { socket: Arc<UdpSocket>, reader: JoinHandle<()> },
    Tcp { bytes: mpsc::UnboundedSender<Vec<u8>>, task: JoinHandle<()> },
}

struct Driver {
    binding: Arc<Binding>,
    discovery: Discovery,
    sockets: HashMap<SocketId, Socket>,
    events: mpsc::Sender<Event>,
}

/// Runs a discovery to its end, or to the first Ctrl-C.
pub(super) async fn drive(
    question: Question,
    binding: Binding,
    mut interrupts: Signal,
) -> Result<Report, Stopped> {
    let (events, mut inbox) = mpsc::channel(BACKLOG);
    let mut driver = Driver {
        binding: Arc::new(binding),
        discovery: Discovery::new(Instant::now(), question),
        sockets: HashMap::new(),
        events,
    };
    loop {
        driver.act().await;
        if let Some(report) = driver.discovery.report() {
            return Ok(report.clone());
        }
        let due = driver.discovery.poll_timeout().unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            _ = interrupts.recv() => {
                driver.discovery.interrupt();
                tell("Interrupted; this is what is known.");
            }
            Some(event) = inbox.recv() => {
                driver.handle(event);
                driver.look_at_the_clock();
            }
            () = sleep_until(due.into()) => driver.discovery.handle_timeout(Instant::now()),
        }
    }
}

impl Driver {
    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Opened(socket, local) => self.discovery.handle_opened(now, socket, local),
            Event::Closed(socket, why) => self.discovery.handle_closed(now, socket, &why),
            Event::Received(socket, from, bytes) => {
                self.discovery.handle_receive(now, socket, from, &bytes);
            }
        }
    }

    /// A flood of packets must not hold up what is due.
    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if self.discovery.poll_timeout().is_some_and(|due| due <= now) {
            self.discovery.handle_timeout(now);
        }
    }

    async fn act(&mut self) {
        while let Some(action) = self.discovery.poll_action() {
            match action {
                Action::OpenUdp { socket, parity } => self.open_udp(socket, parity).await,
                Action::OpenTcp { socket, to, local } => self.open_tcp(socket, to, local),
                Action::Send { socket, to, bytes } => self.send(socket, to, bytes).await,
                Action::Close { socket } => self.close(socket),
                Action::Report(progress) => say(progress),
            }
        }
    }

    async fn open_udp(&mut self, id: SocketId, parity: Option<Parity>) {
        let opened = self.binding.udp(parity).await;
        let opened = opened.and_then(|socket| Ok((socket.local_addr()?, Arc::new(socket))));
        match opened {
            Ok((local, socket)) => {
                let reader = tokio::spawn(read_udp(id, Arc::clone(&socket), self.events.clone()));
                self.sockets.insert(id, Socket::Udp { socket, reader });
                self.discovery.handle_opened(Instant::now(), id, local);
            }
            Err(e) => self.discovery.handle_closed(Instant::now(), id, &e.to_string()),
        }
    }

    fn open_tcp(&mut self, id: SocketId, to: SocketAddr, local: Option<SocketAddr>) {
        let (bytes, outbox) = mpsc::unbounded_channel();
        let (binding, events) = (Arc::clone(&self.binding), self.events.clone());
        let task = tokio::spawn(async move {
            let connection = async {
                let stream = binding.tcp(to, local).await?;
                let _ = events.send(Event::Opened(id, stream.local_addr()?)).await;
                run_tcp(id, to, stream, outbox, &events).await
            };
            let why = match connection.await {
                Ok(()) => "the server closed the connection".to_owned(),
                Err(e) => e.to_string(),
            };
            // The driver may have ended already.
            let _ = events.send(Event::Closed(id, why)).await;
        });
        self.sockets.insert(id, Socket::Tcp { bytes, task });
    }

    async fn send(&mut self, id: SocketId, to: SocketAddr, bytes: Vec<u8>) {
        match self.sockets.get(&id) {
            Some(Socket::Udp { socket, .. }) => {
                if let Err(e) = socket.send_to(&bytes, to).await {
                    self.discovery.handle_send_error(id, to, &e.to_string());
                }
            }
            Some(Socket::Tcp { bytes: outbox, .. }) => {
                // A task that has ended has said so.
                let _ = outbox.send(bytes);
            }
            None => {}
        }
    }

    fn close(&mut self, id: SocketId) {
        match self.sockets.remove(&id) {
            Some(Socket::Udp { reader: task, .. } | Socket::Tcp { task, .. }) => task.abort(),
            None => {}
        }
    }
}

async fn read_udp(id: SocketId, socket: Arc<UdpSocket>, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An error is news about an earlier datagram; the socket goes on.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await
            && events.send(Event::Received(id, from, buffer[..length].to_vec())).await.is_err()
        {
            return;
        }
    }
}

async fn run_tcp(
    id: SocketId,
    to: SocketAddr,
    mut stream: TcpStream,
    mut outbox: mpsc::UnboundedReceiver<Vec<u8>>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            bytes = outbox.recv() => match bytes {
                Some(bytes) => stream.write_all(&bytes).await?,
                None => return Ok(()),
            },
            length = stream.read(&mut buffer) => match length? {
                0 => return Ok(()),
                length => {
                    let _ = events.send(Event::Received(id, to, buffer[..length].to_vec())).await;
                }
            },
        }
    }
}

fn say(progress: Progress) {
    tell(&match progress {
        Progress::MeasuringLifetime { longest } => format!(
            "Measuring how long an idle mapping lives, up to {}; Ctrl-C ends it.",
            format_duration(longest)
        ),
        Progress::MappingAlive { after } => format!("  {:>6}  alive", format_duration(after)),
        Progress::MappingGone { after } => format!("  {:>6}  gone", format_duration(after)),
    });
}
