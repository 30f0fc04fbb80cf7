//! How the value of a key is read, and written back.
//!
//! A [`Kind`] turns one TOML value into a valid Rust value or tells the report
//! what it expected. The plain kinds are here, the others in a file each.

pub(super) mod address;
pub(super) mod backends;
pub(super) mod certificates;
pub(super) mod duration;
pub(super) mod ports;
pub(super) mod secret;
pub(super) mod tokens;
pub(super) mod users;

use std::time::Duration;

use toml::de::DeValue;

use self::duration::{format_duration, parse_duration};
use super::document::at;
use super::problem::{At, Report};

/// How one value is read and written.
pub(super) trait Kind {
    /// The valid value.
    type Value;

    /// What to give, as a phrase: `a whole number from 1 to 4096`.
    fn expected(&self) -> String;

    /// The value, or `None` and at least one problem in the report.
    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value>;

    /// The value as TOML; `None` when it is unset. Secrets are masked.
    fn write(&self, value: &Self::Value) -> Option<String>;
}

/// The value if `read` likes it, else a problem with the kind's phrase.
fn or_refuse<K: Kind + ?Sized>(
    kind: &K,
    at: &At<'_>,
    report: &mut Report<'_>,
    read: impl FnOnce(&DeValue<'_>) -> Option<K::Value>,
) -> Option<K::Value> {
    let value = read(at.value);
    if value.is_none() {
        report.refuse(at, format!("expected {}", kind.expected()));
    }
    value
}

/// A TOML string with everything escaped that needs it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// `true` or `false`.
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<bool> {
        or_refuse(self, at, report, |v| v.as_bool())
    }

    fn write(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A whole number within bounds.
pub(super) struct Count {
    pub(super) min: u32,
    pub(super) max: u32,
}

impl Kind for Count {
    type Value = u32;

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<u32> {
        or_refuse(self, at, report, |v| {
            let n = u32::try_from(integer(v)?).ok()?;
            (self.min..=self.max).contains(&n).then_some(n)
        })
    }

    fn write(&self, value: &u32) -> Option<String> {
        Some(value.to_string())
    }
}

/// A TOML integer of any radix.
fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A duration within bounds (in seconds), in whole seconds.
pub(super) struct Seconds {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Kind for Seconds {
    type Value = Duration;

    fn expected(&self) -> String {
        let text = |secs| format_duration(Duration::from_secs(secs));
        format!(
            "a duration from \"{}\" to \"{}\", such as \"90s\" or \"1h30m\"",
            text(self.min),
            text(self.max)
        )
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Duration> {
        or_refuse(self, at, report, |v| {
            let duration = parse_duration(v.as_str()?)?;
            let whole = duration.subsec_nanos() == 0;
            (whole && (self.min..=self.max).contains(&duration.as_secs())).then_some(duration)
        })
    }

    fn write(&self, value: &Duration) -> Option<String> {
        Some(quoted(&format_duration(*value)))
    }
}

/// A size in bytes within bounds; plain 0 is allowed where `or_zero` says so.
pub(super) struct Size {
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) or_zero: bool,
}

/// Units of sizes, the largest first.
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    fn valid(&self, size: usize) -> bool {
        (self.min..=self.max).contains(&size) || (self.or_zero && size == 0)
    }
}

impl Kind for Size {
    type Value = usize;

    fn expected(&self) -> String {
        format!(
            "a size from \"{}\" to \"{}\", such as \"512KiB\"{}",
            format_size(self.min),
            format_size(self.max),
            if self.or_zero { ", or 0" } else { "" }
        )
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<usize> {
        or_refuse(self, at, report, |v| {
            let size = match integer(v) {
                Some(0) => 0,
                Some(_) => return None,
                None => parse_size(v.as_str()?)?,
            };
            self.valid(size).then_some(size)
        })
    }

    fn write(&self, value: &usize) -> Option<String> {
        Some(if *value == 0 { "0".into() } else { quoted(&format_size(*value)) })
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<usize>().ok()?.checked_mul(*factor)
}

fn format_size(size: usize) -> String {
    let (unit, factor) = UNITS
        .iter()
        .find(|(_, factor)| size.is_multiple_of(*factor))
        .expect("1 divides everything");
    format!("{}{unit}", size / factor)
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn expected(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        words.join(" or ")
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<T> {
        or_refuse(self, at, report, |v| {
            let text = v.as_str()?;
            self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    fn write(&self, value: &T) -> Option<String> {
        self.0.iter().find(|(_, v)| v == value).map(|(word, _)| quoted(word))
    }
}

/// A string that passes a test.
pub(super) struct Text {
    pub(super) expected: &'static str,
    pub(super) valid: fn(&str) -> bool,
}

impl Kind for Text {
    type Value = String;

    fn expected(&self) -> String {
        self.expected.into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<String> {
        or_refuse(self, at, report, |v| {
            v.as_str().filter(|text| (self.valid)(text)).map(str::to_owned)
        })
    }

    fn write(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// A string of one character, not a digit.
pub(super) struct Separator;

impl Kind for Separator {
    type Value = char;

    fn expected(&self) -> String {
        "one character that is neither a digit nor a control character".into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<char> {
        or_refuse(self, at, report, |v| {
            let mut chars = v.as_str()?.chars();
            let first = chars.next().filter(|c| !c.is_ascii_digit() && !c.is_control())?;
            chars.next().is_none().then_some(first)
        })
    }

    fn write(&self, value: &char) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// A list of values of one kind.
pub(super) struct List<K> {
    pub(super) item: K,
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn expected(&self) -> String {
        format!("a list, each entry {}", self.item.expected())
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        read_items(self, at, report, |item, report| self.item.read(item, report))
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().filter_map(|v| self.item.write(v))))
    }
}

/// Reads each element of a list; `None` when one of them failed.
fn read_items<K: Kind, T>(
    kind: &K,
    at: &At<'_>,
    report: &mut Report<'_>,
    mut read: impl FnMut(&At<'_>, &mut Report<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let DeValue::Array(array) = at.value else {
        // Not shown: it may be a secret that lacks its brackets.
        report.refuse_unseen(at, format!("expected {}", kind.expected()));
        return None;
    };
    let items = elements(at, array);
    let read: Vec<Option<T>> = items.iter().map(|item| read(item, report)).collect();
    read.into_iter().collect()
}

fn elements<'a>(at: &At<'a>, array: &'a toml::de::DeArray<'a>) -> Vec<At<'a>> {
    let key = |i| format!("{}[{i}]", at.key);
    array.iter().enumerate().map(|(i, value)| self::at(key(i), value)).collect()
}

fn write_items(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A list whose elements differ, with at least one of them.
pub(super) struct Distinct<K> {
    pub(super) item: K,
}

impl<K: Kind> Kind for Distinct<K>
where
    K::Value: PartialEq,
{
    type Value = Vec<K::Value>;

    fn expected(&self) -> String {
        format!("a list of at least one entry, each {}", self.item.expected())
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        let mut seen: Vec<K::Value> = Vec::new();
        read_items(self, at, report, |item, report| {
            let value = self.item.read(item, report)?;
            if seen.contains(&value) {
                report.refuse(item, "given twice");
                return None;
            }
            seen.push(value);
            Some(())
        })?;
        if seen.is_empty() {
            report.refuse(at, format!("expected {}", self.expected()));
            return None;
        }
        Some(seen)
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().filter_map(|v| self.item.write(v))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_written() {
        for (text, size) in
            [("1B", 1), ("64KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("1025B", 1025)]
        {
            assert_eq!(parse_size(text), Some(size), "{text}");
            assert_eq!(format_size(size), text);
        }
        for bad in [
            "",
            "64",
            "KiB",
            "64KB",
            "64k",
            "-1B",
            "1.5MiB",
            "99999999999999999999B",
            "18014398509481984KiB",
        ] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
