//! Bytes in flight: over the whole range of rates and delays the path is full, its buffers are not, and nothing makes it collapse.

#![allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use turbotunnel_kcp::{Config, Kcp, Resume, Retransmission};

const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A bottleneck that loses nothing, with all the buffer that anybody could fill, as a TCP connection has.
#[derive(Clone, Copy, Debug)]
struct Path {
    /// Bytes a second.
    rate: f64,
    /// One way.
    delay: Duration,
    /// What others have put into the buffer before us, whenever we come: so much time in it.
    others: Duration,
    /// Everything arrives on this grid: bunches.
    grid: Duration,
}

impl Path {
    fn new(mbit_per_second: f64, delay: Duration) -> Self {
        Self { rate: mbit_per_second * 125_000.0, delay, others: Duration::ZERO, grid: Duration::ZERO }
    }

    /// The headroom, what is caught up with after a look at the path without a queue, some packets, and where the segments are large, one of those.
    fn most_queued(self) -> Duration {
        let packets = 8 + if self.rate >= 2e6 { 11 } else { 0 };
        ms(25) + self.round_trip() / 8 + Duration::from_secs_f64(f64::from(packets) * 1400.0 / self.rate)
    }

    fn round_trip(self) -> Duration {
        2 * self.delay + self.others
    }
}

/// A sender that has always something to send, a receiver that reads at once, and the path between them.
struct Bulk {
    now: Instant,
    start: Instant,
    path: Path,
    sender: Kcp,
    receiver: Kcp,
    /// When the bottleneck has passed all it was given.
    free: Instant,
    /// Given to the carrier, and held back by its congestion window.
    socket: VecDeque<Vec<u8>>,
    /// That window in bytes, if the carrier has one: as much larger as what was acknowledged.
    slow_start: Option<usize>,
    /// What the carrier has on its way, and when it hears of its arrival.
    carried: VecDeque<(Instant, usize)>,
    data: VecDeque<(Instant, Vec<u8>)>,
    acks: VecDeque<(Instant, Vec<u8>)>,
    received: u64,
    /// It says only so much, so often.
    pace: Option<(usize, Duration)>,
    next_word: Instant,
    /// The largest time that a byte has waited in the bottleneck's buffer, since it was last asked for.
    queued: Duration,
    /// No packet arrives before.
    frozen_until: Instant,
}

/// Bytes that a TCP connection begins with (ten segments, RFC 6928).
const SLOW_START: usize = 10 * 1448;

fn arrived(packets: &mut VecDeque<(Instant, Vec<u8>)>, now: Instant) -> Option<Vec<u8>> {
    packets.front().filter(|(at, _)| *at <= now)?;
    packets.pop_front().map(|(_, packet)| packet)
}

impl Bulk {
    fn new(path: Path) -> Self {
        let now = Instant::now();
        let config = Config { send_window: u16::MAX, recv_window: u16::MAX, ..Config::default() };
        let kcp = || {
            let mut kcp = Kcp::new(now, 7, config.clone());
            kcp.set_retransmission(Retransmission::TailProbe);
            kcp.set_largest_packet(16_382);
            kcp
        };
        Self {
            now,
            start: now,
            path,
            sender: kcp(),
            receiver: kcp(),
            free: now,
            socket: VecDeque::new(),
            slow_start: None,
            carried: VecDeque::new(),
            data: VecDeque::new(),
            acks: VecDeque::new(),
            received: 0,
            pace: None,
            next_word: now,
            queued: Duration::ZERO,
            frozen_until: now,
        }
    }

    /// Runs for so long and returns the bytes a second that were read in that time, as a share of the path's rate.
    fn run(&mut self, time: Duration) -> f64 {
        let (until, before) = (self.now + time, self.received);
        self.queued = Duration::ZERO;
        let word = vec![1; 64 << 10];
        loop {
            // What can be sent now.
            loop {
                match self.pace {
                    None => drop(self.sender.write(&word)),
                    Some((bytes, every)) if self.now >= self.next_word => {
                        self.sender.write(&word[..bytes]);
                        self.next_word = self.now + every;
                    }
                    Some(_) => {}
                }
                let mut packet = Vec::new();
                if !self.sender.poll_transmit(self.now, &mut packet) {
                    break;
                }
                self.socket.push_back(packet);
                self.carry();
            }
            let mut packet = Vec::new();
            while self.receiver.poll_transmit(self.now, &mut packet) {
                self.acks.push_back((self.on_grid(self.now + self.path.delay), std::mem::take(&mut packet)));
            }
            let next = [self.data.front(), self.acks.front()].into_iter().flatten().map(|(at, _)| *at);
            let next = next.chain(self.carried.front().filter(|_| self.slow_start.is_some()).map(|(at, _)| *at));
            let timers = [self.sender.poll_timeout(), self.receiver.poll_timeout(), self.pace.map(|_| self.next_word)];
            let Some(at) = next.chain(timers.into_iter().flatten()).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            while self.carried.front().is_some_and(|(at, _)| *at <= self.now) {
                let len = self.carried.pop_front().map_or(0, |(_, len)| len);
                self.slow_start = self.slow_start.map(|window| window + len);
            }
            self.carry();
            while let Some(packet) = arrived(&mut self.data, self.now) {
                self.receiver.handle_packet(self.now, &packet).expect("our own");
                while let Some(chunk) = self.receiver.peek() {
                    self.received += chunk.len() as u64;
                    self.receiver.consume();
                }
            }
            while let Some(packet) = arrived(&mut self.acks, self.now) {
                self.sender.handle_packet(self.now, &packet).expect("our own");
            }
            self.sender.handle_timeout(self.now);
            self.receiver.handle_timeout(self.now);
        }
        self.now = until;
        (self.received - before) as f64 / time.as_secs_f64() / self.path.rate
    }

