//! How much may be on its way: what the peer announces, and what it does not.

use super::*;

#[test]
fn a_reader_that_stops_closes_the_window_and_opens_it_again() {
    let config = Config { recv_window: 64, ..config() };
    let mut pair = Pair::new(&config, Retransmission::TailProbe);
    let data = pattern(500 * MSS);
    pair.out[0].extend(&data);
    pair.reads[1] = false;
    pair.run_for(ms(20_000));
    assert_eq!(pair.engines[1].rcv_nxt(), Sn::new(64));
    assert_eq!(pair.engines[0].nxt(), Sn::new(64), "not one segment beyond the window");
    assert_eq!(pair.engines[0].room(), 0);
    let questions = pair.engines[0].stats().wask_sent;
    assert!((5..=9).contains(&questions), "{questions} questions: 0.5, 0.75 ... 10 s apart");
    pair.reads[1] = true;
    pair.now += ms(1);
    let reopened = pair.now;
    pair.turn();
    pair.run();
    assert!(pair.received[1] == data);
    assert!(pair.now - reopened < ms(1_000), "took {:?}", pair.now - reopened);
}

#[test]
fn a_lost_window_update_costs_one_question() {
    let config = Config { recv_window: 8, ..config() };
    let mut pair = Pair::new(&config, Retransmission::TailProbe);
    let data = pattern(20 * MSS);
    pair.out[0].extend(&data);
    pair.reads[1] = false;
    let mut wins = segment(Command::Wins, 0, 0, b"");
    wins[6] = 8;
    pair.engines[0].handle_packet(pair.now, &wins).expect("well formed");
    pair.run_for(ms(400));
    assert_eq!(pair.engines[0].nxt(), Sn::new(8));
    pair.reads[1] = true;
    pair.turn();
    pair.air.retain(|&(to, _, _)| to == 1);
    let lost = pair.now;
    pair.run();
    assert!(pair.received[1] == data);
    assert!(pair.now - lost < ms(1_500), "took {:?}", pair.now - lost);
}

#[test]
fn questions_cease_when_nobody_wants_to_write() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    let mut closed = Vec::new();
    let wins = Segment {
        conv: CONV,
        cmd: Command::Wins,
        frg: 0,
        wnd: 0,
        ts: Ts::new(0),
        sn: Sn::new(0),
        una: Sn::new(0),
        payload: b"",
    };
    wins.encode(&mut closed);
    kcp.handle_packet(now, &closed).expect("well formed");
    assert_eq!((kcp.room(), kcp.poll_timeout()), (0, None), "a closed window alone is no reason to ask");
    assert!(!kcp.fill(|_, _| panic!("there is no room")));
    assert_eq!(kcp.poll_timeout(), Some(now + ms(500)));
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.poll_timeout(), None);
    assert_eq!(kcp.room(), 32 * MSS);
}

/// What was written before the peer's first words waits for a window that turned out smaller. Whatever else comes does not put the question off.
#[test]
fn who_waits_for_the_window_asks_in_half_a_second_whatever_comes_meanwhile() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(20 * MSS));
    let small = |cmd| {
        let mut packet = segment(cmd, 0, 0, b"");
        packet[6..8].copy_from_slice(&15_u16.to_le_bytes());
        packet
    };
    kcp.handle_packet(now, &small(Command::Wins)).expect("a window of 15");
    assert_eq!(said(&mut kcp, now).len(), 15);
    for later in [0, 100, 400] {
        kcp.handle_packet(now + ms(later), &small(Command::Wask)).expect("well formed");
        assert_eq!(kcp.poll_timeout(), Some(now + ms(500)));
    }
    // All has arrived, and the window stays as it is: closed.
    let mut closed = segment(Command::Ack, 14, 15, b"");
    closed[6..8].copy_from_slice(&[0, 0]);
    kcp.handle_packet(now + ms(450), &closed).expect("well formed");
    said(&mut kcp, now + ms(450));
    let mut due = now + ms(500);
    let waits = [(); 7].map(|()| {
        kcp.handle_timeout(due);
        assert_eq!(said(&mut kcp, due).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);
        let wait = kcp.poll_timeout().expect("another question") - due;
        due += wait;
        wait.as_micros()
    });
    assert_eq!(waits, [750_000, 1_125_000, 1_687_500, 2_531_250, 3_796_875, 4_000_000, 4_000_000]);
}

