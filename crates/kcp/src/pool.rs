//! Segment buffers, used again instead of freed and allocated per packet.
//!
//! An engine that has been busy within a second keeps some while it is empty, so that who sends and waits, sends and waits, allocates nothing; a
//! quiet one keeps none: there can be many of them, and what a keepalive or a keystroke needs is soon allocated.

use std::time::{Duration, Instant};

use crate::config::{LARGE, PLACE};

/// Spare buffers at most, of the usual and of the large ones; more in a burst are freed and allocated again. Worst case 1.4 and 4.2 MB.
const MAX_SPARE: [usize; 2] = [1024, 280];
/// What an engine without data keeps at most.
const MAX_SPARE_IDLE: [usize; 2] = [64, 12];
/// From here on a large buffer is used: there, it is less than twice as much as the places that the segment takes up.
const LARGE_ENOUGH: usize = LARGE / 2 + 1;
/// In use in a quiet engine at most: enough for a keepalive, or a small question and its answer.
const QUIET: usize = 2;
/// And so often all of them are free again within [`BUSY_FOR`].
const QUIET_TIMES: u32 = 8;
/// So long after more was needed than that.
const BUSY_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Pool {
    /// For usual segments and for large ones. Buffers of other sizes are freed, not kept.
    usual: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    in_use: usize,
    /// Capacity of all buffers, in use or spare.
    bytes: usize,
    now: Instant,
    /// When more buffers were in use than a quiet engine needs, or more often.
    busy: Option<Instant>,
    /// Since when, and how often since then, all were free again.
    emptied: (Instant, u32),
    allocated: u64,
}

