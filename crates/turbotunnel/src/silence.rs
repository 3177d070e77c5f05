//! When does silence mean that a carrier is dead?
//!
//! A blackholed connection reports no error. It is noticed by asking when an answer is owed:
//!
//! ```text
//! something is in flight         ask after 1 s without an answer, also when the carrier does not take it
//! inbound data stopped           ask after 1 s, then 2, 4, 8 ... s later while a stream expects more, up to 25 s (only a client)
//! nothing of that                ask after half the time to live
//! asked, no packet at all        dead after max(1 s, 4 srtt)
//! asked, packets but no answer   dead after max(2.5 s, 4 srtt)
//! ```
//!
//! Never does it take more than a quarter of the time to live, or a round trip that was measured over a sleep would leave no time for another carrier.
//!
//! An answer is what the peer can send only because it hears us: an acknowledgement, a PONG, a WINS. Other packets show that one
//! direction lives; ours may be dead all the same, or the answer wait behind bulk data.
//!
//! Towards a Go program all but the third are twice as long, and it is asked again every second meanwhile: its answers may have been
//! dropped, or gone to a carrier that it does not know to be dead. An idle session is not asked.

use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The same while packets come: the answer may wait behind them.
const ONE_WAY_PATIENCE: Duration = Duration::from_millis(2_500);

/// Beyond this interval the question whether inbound data will go on is left to the keepalive.
const LONGEST_INTERVAL: Duration = Duration::from_secs(25);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask for a sign of life.
    Probe,
    /// No answer: look for another carrier.
    Dead,
}

/// What is owed by the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    /// Something sent is unacknowledged, a question for the window unanswered, or something waits for the carrier to take it.
    pub in_flight: bool,
    /// At a client: a stream is open on which the peer may still send. A server, which cannot dial, has no use for the answer.
    pub expecting: bool,
}

/// The clock of the current carrier.
#[derive(Clone, Debug)]
pub(crate) struct Silence {
    heard: Instant,
    answered: Instant,
    in_flight_since: Option<Instant>,
    expecting: bool,
    /// Last data or last question about it.
    asked_for_data: Instant,
    interval: Duration,
    /// First question without an answer.
    probed: Option<Instant>,
    /// Last question.
    asked: Instant,
    dead: bool,
    /// 1, or 2 towards a Go program.
    pub(crate) factor: u32,
    /// For an answer, at least. 1 s unless something else is set.
    pub(crate) patience: Duration,
    pub(crate) srtt: Option<Duration>,
    pub(crate) time_to_live: Duration,
}

impl Silence {
    pub(crate) fn new(now: Instant, time_to_live: Duration) -> Self {
        Self {
            heard: now,
            answered: now,
            in_flight_since: None,
            expecting: false,
            asked_for_data: now,
            interval: PATIENCE,
            probed: None,
            asked: now,
            dead: false,
            factor: 1,
            patience: PATIENCE,
            srtt: None,
            time_to_live,
        }
    }

