//! A blackholed connection reports no error. It is noticed by asking when something is owed.

use turbotunnel_sim::{Fin, Go, How, Link, Sim, Traffic, Way, ms, secs};

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
