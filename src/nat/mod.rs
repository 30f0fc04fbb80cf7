//! NAT behaviour discovery (RFC 5780): what kind of NAT a client is behind.
//!
//! The client's procedure as a state machine without sockets. It speaks through
//! the crate `stun-rs` and shares no codec with the server, whose side of the
//! usage is part of the core (`turn/request/discovery`).

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