    /// A new carrier: the clock starts afresh.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.in_flight_since = self.in_flight_since.map(|_| now);
        self.heard(now);
        self.answered(now);
        self.data(now);
    }

    pub(crate) fn owed(&mut self, now: Instant, owed: Owed) {
        if owed.in_flight {
            self.in_flight_since.get_or_insert(now);
        } else {
            self.in_flight_since = None;
        }
        self.expecting = owed.expecting;
    }

    /// Any packet.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A packet that the peer sent because it had heard from us.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.answered = now;
        self.probed = None;
        self.dead = false;
    }

    /// New data of a stream, or an acknowledgement of ours: what comes next is expected soon.
    pub(crate) fn data(&mut self, now: Instant) {
        self.asked_for_data = now;
        self.interval = PATIENCE * self.factor;
    }

    pub(crate) fn last_heard(&self) -> Instant {
        self.heard
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// A question is unanswered.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.probed.is_some()
    }

    /// An acknowledgement or an answer has not come (yet).
    pub(crate) fn owes(&self) -> bool {
        self.in_flight_since.is_some() || self.probed.is_some()
    }

    fn next(&self) -> Option<(Instant, Verdict)> {
        if self.dead {
            return None;
        }
        if let Some(probed) = self.probed {
            let round_trips = self.srtt.map_or(PATIENCE, |srtt| srtt * 4);
            let patience =
                if self.heard > probed { ONE_WAY_PATIENCE } else { PATIENCE }.max(round_trips).max(self.patience);
            let most = (self.time_to_live / 4).max(ONE_WAY_PATIENCE * self.factor);
            let dead = probed + (patience * self.factor).min(most);
            let again = self.asked + PATIENCE;
            return Some(if self.factor > 1 && again < dead { (again, Verdict::Probe) } else { (dead, Verdict::Dead) });
        }
        let in_flight = self.in_flight_since.map(|since| since.max(self.answered) + PATIENCE * self.factor);
        let data = (self.expecting && self.interval <= LONGEST_INTERVAL).then(|| self.asked_for_data + self.interval);
        let idle = self.heard + self.time_to_live / 2;
        let first = in_flight.into_iter().chain(data).fold(idle, Instant::min);
        Some((first, Verdict::Probe))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next().map(|(at, _)| at)
    }

    /// What is due. A probe counts as sent from here on, whether or not the carrier takes it: a full one is silent too.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Verdict> {
        let (at, verdict) = self.next()?;
        if now < at {
            return None;
        }
        match verdict {
            Verdict::Probe => {
                self.probed.get_or_insert(now);
                self.asked = now;
                if now >= self.asked_for_data + self.interval {
                    self.asked_for_data = now;
                    self.interval *= 2;
                }
            }
            Verdict::Dead => self.dead = true,
        }
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[allow(clippy::disallowed_methods)] // a point to count from; nothing waits for it
    fn start() -> (Instant, Silence) {
        let start = Instant::now();
        (start, Silence::new(start, secs(120)))
    }

    /// Runs until `until`, answering each probe if `answered`; returns when it probed and whether it found the peer dead.
    fn run(silence: &mut Silence, start: Instant, until: Duration, answered: bool) -> (Vec<u64>, Option<u64>) {
        let mut probes = Vec::new();
        while let Some(at) = silence.poll_timeout().filter(|at| *at <= start + until) {
            match silence.handle_timeout(at) {
                Some(Verdict::Probe) => {
                    probes.push((at - start).as_secs());
                    if answered {
                        silence.heard(at);
                        silence.answered(at);
                    }
                }
                Some(Verdict::Dead) => return (probes, Some((at - start).as_secs())),
                None => panic!("woken for nothing"),
            }
        }
        (probes, None)
    }

    #[test]
    fn a_carrier_with_something_in_flight_is_found_dead_after_two_seconds() {
        let (start, mut silence) = start();
        silence.owed(start, Owed { in_flight: true, expecting: true });
        assert_eq!(run(&mut silence, start, secs(60), false), (vec![1], Some(2)));
        assert_eq!(silence.poll_timeout(), None, "once is enough");
    }

    /// Who is asked too soon on a path with long gaps dials for nothing.
    #[test]
    fn more_patience_can_be_asked_for() {
        let (start, mut silence) = start();
        silence.patience = secs(7);
        silence.owed(start, Owed { in_flight: true, expecting: true });
        assert_eq!(run(&mut silence, start, secs(60), false), (vec![1], Some(8)));
    }

    #[test]
    fn towards_go_peers_everything_takes_twice_as_long_and_is_asked_again() {
        let (start, mut silence) = start();
        silence.factor = 2;
        silence.owed(start, Owed { in_flight: true, expecting: false });
        assert_eq!(run(&mut silence, start, secs(60), false), (vec![2, 3], Some(4)));
    }

    #[test]
    fn towards_go_peers_the_first_question_about_data_is_late_too() {
        let (start, mut silence) = start();
        silence.factor = 2;
        silence.data(start);
        silence.owed(start, Owed { in_flight: false, expecting: true });
        assert_eq!(run(&mut silence, start, secs(40), true), (vec![2, 6, 14, 30], None));
    }

    /// A quarter of 8 s would be less than the answers of a Go program may take.
    #[test]
    fn a_short_time_to_live_leaves_the_least_patience() {
        let (start, mut silence) = start();
        (silence.factor, silence.time_to_live) = (2, secs(8));
        silence.owed(start, Owed { in_flight: true, expecting: false });
        assert_eq!(silence.handle_timeout(start + secs(2)), Some(Verdict::Probe));
        silence.heard(start + secs(3));
        for second in 3..7 {
            assert_eq!(silence.handle_timeout(start + secs(second)), Some(Verdict::Probe));
        }
        assert_eq!(silence.handle_timeout(start + secs(7)), Some(Verdict::Dead));
    }

    #[test]
    fn a_question_about_what_is_in_flight_is_none_about_data() {
        let (start, mut silence) = start();
        let (expecting, at) = (true, |ms| start + Duration::from_millis(ms));
        silence.owed(start, Owed { in_flight: true, expecting });
        silence.data(at(900));
        assert_eq!(silence.handle_timeout(at(1_000)), Some(Verdict::Probe));
        silence.answered(at(1_100));
        silence.owed(at(1_100), Owed { in_flight: false, expecting });
        assert_eq!(silence.poll_timeout(), Some(at(1_900)));
    }

    #[test]
    fn what_is_owed_and_what_is_in_doubt_end_with_the_answer() {
        let (start, mut silence) = start();
        assert!(!silence.owes() && !silence.is_in_doubt());
        silence.owed(start, Owed { in_flight: true, expecting: false });
        assert!(silence.owes() && !silence.is_in_doubt(), "not asked yet");
        silence.handle_timeout(start + secs(1));
        silence.owed(start + secs(1), Owed::default());
        assert!(silence.owes() && silence.is_in_doubt(), "asked");
        assert_eq!((silence.handle_timeout(start + secs(2)), silence.is_dead()), (Some(Verdict::Dead), true));
        silence.answered(start + secs(3));
        assert!(!silence.owes() && !silence.is_in_doubt() && !silence.is_dead());
    }

    /// What the old carrier had not heard says nothing about the new one, but is still to be acknowledged.
    #[test]
    fn a_new_carrier_is_given_its_own_time() {
        let (start, mut silence) = start();
        silence.owed(start, Owed { in_flight: true, expecting: true });
        assert_eq!(run(&mut silence, start, secs(9), false), (vec![1], Some(2)));
        silence.restart(start + secs(10));
        assert!(silence.owes() && !silence.is_in_doubt() && !silence.is_dead());
        assert_eq!(run(&mut silence, start, secs(20), false), (vec![11], Some(12)));
    }

    #[test]
    fn long_round_trips_get_four_of_them() {
        let (start, mut silence) = start();
        silence.srtt = Some(secs(2));
        silence.owed(start, Owed { in_flight: true, expecting: true });
        assert_eq!(run(&mut silence, start, secs(60), false), (vec![1], Some(9)));
    }

    #[test]
    fn an_estimate_that_slept_does_not_outwait_the_session() {
        let (start, mut silence) = start();
        silence.srtt = Some(secs(60));
        silence.owed(start, Owed { in_flight: true, expecting: true });
        assert_eq!(run(&mut silence, start, secs(120), false), (vec![1], Some(31)));
    }

    #[test]
    fn questions_about_data_that_stopped_become_rare_and_end() {
        let (start, mut silence) = start();
        silence.data(start);
        silence.owed(start, Owed { in_flight: false, expecting: true });
        let (probes, dead) = run(&mut silence, start, secs(150), true);
        assert_eq!(probes, [1, 3, 7, 15, 31, 91], "the last one for the time to live");
        assert_eq!(dead, None);
    }

    #[test]
    fn an_idle_carrier_is_asked_only_for_the_time_to_live() {
        let (start, mut silence) = start();
        assert_eq!(run(&mut silence, start, secs(130), true), (vec![60, 120], None));
    }

    #[test]
    fn an_answer_is_a_sign_of_life() {
        let (start, mut silence) = start();
        silence.owed(start, Owed { in_flight: true, expecting: true });
        assert_eq!(silence.handle_timeout(start + secs(1)), Some(Verdict::Probe));
        silence.answered(start + secs(2) - Duration::from_millis(1));
        assert_eq!(silence.handle_timeout(start + secs(2)), None);
        assert!(!silence.is_dead());
    }

    #[test]
    fn packets_without_an_answer_show_that_only_one_direction_lives() {
        let (start, mut silence) = start();
        silence.owed(start, Owed { in_flight: true, expecting: true });
        assert_eq!(silence.handle_timeout(start + secs(1)), Some(Verdict::Probe));
        for tenths in 11..35 {
            let now = start + Duration::from_millis(100 * tenths);
            silence.heard(now);
            assert_eq!(silence.handle_timeout(now), None);
        }
        assert_eq!(silence.handle_timeout(start + Duration::from_millis(3_500)), Some(Verdict::Dead));
    }
}
