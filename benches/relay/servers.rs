//! The servers under test, each with one worker on one core.

use std::env;
use std::error::Error;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;

use crate::Outcome;
use crate::certificate::{Certificate, KeyType};
use crate::clients::{Clients, Transport};
use crate::control::{Allocation, Control, PASSWORD, REALM, USER};
use crate::fleet::Fleet;
use crate::generator::partner;
use crate::packet::By;
use crate::spawn::{Process, spawn_forwarder};

/// First port that servers relay from; their listeners stay below.
const RELAY_PORTS: u16 = 49152;
/// The arguments with which this program is a server itself.
pub(crate) const FORWARD: &str = "forward";
pub(crate) const FORWARD_TRAINS: &str = "forward-trains";
pub(crate) const WEBRTC_RS: &str = "webrtc-rs";

/// A server that can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Kind {
    /// Debian's coturn.
    Coturn,
    /// The `sturn` of this build.
    Sturn,
    /// The socket work of a relay without TURN.
    Forwarder,
    /// The same with trains of datagrams taken and sent whole.
    ForwarderGso,
    /// A server around the `turn` crate of webrtc-rs.
    WebrtcRs,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Coturn => "coturn",
            Self::Sturn => "sturn",
            Self::Forwarder => "forwarder",
            Self::ForwarderGso => "forwarder-gso",
            Self::WebrtcRs => "webrtc-rs",
        })
    }
}

/// A server that relays for every flow.
pub(crate) struct Server {
    kind: Kind,
    pub(crate) process: Process,
    pub(crate) address: SocketAddrV4,
    /// The relayed transport address of each flow.
    pub(crate) relayed: Vec<SocketAddrV4>,
}

/// How a server is to be reached.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    pub(crate) transport: Transport,
    /// The key of its certificate, which only TLS needs.
    pub(crate) key_type: KeyType,
}

/// What allocations are opened for.
#[derive(Clone, Copy)]
pub(crate) struct Flows {
    pub(crate) count: usize,
    pub(crate) by: By,
    /// The peer of each is the next one or the one before, instead of one's own.
    pub(crate) across: bool,
}

impl Flows {
    /// No allocations.
    pub(crate) const NONE: Self = Self { count: 0, by: By::Channel, across: false };
}

impl Server {
    /// Starts a server and opens `flows` on it.
    pub(crate) fn start(
        kind: Kind,
        front: Front,
        flows: Flows,
        clients: &Clients,
        peers: &Fleet,
    ) -> Outcome<Self> {
        let command = match kind {
            Kind::Coturn => coturn,
            Kind::Sturn => sturn,
            Kind::WebrtcRs => webrtc_rs,
            Kind::Forwarder => return Self::forwarder(kind, FORWARD, flows, clients, peers),
            Kind::ForwarderGso => {
                return Self::forwarder(kind, FORWARD_TRAINS, flows, clients, peers);
            }
        };
        let address = free_address()?;
        let scratch = Scratch::create()?;
        let mut process = Process::start(command(address, front, &scratch)?, &kind.to_string())?;
        let mut control = Control::new(address, clients);
        process.until("answer a Binding request", |_| {
            control.answers(Duration::from_millis(100)).then_some(())
        })?;
        let mut this = Self { kind, process, address, relayed: Vec::new() };
        this.open(flows, clients, peers)?;
        Ok(this)
    }

    /// Opens `flows`, the first ones of this server.
    pub(crate) fn open(&mut self, flows: Flows, clients: &Clients, peers: &Fleet) -> Outcome<()> {
        let mut control = Control::new(self.address, clients);
        let Self { kind, process, .. } = self;
        let mut explain = |flow: usize, error: Box<dyn Error>| {
            process.explain(&format!("{kind}, allocation {flow}: {error}"))
        };
        let allocations: Vec<Allocation> = (0..flows.count)
            .map(|flow| control.allocate(flow).map_err(|error| explain(flow, error)))
            .collect::<Outcome<_>>()?;
        for (flow, allocation) in allocations.iter().enumerate() {
            let peer = if flows.across {
                allocations[partner(flow)].relayed
            } else {
                Fleet::peer_address(flow, peers.port())
            };
            let opened = control.open(flow, allocation, flows.by, peer);
            opened.map_err(|error| explain(flow, error))?;
        }
        self.relayed = allocations.iter().map(|allocation| allocation.relayed).collect();
        Ok(())
    }

    fn forwarder(
        kind: Kind,
        mode: &str,
        flows: Flows,
        clients: &Clients,
        peers: &Fleet,
    ) -> Outcome<Self> {
        let Clients::Datagrams(clients) = clients else {
            return Err("the forwarder has no streams".into());
        };
        let mut command = Command::new(env::current_exe()?);
        command.arg(mode);
        let started = spawn_forwarder(command, flows.count, clients.port(), peers.port())?;
        Ok(Self {
            kind,
            process: started.process,
            address: started.listener,
            relayed: started.relayed,
        })
    }
}

