use super::*;

const LIFE: Duration = secs(120);
const IN_FLIGHT: Owed = Owed { in_flight: true, expecting: false };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn id(number: u32) -> CarrierId {
    CarrierId(number)
}

fn actions(path: &mut Path) -> Vec<Action> {
    std::iter::from_fn(|| path.poll_action()).collect()
}

fn changes(path: &mut Path) -> Vec<Change> {
    std::iter::from_fn(|| path.poll_change()).collect()
}

/// What `path` does when nothing but time happens until `until`, and when.
fn runs(path: &mut Path, start: Instant, until: Duration) -> Vec<(u128, Action)> {
    let mut done = Vec::new();
    while let Some(at) = path.poll_timeout().filter(|at| *at <= start + until) {
        path.handle_timeout(at, Sn::new(0));
        assert!(path.poll_timeout().is_none_or(|next| next > at), "a timer that fired is not due");
        done.extend(actions(path).into_iter().map(|action| ((at - start).as_millis(), action)));
    }
    done
}

/// A client whose first dial has come up, at the instant it began.
fn connected() -> (Instant, Path) {
    let now = Instant::now();
    let mut path = Path::client(now, LIFE, 7);
    path.handle_timeout(now, Sn::new(0));
    path.handle_dialed(now, id(1));
    assert_eq!(actions(&mut path), [Action::Dial(id(1))]);
    assert_eq!(changes(&mut path), [Change::Attached(id(1))]);
    (now, path)
}

fn server() -> (Instant, Path) {
    let now = Instant::now();
    (now, Path::server(now, LIFE))
}

// The client.

#[test]
fn the_first_dial_and_the_first_after_a_carrier_are_made_at_once() {
    let now = Instant::now();
    let mut path = Path::client(now, LIFE, 7);
    assert!(path.is_client() && path.last_made_progress());
    assert_eq!((path.poll_timeout(), path.current()), (Some(now), None));
    path.handle_timeout(now, Sn::new(9));
    assert_eq!(actions(&mut path), [Action::Dial(id(1))]);
    assert_eq!((path.listens_to(id(1)), path.may_send_on(id(1)), path.current()), (false, false, None));
    assert_eq!((path.floor(id(1)), path.floor(id(2))), (Some(Sn::new(9)), None));

    path.handle_dialed(now + ms(10), id(1));
    assert_eq!(changes(&mut path), [Change::Attached(id(1))]);
    assert_eq!((path.listens_to(id(1)), path.may_send_on(id(1)), path.current()), (true, true, Some(id(1))));
    path.handle_dialed(now + ms(10), id(1));
    path.handle_dialed(now + ms(10), id(2));
    assert_eq!(changes(&mut path), [], "it has come up before, and the other is nobody");

    let later = now + ms(3_010);
    path.handle_ended(later, id(1), CarrierEnd::Closed);
    let end = Change::Detached { id: id(1), why: CarrierEnd::Closed, age: secs(3), in_doubt: false };
    assert_eq!(changes(&mut path), [end]);
    assert_eq!((path.poll_timeout(), path.current()), (Some(later), None));
    path.dial_if_due(later - ms(1), Sn::new(0));
    assert_eq!(actions(&mut path), []);
    path.dial_if_due(later, Sn::new(0));
    assert_eq!(actions(&mut path), [Action::Dial(id(2))]);
}

/// A black hole: three dials at a time, each for ten seconds. Whoever answers first carries on, and the others are given up.
#[test]
fn dials_without_an_answer_get_others_beside_them() {
    let now = Instant::now();
    let mut path = Path::client(now, LIFE, 7);
    let (dial, drop) = (|n| Action::Dial(id(n)), |n| Action::Drop(id(n)));
    assert_eq!(runs(&mut path, now, ms(9_999)), [(0, dial(1)), (4_000, dial(2)), (8_000, dial(3))]);
    assert_eq!(changes(&mut path), []);
    path.dial_now(now + ms(9_999));
    assert_eq!(path.poll_timeout(), Some(now + secs(10)), "three are enough, whoever wants more");
    assert_eq!(runs(&mut path, now, ms(10_000)), [(10_000, drop(1))]);
    let failed = changes(&mut path);
    let [Change::DialFailed { id: CarrierId(1), next_in }] = failed[..] else { panic!("{failed:?}") };
    assert!((ms(75)..=ms(100)).contains(&next_in), "{next_in:?}");

    path.dial_now(now + secs(10));
    assert_eq!(runs(&mut path, now, secs(11)), [(10_000, dial(4))]);
    path.handle_dialed(now + secs(11), id(2));
    assert_eq!(actions(&mut path), [drop(3), drop(4)]);
    assert_eq!(changes(&mut path), [Change::Attached(id(2))]);
    assert_eq!(runs(&mut path, now, secs(60)), [], "no more dials");
}

