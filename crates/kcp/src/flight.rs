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
//! headroom    what 192 KiB take, but min_rtt at least and 25 ms at most; where acknowledgements come in bunches, 5/4 of the time that the second largest
//!                     of the last 5 rounds takes, 100 ms at most
//!
//! Search      limit = 2 x bandwidth x min_rtt     or Cruise's if that is more, until bandwidth has not grown by a quarter for 3 rounds, or for one and there is
//!                     a queue; it begins with 64 KiB, after a cut with an eighth of the limit before it, at most 256 KiB, or with three
//!                     quarters of that limit where the path is known to be the same, and grows by what is acknowledged
//!                     up to twice what has arrived in the last min_rtt
//! Cruise      limit = bandwidth x (min_rtt + headroom)
//! Drain       limit = 7/8 x bandwidth x min_rtt   for two rounds, to see the path without a queue of ours;
//!             1/2 instead of 7/8 if the path is full all the same, as there still is a queue, for as long as round trips become shorter by a sixteenth
//! ```
//!
//! The shape is that of BBR (Cardwell et al., 2016), without its pacing and its gains: the headroom is what probes for more bandwidth (on a path that
//! has more, the queue it makes does not form, and the next round acknowledges more), and it is a time, because what a small message
//! waits for beside a bulk transfer is a time. Where a path brings everything in bunches (radio links, some modems) round trips are longer than the shortest one by half of
//! the time between two bunches. A headroom that is shorter makes no queue, and so finds no bandwidth, at any rate. One bunch alone was a pause.
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
/// Shorter ones come of whose turn it is on this machine.
const SHORTEST_BUNCH: Duration = Duration::from_millis(2);
const LONGEST_BUNCH: Duration = Duration::from_millis(100);
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
    /// The queue of ours is let run empty; `doubted` is what it came from, and `before` the shortest round trip of the drain before this one.
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
    /// By how much more was acknowledged at once than the bandwidth explains, in the last rounds; the newest at `next`.
    bunches: [u64; ROUNDS],
    /// Bytes that this path has brought in the rounds before.
    brought: u64,
    fast: bool,

    // The round at hand.
    began: Instant,
    /// When the transmissions below this have arrived.
    ends: u64,
    delivered: u64,
    /// Since when more has been acknowledged than the bandwidth explains, and how much.
    bunch: (Instant, u64),
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
            bunches: [0; ROUNDS],
            brought: 0,
            fast: false,
            began: now,
            ends: next,
            delivered: 0,
            bunch: (now, 0),
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
        self.note_bunch(now, news.bytes as u64);
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
    /// path can hold, because the windows may never let half of the limit go.
    fn is_idle(&self, flying: usize) -> bool {
        let held = within(self.last, self.min_rtt.unwrap_or_default());
        let enough = (self.limit / 2).min((2 * held).max(self.initial.max(LEAST)));
        self.idle && !(matches!(self.state, State::Search { .. }) && flying >= enough)
    }

    fn begin_round(&mut self, now: Instant, next: u64) {
        self.began = now;
        self.ends = next;
        self.delivered = 0;
        self.not_grown = 0;
        self.bunch = (now, 0);
        self.shortest = None;
        self.idle = self.idle_before.is_some();
    }

    /// In the search more comes than is believed, bunches or not.
    fn note_bunch(&mut self, now: Instant, bytes: u64) {
        if matches!(self.state, State::Search { .. }) {
            self.bunches = [0; ROUNDS];
            return;
        }
        let (since, before) = self.bunch;
        let explained = within(self.bandwidth(), now.saturating_duration_since(since)) as u64;
        let more = before.saturating_sub(explained).saturating_add(bytes);
        self.bunch = if more == bytes { (now, bytes) } else { (since, before.saturating_add(bytes)) };
        self.bunches[self.next] = self.bunches[self.next].max(more);
    }

    fn bandwidth(&self) -> u64 {
        self.bandwidths.into_iter().max().unwrap_or(0)
    }

    fn headroom(&self, min_rtt: Duration) -> Duration {
        let time = Duration::from_nanos(HEADROOM * 1_000_000_000 / self.bandwidth().max(1));
        let time = time.max(min_rtt).min(LONGEST_HEADROOM);
        let mut bunches = self.bunches;
        bunches.sort_unstable();
        let again = bunches[ROUNDS - 2].min(MOST as u64);
        let bunch = Duration::from_nanos(again * 1_000_000_000 / self.bandwidth().max(1));
        if bunch > SHORTEST_BUNCH { time.max((bunch * 5 / 4).min(LONGEST_BUNCH)) } else { time }
    }

    fn end_round(&mut self, now: Instant, elapsed: Duration, news: Acknowledged) {
        // What waited longer than that came no faster than in that time. Where acknowledgements were held up and came at once, most of it lies in the
        // round before.
        let rtt = news.round_trip.or(self.shortest);
        let waited = rtt.zip(self.min_rtt).map(|(rtt, min)| rtt.saturating_sub(min));
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
        self.bunches[self.next] = 0;
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
        self.bunches = [0; ROUNDS];
        self.drain(true);
    }

    fn drain(&mut self, doubted: bool) {
        self.contradicted = 0;
        self.state = State::Drain { shortest: None, rounds: 0, doubted, before: None };
    }

    /// `arriving`: what acknowledgements bring while they come, at the path's pace if it is full, whenever that was sent.
    fn end_drain(&mut self, now: Instant, bandwidth: u64, arriving: u64) {
        let State::Drain { shortest: Some(seen), doubted, before, .. } = self.state else { return };
        // A path half of which is one packet is always full: that one comes at the path's pace.
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
            // What was believed of the shorter path is too much for this one, if it was the bandwidth that has fallen.
            self.bandwidths = [bandwidth; ROUNDS];
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
            State::Drain { before: None, .. } => within(bandwidth, min_rtt) / 8 * 7,
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

#[cfg(test)]
mod tests;
