//! Idle costs nothing but keepalives, and keeps the session.

use turbotunnel::SessionError;
use turbotunnel_sim::{Dial, Fin, Go, How, Link, Sim, Traffic, ms, secs};

const HOUR: u64 = 3_600;

/// One open stream, nothing to say for an hour: the client wakes for its keepalive every 25 s, the server to acknowledge it, and for nothing else.
#[test]
fn an_idle_session_wakes_for_keepalives_only() {
    let mut sim = Sim::new("an_idle_session_wakes_for_keepalives_only")
        .link(Link::new(ms(50)))
        .traffic(Traffic::turns(1, 100, 100).stays_open());
    sim.run_for(secs(60));
    let before = (sim.client_stats(), sim.server_stats());
    sim.run_for(secs(HOUR));
    for (name, before, after) in [("client", before.0, sim.client_stats()), ("server", before.1, sim.server_stats())] {
        let keepalives = HOUR / 25;
        let wakes = after.timeouts - before.timeouts;
        assert!(wakes <= keepalives + 2, "the {name} woke {wakes} times in an hour");
        let packets = after.packets_sent - before.packets_sent;
        assert!(
            (keepalives - 2..=keepalives + 2).contains(&packets),
            "the {name} sent {packets} packets in an hour: a keepalive each time, or its ACK"
        );
        assert_eq!(after.probes, before.probes);
    }
    assert!(sim.client().ended().is_none() && sim.server().ended().is_none());
}

/// When a talk stops the client asks whether more will come, less and less often; the server, who cannot dial, does not. What is asked and answered is
/// as good as a keepalive, so the first of those goes 25 s after the last question.
#[test]
fn a_talk_that_stops_is_asked_about_by_the_client_only() {
    let mut sim = Sim::new("a_talk_that_stops_is_asked_about_by_the_client_only")
        .link(Link::new(ms(50)))
        .traffic(Traffic::turns(1, 100, 100).stays_open());
    sim.run_for(secs(1));
    let before = (sim.client_stats(), sim.server_stats());
    sim.run_for(secs(54));
    let after = (sim.client_stats(), sim.server_stats());
    assert_eq!(after.0.probes - before.0.probes, 5, "after 1, 3, 7, 15 and 31 s");
    assert_eq!(after.1.probes - before.1.probes, 0);
    assert_eq!(after.0.packets_sent - before.0.packets_sent, 5, "nothing but questions");
    sim.run_for(secs(4));
    assert_eq!(sim.client_stats().packets_sent - before.0.packets_sent, 6, "56 s after the talk");
}

/// A client without keepalives, behind something that forgets quiet connections: the server's go, half as often as the client's would.
#[test]
fn a_server_whose_client_says_nothing_keeps_the_session() {
    let mut sim = Sim::new("a_server_whose_client_says_nothing_keeps_the_session")
        .link(Link::new(ms(50)))
        .client_config(|config| config.keepalive = None)
        .traffic(Traffic::turns(1, 100, 100).stays_open());
    sim.run_for(secs(60));
    let before = (sim.client_stats(), sim.server_stats());
    sim.run_for(secs(HOUR));
    for (before, after) in [(before.0, sim.client_stats()), (before.1, sim.server_stats())] {
        let packets = after.packets_sent - before.packets_sent;
        assert!((HOUR / 50 - 2..=HOUR / 50 + 2).contains(&packets), "{packets} packets");
        assert_eq!(after.probes, before.probes, "nobody has to ask");
    }
}

/// With keepalives off a sign of life is asked for after half the time to live, so the session lives as long as the path.
#[test]
fn without_keepalives_an_idle_session_lives_all_the_same() {
    let mut sim = Sim::new("without_keepalives_an_idle_session_lives_all_the_same")
        .link(Link::new(ms(50)))
        .config(|config| config.keepalive = None)
        .traffic(Traffic::turns(1, 100, 100).stays_open());
    sim.run_for(secs(60));
    let before = sim.client_stats();
    sim.run_for(secs(HOUR));
    let wakes = sim.client_stats().timeouts - before.timeouts;
    assert!(wakes <= HOUR / 60 + 2, "{wakes}");
    assert!(sim.client().ended().is_none() && sim.server().ended().is_none());
}

/// Go programs end a session after 60 to 120 s without a frame. They get one every 10 s.
#[test]
fn keepalives_keep_a_go_server() {
    let mut sim = Sim::new("keepalives_keep_a_go_server")
        .link(Link::new(ms(50)))
        .go_server(Go::new(Fin::Old))
        .traffic(Traffic::turns(1, 100, 100).stays_open())
        .traffic(Traffic::echo(10_000).starts_at(secs(HOUR)).finishes_last());
    sim.run_for(secs(60));
    let before = sim.client_stats();
    sim.run_for(secs(HOUR - 100));
    let wakes = sim.client_stats().timeouts - before.timeouts;
    assert!(wakes <= HOUR / 10 + 2, "{wakes}");
    sim.run_until_done(secs(HOUR + 60));
}

/// Carriers that live for two seconds each are shorter than any keepalive interval. The Go server hears from the session all the same.
#[test]
fn a_session_of_short_carriers_says_that_it_lives() {
    let mut sim = Sim::new("a_session_of_short_carriers_says_that_it_lives")
        .link(Link::new(ms(50)))
        .go_server(Go::new(Fin::Old))
        .every(secs(2), How::Rst)
        .traffic(Traffic::turns(1, 100, 100).stays_open())
        .traffic(Traffic::echo(10_000).starts_at(secs(600)).finishes_last());
    sim.run_until_done(secs(700));
}

/// An idle path that dies is noticed within the time to live, and replaced before the session is over.
#[test]
fn an_idle_session_survives_a_dead_path() {
    let mut sim = Sim::new("an_idle_session_survives_a_dead_path")
        .link(Link::new(ms(50)))
        .at(secs(100), How::Stall)
        .traffic(Traffic::turns(1, 100, 100).stays_open())
        .traffic(Traffic::echo(10_000).starts_at(secs(HOUR)));
    sim.run_until_done(secs(HOUR + 60));
    assert_eq!(sim.client_stats().carriers, 2);
}

/// Without a carrier nobody wakes but to dial, and the server sleeps until the session's time is over.
#[test]
fn a_detached_server_sleeps() {
    let mut sim = Sim::new("a_detached_server_sleeps")
        .link(Link::new(ms(50)))
        .at(secs(10), How::Rst)
        .dials(|number, _| if number == 1 { Dial::Connect } else { Dial::BlackHole })
        .traffic(Traffic::download(1_000_000).paced(1_000, ms(10)));
    sim.run_for(secs(11));
    let before = sim.server_stats().timeouts;
    sim.run_for(secs(118));
    assert_eq!(sim.server_stats().timeouts, before);
    sim.run_for(secs(3));
    assert_eq!(sim.server().ended(), Some(&SessionError::GaveUp(secs(120))));
}
