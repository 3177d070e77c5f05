//! Two KCP engines, and between them packets that are lost, doubled, overtaken, and carriers that come and go.
//!
//! Held to: all that `kcp_end` holds an engine to; every byte arrives once and in order; neither refuses what the other has said, however late
//! it comes; and when nothing more goes wrong, everything is delivered and acknowledged before long.

use std::collections::VecDeque;
use std::time::Instant;

use arbitrary::{Arbitrary, Result, Unstructured};
use kcp::{Config, Resume, Retransmission, Sn};
use turbotunnel_sim::pattern::{Pattern, Way};

use crate::kcp_end::End;
use crate::kcp_input::config;
use crate::{ms, start, tell};

/// Packets on their way, in each direction. One more, and the oldest is lost.
const MOST_PACKETS: usize = 128;
/// Bytes that each end writes at most: what is left over has to arrive within one run.
const MOST_BYTES: u64 = 64 << 10;
/// The same once large segments go: a few of them.
const MOST_BYTES_LARGE: u64 = 256 << 10;
/// What a path has to bring before they go, and some more.
const EARNED: u64 = 640 << 10;
/// With nothing going wrong everything is delivered within so long, in milliseconds: what is lost then is a new carrier's first question.
const CALM: u64 = 600_000;
/// The same towards a window that the first flight overruns: a segment at each timeout of up to a minute.
const CALM_SMALL: u64 = 100 * 60_000;
/// What a KCP assumes of a peer that has not announced its window.
const ASSUMED_WINDOW: u16 = 32;

#[derive(Debug)]
enum Op {
    Write(usize, u16),
    Fill(usize, u8),
    Read(usize, u8),
    Send(usize, u8),
    /// The packet with this number is delivered; it may stay for another time.
    Deliver {
        to: usize,
        index: u8,
        again: bool,
    },
    DeliverAll(usize),
    Lose(usize, u8),
    LoseAll(usize),
    Wait(u16),
    Timer(usize),
    Suspend(usize),
    Resume(usize, Resume),
    /// The peer says what it has, beside KCP.
    Una(usize),
    /// What it had a while ago.
    LateUna(usize),
    AskWindow(usize),
    AnnounceAtMost(usize, u8),
}

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let kind = u.arbitrary::<u8>()?;
        let side = usize::from(kind >> 7);
        Ok(match kind & 0x1f {
            0 | 1 => Self::Write(side, u.arbitrary()?),
            2 | 3 => Self::Write(side, u.arbitrary::<u8>()?.into()),
            4 => Self::Fill(side, u.arbitrary()?),
            5 | 6 => Self::Read(side, u.arbitrary()?),
            7..=10 => Self::Send(side, u.int_in_range(1..=64)?),
            11..=13 => Self::Deliver { to: side, index: u.arbitrary()?, again: false },
            14 => Self::Deliver { to: side, index: u.arbitrary()?, again: true },
            15..=17 => Self::DeliverAll(side),
            18 => Self::Lose(side, u.arbitrary()?),
            19 => Self::LoseAll(side),
            20 | 21 => Self::Wait(u.arbitrary::<u8>()?.into()),
            22 => Self::Wait(u.arbitrary()?),
            23 | 24 => Self::Timer(side),
            25 => Self::Suspend(side),
            26 | 27 => Self::Resume(side, *u.choose(&[Resume::Now, Resume::AfterUna, Resume::AfterFirst])?),
            28 => Self::Una(side),
            29 => Self::LateUna(side),
            30 => Self::AskWindow(side),
            _ => Self::AnnounceAtMost(side, u.arbitrary()?),
        })
    }
}

