//! Who may use the server: users and shared secrets, from the configuration.

use std::sync::Arc;

use super::key::{Algorithm, Key, StoredKeys, opaque, userhash};
use super::secret::Secret;
use super::time_limited::{self, Mac};
use crate::net::{HashSeed, Map, Now, map};

/// A user of the configuration.
#[derive(Clone, Debug)]
pub struct User {
    /// The name as clients send it.
    pub name: Arc<str>,
    /// What is kept of the password.
    pub keys: StoredKeys,
}

/// Somebody whose name is known, with every key that would prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The full user name.
    pub name: Arc<str>,
    /// The part of the name that counts for quotas and logs.
    pub user: Arc<str>,
    /// The last second at which the credential is good, since the epoch; `None` for
    /// stored users.
    pub expires: Option<u64>,
}

/// Users and shared secrets of one realm. Built once per configuration, read by
/// every shard.
#[derive(Debug)]
pub struct Directory {
    realm: Arc<str>,
    users: Map<Arc<str>, StoredKeys>,
    hashes: Map<[u8; 32], Arc<str>>,
    secrets: Vec<Secret>,
    separator: char,
}

impl Directory {
    /// `separator` stands between time and user in a time-limited user name.
    pub fn new(
        realm: &str,
        users: Vec<User>,
        secrets: Vec<Secret>,
        separator: char,
        seed: HashSeed,
    ) -> Self {
        let realm: Arc<str> = opaque(realm).into();
        let (mut by_name, mut hashes) = (map(seed), map(seed));
        for user in users {
            hashes.insert(userhash(&user.name, &realm), user.name.clone());
            by_name.insert(user.name, user.keys);
        }
        Self { realm, users: by_name, hashes, secrets, separator }
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Whether every user can be found by USERHASH. Not so with shared secrets:
    /// a hash cannot be turned back into the name that a secret needs.
    pub fn supports_userhash(&self) -> bool {
        self.secrets.is_empty()
    }

    /// The user name behind a USERHASH.
    pub fn name_of(&self, hash: &[u8]) -> Option<&Arc<str>> {
        self.hashes.get(<&[u8; 32]>::try_from(hash).ok()?)
    }

    /// Finds the identity behind `name` and calls `proves` with each key it could
    /// have proven itself with (more than one when several secrets are alive) until
    /// it says yes. Expired time-limited names have no keys. Returns the identity
    /// and the key that proved it.
    pub fn authenticate(
        &self,
        now: Now,
        name: &str,
        algorithm: Algorithm,
        mut proves: impl FnMut(&Key) -> bool,
    ) -> Option<(Identity, Key)> {
        if let Some((known, keys)) = self.users.get_key_value(name) {
            let key = keys.get(algorithm).filter(|key| proves(key))?;
            let identity = Identity { name: known.clone(), user: known.clone(), expires: None };
            return Some((identity, key));
        }
        let parts =
            time_limited::parse(name, self.separator).filter(|_| !self.secrets.is_empty())?;
        if parts.expires < now.unix_secs() {
            return None;
        }
        let key = self.candidates(name, algorithm).find(|key| proves(key))?;
        let user = if parts.user.is_empty() { name } else { parts.user };
        Some((Identity { name: name.into(), user: user.into(), expires: Some(parts.expires) }, key))
    }

    fn candidates<'a>(
        &'a self,
        name: &'a str,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = Key> + 'a {
        self.secrets.iter().flat_map(move |secret| {
            Mac::ALL.into_iter().map(move |mac| {
                let password = time_limited::password(secret.expose(), name, mac);
                Key::derive(algorithm, name, &self.realm, &password)
            })
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test starts its own clock")]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn directory() -> Directory {
        let alice =
            User { name: "alice".into(), keys: StoredKeys::from_password("alice", "r", "pw") };
        Directory::new(
            "r",
            vec![alice],
            vec![Secret::new("old"), Secret::new("new")],
            ':',
            HashSeed::new(1),
        )
    }

    fn now() -> Now {
        Now { mono: Instant::now(), unix: Duration::from_secs(1000) }
    }

    fn login(name: &str, password: &str) -> Option<Identity> {
        let proof = Key::md5(name, "r", password);
        directory().authenticate(now(), name, Algorithm::Md5, |k| *k == proof).map(|(who, _)| who)
    }

    #[test]
    fn stored_users() {
        assert_eq!(login("alice", "pw").unwrap().expires, None);
        assert!(login("alice", "wrong").is_none());
        assert!(login("bob", "pw").is_none());
    }

    #[test]
    fn several_secrets_and_both_hashes_are_alive_at_once() {
        for secret in ["old", "new"] {
            for mac in Mac::ALL {
                let (name, password) = time_limited::issue(secret, "bob", 1000, mac, ':');
                let who = login(&name, &password).unwrap();
                assert_eq!((&*who.user, who.expires), ("bob", Some(1000)));
            }
        }
        let (name, password) = time_limited::issue("gone", "bob", 1000, Mac::Sha1, ':');
        assert!(login(&name, &password).is_none());
    }

    #[test]
    fn an_expired_name_proves_nothing() {
        let (name, password) = time_limited::issue("new", "bob", 999, Mac::Sha1, ':');
        assert!(login(&name, &password).is_none());
    }

    #[test]
    fn quota_name_of_a_bare_time_is_the_time_itself() {
        let (name, password) = time_limited::issue("new", "", 2000, Mac::Sha1, ':');
        assert_eq!(&*login(&name, &password).unwrap().user, "2000");
    }
}
