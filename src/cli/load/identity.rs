//! Who the clients are: one user, or as many as a shared secret makes.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::Failure;
use super::super::identity::{Identity, Login, LoginArgs, made};
use crate::daemon::Exit;

/// Who a credential is made for that nobody named a user for.
const DEFAULT_USER: &str = "sturn-load";
/// How long a made credential is valid beyond the run, in seconds.
const MARGIN: u64 = 3600;

/// The options that say who the clients are.
#[derive(clap::Args)]
pub(super) struct Credentials {
    #[command(flatten)]
    login: LoginArgs,
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
        match self.login.login()? {
            Login::Secret { secret, user } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let end = now.as_secs().saturating_add(seconds).saturating_add(MARGIN);
                let user = user.as_deref().unwrap_or(DEFAULT_USER);
                let name = |nth| match self.users {
                    1 => user.to_owned(),
                    _ => format!("{user}-{nth}"),
                };
                Ok((1..=self.users).map(|nth| made(&secret, &name(nth), end).0).collect())
            }
            _ if self.users > 1 => {
                Err(Failure::new(Exit::Usage, "sturn: --users needs --secret, which makes them"))
            }
            Login::User(identity) => Ok(vec![identity]),
            Login::Nobody => Ok(vec![Identity::default()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::auth::time_limited::{self, Mac};

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
