//! `sturn generate`: man pages and shell completions, from the same definition as
//! the help.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Failure, print};
use crate::daemon::Exit;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sturn generate man /usr/share/man/man1
  sturn generate completions bash > /usr/share/bash-completion/completions/sturn")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write a man page for sturn and one for each command: sturn.1, sturn-serve.1, ...
    Man {
        /// Directory to write to; it is made if it is not there
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match args.what {
        What::Man { directory } => man(&directory).map_err(|error| {
            Failure::new(Exit::CannotCreate, format!("sturn: {}: {error}", directory.display()))
        }),
        What::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sturn", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

fn man(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut root = Cli::command();
    // Fills in names such as "sturn nat".
    root.build();
    write_pages(&root, "sturn", directory)
}

/// A page for a command and those below it, named as it is typed, with hyphens.
fn write_pages(command: &Command, name: &str, directory: &Path) -> io::Result<()> {
    fs::write(directory.join(format!("{name}.1")), page(command, name)?)?;
    let mut below = command.get_subcommands();
    below.try_for_each(|c| write_pages(c, &format!("{name}-{}", c.get_name()), directory))
}

fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone().name(name.to_owned()).version(env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    if let Some(notes) = command.get_after_long_help().or(command.get_after_help()) {
        // Its columns and examples stay as the help shows them.
        let lines: String = notes.to_string().lines().map(verbatim).collect();
        write!(text, ".SH NOTES\n.nf\n{lines}.fi\n")?;
    }
    Ok(text)
}

/// A line that means itself to roff: no escapes, and no request at its start.
fn verbatim(line: &str) -> String {
    format!("\\&{}\n", line.replace('\\', "\\(rs").replace('-', "\\-").replace('\'', "\\(aq"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_themselves_to_roff() {
        assert_eq!(verbatim(".nf"), "\\&.nf\n");
        assert_eq!(verbatim("a\\b 'c' --d"), "\\&a\\(rsb \\(aqc\\(aq \\-\\-d\n");
    }
}