#[test]
fn a_refused_dial_is_repeated_after_a_pause_or_when_one_was_due_anyway() {
    let now = Instant::now();
    let mut path = Path::client(now, LIFE, 7);
    path.handle_timeout(now, Sn::new(0));
    path.handle_dial_failed(now + ms(500), id(2));
    assert_eq!(changes(&mut path), [], "nobody");
    path.handle_ended(now + ms(500), id(1), CarrierEnd::Closed);
    let failed = changes(&mut path);
    let [Change::DialFailed { id: CarrierId(1), next_in }] = failed[..] else { panic!("{failed:?}") };
    assert!((ms(75)..=ms(100)).contains(&next_in), "{next_in:?}");
    assert_eq!(path.poll_timeout(), Some(now + ms(500) + next_in));

    let second = now + ms(500) + next_in;
    path.handle_timeout(second, Sn::new(0));
    path.handle_dial_failed(second + ms(3_990), id(2));
    assert_eq!(changes(&mut path), [Change::DialFailed { id: id(2), next_in: ms(10) }]);
    assert_eq!(path.poll_timeout(), Some(second + secs(4)));
}

#[test]
fn a_dial_that_fails_beside_a_carrier_that_lives_is_not_repeated() {
    let (now, mut path) = connected();
    path.dial_now(now + secs(1));
    path.handle_timeout(now + secs(1), Sn::new(0));
    path.handle_dial_failed(now + ms(1_200), id(2));
    assert_eq!(changes(&mut path), [Change::DialFailed { id: id(2), next_in: ms(0) }]);
    path.handle_dial_failed(now + ms(1_200), id(1));
    assert_eq!((changes(&mut path), path.current()), (vec![], Some(id(1))), "that was no dial");
    assert_eq!(runs(&mut path, now, secs(30)), [(1_000, Action::Dial(id(2)))][1..]);
}

/// Asked after a second, given up after another: the next one is dialled, and takes over when it is up.
#[test]
fn a_silent_carrier_is_replaced_and_read_for_ten_more_seconds() {
    let (now, mut path) = connected();
    path.set_owed(now, IN_FLIGHT);
    assert_eq!(runs(&mut path, now, ms(1_999)), []);
    assert_eq!((changes(&mut path), path.is_in_doubt()), (vec![Change::Probe(id(1))], true));
    assert_eq!(runs(&mut path, now, secs(2)), [(2_000, Action::Dial(id(2)))]);
    assert_eq!(path.current(), Some(id(1)), "until the other is there");
    path.handle_dialed(now + ms(2_100), id(2));
    let end = Change::Detached { id: id(1), why: CarrierEnd::Silent, age: ms(2_100), in_doubt: true };
    assert_eq!(changes(&mut path), [end, Change::Attached(id(2))]);
    assert_eq!(actions(&mut path), [Action::CloseWrite(id(1))]);
    assert_eq!((path.listens_to(id(1)), path.may_send_on(id(1)), path.is_in_doubt()), (true, false, false));
    path.handle_heard(now + ms(2_200), id(1));
    path.handle_answered(now + ms(2_200), id(1));
    path.handle_hello(now + ms(2_200), id(1), 9, false);
    assert_eq!(path.current(), Some(id(2)), "the newest sends");

    path.set_owed(now + ms(2_200), Owed::default());
    assert_eq!(runs(&mut path, now, ms(12_099)), []);
    assert_eq!(runs(&mut path, now, ms(12_100)), [(12_100, Action::Drop(id(1)))]);
    assert_eq!((changes(&mut path), path.listens_to(id(1))), (vec![], false), "it had ended before");
}