    /// The carrier sends what it may.
    fn carry(&mut self) {
        while let Some(packet) = self.socket.pop_front() {
            let on_its_way: usize = self.carried.iter().map(|(_, len)| len).sum();
            if self.slow_start.is_some_and(|window| on_its_way + packet.len() > window) {
                return self.socket.push_front(packet);
            }
            let begins = self.free.max(self.now);
            self.queued = self.queued.max(begins - self.now);
            self.free = begins + Duration::from_secs_f64(packet.len() as f64 / self.path.rate);
            let arrives = self.on_grid(self.free + self.path.others + self.path.delay);
            if self.slow_start.is_some() {
                self.carried.push_back((arrives + self.path.delay, packet.len()));
            }
            self.data.push_back((arrives, packet));
        }
    }

    /// All that is on its way is gone. What the receiver has is told first, on a path that is free at once.
    fn cut(&mut self) {
        self.socket.clear();
        self.carried.clear();
        self.data.clear();
        self.acks.clear();
        self.free = self.now;
        for end in [&mut self.sender, &mut self.receiver] {
            end.suspend();
            end.resume(self.now, Resume::AfterUna);
        }
        self.sender.handle_una(self.now, self.receiver.rcv_nxt());
    }

    fn on_grid(&self, at: Instant) -> Instant {
        let at = at.max(self.frozen_until);
        if self.path.grid.is_zero() {
            return at;
        }
        let (since, grid) = ((at - self.start).as_nanos(), self.path.grid.as_nanos());
        self.start + Duration::from_nanos(u64::try_from(since.div_ceil(grid) * grid).expect("some minutes"))
    }
}

/// Rates of 2 Mbit/s to 2 Gbit/s, round trips of 0.2 to 300 ms: at least 0.95 of the rate, and no more than the headroom in the buffer.
#[test]
fn the_path_is_full_and_its_buffer_is_not() {
    for rate in [2.0, 5.0, 20.0, 50.0, 200.0, 500.0, 2000.0] {
        for delay in [us(100), ms(1), ms(5), ms(20), ms(50), ms(150)] {
            let path = Path::new(rate, delay);
            let mut bulk = Bulk::new(path);
            // As long as a path takes to be found out: twice the window of 65,535 places is 2 Gbit/s at 150 ms.
            bulk.run(40 * path.round_trip() + ms(2_000));
            let share = bulk.run(25 * path.round_trip() + ms(2_000));
            let queued = bulk.queued;
            println!("{rate:6} Mbit/s {delay:8?}: {share:.3} of the rate, up to {queued:?} in the buffer");
            assert!(share >= 0.95, "{rate} Mbit/s, {delay:?}: {share}");
            // The window of 65,535 places is smaller than the path only here.
            let window_decides = rate * delay.as_secs_f64() > 250.0;
            assert!(queued <= path.most_queued() || window_decides, "{rate} Mbit/s, {delay:?}: {queued:?}");
        }
    }
}

/// A TCP connection begins with ten packets and doubles that with every round trip. What it brings until then is never less because of us.
#[test]
fn the_beginning_is_no_slower_than_tcps() {
    let path = Path::new(500.0, ms(50));
    let mut bulk = Bulk::new(path);
    bulk.run(path.round_trip());
    let (mut tcp, mut window) = (0, 10 * 1376);
    for round in 1..=9 {
        bulk.run(path.round_trip());
        tcp += window;
        window *= 2;
        assert!(bulk.received >= tcp, "round {round}: {} bytes, TCP's would be {tcp}", bulk.received);
    }
    assert!(bulk.run(path.round_trip()) > 0.95, "full after ten round trips");
}

