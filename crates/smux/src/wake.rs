//! Whose writer is woken, and when.
//!
//! A writer that was turned away may come again once half of what it may have waiting is out. Were each of a thousand woken then, each would have something
//! waiting at any time, more than a processor's cache holds: all of it would go to memory before it is sent, and come back from there. So where much moves they
//! are woken in turn, while little waits, and what a writer brings is still in the cache when it goes. A writer that has not been turned away waits for nobody.
//!
//! ```text
//! asleep --- fewer than STREAMS have something to send or are awaited  --> Event::Writable
//!        +-- nothing is left to send                                   -->
//!        +-- less than FAST moves                                      -->
//!        +-- SLOWEST bytes have gone since the last was woken          -->
//! ```
//!
//! The second is for writers that are awaited and do not come, and for paths that take at once what a few have. The third is for all other paths: memory is not
//! what bounds them, and while some sleep the others have more turns. The last is for streams that are never turned away, with small answers or new ones each time:
//! they may keep enough waiting for as long as they like.
//!
//! Tried instead of the third: a time that nobody sleeps longer than. With 100 ms, of 200 streams through 20 Mbit/s the last had 0.07 to 0.19 of what the first
//! had, and 0.10 to 0.37 if nobody slept; with 20 ms a thousand streams on loopback, of which a turn takes 13 ms, did not get away from where each has something
//! waiting.

use crate::table::Key;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Streams that have something to send, and yet another writer is woken. With 64 a thousand streams were a tenth slower; with 16 they were now and then, as
/// all was out before a writer had come.
const STREAMS: usize = 32;

/// Bytes of the session's. Where each that is woken brings 64 KiB, this is never what wakes him.
const SLOWEST: u64 = 256 << 10;

/// Bytes a second of the session's.
const FAST: u128 = 256_000_000;

/// Over which time that is measured.
const MEASURED: Duration = Duration::from_millis(10);

/// Streams whose writers are to be woken.
#[derive(Debug)]
pub(crate) struct Sleepers {
    /// In the order in which they are woken.
    queue: VecDeque<Key>,
    /// Streams that were woken with nothing to send, and to which nothing was written since.
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
            self.fast = u128::from(sent.saturating_sub(before)) * 1_000_000 >= FAST * elapsed.as_micros();
            self.measured = (now, sent);
        }
    }

    /// The next to be woken now, while so many `streams` have something to send, and so many bytes have been `sent`.
    pub(crate) fn pop(&mut self, streams: usize, sent: u64) -> Option<Key> {
        let due = sent.saturating_sub(self.woken_at) >= SLOWEST;
        if streams == 0 || due {
            // Those that are awaited have had their time.
            self.awaited = 0;
        }
        if streams.saturating_add(self.awaited) < STREAMS || !self.fast || due {
            self.woken_at = sent;
            return self.queue.pop_front();
        }
        None
    }

    /// A stream was woken with nothing to send: its writer is expected.
    pub(crate) fn await_one(&mut self) {
        self.awaited += 1;
    }

    /// The writer of one that was awaited has come.
    pub(crate) fn came(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }

    pub(crate) fn trim(&mut self) {
        self.queue.shrink_to_fit();
    }
}
