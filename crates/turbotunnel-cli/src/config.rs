//! Settings from a file, below the environment and the command line.
//!
//! ```toml
//! log-format = "json"
//!
//! [server]
//! listen = [":8000", "wss://:443/tunnel"]
//! to = "127.0.0.1:22"
//! session-timeout = "1h"
//!
//! [client]
//! server = "turbotunnel://..."
//! local = ["2222", "5432:db.lan:5432"]
//! ```
//!
//! A table for each subcommand, and in it the long names of its options; a positional argument has its name in lower case. What is wrong is told with line and column. A setting of
//! the file is an option's default, so whatever is said elsewhere counts more: also what cannot be used together with it. Two settings of the file that cannot be used together are a
//! mistake, as on the command line.

use std::collections::HashSet;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Id};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::Cli;
use crate::failure::{Exit, Failure, reason};

/// A file with settings is short.
const MAX_FILE: u64 = 1 << 20;

/// The command line, with the settings of a file below it if it names one. What clap has to say (help, mistakes) it says itself, and ends the program.
///
/// # Errors
/// The file cannot be read, or something in it is wrong.
pub fn command_line(args: Vec<OsString>) -> Result<Cli, Failure> {
    let mut command = without_empty_variables(Cli::command());
    // Whatever else is wrong there.
    if let Ok(said) = command.clone().ignore_errors(true).try_get_matches_from(&args)
        && let Some(path) = config_of(&said)
    {
        command = with_file(command, &path, &Said::of(&said))?;
    }
    let matches = command.clone().try_get_matches_from(args).unwrap_or_else(|error| error.exit());
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit()))
}

/// What the command line and the environment say to a subcommand: its name, and its arguments.
#[derive(Default)]
struct Said(String, HashSet<Id>);

impl Said {
    fn of(matches: &ArgMatches) -> Self {
        let Some((name, matches)) = matches.subcommand() else { return Self::default() };
        let said = |id: &&Id| {
            let source = matches.value_source(id.as_str());
            matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        Self(name.to_owned(), matches.ids().filter(said).cloned().collect())
    }
}

/// Those that would let in everybody, or go another way, if they were not set: empty they are a mistake.
const NOT_EMPTY: [&str; 2] = ["clients", "proxy"];

/// A variable that is empty is not set, as far as anybody who empties one is concerned.
fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        !NOT_EMPTY.contains(&arg.get_id().as_str())
            && value.is_some_and(|value| value.to_str().is_some_and(|value| value.trim().is_empty()))
    };
    let command = command.mut_args(|arg| if is_empty(&arg) { arg.env(None) } else { arg });
    command.mut_subcommands(without_empty_variables)
}

/// The file that the command line or the environment names.
fn config_of(matches: &ArgMatches) -> Option<PathBuf> {
    let of_subcommand = matches.subcommand().and_then(|(_, matches)| matches.try_get_one::<PathBuf>("config").ok()?);
    of_subcommand.or(matches.try_get_one("config").ok()?).cloned()
}

