//! What is sent, what is sent again, and when.

use super::*;

#[test]
fn nothing_is_sent_twice_on_a_path_that_loses_nothing() {
    for retransmission in [Retransmission::Timeout, Retransmission::TailProbe] {
        let mut pair = Pair::new(&config(), retransmission);
        pair.delay = ms(600);
        let data = pattern(3_000_000);
        pair.out[0].extend(&data);
        pair.run();
        assert!(pair.received[1] == data);
        let resent = pair.engines[0].stats().resent();
        // Before the first sample all timers run for 1 s, and the round trip takes 1.2 s.
        let allowed = if retransmission == Retransmission::Timeout { 32 } else { 1 };
        assert!(resent <= allowed, "{resent} sent again");
    }
}

#[test]
fn a_lost_segment_goes_again_once_when_a_later_one_is_acknowledged() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(6 * MSS));
    assert_eq!(said(&mut kcp, now).len(), 6);
    let later = now + ms(30);
    kcp.handle_packet(later, &segment(Command::Ack, 3, 1, b"")).expect("well formed");
    let again: Vec<u32> = said(&mut kcp, later).iter().map(|s| s.1).collect();
    assert_eq!(again, [1, 2], "in order, and not what was sent after 3");
    kcp.handle_packet(later, &segment(Command::Ack, 4, 1, b"")).expect("well formed");
    assert_eq!(said(&mut kcp, later), [], "4 was sent before 1 and 2 went again: it proves nothing new");
    kcp.handle_packet(later, &segment(Command::Ack, 5, 6, b"")).expect("well formed");
    assert!(kcp.all_acknowledged());
    assert_eq!(kcp.stats().resent_overtaken, 2);
    assert_eq!(kcp.poll_timeout(), None);
}

/// Found lost, and before it can go again its ACK comes, late.
#[test]
fn what_has_arrived_after_all_does_not_go_again() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(6 * MSS));
    said(&mut kcp, now);
    for sn in [3, 1] {
        kcp.handle_packet(now, &segment(Command::Ack, sn, 0, b"")).expect("well formed");
    }
    assert_eq!(said(&mut kcp, now).iter().map(|s| (s.1, s.4)).collect::<Vec<_>>(), [(0, MSS), (2, MSS)]);
    assert_eq!((kcp.stats().resent_overtaken, kcp.stats().bytes_resent), (2, 2 * 1376));
}

#[test]
fn the_ts_of_an_ack_tells_which_transmission_arrived() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    let ack = |sn: u32, una: u32, ts: u32| {
        let mut packet = segment(Command::Ack, sn, una, b"");
        packet[8..12].copy_from_slice(&ts.to_le_bytes());
        packet
    };
    kcp.write(b"all of it");
    said(&mut kcp, now);
    kcp.write(b"is lost");
    said(&mut kcp, now + ms(500));
    kcp.handle_timeout(now + ms(1000));
    assert_eq!(said(&mut kcp, now + ms(1000)).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    kcp.handle_packet(now + ms(1040), &ack(0, 1, 1000)).expect("well formed");
    assert_eq!(kcp.srtt(), Some(ms(40)), "it was the second transmission");
    assert_eq!(said(&mut kcp, now + ms(1040)).iter().map(|s| s.1).collect::<Vec<_>>(), [1], "sent before that: lost");
    kcp.handle_packet(now + ms(1050), &ack(1, 2, 500)).expect("well formed");
    assert_eq!((kcp.srtt(), kcp.stats().rtt_samples), (Some(ms(40)), 1), "it was the first transmission after all");
}

#[test]
fn a_ts_that_was_never_sent_tells_no_round_trip() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(2 * MSS));
    said(&mut kcp, now);
    for (sn, una) in [(0, 1), (1, 1)] {
        kcp.handle_packet(now + ms(30), &segment(Command::Ack, sn, una, b"")).expect("well formed");
    }
    assert_eq!((kcp.srtt(), kcp.stats().rtt_samples, kcp.stats().rtt_implausible), (None, 0, 2));
}

