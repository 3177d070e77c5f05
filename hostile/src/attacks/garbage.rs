//! Bytes that are no packets, and packets that are nothing.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use turbotunnel_sim::Way;
use turbotunnel_sim::pattern::Pattern;

use crate::attack::{ADMITTED, Attack, Ceiling, Figures, INTACT, When, at_most};
use crate::honest::Honest;
use crate::stage::{Running, Stage, source};
use crate::wire::{self, framed};

const PATIENCE: Duration = Duration::from_secs(8);
const GROWTH: Ceiling = at_most("memory grows by", 6.0, "MiB");
const DIED: Ceiling = at_most("servers that died", 0.0, "");

pub(crate) const BAD_LENGTHS: Attack = Attack {
    name: "bad-lengths",
    what: "200 connections with packets of 16,383 to 65,535 bytes, cut short or whole, also under an honest session's id",
    go: "taken, and cut off at 1,500 without a word",
    ceilings: &[INTACT, ADMITTED, GROWTH, DIED],
    when: When::Quick,
    play: bad_lengths,
};

pub(crate) const RANDOM_BYTES: Attack = Attack {
    name: "random-bytes",
    what: "300 connections that say an id and then 8 KiB at random, and 3,000 packets of random bytes",
    go: "it lives, with a session for each",
    ceilings: &[INTACT, ADMITTED, GROWTH, DIED],
    when: When::Quick,
    play: random_bytes,
};

fn bad_lengths(stage: &Stage) -> io::Result<Figures> {
    let mut server = stage.server()?;
    let mut honest = Honest::connect(server.addr, source(20), PATIENCE)?;
    let before = server.memory();
    for n in 0..200_u16 {
        let id = if n % 4 == 0 { honest.id() } else { wire::id(10, usize::from(n)) };
        let opening = wire::opening(1);
        let first: &[&[u8]] = if n % 5 == 0 { &[] } else { &[&opening] };
        let mut attacker = wire::carrier(server.addr, source(2), id, first)?;
        let length = if n % 2 == 0 { 16_383 + n } else { u16::MAX - n };
        let bytes = [&length.to_be_bytes()[..], &vec![0; usize::from(length) / usize::from(n % 3 + 1)]].concat();
        // It may be hung up on in the middle.
        let _ = attacker.write_all(&bytes);
    }
    ended(&mut server, &mut honest, before)
}

fn random_bytes(stage: &Stage) -> io::Result<Figures> {
    let mut server = stage.server()?;
    let mut honest = Honest::connect(server.addr, source(20), PATIENCE)?;
    let before = server.memory();
    let noise = Pattern::new(11, 1, Way::Up);
    for n in 0..300_u64 {
        let mut bytes = vec![0; 8 << 10];
        noise.fill(n << 13, &mut bytes);
        let mut attacker = wire::carrier(server.addr, source(2), wire::id(11, n as usize), &[])?;
        let _ = attacker.write_all(&bytes);
    }
    for n in 0..30_u64 {
        let mut attacker = wire::carrier(server.addr, source(3), wire::id(12, n as usize), &[])?;
        for m in 0..100 {
            let mut packet = vec![0; 24 + ((n * 100 + m) % 1_400) as usize];
            noise.fill((n * 100 + m) << 13, &mut packet);
            if attacker.write_all(&framed(&[&packet])).is_err() {
                break;
            }
        }
        attacker.set_read_timeout(Some(Duration::from_millis(1)))?;
        let _ = attacker.read(&mut [0; 1024]);
    }
    ended(&mut server, &mut honest, before)
}

fn ended(server: &mut Running, honest: &mut Honest, before: f64) -> io::Result<Figures> {
    let mut figures = Figures::default();
    figures.measured(INTACT, honest.intact(1 << 20, PATIENCE));
    figures.measured(ADMITTED, Honest::admission(server.addr, source(21), PATIENCE));
    thread::sleep(Duration::from_millis(300));
    figures.measured(GROWTH, server.peak() - before);
    figures.measured(DIED, f64::from(u8::from(!server.is_alive())));
    Ok(figures)
}
