//! One attack in a process of its own: there it is played, here it is watched.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use crate::attack::{Attack, Figures, When};
use crate::attacks;
use crate::stage::{Stage, Whose, wait_until};

/// The word that makes this program a player: `play NAME WHOSE`.
pub(crate) const PLAY: &str = "play";

/// What became of it.
#[derive(Debug)]
pub(crate) enum Played {
    /// What was measured.
    Figures(Figures),
    /// It came to no end.
    Hung,
    /// It could not be played.
    Not(String),
}

impl Played {
    pub(crate) fn figures(&self) -> Figures {
        match self {
            Self::Figures(figures) => figures.clone(),
            _ => Figures::default(),
        }
    }

    pub(crate) fn error(&self) -> Option<String> {
        match self {
            Self::Figures(_) => None,
            Self::Hung => Some("it came to no end".to_owned()),
            Self::Not(why) => Some(why.clone()),
        }
    }
}

/// Has an attack played in another process, and ends that with all it has started.
pub(crate) fn watch(attack: &Attack, whose: Whose) -> Played {
    let patience = Duration::from_secs(if attack.when == When::Long { 400 } else { 90 });
    let mut player = match start(attack.name, whose) {
        Ok(player) => player,
        Err(error) => return Played::Not(format!("cannot start a process: {error}")),
    };
    let ended = wait_until(patience, || !matches!(player.try_wait(), Ok(None))).is_some();
    // Not reaped when it hangs: the number is still its own.
    if !ended {
        end_group(player.id());
    }
    let status = player.wait();
    let said = |pipe: &mut dyn Read| {
        let mut text = String::new();
        // Cut short, it does not parse, and that is told.
        let _ = pipe.read_to_string(&mut text);
        text
    };
    let figures = player.stdout.as_mut().map_or_else(String::new, |pipe| said(pipe));
    let error = player.stderr.as_mut().map_or_else(String::new, |pipe| said(pipe));
    if !ended {
        return Played::Hung;
    }
    match serde_json::from_str::<Vec<(String, Option<f64>)>>(&figures) {
        // JSON knows neither infinity nor what is no number; both break any ceiling.
        Ok(figures) => Played::Figures(Figures(
            figures.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect(),
        )),
        Err(_) => Played::Not(match error.trim() {
            "" => format!("the player ended: {status:?}"),
            error => error.to_owned(),
        }),
    }
}

fn start(name: &str, whose: Whose) -> io::Result<Child> {
    let whose = if whose == Whose::Ours { "ours" } else { "go" };
    // As many descriptors as may be had, for the player and its servers alike. The shell makes way for it.
    let mut player = Command::new("sh");
    player.args(["-c", "ulimit -S -n \"$(ulimit -H -n)\"; exec \"$0\" \"$@\""]);
    player.arg(std::env::current_exe()?).args([PLAY, name, whose]).process_group(0);
    player.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Ends a player and its children: they are a group, of his number.
fn end_group(player: u32) {
    let _ = Command::new("kill").args(["-s", "KILL", "--", &format!("-{player}")]).stderr(Stdio::null()).status();
}

/// The player's side.
pub(crate) fn play(name: &str, whose: &str) -> ExitCode {
    // Whoever watches is gone, by Ctrl-C perhaps: so is the play.
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        end_group(std::process::id());
    });
    let Some(attack) = attacks::ALL.iter().find(|attack| attack.name == name) else {
        eprintln!("there is no attack {name:?}");
        return ExitCode::from(2);
    };
    let whose = if whose == "go" { Whose::Go } else { Whose::Ours };
    match Stage::new(whose).and_then(|stage| (attack.play)(&stage)) {
        Ok(figures) => {
            println!("{}", serde_json::to_string(&figures.0).expect("plain values"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
