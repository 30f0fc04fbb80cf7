//! Servers that do one thing wrong, and a box in between that drops packets. Their
//! threads end with the test process.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

/// A UDP server that answers each datagram with what `answer` makes of it.
pub(crate) fn udp(
    answer: impl Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(bytes) = answer(&buffer[..length], from) {
                let _ = socket.send_to(&bytes, from);
            }
        }
    });
    address
}

/// A TCP server that sends `greeting` when the first bytes have come, and hangs up.
pub(crate) fn tcp(greeting: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            // All of a request is read, so that closing does not reset.
            let _ = stream.read(&mut [0; 2048]);
            let _ = stream.write_all(greeting);
        }
    });
    address
}

/// A box between clients and a UDP server that forwards what `passes` lets through.
pub(crate) fn middlebox(
    server: SocketAddr,
    passes: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = front.local_addr().unwrap();
    let passes = Arc::new(passes);
    thread::spawn(move || {
        let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = front.recv_from(&mut buffer) {
            let back = backs.entry(client).or_insert_with(|| {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                back.connect(server).unwrap();
                forward_back(Arc::clone(&back), Arc::clone(&front), client, Arc::clone(&passes));
                back
            });
            if passes(&buffer[..length]) {
                let _ = back.send(&buffer[..length]);
            }
        }
    });
    address
}

fn forward_back(
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    passes: Arc<impl Fn(&[u8]) -> bool + Send + Sync + 'static>,
) {
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok(length) = back.recv(&mut buffer) {
            if passes(&buffer[..length]) {
                let _ = front.send_to(&buffer[..length], client);
            }
        }
    });
}
