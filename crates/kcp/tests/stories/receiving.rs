//! What arrives: good, old, impossible and broken.

use super::*;

#[test]
fn an_impossible_una_or_ack_has_no_effect_but_its_neighbours_do() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(3 * MSS));
    said(&mut kcp, now);
    let mut packet = segment(Command::Push, 0, 4, b"never agreed");
    packet.extend(segment(Command::Ack, 3, 0, b""));
    packet.extend(segment(Command::Wask, 0, 0x8000_0003, b""));
    packet.extend(segment(Command::Push, 1, 1, b"fine"));
    kcp.handle_packet(now, &packet).expect("well formed");
    let stats = kcp.stats();
    assert_eq!((stats.dropped_wrong_una, stats.dropped_wrong_ack, stats.segments_received), (1, 1, 1));
    assert_eq!((kcp.una(), kcp.rcv_nxt(), kcp.peek()), (Sn::new(1), Sn::new(0), None));
    let answer = said(&mut kcp, now);
    // Half the circle away is behind us, so that question is only old, and is answered.
    assert_eq!(answer.iter().map(|s| (s.0, s.1)).collect::<Vec<_>>(), [(Command::Ack, 1), (Command::Wins, 1)]);
}

/// Somebody else with the same number, or one who guesses: what it says is well formed, but cannot be.
#[test]
fn a_packet_of_which_nothing_can_be_is_told_apart() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    let strange = segment(Command::Wins, 0, 7, b"");
    assert_eq!(kcp.handle_packet(now, &strange), Ok(false), "nothing was sent that it could have");
    assert_eq!(kcp.handle_packet(now, &segment(Command::Push, 60_000, 0, b"x")), Ok(false), "far beyond the window");
    assert_eq!(kcp.handle_packet(now, &[strange, segment(Command::Push, 0, 0, b"x")].concat()), Ok(true));
    assert_eq!(kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"x")), Ok(true), "again, as if the ACK was lost");
}

/// The peer's window is smaller than what was written before its first word, so sending fills it.
#[test]
fn a_packet_of_which_nothing_can_be_starts_no_timer() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(20 * MSS));
    let mut first = segment(Command::Wins, 0, 0, b"");
    first[6..8].copy_from_slice(&[15, 0]);
    assert_eq!(kcp.handle_packet(now, &first), Ok(true), "a window of 15");
    assert_eq!(said(&mut kcp, now).len(), 15);
    let before = kcp.poll_timeout();
    let later = now + ms(1);
    assert_eq!(kcp.handle_packet(later, &segment(Command::Wins, 0, 16, b"")), Ok(false));
    assert_eq!(kcp.poll_timeout(), before);
}

/// Who has room takes data where it lies in the packet, and nothing overtakes what he left.
#[test]
fn what_is_next_can_be_taken_as_it_comes() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    let mut packet = segment(Command::Push, 1, 0, b"b");
    packet.extend(segment(Command::Push, 0, 0, b"a"));
    packet.extend(segment(Command::Push, 2, 0, b"c"));
    let mut taken = Vec::new();
    kcp.handle_packet_with(now, &packet, |bytes| {
        taken.extend_from_slice(bytes);
        true
    })
    .expect("well formed");
    assert_eq!(
        (&taken[..], kcp.peek()),
        (&b"a"[..], Some(&b"b"[..])),
        "the second had come before, the third is behind it"
    );
    kcp.handle_packet_with(now, &segment(Command::Push, 3, 0, b"d"), |_| unreachable!("others wait"))
        .expect("well formed");
    for left in [b"b", b"c", b"d"] {
        assert_eq!(kcp.peek(), Some(&left[..]));
        kcp.consume();
    }
    kcp.handle_packet_with(now, &segment(Command::Push, 4, 0, b"e"), |_| false).expect("well formed");
    assert_eq!(kcp.peek(), Some(&b"e"[..]), "kept, because there was no room");
    kcp.handle_packet_with(now, &segment(Command::Push, 0, 0, b"a"), |_| unreachable!("it was read"))
        .expect("well formed");
    assert_eq!((kcp.rcv_nxt(), kcp.stats().segments_received, kcp.stats().duplicates), (Sn::new(5), 5, 1));
    assert_eq!(kcp.stats().bytes_received, 5);
}

#[test]
fn an_empty_push_is_never_acknowledged() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"")).expect("well formed");
    assert!(!kcp.wants_transmit(now));
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"real")).expect("well formed");
    assert_eq!(kcp.peek(), Some(&b"real"[..]));
    kcp.consume();
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.stats().dropped_empty_push, 2);
}