/// Below us there is such a connection. It never waits for us: what it can bring until the path is full, it brings.
#[test]
fn a_carrier_that_begins_slowly_is_not_slowed_down_more() {
    let path = Path::new(200.0, ms(50));
    let mut bulk = Bulk::new(path);
    let (mut tcp, mut window) = (0u64, SLOW_START);
    bulk.slow_start = Some(window);
    bulk.run(path.round_trip());
    for round in 1..=8 {
        bulk.run(path.round_trip());
        tcp += window as u64;
        window *= 2;
        println!("round {round}: {} bytes, TCP alone {tcp}", bulk.received);
        assert!(bulk.received >= tcp, "round {round}: {} bytes, TCP alone {tcp}", bulk.received);
    }
}

/// Most carriers die of something that the path has nothing to do with. So the next one does not begin as if nothing was known of it, but
/// not with all of it either.
#[test]
fn after_a_cut_a_carrier_gets_more_at_once_but_not_too_much() {
    let path = Path::new(200.0, ms(50));
    let mut bulk = Bulk::new(path);
    let first = bulk.run(path.round_trip() * 3 / 2);
    bulk.run(ms(3_000));
    bulk.cut();
    let again = bulk.run(path.round_trip() * 3 / 2);
    println!("{first:.3} of the rate until the first news, {again:.3} after the cut");
    assert!(again > first * 3.0);
    bulk.path.rate /= 200.0;
    bulk.cut();
    bulk.run(ms(2_000));
    assert!(bulk.queued < ms(2_200), "{:?} in the buffer of a path that has become slow", bulk.queued);
}

/// Radio links: each round trip is another one, and what is believed of the path must not be eaten up by that.
#[test]
fn round_trips_that_vary_leave_most_of_the_rate() {
    for (rate, delay, most) in
        [(20.0, ms(15), ms(45)), (20.0, ms(15), ms(90)), (100.0, ms(5), ms(30)), (5.0, ms(50), ms(100))]
    {
        let mut bulk = Bulk::new(Path::new(rate, delay));
        let mut seed = 7_u64;
        let mut varied = |bulk: &mut Bulk| {
            let rounds = 300;
            let shares = (0..rounds).map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bulk.path.others = most.mul_f64((seed >> 40) as f64 / f64::from(1 << 24));
                bulk.run(2 * delay + most / 2)
            });
            shares.sum::<f64>() / f64::from(rounds)
        };
        let (before, share) = (varied(&mut bulk), varied(&mut bulk));
        println!("{rate} Mbit/s {delay:?}, up to {most:?} more: {before:.3}, then {share:.3}");
        assert!(share >= 0.92, "{rate} Mbit/s {delay:?}, up to {most:?} more: {share}");
    }
}