#[test]
fn a_carrier_that_speaks_again_stops_the_dial_for_its_successor() {
    let (now, mut path) = connected();
    path.set_owed(now, IN_FLIGHT);
    path.handle_timeout(now + secs(1), Sn::new(0));
    path.handle_heard(now + ms(1_500), id(1));
    path.handle_timeout(now + ms(3_500), Sn::new(0));
    assert_eq!(actions(&mut path), [Action::Dial(id(2))]);
    path.handle_answered(now + ms(3_600), id(2));
    path.handle_dial_failed(now + ms(3_600), id(2));
    assert!(path.poll_timeout().expect("a dial") < now + secs(4), "the silent one is to be replaced all the same");
    path.handle_answered(now + ms(3_700), id(1));
    path.set_owed(now + ms(3_700), Owed::default());
    assert_eq!(runs(&mut path, now, secs(20)), []);
    changes(&mut path);
    // Nothing doubtful about it any more.
    path.dial_now(now + secs(20));
    assert_eq!(runs(&mut path, now, secs(20)), [(20_000, Action::Dial(id(3)))]);
    path.handle_dialed(now + secs(21), id(3));
    let end = Change::Detached { id: id(1), why: CarrierEnd::Replaced, age: secs(21), in_doubt: false };
    assert_eq!(changes(&mut path), [end, Change::Attached(id(3))]);
    path.handle_ended(now + secs(22), id(1), CarrierEnd::Closed);
    assert_eq!(changes(&mut path), [], "a replaced one ends without notice");
    path.handle_ended(now + secs(23), id(3), CarrierEnd::Closed);
    let end = Change::Detached { id: id(3), why: CarrierEnd::Closed, age: secs(2), in_doubt: false };
    assert_eq!(changes(&mut path), [end], "counted from when it came up");
}

#[test]
fn one_dial_on_its_way_is_enough_for_a_carrier_that_falls_silent_or_ends() {
    let (now, mut path) = connected();
    path.dial_now(now);
    path.set_owed(now, IN_FLIGHT);
    let dials = [(0, Action::Dial(id(2))), (4_000, Action::Dial(id(3)))];
    assert_eq!(runs(&mut path, now, ms(4_100)), dials);
    let (now, mut path) = connected();
    path.dial_now(now);
    assert_eq!(runs(&mut path, now, ms(0)), dials[..1]);
    path.handle_ended(now + secs(1), id(1), CarrierEnd::Closed);
    assert_eq!(runs(&mut path, now, ms(4_100)), dials[1..]);
}

#[test]
fn data_puts_the_question_off_and_the_peers_kind_and_distance_make_it_late() {
    let (now, mut path) = connected();
    path.set_owed(now, Owed { in_flight: false, expecting: true });
    path.handle_data(now + ms(500), id(1));
    path.handle_data(now + ms(700), id(2));
    assert_eq!(path.poll_timeout(), Some(now + ms(1_500)));

    let (now, mut path) = connected();
    path.set_patience(2);
    path.set_srtt(Some(secs(3)));
    path.set_owed(now, IN_FLIGHT);
    assert_eq!(path.poll_timeout(), Some(now + secs(2)));
    let dial = Action::Dial(id(2));
    assert_eq!(runs(&mut path, now, secs(40)).first(), Some(&(26_000, dial)), "twice 1 s and 4 x 3 s");
}

#[test]
fn only_progress_makes_the_next_dial_an_early_one() {
    let (now, mut path) = connected();
    path.handle_progress(id(1));
    path.handle_ended(now + secs(1), id(1), CarrierEnd::Closed);
    assert!(path.last_made_progress());
    assert_eq!(path.poll_timeout(), Some(now + secs(1)));
    path.handle_timeout(now + secs(1), Sn::new(0));
    path.handle_dialed(now + secs(1), id(2));
    path.handle_ended(now + secs(2), id(2), CarrierEnd::Closed);
    assert!(!path.last_made_progress());
    assert!(path.poll_timeout().expect("a dial") >= now + ms(2_075));
    path.dial_now(now + secs(2));
    assert_eq!(path.poll_timeout(), Some(now + secs(2)), "whatever the pause says");
    path.handle_timeout(now + secs(2), Sn::new(0));
    path.handle_dialed(now + secs(2), id(3));
    path.handle_progress(id(3));
    path.dial_now(now + secs(3));
    path.handle_timeout(now + secs(3), Sn::new(0));
    path.handle_dialed(now + secs(3), id(4));
    assert!(path.last_made_progress(), "so had the one that was replaced");
}