impl Pool {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            usual: Vec::new(),
            large: Vec::new(),
            in_use: 0,
            bytes: 0,
            now,
            busy: None,
            emptied: (now, 0),
            allocated: 0,
        }
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        self.now = now;
    }

    /// Nothing much has happened lately: memory is for others.
    pub(crate) fn is_quiet(&self) -> bool {
        self.busy.is_none_or(|at| self.now.saturating_duration_since(at) >= BUSY_FOR)
    }

    /// An empty buffer for at least `len` bytes, and not much more if that is more than a place.
    #[inline]
    pub(crate) fn get(&mut self, len: usize) -> Vec<u8> {
        self.in_use += 1;
        if self.in_use > QUIET {
            self.busy = Some(self.now);
        }
        if len <= PLACE
            && let Some(spare) = self.usual.pop()
        {
            return spare;
        }
        self.get_another(len)
    }

    fn get_another(&mut self, len: usize) -> Vec<u8> {
        let capacity = match len {
            ..=PLACE => PLACE,
            LARGE_ENOUGH..=LARGE => LARGE,
            odd => odd,
        };
        if capacity == LARGE
            && let Some(spare) = self.large.pop()
        {
            return spare;
        }
        self.allocated += 1;
        let buffer = Vec::with_capacity(capacity);
        self.bytes += buffer.capacity();
        buffer
    }

    /// Buffers that could not be used again but had to be allocated, since the start.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Bytes allocated for buffers.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let buffers: usize = self.usual.iter().chain(&self.large).map(Vec::capacity).sum();
        buffers + (self.usual.capacity() + self.large.capacity()) * size_of::<Vec<u8>>()
    }

    #[inline]
    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        self.in_use -= 1;
        let (spare, most) = match buffer.capacity() {
            PLACE => (&mut self.usual, MAX_SPARE[0]),
            LARGE => (&mut self.large, MAX_SPARE[1]),
            _ => (&mut self.large, 0),
        };
        if spare.len() < most {
            buffer.clear();
            spare.push(buffer);
        } else {
            self.bytes -= buffer.capacity();
        }
        if self.in_use == 0 {
            self.on_empty();
        }
    }

    /// Puts what is in a large buffer and would fit a usual one there, or into one of its size.
    #[inline]
    pub(crate) fn fit(&mut self, buffer: &mut Vec<u8>) {
        if buffer.capacity() == LARGE && buffer.len() < LARGE_ENOUGH {
            let mut fitting = self.get(buffer.len());
            fitting.extend_from_slice(buffer);
            self.put(std::mem::replace(buffer, fitting));
        }
    }

    /// Gives what a buffer in use does not need back, if that is most of it. Nothing may be put into it any more.
    pub(crate) fn tighten(&mut self, buffer: &mut Vec<u8>) {
        let before = buffer.capacity();
        if buffer.len() <= before / 4 {
            buffer.shrink_to_fit();
            self.bytes -= before - buffer.capacity();
        }
    }

    fn on_empty(&mut self) {
        if self.now.saturating_duration_since(self.emptied.0) >= BUSY_FOR {
            self.emptied = (self.now, 0);
        }
        self.emptied.1 = self.emptied.1.saturating_add(1);
        if self.emptied.1 > QUIET_TIMES {
            self.busy = Some(self.now);
        }
        let is_quiet = self.is_quiet();
        for (spare, most) in [&mut self.usual, &mut self.large].into_iter().zip(MAX_SPARE_IDLE) {
            let keep = if is_quiet { 0 } else { most };
            spare.truncate(keep);
            if spare.capacity() > keep {
                spare.shrink_to(keep);
            }
        }
        // Nothing is in use.
        self.bytes = self.usual.iter().chain(&self.large).map(Vec::capacity).sum();
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn an_idle_engine_gives_its_buffers_back() {
        let now = Instant::now();
        let mut pool = Pool::new(now);
        let busy: Vec<_> = (0..500).map(|_| pool.get(1)).collect();
        for buffer in busy {
            pool.put(buffer);
        }
        assert_eq!(pool.usual.len(), MAX_SPARE_IDLE[0]);
        let mut keepalive = |at| {
            pool.advance(now + at);
            let buffer = pool.get(8);
            pool.put(buffer);
            pool.usual.len()
        };
        assert_eq!(keepalive(BUSY_FOR - Duration::from_millis(1)), MAX_SPARE_IDLE[0]);
        assert_eq!(keepalive(BUSY_FOR), 0);
        assert_eq!((pool.bytes(), pool.held()), (0, 0));
    }

    #[test]
    fn odd_sizes_are_not_kept() {
        let mut pool = Pool::new(Instant::now());
        let (usual, large) = (pool.get(1), pool.get(65_511));
        assert_eq!(pool.bytes(), 1376 + 65_511);
        pool.put(large);
        assert!(pool.usual.is_empty());
        assert_eq!(pool.bytes(), 1376);
        pool.busy = Some(pool.now);
        pool.put(usual);
        assert_eq!((pool.usual.len(), pool.bytes(), pool.allocated()), (1, 1376, 2));
        let odd = pool.get(1377);
        assert_eq!((pool.usual.len(), pool.allocated(), odd.capacity()), (1, 3, 1377), "the spare one is too small");
        pool.get(1376);
        assert_eq!((pool.usual.len(), pool.allocated()), (0, 3));
    }

    /// What a receiver allocates for a peer that keeps to its window is bounded by that.
    #[test]
    fn a_buffer_is_less_than_twice_as_large_as_the_places_that_its_segment_takes_up() {
        let mut pool = Pool::new(Instant::now());
        for len in 1..=LARGE {
            let buffer = pool.get(len);
            let places = crate::config::places(len) * PLACE;
            assert!((len..2 * places).contains(&buffer.capacity()), "{} bytes for {len}", buffer.capacity());
            pool.put(buffer);
        }
        let (a, b) = (pool.get(LARGE), pool.get(LARGE / 2 + 1));
        let allocated = pool.allocated();
        pool.put(a);
        pool.put(b);
        assert_eq!(
            (pool.get(LARGE).capacity(), pool.allocated()),
            (LARGE, allocated),
            "large ones are used again, too"
        );
    }

    #[test]
    fn a_short_word_that_has_to_wait_is_held_in_little() {
        let mut pool = Pool::new(Instant::now());
        let (mut short, mut long) = (pool.get(1), pool.get(1));
        short.extend_from_slice(&[7; 344]);
        long.extend_from_slice(&[7; 345]);
        pool.tighten(&mut short);
        pool.tighten(&mut long);
        assert_eq!((short.capacity(), long.capacity(), pool.bytes()), (344, 1376, 344 + 1376));
        pool.put(short);
        pool.put(long);
        assert_eq!((pool.bytes(), pool.held()), (0, 0), "and the account comes out even");
    }

    #[test]
    fn a_keepalive_and_its_answer_do_not_make_an_engine_busy() {
        let mut pool = Pool::new(Instant::now());
        let buffers = [pool.get(1), pool.get(1)];
        assert!(pool.is_quiet());
        pool.get(1);
        assert!(!pool.is_quiet());
        buffers.into_iter().for_each(|buffer| pool.put(buffer));
    }

    #[test]
    fn who_sends_little_but_often_is_busy_too() {
        let now = Instant::now();
        let mut pool = Pool::new(now);
        let mut send = |at| {
            pool.advance(now + at);
            let buffer = pool.get(8);
            pool.put(buffer);
            (pool.usual.len(), pool.allocated())
        };
        for n in 1..=u64::from(QUIET_TIMES) {
            assert_eq!(send(Duration::ZERO), (0, n));
        }
        let allocated = u64::from(QUIET_TIMES) + 1;
        assert_eq!(send(Duration::from_millis(900)), (1, allocated), "one more than that is often");
        assert_eq!(send(Duration::from_millis(1_800)), (1, allocated), "a second has not passed since");
        assert_eq!(send(Duration::from_millis(1_900)), (0, allocated), "nine times in nearly two are not often");
    }

    #[test]
    fn a_burst_leaves_so_many_spare_buffers_and_no_more() {
        let mut pool = Pool::new(Instant::now());
        let mut burst: Vec<_> = (0..MAX_SPARE[0] + 2).map(|_| pool.get(1)).collect();
        let last = burst.pop().expect("many");
        burst.into_iter().for_each(|buffer| pool.put(buffer));
        assert_eq!((pool.usual.len(), pool.bytes()), (MAX_SPARE[0], 1376 * (MAX_SPARE[0] + 1)));
        pool.put(last);
        assert_eq!((pool.usual.len(), pool.bytes()), (MAX_SPARE_IDLE[0], 1376 * MAX_SPARE_IDLE[0]));
        assert_eq!(pool.usual.capacity(), MAX_SPARE_IDLE[0], "nor a place for more");
    }
}
