//! Start, signals, logs.

use std::net::IpAddr;
use std::process::ExitCode;

use crate::config::{Config, Origin};

pub mod log;

/// Runs the server until it is told to stop.
pub fn serve(_config: Config, _origin: Origin) -> ExitCode {
    eprintln!("sturn: this build has no server yet");
    ExitCode::from(69)
}

/// Says whether the policy of `config` lets a peer be reached, and by which rule.
///
/// # Errors
/// A sentence, when that cannot be said.
pub fn explain(_config: &Config, _ip: IpAddr, _port: Option<u16>) -> Result<String, String> {
    Err("sturn: this build has no peer policy yet".into())
}
