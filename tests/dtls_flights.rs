//! DTLS handshakes over a simulated path: our server's side against OpenSSL's
//! client, with loss, reordering, repetition and damage from a seed, in virtual
//! time. The clock that OpenSSL reads is this test's own.
//!
//! Each handshake has to come through, or to be over by its deadline; nothing is
//! kept for a client that has not returned a cookie; no datagram is longer than the
//! path takes, however long the certificate is. `DTLS_SEEDS` says how many runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, dead_code, reason = "what is shared with other tests")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "sim/rng.rs"]
mod rng;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::catch_unwind;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openssl::ssl::{ErrorCode, Ssl, SslContext, SslMethod, SslOptions, SslStream, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use sturn::net::Now;
use sturn::tls::dtls::starts_with_hello;
use sturn::tls::dtls::{Front, HELLO_VERIFY_REQUEST_LEN, Limits, Session, Verdict};
use sturn::tls::{Certificates, Error, KeyPair, MAX_PLAINTEXT, Pem, State};

use certificate::{Certificate, NAME};
use rng::Rng;

const SEEDS: u64 = 400;

/// How often the client looks at its timer.
const LOOK: Duration = Duration::from_millis(50);

/// How long clients try.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long after its last datagram the handshake of a client is given up, and
/// some more.
const END: Duration = Duration::from_secs(35);

/// By then a flight was sent four times.
const GIVE_UP: Duration = Duration::from_secs(15);

/// How many records each side may send until one gets through.
const TRIES: usize = 60;

const START_UNIX: u64 = 1_700_000_000;

thread_local! {
    /// Microseconds since the epoch on this thread, in runs of virtual time.
    static CLOCK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The clock that OpenSSL asks when it starts and looks at its timers: the dynamic
/// linker finds this one before the C library's.
///
/// # Safety
/// `time` is null or can be written to, as with the function that this stands for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(
    time: *mut libc::timeval,
    _zone: *mut libc::c_void,
) -> libc::c_int {
    let micros = CLOCK.get().unwrap_or_else(|| {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        unix.map_or(0, |unix| unix.as_micros() as u64)
    });
    let value = libc::timeval {
        tv_sec: (micros / 1_000_000) as libc::time_t,
        tv_usec: (micros % 1_000_000) as libc::suseconds_t,
    };
    if !time.is_null() {
        // SAFETY: the caller's pointer is to a timeval that it lets us write.
        unsafe { ptr::write(time, value) };
    }
    0
}

/// What the path does to datagrams, in thousandths, and what it takes.
#[derive(Clone, Copy, Debug)]
struct Path {
    loss: u64,
    repeated: u64,
    damaged: u64,
    /// The longest delay, in milliseconds.
    delay: u64,
    /// Longest datagram of the server and of the client.
    server_mtu: u16,
    client_mtu: u32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Data went both ways.
    Connected,
    /// One side gave up, and the other as well.
    Failed,
}

#[test]
fn handshakes_over_bad_paths_come_through_or_end() {
    let seeds = std::env::var("DTLS_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let certificates = Chains::make();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let outcomes: Vec<(u64, Path, Outcome)> = std::thread::scope(|scope| {
        let work = || {
            let mut outcomes = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return outcomes;
                }
                let run = catch_unwind(std::panic::AssertUnwindSafe(|| certificates.run(seed)));
                let (path, outcome) = run.unwrap_or_else(|_| panic!("seed {seed} failed"));
                outcomes.push((seed, path, outcome));
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    let mut sums = BTreeMap::<(u64, u64), [u64; 2]>::new();
    for (seed, path, outcome) in &outcomes {
        let class = sums.entry((path.loss, path.damaged)).or_default();
        class[usize::from(*outcome == Outcome::Failed)] += 1;
        let sure = path.loss == 0 && path.damaged == 0;
        assert!(!sure || *outcome == Outcome::Connected, "seed {seed}: {path:?}");
    }
    for ((loss, damaged), [connected, failed]) in &sums {
        println!("loss {loss} ‰, damage {damaged} ‰: {connected} connected, {failed} failed");
    }
    let whole = |(_, path, _): &&(u64, Path, Outcome)| path.damaged == 0;
    let all = outcomes.iter().filter(whole).count();
    let came = outcomes.iter().filter(whole).filter(|o| o.2 == Outcome::Connected).count();
    assert!(came * 100 >= all * 95, "{came} of {all} came through");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let certificates = Chains::make();
    let [first, second] = [(); 2].map(|()| certificates.run(5).1);
    assert_eq!(first, second);
}

#[test]
fn a_client_that_falls_silent_is_forgotten_by_the_deadline() {
    let certificates = Chains::make();
    for patience in 1..6 {
        let path = Path {
            loss: 0,
            repeated: 0,
            damaged: 0,
            delay: 20,
            server_mtu: 1200,
            client_mtu: 1200,
        };
        let mut run = Run::new(Rng::new(patience), path, &certificates.short);
        run.patience = patience as usize;
        run.pass(END);
        let begun = run.begun > 0;
        assert_eq!(begun, patience >= 2, "a session begins with the second hello");
        // Its last flight is one datagram: then the server's side is done.
        let state = run.session.as_ref().map(Session::state);
        let done = state.is_none_or(|state| state == State::Connected && patience >= 3);
        assert!(done, "{state:?} after {patience} datagrams");
        assert!(run.last_end.is_none_or(|at| at <= Limits::default().handshake + LOOK * 2));
    }
}

/// Certificates with and without room in one datagram.
struct Chains {
    short: Server,
    long: Server,
}

struct Server {
    certificates: Certificates,
    trusted: Vec<u8>,
}

impl Chains {
    fn make() -> Self {
        // Enough to take more than ten datagrams of the shortest path.
        let names: Vec<String> =
            (0..120).map(|n| format!("turn-{n}.a-rather-long-name.example.org")).collect();
        let names: Vec<&str> = [NAME].into_iter().chain(names.iter().map(|n| &**n)).collect();
        Self { short: Server::new(&[NAME]), long: Server::new(&names) }
    }

    /// One run, and what its path was like.
    fn run(&self, seed: u64) -> (Path, Outcome) {
        let mut rng = Rng::new(seed);
        let path = Path {
            loss: rng.pick(&[0, 50, 150, 300]),
            repeated: rng.pick(&[0, 100, 300]),
            damaged: rng.pick(&[0, 0, 0, 100]),
            delay: rng.pick(&[5, 50, 400]),
            server_mtu: rng.pick(&[256, 512, 1200]),
            client_mtu: rng.pick(&[512, 1200]),
        };
        let server = if rng.permille(500) { &self.long } else { &self.short };
        let forgets = rng.permille(100);
        let mut run = Run::new(rng, path, server);
        if forgets {
            run.pass(Duration::from_millis(300));
            run.begin_anew();
        }
        run.try_to_connect();
        if forgets && !run.is_connected() {
            // A late hello of the client's earlier life ends its session. With that
            // out of the way the next one has a clear path.
            run.begin_anew();
            run.try_to_connect();
        }
        (path, run.finish())
    }
}

impl Server {
    fn new(names: &[&str]) -> Self {
        let made = Certificate::new(names, |_| ());
        let pem = |bytes| Pem { name: "test", bytes };
        let pair = KeyPair { chain: pem(made.chain.as_bytes()), key: pem(made.key.as_bytes()) };
        let now = Now { mono: Instant::now(), unix: Duration::from_secs(START_UNIX) };
        Self { certificates: Certificates::load(now, &[pair]).unwrap(), trusted: made.der }
    }
}

/// One client, one server, and the path between them.
struct Run<'a> {
    rng: Rng,
    path: Path,
    start: Instant,
    elapsed: Duration,
    sequence: u64,
    under_way: BTreeMap<(Duration, u64), Arrival>,
    client: SslStream<Wire>,
    connected: bool,
    /// How many datagrams the client sends until it falls silent.
    patience: usize,
    server: &'a Server,
    front: Front,
    session: Option<Session>,
    begun: usize,
    /// How many cookies have arrived at the client.
    cookies: usize,
    /// When a session was given up last.
    last_end: Option<Duration>,
    /// Plaintext that arrived at each side.
    at_server: Vec<Vec<u8>>,
    at_client: Vec<Vec<u8>>,
}

enum Arrival {
    AtServer(Vec<u8>),
    AtClient(Vec<u8>),
}

impl<'a> Run<'a> {
    fn new(rng: Rng, path: Path, server: &'a Server) -> Self {
        let mut run = Self {
            rng,
            path,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            sequence: 0,
            under_way: BTreeMap::new(),
            client: client(server, path),
            connected: false,
            patience: usize::MAX,
            server,
            front: Front::new(b"secret"),
            session: None,
            begun: 0,
            cookies: 0,
            last_end: None,
            at_server: Vec::new(),
            at_client: Vec::new(),
        };
        run.set_time(Duration::ZERO);
        run
    }

