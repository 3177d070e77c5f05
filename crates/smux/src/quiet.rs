//! The clock by which a stream is quiet: it stands still while the peer cannot reach us.

use std::time::{Duration, Instant};

/// After a pause, or on another path, at least this part of the quiet time has still to pass: what was on its way may be
/// lost and come again. No more, or paths that live shorter than the quiet time would never let a FIN go.
///
/// The pauses after which a Go program sends again grow linearly, so when nothing could arrive for a `gap` the next time may
/// be `sqrt(2 * timeout * gap)` away. Its first timeout is hardly ever longer than the quiet time.
const REST: u32 = 4;

/// A moment on the clock: how long it had run.
pub(crate) type Moment = Duration;

#[derive(Debug)]
pub(crate) struct QuietClock {
    /// When the clock began to run, had it never stood still.
    began: Instant,
    paused: Option<Instant>,
    /// No silence is long enough before.
    not_before: Instant,
}

impl QuietClock {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, paused: None, not_before: now }
    }

    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// `gap`: how long nothing could arrive.
    pub(crate) fn resume(&mut self, now: Instant, gap: Duration, quiet: Duration) {
        if let Some(paused) = self.paused.take() {
            let pause = now.saturating_duration_since(paused);
            self.began += pause;
            self.not_before += pause;
        }
        let comes_again = Duration::from_secs_f64((2.0 * quiet.as_secs_f64() * gap.as_secs_f64()).sqrt());
        self.not_before = self.not_before.max(now + comes_again.max(quiet / REST));
    }

    pub(crate) fn moment(&self, now: Instant) -> Moment {
        self.paused.unwrap_or(now).saturating_duration_since(self.began)
    }

    /// When a silence that began at `since` is as long as `quiet`. `None`: unknown while the clock stands still.
    pub(crate) fn deadline(&self, since: Moment, quiet: Duration) -> Option<Instant> {
        self.paused.is_none().then(|| (self.began + since + quiet).max(self.not_before))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn after_a_gap_what_was_lost_comes_again_after_the_root_of_twice_both() {
        let now = Instant::now();
        for (gap, quiet, rest) in [(50, 2, 14_142), (8, 9, 12_000), (0, 8, 2_000)] {
            let mut clock = QuietClock::new(now);
            clock.resume(now, secs(gap), secs(quiet));
            let deadline = clock.deadline(Duration::ZERO, Duration::ZERO).expect("it runs") - now;
            assert_eq!(deadline.as_millis(), rest, "{gap} s, {quiet} s");
        }
    }

    #[test]
    fn while_the_clock_stands_still_nothing_comes_nearer() {
        let now = Instant::now();
        let mut clock = QuietClock::new(now);
        clock.resume(now, secs(50), secs(1));
        clock.pause(now + secs(3));
        clock.pause(now + secs(4));
        assert_eq!(clock.moment(now + secs(60)), secs(3));
        assert_eq!(clock.deadline(secs(3), secs(1)), None);
        clock.resume(now + secs(63), secs(0), secs(1));
        assert_eq!(clock.moment(now + secs(64)), secs(4));
        assert_eq!(clock.deadline(secs(3), secs(1)), Some(now + secs(70)), "10 s after the first gap, and a minute");
        assert_eq!(clock.deadline(secs(13), secs(1)), Some(now + secs(74)));
    }
}
