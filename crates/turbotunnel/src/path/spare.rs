//! A client's second carrier, which waits until the one in use is lost: when it is dialled, and how it is kept.
//!
//! In: what becomes of carriers, and the time. Out: when to dial one, when to greet it.
//!
//! ```text
//! the carrier in use was heard      dial after 250 ms
//! the last three ended equally old  dial shortly before this one is as old: a spare of the same age would end with it
//! a spare was no use                dial 1, 2, 4 ... 60 s later than that
//! a spare is there                  greet it, and every 25 s again; without an answer after 10 s it is none
//! ```
//!
//! Not here: that a spare takes the place of what is lost ([`super::Path`]).

use std::time::{Duration, Instant};

use super::CarrierId;

/// After the carrier in use has been heard, at least.
const FIRST: Duration = Duration::from_millis(250);
/// Beside twice the time that a dial takes: to be greeted.
const SLACK: Duration = Duration::from_millis(50);
/// Pause after the first spare that was no use; doubled for each that follows.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// From one greeting to the next: what is between the two ends may forget a connection that says nothing.
const GREET: Duration = Duration::from_secs(25);
/// For the answer to a greeting.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The server keeps one that was not greeted again for so long: three times.
pub(super) const KEEP: Duration = Duration::from_secs(75);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// None is wanted, or the peer would not know what to do with one.
    Off,
    /// There is none, and the carrier in use was not heard yet.
    Unplanned,
    Due(Instant),
    Dialing(CarrierId),
    Greeted(CarrierId),
    /// It has answered, and is greeted again then.
    Ready(CarrierId, Instant),
}

#[derive(Debug)]
pub(super) struct Spares {
    wanted: bool,
    stage: Stage,
    /// How old the connections were that ended in use, the last first.
    ages: [Option<Duration>; 3],
    /// How long the last dial took, with its handshakes.
    dial_took: Duration,
    /// The one that has answered last.
    known: Option<CarrierId>,
    /// Spares that failed or ended before they were used, in a row.
    wasted: u32,
}

impl Spares {
    pub(super) fn new() -> Self {
        Self { wanted: false, stage: Stage::Off, ages: [None; 3], dial_took: Duration::ZERO, known: None, wasted: 0 }
    }

    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The peer keeps spares.
    pub(super) fn understood(&mut self) {
        if self.wanted && self.stage == Stage::Off {
            self.stage = Stage::Unplanned;
        }
    }

    pub(super) fn stop(&mut self) {
        (self.wanted, self.stage) = (false, Stage::Off);
    }

    // What becomes of carriers.

    /// Another carrier is in use from now on, or none.
    pub(super) fn restart(&mut self) {
        if self.stage != Stage::Off {
            self.stage = Stage::Unplanned;
        }
    }

    /// To be told when the carrier in use is heard.
    #[inline]
    pub(super) fn is_unplanned(&self) -> bool {
        self.stage == Stage::Unplanned
    }

    /// The carrier in use was lost: no time for another, but a dial on its way goes on.
    pub(super) fn not_due(&mut self) {
        if matches!(self.stage, Stage::Due(_)) {
            self.restart();
        }
    }

    /// The carrier in use was heard. Its connection is there since `up`.
    pub(super) fn heard(&mut self, now: Instant, up: Instant) {
        if self.stage == Stage::Unplanned {
            self.stage = Stage::Due(self.plan(now, up));
        }
    }

    fn plan(&self, now: Instant, up: Instant) -> Instant {
        let before = |age: Duration| (age / 8).max(self.dial_took * 2 + SLACK);
        let at = self.regular_age().map_or(now, |age| up + age.saturating_sub(before(age))).max(now + FIRST);
        let doublings = self.wasted.saturating_sub(1).min(10);
        at + if self.wasted == 0 { Duration::ZERO } else { (PAUSE * (1 << doublings)).min(LONGEST_PAUSE) }
    }

    /// The least of the last three ages, if they differ by no more than a quarter. Two would not tell: a carrier and its spare are equally old when they end one after the other.
    fn regular_age(&self) -> Option<Duration> {
        let [Some(a), Some(b), Some(c)] = self.ages else { return None };
        let (least, most) = (a.min(b).min(c), a.max(b).max(c));
        (most - least <= most / 4).then_some(least)
    }

