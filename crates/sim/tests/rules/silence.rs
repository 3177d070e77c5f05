//! A blackholed connection reports no error. It is noticed by asking when something is owed.

use turbotunnel::CarrierEnd;
use turbotunnel_sim::{Dial, Fault, Fin, Go, How, Link, Reading, Side, Sim, Traffic, Way, When, ms, secs};

const STALLS: [How; 3] = [How::Stall, How::StallUp, How::StallDown];

/// Data that never pauses by itself for longer than 20 ms.
fn paced(traffic: Traffic) -> Traffic {
    traffic.paced(1_000, ms(20))
}

/// Whatever direction stalls, and whatever is going on: between peers of ours it costs at most four seconds.
#[test]
fn silence_is_noticed_within_four_seconds() {
    let traffics = [
        ("upload", Traffic::upload(1_000_000)),
        ("download", Traffic::download(1_000_000)),
        ("both", Traffic::both(1_000_000, 1_000_000)),
        ("echo", Traffic::echo(1_000_000)),
    ];
    for how in STALLS {
        for (what, traffic) in &traffics {
            let mut sim = Sim::new("silence_is_noticed_within_four_seconds")
                .link(Link::new(ms(20)))
                .at(ms(2_013), how)
                .traffic(paced(traffic.clone()));
            sim.run_until_done(secs(40));
            for way in [Way::Up, Way::Down] {
                assert!(sim.longest_pause(way) <= secs(4), "{how:?}, {what}: {:?} {way:?}", sim.longest_pause(way));
            }
        }
    }
}

/// A dead connection's buffer is full of acknowledgements, so the end of the stream is not even sent. Who waits for it has to notice.
#[test]
fn a_carrier_that_takes_nothing_is_silent_too() {
    for (go, limit) in [(None, secs(4)), (Some(Go::new(Fin::New)), secs(8))] {
        let mut sim = Sim::new("a_carrier_that_takes_nothing_is_silent_too")
            .link(Link::new(ms(20)).capacity(2_000))
            .first_carrier(Fault::new(When::After(ms(100)), How::StallUp))
            .traffic(paced(Traffic::download(60_000)).finishes_last());
        if let Some(go) = go {
            sim = sim.go_server(go);
        }
        let took = sim.run_until_done(secs(200));
        assert!(took <= ms(60 * 20) + limit + secs(1), "{took:?}");
    }
}

/// A lid is closed over the very first answer. What is measured when it is opened is no round trip, and the connection has died meanwhile: there has to
/// be time left to find that out.
#[test]
fn a_sleep_taken_for_a_round_trip_does_not_outwait_the_session() {
    let mut sim = Sim::new("a_sleep_taken_for_a_round_trip_does_not_outwait_the_session")
        .link(Link::new(ms(20)))
        .traffic(Traffic::upload(10_000).starts_at(secs(80)));
    sim.run_for(ms(50));
    sim.sleep(Side::Client, secs(70));
    sim.run_for(secs(71));
    assert!(sim.client_stats().srtt.is_some_and(|srtt| srtt >= secs(40)), "{:?}", sim.client_stats());
    sim.strike(How::Stall);
    let took = sim.run_until_done(secs(80 + 40)) - secs(80);
    assert!(took <= secs(32), "{took:?}");
}

/// Nothing is in flight towards a server that does not read, so nothing is missed when the connection dies. Its window is asked for all the same.
#[test]
fn a_stall_while_the_window_is_closed_is_noticed() {
    for how in STALLS {
        let reading = Reading::Stops { after: 1_000, pause: secs(30) };
        let mut sim = Sim::new("a_stall_while_the_window_is_closed_is_noticed")
            .link(Link::new(ms(20)))
            .server_config(|config| (config.max_buffered, config.window) = (1_000, 32))
            .at(secs(12), how)
            .traffic(Traffic::upload(300_000).server_reads(reading));
        sim.run_for(secs(11));
        assert!(sim.client_app().written() < 300_000, "the window is not closed");
        sim.run_until_done(secs(60));
        let lost = crate::losses(&sim, Side::Client)[0].0;
        assert!(lost <= secs(12) + secs(6), "{how:?}: noticed at {lost:?}");
    }
}

/// A Go server gets twice the time, because its answers may have been dropped.
#[test]
fn silence_of_a_go_server_is_noticed_within_eight_seconds() {
    for how in STALLS {
        for traffic in [Traffic::upload(1_000_000), Traffic::download(1_000_000), Traffic::echo(1_000_000)] {
            let mut sim = Sim::new("silence_of_a_go_server_is_noticed_within_eight_seconds")
                .link(Link::new(ms(20)))
                .go_server(Go::new(Fin::New))
                .at(ms(2_013), how)
                .traffic(paced(traffic).finishes_last());
            sim.run_until_done(secs(60));
            for way in [Way::Up, Way::Down] {
                assert!(sim.longest_pause(way) <= secs(8), "{how:?}: {:?} {way:?}", sim.longest_pause(way));
            }
        }
    }
}

/// One answer of a Go server was dropped. It is asked again before its carrier is given up.
#[test]
fn a_dropped_answer_of_a_go_server_costs_no_carrier() {
    let mut sim = Sim::new("a_dropped_answer_of_a_go_server_costs_no_carrier")
        .link(Link::new(ms(20)))
        .go_server(Go::new(Fin::Old))
        .traffic(Traffic::turns(1, 100, 100).stays_open());
    sim.run_for(secs(1));
    sim.lose(Way::Down, 1);
    sim.run_for(secs(20));
    assert!(sim.client_stats().probes >= 2);
    assert_eq!(sim.client_stats().carriers, 1);
}

/// The client has long dialled another one, if it still lives. The server leaves it time, and then lets go of the connection.
#[test]
fn a_silent_carrier_is_closed_by_the_server_after_a_minute() {
    let mut sim = Sim::new("a_silent_carrier_is_closed_by_the_server_after_a_minute")
        .link(Link::new(ms(20)))
        .at(secs(2), How::Stall)
        .dials(|number, _| if number == 1 { Dial::Connect } else { Dial::BlackHole })
        .traffic(Traffic::download(1_000_000).paced(1_000, ms(10)));
    sim.run_for(secs(100));
    let [(at, why)] = crate::losses(&sim, Side::Server)[..] else { panic!("one carrier was lost") };
    assert_eq!(why, CarrierEnd::Silent);
    assert!((secs(62)..=secs(67)).contains(&at), "{at:?}");
    assert!(sim.server().ended().is_none());
}

/// A silent carrier was replaced and never comes to its end. The client reads it for ten seconds more, no longer.
#[test]
fn a_replaced_carrier_that_does_not_end_is_dropped() {
    let mut sim = Sim::new("a_replaced_carrier_that_does_not_end_is_dropped")
        .link(Link::new(ms(20)))
        .at(secs(2), How::StallDown)
        .traffic(Traffic::download(1_000_000).paced(1_000, ms(20)));
    sim.run_until(secs(10), |sim| sim.client_stats().carriers == 2);
    sim.run_for(ms(9_900));
    assert_eq!(sim.connections(), 2);
    sim.run_for(ms(200));
    assert_eq!(sim.connections(), 1);
    sim.run_until_done(secs(40));
}
