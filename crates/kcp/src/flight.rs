//! How many bytes may be on their way at once, towards a peer of our own kind: enough to fill the path, little enough not to fill its buffers.
//!
//! In: bytes acknowledged, round trips, and whether there was more to send. Out: [`Flight::limit`], in bytes, and whether large segments do no harm
//! ([`Flight::is_fast`]).
//!
//! The carrier below has its own congestion control, which keeps the path full by filling the buffers on it. What lies there can be
//! overtaken by nothing, costs memory at both ends, and is resent when the carrier dies. So no more is handed to it than this:
//!
//! ```text
//! bandwidth   most bytes a second acknowledged in one of the last 5 rounds      (a round: until all is acknowledged that was on its way;
//!                     where what ends it has waited longer, the round before fills it up to that)
//! min_rtt     shortest round trip of the last 10 s, but 50 us at least
//! headroom    what 192 KiB take, but min_rtt at least and 25 ms at most
//!
//! Search      limit = 2 x bandwidth x min_rtt     or Cruise's if that is more, until bandwidth has not grown by a quarter for 3 rounds, or for one and there is
//!                     a queue; it begins with 64 KiB, after a cut with an eighth of the limit before it, at most 256 KiB, or with three
//!                     quarters of that limit where the path is known to be the same, and grows by what is acknowledged
//!                     up to twice what has arrived in the last min_rtt
//! Cruise      limit = bandwidth x (min_rtt + headroom)
//! Drain       limit = 7/8 x bandwidth x min_rtt   for two rounds, to see the path without a queue of ours;
//!             half of it if the path is full all the same, as there still is a queue, and again as long as round trips become shorter by a sixteenth
//! ```
//!
//! The shape is that of BBR (Cardwell et al., 2016), without its pacing and its gains: the headroom is what probes for more bandwidth (on a path that
//! has more, the queue it makes does not form, and the next round acknowledges more), and it is a time, because what a small message
//! waits for beside a bulk transfer is a time.
//!
//! What keeps it from collapsing: a path that answers later than the limit explains (`5/4 (min_rtt + headroom) + 25 ms`, three rounds in a row) is not the path
//! that is believed in. Then what the last round has brought is believed instead, and Drain asks the path: if it answers as fast as ever,
//! the bandwidth has fallen; if not, the path has become longer, or others fill its buffers, and Search begins anew. So no wrong belief
//! outlives a few rounds, and none feeds on itself. Rounds in which there was not enough to send say only that so much is possible.
//!
//! Twice, because a connection below that begins slowly doubles with every round trip and must never wait for us, and not more, because buffers that hold
//! a round trip are common: what overflows them is lost, and nothing that arrives behind it is read until the kernel has sent it again. Then everything comes at
//! once, and a bandwidth that believed in that would overflow them again.

use std::time::{Duration, Instant};

/// Less would leave nothing to be acknowledged together.
const LEAST: usize = 4 * 1400;
/// Beyond every path, and far from where sums could overflow.
const MOST: usize = 1 << 30;

/// On a fast path less would wake both ends for a few packets each time: measured on loopback, four times the CPU time for a byte, and so a
/// third of the rate.
const HEADROOM: u64 = 192 << 10;
/// Shorter ones are those of an idle machine's loopback.
const SHORTEST_RTT: Duration = Duration::from_micros(50);
const LONGEST_HEADROOM: Duration = Duration::from_millis(25);
/// A shorter round would measure how acknowledgements come in bunches, and when whose turn it is on this machine.
const SHORTEST_ROUND: Duration = Duration::from_millis(1);
/// A new path begins with this share of what was on its way on the old one, at most so many times what a first path begins with. A path that
/// has become as slow as 1 Mbit/s needs 2 s for that.
const RESUMED_SHARE: usize = 8;
const MOST_RESUMED: usize = 4;
/// So long a shortest round trip is believed in without being seen again.
const BELIEVED: Duration = Duration::from_secs(10);
/// Rounds whose best bandwidth counts.
const ROUNDS: usize = 5;
/// Rounds without growth after which the search is over; rounds that contradict what is believed, until it is given up.
const PATIENCE: u32 = 3;
/// Large segments go where one takes a few milliseconds at most: in bytes a second. What comes behind one waits for it.
const FAST: u64 = 2_000_000;
/// And once a path has brought so many bytes: if it ends sooner, and the next one, and so on, as some are made to, what is lost with each is to be little.
const EARNED: u64 = 512 << 10;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The bandwidth may be larger than all that was seen.
    Search { best: u64, without_growth: u32, grown: usize },
    /// It is known. In the first two rounds there is still on its way what was sent before that.
    Cruise { rounds: u32 },
    /// The queue of ours is let run empty; `doubted` is what it came from, and `before` what was seen with less.
    Drain { shortest: Option<Duration>, rounds: u32, doubted: bool, before: Option<Duration> },
}

/// What one packet's acknowledgements say of the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) bytes: usize,
    /// Of the segment sent last, if it is known.
    pub(crate) round_trip: Option<Duration>,
    /// Of the transmissions, which are counted from the beginning: those below this have arrived, as far as is known.
    pub(crate) order: u64,
    /// The next one.
    pub(crate) next: u64,
    /// Bytes still on their way.
    pub(crate) flying: usize,
}

