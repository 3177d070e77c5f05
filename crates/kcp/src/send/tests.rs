use super::acks::Progress;
use super::*;

/// All that is kept as a sum is what the slots say.
fn check(sender: &Sender) {
    let count = |state: fn(State) -> bool| sender.slots.iter().filter(|slot| state(slot.state)).count();
    let bytes = |state| {
        let slots = sender.slots.iter().filter(|slot| slot.state == state);
        slots.map(|slot| slot.payload.len() + HEADER_LEN).sum::<usize>()
    };
    assert_eq!(sender.flying_bytes, bytes(State::Flying));
    assert_eq!(sender.unsent_bytes, bytes(State::Unsent));
    assert_eq!(sender.acknowledged, count(|state| state == State::Acknowledged));
    assert_eq!(sender.lost, count(|state| matches!(state, State::Lost(_))));
    assert_eq!(sender.numbered, count(|state| state != State::Unsent));
}

/// Sends what goes next.
fn send(sender: &mut Sender, now: Instant, ts: u32, stats: &mut Stats) -> Option<Sn> {
    sender.send(now, Ts::new(ts), (usize::MAX, usize::MAX), &mut Pool::new(now), stats).map(|(sn, _)| sn)
}

/// Eight segments of 10, 20 ... 80 bytes, on their way.
fn eight(now: Instant, pool: &mut Pool, stats: &mut Stats) -> Sender {
    let mut sender = Sender::new(now, &Config::default());
    for len in (10..=80).step_by(10) {
        assert_eq!(sender.write(now, &vec![1; len], pool), len);
        check(&sender);
        send(&mut sender, now, 0, stats).expect("just written");
        check(&sender);
    }
    sender
}

#[test]
fn every_segment_counts_once_however_it_arrives() {
    let now = Instant::now();
    let (mut pool, mut stats, mut rto) = (Pool::new(now), Stats::default(), Rto::new(Duration::ZERO));
    let mut sender = eight(now, &mut pool, &mut stats);
    let sums = |news: &Progress| (news.count, news.bytes, news.order, news.una_moved);

    let mut news = sender.progress();
    assert_eq!(news.flying, 8);
    sender.on_ack(Sn::new(3), Ts::default(), &mut news, &mut pool);
    assert_eq!((sums(&news), news.proven, news.sample), ((1, 64, 4, false), Some(3), Some(now)));
    sender.settle(now, &news, &mut rto, &mut stats);
    check(&sender);
    assert_eq!(sender.lost, 3, "0, 1 and 2 went before it");
    assert_eq!(send(&mut sender, now, 0, &mut stats), Some(Sn::new(0)));
    check(&sender);

    let mut news = sender.progress();
    sender.on_ack(Sn::new(1), Ts::default(), &mut news, &mut pool);
    sender.on_ack(Sn::new(1), Ts::default(), &mut news, &mut pool);
    assert_eq!((sums(&news), news.proven), ((1, 44, 0, false), None), "which transmission it was nobody knows");
    check(&sender);

    let mut news = sender.progress();
    sender.on_una(Sn::new(3), &mut news, &mut pool);
    assert_eq!(sums(&news), (2, 34 + 54, 9, true), "0 and 2; 1 was counted before");
    check(&sender);
    let mut news = sender.progress();
    sender.on_una(Sn::new(3), &mut news, &mut pool);
    assert_eq!(sums(&news), (0, 0, 0, false), "no news");
    sender.on_una(Sn::new(8), &mut news, &mut pool);
    assert_eq!(sums(&news), (4, 74 + 84 + 94 + 104, 8, true));
    check(&sender);

    assert!(sender.is_empty());
    let next = sender.next_order();
    sender.settle(now, &news, &mut rto, &mut stats);
    assert_eq!((sender.next_order(), sender.log.len()), (next, 0), "the next transmission is the next");
    pool.get(1);
    assert_eq!(pool.allocated(), 8, "all buffers came back");
}

#[test]
fn on_a_new_carrier_all_goes_again_and_is_counted_on() {
    let now = Instant::now();
    let (mut pool, mut stats) = (Pool::new(now), Stats::default());
    let mut sender = eight(now, &mut pool, &mut stats);
    for carrier in 1..=3 {
        assert_eq!(sender.next_order(), 8 * carrier);
        assert!(sender.resume(now, false));
        check(&sender);
        assert_eq!((sender.lost, sender.next_order()), (8, 8 * carrier));
        while send(&mut sender, now, 0, &mut stats).is_some() {}
    }
}

#[test]
fn each_flight_that_loses_something_halves_the_window() {
    let now = Instant::now();
    let (mut pool, mut stats, mut rto) = (Pool::new(now), Stats::default(), Rto::new(Duration::ZERO));
    let mut sender = Sender::new(now, &Config::default());
    let mut ts = 0;
    sender.write(now, &[1; 32 * 1376], &mut pool);
    for window in [16, 8, 4] {
        ts += 1;
        let mut last = sender.una();
        while let Some(sn) = send(&mut sender, now, ts, &mut stats) {
            last = sn;
        }
        let mut news = Progress::default();
        sender.on_ack(last, Ts::new(ts), &mut news, &mut pool);
        sender.settle(now, &news, &mut rto, &mut stats);
        assert_eq!(sender.congestion.window(), window);
        check(&sender);
    }
}

#[test]
fn rings_shrink_when_an_engine_is_quiet_and_not_before() {
    let now = Instant::now();
    let (mut pool, mut stats, mut rto) = (Pool::new(now), Stats::default(), Rto::new(Duration::ZERO));
    let mut sender = Sender::new(now, &Config { initial_flight: 1 << 30, ..Config::default() });
    sender.set_mode(Retransmission::TailProbe);
    sender.on_window(Sn::new(0), 100);
    sender.write(now, &[1; 100 * 1376], &mut pool);
    while send(&mut sender, now, 0, &mut stats).is_some() {}
    let mut news = sender.progress();
    sender.on_una(Sn::new(100), &mut news, &mut pool);
    sender.settle(now, &news, &mut rto, &mut stats);
    for (seconds, kept) in [(0, true), (1, false)] {
        pool.advance(now + Duration::from_secs(seconds));
        sender.tidy(&pool);
        for capacity in [sender.slots.capacity(), sender.log.capacity()] {
            assert_eq!(capacity > IDLE_RING, kept, "{capacity}");
        }
    }
}

#[test]
fn dead_log_entries_behind_a_live_one_are_sorted_out() {
    let now = Instant::now();
    let (mut pool, mut stats) = (Pool::new(now), Stats::default());
    let mut sender = Sender::new(now, &Config::default());
    sender.set_mode(Retransmission::TailProbe);
    sender.write(now, &[1; 3 * 1376], &mut pool);
    while send(&mut sender, now, 0, &mut stats).is_some() {}
    for _ in 0..1000 {
        sender.mark_lost(Sn::new(0), Cause::Probe);
        let order = sender.next_order();
        send(&mut sender, now, 0, &mut stats).expect("just marked");
        assert_eq!(sender.next_order(), order + 1, "transmissions are counted from the beginning");
    }
    assert!(sender.log.len() <= 4 * 3 + IDLE_RING, "{} entries", sender.log.len());
    sender.trim_log();
    assert_eq!(sender.log.front(), Some(&Sn::new(1)), "what has been on its way longest");
}