/// Somebody wanted to write once, and could. That the window is full now is no reason to ask.
#[test]
fn who_has_found_room_asks_no_more() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    for (window, taken) in [(0_u16, 0), (1, MSS)] {
        let mut wins = segment(Command::Wins, 0, 0, b"");
        wins[6..8].copy_from_slice(&window.to_le_bytes());
        kcp.handle_packet(now, &wins).expect("well formed");
        assert_eq!(kcp.write(&pattern(MSS)), taken);
    }
    said(&mut kcp, now);
    let mut other = segment(Command::Wask, 0, 0, b"");
    other[6..8].copy_from_slice(&1_u16.to_le_bytes());
    kcp.handle_packet(now, &other).expect("well formed");
    assert_eq!(kcp.poll_timeout(), Some(now + ms(1_000)), "for the segment, not for the window");
}

#[test]
fn an_announced_edge_is_not_taken_back() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, unbounded());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.room(), 100 * MSS);
    let mut smaller = segment(Command::Wins, 0, 0, b"");
    smaller[6] = 3;
    kcp.handle_packet(now, &smaller).expect("well formed");
    assert_eq!(kcp.room(), 100 * MSS, "a late packet does not close the window");
}

/// An old `una` is no mistake, and one from nearly half the circle ago is an old one. Its window once counted as the newest, and nothing
/// was sent ever after.
#[test]
fn a_una_from_half_the_circle_ago_does_not_close_the_window() {
    let now = Instant::now();
    for una in [0x8000_0000, 0x8000_0001, 0xffff_0000] {
        let mut kcp = Kcp::new(now, CONV, unbounded());
        kcp.set_retransmission(Retransmission::TailProbe);
        kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
        kcp.handle_packet(now, &segment(Command::Wins, 0, una, b"")).expect("well formed");
        assert_eq!(kcp.room(), 100 * MSS, "{una:#x}");
        // As the first words of a peer it opens nothing, and stands in the way of nothing.
        let mut kcp = Kcp::new(now, CONV, unbounded());
        kcp.set_retransmission(Retransmission::TailProbe);
        kcp.handle_packet(now, &segment(Command::Wins, 0, una, b"")).expect("well formed");
        assert_eq!(kcp.room(), 0, "{una:#x}");
        kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
        assert_eq!(kcp.room(), 100 * MSS, "{una:#x}");
    }
}

/// More was in flight than the window that the peer then told: it moves with each `una` and stays closed. Who waited for room once
/// went without questions from the first such move on.
#[test]
fn a_window_that_moves_and_stays_closed_is_still_asked_after() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.write(&pattern(32 * MSS));
    said(&mut kcp, now);
    let closed = |una| {
        let mut packet = segment(Command::Ack, una - 1, una, b"");
        packet[6..8].copy_from_slice(&0_u16.to_le_bytes());
        packet
    };
    kcp.handle_packet(now, &closed(2)).expect("well formed");
    assert_eq!(kcp.write(b"waits"), 0);
    kcp.handle_packet(now, &closed(10)).expect("well formed");
    kcp.handle_packet(now, &closed(32)).expect("well formed");
    assert!(kcp.all_acknowledged());
    let due = kcp.poll_timeout().expect("the update may get lost");
    assert_eq!(due, now + ms(500));
    kcp.handle_timeout(due);
    assert_eq!(said(&mut kcp, due).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);
}

#[test]
fn a_window_of_65535_segments_fills_and_empties() {
    let config = Config { send_window: u16::MAX, recv_window: u16::MAX, ..unbounded() };
    let mut pair = Pair::new(&config, Retransmission::TailProbe);
    pair.delay = ms(500);
    pair.engines[0]
        .handle_packet(pair.now, &{
            let mut wins = segment(Command::Wins, 0, 0, b"");
            wins[6..8].copy_from_slice(&[0xff, 0xff]);
            wins
        })
        .expect("well formed");
    let mut left = 65_535 * MSS;
    let chunk = pattern(64 * MSS);
    while left > 0 {
        let taken = pair.engines[0].write(&chunk[..left.min(chunk.len())]);
        assert!(taken > 0);
        left -= taken;
    }
    assert_eq!(pair.engines[0].room(), 0);
    pair.run();
    assert_eq!(pair.received[1].len(), 65_535 * MSS);
    assert_eq!(pair.engines[0].stats().resent(), 0);
}

#[test]
fn a_slow_reader_does_not_make_the_sender_creep() {
    let config = Config { recv_window: 64, ..config() };
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config);
    for sn in 0..60 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 59, 60, 4, 0)]);
    for read in 1..=16 {
        kcp.consume();
        let expected: &[_] = if read < 16 { &[] } else { &[(Command::Wins, 0, 60, 20, 0)] };
        assert_eq!(said(&mut kcp, now), expected, "after {read}: a quarter of the window is worth a packet");
    }
}