#[derive(Debug)]
pub(crate) struct Flight {
    state: State,
    /// What a new path gets.
    initial: usize,
    limit: usize,
    /// Bytes a second of the last rounds; the oldest at `next`.
    bandwidths: [u64; ROUNDS],
    next: usize,
    /// That of the last round, whatever is believed.
    last: u64,
    min_rtt: Option<Duration>,
    min_rtt_seen: Instant,
    contradicted: u32,
    /// Steps by which the bandwidth has grown lately, what it was at the last, and rounds since then.
    growing: (u32, u64, u32),
    /// Bytes that this path has brought in the rounds before.
    brought: u64,
    fast: bool,

    // The round at hand.
    began: Instant,
    /// When the transmissions below this have arrived.
    ends: u64,
    delivered: u64,
    /// What was acknowledged while too little had arrived to grow by it.
    not_grown: usize,
    shortest: Option<Duration>,
    /// There was too little to send for a while.
    idle: bool,
    /// The transmissions below this were made before or while there was too little to send.
    idle_before: Option<u64>,
}

impl Flight {
    pub(crate) fn new(now: Instant, next: u64, initial: usize) -> Self {
        Self {
            state: State::Search { best: 0, without_growth: 0, grown: initial },
            initial,
            limit: initial.max(LEAST),
            bandwidths: [0; ROUNDS],
            next: 0,
            last: 0,
            min_rtt: None,
            min_rtt_seen: now,
            contradicted: 0,
            growing: (0, 0, 0),
            brought: 0,
            fast: false,
            began: now,
            ends: next,
            delivered: 0,
            not_grown: 0,
            shortest: None,
            idle: false,
            idle_before: None,
        }
    }

    /// For the next path of the same session: most of the time it is much like the last, so a share of what was on its way there begins.
    /// `same_path`: it is the last one's for certain, so it bears as much; a quarter less, because all of that goes at once, and nothing was acknowledged yet that would set the pace.
    pub(crate) fn resumed(&self, now: Instant, next: u64, same_path: bool) -> Self {
        let begin = if same_path {
            (self.limit / 4 * 3).max(self.initial)
        } else {
            (self.limit / RESUMED_SHARE).clamp(self.initial, self.initial.saturating_mul(MOST_RESUMED))
        };
        let mut flight = Self::new(now, next, self.initial);
        flight.state = State::Search { best: 0, without_growth: 0, grown: begin };
        flight.limit = begin.max(LEAST);
        flight
    }

    /// Bytes that may be on their way.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The path has shown that large segments do no harm on it.
    pub(crate) fn is_fast(&self) -> bool {
        self.fast
    }

    /// Nothing is on its way, and something is sent now.
    pub(crate) fn on_first_sent(&mut self, now: Instant, next: u64) {
        // A round in which there was always more to send goes on, also when all was acknowledged at once.
        if self.idle {
            self.begin_round(now, next);
        }
    }

    /// More could be on its way, but there is nothing more to send.
    pub(crate) fn on_idle(&mut self, next: u64) {
        self.idle = true;
        self.idle_before = Some(next);
    }

    pub(crate) fn on_acknowledged(&mut self, now: Instant, news: Acknowledged) {
        self.delivered += news.bytes as u64;
        if let Some(rtt) = news.round_trip {
            self.shortest = Some(self.shortest.map_or(rtt, |shortest| shortest.min(rtt)));
            if let State::Drain { shortest, .. } = &mut self.state {
                *shortest = Some(shortest.map_or(rtt, |shortest| shortest.min(rtt)));
            }
            // A sixteenth more is the same path.
            if self.min_rtt.is_none_or(|min| rtt <= min + min / 16) {
                self.min_rtt_seen = now;
            }
            if self.min_rtt.is_none_or(|min| rtt < min) {
                self.min_rtt = Some(rtt);
                self.update_limit();
            }
            self.grow(now, &news);
        }
        if self.idle_before.is_some_and(|before| news.order >= before) {
            self.idle_before = None;
        }
        let elapsed = now.saturating_duration_since(self.began);
        if news.order >= self.ends && elapsed >= SHORTEST_ROUND {
            self.end_round(now, elapsed, news);
            self.brought = self.brought.saturating_add(self.delivered);
            self.fast = self.brought >= EARNED && self.bandwidth() >= FAST;
            self.begin_round(now, news.next);
            self.update_limit();
        }
    }

    /// In the search the carrier may send twice as much in the next round trip as has arrived in the last.
    fn grow(&mut self, now: Instant, news: &Acknowledged) {
        let State::Search { best, without_growth, grown } = self.state else { return };
        let Some(min_rtt) = self.min_rtt.filter(|_| !self.is_idle(news.flying + news.bytes)) else { return };
        self.not_grown += news.bytes;
        let more = (2 * self.arrived_lately(now, min_rtt)).saturating_sub(grown).min(self.not_grown);
        if more > 0 {
            self.not_grown -= more;
            self.state = State::Search { best, without_growth, grown: (grown + more).min(MOST) };
            self.update_limit();
        }
    }

