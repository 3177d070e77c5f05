//! A log that cannot be written.

use std::io;
use std::time::Duration;

use crate::attack::{ADMITTED, Attack, Ceiling, Figures, INTACT, When, at_most};
use crate::honest::Honest;
use crate::stage::{Setup, Stage, Stderr, source};
use crate::wire;

const PATIENCE: Duration = Duration::from_secs(8);
/// Sessions that are told of, some hundred bytes each: more than a pipe holds (64 KiB).
const SESSIONS: usize = 1_000;

const DIED: Ceiling = at_most("servers that died", 0.0, "");

pub(crate) const STUCK: Attack = Attack {
    name: "log-stuck",
    what: "the log goes into a pipe that nobody reads, and 1,000 sessions are told of",
    go: "new sessions hang for ever",
    ceilings: &[INTACT, ADMITTED, DIED],
    when: When::Control,
    play: |stage| play(stage, Stderr::Stuck),
};

pub(crate) const CLOSED: Attack = Attack {
    name: "log-closed",
    what: "the reader of the log is gone",
    go: "the server dies of SIGPIPE",
    ceilings: &[INTACT, ADMITTED, DIED],
    when: When::Quick,
    play: |stage| play(stage, Stderr::Closed),
};

pub(crate) const DISK_FULL: Attack = Attack {
    name: "log-disk-full",
    what: "the log goes to /dev/full",
    go: "harmless",
    ceilings: &[INTACT, ADMITTED, DIED],
    when: When::Quick,
    play: |stage| play(stage, Stderr::Full),
};

fn play(stage: &Stage, stderr: Stderr) -> io::Result<Figures> {
    let mut server = stage.server_with(&Setup { stderr, ..Setup::default() })?;
    let mut honest = Honest::connect(server.addr, source(20), PATIENCE)?;
    for n in 0..SESSIONS {
        let mut connection = wire::dial(server.addr, source(2 + (n % 10) as u8));
        if let Ok(connection) = &mut connection {
            let opening = wire::framed(&[&wire::opening(n as u32 + 1)]);
            let _ = io::Write::write_all(connection, &[&wire::id(14, n)[..], &opening].concat());
        }
    }
    let mut figures = Figures::default();
    figures.measured(INTACT, honest.intact(1 << 20, PATIENCE));
    figures.measured(ADMITTED, Honest::admission(server.addr, source(21), PATIENCE));
    figures.measured(DIED, f64::from(u8::from(!server.is_alive())));
    Ok(figures)
}
