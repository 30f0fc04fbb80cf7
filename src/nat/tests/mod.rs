//! The procedure against simulated NATs and servers, in virtual time.

mod classes;
mod lifetime;
mod nat;
mod network;
mod server;
mod servers;
mod streams;
mod verdicts;
mod world;

use std::net::SocketAddr;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
