//! Two engines, virtual time, and what can happen between them.

#![allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use turbotunnel_kcp::wire::Command;
use turbotunnel_kcp::{Config, Kcp, Resume, Retransmission, Segment, Sn, Ts, segments};

const CONV: u32 = 0x1234_5678;
const MSS: usize = 1376;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Numbers that look random and are the same every time (xorshift64*, Vigna 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % limit
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i ^ (i >> 8)) & 0xff).expect("masked")).collect()
}

/// Two engines and the way between them.
struct Pair {
    now: Instant,
    started: Instant,
    engines: [Kcp; 2],
    /// To whom, when, what; in order of sending.
    air: Vec<(usize, Instant, Vec<u8>)>,
    delay: Duration,
    loss_percent: usize,
    double_percent: usize,
    jitter: usize,
    random: Random,
    /// Still to be written.
    out: [VecDeque<u8>; 2],
    received: [Vec<u8>; 2],
    /// Whether it reads what has come.
    reads: [bool; 2],
    packets: [usize; 2],
}

impl Pair {
    fn new(config: &Config, retransmission: Retransmission) -> Self {
        let now = Instant::now();
        let engine = || {
            let mut kcp = Kcp::new(now, CONV, config.clone());
            kcp.set_retransmission(retransmission);
            kcp
        };
        Self {
            now,
            started: now,
            engines: [engine(), engine()],
            air: Vec::new(),
            delay: ms(20),
            loss_percent: 0,
            double_percent: 0,
            jitter: 0,
            random: Random(0x5eed),
            out: [VecDeque::new(), VecDeque::new()],
            received: [Vec::new(), Vec::new()],
            reads: [true; 2],
            packets: [0; 2],
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.started
    }

    /// All that can happen at this instant.
    fn turn(&mut self) {
        for who in 0..2 {
            let due: Vec<_> = self.air.extract_if(.., |(to, at, _)| *to == who && *at <= self.now).collect();
            for (_, _, packet) in due {
                self.engines[who].handle_packet(self.now, &packet).expect("our own packet");
            }
            if self.engines[who].poll_timeout().is_some_and(|due| due <= self.now) {
                self.engines[who].handle_timeout(self.now);
            }
            assert!(self.engines[who].poll_timeout().is_none_or(|due| due > self.now), "a timer that fired is not due");
            while self.reads[who] {
                let Some(chunk) = self.engines[who].peek() else { break };
                assert!(!chunk.is_empty());
                self.received[who].extend_from_slice(chunk);
                self.engines[who].consume();
            }
            loop {
                let room = self.engines[who].room();
                let next: Vec<u8> = self.out[who].iter().copied().take(100_000).collect();
                let taken = self.engines[who].write(&next);
                assert_eq!(taken, room.min(next.len()), "write takes what room says");
                self.out[who].drain(..taken);
                let mut packet = Vec::new();
                let wanted = self.engines[who].wants_transmit(self.now);
                assert_eq!(self.engines[who].poll_transmit(self.now, &mut packet), wanted);
                if !wanted {
                    break;
                }
                self.send(who, &packet);
            }
        }
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        self.packets[from] += 1;
        if self.random.chance(self.loss_percent) {
            return;
        }
        let copies = 1 + usize::from(self.random.chance(self.double_percent));
        for _ in 0..copies {
            let jitter = if self.jitter == 0 { 0 } else { self.random.below(self.jitter) };
            self.air.push((1 - from, self.now + self.delay + ms(jitter as u64), packet.to_vec()));
        }
    }

    /// To the next thing that happens. `false`: nothing ever will.
    fn step(&mut self) -> bool {
        self.turn();
        let arrivals = self.air.iter().map(|&(_, at, _)| at);
        let timers = self.engines.iter().filter_map(Kcp::poll_timeout);
        let Some(next) = arrivals.chain(timers).min() else {
            return false;
        };
        self.now = self.now.max(next);
        true
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.step() {}
        self.now = self.now.min(end).max(end);
    }

    /// Until everything has arrived and is known to have.
    fn run(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 5_000_000 && self.elapsed() < Duration::from_secs(3600), "no end in sight");
        }
        assert!(self.engines.iter().all(Kcp::all_acknowledged), "quiet, but not done");
    }

    /// The carrier dies, with all on it.
    fn cut(&mut self) {
        self.air.clear();
        for kcp in &mut self.engines {
            kcp.suspend();
            assert_eq!(kcp.poll_timeout(), None);
            assert!(!kcp.wants_transmit(self.now));
        }
    }
}

fn config() -> Config {
    Config::default()
}

/// For tests in which the window decides.
fn unbounded() -> Config {
    Config { initial_flight: 1 << 30, ..config() }
}

/// A hand-made segment from the other side.
fn segment(cmd: Command, sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let segment =
        Segment { conv: CONV, cmd, frg: 0, wnd: 100, ts: Ts::new(5), sn: Sn::new(sn), una: Sn::new(una), payload };
    segment.encode(&mut packet);
    packet
}

/// All packets of this instant, taken apart: command, number, `una`, window, length.
fn said(kcp: &mut Kcp, now: Instant) -> Vec<(Command, u32, u32, u16, usize)> {
    let mut all = Vec::new();
    let mut packet = Vec::new();
    while kcp.poll_transmit(now, &mut packet) {
        for s in segments(&packet).expect("our own packet") {
            all.push((s.cmd, s.sn.value(), s.una.value(), s.wnd, s.payload.len()));
        }
        packet.clear();
    }
    all
}

