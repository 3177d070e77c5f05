//! What an engine says of itself, and what it counts.

use turbotunnel_kcp::{DecodeError, Stats};

use super::*;

/// The sizes of all packets of this instant, and the commands in them.
fn packed(kcp: &mut Kcp, now: Instant) -> Vec<(usize, Vec<Command>)> {
    let mut all = Vec::new();
    let mut packet = Vec::new();
    while kcp.poll_transmit(now, &mut packet) {
        all.push((packet.len(), segments(&packet).expect("our own packet").map(|s| s.cmd).collect()));
        packet.clear();
    }
    all
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = |config: Config| std::panic::catch_unwind(|| Kcp::new(Instant::now(), CONV, config)).is_err();
    let least = Config { send_window: 1, recv_window: 1, min_rto: ms(7), max_rto: ms(7), ..config() };
    for mtu in [25, 65_535] {
        assert!(!refused(Config { mtu, ..least.clone() }), "{mtu}");
    }
    for mtu in [24, 65_536] {
        assert!(refused(Config { mtu, ..config() }), "{mtu}");
    }
    assert!(refused(Config { send_window: 0, ..config() }));
    assert!(refused(Config { recv_window: 0, ..config() }));
    assert!(refused(Config { min_rto: ms(8), max_rto: ms(7), ..config() }));
}

#[test]
fn a_packet_of_another_conversation_is_refused() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV + 1, config());
    assert_eq!(kcp.conv(), CONV + 1);
    let other = segment(Command::Push, 0, 0, b"not for us");
    let error = DecodeError::OtherConv { expected: CONV + 1, found: CONV };
    assert_eq!(kcp.handle_packet(now, &other), Err(error));
    assert_eq!((kcp.rcv_nxt(), kcp.stats().packets_malformed), (Sn::new(0), 1));
}

#[test]
fn all_that_goes_and_comes_is_counted() {
    let mut now = Instant::now();
    let (mut alice, mut bob) = (Kcp::new(now, CONV, config()), Kcp::new(now, CONV, config()));
    let pass = |now: Instant, from: &mut Kcp, to: &mut Kcp| {
        let mut packet = Vec::new();
        while from.poll_transmit(now, &mut packet) {
            assert_eq!(to.handle_packet(now, &packet), Ok(true));
            packet.clear();
        }
    };
    alice.write(&pattern(2 * MSS + 10));
    pass(now, &mut alice, &mut bob);
    now += ms(10);
    bob.ask_window();
    pass(now, &mut bob, &mut alice);
    pass(now, &mut alice, &mut bob);
    for _ in 0..2 {
        alice.write(b"lost");
        while alice.poll_transmit(now, &mut Vec::new()) {}
    }
    alice.resume(now, Resume::Now);
    pass(now, &mut alice, &mut bob);

    let mut stats = Stats::default();
    (stats.packets_sent, stats.packets_received, stats.buffers_allocated) = (7, 1, 3);
    (stats.segments_sent, stats.bytes_sent) = (5, 2 * 1376 + 18);
    (stats.resent_resume, stats.bytes_resent) = (2, 8);
    (stats.acks_received, stats.wask_received, stats.wins_sent, stats.rtt_samples) = (1, 1, 1, 1);
    assert_eq!(*alice.stats(), stats);
    let mut stats = Stats::default();
    (stats.packets_sent, stats.packets_received, stats.buffers_allocated) = (1, 5, 5);
    (stats.segments_received, stats.bytes_received) = (5, 2 * 1376 + 18);
    (stats.acks_sent, stats.wask_sent, stats.wins_received) = (1, 1, 1);
    assert_eq!(*bob.stats(), stats);
}

