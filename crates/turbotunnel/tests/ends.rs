//! How streams and sessions end, and what does not end them.
#![allow(clippy::disallowed_methods, reason = "some instant to count from")]

#[allow(unreachable_pub, dead_code, reason = "a module shared with other tests")]
mod common;

use std::time::Instant;

use kcp::wire::Command;
use turbotunnel::{Config, PeerKind, Tunnel};

const CONV: u32 = 7;

/// The client's first frame: a smux NOP.
const NOP: [u8; 8] = [2, 3, 0, 0, 0, 0, 0, 0];

fn segment(cmd: Command, sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let (ts, sn, una) = (kcp::Ts::new(0), kcp::Sn::new(sn), kcp::Sn::new(una));
    kcp::Segment { conv: CONV, cmd, frg: 0, wnd: 1000, ts, sn, una, payload }.encode(&mut packet);
    packet
}

fn push(sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    segment(Command::Push, sn, una, payload)
}

fn server(now: Instant) -> Tunnel {
    Tunnel::server(now, Config::default(), CONV, [1; 8])
}

// Strangers.

/// Well-formed packets that our peer cannot have sent: they neither tell who the peer is nor take the session over.
#[test]
fn packets_that_cannot_be_do_not_count_as_heard() {
    let now = Instant::now();
    let mut tunnel = server(now);
    let first = tunnel.attach(now);
    let impossible = [push(0, 50, &NOP), push(60_000, 0, &NOP), segment(Command::Ack, 9, 0, b"")];
    for packet in &impossible {
        tunnel.handle_packet(now, first, packet);
    }
    let stats = tunnel.stats();
    assert_eq!((stats.peer, stats.packets_dropped), (PeerKind::Unknown, 3));

    tunnel.handle_packet(now, first, &push(0, 0, &NOP));
    assert_eq!((tunnel.stats().peer, tunnel.current()), (PeerKind::Go, Some(first)));
    let second = tunnel.attach(now);
    for packet in &impossible {
        tunnel.handle_packet(now, second, packet);
    }
    assert_eq!(tunnel.current(), Some(first), "a stranger has taken the session over");
    tunnel.handle_packet(now, second, &push(0, 0, &NOP));
    assert_eq!(tunnel.current(), Some(second), "the peer repeats itself, on a new carrier");
}
