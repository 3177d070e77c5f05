//! A spare carrier: what it saves, and what it must not do.

use std::time::Instant;

use turbotunnel::Config;
use turbotunnel::control::{Control, Hello, Token};
use turbotunnel::tunnel::{CarrierId, Event, Tunnel};
use turbotunnel_sim::{Fault, How, KIB, Link, MIB, Side, Sim, Suite, Traffic, When, ms, secs};

use crate::{losses, ups};

const ROUND_TRIP: u64 = 200;

/// 100 bytes up every 20 ms over a path of 200 ms, and the first carrier is cut after five seconds.
fn cut_once(name: &str, spare: bool) -> Sim {
    Sim::new(name)
        .link(Link::new(ms(ROUND_TRIP / 2)))
        .client_config(|config| config.spare = spare)
        .carriers(|number| if number == 1 { vec![Fault::new(When::After(secs(5)), How::Rst)] } else { Vec::new() })
        .traffic(Traffic::upload(50_000).paced(100, ms(20)).stays_open())
}

/// HELLO there and its answer back. Without a spare it is a dial more, and with keys a handshake, too.
#[test]
fn a_spare_saves_the_dial_and_the_handshake() {
    let round_trips = |spare, keys: bool| {
        let mut sim = cut_once("a_spare_saves_the_dial_and_the_handshake", spare);
        if keys {
            sim = sim.sealed(Suite::ChaChaPoly);
        }
        sim.run_until_done(secs(30));
        assert_eq!(sim.client_stats().spares_used, u64::from(spare));
        let gap = ups(&sim, Side::Client)[1] - losses(&sim, Side::Client)[0].0;
        gap.as_millis() as u64 / ROUND_TRIP
    };
    assert_eq!([round_trips(true, false), round_trips(false, false)], [1, 2]);
    assert_eq!([round_trips(true, true), round_trips(false, true)], [1, 3], "with keys");
}

/// Nothing but HELLO and its answer goes over a spare; it is told once that it is ready, and that it is up when it is used.
#[test]
fn a_spare_is_not_used_before_it_takes_over() {
    let mut sim = cut_once("a_spare_is_not_used_before_it_takes_over", true).tapped();
    sim.run_for(secs(4));
    let of_spare = |sim: &Sim| sim.seen().iter().filter(|seen| seen.carrier == 2 && seen.packet.len() >= 24).count();
    assert_eq!((of_spare(&sim), sim.client_stats().carriers, sim.held_connections(Side::Server)), (0, 1, 2));
    assert!(sim.client_stats().spare);
    let ready =
        |sim: &Sim| sim.told(Side::Client).iter().filter(|t| matches!(t.event, Event::SpareReady { .. })).count();
    assert_eq!((ready(&sim), ups(&sim, Side::Client).len()), (1, 1));
    sim.run_until_done(secs(30));
    assert!(of_spare(&sim) > 0);
    assert_eq!((losses(&sim, Side::Client).len(), ups(&sim, Side::Client).len()), (1, 2));
    assert_eq!(ready(&sim), 2, "and the next one");
}

/// Who kills every connection when it is 20 s old does not stop anything for longer than a round trip: from the fourth carrier on a spare is there that is
/// younger than what it replaces.
#[test]
fn where_every_carrier_dies_at_twenty_seconds_nothing_waits_for_a_dial() {
    let mut sim = Sim::new("where_every_carrier_dies_at_twenty_seconds_nothing_waits_for_a_dial")
        .link(Link::new(ms(ROUND_TRIP / 2)))
        .client_config(|config| config.spare = true)
        .carriers(|_| vec![Fault::new(When::After(secs(20)), How::Rst)])
        .traffic(Traffic::upload(1_000_000).paced(100, ms(20)).stays_open());
    sim.run_for(secs(190));
    let stats = sim.client_stats();
    assert!(stats.cuts >= 8 && stats.spares_used >= stats.cuts - 2, "{stats:?}");
    let late = losses(&sim, Side::Client);
    let ups = ups(&sim, Side::Client);
    for (lost, _) in &late[3..] {
        let up = ups.iter().find(|up| *up > lost).expect("another follows");
        assert!(*up - *lost <= ms(ROUND_TRIP + 10), "{:?} after the cut at {lost:?}", *up - *lost);
    }
    // One dial for each cut, and a few more until the age is known.
    assert!(sim.dialled() as u64 <= stats.cuts + 4, "{} dials for {} cuts", sim.dialled(), stats.cuts);
}

