//! Packets that are answered: what comes back must not be more than what was sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kcp::Sn;
use turbotunnel::control::{Control, Hello};

use crate::attack::{Attack, Ceiling, Figures, When, at_most};
use crate::stage::{Stage, source};
use crate::wire::{self, Kcp, framed, packet};

/// About one; a tenth more for what comes back anyway.
const AT_ONCE: Ceiling = at_most("back for each byte, all at once", 1.1, "bytes");
const SINGLY: Ceiling = at_most("back for each byte, one at a time", 1.1, "bytes");

const CONV: u32 = 0x77;
const PACKETS: u32 = 100_000;
const SINGLES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(3);

pub(crate) const ACKS: Attack = Attack {
    name: "ack-flood",
    what: "100,000 ACKs, of which none is of use, and as many PUSHes that were there before",
    go: "about 1 (read, not run)",
    ceilings: &[AT_ONCE, SINGLY],
    when: When::Quick,
    play: |stage| {
        let old = wire::opening(CONV);
        flood(stage, |_| framed(&[&packet(CONV, Kcp::Ack, 0, 0, &[]), &old]))
    },
};

pub(crate) const WASKS: Attack = Attack {
    name: "wask-flood",
    what: "100,000 times the question how large the window is",
    go: "about 1 (read, not run)",
    ceilings: &[AT_ONCE, SINGLY],
    when: When::Quick,
    play: |stage| flood(stage, |_| framed(&[&packet(CONV, Kcp::Wask, 0, 0, &[])])),
};

pub(crate) const PINGS: Attack = Attack {
    name: "ping-flood",
    what: "100,000 PINGs",
    go: "it does not know them",
    ceilings: &[AT_ONCE, SINGLY],
    when: When::Quick,
    play: |stage| flood(stage, |nonce| control(&Control::Ping { conv: CONV, nonce, una: Sn::new(0) })),
};

pub(crate) const HELLOS: Attack = Attack {
    name: "hello-flood",
    what: "100,000 HELLOs",
    go: "it does not know them",
    ceilings: &[AT_ONCE, SINGLY],
    when: When::Quick,
    play: |stage| {
        // Each a new carrier's; one that was there before is not answered.
        let hello = |carrier| Hello {
            version: 1,
            heard: false,
            spare: false,
            conv: CONV,
            carrier,
            una: Sn::new(0),
            token: [0; 8],
        };
        flood(stage, |n| control(&Control::Hello(hello(n + 1))))
    },
};

fn control(control: &Control) -> Vec<u8> {
    let mut packet = Vec::new();
    control.encode(&mut packet);
    framed(&[&packet])
}

/// Says 100,000 packets in a session of its own, then some in another with a pause between, and counts what comes back.
fn flood(stage: &Stage, packet: impl Fn(u32) -> Vec<u8>) -> io::Result<Figures> {
    let server = stage.server()?;
    let mut figures = Figures::default();
    // Ceiling, packets at a time, how many of those, and the pause between them.
    let ways = [(AT_ONCE, 100, PACKETS / 100, Duration::ZERO), (SINGLY, 1, SINGLES, PAUSE)];
    for (ceiling, together, times, pause) in ways {
        let mut attacker = wire::session(server.addr, source(2), wire::id(13, together as usize), CONV)?;
        let reading = count(attacker.try_clone()?);
        let mut sent = 0;
        for n in 0..times {
            let piece: Vec<u8> = (0..together).flat_map(|m| packet(n * together + m)).collect();
            attacker.write_all(&piece)?;
            sent += piece.len();
            thread::sleep(pause);
        }
        // Time for the last answers.
        thread::sleep(Duration::from_millis(300));
        attacker.shutdown(Shutdown::Both)?;
        let back = reading.join().unwrap_or(usize::MAX);
        figures.measured(ceiling, back as f64 / sent as f64);
    }
    Ok(figures)
}

/// Counts what comes, to the end.
fn count(mut connection: TcpStream) -> JoinHandle<usize> {
    thread::spawn(move || {
        let (mut buffer, mut back) = (vec![0; 64 << 10], 0);
        while let Ok(n @ 1..) = connection.read(&mut buffer) {
            back += n;
        }
        back
    })
}