/// Three times, over two seconds, and from nobody else a word.
#[test]
fn a_session_is_forgotten_when_three_carriers_say_so_over_two_seconds() {
    let rejected = |path: &mut Path, at: Instant| {
        path.dial_now(at);
        path.handle_timeout(at, Sn::new(0));
        let dialled = actions(path);
        let [Action::Dial(new)] = dialled[..] else { panic!("{dialled:?}") };
        path.handle_dialed(at, new);
        path.handle_rejected(at, new);
        assert_eq!(actions(path), [Action::Drop(new)]);
        let end = Change::Detached { id: new, why: CarrierEnd::Forgotten, age: ms(0), in_doubt: false };
        let changes = changes(path);
        assert_eq!(changes[..2], [Change::Attached(new), end]);
        assert!(changes.len() == 2 || changes[2] == Change::Unknown, "{changes:?}");
        changes.len() == 3
    };
    let now = Instant::now();
    let mut path = Path::client(now, LIFE, 7);
    let outcomes = [0, 100, 200, 1_999, 2_000].map(|at| rejected(&mut path, now + ms(at)));
    assert_eq!(outcomes, [false, false, false, false, true]);

    let mut path = Path::client(now, LIFE, 7);
    let outcomes = [1_000, 3_100, 3_200].map(|at| rejected(&mut path, now + ms(at)));
    assert_eq!(outcomes, [false, false, true]);

    let mut path = Path::client(now, LIFE, 7);
    let mut outcomes = [0, 1_000].map(|at| rejected(&mut path, now + ms(at))).to_vec();
    path.handle_rejected(now + secs(2), id(77));
    path.handle_heard(now + secs(2), id(77));
    outcomes.extend([3_000, 4_000, 5_000].map(|at| rejected(&mut path, now + ms(at))));
    assert_eq!(outcomes, [false, false, false, false, true], "a valid word counts anew");
}

#[test]
fn a_session_ends_when_nothing_was_heard_for_its_time_to_live() {
    for (now, mut path) in [connected(), server()] {
        assert_eq!(path.time_to_live(), LIFE);
        path.set_time_to_live(secs(30));
        assert_eq!((path.time_to_live(), path.last_heard()), (secs(30), now));
        path.handle_heard(now + secs(5), id(1));
        assert_eq!(path.last_heard(), now + secs(5));
        path.handle_timeout(now + secs(35) - ms(1), Sn::new(0));
        assert!(!changes(&mut path).contains(&Change::Expired));
        path.handle_timeout(now + secs(35), Sn::new(0));
        assert_eq!(changes(&mut path), [Change::Expired]);
    }
    // The question comes at half of it.
    let (now, mut path) = connected();
    path.set_time_to_live(secs(30));
    assert_eq!(path.poll_timeout(), Some(now + secs(15)));
    let (now, path) = server();
    assert_eq!(path.poll_timeout(), Some(now + LIFE), "without a carrier there is nobody to ask");
}

#[test]
fn who_stops_gives_up_dials_and_closes_the_rest_in_order() {
    let (now, mut path) = connected();
    path.dial_now(now);
    path.handle_timeout(now, Sn::new(0));
    path.handle_dialed(now, id(2));
    path.dial_now(now);
    path.handle_timeout(now, Sn::new(0));
    actions(&mut path);
    path.stop();
    let ends = [Action::Drop(id(1)), Action::CloseWrite(id(2)), Action::Drop(id(3))];
    assert_eq!(actions(&mut path), ends);
    assert_eq!((path.current(), path.poll_timeout()), (None, Some(now + LIFE)));
}

// The server.

