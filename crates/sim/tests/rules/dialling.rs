//! When the client dials, and that it never gives up by itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use turbotunnel::SessionError;
use turbotunnel_sim::{Dial, Fault, How, KIB, Link, MIB, Side, Sim, Traffic, When, ms, secs};

/// A simulation in which dials end as `plan` says, and the times at which they were made.
fn with_dials(sim: Sim, plan: impl Fn(u32, Duration) -> Dial + 'static) -> (Sim, Rc<RefCell<Vec<Duration>>>) {
    let times = Rc::new(RefCell::new(Vec::new()));
    let noted = times.clone();
    let sim = sim.dials(move |number, at| {
        noted.borrow_mut().push(at);
        plan(number, at)
    });
    (sim, times)
}

/// Whatever a dial meets for a minute, the session goes on within five seconds of its end.
#[test]
fn a_dead_dial_for_a_minute_costs_the_minute_plus_at_most_five_seconds() {
    for dead in [Dial::Refused, Dial::AcceptAndClose, Dial::RelayRefused] {
        let mut sim = Sim::new("a_dead_dial_for_a_minute_costs_the_minute_plus_at_most_five_seconds")
            .link(Link::new(ms(20)))
            .at(secs(2), How::Rst)
            .dials(move |_, at| if (secs(2)..secs(62)).contains(&at) { dead } else { Dial::Connect })
            .traffic(Traffic::upload(200_000).paced(1_000, ms(20)));
        sim.run_until_done(secs(100));
        let pause = sim.longest_pause(turbotunnel_sim::Way::Up);
        assert!(pause <= secs(65), "{dead:?}: {pause:?}");
    }
}

/// A dial into nothing is answered by nobody, also when the path is back meanwhile. Another one is made beside it, so it costs no more.
#[test]
fn a_black_hole_for_a_minute_costs_the_minute_plus_at_most_five_seconds() {
    for back in [62_000, 63_000, 65_500, 68_000] {
        let hole = secs(2)..ms(back);
        let sim = Sim::new("a_black_hole_for_a_minute_costs_the_minute_plus_at_most_five_seconds")
            .link(Link::new(ms(20)))
            .at(secs(2), How::Rst)
            .traffic(Traffic::upload(200_000).paced(1_000, ms(20)));
        let in_hole = hole.clone();
        let plan = move |_, at| if in_hole.contains(&at) { Dial::BlackHole } else { Dial::Connect };
        let (mut sim, times) = with_dials(sim, plan);
        sim.run_until_done(secs(100));
        let pause = sim.longest_pause(turbotunnel_sim::Way::Up);
        assert!(pause <= hole.end - hole.start + secs(5), "{hole:?}: {pause:?}");
        let times = times.borrow();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= ms(4_200)), "{times:?}");
        assert!(times.len() <= 20, "{} dials", times.len());
    }
}

/// Of several dials the first that is answered is used; the others are given up.
#[test]
fn the_first_of_several_dials_to_answer_wins() {
    let mut sim = Sim::new("the_first_of_several_dials_to_answer_wins")
        .link(Link::new(ms(20)))
        .dials(|number, _| if number <= 2 { Dial::BlackHole } else { Dial::Connect })
        .traffic(Traffic::upload(20_000).paced(1_000, secs(1)));
    sim.run_for(ms(8_010));
    assert_eq!(sim.connections(), 3, "three dials, none has been answered yet");
    sim.run_for(ms(100));
    assert_eq!(sim.client().current().map(|id| id.0), Some(3));
    assert_eq!(sim.connections(), 1);
    sim.run_until_done(secs(60));
    assert_eq!((sim.dialled(), sim.client_stats().dial_failures), (3, 0));
}

/// The seed's client dials such a server thousands of times a second.
#[test]
fn accept_and_close_is_dialled_at_most_ten_times_in_the_first_second_and_once_a_second_after_ten() {
    for (dial, delay) in [(Dial::AcceptAndClose, ms(0)), (Dial::RelayRefused, ms(0)), (Dial::Refused, ms(5))] {
        let name = "accept_and_close_is_dialled_at_most_ten_times_in_the_first_second_and_once_a_second_after_ten";
        let (mut sim, times) = with_dials(Sim::new(name).link(Link::new(delay)), move |_, _| dial);
        sim.run_for(secs(100));
        let times = times.borrow();
        let first_second = times.iter().filter(|at| **at < secs(1)).count();
        assert!(
            dial != Dial::Refused || times[1] - times[0] >= ms(75),
            "{dial:?}: a refused dial is not repeated at once"
        );
        assert!((3..=10).contains(&first_second), "{dial:?}: {first_second} in the first second");
        let later: Vec<_> = times.iter().filter(|at| **at > secs(10)).collect();
        assert!(later.windows(2).all(|pair| *pair[1] - *pair[0] >= secs(1)), "{dial:?}: {times:?}");
        assert!(later.windows(2).all(|pair| *pair[1] - *pair[0] <= ms(4_200)), "{dial:?}: {times:?}");
    }
}

