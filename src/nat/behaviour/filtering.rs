//! Filtering behaviour (RFC 5780 section 4.4): who gets in through a mapping.
//!
//! 1. A socket that has sent to nobody asks the server's first endpoint, which opens
//!    a mapping and, in the NAT's filter, a way back from there only.
//! 2. In rounds it asks for an answer from the other address and port, for one from
//!    the other port, and, as a control, for a plain one.
//! 3. An answer is proof. Silence counts after six rounds if every control was
//!    answered, else after twelve if five of them were: even with that much loss an
//!    answer would have stayed away once in seven hundred times.
//! 4. Silence from an endpoint that answers nobody says nothing: the mapping test
//!    has asked each of them directly.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::SocketId;
use super::super::exchange::{ExchangeId, Exchanges, Outcome, Request, last_word, offset};
use super::super::report::{Filtering, Finding, Misrouted, Unknown};
use super::super::wire::Ask;
use super::{Alive, Target, reason};

/// Rounds after which silence counts where nothing is lost.
const ROUNDS: u32 = 6;
/// Rounds in all.
const MOST_ROUNDS: u32 = 12;
/// Controls that have to be answered of those.
const ENOUGH_CONTROLS: usize = 5;

#[derive(Debug)]
pub(in super::super) struct FilteringTest {
    socket: SocketId,
    target: Target,
    contact: ExchangeId,
    rounds: Option<Rounds>,
    over: bool,
}

#[derive(Debug)]
struct Rounds {
    started: Instant,
    both: ExchangeId,
    port: ExchangeId,
    controls: Vec<ExchangeId>,
}

impl FilteringTest {
    pub(in super::super) fn new(now: Instant, exchanges: &mut Exchanges, target: Target) -> Self {
        let socket = exchanges.open_udp(None);
        let contact = exchanges.ask(now, Request::binding(socket, target.primary));
        Self { socket, target, contact, rounds: None, over: false }
    }

    /// When [`Self::step`] is wanted apart from what arrives.
    pub(in super::super) fn due(&self, unit: Duration) -> Option<Instant> {
        let rounds = self.rounds.as_ref().filter(|_| !self.over)?;
        let asked = rounds.controls.len() as u32;
        let units = match asked {
            ROUNDS => last_word(ROUNDS),
            MOST_ROUNDS => last_word(MOST_ROUNDS),
            _ => offset(asked),
        };
        Some(rounds.started + unit * units)
    }

    /// Returns true when it is over.
    pub(in super::super) fn step(&mut self, now: Instant, exchanges: &mut Exchanges) -> bool {
        let (Some(both), Some(port)) = (self.target.other, self.target.other_port()) else {
            return true;
        };
        if self.over || exchanges.outcome(self.contact).is_none() {
            return self.over;
        }
        if exchanges.answer(self.contact).is_none() {
            return true;
        }
        if self.rounds.is_none() {
            self.start(now, exchanges, both, port);
        }
        let Some(rounds) = &mut self.rounds else { return true };
        self.over = rounds.step(now, exchanges, self.socket, self.target.primary);
        if self.over {
            rounds.stop(exchanges);
        }
        self.over
    }

    fn start(
        &mut self,
        now: Instant,
        exchanges: &mut Exchanges,
        both: SocketAddr,
        port: SocketAddr,
    ) {
        let plain = Request::binding(self.socket, self.target.primary);
        let mut ask = |ask, answer_from| {
            exchanges.ask(now, Request { ask, answer_from, sends: MOST_ROUNDS, ..plain })
        };
        let both = ask(Ask::ChangeBoth, both);
        let port = ask(Ask::ChangePort, port);
        self.rounds = Some(Rounds { started: now, both, port, controls: Vec::new() });
    }

    /// An answer from the wrong endpoint and none from the right one.
    pub(in super::super) fn misrouted(&self, exchanges: &Exchanges) -> Option<Misrouted> {
        let rounds = self.rounds.as_ref()?;
        let wrong = |id, expected: Option<SocketAddr>| match exchanges.meanwhile(id)? {
            Outcome::Misrouted { from } if exchanges.answer(id).is_none() => {
                Some(Misrouted { expected: expected?, from: *from })
            }
            _ => None,
        };
        // Where the other address has answered, nothing depends on the port.
        if exchanges.answer(rounds.both).is_some() {
            return None;
        }
        wrong(rounds.both, self.target.other)
            .or_else(|| wrong(rounds.port, self.target.other_port()))
    }

