//! The numbers of the module's doc, one by one. What they amount to on a path is in `tests/flight.rs`.

#![allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

use super::*;

const INITIAL: usize = 64 << 10;
/// Bytes a second.
const RATE: u64 = 10_000_000;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// One that has believed in a path for a while.
fn believing(bandwidth: u64, min_rtt: Duration, state: State) -> Flight {
    let mut flight = Flight::new(Instant::now(), 0, INITIAL);
    flight.bandwidths = [bandwidth; ROUNDS];
    flight.last = bandwidth;
    flight.min_rtt = Some(min_rtt);
    flight.state = state;
    flight.update_limit();
    flight
}

const CRUISE: State = State::Cruise { rounds: 0 };

const fn search(best: u64, without_growth: u32, grown: usize) -> State {
    State::Search { best, without_growth, grown }
}

const fn drain(shortest: Option<Duration>, rounds: u32, doubted: bool, before: Option<Duration>) -> State {
    State::Drain { shortest, rounds, doubted, before }
}

/// A path on which everything that is on its way is acknowledged at once, a round trip after it was sent.
struct Rounds {
    now: Instant,
    order: u64,
    flight: Flight,
}

impl Rounds {
    fn of(flight: Flight) -> Self {
        Self { now: flight.began, order: flight.ends, flight }
    }

    fn new() -> Self {
        Self::of(Flight::new(Instant::now(), 10, INITIAL))
    }

    fn round(&mut self, bytes: usize, rtt: Duration) {
        self.round_with(bytes, rtt, 0);
    }

    fn round_with(&mut self, bytes: usize, rtt: Duration, flying: usize) {
        self.after(rtt, bytes, rtt, flying);
    }

    /// All was on its way longer than it took to be acknowledged, or shorter.
    fn after(&mut self, time: Duration, bytes: usize, rtt: Duration, flying: usize) {
        self.now += time;
        let (order, next) = (self.order, self.order + 10);
        self.order = next;
        let news = Acknowledged { bytes, round_trip: Some(rtt), order, next, flying };
        self.flight.on_acknowledged(self.now, news);
    }

    /// Some of what is on its way.
    fn part(&mut self, bytes: usize, rtt: Duration) {
        let news = Acknowledged { bytes, round_trip: Some(rtt), order: self.order - 1, next: self.order, flying: 0 };
        self.flight.on_acknowledged(self.now, news);
    }
}

#[test]
fn cruising_leaves_room_for_a_headroom_that_is_a_time() {
    for (bandwidth, min_rtt, limit) in [
        (RATE, ms(10), 296_608),             // 192 KiB take 19.66 ms
        (1_000_000_000, ms(10), 20_000_000), // 0.2 ms, but min_rtt at least
        (1_000_000, ms(10), 35_000),         // 197 ms, but 25 ms at most
        (RATE, ms(100), 1_250_000),          // 25 ms at most, whatever min_rtt is
        (1_000_000_000, us(10), 246_608),    // 50 us are the shortest
        (1_000, ms(10), 4 * 1400),           // the least
        (u64::MAX, ms(10), 1 << 30),         // the most
        (0, ms(10), 4 * 1400),
    ] {
        let flight = believing(bandwidth, min_rtt, CRUISE);
        assert_eq!(flight.limit(), limit, "{bandwidth} bytes/s, {min_rtt:?}");
    }
}

#[test]
fn searching_takes_twice_the_path_and_draining_less_than_it() {
    let limit = |state| believing(RATE, ms(10), state).limit();
    assert_eq!(believing(RATE, ms(100), search(0, 0, 0)).limit(), 2_000_000);
    assert_eq!(limit(search(0, 0, 0)), limit(CRUISE), "never less than then");
    assert_eq!(limit(search(0, 0, 400_000)), 400_000);
    assert_eq!(believing(1_000, ms(10), search(0, 0, INITIAL)).limit(), INITIAL);
    assert_eq!(believing(1_000, ms(10), search(0, 0, 0)).limit(), LEAST, "not what a first search begins with");
    assert_eq!(limit(drain(None, 0, false, None)), 87_500);
    assert_eq!(limit(drain(None, 0, false, Some(ms(10)))), 50_000);
}

