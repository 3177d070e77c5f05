//! A KCP engine under observation: after every verb all its promises are checked.
//!
//! What is written follows a pattern, so that every segment that leaves can be told right or wrong. What arrives is for the target to judge.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kcp::wire::{Command, HEADER_LEN};
use kcp::{Config, Kcp, Resume, Retransmission, Sn, Stats, Ts};
use turbotunnel_sim::pattern::Pattern;

use crate::start;

/// Payload of the largest packet known of any KCP: what the budget of a receiver counts with.
const LARGEST_USUAL: u64 = 1500;
/// The longest payload that a packet can hold. The last one within the budget may exceed it by so much, and so may the one that all others wait for.
const LARGEST: u64 = 65_535;
/// What a peer of ours says that it takes (docs/wire.md).
const LARGEST_PACKET: usize = 16_382;
/// Payload of a large segment.
const LARGE: usize = 11 * kcp::PLACE;

/// What a packet that is refused must not touch.
#[derive(Clone, Debug, PartialEq)]
struct Facts {
    numbers: [Sn; 4],
    room: usize,
    timeout: Option<Instant>,
    wants: [bool; 4],
    readable: Option<usize>,
    times: (Option<Duration>, Duration),
}

/// A segment that was sent at least once: where its payload is in what was written, and the clock of its last transmission.
#[derive(Clone, Copy)]
struct Sent {
    offset: u64,
    len: usize,
    ts: Ts,
}

pub(crate) struct End {
    kcp: Kcp,
    config: Config,
    pattern: Pattern,
    written: u64,
    /// From `una` on.
    sent: VecDeque<Sent>,
    una: Sn,
    rcv_nxt: Sn,
    /// Offset of the first byte that was not sent yet.
    unsent: u64,
    /// Number of the next chunk to be read.
    next_chunk: Sn,
    read: u64,
    suspended: bool,
    /// The peer takes large segments.
    large: bool,
    packet: Vec<u8>,
}

impl End {
    pub(crate) fn new(now: Instant, conv: u32, config: Config, pattern: Pattern) -> Self {
        let first = Sn::new(config.initial_sn);
        Self {
            kcp: Kcp::new(now, conv, config.clone()),
            config,
            pattern,
            written: 0,
            sent: VecDeque::new(),
            una: first,
            rcv_nxt: first,
            unsent: 0,
            next_chunk: first,
            read: 0,
            suspended: false,
            large: false,
            packet: Vec::new(),
        }
    }

    // What the target wants to know.

    pub(crate) fn kcp(&self) -> &Kcp {
        &self.kcp
    }

    pub(crate) fn stats(&self) -> &Stats {
        self.kcp.stats()
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes read so far.
    pub(crate) fn read_so_far(&self) -> u64 {
        self.read
    }

    /// The clock that the last transmission of `sn` told.
    pub(crate) fn ts_of(&self, sn: Sn) -> Option<Ts> {
        let index = usize::try_from(sn.distance_from(self.una)).ok()?;
        self.sent.get(index).map(|sent| sent.ts)
    }

    // Verbs.

    pub(crate) fn write(&mut self, len: usize) {
        let mut bytes = vec![0; len];
        self.pattern.fill(self.written, &mut bytes);
        let room = self.kcp.room();
        let taken = self.kcp.write(&bytes);
        assert_eq!(taken, len.min(room), "write takes what room() promises");
        self.written += taken as u64;
        self.check();
    }

    pub(crate) fn fill(&mut self, wanted: usize) {
        let (sn, end) = (self.kcp.fill_sn(), self.kcp.end());
        let (pattern, written) = (self.pattern, self.written);
        let mss = self.most_payload();
        let mut appended = 0;
        let called = self.kcp.fill(|segment, room| {
            assert!((1..=mss).contains(&room) && segment.len() + room <= mss, "{} + {room} bytes", segment.len());
            appended = wanted.min(room);
            let before = segment.len();
            segment.resize(before + appended, 0);
            pattern.fill(written, &mut segment[before..]);
        });
        self.written += appended as u64;
        if appended > 0 {
            assert_eq!(self.kcp.end(), sn.next(), "fill appends to the segment that was named");
        } else {
            assert_eq!(self.kcp.end(), end, "nothing was appended");
        }
        assert!(called || self.kcp.room() == 0, "there is room, and fill says that there is none");
        self.check();
    }

    /// Takes the next chunk and shows it: its number and its bytes. `None`: there is none.
    pub(crate) fn read(&mut self, look: impl FnOnce(Sn, &[u8])) -> bool {
        let sn = self.next_chunk;
        let Some(chunk) = self.kcp.peek() else { return false };
        assert!(!chunk.is_empty(), "an empty chunk");
        look(sn, chunk);
        self.read += chunk.len() as u64;
        self.kcp.consume();
        self.next_chunk = sn.next();
        self.check();
        true
    }

    /// `true`: something in it was believed.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> bool {
        let (before, mut stats) = (self.facts(now), self.stats().clone());
        let outcome = self.kcp.handle_packet(now, packet);
        if outcome.is_err() {
            stats.packets_malformed += 1;
            assert_eq!(*self.stats(), stats, "a packet that does not parse is counted, and that is all");
        } else {
            assert_eq!(self.stats().packets_received, stats.packets_received + 1);
            let wrong = (stats.dropped_wrong_una, stats.dropped_wrong_ack);
            let (una, ack) = self.never_sent(packet);
            let counted = (self.stats().dropped_wrong_una, self.stats().dropped_wrong_ack);
            assert_eq!(counted, (wrong.0 + una, wrong.1 + ack), "what was never sent cannot be acknowledged");
        }
        let believed = outcome.unwrap_or(false);
        if !believed {
            assert_eq!(self.facts(now), before, "a packet that cannot be changed something");
        }
        while self.una != self.kcp.una() {
            assert!(self.sent.pop_front().is_some(), "acknowledged, but never sent");
            self.una = self.una.next();
        }
        self.check();
        believed
    }

