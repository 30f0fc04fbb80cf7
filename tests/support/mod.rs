//! What integration tests share: a blocking TURN client over real sockets, and
//! real server processes that end with the test.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unreachable_pub, reason = "each test binary has its own copy")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub mod certificate;
pub mod driver;
pub mod process;
pub mod secure;
pub mod server;