#[test]
fn a_new_carrier_begins_with_an_eighth_within_bounds() {
    let now = Instant::now();
    for (before, begin) in [(100_000, INITIAL), (800_000, 100_000), (1 << 30, 4 * INITIAL)] {
        let mut flight = believing(RATE, ms(10), CRUISE);
        flight.limit = before;
        let resumed = flight.resumed(now, 7, false);
        assert_eq!((resumed.limit(), resumed.state, resumed.ends), (begin, search(0, 0, begin), 7));
    }
    for (before, begin) in [(1_000, INITIAL), (800_000, 600_000), (1 << 30, 3 << 28)] {
        let mut flight = believing(RATE, ms(10), CRUISE);
        flight.limit = before;
        assert_eq!(flight.resumed(now, 7, true).limit(), begin, "the same path");
    }
    assert_eq!(Flight::new(now, 0, 1).resumed(now, 0, false).limit(), LEAST);
}

#[test]
fn a_round_lasts_until_all_is_acknowledged_that_was_on_its_way_and_a_millisecond() {
    let mut path = Rounds::new();
    path.now += ms(50);
    path.part(600_000, ms(50));
    assert_eq!(path.flight.bandwidth(), 0, "the rest is still on its way");
    path.round(400_000, ms(50));
    assert_eq!(path.flight.bandwidth(), RATE, "1,000,000 bytes in 100 ms");
    path.round(1_000, us(999));
    assert_eq!(path.flight.next, 1, "too short to be a round");
    path.round(1_000, us(1));
    assert_eq!(path.flight.next, 2);
    assert_eq!(path.flight.bandwidths[..2], [RATE, 2_000_000]);
}

/// The kernel has lost a packet: nothing behind it is read until it has come again, and then everything at once.
#[test]
fn what_was_held_up_and_comes_at_once_was_not_sent_at_once() {
    let mut path = Rounds::of(believing(RATE, ms(100), CRUISE));
    path.round(1_000_000, ms(100));
    path.after(ms(900), 1_000_000, ms(900), 0);
    assert_eq!(path.flight.last, 1_111_111, "900 ms");
    path.after(ms(2), 1_000_000, ms(802), 0);
    let both = (path.flight.last, path.flight.bandwidth());
    assert_eq!(both, (2_532_445, 2_532_445), "and 700 ms of the round before are 777,777 bytes in 702 ms");
    path.flight.on_idle(path.order);
    path.now += ms(50);
    path.flight.on_first_sent(path.now, path.order);
    path.after(ms(40), 800_000, ms(10), 0);
    assert_eq!(path.flight.last, 2 * RATE, "it began to be sent when the round began");
}

/// Measured at 2 Mbit/s and 150 ms, where a search had filled the buffer until the kernel lost a packet: bytes, and how long they took and were on their way, in
/// milliseconds. What came last had been sent within 62 ms, and was taken for 838 KB/s, which it took 3 s to forget.
#[test]
fn what_was_sent_in_a_bunch_and_held_up_is_no_more_than_the_path_brings() {
    let mut path = Rounds::new();
    for (bytes, time, rtt) in
        [(64_400, 400, 165), (99_400, 487, 327), (131_600, 601, 353), (131_600, 751, 606), (51_800, 8, 697)]
    {
        path.after(ms(time), bytes, ms(rtt), 0);
    }
    assert!(path.flight.last < 275_000, "{}", path.flight.last);
    assert!(path.flight.bandwidth() < 275_000, "{}", path.flight.bandwidth());
}

#[test]
fn the_best_of_five_rounds_counts() {
    let mut path = Rounds::new();
    path.round(1_000_000, ms(100));
    for _ in 0..4 {
        path.round(500_000, ms(100));
        assert_eq!(path.flight.bandwidth(), RATE);
    }
    path.round(500_000, ms(100));
    assert_eq!(path.flight.bandwidth(), RATE / 2);
}

#[test]
fn the_search_ends_after_three_rounds_without_a_quarter_more() {
    let mut path = Rounds::new();
    path.round(1_000_000, ms(100));
    let mut grown = INITIAL + 1_000_000;
    assert_eq!(path.flight.state, search(RATE, 0, grown));
    for without_growth in 1..=3 {
        path.round(1_250_000, ms(100));
        grown = if without_growth < 3 { (grown + 1_250_000).min(2_500_000) } else { grown };
        assert_eq!(path.flight.state, search(RATE, without_growth, grown), "a quarter is not enough");
    }
    let mut more = Rounds { flight: Flight { state: search(RATE, 1, 0), ..path.flight }, ..path };
    more.round(1_250_100, ms(100));
    assert_eq!(more.flight.state, search(12_501_000, 0, 1_250_100), "a little more is");
    more.flight.state = search(RATE, 3, 0);
    more.round(1_000_000, ms(100));
    assert_eq!(more.flight.state, CRUISE);
}

