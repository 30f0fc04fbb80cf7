//! Where secrets come from, and that none is shown.

use sturn::config::Config;

use crate::keys::EVERY_KEY;
use crate::parse;

#[test]
fn secrets_come_from_files_and_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "from-a-file\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    std::fs::write(dir.path().join("lines"), "a\nb\n").unwrap();
    std::fs::write(dir.path().join("binary"), b"\xff\xfe").unwrap();
    // Cargo sets this one for every test.
    let text = "[auth]\nsecrets = [{ file = \"secret\" }, { env = \"CARGO_PKG_NAME\" }]\n";
    let file = dir.path().join("sturn.toml");
    let config = Config::parse(text, &file).unwrap();
    let secrets: Vec<&str> = config.auth.secrets.iter().map(|s| s.expose()).collect();
    assert_eq!(secrets, ["from-a-file", "sturn"]);

    let path = |name: &str| dir.path().join(name).display().to_string();
    for (secret, expected) in [
        (
            "{ file = \"nope\" }",
            format!("file {}: No such file or directory (os error 2)", path("nope")),
        ),
        ("{ file = \"empty\" }", format!("file {}: the secret is empty", path("empty"))),
        (
            "{ file = \"lines\" }",
            format!("file {}: the secret has control characters or several lines", path("lines")),
        ),
        ("{ file = \"binary\" }", format!("file {}: not UTF-8 text", path("binary"))),
        ("{ file = \".\" }", format!("file {}: Is a directory (os error 21)", path("."))),
        (
            "{ env = \"STURN_IS_NOT_SET\" }",
            "environment variable STURN_IS_NOT_SET is not set".into(),
        ),
        (
            "{ file = \"a\", env = \"B\" }",
            "expected a string, { file = \"/path\" } or { env = \"NAME\" }".into(),
        ),
        ("{ environment = \"B\" }", "unknown key; expected file, env".into()),
        ("\"\"", "the secret is empty".into()),
    ] {
        let problems = Config::parse(&format!("[auth]\nsecrets = [{secret}]"), &file).unwrap_err();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [format!("{}:2: auth.secrets[0]: {expected}", file.display())]);
    }
}

#[test]
fn no_output_shows_a_secret() {
    let shown = format!("{:?}", parse(EVERY_KEY).unwrap());
    for secret in ["hunter2", "0123456789abcdef", "\"old\"", "\"new\"", "17, 34"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    // Wrong in every way a secret can be wrong, and beside it.
    for text in [
        "auth = \"hunter2\"",
        "secrets = \"hunter2\"",
        "[auth]\nsecrets = \"hunter2\"",
        "[auth]\nsecrets = [[\"hunter2\"]]",
        "[auth]\nsecrets = [\"hunter2\\u0007\"]",
        "[auth]\nsecrets = [{ fil = \"hunter2\" }]",
        "[auth]\nnonce-key = \"hunter2\"",
        "[auth]\npassword = \"hunter2\"",
        "[auth]\nusers = \"a:hunter2\"",
        "[auth]\nusers = [\"a:hunter2\"]",
        "[auth]\nusers = [{ password = \"hunter2\" }]",
        "[auth]\nusers = [{ name = \"a\", key = \"hunter2\" }]",
        "[auth]\nusers = [{ name = \"a\", passwort = \"hunter2\" }]",
        "[auth]\nusers = [{ name = \"a\", password = \"hunter2\", key = \"hunter2\" }]",
        "[auth]\noauth-keys = \"hunter2\"",
        "[auth]\noauth-keys = [{ id = \"a\", key = \"hunter2\" }]",
        "[auth]\nsecrets = [\"hunter2]",
        "[auth]\nsecrets = [hunter2]",
    ] {
        let problems = parse(text).unwrap_err();
        let shown = format!("{problems}{problems:?}");
        assert!(!shown.contains("hunter2"), "{text}\n{shown}");
    }
}
