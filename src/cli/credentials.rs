//! `sturn credentials`: what a web application would hand to its client.

use std::env;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Failure, load, print};
use crate::auth::Secret;
use crate::auth::time_limited::{Mac, issue};
use crate::client::{Uri, UriError};
use crate::config::{Config, format_duration, parse_duration};
use crate::daemon::Exit;

/// The variable that holds the secret where neither option is given.
const SECRET_VARIABLE: &str = "STURN_SECRET";

#[derive(clap::Args)]
#[command(after_help = "\
The secret comes from --config (the first of auth.secrets), from --secret, or
from the environment variable STURN_SECRET, which unlike an option is not seen
by other users of the machine.
No running server is needed: the server computes the same password.

Examples:
  sturn credentials --user alice --config /etc/sturn/sturn.toml
  sturn credentials --user alice --ttl 24h --url turn:example.org:3478 --json")]
pub(super) struct Args {
    /// User the credential is for
    #[arg(long, value_name = "NAME", value_parser = parse_user)]
    user: String,
    /// How long it is valid: 90s, 10m, 24h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,
    /// Take secret and separator from this configuration file
    #[arg(long, short, value_name = "FILE", conflicts_with = "secret")]
    config: Option<PathBuf>,
    /// The shared secret
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// Hash of the HMAC; applications use sha1
    #[arg(long, value_enum, default_value_t = Algorithm::Sha1)]
    algorithm: Algorithm,
    /// URL of the server for clients; may be given again
    #[arg(long = "url", value_name = "URL", value_parser = parse_url)]
    urls: Vec<String>,
    /// Print an RTCConfiguration as JSON and nothing else; needs --url
    #[arg(long, requires = "urls")]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Algorithm {
    Sha1,
    Sha256,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| Failure::new(Exit::OsError, "sturn: the clock is before 1970"))?;
    let expires = now.saturating_add(args.ttl).as_secs();
    let key = signing_key(args.config, args.secret)?;
    let mac = match args.algorithm {
        Algorithm::Sha1 => Mac::Sha1,
        Algorithm::Sha256 => Mac::Sha256,
    };
    let (username, credential) =
        issue(key.secret.expose(), &args.user, expires, mac, key.separator);
    let server = IceServer { urls: args.urls, username, credential };
    if args.json { print(&json(server)) } else { print(&text(server, expires, args.ttl)) }
}

/// What a credential is made with.
struct SigningKey {
    secret: Secret,
    separator: char,
}

fn signing_key(config: Option<PathBuf>, secret: Option<String>) -> Result<SigningKey, Failure> {
    let separator = Config::default().auth.username_separator;
    if let Some(file) = config {
        let auth = load(&file)?.auth;
        let separator = auth.username_separator;
        return match auth.secrets.into_iter().next() {
            Some(secret) => Ok(SigningKey { secret, separator }),
            None => Err(Failure::new(
                Exit::Config,
                format!("{}: auth.secrets is empty", file.display()),
            )),
        };
    }
    match secret.or_else(|| env::var(SECRET_VARIABLE).ok()).filter(|s| !s.is_empty()) {
        Some(secret) => Ok(SigningKey { secret: Secret::new(secret), separator }),
        None => Err(Failure::new(
            Exit::Usage,
            format!("sturn: no secret: give --config, --secret or {SECRET_VARIABLE}"),
        )),
    }
}

/// An RTCConfiguration, ready for `new RTCPeerConnection(…)`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RtcConfiguration {
    ice_servers: [IceServer; 1],
}

/// An RTCIceServer.
#[derive(Serialize)]
struct IceServer {
    urls: Vec<String>,
    username: String,
    credential: String,
}

fn json(server: IceServer) -> String {
    let configuration = RtcConfiguration { ice_servers: [server] };
    let text = serde_json::to_string_pretty(&configuration).expect("strings are JSON");
    text + "\n"
}

fn text(server: IceServer, expires: u64, ttl: Duration) -> String {
    let mut text = format!("username  {}\npassword  {}\n", server.username, server.credential);
    // Writing to a string does not fail.
    let _ = writeln!(text, "expires   {expires} (in {})", format_duration(ttl));
    if server.urls.is_empty() {
        text.push_str("\nWith --url turn:HOST:3478 there is a client configuration here.\n");
    } else {
        let _ = write!(text, "\n{}", json(server));
    }
    text
}

fn parse_user(text: &str) -> Result<String, String> {
    // With the expiry in front the name must fit RFC 8489 section 14.3.
    if (1..=480).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 480 bytes without control characters".into())
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|ttl| ttl.as_secs() > 0)
        .ok_or_else(|| "expected a duration of at least 1s such as 90s, 10m or 24h".into())
}

/// Checks a URI as RFC 7064 and RFC 7065 write it, and leaves it as it is.
fn parse_url(text: &str) -> Result<String, UriError> {
    text.parse::<Uri>().map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_equal_openssl() {
        // printf '1700000000:alice' | openssl dgst -sha1 -hmac secret -binary | base64
        let (name, sha1) = issue("secret", "alice", 1_700_000_000, Mac::Sha1, ':');
        assert_eq!(name, "1700000000:alice");
        assert_eq!(sha1, "d8soP47RbdIKLDUOpnJPVQyq5Ts=");
        let (_, sha256) = issue("secret", "alice", 1_700_000_000, Mac::Sha256, ':');
        assert_eq!(sha256, "vtJEGMjRwTvyD+vxsT7OBKnX6z/PPkD7wCuK8Cm7rdA=");
    }

    #[test]
    fn urls() {
        for good in [
            "turn:example.org",
            "turn:example.org:3478",
            "turn:192.0.2.1:3478?transport=tcp",
            "turns:[2001:db8::1]:5349?transport=udp",
            "turn:[::1]",
            "stun:example.org",
        ] {
            assert_eq!(parse_url(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "example.org",
            "http:example.org",
            "turn:",
            "turn:example.org:0",
            "turn:h:port",
            "turn:h?transport=sctp",
            "stun:h?transport=udp",
            "turn:2001:db8::1",
            "turn:[x]:1",
            "turn:[::1]3478",
            "turn:a b",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
        let slashes = parse_url("turn://example.org").unwrap_err().to_string();
        assert!(slashes.contains("write turn:HOST"), "{slashes}");
    }
}
