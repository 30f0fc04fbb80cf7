//! The configuration as a person meets it: what is accepted, what is refused,
//! and in which words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod keys;
mod listeners;
mod problems;
mod reference;
mod refusals;
mod secrets;

use std::path::Path;

use sturn::config::{Config, Problems};

pub(crate) const STUN_ONLY: &str = "[auth]\nmode = \"none\"\n";

pub(crate) fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new("sturn.toml"))
}

/// The problems of `text`, one line each.
pub(crate) fn refused(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(config) => panic!("accepted: {text}\n{config:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// A config that is valid but for `line` in `section`, and the line's number.
pub(crate) fn with(section: &str, line: &str) -> (String, usize) {
    if section == "auth" {
        (format!("[auth]\nsecrets = [\"s3cret\"]\n{line}\n"), 3)
    } else {
        (format!("{STUN_ONLY}[{section}]\n{line}\n"), 4)
    }
}
