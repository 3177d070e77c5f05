//! [`Kcp`]: the verbs.

use std::time::{Duration, Instant};

use crate::config::{Config, LARGE, Resume, Retransmission};
use crate::pool::Pool;
use crate::recv::Receiver;
use crate::rto::Rto;
use crate::send::Sender;
use crate::sn::{Sn, Ts};
use crate::stats::Stats;
use crate::wire::{Command, DecodeError, HEADER_LEN, Segment, segments};

/// One end of a KCP conversation.
#[derive(Debug)]
pub struct Kcp {
    conv: u32,
    mtu: usize,
    /// With a large segment, in bytes; `mtu` at least.
    largest_packet: usize,
    initial_ts: Ts,
    started: Instant,
    /// The latest `now` that came in.
    now: Instant,
    /// The clock on the wire at that moment.
    ts: Ts,
    suspended: bool,
    learning: bool,
    /// While learning: one segment may go out all the same.
    first_may_go: bool,
    wask_due: bool,
    /// A WASK went out on this carrier, and no WINS has come since.
    wins_owed: bool,
    sender: Sender,
    receiver: Receiver,
    rto: Rto,
    pool: Pool,
    stats: Stats,
}

impl Kcp {
    /// An engine for conversation `conv`, on a carrier from the start, for a kcp-go peer ([`Retransmission::Timeout`]).
    ///
    /// # Panics
    ///
    /// If a field of `config` is outside of what its doc says.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the engine is built from its configuration, once")]
    pub fn new(now: Instant, conv: u32, config: Config) -> Self {
        config.check();
        Self {
            conv,
            mtu: config.mtu,
            largest_packet: config.mtu,
            initial_ts: Ts::new(config.initial_ts_ms),
            started: now,
            now,
            ts: Ts::new(config.initial_ts_ms),
            suspended: false,
            learning: false,
            first_may_go: false,
            wask_due: false,
            wins_owed: false,
            sender: Sender::new(now, &config),
            receiver: Receiver::new(&config),
            rto: Rto::new(config.min_rto),
            pool: Pool::new(now),
            stats: Stats::default(),
        }
    }

    /// The conversation's number.
    #[must_use]
    pub fn conv(&self) -> u32 {
        self.conv
    }

    /// When to send again, from now on. Known once it is known who the peer is.
    pub fn set_retransmission(&mut self, retransmission: Retransmission) {
        self.sender.set_mode(retransmission);
    }

    /// The peer takes packets of so many bytes, and counts what a segment has beyond 1,376 bytes against its window. Less than a large segment needs,
    /// 15,160, or than it was told before changes nothing.
    ///
    /// With [`Retransmission::TailProbe`], segments of up to 15,136 bytes (eleven times 1,376) go then, one at most in a packet, where the path has
    /// brought half a megabyte and more than 2 MB/s. A numbered segment cannot be cut again: where every carrier dies before it has brought a whole one,
    /// no more comes through.
    pub fn set_largest_packet(&mut self, bytes: usize) {
        if bytes >= LARGE + HEADER_LEN {
            self.largest_packet = self.largest_packet.max(bytes);
            self.sender.allow_large();
        }
    }

    // Packets and time.

    /// Takes in one packet. One that does not parse changes nothing: drop it and go on.
    ///
    /// Segments that parse but cannot be (a `una` that we have not sent up to, an ACK for what was never sent, data beyond
    /// our window, a PUSH without data) have no effect and are counted; their neighbours do have theirs.
    ///
    /// `true`: at least one segment can be. `false`: none, so whoever sent the packet has not shown that it is our peer.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`]; the packet is counted in [`Stats::packets_malformed`].
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<bool, DecodeError> {
        self.handle_packet_with(now, packet, |_| false)
    }

