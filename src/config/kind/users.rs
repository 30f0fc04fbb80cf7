//! Users known by name.

use std::collections::HashMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use super::secret::SecretText;
use super::{Kind, quoted, read_items, write_items};
use crate::auth::Secret;
use crate::config::problem::{At, Report};
use crate::config::{document, suggest};

/// A user and what proves that it is one.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// The USERNAME attribute: 1 to 508 bytes, no control characters (RFC 8489 section 14.3).
    pub name: String,
    /// The proof.
    pub credential: Credential,
}

/// A password, or the keys made from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Credential {
    /// The password as people type it.
    Password(Secret),
    /// Keys over username, realm and password; at least one is there.
    Keys {
        /// MD5 key (RFC 8489 section 18.5.1.1).
        md5: Option<KeyBytes<16>>,
        /// SHA-256 key (RFC 8489 section 18.5.1.2).
        sha256: Option<KeyBytes<32>>,
    },
}

/// The bytes of a key; `Debug` prints a mask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyBytes<const N: usize>([u8; N]);

impl<const N: usize> KeyBytes<N> {
    /// The key itself. The name makes the call site loud.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// A key of just that length.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads hexadecimal digits, with `0x` in front or without.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
        if digits.len() != 2 * N {
            return None;
        }
        let nibble = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl<const N: usize> fmt::Debug for KeyBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// The list of users.
pub(crate) struct Users;

const MEMBERS: [&str; 4] = ["name", "password", "key", "key-sha256"];

impl Kind for Users {
    type Value = Vec<User>;

    fn expected(&self) -> String {
        "a list, each entry { name = \"…\", password = \"…\" }".into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        let mut lines: HashMap<String, usize> = HashMap::new();
        read_items(self, at, report, |item, report| {
            let user = read_user(item, report)?;
            let line = report.line_at(item.span.start);
            if let Some(first) = lines.insert(user.name.clone(), line) {
                let name = quoted(&user.name);
                report.refuse_unseen(item, format!("user {name} is already on line {first}"));
                return None;
            }
            Some(user)
        })
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().map(|user| {
            let name = quoted(&user.name);
            match &user.credential {
                Credential::Password(_) => format!("{{ name = {name}, password = \"***\" }}"),
                Credential::Keys { .. } => format!("{{ name = {name}, key = \"***\" }}"),
            }
        })))
    }
}

/// The members of one user as far as they were read.
#[derive(Default)]
struct Draft {
    name: Option<String>,
    password: Option<Secret>,
    md5: Option<KeyBytes<16>>,
    sha256: Option<KeyBytes<32>>,
}

fn read_user(at: &At<'_>, report: &mut Report<'_>) -> Option<User> {
    let DeValue::Table(table) = at.value else {
        report.refuse_unseen(at, "expected { name = \"…\", password = \"…\" }");
        return None;
    };
    let draft = read_members(at, table, report)?;
    let Some(name) = draft.name else {
        report.refuse_unseen(at, "expected a name: name = \"…\"");
        return None;
    };
    let credential = match (draft.password, draft.md5, draft.sha256) {
        (Some(password), None, None) => Credential::Password(password),
        (Some(_), ..) => {
            report.refuse_unseen(at, "expected a password or keys, not both");
            return None;
        }
        (None, None, None) => {
            report.refuse_unseen(at, "expected password = \"…\", or key or key-sha256");
            return None;
        }
        (None, md5, sha256) => Credential::Keys { md5, sha256 },
    };
    Some(User { name, credential })
}

/// `None` when a member was refused.
fn read_members(at: &At<'_>, table: &DeTable<'_>, report: &mut Report<'_>) -> Option<Draft> {
    let mut draft = Draft::default();
    let mut sound = true;
    for (name, value) in table {
        let member = document::at(format!("{}.{}", at.key, name.get_ref()), value);
        sound &= match name.get_ref().as_ref() {
            "name" => keep(&mut draft.name, read_name(&member, report)),
            "password" => keep(&mut draft.password, SecretText { min: 1 }.read(&member, report)),
            "key" => keep(&mut draft.md5, read_key(&member, report)),
            "key-sha256" => keep(&mut draft.sha256, read_key(&member, report)),
            other => {
                let hint = suggest::member(other, &MEMBERS);
                report.refuse_at(name.span().start, &member.key, hint);
                false
            }
        };
    }
    sound.then_some(draft)
}

pub(super) fn keep<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

pub(super) fn read_name(at: &At<'_>, report: &mut Report<'_>) -> Option<String> {
    let name = at.value.as_str();
    let valid = name.filter(|n| (1..=508).contains(&n.len()) && !n.chars().any(char::is_control));
    if valid.is_none() {
        report.refuse(at, "expected a name of 1 to 508 bytes without control characters");
    }
    valid.map(str::to_owned)
}

fn read_key<const N: usize>(at: &At<'_>, report: &mut Report<'_>) -> Option<KeyBytes<N>> {
    let key = at.value.as_str().and_then(KeyBytes::parse);
    if key.is_none() {
        report.refuse_unseen(at, format!("expected {} hexadecimal digits", 2 * N));
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hexadecimal_and_masked() {
        let key = KeyBytes::<2>::parse("0xBEef").unwrap();
        assert_eq!(key.expose(), &[0xbe, 0xef]);
        assert_eq!(KeyBytes::parse("beef"), Some(key));
        assert_eq!(format!("{key:?}"), "\"***\"");
        for bad in ["", "bee", "beeff", "beeg", "0x", "0xbeef0", "+eef", "é1"] {
            assert_eq!(KeyBytes::<2>::parse(bad), None, "{bad}");
        }
    }
}
