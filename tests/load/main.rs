//! `sturn load` as a process: against `sturn serve` and against coturn.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/turnserver.rs"]
mod turnserver;

#[path = "../serve/setup.rs"]
#[allow(dead_code, reason = "shared with the tests of the server")]
mod setup;

mod coturn;
mod interrupt;
mod media;
mod refusals;
mod run;
mod storms;