#[test]
fn bytes_cross_a_path_that_loses_doubles_and_reorders() {
    for retransmission in [Retransmission::Timeout, Retransmission::TailProbe] {
        let mut pair = Pair::new(&config(), retransmission);
        (pair.loss_percent, pair.double_percent, pair.jitter) = (10, 5, 30);
        let (there, back) = (pattern(400_000), pattern(150_000));
        pair.out = [there.iter().copied().collect(), back.iter().copied().collect()];
        pair.run();
        assert!(pair.received[1] == there && pair.received[0] == back);
        let stats = pair.engines[0].stats();
        assert!(stats.resent_overtaken > 0 && pair.engines[1].stats().duplicates > 0);
        assert_eq!(stats.segments_sent, 291);
        assert_eq!(stats.dropped(), 0);
    }
}

#[test]
fn numbers_and_clocks_go_round() {
    let config = Config { initial_sn: 0xffff_ff00, initial_ts_ms: 0xffff_ff00, ..config() };
    let mut pair = Pair::new(&config, Retransmission::Timeout);
    (pair.loss_percent, pair.jitter) = (5, 5);
    let data = pattern(900 * MSS);
    pair.out[0].extend(&data);
    pair.run();
    assert!(pair.received[1] == data);
    assert_eq!((pair.engines[0].una(), pair.engines[1].rcv_nxt()), (Sn::new(900 - 256), Sn::new(900 - 256)));
    assert!(pair.elapsed() > ms(256), "the clock went round");
    let srtt = pair.engines[0].srtt().expect("measured");
    assert!((ms(40)..ms(60)).contains(&srtt), "{srtt:?}");
    assert_eq!(pair.engines[0].stats().rtt_implausible, 0);
}

#[test]
fn nothing_is_sent_twice_on_a_path_that_loses_nothing() {
    for retransmission in [Retransmission::Timeout, Retransmission::TailProbe] {
        let mut pair = Pair::new(&config(), retransmission);
        pair.delay = ms(600);
        let data = pattern(3_000_000);
        pair.out[0].extend(&data);
        pair.run();
        assert!(pair.received[1] == data);
        let resent = pair.engines[0].stats().resent();
        // Before the first sample all timers run for 1 s, and the round trip takes 1.2 s.
        let allowed = if retransmission == Retransmission::Timeout { 32 } else { 1 };
        assert!(resent <= allowed, "{resent} sent again");
    }
}

#[test]
fn a_lost_segment_goes_again_once_when_a_later_one_is_acknowledged() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(6 * MSS));
    assert_eq!(said(&mut kcp, now).len(), 6);
    let later = now + ms(30);
    kcp.handle_packet(later, &segment(Command::Ack, 3, 1, b"")).expect("well formed");
    let again: Vec<u32> = said(&mut kcp, later).iter().map(|s| s.1).collect();
    assert_eq!(again, [1, 2], "in order, and not what was sent after 3");
    kcp.handle_packet(later, &segment(Command::Ack, 4, 1, b"")).expect("well formed");
    assert_eq!(said(&mut kcp, later), [], "4 was sent before 1 and 2 went again: it proves nothing new");
    kcp.handle_packet(later, &segment(Command::Ack, 5, 6, b"")).expect("well formed");
    assert!(kcp.all_acknowledged());
    assert_eq!(kcp.stats().resent_overtaken, 2);
    assert_eq!(kcp.poll_timeout(), None);
}

#[test]
fn the_ts_of_an_ack_tells_which_transmission_arrived() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    let ack = |sn: u32, una: u32, ts: u32| {
        let mut packet = segment(Command::Ack, sn, una, b"");
        packet[8..12].copy_from_slice(&ts.to_le_bytes());
        packet
    };
    kcp.write(b"all of it");
    said(&mut kcp, now);
    kcp.write(b"is lost");
    said(&mut kcp, now + ms(500));
    kcp.handle_timeout(now + ms(1000));
    assert_eq!(said(&mut kcp, now + ms(1000)).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    kcp.handle_packet(now + ms(1040), &ack(0, 1, 1000)).expect("well formed");
    assert_eq!(kcp.srtt(), Some(ms(40)), "it was the second transmission");
    assert_eq!(said(&mut kcp, now + ms(1040)).iter().map(|s| s.1).collect::<Vec<_>>(), [1], "sent before that: lost");
    kcp.handle_packet(now + ms(1050), &ack(1, 2, 500)).expect("well formed");
    assert_eq!((kcp.srtt(), kcp.stats().rtt_samples), (Some(ms(40)), 1), "it was the first transmission after all");
}

#[test]
fn a_loss_halves_the_window_once_per_flight() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    // The peer's window is 100 here, so that the congestion window of 32 decides.
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.room(), 32 * MSS);
    assert_eq!(kcp.write(&pattern(100 * MSS)), 32 * MSS);
    said(&mut kcp, now);
    for sn in [9, 19, 31] {
        kcp.handle_packet(now, &segment(Command::Ack, sn, 0, b"")).expect("well formed");
    }
    let again = said(&mut kcp, now).len();
    assert!((16..=20).contains(&again), "{again} of 29 lost ones may go at once: half of 32, and growth");
    assert_eq!(kcp.room(), 0);
}

