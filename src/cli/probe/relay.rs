//! Numbered packets through the relay and back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::link::{Link, LinkError, is_icmp};

/// Between two packets.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long the last packets may take to come back.
const LINGER: Duration = Duration::from_secs(1);
/// Between two of the packets by which a peer makes itself known.
const KNOCK: Duration = Duration::from_millis(100);
/// How often it does.
const KNOCKS: usize = 10;
/// Bytes of a packet: about a frame of voice.
const SIZE: usize = 160;
/// Enough for what comes back.
const BUFFER: usize = 2048;

/// Who sends back what comes.
pub(super) enum Far<'a> {
    /// Another allocation.
    Allocation(&'a mut Link),
    /// A socket of this machine.
    Socket(&'a UdpSocket),
}

/// Sends packets to a peer and waits for each to come back. The result has the
/// round-trip time of each in order, `None` where it was lost.
pub(super) async fn measure(
    near: &mut Link,
    peer: SocketAddr,
    far: &mut Far<'_>,
    packets: usize,
) -> Result<Vec<Option<Duration>>, LinkError> {
    let mark = mark()?;
    let mut sent: Vec<Instant> = Vec::with_capacity(packets);
    let mut back: Vec<Option<Duration>> = vec![None; packets];
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while back.iter().any(Option::is_none) {
        let end = sent.last().map_or_else(Instant::now, |last| *last + LINGER);
        tokio::select! {
            _ = ticks.tick(), if sent.len() < packets => {
                near.client().send(peer, &packet(mark, sent.len()), false);
                sent.push(Instant::now());
            }
            result = near.wait() => result?,
            result = far.wait() => result?,
            () = sleep_until(end), if sent.len() == packets => break,
        }
        while let Some((_, data)) = near.take_data() {
            if let Some(index) = number(mark, &data).filter(|index| *index < sent.len()) {
                back[index].get_or_insert(sent[index].elapsed());
            }
        }
        far.send_back();
        near.flush().await?;
        far.flush().await?;
    }
    Ok(back)
}

/// Has a socket of this machine send to the relayed address that it is connected to,
/// until the client gets it: who the socket is for the relay, or `None` if nothing
/// comes through.
pub(super) async fn knock(
    near: &mut Link,
    socket: &UdpSocket,
) -> Result<Option<SocketAddr>, LinkError> {
    let mark = mark()?;
    let mut ticks = interval(KNOCK);
    let mut knocks = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if knocks == KNOCKS {
                    return Ok(None);
                }
                // What the network says to it, the client's silence tells as well.
                let _ = socket.send(&packet(mark, knocks)).await;
                knocks += 1;
            }
            result = near.wait() => result?,
        }
        while let Some((peer, data)) = near.take_data() {
            if number(mark, &data).is_some() {
                return Ok(Some(peer));
            }
        }
        near.flush().await?;
    }
}

impl Far<'_> {
    /// Waits for something to send back; a socket does so at once.
    async fn wait(&mut self) -> Result<(), LinkError> {
        match self {
            Self::Allocation(link) => link.wait().await,
            Self::Socket(socket) => {
                let mut buffer = [0; BUFFER];
                match socket.recv(&mut buffer).await {
                    Ok(length) => {
                        // What cannot be sent counts as lost.
                        let _ = socket.try_send(&buffer[..length]);
                        Ok(())
                    }
                    Err(error) if is_icmp(&error) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    fn send_back(&mut self) {
        let Self::Allocation(link) = self else { return };
        while let Some((peer, data)) = link.take_data() {
            link.client().send(peer, &data, false);
        }
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        match self {
            Self::Allocation(link) => link.flush().await,
            Self::Socket(_) => Ok(()),
        }
    }
}

/// What tells the packets of one run from those of another.
fn mark() -> Result<u64, LinkError> {
    getrandom::u64().map_err(|error| LinkError::Io(std::io::Error::other(error)))
}

fn packet(mark: u64, index: usize) -> [u8; SIZE] {
    let mut packet = [0; SIZE];
    packet[..8].copy_from_slice(&mark.to_be_bytes());
    packet[8..16].copy_from_slice(&(index as u64).to_be_bytes());
    packet
}

fn number(mark: u64, data: &[u8]) -> Option<usize> {
    let (found, rest) = data.split_first_chunk()?;
    let (index, _) = rest.split_first_chunk()?;
    (data.len() == SIZE && u64::from_be_bytes(*found) == mark)
        .then(|| usize::try_from(u64::from_be_bytes(*index)).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_apart() {
        assert_eq!(number(7, &packet(7, 42)), Some(42));
        assert_eq!(number(8, &packet(7, 42)), None);
        assert_eq!(number(7, &packet(7, 42)[..SIZE - 1]), None);
        assert_eq!(number(0, b""), None);
    }
}
