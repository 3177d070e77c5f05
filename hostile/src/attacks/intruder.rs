//! Somebody who knows the id of a session, and in the worse cases has seen its packets, and wants to harm it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use kcp::Sn;
use turbotunnel::control::{ByeReason, Control, Hello};

use super::flooders::Crowd;
use crate::attack::{Attack, Figures, INTACT, When};
use crate::honest::Honest;
use crate::stage::{Stage, Whose, source, wait_until};
use crate::tap::{Seen, tap};
use crate::transfer::Transfer;
use crate::wire::{self, Kcp, carrier, packet};

/// A transfer that does not get on for so long has come to harm.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before and after; what passes meanwhile is more.
const BYTES: u64 = 2 << 20;

pub(crate) const FOREIGN_CONV: Attack = Attack {
    name: "foreign-conv",
    what: "a segment of another conv, 34 bytes, again and again, by somebody who knows the id",
    go: "the session is closed, and the client hangs for 74 s and says that all is well",
    ceilings: &[INTACT],
    when: When::Control,
    play: |stage| intrude(stage, foreign_conv),
};

pub(crate) const FORGED_UNA: Attack = Attack {
    name: "forged-una",
    what: "segments of the right conv that acknowledge everything up to 0x7fffffff, or a little less",
    go: "the server forgets what is under way, and the transfer stands still without an error",
    ceilings: &[INTACT],
    when: When::Control,
    play: |stage| intrude(stage, forged_una),
};

pub(crate) const EMPTY_PUSH: Attack = Attack {
    name: "empty-push",
    what: "a PUSH without a byte at the number that comes next",
    go: "the reader hangs for good",
    ceilings: &[INTACT],
    when: When::Control,
    play: |stage| intrude(stage, empty_push),
};

pub(crate) const GO_CLIENT: Attack = Attack {
    name: "go-client",
    what: "these three at once, and the victim is a Go client: it has no token, and says no HELLO",
    go: "as these three",
    ceilings: &[INTACT],
    when: When::Quick,
    play: intrude_go,
};

pub(crate) const CONTROL_PACKETS: Attack = Attack {
    name: "control-packets",
    what: "BYE, UNKNOWN and HELLO with a huge number, by somebody who knows id and conv but not the token",
    go: "it does not know them",
    ceilings: &[INTACT],
    when: When::Quick,
    play: |stage| {
        intrude(stage, |victim, seen| {
            let Ok(conv) = seen.conv() else { return Vec::new() };
            let una = Sn::new(seen.next_sn());
            let hello = |carrier, heard, token| Hello { version: 1, heard, spare: false, conv, carrier, una, token };
            let controls = [
                Control::Bye { conv, token: [0; 8], reason: ByeReason::Done, una },
                Control::Bye { conv, token: [9; 8], reason: ByeReason::Protocol, una },
                Control::Unknown { conv },
                Control::Hello(hello(u32::MAX, true, [0; 8])),
                Control::Hello(hello(u32::MAX, false, [9; 8])),
                Control::Hello(hello(u32::MAX / 2 + 9, false, [0; 8])),
            ];
            let packets = controls.map(|control| {
                let mut packet = Vec::new();
                control.encode(&mut packet);
                packet
            });
            let each = packets.iter().map(|packet| send(victim, &[packet]));
            let all: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
            each.chain([send(victim, &all)]).collect()
        })
    },
};

fn foreign_conv(victim: Victim, _: &Seen) -> Vec<Sent> {
    // Conv 0, command 0, and so on: 24 zeros.
    vec![send(victim, &[&[0; 24]]), send(victim, &[&wire::opening(0xbad)])]
}

fn forged_una(victim: Victim, seen: &Seen) -> Vec<Sent> {
    let Ok(conv) = seen.conv() else { return Vec::new() };
    let forged = |cmd, una| packet(conv, cmd, seen.next_sn(), una, &[]);
    [Kcp::Wins, Kcp::Ack, Kcp::Wask]
        .into_iter()
        .flat_map(|cmd| [forged(cmd, 0x7fff_ffff), forged(cmd, 0x0100_0000)])
        .map(|packet| send(victim, &[&packet]))
        .collect()
}

fn empty_push(victim: Victim, seen: &Seen) -> Vec<Sent> {
    let Ok(conv) = seen.conv() else { return Vec::new() };
    let empty = |ahead| packet(conv, Kcp::Push, seen.next_sn().wrapping_add(ahead), 0, &[]);
    vec![send(victim, &[&empty(0)]), send(victim, &[&empty(1), &empty(2), &empty(3)])]
}

/// The session that is meant.
#[derive(Clone, Copy)]
struct Victim {
    addr: SocketAddr,
    id: [u8; 8],
}

/// The intruder's connection, which stays open for as long as it is kept.
type Sent = io::Result<TcpStream>;

fn send(victim: Victim, packets: &[&[u8]]) -> Sent {
    carrier(victim.addr, source(2), victim.id, packets)
}

/// An honest transfer before, during and after what the intruder does, over a connection that he can see.
fn intrude(stage: &Stage, deed: impl Fn(Victim, &Seen) -> Vec<Sent> + Clone + Send + 'static) -> io::Result<Figures> {
    let server = stage.server()?;
    let (through, seen) = tap(server.addr)?;
    let mut honest = Honest::connect(through, source(20), Duration::from_secs(5))?;
    honest.echo(BYTES, PATIENCE)?;
    let victim = Victim { addr: server.addr, id: honest.id() };
    // Once while it is quiet, when the next number is known for sure ...
    let once = deed(victim, &seen);
    thread::sleep(Duration::from_millis(300));
    let mut intact = honest.intact(64 << 10, PATIENCE);
    drop(once);
    if intact == 100.0 {
        // ... and on and on in the middle of it.
        let crowd = Crowd::new(1, move |_, _| {
            let connections = deed(victim, &seen);
            thread::sleep(Duration::from_millis(20));
            drop(connections);
        });
        let during = honest.goodput(Duration::from_secs(1));
        crowd.disperse();
        // A session that is over, or a byte that is wrong.
        if during.is_err() {
            intact = 0.0;
        }
    }
    if intact == 100.0 {
        intact = honest.intact(BYTES, PATIENCE);
    }
    let mut figures = Figures::default();
    figures.measured(INTACT, intact);
    Ok(figures)
}

/// All that while a Go client's transfer runs.
fn intrude_go(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let (through, seen) = tap(server.addr)?;
    let mut client = stage.client_of(Whose::Go, through, &[])?;
    let transfer = Transfer::begin(&mut client, 16 << 20, Duration::ZERO)?;
    let id = wait_until(PATIENCE, || seen.id().is_some()).and_then(|_| seen.id());
    let victim = Victim { addr: server.addr, id: id.ok_or_else(|| io::Error::other("the tap has seen no id"))? };
    let crowd = Crowd::new(1, move |_, _| {
        let connections = [foreign_conv, forged_una, empty_push].map(|deed| deed(victim, &seen));
        thread::sleep(Duration::from_millis(20));
        drop(connections);
    });
    let mut figures = Figures::default();
    figures.measured(INTACT, transfer.end(&mut client));
    crowd.disperse();
    Ok(figures)
}
