//! A server that has forgotten the session, and how that is told from a path that is only bad.

use kcp::wire::Command;
use kcp::{Segment, Sn, Ts};
use turbotunnel::SessionError;
use turbotunnel_sim::{Dial, Fin, Go, How, Link, Sim, Traffic, Way, ms, secs};

/// A restarted server of ours says UNKNOWN. Believed after three dials over two seconds.
#[test]
fn a_restarted_server_is_recognised_within_ten_seconds() {
    let mut sim = Sim::new("a_restarted_server_is_recognised_within_ten_seconds")
        .link(Link::new(ms(20)))
        .traffic(Traffic::echo(1_000_000).paced(1_000, ms(20)));
    sim.run_for(secs(5));
    let before = sim.dialled();
    sim.restart_server();
    assert_eq!(sim.run_until_ended(secs(15)), SessionError::Unknown);
    assert!(sim.elapsed() >= secs(7), "not before two seconds have passed");
    assert!(sim.dialled() >= before + 3);
}

/// A restarted Go server makes a ghost: a new session of the same name, which acknowledges what it has never had, and whose own
/// segments carry numbers that we wait for. Its una gives it away.
#[test]
fn the_ghost_of_a_go_server_is_recognised_and_nothing_of_it_is_delivered() {
    for delay in [ms(1), ms(100)] {
        for traffic in [Traffic::upload(1_000_000), Traffic::download(1_000_000), Traffic::echo(1_000_000)] {
            let mut sim = Sim::new("the_ghost_of_a_go_server_is_recognised_and_nothing_of_it_is_delivered")
                .link(Link::new(delay))
                .go_server(Go::new(Fin::New))
                .traffic(traffic.paced(1_000, ms(20)).finishes_last());
            sim.run_for(secs(5));
            sim.restart_server();
            assert_eq!(sim.run_until_ended(secs(15)), SessionError::Unknown);
        }
    }
}

/// A load balancer has sent one carrier to the wrong machine.
#[test]
fn one_dial_gone_astray_ends_nothing() {
    let mut sim = Sim::new("one_dial_gone_astray_ends_nothing")
        .link(Link::new(ms(20)))
        .every(secs(2), How::Rst)
        .dials(|number, _| if number % 3 == 2 { Dial::Astray } else { Dial::Connect })
        .traffic(Traffic::echo(1_000_000).paced(1_000, ms(20)));
    sim.run_until_done(secs(60));
    assert!(sim.counts().of("astray") > 3);
}

/// The server is restarted before anything of the session has come home: as far as the client can know, it never began.
#[test]
fn a_session_that_was_never_acknowledged_begins_anew() {
    let mut sim = Sim::new("a_session_that_was_never_acknowledged_begins_anew")
        .link(Link::new(ms(50)))
        .traffic(Traffic::upload(100_000));
    sim.run_for(ms(155));
    assert!(sim.server_session().is_some() && !sim.client_app().delivered(0));
    sim.strike(How::Rst);
    sim.restart_server();
    assert_eq!(sim.client_stats().packets_received, 0);
    sim.run_until_done(secs(20));
}

/// Only its first segment opens a session. Whatever else comes from an unknown one is somebody who has missed its end.
#[test]
fn only_the_first_segment_opens_a_session() {
    let mut sim = Sim::new("only_the_first_segment_opens_a_session").dials(|number, _| match number {
        1 => Dial::BlackHole,
        _ => Dial::Connect,
    });
    sim.run_for(secs(1));
    let segment = |cmd, sn, payload: &'static [u8]| Segment {
        conv: 7,
        cmd,
        frg: 0,
        wnd: 1024,
        ts: Ts::default(),
        sn: Sn::new(sn),
        una: Sn::new(0),
        payload,
    };
    let nop: &[u8] = &[2, 3, 0, 0, 0, 0, 0, 0];
    let strays = [
        segment(Command::Push, 1, nop),
        segment(Command::Push, 0, b""),
        segment(Command::Ack, 0, b""),
        segment(Command::Wask, 0, b""),
        segment(Command::Wins, 0, b""),
    ];
    let encoded = |segment: &Segment<'_>| {
        let mut packet = Vec::new();
        segment.encode(&mut packet);
        packet
    };
    sim.intrude(&strays.iter().map(encoded).collect::<Vec<_>>());
    sim.run_for(secs(1));
    assert!(sim.server_session().is_none());
    sim.intrude(&[encoded(&segment(Command::Push, 0, nop))]);
    sim.run_for(secs(1));
    assert!(sim.server_session().is_some());
}

/// A client that has nothing to say is known all the same: the server can open streams to it.
#[test]
fn a_session_exists_before_its_first_stream() {
    let mut sim = Sim::new("a_session_exists_before_its_first_stream")
        .link(Link::new(ms(20)))
        .traffic(Traffic::download(100_000).opened_by_server().starts_at(secs(1)));
    sim.run_for(ms(100));
    assert!(sim.server_session().is_some());
    sim.run_until_done(secs(10));
}

/// A Go client whose session is gone would dial thousands of times a second if it were closed. It is held.
#[test]
fn a_go_client_of_a_forgotten_session_dials_at_most_every_ten_seconds() {
    let mut sim = Sim::new("a_go_client_of_a_forgotten_session_dials_at_most_every_ten_seconds")
        .link(Link::new(ms(1)))
        .go_client(Go::new(Fin::Old))
        .tapped()
        .traffic(Traffic::echo(1_000_000).paced(1_000, ms(20)));
    sim.run_for(secs(5));
    sim.restart_server();
    let before = sim.dialled();
    sim.run_for(secs(50));
    assert!(sim.dialled() - before <= 6, "{} dials", sim.dialled() - before);
    let answers = sim.seen().iter().filter(|seen| seen.way == Way::Down && seen.at > secs(6)).count();
    assert_eq!(answers, 0, "and is told nothing that it could take for the session");
}