/// What happens to a path while a transfer runs, how long it may cost, and what is left in the buffer after that.
#[test]
fn nothing_makes_it_collapse() {
    let mut bad = Vec::new();
    for (rate, delay) in paths() {
        let path = Path::new(rate, delay);
        let mut bulk = Bulk::new(path);
        let mut settle = |bulk: &mut Bulk, what: &str, within: Duration| {
            bulk.run(within);
            let mut most = bulk.path.most_queued() + bulk.path.grid * 3;
            // Three or four large packets are the headroom here, and one more is there for a moment after a look at the path.
            if what == "one by one again" && [(17.0, ms(10)), (35.0, ms(5))].contains(&(rate, delay)) {
                most += most / 8;
            }
            let share = bulk.run(ms(4_000));
            let told =
                format!("{rate} Mbit/s {delay:?}, {what}: {share:.3}, {:?} of {most:?} in the buffer", bulk.queued);
            println!("{told}");
            if share < 0.93 || bulk.queued > most {
                bad.push(told);
            }
        };
        // A round trip, and how long what was on its way takes at a tenth of the rate.
        let (round, long) = (path.round_trip(), ms(2_000) + 30 * path.round_trip());
        settle(&mut bulk, "the beginning", long);
        bulk.path.rate /= 10.0;
        settle(&mut bulk, "a tenth of the rate", 2 * long + ms(8_000));
        bulk.path.rate *= 10.0;
        settle(&mut bulk, "all of the rate again", long);
        bulk.path.delay *= 4;
        settle(&mut bulk, "a path four times as long", 2 * long + 8 * round);
        bulk.path.delay /= 4;
        // A queue of ours is not told from a long path before the next look at the path.
        settle(&mut bulk, "the short path again", ms(12_000) + long);
        bulk.path.others = ms(100);
        settle(&mut bulk, "others fill the buffer", 2 * long);
        bulk.path.others = ms(0);
        settle(&mut bulk, "the others have gone", ms(12_000) + long);
        bulk.path.grid = ms(20);
        settle(&mut bulk, "everything comes in bunches", ms(12_000) + long);
        bulk.path.grid = ms(0);
        settle(&mut bulk, "one by one again", ms(12_000) + long);
        bulk.frozen_until = bulk.now + ms(1_000);
        settle(&mut bulk, "a second of nothing", ms(1_000) + long);
        bulk.pace = Some((1_000, ms(10)));
        bulk.run(ms(30_000));
        bulk.pace = None;
        settle(&mut bulk, "after half a minute with little to say", long);
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// In Mbit/s, and one way. With `FLIGHT_PATHS` all that were tried when this was written; else those on which it had collapsed, and some more.
fn paths() -> Vec<(f64, Duration)> {
    if std::env::var_os("FLIGHT_PATHS").is_some() {
        let rates = [1.0, 2.0, 5.0, 10.0, 17.0, 20.0, 35.0, 50.0, 100.0, 200.0, 400.0, 800.0];
        let delays = [1, 2, 4, 5, 7, 10, 15, 20, 35, 50, 75, 100, 150];
        return rates.into_iter().flat_map(|rate| delays.map(|delay| (rate, ms(delay)))).collect();
    }
    let paths: [(f64, &[u64]); 10] = [
        (1.0, &[7, 10, 50]),
        (2.0, &[5, 7, 20, 100]),
        (5.0, &[2, 7, 50]),
        (10.0, &[1, 20, 150]),
        (17.0, &[1, 10, 75]),
        (20.0, &[5, 20, 100]),
        (35.0, &[2, 4, 5]),
        (100.0, &[1, 20, 150]),
        (200.0, &[5, 50, 100]),
        (400.0, &[2, 10, 50]),
    ];
    paths.into_iter().flat_map(|(rate, delays)| delays.iter().map(move |delay| (rate, ms(*delay)))).collect()
}

/// What a path goes through before it is left alone: anything, in any order, whether or not what came before is over. `FLIGHT_LIVES` is how many lives, `FLIGHT_LIFE` the number
/// of one that is told step by step.
#[test]
fn whatever_a_path_has_gone_through_it_is_full_again() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let lives = match number("FLIGHT_LIFE") {
        Some(life) => life..life + 1,
        None => 0..number("FLIGHT_LIVES").unwrap_or(200),
    };
    let told = number("FLIGHT_LIFE").is_some();
    let mut bad = 0;
    for life in lives {
        let mut dice = Dice(life);
        let path = Path::new(dice.between(0.5, 200.0), Duration::from_secs_f64(dice.between(0.0002, 0.15)));
        let mut bulk = Bulk::new(path);
        bulk.slow_start = (dice.below(2) == 0).then_some(SLOW_START);
        for _ in 0..8 {
            let what = match dice.below(8) {
                0 => {
                    bulk.path.rate =
                        (bulk.path.rate * dice.between(0.05, 20.0)).clamp(0.3 * 125_000.0, 400.0 * 125_000.0);
                    "another rate"
                }
                1 => {
                    bulk.path.delay = bulk.path.delay.mul_f64(dice.between(0.25, 4.0)).clamp(us(100), ms(300));
                    "another delay"
                }
                2 => {
                    bulk.path.others = ms(dice.below(300));
                    "others"
                }
                3 => {
                    bulk.path.others = ms(0);
                    "no others"
                }
                4 => {
                    bulk.path.grid = ms([0, 0, 5, 20, 50][dice.below(5) as usize]);
                    "bunches, or none"
                }
                5 => {
                    bulk.frozen_until = bulk.now + ms(dice.below(3_000));
                    "a pause"
                }
                6 => {
                    bulk.pace = Some((1 + dice.below(3_000) as usize, ms(1 + dice.below(50))));
                    "little to say"
                }
                _ => {
                    bulk.cut();
                    "a cut"
                }
            };
            let time = Duration::from_secs_f64(dice.between(0.05, 12.0));
            let share = bulk.run(time);
            bulk.pace = None;
            if told {
                println!("{what}, {time:?}: {share:.3} of {:?}", bulk.path);
            }
        }
        let round = bulk.path.round_trip() + bulk.path.grid;
        // What is in the buffer of a path that has become slow has to leave first.
        bulk.run(3 * bulk.free.saturating_duration_since(bulk.now));
        bulk.run(ms(14_000) + 60 * round + Duration::from_secs_f64(300_000.0 / bulk.path.rate));
        let share = bulk.run(ms(8_000) + 10 * round);
        let most = bulk.path.most_queued() * 3 / 2 + 3 * bulk.path.grid;
        if share < 0.93 || bulk.queued > most {
            bad += 1;
            println!("life {life}: {share:.3} and {:?} of {most:?} in the buffer; {:?}", bulk.queued, bulk.path);
        }
    }
    assert_eq!(bad, 0);
}

/// The same throws for the same life.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood, 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % sides
    }

    /// As likely between 1 and 2 as between 10 and 20.
    fn between(&mut self, least: f64, most: f64) -> f64 {
        least * (most / least).powf(self.below(1 << 30) as f64 / f64::from(1 << 30))
    }
}
