//! Connections that never say who they are.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crate::attack::{ADMITTED, Attack, Ceiling, Figures, When, at_most};
use crate::honest::Honest;
use crate::stage::{Stage, one_of_many, source, wait_until};
use crate::wire;

const CONNECTIONS: usize = 9_500;
/// So many from one address: no more than a limit on strangers of one source would let in.
const PER_SOURCE: usize = 64;
/// So many come before it is measured what each of the others costs.
const FIRST: usize = 100;

const EACH: Ceiling = at_most("memory for each", 2.0, "KiB");
const LEFT: Ceiling = at_most("left after 11 s", 0.0, "connections");

pub(crate) const HALF_OPEN: Attack = Attack {
    name: "half-open",
    what: "9,500 connections from 149 addresses that say 7 bytes of their id and no more",
    go: "3.2 KiB each, for ever",
    ceilings: &[EACH, LEFT, ADMITTED],
    when: When::Control,
    play: half_open,
};

pub(crate) const DRIP: Attack = Attack {
    name: "drip",
    what: "64 connections that say their id, and then a byte of a packet each second",
    go: "for ever",
    ceilings: &[LEFT],
    when: When::Quick,
    play: drip,
};

fn half_open(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let descriptors = server.descriptors();
    let (mut before, mut first) = (server.memory(), descriptors);
    let mut held = Vec::with_capacity(CONNECTIONS);
    let mut most = 0;
    for n in 0..CONNECTIONS {
        let mut stranger = wire::dial(server.addr, one_of_many(n / PER_SOURCE))?;
        // A server that has enough of us may have hung up.
        let _ = stranger.write_all(&wire::id(2, n)[..7]);
        held.push(stranger);
        if n == FIRST {
            // What the first of them cost once is not each one's.
            thread::sleep(Duration::from_millis(100));
            (before, first) = (server.memory(), server.descriptors());
        }
        if n % 25 == 0 {
            most = most.max(server.descriptors());
        }
    }
    thread::sleep(Duration::from_millis(200));
    most = most.max(server.descriptors()).saturating_sub(first);
    let growth = server.peak() - before;
    let admitted = Honest::admission(server.addr, source(20), Duration::from_secs(8));
    // The honest one's connection may still be open.
    let mut left = 0;
    wait_until(Duration::from_secs(11), || {
        left = server.descriptors().saturating_sub(descriptors + 1);
        left == 0
    });
    let mut figures = Figures::default();
    figures.measured(EACH, growth * 1024.0 / most.max(1) as f64);
    figures.measured(LEFT, left as f64);
    figures.measured(ADMITTED, admitted);
    figures.tell("held at most", (most + first - descriptors) as f64);
    figures.tell("memory grows by, MiB", growth);
    Ok(figures)
}

fn drip(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let descriptors = server.descriptors();
    let mut held = Vec::new();
    for n in 0..PER_SOURCE {
        held.push(wire::carrier(server.addr, source(2), wire::id(3, n), &[])?);
    }
    // A packet of 1,400 bytes, as slowly as it goes.
    let packet = [&[0x05, 0x78][..], &[0; 1400]].concat();
    for byte in packet.iter().take(11) {
        for connection in &mut held {
            let _ = connection.write_all(&[*byte]);
        }
        thread::sleep(Duration::from_secs(1));
    }
    let mut figures = Figures::default();
    figures.measured(LEFT, server.descriptors().saturating_sub(descriptors) as f64);
    Ok(figures)
}
