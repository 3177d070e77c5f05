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