#[test]
fn a_newcomer_takes_over_with_its_first_valid_packet_or_when_the_other_ends() {
    let (now, mut path) = server();
    assert!(!path.is_client());
    path.dial_now(now);
    assert_eq!(runs(&mut path, now, secs(1)), [], "a server dials nobody");
    assert_eq!(path.attach(now), id(1));
    assert_eq!(changes(&mut path), [Change::Attached(id(1))]);
    assert_eq!((path.attach(now), path.attach(now)), (id(2), id(3)));
    assert_eq!((path.current(), path.may_send_on(id(2)), path.must_say_hello(id(2))), (Some(id(1)), true, false));
    path.handle_heard(now + secs(1), id(3));
    let end = Change::Detached { id: id(1), why: CarrierEnd::Replaced, age: secs(1), in_doubt: false };
    assert_eq!(changes(&mut path), [end, Change::Attached(id(3))]);
    assert_eq!(actions(&mut path), [], "the first word is the client's");
    path.handle_heard(now + secs(1), id(2));
    path.handle_heard(now + secs(1), id(1));
    assert_eq!(path.current(), Some(id(3)), "2 came before it");

    assert_eq!(path.attach(now + secs(2)), id(4));
    path.handle_ended(now + secs(3), id(3), CarrierEnd::Closed);
    let end = Change::Detached { id: id(3), why: CarrierEnd::Closed, age: secs(2), in_doubt: false };
    assert_eq!(changes(&mut path), [end, Change::Attached(id(4))], "the newest");
    path.handle_heard(now + secs(4), id(4));
    // 2 has said nothing of its own, 1 may be read out for 30 s.
    assert_eq!(runs(&mut path, now, secs(31)), [(10_000, Action::Drop(id(2))), (31_000, Action::Drop(id(1)))]);
}

#[test]
fn among_those_who_say_hello_the_highest_number_is_the_newest() {
    let (now, mut path) = server();
    path.require_hello();
    let first = path.attach(now);
    assert_eq!((path.current(), path.must_say_hello(first)), (None, true));
    path.handle_heard(now, first);
    assert_eq!(path.current(), None);
    path.handle_hello(now, first, u32::MAX, false);
    assert_eq!((path.current(), path.must_say_hello(first)), (Some(first), false));

    let same = path.attach(now);
    path.handle_hello(now + secs(1), same, u32::MAX, false);
    assert_eq!((path.current(), path.may_send_on(same), path.listens_to(same)), (Some(first), false, true));
    let older = path.attach(now);
    path.handle_hello(now + secs(2), older, u32::MAX - 1, false);
    assert_eq!((path.current(), path.may_send_on(older)), (Some(first), false));
    let newer = path.attach(now);
    path.handle_hello(now + secs(3), newer, 0, false);
    assert_eq!(path.current(), Some(newer), "0 comes after the last one");
    path.handle_hello(now + secs(3), newer, 1, false);
    path.handle_hello(now + secs(3), first, 2, false);
    assert_eq!(path.current(), Some(newer), "what is only read stays so");
    let expected = [(31_000, Action::Drop(same)), (32_000, Action::Drop(older)), (33_000, Action::Drop(first))];
    assert_eq!(runs(&mut path, now, secs(40)), expected);

    let silent = path.attach(now + secs(40));
    path.handle_ended(now + secs(41), newer, CarrierEnd::Closed);
    assert_eq!((path.current(), path.must_say_hello(silent)), (None, true), "it has still to say who it is");
}

#[test]
fn the_fifth_carrier_costs_one_that_is_only_read_or_the_oldest_newcomer() {
    let (now, mut path) = server();
    for _ in 0..4 {
        path.attach(now);
    }
    path.handle_heard(now, id(2));
    assert_eq!(actions(&mut path), []);
    assert_eq!(path.attach(now), id(5));
    assert_eq!(actions(&mut path), [Action::Drop(id(1))], "2 has replaced it");
    assert_eq!(path.attach(now), id(6));
    assert_eq!(actions(&mut path), [Action::Drop(id(3))]);
    assert_eq!(path.current(), Some(id(2)));
}

#[test]
fn a_server_closes_a_silent_carrier_after_a_minute_unless_it_speaks_again() {
    for answers in [false, true] {
        let (now, mut path) = server();
        path.attach(now);
        path.set_owed(now, IN_FLIGHT);
        assert_eq!(runs(&mut path, now, secs(2)), []);
        path.handle_answered(now + secs(3), id(2));
        if answers {
            path.handle_answered(now + secs(3), id(1));
            path.set_owed(now + secs(3), Owed::default());
        }
        let closed = runs(&mut path, now, secs(62));
        assert_eq!(closed, if answers { vec![] } else { vec![(62_000, Action::Drop(id(1)))] });
    }
}

// A spare.

const SRTT: Duration = ms(200);