/// A carrier that comes up proves nothing. Only what was acknowledged, or new data, forgets the pauses.
#[test]
fn backoff_is_forgotten_only_by_progress() {
    let name = "backoff_is_forgotten_only_by_progress";
    // Ten carriers connect and die before anything has come back; then each does some work before it dies.
    let sim = Sim::new(name)
        .link(Link::new(ms(10)).rate(100 * KIB))
        .carriers(|number| {
            let how = How::Rst;
            vec![if number <= 10 { Fault::new(When::Up(8), how) } else { Fault::new(When::After(ms(500)), how) }]
        })
        .traffic(Traffic::upload(200_000));
    let (mut sim, times) = with_dials(sim, |_, _| Dial::Connect);
    sim.run_until_done(secs(60));
    let times = times.borrow();
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[1..9].windows(2).all(|pair| pair[1] > pair[0] || pair[1] > secs(3)), "they grow: {pauses:?}");
    assert!(pauses[9] > secs(3), "{pauses:?}");
    assert!(pauses[10..].iter().all(|pause| *pause < ms(600)), "at once after work: {pauses:?}");
}

/// The first dial is made at once, and the first after a carrier that worked, too.
#[test]
fn the_first_dial_after_progress_is_made_at_once() {
    let sim = Sim::new("the_first_dial_after_progress_is_made_at_once")
        .link(Link::new(ms(10)))
        .every(secs(1), How::Fin)
        .traffic(Traffic::echo(100_000).paced(1_000, ms(50)));
    let (mut sim, times) = with_dials(sim, |_, _| Dial::Connect);
    sim.run_until_done(secs(60));
    let times = times.borrow();
    assert_eq!(times[0], ms(0));
    for (at, (lost, _)) in times[1..].iter().zip(crate::losses(&sim, Side::Client)) {
        assert_eq!(*at, lost);
    }
}

/// Nothing but the time to live ends a session: counted from the last that was heard, at both ends.
#[test]
fn time_to_live_ends_the_session() {
    let mut sim = Sim::new("time_to_live_ends_the_session")
        .link(Link::new(ms(10)))
        .at(secs(30), How::Rst)
        .dials(|number, _| if number == 1 { Dial::Connect } else { Dial::Refused })
        .traffic(Traffic::upload(10_000_000).paced(1_000, ms(10)));
    let ended = sim.run_until_ended(secs(200));
    assert_eq!(ended, SessionError::GaveUp(secs(120)));
    assert!((secs(149)..=secs(151)).contains(&sim.elapsed()), "{:?}", sim.elapsed());
    sim.run_for(secs(2));
    assert_eq!(sim.server().ended(), Some(&SessionError::GaveUp(secs(120))));
}

/// The server keeps sessions for less time than the client would wait: the client knows, and does not wait in vain.
#[test]
fn the_server_tells_its_time_to_live() {
    let mut sim = Sim::new("the_server_tells_its_time_to_live")
        .link(Link::new(ms(10)))
        .server_config(|config| config.time_to_live = secs(30))
        .at(secs(10), How::Rst)
        .dials(|number, _| if number == 1 { Dial::Connect } else { Dial::Refused })
        .traffic(Traffic::upload(MIB).paced(1_000, ms(10)));
    assert_eq!(sim.run_until_ended(secs(200)), SessionError::GaveUp(secs(30)));
}

/// Nobody ever answered: that is another error, because the user may have mistyped the address.
#[test]
fn a_server_that_never_answers_was_never_reached() {
    for dial in [Dial::Refused, Dial::BlackHole, Dial::AcceptAndClose] {
        let mut sim = Sim::new("a_server_that_never_answers_was_never_reached")
            .dials(move |_, _| dial)
            .traffic(Traffic::upload(1_000));
        assert!(matches!(sim.run_until_ended(secs(130)), SessionError::NeverConnected(_)));
        assert_eq!(sim.elapsed(), secs(120));
    }
}

/// The user knows that the network has changed. The new carrier is there before the old one is given up.
#[test]
fn a_redial_goes_beside_the_carrier_in_use() {
    let mut sim = Sim::new("a_redial_goes_beside_the_carrier_in_use")
        .link(Link::new(ms(50)))
        .traffic(Traffic::upload(200_000).paced(1_000, ms(10)));
    sim.run_for(secs(1));
    sim.redial();
    sim.run_for(ms(90));
    assert_eq!(sim.client().current().map(|id| id.0), Some(1));
    sim.run_for(ms(20));
    assert_eq!(sim.client().current().map(|id| id.0), Some(2));
    sim.run_until_done(secs(20));
    assert!(
        sim.longest_pause(turbotunnel_sim::Way::Up) <= ms(210),
        "{:?}",
        sim.longest_pause(turbotunnel_sim::Way::Up)
    );
}
