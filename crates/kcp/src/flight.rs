//! How many bytes may be on their way at once, towards a peer of our own kind: enough to fill the path, little enough not to fill its buffers.
//!
//! In: bytes acknowledged, round trips, and whether there was more to send. Out: [`Flight::limit`], in bytes.
//!
//! The carrier below has its own congestion control, which keeps the path full by filling the buffers on it. What lies there can be
//! overtaken by nothing, costs memory at both ends, and is resent when the carrier dies. So no more is handed to it than this:
//!
//! ```text
//! bandwidth   most bytes a second acknowledged in one of the last 5 rounds      (a round: until all is acknowledged that was on its way)
//! min_rtt     shortest round trip of the last 10 s, but 50 us at least
//! headroom    what 192 KiB take, but min_rtt at least and 25 ms at most
//!
//! Search      limit = 3 x bandwidth x min_rtt     until bandwidth has not grown by a quarter for 3 rounds; it begins with 64 KiB, after a cut with
//!                     an eighth of what was before, at most 256 KiB, and grows by what is acknowledged within twice min_rtt
//! Cruise      limit = bandwidth x (min_rtt + headroom)
//! Drain       limit = 7/8 x bandwidth x min_rtt   for two rounds, to see the path without a queue of ours;
//!             half of it as long as the path is full all the same: there still is a queue
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

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The bandwidth may be larger than all that was seen.
    Search { best: u64, without_growth: u32, grown: usize },
    /// It is known. In the first two rounds there is still on its way what was sent before that.
    Cruise { rounds: u32 },
    /// The queue of ours is let run empty; what was before is what it came from.
    Drain { shortest: Option<Duration>, rounds: u32, doubted: bool, deep: bool },
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
    min_rtt: Option<Duration>,
    min_rtt_seen: Instant,
    contradicted: u32,
    /// Steps by which the bandwidth has grown lately, what it was at the last, and rounds since then.
    growing: (u32, u64, u32),

    // The round at hand.
    began: Instant,
    /// When the transmissions below this have arrived.
    ends: u64,
    delivered: u64,
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
            min_rtt: None,
            min_rtt_seen: now,
            contradicted: 0,
            growing: (0, 0, 0),
            began: now,
            ends: next,
            delivered: 0,
            shortest: None,
            idle: false,
            idle_before: None,
        }
    }

    /// For the next path of the same session: most of the time it is much like the last, so a share of what was on its way there begins.
    pub(crate) fn resumed(&self, now: Instant, next: u64) -> Self {
        let begin = (self.limit / RESUMED_SHARE).clamp(self.initial, self.initial.saturating_mul(MOST_RESUMED));
        let mut flight = Self::new(now, next, self.initial);
        flight.state = State::Search { best: 0, without_growth: 0, grown: begin };
        flight.limit = begin.max(LEAST);
        flight
    }

    /// Bytes that may be on their way.
    pub(crate) fn limit(&self) -> usize {
        self.limit
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
            // Nothing waits for as long as a round trip: the carrier may send twice as much in the next.
            if let State::Search { grown, .. } = &mut self.state
                && !self.idle
                && self.min_rtt.is_some_and(|min| rtt <= 2 * min)
            {
                *grown = (*grown + news.bytes).min(MOST);
                self.update_limit();
            }
        }
        if self.idle_before.is_some_and(|before| news.order >= before) {
            self.idle_before = None;
        }
        let elapsed = now.saturating_duration_since(self.began);
        if news.order >= self.ends && elapsed >= SHORTEST_ROUND {
            self.end_round(now, elapsed, news);
            self.begin_round(now, news.next);
            self.update_limit();
        }
    }

    fn begin_round(&mut self, now: Instant, next: u64) {
        self.began = now;
        self.ends = next;
        self.delivered = 0;
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
        let bandwidth = per_second(self.delivered, elapsed);
        let (before, idle) = (self.bandwidth(), self.idle);
        let draining = matches!(self.state, State::Drain { .. });
        if (!idle && !draining) || bandwidth > before {
            self.bandwidths[self.next] = bandwidth;
            self.next = (self.next + 1) % ROUNDS;
        }
        match &mut self.state {
            State::Search { best, without_growth, .. } if !idle => {
                let full = self
                    .min_rtt
                    .zip(self.shortest)
                    .is_some_and(|(min, now)| now > min + min / 2 + 2 * LONGEST_HEADROOM);
                let more = bandwidth > *best + *best / 4;
                if (full && !more) || *without_growth >= PATIENCE {
                    self.state = State::Cruise { rounds: 0 };
                } else if more {
                    (*best, *without_growth) = (bandwidth, 0);
                } else {
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
                    self.end_drain(now, bandwidth);
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
        self.state = State::Drain { shortest: None, rounds: 0, doubted, deep: false };
    }

    fn end_drain(&mut self, now: Instant, bandwidth: u64) {
        let State::Drain { shortest: Some(seen), doubted, .. } = self.state else { return };
        if bandwidth > self.bandwidth() / 16 * 15 && !self.idle {
            self.min_rtt = self.min_rtt.map(|min| min.min(seen));
            self.state = State::Drain { shortest: None, rounds: 0, doubted, deep: true };
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
            State::Search { grown, .. } => (3 * within(bandwidth, min_rtt)).max(self.initial).max(grown),
            State::Cruise { .. } => within(bandwidth, min_rtt + self.headroom(min_rtt)),
            State::Drain { deep: false, .. } => within(bandwidth, min_rtt) * 7 / 8,
            State::Drain { deep: true, .. } => within(bandwidth, min_rtt) / 2,
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