    fn set_time(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
        let unix = Duration::from_secs(START_UNIX) + elapsed;
        CLOCK.set(Some(unix.as_micros() as u64));
    }

    fn now(&self) -> Now {
        let unix = Duration::from_secs(START_UNIX) + self.elapsed;
        Now { mono: self.start + self.elapsed, unix }
    }

    /// Lets time pass, or less when both sides are connected.
    fn pass(&mut self, by: Duration) {
        let end = self.elapsed + by;
        while self.elapsed < end && !self.is_connected() {
            self.look(end);
        }
    }

    /// The client has lost its memory.
    fn begin_anew(&mut self) {
        self.client = client(self.server, self.path);
        self.connected = false;
        self.patience = usize::MAX;
    }

    /// The client tries for a while; then it is silent for long enough.
    fn try_to_connect(&mut self) {
        self.pass(PATIENCE);
        if !self.is_connected() {
            self.patience = 0;
            self.pass(END);
        }
    }

    fn is_connected(&self) -> bool {
        self.connected && self.session.as_ref().is_some_and(|s| s.state() == State::Connected)
    }

    /// On to the next thing that happens.
    fn look(&mut self, end: Duration) {
        self.drive_client();
        let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
        let timer = self.session.as_ref().and_then(Session::poll_timeout);
        let timer = timer.map(|at| at.saturating_duration_since(self.start));
        let next = [arrival, timer].into_iter().flatten().min().unwrap_or(end);
        self.set_time(next.min(self.elapsed + LOOK).min(end).max(self.elapsed));
        while let Some(entry) =
            self.under_way.first_entry().filter(|entry| entry.key().0 <= self.elapsed)
        {
            match entry.remove() {
                Arrival::AtServer(datagram) => self.server_receives(&datagram),
                Arrival::AtClient(datagram) => self.client_receives(datagram),
            }
        }
        self.server_timer();
    }

