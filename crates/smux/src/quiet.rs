//! The clock by which a stream is quiet: it stands still while the peer cannot reach us.

use std::time::{Duration, Instant};

/// After a pause, or on another path, at least this part of the quiet time has still to pass: what was on its way may be
/// lost and come again. No more, or paths that live shorter than the quiet time would never let a FIN go.
const REST: u32 = 4;

/// A moment on the clock: how long it had run.
pub(crate) type Moment = Duration;

#[derive(Debug)]
pub(crate) struct QuietClock {
    /// When the clock began to run, had it never stood still.
    began: Instant,
    paused: Option<Instant>,
    resumed: Option<Instant>,
}

impl QuietClock {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, paused: None, resumed: None }
    }

    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    pub(crate) fn resume(&mut self, now: Instant) {
        if let Some(paused) = self.paused.take() {
            self.began += now.saturating_duration_since(paused);
        }
        self.resumed = Some(now);
    }

    pub(crate) fn moment(&self, now: Instant) -> Moment {
        self.paused.unwrap_or(now).saturating_duration_since(self.began)
    }

    /// When a silence that began at `since` is as long as `quiet`. `None`: unknown while the clock stands still.
    pub(crate) fn deadline(&self, since: Moment, quiet: Duration) -> Option<Instant> {
        let due = self.began + since + quiet;
        match (self.paused, self.resumed) {
            (Some(_), _) => None,
            (None, Some(resumed)) => Some(due.max(resumed + quiet / REST)),
            (None, None) => Some(due),
        }
    }
}
