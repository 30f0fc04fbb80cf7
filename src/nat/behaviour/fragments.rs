//! Fragments (RFC 5780 section 4.7): do datagrams that fit no packet get through?
//!
//! 1. A request with a little PADDING makes the server pad its answer to the size
//!    of its MTU: only the answer is fragmented.
//! 2. A request with much PADDING is fragmented itself. Any answer proves that it
//!    arrived, be it an error.
//! 3. What stays away is asked for once more without PADDING, as a control.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::SocketId;
use super::super::exchange::{ExchangeId, Exchanges, Outcome, Request};
use super::super::report::{Finding, Fragments, Unknown};
use super::super::wire::Ask;
use super::{Target, reason};

/// Enough that a request fits no Ethernet frame.
const MUCH: usize = 1600;
const LITTLE: usize = 4;
/// What an Ethernet frame takes of a UDP payload, over IPv4.
const FRAME: usize = 1500 - 20 - 8;

#[derive(Debug)]
pub(in super::super) struct FragmentsTest {
    socket: SocketId,
    primary: SocketAddr,
    little: ExchangeId,
    much: ExchangeId,
    control: Option<ExchangeId>,
    /// A server that does not know PADDING may have reason to drop long requests.
    silence_counts: bool,
}

impl FragmentsTest {
    pub(in super::super) fn new(now: Instant, exchanges: &mut Exchanges, target: Target) -> Self {
        let socket = exchanges.open_udp(None);
        let plain = Request::binding(socket, target.primary);
        let mut ask = |ask| exchanges.ask(now, Request { ask, ..plain });
        let little = ask(Ask::Padded(LITTLE));
        let much = ask(Ask::Padded(MUCH));
        let silence_counts = target.other.is_some();
        Self { socket, primary: target.primary, little, much, control: None, silence_counts }
    }

    /// Returns true when it is over.
    pub(in super::super) fn step(&mut self, now: Instant, exchanges: &mut Exchanges) -> bool {
        if !exchanges.all_over(&[self.little, self.much]) {
            return false;
        }
        let silent = |id| exchanges.outcome(id) == Some(&Outcome::Silence);
        if self.control.is_none() && (silent(self.little) || silent(self.much)) {
            let request = Request::binding(self.socket, self.primary);
            self.control = Some(exchanges.ask(now, request));
        }
        self.control.is_none_or(|control| exchanges.outcome(control).is_some())
    }

    pub(in super::super) fn requests(&self, exchanges: &Exchanges) -> Finding<Fragments> {
        match exchanges.outcome(self.much) {
            Some(Outcome::Answered(_) | Outcome::Refused { .. }) => Finding::Known(Fragments::Pass),
            Some(Outcome::Silence) => match self.silence(exchanges) {
                // The request may have arrived and its padded answer not.
                Ok(()) if self.responses(exchanges) == Finding::Known(Fragments::Drop) => {
                    Finding::Unknown(Unknown::Lost)
                }
                Ok(()) => Finding::Known(Fragments::Drop),
                Err(why) => Finding::Unknown(why),
            },
            other => Finding::Unknown(reason(other)),
        }
    }

    pub(in super::super) fn responses(&self, exchanges: &Exchanges) -> Finding<Fragments> {
        let answers = [self.little, self.much].map(|id| exchanges.answer(id));
        if answers.iter().flatten().any(|answer| answer.length > FRAME) {
            return Finding::Known(Fragments::Pass);
        }
        match exchanges.outcome(self.little) {
            Some(Outcome::Answered(_)) => Finding::Unknown(Unknown::ServerIgnores),
            Some(Outcome::Silence) => match self.silence(exchanges) {
                Ok(()) => Finding::Known(Fragments::Drop),
                Err(why) => Finding::Unknown(why),
            },
            other => Finding::Unknown(reason(other)),
        }
    }

    /// Whether silence means anything.
    fn silence(&self, exchanges: &Exchanges) -> Result<(), Unknown> {
        match self.control {
            Some(control) if exchanges.answer(control).is_some() => {
                if self.silence_counts {
                    Ok(())
                } else {
                    Err(Unknown::ServerIgnores)
                }
            }
            control => Err(reason(control.and_then(|control| exchanges.outcome(control)))),
        }
    }
}