#[test]
fn a_loss_halves_the_window_once_per_flight() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    // The peer's window is 100 here, so that the congestion window of 32 decides.
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.room(), 32 * MSS);
    assert_eq!(kcp.write(&pattern(100 * MSS)), 32 * MSS);
    said(&mut kcp, now);
    for sn in [9, 19, 31] {
        kcp.handle_packet(now, &segment(Command::Ack, sn, 0, b"")).expect("well formed");
    }
    let again = said(&mut kcp, now).len();
    assert!((16..=20).contains(&again), "{again} of 29 lost ones may go at once: half of 32, and growth");
    assert_eq!(kcp.room(), 0);
}

#[test]
fn timeouts_grow_linearly_to_a_cap_and_start_anew_with_progress() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(b"hello?");
    said(&mut kcp, now);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let due = kcp.poll_timeout().expect("something is on its way");
        waits.push((due - now).as_millis());
        kcp.handle_timeout(due - ms(1));
        assert_eq!(said(&mut kcp, due - ms(1)), [], "too early");
        now = due;
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).len(), 1);
    }
    assert_eq!(waits, [1000, 2000, 3000, 4000, 5000, 5000, 5000, 5000]);
    assert_eq!((kcp.stats().resent_timeout, kcp.stats().bytes_resent), (8, 48));
    kcp.handle_packet(now, &segment(Command::Ack, 0, 1, b"")).expect("well formed");
    assert_eq!(kcp.srtt(), None, "what was sent more than once tells no round trip");
    kcp.write(b"hello!");
    said(&mut kcp, now);
    assert_eq!(kcp.poll_timeout(), Some(now + ms(5000)), "the estimate may still be wrong");
    kcp.handle_packet(now + ms(10), &segment(Command::Ack, 1, 2, b"")).expect("well formed");
    kcp.write(b"hello!");
    said(&mut kcp, now + ms(10));
    assert_eq!(kcp.poll_timeout(), Some(now + ms(1010)), "once acknowledged, at its first going");
}

#[test]
fn only_acknowledgements_put_a_timeout_off() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(3 * MSS));
    said(&mut kcp, now);
    kcp.handle_packet(now + ms(500), &segment(Command::Wask, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.poll_timeout(), Some(now + ms(1_000)));
    kcp.handle_packet(now + ms(600), &segment(Command::Wask, 0, 1, b"")).expect("well formed");
    assert_eq!(kcp.poll_timeout(), Some(now + ms(600) + kcp.rto()));
}

/// Somebody who takes nothing but the first segment (a server that has no session yet) must not wait until all others had their turn.
#[test]
fn after_a_timeout_the_first_segment_goes_first_each_time() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(32 * MSS));
    let first: Vec<_> = said(&mut kcp, now).iter().map(|segment| segment.1).collect();
    assert_eq!(first, (0..32).collect::<Vec<_>>());
    for _ in 0..6 {
        let due = kcp.poll_timeout().expect("something is in flight");
        kcp.handle_timeout(due);
        let again = said(&mut kcp, due);
        let first = again.iter().find(|segment| segment.0 == Command::Push);
        assert!(first.is_none_or(|segment| segment.1 == 0), "{again:?}");
    }
}

#[test]
fn between_peers_of_ours_only_the_first_segment_goes_again_and_late() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.handle_rtt(ms(100));
    kcp.write(&pattern(5 * MSS));
    assert_eq!(said(&mut kcp, now).len(), 5);
    for wait in [1400, 2800, 4200, 5000, 5000] {
        assert_eq!(kcp.poll_timeout(), Some(now + ms(wait)));
        now += ms(wait);
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    }
    kcp.handle_packet(now, &segment(Command::Ack, 0, 1, b"")).expect("well formed");
    assert_eq!(kcp.poll_timeout(), Some(now + ms(1400)), "progress ends the backoff");
    assert_eq!(kcp.stats().resent_probe, 5);
}