#[test]
fn timeouts_grow_linearly_to_a_cap_and_start_anew_with_progress() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(b"hello?");
    said(&mut kcp, now);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let due = kcp.poll_timeout().expect("something is on its way");
        waits.push((due - now).as_millis());
        kcp.handle_timeout(due - ms(1));
        assert_eq!(said(&mut kcp, due - ms(1)), [], "too early");
        now = due;
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).len(), 1);
    }
    assert_eq!(waits, [1000, 2000, 3000, 4000, 5000, 5000, 5000, 5000]);
    kcp.handle_packet(now, &segment(Command::Ack, 0, 1, b"")).expect("well formed");
    assert_eq!(kcp.srtt(), None, "what was sent more than once tells no round trip");
    kcp.write(b"hello!");
    said(&mut kcp, now);
    assert_eq!(kcp.poll_timeout(), Some(now + ms(5000)), "the estimate may still be wrong");
    kcp.handle_packet(now + ms(10), &segment(Command::Ack, 1, 2, b"")).expect("well formed");
    kcp.write(b"hello!");
    said(&mut kcp, now + ms(10));
    assert_eq!(kcp.poll_timeout(), Some(now + ms(1010)), "once acknowledged, at its first going");
}

/// Somebody who takes nothing but the first segment (a server that has no session yet) must not wait until all others had their turn.
#[test]
fn after_a_timeout_the_first_segment_goes_first_each_time() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(32 * MSS));
    let first: Vec<_> = said(&mut kcp, now).iter().map(|segment| segment.1).collect();
    assert_eq!(first, (0..32).collect::<Vec<_>>());
    for _ in 0..6 {
        let due = kcp.poll_timeout().expect("something is in flight");
        kcp.handle_timeout(due);
        let again = said(&mut kcp, due);
        let first = again.iter().find(|segment| segment.0 == Command::Push);
        assert!(first.is_none_or(|segment| segment.1 == 0), "{again:?}");
    }
}

#[test]
fn between_peers_of_ours_only_the_first_segment_goes_again_and_late() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.handle_rtt(ms(100));
    kcp.write(&pattern(5 * MSS));
    assert_eq!(said(&mut kcp, now).len(), 5);
    for wait in [1400, 2800, 4200, 5000, 5000] {
        assert_eq!(kcp.poll_timeout(), Some(now + ms(wait)));
        now += ms(wait);
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    }
    kcp.handle_packet(now, &segment(Command::Ack, 0, 1, b"")).expect("well formed");
    assert_eq!(kcp.poll_timeout(), Some(now + ms(1400)), "progress ends the backoff");
    assert_eq!(kcp.stats().resent_probe, 5);
}

/// The receiver had to drop all of it. What else is believed to be on its way must not keep back the one segment that tells.
#[test]
fn a_full_flight_does_not_hold_back_the_probe() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { initial_flight: 4 * 1400, ..config() });
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.write(b"!");
    said(&mut kcp, now);
    kcp.write(&pattern(4 * MSS));
    assert_eq!(said(&mut kcp, now).len(), 4, "full, and beyond it by the first");
    for _ in 0..3 {
        now = kcp.poll_timeout().expect("a probe");
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    }
}

#[test]
fn the_probe_goes_before_what_has_not_had_its_turn_on_a_new_carrier() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { initial_flight: 4 * 1400, ..config() });
    kcp.set_retransmission(Retransmission::Timeout);
    kcp.write(&pattern(10 * MSS));
    assert_eq!(said(&mut kcp, now).len(), 10);
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.resume(now, Resume::Now);
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for _ in 0..3 {
        now = kcp.poll_timeout().expect("a probe");
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    }
}

#[test]
fn an_engine_that_nobody_asks_for_packets_does_not_count_probes() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.write(&pattern(2 * MSS));
    said(&mut kcp, now);
    for _ in 0..20 {
        if let Some(due) = kcp.poll_timeout() {
            now = due;
        }
        now += ms(1);
        kcp.handle_timeout(now);
        assert!(kcp.poll_timeout().is_none_or(|due| due > now));
    }
    assert_eq!(said(&mut kcp, now).len(), 1);
    assert_eq!(kcp.stats().resent_probe, 1);
    assert_eq!(kcp.poll_timeout(), Some(now + ms(2000)), "and its backoff is that of one probe");
}

#[test]
fn a_reborn_carrier_carries_everything_again_at_once_however_long_it_was_away() {
    for outage in [ms(10), ms(3_000), ms(600_000)] {
        let mut pair = Pair::new(&config(), Retransmission::Timeout);
        let data = pattern(20 * MSS);
        pair.out[0].extend(&data);
        pair.turn();
        pair.cut();
        let sent = pair.packets[0];
        pair.run_for(outage);
        assert_eq!(pair.packets[0], sent, "nothing goes into the void");
        for kcp in &mut pair.engines {
            kcp.resume(pair.now, Resume::Now);
        }
        pair.turn();
        pair.now += pair.delay;
        pair.turn();
        assert!(pair.received[1] == data, "not here one way after the outage of {outage:?}");
        pair.run();
        assert_eq!(pair.engines[0].stats().resent_resume, 20);
        assert_eq!(pair.engines[0].stats().resent(), 20);
    }
}

#[test]
fn learning_comes_before_sending_again() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(10 * MSS));
    said(&mut kcp, now);
    kcp.suspend();
    now += ms(500);
    kcp.resume(now, Resume::AfterUna);
    kcp.ask_window();
    assert!(kcp.is_learning());
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);

    assert!(!kcp.handle_una(now, Sn::new(11)), "more than was sent");
    assert!(!kcp.handle_una(now, Sn::new(u32::MAX)), "less than was known");
    assert!(kcp.is_learning() && kcp.in_flight() == 10);
    assert!(kcp.handle_una(now, Sn::new(7)));
    assert!(!kcp.is_learning());
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(kcp.srtt(), None, "an outage is no round trip");

    // By packet it is the same, and without anything in flight there is nothing to learn.
    kcp.resume(now, Resume::AfterUna);
    kcp.handle_packet(now, &segment(Command::Wins, 0, 9, b"")).expect("well formed");
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [9]);
    assert!(kcp.handle_una(now, Sn::new(10)));
    kcp.resume(now, Resume::AfterUna);
    assert!(!kcp.is_learning());
}

