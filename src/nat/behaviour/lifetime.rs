//! Lifetime of an idle mapping (RFC 5780 section 4.6): how long after its last
//! packet does a mapping still let answers in?
//!
//! 1. An asking socket has the server answer to the mapped port of another socket
//!    (RESPONSE-PORT), at once: if that does not arrive, the server cannot do it.
//! 2. A ladder of sockets opens mappings at the same time, and each is left alone
//!    for a longer while than the one before. So the whole search takes as long as
//!    the mapping lives, where halving an interval would wait for each probe anew;
//!    and a probe never refreshes a mapping that is still to be judged.
//! 3. The search ends when two rungs in a row are gone, or at the top.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::exchange::{ExchangeId, Exchanges, Outcome, Request};
use super::super::report::{Finding, Lifetime, Unknown};
use super::super::wire::{Ask, ResponsePortForm};
use super::super::{Progress, SocketId};
use super::{Target, reason};

/// The shortest wait but for a shorter maximum.
const SHORTEST: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in super::super) struct LifetimeTest {
    asker: Probed,
    primary: SocketAddr,
    longest: Duration,
    /// The socket that the server's ability is tried on, and the trials.
    pilot: Probed,
    trials: Vec<(ResponsePortForm, ExchangeId)>,
    ladder: Vec<Rung>,
    over: bool,
    why_not: Option<Unknown>,
}

/// A socket and its first question.
#[derive(Clone, Copy, Debug)]
struct Probed {
    socket: SocketId,
    contact: ExchangeId,
}

#[derive(Debug)]
struct Rung {
    wait: Duration,
    probed: Probed,
    /// When its mapping was last used.
    idle_since: Option<Instant>,
    probe: Option<ExchangeId>,
    control: Option<ExchangeId>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Alive,
    Gone,
    /// The probe was lost, or the mapping was not the asker's to test.
    Useless,
}

impl LifetimeTest {
    pub(in super::super) fn new(
        now: Instant,
        exchanges: &mut Exchanges,
        target: Target,
        longest: Duration,
    ) -> Self {
        let primary = target.primary;
        exchanges.tell(Progress::MeasuringLifetime { longest });
        Self {
            asker: Probed::new(now, exchanges, primary),
            pilot: Probed::new(now, exchanges, primary),
            primary,
            longest,
            trials: Vec::new(),
            ladder: Vec::new(),
            over: false,
            why_not: None,
        }
    }

    pub(in super::super) fn due(&self) -> Option<Instant> {
        let waiting = self.ladder.iter().filter(|rung| rung.probe.is_none() && !self.over);
        waiting.filter_map(|rung| Some(rung.idle_since? + rung.wait)).min()
    }

    /// Returns true when it is over.
    pub(in super::super) fn step(&mut self, now: Instant, exchanges: &mut Exchanges) -> bool {
        if self.over {
            return true;
        }
        if self.ladder.is_empty() {
            match self.try_server(now, exchanges) {
                Ok(true) => self.raise_ladder(now, exchanges),
                Ok(false) => {}
                Err(why) => {
                    self.why_not = Some(why);
                    self.over = true;
                }
            }
            return self.over;
        }
        let form = self.form(exchanges);
        for rung in &mut self.ladder {
            if let Some(news) = rung.step(now, exchanges, (self.asker, self.primary, form)) {
                exchanges.tell(news);
            }
        }
        self.over = self.is_settled();
        self.over
    }

    pub(in super::super) fn finding(&self) -> Finding<Lifetime> {
        if let Some(why) = self.why_not {
            return Finding::Unknown(why);
        }
        let is = |state| move |rung: &&Rung| rung.state == state;
        let at_least = self.ladder.iter().filter(is(State::Alive)).map(|rung| rung.wait).max();
        let at_least = at_least.unwrap_or_default();
        let gone = self.ladder.iter().filter(is(State::Gone)).map(|rung| rung.wait);
        let less_than = gone.filter(|wait| *wait > at_least).min();
        if at_least.is_zero() && less_than.is_none() {
            return Finding::Unknown(Unknown::OutOfTime);
        }
        Finding::Known(Lifetime { at_least, less_than })
    }

    /// Whether the server answers to another port when asked to.
    fn try_server(&mut self, now: Instant, exchanges: &mut Exchanges) -> Result<bool, Unknown> {
        let contacts = [self.asker.contact, self.pilot.contact];
        if !exchanges.all_over(&contacts) {
            return Ok(false);
        }
        let [asker, pilot] = contacts.map(|id| exchanges.answer(id).map(|answer| answer.mapped));
        let (Some(asker), Some(pilot)) = (asker, pilot) else {
            return Err(reason(exchanges.outcome(self.asker.contact)));
        };
        if asker.ip() != pilot.ip() {
            return Err(Unknown::DifferentAddresses);
        }
        let Some((form, trial)) = self.trials.last().copied() else {
            self.try_form(now, exchanges, ResponsePortForm::Short, pilot.port());
            return Ok(false);
        };
        let strayed = exchanges.meanwhile(trial) == Some(&Outcome::Strayed);
        match (exchanges.outcome(trial), form) {
            (None, _) if !strayed => Ok(false),
            (Some(Outcome::Answered(_)), _) => Ok(true),
            (_, ResponsePortForm::Short) => {
                exchanges.stop(trial);
                self.try_form(now, exchanges, ResponsePortForm::Long, pilot.port());
                Ok(false)
            }
            (Some(Outcome::Refused { .. }), _) => Err(Unknown::ServerRefuses),
            _ => Err(Unknown::ServerIgnores),
        }
    }

