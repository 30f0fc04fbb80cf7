//! The server under test as a real process on free ports.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::process::Process;

/// How long the server may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long one Binding request waits while the server starts.
const PROBE: Duration = Duration::from_millis(100);
/// Between choosing a free port and using it, another process may take it.
const PORT_ATTEMPTS: u32 = 3;

/// A running `sturn serve`, killed when dropped.
pub struct Sturn {
    process: Process,
    directory: Directory,
    ports: BTreeMap<String, u16>,
}

impl Sturn {
    /// Starts the server on a configuration in which every `@name@` is replaced by
    /// a port that is free for UDP and TCP on 127.0.0.1, the same one for the same
    /// name. `@port@` has to be there and to be a UDP listener on 127.0.0.1: the
    /// server is ready when it answers a Binding request there.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with files beside the configuration: their names and what is in them.
    #[track_caller]
    pub fn start_with(config: &str, files: &[(&str, &str)]) -> Self {
        for attempt in 1.. {
            let mut sturn = Self::spawn(config, files);
            match sturn.wait_until_ready() {
                Ok(()) => return sturn,
                Err(why) => {
                    let lines = sturn.process.last_lines();
                    let taken = lines.contains("another program has it");
                    assert!(
                        taken && attempt < PORT_ATTEMPTS,
                        "the server is not ready: {why}\nlast lines:\n{lines}"
                    );
                }
            }
        }
        unreachable!("the loop ends in a return or a panic")
    }

    /// Where clients reach it by UDP, and by TCP if `@port@` listens there too.
    pub fn addr(&self) -> SocketAddr {
        self.addr_of("port")
    }

    /// The address that `@name@` stands for.
    #[track_caller]
    pub fn addr_of(&self, name: &str) -> SocketAddr {
        let port = self.ports.get(name).unwrap_or_else(|| panic!("no @{name}@ in the config"));
        (Ipv4Addr::LOCALHOST, *port).into()
    }

    /// The configuration file, to change before a reload. It is removed with the
    /// server.
    pub fn config_file(&self) -> PathBuf {
        self.directory.config_file()
    }

    /// The process: output, signals, exit.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    #[track_caller]
    fn spawn(config: &str, files: &[(&str, &str)]) -> Self {
        let (config, ports) = fill_in_ports(config);
        assert!(ports.contains_key("port"), "the config has no @port@ to listen on");
        let directory = Directory::create();
        fs::write(directory.config_file(), config).unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let process = Process::spawn(
            Command::new(env!("CARGO_BIN_EXE_sturn"))
                .arg("serve")
                .arg("--config")
                .arg(directory.config_file())
                .current_dir(directory.path()),
        );
        Self { process, directory, ports }
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_DEADLINE;
        let mut driver = Driver::udp(self.addr(), "", "");
        loop {
            driver.client().binding(super::driver::now());
            if driver.expect_event(PROBE, |event| event.transaction().is_some()).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.exit_status() {
                return Err(format!("it has ended: {status}"));
            }
            if Instant::now() >= deadline {
                return Err(format!("no answer in {START_DEADLINE:?}"));
            }
        }
    }
}

/// Replaces each `@name@`.
fn fill_in_ports(config: &str) -> (String, BTreeMap<String, u16>) {
    let mut filled = String::with_capacity(config.len());
    let mut ports = BTreeMap::new();
    // Held until all are chosen, so that no two names get one port.
    let mut held = Vec::new();
    let mut rest = config;
    while let Some((before, after)) = rest.split_once('@') {
        filled.push_str(before);
        match after.split_once('@') {
            Some((name, tail)) if is_name(name) => {
                let port = *ports.entry(name.to_owned()).or_insert_with(|| {
                    let (port, sockets) = free_port();
                    held.push(sockets);
                    port
                });
                filled.push_str(&port.to_string());
                rest = tail;
            }
            _ => {
                filled.push('@');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    (filled, ports)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn free_port() -> (u16, (TcpListener, UdpSocket)) {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            return (port, (tcp, udp));
        }
    }
}

/// A directory of this test's own, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn create() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sturn-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn config_file(&self) -> PathBuf {
        self.0.join("sturn.toml")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