    pub(in super::super) fn finding(
        &self,
        exchanges: &Exchanges,
        alive: Alive,
    ) -> Finding<Filtering> {
        if self.target.other.is_none() {
            return Finding::Unknown(Unknown::NoOtherAddress);
        }
        let Some(rounds) = &self.rounds else {
            return Finding::Unknown(reason(exchanges.outcome(self.contact)));
        };
        if exchanges.answer(rounds.both).is_some() {
            return Finding::Known(Filtering::EndpointIndependent);
        }
        if self.has_moved(exchanges, rounds) {
            return Finding::Unknown(Unknown::Unstable);
        }
        let silent = |id, alive: bool| match exchanges.outcome(id) {
            Some(Outcome::Refused { .. }) => Err(Unknown::ServerRefuses),
            Some(Outcome::Unsendable(_)) => Err(Unknown::Local),
            _ if !alive => Err(Unknown::AlternateSilent),
            _ if rounds.silence_counts(exchanges) => Ok(()),
            _ => Err(Unknown::Lost),
        };
        if let Err(why) = silent(rounds.both, alive.both) {
            return Finding::Unknown(why);
        }
        if exchanges.answer(rounds.port).is_some() {
            return Finding::Known(Filtering::AddressDependent);
        }
        match silent(rounds.port, alive.port) {
            Ok(()) => Finding::Known(Filtering::AddressAndPortDependent),
            Err(why) => Finding::Unknown(why),
        }
    }

    /// Whether the mapping under test was replaced by another in the middle.
    fn has_moved(&self, exchanges: &Exchanges, rounds: &Rounds) -> bool {
        let first = exchanges.answer(self.contact).map(|answer| answer.mapped);
        let mut later = rounds.controls.iter().filter_map(|id| exchanges.answer(*id));
        later.any(|answer| Some(answer.mapped) != first)
    }
}

impl Rounds {
    fn step(
        &mut self,
        now: Instant,
        exchanges: &mut Exchanges,
        socket: SocketId,
        primary: SocketAddr,
    ) -> bool {
        if exchanges.answer(self.both).is_some() || self.is_refused(exchanges) {
            return true;
        }
        let elapsed = now.saturating_duration_since(self.started);
        let reached = |units: u32| elapsed >= exchanges.unit() * units;
        if reached(last_word(MOST_ROUNDS)) || exchanges.all_over(&[self.both, self.port]) {
            return true;
        }
        if self.controls.len() as u32 == ROUNDS
            && reached(last_word(ROUNDS))
            && self.answered(exchanges) == self.controls.len()
        {
            return true;
        }
        let asked = self.controls.len() as u32;
        let wait_for_verdict = asked == ROUNDS && !reached(last_word(ROUNDS));
        if asked < MOST_ROUNDS && reached(offset(asked)) && !wait_for_verdict {
            let request = Request { sends: 1, ..Request::binding(socket, primary) };
            self.controls.push(exchanges.ask(now, request));
            return self.step(now, exchanges, socket, primary);
        }
        false
    }

    fn stop(&self, exchanges: &mut Exchanges) {
        for id in [self.both, self.port].iter().chain(&self.controls) {
            exchanges.stop(*id);
        }
    }

    fn is_refused(&self, exchanges: &Exchanges) -> bool {
        let refused = |id| matches!(exchanges.outcome(id), Some(Outcome::Refused { .. }));
        refused(self.both) || refused(self.port)
    }

    fn answered(&self, exchanges: &Exchanges) -> usize {
        self.controls.iter().filter(|id| exchanges.answer(**id).is_some()).count()
    }

    fn silence_counts(&self, exchanges: &Exchanges) -> bool {
        let (asked, answered) = (self.controls.len(), self.answered(exchanges));
        match asked as u32 {
            ROUNDS => answered == asked,
            MOST_ROUNDS => answered >= ENOUGH_CONTROLS,
            _ => false,
        }
    }
}
