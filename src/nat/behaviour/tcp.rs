//! TCP mapping behaviour (RFC 5780 section 4.3 over TCP): connections from one
//! local port to three endpoints of the server.

use std::time::Instant;

use super::super::SocketId;
use super::super::exchange::{ExchangeId, Exchanges, Outcome, Request};
use super::super::report::{Finding, Mapping, Unknown};
use super::mapping::mapping;
use super::{Target, reason};

#[derive(Debug)]
pub(in super::super) struct TcpTest {
    target: Target,
    socket: SocketId,
    first: ExchangeId,
    others: Option<[ExchangeId; 2]>,
    /// The first connection ended before the others could share its port.
    closed: bool,
}

impl TcpTest {
    /// Goes on from the connection of the first contact.
    pub(in super::super) fn new(target: Target, socket: SocketId, first: ExchangeId) -> Self {
        Self { target, socket, first, others: None, closed: false }
    }

    /// Returns true when it is over.
    pub(in super::super) fn step(&mut self, now: Instant, exchanges: &mut Exchanges) -> bool {
        if exchanges.outcome(self.first).is_none() {
            return false;
        }
        let (Some(address), Some(both)) = (self.target.other_address(), self.target.other) else {
            return true;
        };
        if exchanges.answer(self.first).is_none() {
            return true;
        }
        self.closed |= self.others.is_none() && exchanges.local(self.socket).is_none();
        if self.closed {
            return true;
        }
        let others = *self.others.get_or_insert_with(|| {
            [address, both].map(|to| {
                let socket = exchanges.open_tcp(to, Some(self.socket));
                exchanges.ask(now, Request::binding(socket, to))
            })
        });
        exchanges.all_over(&others)
    }

    pub(in super::super) fn finding(&self, exchanges: &Exchanges) -> Finding<Mapping> {
        let Some(first) = exchanges.answer(self.first) else {
            return Finding::Unknown(match exchanges.outcome(self.first) {
                Some(Outcome::OutOfTime) | None => Unknown::OutOfTime,
                Some(Outcome::Refused { .. }) => Unknown::ServerRefuses,
                _ => Unknown::NoTcp,
            });
        };
        if self.target.other.is_none() {
            return Finding::Unknown(Unknown::NoOtherAddress);
        }
        if self.closed {
            return Finding::Unknown(Unknown::ConnectionClosed);
        }
        let Some(others) = self.others else { return Finding::Unknown(Unknown::OutOfTime) };
        let [address, both] = others.map(|id| exchanges.answer(id).map(|answer| answer.mapped));
        match (mapping(first.mapped, address, both), exchanges.outcome(others[0])) {
            (Finding::Unknown(_), Some(Outcome::OutOfTime)) => {
                Finding::Unknown(reason(exchanges.outcome(others[0])))
            }
            (finding, _) => finding,
        }
    }
}
