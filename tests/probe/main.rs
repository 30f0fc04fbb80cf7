//! `sturn probe` as a process: against `sturn serve`, against coturn, and against
//! servers that do what servers in the field do wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/turnserver.rs"]
#[allow(dead_code, reason = "shared with the tests of sturn load")]
mod turnserver;

#[path = "../serve/setup.rs"]
#[allow(dead_code, reason = "shared with the tests of the server")]
mod setup;

mod certificates;
mod coturn;
mod dtls;
mod fake;
mod foreign;
mod interrupt;
mod names;
mod refusals;
mod run;
mod wire;
mod working;
