//! One id, and many conversations that claim it.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crate::attack::{Attack, Ceiling, Figures, INTACT, When, at_most};
use crate::honest::Honest;
use crate::stage::{Stage, source};
use crate::wire::{self, framed};

const CONVS: u32 = 10_000;
const LINES: Ceiling = at_most("log lines", 200.0, "lines");

pub(crate) const CONV_SPRAY: Attack = Attack {
    name: "conv-spray",
    what: "10,000 convs on the id of an honest session: 340 kB",
    go: "each ends the session and begins one; 69,806 lines, 4.78 MB of log",
    ceilings: &[INTACT, LINES],
    when: When::Control,
    play,
};

fn play(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let mut honest = Honest::connect(server.addr, source(20), Duration::from_secs(5))?;
    let lines = server.log.lines();
    let (addr, id) = (server.addr, honest.id());
    let spraying = thread::spawn(move || {
        let mut attacker = wire::carrier(addr, source(2), id, &[])?;
        for conv in 0..CONVS {
            attacker.write_all(&framed(&[&wire::opening(conv.wrapping_mul(2_654_435_761))]))?;
        }
        thread::sleep(Duration::from_secs(1));
        io::Result::Ok(())
    });
    let mut figures = Figures::default();
    figures.measured(INTACT, honest.intact(4 << 20, Duration::from_secs(5)));
    // One who is hung up on has been refused, and that is well.
    let _ = spraying.join();
    thread::sleep(Duration::from_millis(500));
    figures.measured(LINES, (server.log.lines() - lines) as f64);
    figures.tell("log, kB", server.log.bytes() as f64 / 1e3);
    Ok(figures)
}
