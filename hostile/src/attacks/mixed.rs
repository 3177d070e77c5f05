//! All at once, for minutes: nothing grows, and who is honest gets his bytes back.

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::flooders::{Crowd, flooder};
use crate::attack::{ADMITTED, Attack, Ceiling, Figures, INTACT, When, at_most};
use crate::honest::Honest;
use crate::stage::{Stage, one_of_many, source};
use crate::wire::{self, carrier};

const TIME: Duration = Duration::from_secs(180);
/// Ids a second: more than sessions may begin for long.
const IDS_PER_SECOND: u32 = 200;
const HALF_OPEN: usize = 500;

const GROWTH: Ceiling = at_most("memory grows in the last quarter by", 8.0, "MiB");
const DESCRIPTORS: Ceiling = at_most("descriptors more after the last quarter", 64.0, "descriptors");

pub(crate) const MIXED: Attack = Attack {
    name: "mixed",
    what: "three minutes of ids, half-open connections, flooders and twins together",
    go: "not tried",
    ceilings: &[INTACT, ADMITTED, GROWTH, DESCRIPTORS],
    when: When::Long,
    play,
};

fn play(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let addr = server.addr;
    let mut honest = Honest::connect(addr, source(20), Duration::from_secs(5))?;
    let id = honest.id();

    let ids = Crowd::new(1, move |_, stop| {
        let began = Instant::now();
        for n in 0.. {
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            let _ = carrier(addr, source(2), wire::id(20 + (n >> 16) as u8, n as usize), &[&wire::opening(n + 1)]);
            thread::sleep((Duration::from_secs(1) * n / IDS_PER_SECOND).saturating_sub(began.elapsed()));
        }
    });
    let half_open = Crowd::new(1, move |_, _| {
        let held: Vec<Option<TcpStream>> = (0..HALF_OPEN).map(|n| wire::dial(addr, one_of_many(n / 8)).ok()).collect();
        thread::sleep(Duration::from_secs(3));
        drop(held);
    });
    let flooders = Crowd::new(4, move |n, stop| {
        let _ = flooder(addr, n, stop);
        thread::sleep(Duration::from_millis(100));
    });
    let twins = Crowd::new(1, move |_, _| {
        let twin = carrier(addr, source(3), id, &[&[0; 24]]);
        thread::sleep(Duration::from_millis(500));
        drop(twin);
    });

    // Sessions of the first part live for two minutes: what there is at most is there after that.
    honest.goodput(TIME * 3 / 4)?;
    let (memory, descriptors) = (server.memory(), server.descriptors());
    honest.goodput(TIME / 4)?;
    let mut figures = Figures::default();
    figures.measured(GROWTH, server.memory() - memory);
    figures.measured(DESCRIPTORS, server.descriptors() as f64 - descriptors as f64);
    figures.measured(ADMITTED, Honest::admission(addr, source(21), Duration::from_secs(8)));
    [ids, half_open, flooders, twins].into_iter().for_each(Crowd::disperse);
    figures.measured(INTACT, honest.intact(1 << 20, Duration::from_secs(10)));
    figures.tell("memory, MiB", server.memory());
    figures.tell("descriptors", descriptors as f64);
    figures.tell("honest bytes, MB", honest.received() as f64 / 1e6);
    Ok(figures)
}
