//! Plays attacks, one after the other, each on programs of its own, and holds what they do to ceilings.
//!
//! ```text
//! turbotunnel-hostile                  the quick ones, on our programs
//! turbotunnel-hostile long             the slow ones
//! turbotunnel-hostile una half-open    those with one of these words in their name
//! turbotunnel-hostile control          what the Go programs are known to fall to: they have to
//! turbotunnel-hostile list             their names
//! ```
//!
//! `--json` tells all figures. The exit code is 0 if nothing has failed; an attack that could not be played has failed.
//!
//! An attack is played in a process of its own, so that one that hangs or is careless with threads and descriptors is no trouble to the next.

mod attack;
mod attacks;
mod honest;
mod player;
mod speaker;
mod stage;
mod tap;
mod transfer;
mod wire;

use std::process::{Command, ExitCode};
use std::time::Instant;

use attack::{Attack, When};
use player::Played;
use serde::Serialize;
use stage::Whose;

/// So many attacks have to hurt the Go programs, or this suite hurts nobody.
const CONTROL: usize = 8;

const USAGE: &str = "\
usage: turbotunnel-hostile [--json] [long | control | list | WORD...]
  nothing     the quick attacks, on our programs
  long        the slow ones
  control     on the Go programs, what they have to fall to
  list        the names of all
  WORD...     those with one of these words in their name";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, name, whose] = words.as_slice()
        && word == player::PLAY
    {
        return player::play(name, whose);
    }
    let json = words.iter().any(|word| word == "--json");
    words.retain(|word| word != "--json");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let Some(option) = words.iter().find(|word| word.starts_with('-')) {
        let asked = matches!(*option, "-h" | "--help");
        if asked {
            println!("{USAGE}");
        } else {
            eprintln!("error: no option {option:?}\n{USAGE}");
        }
        return ExitCode::from(if asked { 0 } else { 2 });
    }
    if words == ["list"] {
        attacks::ALL.iter().for_each(|attack| println!("{:18} {}", attack.name, attack.what));
        return ExitCode::SUCCESS;
    }
    let whose = if words == ["control"] { Whose::Go } else { Whose::Ours };
    let chosen = choose(&words);
    if chosen.is_empty() {
        eprintln!("no attack has one of {words:?} in its name; \"list\" tells them all");
        return ExitCode::from(2);
    }
    if whose == Whose::Ours
        && let Err(why) = build()
    {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    if run(&chosen, whose, json) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn choose(words: &[&str]) -> Vec<&'static Attack> {
    let is_chosen = |attack: &Attack| match words {
        [] => attack.when != When::Long,
        ["long"] => attack.when == When::Long,
        ["control"] => attack.when == When::Control,
        words => words.iter().any(|word| attack.name.contains(word)),
    };
    attacks::ALL.iter().copied().filter(|attack| is_chosen(attack)).collect()
}

/// The present program, beside this one. Where there is no cargo the one that is there is played on.
fn build() -> Result<(), String> {
    let (Some(cargo), Ok(here)) = (std::env::var_os("CARGO"), std::env::current_exe()) else { return Ok(()) };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "--package", "turbotunnel-cli"]);
    build.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")]);
    if here.parent().is_some_and(|folder| folder.ends_with("release")) {
        build.arg("--release");
    }
    if let Some(target) = here.ancestors().nth(2) {
        build.arg("--target-dir").arg(target);
    }
    match build.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{build:?}: {status}")),
        Err(error) => Err(format!("{build:?}: {error}")),
    }
}

/// What became of an attack, as `--json` tells it.
#[derive(Serialize)]
struct Told {
    name: &'static str,
    go: &'static str,
    passed: bool,
    /// Why it could not be played.
    error: Option<String>,
    figures: Vec<(String, f64)>,
    ceilings: Vec<(String, String, bool)>,
    seconds: f64,
}

const HELD: &str = "held";
const FELL: &str = "FELL";

fn verdict(attack: &Attack, played: &Played) -> &'static str {
    match played {
        Played::Figures(figures) if attack.ceilings.iter().all(|ceiling| ceiling.is_kept(figures)) => HELD,
        Played::Figures(_) => FELL,
        Played::Hung | Played::Not(_) => "NOT PLAYED",
    }
}

/// Whether all went as it should.
fn run(chosen: &[&'static Attack], whose: Whose, json: bool) -> bool {
    let began = Instant::now();
    let (mut all, mut held, mut fell, mut unplayed) = (Vec::new(), 0, 0, 0);
    for attack in chosen {
        let start = Instant::now();
        let mut played = player::watch(attack, whose);
        if whose == Whose::Ours && verdict(attack, &played) == FELL {
            // Times are measured on a machine that may do other things, too. Who falls, falls twice.
            if !json {
                tell(attack, "fell once", &played, start.elapsed().as_secs_f64());
            }
            played = player::watch(attack, whose);
        }
        let seconds = start.elapsed().as_secs_f64();
        let verdict = verdict(attack, &played);
        match verdict {
            HELD => held += 1,
            FELL => fell += 1,
            _ => unplayed += 1,
        }
        if !json {
            tell(attack, verdict, &played, seconds);
        }
        let figures = played.figures();
        all.push(Told {
            name: attack.name,
            go: attack.go,
            passed: verdict == HELD,
            error: played.error(),
            ceilings: attack.ceilings.iter().map(|c| (c.figure.to_owned(), c.told(), c.is_kept(&figures))).collect(),
            figures: figures.0,
            seconds,
        });
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&all).expect("plain values"));
    } else {
        let seconds = began.elapsed().as_secs();
        println!("\n{held} held, {fell} fell, {unplayed} could not be played, {seconds} s");
        if whose == Whose::Go {
            println!("the Go programs fell to {fell}, and {CONTROL} is what shows that this suite can hurt");
        }
    }
    match whose {
        Whose::Ours => fell == 0 && unplayed == 0,
        Whose::Go => fell >= CONTROL,
    }
}

fn tell(attack: &Attack, verdict: &str, played: &Played, seconds: f64) {
    println!("{verdict:10} {:18} {seconds:5.1} s  {}", attack.name, attack.what);
    if let Some(error) = played.error() {
        println!("{:11}{error}", "");
    }
    let figures = played.figures();
    for ceiling in attack.ceilings {
        let value = figures.get(ceiling.figure).map_or_else(|| "not measured".to_owned(), short);
        let mark = if ceiling.is_kept(&figures) { ' ' } else { '!' };
        println!("{mark:>10} {:36} {value:>12}  {}", ceiling.figure, ceiling.told());
    }
    let others = figures.0.iter().filter(|(name, _)| attack.ceilings.iter().all(|ceiling| ceiling.figure != *name));
    others.for_each(|(name, value)| println!("{:11}{name:36} {:>12}", "", short(*value)));
}

/// A figure with as many digits as one wants to read.
fn short(value: f64) -> String {
    if value.is_nan() {
        "never".to_owned()
    } else if value.fract() == 0.0 || value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}