    fn try_form(
        &mut self,
        now: Instant,
        exchanges: &mut Exchanges,
        form: ResponsePortForm,
        port: u16,
    ) {
        let ask = Ask::ResponsePort(port, form);
        let request = Request {
            ask,
            answer_at: self.pilot.socket,
            ..Request::binding(self.asker.socket, self.primary)
        };
        self.trials.push((form, exchanges.ask(now, request)));
    }

    /// The form that the server has understood.
    fn form(&self, exchanges: &Exchanges) -> ResponsePortForm {
        let good = self.trials.iter().find(|(_, trial)| exchanges.answer(*trial).is_some());
        good.map_or(ResponsePortForm::Short, |(form, _)| *form)
    }

    fn raise_ladder(&mut self, now: Instant, exchanges: &mut Exchanges) {
        self.ladder = waits(self.longest)
            .into_iter()
            .map(|wait| Rung {
                wait,
                probed: Probed::new(now, exchanges, self.primary),
                idle_since: None,
                probe: None,
                control: None,
                state: State::Waiting,
            })
            .collect();
    }

    /// Two rungs in a row are gone, or nothing is left to wait for.
    fn is_settled(&self) -> bool {
        let judged: Vec<State> =
            self.ladder.iter().map(|rung| rung.state).filter(|s| *s != State::Useless).collect();
        judged.windows(2).any(|pair| pair == [State::Gone, State::Gone])
            || judged.iter().all(|state| *state != State::Waiting)
    }
}

impl Probed {
    fn new(now: Instant, exchanges: &mut Exchanges, primary: SocketAddr) -> Self {
        let socket = exchanges.open_udp(None);
        Self { socket, contact: exchanges.ask(now, Request::binding(socket, primary)) }
    }
}

impl Rung {
    fn step(
        &mut self,
        now: Instant,
        exchanges: &mut Exchanges,
        (asker, primary, form): (Probed, SocketAddr, ResponsePortForm),
    ) -> Option<Progress> {
        if self.state != State::Waiting || exchanges.outcome(self.probed.contact).is_none() {
            return None;
        }
        let mapped = |id| exchanges.answer(id).map(|answer| answer.mapped);
        let own = mapped(self.probed.contact);
        let Some(own) = own.filter(|own| mapped(asker.contact).map(|a| a.ip()) == Some(own.ip()))
        else {
            self.state = State::Useless;
            return None;
        };
        let idle_since = *self.idle_since.get_or_insert(now);
        if now < idle_since + self.wait {
            return None;
        }
        let plain = Request::binding(asker.socket, primary);
        let probe = *self.probe.get_or_insert_with(|| {
            let ask = Ask::ResponsePort(own.port(), form);
            exchanges.ask(now, Request { ask, answer_at: self.probed.socket, ..plain })
        });
        if exchanges.answer(probe).is_some() {
            exchanges.close(self.probed.socket);
            self.state = State::Alive;
            return Some(Progress::MappingAlive { after: self.wait });
        }
        exchanges.outcome(probe)?;
        let control = *self.control.get_or_insert_with(|| exchanges.ask(now, plain));
        exchanges.outcome(control)?;
        exchanges.close(self.probed.socket);
        if exchanges.answer(control).is_none() {
            self.state = State::Useless;
            return None;
        }
        self.state = State::Gone;
        Some(Progress::MappingGone { after: self.wait })
    }
}

/// How long to leave each mapping alone: each a fifth longer than the one before,
/// in whole seconds, and the longest at last.
fn waits(longest: Duration) -> Vec<Duration> {
    let mut waits = Vec::new();
    let mut wait = SHORTEST;
    while wait < longest {
        waits.push(wait);
        wait += Duration::from_secs((wait.as_secs() / 5).max(1));
    }
    waits.push(longest);
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder() {
        let secs = |longest| -> Vec<u64> {
            waits(Duration::from_secs(longest)).iter().map(Duration::as_secs).collect()
        };
        assert_eq!(secs(2), [2]);
        assert_eq!(secs(5), [5]);
        assert_eq!(secs(12), [5, 6, 7, 8, 9, 10, 12]);
        let most = secs(600);
        assert!(most.len() < 40 && most.windows(2).all(|w| w[0] < w[1]), "{most:?}");
    }
}
