//! TLS and DTLS sessions of clients: bytes in, bytes and plaintext out.
//!
//! No socket and no timer: the owner carries bytes between a connection and its
//! session. What the libraries beneath do for themselves stays beneath: they draw
//! randomness, and OpenSSL reads a clock for its retransmissions.
//!
//! 1. [`Certificates`] are loaded once and shared; a reload makes new ones, and
//!    sessions keep those that they began with.
//! 2. A [`Session`] is a TLS connection, on rustls.
//! 3. [`dtls::Front`] answers ClientHellos without keeping anything until the
//!    client has shown where it is; then a [`dtls::Session`] begins, on OpenSSL.
//!
//! TURN over TLS and DTLS: RFC 8656 section 3.1, RFC 7350; their names for
//! application-layer protocol negotiation: RFC 7443.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod certificates;
pub mod dtls;
mod session;

pub use certificates::{Certificate, CertificateProblem, Certificates, KeyPair, Pem};
pub use session::{Session, Version};

/// Application protocols that are chosen when a client offers them, in this order
/// (RFC 7443). A client that offers none of them, or none at all, is served as well.
pub const APPLICATION_PROTOCOLS: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

/// Longest plaintext of a record in bytes (RFC 8446 section 5.1, RFC 6347 section 4.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// How far a session has come. It only moves forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The keys are not agreed yet.
    Handshaking,
    /// Plaintext flows.
    Connected,
    /// Closed by either side, or failed. What is still to be written goes to the
    /// client, then the session is of no use.
    Closed,
}

/// Why a session ended before its time. One counter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// The bytes are no TLS, or a first message that cannot be read.
    #[error("not TLS")]
    NotTls,
    /// A ClientHello that does not end.
    #[error("the ClientHello is too long")]
    HelloTooLong,
    /// No version, cipher suite, group or signature scheme in common.
    #[error("no protocol version or algorithm in common")]
    Incompatible,
    /// The client broke the rules of the handshake.
    #[error("the client broke the protocol")]
    Misbehaved,
    /// A record was forged, altered or out of place.
    #[error("a record could not be decrypted")]
    BadRecord,
    /// The client gave up with an alert: it does not trust the certificate, mostly.
    #[error("the client refused with an alert")]
    Refused,
    /// The handshake took too long.
    #[error("the handshake was not done in time")]
    TimedOut,
    /// Data cannot be sent before the handshake is done, nor after the end.
    #[error("the session is not connected")]
    NotConnected,
    /// The data does not fit a record, which over DTLS nothing can be split into.
    #[error("the data is longer than a record")]
    TooLong,
    /// A library failed in a way that no client should be able to cause.
    #[error("the TLS library failed")]
    Internal,
}