#[test]
fn a_peer_that_was_never_heard_gets_one_segment_to_answer() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(10 * MSS));
    said(&mut kcp, now);
    kcp.suspend();
    now += ms(500);
    kcp.resume(now, Resume::AfterFirst);
    assert!(kcp.is_learning() && kcp.wants_transmit(now));
    assert_eq!(said(&mut kcp, now).iter().map(|s| (s.0, s.1)).collect::<Vec<_>>(), [(Command::Push, 0)]);
    assert!(!kcp.wants_transmit(now));
    kcp.handle_packet(now, &segment(Command::Ack, 0, 1, b"")).expect("well formed");
    assert!(!kcp.is_learning());
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
}

#[test]
fn a_question_that_got_lost_while_learning_is_asked_again() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(b"unacknowledged");
    said(&mut kcp, now);
    kcp.resume(now, Resume::AfterUna);
    for wait in [1000, 2000, 3000] {
        assert_eq!(kcp.poll_timeout(), Some(now + ms(wait)));
        now += ms(wait);
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);
    }
}

#[test]
fn carriers_that_all_die_after_a_few_packets_still_make_progress() {
    let mut pair = Pair::new(&config(), Retransmission::TailProbe);
    let data = pattern(300 * MSS);
    pair.out[0].extend(&data);
    // The window is known, from better days.
    let mut wins = segment(Command::Wins, 0, 0, b"");
    wins[6..8].copy_from_slice(&1024_u16.to_le_bytes());
    pair.engines[0].handle_packet(pair.now, &wins).expect("well formed");
    let mut carriers = 0;
    while pair.received[1].len() < data.len() {
        // 12 packets get through, their acknowledgements never come home.
        pair.turn();
        pair.air.retain(|&(to, _, _)| to == 1);
        pair.air.truncate(12);
        pair.now += pair.delay;
        for (_, _, packet) in std::mem::take(&mut pair.air) {
            pair.engines[1].handle_packet(pair.now, &packet).expect("our own packet");
        }
        pair.cut();
        let una = pair.engines[1].rcv_nxt();
        for kcp in &mut pair.engines {
            kcp.resume(pair.now, Resume::AfterUna);
        }
        pair.engines[1].handle_una(pair.now, Sn::new(0));
        assert!(pair.engines[0].handle_una(pair.now, una));
        pair.turn();
        carriers += 1;
        assert!(carriers <= 30, "no progress");
        pair.air.clear();
        for kcp in &mut pair.engines {
            kcp.resume(pair.now, Resume::Now);
        }
    }
    assert!(pair.received[1] == data);
}

#[test]
fn a_reader_that_stops_closes_the_window_and_opens_it_again() {
    let config = Config { recv_window: 64, ..config() };
    let mut pair = Pair::new(&config, Retransmission::TailProbe);
    let data = pattern(500 * MSS);
    pair.out[0].extend(&data);
    pair.reads[1] = false;
    pair.run_for(ms(20_000));
    assert_eq!(pair.engines[1].rcv_nxt(), Sn::new(64));
    assert_eq!(pair.engines[0].nxt(), Sn::new(64), "not one segment beyond the window");
    assert_eq!(pair.engines[0].room(), 0);
    let questions = pair.engines[0].stats().wask_sent;
    assert!((5..=9).contains(&questions), "{questions} questions: 0.5, 0.75 ... 10 s apart");
    pair.reads[1] = true;
    pair.now += ms(1);
    let reopened = pair.now;
    pair.turn();
    pair.run();
    assert!(pair.received[1] == data);
    assert!(pair.now - reopened < ms(1_000), "took {:?}", pair.now - reopened);
}

#[test]
fn a_lost_window_update_costs_one_question() {
    let config = Config { recv_window: 8, ..config() };
    let mut pair = Pair::new(&config, Retransmission::TailProbe);
    let data = pattern(20 * MSS);
    pair.out[0].extend(&data);
    pair.reads[1] = false;
    let mut wins = segment(Command::Wins, 0, 0, b"");
    wins[6] = 8;
    pair.engines[0].handle_packet(pair.now, &wins).expect("well formed");
    pair.run_for(ms(400));
    assert_eq!(pair.engines[0].nxt(), Sn::new(8));
    pair.reads[1] = true;
    pair.turn();
    pair.air.retain(|&(to, _, _)| to == 1);
    let lost = pair.now;
    pair.run();
    assert!(pair.received[1] == data);
    assert!(pair.now - lost < ms(1_500), "took {:?}", pair.now - lost);
}

#[test]
fn questions_cease_when_nobody_wants_to_write() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    let mut closed = Vec::new();
    let wins = Segment {
        conv: CONV,
        cmd: Command::Wins,
        frg: 0,
        wnd: 0,
        ts: Ts::new(0),
        sn: Sn::new(0),
        una: Sn::new(0),
        payload: b"",
    };
    wins.encode(&mut closed);
    kcp.handle_packet(now, &closed).expect("well formed");
    assert_eq!((kcp.room(), kcp.poll_timeout()), (0, None), "a closed window alone is no reason to ask");
    assert!(!kcp.fill(|_, _| panic!("there is no room")));
    assert_eq!(kcp.poll_timeout(), Some(now + ms(500)));
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.poll_timeout(), None);
    assert_eq!(kcp.room(), 32 * MSS);
}

#[test]
fn an_announced_edge_is_not_taken_back() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, unbounded());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.room(), 100 * MSS);
    let mut smaller = segment(Command::Wins, 0, 0, b"");
    smaller[6] = 3;
    kcp.handle_packet(now, &smaller).expect("well formed");
    assert_eq!(kcp.room(), 100 * MSS, "a late packet does not close the window");
}