/// 200 Mbit/s, 100 ms, and every connection is cut when it is a second old, so that those are cut more often that were spares: all the same more is left.
#[test]
fn connections_that_live_for_a_second_leave_more_with_a_spare() {
    let took = |cut: bool, spare: bool| {
        let mut sim = Sim::new("connections_that_live_for_a_second_leave_more_with_a_spare")
            .link(Link::new(ms(50)).rate(24 * MIB).capacity(4 << 20))
            .client_config(|config| config.spare = spare)
            .traffic(Traffic::download(200 * MIB));
        if cut {
            sim = sim.carriers(|_| vec![Fault::new(When::After(secs(1)), How::Rst)]);
        }
        sim.run_until_done(secs(100)).as_secs_f64()
    };
    let uncut = took(false, false);
    let (without, with) = (uncut / took(true, false), uncut / took(true, true));
    assert!(with >= without + 0.05 && with >= 0.75, "{with:.3} with a spare, {without:.3} without");
}

/// A peer that is a Go program keeps none; it is served as ever.
#[test]
fn towards_a_go_server_there_is_no_spare() {
    let mut sim = Sim::new("towards_a_go_server_there_is_no_spare")
        .go_server(turbotunnel_sim::Go::new(turbotunnel_sim::Fin::Mid))
        .client_config(|config| config.spare = true)
        .traffic(Traffic::upload(100 * KIB).paced(1_000, ms(50)).finishes_last());
    sim.run_until_done(secs(60));
    assert_eq!((sim.dialled(), sim.client_stats().spares_used), (1, 0));
}

const CONV: u32 = 7;
const TOKEN: Token = [9; 8];

fn hello(carrier: u32, spare: bool, token: Token) -> Vec<u8> {
    let mut packet = Vec::new();
    let una = kcp::Sn::new(0);
    Control::Hello(Hello { version: 1, heard: true, spare, conv: CONV, carrier, una, token }).encode(&mut packet);
    packet
}

/// A server whose client has repeated the token, or not, on carrier 1; nothing waits to be sent.
#[allow(clippy::disallowed_methods, reason = "a point to count virtual time from")]
fn server(confirmed: bool) -> (Instant, Tunnel, CarrierId) {
    let now = Instant::now();
    let mut tunnel = Tunnel::server(now, Config::default(), CONV, TOKEN);
    let first = tunnel.attach(now);
    tunnel.handle_packet(now, first, &hello(1, false, if confirmed { TOKEN } else { [0; 8] }));
    sent(&mut tunnel, now, first);
    while tunnel.poll_event().is_some() {}
    (now, tunnel, first)
}

fn sent(tunnel: &mut Tunnel, now: Instant, on: CarrierId) -> usize {
    let mut packet = Vec::new();
    std::iter::from_fn(|| tunnel.poll_transmit(now, on, &mut packet).then_some(())).count()
}

/// Answers that a spare took with it are forgotten, however many come and go.
#[test]
fn spares_that_come_and_go_leave_nothing_at_the_server() {
    let (now, mut tunnel, first) = server(true);
    for number in 2..200 {
        let spare = tunnel.attach(now);
        for _ in 0..4 {
            tunnel.handle_packet(now, spare, &hello(number, true, TOKEN));
        }
        tunnel.handle_ended(now, spare, turbotunnel::CarrierEnd::Closed);
    }
    assert!(!tunnel.has_work(now));
    assert_eq!((tunnel.current(), sent(&mut tunnel, now, first)), (Some(first), 0));
}

/// Each greeting gets one answer, no larger than it is; whoever does not know the token gets none, and no token that way either.
#[test]
fn only_the_client_is_answered_on_a_spare() {
    for (confirmed, token, answers) in [(true, TOKEN, 1), (true, [0; 8], 0), (true, [1; 8], 0), (false, [0; 8], 0)] {
        let (now, mut tunnel, first) = server(confirmed);
        let spare = tunnel.attach(now);
        for _ in 0..3 {
            tunnel.handle_packet(now, spare, &hello(2, true, token));
            assert_eq!(sent(&mut tunnel, now, spare), answers, "{confirmed} {token:?}");
        }
        assert_eq!(tunnel.current(), Some(first));
    }
}
