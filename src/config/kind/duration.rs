//! Durations as people write them: `90s`, `1h30m`.

use std::time::Duration;

/// Units, the longest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration: whole numbers, each with a unit (`d`, `h`, `m`, `s`, `ms`),
/// the longest unit first, each at most once. `None` for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis: u64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() || millis == 0 {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = tail;
        if millis == 0 {
            // "0s" is a duration; "0h5m" is a slip.
            return rest.is_empty().then_some(Duration::ZERO);
        }
    }
    Some(Duration::from_millis(millis))
}

/// Writes a duration the way [`parse_duration`] reads it; parts below a
/// millisecond are cut.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, factor) in UNITS {
        // Whole days only: 36h reads better than 1d12h, 24h better than 1d.
        if unit == "d" && (millis % factor != 0 || millis == factor) {
            continue;
        }
        if millis >= factor {
            text.push_str(&format!("{}{unit}", millis / factor));
            millis %= factor;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for (text, millis) in [
            ("1ms", 1),
            ("90s", 90_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("24h", 86_400_000),
            ("2d", 172_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Some(duration), "{text}");
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration), "{text}");
        }
        assert_eq!(format_duration(Duration::from_secs(600)), "10m");
        assert_eq!(format_duration(Duration::from_secs(3600)), "1h");
        assert_eq!(format_duration(Duration::from_secs(86_400)), "24h");
    }

    #[test]
    fn what_is_not_a_duration() {
        for bad in [
            "",
            "10",
            "m",
            "10 m",
            "10min",
            "1.5h",
            "-1s",
            "30m1h",
            "1m1m",
            "0h5m",
            "1h ",
            "1H",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
