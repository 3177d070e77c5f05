//! A carrier dies, and another takes over.

use super::*;

#[test]
fn a_reborn_carrier_carries_everything_again_at_once_however_long_it_was_away() {
    for outage in [ms(10), ms(3_000), ms(600_000)] {
        let mut pair = Pair::new(&config(), Retransmission::Timeout);
        let data = pattern(20 * MSS);
        pair.out[0].extend(&data);
        pair.turn();
        pair.cut();
        let sent = pair.packets[0];
        pair.run_for(outage);
        assert_eq!(pair.packets[0], sent, "nothing goes into the void");
        for kcp in &mut pair.engines {
            kcp.resume(pair.now, Resume::Now);
        }
        pair.turn();
        pair.now += pair.delay;
        pair.turn();
        assert!(pair.received[1] == data, "not here one way after the outage of {outage:?}");
        pair.run();
        assert_eq!(pair.engines[0].stats().resent_resume, 20);
        assert_eq!(pair.engines[0].stats().resent(), 20);
    }
}

#[test]
fn learning_comes_before_sending_again() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(10 * MSS));
    said(&mut kcp, now);
    kcp.suspend();
    now += ms(500);
    kcp.resume(now, Resume::AfterUna);
    kcp.ask_window();
    assert!(kcp.is_learning());
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);

    assert!(!kcp.handle_una(now, Sn::new(11)), "more than was sent");
    assert!(!kcp.handle_una(now, Sn::new(u32::MAX)), "less than was known");
    assert!(kcp.is_learning() && kcp.in_flight() == 10);
    assert!(kcp.handle_una(now, Sn::new(7)));
    assert!(!kcp.is_learning());
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(kcp.srtt(), None, "an outage is no round trip");

    // By packet it is the same, and without anything in flight there is nothing to learn.
    kcp.resume(now, Resume::AfterUna);
    kcp.handle_packet(now, &segment(Command::Wins, 0, 9, b"")).expect("well formed");
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [9]);
    assert!(kcp.handle_una(now, Sn::new(10)));
    kcp.resume(now, Resume::AfterUna);
    assert!(!kcp.is_learning());
}

#[test]
fn a_peer_that_was_never_heard_gets_one_segment_to_answer() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(10 * MSS));
    said(&mut kcp, now);
    kcp.suspend();
    now += ms(500);
    kcp.resume(now, Resume::AfterFirst);
    assert!(kcp.is_learning() && kcp.wants_transmit(now));
    assert_eq!(said(&mut kcp, now).iter().map(|s| (s.0, s.1)).collect::<Vec<_>>(), [(Command::Push, 0)]);
    assert!(!kcp.wants_transmit(now));
    now = kcp.poll_timeout().expect("it may be lost");
    kcp.handle_timeout(now);
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask], "then it is asked");
    kcp.handle_packet(now, &segment(Command::Ack, 0, 1, b"")).expect("well formed");
    assert!(!kcp.is_learning());
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
}

#[test]
fn a_question_that_got_lost_while_learning_is_asked_again() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(b"unacknowledged");
    said(&mut kcp, now);
    kcp.resume(now, Resume::AfterUna);
    for wait in [1000, 2000, 3000] {
        assert_eq!(kcp.poll_timeout(), Some(now + ms(wait)));
        now += ms(wait);
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);
    }
}

#[test]
fn carriers_that_all_die_after_a_few_packets_still_make_progress() {
    let mut pair = Pair::new(&config(), Retransmission::TailProbe);
    let data = pattern(300 * MSS);
    pair.out[0].extend(&data);
    // The window is known, from better days.
    let mut wins = segment(Command::Wins, 0, 0, b"");
    wins[6..8].copy_from_slice(&1024_u16.to_le_bytes());
    pair.engines[0].handle_packet(pair.now, &wins).expect("well formed");
    let mut carriers = 0;
    while pair.received[1].len() < data.len() {
        // 12 packets get through, their acknowledgements never come home.
        pair.turn();
        pair.air.retain(|&(to, _, _)| to == 1);
        pair.air.truncate(12);
        pair.now += pair.delay;
        for (_, _, packet) in std::mem::take(&mut pair.air) {
            pair.engines[1].handle_packet(pair.now, &packet).expect("our own packet");
        }
        pair.cut();
        let una = pair.engines[1].rcv_nxt();
        for kcp in &mut pair.engines {
            kcp.resume(pair.now, Resume::AfterUna);
        }
        pair.engines[1].handle_una(pair.now, Sn::new(0));
        assert!(pair.engines[0].handle_una(pair.now, una));
        pair.turn();
        carriers += 1;
        assert!(carriers <= 30, "no progress");
        pair.air.clear();
        for kcp in &mut pair.engines {
            kcp.resume(pair.now, Resume::Now);
        }
    }
    assert!(pair.received[1] == data);
}

