//! How many segments may be on their way at once, towards a peer that drops what overruns it.
//!
//! In: segments acknowledged and flights that lost something. Out: [`Congestion::window`], in segments. Slow start and
//! additive growth as in RFC 5681, but halving after a timeout too: the carrier below has its own congestion control, and
//! what is lost here was lost in a queue of 32 packets at a kcp-go peer.

/// The queue of a kcp-go peer in the Turbo Tunnel example, and the window that kcp-go assumes of a stranger.
const INITIAL: usize = 32;
/// Fewer would leave too little behind a lost segment to prove the loss.
const MIN: usize = 4;
/// More than any window.
const MAX: usize = 65_535;

#[derive(Debug)]
pub(crate) struct Congestion {
    window: usize,
    threshold: usize,
    /// Acknowledged since the last additive step.
    credit: usize,
}

impl Congestion {
    pub(crate) fn new() -> Self {
        Self { window: INITIAL, threshold: MAX, credit: 0 }
    }

    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// `count` segments were acknowledged, and `flying` were on their way before.
    pub(crate) fn on_acknowledged(&mut self, count: usize, flying: usize) {
        // A window that was not used tells nothing about whether a larger one would do.
        if 2 * flying < self.window {
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + count).min(MAX);
            return;
        }
        self.credit += count;
        if self.credit >= self.window {
            self.credit -= self.window;
            self.window = (self.window + 1).min(MAX);
        }
    }

    /// A flight has lost something. To be called once per flight.
    pub(crate) fn on_loss(&mut self) {
        self.window = (self.window / 2).max(MIN);
        self.threshold = self.window;
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_fast_then_slowly_and_halves_on_loss() {
        let mut congestion = Congestion::new();
        congestion.on_acknowledged(32, 32);
        assert_eq!(congestion.window(), 64);
        congestion.on_acknowledged(2, 2);
        assert_eq!(congestion.window(), 64, "an unused window does not grow");
        congestion.on_loss();
        assert_eq!(congestion.window(), 32);
        congestion.on_acknowledged(31, 32);
        assert_eq!(congestion.window(), 32);
        congestion.on_acknowledged(1, 32);
        assert_eq!(congestion.window(), 33);
        for _ in 0..10 {
            congestion.on_loss();
        }
        assert_eq!(congestion.window(), MIN);
    }

    #[test]
    fn a_window_that_was_half_used_grows() {
        for flying in [16, 20] {
            let mut congestion = Congestion::new();
            congestion.on_acknowledged(1, flying);
            assert_eq!(congestion.window(), 33, "{flying} of 32 on their way");
        }
    }

    #[test]
    fn what_a_step_leaves_over_counts_for_the_next() {
        let mut congestion = Congestion::new();
        congestion.on_acknowledged(32, 32);
        congestion.on_loss();
        congestion.on_acknowledged(40, 32);
        assert_eq!(congestion.window(), 33, "and 8 over");
        congestion.on_acknowledged(24, 33);
        assert_eq!(congestion.window(), 33);
        congestion.on_acknowledged(1, 33);
        assert_eq!(congestion.window(), 34);
    }
}
