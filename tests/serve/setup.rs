//! Servers on addresses of their own, so that tests run side by side, and peers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use sturn::client::Allocated;

use crate::support::certificate::Certificate;
use crate::support::driver::Driver;
use crate::support::process::Process;
use crate::support::server::Sturn;

/// How long anything may take before the test has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// How the line begins that says what a server has done.
pub(crate) const TOTALS: &str = "stopped packets_to_peers";

/// How often a condition is looked at that nothing announces.
const POLL: Duration = Duration::from_millis(10);

/// Relay ports of one server on each of its relay addresses.
const BLOCK: u16 = 128;
/// Above the ports that the kernel gives to sockets without one.
const FIRST_BLOCK: u16 = 61_056;

/// A configuration, and the relay addresses and ports that nobody else uses.
pub(crate) struct Setup {
    sections: BTreeMap<String, BTreeMap<String, String>>,
    files: Vec<(String, String)>,
    lease: Lease,
}

/// A running server.
pub(crate) struct Server {
    sturn: Sturn,
    lease: Lease,
    serves_tls: bool,
}

impl Setup {
    /// UDP and TCP on loopback in both families, relaying in both; the users alice
    /// (`wonderland`) and bob (`builder`); peers on loopback allowed; two workers.
    pub(crate) fn new() -> Self {
        let lease = Lease::take();
        let (first, last) = (lease.block, lease.block + (BLOCK - 1));
        let relay = format!("[\"{}\", \"::1\"]", lease.v4);
        Self { sections: BTreeMap::new(), files: Vec::new(), lease }
            .set("listen.udp", r#"["127.0.0.1:@port@", "[::1]:@port6@"]"#)
            .set("listen.tcp", r#"["127.0.0.1:@port@", "[::1]:@port6@"]"#)
            .set("relay.addresses", relay)
            .set("relay.ports", format!("\"{first}-{last}\""))
            .set("auth.realm", r#""example.org""#)
            .set(
                "auth.users",
                r#"[{ name = "alice", password = "wonderland" }, { name = "bob", password = "builder" }]"#,
            )
            .set("peers.allow", r#"["127.0.0.0/8", "::1"]"#)
            .set("workers.count", "2")
            // So few that no limit on descriptors is worth a warning.
            .set("limits.allocations", "1000")
            .set("limits.connections", "400")
    }

    /// Sets a key to a TOML value.
    pub(crate) fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        let (section, name) = key.split_once('.').unwrap();
        let section = self.sections.entry(section.to_owned()).or_default();
        section.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a key out.
    pub(crate) fn unset(mut self, key: &str) -> Self {
        let (section, name) = key.split_once('.').unwrap();
        self.sections.get_mut(section).unwrap().remove(name);
        self
    }

    /// The first `count` of the relay ports and no more.
    pub(crate) fn relay_ports(self, count: u16) -> Self {
        let first = self.lease.block;
        self.set("relay.ports", format!("\"{first}-{}\"", first + (count - 1)))
    }

    /// Only one relay address, known outside as `advertise`.
    pub(crate) fn advertise(self, advertise: &str) -> Self {
        let address = self.lease.v4;
        let value = format!("[{{ address = \"{address}\", advertise = \"{advertise}\" }}]");
        self.set("relay.addresses", value)
    }

    /// NAT discovery on 127.0.0.1 and the lease's address, ports @port@ and @alternate@.
    pub(crate) fn discovery(self) -> Self {
        let other = self.lease.v4;
        self.set("nat-discovery.addresses", format!("[\"127.0.0.1\", \"{other}\"]"))
            .set("nat-discovery.ports", "[@port@, @alternate@]")
    }

    /// TLS and DTLS on every port, and on @tls@ and @tls6@ alone, with the
    /// certificate of this test run, which clients trust.
    pub(crate) fn tls(self) -> Self {
        self.tls_with(&[Certificate::shared()])
    }

    /// The same with other certificates.
    pub(crate) fn tls_with(mut self, certificates: &[&Certificate]) -> Self {
        let mut entries = Vec::new();
        for (index, certificate) in certificates.iter().enumerate() {
            let (chain, key) = (format!("{index}.chain.pem"), format!("{index}.key.pem"));
            entries.push(format!("{{ chain = \"{chain}\", key = \"{key}\" }}"));
            self.files.push((chain, certificate.chain.clone()));
            self.files.push((key, certificate.key.clone()));
        }
        self.set("tls.certificates", format!("[{}]", entries.join(", ")))
            .set("listen.tls", r#"["127.0.0.1:@tls@", "[::1]:@tls6@"]"#)
    }

    /// The file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.sections {
            writeln!(text, "[{section}]").unwrap();
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        text
    }

    /// Starts a server, which is ready when this returns.
    #[track_caller]
    pub(crate) fn start(self) -> Server {
        let files: Vec<_> = self.files.iter().map(|(name, text)| (&**name, &**text)).collect();
        let sturn = Sturn::start_with(&self.text(), &files);
        Server { sturn, lease: self.lease, serves_tls: !files.is_empty() }
    }
}

impl Server {
    /// Where it listens for IPv4 clients, UDP and TCP.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.sturn.addr()
    }

    /// Where it listens for IPv6 clients, UDP and TCP.
    pub(crate) fn addr_v6(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::LOCALHOST.into(), self.sturn.addr_of("port6").port())
    }

    /// The port that `@name@` stands for.
    pub(crate) fn port_of(&self, name: &str) -> u16 {
        self.sturn.addr_of(name).port()
    }

    /// Alice over UDP.
    pub(crate) fn udp(&self) -> Driver {
        Driver::udp(self.addr(), "alice", "wonderland")
    }

    /// Alice over TCP.
    pub(crate) fn tcp(&self) -> Driver {
        Driver::tcp(self.addr(), "alice", "wonderland")
    }

    /// Where it listens for TLS and DTLS over IPv4 and nothing else.
    pub(crate) fn tls_addr(&self) -> SocketAddr {
        self.sturn.addr_of("tls")
    }

    /// The same over IPv6.
    pub(crate) fn tls_addr_v6(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::LOCALHOST.into(), self.port_of("tls6"))
    }

    /// Alice over TLS.
    pub(crate) fn tls(&self) -> Driver {
        Driver::tls(self.tls_addr(), "alice", "wonderland")
    }

    /// Alice over DTLS.
    pub(crate) fn dtls(&self) -> Driver {
        Driver::dtls(self.tls_addr(), "alice", "wonderland")
    }

    /// Alice over each transport that it serves, over each family; over TLS and
    /// DTLS on ports of their own and on those of TCP and UDP.
    pub(crate) fn every_way(&self) -> Vec<(&'static str, Driver)> {
        let (v4, v6) = (self.addr(), self.addr_v6());
        let alice =
            |how: fn(SocketAddr, &str, &str) -> Driver, server| how(server, "alice", "wonderland");
        let mut ways = vec![
            ("UDP over IPv4", alice(Driver::udp, v4)),
            ("TCP over IPv4", alice(Driver::tcp, v4)),
            ("UDP over IPv6", alice(Driver::udp, v6)),
            ("TCP over IPv6", alice(Driver::tcp, v6)),
        ];
        if self.serves_tls {
            ways.extend([
                ("TLS over IPv4 where TCP is", alice(Driver::tls, v4)),
                ("DTLS over IPv4 where UDP is", alice(Driver::dtls, v4)),
                ("TLS over IPv6", alice(Driver::tls, self.tls_addr_v6())),
                ("DTLS over IPv6", alice(Driver::dtls, self.tls_addr_v6())),
            ]);
        }
        ways
    }

    /// The address of its IPv4 relay sockets.
    pub(crate) fn relay_v4(&self) -> IpAddr {
        self.lease.v4.into()
    }

    /// A file beside its configuration.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.sturn.config_file().with_file_name(name)
    }