struct Pair {
    now: Instant,
    ends: [End; 2],
    /// On their way to each end.
    packets: [VecDeque<Vec<u8>>; 2],
    /// What each end had when it was asked before the last time.
    late_una: [Sn; 2],
    patterns: [Pattern; 2],
    /// A window that is smaller than what is assumed of a stranger: its first packets may be too many.
    refuses_first: bool,
    /// Bytes that each end writes at most.
    most_bytes: [u64; 2],
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let _ = play(&mut Unstructured::new(data));
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let probe = Retransmission::TailProbe;
    let timeout = Retransmission::Timeout;
    let (mode, large) = *u.choose(&[(probe, false), (timeout, false), (probe, true), (timeout, true)])?;
    let first = config(u)?;
    let mut second = config(u)?;
    (second.initial_sn, second.initial_ts_ms) = (first.initial_sn, second.initial_ts_ms);
    tell(&(mode, large, &first, &second));
    let mut pair = Pair::new(mode, first, second);
    if large {
        pair.earn_large();
    }
    let how = *u.choose(&[Resume::Now, Resume::AfterUna, Resume::AfterFirst])?;
    while !u.is_empty() {
        let Ok(op) = u.arbitrary::<Op>() else { break };
        tell(&op);
        pair.apply(&op);
        pair.check();
    }
    pair.calm(how);
    Ok(())
}

impl Pair {
    fn new(mode: Retransmission, first: Config, second: Config) -> Self {
        let now = start();
        let patterns = [Pattern::new(1, 1, Way::Up), Pattern::new(1, 1, Way::Down)];
        let late_una = [Sn::new(first.initial_sn); 2];
        let refuses_first = first.recv_window.min(second.recv_window) < ASSUMED_WINDOW;
        let mut ends = [End::new(now, 7, first, patterns[0]), End::new(now, 7, second, patterns[1])];
        ends.iter_mut().for_each(|end| end.set_retransmission(mode));
        let packets = [VecDeque::new(), VecDeque::new()];
        Self { now, ends, packets, late_una, patterns, refuses_first, most_bytes: [MOST_BYTES; 2] }
    }

    fn apply(&mut self, op: &Op) {
        let now = self.now;
        match *op {
            Op::Write(side, len) => {
                let most = self.most_bytes[side].saturating_sub(self.ends[side].written());
                self.ends[side].write(most.min(len.into()) as usize);
            }
            Op::Fill(side, wanted) if self.ends[side].written() < self.most_bytes[side] => {
                self.ends[side].fill(wanted.into());
            }
            Op::Fill(..) => {}
            Op::Read(side, chunks) => {
                for _ in 0..chunks {
                    if !self.read(side) {
                        break;
                    }
                }
            }
            Op::Send(side, packets) => {
                for _ in 0..packets {
                    if !self.send(side) {
                        break;
                    }
                }
            }
            Op::Deliver { to, index, again } => {
                let count = self.packets[to].len();
                if count > 0 {
                    let index = usize::from(index) % count;
                    let packet = self.packets[to][index].clone();
                    if !again {
                        self.packets[to].remove(index);
                    }
                    self.deliver(to, &packet);
                }
            }
            Op::DeliverAll(to) => self.deliver_all(to),
            Op::Lose(to, index) => {
                let count = self.packets[to].len().max(1);
                self.packets[to].remove(usize::from(index) % count);
            }
            Op::LoseAll(to) => self.packets[to].clear(),
            Op::Wait(millis) => self.now += ms(millis.into()),
            Op::Timer(side) => {
                self.now = self.ends[side].kcp().poll_timeout().map_or(now, |at| at.max(now));
                self.ends[side].handle_timeout(self.now);
            }
            Op::Suspend(side) => self.ends[side].suspend(),
            Op::Resume(side, how) => self.ends[side].resume(now, how),
            Op::Una(side) => {
                let una = self.ends[1 - side].kcp().rcv_nxt();
                self.ends[side].handle_una(now, una);
                self.late_una[side] = una;
            }
            Op::LateUna(side) => self.ends[side].handle_una(now, self.late_una[side]),
            Op::AskWindow(side) => self.ends[side].ask_window(),
            Op::AnnounceAtMost(side, segments) => self.ends[side].announce_at_most(segments.into()),
        }
    }

    fn read(&mut self, side: usize) -> bool {
        let (pattern, offset) = (self.patterns[1 - side], self.ends[side].read_so_far());
        self.ends[side].read(|_, chunk| {
            assert_eq!(pattern.first_wrong(offset, chunk), None, "a byte that was not written there");
        })
    }

