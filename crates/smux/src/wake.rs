//! Whose writer is woken, and when.
//!
//! A writer that was turned away may come again once half of what it may have waiting is out. Were each of a thousand woken then, each would have something
//! waiting at any time, more than a processor's cache holds: all of it would go to memory before it is sent, and come back from there. So where much moves they
//! are woken in turn, while little waits, and what a writer brings is still in the cache when it goes. A writer that has not been turned away waits for nobody.
//!
//! ```text
//! asleep --- fewer than STREAMS have something to send or are awaited  --> Event::Writable
//!        +-- less than BYTES wait or are awaited                       -->
//!        +-- nothing is left to send                                   -->
//!        +-- less than FAST moves                                      -->
//!        +-- SLOWEST bytes have gone since the last was woken          -->
//! ```
//!
//! The second is for streams that have little waiting, of which more fit; the third for writers that are awaited and do not come, and for paths that take at
//! once what a few have. The next is for all other paths: memory is not what bounds them, and while some sleep the others have more turns. It was tried with a
//! time that nobody sleeps longer than, instead. With 100 ms, of 200 streams through 20 Mbit/s the last had 0.08 of what the first had, and 0.23 to 0.34 if all were woken at once;
//! with 20 ms a thousand streams on loopback, of which a turn takes 13 ms, did not get away from where each has something waiting.

use crate::mux::LEAST_BUFFER;
use crate::table::Key;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Streams that have something to send, and yet another writer is woken. With 64 a thousand streams were a tenth slower; with 16 they were now and then, as
/// all was out before a writer had come.
const STREAMS: usize = 32;

/// What they all have waiting, the same.
const BYTES: usize = STREAMS * LEAST_BUFFER;

/// Streams that have never been turned away, with small answers or new ones, may keep so much waiting for as long as they like. Then, too, each sleeper has his turn.
const SLOWEST: u64 = 4 * LEAST_BUFFER as u64;

/// Bytes a millisecond.
const FAST: u64 = 256 << 10;

/// Time over which it is measured whether so much moves.
const MEASURED: Duration = Duration::from_millis(10);

/// Streams whose writers are to be woken.
#[derive(Debug)]
pub(crate) struct Sleepers {
    /// In the order in which they are woken.
    queue: VecDeque<Key>,
    /// Streams that were woken with nothing to send, and have had nothing since.
    awaited: usize,
    /// Bytes that had been sent at that time.
    measured: (Instant, u64),
    /// Much had moved until then.
    fast: bool,
    /// Bytes that had been sent when the last was woken.
    woken_at: u64,
}

impl Sleepers {
    pub(crate) fn new(now: Instant) -> Self {
        Self { queue: VecDeque::new(), awaited: 0, measured: (now, 0), fast: false, woken_at: 0 }
    }

    pub(crate) fn push(&mut self, key: Key) {
        self.queue.push_back(key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// So many bytes have been sent.
    pub(crate) fn measure(&mut self, now: Instant, sent: u64) {
        let (since, before) = self.measured;
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= MEASURED {
            self.fast = u128::from(sent.saturating_sub(before)) >= u128::from(FAST) * elapsed.as_millis();
            self.measured = (now, sent);
        }
    }

    /// The next to be woken now, while so many `streams` have something to send, `bytes` wait in all, and so many have been `sent`.
    pub(crate) fn pop(&mut self, streams: usize, bytes: usize, sent: u64) -> Option<Key> {
        let due = sent.saturating_sub(self.woken_at) >= SLOWEST;
        if due {
            self.awaited = 0;
        }
        let little = streams == 0
            || streams.saturating_add(self.awaited) < STREAMS
            || bytes.saturating_add(self.awaited.saturating_mul(LEAST_BUFFER)) < BYTES;
        if little || !self.fast || due {
            self.woken_at = sent;
            return self.queue.pop_front();
        }
        None
    }

    /// A stream was woken with nothing to send: its writer is expected.
    pub(crate) fn await_one(&mut self) {
        self.awaited += 1;
    }

    /// Those that are awaited have had their time.
    pub(crate) fn await_none(&mut self) {
        self.awaited = 0;
    }

    /// One that was awaited has something to send.
    pub(crate) fn came(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }

    pub(crate) fn trim(&mut self) {
        self.queue.shrink_to_fit();
    }
}
