//! Hairpinning (RFC 5780 section 4.5): do two sockets behind the NAT reach each
//! other at their mapped addresses?
//!
//! 1. Two sockets learn their mapped addresses.
//! 2. Each sends to the other's, which opens the filter of its one mapping for the
//!    other. Where every destination has a mapping of its own, the filter stays shut
//!    and "no" is what two applications there would meet.
//! 3. If nothing arrives, the server is asked once more, so that silence is not
//!    taken for a "no" while the whole path is silent.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::SocketId;
use super::super::exchange::{ExchangeId, Exchanges, Outcome, Request, same_endpoint};
use super::super::report::{Finding, Hairpin, Unknown};
use super::{Target, reason};

#[derive(Debug)]
pub(in super::super) struct HairpinTest {
    sockets: [SocketId; 2],
    primary: SocketAddr,
    contacts: [ExchangeId; 2],
    probes: Option<[ExchangeId; 2]>,
    control: Option<ExchangeId>,
}

impl HairpinTest {
    pub(in super::super) fn new(now: Instant, exchanges: &mut Exchanges, target: Target) -> Self {
        let primary = target.primary;
        let sockets = [exchanges.open_udp(None), exchanges.open_udp(None)];
        let contacts = sockets.map(|socket| exchanges.ask(now, Request::binding(socket, primary)));
        Self { sockets, primary, contacts, probes: None, control: None }
    }

    /// Returns true when it is over.
    pub(in super::super) fn step(&mut self, now: Instant, exchanges: &mut Exchanges) -> bool {
        if !exchanges.all_over(&self.contacts) {
            return false;
        }
        let Some([first, second]) = self.mapped(exchanges) else { return true };
        if self.is_untranslated(exchanges, [first, second]) {
            return true;
        }
        let [a, b] = self.sockets;
        let probes = *self.probes.get_or_insert_with(|| {
            [Request::binding(a, second), Request::binding(b, first)]
                .map(|request| exchanges.ask(now, request))
        });
        if looped(exchanges, probes).is_some() {
            probes.iter().for_each(|probe| exchanges.stop(*probe));
            return true;
        }
        if !exchanges.all_over(&probes) {
            return false;
        }
        let control = *self
            .control
            .get_or_insert_with(|| exchanges.ask(now, Request::binding(a, self.primary)));
        exchanges.outcome(control).is_some()
    }

    pub(in super::super) fn finding(&self, exchanges: &Exchanges) -> Finding<Hairpin> {
        let Some(mapped) = self.mapped(exchanges) else {
            return Finding::Unknown(reason(exchanges.outcome(self.contacts[0])));
        };
        if self.is_untranslated(exchanges, mapped) {
            return Finding::Unknown(Unknown::NoNat);
        }
        let Some(probes) = self.probes else { return Finding::Unknown(Unknown::OutOfTime) };
        if let Some(from) = looped(exchanges, probes) {
            let is_local = |socket: &SocketId| {
                exchanges.local(*socket).is_some_and(|local| same_endpoint(local, from))
            };
            let internal = self.sockets.iter().any(is_local);
            return Finding::Known(if internal { Hairpin::Internal } else { Hairpin::External });
        }
        let quiet = probes.iter().all(|probe| exchanges.outcome(*probe) == Some(&Outcome::Silence));
        match self.control {
            Some(control) if exchanges.answer(control).is_some() && quiet => {
                Finding::Known(Hairpin::No)
            }
            Some(control) => Finding::Unknown(reason(exchanges.outcome(control))),
            None => Finding::Unknown(Unknown::OutOfTime),
        }
    }

    fn mapped(&self, exchanges: &Exchanges) -> Option<[SocketAddr; 2]> {
        let [a, b] = self.contacts.map(|id| exchanges.answer(id).map(|answer| answer.mapped));
        Some([a?, b?])
    }

    fn is_untranslated(&self, exchanges: &Exchanges, mapped: [SocketAddr; 2]) -> bool {
        self.sockets.iter().zip(mapped).all(|(socket, mapped)| {
            exchanges.local(*socket).is_some_and(|local| same_endpoint(local, mapped))
        })
    }
}

/// The source with which a probe arrived.
fn looped(exchanges: &Exchanges, probes: [ExchangeId; 2]) -> Option<SocketAddr> {
    probes.iter().find_map(|probe| match exchanges.outcome(*probe) {
        Some(Outcome::Looped { from }) => Some(*from),
        _ => None,
    })
}