    fn send(&mut self, side: usize) -> bool {
        let Some(packet) = self.ends[side].poll_transmit(self.now) else { return false };
        let packets = &mut self.packets[1 - side];
        if packets.len() == MOST_PACKETS {
            packets.pop_front();
        }
        packets.push_back(packet);
        true
    }

    fn deliver(&mut self, to: usize, packet: &[u8]) {
        self.ends[to].handle_packet(self.now, packet);
    }

    fn deliver_all(&mut self, to: usize) {
        for packet in std::mem::take(&mut self.packets[to]) {
            self.deliver(to, &packet);
        }
    }

    fn check(&self) {
        for side in [0, 1] {
            let (end, peer) = (&self.ends[side], &self.ends[1 - side]);
            let stats = end.stats();
            assert!(end.read_so_far() <= peer.written());
            let refused = stats.dropped() + stats.packets_malformed;
            assert!(refused == 0 || (self.refuses_first && refused == stats.dropped_beyond_window), "{stats:?}");
            assert!(end.kcp().una().distance_from(peer.kcp().rcv_nxt()) <= 0, "acknowledged, but not received");
        }
    }

    /// A fast path on which nothing goes wrong, until large segments go, if the windows let them.
    fn earn_large(&mut self) {
        self.ends.iter_mut().for_each(End::allow_large);
        for _ in 0..100 {
            if self.is_done() && self.ends.iter().all(|end| end.written() == EARNED) {
                break;
            }
            for side in [0, 1] {
                let left = EARNED.saturating_sub(self.ends[side].written());
                let room = self.ends[side].kcp().room();
                self.ends[side].write(room.min(left as usize));
                while self.packets[1 - side].len() < MOST_PACKETS && self.send(side) {}
            }
            self.now += ms(1);
            for side in [0, 1] {
                self.ends[side].handle_timeout(self.now);
                self.deliver_all(side);
                while self.read(side) {}
            }
        }
        for side in [0, 1] {
            self.late_una[side] = self.ends[1 - side].kcp().rcv_nxt();
            self.most_bytes[side] = self.ends[side].written() + MOST_BYTES_LARGE;
        }
    }

    fn is_done(&self) -> bool {
        [0, 1].into_iter().all(|side| {
            let (end, peer) = (&self.ends[side], &self.ends[1 - side]);
            end.kcp().all_acknowledged() && peer.read_so_far() == end.written()
        })
    }

    /// A new carrier that loses nothing.
    fn calm(&mut self, how: Resume) {
        let until = self.now + ms(if self.refuses_first { CALM_SMALL } else { CALM });
        self.packets.iter_mut().for_each(VecDeque::clear);
        for end in &mut self.ends {
            end.suspend();
            end.resume(self.now, how);
        }
        loop {
            let mut busy = false;
            for side in [0, 1] {
                while self.send(side) {
                    busy = true;
                    self.deliver_all(1 - side);
                }
                while self.read(side) {
                    busy = true;
                }
            }
            self.check();
            if busy {
                continue;
            }
            if self.is_done() {
                return;
            }
            let timers = self.ends.iter().filter_map(|end| end.kcp().poll_timeout());
            let next = timers.min().expect("not everything is delivered, and nobody is going to do anything about it");
            assert!(next <= until, "not delivered in time");
            self.now = next.max(self.now);
            self.ends.iter_mut().for_each(|end| end.handle_timeout(self.now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_segments_go_where_they_are_earned() {
        for (mode, large) in [(Retransmission::TailProbe, true), (Retransmission::Timeout, false)] {
            let mut pair = Pair::new(mode, Config::default(), Config::default());
            pair.earn_large();
            for side in [0, 1] {
                assert_eq!(pair.ends[side].read_so_far(), EARNED);
                pair.apply(&Op::Write(side, u16::MAX));
                assert!(pair.send(side));
                let packet = pair.packets[1 - side].back().expect("it was sent");
                assert_eq!(packet.len() > 15_000, large, "{} bytes", packet.len());
            }
        }
    }
}
