//! One request on its way: the retransmission schedule of RFC 8489 section 6.2
//! and what has to be remembered to judge the answer.

use std::time::{Duration, Instant};

use crate::net::{Now, Transport};

use super::Transaction;
use super::challenge::Signature;
use super::request::Request;

/// Timers of RFC 8489 sections 6.2.1 and 6.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmission {
    /// RTO: the wait after the first transmission; doubled after each further one.
    pub rto: Duration,
    /// Rc: how often a request is sent in all.
    pub rc: u32,
    /// Rm: the wait after the last transmission, in units of the initial RTO.
    pub rm: u32,
    /// Ti: the wait for an answer on a reliable transport.
    pub ti: Duration,
}

impl Default for Retransmission {
    /// 500 ms, 7, 16 and 39.5 s.
    fn default() -> Self {
        Self { rto: Duration::from_millis(500), rc: 7, rm: 16, ti: Duration::from_millis(39_500) }
    }
}

/// What the caller wants, over all the transactions on the wire that it takes.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) transaction: Transaction,
    pub(super) request: Request,
    /// How often the server has answered 401.
    pub(super) unauthenticated: u32,
    /// How often the server has answered 438.
    pub(super) stale: u32,
}

impl Intent {
    pub(super) fn new(transaction: Transaction, request: Request) -> Self {
        Self { transaction, request, unauthenticated: 0, stale: 0 }
    }

    /// Whether the next transmission carries the credentials, if there are any:
    /// TURN requests always, Binding once the server has insisted.
    pub(super) fn wants_credentials(&self) -> bool {
        self.unauthenticated > 0 || !self.request.is_binding()
    }
}

/// One transaction on the wire.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) intent: Intent,
    /// What the request was signed with, `None` if it was not.
    pub(super) signature: Option<Signature>,
    bytes: Vec<u8>,
    retries: Retries,
    due: Instant,
}

#[derive(Debug)]
enum Retries {
    /// A stream delivers or breaks.
    Never,
    /// So many transmissions so far, and the wait after the last of them.
    Doubling { sent: u32, wait: Duration },
}

impl Exchange {
    /// A transaction whose first transmission is `bytes`, now.
    pub(super) fn new(
        now: Now,
        intent: Intent,
        signature: Option<Signature>,
        bytes: Vec<u8>,
        transport: Transport,
        timers: &Retransmission,
    ) -> Self {
        let (retries, wait) = if transport.is_stream() {
            (Retries::Never, timers.ti)
        } else {
            let wait = if timers.rc > 1 { timers.rto } else { timers.rto * timers.rm };
            (Retries::Doubling { sent: 1, wait }, wait)
        };
        Self { intent, signature, bytes, retries, due: now.mono + wait }
    }

    /// When to retransmit or to give up.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The bytes to send again, or `None` when the transaction has timed out. The
    /// schedule runs from the first transmission, so that a late call does not
    /// stretch it.
    pub(super) fn retransmit(&mut self, timers: &Retransmission) -> Option<Vec<u8>> {
        let Retries::Doubling { sent, wait } = &mut self.retries else { return None };
        if *sent >= timers.rc {
            return None;
        }
        *sent += 1;
        *wait = if *sent == timers.rc { timers.rto * timers.rm } else { *wait * 2 };
        self.due += *wait;
        Some(self.bytes.clone())
    }
}
