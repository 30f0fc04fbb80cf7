//! The simplest shell there is: relay ports counted up, each opened and freed once.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sturn::net::{Family, RelayedAddr};
use sturn::turn::{Input, PortRequest, RelayId};

#[derive(Default)]
pub struct Ports {
    next: u16,
    open: Vec<(u16, RelayId, SocketAddr)>,
    aside: BTreeSet<SocketAddr>,
}

impl Ports {
    /// The answer to a request for a relay socket.
    pub fn open(&mut self, shard: u16, relay: RelayId, port: PortRequest, fail: bool) -> Input {
        let claimed = match port {
            PortRequest::Reserved(address) => {
                assert!(self.aside.remove(&address.socket()), "{address} was set aside");
                Some(address.socket())
            }
            _ => None,
        };
        if fail {
            return Input::RelayFailed { relay };
        }
        let local = claimed.unwrap_or_else(|| self.fresh(relay.family));
        self.open.push((shard, relay, local));
        let reserved = (port == PortRequest::EvenAndReserveNext).then(|| {
            let next = SocketAddr::new(local.ip(), local.port() + 1);
            assert!(self.aside.insert(next), "{next} is free");
            RelayedAddr::new(next)
        });
        Input::RelayOpened { relay, local: RelayedAddr::new(local), advertised: local, reserved }
    }

    /// A socket goes to another shard, which has another id for it.
    pub fn hand_over(&mut self, from: (u16, RelayId), to: (u16, RelayId)) {
        let entry = self.open.iter_mut().find(|(shard, relay, _)| (*shard, *relay) == from);
        let entry = entry.expect("only an open relay changes hands");
        (entry.0, entry.1) = to;
    }

    /// Every port is even, so the next one is free as well.
    fn fresh(&mut self, family: Family) -> SocketAddr {
        self.next += 2;
        let port = 50_000 + self.next % 15_000;
        match family {
            Family::V4 => SocketAddr::from(([8, 8, 4, 4], port)),
            Family::V6 => SocketAddr::from(([0x2606, 0x4700, 1, 0, 0, 0, 0, 5], port)),
        }
    }

    pub fn close(&mut self, shard: u16, relay: RelayId) {
        let at = self.open.iter().position(|(s, r, _)| (*s, *r) == (shard, relay));
        self.open.swap_remove(at.expect("a relay is closed once, while open"));
    }

    pub fn release(&mut self, reserved: RelayedAddr) {
        assert!(self.aside.remove(&reserved.socket()), "{reserved} is freed once");
    }

    /// The open sockets: shard, id and address.
    pub fn sockets(&self) -> &[(u16, RelayId, SocketAddr)] {
        &self.open
    }

    pub fn assert_empty(&self) {
        assert!(self.open.is_empty(), "never closed: {:?}", self.open);
        assert!(self.aside.is_empty(), "never freed: {:?}", self.aside);
    }
}