/// What one side of a random life writes the other reads, whatever happens to the carriers in between.
#[test]
fn a_hundred_lives_with_cuts_lose_nothing() {
    let mut large = 0;
    for seed in 1..=100 {
        let config = Config { send_window: 200, recv_window: 150, initial_sn: 0xffff_ffc0, ..config() };
        let retransmission = [Retransmission::Timeout, Retransmission::TailProbe][usize::from(seed % 2 == 0)];
        let mut pair = Pair::new(&config, retransmission);
        for kcp in pair.engines.iter_mut().filter(|_| seed % 4 == 0) {
            kcp.set_largest_packet(16_382);
        }
        pair.random = Random(seed * 7919);
        (pair.loss_percent, pair.jitter) = (pair.random.below(4), pair.random.below(10));
        let (there, back) = (pattern(if seed % 4 == 0 { 3_000_000 } else { 600_000 }), pattern(300_000));
        pair.out = [there.iter().copied().collect(), back.iter().copied().collect()];
        for _ in 0..20 {
            for _ in 0..pair.random.below(60) {
                pair.step();
            }
            pair.reads = [pair.random.chance(80), pair.random.chance(80)];
            if pair.random.chance(50) {
                pair.cut();
                let outage = ms(pair.random.below(5_000) as u64);
                pair.run_for(outage);
                let how = [Resume::Now, Resume::AfterUna][pair.random.below(2)];
                for who in 0..2 {
                    pair.engines[who].resume(pair.now, how);
                }
                if how == Resume::AfterUna {
                    let heard = [pair.engines[1].rcv_nxt(), pair.engines[0].rcv_nxt()];
                    for (kcp, una) in pair.engines.iter_mut().zip(heard) {
                        assert!(kcp.handle_una(pair.now, una));
                    }
                }
            }
        }
        pair.reads = [true; 2];
        pair.run();
        assert!(pair.received[1] == there && pair.received[0] == back, "seed {seed}");
        let stats = pair.engines[0].stats();
        large += usize::from(stats.bytes_sent > 2 * MSS as u64 * stats.segments_sent);
    }
    assert!(large >= 5, "{large} lives with mostly large segments");
}

#[test]
fn a_new_carrier_begins_with_what_may_have_died_on_the_old_one() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 4, ..config() });
    for sn in 0..4 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 3, 4, 0, 0)]);
    kcp.consume();
    assert_eq!(said(&mut kcp, now), [(Command::Wins, 0, 4, 1, 0)]);
    kcp.resume(now, Resume::Now);
    assert_eq!(said(&mut kcp, now), [(Command::Wins, 0, 4, 1, 0)], "the window update may have died");
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 4, ..config() });
    for sn in 0..2 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 1, 2, 2, 0)]);
    kcp.resume(now, Resume::Now);
    assert_eq!(said(&mut kcp, now), [], "who may send half of it has no need of one");

    // The sender of that peer finds the window closed, and asks at once.
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    assert_eq!(kcp.write(&pattern(40 * MSS)), 32 * MSS);
    said(&mut kcp, now);
    now += ms(1);
    kcp.resume(now, Resume::AfterUna);
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);
    // A peer that can tell its `una` but whose window never came home is still worth the assumed one.
    assert!(kcp.handle_una(now, Sn::new(32)));
    assert_eq!(kcp.room(), 32 * MSS);
}

#[test]
fn a_new_carrier_forgets_backoff_and_congestion() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    kcp.write(&pattern(32 * MSS));
    said(&mut kcp, now);
    for _ in 0..4 {
        now = kcp.poll_timeout().expect("something is on its way");
        kcp.handle_timeout(now);
        assert!(said(&mut kcp, now).len() <= 16);
    }
    kcp.resume(now, Resume::Now);
    assert_eq!(kcp.poll_timeout(), None, "all is due, and waits only for somebody to ask");
    assert_eq!(said(&mut kcp, now).len(), 32);
    assert_eq!(kcp.poll_timeout(), Some(now + ms(1000)));
}

#[test]
fn una_from_elsewhere_is_no_round_trip_and_proves_no_loss() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(4 * MSS));
    said(&mut kcp, now);
    assert!(kcp.handle_una(now + ms(700), Sn::new(2)));
    assert_eq!((kcp.srtt(), kcp.in_flight()), (None, 2));
    assert_eq!(said(&mut kcp, now + ms(700)), []);
}
