//! sturn: a STUN and TURN server.
//!
//! This file is the map. A module may use only the modules above it in this
//! list; `tests/layers.rs` checks it.
//!
//! Pure: no socket, no clock, no lock, no randomness of its own, no `unsafe`.
//! `cargo check --lib --no-default-features` builds these alone.
//!
//! | module | room |
//! |---|---|
//! | [`net`] | addresses by role, transports, five-tuples, time as an input |
//! | [`stun`] | bytes to messages and back: RFC 8489, ChannelData, framing, demultiplexing |
//! | [`front`] | what a stream begins with: protocol, PROXY header, the name a TLS client wants |
//! | [`auth`] | long-term keys, time-limited credentials, stateless nonces |
//! | [`turn`] | the core: allocations, permissions, channels, requests, data path, policy |
//! | [`client`] | the client's side, on an independent codec: tests, probes, load |
//! | [`nat`] | which NAT a client is behind: the procedure of RFC 5780 and its report |
//!
//! Pure, but built with the `daemon` feature only:
//!
//! | module | room |
//! |---|---|
//! | [`tls`] | TLS and DTLS sessions: bytes in, bytes and plaintext out; certificates |
//! | [`config`] | a TOML file to valid settings, or every problem in it |
//!
//! Shell:
//!
//! | module | room |
//! |---|---|
//! | [`io`] | system calls, buffers and the only `unsafe`; knows no STUN |
//! | [`worker`] | one thread, one shard: sockets, core, egress, mailbox |
//! | [`daemon`] | start, signals, logs |
//! | [`cli`] | the commands |
//!
//! The way of a data packet, five files in one direction: `io/udp` (receive) →
//! `worker/mod` → `stun/demux` → `turn/relay` → `worker/egress` → `io/udp` (send).
//! `docs/packet-path.md` tells it with names.

pub mod auth;
pub mod client;
pub mod front;
pub mod nat;
pub mod net;
pub mod stun;
pub mod turn;

#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod io;
#[cfg(feature = "daemon")]
pub mod tls;
#[cfg(feature = "daemon")]
pub mod worker;
