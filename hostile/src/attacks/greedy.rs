//! Sessions that take all the memory that one may have, and give none back.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crate::attack::{ADMITTED, Attack, Ceiling, Figures, INTACT, When, at_most};
use crate::honest::Honest;
use crate::speaker::Speaker;
use crate::stage::{Setup, Stage, source, wait_until};
use crate::wire::{self, Kcp, Smux, frame, framed, packet};

const GROWTH: Ceiling = at_most("memory grows by", 6.0, "MiB");
/// What one session may come to hold when it has moved enough: 64 MiB received, and 48 MiB to be sent, or twice that where many streams share it.
const EARNED: Ceiling = at_most("memory grows by", 112.0, "MiB");
const EARNED_BY_MANY: Ceiling = at_most("memory grows by", 175.0, "MiB");
/// The budget, and half of that for what the allocator has not given back.
const BUDGET: Ceiling = at_most("memory grows by", 96.0, "MiB");
const GONE: Ceiling = at_most("gone after", 130.0, "s");
const KEPT: Ceiling = at_most("memory left for each", 0.2, "MiB");

pub(crate) const NEVER_READ: Attack = Attack {
    name: "never-read",
    what: "64 streams of one session, each filled as far as it goes, and no echo ever read",
    go: "10 to 15 MiB a session",
    ceilings: &[EARNED],
    when: When::Quick,
    // 256 KiB that are echoed, 256 KiB of echo that waits, and 768 KiB that nobody has read: within the window that our servers give a new stream.
    play: |stage| never_read(stage, 64, 1_280 << 10),
};

pub(crate) const WIDE: Attack = Attack {
    name: "wide",
    what: "1,000 streams of one session, each with 512 KiB, of whose echo a half fits a stream's window",
    go: "not tried",
    ceilings: &[EARNED_BY_MANY],
    when: When::Quick,
    play: |stage| never_read(stage, 1_000, 512 << 10),
};

pub(crate) const BUDGET_USED_UP: Attack = Attack {
    name: "budget",
    what: "ten sessions that fill 64 streams each and never read, while a server may use 64 MiB for all of them",
    go: "has no budget",
    ceilings: &[BUDGET, INTACT, ADMITTED],
    when: When::Quick,
    play: budget,
};

pub(crate) const GAP: Attack = Attack {
    name: "gap",
    what: "segment 1 never comes, and 2 to 8,191 do, of 1,376 bytes each",
    go: "not tried",
    ceilings: &[GROWTH],
    when: When::Quick,
    play: gap,
};

pub(crate) const IMMORTAL: Attack = Attack {
    name: "immortal",
    what: "ten sessions that never read, and whose connections then go away without a word",
    go: "0 of 10 gone after 300 s, 8 to 11 MiB each",
    ceilings: &[GONE, KEPT],
    when: When::Long,
    play: immortal,
};

/// Puts `each` bytes into each of some streams, in turn, until nothing more is taken.
fn fill(attacker: &mut Speaker, streams: u32, each: usize) -> io::Result<usize> {
    const PIECE: usize = 32 << 10;
    let patience = Duration::from_millis(1_500);
    let mut said = 0;
    let ids = (0..streams).map(|n| 2 * n + 3);
    for id in ids.clone() {
        attacker.say(&frame(Smux::Syn, id, &[]), patience)?;
    }
    for _ in 0..each / PIECE {
        for id in ids.clone() {
            let piece = frame(Smux::Psh, id, &[7; PIECE]);
            let taken = attacker.say(&piece, patience)?;
            said += taken;
            if taken < piece.len() {
                return Ok(said);
            }
        }
    }
    Ok(said)
}