/// A client whose server keeps spares: carrier 1 is in use and was heard, 2 is the spare, dialled after 250 ms and ready after 350.
fn with_spare() -> (Instant, Path) {
    let (now, mut path) = connected();
    path.want_spare();
    path.set_srtt(Some(SRTT));
    path.handle_keeps_spares();
    path.handle_heard(now, id(1));
    assert_eq!(runs(&mut path, now, secs(5)), [(250, Action::Dial(id(2)))]);
    path.handle_dialed(now + ms(300), id(2));
    assert_eq!(changes(&mut path), [Change::Greet(id(2))]);
    assert_eq!((path.current(), path.has_spare()), (Some(id(1)), false));
    assert!(path.is_spare(id(2)) && path.may_send_on(id(2)) && path.listens_to(id(2)));
    path.handle_spare_answered(now + ms(350), id(2));
    assert_eq!((changes(&mut path), path.has_spare()), (vec![Change::SpareReady(id(2))], true));
    (now, path)
}

#[test]
fn no_spare_is_dialled_that_nobody_wants_or_understands() {
    for (wanted, understood) in [(true, false), (false, true)] {
        let (now, mut path) = connected();
        if wanted {
            path.want_spare();
        }
        if understood {
            path.handle_keeps_spares();
        }
        path.handle_heard(now, id(1));
        assert_eq!(runs(&mut path, now, secs(50)), []);
    }
}

#[test]
fn a_spare_takes_over_at_once_and_gets_a_successor() {
    let (now, mut path) = with_spare();
    let cut = now + secs(10);
    path.handle_ended(cut, id(1), CarrierEnd::Closed);
    let end = Change::Detached { id: id(1), why: CarrierEnd::Closed, age: secs(10), in_doubt: false };
    assert_eq!(changes(&mut path), [end, Change::Promoted(id(2))]);
    assert_eq!((path.current(), path.spares_used(), path.is_spare(id(2))), (Some(id(2)), 1, false));
    assert_eq!(actions(&mut path), [], "no dial");
    path.handle_heard(cut + ms(100), id(2));
    assert_eq!(runs(&mut path, now, secs(12)), [(10_350, Action::Dial(id(3)))], "the next spare");
}

/// What has ended the carrier may have ended the spare: it has two round trips, then it is as if it had not been there.
#[test]
fn a_spare_that_is_not_heard_does_not_stand_in_the_way_of_a_dial() {
    let (now, mut path) = with_spare();
    let cut = now + secs(10);
    path.handle_ended(cut, id(1), CarrierEnd::Closed);
    assert_eq!(runs(&mut path, now, ms(10_500)), [(10_400, Action::Dial(id(3)))]);
    path.handle_dialed(cut + ms(500), id(3));
    assert_eq!(path.current(), Some(id(3)));

    // The dial fails: it is repeated as ever, for a spare that is not heard is none.
    let (now, mut path) = with_spare();
    path.handle_ended(now + secs(10), id(1), CarrierEnd::Closed);
    runs(&mut path, now, ms(10_400));
    path.handle_dial_failed(now + ms(10_410), id(3));
    assert!(matches!(runs(&mut path, now, ms(10_600))[..], [(10_485..=10_510, Action::Dial(CarrierId(4)))]));

    // However slow the path was, it is not waited for longer than between two dials.
    let (now, mut path) = with_spare();
    path.set_srtt(Some(secs(60)));
    path.handle_ended(now + secs(10), id(1), CarrierEnd::Closed);
    assert_eq!(runs(&mut path, now, secs(14)), [(14_000, Action::Dial(id(3)))]);

    // Heard while the dial is on its way: that one is not needed.
    let (now, mut path) = with_spare();
    path.handle_ended(now + secs(10), id(1), CarrierEnd::Closed);
    assert_eq!(runs(&mut path, now, ms(10_500)), [(10_400, Action::Dial(id(3)))]);
    path.handle_heard(now + ms(10_500), id(2));
    assert_eq!((actions(&mut path), path.current()), (vec![Action::Drop(id(3))], Some(id(2))));
}

#[test]
fn a_spare_takes_over_from_a_carrier_that_is_silent() {
    let (now, mut path) = with_spare();
    path.set_owed(now + secs(5), IN_FLIGHT);
    let done = runs(&mut path, now, secs(7));
    assert_eq!(done[0], (7_000, Action::CloseWrite(id(1))), "asked after one second, silent after another");
    let changes = changes(&mut path);
    assert_eq!(changes[0], Change::Probe(id(1)));
    assert!(matches!(changes[1], Change::Detached { id: CarrierId(1), why: CarrierEnd::Silent, .. }), "{changes:?}");
    assert_eq!(
        (changes[2], path.current()),
        (Change::Attached(id(2)), Some(id(2))),
        "of which nobody knows yet whether it lives"
    );
}

