//! `sturn serve`.

use std::process::ExitCode;

use super::ConfigArg;
use crate::daemon;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sturn serve                                a first try, with a user made up for this run
  sturn serve --config /etc/sturn/sturn.toml")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn run(args: Args) -> ExitCode {
    match args.config.load() {
        Ok((config, origin)) => daemon::serve(config, &origin),
        Err(failure) => failure.report(),
    }
}