    /// Output, signals, exit.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.sturn.process()
    }

    /// Ends it and returns the line with the totals.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> String {
        self.process().signal("TERM");
        let status = self.process().wait(DEADLINE);
        assert_eq!(status.code(), Some(0));
        self.process().expect_line(TOTALS, DEADLINE)
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident_memory(&mut self) -> u64 {
        let file = format!("/proc/{}/status", self.process().id());
        let status = std::fs::read_to_string(file).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

/// The number behind `name=` in a log line, also within the list of drops.
#[track_caller]
pub(crate) fn number(line: &str, name: &str) -> u64 {
    let words = line.split([' ', ',']).map(|word| word.trim_start_matches("dropped="));
    let mut pairs = words.filter_map(|word| word.split_once('='));
    let found = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
    found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name}=N in {line:?}"))
}

/// The relayed transport address of an allocation with one.
#[track_caller]
pub(crate) fn relayed(allocated: &Allocated) -> SocketAddr {
    assert_eq!(allocated.relayed.len(), 1, "{allocated:?}");
    allocated.relayed[0]
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Says why a test cannot run here; where everything can be installed, it fails.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} cannot run in CI: {why}");
    // Past the test runner, which keeps what a test prints to itself.
    io::stderr().write_all(format!("SKIPPED: {test}: {why}\n").as_bytes()).unwrap();
}

