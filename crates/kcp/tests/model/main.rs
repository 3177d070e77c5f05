//! Engines against models that are too simple to be wrong: lists of segments, sets of numbers, bytes that are computed.
//!
//! [`pair`] lets two engines talk over a path that loses, doubles, delays and reorders; [`alone`] gives one engine to a peer
//! that says anything. Each case is a list of deeds, made smaller by proptest when it fails. `PROPTEST_CASES=1000000` plays
//! more of them, `PROPTEST_RNG_SEED=7` others.

#![allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

mod alone;
mod pair;
mod sending;

use std::fmt;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use turbotunnel_kcp::Retransmission;

pub(crate) const CONV: u32 = 0x1234_5678;
pub(crate) const HEADER: usize = 24;

pub(crate) const PUSH: u8 = 81;
pub(crate) const ACK: u8 = 82;
pub(crate) const WASK: u8 = 83;
pub(crate) const WINS: u8 = 84;

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

/// The byte that `who` writes at `offset`: another one nearly everywhere if anything is lost, doubled or misplaced.
pub(crate) fn byte(who: usize, offset: usize) -> u8 {
    let mixed = (2 * offset as u64 + who as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

pub(crate) fn bytes(who: usize, offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(|at| byte(who, at)).collect()
}

/// Where `sn` is if counting began at `initial` and never went round: of all places that it can mean, the one nearest to
/// `near`, and the earlier of two equally near.
pub(crate) fn place(initial: u32, near: i64, sn: u32) -> i64 {
    let expected = initial.wrapping_add(near as u32);
    near + i64::from(sn.wrapping_sub(expected).cast_signed())
}

/// A segment, read without our own parser.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Seg<'a> {
    pub(crate) cmd: u8,
    pub(crate) wnd: u16,
    pub(crate) ts: u32,
    pub(crate) sn: u32,
    pub(crate) una: u32,
    pub(crate) payload: &'a [u8],
}

/// The segments of a packet of ours: whole ones and nothing else.
pub(crate) fn parse(mut packet: &[u8]) -> Vec<Seg<'_>> {
    let u32_at = |at: usize, from: &[u8]| u32::from_le_bytes([from[at], from[at + 1], from[at + 2], from[at + 3]]);
    let mut found = Vec::new();
    assert!(!packet.is_empty(), "an empty packet");
    while !packet.is_empty() {
        assert!(packet.len() >= HEADER, "{} bytes behind the last segment", packet.len());
        assert_eq!((u32_at(0, packet), packet[5]), (CONV, 0), "conv and frg");
        let len = u32_at(20, packet) as usize;
        found.push(Seg {
            cmd: packet[4],
            wnd: u16::from_le_bytes([packet[6], packet[7]]),
            ts: u32_at(8, packet),
            sn: u32_at(12, packet),
            una: u32_at(16, packet),
            payload: &packet[HEADER..HEADER + len],
        });
        packet = &packet[HEADER + len..];
    }
    found
}

/// Appends a segment, written without our own encoder.
pub(crate) fn encode(seg: &Seg<'_>, out: &mut Vec<u8>) {
    out.extend(CONV.to_le_bytes());
    out.extend([seg.cmd, 0]);
    out.extend(seg.wnd.to_le_bytes());
    for field in [seg.ts, seg.sn, seg.una, seg.payload.len() as u32] {
        out.extend(field.to_le_bytes());
    }
    out.extend(seg.payload);
}

/// Where counting begins: anywhere, but most often shortly before something goes round.
pub(crate) fn beginning() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        (0..100_u32).prop_map(|n| u32::MAX - n),
        (0..100_u32).prop_map(|n| 0x7fff_ffff - n),
        any::<u32>()
    ]
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

pub(crate) fn retransmission() -> impl Strategy<Value = Retransmission> {
    prop_oneof![Just(Retransmission::TailProbe), Just(Retransmission::Timeout)]
}
