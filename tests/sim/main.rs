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
#![allow(clippy::print_stdout, reason = "it tells how to repeat a failed run")]
#![allow(unreachable_pub, reason = "one binary, several files")]

mod act;
mod answers;
mod client;
mod forecast;
mod judge;
mod kernel;
mod model;
mod path;
mod peers;
mod rng;
mod roaming;
mod settle;
mod setup;
mod token;
mod wire;
mod world;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use sturn::net::HashSeed;

use world::{TRACE, Tally, World};

const SEEDS: u64 = 128;
const STEPS: u64 = 2000;

/// What a battery of runs has to come across, or it does not test what it says.
const EVERYWHERE: &[&str] = &[
    "ICMP error told",
    "allocation for TCP",
    "allocation for a token",
    "allocation moved to another shard",
    "allocation moved within a shard",
    "allocation connection closed",
    "allocation deleted by client",
    "allocation expired",
    "allocation of two families",
    "data in an indication",
    "data on a channel",
    "data to a peer",
    "data to another relay of the shard",
    "data to the kernel",
    "bytes passed to a peer",
    "connection bound",
    "connection given up",
    "connection handed over",
    "data to the kernel behind NAT",
    "error 300",
    "error 400",
    "error 401",
    "error 403",
    "error 405",
    "error 420",
    "error 437",
    "error 438",
    "error 440",
    "error 441",
    "error 442",
    "error 443",
    "error 446",
    "error 447",
    "error 486",
    "error 508",
    "move to another shard granted",
    "peer accepted",
    "peer connection closed",
    "peer connection control connection closed",
    "peer connection not bound in time",
    "peer connection relay closed",
    "peer connection replaced by a newer one",
    "peer refused",
    "reserved port claimed",
];

#[test]
fn sim_random_runs() {
    let hash_seed = HashSeed::new(1);
    let steps = number("SIM_STEPS").unwrap_or(STEPS);
    if let Some(seed) = number("SIM_SEED") {
        return repeat(seed, steps, hash_seed);
    }
    let (next, seeds) = (AtomicU64::new(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let outcomes: Vec<Result<Tally, u64>> = std::thread::scope(|scope| {
        let work = || {
            let mut sum = Tally::new();
            while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|s| *s < seeds)
            {
                let Ok(world) = catch_unwind(|| run(seed, steps, hash_seed)) else {
                    next.store(seeds, Ordering::Relaxed);
                    return Err(seed);
                };
                add(&mut sum, world.tally);
            }
            Ok(sum)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().expect("panics are caught")).collect()
    });
    let mut sum = Tally::new();
    for outcome in outcomes {
        match outcome {
            Ok(tally) => add(&mut sum, tally),
            Err(seed) => {
                repeat(seed, steps, hash_seed);
                panic!("seed {seed} failed, but not when repeated: not deterministic");
            }
        }
    }
    println!("{seeds} seeds of {steps} steps: {sum:#?}");
    // A few short runs need not go everywhere.
    if seeds >= SEEDS && steps >= STEPS {
        for what in EVERYWHERE {
            assert!(sum.contains_key(*what), "no run came across: {what}");
        }
    }
}

#[test]
fn sim_same_seed_same_run() {
    let hash_seed = HashSeed::new(1);
    for seed in [3, 4] {
        let [first, second] = [(); 2].map(|()| run(seed, 300, hash_seed).digest);
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(run(3, 300, hash_seed).digest, run(4, 300, hash_seed).digest);
}

/// One run; returns the world as it is afterwards.
fn run(seed: u64, steps: u64, hash_seed: HashSeed) -> World {
    let mut world = World::new(seed, hash_seed);
    for _ in 0..steps {
        world.step();
    }
    world.drain();
    world.settle();
    world.drain();
    world
}

fn add(sum: &mut Tally, tally: Tally) {
    for (what, count) in tally {
        *sum.entry(what).or_default() += count;
    }
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