    /// Segments of a packet with a `una` beyond all that was sent, and ACKs of others for what was not sent.
    fn never_sent(&self, packet: &[u8]) -> (u64, u64) {
        let nxt = self.una.plus(self.sent.len() as u32);
        let (mut unas, mut acks) = (0, 0);
        for segment in kcp::segments(packet).expect("it parsed before") {
            if segment.una.distance_from(nxt) > 0 {
                unas += 1;
            } else if segment.cmd == Command::Ack && segment.sn.distance_from(nxt) >= 0 {
                acks += 1;
            }
        }
        (unas, acks)
    }

    /// The peer's `una` comes another way.
    pub(crate) fn handle_una(&mut self, now: Instant, una: Sn) {
        let before = self.facts(now);
        let behind = una.distance_from(self.una) < 0;
        let beyond = una.distance_from(self.kcp.nxt()) > 0;
        let believed = self.kcp.handle_una(now, una);
        assert_eq!(believed, !behind && !beyond);
        if !believed {
            assert_eq!(self.facts(now), before, "a una that cannot be changed something");
        }
        while self.una != self.kcp.una() {
            assert!(self.sent.pop_front().is_some(), "acknowledged, but never sent");
            self.una = self.una.next();
        }
        self.check();
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let early = self.kcp.poll_timeout().is_none_or(|at| at > now);
        let before = (self.facts(now), self.stats().clone());
        self.kcp.handle_timeout(now);
        if early {
            assert_eq!((self.facts(now), self.stats().clone()), before, "called early it does nothing");
        }
        assert!(self.kcp.poll_timeout().is_none_or(|at| at > now), "a timer that has fired is over");
        self.check();
    }

