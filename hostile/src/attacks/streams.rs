//! Frames that are cheap to send: SYNs, and data of one byte.

use std::io;
use std::thread;
use std::time::Duration;

use crate::attack::{ADMITTED, Attack, Ceiling, Figures, When, at_most};
use crate::honest::Honest;
use crate::speaker::Speaker;
use crate::stage::{Stage, source};
use crate::wire::{self, Smux, frame};

/// A server that takes nothing more for so long has had enough.
const PATIENCE: Duration = Duration::from_secs(2);

// Each of the 2,500 streams that a session may have has a task of the server, 600 bytes with what the allocator adds.
const GROWTH_BY_SYNS: Ceiling = at_most("memory grows by", 2.0, "MiB");
const GROWTH_BY_BYTES: Ceiling = at_most("memory grows by", 6.0, "MiB");
const LINES: Ceiling = at_most("log lines", 200.0, "lines");

pub(crate) const SYN_FLOOD: Attack = Attack {
    name: "syn-flood",
    what: "100,000 SYN frames in one session: 800 kB",
    go: "564 MiB, 6.5 MB of log",
    ceilings: &[GROWTH_BY_SYNS, LINES, ADMITTED],
    when: When::Control,
    play: |stage| flood(stage, GROWTH_BY_SYNS, &syns()),
};

pub(crate) const TINY_FRAMES: Attack = Attack {
    name: "tiny-frames",
    what: "4,000,000 frames of one byte on one stream whose echo is never read: 36 MB",
    go: "565 MiB",
    ceilings: &[GROWTH_BY_BYTES, LINES, ADMITTED],
    when: When::Control,
    play: |stage| flood(stage, GROWTH_BY_BYTES, &bytes()),
};

fn syns() -> Vec<u8> {
    (0..100_000).flat_map(|n| frame(Smux::Syn, 2 * n + 3, &[])).collect()
}

fn bytes() -> Vec<u8> {
    let mut bytes = frame(Smux::Syn, 3, &[]);
    let one = frame(Smux::Psh, 3, b"x");
    bytes.reserve(one.len() * 4_000_000);
    (0..4_000_000).for_each(|_| bytes.extend_from_slice(&one));
    bytes
}

fn flood(stage: &Stage, growth: Ceiling, frames: &[u8]) -> io::Result<Figures> {
    let server = stage.server()?;
    let (before, lines) = (server.memory(), server.log.lines());
    let mut attacker = Speaker::client(server.addr, source(2), wire::id(5, 1))?;
    let said = attacker.say(frames, PATIENCE)?;
    attacker.stay(Duration::from_secs(1))?;
    let admitted = Honest::admission(server.addr, source(20), Duration::from_secs(8));
    // The log is written by somebody else, later.
    thread::sleep(Duration::from_millis(500));
    let mut figures = Figures::default();
    figures.measured(growth, server.peak() - before);
    figures.measured(LINES, (server.log.lines() - lines) as f64);
    figures.measured(ADMITTED, admitted);
    figures.tell("taken, % of the attack", said as f64 / frames.len() as f64 * 100.0);
    Ok(figures)
}
