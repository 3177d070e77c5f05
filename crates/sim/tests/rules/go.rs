//! The Go programs of the worked example, in either place.

use kcp::wire::Command;
use turbotunnel_sim::{Fault, Fin, Go, How, Link, MIB, Sim, Traffic, Way, When, ms, secs};

const FINS: [Fin; 3] = [Fin::Old, Fin::Mid, Fin::New];

/// A FIN may mean "throw away what you have not sent yet". It waits until the peer has nothing more to say.
#[test]
fn a_fin_is_held_back_towards_a_go_peer() {
    for fin in FINS {
        for bytes in [1, 2, 1_000, 65_536, MIB] {
            let mut sim = Sim::new("a_fin_is_held_back_towards_a_go_peer")
                .link(Link::new(ms(20)).rate(MIB))
                .go_server(Go::new(fin))
                .traffic(Traffic::echo(bytes));
            let took = sim.run_until_done(secs(30));
            assert!(took >= secs(1), "{fin:?}, {bytes} bytes: the FIN was not held");
        }
    }
}

/// The same at the server: it has answered, and waits with its FIN until the Go client has nothing more to say.
#[test]
fn a_fin_is_held_back_towards_a_go_client() {
    for fin in FINS {
        let mut sim = Sim::new("a_fin_is_held_back_towards_a_go_client")
            .link(Link::new(ms(20)).rate(MIB))
            .go_client(Go::new(fin))
            .traffic(Traffic::both(300_000, 1_000));
        sim.run_until_done(secs(30));
    }
}

/// Silence of a stalled path says nothing: what the program still writes has not come, and a FIN would make it throw that away.
#[test]
fn a_fin_is_not_sent_because_a_path_has_stalled() {
    for fin in FINS {
        for how in [How::Stall, How::StallDown, How::Freeze(secs(3)), How::Rst, How::HalfDown] {
            for at in (20..1_500).step_by(20) {
                let mut sim = Sim::new("a_fin_is_not_sent_because_a_path_has_stalled")
                    .link(Link::new(ms(20)).rate(MIB))
                    .go_server(Go::new(fin))
                    .first_carrier(Fault::new(When::After(ms(at)), how))
                    .traffic(Traffic::echo(300_000));
                sim.run_until_done(secs(60));
            }
        }
    }
}

/// A Go server behind a path that is cut every second, or every 60 kB.
#[test]
fn an_echo_through_a_go_server_survives_cuts() {
    for fin in FINS {
        for how in [How::Fin, How::Rst] {
            let mut sim = Sim::new("an_echo_through_a_go_server_survives_cuts")
                .link(Link::new(ms(20)).rate(MIB))
                .go_server(Go::new(fin))
                .every(secs(1), how)
                .traffic(Traffic::echo(MIB).paced(4_000, ms(10)).finishes_last());
            sim.run_until_done(secs(60));
            assert!(sim.client_stats().cuts >= 2);
        }
    }
}

/// A Go client whose carriers are cut.
#[test]
fn an_echo_of_a_go_client_survives_cuts() {
    for fin in FINS {
        for how in [How::Fin, How::Rst] {
            let mut sim = Sim::new("an_echo_of_a_go_client_survives_cuts")
                .link(Link::new(ms(20)).rate(MIB))
                .go_client(Go::new(fin))
                .every(secs(1), how)
                .traffic(Traffic::echo(MIB).paced(4_000, ms(10)));
            sim.run_until_done(secs(60));
            assert!(sim.server_stats().cuts >= 2);
        }
    }
}

/// It knows no HELLO, so it is asked for its window on each new carrier: any answer tells what it has, and whether it is still the peer.
#[test]
fn a_go_server_is_asked_on_every_new_carrier() {
    let mut sim = Sim::new("a_go_server_is_asked_on_every_new_carrier")
        .link(Link::new(ms(20)))
        .go_server(Go::new(Fin::Old))
        .tapped()
        .every(secs(1), How::Rst)
        .traffic(Traffic::echo(100_000).paced(500, ms(20)).finishes_last());
    sim.run_until_done(secs(60));
    let carriers = sim.dialled() as u32;
    assert!(carriers >= 4);
    for carrier in 2..=carriers {
        let up = sim.seen().iter().filter(|seen| seen.carrier == carrier && seen.way == Way::Up);
        let first = up.flat_map(|seen| seen.segments()).next().expect("something was said");
        assert_eq!(first.cmd, Command::Wask, "on carrier {carrier}");
    }
}