/// Who may still send a quarter of the window does not wait yet, and hears of the rest with the next packet.
#[test]
fn a_window_of_which_a_quarter_is_left_is_not_told() {
    let now = Instant::now();
    for (arrived, expected) in [(48, vec![]), (49, vec![(Command::Wins, 0, 49, 31, 0)])] {
        let mut kcp = Kcp::new(now, CONV, Config { recv_window: 64, ..config() });
        for sn in 0..arrived {
            kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
        }
        said(&mut kcp, now);
        for _ in 0..16 {
            kcp.consume();
        }
        assert_eq!(said(&mut kcp, now), expected, "{arrived} have come");
    }
}

/// 64 KiB on their way at first, with their headers; what is begun counts as full.
#[test]
fn room_is_what_the_flight_leaves() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.room(), 47 * MSS, "65,536 bytes and the rest of a segment");
    kcp.write(&pattern(10 * MSS + 100));
    assert_eq!(kcp.room(), 36 * MSS + MSS - 100);
    assert!(kcp.fill(|_, room| assert_eq!(room, MSS - 100)));
    assert!(kcp.poll_transmit(now, &mut Vec::new()));
    assert_eq!(kcp.room(), 36 * MSS + MSS - 100, "on its way or waiting for it is the same");
    said(&mut kcp, now);
    assert_eq!(kcp.room(), 37 * MSS, "a sent segment is what it is, and 51,412 bytes are left");
    for _ in 0..100 {
        assert!(kcp.fill(|_, _| ()));
    }
    kcp.write(&pattern(5 * MSS));
    assert!(kcp.fill(|_, _| ()));
    assert_eq!(kcp.room(), 32 * MSS, "who looked and wrote nothing has changed nothing");
}

/// Acknowledged out of order, it is no longer on its way.
#[test]
fn what_was_acknowledged_leaves_room_before_una_has_passed_it() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.write(&pattern(40 * MSS)), 32 * MSS);
    said(&mut kcp, now);
    kcp.handle_packet(now, &segment(Command::Ack, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.room(), 2 * MSS, "and the window has grown by one");
}

/// 32 places, all taken. More room is made, and the peer, which may not send, learns it.
#[test]
fn room_that_was_made_larger_is_told_and_room_that_nobody_misses_is_not() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 100, ..config() });
    kcp.set_recv_room(32);
    assert_eq!(said(&mut kcp, now), []);
    for sn in 0..32 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 31, 32, 0, 0)]);
    kcp.set_recv_room(100);
    assert_eq!(said(&mut kcp, now), [(Command::Wins, 0, 32, 68, 0)]);
    kcp.set_recv_room(90);
    assert_eq!(said(&mut kcp, now), []);
}

/// A peer that had been told of more goes on for a while. What it holds beyond the room is read first.
#[test]
fn a_window_that_is_still_closed_is_no_news() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 100, ..config() });
    kcp.set_recv_room(32);
    for sn in 0..42 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    kcp.consume();
    kcp.set_recv_room(40);
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 41, 42, 0, 0)]);
    kcp.consume();
    assert_eq!(said(&mut kcp, now), []);
    kcp.consume();
    assert_eq!(said(&mut kcp, now), [(Command::Wins, 0, 42, 1, 0)]);
}

/// More may be on its way with each round trip, for one who uses what he has. Who had no more to send says nothing of the path.
#[test]
fn a_flight_grows_for_one_who_fills_it() {
    for (retransmission, all, room) in [
        (Retransmission::TailProbe, true, 94),
        (Retransmission::TailProbe, false, 47),
        (Retransmission::Timeout, true, 64),
        (Retransmission::Timeout, false, 32),
    ] {
        let now = Instant::now();
        let mut kcp = Kcp::new(now, CONV, config());
        kcp.set_retransmission(retransmission);
        kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
        let count = if all { kcp.room() / MSS } else { 1 };
        kcp.write(&pattern(count * MSS));
        assert_eq!(said(&mut kcp, now).len(), count);
        let una = u32::try_from(count).expect("some");
        let soon = now + Duration::from_micros(500);
        kcp.handle_packet(soon, &segment(Command::Wins, 0, una, b"")).expect("well formed");
        assert_eq!(kcp.room(), room * MSS, "{retransmission:?}, filled: {all}");
    }
}