#[test]
fn the_search_ends_at_once_when_a_queue_forms_and_brings_no_more() {
    let begun = || {
        let mut path = Rounds::new();
        path.round(1_000_000, ms(100));
        path.flight.state = search(RATE, 0, 0);
        path
    };
    // A queue is an eighth of the shortest round trip and 25 ms.
    let mut path = begun();
    path.round(1_375_000, us(137_500));
    assert_eq!(path.flight.state, search(RATE, 1, 1_375_000));
    path.round(1_375_000, us(137_501));
    assert_eq!(path.flight.state, CRUISE);
    let mut path = begun();
    path.round(4_000_000, ms(138));
    assert!(matches!(path.flight.state, State::Search { without_growth: 0, .. }), "it brings more");
}

#[test]
fn what_has_arrived_lately_is_of_a_round_trip_or_an_average() {
    let mut flight = believing(RATE, ms(100), search(RATE, 0, 0));
    flight.last = RATE;
    for (elapsed, delivered, lately) in [
        (ms(0), 0, 1_000_000),
        (ms(40), 300_000, 900_000), // and 60 ms of the round before
        (ms(100), 1_500_000, 1_500_000),
        (ms(200), 3_000_000, 1_500_000),
    ] {
        flight.delivered = delivered;
        assert_eq!(flight.arrived_lately(flight.began + elapsed, ms(100)), lately, "{elapsed:?}");
    }
}

#[test]
fn the_search_grows_with_what_is_acknowledged_to_twice_what_has_arrived_lately() {
    let begun = |grown| {
        let mut path = Rounds::of(Flight { ends: 10, ..believing(0, ms(100), search(0, 0, grown)) });
        path.now += ms(100);
        path
    };
    for (grown, then) in [(30_000, 70_000), (60_000, 80_000), (80_000, 80_000), (100_000, 100_000)] {
        let mut path = begun(grown);
        path.part(40_000, ms(100));
        assert_eq!(path.flight.state, search(0, 0, then));
        assert_eq!(path.flight.limit(), then);
    }
    // What could not be grown by yet is not forgotten in this round.
    let mut path = begun(80_000);
    path.part(40_000, ms(100));
    path.part(10_000, ms(100));
    assert_eq!(path.flight.limit(), 100_000, "twice 50,000");
    path.part(100_000, ms(100));
    assert_eq!(path.flight.limit(), 80_000 + 150_000);
    path.round(0, ms(100));
    path.part(10, ms(100));
    assert_eq!(path.flight.not_grown, 10);
    let mut path = begun(INITIAL);
    path.part(2 << 30, ms(100));
    assert_eq!(path.flight.limit(), 1 << 30);
}

#[test]
fn the_search_grows_and_ends_only_if_half_of_the_limit_is_used() {
    let (half, quiet) = (INITIAL / 2, INITIAL / 2 - 1);
    for (bytes, grown) in [(quiet, INITIAL), (half, INITIAL + half)] {
        let mut path = Rounds::new();
        path.flight.on_idle(path.order);
        path.now += ms(100);
        path.flight.delivered = 100_000;
        let (order, next) = (path.order - 1, path.order);
        let news = Acknowledged { bytes, round_trip: Some(ms(100)), order, next, flying: 0 };
        path.flight.on_acknowledged(path.now, news);
        assert_eq!(path.flight.state, search(0, 0, grown), "{bytes}");
    }
    for (flying, state) in [(999_999, search(RATE, 3, 1_000_000)), (1_000_000, CRUISE)] {
        let mut path = Rounds::of(believing(RATE, ms(100), search(RATE, 3, 0)));
        path.flight.on_idle(path.order);
        path.round_with(1_000_000, ms(100), flying);
        assert_eq!(path.flight.state, state, "{flying} of 2,000,000");
    }
    // Where much more was believed than the path brings now, half of the limit is more than the windows let go. Twice what it holds is a fifth of it.
    for (flying, searching) in [(1_999_999, true), (2_000_000, false)] {
        let mut path = Rounds::of(believing(5 * RATE, ms(100), search(5 * RATE, 0, 0)));
        path.flight.on_idle(path.order);
        path.round_with(1_380_000, ms(138), flying);
        assert_eq!(matches!(path.flight.state, State::Search { .. }), searching, "{flying} of 10,000,000");
    }
    // Whoever writes half of what he might, and makes no queue, has not shown what the path can do.
    let mut path = Rounds::of(believing(RATE, ms(100), search(RATE, 0, 0)));
    for (rtt, searching) in [(100, true), (137, true), (138, false)] {
        for _ in 0..5 {
            path.flight.on_idle(path.order);
            path.round_with(0, ms(rtt), 1_000_000);
        }
        assert_eq!(matches!(path.flight.state, State::Search { .. }), searching, "{rtt} ms");
    }
    let mut flight = believing(RATE, ms(100), CRUISE);
    flight.idle = true;
    assert!(flight.is_idle(flight.limit), "cruising it is idle with a moment's too little");
}

