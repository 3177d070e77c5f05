//! How sessions, streams and carriers end without losing anything.

use std::cell::Cell;
use std::rc::Rc;

use turbotunnel::SessionError;
use turbotunnel::control::ByeReason;
use turbotunnel_sim::{Dial, How, KIB, Link, MIB, Reading, Side, Sim, Traffic, ms, secs};

/// Everything is in the buffers of a slow path that is cut all the time. The end comes when the peer has it all.
#[test]
fn close_waits_until_the_peer_has_everything() {
    for how in [How::Fin, How::Rst, How::Stall] {
        let mut sim = Sim::new("close_waits_until_the_peer_has_everything")
            .link(Link::new(ms(50)).rate(50 * KIB))
            .every(ms(2_700), how)
            .traffic(Traffic::upload(200_000));
        sim.run_for(ms(500));
        assert_eq!(sim.client_app().written(), 200_000, "all is in the buffers");
        assert!(sim.server_app().received() < 20_000);
        sim.with(Side::Client, |client, now| client.close(now));
        assert_eq!(sim.run_until_ended(secs(60)), SessionError::Closed);
        assert_eq!(sim.server_app().received(), 200_000, "{how:?}");
        sim.run_for(secs(1));
        assert_eq!(sim.server().ended(), Some(&SessionError::ClosedByPeer(ByeReason::Done)));
    }
}

/// A peer that does not read keeps a closing session for its limit, not longer. The error says that something is missing.
#[test]
fn close_has_a_limit_when_nothing_moves() {
    let mut sim = Sim::new("close_has_a_limit_when_nothing_moves")
        .link(Link::new(ms(10)))
        .traffic(Traffic::upload(20 * MIB).server_reads(Reading::Stops { after: 0, pause: secs(1_000) }));
    sim.run_for(secs(5));
    sim.with(Side::Client, |client, now| client.close(now));
    let ended = sim.run_until_ended(secs(60));
    assert!(matches!(ended, SessionError::ClosedUnacknowledged { .. }), "{ended:?}");
    assert!((secs(15)..=secs(16)).contains(&sim.elapsed()), "{:?}", sim.elapsed());
}

/// The limit is for a peer that does not answer, not for a path that is away: while there is no carrier it does not run.
#[test]
fn the_limit_of_close_runs_only_while_a_carrier_is_up() {
    let mut sim = Sim::new("the_limit_of_close_runs_only_while_a_carrier_is_up")
        .link(Link::new(ms(50)).rate(50 * KIB))
        .at(secs(1), How::Rst)
        .dials(|_, at| if (secs(1)..secs(60)).contains(&at) { Dial::Refused } else { Dial::Connect })
        .traffic(Traffic::upload(200_000));
    sim.run_for(ms(500));
    sim.with(Side::Client, |client, now| client.close(now));
    assert_eq!(sim.run_until_ended(secs(100)), SessionError::Closed);
    assert!(sim.elapsed() > secs(60));
    assert_eq!(sim.server_app().received(), 200_000);
}

/// The server's engine has everything, its application has not read it yet, and the session is over. It still can.
#[test]
fn a_bye_discards_no_unread_data() {
    let slow = Reading::Slow { bytes: 1_000, every: ms(100) };
    let mut sim = Sim::new("a_bye_discards_no_unread_data")
        .link(Link::new(ms(10)))
        .traffic(Traffic::upload(100_000).server_reads(slow));
    sim.run_for(ms(200));
    sim.with(Side::Client, |client, now| client.close(now));
    assert_eq!(sim.run_until_ended(secs(60)), SessionError::Closed);
    sim.run_for(ms(50));
    assert!(sim.server().ended().is_some() && sim.server_app().received() < 50_000);
    sim.run_until(secs(60), |sim| sim.server_app().is_done());
}

/// Much more has arrived than an application that does not read has room for, streams mixed. Everything was acknowledged, so all of it can be read
/// when the session is over, in whatever order.
#[test]
fn the_end_makes_room_for_what_has_arrived() {
    let stopped = Reading::Stops { after: 0, pause: secs(1_000) };
    let mut sim = Sim::new("the_end_makes_room_for_what_has_arrived")
        .link(Link::new(ms(10)))
        .server_config(|config| config.max_buffered = 10_000)
        .traffic(Traffic::upload(50_000).server_reads(stopped))
        .traffic(Traffic::upload(50_000).server_reads(stopped));
    sim.run_for(ms(200));
    sim.with(Side::Client, |client, now| client.close(now));
    assert_eq!(sim.run_until_ended(secs(60)), SessionError::Closed);
    sim.run_until(secs(60), |sim| sim.server_session().is_some_and(|server| server.ended().is_some()));
    sim.run_for(ms(50));
    assert_eq!(sim.server_app().failure(), None);
    assert!(sim.server_app().is_done(), "{} bytes were read", sim.server_app().received());
}

