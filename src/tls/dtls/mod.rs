//! DTLS 1.2 (RFC 6347) for clients on UDP (RFC 7350).
//!
//! 1. A datagram from an address without a session goes to [`Front`]. A ClientHello
//!    without the right cookie is answered with the cookie, and forgotten.
//! 2. [`Verdict::Verified`] is a ClientHello from a client that receives at the
//!    address it sends from; a [`Session`] begins with it.
//! 3. The session takes the client's datagrams, and asks to be woken while the
//!    handshake lasts, since either side's datagrams may be lost.
//! 4. Plaintext goes in and out, one record per datagram.
//! 5. A close_notify or an alert ends it. A client that has forgotten the session
//!    begins anew from the same address: its hello [`starts_with_hello`], and
//!    becomes a new session once it is verified.

mod context;
mod front;
mod hello;
mod link;
mod session;

pub(super) use context::{choose_by_name, context};
pub use front::{DropReason, Front, HELLO_VERIFY_REQUEST_LEN, Verdict};
pub use hello::{Hello, starts_with_hello};
pub use session::{Limits, Session};

/// Length of a record header in bytes (RFC 6347 section 4.1).
const RECORD_HEADER: usize = 13;

/// Length of a handshake message header in bytes (RFC 6347 section 4.2.2).
const HANDSHAKE_HEADER: usize = 12;

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;

#[cfg(test)]
mod tests;