#[test]
fn a_round_with_too_little_to_send_says_only_that_so_much_is_possible() {
    let mut path = Rounds::new();
    path.round(1_000_000, ms(100));
    let state = path.flight.state;
    for _ in 0..10 {
        path.flight.on_idle(path.order);
        path.round(1_000, ms(100));
    }
    assert_eq!((path.flight.state, path.flight.bandwidth()), (state, RATE), "no sign of anything");
    path.flight.on_idle(path.order);
    path.round(2_000_000, ms(100));
    assert_eq!(path.flight.bandwidth(), 2 * RATE);
    // Until everything has arrived that was sent before or then, and the round after that is over.
    path.flight.on_idle(path.order + 10);
    path.round(1_000, ms(100));
    assert!(path.flight.idle);
    path.round(1_000, ms(100));
    assert!(!path.flight.idle);
    path.round(1_000, ms(100));
    assert!(path.flight.bandwidths.contains(&10_000), "now it counts");
}

#[test]
fn a_pause_in_which_there_was_nothing_to_send_is_no_part_of_a_round() {
    let mut path = Rounds::new();
    path.now += ms(900);
    path.flight.on_first_sent(path.now, path.order);
    path.round(1_000_000, ms(100));
    assert_eq!(path.flight.bandwidth(), 1_000_000, "there was always more to send");
    path.flight.on_idle(path.order);
    path.now += ms(900);
    path.flight.on_first_sent(path.now, path.order);
    path.round(1_000_000, ms(100));
    assert_eq!(path.flight.bandwidth(), RATE);
}

#[test]
fn the_shortest_round_trip_is_seen_again_with_a_sixteenth_more() {
    let mut path = Rounds::new();
    path.part(1, ms(160));
    let first = path.now;
    for (rtt, seen) in [(171, false), (170, true), (160, true), (159, true)] {
        path.now += ms(10);
        path.flight.min_rtt_seen = first;
        path.part(1, ms(rtt));
        assert_eq!(path.flight.min_rtt_seen == path.now, seen, "{rtt} ms");
    }
    assert_eq!(path.flight.min_rtt, Some(ms(159)));
}

#[test]
fn cruising_ends_when_the_path_brings_more_three_times() {
    // Half of the headroom is an eighth of this path.
    let hope = |growing, bandwidth| {
        let mut flight = believing(RATE, ms(100), CRUISE);
        flight.growing = growing;
        flight.hope(bandwidth);
        (flight.growing, flight.state)
    };
    assert_eq!(hope((0, RATE, 0), 11_250_000), ((0, RATE, 1), CRUISE), "not more than it must");
    assert_eq!(hope((0, RATE, 1), 11_250_010), ((1, 11_250_010, 0), CRUISE));
    assert_eq!(hope((1, RATE, 2), RATE), ((1, RATE, 3), CRUISE));
    assert_eq!(hope((1, 2 * RATE, 3), RATE), ((0, RATE, 0), CRUISE), "too long ago");
    let found = search(2 * RATE, 0, 1_250_000);
    assert_eq!(hope((2, RATE, 3), 2 * RATE), ((0, 2 * RATE, 0), found));
}

