//! Sessions against a model of two byte counts and a few flags for each stream.
//!
//! [`pair`] joins two sessions by two byte streams that arrive in any pieces; [`alone`] gives one session to a peer that says
//! anything; [`end`] is the model, with [`arriving`] and [`stream`]. Bytes are computed from their stream and place, never kept. Each case is a list of deeds, made
//! smaller by proptest when it fails. `PROPTEST_CASES=1000000` plays more of them, `PROPTEST_RNG_SEED=7` others.

#![allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

mod alone;
mod arriving;
mod end;
mod pair;
mod stream;

use std::fmt;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use turbotunnel_smux::{ASSUMED_WINDOW, Config, Version};

pub(crate) const HEADER: usize = 8;

pub(crate) const SYN: u8 = 0;
pub(crate) const FIN: u8 = 1;
pub(crate) const PSH: u8 = 2;
pub(crate) const NOP: u8 = 3;
pub(crate) const UPD: u8 = 4;

/// The same cases every time, so that a red build is red for whoever looks at it.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(0x5eed), failure_persistence: None, ..ProptestConfig::default() }
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Some instant to count from.
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// The byte at `offset` of what `who` writes to stream `id`.
fn byte(who: usize, id: u32, offset: usize) -> u8 {
    let seed = (u64::from(id) << 1 | who as u64) << 32;
    ((seed + offset as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

pub(crate) fn bytes(who: usize, id: u32, offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(|at| byte(who, id, at)).collect()
}

/// Compares what came with what `who` wrote to stream `id` from `offset` on.
pub(crate) fn check_bytes(who: usize, id: u32, offset: usize, found: &[u8]) {
    let wrong = (offset..).zip(found).find(|&(at, &found)| found != byte(who, id, at));
    assert_eq!(wrong, None, "stream {id}: the first byte that does not belong there");
}

/// A frame, read and written without our own codec.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Frame<'a> {
    pub(crate) version: u8,
    pub(crate) cmd: u8,
    pub(crate) id: u32,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.version, self.cmd]);
        out.extend((self.payload.len() as u16).to_le_bytes());
        out.extend(self.id.to_le_bytes());
        out.extend(self.payload);
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What a session sends: whole frames and nothing else.
pub(crate) fn parse(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let end = HEADER + usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        let payload = &bytes[HEADER..end];
        frames.push(Frame { version: bytes[0], cmd: bytes[1], id: u32_at(bytes, 4), payload });
        bytes = &bytes[end..];
    }
    frames
}

/// A list that is printed with a line for each, so that a failure can be read.
pub(crate) struct Lines<T>(pub(crate) Vec<T>);

impl<T: fmt::Debug> fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n    {line:?},"))
    }
}

/// Up to `most` deeds.
pub(crate) fn lines<S: Strategy>(deed: S, most: usize) -> impl Strategy<Value = Lines<S::Value>> {
    vec(deed, 0..=most).prop_map(Lines)
}

/// How long a write or a frame is: most often short, now and then as long as a window.
pub(crate) fn length(most: usize) -> impl Strategy<Value = usize> {
    prop_oneof![20 => 0..60_usize, 15 => 0..3_000_usize, 1 => 0..=most]
}

pub(crate) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V2), Just(Version::V1)]
}

/// Limits that are met soon, or never.
pub(crate) fn config(version: Version, initial_counter: u32) -> impl Strategy<Value = Config> {
    let frame = prop_oneof![1..60_usize, Just(1_000), Just(32_768), Just(65_535)];
    let window = prop_oneof![3 => Just(ASSUMED_WINDOW), 1 => ASSUMED_WINDOW..ASSUMED_WINDOW + 100_000];
    let max_window = prop_oneof![Just(8 << 20), 0..2_000_000_u32];
    let max_buffered = prop_oneof![1..100_usize, 100..100_000_usize, Just(1 << 20), Just(16 << 20)];
    let first_buffered = prop_oneof![3 => Just(2 << 20), 1 => 1..100_000_usize];
    let send_buffer = prop_oneof![1..3_000_usize, Just(256 << 10), Just(1 << 20)];
    let streams = prop_oneof![3 => Just((4_096, 1_024)), 1 => (1..6_usize, 0..4_usize)];
    let rate = prop_oneof![3 => Just((1_000, 4_096)), 1 => (1..50_u32, 1..5_u32)];
    let ids = prop_oneof![4 => Just(None), 1 => (0..4_u32).prop_map(Some)];
    (frame, window, max_window, (first_buffered, max_buffered), send_buffer, streams, rate, ids).prop_map(
        move |(max_frame_size, initial_window, max_window, buffered, send_buffer, streams, rate, ids)| Config {
            version,
            max_frame_size,
            initial_window,
            max_window,
            first_buffered: buffered.0,
            max_buffered: buffered.1,
            send_buffer,
            // More than the deeds can write: what is allocated the model does not know.
            first_unsent: 1 << 30,
            max_unsent: 1 << 30,
            max_streams: streams.0,
            accept_backlog: streams.1,
            stream_rate: rate.0,
            stream_burst: rate.1,
            // One of the last. A server takes the even one before.
            first_stream_id: ids.map(|before| u32::MAX - 2 * before),
            initial_counter,
        },
    )
}

/// Where the bytes of a stream are counted from.
pub(crate) fn counter() -> impl Strategy<Value = u32> {
    // Shortly before the count goes round, or the edge of the first window does.
    let shortly_before = |end: u32| (0..10_000_u32).prop_map(move |n| end - n);
    prop_oneof![Just(0), shortly_before(u32::MAX), shortly_before(u32::MAX - ASSUMED_WINDOW), any::<u32>()]
}
