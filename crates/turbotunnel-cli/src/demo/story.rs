//! What happened in the demo, as it happens: bytes, cuts, carriers, gaps. The picture, the lines and the SVG are drawn from it.
//!
//! Times count from the start of the transfer. Memory is bounded: a curve keeps at most [`MAX_POINTS`] points, whatever the length of the
//! demo, and lists of marks end at [`MAX_MARKS`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lilbastard::How;

/// Points of a curve. At the limit every second one is dropped.
const MAX_POINTS: usize = 4096;
/// Marks of a kind that are kept. Beyond that they are counted only.
const MAX_MARKS: usize = 2000;
/// Shorter times without a byte are the pace of the transfer.
const NO_GAP: Duration = Duration::from_millis(40);
/// First distance between two points of a curve.
const STEP: Duration = Duration::from_millis(5);

/// The transfer over a session, or over plain TCP.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// Bytes that have come back.
    pub(super) received: u64,
    /// Longest time without a byte.
    pub(super) longest_gap: Duration,
    /// Times without a byte that can be seen in a picture.
    pub(super) gaps: Vec<(Duration, Duration)>,
    /// Bytes received over time.
    pub(super) points: Vec<(Duration, u64)>,
    /// When and why it was over, `None` as a reason: all bytes were back.
    pub(super) ended: Option<(Duration, Option<String>)>,
    last_byte: Option<Duration>,
    step: Duration,
}

impl Track {
    pub(super) fn receive(&mut self, now: Duration, bytes: u64) {
        let gap = self.gap(now);
        self.longest_gap = self.longest_gap.max(gap);
        if gap > NO_GAP && self.gaps.len() < MAX_MARKS {
            self.gaps.push((now - gap, now));
            self.point(now);
        }
        self.last_byte = Some(now);
        self.received += bytes;
        let step = self.step.max(STEP);
        if self.points.last().is_none_or(|(at, _)| now.saturating_sub(*at) >= step) {
            self.point(now);
        }
    }

    pub(super) fn end(&mut self, now: Duration, why: Option<String>) {
        if self.ended.is_none() {
            self.ended = Some((now, why));
            self.point(now);
        }
    }

    /// How long no byte has come.
    pub(super) fn gap(&self, now: Duration) -> Duration {
        match (&self.ended, self.last_byte) {
            (None, Some(last)) => now.saturating_sub(last),
            _ => Duration::ZERO,
        }
    }

    /// The same for showing: nothing while bytes come at their pace.
    pub(super) fn visible_gap(&self, now: Duration) -> Duration {
        Some(self.gap(now)).filter(|&gap| gap > NO_GAP).unwrap_or_default()
    }

    /// Bytes a second, over the last second or so.
    pub(super) fn rate(&self, now: Duration) -> f64 {
        let from = now.saturating_sub(Duration::from_secs(1));
        let at = self.points.partition_point(|(at, _)| *at < from);
        let (then, before) = if at == 0 { (Duration::ZERO, 0) } else { self.points[at - 1] };
        (self.received - before) as f64 / now.saturating_sub(then).as_secs_f64().max(0.001)
    }

    fn point(&mut self, now: Duration) {
        if self.points.len() == MAX_POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.step = self.step.max(STEP) * 2;
        }
        self.points.push((now, self.received));
    }
}

/// The path was cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutMark {
    pub(super) at: Duration,
    pub(super) how: How,
    /// Bytes that had come back by then.
    pub(super) received: u64,
}

/// A carrier was taken into use.
#[derive(Clone, Copy, Debug)]
pub(super) struct CarrierMark {
    pub(super) at: Duration,
    pub(super) number: u32,
    pub(super) received: u64,
    /// How long there was no contact. `None`: it was the first one.
    pub(super) gap: Option<Duration>,
    pub(super) resent: u64,
}

/// All that is known by now.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    /// Bytes that are to go there and back.
    pub(super) size: u64,
    pub(super) tunnel: Track,
    pub(super) plain: Option<Track>,
    pub(super) cuts: Vec<CutMark>,
    pub(super) carriers: Vec<CarrierMark>,
}

/// The story while it is written.
#[derive(Debug)]
pub(super) struct Book {
    began: Instant,
    story: Mutex<Story>,
}

impl Book {
    pub(super) fn new(size: u64, compare: bool) -> Self {
        let story = Story { size, plain: compare.then(Track::default), ..Story::default() };
        Self { began: Instant::now(), story: Mutex::new(story) }
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn read(&self) -> MutexGuard<'_, Story> {
        // A panic elsewhere has not left the story half written: each entry is one push.
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tunnel(&self, change: impl FnOnce(&mut Track, Duration)) {
        let mut story = self.read();
        change(&mut story.tunnel, self.now());
    }

    pub(super) fn plain(&self, change: impl FnOnce(&mut Track, Duration)) {
        let mut story = self.read();
        let now = self.now();
        if let Some(plain) = &mut story.plain {
            change(plain, now);
        }
    }

    pub(super) fn cut(&self, how: How) {
        let mut story = self.read();
        let mark = CutMark { at: self.now(), how, received: story.tunnel.received };
        if story.cuts.len() < MAX_MARKS {
            story.cuts.push(mark);
        }
    }

    pub(super) fn carrier(&self, number: u32, gap: Option<Duration>, resent: u64) {
        let mut story = self.read();
        let mark = CarrierMark { at: self.now(), number, received: story.tunnel.received, gap, resent };
        if story.carriers.len() < MAX_MARKS {
            story.carriers.push(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_gap_is_the_time_between_two_bytes() {
        let mut track = Track::default();
        assert_eq!(track.gap(ms(500)), ms(0), "before the first byte there is no gap");
        track.receive(ms(500), 10);
        track.receive(ms(510), 10);
        track.receive(ms(1510), 10);
        assert_eq!(track.longest_gap, ms(1000));
        assert_eq!(track.gaps, [(ms(510), ms(1510))]);
        assert_eq!(track.gap(ms(1600)), ms(90));
        assert_eq!(track.visible_gap(ms(1520)), ms(0));
        track.end(ms(1600), None);
        assert_eq!(track.gap(ms(9999)), ms(0), "after the end there is none");
        assert_eq!(track.points, [(ms(500), 10), (ms(510), 20), (ms(1510), 20), (ms(1600), 30)]);
    }

    #[test]
    fn a_curve_stays_small_however_long_it_gets() {
        let mut track = Track::default();
        (0..1_000_000).for_each(|n| track.receive(ms(n), 1));
        assert!(track.points.len() <= MAX_POINTS);
        assert!(track.points.len() >= MAX_POINTS / 4, "{} points", track.points.len());
        assert!(track.points.is_sorted());
    }

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let mut track = Track::default();
        (0..5000).for_each(|n| track.receive(ms(n), if n < 3000 { 1 } else { 2 }));
        let rate = track.rate(ms(5000));
        assert!((1980.0..2020.0).contains(&rate), "{rate}");
    }
}