    /// The client shakes hands, or looks for data.
    fn drive_client(&mut self) {
        if !self.connected {
            match self.client.do_handshake() {
                Ok(()) => self.connected = true,
                Err(why) if why.code() == ErrorCode::WANT_READ => {}
                // It has given up, or met damage: it says so, and no more.
                Err(_) => self.patience = 0,
            }
        }
        let mut plain = [0; MAX_PLAINTEXT];
        while self.connected {
            match self.client.ssl_read(&mut plain) {
                Ok(len) if len > 0 => self.at_client.push(plain[..len].to_vec()),
                _ => break,
            }
        }
        for datagram in std::mem::take(&mut self.client.get_mut().outgoing) {
            if self.patience > 0 {
                self.patience -= 1;
                self.send(Arrival::AtServer, &datagram);
            }
        }
    }

    fn client_receives(&mut self, datagram: Vec<u8>) {
        self.cookies += usize::from(datagram.len() == HELLO_VERIFY_REQUEST_LEN);
        self.client.get_mut().incoming.push_back(datagram);
        self.drive_client();
    }

    /// What a worker does with a datagram that looks like DTLS.
    fn server_receives(&mut self, datagram: &[u8]) {
        let client: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let server: SocketAddr = "198.51.100.1:5349".parse().unwrap();
        let now = self.now();
        if self.session.is_none() || starts_with_hello(datagram) {
            match self.front.receive(now, client, server, datagram) {
                Verdict::Answer(answer) => {
                    assert!(answer.len() < datagram.len(), "no more than was asked with");
                    return self.send(Arrival::AtClient, &answer);
                }
                Verdict::Verified(hello)
                    if self.session.as_ref().is_none_or(|s| !s.began_with(&hello)) =>
                {
                    assert!(self.cookies > 0, "nothing is kept before a cookie came back");
                    let limits = Limits { datagram: self.path.server_mtu, ..Limits::default() };
                    self.begun += 1;
                    let begun =
                        Session::accept(&self.server.certificates, limits, &hello, now.mono);
                    self.session = begun.ok();
                    return self.send_pending();
                }
                Verdict::Drop(_) if self.session.is_none() => return,
                Verdict::Verified(_) | Verdict::Drop(_) => {}
            }
        }
        let Some(session) = &mut self.session else { return };
        let mut received = session.receive(now.mono, datagram);
        let mut plain = [0; MAX_PLAINTEXT];
        while received.is_ok() {
            match session.read(&mut plain) {
                Ok(Some(len)) => self.at_server.push(plain[..len].to_vec()),
                Ok(None) => break,
                Err(why) => received = Err(why),
            }
        }
        let closed = session.state() == State::Closed;
        self.send_pending();
        if received.is_err() || closed {
            self.forget_session();
        }
    }