    /// The next packet, if there is one.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (wants, acks_only) = (self.kcp.wants_transmit(now), self.kcp.only_acks_waiting(now).is_some());
        let (before, stats) = (self.facts(now), self.stats().clone());
        let mut packet = std::mem::take(&mut self.packet);
        packet.clear();
        packet.extend_from_slice(b"stays");
        let made = self.kcp.poll_transmit(now, &mut packet);
        assert_eq!(made, wants, "wants_transmit says whether there is a packet");
        assert_eq!(packet[..5], *b"stays");
        let made = if made {
            let packet = packet.split_off(5);
            let most = if self.large { self.config.mtu.max(LARGEST_PACKET) } else { self.config.mtu };
            assert!(packet.len() <= most, "packet of {} bytes", packet.len());
            self.check_packet(&packet, acks_only);
            Some(packet)
        } else {
            assert_eq!(packet.len(), 5, "a packet that was not made left bytes");
            assert_eq!((self.facts(now), self.stats()), (before, &stats), "asking in vain changed something");
            None
        };
        self.packet = packet;
        self.check();
        made
    }

    fn check_packet(&mut self, packet: &[u8], acks_only: bool) {
        let mut parsed = 0;
        for segment in kcp::segments(packet).expect("our own packet") {
            parsed += HEADER_LEN + segment.payload.len();
            assert_eq!(segment.conv, self.kcp.conv());
            assert_eq!((segment.una, segment.frg), (self.kcp.rcv_nxt(), 0));
            assert!(segment.wnd <= self.config.recv_window, "a window of {} is announced", segment.wnd);
            assert!(!acks_only || segment.cmd == Command::Ack, "only ACKs were waiting");
            match segment.cmd {
                Command::Push => self.check_push(segment.sn, segment.ts, segment.payload),
                _ => assert!(segment.payload.is_empty()),
            }
        }
        assert!(parsed > 0 && parsed == packet.len(), "whole segments");
    }

    fn check_push(&mut self, sn: Sn, ts: Ts, payload: &[u8]) {
        assert!((1..=self.most_payload()).contains(&payload.len()), "payload of {} bytes", payload.len());
        let index = usize::try_from(sn.distance_from(self.una)).expect("sent again although it was acknowledged");
        let sent = if let Some(sent) = self.sent.get_mut(index) {
            assert_eq!(sent.len, payload.len(), "a segment that goes again is the same segment");
            sent.ts = ts;
            *sent
        } else {
            assert_eq!(index, self.sent.len(), "new segments go in order");
            let sent = Sent { offset: self.unsent, len: payload.len(), ts };
            self.unsent += payload.len() as u64;
            self.sent.push_back(sent);
            sent
        };
        assert!(sent.offset + payload.len() as u64 <= self.written, "sent more than was written");
        assert_eq!(self.pattern.first_wrong(sent.offset, payload), None, "a byte of what was written");
    }

    // Carriers, and what is set.

    pub(crate) fn suspend(&mut self) {
        self.kcp.suspend();
        self.suspended = true;
        self.check();
    }

    pub(crate) fn resume(&mut self, now: Instant, how: Resume) {
        self.kcp.resume(now, how);
        self.suspended = false;
        assert!(how != Resume::Now || !self.kcp.is_learning());
        self.check();
    }

    pub(crate) fn set_retransmission(&mut self, mode: Retransmission) {
        self.kcp.set_retransmission(mode);
        self.check();
    }

    pub(crate) fn allow_large(&mut self) {
        self.kcp.set_largest_packet(LARGEST_PACKET);
        self.large = true;
        self.check();
    }

    fn most_payload(&self) -> usize {
        if self.large { LARGE } else { self.config.mss() }
    }

    pub(crate) fn announce_at_most(&mut self, segments: u16) {
        self.kcp.announce_at_most(segments);
        self.check();
    }

    pub(crate) fn ask_window(&mut self) {
        self.kcp.ask_window();
        self.check();
    }

    pub(crate) fn handle_rtt(&mut self, sample: Duration) {
        self.kcp.handle_rtt(sample);
        self.check();
    }

    // Promises.

    fn facts(&self, now: Instant) -> Facts {
        let kcp = &self.kcp;
        Facts {
            numbers: [kcp.una(), kcp.nxt(), kcp.end(), kcp.rcv_nxt()],
            room: kcp.room(),
            timeout: kcp.poll_timeout(),
            wants: [
                kcp.wants_transmit(now),
                kcp.only_acks_waiting(now).is_some(),
                kcp.is_learning(),
                kcp.owes_window(),
            ],
            readable: kcp.peek().map(<[u8]>::len),
            times: (kcp.srtt(), kcp.rto()),
        }
    }

    fn check(&mut self) {
        let kcp = &self.kcp;
        let in_flight = kcp.nxt().distance_from(kcp.una());
        assert_eq!(i64::from(in_flight), kcp.in_flight() as i64, "in flight is what lies between una and nxt");
        let begun = kcp.end().distance_from(kcp.una());
        assert!(begun >= in_flight && begun <= i32::from(self.config.send_window), "{begun} segments begun");
        assert_eq!(kcp.all_acknowledged(), begun == 0);
        assert!(kcp.una().distance_from(self.una) == 0, "una moved by itself");
        assert_eq!(self.sent.len(), kcp.in_flight(), "numbered is what was sent");

        assert!(kcp.rcv_nxt().distance_from(self.rcv_nxt) >= 0, "rcv_nxt went back");
        self.rcv_nxt = kcp.rcv_nxt();
        let unread = self.rcv_nxt.distance_from(self.next_chunk);
        assert!((0..=i32::from(self.config.recv_window)).contains(&unread), "{unread} chunks to be read");
        assert_eq!(kcp.peek().is_some(), unread > 0);
        assert!(!kcp.is_in_order() || unread == 0);
        let held = kcp.stats().bytes_received - self.read;
        let budget = 2 * u64::from(self.config.recv_window) * LARGEST_USUAL + 2 * LARGEST;
        assert!(held <= budget, "{held} bytes held");

        let now = start();
        assert!(kcp.only_acks_waiting(now).is_none() || kcp.wants_transmit(now));
        if self.suspended {
            assert!(kcp.poll_timeout().is_none() && !kcp.wants_transmit(now), "there is no carrier");
        }
    }
}
