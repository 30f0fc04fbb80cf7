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

    /// Adds what another shard counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, others) in self.drops.iter_mut().zip(other.drops) {
            *mine += others;
        }
        for (method, result, count) in &other.requests {
            self.requests_of(*method, *result, *count);
        }
        self.traffic.packets_to_peers += other.traffic.packets_to_peers;
        self.traffic.bytes_to_peers += other.traffic.bytes_to_peers;
        self.traffic.packets_to_client += other.traffic.packets_to_client;
        self.traffic.bytes_to_client += other.traffic.bytes_to_client;
    }

    #[inline]
    pub(super) fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    pub(super) fn request(&mut self, method: Method, result: RequestResult) {
        self.requests_of(method, result, 1);
    }

    fn requests_of(&mut self, method: Method, result: RequestResult, more: u64) {
        let known = self.requests.iter_mut().find(|(m, r, _)| (*m, *r) == (method, result));
        match known {
            Some((_, _, count)) => *count += more,
            None => self.requests.push((method, result, more)),
        }
    }
}
