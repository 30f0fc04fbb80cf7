//! Any text as a configuration: valid settings, or problems that say something.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sturn::config::Config;

fuzz_target!(|text: &str| {
    // Secrets from files would read whatever the input names.
    if text.contains("file") {
        return;
    }
    match Config::parse(text, Path::new("fuzz.toml")) {
        Ok(config) => {
            assert!(!config.listen.udp.is_empty() || !config.listen.tcp.is_empty());
            let _ = config.notes();
        }
        Err(problems) => {
            let text = problems.to_string();
            assert!(text.lines().all(|line| line.starts_with("fuzz.toml:")), "{text}");
        }
    }
});