    /// The carrier in use has ended, `age` after its connection was there.
    pub(super) fn lost(&mut self, age: Duration) {
        self.ages = [Some(age), self.ages[0], self.ages[1]];
    }

    /// A dial took so long, whatever it was for.
    pub(super) fn dialed(&mut self, took: Duration) {
        self.dial_took = took;
    }

    pub(super) fn dialing(&mut self, id: CarrierId) {
        self.stage = Stage::Dialing(id);
    }

    /// There is no time or place for a dial.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.stage = Stage::Due(now + PAUSE);
    }

    pub(super) fn greeted(&mut self, id: CarrierId) {
        self.stage = Stage::Greeted(id);
    }

    /// True: for the first time.
    pub(super) fn answered(&mut self, now: Instant, id: CarrierId) -> bool {
        if self.stage != Stage::Greeted(id) {
            return false;
        }
        self.stage = Stage::Ready(id, now + GREET);
        self.known.replace(id) != Some(id)
    }

    /// The dial has failed, or the spare has ended, while another carrier was in use.
    pub(super) fn wasted(&mut self) {
        self.wasted = self.wasted.saturating_add(1);
        self.restart();
    }

    /// A carrier that had been a spare brings the session forward.
    pub(super) fn was_of_use(&mut self) {
        self.wasted = 0;
    }

    // Facts.

    /// The one that can take over. It may not have answered yet: it is connected all the same.
    pub(super) fn there(&self) -> Option<CarrierId> {
        match self.stage {
            Stage::Greeted(id) | Stage::Ready(id, _) => Some(id),
            _ => None,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.there().is_some_and(|id| self.known == Some(id))
    }

    pub(super) fn is_dialing(&self, id: CarrierId) -> bool {
        self.stage == Stage::Dialing(id)
    }

    #[inline]
    pub(super) fn dial_is_due(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Due(at) if now >= at)
    }

    /// Which one is to be greeted now.
    pub(super) fn to_greet(&self, now: Instant) -> Option<CarrierId> {
        match self.stage {
            Stage::Ready(id, at) if now >= at => Some(id),
            _ => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Due(at) | Stage::Ready(_, at) => Some(at),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a point to count virtual time from")]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn wanted() -> (Instant, Spares) {
        let mut spares = Spares::new();
        spares.want();
        spares.understood();
        (Instant::now(), spares)
    }

    #[test]
    fn without_wish_or_understanding_there_is_none() {
        let now = Instant::now();
        let mut spares = Spares::new();
        spares.understood();
        spares.heard(now, now);
        assert_eq!(spares.poll_timeout(), None);
        spares.want();
        spares.heard(now, now);
        assert_eq!(spares.poll_timeout(), None, "the peer has not said that it keeps them");
        spares.understood();
        assert_eq!(spares.poll_timeout(), None, "the carrier was not heard yet");
        spares.heard(now, now);
        assert_eq!(spares.poll_timeout(), Some(now + FIRST));
    }

    /// Who kills every connection after 20 s would kill a spare of the same age with it.
    #[test]
    fn where_carriers_end_equally_old_the_spare_is_younger() {
        let (now, mut spares) = wanted();
        let mut planned = |age| {
            spares.lost(age);
            spares.restart();
            spares.heard(now, now);
            spares.poll_timeout().unwrap() - now
        };
        let ages = [20, 5, 19, 20, 22].map(|age| planned(secs(age)));
        assert_eq!(ages, [FIRST, FIRST, FIRST, FIRST, secs(19) * 7 / 8]);
        assert_eq!([1, 1, 1].map(|ms| planned(Duration::from_millis(ms))), [FIRST; 3]);
        spares.dialed(secs(2));
        (0..3).for_each(|_| spares.lost(secs(20)));
        spares.restart();
        spares.heard(now, now);
        assert_eq!(spares.poll_timeout(), Some(now + secs(16) - SLACK), "with time for a slow dial");
    }

    #[test]
    fn what_is_no_use_is_repeated_less_and_less_often() {
        let (now, mut spares) = wanted();
        let mut pause = || {
            spares.wasted();
            spares.heard(now, now);
            (spares.poll_timeout().unwrap() - now - FIRST).as_secs()
        };
        assert_eq!([0; 9].map(|_| pause()), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        spares.was_of_use();
        spares.restart();
        spares.heard(now, now);
        assert_eq!(spares.poll_timeout(), Some(now + FIRST));
    }
}
