//! Seconds since the Unix epoch and the calendar in UTC, for certificates and
//! for times that a person reads.

const DAY: u64 = 86_400;

/// `2026-11-21 17:00 UTC`.
pub(super) fn text(unix: u64) -> String {
    let (year, month, day) = date(unix / DAY);
    let minutes = unix % DAY / 60;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// A length of time as a person says it: the largest unit that is not zero.
pub(super) fn span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..DAY => (seconds / 3600, "hour"),
        _ => (seconds / DAY, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// Seconds since the epoch, `None` before it or for what is in no calendar.
pub(super) fn unix(date: (u64, u64, u64), time: (u64, u64, u64)) -> Option<u64> {
    let ((year, month, day), (hour, minute, second)) = (date, time);
    let in_calendar = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=length(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let days = || {
        let months: u64 = (1..month).map(|month| length(year, month)).sum();
        before(year) + months + (day - 1)
    };
    in_calendar.then(|| days() * DAY + hour * 3600 + minute * 60 + second)
}

/// Year, month and day of a day since the epoch.
fn date(days: u64) -> (u64, u64, u64) {
    // A year has at most 366 days, so this starts at or below the right one.
    let mut year = 1970 + days / 366;
    while before(year + 1) <= days {
        year += 1;
    }
    let mut day = days - before(year);
    let mut month = 1;
    while day >= length(year, month) {
        day -= length(year, month);
        month += 1;
    }
    (year, month, day + 1)
}

/// Days from the epoch to the beginning of a year.
fn before(year: u64) -> u64 {
    let leap_days = |years: u64| years / 4 - years / 100 + years / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn length(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_date_says() {
        // date -u -d @N
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_700_000_000, "2023-11-14 22:13 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(text(seconds), expected);
        }
    }

    #[test]
    fn there_and_back() {
        for day in (0..60_000).chain([2_932_896]) {
            let (year, month, day_of_month) = date(day);
            assert_eq!(unix((year, month, day_of_month), (0, 0, 0)), Some(day * DAY));
        }
        assert_eq!(unix((2023, 11, 14), (22, 13, 20)), Some(1_700_000_000));
    }

    #[test]
    fn what_is_in_no_calendar() {
        for date in [(1969, 1, 1), (2023, 2, 29), (2023, 13, 1), (2023, 0, 1), (2023, 4, 31)] {
            assert_eq!(unix(date, (0, 0, 0)), None, "{date:?}");
        }
        assert_eq!(unix((2023, 1, 1), (24, 0, 0)), None);
    }

    #[test]
    fn spans() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (7200, "2 hours"),
            (86_400, "1 day"),
            (999_999, "11 days"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }
}
