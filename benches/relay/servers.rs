//! The servers under test, each with one worker on one core.

use std::env;
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
use crate::control::{Control, PASSWORD, REALM, USER};
use crate::fleet::Fleet;
use crate::spawn::{Process, spawn_forwarder};

/// First port that servers relay from; their listeners stay below.
const RELAY_PORTS: u16 = 49152;
/// The argument with which this program is a forwarder.
pub(crate) const FORWARD: &str = "forward";

/// A server that can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Kind {
    /// Debian's coturn.
    Coturn,
    /// The `sturn` of this build.
    Sturn,
    /// The socket work of a relay without TURN.
    Forwarder,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Coturn => "coturn",
            Self::Sturn => "sturn",
            Self::Forwarder => "forwarder",
        })
    }
}

/// A server that relays for every flow.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddrV4,
    pub(crate) relayed: Vec<SocketAddrV4>,
}

/// How a server is to be reached.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    pub(crate) transport: Transport,
    /// The key of its certificate, which only TLS needs.
    pub(crate) key_type: KeyType,
}

impl Server {
    /// Starts a server and opens `count` allocations on it.
    pub(crate) fn start(
        kind: Kind,
        front: Front,
        count: usize,
        clients: &Clients,
        peers: &Fleet,
    ) -> Outcome<Self> {
        match (kind, clients) {
            (Kind::Coturn, _) => Self::turn(kind, front, count, clients, peers, coturn),
            (Kind::Sturn, _) => Self::turn(kind, front, count, clients, peers, sturn),
            (Kind::Forwarder, Clients::Datagrams(clients)) => {
                let mut command = Command::new(env::current_exe()?);
                command.arg(FORWARD);
                let started = spawn_forwarder(command, count, clients.port(), peers.port())?;
                Ok(Self {
                    process: started.process,
                    address: started.listener,
                    relayed: started.relayed,
                })
            }
            (Kind::Forwarder, Clients::Streams(_)) => Err("the forwarder has no streams".into()),
        }
    }

    fn turn(
        kind: Kind,
        front: Front,
        count: usize,
        clients: &Clients,
        peers: &Fleet,
        command: fn(SocketAddrV4, Front, &Scratch) -> Outcome<Command>,
    ) -> Outcome<Self> {
        let address = free_address()?;
        let scratch = Scratch::create()?;
        let mut process = Process::start(command(address, front, &scratch)?, &kind.to_string())?;
        let mut control = Control::new(address, clients);
        process.until("answer a Binding request", |_| {
            control.answers(Duration::from_millis(100)).then_some(())
        })?;
        let relayed = (0..count)
            .map(|flow| {
                let peer = Fleet::peer_address(flow, peers.port());
                control.open(flow, peer).map_err(|error| {
                    process.explain(&format!("{kind}, allocation {flow}: {error}"))
                })
            })
            .collect::<Outcome<_>>()?;
        Ok(Self { process, address, relayed })
    }
}

/// What a server calls itself, for the report.
pub(crate) fn version(kind: Kind) -> Outcome<String> {
    let (program, argument) = match kind {
        Kind::Coturn => ("turnserver", "--version"),
        Kind::Sturn => (STURN, "--version"),
        Kind::Forwarder => return Ok("forwarder of this build".to_owned()),
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
