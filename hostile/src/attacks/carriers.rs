//! One session that has a thousand connections.

use std::io;
use std::thread;
use std::time::Duration;

use crate::attack::{ADMITTED, Attack, Ceiling, Figures, When, at_most};
use crate::honest::Honest;
use crate::stage::{Stage, source};
use crate::wire::{self, Kcp, packet};

const CARRIERS: usize = 1_000;
const CONV: u32 = 5;

const GROWTH: Ceiling = at_most("memory grows by", 6.0, "MiB");
const LEFT: Ceiling = at_most("kept after 3 s", 8.0, "connections");

pub(crate) const OF_ONE_SESSION: Attack = Attack {
    name: "carriers",
    what: "1,000 connections of one session, each newer and valid, none of them closed or read",
    go: "not tried",
    ceilings: &[GROWTH, LEFT, ADMITTED],
    when: When::Quick,
    play,
};

fn play(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let (before, descriptors) = (server.memory(), server.descriptors());
    let id = wire::id(15, 1);
    let first = wire::session(server.addr, source(2), id, CONV)?;
    let mut held = vec![first];
    for _ in 0..CARRIERS {
        held.push(wire::carrier(server.addr, source(2), id, &[&packet(CONV, Kcp::Wask, 0, 0, &[])])?);
        // Each is in use before the next one comes.
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_secs(1));
    let mut figures = Figures::default();
    let more = || server.descriptors().saturating_sub(descriptors) as f64;
    figures.tell("at first", more());
    figures.measured(GROWTH, server.peak() - before);
    figures.measured(ADMITTED, Honest::admission(server.addr, source(20), Duration::from_secs(8)));
    thread::sleep(Duration::from_secs(2));
    figures.measured(LEFT, more());
    drop(held);
    Ok(figures)
}
