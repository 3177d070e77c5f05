//! What a sending half may and must do, decided on a list of all segments that there ever were.

use std::time::{Duration, Instant};

use turbotunnel_kcp::{Config, Kcp, Resume, Retransmission};

use crate::{bytes, ms};

/// What every KCP assumes of a peer that has not said anything yet.
const ASSUMED_WINDOW: i64 = 32;
/// With timeouts so many segments may be on their way, however many were lost, and so many at first: a Go peer's queue has that size.
const LEAST_CONGESTION_WINDOW: usize = 4;
const FIRST_CONGESTION_WINDOW: usize = 32;
/// With tail probes so many bytes may be on their way, however bad the path is.
const LEAST_FLIGHT: usize = 4 * 1_400;

#[derive(Debug)]
struct Segment {
    offset: usize,
    len: usize,
    acknowledged: bool,
    /// Which transmission, of all, was its last; 0: none yet.
    order: u64,
    /// Which transmissions it had, and with which `ts`.
    transmissions: Vec<(u64, u32)>,
    sent_at: Instant,
    /// A timer has run out that allows to send it again.
    timed_out: bool,
}

/// The sending half of one engine. Segments are counted from 0.
#[derive(Debug)]
pub(crate) struct Sending {
    who: usize,
    mss: usize,
    window: usize,
    first_flight: usize,
    least_timeout: Duration,
    mode: Retransmission,
    segments: Vec<Segment>,
    una: usize,
    nxt: usize,
    edge: i64,
    edge_told: bool,

    orders: u64,
    /// Transmissions up to this one were on an earlier carrier.
    resumed: u64,
    /// The last of those on an earlier carrier that went again.
    again: Option<usize>,
    /// The latest transmission that an acknowledgement can have been for.
    proven: u64,
    /// The latest of which the engine has to know it: it was the only one of its segment.
    surely_proven: u64,
    /// A transmission that has arrived, whichever of those that it can have been: what was sent before is lost if it flies still.
    certain: u64,
    /// Segments acknowledged on this carrier.
    acknowledged_here: usize,
    /// A timer ran out on this carrier.
    timed_out_here: bool,
    una_moved_at: Instant,
    /// When the first of what is in flight went out after nothing was.
    flight_began: Instant,
    pub(crate) suspended: bool,
    learning: bool,
    first_may_go: bool,
    /// Somebody found no room because of the peer's window, and there has been none since.
    turned_away: bool,
    bytes_sent: u64,
    resent: u64,
    bytes_resent: u64,
}

impl Sending {
    pub(crate) fn new(who: usize, now: Instant, config: &Config, mode: Retransmission) -> Self {
        Self {
            who,
            mss: config.mtu.min(1400) - 24,
            window: usize::from(config.send_window),
            first_flight: config.initial_flight.max(LEAST_FLIGHT),
            least_timeout: config.min_rto,
            mode,
            segments: Vec::new(),
            una: 0,
            nxt: 0,
            edge: ASSUMED_WINDOW,
            edge_told: false,
            orders: 0,
            resumed: 0,
            again: None,
            proven: 0,
            surely_proven: 0,
            certain: 0,
            acknowledged_here: 0,
            timed_out_here: false,
            una_moved_at: now,
            flight_began: now,
            suspended: false,
            learning: false,
            first_may_go: false,
            turned_away: false,
            bytes_sent: 0,
            resent: 0,
            bytes_resent: 0,
        }
    }

    pub(crate) fn una(&self) -> usize {
        self.una
    }

    pub(crate) fn nxt(&self) -> usize {
        self.nxt
    }

