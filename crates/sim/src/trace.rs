//! What happened, in order: a digest of everything, and the last lines in words.

use std::collections::VecDeque;
use std::fmt::Arguments;
use std::time::Instant;

use crate::random::mix;

/// Lines that are shown when a test fails. `SIM_TRACE=1` shows all of them at once.
const LINES: usize = 60;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Trace {
    start: Instant,
    digest: u64,
    lines: VecDeque<String>,
    live: bool,
}

impl Trace {
    pub(crate) fn new(start: Instant) -> Self {
        let live = std::env::var_os("SIM_TRACE").is_some();
        Self { start, digest: 0, lines: VecDeque::new(), live }
    }

    fn mix(&mut self, word: u64) {
        self.digest = mix(self.digest.rotate_left(1) ^ word);
    }

    /// Something happened that is worth a line.
    pub(crate) fn tell(&mut self, now: Instant, what: Arguments<'_>) {
        let line = format!("{:>12.6} {what}", (now - self.start).as_secs_f64());
        line.bytes().for_each(|byte| self.mix(byte.into()));
        if self.live {
            eprintln!("{line}");
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Bytes moved. They count, in the digest only.
    pub(crate) fn bytes(&mut self, now: Instant, place: usize, bytes: &[u8]) {
        self.mix((now - self.start).as_nanos() as u64);
        self.mix((place as u64) << 32 | bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    /// Equal runs have equal digests, to the last byte and nanosecond.
    #[must_use]
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The last lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
