//! Who a command is for a server: a user with a password, or whoever a shared secret
//! makes credentials for. The options, the files, the environment.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::auth::time_limited::{self, Mac};
use crate::daemon::Exit;

const PASSWORD_VARIABLE: &str = "STURN_PASSWORD";
const SECRET_VARIABLE: &str = "STURN_SECRET";
/// Smaller numbers in a user name are no times: this is in 2001.
const FIRST_END: u64 = 1_000_000_000;

/// A user and their password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) username: String,
    pub(super) password: String,
}

/// The options that say who to be.
#[derive(clap::Args)]
pub(super) struct LoginArgs {
    /// User name; made up if there is a secret
    #[arg(long, short, alias = "username", value_name = "NAME")]
    user: Option<String>,
    /// Password of the user
    #[arg(long, value_name = "PASSWORD", requires = "user", group = "credential")]
    password: Option<String>,
    /// File with the password
    #[arg(long, value_name = "FILE", requires = "user", group = "credential")]
    password_file: Option<PathBuf>,
    /// Shared secret to make time-limited credentials with
    #[arg(long, value_name = "SECRET", group = "credential")]
    secret: Option<String>,
    /// File with the shared secret
    #[arg(long, value_name = "FILE", group = "credential")]
    secret_file: Option<PathBuf>,
}

/// What the options come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Nobody,
    User(Identity),
    Secret { secret: String, user: Option<String> },
}

impl LoginArgs {
    /// What options say, or else the environment.
    ///
    /// # Errors
    /// A file that cannot be read, a user without a password.
    pub(super) fn login(&self) -> Result<Login, Failure> {
        let from = |text: &Option<String>, file: &Option<PathBuf>| match file {
            Some(file) => read(file).map(Some),
            None => Ok(text.clone()),
        };
        let password = from(&self.password, &self.password_file)?;
        let secret = from(&self.secret, &self.secret_file)?;
        self.choose(password, secret, |name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn choose(
        &self,
        password: Option<String>,
        secret: Option<String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Login, Failure> {
        let user = self.user.clone();
        let (password, secret) = match (password, secret) {
            (None, None) => (variable(PASSWORD_VARIABLE), variable(SECRET_VARIABLE)),
            given => given,
        };
        match (user, password, secret) {
            (Some(username), Some(password), _) => Ok(Login::User(Identity { username, password })),
            (user, _, Some(secret)) => Ok(Login::Secret { secret, user }),
            (None, _, None) => Ok(Login::Nobody),
            (Some(_), None, None) => Err(Failure::new(
                Exit::Usage,
                format!(
                    "sturn: no password for --user: give --password-file, --secret-file, \
                     {PASSWORD_VARIABLE} or {SECRET_VARIABLE}"
                ),
            )),
        }
    }
}

/// The credential of a user, good until `until` (seconds since the Unix epoch), and its
/// end. A user name that has a time in it is taken as it is.
pub(super) fn made(secret: &str, user: &str, until: u64) -> (Identity, u64) {
    match expiry(user) {
        Some(end) => {
            let password = time_limited::password(secret, user, Mac::Sha1);
            (Identity { username: user.to_owned(), password }, end)
        }
        None => {
            let (username, password) = time_limited::issue(secret, user, until, Mac::Sha1, ':');
            (Identity { username, password }, until)
        }
    }
}

/// The end that a user name tells. People have numbers for names, too: `1001` is no
/// time that anybody means.
pub(super) fn expiry(username: &str) -> Option<u64> {
    time_limited::parse(username, ':').map(|parts| parts.expires).filter(|end| *end >= FIRST_END)
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::new(Exit::NoInput, format!("sturn: {}: {error}", file.display()))
    })?;
    // Editors end a file with a line feed that is no part of the secret.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        login: LoginArgs,
    }

    /// What a command line comes to in an environment of these two variables.
    fn login(
        words: &[&str],
        password: Option<&str>,
        secret: Option<&str>,
    ) -> Result<Login, String> {
        let Line { login } = Line::try_parse_from([&["sturn"], words].concat()).unwrap();
        let variable = |name: &str| {
            let value = if name == PASSWORD_VARIABLE { password } else { secret };
            value.map(str::to_owned)
        };
        let (given, made) = (login.password.clone(), login.secret.clone());
        login.choose(given, made, variable).map_err(|failure| failure.message)
    }

    #[test]
    fn options_come_before_the_environment() {
        let user = |name: &str, password: &str| {
            Login::User(Identity { username: name.into(), password: password.into() })
        };
        let secret = |secret: &str, user: Option<&str>| Login::Secret {
            secret: secret.into(),
            user: user.map(str::to_owned),
        };
        let all = ["--username", "alice", "--password", "p"];
        assert_eq!(login(&all, Some("q"), Some("s")), Ok(user("alice", "p")));
        assert_eq!(login(&["--secret", "s"], Some("q"), Some("t")), Ok(secret("s", None)));
        assert_eq!(login(&["-u", "a"], Some("q"), Some("t")), Ok(user("a", "q")));
        assert_eq!(login(&["-u", "a"], None, Some("t")), Ok(secret("t", Some("a"))));
        assert_eq!(login(&[], Some("q"), Some("t")), Ok(secret("t", None)));
        assert_eq!(login(&[], Some("q"), None), Ok(Login::Nobody));
        assert!(login(&["-u", "a"], None, None).unwrap_err().contains("no password"));
    }

    #[test]
    fn a_time_limited_credential_is_that_of_the_server() {
        // printf '1700000000:alice' | openssl dgst -sha1 -hmac secret -binary | base64
        let (given, end) = made("secret", "1700000000:alice", 7);
        assert_eq!(given.username, "1700000000:alice");
        assert_eq!(given.password, "d8soP47RbdIKLDUOpnJPVQyq5Ts=");
        assert_eq!(end, 1_700_000_000);
        let (numbered, end) = made("secret", "1001", 1_800_000_000);
        assert_eq!((&*numbered.username, end), ("1800000000:1001", 1_800_000_000));
        assert_eq!(expiry("1001"), None, "an extension, not a time");
    }
}
