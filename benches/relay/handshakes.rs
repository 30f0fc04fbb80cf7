//! Handshakes: connect, agree on keys, ask one Binding request, close.
//!
//! Nothing is resumed, and the request shows that the server is through with the
//! handshake as well. Several clients at a time keep the server busy.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustls::ClientConfig;

use crate::tally::{Tally, Watch};
use crate::tls;

/// Clients at a time.
const CLIENTS: usize = 16;
/// What blocks takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    Tls13,
    Tls12,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tls13 => "TLS 1.3",
            Self::Tls12 => "TLS 1.2",
        })
    }
}

/// Has clients shake hands with the server `pid` at `server` for `warm_up`, then
/// for `duration` under measurement.
///
/// # Errors
/// The first handshake or request that failed.
pub(crate) fn measure(
    pid: u32,
    server: SocketAddrV4,
    version: Version,
    warm_up: Duration,
    duration: Duration,
) -> io::Result<Tally> {
    let config = match version {
        Version::Tls13 => tls::client(),
        Version::Tls12 => tls::client_of_tls12(),
    };
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| shake_hands_until(&over, &done, server, &config)))
            .collect();
        thread::sleep(warm_up);
        let watch = Watch::start(pid, done.load(Ordering::Relaxed));
        thread::sleep(duration);
        let tally = watch.and_then(|watch| watch.stop(done.load(Ordering::Relaxed)));
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client does not panic")?;
        }
        tally
    })
}

fn shake_hands_until(
    over: &AtomicBool,
    done: &AtomicU64,
    server: SocketAddrV4,
    config: &Arc<ClientConfig>,
) -> io::Result<()> {
    while !over.load(Ordering::Relaxed) {
        shake_hands(server, config, done.load(Ordering::Relaxed))?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn shake_hands(server: SocketAddrV4, config: &Arc<ClientConfig>, number: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut tls = tls::shake_hands(config, &mut stream)?;
    let mut secured = rustls::Stream::new(&mut tls, &mut stream);
    // A Binding request without attributes (RFC 8489 section 5).
    let mut request = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    request[12..].copy_from_slice(&number.to_be_bytes());
    secured.write_all(&request)?;
    let mut answer = [0; 20];
    secured.read_exact(&mut answer)?;
    if answer[..2] != [1, 1] || answer[4..] != request[4..] {
        return Err(io::Error::other("no success response to a Binding request"));
    }
    tls.send_close_notify();
    tls.complete_io(&mut stream).map(drop)
}
