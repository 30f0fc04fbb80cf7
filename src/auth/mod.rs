//! Long-term credentials (RFC 8489 section 9.2): keys, time-limited
//! credentials from shared secrets, stateless nonces, and the tokens of RFC 7635.
//!
//! Nothing here keeps state about clients: a nonce carries its own proof, a
//! time-limited credential is computed from the user name it comes with, and a
//! token brings all there is to know.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod directory;
mod key;
mod nonce;
mod secret;
pub mod time_limited;
mod token;

pub use directory::{Directory, Identity, User};
pub use key::{Algorithm, Key, MacKey, StoredKeys, opaque, userhash};
pub use nonce::{Features, Freshness, NONCE_LEN, NonceKey};
pub use secret::Secret;
pub use token::{TokenAlgorithm, TokenKey, Tokens};