    /// Bytes in the last `min_rtt`, some of it in the round before, as if they had arrived evenly.
    fn arrived_lately(&self, now: Instant, min_rtt: Duration) -> usize {
        let elapsed = now.saturating_duration_since(self.began);
        let before = within(self.last, min_rtt.saturating_sub(elapsed));
        (before + within(per_second(self.delivered, elapsed), min_rtt.min(elapsed))).min(MOST)
    }

    /// There was too little to send. While the limit grows it is ahead of whoever writes, for moments: a search goes on with half of it, or with twice what the
    /// path can hold, as the windows may never let it come to that.
    fn is_idle(&self, flying: usize) -> bool {
        let held = within(self.last, self.min_rtt.unwrap_or_default());
        let enough = (self.limit / 2).min((2 * held).max(self.initial));
        self.idle && !(matches!(self.state, State::Search { .. }) && flying >= enough)
    }

    fn begin_round(&mut self, now: Instant, next: u64) {
        self.began = now;
        self.ends = next;
        self.delivered = 0;
        self.not_grown = 0;
        self.shortest = None;
        self.idle = self.idle_before.is_some();
    }

    fn bandwidth(&self) -> u64 {
        self.bandwidths.into_iter().max().unwrap_or(0)
    }

    fn headroom(&self, min_rtt: Duration) -> Duration {
        let time = Duration::from_nanos(HEADROOM * 1_000_000_000 / self.bandwidth().max(1));
        time.max(min_rtt).min(LONGEST_HEADROOM)
    }

    fn end_round(&mut self, now: Instant, elapsed: Duration, news: Acknowledged) {
        // What waited longer than that came no faster than in that time. Where acknowledgements were held up and came at once, most of it lies in the
        // round before.
        let waited = news.round_trip.zip(self.min_rtt).map(|(rtt, min)| rtt.saturating_sub(min));
        let time = elapsed.max(waited.unwrap_or_default());
        let before = within(self.last, time - elapsed) as u64;
        let bandwidth = per_second(self.delivered.saturating_add(before), time);
        self.last = bandwidth;
        let (before, idle) = (self.bandwidth(), self.is_idle(news.flying));
        let draining = matches!(self.state, State::Drain { .. });
        if (!idle && !draining) || bandwidth > before {
            self.bandwidths[self.next] = bandwidth;
            self.next = (self.next + 1) % ROUNDS;
        }
        match &mut self.state {
            State::Search { best, without_growth, .. } if !idle => {
                let full =
                    self.min_rtt.zip(self.shortest).is_some_and(|(min, now)| now > min + min / 8 + LONGEST_HEADROOM);
                let more = bandwidth > *best + *best / 4;
                if (full && !more) || *without_growth >= PATIENCE {
                    self.state = State::Cruise { rounds: 0 };
                } else if more {
                    (*best, *without_growth) = (bandwidth, 0);
                } else if !self.idle {
                    *without_growth += 1;
                }
            }
            State::Search { .. } => {}
            State::Cruise { rounds } => {
                *rounds = rounds.saturating_add(1);
                if *rounds > 2 {
                    self.hope(bandwidth);
                    self.doubt(now, bandwidth, idle);
                }
            }
            State::Drain { rounds, .. } => {
                *rounds += 1;
                // The first round still was on its way when the draining began.
                if *rounds >= 2 && news.flying <= self.limit {
                    self.end_drain(now, bandwidth, per_second(self.delivered, elapsed));
                }
            }
        }
    }

    /// A path with more bandwidth lets it grow by the headroom's share, every other round. When it does so again there is more to be found.
    fn hope(&mut self, bandwidth: u64) {
        let Some(min_rtt) = self.min_rtt else { return };
        let (steps, before, rounds) = self.growing;
        let half = self.headroom(min_rtt) / 2;
        self.growing = if within(before, min_rtt + half) < within(bandwidth, min_rtt) {
            (steps + 1, bandwidth, 0)
        } else if rounds < PATIENCE {
            (steps, before, rounds + 1)
        } else {
            (0, self.bandwidth(), 0)
        };
        if self.growing.0 >= PATIENCE {
            self.growing = (0, bandwidth, 0);
            self.state = State::Search { best: bandwidth, without_growth: 0, grown: self.limit };
        }
    }

    /// Is the path still the one that is believed in?
    fn doubt(&mut self, now: Instant, bandwidth: u64, idle: bool) {
        let (Some(min_rtt), Some(shortest)) = (self.min_rtt, self.shortest) else { return };
        // What is less than that nobody minds, and it may be the machine's.
        let explained = (min_rtt + self.headroom(min_rtt)) * 5 / 4 + LONGEST_HEADROOM;
        self.contradicted = match (idle, shortest) {
            (false, shortest) if shortest > 2 * explained => PATIENCE,
            (false, shortest) if shortest > explained => self.contradicted + 1,
            _ => 0,
        };
        if self.contradicted >= PATIENCE {
            self.drain_in_doubt(bandwidth);
        } else if now.saturating_duration_since(self.min_rtt_seen) >= BELIEVED {
            self.drain(false);
        }
    }

