//! Deterministic simulation of the core: one seed, one run.
//!
//! Several shards, real clients over a network that loses, alters, repeats,
//! delays and splits, a shell that is slow and fails, peers that answer from the
//! wrong address, all in virtual time. A shadow model says what ought to come of
//! every call; each run ends when everything has expired and nothing is left.
//!
//! `SIM_SEEDS` (how many), `SIM_SEED` (just that one) and `SIM_STEPS` change what
//! is run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "one binary, several files")]

mod act;
mod client;
mod judge;
mod kernel;
mod model;
mod rng;
mod setup;
mod wire;
mod world;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use sturn::net::HashSeed;

use world::{TRACE, World};

const SEEDS: u64 = 64;
const STEPS: u64 = 1000;

#[test]
fn sim_random_runs() {
    let hash_seed = HashSeed::new(1);
    let steps = number("SIM_STEPS").unwrap_or(STEPS);
    if let Some(seed) = number("SIM_SEED") {
        return repeat(seed, steps, hash_seed);
    }
    let (next, seeds) = (AtomicU64::new(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed = std::thread::scope(|scope| {
        let work = || {
            while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|s| *s < seeds)
            {
                if catch_unwind(|| run(seed, steps, hash_seed)).is_err() {
                    next.store(seeds, Ordering::Relaxed);
                    return Some(seed);
                }
            }
            None
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|t| t.join().expect("panics are caught")).min()
    });
    if let Some(seed) = failed {
        repeat(seed, steps, hash_seed);
        panic!("seed {seed} failed, but not when it was repeated: the run is not deterministic");
    }
}

#[test]
fn sim_same_seed_same_run() {
    let hash_seed = HashSeed::new(1);
    for seed in [3, 4] {
        assert_eq!(run(seed, 300, hash_seed), run(seed, 300, hash_seed), "seed {seed}");
    }
    assert_ne!(run(3, 300, hash_seed), run(4, 300, hash_seed));
}

/// One run; returns a digest of what the cores did.
fn run(seed: u64, steps: u64, hash_seed: HashSeed) -> u64 {
    let mut world = World::new(seed, hash_seed);
    for _ in 0..steps {
        world.step();
    }
    world.drain();
    world.settle();
    world.drain();
    world.digest
}

/// One run, remembering its last actions.
fn repeat(seed: u64, steps: u64, hash_seed: HashSeed) {
    TRACE.set(Some(VecDeque::new()));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, steps, hash_seed)));
    let trace = TRACE.take().unwrap_or_default();
    if let Err(panic) = outcome {
        println!("the last actions of seed {seed}:");
        for line in trace {
            println!("{line}");
        }
        println!("repeat: SIM_SEED={seed} SIM_STEPS={steps} cargo test --test sim sim_random_runs");
        resume_unwind(panic);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