    fn end(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn written(&self) -> usize {
        self.segments.last().map_or(0, |last| last.offset + last.len)
    }

    /// Where the bytes of a segment are.
    pub(crate) fn range(&self, place: usize) -> (usize, usize) {
        (self.segments[place].offset, self.segments[place].len)
    }

    fn unacknowledged(&self) -> impl Iterator<Item = usize> {
        (self.una..self.nxt).filter(|&place| !self.segments[place].acknowledged)
    }

    fn tail_room(&self) -> usize {
        if self.end() > self.nxt { self.mss - self.segments[self.end() - 1].len } else { 0 }
    }

    /// Segments that both windows have room for.
    fn free(&self) -> usize {
        let told = usize::try_from(self.edge - self.una as i64).unwrap_or(0);
        told.min(self.window).saturating_sub(self.end() - self.una)
    }

    /// What a path takes is the engine's affair, but no less than this may be on its way, and no more than that: segments with
    /// timeouts, bytes with tail probes.
    fn flight(&self) -> (usize, usize) {
        let untried = self.acknowledged_here == 0;
        match self.mode {
            Retransmission::Timeout if untried && !self.timed_out_here => {
                (FIRST_CONGESTION_WINDOW, FIRST_CONGESTION_WINDOW)
            }
            // Slow start: one more for each that was acknowledged, and a loss may have halved it.
            Retransmission::Timeout => (LEAST_CONGESTION_WINDOW, FIRST_CONGESTION_WINDOW + self.acknowledged_here),
            Retransmission::TailProbe if untried => (self.first_flight, self.first_flight),
            Retransmission::TailProbe => (LEAST_FLIGHT, usize::MAX),
        }
    }

    fn size(&self, place: usize) -> usize {
        match self.mode {
            Retransmission::Timeout => 1,
            Retransmission::TailProbe => self.segments[place].len + 24,
        }
    }

    /// What is on its way, at least and at most: whether a transmission is lost is known to the engine, and here only sometimes.
    fn on_its_way(&self) -> (usize, usize) {
        let (mut least, mut most) = (0, 0);
        for place in self.unacknowledged() {
            let segment = &self.segments[place];
            if segment.order > self.resumed.max(self.surely_proven) {
                most += self.size(place);
                let may_be_lost = segment.timed_out || segment.order < self.proven;
                least += if may_be_lost { 0 } else { self.size(place) };
            }
        }
        (least, most)
    }

    /// Something is on its way for sure, and a timer runs for it.
    pub(crate) fn waits_for_acknowledgements(&self) -> bool {
        self.on_its_way().0 > 0 && !self.suspended && !self.learning
    }

    /// Bytes that `write` takes, at least and at most.
    fn room(&self) -> (usize, usize) {
        let unsent: usize = (self.nxt..self.end()).map(|place| self.size(place)).sum();
        let (flight, (on_its_way_least, on_its_way_most)) = (self.flight(), self.on_its_way());
        let room = |flight: usize, on_its_way: usize| {
            let left = flight.saturating_sub(on_its_way + unsent);
            let free = match self.mode {
                Retransmission::Timeout => left,
                // The last segment may become full, and one may overshoot.
                Retransmission::TailProbe => left.saturating_sub(self.tail_room()).div_ceil(self.mss + 24),
            };
            self.tail_room() + self.free().min(free) * self.mss
        };
        let still_to_acknowledge = self.unacknowledged().map(|place| self.size(place)).sum();
        match self.mode {
            // What is lost is on its way again soon.
            Retransmission::Timeout => (room(flight.0, still_to_acknowledge), room(flight.1, still_to_acknowledge)),
            Retransmission::TailProbe => (room(flight.0, on_its_way_most), room(flight.1, on_its_way_least)),
        }
    }

    /// Something waits for the peer's window and for nothing else.
    pub(crate) fn is_blocked_by_peer(&self) -> bool {
        let edge = usize::try_from(self.edge).unwrap_or(0);
        (self.turned_away && self.end() >= edge) || (self.nxt < self.end() && self.nxt >= edge)
    }

    /// What ends a backoff: with tail probes any progress of `una`, with timeouts an acknowledgement that came in time.
    pub(crate) fn progress(&self) -> u64 {
        match self.mode {
            Retransmission::TailProbe => self.una as u64,
            Retransmission::Timeout => self.surely_proven,
        }
    }

    fn peer_is_in_the_way(&self) -> bool {
        self.edge <= self.end() as i64
    }

    // What the application does.

    /// Writes the next `len` bytes.
    pub(crate) fn write(&mut self, kcp: &mut Kcp, len: usize) {
        let room = kcp.room();
        let taken = kcp.write(&bytes(self.who, self.written(), len));
        assert_eq!(taken, len.min(room), "write takes what room says");
        let mut left = taken;
        while left > 0 {
            if self.tail_room() == 0 {
                self.begin();
            }
            let part = left.min(self.tail_room());
            self.segments.last_mut().expect("just begun").len += part;
            left -= part;
        }
        self.turned_away |= taken < len && self.peer_is_in_the_way();
    }

    /// Appends up to `len` bytes to one segment.
    pub(crate) fn fill(&mut self, kcp: &mut Kcp, len: usize) {
        let (who, offset) = (self.who, self.written());
        let announced = kcp.fill_sn().distance_from(kcp.end());
        assert!(announced == 0 || (announced == -1 && self.tail_room() > 0), "fill_sn is {announced} from the end");
        let begins = announced == 0;
        let room_then = if begins { self.mss } else { self.tail_room() };
        let mut appended = None;
        let called = kcp.fill(|buffer, room| {
            assert_eq!(room, room_then, "what is left of the segment");
            let part = len.min(room);
            buffer.extend(bytes(who, offset, part));
            appended = Some(part);
        });
        assert_eq!(called, appended.is_some());
        let Some(appended) = appended else {
            assert_eq!(self.room().0, 0, "there was room");
            self.turned_away |= self.peer_is_in_the_way();
            return;
        };
        assert!(!begins || self.tail_room() < 64, "a begun segment with {} bytes of room is left", self.tail_room());
        assert!(!begins || self.room().1 > self.tail_room(), "a segment is begun, and there is no room");
        if appended > 0 {
            if begins {
                self.begin();
            }
            self.segments.last_mut().expect("begun").len += appended;
        }
    }

    fn begin(&mut self) {
        let (offset, sent_at) = (self.written(), self.una_moved_at);
        self.segments.push(Segment {
            offset,
            len: 0,
            acknowledged: false,
            order: 0,
            transmissions: Vec::new(),
            sent_at,
            timed_out: false,
        });
    }

    // What the peer says.

    /// `una` is no more than `nxt`.
    pub(crate) fn on_una(&mut self, now: Instant, una: i64) {
        self.pass(now, una, true);
    }

    fn pass(&mut self, now: Instant, una: i64, by_carrier: bool) {
        while (self.una as i64) < una {
            self.on_acknowledged(self.una, by_carrier);
            self.una += 1;
            self.una_moved_at = now;
        }
    }

    pub(crate) fn on_ack(&mut self, place: i64, ts: u32) {
        let Ok(place) = usize::try_from(place) else { return };
        let transmissions = &self.segments[place].transmissions;
        // A `ts` that was never sent tells nothing, but the segment did arrive.
        let same_ts = transmissions.iter().find(|(_, sent)| *sent == ts);
        let earliest = same_ts.or(transmissions.first()).expect("it was sent").0;
        self.certain = self.certain.max(earliest);
        if place >= self.una {
            self.on_acknowledged(place, true);
        }
    }

    /// `by_carrier`: carriers keep order, so what was sent before and is not acknowledged is lost.
    fn on_acknowledged(&mut self, place: usize, by_carrier: bool) {
        let segment = &mut self.segments[place];
        if std::mem::replace(&mut segment.acknowledged, true) {
            return;
        }
        self.acknowledged_here += 1;
        if by_carrier {
            let once = segment.transmissions.len() == 1 && !segment.timed_out;
            if once && segment.order > self.proven && segment.order > self.resumed {
                self.surely_proven = segment.order;
            }
            self.proven = self.proven.max(segment.order);
            self.certain = self.certain.max(segment.transmissions[0].0);
        }
    }

    /// An edge once told is not taken back.
    pub(crate) fn on_window(&mut self, una: i64, wnd: u16) {
        let edge = una + i64::from(wnd);
        if !self.edge_told || edge > self.edge {
            (self.edge, self.edge_told) = (edge, true);
        }
    }

    /// Something that can be has come by packet.
    pub(crate) fn on_heard(&mut self) {
        self.learning &= self.suspended;
    }

    /// `una` has come another way.
    pub(crate) fn on_una_from_elsewhere(&mut self, now: Instant, una: i64) {
        self.pass(now, una, false);
        if !self.edge_told {
            self.edge = self.una as i64 + ASSUMED_WINDOW;
        }
        self.learning = false;
    }

    // Time and carriers.

    /// `handle_timeout` is called at `now`.
    pub(crate) fn on_time(&mut self, now: Instant) {
        let waits_since = self.una_moved_at.max(self.flight_began);
        let probe = self.unacknowledged().next().filter(|_| now >= waits_since + ms(1000));
        for place in self.una..self.nxt {
            let by_timeout =
                self.mode == Retransmission::Timeout && now >= self.segments[place].sent_at + self.least_timeout;
            let by_probe = self.mode == Retransmission::TailProbe && probe == Some(place);
            self.segments[place].timed_out |= by_timeout || by_probe;
            self.timed_out_here |= by_timeout || by_probe;
        }
    }

    pub(crate) fn set_mode(&mut self, mode: Retransmission) {
        self.mode = mode;
    }

    pub(crate) fn resume(&mut self, how: Resume) {
        self.suspended = false;
        self.learning = self.nxt > self.una && how != Resume::Now;
        self.first_may_go = self.learning && how == Resume::AfterFirst;
        self.resumed = self.orders;
        self.again = None;
        (self.acknowledged_here, self.timed_out_here) = (0, false);
    }

    // What the engine sends.

    /// A PUSH went out. `true`: for the first time.
    pub(crate) fn on_push(&mut self, now: Instant, place: i64, ts: u32, payload: &[u8]) -> bool {
        let place = usize::try_from(place).expect("no number before the first");
        if self.learning {
            assert!(std::mem::take(&mut self.first_may_go), "data goes out before it is known what the peer has");
            let first = self.unacknowledged().next().unwrap_or(self.nxt);
            assert_eq!(place, first, "the first that the peer may not have");
        }
        let (on_its_way, flight) = (self.on_its_way().0, self.flight().1);
        // A probe goes because that may all have been dropped.
        let is_probe = self.segments.get(place).is_some_and(|segment| segment.timed_out);
        assert!(on_its_way < flight || is_probe, "{on_its_way} are on their way, {flight} may be");
        let is_new = place == self.nxt;
        if self.unacknowledged().next().is_none() {
            self.flight_began = now;
        }
        if is_new {
            assert!(place < self.end(), "{place} was never written");
            assert!((place as i64) < self.edge, "{place} is beyond the peer's window, which ends at {}", self.edge);
            assert!(place < self.una + self.window, "{place} is beyond send_window");
            self.nxt += 1;
            self.bytes_sent += payload.len() as u64;
        } else {
            assert!(place >= self.una && place < self.nxt, "{place} is not in {}..{}", self.una, self.nxt);
            let segment = &self.segments[place];
            assert!(!segment.acknowledged, "{place} is acknowledged and goes again");
            if segment.order <= self.resumed {
                assert!(self.again.is_none_or(|last| last < place), "{place} goes again after {:?}", self.again);
                self.again = Some(place);
            } else {
                let overtaken = self.certain > segment.order;
                assert!(overtaken || segment.timed_out, "{place} goes again without a reason");
            }
            self.resent += 1;
            self.bytes_resent += payload.len() as u64;
        }
        self.orders += 1;
        let order = self.orders;
        let segment = &mut self.segments[place];
        (segment.order, segment.sent_at, segment.timed_out) = (order, now, false);
        segment.transmissions.push((order, ts));
        assert_eq!(payload, bytes(self.who, segment.offset, segment.len), "payload of {place}");
        is_new
    }

    /// The engine has given out all packets that it would: nothing waits that could go.
    pub(crate) fn drained(&self) {
        if self.learning || self.suspended {
            return;
        }
        let waits = self.nxt < self.end() && (self.nxt as i64) < self.edge;
        let lost = self.resumed.max(self.surely_proven);
        let has_lost = self.unacknowledged().any(|place| self.segments[place].order <= lost);
        let (on_its_way, flight) = (self.on_its_way().1, self.flight().0);
        assert!(
            !(waits || has_lost) || on_its_way >= flight,
            "new: {waits}, lost: {has_lost}, and {on_its_way} of {flight} are on their way"
        );
    }

    pub(crate) fn check(&mut self, kcp: &Kcp, now: Instant, initial: u32) {
        let number = |place: usize| initial.wrapping_add(place as u32);
        assert_eq!(kcp.una().value(), number(self.una), "una");
        assert_eq!(kcp.nxt().value(), number(self.nxt), "nxt");
        assert_eq!(kcp.end().value(), number(self.end()), "end");
        assert_eq!(kcp.in_flight(), self.nxt - self.una);
        assert_eq!(kcp.all_acknowledged(), self.una == self.end());
        assert_eq!(kcp.is_learning(), self.learning);
        let (least, most) = self.room();
        assert!((least..=most).contains(&kcp.room()), "room of {} and not {least}..={most}", kcp.room());
        let stats = kcp.stats();
        assert_eq!((stats.segments_sent, stats.bytes_sent), (self.nxt as u64, self.bytes_sent));
        assert_eq!((stats.resent(), stats.bytes_resent), (self.resent, self.bytes_resent));
        self.turned_away &= self.free() == 0 && self.tail_room() == 0;
        if self.suspended {
            assert!(kcp.poll_timeout().is_none() && !kcp.wants_transmit(now), "there is no carrier");
        } else if self.una < self.end() || self.turned_away {
            assert!(kcp.poll_timeout().is_some() || kcp.wants_transmit(now), "something waits, and nobody for it");
        }
    }
}
