//! The keys of tokens that an authorization server hands out (RFC 7635).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use toml::de::{DeTable, DeValue};
use toml::value::{Date, Datetime, Offset, Time};

use super::secret::SecretText;
use super::users::KeyBytes;
use super::{Choice, Kind, quoted, read_items, write_items};
use crate::config::problem::{At, Report};
use crate::config::{document, suggest};

/// A key shared with an authorization server.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenKey {
    /// What clients send as USERNAME: 1 to 508 bytes, no control characters.
    pub id: String,
    /// The key.
    pub key: TokenKeyBytes,
    /// Tokens sealed before are refused; seconds since the epoch.
    pub not_before: u64,
    /// Tokens sealed later are refused; seconds since the epoch.
    pub not_after: u64,
}

/// A key and the algorithm it is for; `Debug` prints a mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenKeyBytes {
    /// AES-128-GCM.
    A128Gcm(KeyBytes<16>),
    /// AES-256-GCM.
    A256Gcm(KeyBytes<32>),
}

/// The list of keys.
pub(crate) struct TokenKeys;

const SHAPE: &str = "{ id = \"…\", key = \"BASE64\", algorithm = \"A256GCM\" }";
const MEMBERS: [&str; 5] = ["id", "key", "algorithm", "not-before", "not-after"];
const ALGORITHMS: Choice<bool> = Choice(&[("A128GCM", false), ("A256GCM", true)]);

impl Kind for TokenKeys {
    type Value = Vec<TokenKey>;

    fn expected(&self) -> String {
        format!("a list, each entry {SHAPE}")
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        let mut ids: Vec<String> = Vec::new();
        read_items(self, at, report, |item, report| {
            let key = read_key(item, report)?;
            if ids.contains(&key.id) {
                report.refuse_unseen(item, format!("key {} is given twice", quoted(&key.id)));
                return None;
            }
            ids.push(key.id.clone());
            Some(key)
        })
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().map(|key| {
            let algorithm = match key.key {
                TokenKeyBytes::A128Gcm(_) => "A128GCM",
                TokenKeyBytes::A256Gcm(_) => "A256GCM",
            };
            let id = quoted(&key.id);
            format!("{{ id = {id}, key = \"***\", algorithm = \"{algorithm}\" }}")
        })))
    }
}

/// The members of one key as far as they were read.
#[derive(Default)]
struct Draft {
    id: Option<String>,
    key: Option<Vec<u8>>,
    long: Option<bool>,
    not_before: Option<u64>,
    not_after: Option<u64>,
}

fn read_key(at: &At<'_>, report: &mut Report<'_>) -> Option<TokenKey> {
    let DeValue::Table(table) = at.value else {
        report.refuse_unseen(at, format!("expected {SHAPE}"));
        return None;
    };
    let draft = read_members(at, table, report)?;
    let (Some(id), Some(key), Some(long)) = (draft.id, draft.key, draft.long) else {
        report.refuse_unseen(at, format!("expected {SHAPE}"));
        return None;
    };
    let bytes = if long {
        KeyBytes::from_slice(&key).map(TokenKeyBytes::A256Gcm)
    } else {
        KeyBytes::from_slice(&key).map(TokenKeyBytes::A128Gcm)
    };
    let Some(bytes) = bytes else {
        let wanted = if long { "32 bytes for A256GCM" } else { "16 bytes for A128GCM" };
        report.refuse_unseen(at, format!("the key has {} bytes: expected {wanted}", key.len()));
        return None;
    };
    let (not_before, not_after) =
        (draft.not_before.unwrap_or(0), draft.not_after.unwrap_or(u64::MAX));
    if not_before > not_after {
        report.refuse_unseen(at, "expected not-before no later than not-after");
        return None;
    }
    Some(TokenKey { id, key: bytes, not_before, not_after })
}

/// `None` when a member was refused.
fn read_members(at: &At<'_>, table: &DeTable<'_>, report: &mut Report<'_>) -> Option<Draft> {
    let mut draft = Draft::default();
    let mut sound = true;
    for (name, value) in table {
        let member = document::at(format!("{}.{}", at.key, name.get_ref()), value);
        sound &= match name.get_ref().as_ref() {
            "id" => super::users::keep(&mut draft.id, super::users::read_name(&member, report)),
            "key" => super::users::keep(&mut draft.key, read_base64(&member, report)),
            "algorithm" => super::users::keep(&mut draft.long, ALGORITHMS.read(&member, report)),
            "not-before" => super::users::keep(&mut draft.not_before, read_time(&member, report)),
            "not-after" => super::users::keep(&mut draft.not_after, read_time(&member, report)),
            other => {
                let hint = suggest::member(other, &MEMBERS);
                report.refuse_at(name.span().start, &member.key, hint);
                false
            }
        };
    }
    sound.then_some(draft)
}

fn read_base64(at: &At<'_>, report: &mut Report<'_>) -> Option<Vec<u8>> {
    let secret = SecretText { min: 1 }.read(at, report)?;
    let bytes = STANDARD.decode(secret.expose()).ok();
    if bytes.is_none() {
        report.refuse_unseen(at, "expected base64");
    }
    bytes
}

fn read_time(at: &At<'_>, report: &mut Report<'_>) -> Option<u64> {
    let time = match at.value {
        DeValue::Datetime(time) => unix_time(time),
        _ => None,
    };
    if time.is_none() {
        report.refuse(at, "expected a time such as 2027-01-31T00:00:00Z, without quotes");
    }
    time
}

/// Seconds since the epoch; `None` for a time that is before it or not complete.
fn unix_time(time: &Datetime) -> Option<u64> {
    let Datetime { date: Some(date), time: Some(time), offset: Some(offset) } = *time else {
        return None;
    };
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let Time { hour, minute, second, .. } = time;
    let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    u64::try_from(days_since_epoch(date) * 86_400 + of_day - minutes * 60).ok()
}

/// Days from 1970-01-01 in the Gregorian calendar. Years begin in March here, so
/// that a leap day is the last of its year.
fn days_since_epoch(date: Date) -> i64 {
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_the_epoch() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000)),
            ("2024-03-01T00:00:00Z", Some(1_709_251_200)),
            ("2100-03-01T00:00:00-00:30", Some(4_107_544_200)),
            ("1969-12-31T23:59:59Z", None),
            ("2024-03-01T00:00:00", None),
            ("2024-03-01", None),
        ] {
            assert_eq!(unix_time(&text.parse().unwrap()), expected, "{text}");
        }
    }
}
