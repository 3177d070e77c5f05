//! A second connection of a session that nobody reads: an old carrier that is not yet known to be dead, or somebody who knows the id.

use std::io;
use std::time::Duration;

use crate::attack::{Attack, Ceiling, Figures, When, at_least};
use crate::honest::Honest;
use crate::stage::{Stage, source};
use crate::wire;

/// In turn, so that whatever else the machine does it does to both.
const ROUNDS: usize = 11;
const TIME: Duration = Duration::from_millis(300);

const SHARE: Ceiling = at_least("goodput, of what it is alone", 90.0, "%");

pub(crate) const DEAD_TWIN: Attack = Attack {
    name: "dead-twin",
    what: "a second connection with the id of an honest session, that nobody reads",
    go: "18 %, while it lasts",
    ceilings: &[SHARE],
    when: When::Control,
    play,
};

fn play(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let mut victim = Honest::connect(server.addr, source(20), Duration::from_secs(5))?;
    victim.goodput(TIME)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(victim.goodput(TIME)?);
        let twin = wire::carrier(server.addr, source(2), victim.id(), &[])?;
        beside.push(victim.goodput(TIME)?);
        drop(twin);
    }
    let (alone, beside) = (median(alone), median(beside));
    let mut figures = Figures::default();
    figures.measured(SHARE, beside / alone * 100.0);
    figures.tell("alone, MB/s", alone / 1e6);
    figures.tell("beside the twin, MB/s", beside / 1e6);
    Ok(figures)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
