//! Time-limited credentials from a shared secret.
//!
//! A web application that knows the secret hands out a user name with an expiry
//! time in it, and a password that is the base64 of an HMAC of that name
//! (draft-uberti-behave-turn-rest-00, the scheme of coturn's `use-auth-secret`).
//! The server computes the same password; nothing is stored on either side.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// The HMAC that turns a user name into a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mac {
    /// HMAC-SHA1, what every deployed application uses.
    Sha1,
    /// HMAC-SHA256, the same scheme with a newer hash.
    Sha256,
}

impl Mac {
    /// Both, in the order in which the server tries them.
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];
}

/// The parts of a time-limited user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// When it ends, in seconds since the Unix epoch.
    pub expires: u64,
    /// The user, for quotas and logs. A bare time has no user: the empty string.
    pub user: &'a str,
}

/// Takes a user name apart: `time:user`, `user:time` or a bare `time`. `None`
/// when there is no time in it, so that it can only be a stored user.
pub fn parse(name: &str, separator: char) -> Option<Parts<'_>> {
    let time = |text: &str| {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<u64>().ok())
            .flatten()
    };
    if let Some(expires) = time(name) {
        return Some(Parts { expires, user: "" });
    }
    let (left, right) = name.split_once(separator)?;
    if let Some(expires) = time(left) {
        return Some(Parts { expires, user: right });
    }
    let (user, right) = name.rsplit_once(separator)?;
    time(right).map(|expires| Parts { expires, user })
}

/// The password for a whole user name.
pub fn password(secret: &str, name: &str, mac: Mac) -> String {
    let algorithm = match mac {
        Mac::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Mac::Sha256 => hmac::HMAC_SHA256,
    };
    STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), name.as_bytes()))
}

/// A fresh user name and password that end at `expires` (seconds since the epoch).
pub fn issue(
    secret: &str,
    user: &str,
    expires: u64,
    mac: Mac,
    separator: char,
) -> (String, String) {
    let name =
        if user.is_empty() { expires.to_string() } else { format!("{expires}{separator}{user}") };
    let password = password(secret, &name, mac);
    (name, password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_of_a_name() {
        let parts = |expires, user| Some(Parts { expires, user });
        assert_eq!(parse("1700000000:alice", ':'), parts(1_700_000_000, "alice"));
        assert_eq!(parse("alice:1700000000", ':'), parts(1_700_000_000, "alice"));
        assert_eq!(parse("1700000000", ':'), parts(1_700_000_000, ""));
        assert_eq!(parse("1700000000:a:b", ':'), parts(1_700_000_000, "a:b"));
        assert_eq!(parse("1700000000|alice", '|'), parts(1_700_000_000, "alice"));
        for stored in ["alice", "alice:bob", "", ":", "99999999999999999999999"] {
            assert_eq!(parse(stored, ':'), None, "{stored}");
        }
    }

    #[test]
    fn passwords_equal_openssl() {
        // printf '1700000000:alice' | openssl dgst -sha1 -hmac secret -binary | base64
        assert_eq!(password("secret", "1700000000:alice", Mac::Sha1), SHA1);
        // the same with -sha256
        assert_eq!(password("secret", "1700000000:alice", Mac::Sha256), SHA256);
    }

    const SHA1: &str = "d8soP47RbdIKLDUOpnJPVQyq5Ts=";
    const SHA256: &str = "vtJEGMjRwTvyD+vxsT7OBKnX6z/PPkD7wCuK8Cm7rdA=";

    #[test]
    fn an_issued_name_parses_back() {
        let (name, _) = issue("s", "bob", 42, Mac::Sha1, ':');
        assert_eq!(parse(&name, ':'), Some(Parts { expires: 42, user: "bob" }));
        assert_eq!(issue("s", "", 42, Mac::Sha1, ':').0, "42");
    }
}
