//! The program `turbotunnel`.

use std::process::ExitCode;
use std::time::Duration;

use turbotunnel_cli::failure::Exit;
use turbotunnel_cli::log::{Format, Level, Log};
use turbotunnel_cli::{commands, config};

/// How long the last lines may take when nobody reads stderr.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match config::command_line(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(failure) => {
            Log::stderr(Level::Normal, Format::Human).failure(&failure, LAST_WORDS);
            return failure.exit.into();
        }
    };
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