/// The last ACKs have come, but no `una` that says the same. It is asked for.
#[test]
fn a_una_that_stays_behind_is_asked_for() {
    for retransmission in [Retransmission::Timeout, Retransmission::TailProbe] {
        let now = Instant::now();
        let mut kcp = Kcp::new(now, CONV, config());
        kcp.set_retransmission(retransmission);
        kcp.write(b"x");
        said(&mut kcp, now);
        let mut ack = segment(Command::Ack, 0, 0, b"");
        ack[8..12].copy_from_slice(&[0; 4]);
        kcp.handle_packet(now + ms(50), &ack).expect("well formed");
        assert_eq!((kcp.in_flight(), kcp.srtt()), (1, Some(ms(50))));
        let due = kcp.poll_timeout().expect("an end");
        assert_eq!(due, now + ms(1_200));
        kcp.handle_timeout(due);
        assert_eq!(said(&mut kcp, due).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);
    }
}

/// The receiver had to drop all of it. What else is believed to be on its way must not keep back the one segment that tells.
#[test]
fn a_full_flight_does_not_hold_back_the_probe() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { initial_flight: 4 * 1400, ..config() });
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.write(b"!");
    said(&mut kcp, now);
    kcp.write(&pattern(4 * MSS));
    assert_eq!(said(&mut kcp, now).len(), 4, "full, and beyond it by the first");
    for _ in 0..3 {
        now = kcp.poll_timeout().expect("a probe");
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    }
}

#[test]
fn the_probe_goes_before_what_has_not_had_its_turn_on_a_new_carrier() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { initial_flight: 4 * 1400, ..config() });
    kcp.set_retransmission(Retransmission::Timeout);
    kcp.write(&pattern(10 * MSS));
    assert_eq!(said(&mut kcp, now).len(), 10);
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.resume(now, Resume::Now);
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for _ in 0..3 {
        now = kcp.poll_timeout().expect("a probe");
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    }
    // The others have not lost their places.
    kcp.handle_packet(now, &segment(Command::Wins, 0, 4, b"")).expect("well formed");
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [4, 5, 6, 7]);
}

#[test]
fn an_engine_that_nobody_asks_for_packets_does_not_count_probes() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.write(&pattern(2 * MSS));
    said(&mut kcp, now);
    for _ in 0..20 {
        if let Some(due) = kcp.poll_timeout() {
            now = due;
        }
        now += ms(1);
        kcp.handle_timeout(now);
        assert!(kcp.poll_timeout().is_none_or(|due| due > now));
    }
    assert_eq!(said(&mut kcp, now).len(), 1);
    assert_eq!(kcp.stats().resent_probe, 1);
    assert_eq!(kcp.poll_timeout(), Some(now + ms(2000)), "and its backoff is that of one probe");
}

#[test]
fn fill_appends_to_one_segment_and_leaves_no_empty_one() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    assert!(kcp.fill(|_, room| assert_eq!(room, MSS)));
    assert!(kcp.all_acknowledged() && !kcp.wants_transmit(now), "nothing appended, nothing sent");
    assert_eq!(kcp.fill_sn(), Sn::new(0));
    assert!(kcp.fill(|buffer, _| buffer.extend_from_slice(b"first ")));
    assert_eq!(kcp.fill_sn(), Sn::new(0), "the same segment");
    assert!(kcp.fill(|buffer, room| {
        assert_eq!(room, MSS - 6);
        buffer.extend_from_slice(b"second");
    }));
    assert_eq!((kcp.end(), kcp.nxt()), (Sn::new(1), Sn::new(0)));
    assert_eq!(said(&mut kcp, now), [(Command::Push, 0, 0, 1024, 12)]);
    assert_eq!(kcp.fill_sn(), Sn::new(1), "a sent segment is never extended");
    assert!(kcp.fill(|buffer, _| buffer.resize(MSS - 5, 1)));
    assert_eq!(kcp.fill_sn(), Sn::new(2), "5 bytes are too few for a frame");
    assert_eq!(kcp.room(), 30 * MSS + 5);
    kcp.write(&pattern(5 + 29 * MSS));
    assert!(kcp.fill(|buffer, _| buffer.resize(MSS - 5, 1)));
    assert_eq!((kcp.fill_sn(), kcp.room()), (Sn::new(31), 5));
    assert!(kcp.fill(|_, room| assert_eq!(room, 5)), "the last one of the window is not left behind");
}

