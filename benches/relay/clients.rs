//! The clients' end of the load: datagrams of one socket, or a connection each.

use std::fmt;
use std::io;
use std::net::SocketAddrV4;

use clap::ValueEnum;

use crate::fleet::Fleet;
use crate::streams::Streams;
use crate::sys::Batch;

/// How clients reach a server. It relays to peers over UDP in any case.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Transport {
    /// Datagrams.
    Udp,
    /// A connection for each client.
    Tcp,
    /// The same within TLS.
    Tls,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// All clients of one server.
pub(crate) enum Clients {
    /// Many addresses behind one socket.
    Datagrams(Fleet),
    /// Connections, which begin when they are needed.
    Streams(Streams),
}

impl Clients {
    /// Clients that come by `transport`.
    pub(crate) fn new(transport: Transport) -> io::Result<Self> {
        Ok(match transport {
            Transport::Udp => Self::Datagrams(Fleet::clients()?),
            Transport::Tcp => Self::Streams(Streams::new(None)?),
            Transport::Tls => Self::Streams(Streams::new(Some(crate::tls::client()))?),
        })
    }

    /// Sends one message of client `flow`; `batch` has a slot for it.
    pub(crate) fn send(
        &self,
        batch: &mut Batch,
        flow: usize,
        message: &[u8],
        server: SocketAddrV4,
    ) -> io::Result<()> {
        match self {
            Self::Datagrams(fleet) => {
                batch.slot_mut(0)[..message.len()].copy_from_slice(message);
                batch.aim(0, 0, message.len(), server, Some(fleet.address(flow)));
                batch.send_all(fleet.descriptor(), 0, 1);
                Ok(())
            }
            Self::Streams(streams) => {
                streams.connect(flow, server)?;
                streams.push(flow, message);
                streams.flush()
            }
        }
    }

    /// Hands what has arrived to `take`, whichever client it is for; true when
    /// there was anything.
    pub(crate) fn receive(
        &self,
        batch: &mut Batch,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        match self {
            Self::Datagrams(fleet) => {
                let got = batch.receive(fleet.descriptor(), 0, 1, 0)?;
                (0..got).for_each(|i| take(&batch.slot(i)[..batch.received(i)]));
                Ok(got > 0)
            }
            Self::Streams(streams) => streams.receive(|_, message| take(message)),
        }
    }
}