/// `Delivered` means that the peer's engine has all of the stream: its application gets it even if nobody is ever heard again.
#[test]
fn delivered_means_acknowledged() {
    let cut_off = Rc::new(Cell::new(false));
    let told = cut_off.clone();
    let slow = Reading::Slow { bytes: 1_000, every: ms(100) };
    let mut sim = Sim::new("delivered_means_acknowledged")
        .link(Link::new(ms(50)).rate(200 * KIB))
        .every(ms(700), How::Rst)
        .traffic(Traffic::upload(100_000).server_reads(slow))
        .dials(move |_, _| if told.get() { Dial::BlackHole } else { Dial::Connect });
    sim.run_until(secs(3), |sim| sim.client_app().delivered(0));
    cut_off.set(true);
    assert!(sim.server_app().received() < 100_000);
    sim.strike(How::Rst);
    sim.run_until(secs(60), |sim| sim.server_app().is_done());
}

/// The client has read the end and closes. Its acknowledgement of that end and its goodbye leave together; whoever waits for the former must not
/// be told only the latter.
#[test]
fn a_bye_acknowledges_what_came_before_it() {
    let mut sim = Sim::new("a_bye_acknowledges_what_came_before_it")
        .link(Link::new(ms(20)))
        .client_closes()
        .traffic(Traffic::echo(1_000));
    sim.run_for(secs(1));
    assert_eq!(sim.server().ended(), Some(&SessionError::ClosedByPeer(ByeReason::Done)));
    assert!(sim.server_app().delivered(0), "its end was acknowledged by the goodbye");
}

/// A program that goes away says so: the other end need not wait for its time to live.
#[test]
fn abort_says_bye() {
    let mut sim = Sim::new("abort_says_bye").link(Link::new(ms(20))).traffic(Traffic::upload(MIB).paced(1_000, ms(10)));
    sim.run_for(secs(1));
    sim.with(Side::Client, |client, _| client.abort());
    sim.run_for(ms(30));
    assert_eq!(sim.server().ended(), Some(&SessionError::ClosedByPeer(ByeReason::Shutdown)));
}

/// A connection that is closed with something unread is reset, and takes away what is on its way to the peer. So it is
/// half-closed and read to its end.
#[test]
fn carriers_are_closed_in_order() {
    let mut sim = Sim::new("carriers_are_closed_in_order")
        .link(Link::new(ms(50)).rate(100 * KIB))
        .traffic(Traffic::both(100_000, 100_000));
    sim.run_until_done(secs(20));
    sim.with(Side::Client, |client, now| client.close(now));
    assert_eq!(sim.run_until_ended(secs(60)), SessionError::Closed);
    sim.run_for(secs(1));
    assert_eq!(sim.connections(), 0);
    assert_eq!(sim.counts().of("closed with something unread"), 0);
}

/// Between peers of ours a FIN means what it says, and goes at once: the answer comes in the time that it takes.
#[test]
fn half_close_needs_no_waiting_between_peers_of_ours() {
    let mut sim = Sim::new("half_close_needs_no_waiting_between_peers_of_ours")
        .link(Link::new(ms(50)))
        .traffic(Traffic::echo(1_000).starts_at(secs(1)));
    let took = sim.run_until_done(secs(10)) - secs(1);
    assert!(took <= ms(151), "took {took:?}");
}

/// A stream that its writer has finished can still be written to by the other end, for as long as that likes.
#[test]
fn half_close_ends_one_direction_only() {
    let mut sim = Sim::new("half_close_ends_one_direction_only")
        .link(Link::new(ms(10)))
        .every(secs(3), How::Fin)
        .traffic(Traffic::both(1, 200_000).server_reads(Reading::Prompt))
        .traffic(Traffic::download(100_000).paced(500, ms(100)));
    sim.run_until_done(secs(60));
    assert!(sim.elapsed() > secs(19));
}