#[test]
fn old_duplicates_are_acknowledged_again_and_never_read_again() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    for sn in 0..3 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(kcp.only_acks_waiting(now), Some(3));
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 2, 3, 1021, 0)], "one ACK for three in order");
    assert_eq!(kcp.only_acks_waiting(now), None);
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"y")).expect("well formed");
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 0, 3, 1021, 0)]);
    kcp.handle_packet(now, &segment(Command::Push, 5, 0, b"x")).expect("well formed");
    kcp.handle_packet(now, &segment(Command::Push, 5, 0, b"y")).expect("well formed");
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 5, 3, 1021, 0)]);
    kcp.handle_packet(now, &segment(Command::Push, 5, 0, b"y")).expect("well formed");
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 5, 3, 1021, 0)], "its first ACK may have died");
    assert_eq!(kcp.stats().duplicates, 3);
}

#[test]
fn what_lies_beyond_the_window_is_dropped_without_ack() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 4, ..config() });
    kcp.handle_packet(now, &segment(Command::Push, 4, 0, b"x")).expect("well formed");
    assert!(!kcp.wants_transmit(now));
    assert_eq!(kcp.stats().dropped_beyond_window, 1);
    for sn in [3, 0, 1, 2] {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    // Announced is 0, accepted is what lies within four of `rcv_nxt`: an edge once told is not taken back.
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 2, 4, 0, 0)]);
    kcp.handle_packet(now, &segment(Command::Push, 7, 0, b"x")).expect("well formed");
    kcp.handle_packet(now, &segment(Command::Push, 8, 0, b"x")).expect("well formed");
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 7, 4, 0, 0)]);
    kcp.consume();
    assert_eq!(said(&mut kcp, now), [(Command::Wins, 0, 4, 1, 0)], "a closed window that opens is told");
}

/// A peer that had been told more fills the place of what was read before, and one place each.
#[test]
fn no_more_chunks_are_readable_than_the_window_has() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 4, ..config() });
    for sn in 0..6 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(kcp.rcv_nxt(), Sn::new(4), "4 and 5 wait behind them");
    kcp.consume();
    assert_eq!(kcp.rcv_nxt(), Sn::new(5));
    kcp.consume();
    assert_eq!(kcp.rcv_nxt(), Sn::new(6));
    assert_eq!(kcp.stats().dropped(), 0);
}

#[test]
fn the_peer_waits_to_hear_of_what_came_since_the_last_packet() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    for sn in [0, 1, 3, 5] {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(kcp.only_acks_waiting(now), Some(4));
    said(&mut kcp, now);
    for sn in [2, 7] {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(kcp.only_acks_waiting(now), Some(3), "3 has come into its place");
}

/// Two windows of ordinary segments: one read late, one out of order.
#[test]
fn what_an_honest_peer_can_send_is_within_the_budget() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 100, ..config() });
    let data = pattern(MSS);
    for sn in 0..200 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, &data)).expect("well formed");
    }
    assert_eq!((kcp.stats().segments_received, kcp.stats().dropped()), (200, 0));
}

#[test]
fn the_segment_that_all_others_wait_for_is_taken_whatever_is_held() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 100, ..config() });
    let giant = vec![7; 65_511];
    for sn in 1..10 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, &giant)).expect("well formed");
    }
    let dropped = kcp.stats().dropped_over_budget;
    assert!(dropped > 0);
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, &giant)).expect("well formed");
    assert_eq!((kcp.stats().dropped_over_budget, kcp.peek()), (dropped, Some(&giant[..])));
}

#[test]
fn a_peer_that_ignores_the_window_and_sends_giants_is_held_to_a_budget() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 100, ..config() });
    let giant = vec![7; 65_511];
    for sn in 0..100 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, &giant)).expect("well formed");
    }
    let stats = kcp.stats();
    assert!(stats.bytes_received < 2 * 100 * 1500 + 65_536, "{} bytes held", stats.bytes_received);
    assert!(stats.dropped_over_budget > 90);
    let taken = kcp.rcv_nxt();
    while kcp.peek().is_some() {
        kcp.consume();
    }
    kcp.handle_packet(now, &segment(Command::Push, taken.value(), 0, &giant)).expect("well formed");
    assert_eq!(kcp.rcv_nxt(), taken.next(), "and goes on when it was read");
    // Who reads one and leaves the others has room for one.
    for _ in 0..10 {
        let next = kcp.rcv_nxt().value();
        for sn in next..next + 10 {
            kcp.handle_packet(now, &segment(Command::Push, sn, 0, &giant)).expect("well formed");
        }
        assert!(kcp.memory() < 2 * 100 * 1500 + 65_536, "{} bytes held", kcp.memory());
        kcp.consume();
    }
}

#[test]
fn a_packet_that_does_not_parse_changes_nothing() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(2 * MSS));
    said(&mut kcp, now);
    let before = (kcp.una(), kcp.rcv_nxt(), kcp.room(), kcp.poll_timeout());
    let good = {
        let mut packet = segment(Command::Ack, 0, 1, b"");
        packet.extend(segment(Command::Push, 0, 1, b"data"));
        packet
    };
    for spoil in [0, 4, 24, 28, 44] {
        let mut packet = good.clone();
        packet[spoil] ^= 0x80;
        kcp.handle_packet(now, &packet).expect_err("spoilt");
        assert_eq!((kcp.una(), kcp.rcv_nxt(), kcp.room(), kcp.poll_timeout()), before);
        assert!(!kcp.wants_transmit(now) && kcp.peek().is_none());
    }
    assert_eq!((kcp.stats().packets_malformed, kcp.stats().packets_received), (5, 0));
    kcp.handle_packet(now, &good).expect("not spoilt");
    assert_eq!((kcp.una(), kcp.rcv_nxt()), (Sn::new(1), Sn::new(1)));
}

