//! Sessions without end: an id, a first segment, gone.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::attack::{ADMITTED, Attack, Ceiling, Figures, When, at_most};
use crate::honest::Honest;
use crate::stage::{Stage, source};
use crate::wire;

const IDS: usize = 10_000;
const PER_SECOND: u32 = 2_000;
/// Honest newcomers, each from an address of his own, from when a server that is not choosy has let in as many as it lets in at once.
const NEWCOMERS: u8 = 13;

const GROWTH: Ceiling = at_most("memory grows by", 40.0, "MiB");
/// A hundred, and how many more there would have been.
const LINES: Ceiling = at_most("log lines a second beyond the first thousand", 105.0, "lines");

pub(crate) const FLOOD: Attack = Attack {
    name: "id-flood",
    what: "10,000 ids from one address, 2,000 a second: connect, id, one PUSH of 32 bytes, close",
    go: "842 MiB, and 1.26 cores for two minutes",
    ceilings: &[GROWTH, ADMITTED, LINES],
    when: When::Control,
    play,
};

fn play(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let (addr, before) = (server.addr, server.memory());
    let began = Instant::now();
    let newcomers: Vec<_> = (0..NEWCOMERS)
        .map(|n| {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(1_500 + 250 * u64::from(n)));
                Honest::admission(addr, source(20 + n), Duration::from_secs(8))
            })
        })
        .collect();
    let mut failed = 0;
    for n in 0..IDS {
        let due = Duration::from_secs(1) * n as u32 / PER_SECOND;
        thread::sleep(due.saturating_sub(began.elapsed()));
        let conv = n as u32 + 1;
        failed += usize::from(wire::carrier(addr, source(2), wire::id(1, n), &[&wire::opening(conv)]).is_err());
    }
    let took = began.elapsed();
    let admitted = newcomers.into_iter().map(|newcomer| newcomer.join().unwrap_or(f64::NAN)).fold(0.0, f64::max);
    // What the flood has begun is all there by now.
    thread::sleep(Duration::from_secs(2));
    let mut figures = Figures::default();
    figures.measured(GROWTH, server.peak() - before);
    figures.measured(ADMITTED, admitted);
    figures.tell("ids a second", (IDS - failed) as f64 / took.as_secs_f64());
    figures.measured(LINES, (server.log.lines() as f64 - 1_000.0).max(0.0) / began.elapsed().as_secs_f64());
    figures.tell("log, kB", server.log.bytes() as f64 / 1e3);
    Ok(figures)
}
