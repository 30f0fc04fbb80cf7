//! Bytes to messages and messages to bytes (RFC 8489), ChannelData (RFC 8656
//! section 12), framing on streams and demultiplexing on one port (RFC 7983).
//!
//! The reader borrows the packet and copies nothing; the writer fills a buffer
//! of the caller's. Neither allocates. Bytes that are not a message give a
//! [`ParseError`]; nothing here panics on input.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod address;
mod attribute;
pub mod channel_data;
mod crc;
mod demux;
mod error;
pub mod framing;
mod header;
mod integrity;
mod message;
mod writer;

pub use address::{decode_address, decode_xor_address};
pub use attribute::{Attribute, Classic};
pub use demux::{Kind, classify};
pub use error::{ErrorCode, ParseError};
pub use header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId};
pub use integrity::{
    Integrity, Piece, SHA1_LEN, SHA256_LEN, constant_time_eq, hmac_sha1, hmac_sha256, verify_sha1,
    verify_sha256,
};
pub use message::{MAX_UNKNOWN, Message, UnknownAttributes};
pub use writer::Writer;

#[cfg(test)]
mod tests;
