//! How a probe ends: the exit codes, in one table.

use std::fmt::Write;
use std::process::ExitCode;

/// What a script learns. The numbers above 63 are those of sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Good,
    Warnings,
    Credentials,
    Relay,
    Tls,
    Refused,
    NoName,
    Unreachable,
    Protocol,
}

/// Every code that the command itself decides on; 64 and 66 are about its arguments.
const TABLE: [(Outcome, u8, &str); 9] = [
    (Outcome::Good, 0, "all good"),
    (Outcome::Warnings, 1, "it works, with warnings or not by every transport"),
    (Outcome::Credentials, 2, "the credentials are refused"),
    (Outcome::Relay, 3, "the relay passes no data, or its address is of no use"),
    (Outcome::Tls, 4, "TLS or the certificate"),
    (Outcome::Refused, 5, "the server refuses: a quota, no capacity, no TURN"),
    (Outcome::NoName, 68, "the name does not resolve"),
    (Outcome::Unreachable, 69, "the server is not reached by any transport"),
    (Outcome::Protocol, 76, "no STUN behind that port, or an open relay"),
];

impl Outcome {
    /// The exit code.
    pub(super) fn code(self) -> u8 {
        self.row().1
    }

    /// In a few words.
    pub(super) fn meaning(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Self, u8, &'static str) {
        TABLE.iter().find(|(outcome, ..)| *outcome == self).expect("a test finds each in the table")
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}

/// The table for `--help`.
pub(super) fn table() -> String {
    let mut text = String::from("Exit codes:\n");
    for (_, code, meaning) in TABLE {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {code:>3}  {meaning}");
    }
    text.push_str(
        "   64  the command line is wrong\n   66  a file cannot be read\n  130  interrupted; what was allocated is given back\n\
         An open relay is always 76. Otherwise, where one transport works, the code is 0 or 1;\n\
         where none does, the first failing step of the transport that got furthest decides.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_code_of_its_own() {
        use Outcome::*;
        let all = [Good, Warnings, Credentials, Relay, Tls, Refused, NoName, Unreachable, Protocol];
        let codes = all.map(Outcome::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 68, 69, 76]);
        let text = table();
        for outcome in all {
            assert!(text.contains(outcome.meaning()));
        }
    }
}
