//! Random numbers that a seed replays, and the seed of a test.

use std::ops::Range;
use std::time::Duration;

/// A stream of random numbers (splitmix64, Steele, Lea and Flood 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any `u64`.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `range`, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty(), "no number lies in {range:?}");
        range.start + self.number() % (range.end - range.start)
    }

    /// Uniform in `range` to the microsecond.
    pub fn pause(&mut self, range: Range<Duration>) -> Duration {
        let micros = |d: Duration| d.as_micros() as u64;
        Duration::from_micros(self.within(micros(range.start)..micros(range.end).max(micros(range.start) + 1)))
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }

    /// One of `choices`.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.within(0..choices.len() as u64) as usize].clone()
    }

    /// Another stream, which goes on by itself: who draws more from it does not change what others get.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}

/// A number spread over all 64 bits.
#[inline]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `SIM_SEED` from the environment if it is set, else a number made of the test's name.
///
/// # Panics
///
/// If `SIM_SEED` is not a number.
#[must_use]
pub fn seed_of(name: &str) -> u64 {
    match std::env::var("SIM_SEED") {
        Ok(text) => text.parse().expect("SIM_SEED is a number"),
        Err(_) => name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(byte))),
    }
}
