//! The program `turbotunnel`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use turbotunnel_cli::args::Cli;
use turbotunnel_cli::commands;
use turbotunnel_cli::failure::Exit;
use turbotunnel_cli::log::Log;

/// How long the last lines may take when nobody reads stderr.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = Log::stderr(cli.level(), cli.format());
    let exit = match commands::run(&cli, &log) {
        Ok(()) => {
            log.flush(LAST_WORDS);
            Exit::Done
        }
        Err(failure) => {
            log.failure(&failure, LAST_WORDS);
            failure.exit
        }
    };
    exit.into()
}
