//! Death and rebirth of carriers: what is sent when, and on which.

use turbotunnel::control::Control;
use turbotunnel_sim::{Dial, Fault, Fin, Go, How, KIB, Link, MIB, Side, Sim, Traffic, Way, When, ms, secs};

use crate::ups;

/// While there is no carrier nothing is made: nothing grows stale, no timeout grows. So a message that was cut off arrives
/// one way after the next carrier is there, whether that took a second or a minute.
#[test]
fn nothing_goes_into_the_void() {
    for outage in [secs(1), secs(10), secs(60)] {
        let up_again = ms(1_000) + outage;
        let mut sim = Sim::new("nothing_goes_into_the_void")
            .link(Link::new(ms(50)))
            .traffic(Traffic::upload(1_000).starts_at(ms(980)).stays_open())
            .at(secs(1), How::Rst)
            .dials(move |number, at| if number > 1 && at < up_again { Dial::Refused } else { Dial::Connect });
        sim.run_for(ms(1_200));
        assert_eq!(sim.client().current(), None);
        let before = sim.client_stats();
        sim.run_for(outage - ms(300));
        let after = sim.client_stats();
        assert_eq!(after.packets_sent, before.packets_sent);
        assert_eq!(after.segments_resent, before.segments_resent);
        assert_eq!(sim.server_app().received(), 0);

        sim.run_until_done(secs(70));
        // HELLO there, una back, and the message: "up" is told when HELLO was answered.
        let up = *ups(&sim, Side::Client).last().expect("there is a carrier");
        assert!(up >= up_again);
        assert!(sim.elapsed() <= up + ms(51), "up at {up:?}, all there at {:?}", sim.elapsed());
    }
}

/// The receiver had everything but its acknowledgements died with the carrier. It says so first, and nothing is sent twice.
#[test]
fn una_is_learned_before_anything_is_resent() {
    let mut sim = Sim::new("una_is_learned_before_anything_is_resent")
        .link(Link::new(ms(50)))
        .tapped()
        .traffic(Traffic::upload(20_000).starts_at(secs(1)).stays_open())
        // The data arrives at 1.050, its acknowledgement would at 1.100.
        .at(ms(1_070), How::Rst);
    sim.run_for(secs(3));
    assert!(sim.is_done());
    let again: Vec<_> = sim.seen().iter().filter(|seen| seen.carrier == 2 && seen.way == Way::Up).collect();
    assert!(matches!(again[0].control(), Some(Control::Hello(hello)) if hello.heard), "HELLO opens the carrier");
    assert_eq!(again.iter().flat_map(|seen| seen.pushes()).count(), 0, "all had arrived before");
    assert_eq!(sim.client_stats().segments_resent, 0);
}

/// What had not arrived goes at once when the peer has said what has: not before, and not by timeout.
#[test]
fn the_rest_goes_again_at_once_when_una_is_known() {
    let mut sim = Sim::new("the_rest_goes_again_at_once_when_una_is_known")
        .link(Link::new(ms(50)))
        .tapped()
        .traffic(Traffic::upload(20_000).starts_at(secs(1)).stays_open())
        .at(ms(1_030), How::Rst);
    sim.run_for(secs(3));
    assert!(sim.is_done());
    let second = |way| sim.seen().iter().filter(move |seen| seen.carrier == 2 && seen.way == way);
    let answered = second(Way::Down).find(|seen| matches!(seen.control(), Some(Control::Hello(_)))).expect("HELLO").at;
    let pushes: Vec<_> = second(Way::Up).filter(|seen| seen.pushes().count() > 0).map(|seen| seen.at).collect();
    assert!(!pushes.is_empty());
    assert!(pushes.iter().all(|at| *at == answered + ms(50)), "answered at {answered:?}, sent at {pushes:?}");
}

/// 200 Mbit/s, 100 ms, a cut each second: dialling and learning una take two round trips, and what was on its way goes again. What is left is two
/// thirds, not what the smallest flight brings in its round trips.
#[test]
fn a_cut_every_second_leaves_two_thirds_of_the_rate() {
    let took = |cut: bool| {
        let mut sim = Sim::new("a_cut_every_second_leaves_two_thirds_of_the_rate")
            .link(Link::new(ms(50)).rate(24 * MIB).capacity(4 << 20))
            .traffic(Traffic::download(100 * MIB));
        if cut {
            sim = sim.every(secs(1), How::Rst);
        }
        sim.run_until_done(secs(100))
    };
    let (uncut, cut) = (took(false), took(true));
    assert!(cut <= uncut * 3 / 2, "{cut:?}, and {uncut:?} without cuts");
}

