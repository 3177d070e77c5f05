//! What waits to be accepted: new sessions, and sessions with new streams.
//!
//! ```text
//! driver hears of a stream -> announce -> with_streams -> next_with_streams -> (a stream is taken) -> announce, for the next turn
//! session begins           -> begin    -> fresh        -> next_fresh: from then on whoever has the session looks after its streams
//! session ends             -> end      -> unaccepted, if streams of it wait: they were acknowledged, so they are not thrown away
//! ```
//!
//! A session that lives is kept by its driver and only pointed to here. Not here: who waits for arrivals, and the lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::shared::Shared;

/// A session as the listener sees it. The flags change under the lock of [`Arrivals`] only.
pub(super) struct Guest {
    pub shared: Arc<Shared>,
    /// Has an entry in `with_streams`.
    queued: AtomicBool,
    /// Its driver has gone.
    over: AtomicBool,
    /// Was handed out as a whole.
    handed_out: AtomicBool,
}

impl Guest {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, queued: false.into(), over: false.into(), handed_out: false.into() })
    }
}

pub(super) struct Arrivals {
    /// Sessions with streams that wait, each at most once, in the order of their turns. Some are gone or handed out: see `tidy_at`.
    with_streams: VecDeque<Weak<Guest>>,
    /// Entries beyond which the useless ones are thrown out.
    tidy_at: usize,
    /// New sessions, the oldest first.
    fresh: VecDeque<Weak<Guest>>,
    /// Exactly the sessions that are over and in `with_streams`.
    unaccepted: VecDeque<Arc<Guest>>,
    /// Length of `fresh` and `unaccepted`.
    limit: usize,
    /// Nobody accepts any more.
    closed: bool,
    pub stats: ArrivalStats,
}

#[derive(Clone, Copy, Default)]
pub(super) struct ArrivalStats {
    pub not_offered: u64,
    pub ended_unaccepted: u64,
}