#[test]
fn a_spare_is_greeted_now_and_then_and_dropped_if_it_does_not_answer() {
    let (now, mut path) = with_spare();
    path.handle_heard(now + secs(26), id(1));
    assert_eq!(runs(&mut path, now, ms(25_350)), []);
    assert_eq!(changes(&mut path), [Change::Greet(id(2))]);
    path.handle_spare_answered(now + ms(26_200), id(2));
    assert_eq!((changes(&mut path), path.has_spare()), (vec![], true), "told once");
    path.handle_heard(now + secs(51), id(1));
    assert_eq!(runs(&mut path, now, ms(61_199)), []);
    assert_eq!(changes(&mut path), [Change::Greet(id(2))]);
    path.handle_heard(now + ms(61_199), id(1));
    assert_eq!(runs(&mut path, now, ms(61_200)), [(61_200, Action::Drop(id(2)))]);
    assert_eq!((changes(&mut path), path.current()), (vec![Change::SpareLost(id(2))], Some(id(1))));
    path.handle_heard(now + secs(62), id(1));
    assert_eq!(runs(&mut path, now, secs(65)), [(63_250, Action::Dial(id(3)))], "a second later than the first");
}

#[test]
fn failing_spares_do_not_touch_the_carrier_in_use_and_are_dialled_less_and_less() {
    let (now, mut path) = connected();
    path.want_spare();
    path.handle_keeps_spares();
    let mut dials = Vec::new();
    for second in 0..100 {
        path.handle_heard(now + secs(second), id(1));
        path.handle_progress(id(1));
        for (at, action) in runs(&mut path, now, secs(second)) {
            let Action::Dial(dial) = action else { panic!("{action:?}") };
            dials.push(at / 1_000);
            path.handle_dial_failed(now + secs(second), dial);
            assert_eq!(changes(&mut path), [Change::SpareLost(dial)]);
        }
    }
    assert_eq!(dials, [0, 3, 7, 13, 23, 41, 75]);
    assert_eq!(path.current(), Some(id(1)));
}

/// Only the first progress speaks for a spare: those that fail afterwards are not better for it.
#[test]
fn a_carrier_that_was_a_spare_does_not_praise_the_spares_after_it() {
    let (now, mut path) = with_spare();
    path.handle_ended(now + secs(1), id(1), CarrierEnd::Closed);
    changes(&mut path);
    let mut dials = Vec::new();
    for second in 1..60 {
        path.handle_heard(now + secs(second), id(2));
        path.handle_progress(id(2));
        for (at, action) in runs(&mut path, now, secs(second)) {
            let Action::Dial(dial) = action else { panic!("{action:?}") };
            dials.push(at / 1_000);
            path.handle_dial_failed(now + secs(second), dial);
        }
    }
    assert_eq!(dials, [1, 4, 8, 14, 24, 42]);
}

/// It was found silent as well: a packet that shows one direction only does not take the dial away that is needed.
#[test]
fn a_doubted_spare_that_is_silent_has_to_answer() {
    let (now, mut path) = with_spare();
    path.handle_ended(now + secs(10), id(1), CarrierEnd::Closed);
    path.set_owed(now + secs(10), IN_FLIGHT);
    let done = runs(&mut path, now, secs(13));
    assert_eq!(done[0], (10_400, Action::Dial(id(3))));
    assert!(path.silence.is_dead());
    path.handle_heard(now + secs(13), id(2));
    assert_eq!(actions(&mut path), []);
    assert!(runs(&mut path, now, secs(19)).contains(&(18_400, Action::Dial(id(5)))), "it goes on");
    path.handle_dialed(now + secs(19), id(5));
    assert_eq!(path.current(), Some(id(5)));
}

