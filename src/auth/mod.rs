//! Long-term credentials (RFC 8489 section 9.2): keys, secrets, nonces.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod secret;

pub use secret::Secret;
