//! Long-term credentials (RFC 8489 section 9.2): keys, time-limited
//! credentials from shared secrets, and stateless nonces.
//!
//! Nothing here keeps state about clients: a nonce carries its own proof, and a
//! time-limited credential is computed from the user name it comes with.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod directory;
mod key;
mod nonce;
mod secret;
pub mod time_limited;

pub use directory::{Directory, Identity, User};
pub use key::{Algorithm, Key, StoredKeys, opaque, userhash};
pub use nonce::{Features, Freshness, NONCE_LEN, NonceKey};
pub use secret::Secret;
