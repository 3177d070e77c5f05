//! Control packets: what they need to count, and who may say them.

use turbotunnel::control::{ByeReason, Control, Hello, MIN_KCP_PACKET, Token};
use turbotunnel::{PeerKind, SessionError};
use turbotunnel_sim::{Fin, Go, Link, Sim, Traffic, Way, ms, secs};

fn encoded(control: Control) -> Vec<u8> {
    let mut packet = Vec::new();
    control.encode(&mut packet);
    packet
}

/// A session of ours that has been going on for a while, its conv, and its token.
fn established(name: &str) -> (Sim, u32, Token) {
    let mut sim = Sim::new(name).link(Link::new(ms(10))).tapped().traffic(Traffic::echo(50_000).paced(500, ms(50)));
    sim.run_for(secs(1));
    let hello = sim.seen().iter().find_map(|seen| match (seen.way, seen.control()) {
        (Way::Down, Some(Control::Hello(hello))) => Some(hello),
        _ => None,
    });
    let hello = hello.expect("the server answers a HELLO");
    (sim, hello.conv, hello.token)
}

fn hello(conv: u32, carrier: u32, token: Token) -> Vec<u8> {
    encoded(Control::Hello(Hello { version: 1, heard: true, spare: false, conv, carrier, una: kcp::Sn::new(0), token }))
}

/// Who merely learned the id and the conv, from a log say, cannot end the session.
#[test]
fn a_bye_without_the_token_does_nothing() {
    let (mut sim, conv, token) = established("a_bye_without_the_token_does_nothing");
    for wrong in [[0; 8], [1; 8], token.map(|byte| !byte)] {
        let bye = encoded(Control::Bye { conv, token: wrong, reason: ByeReason::Shutdown, una: kcp::Sn::new(0) });
        sim.intrude(std::slice::from_ref(&bye));
        sim.inject(1, Way::Up, &bye);
        sim.inject(1, Way::Down, &bye);
    }
    sim.run_until_done(secs(30));
    assert_eq!(sim.client_stats().carriers, 1);
}

/// Nor can he take it over.
#[test]
fn a_hello_without_the_token_does_nothing() {
    let (mut sim, conv, token) = established("a_hello_without_the_token_does_nothing");
    let mut intruders = Vec::new();
    for wrong in [[0; 8], [1; 8], token.map(|byte| !byte)] {
        intruders.push(sim.intrude(&[hello(conv, 1_000, wrong)]));
    }
    sim.run_until_done(secs(30));
    assert_eq!(sim.server_stats().carriers, 1);
    for intruder in intruders {
        assert_eq!(sim.intruder_got(intruder), Vec::<Vec<u8>>::new(), "he was sent something");
    }
}

/// A copy of the client's own packets does not help him either: towards a client of ours a newcomer has to say HELLO.
#[test]
fn a_replayed_packet_does_not_take_the_session_over() {
    let (mut sim, _, _) = established("a_replayed_packet_does_not_take_the_session_over");
    let packets = sim.seen().iter().filter(|seen| seen.way == Way::Up && seen.packet.len() >= MIN_KCP_PACKET);
    let packets: Vec<_> = packets.map(|seen| seen.packet.clone()).collect();
    let intruder = sim.intrude(&packets);
    sim.run_until_done(secs(30));
    assert_eq!(sim.server_stats().carriers, 1);
    assert_eq!(sim.intruder_got(intruder), Vec::<Vec<u8>>::new());
}

/// Whoever has the token is the client.
#[test]
fn the_token_ends_the_session() {
    let (mut sim, conv, token) = established("the_token_ends_the_session");
    sim.inject(1, Way::Up, &encoded(Control::Bye { conv, token, reason: ByeReason::Shutdown, una: kcp::Sn::new(0) }));
    sim.run_for(ms(50));
    assert_eq!(sim.server().ended(), Some(&SessionError::ClosedByPeer(ByeReason::Shutdown)));
}

/// The token is told until the client has repeated it, and never again.
#[test]
fn the_token_is_told_once() {
    let mut sim = Sim::new("the_token_is_told_once")
        .link(Link::new(ms(10)))
        .tapped()
        .every(secs(1), turbotunnel_sim::How::Rst)
        .traffic(Traffic::echo(100_000).paced(500, ms(50)));
    sim.run_until_done(secs(60));
    let answers = sim.seen().iter().filter(|seen| seen.way == Way::Down).filter_map(|seen| match seen.control() {
        Some(Control::Hello(hello)) => Some(hello.token != [0; 8]),
        _ => None,
    });
    let told: Vec<_> = answers.collect();
    assert!(told.len() > 5);
    assert!(told[0] && told[1..].iter().all(|told| !told), "{told:?}");
}

/// PINGs, PONGs and settings of another conv, and types of a later version, mean nothing.
#[test]
fn control_packets_of_others_are_ignored() {
    let (mut sim, conv, _) = established("control_packets_of_others_are_ignored");
    let other = conv ^ 1;
    let una = kcp::Sn::new(0);
    for way in [Way::Up, Way::Down] {
        sim.inject(1, way, &encoded(Control::Ping { conv: other, nonce: 1, una }));
        sim.inject(1, way, &encoded(Control::Pong { conv: other, nonce: 1, una }));
        sim.inject(1, way, &encoded(Control::Unknown { conv: other }));
        sim.inject(1, way, &[200, 1, 2, 3]);
    }
    let before = sim.seen().len();
    sim.run_for(ms(11));
    let answers = sim.seen()[before..].iter().filter(|seen| seen.control().is_some()).count();
    assert_eq!(answers, 0);
    sim.run_until_done(secs(30));
    assert_eq!(sim.client_stats().carriers, 1);
}

/// What a Go program cannot understand it drops: the session works as if nothing had been said.
#[test]
fn control_packets_are_ignored_by_go() {
    let mut sim = Sim::new("control_packets_are_ignored_by_go")
        .go_server(Go::new(Fin::Old))
        .tapped()
        .traffic(Traffic::echo(10_000).finishes_last());
    sim.run_until_done(secs(10));
    assert!(matches!(sim.seen()[0].control(), Some(Control::Hello(_))), "HELLO is the first packet all the same");
    assert_eq!(sim.client_stats().peer, PeerKind::Go);
    assert_eq!(sim.client_stats().segments_resent, 0);
}

/// Once known as ours, always: HELLO counts more than a KCP packet that happens to come first.
#[test]
fn a_capability_stays_with_the_session() {
    let (mut sim, _, _) = established("a_capability_stays_with_the_session");
    assert_eq!((sim.client_stats().peer, sim.server_stats().peer), (PeerKind::Ours, PeerKind::Ours));
    sim.strike(turbotunnel_sim::How::Rst);
    sim.run_until_done(secs(30));
    assert_eq!((sim.client_stats().peer, sim.server_stats().peer), (PeerKind::Ours, PeerKind::Ours));
}
