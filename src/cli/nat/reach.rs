//! Which of several addresses of a server to ask: the first that answers (in the
//! manner of RFC 8305). A route alone says little: IPv6 may be there and lead nowhere.
//!
//! 1. The addresses are tried in order, each a moment after the one before: a Binding
//!    request over UDP, repeated, and a connection over TCP.
//! 2. The first that answers over UDP is taken.
//! 3. Where UDP is blocked it is the first that takes a connection, and where nothing
//!    answers the first of all: what is wrong there is then told as with one address.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::driver::Binding;

/// How long the address before has to answer before the next is tried (RFC 8305
/// section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// When a request is repeated for the first time (RFC 8489 section 6.2.1).
const FIRST_REPEAT: Duration = Duration::from_millis(500);

/// The header of a Binding request without attributes, but for the transaction id.
const REQUEST: [u8; 8] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
/// The first bytes of its responses: success and error.
const RESPONSES: [[u8; 2]; 2] = [[0x01, 0x01], [0x01, 0x11]];
const HEADER: usize = 20;

/// An address of the server, and from where it is asked.
pub(super) struct Way {
    pub(super) server: SocketAddr,
    pub(super) binding: Binding,
}

/// How an address was reached.
enum Answer {
    Udp,
    Tcp,
}

/// The way to take. With one there is nothing to choose, and nothing is sent.
///
/// `ways` has at least one; it takes no longer than `bound`.
pub(super) async fn first_to_answer(mut ways: Vec<Way>, bound: Duration) -> (SocketAddr, Binding) {
    let chosen = if ways.len() > 1 { choose(&ways, bound).await } else { 0 };
    let Way { server, binding } = ways.swap_remove(chosen);
    (server, binding)
}

async fn choose(ways: &[Way], bound: Duration) -> usize {
    let end = Instant::now() + bound;
    let mut race = JoinSet::new();
    for (index, way) in ways.iter().enumerate() {
        let delay = HEAD_START * u32::try_from(index).unwrap_or(u32::MAX);
        let (server, udp, tcp) = (way.server, way.binding.clone(), way.binding.clone());
        race.spawn(async move {
            sleep(delay).await;
            // What cannot even ask does not answer.
            if ask(&udp, server).await.is_err() {
                pending::<()>().await;
            }
            (index, Answer::Udp)
        });
        race.spawn(async move {
            sleep(delay).await;
            if timeout(bound, tcp.tcp(server, None)).await.is_ok_and(|stream| stream.is_ok()) {
                return (index, Answer::Tcp);
            }
            pending().await
        });
    }
    let mut connected: Option<usize> = None;
    loop {
        tokio::select! {
            Some(Ok((index, answer))) = race.join_next() => match answer {
                Answer::Udp => return index,
                Answer::Tcp => connected = Some(connected.map_or(index, |c| c.min(index))),
            },
            () = sleep_until(end) => return connected.unwrap_or(0),
        }
    }
}

/// Returns once the server has answered Binding.
async fn ask(binding: &Binding, server: SocketAddr) -> io::Result<()> {
    let socket = binding.udp(None).await?;
    let mut request = [0; HEADER];
    request[..REQUEST.len()].copy_from_slice(&REQUEST);
    getrandom::fill(&mut request[REQUEST.len()..]).map_err(io::Error::other)?;
    let mut wait = FIRST_REPEAT;
    loop {
        // An error may be that of an earlier datagram; only silence and answers count.
        let _ = socket.send_to(&request, server).await;
        if timeout(wait, answer(&socket, &request)).await.is_ok() {
            return Ok(());
        }
        wait *= 2;
    }
}

async fn answer(socket: &tokio::net::UdpSocket, request: &[u8; HEADER]) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok((len, _)) = socket.recv_from(&mut buffer).await
            && len >= HEADER
            && RESPONSES.iter().any(|first| buffer.starts_with(first))
            && buffer[4..HEADER] == request[4..]
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::thread;

    use super::*;

    /// Long enough for whoever answers, also on a busy machine.
    const BOUND: Duration = Duration::from_secs(5);

    /// Held, and never answered.
    fn silent() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    /// Answers one request, with `first` as the first two bytes, after one that is not
    /// an answer to it.
    fn answering(first: [u8; 2]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut message = [0; HEADER];
            let (len, from) = socket.recv_from(&mut message).unwrap();
            assert_eq!((len, &message[..8]), (HEADER, &REQUEST[..]));
            message[..2].copy_from_slice(&first);
            let mut forged = message;
            forged[19] ^= 1;
            socket.send_to(&forged, from).unwrap();
            socket.send_to(&message, from).unwrap();
        });
        address
    }

    fn chosen(servers: &[SocketAddr], bound: Duration) -> SocketAddr {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(async {
            let mut ways = Vec::new();
            for &server in servers {
                let binding = Binding::towards(server, None, None).await.unwrap();
                ways.push(Way { server, binding });
            }
            first_to_answer(ways, bound).await.0
        })
    }

    #[test]
    fn silence_gives_way_to_an_answer() {
        for first in RESPONSES {
            let (silent, answering) = (silent(), answering(first));
            let closed = self::silent().local_addr().unwrap();
            let servers = [silent.local_addr().unwrap(), closed, answering];
            assert_eq!(chosen(&servers, BOUND), answering);
        }
    }

    #[test]
    fn the_first_has_a_head_start() {
        let (first, second) = (answering(RESPONSES[0]), answering(RESPONSES[0]));
        assert_eq!(chosen(&[first, second], BOUND), first);
    }

    #[test]
    fn a_connection_counts_where_no_datagram_is_answered() {
        let (silent, listener) = (silent(), TcpListener::bind("127.0.0.1:0").unwrap());
        let servers = [silent.local_addr().unwrap(), listener.local_addr().unwrap()];
        assert_eq!(chosen(&servers, Duration::from_secs(1)), servers[1]);
    }

    #[test]
    fn where_nothing_answers_it_is_the_first() {
        let (one, other) = (silent(), silent());
        let servers = [one.local_addr().unwrap(), other.local_addr().unwrap()];
        let bound = Duration::from_millis(600);
        assert_eq!(chosen(&servers, bound), servers[0]);
    }

    #[test]
    fn with_one_address_nothing_is_asked() {
        let silent = silent();
        let server = silent.local_addr().unwrap();
        assert_eq!(chosen(&[server], BOUND), server);
        silent.set_nonblocking(true).unwrap();
        assert!(silent.recv(&mut [0; 64]).is_err());
    }
}
