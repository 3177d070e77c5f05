//! Sessions that come to nothing, peers that give nothing back, and who is not meant by that.
#![allow(clippy::disallowed_methods, reason = "points to count virtual time from")]

use std::time::{Duration, Instant};

use kcp::wire::Command;
use kcp::{Segment, Sn, Ts};
use smux::StreamError;
use turbotunnel::tunnel::{Action, CarrierId, Event, StreamFailure, Tunnel, opening_conv};
use turbotunnel::{CarrierEnd, Config, SessionError};
use turbotunnel_sim::{Dial, Fault, How, Link, MIB, Reading, Side, Sim, Traffic, When, ms, secs};

/// The id, HELLO, SETTINGS, and a packet with the first segment.
const FIRST_WORDS: u64 = 8 + 25 + 17 + 34;
const NOP: [u8; 8] = [2, 3, 0, 0, 0, 0, 0, 0];
const HOUR: u64 = 3_600;

fn push(sn: u32, payload: &[u8]) -> Vec<u8> {
    encoded(Command::Push, sn, payload)
}

fn encoded(cmd: Command, sn: u32, payload: &[u8]) -> Vec<u8> {
    let segment =
        Segment { conv: 7, cmd, frg: 0, wnd: 1024, ts: Ts::default(), sn: Sn::new(sn), una: Sn::new(0), payload };
    let mut packet = Vec::new();
    segment.encode(&mut packet);
    packet
}

/// A server's end of a session that was opened with `payload`.
fn opened(payload: &[u8]) -> (Instant, Tunnel, CarrierId) {
    let now = Instant::now();
    let packet = push(0, payload);
    let conv = opening_conv(&packet, 0).expect("it opens a session");
    let mut tunnel = Tunnel::server(now, Config::default(), conv, [7; 8]);
    let carrier = tunnel.attach(now);
    tunnel.handle_packet(now, carrier, &packet);
    (now, tunnel, carrier)
}

/// Lets time pass until something is due beyond `until`, or the session is over; returns when.
fn sleep(tunnel: &mut Tunnel, until: Instant) -> Instant {
    let mut now = until;
    while let Some(at) = tunnel.poll_timeout().filter(|at| *at <= until) {
        tunnel.handle_timeout(at);
        assert!(tunnel.poll_timeout().is_none_or(|next| next > at), "a timer that has fired is over");
        now = at;
    }
    if tunnel.ended().is_some() { now } else { until }
}

/// Connect, id, one packet, close: 42 bytes. Ten seconds later there is no session, and all that stays is smaller than those.
#[test]
fn a_session_that_is_begun_and_left_ends_after_ten_seconds() {
    for payload in [&NOP[..], &[2], &[2, 3, 0, 0, 0, 0, 0, 0, 2, 3], &[NOP; 20].concat()] {
        let (now, mut tunnel, carrier) = opened(payload);
        tunnel.handle_ended(now + secs(1), carrier, CarrierEnd::Closed);
        assert_eq!(sleep(&mut tunnel, now + secs(60)), now + secs(11));
        assert_eq!(tunnel.ended(), Some(&SessionError::Abandoned));
        assert_eq!(tunnel.embryo().is_some(), payload.len() % 8 == 0, "half a frame is not remembered");
    }
}

/// The carrier is not closed but falls silent. That is found out when the ten seconds since its last word are long over, and the session ends at once: when
/// something is due already as its carrier goes, no second timer may be needed for it.
#[test]
fn a_session_that_is_begun_and_falls_silent_ends_with_its_carrier() {
    let (now, mut tunnel, _) = opened(&NOP);
    let ended = sleep(&mut tunnel, now + secs(119));
    assert_eq!(tunnel.ended(), Some(&SessionError::Abandoned));
    assert_eq!(tunnel.stats().cuts, 1);
    assert!(ended > now + secs(11), "{:?}", ended - now);
}

/// A stream is something that somebody may come back for.
#[test]
fn a_session_with_a_stream_is_kept_for_its_time_to_live() {
    let (now, mut tunnel, carrier) = opened(&[2, 0, 0, 0, 3, 0, 0, 0]);
    tunnel.handle_ended(now, carrier, CarrierEnd::Closed);
    assert_eq!(sleep(&mut tunnel, now + secs(200)), now + secs(120));
    assert_eq!(tunnel.ended(), Some(&SessionError::GaveUp(secs(120))));
}

