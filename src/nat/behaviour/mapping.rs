//! Mapping behaviour (RFC 5780 section 4.3): one socket asks several endpoints
//! how they see it.
//!
//! 1. The socket of the first contact asks the server's three other endpoints, or
//!    the second server, at once.
//! 2. If one saw it elsewhere, the first endpoint is asked again: it must still see
//!    it where it did, else the mapping is not stable and nothing follows from it.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::SocketId;
use super::super::exchange::{ExchangeId, Exchanges, Request};
use super::super::report::{Finding, Mapping, Unknown};
use super::{Target, reason};

#[derive(Debug)]
pub(in super::super) struct MappingTest {
    socket: SocketId,
    target: Target,
    /// How the first endpoint saw the socket.
    first: SocketAddr,
    second: Option<SocketAddr>,
    views: Option<Views>,
    control: Option<ExchangeId>,
}

/// The same question to other endpoints.
#[derive(Debug)]
struct Views {
    other_address: Option<ExchangeId>,
    other_both: Option<ExchangeId>,
    other_port: Option<ExchangeId>,
    second: Option<ExchangeId>,
}

impl Views {
    fn all(&self) -> Vec<ExchangeId> {
        let Self { other_address, other_both, other_port, second } = self;
        [other_address, other_both, other_port, second].into_iter().copied().flatten().collect()
    }
}

/// Which of the server's other endpoints answer when they are asked: silence after
/// CHANGE-REQUEST says something about these only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Alive {
    pub(in super::super) both: bool,
    pub(in super::super) port: bool,
}

impl MappingTest {
    pub(in super::super) fn new(
        socket: SocketId,
        target: Target,
        first: SocketAddr,
        second: Option<SocketAddr>,
    ) -> Self {
        Self { socket, target, first, second, views: None, control: None }
    }

    /// Returns true when it is over.
    pub(in super::super) fn step(&mut self, now: Instant, exchanges: &mut Exchanges) -> bool {
        let Some(views) = &self.views else {
            let mut ask =
                |to: Option<_>| to.map(|to| exchanges.ask(now, Request::binding(self.socket, to)));
            self.views = Some(Views {
                other_address: ask(self.target.other_address()),
                other_both: ask(self.target.other),
                other_port: ask(self.target.other_port()),
                second: ask(self.second),
            });
            return self.step(now, exchanges);
        };
        if !exchanges.all_over(&views.all()) {
            return false;
        }
        let moved = views.all().iter().any(|id| self.differs(exchanges, Some(*id)) == Some(true));
        if moved && self.control.is_none() {
            let request = Request::binding(self.socket, self.target.primary);
            self.control = Some(exchanges.ask(now, request));
        }
        self.control.is_none_or(|control| exchanges.outcome(control).is_some())
    }

    pub(in super::super) fn alive(&self, exchanges: &Exchanges) -> Alive {
        let answered = |pick: fn(&Views) -> Option<ExchangeId>| {
            self.views.as_ref().and_then(pick).is_some_and(|id| exchanges.answer(id).is_some())
        };
        Alive { both: answered(|v| v.other_both), port: answered(|v| v.other_port) }
    }

    pub(in super::super) fn finding(&self, exchanges: &Exchanges) -> Finding<Mapping> {
        let Some(views) = &self.views else { return Finding::not_tested() };
        if let Some(control) = self.control {
            match self.differs(exchanges, Some(control)) {
                Some(false) => {}
                Some(true) => return Finding::Unknown(Unknown::Unstable),
                None => return Finding::Unknown(reason(exchanges.outcome(control))),
            }
        }
        let seen = |id: Option<ExchangeId>| exchanges.answer(id?).map(|answer| answer.mapped);
        match mapping(self.first, seen(views.other_address), seen(views.other_both)) {
            Finding::Known(mapping) => Finding::Known(mapping),
            Finding::Unknown(why) => {
                self.second_opinion(exchanges, views.second).unwrap_or_else(|| {
                    let why =
                        if self.target.other.is_none() { Unknown::NoOtherAddress } else { why };
                    Finding::Unknown(why)
                })
            }
        }
    }

    /// What the second server adds where the first has no other address.
    fn second_opinion(
        &self,
        exchanges: &Exchanges,
        asked: Option<ExchangeId>,
    ) -> Option<Finding<Mapping>> {
        let differs = self.differs(exchanges, asked)?;
        let same_address = self.second?.ip() == self.target.primary.ip();
        Some(match (differs, same_address) {
            (true, true) => Finding::Known(Mapping::AddressAndPortDependent),
            (true, false) => Finding::Known(Mapping::Dependent),
            (false, false) => Finding::Known(Mapping::EndpointIndependent),
            // It could still depend on the address.
            (false, true) => Finding::Unknown(Unknown::NoOtherAddress),
        })
    }

    /// Whether an endpoint saw the socket elsewhere than the first one did.
    fn differs(&self, exchanges: &Exchanges, asked: Option<ExchangeId>) -> Option<bool> {
        exchanges.answer(asked?).map(|answer| answer.mapped != self.first)
    }
}

/// RFC 5780 section 4.3: how the first endpoint, the other address with the same
/// port and the other address with the other port see one socket.
pub(super) fn mapping(
    first: SocketAddr,
    other_address: Option<SocketAddr>,
    other_both: Option<SocketAddr>,
) -> Finding<Mapping> {
    Finding::Known(match (other_address, other_both) {
        (None, None) => return Finding::Unknown(Unknown::AlternateSilent),
        (Some(a), Some(b)) if a == b && a != first => Mapping::AddressDependent,
        (Some(a), Some(b)) if a != first || b != first => Mapping::AddressAndPortDependent,
        (Some(one), None) | (None, Some(one)) if one != first => Mapping::Dependent,
        _ => Mapping::EndpointIndependent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_views_of_one_socket() {
        use Mapping::*;
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        for (other_address, other_both, expected) in [
            (Some(1), Some(1), Some(EndpointIndependent)),
            (Some(2), Some(2), Some(AddressDependent)),
            (Some(2), Some(3), Some(AddressAndPortDependent)),
            (Some(2), Some(1), Some(AddressAndPortDependent)),
            (Some(1), Some(2), Some(AddressAndPortDependent)),
            (Some(1), None, Some(EndpointIndependent)),
            (None, Some(1), Some(EndpointIndependent)),
            (Some(2), None, Some(Dependent)),
            (None, Some(2), Some(Dependent)),
            (None, None, None),
        ] {
            let found = mapping(at(1), other_address.map(at), other_both.map(at));
            assert_eq!(found.known(), expected, "{other_address:?} {other_both:?}");
        }
    }
}
