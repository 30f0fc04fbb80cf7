//! TLS and DTLS sessions on real sockets, with `openssl` as the client: the files
//! it makes are loaded, it verifies the certificate, and data goes both ways.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use sturn::net::Now;
use sturn::tls::{self, Certificates, KeyPair, Pem, State, dtls};
use tempfile::TempDir;

/// How long anything may take before the test has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// Between looks at the clock while nothing arrives.
const TICK: Duration = Duration::from_millis(100);

const KEYS: [&[&str]; 2] = [&["rsa:2048"], &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]];

#[test]
fn s_client_speaks_tls_1_2_and_1_3() {
    for key in KEYS {
        let files = Files::make(key);
        for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let (server, address) = serve_stream(files.load());
            let mut client = SClient::connect(&files, address, &[option]);
            client.expect(version);
            client.expect("ALPN protocol: stun.turn");
            client.converse();
            assert_eq!(server.join().unwrap(), "ping\n");
        }
    }
}

#[test]
fn s_client_speaks_dtls_1_2() {
    for key in KEYS {
        let files = Files::make(key);
        for options in [["-dtls1_2", "-mtu", "1200"], ["-dtls1_2", "-mtu", "512"]] {
            let (server, address) = serve_datagrams(files.load());
            let mut client = SClient::connect(&files, address, &options);
            client.expect("DTLSv1.2");
            client.expect("ALPN protocol: stun.turn");
            client.converse();
            assert_eq!(server.join().unwrap(), "ping\n");
        }
    }
}

#[test]
fn s_client_is_refused_what_is_not_safe() {
    let files = Files::make(KEYS[0]);
    for option in ["-tls1_1", "-tls1"] {
        let (server, address) = serve_stream(files.load());
        let options = [option, "-cipher", "ALL:@SECLEVEL=0"];
        let mut client = SClient::connect(&files, address, &options);
        client.expect("SSL alert number");
        assert_eq!(server.join().unwrap(), "no protocol version or algorithm in common");
    }
}

/// A certificate for `turn.example.org` and its key, as `openssl` makes them.
struct Files {
    directory: TempDir,
}

impl Files {
    fn make(key: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey"])
            .args(key)
            .args(["-subj", "/CN=turn.example.org"])
            .args(["-addext", "subjectAltName=DNS:turn.example.org"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { directory }
    }

    fn load(&self) -> Arc<Certificates> {
        let read = |name: &str| std::fs::read(self.directory.path().join(name)).unwrap();
        let (chain, key) = (read("cert.pem"), read("key.pem"));
        let pair = KeyPair {
            chain: Pem { name: "cert.pem", bytes: &chain },
            key: Pem { name: "key.pem", bytes: &key },
        };
        Arc::new(Certificates::load(now(), &[pair]).unwrap())
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// `openssl s_client`, killed when dropped.
struct SClient {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl SClient {
    fn connect(files: &Files, server: SocketAddr, options: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &server.to_string()])
            .args(["-CAfile", "cert.pem", "-verify_return_error"])
            .args(["-servername", "turn.example.org", "-verify_hostname", "turn.example.org"])
            .args(["-alpn", "h2,stun.turn"])
            .args(options)
            .current_dir(files.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with `text`, also among those before.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.seen.iter().any(|line| line.contains(text)) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(why) => {
                    let how = if why == RecvTimeoutError::Timeout { "in time" } else { "at all" };
                    panic!("no {text:?} {how}; its lines:\n{}", self.seen.join("\n"));
                }
            }
        }
    }

    /// A line each way; then the client closes.
    fn converse(&mut self) {
        self.expect("Verify return code: 0 (ok)");
        let mut input = self.child.stdin.take().unwrap();
        input.write_all(b"ping\n").unwrap();
        self.expect("pong");
        // The end of its input makes the client close the session.
        drop(input);
    }
}

impl Drop for SClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves one client: answers its first line, and returns it once the client has
/// closed; or the reason why there was none.
fn serve_stream(certificates: Arc<Certificates>) -> (JoinHandle<String>, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        match serve_session(&mut stream, certificates) {
            Ok(plain) => String::from_utf8(plain).unwrap(),
            Err(why) => why.to_string(),
        }
    };
    (thread::spawn(serve), address)
}

fn serve_session(
    stream: &mut TcpStream,
    certificates: Arc<Certificates>,
) -> Result<Vec<u8>, tls::Error> {
    let mut session = tls::Session::new(certificates);
    let (mut plain, mut bytes, mut answered) = (Vec::new(), [0; 4096], false);
    loop {
        let len = stream.read(&mut bytes).unwrap();
        assert!(len > 0, "the client hung up");
        let received = session.receive(&bytes[..len], &mut plain);
        let mut cipher = Vec::new();
        session.write(&mut cipher);
        if plain.ends_with(b"\n") && !answered {
            answered = true;
            let mut pieces = [b"po", &b"ng\n"[..]].map(IoSlice::new);
            session.send(&mut pieces, &mut cipher).unwrap();
        }
        stream.write_all(&cipher).unwrap();
        if received? == State::Closed {
            return Ok(plain);
        }
    }
}

/// The same for a client on UDP.
fn serve_datagrams(certificates: Arc<Certificates>) -> (JoinHandle<String>, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(TICK)).unwrap();
    let serve = move || {
        let mut session = wait_for_session(&socket, &certificates);
        let plain = serve_datagram_session(&socket, &mut session);
        String::from_utf8(plain).unwrap()
    };
    (thread::spawn(serve), address)
}

