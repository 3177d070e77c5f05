//! Two engines, virtual time, and what can happen between them.

#![allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

mod carriers;
mod facts;
mod large;
mod receiving;
mod sending;
mod windows;

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
