//! Secrets: inline, from a file, from the environment.

use std::env;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::{Kind, quoted};
use crate::auth::Secret;
use crate::config::problem::{At, Report};
use crate::config::suggest;

/// The longest secret file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

const SHAPE: &str = "a string, { file = \"/path\" } or { env = \"NAME\" }";

/// A secret of at least `min` characters.
pub(crate) struct SecretText {
    pub(crate) min: usize,
}

impl Kind for SecretText {
    type Value = Secret;

    fn expected(&self) -> String {
        SHAPE.into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Secret> {
        let (text, origin) = match at.value {
            DeValue::String(text) => (text.to_string(), String::new()),
            DeValue::Table(table) => from_outside(at, table, report)?,
            _ => {
                report.refuse_unseen(at, format!("expected {SHAPE}"));
                return None;
            }
        };
        let refusal = if text.is_empty() {
            "the secret is empty".to_owned()
        } else if text.chars().any(char::is_control) {
            "the secret has control characters or several lines".to_owned()
        } else if text.chars().count() < self.min {
            format!("the secret is too short: expected at least {} characters", self.min)
        } else {
            return Some(Secret::new(text));
        };
        report.refuse_unseen(at, format!("{origin}{refusal}"));
        None
    }

    fn write(&self, _: &Secret) -> Option<String> {
        Some(quoted("***"))
    }
}

/// A secret that may be absent.
pub(crate) struct OptionalSecret {
    pub(crate) min: usize,
}

impl Kind for OptionalSecret {
    type Value = Option<Secret>;

    fn expected(&self) -> String {
        SHAPE.into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        SecretText { min: self.min }.read(at, report).map(Some)
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        value.as_ref().map(|_| quoted("***"))
    }
}

/// The secret that a table points to, and words that say where it came from.
fn from_outside(
    at: &At<'_>,
    table: &DeTable<'_>,
    report: &mut Report<'_>,
) -> Option<(String, String)> {
    let mut entries = table.iter().map(|(name, value)| (name, value.get_ref().as_str()));
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        report.refuse_unseen(at, format!("expected {SHAPE}"));
        return None;
    };
    let secret = match (name.get_ref().as_ref(), value) {
        ("file", Some(path)) if !path.is_empty() => {
            let path = report.directory().join(path);
            read_file(&path).map(|text| (text, format!("file {}: ", path.display())))
        }
        ("env", Some(variable)) if !variable.is_empty() => {
            read_env(variable).map(|text| (text, format!("environment variable {variable}: ")))
        }
        ("file" | "env", _) => Err(format!("expected {SHAPE}")),
        (other, _) => Err(suggest::member(other, &["file", "env"])),
    };
    secret.map_err(|why| report.refuse_unseen(at, why)).ok()
}

/// The text of a secret file without the line end an editor leaves.
fn read_file(path: &PathBuf) -> Result<String, String> {
    let refuse = |why: &dyn std::fmt::Display| format!("file {}: {why}", path.display());
    let metadata = std::fs::metadata(path).map_err(|e| refuse(&e))?;
    if metadata.len() > MAX_FILE {
        return Err(refuse(&"larger than 64KiB, not a secret"));
    }
    let bytes = std::fs::read(path).map_err(|e| refuse(&e))?;
    let text = String::from_utf8(bytes).map_err(|_| refuse(&"not UTF-8 text"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_env(name: &str) -> Result<String, String> {
    env::var(name).map_err(|why| match why {
        env::VarError::NotPresent => format!("environment variable {name} is not set"),
        env::VarError::NotUnicode(_) => format!("environment variable {name}: not UTF-8 text"),
    })
}