/// Less than 64 bytes, or than a quarter of a small segment, is too little for a frame.
#[test]
fn a_begun_segment_is_left_behind_when_little_is_left_of_it() {
    let now = Instant::now();
    for (mtu, kept, left) in [(1400, 64, 63), (72, 12, 11)] {
        let mss = mtu - 24;
        for (rest, room) in [(kept, kept), (left, mss)] {
            let mut kcp = Kcp::new(now, CONV, Config { mtu, ..config() });
            kcp.write(&pattern(mss - rest));
            assert!(kcp.fill(|_, found| assert_eq!(found, room, "{rest} of {mss} left")));
        }
    }
}

#[test]
fn a_large_packet_holds_many_segments_of_the_usual_size() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { mtu: 65_535, ..config() });
    kcp.write(&pattern(32 * MSS));
    let mut packet = vec![1, 2, 3];
    assert!(kcp.poll_transmit(now, &mut packet));
    assert_eq!(packet.len(), 3 + 32 * (24 + MSS));
    assert!(!kcp.poll_transmit(now, &mut packet), "all went in one");
}

#[test]
fn a_peer_that_drops_half_of_every_burst_is_not_flooded() {
    // A queue of 32 packets that is emptied every 10 ms, as in front of a kcp-go peer.
    let mut pair = Pair::new(&config(), Retransmission::Timeout);
    let data = pattern(3_000 * MSS);
    pair.out[0].extend(&data);
    let mut queue: VecDeque<Vec<u8>> = VecDeque::new();
    while pair.received[1].len() < data.len() {
        pair.turn();
        let mut kept = Vec::new();
        for (to, at, packet) in std::mem::take(&mut pair.air) {
            if to == 0 {
                kept.push((to, at, packet));
            } else if queue.len() < 32 {
                queue.push_back(packet);
            }
        }
        pair.air = kept;
        pair.now += ms(10);
        for packet in queue.drain(..) {
            pair.engines[1].handle_packet(pair.now, &packet).expect("our own packet");
        }
        assert!(pair.elapsed() < Duration::from_secs(120), "stuck at {}", pair.received[1].len());
    }
    assert!(pair.received[1] == data);
    let stats = pair.engines[0].stats();
    assert!(stats.resent() * 4 < stats.segments_sent, "{} of {} again", stats.resent(), stats.segments_sent);
    assert!(pair.elapsed() < Duration::from_secs(20), "took {:?}", pair.elapsed());
}

#[test]
fn two_transmissions_within_one_millisecond_cannot_be_told_apart() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(2 * MSS));
    said(&mut kcp, now);
    kcp.resume(now, Resume::Now);
    said(&mut kcp, now);
    let mut ack = segment(Command::Ack, 1, 0, b"");
    ack[8..12].copy_from_slice(&0_u32.to_le_bytes());
    kcp.handle_packet(now + ms(30), &ack).expect("well formed");
    assert_eq!((kcp.srtt(), said(&mut kcp, now + ms(30)).len()), (None, 0));
}

/// The first segment's log entry stays live while others go again and again: the log must not grow for ever.
#[test]
fn a_probe_for_days_costs_no_memory_and_no_order() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.write(&pattern(3 * MSS));
    said(&mut kcp, now);
    for _ in 0..10_000 {
        now = kcp.poll_timeout().expect("something is on its way");
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    }
    kcp.handle_packet(now, &segment(Command::Ack, 2, 0, b"")).expect("well formed");
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [1], "sent before 2, and 0 was not");
}
