//! A server that has no descriptors left.

use std::io;
use std::time::{Duration, Instant};

use crate::attack::{Attack, Ceiling, Figures, When, at_most};
use crate::honest::Honest;
use crate::stage::{Setup, Stage, source};
use crate::wire;

const CPU: Ceiling = at_most("CPU meanwhile", 2.0, "% of a core");
const RECOVERED: Ceiling = at_most("honest newcomer in afterwards after", 2.0, "s");

pub(crate) const EXHAUSTED: Attack = Attack {
    name: "descriptors",
    what: "80 connections to a server that may have 64 descriptors",
    go: "105 % of a core",
    ceilings: &[CPU, RECOVERED],
    when: When::Control,
    play,
};

fn play(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server_with(&Setup { descriptors: Some(64), ..Setup::default() })?;
    let mut held = Vec::new();
    for n in 0..80 {
        // The system takes what the server does not, and it waits there.
        held.push(wire::carrier(server.addr, source(2 + (n % 2) as u8), wire::id(4, n), &[])?);
    }
    let mut figures = Figures::default();
    // Ticks are 10 ms: 2 % of five seconds are ten of them.
    figures.measured(CPU, server.cpu_during(Duration::from_secs(5)));
    figures.tell("descriptors", server.descriptors() as f64);
    drop(held);
    let freed = Instant::now();
    let admitted = Honest::connect(server.addr, source(20), Duration::from_secs(5));
    let recovered = admitted.map_or(f64::INFINITY, |_| freed.elapsed().as_secs_f64());
    figures.measured(RECOVERED, recovered);
    Ok(figures)
}