/// A packet of three segments at most, wherever it is written to.
#[test]
fn packets_are_filled_to_the_last_byte_and_not_beyond() {
    use Command::{Ack, Push, Wask, Wins};
    let now = Instant::now();
    for (arrivals, expected) in [
        (1..4, vec![(72, vec![Ack, Ack, Ack]), (48, vec![Wask, Wins])]),
        (1..3, vec![(72, vec![Ack, Ack, Wask]), (24, vec![Wins])]),
        (1..2, vec![(72, vec![Ack, Wask, Wins])]),
    ] {
        let mut kcp = Kcp::new(now, CONV, Config { mtu: 72, ..config() });
        for sn in arrivals {
            kcp.handle_packet(now, &segment(Push, sn, 0, b"x")).expect("well formed");
        }
        kcp.handle_packet(now, &segment(Wask, 0, 0, b"")).expect("well formed");
        kcp.ask_window();
        assert_eq!(packed(&mut kcp, now), expected);
    }
    let mut kcp = Kcp::new(now, CONV, Config { mtu: 72, ..config() });
    kcp.write(&[1; 3 * 48 - 20]);
    kcp.ask_window();
    let packets = [(24, vec![Wask]), (72, vec![Push]), (72, vec![Push]), (52, vec![Push])];
    assert_eq!(packed(&mut kcp, now), packets, "a full segment needs a packet of its own");
    kcp.write(&[1; 48]);
    let mut packet = vec![7; 1_000];
    assert!(kcp.poll_transmit(now, &mut packet));
    assert_eq!((packet.len(), &packet[..1_000]), (1_072, &[7; 1_000][..]));
}

#[test]
fn data_carries_the_senders_clock() {
    let start = Instant::now();
    let mut kcp = Kcp::new(start, CONV, Config { initial_ts_ms: 1_000, ..config() });
    kcp.write(b"x");
    let mut packet = Vec::new();
    assert!(kcp.poll_transmit(start + ms(234), &mut packet));
    let sent = segments(&packet).expect("our own packet").next().expect("one segment");
    assert_eq!((sent.cmd, sent.ts, sent.payload), (Command::Push, Ts::new(1_234), &b"x"[..]));
}

#[test]
fn an_answer_is_owed_from_the_question_to_its_answer_or_the_next_carrier() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    for ends_with_carrier in [false, true] {
        kcp.ask_window();
        assert!(!kcp.owes_window(), "not asked yet");
        assert_eq!(said(&mut kcp, now).len(), 1);
        assert!(kcp.owes_window());
        if ends_with_carrier {
            kcp.resume(now, Resume::Now);
        } else {
            kcp.handle_packet(now, &segment(Command::Wask, 0, 0, b"")).expect("well formed");
            assert!(kcp.owes_window(), "a question is no answer");
            kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
        }
        assert!(!kcp.owes_window());
        said(&mut kcp, now);
    }
}

#[test]
fn an_engine_knows_what_waits_and_what_it_holds() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    assert!(kcp.is_in_order() && kcp.all_acknowledged());
    assert_eq!((kcp.memory(), kcp.rto()), (0, ms(1_000)));
    kcp.handle_packet(now, &segment(Command::Push, 1, 0, b"b")).expect("well formed");
    assert!(!kcp.is_in_order(), "it waits for the first");
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"a")).expect("well formed");
    assert!(!kcp.is_in_order(), "nobody has read them");
    kcp.consume();
    kcp.consume();
    assert!(kcp.is_in_order());
    kcp.write(b"x");
    assert!(!kcp.all_acknowledged());
    assert_eq!(kcp.memory(), MSS, "a quiet engine has kept neither of the two");
    kcp.handle_rtt(ms(80));
    assert_eq!((kcp.srtt(), kcp.rto()), (Some(ms(80)), ms(240)));
}

#[test]
fn room_for_what_comes_can_be_made_small_and_large_again() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 100, ..config() });
    for (room, told) in [(50, 50), (0, 32), (u16::MAX, 100)] {
        kcp.set_recv_room(room);
        kcp.ask_window();
        assert_eq!(said(&mut kcp, now)[0].3, told);
    }
}

/// The peer has nothing new: that is news, too.
#[test]
fn a_una_that_is_known_ends_learning() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(b"x");
    said(&mut kcp, now);
    kcp.resume(now, Resume::AfterUna);
    assert!(kcp.is_learning() && kcp.handle_una(now, kcp.una()));
    assert!(!kcp.is_learning());
    assert_eq!(said(&mut kcp, now).len(), 1);
}