/// An old `una` is no mistake, and one from nearly half the circle ago is an old one. Its window once counted as the newest, and nothing
/// was sent ever after.
#[test]
fn a_una_from_half_the_circle_ago_does_not_close_the_window() {
    let now = Instant::now();
    for una in [0x8000_0000, 0x8000_0001, 0xffff_0000] {
        let mut kcp = Kcp::new(now, CONV, unbounded());
        kcp.set_retransmission(Retransmission::TailProbe);
        kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
        kcp.handle_packet(now, &segment(Command::Wins, 0, una, b"")).expect("well formed");
        assert_eq!(kcp.room(), 100 * MSS, "{una:#x}");
        // As the first words of a peer it opens nothing, and stands in the way of nothing.
        let mut kcp = Kcp::new(now, CONV, unbounded());
        kcp.set_retransmission(Retransmission::TailProbe);
        kcp.handle_packet(now, &segment(Command::Wins, 0, una, b"")).expect("well formed");
        assert_eq!(kcp.room(), 0, "{una:#x}");
        kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
        assert_eq!(kcp.room(), 100 * MSS, "{una:#x}");
    }
}

/// More was in flight than the window that the peer then told: it moves with each `una` and stays closed. Who waited for room once
/// went without questions from the first such move on.
#[test]
fn a_window_that_moves_and_stays_closed_is_still_asked_after() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.write(&pattern(32 * MSS));
    said(&mut kcp, now);
    let closed = |una| {
        let mut packet = segment(Command::Ack, una - 1, una, b"");
        packet[6..8].copy_from_slice(&0_u16.to_le_bytes());
        packet
    };
    kcp.handle_packet(now, &closed(2)).expect("well formed");
    assert_eq!(kcp.write(b"waits"), 0);
    kcp.handle_packet(now, &closed(10)).expect("well formed");
    kcp.handle_packet(now, &closed(32)).expect("well formed");
    assert!(kcp.all_acknowledged());
    let due = kcp.poll_timeout().expect("the update may get lost");
    assert_eq!(due, now + ms(500));
    kcp.handle_timeout(due);
    assert_eq!(said(&mut kcp, due).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);
}

#[test]
fn an_impossible_una_or_ack_has_no_effect_but_its_neighbours_do() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(3 * MSS));
    said(&mut kcp, now);
    let mut packet = segment(Command::Push, 0, 4, b"never agreed");
    packet.extend(segment(Command::Ack, 3, 0, b""));
    packet.extend(segment(Command::Wask, 0, 0x8000_0003, b""));
    packet.extend(segment(Command::Push, 1, 1, b"fine"));
    kcp.handle_packet(now, &packet).expect("well formed");
    let stats = kcp.stats();
    assert_eq!((stats.dropped_wrong_una, stats.dropped_wrong_ack, stats.segments_received), (1, 1, 1));
    assert_eq!((kcp.una(), kcp.rcv_nxt(), kcp.peek()), (Sn::new(1), Sn::new(0), None));
    let answer = said(&mut kcp, now);
    // Half the circle away is behind us, so that question is only old, and is answered.
    assert_eq!(answer.iter().map(|s| (s.0, s.1)).collect::<Vec<_>>(), [(Command::Ack, 1), (Command::Wins, 1)]);
}

/// Somebody else with the same number, or one who guesses: what it says is well formed, but cannot be.
#[test]
fn a_packet_of_which_nothing_can_be_is_told_apart() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    let strange = segment(Command::Wins, 0, 7, b"");
    assert_eq!(kcp.handle_packet(now, &strange), Ok(false), "nothing was sent that it could have");
    assert_eq!(kcp.handle_packet(now, &segment(Command::Push, 60_000, 0, b"x")), Ok(false), "far beyond the window");
    assert_eq!(kcp.handle_packet(now, &[strange, segment(Command::Push, 0, 0, b"x")].concat()), Ok(true));
    assert_eq!(kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"x")), Ok(true), "again, as if the ACK was lost");
}

/// The peer's window is smaller than what was written before its first word, so sending fills it.
#[test]
fn a_packet_of_which_nothing_can_be_starts_no_timer() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(20 * MSS));
    let mut first = segment(Command::Wins, 0, 0, b"");
    first[6..8].copy_from_slice(&[15, 0]);
    assert_eq!(kcp.handle_packet(now, &first), Ok(true), "a window of 15");
    assert_eq!(said(&mut kcp, now).len(), 15);
    let before = kcp.poll_timeout();
    let later = now + ms(1);
    assert_eq!(kcp.handle_packet(later, &segment(Command::Wins, 0, 16, b"")), Ok(false));
    assert_eq!(kcp.poll_timeout(), before);
}

#[test]
fn an_empty_push_is_never_acknowledged() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"")).expect("well formed");
    assert!(!kcp.wants_transmit(now));
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"real")).expect("well formed");
    assert_eq!(kcp.peek(), Some(&b"real"[..]));
    kcp.consume();
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"")).expect("well formed");
    assert_eq!(kcp.stats().dropped_empty_push, 2);
}

#[test]
fn old_duplicates_are_acknowledged_again_and_never_read_again() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    for sn in 0..3 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(kcp.only_acks_waiting(now), Some(3));
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 2, 3, 1021, 0)], "one ACK for three in order");
    assert_eq!(kcp.only_acks_waiting(now), None);
    kcp.handle_packet(now, &segment(Command::Push, 0, 0, b"y")).expect("well formed");
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 0, 3, 1021, 0)]);
    kcp.handle_packet(now, &segment(Command::Push, 5, 0, b"x")).expect("well formed");
    kcp.handle_packet(now, &segment(Command::Push, 5, 0, b"y")).expect("well formed");
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 5, 3, 1021, 0)]);
    kcp.handle_packet(now, &segment(Command::Push, 5, 0, b"y")).expect("well formed");
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 5, 3, 1021, 0)], "its first ACK may have died");
    assert_eq!(kcp.stats().duplicates, 3);
}