fn with_file(command: Command, path: &Path, said: &Said) -> Result<Command, Failure> {
    let cannot = |why: String| Failure::new(Exit::Usage, format!("cannot read {}: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| cannot(reason(&error)))?.len();
    if size > MAX_FILE {
        return Err(cannot("too long for a file with settings".into()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(reason(&error)))?;
    with_settings(command, &text, &path.display().to_string(), said)
}

/// Where something is wrong, and what.
struct Wrong(Range<usize>, String);

fn with_settings(mut command: Command, text: &str, name: &str, said: &Said) -> Result<Command, Failure> {
    let told = |Wrong(at, what): Wrong| {
        let before = &text[..at.start.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        Failure::new(Exit::Usage, format!("{name}:{line}:{column}: {what}"))
    };
    let table = DeTable::parse(text)
        .map_err(|error| told(Wrong(error.span().unwrap_or_default(), error.message().trim().to_owned())))?;
    let mut global = Vec::new();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        match (value.get_ref(), command.find_subcommand(name).cloned()) {
            (DeValue::Table(settings), Some(mut subcommand)) => {
                let mut set = Vec::new();
                for (key, value) in settings {
                    let more = if said.0 == name { &said.1 } else { &HashSet::new() };
                    subcommand = with_setting(subcommand, key, value, more, &mut set).map_err(told)?;
                }
                command = command.mut_subcommand(name, |_| subcommand);
            }
            (DeValue::Table(_), None) => {
                return Err(told(Wrong(key.span(), format!("there is no subcommand {name:?}"))));
            }
            // A global argument is one of each subcommand.
            _ => command = with_setting(command, key, value, &said.1, &mut global).map_err(told)?,
        }
    }
    Ok(command)
}

/// A setting becomes the default of its argument, unless it cannot be used with what is `said` elsewhere. `set` is what the file has set before.
fn with_setting(
    command: Command,
    key: &Spanned<impl AsRef<str>>,
    value: &Spanned<DeValue<'_>>,
    said: &HashSet<Id>,
    set: &mut Vec<Id>,
) -> Result<Command, Wrong> {
    let name = key.get_ref().as_ref();
    let named = |arg: &&Arg| match arg.get_long() {
        Some(long) => long == name,
        None => arg.get_id().as_str() == name,
    };
    let unknown = || {
        let place =
            if command.get_name() == "turbotunnel" { String::new() } else { format!(" {}", command.get_name()) };
        Wrong(key.span(), format!("there is no setting {name:?}; turbotunnel{place} --help names them"))
    };
    let arg =
        command.get_arguments().find(named).filter(|arg| arg.get_id() != "config").cloned().ok_or_else(unknown)?;
    let mut values = Vec::new();
    flatten(value, &mut values)?;
    let flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let several = matches!(arg.get_action(), ArgAction::Append);
    if values.is_empty() && !several {
        return Err(Wrong(value.span(), format!("{name} has no value")));
    }
    if let [_, second, ..] = &values[..]
        && !several
    {
        return Err(Wrong(second.0.clone(), format!("{name} has one value")));
    }
    for (at, value) in &values {
        if flag && !matches!(value.as_str(), "true" | "false") {
            return Err(Wrong(at.clone(), format!("{name} is true or false")));
        }
        if !flag && let Some(what) = refused(&command, &arg, value) {
            return Err(Wrong(at.clone(), what));
        }
    }
    let values: Vec<String> =
        values.into_iter().map(|(_, value)| value).filter(|value| !flag || value == "true").collect();
    if values.is_empty()
        || command.get_arguments().any(|other| said.contains(other.get_id()) && at_odds(&command, &arg, other))
    {
        return Ok(command);
    }
    if let Some(other) =
        command.get_arguments().find(|other| set.contains(other.get_id()) && at_odds(&command, &arg, other))
    {
        let other = other.get_long().unwrap_or(other.get_id().as_str());
        return Err(Wrong(key.span(), format!("{name} cannot be used with {other}")));
    }
    set.push(arg.get_id().clone());
    Ok(command.mut_arg(arg.get_id().clone(), |arg| arg.required(false).default_values(values)))
}

/// They cannot be used together, as one of them says.
fn at_odds(command: &Command, one: &Arg, other: &Arg) -> bool {
    let says =
        |one: &Arg, other: &Arg| command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id());
    says(one, other) || says(other, one)
}

/// One value, or those of an array, as they would stand on the command line.
fn flatten(value: &Spanned<DeValue<'_>>, into: &mut Vec<(Range<usize>, String)>) -> Result<(), Wrong> {
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Array(values) => return values.iter().try_for_each(|value| flatten(value, into)),
        DeValue::Datetime(_) | DeValue::Table(_) => return Err(Wrong(value.span(), "not a value of a setting".into())),
    };
    into.push((value.span(), text));
    Ok(())
}

/// What clap has against the value, if anything.
fn refused(command: &Command, arg: &Arg, value: &str) -> Option<String> {
    let name = command.get_name().to_owned();
    let args = match arg.get_long() {
        Some(long) => vec![name, format!("--{long}={value}")],
        None => vec![name, "--".to_owned(), value.to_owned()],
    };
    let error = command.clone().try_get_matches_from(args).err()?;
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            // Without its own beginning and what follows it, which is about command lines.
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            Some(text.split("\n\n").next().unwrap_or(text).trim_end().to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(file: &str, line: &str) -> Result<String, String> {
        let said = Cli::command().ignore_errors(true).try_get_matches_from(line.split(' '));
        let said = said.map(|said| Said::of(&said)).unwrap_or_default();
        let command = with_settings(Cli::command(), file, "t.toml", &said).map_err(|failure| failure.error)?;
        let matches = command.try_get_matches_from(line.split(' ')).map_err(|error| error.to_string())?;
        Ok(format!("{:?}", Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?.command))
    }

    const FILE: &str = "log-format = \"json\"\n\n[server]\nlisten = [\":8000\", \"127.0.0.1:1\"]\nto = \"127.0.0.1:22\"\nmax-sessions = 10\ndrain = \"1h\"\n\n\
        [client]\nserver = \"h:1\"\nplain = true\nlocal = [\"2222\", \"1:a:1\"]\nfail-fast = false\n";

    #[test]
    fn a_file_says_what_the_command_line_does_not() {
        let server = parsed(FILE, "turbotunnel server").unwrap();
        assert!(server.contains("listen: [\":8000\", \"127.0.0.1:1\"]"), "{server}");
        assert!(server.contains("max_sessions: Some(10)") && server.contains("drain: 3600s"), "{server}");
        let client = parsed(FILE, "turbotunnel client").unwrap();
        assert!(client.contains("plain: true") && client.contains("fail_fast: false"), "{client}");
        assert!(client.contains("local: [\"2222\", \"1:a:1\"]"), "{client}");
        // What is said on the command line counts.
        let client = parsed(FILE, "turbotunnel client other:2 -L 3333").unwrap();
        assert!(client.contains("server: \"other:2\"") && client.contains("local: [\"3333\"]"), "{client}");
        let server = parsed(FILE, "turbotunnel server --drain 1s 9").unwrap();
        assert!(server.contains("listen: [\"9\"]") && server.contains("drain: 1s"), "{server}");
        // Other commands are not concerned.
        assert!(parsed(FILE, "turbotunnel demo").is_ok());
    }

    /// Who says `--key` does not want the file's plain format, and who says `-W` none of its ports.
    #[test]
    fn what_is_said_counts_more_than_what_cannot_be_used_with_it() {
        let plain = "[server]\nplain = true\nto = \"127.0.0.1:22\"\n";
        let server = parsed(plain, "turbotunnel server 1 --key k --clients c --echo").unwrap();
        assert!(server.contains("plain: false") && server.contains("to: None"), "{server}");
        assert!(parsed(plain, "turbotunnel server 1").unwrap().contains("plain: true"));
        assert!(parsed("quiet = true", "turbotunnel demo -v").is_ok());
        assert!(parsed("quiet = true\nverbose = 1", "turbotunnel demo").is_err());
        let client = parsed("[client]\nserver = \"h:1\"\nlocal = [\"2222\"]\n", "turbotunnel client -W a:1").unwrap();
        assert!(client.contains("local: []"), "{client}");
        for (file, told) in [
            ("[server]\nkey = \"k\"\nplain = true", "t.toml:3:1: plain cannot be used with key"),
            ("[server]\nplain = true\nclients = \"c\"", "cannot be used with "),
            ("[server]\necho = true\nto = \"a:1\"", "t.toml:3:1: to cannot be used with echo"),
        ] {
            let error = parsed(file, "turbotunnel server 1").unwrap_err();
            assert!(error.contains(told), "{file:?}: {error}");
        }
        assert!(parsed("[server]\nkey = \"k\"\nplain = false\necho = true", "turbotunnel server 1").is_ok());
    }

    #[test]
    fn mistakes_have_a_line_and_a_column() {
        for (file, told) in [
            ("[server]\ndrain = \"soon\"", "t.toml:2:9: invalid value 'soon' for '--drain <TIME>': not a time"),
            ("[server]\nallow = [\"a:1\",\n  \"b\"]", "t.toml:3:3: invalid value 'b' for '--allow <TARGET>'"),
            (
                "[server]\n\nmax-session = 1",
                "t.toml:3:1: there is no setting \"max-session\"; turbotunnel server --help",
            ),
            ("[client]\nplain = \"yes\"", "t.toml:2:9: plain is true or false"),
            ("[client]\ngive-up = [\"1h\", \"2h\"]", "t.toml:2:18: give-up has one value"),
            ("[server]\nclients = []", "t.toml:2:11: clients has no value"),
            ("[sever]\n", "t.toml:1:2: there is no subcommand \"sever\""),
            ("log-format = \"xml\"", "t.toml:1:14: invalid value 'xml' for '--log-format <FORMAT>'"),
            ("config = \"x\"", "t.toml:1:1: there is no setting \"config\""),
            ("[client]\nlocal = 1979-05-27", "t.toml:2:9: not a value"),
            ("[client\n", "t.toml:1:8: "),
        ] {
            let error = parsed(file, "turbotunnel demo").unwrap_err();
            assert!(error.starts_with(told), "{file:?}: {error}");
        }
    }
}
