//! Numbers from a seed: the core has no randomness of its own.

use ring::hmac;

/// A counter-mode generator over HMAC-SHA256: what it gives cannot be predicted
/// by who has seen earlier output. Used for reservation tokens and, in bulk, for
/// the transaction ids of indications.
pub(super) struct Random {
    key: hmac::Key,
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl Random {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), counter: 0, block: [0; 32], used: 32 }
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32) };
        if self.used + N > self.block.len() {
            self.refill();
        }
        let mut out = [0; N];
        out.copy_from_slice(&self.block[self.used..self.used + N]);
        self.used += N;
        out
    }

    fn refill(&mut self) {
        let tag = hmac::sign(&self.key, &self.counter.to_be_bytes());
        self.block.copy_from_slice(tag.as_ref());
        self.counter += 1;
        self.used = 0;
    }
}

/// Transaction ids of Data indications: unique and evenly spread, but cheap. No
/// one checks them, so they need not be secret.
pub(super) struct Spread {
    state: u64,
}

impl Spread {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) fn next(&mut self) -> [u8; 12] {
        let (a, b) = (self.step().to_be_bytes(), self.step().to_be_bytes());
        let mut out = [0; 12];
        out[..8].copy_from_slice(&a);
        out[8..].copy_from_slice(&b[..4]);
        out
    }

    /// One step of a Weyl sequence with a strong mixer.
    fn step(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