/// The first words arrive, then the network is gone for a minute and a half: the client has heard the answer, or has not. The server has ended the
/// session meanwhile; the client notices nothing.
#[test]
fn an_honest_client_goes_on_with_a_session_that_was_taken_for_abandoned() {
    for how in [How::Rst, How::StallUp, How::Stall, How::Fin, How::DeadLate(secs(3))] {
        let mut sim = Sim::new("an_honest_client_goes_on_with_a_session_that_was_taken_for_abandoned")
            .link(Link::new(ms(50)))
            .first_carrier(Fault::new(When::Up(FIRST_WORDS), how))
            .at(secs(4), How::Rst)
            .dials(|_, at| if (ms(1)..secs(90)).contains(&at) { Dial::BlackHole } else { Dial::Connect })
            .traffic(Traffic::echo(100_000).starts_at(secs(30)))
            .traffic(Traffic::download(100_000).starts_at(secs(100)).opened_by_server());
        sim.run_to(secs(85), |_| false);
        let server = sim.server_session().expect("the server has heard of it");
        assert_eq!(server.ended(), Some(&SessionError::Abandoned), "{how:?}");
        sim.run_until_done(secs(130));
        assert!(sim.told(Side::Client).iter().all(|told| !matches!(told.event, Event::Ended(_))));
    }
}

/// A client that waits for streams from the server's side, for hours. Its connection is lost, at once or later, and the network with it for eighty seconds.
#[test]
fn an_idle_client_without_a_stream_is_not_taken_for_one_that_left() {
    for cut in [secs(5), secs(HOUR)] {
        let mut sim = Sim::new("an_idle_client_without_a_stream_is_not_taken_for_one_that_left")
            .link(Link::new(ms(50)))
            .at(cut, How::Rst)
            .dials(move |_, at| if (cut..cut + secs(80)).contains(&at) { Dial::Refused } else { Dial::Connect })
            .traffic(Traffic::echo(10_000).starts_at(secs(2 * HOUR)).opened_by_server());
        sim.run_for(cut + secs(75));
        assert_eq!(sim.server().ended(), None);
        sim.run_until_done(secs(2 * HOUR + 10));
        assert_eq!(sim.client_stats().carriers, 2);
    }
}

/// It keeps its connection, sends keepalives, and answers every question, but acknowledges nothing: what it was given would lie here for ever.
#[test]
fn a_peer_that_acknowledges_nothing_ends_after_five_minutes() {
    let (start, mut tunnel, carrier) = opened(&[2, 0, 0, 0, 3, 0, 0, 0]);
    let stream = tunnel.accept().expect("a stream");
    let mut now = start + secs(10);
    tunnel.write(now, stream, &[7; 100_000]).expect("a stream that is open");
    let mut packet = Vec::new();
    for n in 1.. {
        while tunnel.poll_transmit(now, carrier, &mut packet) {
            packet.clear();
        }
        now = sleep(&mut tunnel, now + secs(1));
        if tunnel.ended().is_some() {
            break;
        }
        tunnel.handle_packet(now, carrier, &push(n, &NOP));
        tunnel.handle_packet(now, carrier, &encoded(Command::Wins, 0, b""));
    }
    assert_eq!(tunnel.ended(), Some(&SessionError::Stalled(secs(300))));
    assert!((secs(300)..secs(315)).contains(&(now - start)), "{:?}", now - start);
}

/// The machine sleeps for hours, and the peer's keepalives wait in the socket, before the acknowledgement.
#[test]
fn a_machine_that_slept_does_not_take_its_peer_for_a_stalled_one() {
    let now = Instant::now();
    let mut config = Config::default();
    config.time_to_live = secs(24 * HOUR);
    let mut tunnel = Tunnel::server(now, config, 7, [7; 8]);
    let carrier = tunnel.attach(now);
    tunnel.handle_packet(now, carrier, &push(0, &[2, 0, 0, 0, 3, 0, 0, 0]));
    let stream = tunnel.accept().expect("a stream");
    tunnel.write(now, stream, &[7; 100]).expect("a stream that is open");
    while tunnel.poll_transmit(now, carrier, &mut Vec::new()) {}
    let later = now + secs(8 * HOUR);
    for n in 1..1_000 {
        tunnel.handle_packet(later, carrier, &push(n, &NOP));
    }
    tunnel.handle_timeout(later);
    assert_eq!(tunnel.ended(), None);
}

