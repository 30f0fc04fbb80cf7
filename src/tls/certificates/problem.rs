//! What can be wrong with a certificate or key, in a line for people.

use std::fmt;
use std::time::Duration;

/// Why certificates cannot be used. Displays as one line that names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateProblem {
    /// No certificate was given at all.
    None,
    /// The file holds no certificate.
    NoCertificate {
        /// The file with the chain.
        file: String,
    },
    /// A certificate in the file cannot be read.
    Unreadable {
        /// The file with the chain.
        file: String,
    },
    /// The certificate is too old.
    Expired {
        /// The file with the chain.
        file: String,
        /// When it ceased to be valid, since the Unix epoch.
        not_after: Duration,
    },
    /// The certificate is from the future.
    NotYetValid {
        /// The file with the chain.
        file: String,
        /// When it begins to be valid, since the Unix epoch.
        not_before: Duration,
    },
    /// The file holds no private key.
    NoKey {
        /// The file with the key.
        file: String,
    },
    /// The private key can only be read with a passphrase.
    EncryptedKey {
        /// The file with the key.
        file: String,
    },
    /// The private key cannot be read, or is of a kind that is not supported.
    UnsupportedKey {
        /// The file with the key.
        file: String,
    },
    /// Certificate and key are not of the same pair.
    Mismatch {
        /// The file with the key.
        key: String,
        /// The file with the chain.
        chain: String,
    },
    /// A library refused what looked right.
    Library(String),
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no certificate given"),
            Self::NoCertificate { file } => write!(f, "{file}: no certificate in it"),
            Self::Unreadable { file } => write!(f, "{file}: a certificate in it is malformed"),
            Self::Expired { file, not_after } => {
                write!(f, "{file}: expired on {}", Date(*not_after))
            }
            Self::NotYetValid { file, not_before } => {
                write!(f, "{file}: not valid before {}", Date(*not_before))
            }
            Self::NoKey { file } => write!(f, "{file}: no private key in it"),
            Self::EncryptedKey { file } => {
                write!(f, "{file}: the private key is encrypted; store it without a passphrase")
            }
            Self::UnsupportedKey { file } => write!(
                f,
                "{file}: the private key is malformed, or neither RSA (2048 to 8192 bits) nor \
                 ECDSA (P-256, P-384) nor Ed25519"
            ),
            Self::Mismatch { key, chain } => write!(f, "{key} does not belong to {chain}"),
            Self::Library(why) => write!(f, "certificates refused: {why}"),
        }
    }
}

impl std::error::Error for CertificateProblem {}

/// A day in UTC, as year-month-day.
struct Date(Duration);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Days are counted in cycles of 400 years that begin on a first of March,
        // so that a leap day is the last one of its year.
        let days = self.0.as_secs() / 86_400 + 719_468;
        let (cycle, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
        let year = cycle * 400 + year + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_704_067_199, "2023-12-31"),
            (1_704_067_200, "2024-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(Date(Duration::from_secs(seconds)).to_string(), date);
        }
    }
}
