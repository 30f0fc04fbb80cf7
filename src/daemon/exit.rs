//! Exit codes, as sysexits(3) names them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The command line is wrong (EX_USAGE).
    Usage = 64,
    /// An input file is missing or cannot be read (EX_NOINPUT).
    NoInput = 66,
    /// Something needed is not there, such as an address to listen on (EX_UNAVAILABLE).
    Unavailable = 69,
    /// A defect in sturn (EX_SOFTWARE).
    Software = 70,
    /// The system refused something it should grant (EX_OSERR).
    OsError = 71,
    /// An output file cannot be made (EX_CANTCREAT).
    CannotCreate = 73,
    /// The system does not permit it, such as a port below 1024 (EX_NOPERM).
    NoPermission = 77,
    /// The configuration is not valid (EX_CONFIG).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
