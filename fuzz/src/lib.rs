//! What the fuzz targets share: a server with live allocations, a writer of
//! messages that may be as wrong as one likes, and the checks on what comes back.

pub mod fixture;
pub mod ports;
pub mod wire;

pub use fixture::{Fixture, PASSWORD, REALM, USER};
