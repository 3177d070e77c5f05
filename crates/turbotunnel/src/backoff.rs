//! How long to wait before the next dial.
//!
//! ```text
//! dials without progress   1     2       3       4    ...
//! wait before it           0  100 ms  200 ms  400 ms  ...  at most `longest`, each shortened by up to a quarter
//! ```
//!
//! Progress means that the peer acknowledged something or sent something new. A connection that opens and dies at once is
//! no progress: a server that accepts and closes would otherwise be dialled thousands of times a second.
//!
//! A server that makes some progress on each connection and then closes it means no good either, so dials are 10 ms apart in any case. Where a round trip
//! takes longer than that nobody notices.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
pub(crate) const LONGEST: Duration = Duration::from_secs(4);
/// From one dial to the next, with progress or without: at most a hundred a second.
const APART: Duration = Duration::from_millis(10);

/// The pause before each dial. Its random part comes from a seed, so that a simulation replays.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    without_progress: u32,
    last: Option<Instant>,
    /// 4 s unless something else is set.
    pub(crate) longest: Duration,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { without_progress: 0, last: None, longest: LONGEST, random: seed }
    }

    /// The pause before the next dial, which is counted as one without progress until [`Backoff::progress`].
    pub(crate) fn next(&mut self, now: Instant) -> Duration {
        let apart = self.last.map_or(Duration::ZERO, |last| (last + APART).saturating_duration_since(now));
        let pause = self.pause().max(apart);
        self.last = Some(now + pause);
        pause
    }

    /// The same after a dial that was refused: that is not repeated at once, whatever came before it.
    pub(crate) fn next_after_failure(&mut self, now: Instant) -> Duration {
        self.without_progress = self.without_progress.max(1);
        self.next(now)
    }

    fn pause(&mut self) -> Duration {
        let dials = self.without_progress;
        self.without_progress = dials.saturating_add(1);
        let Some(doublings) = dials.checked_sub(1) else { return Duration::ZERO };
        let full = FIRST.saturating_mul(1 << doublings.min(20)).min(self.longest);
        full - full.mul_f64(0.25 * self.next_share())
    }

    pub(crate) fn progress(&mut self) {
        self.without_progress = 0;
    }

    /// Uniform in 0..1 (splitmix64, Steele, Lea and Flood 2014).
    fn next_share(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a point to count virtual time from")]
mod tests {
    use super::*;

    /// A server that says one more segment on each connection, and closes it.
    #[test]
    fn progress_on_each_connection_buys_a_hundred_dials_a_second_and_no_more() {
        let start = Instant::now();
        let (mut backoff, mut now, mut dials) = (Backoff::new(7), start, 0);
        while now < start + Duration::from_secs(1) {
            now += backoff.next(now);
            dials += 1;
            // A round trip on loopback.
            now += Duration::from_micros(100);
            backoff.progress();
        }
        assert!((99..=101).contains(&dials), "{dials} dials in a second");
        // A carrier that lived for longer is replaced at once.
        assert_eq!(backoff.next(now + APART), Duration::ZERO);
    }

    #[test]
    fn pauses_double_up_to_four_seconds_and_progress_forgets_them() {
        for seed in 0..100 {
            let (mut backoff, mut now) = (Backoff::new(seed), Instant::now());
            let mut next = || {
                let pause = backoff.next(now);
                now += pause.max(APART);
                pause
            };
            let pauses: Vec<_> = (0..12).map(|_| next()).collect();
            assert_eq!(pauses[0], Duration::ZERO);
            for (i, pause) in pauses.iter().enumerate().skip(1) {
                let full = Duration::from_millis(100 << (i - 1)).min(LONGEST);
                assert!(*pause <= full && *pause >= full * 3 / 4, "pause {i} is {pause:?}");
            }
            let started_in_first_second = pauses
                .iter()
                .scan(Duration::ZERO, |at, pause| {
                    *at += *pause;
                    Some(*at)
                })
                .filter(|at| *at < Duration::from_secs(1))
                .count();
            assert!(started_in_first_second <= 10, "{started_in_first_second} dials in the first second");
            backoff.progress();
            assert_eq!(backoff.next(now + APART), Duration::ZERO);
        }
    }

    #[test]
    fn the_longest_pause_can_be_set() {
        let (mut backoff, mut now) = (Backoff::new(7), Instant::now());
        backoff.longest = Duration::from_secs(60);
        let pauses: Vec<_> = (0..14)
            .map(|_| {
                let pause = backoff.next_after_failure(now);
                now += pause;
                pause
            })
            .collect();
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(60)), "{pauses:?}");
        assert!(pauses[13] >= Duration::from_secs(45) && pauses[3] < Duration::from_secs(1), "{pauses:?}");
    }
}
