//! Who the clients are: a user, or time-limited credentials made of a shared secret.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::Failure;
use crate::auth::time_limited::{self, Mac};
use crate::daemon::Exit;

const PASSWORD_VARIABLE: &str = "STURN_PASSWORD";
const SECRET_VARIABLE: &str = "STURN_SECRET";
/// Who a credential is made for that nobody named a user for.
const DEFAULT_USER: &str = "sturn-load";
/// How long a made credential is valid beyond the run, in seconds.
const MARGIN: u64 = 3600;

/// A user and their password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) username: String,
    pub(super) password: String,
}

/// The options that say who to be.
#[derive(clap::Args)]
pub(super) struct Credentials {
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
    /// Spread the allocations over so many users, whom the secret makes: quotas are per user
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    users: u16,
}

impl Credentials {
    /// The users, at least one; without any option, one without a name. Made
    /// credentials outlive a run of so many seconds.
    ///
    /// # Errors
    /// A file that cannot be read, a user without a password, several users without a
    /// secret.
    pub(super) fn identities(&self, seconds: u64) -> Result<Vec<Identity>, Failure> {
        let (password, secret) = self.given()?;
        match (password, secret, &self.user) {
            (_, Some(secret), user) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let end = now.as_secs().saturating_add(seconds).saturating_add(MARGIN);
                let user = user.as_deref().unwrap_or(DEFAULT_USER);
                Ok((1..=self.users).map(|nth| self.made(&secret, user, end, nth)).collect())
            }
            _ if self.users > 1 => Err(usage("--users needs --secret, which makes them")),
            (Some(password), None, Some(user)) => {
                Ok(vec![Identity { username: user.clone(), password }])
            }
            (None, None, Some(_)) => Err(usage(&format!(
                "no password for --user: give --password-file, --secret-file, \
                 {PASSWORD_VARIABLE} or {SECRET_VARIABLE}"
            ))),
            (_, None, None) => Ok(vec![Identity::default()]),
        }
    }

    /// What options say, or else the environment.
    fn given(&self) -> Result<(Option<String>, Option<String>), Failure> {
        let from = |text: &Option<String>, file: &Option<PathBuf>| match file {
            Some(file) => read(file).map(Some),
            None => Ok(text.clone()),
        };
        let password = from(&self.password, &self.password_file)?;
        let secret = from(&self.secret, &self.secret_file)?;
        if password.is_some() || secret.is_some() {
            return Ok((password, secret));
        }
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let password = variable(PASSWORD_VARIABLE).filter(|_| self.user.is_some());
        let secret = if password.is_some() { None } else { variable(SECRET_VARIABLE) };
        Ok((password, secret))
    }

    fn made(&self, secret: &str, user: &str, end: u64, nth: u16) -> Identity {
        let user = if self.users > 1 { format!("{user}-{nth}") } else { user.to_owned() };
        let (username, password) = time_limited::issue(secret, &user, end, Mac::Sha1, ':');
        Identity { username, password }
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::new(Exit::NoInput, format!("sturn: {}: {error}", file.display()))
    })?;
    // Editors end a file with a line feed that is no part of the secret.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn usage(why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("sturn: {why}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        credentials: Credentials,
    }

    fn identities(arguments: &[&str]) -> Result<Vec<Identity>, String> {
        let line = Line::try_parse_from([&["load"], arguments].concat()).unwrap();
        line.credentials.identities(60).map_err(|failure| failure.message)
    }

    #[test]
    fn a_secret_makes_as_many_users_as_are_wanted() {
        let made = identities(&["--secret", "s", "--users", "3"]).unwrap();
        assert_eq!(made.len(), 3);
        for (identity, end) in made.iter().zip(["-1", "-2", "-3"]) {
            assert!(identity.username.ends_with(&format!(":sturn-load{end}")), "{identity:?}");
            let expected = time_limited::password("s", &identity.username, Mac::Sha1);
            assert_eq!(identity.password, expected);
        }
        let one = identities(&["--secret", "s", "--user", "alice"]).unwrap();
        assert!(one[0].username.ends_with(":alice"), "{one:?}");
    }

    #[test]
    fn a_user_needs_a_password_and_several_need_a_secret() {
        assert_eq!(identities(&[]).unwrap(), [Identity::default()]);
        let alice = Identity { username: "alice".into(), password: "p".into() };
        assert_eq!(identities(&["--username", "alice", "--password", "p"]).unwrap(), [alice]);
        assert!(identities(&["--user", "a"]).unwrap_err().contains("no password"));
        let several = ["--user", "a", "--password", "p", "--users", "2"];
        assert!(identities(&several).unwrap_err().contains("--secret"));
    }
}