fn get(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

fn set(flag: &AtomicBool, to: bool) {
    flag.store(to, Ordering::Relaxed);
}

impl Arrivals {
    const TIDY_AT_LEAST: usize = 64;

    pub(super) fn new(limit: usize) -> Self {
        Self {
            with_streams: VecDeque::new(),
            tidy_at: Self::TIDY_AT_LEAST,
            fresh: VecDeque::new(),
            unaccepted: VecDeque::new(),
            limit: limit.max(1),
            closed: false,
            stats: ArrivalStats::default(),
        }
    }

    /// A new session. `false`: nobody will accept it.
    pub(super) fn begin(&mut self, guest: &Arc<Guest>) -> bool {
        if self.closed {
            return false;
        }
        if self.fresh.len() >= self.limit
            && let Some(oldest) = self.fresh.pop_front()
            && oldest.strong_count() > 0
        {
            self.stats.not_offered += 1;
        }
        self.fresh.push_back(Arc::downgrade(guest));
        true
    }

    /// Streams of it wait, or may.
    pub(super) fn announce(&mut self, guest: &Arc<Guest>) {
        if self.closed || get(&guest.handed_out) || get(&guest.queued) {
            return;
        }
        set(&guest.queued, true);
        self.tidy();
        self.with_streams.push_back(Arc::downgrade(guest));
        if get(&guest.over) {
            self.keep(guest.clone());
        }
    }

    /// Its driver has gone.
    pub(super) fn end(&mut self, guest: &Arc<Guest>) {
        set(&guest.over, true);
        if get(&guest.queued) && !get(&guest.handed_out) && !self.closed {
            self.keep(guest.clone());
        } else {
            // A weak reference holds its memory.
            self.fresh.retain(|fresh| !std::ptr::eq(fresh.as_ptr(), Arc::as_ptr(guest)));
        }
    }

    fn keep(&mut self, guest: Arc<Guest>) {
        if self.unaccepted.len() >= self.limit {
            self.unaccepted.pop_front();
            self.stats.ended_unaccepted += 1;
        }
        self.unaccepted.push_back(guest);
    }

    fn keep_no_more(&mut self, guest: &Arc<Guest>) {
        if get(&guest.over) {
            self.unaccepted.retain(|kept| !Arc::ptr_eq(kept, guest));
        }
    }

    /// The session whose turn it is. Announce it again if it had a stream: there may be more.
    pub(super) fn next_with_streams(&mut self) -> Option<Arc<Guest>> {
        loop {
            let Some(guest) = self.with_streams.pop_front()?.upgrade() else { continue };
            set(&guest.queued, false);
            self.keep_no_more(&guest);
            if !get(&guest.handed_out) {
                return Some(guest);
            }
        }
    }

    /// The oldest new session. Its streams are not announced any more.
    pub(super) fn next_fresh(&mut self) -> Option<Arc<Guest>> {
        loop {
            let Some(guest) = self.fresh.pop_front()?.upgrade() else { continue };
            set(&guest.handed_out, true);
            self.keep_no_more(&guest);
            return Some(guest);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Nobody accepts any more: lets go of everything.
    pub(super) fn close(&mut self) -> impl Sized + use<> {
        self.closed = true;
        self.with_streams.clear();
        self.fresh.clear();
        // To be dropped without the lock.
        std::mem::take(&mut self.unaccepted)
    }

    /// Throws out entries of sessions that are gone or handed out, seldom enough to cost nothing per entry.
    fn tidy(&mut self) {
        if self.with_streams.len() < self.tidy_at {
            return;
        }
        self.with_streams.retain(|guest| guest.upgrade().is_some_and(|guest| !get(&guest.handed_out)));
        self.tidy_at = Self::TIDY_AT_LEAST.max(2 * self.with_streams.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::Tunnel;
    use crate::{Config, SessionId};

    fn guest(n: u8) -> Arc<Guest> {
        let tunnel = Tunnel::server(crate::shared::now(), Config::default(), 1, [7; 8]);
        Guest::new(Arc::new(Shared::new(SessionId([n; 8]), tunnel)))
    }

    fn number(guest: Option<Arc<Guest>>) -> Option<u8> {
        guest.map(|guest| guest.shared.id.0[0])
    }

    #[test]
    fn a_session_waits_once_however_many_streams_it_has() {
        let mut arrivals = Arrivals::new(10);
        let (one, two) = (guest(1), guest(2));
        for _ in 0..3 {
            arrivals.announce(&one);
            arrivals.announce(&two);
        }
        assert_eq!(number(arrivals.next_with_streams()), Some(1));
        arrivals.announce(&one);
        assert_eq!(number(arrivals.next_with_streams()), Some(2));
        assert_eq!(number(arrivals.next_with_streams()), Some(1));
        assert_eq!(number(arrivals.next_with_streams()), None);
    }

    #[test]
    fn a_session_that_is_over_is_kept_while_streams_of_it_wait() {
        let mut arrivals = Arrivals::new(10);
        let (waiting, empty) = (guest(1), guest(2));
        arrivals.begin(&waiting);
        arrivals.begin(&empty);
        arrivals.announce(&waiting);
        arrivals.end(&waiting);
        arrivals.end(&empty);
        assert_eq!(Arc::weak_count(&empty), 0, "nothing of it stays");
        drop((waiting, empty));
        let taken = arrivals.next_with_streams().expect("kept for its streams");
        arrivals.announce(&taken);
        drop(taken);
        let taken = arrivals.next_with_streams().expect("announced again, so kept again");
        drop(taken);
        assert_eq!(number(arrivals.next_fresh()), None, "nobody keeps them any more");
    }

    #[test]
    fn a_session_that_ends_while_a_stream_of_it_is_taken_is_kept_for_the_others() {
        let mut arrivals = Arrivals::new(10);
        let session = guest(1);
        arrivals.announce(&session);
        let taken = arrivals.next_with_streams().unwrap();
        arrivals.end(&session);
        drop(session);
        arrivals.announce(&taken);
        drop(taken);
        assert_eq!(number(arrivals.next_with_streams()), Some(1));
    }

    #[test]
    fn streams_of_a_session_that_was_handed_out_are_its_holders_business() {
        let mut arrivals = Arrivals::new(10);
        let (early, late) = (guest(1), guest(2));
        arrivals.begin(&early);
        arrivals.begin(&late);
        arrivals.announce(&early);
        assert_eq!(number(arrivals.next_fresh()), Some(1));
        assert_eq!(number(arrivals.next_fresh()), Some(2));
        arrivals.announce(&late);
        arrivals.end(&early);
        assert_eq!(number(arrivals.next_with_streams()), None);
        assert!(arrivals.unaccepted.is_empty());
    }

    #[test]
    fn what_nobody_accepts_has_a_limit_and_is_counted() {
        let mut arrivals = Arrivals::new(2);
        for n in 1..=5 {
            let ended = guest(n);
            arrivals.begin(&ended);
            arrivals.announce(&ended);
            arrivals.end(&ended);
        }
        assert_eq!(arrivals.stats.ended_unaccepted, 3);
        assert_eq!(number(arrivals.next_with_streams()), Some(4), "the oldest went");
        let living: Vec<_> = (10..15).map(guest).collect();
        living.iter().for_each(|guest| assert!(arrivals.begin(guest)));
        assert_eq!(arrivals.fresh.len(), 2);
    }

    #[test]
    fn sessions_come_and_go_and_leave_no_entry_behind() {
        let mut arrivals = Arrivals::new(10);
        for _ in 0..10_000 {
            let session = guest(1);
            arrivals.begin(&session);
            arrivals.announce(&session);
            arrivals.next_fresh();
        }
        assert!(arrivals.with_streams.len() <= Arrivals::TIDY_AT_LEAST, "{} entries", arrivals.with_streams.len());
    }

    #[test]
    fn after_the_close_nothing_is_kept() {
        let mut arrivals = Arrivals::new(10);
        let (before, after) = (guest(1), guest(2));
        arrivals.announce(&before);
        drop(arrivals.close());
        arrivals.begin(&after);
        arrivals.announce(&after);
        arrivals.end(&before);
        arrivals.end(&after);
        assert!(arrivals.fresh.is_empty() && arrivals.with_streams.is_empty() && arrivals.unaccepted.is_empty());
    }
}