    /// Nothing is believed but what the last round has brought.
    fn drain_in_doubt(&mut self, bandwidth: u64) {
        self.bandwidths = [bandwidth; ROUNDS];
        self.drain(true);
    }

    fn drain(&mut self, doubted: bool) {
        self.contradicted = 0;
        self.state = State::Drain { shortest: None, rounds: 0, doubted, before: None };
    }

    /// `arriving`: what acknowledgements bring while they come, at the path's pace if it is full, whenever that was sent.
    fn end_drain(&mut self, now: Instant, bandwidth: u64, arriving: u64) {
        let State::Drain { shortest: Some(seen), doubted, before, .. } = self.state else { return };
        // Where half of it is one packet that always comes at the path's pace.
        let shorter = before.is_none_or(|before| seen < before / 16 * 15);
        if arriving > self.bandwidth() / 16 * 15 && shorter && !self.idle {
            self.min_rtt = self.min_rtt.map(|min| min.min(seen));
            self.state = State::Drain { shortest: None, rounds: 0, doubted, before: Some(seen) };
            return;
        }
        let longer = self.min_rtt.is_some_and(|before| seen > before * 5 / 4);
        if longer && !doubted {
            return self.drain_in_doubt(bandwidth);
        }
        self.min_rtt = Some(seen);
        self.min_rtt_seen = now;
        self.state = if doubted && longer {
            State::Search { best: 0, without_growth: 0, grown: self.limit }
        } else {
            State::Cruise { rounds: 0 }
        };
    }

