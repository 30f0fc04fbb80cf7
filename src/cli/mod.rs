//! The commands: what a person types, and what they read.
//!
//! Results go to standard output, everything else to standard error. Exit
//! codes are those of [`Exit`], but for `nat` and `probe`, which have their own.

#![forbid(unsafe_code)]

mod authorities;
mod check;
mod credentials;
mod explain;
mod generate;
mod identity;
mod load;
mod nat;
mod probe;
mod resolve;
mod screen;
mod serve;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::{Config, LoadError, Origin};
use crate::daemon::Exit;

/// A STUN and TURN server.
#[derive(Parser)]
#[command(
    name = "sturn",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Try it: `sturn serve` runs on an embedded default and prints how to reach it.\n\
                  Exit codes are those of sysexits(3): 64 usage, 66 no input file,\n\
                  69 unavailable, 70 defect, 71 system error, 77 not permitted, 78 configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Args),
    /// Validate a configuration file and tell what it does
    Check(check::Args),
    /// Issue a time-limited credential
    Credentials(credentials::Args),
    /// Tell whether a peer may be reached, and which rule says so
    Explain(explain::Args),
    /// Tell which NAT this host is behind
    Nat(nat::Args),
    /// Diagnose a STUN or TURN server end to end
    Probe(probe::Args),
    /// Load a STUN or TURN server and measure what it delivers
    Load(load::Args),
    /// Make man pages and shell completions
    Generate(generate::Args),
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let done = match cli.command {
        Command::Serve(args) => return serve::run(args),
        Command::Check(args) => check::run(&args),
        Command::Credentials(args) => credentials::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Nat(args) => return nat::run(&args),
        Command::Probe(args) => return probe::run(args),
        Command::Load(args) => return load::run(&args),
        Command::Generate(args) => generate::run(args),
    };
    match done {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => failure.report(),
    }
}

/// Help and version are answers; everything else clap says is a usage error.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the terminal is gone.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok.into(),
        _ => Exit::Usage.into(),
    }
}

/// Why a command failed: what to say on standard error, and the exit code.
struct Failure {
    message: String,
    exit: Exit,
}

impl Failure {
    fn new(exit: Exit, message: impl Display) -> Self {
        Self { message: message.to_string(), exit }
    }

    fn report(self) -> ExitCode {
        tell(&self.message);
        self.exit.into()
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unreadable { .. } => Self::new(Exit::NoInput, format!("sturn: {error}")),
            LoadError::Invalid(_) => Self::new(Exit::Config, error),
        }
    }
}

/// The `--config` of the commands that can do without.
#[derive(clap::Args)]
struct ConfigArg {
    /// Configuration file; without one, the embedded default
    #[arg(
        long = "config",
        short = 'c',
        value_name = "FILE",
        env = "STURN_CONFIG",
        hide_env_values = true
    )]
    file: Option<PathBuf>,
}

impl ConfigArg {
    fn load(self) -> Result<(Config, Origin), Failure> {
        match self.file {
            Some(file) => Ok((load(&file)?, Origin::File(file))),
            None => Ok((Config::default(), Origin::Embedded)),
        }
    }
}

fn load(file: &Path) -> Result<Config, Failure> {
    Ok(Config::load(file)?)
}

/// A line on standard error. Nobody is left to tell when that is closed.
fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes a result. A reader that went away is not an error: it had enough.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::OsError, format!("sturn: standard output: {e}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