    /// As [`Kcp::handle_packet`], but data that is next in order, with nothing unread before it, is offered to `take` where it lies in the packet:
    /// `true`, and it counts as read; `false`, and it is kept for [`Kcp::peek`]. It saves a copy, and what is kept is the same.
    ///
    /// # Errors
    ///
    /// As [`Kcp::handle_packet`].
    pub fn handle_packet_with(
        &mut self,
        now: Instant,
        packet: &[u8],
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<bool, DecodeError> {
        self.handle(now, packet, &mut take)
    }

    fn handle(
        &mut self,
        now: Instant,
        packet: &[u8],
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, DecodeError> {
        let parsed = segments(packet).and_then(|segments| match crate::wire::conv_of(packet) {
            Some(found) if found != self.conv => Err(DecodeError::OtherConv { expected: self.conv, found }),
            _ => Ok(segments),
        });
        let parsed = parsed.inspect_err(|_| self.stats.packets_malformed += 1)?;
        self.advance(now);
        self.stats.packets_received += 1;
        let mut progress = self.sender.progress();
        let mut heard = false;
        for segment in parsed {
            if !self.accepts(&segment) {
                continue;
            }
            heard = true;
            self.sender.on_una(segment.una, &mut progress, &mut self.pool);
            self.sender.on_window(segment.una, segment.wnd);
            match segment.cmd {
                Command::Push => {
                    let (pool, stats) = (&mut self.pool, &mut self.stats);
                    if self.receiver.is_next(segment.sn) && take(segment.payload) {
                        self.receiver.on_taken(segment.sn, segment.ts, segment.payload.len(), stats);
                    } else {
                        self.receiver.on_push(segment.sn, segment.ts, segment.payload, pool, stats);
                    }
                }
                Command::Ack => {
                    self.stats.acks_received += 1;
                    self.sender.on_ack(segment.sn, segment.ts, &mut progress, &mut self.pool);
                }
                Command::Wask => {
                    self.stats.wask_received += 1;
                    self.receiver.ask_answer();
                }
                Command::Wins => {
                    self.stats.wins_received += 1;
                    self.wins_owed = false;
                }
            }
        }
        if !heard {
            return Ok(false);
        }
        self.sender.settle(self.now, &progress, &mut self.rto, &mut self.stats);
        self.sender.tidy(&self.pool);
        self.stats.buffers_allocated = self.pool.allocated();
        // A carrier that was given up can still bring late packets; they tell nothing about the next one.
        if !self.suspended {
            self.learning = false;
        }
        Ok(true)
    }

    /// Whether a segment may have an effect; counts it if not.
    fn accepts(&mut self, segment: &Segment<'_>) -> bool {
        if !self.sender.accepts_una(segment.una) {
            self.stats.dropped_wrong_una += 1;
            return false;
        }
        match segment.cmd {
            Command::Push => self.receiver.accepts(segment.sn, segment.payload, &mut self.stats),
            Command::Ack if !self.sender.accepts_ack(segment.sn) => {
                self.stats.dropped_wrong_ack += 1;
                false
            }
            Command::Ack | Command::Wask | Command::Wins => true,
        }
    }

    /// Fires the timers due at `now`. Afterwards `poll_timeout` is later than `now`, or `None`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        if self.suspended {
            return;
        }
        let due = self.sender.handle_timeout(self.now, &self.rto, self.learning);
        self.wask_due |= due.ask_window;
    }