    fn update_limit(&mut self) {
        let (bandwidth, Some(min_rtt)) = (self.bandwidth(), self.min_rtt) else { return };
        let min_rtt = min_rtt.max(SHORTEST_RTT);
        let limit = match self.state {
            State::Search { grown, .. } => within(bandwidth, min_rtt + min_rtt.max(self.headroom(min_rtt))).max(grown),
            State::Cruise { .. } => within(bandwidth, min_rtt + self.headroom(min_rtt)),
            State::Drain { before: None, .. } => within(bandwidth, min_rtt) * 7 / 8,
            State::Drain { before: Some(_), .. } => within(bandwidth, min_rtt) / 2,
        };
        self.limit = limit.clamp(LEAST, MOST);
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let nanos = time.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// Bytes that come in a time.
fn within(per_second: u64, time: Duration) -> usize {
    let bytes = u128::from(per_second) * time.as_nanos() / 1_000_000_000;
    usize::try_from(bytes).unwrap_or(MOST).min(MOST)
}

/// The numbers of the module's doc, one by one. What they amount to on a path is in `tests/flight.rs`.
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests {
    use super::*;

    const INITIAL: usize = 64 << 10;
    /// Bytes a second.
    const RATE: u64 = 10_000_000;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// One that has believed in a path for a while.
    fn believing(bandwidth: u64, min_rtt: Duration, state: State) -> Flight {
        let mut flight = Flight::new(Instant::now(), 0, INITIAL);
        flight.bandwidths = [bandwidth; ROUNDS];
        flight.last = bandwidth;
        flight.min_rtt = Some(min_rtt);
        flight.state = state;
        flight.update_limit();
        flight
    }

    const CRUISE: State = State::Cruise { rounds: 0 };

    const fn search(best: u64, without_growth: u32, grown: usize) -> State {
        State::Search { best, without_growth, grown }
    }

    const fn drain(shortest: Option<Duration>, rounds: u32, doubted: bool, before: Option<Duration>) -> State {
        State::Drain { shortest, rounds, doubted, before }
    }

    /// A path on which everything that is on its way is acknowledged at once, a round trip after it was sent.
    struct Rounds {
        now: Instant,
        order: u64,
        flight: Flight,
    }

    impl Rounds {
        fn of(flight: Flight) -> Self {
            Self { now: flight.began, order: flight.ends, flight }
        }

        fn new() -> Self {
            Self::of(Flight::new(Instant::now(), 10, INITIAL))
        }

        fn round(&mut self, bytes: usize, rtt: Duration) {
            self.round_with(bytes, rtt, 0);
        }

        fn round_with(&mut self, bytes: usize, rtt: Duration, flying: usize) {
            self.after(rtt, bytes, rtt, flying);
        }

        /// All was on its way longer than it took to be acknowledged, or shorter.
        fn after(&mut self, time: Duration, bytes: usize, rtt: Duration, flying: usize) {
            self.now += time;
            let (order, next) = (self.order, self.order + 10);
            self.order = next;
            let news = Acknowledged { bytes, round_trip: Some(rtt), order, next, flying };
            self.flight.on_acknowledged(self.now, news);
        }

        /// Some of what is on its way.
        fn part(&mut self, bytes: usize, rtt: Duration) {
            let news =
                Acknowledged { bytes, round_trip: Some(rtt), order: self.order - 1, next: self.order, flying: 0 };
            self.flight.on_acknowledged(self.now, news);
        }
    }

    #[test]
    fn cruising_leaves_room_for_a_headroom_that_is_a_time() {
        for (bandwidth, min_rtt, limit) in [
            (RATE, ms(10), 296_608),             // 192 KiB take 19.66 ms
            (1_000_000_000, ms(10), 20_000_000), // 0.2 ms, but min_rtt at least
            (1_000_000, ms(10), 35_000),         // 197 ms, but 25 ms at most
            (RATE, ms(100), 1_250_000),          // 25 ms at most, whatever min_rtt is
            (1_000_000_000, us(10), 246_608),    // 50 us are the shortest
            (1_000, ms(10), 4 * 1400),           // the least
            (u64::MAX, ms(10), 1 << 30),         // the most
            (0, ms(10), 4 * 1400),
        ] {
            let flight = believing(bandwidth, min_rtt, CRUISE);
            assert_eq!(flight.limit(), limit, "{bandwidth} bytes/s, {min_rtt:?}");
        }
    }

    #[test]
    fn searching_takes_twice_the_path_and_draining_less_than_it() {
        let limit = |state| believing(RATE, ms(10), state).limit();
        assert_eq!(believing(RATE, ms(100), search(0, 0, 0)).limit(), 2_000_000);
        assert_eq!(limit(search(0, 0, 0)), limit(CRUISE), "never less than then");
        assert_eq!(limit(search(0, 0, 400_000)), 400_000);
        assert_eq!(believing(1_000, ms(10), search(0, 0, INITIAL)).limit(), INITIAL);
        assert_eq!(believing(1_000, ms(10), search(0, 0, 0)).limit(), LEAST, "not what a first search begins with");
        assert_eq!(limit(drain(None, 0, false, None)), 87_500);
        assert_eq!(limit(drain(None, 0, false, Some(ms(10)))), 50_000);
    }

    #[test]
    fn a_new_carrier_begins_with_an_eighth_within_bounds() {
        let now = Instant::now();
        for (before, begin) in [(100_000, INITIAL), (800_000, 100_000), (1 << 30, 4 * INITIAL)] {
            let mut flight = believing(RATE, ms(10), CRUISE);
            flight.limit = before;
            let resumed = flight.resumed(now, 7, false);
            assert_eq!((resumed.limit(), resumed.state, resumed.ends), (begin, search(0, 0, begin), 7));
        }
        for (before, begin) in [(1_000, INITIAL), (800_000, 600_000), (1 << 30, 3 << 28)] {
            let mut flight = believing(RATE, ms(10), CRUISE);
            flight.limit = before;
            assert_eq!(flight.resumed(now, 7, true).limit(), begin, "the same path");
        }
        assert_eq!(Flight::new(now, 0, 1).resumed(now, 0, false).limit(), LEAST);
    }

    #[test]
    fn a_round_lasts_until_all_is_acknowledged_that_was_on_its_way_and_a_millisecond() {
        let mut path = Rounds::new();
        path.now += ms(50);
        path.part(600_000, ms(50));
        assert_eq!(path.flight.bandwidth(), 0, "the rest is still on its way");
        path.round(400_000, ms(50));
        assert_eq!(path.flight.bandwidth(), RATE, "1,000,000 bytes in 100 ms");
        path.round(1_000, us(999));
        assert_eq!(path.flight.next, 1, "too short to be a round");
        path.round(1_000, us(1));
        assert_eq!(path.flight.next, 2);
        assert_eq!(path.flight.bandwidths[..2], [RATE, 2_000_000]);
    }

    /// The kernel has lost a packet: nothing behind it is read until it has come again, and then everything at once.
    #[test]
    fn what_was_held_up_and_comes_at_once_was_not_sent_at_once() {
        let mut path = Rounds::of(believing(RATE, ms(100), CRUISE));
        path.round(1_000_000, ms(100));
        path.after(ms(900), 1_000_000, ms(900), 0);
        assert_eq!(path.flight.last, 1_111_111, "900 ms");
        path.after(ms(2), 1_000_000, ms(802), 0);
        assert_eq!(path.flight.last, 2_532_445, "and 700 ms of the round before are 777,777 bytes in 702 ms");
        path.flight.on_idle(path.order);
        path.now += ms(50);
        path.flight.on_first_sent(path.now, path.order);
        path.after(ms(40), 800_000, ms(10), 0);
        assert_eq!(path.flight.last, 2 * RATE, "it began to be sent when the round began");
    }

    /// Measured at 2 Mbit/s and 150 ms, where a search had filled the buffer until the kernel lost a packet: bytes, and how long they took and were on their way, in
    /// milliseconds. What came last had been sent within 62 ms, and was taken for 838 KB/s, which it took 3 s to forget.
    #[test]
    fn what_was_sent_in_a_bunch_and_held_up_is_no_more_than_the_path_brings() {
        let mut path = Rounds::new();
        for (bytes, time, rtt) in
            [(64_400, 400, 165), (99_400, 487, 327), (131_600, 601, 353), (131_600, 751, 606), (51_800, 8, 697)]
        {
            path.after(ms(time), bytes, ms(rtt), 0);
        }
        assert!(path.flight.last < 275_000, "{}", path.flight.last);
        assert!(path.flight.bandwidth() < 275_000, "{}", path.flight.bandwidth());
    }

    #[test]
    fn the_best_of_five_rounds_counts() {
        let mut path = Rounds::new();
        path.round(1_000_000, ms(100));
        for _ in 0..4 {
            path.round(500_000, ms(100));
            assert_eq!(path.flight.bandwidth(), RATE);
        }
        path.round(500_000, ms(100));
        assert_eq!(path.flight.bandwidth(), RATE / 2);
    }

    #[test]
    fn the_search_ends_after_three_rounds_without_a_quarter_more() {
        let mut path = Rounds::new();
        path.round(1_000_000, ms(100));
        let mut grown = INITIAL + 1_000_000;
        assert_eq!(path.flight.state, search(RATE, 0, grown));
        for without_growth in 1..=3 {
            path.round(1_250_000, ms(100));
            grown = if without_growth < 3 { (grown + 1_250_000).min(2_500_000) } else { grown };
            assert_eq!(path.flight.state, search(RATE, without_growth, grown), "a quarter is not enough");
        }
        let mut more = Rounds { flight: Flight { state: search(RATE, 1, 0), ..path.flight }, ..path };
        more.round(1_250_100, ms(100));
        assert_eq!(more.flight.state, search(12_501_000, 0, 1_250_100), "a little more is");
        more.flight.state = search(RATE, 3, 0);
        more.round(1_000_000, ms(100));
        assert_eq!(more.flight.state, CRUISE);
    }

    #[test]
    fn the_search_ends_at_once_when_a_queue_forms_and_brings_no_more() {
        let begun = || {
            let mut path = Rounds::new();
            path.round(1_000_000, ms(100));
            path.flight.state = search(RATE, 0, 0);
            path
        };
        // A queue is an eighth of the shortest round trip and 25 ms.
        let mut path = begun();
        path.round(1_375_000, us(137_500));
        assert_eq!(path.flight.state, search(RATE, 1, 1_375_000));
        path.round(1_375_000, us(137_501));
        assert_eq!(path.flight.state, CRUISE);
        let mut path = begun();
        path.round(4_000_000, ms(138));
        assert!(matches!(path.flight.state, State::Search { without_growth: 0, .. }), "it brings more");
    }

    #[test]
    fn what_has_arrived_lately_is_of_a_round_trip_or_an_average() {
        let mut flight = believing(RATE, ms(100), search(RATE, 0, 0));
        flight.last = RATE;
        for (elapsed, delivered, lately) in [
            (ms(0), 0, 1_000_000),
            (ms(40), 300_000, 900_000), // and 60 ms of the round before
            (ms(100), 1_500_000, 1_500_000),
            (ms(200), 3_000_000, 1_500_000),
        ] {
            flight.delivered = delivered;
            assert_eq!(flight.arrived_lately(flight.began + elapsed, ms(100)), lately, "{elapsed:?}");
        }
    }

    #[test]
    fn the_search_grows_with_what_is_acknowledged_to_twice_what_has_arrived_lately() {
        let begun = |grown| {
            let mut path = Rounds::of(Flight { ends: 10, ..believing(0, ms(100), search(0, 0, grown)) });
            path.now += ms(100);
            path
        };
        for (grown, then) in [(30_000, 70_000), (60_000, 80_000), (80_000, 80_000), (100_000, 100_000)] {
            let mut path = begun(grown);
            path.part(40_000, ms(100));
            assert_eq!(path.flight.state, search(0, 0, then));
            assert_eq!(path.flight.limit(), then);
        }
        // What could not be grown by yet is not forgotten in this round.
        let mut path = begun(80_000);
        path.part(40_000, ms(100));
        path.part(10_000, ms(100));
        assert_eq!(path.flight.limit(), 100_000, "twice 50,000");
        path.part(100_000, ms(100));
        assert_eq!(path.flight.limit(), 80_000 + 150_000);
        path.round(0, ms(100));
        path.part(10, ms(100));
        assert_eq!(path.flight.not_grown, 10);
        let mut path = begun(INITIAL);
        path.part(2 << 30, ms(100));
        assert_eq!(path.flight.limit(), 1 << 30);
    }

    #[test]
    fn the_search_grows_and_ends_only_if_half_of_the_limit_is_used() {
        let (half, quiet) = (INITIAL / 2, INITIAL / 2 - 1);
        for (bytes, grown) in [(quiet, INITIAL), (half, INITIAL + half)] {
            let mut path = Rounds::new();
            path.flight.on_idle(path.order);
            path.now += ms(100);
            path.flight.delivered = 100_000;
            let (order, next) = (path.order - 1, path.order);
            let news = Acknowledged { bytes, round_trip: Some(ms(100)), order, next, flying: 0 };
            path.flight.on_acknowledged(path.now, news);
            assert_eq!(path.flight.state, search(0, 0, grown), "{bytes}");
        }
        for (flying, state) in [(999_999, search(RATE, 3, 1_000_000)), (1_000_000, CRUISE)] {
            let mut path = Rounds::of(believing(RATE, ms(100), search(RATE, 3, 0)));
            path.flight.on_idle(path.order);
            path.round_with(1_000_000, ms(100), flying);
            assert_eq!(path.flight.state, state, "{flying} of 2,000,000");
        }
        // Four times as long the path could do more than the windows let go, and of that is believed now: a fifth of the limit is twice what it holds.
        for (flying, searching) in [(1_999_999, true), (2_000_000, false)] {
            let mut path = Rounds::of(believing(5 * RATE, ms(100), search(5 * RATE, 0, 0)));
            path.flight.on_idle(path.order);
            path.round_with(1_380_000, ms(138), flying);
            assert_eq!(matches!(path.flight.state, State::Search { .. }), searching, "{flying} of 10,000,000");
        }
        // Whoever writes half of what he might, and makes no queue, has not shown what the path can do.
        let mut path = Rounds::of(believing(RATE, ms(100), search(RATE, 0, 0)));
        for (rtt, searching) in [(100, true), (137, true), (138, false)] {
            for _ in 0..5 {
                path.flight.on_idle(path.order);
                path.round_with(0, ms(rtt), 1_000_000);
            }
            assert_eq!(matches!(path.flight.state, State::Search { .. }), searching, "{rtt} ms");
        }
        let mut flight = believing(RATE, ms(100), CRUISE);
        flight.idle = true;
        assert!(flight.is_idle(flight.limit), "cruising it is idle with a moment's too little");
    }

    #[test]
    fn a_round_with_too_little_to_send_says_only_that_so_much_is_possible() {
        let mut path = Rounds::new();
        path.round(1_000_000, ms(100));
        let state = path.flight.state;
        for _ in 0..10 {
            path.flight.on_idle(path.order);
            path.round(1_000, ms(100));
        }
        assert_eq!((path.flight.state, path.flight.bandwidth()), (state, RATE), "no sign of anything");
        path.flight.on_idle(path.order);
        path.round(2_000_000, ms(100));
        assert_eq!(path.flight.bandwidth(), 2 * RATE);
        // Until everything has arrived that was sent before or then, and the round after that is over.
        path.flight.on_idle(path.order + 10);
        path.round(1_000, ms(100));
        assert!(path.flight.idle);
        path.round(1_000, ms(100));
        assert!(!path.flight.idle);
        path.round(1_000, ms(100));
        assert!(path.flight.bandwidths.contains(&10_000), "now it counts");
    }

    #[test]
    fn a_pause_in_which_there_was_nothing_to_send_is_no_part_of_a_round() {
        let mut path = Rounds::new();
        path.now += ms(900);
        path.flight.on_first_sent(path.now, path.order);
        path.round(1_000_000, ms(100));
        assert_eq!(path.flight.bandwidth(), 1_000_000, "there was always more to send");
        path.flight.on_idle(path.order);
        path.now += ms(900);
        path.flight.on_first_sent(path.now, path.order);
        path.round(1_000_000, ms(100));
        assert_eq!(path.flight.bandwidth(), RATE);
    }

    #[test]
    fn the_shortest_round_trip_is_seen_again_with_a_sixteenth_more() {
        let mut path = Rounds::new();
        path.part(1, ms(160));
        let first = path.now;
        for (rtt, seen) in [(171, false), (170, true), (160, true), (159, true)] {
            path.now += ms(10);
            path.flight.min_rtt_seen = first;
            path.part(1, ms(rtt));
            assert_eq!(path.flight.min_rtt_seen == path.now, seen, "{rtt} ms");
        }
        assert_eq!(path.flight.min_rtt, Some(ms(159)));
    }

    #[test]
    fn cruising_ends_when_the_path_brings_more_three_times() {
        // Half of the headroom is an eighth of this path.
        let hope = |growing, bandwidth| {
            let mut flight = believing(RATE, ms(100), CRUISE);
            flight.growing = growing;
            flight.hope(bandwidth);
            (flight.growing, flight.state)
        };
        assert_eq!(hope((0, RATE, 0), 11_250_000), ((0, RATE, 1), CRUISE), "not more than it must");
        assert_eq!(hope((0, RATE, 1), 11_250_010), ((1, 11_250_010, 0), CRUISE));
        assert_eq!(hope((1, RATE, 2), RATE), ((1, RATE, 3), CRUISE));
        assert_eq!(hope((1, 2 * RATE, 3), RATE), ((0, RATE, 0), CRUISE), "too long ago");
        let found = search(2 * RATE, 0, 1_250_000);
        assert_eq!(hope((2, RATE, 3), 2 * RATE), ((0, 2 * RATE, 0), found));
    }

    /// What is explained is 5/4 of the round trip with the headroom, and 25 ms: here 181.25 ms.
    #[test]
    fn a_path_that_answers_later_than_the_limit_explains_is_drained() {
        let doubt = |contradicted, shortest, idle| {
            let mut flight = believing(RATE, ms(100), CRUISE);
            flight.contradicted = contradicted;
            flight.shortest = Some(shortest);
            flight.doubt(flight.began, 5_000_000, idle);
            (flight.contradicted, flight.state, flight.bandwidth())
        };
        let (in_doubt, halved) = (drain(None, 0, true, None), 5_000_000);
        assert_eq!(doubt(1, us(181_250), false), (0, CRUISE, RATE));
        assert_eq!(doubt(1, us(181_251), false), (2, CRUISE, RATE));
        assert_eq!(doubt(1, us(181_251), true), (0, CRUISE, RATE), "that may have been anything");
        assert_eq!(doubt(2, us(181_251), false), (0, in_doubt, halved), "three rounds in a row");
        assert_eq!(doubt(0, us(362_500), false), (1, CRUISE, RATE));
        assert_eq!(doubt(0, us(362_501), false), (0, in_doubt, halved), "at once");
    }

    #[test]
    fn a_path_that_was_not_seen_without_a_queue_for_ten_seconds_is_drained() {
        for (age, state) in [(ms(9_999), CRUISE), (ms(10_000), drain(None, 0, false, None))] {
            let mut flight = believing(RATE, ms(100), CRUISE);
            flight.shortest = Some(ms(120));
            flight.doubt(flight.min_rtt_seen + age, RATE, false);
            assert_eq!((flight.state, flight.bandwidth()), (state, RATE));
        }
    }

    #[test]
    fn cruising_is_judged_from_the_third_round_on() {
        let mut path = Rounds::of(believing(RATE, ms(100), CRUISE));
        for rounds in 1..=2 {
            path.round(1_000_000, ms(500));
            assert_eq!(path.flight.state, State::Cruise { rounds });
        }
        path.round(1_000_000, ms(500));
        assert_eq!(path.flight.state, drain(None, 0, true, None));
        assert_eq!(path.flight.limit(), 2_000_000 / 10 * 7 / 8, "what the last round has brought");
    }

    #[test]
    fn draining_lasts_two_rounds_and_until_no_more_is_on_its_way_than_may_be() {
        let mut path = Rounds::of(believing(RATE, ms(100), drain(None, 0, false, None)));
        path.round_with(10_000, ms(110), 0);
        assert_eq!(path.flight.state, drain(Some(ms(110)), 1, false, None));
        path.round_with(10_000, ms(105), 875_001);
        path.part(1, ms(120));
        assert_eq!(path.flight.state, drain(Some(ms(105)), 2, false, None));
        path.round_with(10_000, ms(120), 875_000);
        assert_eq!((path.flight.state, path.flight.min_rtt), (CRUISE, Some(ms(105))));
        assert_eq!(path.flight.min_rtt_seen, path.now);
        assert_eq!(path.flight.bandwidths, [RATE; ROUNDS], "less was brought because less was sent");
        path.flight.state = drain(None, 0, false, None);
        path.round(2_400_000, ms(120));
        assert_eq!(path.flight.bandwidth(), 2 * RATE, "but more is more");
        // What was not sent for a while does not hide that the path is full.
        path.flight.state = drain(Some(ms(120)), 1, false, None);
        path.after(ms(100), 2_000_000, ms(20), 0);
        assert_eq!(path.flight.state, drain(None, 0, false, Some(ms(20))));
    }

    #[test]
    fn what_draining_shows_decides_how_it_goes_on() {
        let end = |seen, doubted, bandwidth, idle| {
            let mut flight = believing(RATE, ms(100), drain(Some(seen), 2, doubted, None));
            flight.idle = idle;
            flight.end_drain(flight.began, bandwidth, bandwidth);
            (flight.state, flight.min_rtt, flight.bandwidth())
        };
        let slow = 5_000_000;
        // Within a sixteenth as fast as ever: there is a queue of ours still.
        assert_eq!(end(ms(99), true, 9_375_001, false), (drain(None, 0, true, Some(ms(99))), Some(ms(99)), RATE));
        assert_eq!(end(ms(200), false, 9_375_001, false), (drain(None, 0, false, Some(ms(200))), Some(ms(100)), RATE));
        assert_eq!(end(ms(99), true, 9_375_000, false), (CRUISE, Some(ms(99)), RATE));
        assert_eq!(end(ms(99), true, 9_375_001, true), (CRUISE, Some(ms(99)), RATE));
        // Up to a quarter longer it is the same path.
        assert_eq!(end(ms(125), false, slow, false), (CRUISE, Some(ms(125)), RATE));
        assert_eq!(end(ms(125), true, slow, false), (CRUISE, Some(ms(125)), RATE));
        assert_eq!(end(ms(126), false, slow, false), (drain(None, 0, true, None), Some(ms(100)), slow));
        assert_eq!(end(ms(126), true, slow, false), (search(0, 0, 875_000), Some(ms(126)), RATE));
    }

    /// Where half of the path is one packet, each round brings one, at the path's pace. That went on for ever, at three quarters of the rate.
    #[test]
    fn draining_goes_on_only_while_round_trips_become_shorter() {
        let end = |seen| {
            let mut flight = believing(RATE, ms(16), drain(Some(seen), 2, false, Some(ms(16))));
            flight.end_drain(flight.began, RATE, RATE);
            flight.state
        };
        assert_eq!(end(us(14_999)), drain(None, 0, false, Some(us(14_999))));
        assert_eq!(end(ms(15)), CRUISE);
        assert_eq!(end(ms(16)), CRUISE);
    }
}