    fn server_timer(&mut self) {
        let now = self.now();
        let Some(session) = &mut self.session else { return };
        let outcome = session.handle_timeout(now.mono);
        assert!(session.poll_timeout().is_none_or(|at| at > now.mono), "what is due is done");
        self.send_pending();
        if let Err(why) = outcome {
            // OpenSSL gives up by itself when nobody has answered often enough.
            assert!(why == Error::TimedOut || self.elapsed > GIVE_UP, "{why:?}");
            self.forget_session();
        }
    }

    fn forget_session(&mut self) {
        self.session = None;
        self.last_end = Some(self.elapsed);
    }

    fn send_pending(&mut self) {
        let Some(session) = &mut self.session else { return };
        let datagrams: Vec<Vec<u8>> = session.datagrams().map(<[u8]>::to_vec).collect();
        let shaking = session.state() == State::Handshaking;
        session.clear_datagrams();
        for datagram in datagrams {
            let most = usize::from(self.path.server_mtu);
            assert!(!shaking || datagram.len() <= most, "{} of {most} bytes", datagram.len());
            self.send(Arrival::AtClient, &datagram);
        }
    }

    /// Over the path: lost, twice, late, damaged, as it comes.
    fn send(&mut self, arrival: fn(Vec<u8>) -> Arrival, datagram: &[u8]) {
        if self.rng.permille(self.path.loss) {
            return;
        }
        let copies = if self.rng.permille(self.path.repeated) { 2 } else { 1 };
        for _ in 0..copies {
            let mut datagram = datagram.to_vec();
            if self.rng.permille(self.path.damaged) {
                let at = self.rng.below(datagram.len());
                datagram[at] ^= 1 << self.rng.below(8);
            }
            let delay = Duration::from_millis(1 + self.rng.within(0..self.path.delay));
            self.sequence += 1;
            self.under_way.insert((self.elapsed + delay, self.sequence), arrival(datagram));
        }
    }

    /// Data both ways, when there is a session; else there is none on either side.
    fn finish(&mut self) -> Outcome {
        assert!(self.at_server.is_empty() && self.at_client.is_empty(), "nothing was said");
        if !self.is_connected() {
            let done = self.session.as_ref().is_none_or(|s| s.state() != State::Handshaking);
            assert!(done, "a handshake goes on past its deadline");
            return Outcome::Failed;
        }
        let mut scratch = Vec::new();
        for _ in 0..TRIES {
            if self.client.ssl_write(b"ping").is_err() {
                return Outcome::Failed;
            }
            let Some(session) = &mut self.session else { return Outcome::Failed };
            let _ = session.send([&b"po"[..], b"ng"], &mut scratch);
            self.send_pending();
            let end = self.elapsed + Duration::from_millis(500);
            while self.elapsed < end {
                self.look(end);
            }
            if !self.at_server.is_empty() && !self.at_client.is_empty() {
                assert!(self.at_server.iter().all(|data| data == b"ping"), "exactly what was sent");
                assert!(self.at_client.iter().all(|data| data == b"pong"), "exactly what was sent");
                return Outcome::Connected;
            }
        }
        assert!(self.path.damaged > 0, "{TRIES} records were lost both ways: {:?}", self.path);
        Outcome::Failed
    }
}

/// OpenSSL's client, which trusts the server's certificate for its name.
fn client(server: &Server, path: Path) -> SslStream<Wire> {
    let mut context = SslContext::builder(SslMethod::dtls_client()).unwrap();
    context.set_options(SslOptions::NO_QUERY_MTU);
    context.set_verify(SslVerifyMode::PEER);
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(X509::from_der(&server.trusted).unwrap()).unwrap();
    context.set_cert_store(store.build());
    let mut ssl = Ssl::new(&context.build()).unwrap();
    ssl.set_connect_state();
    ssl.set_mtu(path.client_mtu).unwrap();
    ssl.param_mut().set_host(NAME).unwrap();
    SslStream::new(ssl, Wire::default()).unwrap()
}

/// The client's end of the path: datagrams one at a time.
#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let len = datagram.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outgoing.push(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