#[test]
fn a_spare_that_is_being_dialled_when_the_carrier_is_lost_is_the_next_carrier() {
    let (now, mut path) = connected();
    path.want_spare();
    path.handle_keeps_spares();
    path.handle_heard(now, id(1));
    assert_eq!(runs(&mut path, now, secs(1)), [(250, Action::Dial(id(2)))]);
    path.handle_ended(now + secs(2), id(1), CarrierEnd::Closed);
    let dials = [(2_000, Action::Dial(id(3))), (6_000, Action::Dial(id(4)))];
    assert_eq!(runs(&mut path, now, secs(6)), dials, "it keeps no other away");
    changes(&mut path);
    path.handle_dialed(now + secs(6), id(2));
    assert_eq!((changes(&mut path), path.current()), (vec![Change::Attached(id(2))], Some(id(2))));
    assert_eq!(actions(&mut path), [Action::Drop(id(3)), Action::Drop(id(4))]);
    assert_eq!(path.spares_used(), 0, "it never was one");
}

#[test]
fn a_dial_that_was_asked_for_is_not_dropped_for_a_spare() {
    let (now, mut path) = with_spare();
    path.dial_now(now + secs(2));
    assert_eq!(runs(&mut path, now, secs(2)), [(2_000, Action::Dial(id(3)))]);
    path.handle_ended(now + ms(2_010), id(1), CarrierEnd::Closed);
    path.handle_heard(now + ms(2_020), id(2));
    assert_eq!((actions(&mut path), path.current()), (vec![], Some(id(2))));
    path.handle_dialed(now + ms(2_030), id(3));
    assert_eq!(path.current(), Some(id(3)));
}

/// Who drops all packets after 20 s is as regular as who cuts.
#[test]
fn silence_at_a_regular_age_is_learned_too() {
    let (mut now, mut path) = connected();
    path.want_spare();
    path.handle_keeps_spares();
    for n in 1..=3 {
        let (up, carrier) = (now, path.current().unwrap());
        path.handle_heard(up + secs(20), carrier);
        path.set_owed(up + secs(20), IN_FLIGHT);
        actions(&mut path);
        runs(&mut path, up, secs(23));
        assert!(!path.silence.is_in_doubt() || path.silence.is_dead(), "{n}");
        now = up + secs(23);
        path.dial_now(now);
        path.handle_timeout(now, Sn::new(0));
        path.set_owed(now, Owed::default());
        path.handle_dialed(now, CarrierId(path.last_id));
    }
    actions(&mut path);
    let current = path.current().unwrap();
    path.handle_heard(now, current);
    let mut dials = runs(&mut path, now, secs(20));
    dials.retain(|(_, action)| matches!(action, Action::Dial(_)));
    assert_eq!(dials.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [17_500], "shortly before");
}

/// The network has changed, or the user wants another: what is there already is not what is wanted.
#[test]
fn a_redial_takes_the_place_of_the_spare_too() {
    let (now, mut path) = with_spare();
    path.dial_now(now + secs(2));
    assert_eq!(runs(&mut path, now, secs(2)), [(2_000, Action::Dial(id(3)))]);
    path.handle_dialed(now + ms(2_100), id(3));
    assert_eq!(path.current(), Some(id(3)));
    assert_eq!(actions(&mut path), [Action::CloseWrite(id(1)), Action::Drop(id(2))]);
    assert!(changes(&mut path).contains(&Change::SpareLost(id(2))));
}

#[test]
fn a_server_keeps_a_spare_as_long_as_it_is_greeted() {
    let (now, mut path) = server();
    let first = path.attach(now);
    path.require_hello();
    path.handle_hello(now, first, 1, false);
    let spare = path.attach(now + secs(1));
    path.handle_hello(now + secs(1), spare, 2, true);
    assert!(path.is_spare(spare) && path.must_say_hello(spare) && path.may_send_on(spare));
    assert_eq!(path.current(), Some(first), "its number is higher, and it is a spare");
    path.handle_heard(now + secs(1), spare);
    path.handle_hello(now + secs(60), spare, 2, true);
    assert_eq!(runs(&mut path, now, secs(100)), []);
    path.handle_hello(now + secs(100), spare, 2, false);
    assert_eq!(path.current(), Some(spare));

    let other = path.attach(now + secs(101));
    path.handle_hello(now + secs(101), other, 3, true);
    path.handle_heard(now + secs(170), spare);
    let newer = path.attach(now + secs(102));
    path.handle_hello(now + secs(102), newer, 4, true);
    assert_eq!(actions(&mut path), [Action::Drop(other)], "one is enough");
    let dropped = runs(&mut path, now, secs(178));
    assert_eq!(dropped, [(130_000, Action::Drop(first)), (177_000, Action::Drop(newer))]);
}
