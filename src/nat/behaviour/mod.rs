//! The tests, one file each: which question is asked, on which sockets, and what
//! the answers and the silence mean.

mod filtering;
mod fragments;
mod hairpin;
mod lifetime;
mod mapping;
mod ports;
mod tcp;

pub(super) use filtering::FilteringTest;
pub(super) use fragments::FragmentsTest;
pub(super) use hairpin::HairpinTest;
pub(super) use lifetime::LifetimeTest;
pub(super) use mapping::{Alive, MappingTest};
pub(super) use ports::PortsTest;
pub(super) use tcp::TcpTest;

use std::net::SocketAddr;

use super::exchange::Outcome;
use super::report::Unknown;

/// The addresses of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The one that was named.
    pub(super) primary: SocketAddr,
    /// OTHER-ADDRESS: another address with another port.
    pub(super) other: Option<SocketAddr>,
}

impl Target {
    /// The other address with the first port.
    pub(super) fn other_address(&self) -> Option<SocketAddr> {
        self.other.map(|other| SocketAddr::new(other.ip(), self.primary.port()))
    }

    /// The first address with the other port.
    pub(super) fn other_port(&self) -> Option<SocketAddr> {
        self.other.map(|other| {
            let mut address = self.primary;
            address.set_port(other.port());
            address
        })
    }
}

/// Why a request that was to be answered in any case brought no fact.
fn reason(outcome: Option<&Outcome>) -> Unknown {
    match outcome {
        Some(Outcome::Refused { .. }) => Unknown::ServerRefuses,
        Some(Outcome::Unsendable(_)) => Unknown::Local,
        Some(Outcome::OutOfTime) | None => Unknown::OutOfTime,
        Some(_) => Unknown::Lost,
    }
}
