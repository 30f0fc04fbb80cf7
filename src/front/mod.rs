//! What a byte stream begins with, before any protocol is spoken on it: which
//! protocol, whom a load balancer says it comes from, and which name and
//! application a TLS client asks for.
//!
//! 1. [`detect`] names the protocol from the first bytes;
//! 2. [`proxy`] reads a PROXY protocol header, which another protocol follows;
//! 3. [`client_hello`] looks into the first TLS message, so that a connection
//!    that is not for TURN can be handed on with its encryption untouched;
//! 4. [`route`] decides whether it is, and which backend gets it.
//!
//! Everything here reads at most a stated number of bytes, keeps nothing and uses
//! nothing but the standard library.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod client_hello;
mod detect;
pub mod proxy;
mod reader;
pub mod route;

pub use detect::{Detect, LONGEST_START, detect};
pub(crate) use reader::Reader;