#[test]
fn what_lies_beyond_the_window_is_dropped_without_ack() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 4, ..config() });
    kcp.handle_packet(now, &segment(Command::Push, 4, 0, b"x")).expect("well formed");
    assert!(!kcp.wants_transmit(now));
    assert_eq!(kcp.stats().dropped_beyond_window, 1);
    for sn in [3, 0, 1, 2] {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    // Announced is 0, accepted is what lies within four of `rcv_nxt`: an edge once told is not taken back.
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 2, 4, 0, 0)]);
    kcp.handle_packet(now, &segment(Command::Push, 7, 0, b"x")).expect("well formed");
    kcp.handle_packet(now, &segment(Command::Push, 8, 0, b"x")).expect("well formed");
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 7, 4, 0, 0)]);
    kcp.consume();
    assert_eq!(said(&mut kcp, now), [(Command::Wins, 0, 4, 1, 0)], "a closed window that opens is told");
}

#[test]
fn a_peer_that_ignores_the_window_and_sends_giants_is_held_to_a_budget() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 100, ..config() });
    let giant = vec![7; 65_511];
    for sn in 0..100 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, &giant)).expect("well formed");
    }
    let stats = kcp.stats();
    assert!(stats.bytes_received < 2 * 100 * 1500 + 65_536, "{} bytes held", stats.bytes_received);
    assert!(stats.dropped_over_budget > 90);
    let taken = kcp.rcv_nxt();
    while kcp.peek().is_some() {
        kcp.consume();
    }
    kcp.handle_packet(now, &segment(Command::Push, taken.value(), 0, &giant)).expect("well formed");
    assert_eq!(kcp.rcv_nxt(), taken.next(), "and goes on when it was read");
}

#[test]
fn a_packet_that_does_not_parse_changes_nothing() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(2 * MSS));
    said(&mut kcp, now);
    let before = (kcp.una(), kcp.rcv_nxt(), kcp.room(), kcp.poll_timeout());
    let good = {
        let mut packet = segment(Command::Ack, 0, 1, b"");
        packet.extend(segment(Command::Push, 0, 1, b"data"));
        packet
    };
    for spoil in [0, 4, 24, 28, 44] {
        let mut packet = good.clone();
        packet[spoil] ^= 0x80;
        kcp.handle_packet(now, &packet).expect_err("spoilt");
        assert_eq!((kcp.una(), kcp.rcv_nxt(), kcp.room(), kcp.poll_timeout()), before);
        assert!(!kcp.wants_transmit(now) && kcp.peek().is_none());
    }
    assert_eq!((kcp.stats().packets_malformed, kcp.stats().packets_received), (5, 0));
    kcp.handle_packet(now, &good).expect("not spoilt");
    assert_eq!((kcp.una(), kcp.rcv_nxt()), (Sn::new(1), Sn::new(1)));
}

#[test]
fn fill_appends_to_one_segment_and_leaves_no_empty_one() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    assert!(kcp.fill(|_, room| assert_eq!(room, MSS)));
    assert!(kcp.all_acknowledged() && !kcp.wants_transmit(now), "nothing appended, nothing sent");
    assert_eq!(kcp.fill_sn(), Sn::new(0));
    assert!(kcp.fill(|buffer, _| buffer.extend_from_slice(b"first ")));
    assert_eq!(kcp.fill_sn(), Sn::new(0), "the same segment");
    assert!(kcp.fill(|buffer, room| {
        assert_eq!(room, MSS - 6);
        buffer.extend_from_slice(b"second");
    }));
    assert_eq!((kcp.end(), kcp.nxt()), (Sn::new(1), Sn::new(0)));
    assert_eq!(said(&mut kcp, now), [(Command::Push, 0, 0, 1024, 12)]);
    assert_eq!(kcp.fill_sn(), Sn::new(1), "a sent segment is never extended");
    assert!(kcp.fill(|buffer, _| buffer.resize(MSS - 5, 1)));
    assert_eq!(kcp.fill_sn(), Sn::new(2), "5 bytes are too few for a frame");
    assert_eq!(kcp.room(), 30 * MSS + 5);
}

#[test]
fn a_large_packet_holds_many_segments_of_the_usual_size() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { mtu: 65_535, ..config() });
    kcp.write(&pattern(32 * MSS));
    let mut packet = vec![1, 2, 3];
    assert!(kcp.poll_transmit(now, &mut packet));
    assert_eq!(packet.len(), 3 + 32 * (24 + MSS));
    assert!(!kcp.poll_transmit(now, &mut packet), "all went in one");
}

#[test]
fn a_peer_that_drops_half_of_every_burst_is_not_flooded() {
    // A queue of 32 packets that is emptied every 10 ms, as in front of a kcp-go peer.
    let mut pair = Pair::new(&config(), Retransmission::Timeout);
    let data = pattern(3_000 * MSS);
    pair.out[0].extend(&data);
    let mut queue: VecDeque<Vec<u8>> = VecDeque::new();
    while pair.received[1].len() < data.len() {
        pair.turn();
        let mut kept = Vec::new();
        for (to, at, packet) in std::mem::take(&mut pair.air) {
            if to == 0 {
                kept.push((to, at, packet));
            } else if queue.len() < 32 {
                queue.push_back(packet);
            }
        }
        pair.air = kept;
        pair.now += ms(10);
        for packet in queue.drain(..) {
            pair.engines[1].handle_packet(pair.now, &packet).expect("our own packet");
        }
        assert!(pair.elapsed() < Duration::from_secs(120), "stuck at {}", pair.received[1].len());
    }
    assert!(pair.received[1] == data);
    let stats = pair.engines[0].stats();
    assert!(stats.resent() * 4 < stats.segments_sent, "{} of {} again", stats.resent(), stats.segments_sent);
    assert!(pair.elapsed() < Duration::from_secs(20), "took {:?}", pair.elapsed());
}

