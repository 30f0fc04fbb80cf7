//! Connect (RFC 6062 section 5.2): the checks. What follows them is in `tcp_relay`.

use super::peer_of;
use crate::net::{Now, PeerAddr};
use crate::stun::{Attribute, ErrorCode, Message};
use crate::turn::Server;
use crate::turn::connection::{Connection, Stage};
use crate::turn::policy::Access;
use crate::turn::reply::{Envelope, Reject};
use crate::turn::vocabulary::{AllocationId, Output, RelayId, RelayTransport};

impl Server {
    /// Starts a connection to a peer; the answer follows when it came about or
    /// failed. No permission is needed: the client chooses the peer, and policy is
    /// asked about its transport address.
    pub(super) fn on_connect(
        &mut self,
        now: Now,
        allocation: AllocationId,
        request: &Message<'_>,
        envelope: &Envelope,
    ) -> Result<usize, Reject> {
        if self.table.get(allocation).is_none_or(|a| a.transport != RelayTransport::Tcp) {
            return Err(Reject::Error(ErrorCode::FORBIDDEN, "Connect needs a TCP allocation"));
        }
        let value = request
            .get(Attribute::XorPeerAddress)
            .ok_or_else(|| Reject::bad("XOR-PEER-ADDRESS missing"))?;
        let (peer, access) = self.check_peer(now, allocation, peer_of(request, value)?, true)?;
        if self.connections.find_peer(allocation, peer).is_some() {
            return Err(Reject::code(ErrorCode::CONNECTION_ALREADY_EXISTS));
        }
        let user = self.room_for_peer(allocation).ok_or_else(too_many)?;
        let deadline = now.mono + self.settings.lifetimes.connect;
        let stage = Stage::Connecting(Box::new(*envelope), deadline);
        let made = Connection { allocation, user, peer, created: now.mono, stage };
        let connection = self.add_connection(made).ok_or_else(too_many)?;
        self.outputs.push_back(Output::ConnectPeer {
            relay: RelayId { allocation, family: peer.family() },
            connection,
            peer: self.as_reached(peer, access),
            relays_only: access == Access::OwnRelay { others: false },
        });
        Err(Reject::Queued)
    }

    /// An own relayed transport address is reached as it is bound here: the
    /// advertised one may lead out to a NAT that does not turn it back.
    fn as_reached(&self, peer: PeerAddr, access: Access) -> PeerAddr {
        match access {
            Access::OwnRelay { .. } => {
                self.settings.relay.local_of(peer.socket()).map_or(peer, PeerAddr::new)
            }
            Access::Allowed | Access::Denied => peer,
        }
    }
}

fn too_many() -> Reject {
    Reject::Error(ErrorCode::INSUFFICIENT_CAPACITY, "Too many connections with peers")
}
