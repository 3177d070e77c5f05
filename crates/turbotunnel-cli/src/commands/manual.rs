//! `completions` and `man`: what the grammar of the command line is worth besides.

use std::io;

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::failure::{Exit, Failure, reason};

const NAME: &str = "turbotunnel";

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    super::print(&String::from_utf8_lossy(&script))
}

pub(super) fn pages(args: &ManArgs) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(&args.folder)?;
        clap_mangen::generate_to(Cli::command(), &args.folder)
    };
    write().map_err(|error| {
        Failure::new(
            Exit::Unexpected,
            format!("cannot write manual pages to {}: {}", args.folder.display(), reason(&error)),
        )
    })
}