/// The seed's sorest spot: carriers that die before any acknowledgement comes home. As una is told first, each brings new data.
#[test]
fn carriers_that_all_die_after_20_kb_still_make_progress() {
    for round_trip in [ms(1), ms(50), ms(300)] {
        for go in [None, Some(Go::new(Fin::Old))] {
            let mut sim = Sim::new("carriers_that_all_die_after_20_kb_still_make_progress")
                .link(Link::new(round_trip / 2).rate(MIB))
                .carriers(|_| vec![Fault::new(When::Up(20_000), How::Rst)])
                .traffic(Traffic::upload(500_000));
            if let Some(go) = go {
                sim = sim.go_server(go);
            }
            let took = sim.run_until_done(secs(120));
            // 25 carriers would do if none brought anything twice.
            let carriers = sim.client_stats().carriers;
            assert!(carriers <= 80, "{round_trip:?}, {go:?}: {carriers} carriers, {took:?}");
        }
    }
}

/// The same for what comes down.
#[test]
fn carriers_that_all_die_after_20_kb_down_still_make_progress() {
    for round_trip in [ms(1), ms(50), ms(300)] {
        for go in [None, Some(Go::new(Fin::Old))] {
            let mut sim = Sim::new("carriers_that_all_die_after_20_kb_down_still_make_progress")
                .link(Link::new(round_trip / 2).rate(MIB))
                .carriers(|_| vec![Fault::new(When::Down(20_000), How::Rst)])
                .traffic(Traffic::download(300_000).finishes_last());
            if let Some(go) = go {
                sim = sim.go_client(go);
            }
            let took = sim.run_until_done(secs(120));
            assert!(sim.dialled() <= 120, "{round_trip:?}, {go:?}: {} carriers, {took:?}", sim.dialled());
        }
    }
}

/// A second carrier is dialled while the first is well. From then on each end sends on the newest it knows, and never on two.
#[test]
fn exactly_one_carrier_sends() {
    let mut sim = Sim::new("exactly_one_carrier_sends")
        .link(Link::new(ms(50)).rate(200 * KIB).capacity(64 << 10))
        .tapped()
        .traffic(Traffic::both(MIB, MIB));
    for _ in 0..5 {
        sim.run_for(ms(300));
        sim.redial();
    }
    sim.run_until_done(secs(30));
    assert_eq!(sim.client_stats().carriers, 6);
    for way in [Way::Up, Way::Down] {
        let carriers: Vec<_> = sim.seen().iter().filter(|seen| seen.way == way).map(|seen| seen.carrier).collect();
        assert!(carriers.is_sorted(), "an older carrier was used {way:?} after a newer one");
    }
}

/// The old carrier is not torn down: both ends read it to its end, so nothing that was on it has to go again.
#[test]
fn a_replaced_carrier_is_read_to_its_end() {
    let mut sim = Sim::new("a_replaced_carrier_is_read_to_its_end")
        .link(Link::new(ms(50)).rate(200 * KIB))
        .traffic(Traffic::download(MIB));
    sim.run_for(secs(2));
    sim.redial();
    sim.run_until_done(secs(30));
    sim.run_for(secs(5));
    assert_eq!(sim.connections(), 1, "the old one is closed at both ends");
    assert_eq!(sim.counts().of("closed with something unread"), 0);
    assert!(sim.longest_pause(Way::Down) < ms(600), "{:?}", sim.longest_pause(Way::Down));
}

/// A carrier that was given up as silent thaws when its successor is at work. What it brings late is taken in and changes nothing else.
#[test]
fn a_late_answer_does_not_bring_the_old_carrier_back() {
    let mut sim = Sim::new("a_late_answer_does_not_bring_the_old_carrier_back")
        .link(Link::new(ms(20)))
        .tapped()
        .first_carrier(Fault::new(When::After(secs(2)), How::Freeze(secs(5))))
        .traffic(Traffic::echo(500_000).paced(1_000, ms(20)));
    sim.run_for(secs(6));
    let successor = sim.client().current();
    assert_eq!(successor.map(|id| id.0), Some(2));
    sim.run_until_done(secs(30));
    assert_eq!(sim.client_stats().carriers, 2);
    assert_eq!(sim.server_stats().carriers, 2);
    let late = sim.seen().iter().filter(|seen| seen.carrier == 1 && seen.at > secs(7)).count();
    assert_eq!(late, 0, "something was sent on the old carrier after it came back");
}

/// The client has dialled twice, and the first HELLO comes after the second: its carrier is an old one already.
#[test]
fn a_hello_that_comes_late_does_not_take_over() {
    let mut sim = Sim::new("a_hello_that_comes_late_does_not_take_over")
        .links(|number| Link::new(if number == 2 { secs(1) } else { ms(20) }))
        .traffic(Traffic::echo(200_000).paced(1_000, ms(20)));
    sim.run_for(ms(500));
    sim.redial();
    // Connected at 2.5 s, and the HELLO is on its way until 3.5 s.
    sim.run_for(ms(2_100));
    sim.redial();
    sim.run_until_done(secs(60));
    let in_use: Vec<_> = ups(&sim, Side::Server).into_iter().map(|at| at >= ms(3_400)).collect();
    assert_eq!(in_use, [false, false], "the late one took over");
    assert_eq!((sim.client_stats().carriers, sim.server_stats().carriers), (3, 2));
}

