//! Small STUN servers on loopback, good ones and bad ones.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How soon a server notices that its test is over.
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rfc5780,
    OneAddress,
    Garbage,
    Unauthorized,
    /// Refuses in words that turn the text behind them around.
    Backwards,
    Lying(&'static str),
    /// Says OTHER-ADDRESS and ignores CHANGE-REQUEST.
    Misrouting,
}

/// Two addresses with two ports each; ended when dropped.
pub struct Server {
    primary: SocketAddr,
    other: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub fn start(kind: Kind) -> Self {
        let sockets = Arc::new(bind_four());
        let (primary, other) = (address(&sockets[0]), address(&sockets[3]));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..4)
            .map(|own| {
                let (sockets, stop) = (Arc::clone(&sockets), Arc::clone(&stop));
                thread::spawn(move || serve(kind, &sockets, own, &stop))
            })
            .collect();
        Self { primary, other, stop, threads }
    }

    pub fn name(&self) -> String {
        self.primary.to_string()
    }

    pub fn other(&self) -> SocketAddr {
        self.other
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Two ports that are free on both addresses.
pub fn free_port_pair() -> [u16; 2] {
    let sockets = bind_four();
    [address(&sockets[0]).port(), address(&sockets[3]).port()]
}

/// Answers Binding requests on one connection after another.
pub fn serve_tcp(listener: TcpListener) -> JoinHandle<()> {
    thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let mut request = [0; 20];
            if stream.read_exact(&mut request).is_ok() {
                let _ = stream.write_all(&success(&request, from, None));
            }
        }
    })
}

/// Sends bytes of no use for ever, on the first connection and to whoever sends a
/// datagram, as fast as they are taken.
pub fn flood(socket: UdpSocket, listener: TcpListener) {
    thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    });
    thread::spawn(move || {
        let Ok((_, from)) = socket.recv_from(&mut [0; 64]) else { return };
        // Connected, so that it learns when the client's socket is closed.
        socket.connect(from).unwrap();
        while socket.send(b"220 mail.example.org ESMTP").is_ok() {}
    });
}

/// Address 1 with port 1 and 2, then address 2 with port 1 and 2: as numbered by
/// the two bits of CHANGE-REQUEST.
fn bind_four() -> [UdpSocket; 4] {
    for _ in 0..100 {
        let try_all = || -> std::io::Result<[UdpSocket; 4]> {
            let a = UdpSocket::bind("127.0.0.1:0")?;
            let b = UdpSocket::bind("127.0.0.1:0")?;
            let c = UdpSocket::bind(("127.0.0.2", address(&a).port()))?;
            let d = UdpSocket::bind(("127.0.0.2", address(&b).port()))?;
            Ok([a, b, c, d])
        };
        if let Ok(sockets) = try_all() {
            return sockets;
        }
    }
    panic!("no two ports are free on both 127.0.0.1 and 127.0.0.2");
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

fn serve(kind: Kind, sockets: &[UdpSocket; 4], own: usize, stop: &AtomicBool) {
    let socket = &sockets[own];
    socket.set_read_timeout(Some(POLL)).unwrap();
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let request = &buffer[..length];
        let other = match kind {
            Kind::OneAddress => None,
            Kind::Lying(other) => Some(other.parse().unwrap()),
            _ => Some(address(&sockets[own ^ 3])),
        };
        let answer = match kind {
            Kind::Garbage => b"220 mail.example.org ESMTP".to_vec(),
            Kind::Unauthorized => {
                message(0x0111, request, &attribute(9, b"\0\0\x04\x01Unauthorized"))
            }
            Kind::Backwards => message(
                0x0111,
                request,
                &attribute(9, "\0\0\x04\x00go\u{202e}away\u{2066}".as_bytes()),
            ),
            _ => success(request, from, other),
        };
        // CHANGE-REQUEST: 4 is the address, 2 the port.
        let change = match request.get(20..28) {
            Some([0, 3, 0, 4, .., flags]) if kind == Kind::Rfc5780 => usize::from(flags & 6) >> 1,
            _ => 0,
        };
        let _ = sockets[own ^ change].send_to(&answer, from);
    }
}

fn success(request: &[u8], from: SocketAddr, other: Option<SocketAddr>) -> Vec<u8> {
    let mut body = attribute(1, &plain(from));
    body.extend(other.map(|other| attribute(0x802C, &plain(other))).unwrap_or_default());
    message(0x0101, request, &body)
}

fn message(kind: u16, request: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(&request[4..20]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn plain(address: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = address.ip() else { panic!("IPv4 only") };
    let mut value = vec![0, 1];
    value.extend(address.port().to_be_bytes());
    value.extend(ip.octets());
    value
}
