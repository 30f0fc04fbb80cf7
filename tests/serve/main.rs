//! The server as a process, asked over real sockets: what clients and peers see
//! of it, how it starts, how it ends and what hostile traffic does to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod backend;
mod battery;
mod binding;
mod certificates;
mod credentials;
mod discovery;
mod dtls;
mod first_run;
mod floods;
mod limits;
mod marks;
mod mobility;
mod oauth;
mod proxies;
mod relaying;
mod reservations;
mod setup;
mod shards;
mod slow_reader;
mod start;
mod stop;
mod streams;
mod sys;
mod tcp_relay;
mod tls;
mod trains;
