//! What a packet may do, and what it must not.

use kcp::wire::Command;
use kcp::{Segment, Sn, Ts};
use turbotunnel_sim::{Link, Sim, Traffic, Way, ms, secs};

fn encoded(segments: &[Segment<'_>]) -> Vec<u8> {
    let mut packet = Vec::new();
    segments.iter().for_each(|segment| segment.encode(&mut packet));
    packet
}

/// A session in the middle of a slow conversation both ways, and its conv.
fn talking(name: &str) -> (Sim, u32) {
    let mut sim =
        Sim::new(name).link(Link::new(ms(10))).tapped().traffic(Traffic::both(20_000, 20_000).paced(500, ms(50)));
    sim.run_for(ms(500));
    let conv = sim.seen().iter().find_map(|seen| kcp::conv_of(&seen.packet)).expect("packets were sent");
    (sim, conv)
}

fn push(conv: u32, sn: u32, una: u32, payload: &[u8]) -> Segment<'_> {
    Segment {
        conv,
        cmd: Command::Push,
        frg: 0,
        wnd: 1024,
        ts: Ts::default(),
        sn: Sn::new(sn),
        una: Sn::new(una),
        payload,
    }
}

/// Noise of every length, wrong convs, wrong commands, wrong lengths: dropped, counted, without effect.
#[test]
fn a_packet_that_does_not_parse_has_no_effect() {
    let (mut sim, conv) = talking("a_packet_that_does_not_parse_has_no_effect");
    let mut sent = 0;
    for len in 1..200 {
        let noise: Vec<u8> = (0..len).map(|_| sim.random().number() as u8).collect();
        for way in [Way::Up, Way::Down] {
            sim.inject(1, way, &noise);
        }
        sent += 1;
    }
    let good = encoded(&[push(conv, 1_000_000, 0, b"data")]);
    for cut in 1..good.len() {
        sim.inject(1, Way::Up, &good[..cut]);
        sent += 1;
    }
    let dropped = sim.server_stats().packets_dropped;
    sim.run_until_done(secs(20));
    assert!(sim.server_stats().packets_dropped >= dropped + sent, "each was counted");
    assert_eq!(sim.client_stats().carriers, 1);
}

/// Its acknowledgement may have died with its carrier.
#[test]
fn an_old_duplicate_is_acknowledged_again() {
    let (mut sim, _) = talking("an_old_duplicate_is_acknowledged_again");
    let old = sim.seen().iter().find(|seen| seen.way == Way::Up && seen.pushes().count() == 1).expect("data").clone();
    let sn = old.pushes().next().expect("data").sn;
    sim.run_for(ms(40));
    let before = sim.seen().len();
    sim.inject(1, Way::Up, &old.packet);
    sim.run_for(ms(11));
    let acks = sim.seen()[before..].iter().filter(|seen| seen.way == Way::Down).flat_map(|seen| seen.segments());
    assert!(acks.filter(|segment| segment.cmd == Command::Ack).any(|ack| ack.sn == sn));
    sim.run_until_done(secs(20));
}

/// It would mask the real segment of that number.
#[test]
fn an_empty_push_is_never_acknowledged() {
    let (mut sim, conv) = talking("an_empty_push_is_never_acknowledged");
    let last = sim.seen().iter().filter(|seen| seen.way == Way::Up).flat_map(|seen| seen.pushes()).last();
    let next = last.expect("data").sn.value() + 1;
    sim.inject(1, Way::Up, &encoded(&[push(conv, next, 0, b"")]));
    let before = sim.seen().len();
    sim.run_for(ms(30));
    let acks = sim.seen()[before..].iter().filter(|seen| seen.way == Way::Down).flat_map(|seen| seen.segments());
    let acknowledged = acks.filter(|ack| ack.cmd == Command::Ack && ack.sn.value() == next).count();
    let real = sim.seen().iter().filter(|seen| seen.way == Way::Up).flat_map(|seen| seen.pushes());
    let real = real.filter(|segment| segment.sn.value() == next).count();
    assert!(acknowledged <= real, "only the real one is acknowledged");
    sim.run_until_done(secs(20));
    assert_eq!(sim.server().engine_stats().0.dropped_empty_push, 1);
}

/// "I have what you have not sent yet": that segment lies. The one beside it need not.
#[test]
fn a_segment_with_an_impossible_una_has_no_effect_but_its_neighbour_has() {
    let (mut sim, conv) = talking("a_segment_with_an_impossible_una_has_no_effect_but_its_neighbour_has");
    let good = sim.seen().iter().find(|seen| seen.way == Way::Up && seen.pushes().count() == 1).expect("data").clone();
    let good = good.pushes().next().expect("data");
    let packet = encoded(&[push(conv, 5, 1 << 30, b"lie"), good]);
    let before = sim.server().engine_stats().0.clone();
    sim.inject(1, Way::Up, &packet);
    sim.run_for(ms(11));
    let after = sim.server().engine_stats().0.clone();
    assert_eq!(after.dropped_wrong_una, before.dropped_wrong_una + 1);
    assert_eq!(after.duplicates, before.duplicates + 1, "the neighbour was taken in");
    sim.run_until_done(secs(20));
}

/// Far beyond the window: dropped, and not acknowledged, or its sender would forget it.
#[test]
fn what_lies_beyond_the_window_is_not_acknowledged() {
    let (mut sim, conv) = talking("what_lies_beyond_the_window_is_not_acknowledged");
    let far = 100_000;
    sim.inject(1, Way::Up, &encoded(&[push(conv, far, 0, b"far")]));
    sim.run_until_done(secs(20));
    assert_eq!(sim.server().engine_stats().0.dropped_beyond_window, 1);
    let acks = sim.seen().iter().filter(|seen| seen.way == Way::Down).flat_map(|seen| seen.segments());
    assert!(!acks.into_iter().any(|segment| segment.cmd == Command::Ack && segment.sn.value() == far));
}
