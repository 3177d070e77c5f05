//! Memory for many whole chunks, in mappings that go back to the system.
//!
//! What an allocator gets back it keeps for the next one, and glibc's does so for as long as something small lies above it. That is fine for the few
//! chunks of a session that works, and not for the megabytes of one that nobody reads: after an attack a server would hold them for ever. So chunks beyond
//! the first few come from here.
//!
//! The first slab that has room lends the next chunk, so that the others run empty; one chunk holds its slab. An empty slab stays mapped while the number
//! mapped is no more than were in use lately: a mapping costs a system call, and a page fault for each page, more than copying the data.
//!
//! ```text
//! mapped <= what was lent at once, and no more than 16 MiB of it empty
//! ```

use std::time::{Duration, Instant};

use memmap2::MmapMut;

use crate::buffer::CHUNK;

/// Chunks of a slab: as many as a word has bits.
const CHUNKS: usize = u32::BITS as usize;
/// Bytes of a slab.
const SLAB: usize = CHUNKS * CHUNK;
/// "Lately": in this period or in the one before.
const PERIOD: Duration = Duration::from_secs(1);
/// Empty slabs at most.
const MOST_EMPTY: usize = 64;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    slab: u32,
    /// Of its bytes.
    start: u32,
}

impl Place {
    fn nth(self) -> u32 {
        self.start / CHUNK as u32
    }
}

/// Memory, and a bit for each chunk of it.
#[derive(Debug)]
struct Slab {
    memory: MmapMut,
    /// Nobody has it.
    free: u32,
    /// Somebody had it: until then it is no memory, only addresses.
    touched: u32,
}

/// The slabs of one session.
#[derive(Debug)]
pub(crate) struct Slabs {
    /// `None`: unmapped. Places refer to the others by their index.
    slabs: Vec<Option<Slab>>,
    /// No slab before this index has room.
    lowest: usize,
    mapped: usize,
    empty: usize,
    /// In chunks.
    touched: usize,
    lent: usize,
    period_ends: Option<Instant>,
    /// Slabs in use at once at most in this period, and in the one before.
    peaks: [usize; 2],
}

impl Slabs {
    pub(crate) const fn new() -> Self {
        Self {
            slabs: Vec::new(),
            lowest: 0,
            mapped: 0,
            empty: 0,
            touched: 0,
            lent: 0,
            period_ends: None,
            peaks: [0; 2],
        }
    }

    /// A chunk, in which is what was in it last. `None`: the system gives no mapping.
    pub(crate) fn take(&mut self) -> Option<Place> {
        let has_room = |slab: &Option<Slab>| slab.as_ref().is_some_and(|slab| slab.free != 0);
        self.lowest = match self.slabs[self.lowest..].iter().position(has_room) {
            Some(ahead) => self.lowest + ahead,
            None => self.map()?,
        };
        let slab = self.slabs[self.lowest].as_mut()?;
        if slab.free == u32::MAX {
            self.empty -= 1;
            self.peaks[0] = self.peaks[0].max(self.mapped - self.empty);
        }
        let nth = slab.free.trailing_zeros();
        slab.free ^= 1 << nth;
        self.touched += usize::from(slab.touched >> nth & 1 == 0);
        slab.touched |= 1 << nth;
        self.lent += 1;
        Some(Place { slab: self.lowest as u32, start: nth * CHUNK as u32 })
    }

    pub(crate) fn put(&mut self, place: Place) {
        let index = place.slab as usize;
        let slab = self.slabs[index].as_mut().expect("what is lent is mapped");
        slab.free |= 1 << place.nth();
        self.lent -= 1;
        self.lowest = self.lowest.min(index);
        if slab.free == u32::MAX {
            self.empty += 1;
            if self.mapped > self.kept() || self.empty > MOST_EMPTY {
                self.unmap(index);
            }
        }
    }

    /// Time has passed.
    #[inline]
    pub(crate) fn advance(&mut self, now: Instant) {
        if self.mapped > 0 && self.period_ends.is_none_or(|end| end <= now) {
            self.end_period(now);
        }
    }

    fn end_period(&mut self, now: Instant) {
        let in_use = self.mapped - self.empty;
        let long_ago = self.period_ends.is_some_and(|end| end + PERIOD <= now);
        self.period_ends = Some(now + PERIOD);
        self.peaks = [in_use, if long_ago { in_use } else { self.peaks[0] }];
        self.unmap_empty(self.kept());
    }

    /// So many slabs stay mapped, in use or not.
    fn kept(&self) -> usize {
        self.peaks[0].max(self.peaks[1])
    }

    /// The chunk's bytes in that range.
    #[inline]
    pub(crate) fn bytes(&self, place: Place, from: u32, to: u32) -> &[u8] {
        let slab = self.slabs[place.slab as usize].as_ref().expect("what is lent is mapped");
        &slab.memory[(place.start + from) as usize..(place.start + to) as usize]
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self, place: Place, from: u32, to: u32) -> &mut [u8] {
        let slab = self.slabs[place.slab as usize].as_mut().expect("what is lent is mapped");
        &mut slab.memory[(place.start + from) as usize..(place.start + to) as usize]
    }

    /// Bytes of memory that are not lent.
    pub(crate) fn spare(&self) -> usize {
        (self.touched - self.lent) * CHUNK
    }

    /// Unmaps what is empty.
    pub(crate) fn trim(&mut self) {
        self.unmap_empty(0);
        // What is lent now goes back when it comes back.
        self.peaks = [0; 2];
        if self.mapped == 0 {
            *self = Self::new();
        }
    }