    /// When to call `handle_timeout` next; `None` when idle or suspended.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.suspended {
            return None;
        }
        self.sender.deadline(&self.rto, self.learning)
    }

    /// Appends the next packet to `out`, at most `mtu` bytes, or more with a large segment: acknowledgements, then what goes again, then new data.
    /// `false`: nothing to send at `now`, and `out` is as it was.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.advance(now);
        if self.suspended {
            return false;
        }
        let start = out.len();
        let end = start + self.mtu;
        let mut header = Segment {
            conv: self.conv,
            cmd: Command::Ack,
            frg: 0,
            wnd: self.receiver.wnd(),
            ts: Ts::default(),
            sn: Sn::new(0),
            una: self.receiver.rcv_nxt(),
            payload: &[],
        };
        while out.len() + HEADER_LEN <= end
            && let Some((sn, ts)) = self.receiver.next_ack()
        {
            header.sn = sn;
            header.ts = ts;
            header.encode(out);
            self.stats.acks_sent += 1;
        }
        // As kcp-go does, WASK and WINS repeat the last ACK's numbers.
        if self.wask_due && out.len() + HEADER_LEN <= end {
            self.wask_due = false;
            self.wins_owed = true;
            Segment { cmd: Command::Wask, ..header }.encode(out);
            self.stats.wask_sent += 1;
        }
        if self.receiver.wins_due() && out.len() + HEADER_LEN <= end {
            self.receiver.take_wins();
            Segment { cmd: Command::Wins, ..header }.encode(out);
            self.stats.wins_sent += 1;
        }
        if !self.learning || self.first_may_go {
            let ts = self.ts;
            // No segment is empty, so behind a full one there is nothing to look for.
            while out.len() + HEADER_LEN < end
                && let used = out.len() - start + HEADER_LEN
                && let room = (self.mtu - used, self.largest_packet - used)
                && let Some((sn, payload)) = self.sender.send(self.now, ts, room, &mut self.pool, &mut self.stats)
            {
                Segment { cmd: Command::Push, ts, sn, payload, ..header }.encode(out);
                if std::mem::take(&mut self.first_may_go) && self.learning {
                    break;
                }
            }
        }
        if out.len() == start {
            self.sender.on_idle();
            return false;
        }
        self.receiver.on_told(header.wnd);
        self.stats.packets_sent += 1;
        true
    }

    /// Whether `poll_transmit` would give a packet.
    #[must_use]
    pub fn wants_transmit(&self, _now: Instant) -> bool {
        !self.suspended && (self.receiver.has_acks() || self.has_more_than_acks())
    }

    /// Of how many places' arrival the peer waits to be told, if all that `poll_transmit` would give are ACKs: they may wait a little for company.
    ///
    /// `None`: there is nothing to be sent, or something that may not wait.
    #[must_use]
    pub fn only_acks_waiting(&self, _now: Instant) -> Option<usize> {
        (!self.suspended && self.receiver.has_acks() && !self.has_more_than_acks()).then(|| self.receiver.untold())
    }

    fn has_more_than_acks(&self) -> bool {
        self.wask_due || self.receiver.wins_due() || ((!self.learning || self.first_may_go) && self.sender.is_due())
    }

    // Sending.

    /// Bytes that `write` would take now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.sender.room()
    }

    /// Takes as many of `bytes` as the windows have room for, and says how many. All taken goes out with the next
    /// `poll_transmit`s. Finding no room because of the peer's window starts the questions after it.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = self.sender.write(self.now, bytes, &mut self.pool);
        self.stats.buffers_allocated = self.pool.allocated();
        taken
    }

    /// Lets `f` append to a segment not yet sent: it gets the buffer, which may hold bytes already, and how many more
    /// it may append (1 to mss, or 15,136 where large segments go). `false`: no room now, `f` was not called. Appending nothing is fine.
    ///
    /// A begun segment with only a few bytes of room is left behind while a new one may be begun, so that a frame with a
    /// header finds a place.
    ///
    /// # Panics
    ///
    /// If `f` appends more than it may, or takes away.
    pub fn fill(&mut self, f: impl FnOnce(&mut Vec<u8>, usize)) -> bool {
        let room = self.sender.fill(self.now, &mut self.pool, f);
        self.stats.buffers_allocated = self.pool.allocated();
        room
    }

    /// Number of the segment that the next `fill` will append to. It is acknowledged once [`Kcp::una`] is beyond.
    ///
    /// Ask before `fill`: afterwards the answer may be for the next one. For "all that was written", see [`Kcp::end`].
    #[must_use]
    pub fn fill_sn(&self) -> Sn {
        self.sender.fill_sn()
    }

    /// One beyond the last segment written: when [`Kcp::una`] reaches it, all that was written so far has arrived, unless
    /// a segment that was not sent yet has been added to since.
    #[must_use]
    pub fn end(&self) -> Sn {
        self.sender.end()
    }

    /// Bytes allocated for segments, sent and received, and for the next ones.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.pool.bytes()
    }

    // Receiving.

    /// The next bytes in order, as they came: one segment's payload, never empty.
    #[must_use]
    pub fn peek(&self) -> Option<&[u8]> {
        self.receiver.peek()
    }

    /// Announces a window of at most `places` from now on, though as many are accepted as there is room for ([`Kcp::set_recv_room`]): for a peer that
    /// drops what overruns a queue of its own. 0 counts as 1.
    pub fn announce_at_most(&mut self, places: u16) {
        self.receiver.announce_at_most(places);
    }

    /// Keeps at most so many places of 1,376 bytes unread from now on, 32 at least and [`Config::recv_window`] at most, and announces what is left of
    /// them. A peer that was told more before may still use it. What is held, in order and out of order, is never more than 3,000 bytes for each place of
    /// the largest room there was.
    pub fn set_recv_room(&mut self, places: u16) {
        self.receiver.set_room(places);
    }

    /// Lets go of what `peek` shows. May queue a WINS, when the peer would otherwise not know that it has room again.
    pub fn consume(&mut self) {
        self.receiver.consume(&mut self.pool);
    }

    // Carriers.

    /// There is no carrier: no timer runs and `poll_transmit` gives nothing, so that nothing grows old or goes to waste.
    pub fn suspend(&mut self) {
        self.suspended = true;
        self.sender.suspend(&mut self.pool);
    }

    /// A new carrier begins: all that is unacknowledged is due again, in order; backoff and congestion window start anew,
    /// the estimate of the round trip stays. May be called without `suspend`.
    pub fn resume(&mut self, now: Instant, how: Resume) {
        self.resume_on(now, how, false);
    }

    /// As [`Kcp::resume`], for a carrier over the very path of the last one: one that was kept beside it. What may be on its way at once begins with three quarters of what it was there,
    /// and not with what a path may bear that nobody knows.
    pub fn resume_on_same_path(&mut self, now: Instant, how: Resume) {
        self.resume_on(now, how, true);
    }

    fn resume_on(&mut self, now: Instant, how: Resume, same_path: bool) {
        self.advance(now);
        self.suspended = false;
        self.wins_owed = false;
        let in_flight = self.sender.resume(self.now, same_path);
        self.learning = in_flight && how != Resume::Now;
        self.first_may_go = self.learning && how == Resume::AfterFirst;
        self.receiver.resume();
        // The answer to a question, or the window update itself, may have died with the old carrier.
        self.wask_due |= self.sender.is_blocked_by_peer();
    }

    /// Whether data still waits for the peer's `una`, after [`Resume::AfterUna`]. A WASK goes out when that takes long.
    #[must_use]
    pub fn is_learning(&self) -> bool {
        self.learning
    }

    /// Takes in a `una` that came another way than by packet, and ends learning. `false`, and no effect, if it is none that
    /// the peer can have now: below ours the peer has forgotten us, above `nxt` it is not our peer.
    pub fn handle_una(&mut self, now: Instant, una: Sn) -> bool {
        self.advance(now);
        if una.distance_from(self.sender.una()) < 0 || !self.sender.accepts_una(una) {
            return false;
        }
        let mut progress = self.sender.progress();
        self.sender.on_una(una, &mut progress, &mut self.pool);
        progress.forget_times();
        self.sender.assume_window();
        self.sender.settle(self.now, &progress, &mut self.rto, &mut self.stats);
        self.sender.tidy(&self.pool);
        self.learning = false;
        true
    }

    /// The peer was asked for its window on this carrier and has not answered yet.
    #[must_use]
    pub fn owes_window(&self) -> bool {
        self.wins_owed
    }

    /// Queues a WASK. The answer, any packet, tells the peer's `una` and window.
    pub fn ask_window(&mut self) {
        self.wask_due = true;
    }

    // Facts, each in O(1).

    /// Segments numbered and not yet passed by `una`.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sender.in_flight()
    }

    /// First number that the peer may not have.
    #[must_use]
    pub fn una(&self) -> Sn {
        self.sender.una()
    }

    /// Number of the next segment to be sent for the first time.
    #[must_use]
    pub fn nxt(&self) -> Sn {
        self.sender.nxt()
    }

    /// First number that we do not have; what we announce as `una`.
    #[must_use]
    pub fn rcv_nxt(&self) -> Sn {
        self.receiver.rcv_nxt()
    }

    /// Nothing received waits, neither to be read nor for what comes before it.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Nothing in flight and nothing unsent.
    #[must_use]
    pub fn all_acknowledged(&self) -> bool {
        self.sender.is_empty()
    }

    /// Smoothed round trip; `None` before the first sample.
    #[must_use]
    pub fn srtt(&self) -> Option<Duration> {
        self.rto.srtt()
    }

    /// The estimate of the retransmission timeout, without backoff.
    #[must_use]
    pub fn rto(&self) -> Duration {
        self.rto.get()
    }

    /// Takes in a round trip measured another way.
    pub fn handle_rtt(&mut self, sample: Duration) {
        self.rto.sample(sample);
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// A `now` before the last one counts as that. Most packets come with the `now` of the one before.
    #[inline]
    fn advance(&mut self, now: Instant) {
        if now > self.now {
            self.set_now(now);
        }
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.pool.advance(now);
        // Modulo 2^32 by definition.
        #[expect(clippy::cast_possible_truncation, reason = "the clock on the wire goes round")]
        let elapsed = now.duration_since(self.started).as_millis() as u32;
        self.ts = Ts::new(self.initial_ts.value().wrapping_add(elapsed));
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests {
    use super::*;

    /// Moves all packets both ways and reads all.
    fn exchange(now: Instant, a: &mut Kcp, b: &mut Kcp) {
        let mut packet = Vec::new();
        loop {
            let mut moved = false;
            for turn in 0..2 {
                let (from, to) = if turn == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
                while from.poll_transmit(now, &mut packet) {
                    to.handle_packet(now, &packet).expect("our own packet");
                    packet.clear();
                    moved = true;
                }
                while to.peek().is_some() {
                    to.consume();
                }
            }
            if !moved {
                return;
            }
        }
    }

    #[test]
    fn a_running_transfer_allocates_no_buffers_and_an_idle_engine_holds_next_to_none() {
        let now = Instant::now();
        let mut a = Kcp::new(now, 1, Config::default());
        let mut b = Kcp::new(now, 1, Config::default());
        for kcp in [&mut a, &mut b] {
            kcp.set_retransmission(Retransmission::TailProbe);
        }
        let data = vec![1; 40 * 1376];
        for warm_up in [true, false] {
            let before = (a.stats.buffers_allocated, b.stats.buffers_allocated);
            for _ in 0..500 {
                assert!(a.write(&data) > 0);
                exchange(now, &mut a, &mut b);
            }
            let after = (a.stats.buffers_allocated, b.stats.buffers_allocated);
            assert!(warm_up || before == after, "{before:?} became {after:?}");
        }
        // A burst over the whole window, then keepalives only, in their time.
        a.write(&vec![1; 1024 * 1376]);
        exchange(now, &mut a, &mut b);
        // The first lets go of what was kept; with the second the ends have told each other.
        for seconds in [25, 50] {
            let now = now + Duration::from_secs(seconds);
            a.handle_timeout(now);
            b.handle_timeout(now);
            a.write(b"keepalive");
            exchange(now, &mut a, &mut b);
        }
        for kcp in [&a, &b] {
            let held = kcp.pool.held() + kcp.sender.held() + kcp.receiver.held();
            assert!(held < 16 * 1024, "{held} bytes held by an idle engine");
        }
    }

    #[test]
    fn a_smaller_window_is_announced_and_the_larger_one_still_accepted() {
        let now = Instant::now();
        let config = Config { recv_window: 100, ..Config::default() };
        let (mut a, mut b) = (Kcp::new(now, 1, Config::default()), Kcp::new(now, 1, config));
        b.announce_at_most(4);
        a.write(b"x");
        exchange(now, &mut a, &mut b);
        assert_eq!(a.room(), 4 * 1376, "what the peer believes");
        for (limit, told) in [(0, 1), (u16::MAX, 100)] {
            b.announce_at_most(limit);
            let mut packet = Vec::new();
            b.ask_window();
            assert!(b.poll_transmit(now, &mut packet));
            assert_eq!(segments(&packet).expect("our own packet").next().map(|s| s.wnd), Some(told));
        }
        b.announce_at_most(1);
        let beyond = Segment {
            conv: 1,
            cmd: Command::Push,
            frg: 0,
            wnd: 32,
            ts: Ts::default(),
            sn: b.rcv_nxt().plus(99),
            una: Sn::new(0),
            payload: b"y",
        };
        let mut packet = Vec::new();
        beyond.encode(&mut packet);
        b.handle_packet(now, &packet).expect("it parses");
        assert_eq!((b.stats.dropped_beyond_window, b.stats.segments_received), (0, 2));
    }
}