fn never_read(stage: &Stage, streams: u32, each: usize) -> io::Result<Figures> {
    let server = stage.server()?;
    let before = server.memory();
    let mut attacker = Speaker::client(server.addr, source(2), wire::id(6, 1))?;
    let said = fill(&mut attacker, streams, each)?;
    attacker.stay(Duration::from_secs(1))?;
    let mut figures = Figures::default();
    figures.measured(GROWTH, server.peak() - before);
    figures.tell("taken, MiB", said as f64 / f64::from(1 << 20));
    Ok(figures)
}

fn budget(stage: &Stage) -> io::Result<Figures> {
    let patience = Duration::from_secs(8);
    let server = stage.server_with(&Setup { options: &["--max-memory", "64MiB"], ..Setup::default() })?;
    let before = server.memory();
    let mut honest = Honest::connect(server.addr, source(20), patience)?;
    let addr = server.addr;
    let attackers: Vec<_> = (0..10)
        .map(|n| {
            thread::spawn(move || {
                let mut attacker = Speaker::client(addr, source(2 + n % 5), wire::id(9, n.into()))?;
                // Who is thrown out has had his time.
                let said = fill(&mut attacker, 64, 1_280 << 10)?;
                attacker.stay(Duration::from_secs(2))?;
                io::Result::Ok(said)
            })
        })
        .collect();
    let intact = honest.intact(64 << 20, patience);
    // Wherever the budget is used up, somebody new may have to wait for the next one to be thrown out.
    let admitted = Honest::admission(addr, source(21), patience);
    let said: usize = attackers.into_iter().filter_map(|attacker| attacker.join().ok()?.ok()).sum();
    let mut figures = Figures::default();
    figures.measured(BUDGET, server.peak() - before);
    figures.measured(INTACT, intact);
    figures.measured(ADMITTED, admitted);
    figures.tell("taken, MiB", said as f64 / f64::from(1 << 20));
    figures.tell("sessions thrown out", server.log.count(&["memory was used up"]) as f64);
    Ok(figures)
}

fn gap(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let before = server.memory();
    let conv = 77;
    let mut attacker = wire::session(server.addr, source(2), wire::id(7, 1), conv)?;
    for sn in 2..8192 {
        let segment = packet(conv, Kcp::Push, sn, 0, &[0; 1376]);
        if attacker.write_all(&framed(&[&segment])).is_err() {
            break;
        }
    }
    thread::sleep(Duration::from_secs(1));
    let mut figures = Figures::default();
    figures.measured(GROWTH, server.peak() - before);
    Ok(figures)
}

fn immortal(stage: &Stage) -> io::Result<Figures> {
    const SESSIONS: usize = 10;
    let server = stage.server()?;
    let before = server.memory();
    let wave = |first: usize| -> io::Result<()> {
        for n in first..first + SESSIONS {
            let mut attacker = Speaker::client(server.addr, source(2), wire::id(8, n))?;
            fill(&mut attacker, 8, 1_280 << 10)?;
        }
        Ok(())
    };
    wave(0)?;
    let full = server.memory();
    let ids: Vec<String> = (0..SESSIONS).map(|n| hex(&wire::id(8, n))).collect();
    // Ours says "session 01020304 ended", the Go program "session 0102030405060708: end".
    let is_gone = |id: &String| server.log.count(&[&format!("{id} ended")]) + server.log.count(&[id, ": end"]) > 0;
    let gone = wait_until(Duration::from_secs(140), || ids.iter().all(is_gone));
    thread::sleep(Duration::from_secs(1));
    let mut figures = Figures::default();
    figures.measured(GONE, gone.map_or(f64::INFINITY, |gone| gone.as_secs_f64()));
    figures.measured(KEPT, (server.memory() - before) / SESSIONS as f64);
    figures.tell("while they live, MiB each", (full - before) / SESSIONS as f64);
    // What the allocator keeps for the next ones is no leak, but it is not back either.
    wave(SESSIONS)?;
    figures.tell("ten more add, MiB", server.memory() - full);
    Ok(figures)
}

/// The first half of an id, as logs show it.
fn hex(id: &[u8; 8]) -> String {
    id[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
