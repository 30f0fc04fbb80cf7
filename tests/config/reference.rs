//! The files that ship with the program.

use std::path::Path;

use proptest::prelude::*;
use sturn::config::{AuthMode, Config, full_file};

use crate::keys::EVERY_KEY;
use crate::{STUN_ONLY, parse, refused};

fn conf(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `#key = value`, unlike the `# words` of the documentation.
pub(crate) fn is_default(line: &str) -> bool {
    line.starts_with('#') && !line.starts_with("# ") && line.len() > 1
}

/// The file with every default in force.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|l| if is_default(l) { &l[1..] } else { l });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_file_is_what_the_table_says() {
    assert!(
        conf("sturn.full.toml") == full_file(),
        "conf/sturn.full.toml is old: sturn check --print-full > conf/sturn.full.toml"
    );
}

#[test]
fn the_reference_file_lacks_nothing_but_credentials() {
    let problems = refused(&conf("sturn.full.toml"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains("auth: no credentials"), "{problems:?}");
}

#[test]
fn the_defaults_of_the_reference_file_are_the_embedded_ones() {
    let text = uncommented(&conf("sturn.full.toml"));
    let text = text.replace("\nsecrets = []\n", "\nsecrets = [\"s\"]\n");
    let mut config = parse(&text).unwrap();
    assert_eq!(config.auth.secrets.len(), 1);
    config.auth.secrets.clear();
    assert_eq!(config, Config::default());
}

#[test]
fn the_examples_of_the_reference_file_are_valid() {
    let mut examples = 0;
    let dir = tempfile::tempdir().unwrap();
    for name in ["secret", "alice.password", "nonce-key"] {
        std::fs::write(dir.path().join(name), "0123456789abcdef").unwrap();
    }
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    std::fs::write(dir.path().join("north.key"), key).unwrap();
    let mut section = String::new();
    for line in conf("sturn.full.toml").lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        let Some(example) = line.strip_prefix("# Example: ") else { continue };
        // Set by cargo for every test.
        let example = example.replace("STURN_SECRET", "CARGO_PKG_NAME");
        let text = match section.as_str() {
            "[auth]" if example.starts_with("secrets") => format!("[auth]\n{example}"),
            // One makes no sense without the other.
            "[auth]" if example.starts_with("oauth-keys") => {
                format!("[auth]\noauth-server-name = \"turn.example.org\"\n{example}")
            }
            "[auth]" if example.starts_with("oauth-server-name") => {
                format!(
                    "[auth]\noauth-keys = [{{ id = \"a\", key = \"{key}\", algorithm = \"A256GCM\" }}]\n{example}"
                )
            }
            "[auth]" => format!("[auth]\nsecrets = [\"s\"]\n{example}"),
            _ => format!("{STUN_ONLY}{section}\n{example}"),
        };
        if let Err(problems) = Config::parse(&text, &dir.path().join("sturn.toml")) {
            panic!("{line}\n{problems}");
        }
        examples += 1;
    }
    assert!(examples >= 8, "only {examples} examples");
}

#[test]
fn the_first_file_is_valid_and_so_is_what_it_suggests() {
    let text = conf("sturn.toml");
    assert_eq!(parse(&text).unwrap().auth.mode, AuthMode::None);
    let dir = tempfile::tempdir().unwrap();
    for name in ["secret", "alice.password"] {
        std::fs::write(dir.path().join(name), "s").unwrap();
    }
    let all = uncommented(&text)
        .replace("mode = \"none\"\n", "")
        .replace("/etc/sturn/", &format!("{}/", dir.path().display()));
    let config = parse(&all).unwrap();
    assert_eq!((config.auth.users.len(), config.auth.secrets.len()), (1, 1));
    assert_eq!((config.relay.addresses.len(), config.peers.allow.len()), (1, 1));
    assert_eq!(config.tls.certificates.len(), 1);
}

proptest! {
    /// Any text gives a config or problems whose lines exist; never a panic.
    #[test]
    fn any_text_is_answered(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\"'=.,#\\\\\n a-z0-9é]{0,6}"), 1..8),
    ) {
        let mut text = EVERY_KEY.to_owned();
        for (place, new) in cuts {
            let chars: Vec<char> = text.chars().collect();
            let at = place.index(chars.len());
            let rest = &chars[(at + new.len() / 2).min(chars.len())..];
            text = chars[..at].iter().collect::<String>() + &new + &rest.iter().collect::<String>();
        }
        if let Err(problems) = parse(&text) {
            prop_assert!(problems.len() > 0);
            let lines = text.matches('\n').count() + 1;
            for problem in &problems {
                prop_assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)));
                prop_assert_eq!(problem.to_string().lines().count(), 1);
            }
        }
    }
}
