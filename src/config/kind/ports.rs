//! A range of ports, and a pair of them.

use std::fmt;

use super::{Kind, integer, or_refuse, quoted};
use crate::config::problem::{At, Report};

/// A range of ports, both ends included; from 1024, at least two ports, so that
/// an even one and the next higher fit (EVEN-PORT, RFC 8656 section 14.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The lowest port that may be in a range.
    pub const LOWEST: u16 = 1024;

    /// The range from `first` to `last`; `None` when it is not valid.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (Self::LOWEST <= first && first < last).then_some(Self { first, last })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are; at least 2.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Whether the range has this port.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl Default for PortRange {
    /// The dynamic ports, as RFC 8656 section 7.2 recommends.
    fn default() -> Self {
        Self { first: 49152, last: 65535 }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A [`PortRange`] as a string.
pub(crate) struct Ports;

impl Kind for Ports {
    type Value = PortRange;

    fn expected(&self) -> String {
        format!(
            "a range such as \"49152-65535\": from {}, lower end first, at least two ports",
            PortRange::LOWEST
        )
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<PortRange> {
        or_refuse(self, at, report, |v| {
            let (first, last) = v.as_str()?.split_once('-')?;
            PortRange::new(port(first)?, port(last)?)
        })
    }

    fn write(&self, value: &PortRange) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// Digits only: `u16::from_str` would take a `+`.
fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Two different ports.
pub(crate) struct TwoPorts;

impl Kind for TwoPorts {
    type Value = [u16; 2];

    fn expected(&self) -> String {
        "two different ports such as [3478, 3479]".into()
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<[u16; 2]> {
        or_refuse(self, at, report, |value| {
            let items = value.as_array()?;
            let port = |i: usize| {
                let port = u16::try_from(integer(items.get(i)?.get_ref())?).ok()?;
                (port > 0).then_some(port)
            };
            let (first, second) = (port(0)?, port(1)?);
            (items.len() == 2 && first != second).then_some([first, second])
        })
    }

    fn write(&self, [first, second]: &[u16; 2]) -> Option<String> {
        Some(format!("[{first}, {second}]"))
    }
}
