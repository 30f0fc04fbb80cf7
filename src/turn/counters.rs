//! What a shard counts: plain numbers, no labels made of input.

use super::vocabulary::{DropReason, Traffic};
use crate::stun::{ErrorCode, Method};

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestResult {
    /// With a success response.
    Success,
    /// With this error code.
    Error(ErrorCode),
}

/// Counters of one shard, since its start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    drops: [u64; DropReason::ALL.len()],
    requests: Vec<(Method, RequestResult, u64)>,
    /// Application data relayed, over all allocations, gone ones included.
    pub traffic: Traffic,
}

impl Counters {
    /// Packets dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn total_drops(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Requests answered, by method and result: at most methods times codes.
    pub fn requests(&self) -> &[(Method, RequestResult, u64)] {
        &self.requests
    }

    #[inline]
    pub(super) fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    pub(super) fn request(&mut self, method: Method, result: RequestResult) {
        let known = self.requests.iter_mut().find(|(m, r, _)| (*m, *r) == (method, result));
        match known {
            Some((_, _, count)) => *count += 1,
            None => self.requests.push((method, result, 1)),
        }
    }
}
