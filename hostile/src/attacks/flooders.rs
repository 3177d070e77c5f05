//! Sixteen who send nothing of use, as fast as it goes, beside one who wants to get something done.
//!
//! What is his fair share? What he gets beside sixteen honest sessions that want as much as he does: one part in seventeen of what server and machine can
//! do. Whoever floods must not get more for garbage than he would for honest work.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::attack::{Attack, Ceiling, Figures, When, at_least};
use crate::honest::Honest;
use crate::stage::{Stage, source};
use crate::wire::{self, framed};

/// How many.
const FLOODERS: usize = 16;
const TIME: Duration = Duration::from_secs(2);

const SHARE: Ceiling = at_least("goodput, of the fair share", 80.0, "%");

pub(crate) const FLOOD: Attack = Attack {
    name: "flooders",
    what: "16 flooders on ids of their own: empty packets without end, or garbage of the right length",
    go: "0.3 % of what it was",
    ceilings: &[SHARE],
    when: When::Control,
    play,
};

/// Whoever runs until told otherwise.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    members: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// `count` threads that do `deed`, each with its number, again and again.
    pub(crate) fn new(count: usize, deed: impl Fn(usize, &AtomicBool) + Clone + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let member = |n| {
            let (stop, deed) = (stop.clone(), deed.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    deed(n, &stop);
                }
            })
        };
        Self { members: (0..count).map(member).collect(), stop }
    }

    /// Ends them, and waits for it.
    pub(crate) fn disperse(self) {
        self.stop.store(true, Ordering::Relaxed);
        for member in self.members {
            let _ = member.join();
        }
    }
}

fn play(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let addr = server.addr;
    let mut victim = Honest::connect(addr, source(20), Duration::from_secs(5))?;
    let alone = victim.goodput(TIME)?;

    let honest = Crowd::new(FLOODERS, move |n, stop| {
        let Ok(mut one) = Honest::connect(addr, source(30 + n as u8), Duration::from_secs(5)) else { return };
        while !stop.load(Ordering::Relaxed) && one.goodput(Duration::from_millis(100)).is_ok() {}
    });
    thread::sleep(Duration::from_secs(1));
    let fair = victim.goodput(TIME)?;
    honest.disperse();
    // Honest sessions on their way out are no part of the attack.
    thread::sleep(Duration::from_secs(1));

    let flood = Crowd::new(FLOODERS, move |n, stop| drop(flooder(addr, n, stop)));
    thread::sleep(Duration::from_millis(500));
    let flooded = victim.goodput(TIME)?;
    flood.disperse();

    let mut figures = Figures::default();
    figures.measured(SHARE, flooded / fair * 100.0);
    figures.tell("of what it is alone, %", flooded / alone * 100.0);
    for (name, rate) in
        [("alone, MB/s", alone), ("beside 16 honest, MB/s", fair), ("beside 16 flooders, MB/s", flooded)]
    {
        figures.tell(name, rate / 1e6);
    }
    Ok(figures)
}

/// Floods until told to stop or the server hangs up. Half of them are strangers to it, half have a session.
pub(crate) fn flooder(addr: SocketAddr, n: usize, stop: &AtomicBool) -> io::Result<()> {
    let conv = n as u32 + 1;
    let (source, id) = (source(100 + n as u8), wire::id(9, n));
    let mut connection =
        if n % 4 < 2 { wire::session(addr, source, id, conv)? } else { wire::carrier(addr, source, id, &[])? };
    // Three of four send lengths of 0; the others, with a session and without, something to look at.
    let flood = if !matches!(n % 8, 1 | 7) {
        vec![0; 64 << 10]
    } else {
        // The right conv, a command that does not exist, 1,376 bytes of nothing.
        let mut garbage = wire::packet(conv, wire::Kcp::Push, 1, 0, &[0; 1376]);
        garbage[4] = 99;
        framed(&vec![garbage.as_slice(); 46])
    };
    connection.set_write_timeout(Some(Duration::from_millis(500)))?;
    connection.set_read_timeout(Some(Duration::from_millis(1)))?;
    while !stop.load(Ordering::Relaxed) {
        match connection.write_all(&flood) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            // A piece that was cut off makes garbage of another kind.
            _ => {}
        }
        let _ = connection.read(&mut [0; 4096]);
    }
    Ok(())
}