#[test]
fn a_window_of_65535_segments_fills_and_empties() {
    let config = Config { send_window: u16::MAX, recv_window: u16::MAX, ..unbounded() };
    let mut pair = Pair::new(&config, Retransmission::TailProbe);
    pair.delay = ms(500);
    pair.engines[0]
        .handle_packet(pair.now, &{
            let mut wins = segment(Command::Wins, 0, 0, b"");
            wins[6..8].copy_from_slice(&[0xff, 0xff]);
            wins
        })
        .expect("well formed");
    let mut left = 65_535 * MSS;
    let chunk = pattern(64 * MSS);
    while left > 0 {
        let taken = pair.engines[0].write(&chunk[..left.min(chunk.len())]);
        assert!(taken > 0);
        left -= taken;
    }
    assert_eq!(pair.engines[0].room(), 0);
    pair.run();
    assert_eq!(pair.received[1].len(), 65_535 * MSS);
    assert_eq!(pair.engines[0].stats().resent(), 0);
}

/// 1,000,000 mutated packets, with overflow checks on: no panic, no buffer without a limit, and honest data still passes.
#[test]
fn a_million_mutated_packets_do_no_harm() {
    let mut random = Random(0xdead_beef);
    let start = Instant::now();
    let config = Config { recv_window: 64, send_window: 64, initial_sn: 0xffff_fff0, ..config() };
    let mut kcp = Kcp::new(start, CONV, config.clone());
    let mut now = start;
    let mut out = Vec::new();
    let mut total_malformed = 0;
    for round in 0..1_000_000_u32 {
        if round % 10_000 == 0 {
            total_malformed += kcp.stats().packets_malformed;
            kcp = Kcp::new(now, CONV, config.clone());
            kcp.set_retransmission([Retransmission::Timeout, Retransmission::TailProbe][random.below(2)]);
        }
        let mut packet = Vec::new();
        for _ in 0..=random.below(3) {
            let cmd = [Command::Push, Command::Ack, Command::Wask, Command::Wins][random.below(4)];
            let near = |random: &mut Random, base: Sn| {
                base.plus(u32::try_from(random.below(160)).expect("small")).value().wrapping_sub(80)
            };
            let sn = if cmd == Command::Ack { near(&mut random, kcp.una()) } else { near(&mut random, kcp.rcv_nxt()) };
            let una = near(&mut random, kcp.una());
            let payload = &[9; 100][..random.below(100)];
            packet.extend(segment(cmd, sn, una, if cmd == Command::Push { payload } else { &[] }));
        }
        for _ in 0..random.below(4) {
            let at = random.below(packet.len());
            packet[at] = u8::try_from(random.below(256)).expect("a byte");
        }
        if random.chance(5) {
            packet.truncate(random.below(packet.len() + 1));
        }
        let _ = kcp.handle_packet(now, &packet);
        match random.below(12) {
            0 => kcp.handle_timeout(now),
            1 => now += ms(random.below(3000) as u64),
            2 => {
                while kcp.peek().is_some() && random.chance(90) {
                    kcp.consume();
                }
            }
            3 => kcp.suspend(),
            4 | 5 => kcp.resume(now, [Resume::Now, Resume::AfterUna][random.below(2)]),
            6 => {
                let una = kcp.una().plus(u32::try_from(random.below(5)).expect("small"));
                kcp.handle_una(now, una);
            }
            7 => {
                let room = kcp.room();
                let len = random.below(20_000);
                assert_eq!(kcp.write(&vec![1; len]), len.min(room));
            }
            8 => {
                let len = random.below(300);
                kcp.fill(|buffer, room| buffer.resize(buffer.len() + len.min(room), 3));
            }
            _ => {}
        }
        kcp.handle_timeout(now);
        assert!(kcp.poll_timeout().is_none_or(|due| due > now));
        if random.chance(50) {
            loop {
                let wanted = kcp.wants_transmit(now);
                out.clear();
                assert_eq!(kcp.poll_transmit(now, &mut out), wanted);
                if !wanted {
                    break;
                }
                assert!(out.len() <= 1400);
                let parsed: Vec<_> = segments(&out).expect("our own packet").collect();
                assert!(parsed.iter().all(|s| s.cmd != Command::Push || !s.payload.is_empty()));
            }
        }
        assert!(kcp.in_flight() <= 64);
    }
    assert!(total_malformed > 100_000, "{total_malformed} did not parse");
}

