//! Whose writer is woken, and when.
//!
//! A writer that was turned away may come again once half of what it may have waiting is out. Were each of a thousand woken then, each would have something
//! waiting at any time, more than a processor's cache holds: all of it would go to memory before it is sent, and come back from there. So they are woken in
//! turn, while little waits, and what a writer brings is still in the cache when it goes. A writer that has not been turned away waits for nobody.
//!
//! ```text
//! asleep --- fewer than STREAMS have something to send or are awaited  --> Event::Writable
//!        +-- less than BYTES wait or are awaited                       -->
//!        +-- nothing is left to send                                   -->
//!        +-- for LONGEST                                               -->
//! ```
//!
//! The second is for streams that have little waiting, of which more fit; the third for writers that are awaited and do not come, and for paths that take at
//! once what a few have; the last for slow paths, on which it takes seconds until each had a turn.

use crate::mux::LEAST_BUFFER;
use crate::table::Key;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Streams that have something to send, and yet another writer is woken. With 64 a thousand streams were a tenth slower; with 16 they were now and then, as
/// all was out before a writer had come.
const STREAMS: usize = 32;

/// What they all have waiting, the same.
const BYTES: usize = STREAMS * LEAST_BUFFER;

/// A turn of a thousand streams with 64 KiB each takes a fifth of it where the processor is what bounds them.
const LONGEST: Duration = Duration::from_millis(100);

/// Streams whose writers are to be woken.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    /// In the order in which they are woken, and since when they sleep.
    queue: VecDeque<(Key, Instant)>,
    /// Streams that were woken with nothing to send, and have had nothing since.
    awaited: usize,
}

impl Sleepers {
    pub(crate) fn push(&mut self, key: Key, now: Instant) {
        self.queue.push_back((key, now));
    }

    /// The next to be woken now, while so many `streams` have something to send, and `bytes` wait in all.
    #[inline]
    pub(crate) fn pop(&mut self, streams: usize, bytes: usize, now: Instant) -> Option<Key> {
        let &(_, since) = self.queue.front()?;
        let little = streams == 0
            || streams.saturating_add(self.awaited) < STREAMS
            || bytes.saturating_add(self.awaited.saturating_mul(LEAST_BUFFER)) < BYTES;
        if !little && now.saturating_duration_since(since) < LONGEST {
            return None;
        }
        self.queue.pop_front().map(|(key, _)| key)
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
