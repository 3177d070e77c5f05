//! `completions` and `man`: what the grammar of the command line is worth besides.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

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
        write_pages(&command(), &args.folder)
    };
    write().map_err(|error| {
        Failure::new(
            Exit::Unexpected,
            format!("cannot write manual pages to {}: {}", args.folder.display(), reason(&error)),
        )
    })
}

fn command() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// That of the command, and those of the ones below it.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_pages(subcommand, folder)?;
    }
    let man = Man::new(command.clone());
    std::fs::write(folder.join(man.get_filename()), page(command, &man)?)
}

/// As the generator makes it, with what it leaves out, and with the last words in lines as they are.
fn page(command: &Command, man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    exit_status(&mut roff);
    environment(&mut roff, command);
    if let Some(notes) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        lines(&mut roff, &notes.to_string());
    }
    roff.to_writer(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman("A number has the same meaning for all commands.")]);
    for (exit, meaning) in Exit::ALL {
        roff.control("TP", []);
        roff.text([bold((exit as u8).to_string())]);
        roff.text([roman(meaning)]);
    }
}

/// What can be said in the environment as well: of the command, and of those below it.
fn environment(roff: &mut Roff, command: &Command) {
    let mut variables = BTreeMap::<String, Vec<String>>::new();
    for (arg, variable) in command.get_arguments().filter_map(with_variable) {
        let help = arg.get_help().map(|help| format!(": {help}")).unwrap_or_default();
        variables.entry(variable).or_default().push(format!("as {}{help}", shown(arg)));
    }
    for subcommand in command.get_subcommands() {
        for (arg, variable) in subcommand.get_arguments().filter(|arg| !arg.is_global_set()).filter_map(with_variable) {
            variables.entry(variable).or_default().push(format!("as {} of {}", shown(arg), subcommand.get_name()));
        }
    }
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman("What the command line says counts more. An empty variable is one that is not set.")]);
    for (variable, means) in variables {
        roff.control("TP", []);
        roff.text([bold(variable)]);
        roff.text([roman(means.join("; "))]);
    }
}

fn with_variable(arg: &Arg) -> Option<(&Arg, String)> {
    let variable = arg.get_env().filter(|_| !arg.is_hide_set())?;
    Some((arg, variable.to_string_lossy().into_owned()))
}

/// `--to`, `SERVER`.
fn shown(arg: &Arg) -> String {
    match (arg.get_long(), arg.get_value_names()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some([name, ..])) => name.to_string(),
        (None, _) => arg.get_id().to_string(),
    }
}

/// Each line begins where it does in the help; those that have columns are examples and stay whole.
fn lines(roff: &mut Roff, text: &str) {
    roff.control("SH", ["NOTES"]);
    for line in text.lines() {
        if line.contains("  ") {
            roff.control("nf", []);
            roff.text([roman(line)]);
            roff.control("fi", []);
        } else {
            roff.text([roman(line)]);
            roff.control("br", []);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(name: &str) -> String {
        let command = command();
        let command = command.find_subcommand(name).unwrap_or(&command);
        let page = page(command, &Man::new(command.clone())).unwrap();
        // As groff reads it.
        String::from_utf8(page).unwrap().replace("\\-", "-").replace("\\*(Aq", "'")
    }

    /// What has no place in the pages of the generator: no variable of an option is left out, and no code.
    #[test]
    fn pages_have_all_variables_and_exit_codes() {
        let all = command();
        let mut count = 0;
        for command in all.get_subcommands().chain([&all]) {
            let page = page_of(command.get_name());
            for (arg, variable) in command.get_arguments().filter_map(with_variable) {
                let entry = format!(".TP\n\\fB{variable}\\fR\nas {}", shown(arg));
                assert!(page.contains(&entry), "{}: {entry}\n{page}", command.get_name());
                count += 1;
            }
            for (exit, meaning) in Exit::ALL {
                assert!(page.contains(&format!(".TP\n\\fB{}\\fR\n{meaning}\n", exit as u8)), "{page}");
            }
        }
        assert!(count > 30, "{count}");
        let main = page_of("turbotunnel");
        assert!(main.contains("\\fBTURBOTUNNEL_TO\\fR\nas --to of server\n"), "{main}");
    }

    /// The document for operators has a table of them, too.
    #[test]
    fn the_documents_have_all_variables() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate.md")).unwrap();
        for command in command().get_subcommands() {
            for (_, variable) in command.get_arguments().filter_map(with_variable) {
                assert!(text.contains(&format!("`{variable}`")), "{variable}");
            }
        }
    }

    #[test]
    fn lines_of_examples_are_lines() {
        let page = page_of("server");
        let example = "\n.nf\n  laptop$ turbotunnel client LINK -L 2222                     and then: ssh -p 2222 127.0.0.1\n.fi\nNothing is";
        assert!(page.contains(example), "{page}");
        let page = page_of("client");
        assert!(
            page.contains("\n.br\nA jump over it: ssh -o ProxyCommand='turbotunnel client LINK -W %h:%p' HOST\n.br\n"),
            "{page}"
        );
    }
}