/// What is explained is 5/4 of the round trip with the headroom, and 25 ms: here 181.25 ms.
#[test]
fn a_path_that_answers_later_than_the_limit_explains_is_drained() {
    let doubt = |contradicted, shortest, idle| {
        let mut flight = believing(RATE, ms(100), CRUISE);
        flight.contradicted = contradicted;
        flight.shortest = Some(shortest);
        flight.doubt(flight.began, 5_000_000, idle);
        (flight.contradicted, flight.state, flight.bandwidth())
    };
    let (in_doubt, halved) = (drain(None, 0, true, None), 5_000_000);
    assert_eq!(doubt(1, us(181_250), false), (0, CRUISE, RATE));
    assert_eq!(doubt(1, us(181_251), false), (2, CRUISE, RATE));
    assert_eq!(doubt(1, us(181_251), true), (0, CRUISE, RATE), "that may have been anything");
    assert_eq!(doubt(2, us(181_251), false), (0, in_doubt, halved), "three rounds in a row");
    assert_eq!(doubt(0, us(362_500), false), (1, CRUISE, RATE));
    assert_eq!(doubt(0, us(362_501), false), (0, in_doubt, halved), "at once");
}

/// Everything comes each 50 ms, so round trips are longer than the shortest by up to that.
#[test]
fn the_headroom_is_larger_than_what_comes_at_once_again_and_again() {
    // What comes each so often in rounds that are as long as the shortest round trip, in several packets.
    let after = |rate: u64, min: Duration, gap: Duration, rounds| {
        let mut path = Rounds::of(Flight { ends: 10, ..believing(rate, min, CRUISE) });
        let part = within(rate, gap) / 2;
        for _ in 0..rounds {
            for last in 1..=min.as_micros() / gap.as_micros() {
                path.now += gap;
                path.part(part, min);
                if last < min.as_micros() / gap.as_micros() {
                    path.part(part, min);
                }
            }
            path.after(Duration::ZERO, part, min, 0);
        }
        path.flight.headroom(min)
    };
    assert_eq!(after(RATE, ms(100), ms(50), 1), ms(25), "once is a pause");
    assert_eq!(after(RATE, ms(100), ms(50), 2), us(62_500), "5/4 of 50 ms");
    assert_eq!(after(RATE, ms(100), ms(50), 9), us(62_500), "not the sum of them");
    assert_eq!(after(RATE, ms(100), ms(100), 2), ms(100), "at most");
    assert_eq!(after(RATE, ms(100), ms(20), 2), ms(25), "5/4 of 20 ms are in it");
    assert_eq!(after(1_000_000_000, ms(6), ms(3), 2), ms(6), "in that of a fast path, too");
    assert_eq!(after(1_000_000_000, ms(3), ms(3), 2), us(3_750));
    assert_eq!(after(1_000_000_000, ms(2), ms(2), 2), ms(2), "the machine's");
    // What comes one after the other is no bunch, and what was one counts in five rounds.
    let mut path = Rounds::of(Flight { ends: 10, ..believing(RATE, ms(100), CRUISE) });
    for rounds in 1..=7 {
        for _ in 0..99 {
            path.now += ms(1);
            path.part(if rounds < 3 && path.flight.delivered == 0 { 500_000 } else { 10_000 }, ms(100));
        }
        path.after(ms(1), 10_000, ms(100), 0);
        let counts = (2..=4).contains(&rounds);
        assert_eq!(path.flight.headroom(ms(100)) > ms(25), counts, "{rounds}: {:?}", path.flight.bunches);
    }
    let mut path = Flight { bunches: [500_000; ROUNDS], ..believing(RATE, ms(100), CRUISE) };
    path.drain_in_doubt(RATE / 10);
    assert_eq!(path.headroom(ms(100)), ms(25), "measured against another bandwidth");
}

#[test]
fn a_path_that_was_not_seen_without_a_queue_for_ten_seconds_is_drained() {
    for (age, state) in [(ms(9_999), CRUISE), (ms(10_000), drain(None, 0, false, None))] {
        let mut flight = believing(RATE, ms(100), CRUISE);
        flight.shortest = Some(ms(120));
        flight.doubt(flight.min_rtt_seen + age, RATE, false);
        assert_eq!((flight.state, flight.bandwidth()), (state, RATE));
    }
}

