//! The first carrier is cut at every single byte.

use std::time::Duration;

use turbotunnel_sim::{Fault, Fin, Go, How, Link, Reading, Sim, Traffic, When, ms, secs};

const POSITIONS: u64 = 200;

/// A conversation of both ways on two streams, over a path as short as loopback.
fn conversation(name: &str) -> Sim {
    Sim::new(name)
        .link(Link::new(Duration::from_micros(50)))
        .traffic(Traffic::echo(600).finishes_last())
        .traffic(Traffic::turns(3, 40, 200).client_reads(Reading::Prompt).finishes_last())
}

fn cut_everywhere(hows: &[How], go: Option<Go>, mut check: impl FnMut(How, When, Duration), limit: Duration) {
    for how in hows {
        for position in 0..=POSITIONS {
            for when in [When::Up(position), When::Down(position)] {
                let mut sim = conversation("the_first_carrier_is_cut_at_every_byte");
                if let Some(go) = go {
                    sim = sim.go_server(go);
                }
                sim = sim.first_carrier(Fault::new(when, *how));
                let took = sim.run_until_done(limit);
                check(*how, when, took);
            }
        }
    }
}

/// All intact, and quickly: at most 50 ms in the median, 250 ms at p99, counted against the uncut conversation.
#[test]
fn the_first_carrier_is_cut_at_every_byte() {
    let uncut = conversation("the_first_carrier_is_cut_at_every_byte").run_until_done(secs(1));
    let mut costs = Vec::new();
    cut_everywhere(&[How::Fin, How::Rst], None, |_, _, took| costs.push(took.saturating_sub(uncut)), secs(5));
    costs.sort();
    let (median, p99) = (costs[costs.len() / 2], costs[costs.len() * 99 / 100]);
    assert!(median <= ms(50), "median {median:?}");
    assert!(p99 <= ms(250), "p99 {p99:?}");
}

/// One direction ends, the other does not.
#[test]
fn the_first_carrier_is_half_closed_at_every_byte() {
    cut_everywhere(&[How::HalfUp, How::HalfDown], None, |_, _, _| {}, secs(5));
}

/// Nothing is heard of the end: it costs the four seconds in which silence is noticed, twice at the very beginning, when the server may
/// as well be a Go program.
#[test]
fn the_first_carrier_stalls_at_every_byte() {
    let stalls = [How::Stall, How::StallUp, How::StallDown, How::Freeze(secs(3))];
    let slow = |how, when, took| assert!(took <= secs(10), "{how:?} {when:?}: {took:?}");
    cut_everywhere(&stalls, None, slow, secs(20));
}

/// The same with a Go server, which does not know HELLO. A stalled carrier goes on getting half of its packets, so what it says may have to be
/// said several times. Eight seconds until silence is noticed, the rest until the stream has been quiet for long enough.
#[test]
fn the_first_carrier_to_a_go_server_is_cut_at_every_byte() {
    for fin in [Fin::Old, Fin::Mid, Fin::New] {
        let hows = [How::Fin, How::Rst, How::HalfUp, How::HalfDown, How::Stall];
        cut_everywhere(&hows, Some(Go::new(fin)), |_, _, _| {}, secs(20));
    }
}

/// The Go client in front of a server of ours.
#[test]
fn the_first_carrier_of_a_go_client_is_cut_at_every_byte() {
    for how in [How::Fin, How::Rst, How::HalfUp, How::HalfDown] {
        for position in 0..=POSITIONS {
            for when in [When::Up(position), When::Down(position)] {
                let mut sim = conversation("the_first_carrier_of_a_go_client_is_cut_at_every_byte")
                    .go_client(Go::new(Fin::Old))
                    .first_carrier(Fault::new(when, how));
                sim.run_until_done(secs(20));
            }
        }
    }
}
