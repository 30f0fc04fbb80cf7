//! Text of others on a screen: what servers, name servers and certificates say must
//! not steer a terminal, nor show its letters in another order than they have.

use std::fmt::Write;

/// The text with a replacement for whatever is no letter, digit or sign.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// JSON in which such characters are escaped: JSON itself asks for it only with those
/// of ASCII.
pub(super) fn escaped_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && c != '\n' {
            // All of them lie in the plane that has four digits. Writing to a string does
            // not fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Control characters, and those that change the direction of the text around them
/// (Unicode Standard Annex 9 section 2).
fn steers(c: char) -> bool {
    let directs = matches!(
        c,
        '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    );
    directs || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_steers_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\nc\u{9b}d"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d");
        let directs = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}";
        assert_eq!(printable(directs), "\u{fffd}".repeat(7));
        assert_eq!(printable("r\u{e9}seau \u{5d0}\u{200d}"), "r\u{e9}seau \u{5d0}\u{200d}");
    }

    #[test]
    fn json_stays_the_same_json() {
        let text = "{\n\"a\": \"\u{202e}x\u{7f}\"}";
        let safe = escaped_json(text);
        assert_eq!(safe, "{\n\"a\": \"\\u202ex\\u007f\"}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&safe), read(text));
    }
}