#[test]
fn cruising_is_judged_from_the_third_round_on() {
    let mut path = Rounds::of(Flight { ends: 10, ..believing(RATE, ms(100), CRUISE) });
    // One after the other: bunches would be a reason for more headroom.
    let late = |path: &mut Rounds| {
        for _ in 1..50 {
            path.now += ms(10);
            path.part(20_000, ms(500));
        }
        path.after(ms(10), 20_000, ms(500), 0);
    };
    for rounds in 1..=2 {
        late(&mut path);
        assert_eq!(path.flight.state, State::Cruise { rounds });
    }
    late(&mut path);
    assert_eq!(path.flight.state, drain(None, 0, true, None));
    assert_eq!(path.flight.limit(), 2_000_000 / 10 * 7 / 8, "what the last round has brought");
}

#[test]
fn draining_lasts_two_rounds_and_until_no_more_is_on_its_way_than_may_be() {
    let mut path = Rounds::of(believing(RATE, ms(100), drain(None, 0, false, None)));
    path.round_with(10_000, ms(110), 0);
    assert_eq!(path.flight.state, drain(Some(ms(110)), 1, false, None));
    path.round_with(10_000, ms(105), 875_001);
    path.part(1, ms(120));
    assert_eq!(path.flight.state, drain(Some(ms(105)), 2, false, None));
    path.round_with(10_000, ms(120), 875_000);
    assert_eq!((path.flight.state, path.flight.min_rtt), (CRUISE, Some(ms(105))));
    assert_eq!(path.flight.min_rtt_seen, path.now);
    assert_eq!(path.flight.bandwidths, [RATE; ROUNDS], "less was brought because less was sent");
    path.flight.state = drain(None, 0, false, None);
    path.round(2_400_000, ms(120));
    assert_eq!(path.flight.bandwidth(), 2 * RATE, "but more is more");
    // What was not sent for a while does not hide that the path is full.
    path.flight.state = drain(Some(ms(120)), 1, false, None);
    path.after(ms(100), 2_000_000, ms(20), 0);
    assert_eq!(path.flight.state, drain(None, 0, false, Some(ms(20))));
}

#[test]
fn what_draining_shows_decides_how_it_goes_on() {
    let end = |seen, doubted, bandwidth, idle| {
        let mut flight = believing(RATE, ms(100), drain(Some(seen), 2, doubted, None));
        flight.idle = idle;
        flight.end_drain(flight.began, bandwidth, bandwidth);
        (flight.state, flight.min_rtt, flight.bandwidth())
    };
    let slow = 5_000_000;
    // Within a sixteenth as fast as ever: there is a queue of ours still.
    assert_eq!(end(ms(99), true, 9_375_001, false), (drain(None, 0, true, Some(ms(99))), Some(ms(99)), RATE));
    assert_eq!(end(ms(200), false, 9_375_001, false), (drain(None, 0, false, Some(ms(200))), Some(ms(100)), RATE));
    assert_eq!(end(ms(99), true, 9_375_000, false), (CRUISE, Some(ms(99)), RATE));
    assert_eq!(end(ms(99), true, 9_375_001, true), (CRUISE, Some(ms(99)), RATE));
    // Up to a quarter longer it is the same path.
    assert_eq!(end(ms(125), false, slow, false), (CRUISE, Some(ms(125)), RATE));
    assert_eq!(end(ms(125), true, slow, false), (CRUISE, Some(ms(125)), RATE));
    assert_eq!(end(ms(126), false, slow, false), (drain(None, 0, true, None), Some(ms(100)), slow));
    assert_eq!(end(ms(126), true, slow, false), (search(0, 0, 875_000), Some(ms(126)), slow));
}

/// Where half of the path is one packet, each round brings one, at the path's pace. That went on for ever, at three quarters of the rate.
#[test]
fn draining_goes_on_only_while_round_trips_become_shorter() {
    let end = |seen| {
        let mut flight = believing(RATE, ms(16), drain(Some(seen), 2, false, Some(ms(16))));
        flight.end_drain(flight.began, RATE, RATE);
        flight.state
    };
    assert_eq!(end(us(14_999)), drain(None, 0, false, Some(us(14_999))));
    assert_eq!(end(ms(15)), CRUISE);
    assert_eq!(end(ms(16)), CRUISE);
}