    /// Unmaps empty slabs, the last first, until so many are mapped.
    fn unmap_empty(&mut self, kept: usize) {
        for index in (0..self.slabs.len()).rev() {
            if self.mapped > kept && self.slabs[index].as_ref().is_some_and(|slab| slab.free == u32::MAX) {
                self.unmap(index);
            }
        }
    }

    /// An empty slab more. Says where it is.
    fn map(&mut self) -> Option<usize> {
        let slab = Slab { memory: MmapMut::map_anon(SLAB).ok()?, free: u32::MAX, touched: 0 };
        let index = self.slabs.iter().position(Option::is_none).unwrap_or(self.slabs.len());
        if index == self.slabs.len() {
            self.slabs.push(None);
        }
        self.slabs[index] = Some(slab);
        self.mapped += 1;
        self.empty += 1;
        Some(index)
    }

    fn unmap(&mut self, index: usize) {
        let slab = self.slabs[index].take();
        self.touched -= slab.map_or(0, |slab| slab.touched.count_ones() as usize);
        self.mapped -= 1;
        self.empty -= 1;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_lent_again_from_the_first_slab_that_has_room() {
        let mut slabs = Slabs::new();
        let mut places = take(&mut slabs, 3 * CHUNKS);
        for (n, place) in places.iter().enumerate() {
            slabs.bytes_mut(*place, 0, CHUNK as u32).fill(n as u8);
        }
        assert_eq!((slabs.mapped, slabs.spare()), (3, 0));
        for (n, place) in places.iter().enumerate() {
            assert!(slabs.bytes(*place, 0, CHUNK as u32).iter().all(|byte| *byte == n as u8), "chunk {n} is its own");
        }
        for n in [70, 40, 5] {
            slabs.put(places[n]);
        }
        assert_eq!(slabs.spare(), 3 * CHUNK);
        for n in [5, 40, 70] {
            places[n] = slabs.take().expect("memory");
            assert_eq!((places[n].slab as usize, places[n].nth() as usize), (n / CHUNKS, n % CHUNKS));
        }
        assert_eq!((slabs.mapped, slabs.spare()), (3, 0));
    }

    fn take(slabs: &mut Slabs, count: usize) -> Vec<Place> {
        (0..count).map(|_| slabs.take().expect("memory")).collect()
    }

    fn put(slabs: &mut Slabs, places: Vec<Place>) {
        places.into_iter().for_each(|place| slabs.put(place));
    }

    #[test]
    fn what_was_in_use_lately_stays_mapped_and_the_rest_goes_back() {
        let start = Instant::now();
        let mut slabs = Slabs::new();
        let peak = take(&mut slabs, 5 * CHUNKS);
        slabs.advance(start);
        put(&mut slabs, peak);
        assert_eq!((slabs.mapped, slabs.empty, slabs.spare()), (5, 5, 5 * SLAB), "for the next that come and go");
        // From now on two at once.
        let mapped = [500, 999, 1_000, 1_999, 2_000, 9_000].map(|millis| {
            let places = take(&mut slabs, CHUNKS + 1);
            slabs.advance(start + Duration::from_millis(millis));
            put(&mut slabs, places);
            slabs.mapped
        });
        assert_eq!(mapped, [5, 5, 5, 5, 2, 2]);
        assert_eq!((slabs.lent, slabs.spare()), (0, 2 * SLAB));
        let places = take(&mut slabs, 4 * CHUNKS);
        put(&mut slabs, places);
        slabs.advance(start + Duration::from_secs(30));
        assert_eq!(slabs.mapped, 0, "what was long ago is not lately");
        slabs.trim();
        assert_eq!((slabs.mapped, slabs.empty, slabs.spare(), slabs.slabs.capacity()), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_empty_has_a_limit() {
        let mut slabs = Slabs::new();
        let peak = take(&mut slabs, (MOST_EMPTY + 4) * CHUNKS);
        put(&mut slabs, peak);
        assert_eq!((slabs.mapped, slabs.empty), (MOST_EMPTY, MOST_EMPTY));
    }

    #[test]
    fn what_was_lent_when_memory_was_trimmed_goes_back_when_it_comes_back() {
        let mut slabs = Slabs::new();
        let places = take(&mut slabs, 3 * CHUNKS);
        slabs.trim();
        put(&mut slabs, places);
        assert_eq!((slabs.mapped, slabs.spare()), (0, 0));
    }

    #[test]
    fn a_place_that_is_vacant_is_used_again() {
        let mut slabs = Slabs::new();
        let places = take(&mut slabs, 5 * CHUNKS);
        for n in (0..5 * CHUNKS).filter(|n| n / CHUNKS % 2 == 1) {
            slabs.put(places[n]);
        }
        slabs.trim();
        assert_eq!((slabs.mapped, slabs.empty, slabs.spare()), (3, 0, 0));
        let again = take(&mut slabs, 2 * CHUNKS);
        assert_eq!((slabs.mapped, slabs.empty, slabs.slabs.len()), (5, 0, 5));
        for n in (0..5 * CHUNKS).filter(|n| (n / CHUNKS).is_multiple_of(2)) {
            slabs.put(places[n]);
        }
        put(&mut slabs, again);
        assert_eq!((slabs.mapped, slabs.lent, slabs.spare()), (5, 0, 5 * SLAB));
    }

    #[test]
    fn one_chunk_holds_its_slab() {
        let mut slabs = Slabs::new();
        let place = slabs.take().expect("memory");
        slabs.trim();
        assert_eq!((slabs.mapped, slabs.spare()), (1, 0), "the rest are only addresses");
        assert_eq!(slabs.bytes(place, 0, CHUNK as u32).len(), CHUNK);
    }
}