/// 1,000,000 mutated packets, with overflow checks on: no panic, no buffer without a limit, and honest data still passes.
#[test]
fn a_million_mutated_packets_do_no_harm() {
    let mut random = Random(0xdead_beef);
    let start = Instant::now();
    let config = Config { recv_window: 64, send_window: 64, initial_sn: 0xffff_fff0, ..config() };
    let mut kcp = Kcp::new(start, CONV, config.clone());
    let mut now = start;
    let mut out = Vec::new();
    let mut total_malformed = 0;
    for round in 0..1_000_000_u32 {
        if round % 10_000 == 0 {
            total_malformed += kcp.stats().packets_malformed;
            kcp = Kcp::new(now, CONV, config.clone());
            kcp.set_retransmission([Retransmission::Timeout, Retransmission::TailProbe][random.below(2)]);
        }
        let mut packet = Vec::new();
        for _ in 0..=random.below(3) {
            let cmd = [Command::Push, Command::Ack, Command::Wask, Command::Wins][random.below(4)];
            let near = |random: &mut Random, base: Sn| {
                base.plus(u32::try_from(random.below(160)).expect("small")).value().wrapping_sub(80)
            };
            let sn = if cmd == Command::Ack { near(&mut random, kcp.una()) } else { near(&mut random, kcp.rcv_nxt()) };
            let una = near(&mut random, kcp.una());
            let payload = &[9; 100][..random.below(100)];
            packet.extend(segment(cmd, sn, una, if cmd == Command::Push { payload } else { &[] }));
        }
        for _ in 0..random.below(4) {
            let at = random.below(packet.len());
            packet[at] = u8::try_from(random.below(256)).expect("a byte");
        }
        if random.chance(5) {
            packet.truncate(random.below(packet.len() + 1));
        }
        let _ = kcp.handle_packet(now, &packet);
        match random.below(12) {
            0 => kcp.handle_timeout(now),
            1 => now += ms(random.below(3000) as u64),
            2 => {
                while kcp.peek().is_some() && random.chance(90) {
                    kcp.consume();
                }
            }
            3 => kcp.suspend(),
            4 | 5 => kcp.resume(now, [Resume::Now, Resume::AfterUna][random.below(2)]),
            6 => {
                let una = kcp.una().plus(u32::try_from(random.below(5)).expect("small"));
                kcp.handle_una(now, una);
            }
            7 => {
                let room = kcp.room();
                let len = random.below(20_000);
                assert_eq!(kcp.write(&vec![1; len]), len.min(room));
            }
            8 => {
                let len = random.below(300);
                kcp.fill(|buffer, room| buffer.resize(buffer.len() + len.min(room), 3));
            }
            _ => {}
        }
        kcp.handle_timeout(now);
        assert!(kcp.poll_timeout().is_none_or(|due| due > now));
        if random.chance(50) {
            loop {
                let wanted = kcp.wants_transmit(now);
                out.clear();
                assert_eq!(kcp.poll_transmit(now, &mut out), wanted);
                if !wanted {
                    break;
                }
                assert!(out.len() <= 1400);
                let parsed: Vec<_> = segments(&out).expect("our own packet").collect();
                assert!(parsed.iter().all(|s| s.cmd != Command::Push || !s.payload.is_empty()));
            }
        }
        assert!(kcp.in_flight() <= 64);
    }
    assert!(total_malformed > 100_000, "{total_malformed} did not parse");
}

#[test]
fn what_moves_up_while_its_ack_waits_is_still_acknowledged() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 2, ..config() });
    for sn in 0..2 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    said(&mut kcp, now);
    kcp.handle_packet(now, &segment(Command::Push, 2, 0, b"x")).expect("well formed");
    kcp.consume();
    assert!(kcp.wants_transmit(now));
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 2, 3, 0, 0)]);
}

/// Nobody was told of that window, and the places up to there would have to be kept.
#[test]
fn what_lies_beyond_the_largest_window_told_is_dropped() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    for (room, taken, dropped) in [(100, 99, 100), (40, 99, 100), (200, 199, 200)] {
        kcp.set_recv_room(room);
        kcp.ask_window();
        said(&mut kcp, now);
        let before = kcp.stats().clone();
        for sn in [taken, dropped] {
            kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
        }
        let stats = kcp.stats();
        let news = (stats.segments_received + stats.duplicates) - (before.segments_received + before.duplicates);
        assert_eq!((news, stats.dropped_beyond_window - before.dropped_beyond_window), (1, 1), "{room}");
    }
}