/// A peer: a UDP socket on loopback.
pub(crate) struct Peer(UdpSocket);

impl Peer {
    pub(crate) fn v4() -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    pub(crate) fn v6() -> Self {
        Self::at(Ipv6Addr::LOCALHOST.into())
    }

    /// In the family of `address`.
    pub(crate) fn like(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::v4() } else { Self::v6() }
    }

    pub(crate) fn at(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.0
    }

    #[track_caller]
    pub(crate) fn send(&self, to: SocketAddr, data: &[u8]) {
        assert_eq!(self.0.send_to(data, to).unwrap(), data.len());
    }

    /// The next datagram and where it came from.
    #[track_caller]
    pub(crate) fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_536];
        let (length, from) = self.0.recv_from(&mut buffer).expect("a datagram within the deadline");
        buffer.truncate(length);
        (buffer, from)
    }

    /// Whether a datagram has come that nobody has received.
    pub(crate) fn has_received(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let received = self.0.peek_from(&mut [0]).is_ok();
        self.0.set_nonblocking(false).unwrap();
        received
    }
}

/// An IPv4 loopback address and a block of ports on `::1` that no other test has:
/// what is bound there keeps the others away.
struct Lease {
    v4: Ipv4Addr,
    block: u16,
    _v4: UdpSocket,
    _v6: TcpListener,
}

impl Lease {
    fn take() -> Self {
        let (v4, held_v4) = Self::take_v4();
        let (block, held_v6) = Self::take_block();
        Self { v4, block, _v4: held_v4, _v6: held_v6 }
    }

    fn take_v4() -> (Ipv4Addr, UdpSocket) {
        loop {
            let [a, b, c, ..] = random().to_be_bytes();
            let ip = Ipv4Addr::new(127, 64 | (a >> 2), b, c);
            // Below the blocks, so that the lease takes no relay port.
            if let Ok(socket) = UdpSocket::bind((ip, FIRST_BLOCK - 1)) {
                return (ip, socket);
            }
        }
    }

    fn take_block() -> (u16, TcpListener) {
        let deadline = Instant::now() + 6 * DEADLINE;
        loop {
            let blocks = u64::from((u16::MAX - FIRST_BLOCK) / BLOCK);
            let block = FIRST_BLOCK + BLOCK * (random() % blocks) as u16;
            // Relay sockets are UDP, so a TCP port is free to mark the block.
            if let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, block)) {
                return (block, listener);
            }
            assert!(Instant::now() < deadline, "no block of relay ports is free on ::1");
            std::thread::sleep(POLL);
        }
    }
}

/// A number that differs from process to process and from call to call.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
