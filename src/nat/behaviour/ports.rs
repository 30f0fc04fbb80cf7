//! Port preservation, port parity and address pooling (RFC 4787 sections 4.1 and
//! 4.2): several sockets, half of them on even ports, ask how they are seen.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::exchange::{ExchangeId, Exchanges, Request};
use super::super::report::{Finding, Pooling, Ports};
use super::super::{Parity, SocketId};
use super::{Target, reason};

const SOCKETS: usize = 8;

#[derive(Debug)]
pub(in super::super) struct PortsTest {
    asked: Vec<(SocketId, ExchangeId)>,
}

impl PortsTest {
    pub(in super::super) fn new(now: Instant, exchanges: &mut Exchanges, target: Target) -> Self {
        let parities = [Parity::Even, Parity::Odd].into_iter().cycle().take(SOCKETS);
        let asked = parities
            .map(|parity| {
                let socket = exchanges.open_udp(Some(parity));
                (socket, exchanges.ask(now, Request::binding(socket, target.primary)))
            })
            .collect();
        Self { asked }
    }

    /// Returns true when it is over.
    pub(in super::super) fn step(&self, exchanges: &Exchanges) -> bool {
        self.asked.iter().all(|(_, id)| exchanges.outcome(*id).is_some())
    }

    pub(in super::super) fn ports(&self, exchanges: &Exchanges) -> Finding<Ports> {
        let pairs = self.pairs(exchanges);
        if pairs.is_empty() {
            let (_, first) = self.asked[0];
            return Finding::Unknown(reason(exchanges.outcome(first)));
        }
        let count = |keeps: fn(u16, u16) -> bool| {
            let kept = pairs.iter().filter(|(local, mapped)| keeps(local.port(), mapped.port()));
            kept.count() as u32
        };
        Finding::Known(Ports {
            sockets: pairs.len() as u32,
            preserved: count(|local, mapped| local == mapped),
            parity_preserved: count(|local, mapped| local % 2 == mapped % 2),
        })
    }

    pub(in super::super) fn pooling(&self, exchanges: &Exchanges) -> Finding<Pooling> {
        let pairs = self.pairs(exchanges);
        match &pairs[..] {
            // One socket always has one address.
            [] | [_] => Finding::Unknown(reason(exchanges.outcome(self.asked[0].1))),
            [(_, first), rest @ ..] if rest.iter().all(|(_, other)| other.ip() == first.ip()) => {
                Finding::Known(Pooling::Paired)
            }
            _ => Finding::Known(Pooling::Arbitrary),
        }
    }

    /// Local and mapped addresses of the sockets that were answered.
    fn pairs(&self, exchanges: &Exchanges) -> Vec<(SocketAddr, SocketAddr)> {
        self.asked
            .iter()
            .filter_map(|(socket, id)| {
                Some((exchanges.local(*socket)?, exchanges.answer(*id)?.mapped))
            })
            .collect()
    }
}
