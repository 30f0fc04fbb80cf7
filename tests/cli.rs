//! The binary as a script meets it: exit codes, standard output, standard error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_sturn");

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the binary with a deadline, and without what the environment may hold.
fn sturn(args: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut child = Command::new(BINARY)
        .args(args)
        .env_remove("STURN_CONFIG")
        .env_remove("STURN_SECRET")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("the child can be waited for").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let mut stderr = String::new();
            let _ = child.stderr.take().map(|mut e| e.read_to_string(&mut stderr));
            panic!("sturn {args:?} did not end; it said:\n{stderr}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Run {
        code: status.code().expect("not ended by a signal"),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

fn file(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sturn.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn without_a_command_help_goes_to_standard_error() {
    let run = sturn(&[], &[]);
    assert_eq!((run.code, run.stdout.as_str()), (64, ""));
    for command in ["serve", "check", "credentials", "explain"] {
        assert!(run.stderr.contains(&format!("  {command} ")), "{}", run.stderr);
    }
}

#[test]
fn help_and_version_are_answers() {
    let run = sturn(&["--version"], &[]);
    assert_eq!((run.code, run.stdout), (0, format!("sturn {}\n", env!("CARGO_PKG_VERSION"))));
    for args in [&["--help"][..], &["check", "--help"], &["serve", "-h"], &["credentials", "-h"]] {
        let run = sturn(args, &[]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}");
        assert!(run.stdout.contains("Usage: sturn"), "{}", run.stdout);
        assert!(run.stdout.lines().all(|line| line.chars().count() <= 100), "{}", run.stdout);
    }
}

#[test]
fn a_wrong_command_line_is_64() {
    for args in [
        &["chek"][..],
        &["check"],
        &["check", "a", "b"],
        &["check", "a", "--print-full"],
        &["serve", "--confg", "x"],
        &["explain"],
        &["explain", "example.org"],
        &["credentials", "--secret", "s"],
        &["credentials", "--user", "a"],
        &["credentials", "--user", "", "--secret", "s"],
        &["credentials", "--user", "a", "--secret", "s", "--ttl", "5"],
        &["credentials", "--user", "a", "--secret", "s", "--ttl", "0s"],
        &["credentials", "--user", "a", "--secret", "s", "--json"],
        &["credentials", "--user", "a", "--secret", "s", "--config", "x"],
        &["credentials", "--user", "a", "--secret", "s", "--url", "turn://example.org"],
        &["credentials", "--user", "a", "--secret", "s", "--algorithm", "md5"],
    ] {
        let run = sturn(args, &[]);
        assert_eq!((run.code, run.stdout.as_str()), (64, ""), "{args:?}\n{}", run.stderr);
        assert!(!run.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_66_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    for path in [missing.to_str().unwrap(), dir.path().to_str().unwrap()] {
        for args in [
            &["check", path][..],
            &["serve", "--config", path],
            &["explain", "192.0.2.1", "-c", path],
            &["credentials", "--user", "a", "-c", path],
        ] {
            let run = sturn(args, &[]);
            assert_eq!((run.code, run.stdout.as_str()), (66, ""), "{args:?}");
            assert!(run.stderr.starts_with(&format!("sturn: {path}: ")), "{}", run.stderr);
            assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        }
    }
}

#[test]
fn check_prints_every_problem_and_their_number() {
    let (_dir, path) = file("[relay]\nports = \"4915-\"\nprots = 1\n[auth]\nmode = \"none\"\n");
    let path = path.to_str().unwrap();
    let run = sturn(&["check", path], &[]);
    assert_eq!((run.code, run.stdout.as_str()), (78, ""));
    let expected = format!(
        "{path}:2: relay.ports: \"4915-\": expected a range such as \"49152-65535\": from 1024, lower end first, at least two ports\n\
         {path}:3: relay.prots: unknown key; did you mean relay.ports?\n\
         {path}: 2 problems\n"
    );
    assert_eq!(run.stderr, expected);
    for args in [&["serve", "--config", path][..], &["explain", "192.0.2.1", "--config", path]] {
        let run = sturn(args, &[]);
        assert_eq!(run.code, 78, "{args:?}");
        assert!(run.stderr.starts_with(&format!("{path}:2: relay.ports: ")), "{}", run.stderr);
    }
    let run = sturn(&["serve"], &[("STURN_CONFIG", path)]);
    assert_eq!(run.code, 78);
}

#[test]
fn a_file_that_is_not_text_is_78() {
    let (_dir, path) = file(b"[auth]\nmode = \"none\"\n# \xff\n");
    let run = sturn(&["check", path.to_str().unwrap()], &[]);
    assert_eq!(run.code, 78);
    assert_eq!(run.stderr, format!("{}:3: expected UTF-8 text\n", path.display()));
}

#[test]
fn check_tells_what_the_server_would_do_and_no_secret() {
    let (_dir, path) = file(
        r#"
[listen]
udp = ["192.0.2.1"]
tcp = []
[relay]
addresses = [{ address = "10.0.0.5", advertise = "203.0.113.5" }, "2001:db8::5"]
ports = "5000-5999"
[auth]
realm = "example.org"
users = [
    { name = "alice", password = "hunter2" },
    { name = "bob", key = "00112233445566778899aabbccddeeff" },
]
secrets = [{ env = "STURN_TEST_SECRET" }]
nonce-key = "nonce-key-of-all-servers"
[peers]
allow = ["10.0.0.0/8"]
"#,
    );
    let run =
        sturn(&["check", path.to_str().unwrap()], &[("STURN_TEST_SECRET", "from-the-environment")]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let expected = format!(
        "\
{}: ok
  listen  udp 192.0.2.1:3478
          tcp off
  relay   10.0.0.5 advertised as 203.0.113.5, 2001:db8::5; ports 5000-5999 (1000 for each address)
  auth    realm \"example.org\"; 2 users, 1 shared secret
  peers   special-purpose networks denied; also allowed: 10.0.0.0/8
  limits  100000 allocations, no limit for each user; lifetimes 10m to 1h
  note    user \"bob\" has no key-sha256: clients that choose SHA-256 cannot authenticate as this user
",
        path.display()
    );
    assert_eq!(run.stdout, expected);

    let run = sturn(&["check", path.to_str().unwrap()], &[]);
    assert_eq!(run.code, 78);
    assert_eq!(
        run.stderr,
        format!(
            "{}:14: auth.secrets[0]: environment variable STURN_TEST_SECRET is not set\n",
            path.display()
        )
    );
}

#[test]
fn the_shipped_files() {
    let conf = |name: &str| format!("{}/conf/{name}", env!("CARGO_MANIFEST_DIR"));
    let run = sturn(&["check", &conf("sturn.toml")], &[]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let run = sturn(&["check", "--print-full"], &[]);
    assert_eq!(run.code, 0);
    assert!(run.stdout == fs::read_to_string(conf("sturn.full.toml")).unwrap());
}

#[test]
fn credentials_are_those_that_openssl_makes() {
    for (algorithm, flag) in [("sha1", "-sha1"), ("sha256", "-sha256")] {
        let run = sturn(
            &["credentials", "--user", "alice", "--secret", "s3cret", "--algorithm", algorithm],
            &[],
        );
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        let field = |name: &str| {
            let line = run.stdout.lines().find(|l| l.starts_with(name)).unwrap();
            line[name.len()..].trim().to_owned()
        };
        let username = field("username");
        assert!(username.ends_with(":alice"), "{username}");
        assert!(!run.stdout.contains("s3cret"));
        assert_eq!(field("password"), openssl(&username, flag, "s3cret"));
    }
}

fn openssl(message: &str, flag: &str, secret: &str) -> String {
    let script = "printf %s \"$1\" | openssl dgst \"$2\" -hmac \"$3\" -binary | base64 -w0";
    let output =
        Command::new("sh").args(["-c", script, "sh", message, flag, secret]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn json_credentials_are_an_rtc_configuration_and_nothing_else() {
    let (_dir, path) =
        file("[auth]\nsecrets = [\"first\", \"second\"]\nusername-separator = \"|\"\n");
    let urls = ["turn:example.org:3478", "turn:[2001:db8::1]:3478?transport=tcp"];
    let run = sturn(
        &[
            "credentials",
            "--user",
            "bob",
            "--ttl",
            "2h",
            "--json",
            "--url",
            urls[0],
            "--url",
            urls[1],
            "--config",
            path.to_str().unwrap(),
        ],
        // Whoever names a file means the file.
        &[("STURN_SECRET", "other")],
    );
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let server = &json["iceServers"][0];
    assert_eq!(server["urls"], serde_json::json!(urls));
    let username = server["username"].as_str().unwrap();
    assert_eq!(server["credential"], openssl(username, "-sha1", "first"));
    let (expires, user) = username.split_once('|').unwrap();
    assert_eq!(user, "bob");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let left = expires.parse::<u64>().unwrap() - now;
    assert!((7100..=7200).contains(&left), "{left}");
}

#[test]
fn the_secret_may_come_from_the_environment() {
    let args = ["credentials", "--user", "a", "--url", "turn:h:3478"];
    let run = sturn(&args, &[("STURN_SECRET", "s3cret")]);
    assert_eq!(run.code, 0);
    assert!(run.stdout.contains("\"iceServers\""), "{}", run.stdout);
    let username = run.stdout.lines().next().unwrap().strip_prefix("username  ").unwrap();
    assert!(run.stdout.contains(&openssl(username, "-sha1", "s3cret")));
}

#[test]
fn a_config_without_secrets_issues_nothing() {
    let (_dir, path) = file("[auth]\nmode = \"none\"\n");
    let run = sturn(&["credentials", "--user", "a", "-c", path.to_str().unwrap()], &[]);
    assert_eq!(run.code, 78);
    assert_eq!(run.stderr, format!("{}: auth.secrets is empty\n", path.display()));
}

#[test]
fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
    let print = |stdout: Stdio| {
        Command::new(BINARY).args(["check", "--print-full"]).stdout(stdout).output().unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = print(writer.into());
    assert_eq!((gone.status.code(), gone.stderr.as_slice()), (Some(0), &b""[..]));

    let full = print(fs::File::create("/dev/full").unwrap().into());
    assert_eq!(full.status.code(), Some(71));
    let line = String::from_utf8(full.stderr).unwrap();
    assert!(line.starts_with("sturn: standard output: No space left"), "{line}");
}

#[test]
fn every_command_has_a_man_page_that_says_what_its_help_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let done = sturn(&["generate", "man", path], &[]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (0, "", ""));
    let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(page("sturn.1").contains("sysexits"));
    let help = sturn(&["--help"], &[]).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"serve") && commands.contains(&"check"), "{commands:?}");
    for command in commands {
        let text = page(&format!("sturn-{command}.1")).replace("\\-", "-");
        for option in sturn(&[command, "--help"], &[]).stdout.split([' ', ',', '\n', '=', '[']) {
            if option.starts_with("--") && option.len() > 2 {
                assert!(text.contains(option), "{option} is not in sturn-{command}.1");
            }
        }
    }
}

#[test]
fn a_man_page_that_cannot_be_written_is_named() {
    let done = sturn(&["generate", "man", "/dev/null/man"], &[]);
    assert_eq!(done.code, 73);
    assert!(done.stderr.starts_with("sturn: /dev/null/man: "), "{}", done.stderr);
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let done = sturn(&["generate", "completions", shell], &[]);
        assert_eq!(done.code, 0);
        assert!(done.stdout.contains("serve") && done.stdout.contains("print-full"), "{shell}");
    }
}