/// A Go client says nothing on a new carrier while it waits for a download. The server goes on as soon as it knows whose carrier it is.
#[test]
fn a_known_session_without_carrier_uses_a_new_one_from_its_eighth_byte() {
    let mut sim = Sim::new("a_known_session_without_carrier_uses_a_new_one_from_its_eighth_byte")
        .link(Link::new(ms(50)).rate(100 * KIB))
        .go_client(Go::new(Fin::Old))
        .tapped()
        .at(secs(3), How::Rst)
        .traffic(Traffic::download(MIB).finishes_last());
    sim.run_until_done(secs(60));
    let first_down = sim.seen().iter().find(|seen| seen.carrier == 2 && seen.way == Way::Down).expect("used").at;
    // Cut at 3 s, seen by the client at most 50 ms later, dialled for 100 ms, the id 50 ms on its way.
    assert!(first_down <= ms(3_201), "first used at {first_down:?}");
}

/// The server does not know that the old carrier of a Go client is dead. The new one says no HELLO; its first valid packet is enough.
#[test]
fn a_newcomer_without_hello_takes_over_at_its_first_valid_packet() {
    let mut sim = Sim::new("a_newcomer_without_hello_takes_over_at_its_first_valid_packet")
        .link(Link::new(ms(50)))
        .go_client(Go::new(Fin::Old))
        .tapped()
        // The client sees the end of the first carrier; its own end gets lost on the way.
        .carriers(|number| match number {
            1 => {
                vec![Fault::new(When::After(secs(2)), How::StallUp), Fault::new(When::After(ms(2_010)), How::HalfDown)]
            }
            _ => Vec::new(),
        })
        .traffic(Traffic::upload(200_000).paced(1_000, ms(20)));
    sim.run_until_done(secs(60));
    let taken_over = ups(&sim, Side::Server)[1];
    let first_packet = sim.seen().iter().find(|seen| seen.carrier == 2 && seen.way == Way::Up).expect("used").at;
    assert_eq!(taken_over, first_packet + ms(50));
}

/// A session has a carrier and is asked for by another one, which says nothing. It waits as a substitute until the old one fails.
#[test]
fn a_silent_newcomer_waits_until_the_old_carrier_fails() {
    let mut sim = Sim::new("a_silent_newcomer_waits_until_the_old_carrier_fails")
        .link(Link::new(ms(50)))
        .go_client(Go::new(Fin::Old))
        .traffic(Traffic::download(300_000).paced(1_000, ms(20)).finishes_last())
        .first_carrier(Fault::new(When::After(secs(3)), How::Rst));
    sim.run_for(secs(2));
    let newcomer = sim.intrude(&[]);
    sim.run_for(ms(500));
    assert_eq!(sim.server().current().map(|id| id.0), Some(1));
    assert_eq!(sim.intruder_got(newcomer).len(), 0);
    sim.run_for(ms(800));
    assert!(!sim.intruder_got(newcomer).is_empty(), "used at once when the old one had failed");
    sim.run_until_done(secs(30));
}

/// Of two newcomers the later one has taken over. The earlier one comes too late with its first word.
#[test]
fn an_older_newcomer_does_not_take_over_from_a_newer_one() {
    let mut sim = Sim::new("an_older_newcomer_does_not_take_over_from_a_newer_one")
        .link(Link::new(ms(50)))
        .go_client(Go::new(Fin::Old))
        .tapped()
        // The client sees the end of the first carrier, the server does not.
        .carriers(|number| match number {
            1 => {
                vec![Fault::new(When::After(secs(2)), How::StallUp), Fault::new(When::After(ms(2_010)), How::HalfDown)]
            }
            _ => Vec::new(),
        })
        .traffic(Traffic::upload(200_000).paced(1_000, ms(20)));
    sim.run_for(secs(1));
    let early = sim.intrude(&[]);
    sim.run_for(secs(2));
    assert_eq!(sim.server().current().map(|id| id.0), Some(3));
    let valid = sim.seen().iter().find(|seen| seen.way == Way::Up && seen.pushes().count() > 0).expect("data").clone();
    sim.inject(early, Way::Up, &valid.packet);
    sim.run_for(secs(1));
    assert_eq!(sim.server().current().map(|id| id.0), Some(3));
    sim.run_until_done(secs(60));
}