/// What one side of a random life writes the other reads, whatever happens to the carriers in between.
#[test]
fn a_hundred_lives_with_cuts_lose_nothing() {
    for seed in 1..=100 {
        let config = Config { send_window: 200, recv_window: 150, initial_sn: 0xffff_ffc0, ..config() };
        let retransmission = [Retransmission::Timeout, Retransmission::TailProbe][usize::from(seed % 2 == 0)];
        let mut pair = Pair::new(&config, retransmission);
        pair.random = Random(seed * 7919);
        (pair.loss_percent, pair.jitter) = (pair.random.below(4), pair.random.below(10));
        let (there, back) = (pattern(600_000), pattern(300_000));
        pair.out = [there.iter().copied().collect(), back.iter().copied().collect()];
        for _ in 0..20 {
            for _ in 0..pair.random.below(60) {
                pair.step();
            }
            pair.reads = [pair.random.chance(80), pair.random.chance(80)];
            if pair.random.chance(50) {
                pair.cut();
                let outage = ms(pair.random.below(5_000) as u64);
                pair.run_for(outage);
                let how = [Resume::Now, Resume::AfterUna][pair.random.below(2)];
                for who in 0..2 {
                    pair.engines[who].resume(pair.now, how);
                }
                if how == Resume::AfterUna {
                    let heard = [pair.engines[1].rcv_nxt(), pair.engines[0].rcv_nxt()];
                    for (kcp, una) in pair.engines.iter_mut().zip(heard) {
                        assert!(kcp.handle_una(pair.now, una));
                    }
                }
            }
        }
        pair.reads = [true; 2];
        pair.run();
        assert!(pair.received[1] == there && pair.received[0] == back, "seed {seed}");
    }
}

#[test]
fn a_new_carrier_begins_with_what_may_have_died_on_the_old_one() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 4, ..config() });
    for sn in 0..4 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 3, 4, 0, 0)]);
    kcp.consume();
    assert_eq!(said(&mut kcp, now), [(Command::Wins, 0, 4, 1, 0)]);
    kcp.resume(now, Resume::Now);
    assert_eq!(said(&mut kcp, now), [(Command::Wins, 0, 4, 1, 0)], "the window update may have died");

    // The sender of that peer finds the window closed, and asks at once.
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    assert_eq!(kcp.write(&pattern(40 * MSS)), 32 * MSS);
    said(&mut kcp, now);
    now += ms(1);
    kcp.resume(now, Resume::AfterUna);
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.0).collect::<Vec<_>>(), [Command::Wask]);
    // A peer that can tell its `una` but whose window never came home is still worth the assumed one.
    assert!(kcp.handle_una(now, Sn::new(32)));
    assert_eq!(kcp.room(), 32 * MSS);
}

#[test]
fn a_new_carrier_forgets_backoff_and_congestion() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.handle_packet(now, &segment(Command::Wins, 0, 0, b"")).expect("well formed");
    kcp.write(&pattern(32 * MSS));
    said(&mut kcp, now);
    for _ in 0..4 {
        now = kcp.poll_timeout().expect("something is on its way");
        kcp.handle_timeout(now);
        assert!(said(&mut kcp, now).len() <= 16);
    }
    kcp.resume(now, Resume::Now);
    assert_eq!(said(&mut kcp, now).len(), 32);
    assert_eq!(kcp.poll_timeout(), Some(now + ms(1000)));
}

#[test]
fn una_from_elsewhere_is_no_round_trip_and_proves_no_loss() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(4 * MSS));
    said(&mut kcp, now);
    assert!(kcp.handle_una(now + ms(700), Sn::new(2)));
    assert_eq!((kcp.srtt(), kcp.in_flight()), (None, 2));
    assert_eq!(said(&mut kcp, now + ms(700)), []);
}

#[test]
fn two_transmissions_within_one_millisecond_cannot_be_told_apart() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.write(&pattern(2 * MSS));
    said(&mut kcp, now);
    kcp.resume(now, Resume::Now);
    said(&mut kcp, now);
    let mut ack = segment(Command::Ack, 1, 0, b"");
    ack[8..12].copy_from_slice(&0_u32.to_le_bytes());
    kcp.handle_packet(now + ms(30), &ack).expect("well formed");
    assert_eq!((kcp.srtt(), said(&mut kcp, now + ms(30)).len()), (None, 0));
}

#[test]
fn a_slow_reader_does_not_make_the_sender_creep() {
    let config = Config { recv_window: 64, ..config() };
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config);
    for sn in 0..60 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 59, 60, 4, 0)]);
    for read in 1..=16 {
        kcp.consume();
        let expected: &[_] = if read < 16 { &[] } else { &[(Command::Wins, 0, 60, 20, 0)] };
        assert_eq!(said(&mut kcp, now), expected, "after {read}: a quarter of the window is worth a packet");
    }
}

#[test]
fn what_moves_up_while_its_ack_waits_is_still_acknowledged() {
    let now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, Config { recv_window: 2, ..config() });
    for sn in 0..2 {
        kcp.handle_packet(now, &segment(Command::Push, sn, 0, b"x")).expect("well formed");
    }
    said(&mut kcp, now);
    kcp.handle_packet(now, &segment(Command::Push, 2, 0, b"x")).expect("well formed");
    kcp.consume();
    assert!(kcp.wants_transmit(now));
    assert_eq!(said(&mut kcp, now), [(Command::Ack, 2, 3, 0, 0)]);
}

/// The first segment's log entry stays live while others go again and again: the log must not grow for ever.
#[test]
fn a_probe_for_days_costs_no_memory_and_no_order() {
    let mut now = Instant::now();
    let mut kcp = Kcp::new(now, CONV, config());
    kcp.set_retransmission(Retransmission::TailProbe);
    kcp.write(&pattern(3 * MSS));
    said(&mut kcp, now);
    for _ in 0..10_000 {
        now = kcp.poll_timeout().expect("something is on its way");
        kcp.handle_timeout(now);
        assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [0]);
    }
    kcp.handle_packet(now, &segment(Command::Ack, 2, 0, b"")).expect("well formed");
    assert_eq!(said(&mut kcp, now).iter().map(|s| s.1).collect::<Vec<_>>(), [1], "sent before 2, and 0 was not");
}
