//! Files as people and editors write them.

use sturn::config::{AuthMode, Config, LoadError};

use crate::{STUN_ONLY, parse, refused};

#[test]
fn users_may_be_tables_of_their_own() {
    let text = "[[auth.users]]\nname = \"a\"\npassword = \"x\"\n\n[[auth.users]]\nname = \"b\"\npassword = \"\"\n";
    assert_eq!(refused(text), ["sturn.toml:7: auth.users[1].password: the secret is empty"]);
    let config = parse(&text.replace("\"\"", "\"y\"")).unwrap();
    assert_eq!(config.auth.users.len(), 2);
}

#[test]
fn editors_of_other_systems_are_welcome() {
    let text = format!("\u{feff}{}", STUN_ONLY.replace('\n', "\r\n"));
    assert_eq!(parse(&text).unwrap().auth.mode, AuthMode::None);
    let text = format!("{text}[relay]\r\nports = \"1\"\r\n");
    assert!(refused(&text)[0].starts_with("sturn.toml:4: relay.ports: \"1\": "));
}

#[test]
fn files_that_cannot_be_read_and_files_that_are_not_text() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nope")] {
        let error = Config::load(&path).unwrap_err();
        assert!(matches!(error, LoadError::Unreadable { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
    }
    let path = dir.path().join("binary");
    std::fs::write(&path, b"[auth]\n# \xff\n").unwrap();
    let error = Config::load(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("{}:2: expected UTF-8 text", path.display()));
}