/// What a server calls itself, for the report.
pub(crate) fn version(kind: Kind) -> Outcome<String> {
    let (program, argument) = match kind {
        Kind::Coturn => ("turnserver", "--version"),
        Kind::Sturn => (STURN, "--version"),
        Kind::Forwarder | Kind::ForwarderGso => return Ok(format!("{kind} of this build")),
        Kind::WebrtcRs => return Ok("webrtc-rs (crate turn 0.17)".to_owned()),
    };
    let output = Command::new(program).arg(argument).output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(if kind == Kind::Coturn { format!("coturn {text} (Debian)") } else { text })
}

const STURN: &str = env!("CARGO_BIN_EXE_sturn");

/// coturn as a careful operator would run it for this load: one relay thread,
/// one transport, nothing else listening, no log of sessions.
fn coturn(address: SocketAddrV4, front: Front, scratch: &Scratch) -> Outcome<Command> {
    let mut command = Command::new("turnserver");
    command
        .args(["-n", "--lt-cred-mech", "--log-file=stdout", "--simple-log"])
        .args(["--no-cli", "--no-dtls", "--no-tcp-relay"])
        .args(["--relay-threads=1", "--allow-loopback-peers"])
        .arg(format!("--listening-ip={}", address.ip()))
        .arg(format!("--relay-ip={}", address.ip()))
        .arg(format!("--min-port={RELAY_PORTS}"))
        .arg(format!("--realm={REALM}"))
        .arg(format!("--user={USER}:{PASSWORD}"))
        .arg(format!("--userdb={}", scratch.0.join("turndb").display()))
        .arg(format!("--pidfile={}", scratch.0.join("pid").display()));
    match front.transport {
        Transport::Udp => {
            command.args(["--no-tls", "--no-tcp"]);
            command.arg(format!("--listening-port={}", address.port()));
        }
        Transport::Tcp => {
            command.args(["--no-tls", "--no-udp"]);
            command.arg(format!("--listening-port={}", address.port()));
        }
        Transport::Tls => {
            let certificate = Certificate::create(&scratch.0, front.key_type)?;
            command
                .args(["--no-tcp", "--no-udp"])
                .arg(format!("--tls-listening-port={}", address.port()))
                .arg(format!("--cert={}", certificate.chain.display()))
                .arg(format!("--pkey={}", certificate.key.display()));
        }
    }
    Ok(command)
}

fn sturn(address: SocketAddrV4, front: Front, scratch: &Scratch) -> Outcome<Command> {
    let file = scratch.0.join("sturn.toml");
    let on = |transport| {
        if front.transport == transport { format!("\"{address}\"") } else { String::new() }
    };
    let certificates = match front.transport {
        Transport::Udp | Transport::Tcp => String::new(),
        Transport::Tls => {
            let Certificate { chain, key } = Certificate::create(&scratch.0, front.key_type)?;
            format!("{{ chain = {chain:?}, key = {key:?} }}")
        }
    };
    let config = format!(
        r#"[listen]
udp = [{udp}]
tcp = [{tcp}]
tls = [{tls}]
[relay]
addresses = ["{ip}"]
ports = "{RELAY_PORTS}-65535"
[auth]
realm = "{REALM}"
users = [{{ name = "{USER}", password = "{PASSWORD}" }}]
[peers]
allow = ["127.0.0.0/8"]
[limits]
answers-per-prefix = 0
[tls]
certificates = [{certificates}]
dtls = false
[workers]
count = 1
"#,
        ip = address.ip(),
        udp = on(Transport::Udp),
        tcp = on(Transport::Tcp),
        tls = on(Transport::Tls),
    );
    fs::write(&file, config)?;
    let mut command = Command::new(STURN);
    command.arg("serve").arg("--config").arg(file);
    Ok(command)
}

fn webrtc_rs(address: SocketAddrV4, _: Front, _: &Scratch) -> Outcome<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(WEBRTC_RS).arg(address.to_string());
    Ok(command)
}

/// A port below the relay's range that is free over UDP and TCP.
fn free_address() -> Outcome<SocketAddrV4> {
    for _ in 0..100 {
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = datagrams.local_addr()?.port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        if port < RELAY_PORTS && TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port below the relay's range".into())
}

/// A directory for a server's files, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> Outcome<Self> {
        let path = env::temp_dir().join(format!("sturn-bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind it would only take space in a directory meant for that.
        let _ = fs::remove_dir_all(&self.0);
    }
}