/// The application at the other end has as many as it bears, or accepts nothing at all. A stream that is not taken fails, and does not look like one that
/// ended without a word. It costs its session nothing.
#[test]
fn a_stream_that_is_not_taken_fails_at_its_opener() {
    let mut sim = Sim::new("a_stream_that_is_not_taken_fails_at_its_opener")
        .link(Link::new(ms(50)))
        .server_config(|config| config.max_streams = 3)
        .traffic(Traffic::turns(1, 100, 100).stays_open())
        .traffic(Traffic::turns(1, 100, 100).stays_open())
        .traffic(Traffic::turns(1, 100, 100).stays_open());
    sim.run_for(secs(1));
    let failed = sim.with(Side::Client, |tunnel, now| {
        let id = tunnel.open(now).expect("a stream");
        tunnel.write(now, id, b"anybody there?").expect("room");
        tunnel.finish(now, id).expect("open");
        id
    });
    sim.run_for(secs(1));
    let read = sim.with(Side::Client, |tunnel, now| tunnel.read(now, failed, &mut [0]));
    assert_eq!(read, Err(StreamFailure::Stream(StreamError::Refused)));
    assert!(sim.told(Side::Client).iter().any(|told| told.event == Event::Refused(failed)));
    assert_eq!(sim.client().ended(), None);
}

/// Two ends of ours with a carrier that takes no time.
struct Pair {
    now: Instant,
    client: Tunnel,
    server: Tunnel,
}

impl Pair {
    const CARRIER: CarrierId = CarrierId(1);

    fn new() -> Self {
        let now = Instant::now();
        let mut client = Tunnel::client(now, Config::default(), 7, 1);
        assert_eq!(client.poll_action(), Some(Action::Dial(Self::CARRIER)));
        client.handle_dialed(now, Self::CARRIER);
        let mut server = Tunnel::server(now, Config::default(), 7, [7; 8]);
        assert_eq!(server.attach(now), Self::CARRIER);
        let mut pair = Self { now, client, server };
        pair.exchange();
        pair
    }

    fn exchange(&mut self) {
        let mut packet = Vec::new();
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for client_sends in [true, false] {
                let (client, server) = (&mut self.client, &mut self.server);
                let (from, to) = if client_sends { (client, server) } else { (server, client) };
                while from.poll_transmit(self.now, Self::CARRIER, &mut packet) {
                    to.handle_packet(self.now, Self::CARRIER, &packet);
                    packet.clear();
                    busy = true;
                }
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        self.exchange();
    }
}

/// A server opens streams at a client that expects none.
#[test]
fn a_client_that_expects_no_streams_takes_sixteen() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        pair.server.open(pair.now).expect("a stream");
    }
    pair.exchange();
    assert_eq!((pair.client.stats().streams, pair.client.engine_stats().1.streams_refused), (16, 84));
    assert_eq!(pair.server.engine_stats().1.streams_refused_by_peer, 84);
    // It asks for one: from now on it expects them.
    assert!(pair.client.accept().is_some());
    for _ in 0..100 {
        pair.server.open(pair.now).expect("a stream");
    }
    pair.exchange();
    assert_eq!(pair.client.stats().streams, 116);
}

/// It opens streams as fast as it can for ten seconds, each for nothing. None is refused: it keeps to the pace that the server bears.
#[test]
fn streams_are_opened_at_the_pace_that_the_peer_takes() {
    let mut pair = Pair::new();
    let mut opened = 0;
    for _ in 0..1_000 {
        loop {
            match pair.client.open(pair.now) {
                Ok(id) => pair.client.close_stream(pair.now, id),
                Err(StreamFailure::NotBefore(at)) => {
                    assert!(at > pair.now);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
            opened += 1;
            pair.exchange();
            while let Some(id) = pair.server.accept() {
                pair.server.close_stream(pair.now, id);
            }
        }
        pair.wait(ms(10));
    }
    assert!((13_900..=14_100).contains(&opened), "{opened} streams in ten seconds");
    let (_, smux) = pair.server.engine_stats();
    assert_eq!((smux.streams_refused, smux.streams_accepted), (0, opened));
}

/// `less`, left alone over night: the stream's window is full, or the whole session's memory. It acknowledges what arrives and is there when asked.
#[test]
fn a_reader_that_pauses_for_hours_is_no_stalled_peer() {
    for max_buffered in [16 << 20, 300_000] {
        let mut sim = Sim::new("a_reader_that_pauses_for_hours_is_no_stalled_peer")
            .link(Link::new(ms(50)).rate(4_000_000))
            .client_config(|config| config.max_buffered = max_buffered)
            .traffic(
                Traffic::download(20 * MIB).client_reads(Reading::Stops { after: 100_000, pause: secs(8 * HOUR) }),
            );
        sim.run_until_done(secs(9 * HOUR));
        assert!(sim.elapsed() > secs(8 * HOUR));
        assert_eq!(sim.client_stats().carriers, 1);
    }
}