fn wait_for_session(socket: &UdpSocket, certificates: &Certificates) -> dtls::Session {
    let front = dtls::Front::new(b"secret");
    let server = socket.local_addr().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut answers = 0;
    let mut buffer = [0; 2048];
    loop {
        let (len, client) = receive(socket, &mut buffer, deadline);
        match front.receive(now(), client, server, &buffer[..len]) {
            dtls::Verdict::Answer(answer) => {
                answers += 1;
                socket.send_to(&answer, client).unwrap();
            }
            dtls::Verdict::Verified(hello) => {
                assert!(answers > 0);
                socket.connect(client).unwrap();
                let limits = dtls::Limits::default();
                let begun = dtls::Session::accept(certificates, limits, &hello, Instant::now());
                return begun.map_err(|(why, _)| why).unwrap();
            }
            dtls::Verdict::Drop(reason) => panic!("{reason:?}"),
        }
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8], deadline: Instant) -> (usize, SocketAddr) {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return received,
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "no datagram");
            }
            Err(why) => panic!("{why}"),
        }
    }
}

fn serve_datagram_session(socket: &UdpSocket, session: &mut dtls::Session) -> Vec<u8> {
    let deadline = Instant::now() + DEADLINE;
    let mut plain = Vec::new();
    let mut answered = false;
    let mut buffer = [0; tls::MAX_PLAINTEXT];
    loop {
        for datagram in session.datagrams() {
            socket.send(datagram).unwrap();
        }
        session.clear_datagrams();
        if session.state() == State::Closed {
            return plain;
        }
        assert!(Instant::now() < deadline, "the client does not close: {plain:?}");
        match socket.recv(&mut buffer) {
            Ok(len) => {
                let datagram = buffer[..len].to_vec();
                session.receive(Instant::now(), &datagram).unwrap();
                while let Some(len) = session.read(&mut buffer).unwrap() {
                    plain.extend_from_slice(&buffer[..len]);
                }
            }
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                session.handle_timeout(Instant::now()).unwrap();
            }
            Err(why) => panic!("{why}"),
        }
        if plain.ends_with(b"\n") && !answered {
            answered = true;
            session.send([b"po", &b"ng\n"[..]], &mut Vec::new()).unwrap();
        }
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Now { mono: Instant::now(), unix }
}
