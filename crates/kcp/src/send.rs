//! The sending half: segments from `write` until `una` has passed them.
//!
//! In: bytes, acknowledgements, `now`. Out: which segment goes next ([`Sender::send`]) and when to ask again
//! ([`Sender::deadline`]).
//!
//! ```text
//! slots  [ numbered: Flying | Lost | Acknowledged ......... ][ Unsent ... ]
//!         una                                                nxt         end
//! log    one entry per transmission, in the order of sending; live while its slot flies and was not sent again since
//! ```
//!
//! Which transmission an acknowledgement is for is known when there was only one, or when an ACK repeats the `ts` of the
//! last. Times come from our own clock, never from `ts`.
//!
//! The log replaces a walk over the window: carriers keep order, so an acknowledged transmission proves every live entry
//! before it lost; and its first live entry is the one whose timeout ends first. Each entry is looked at once.
//!
//! What acknowledgements say is in `acks.rs`.

mod acks;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::{Config, LARGE, Retransmission, places};
use crate::congestion::Congestion;
use crate::flight::Flight;
use crate::pool::Pool;
use crate::rto::Rto;
use crate::sn::{Sn, Ts};
use crate::stats::Stats;
use crate::wire::HEADER_LEN;

/// Window of a peer that has not said anything yet, in segments; the default of every KCP.
const ASSUMED_WINDOW: u32 = 32;
/// `fill` does not hand out less than this of a begun segment while a new one may be begun: frames have headers.
const MIN_TAIL: usize = 64;
/// Rings up to this capacity are kept while empty.
const IDLE_RING: usize = 32;
/// Added to `4 srtt`: a peer may be slow to answer for reasons of its own.
const TAIL_PROBE_BASE: Duration = Duration::from_secs(1);
/// First wait before a question after a closed window; kcp-go since 5.6.43.
const WINDOW_PROBE_FIRST: Duration = Duration::from_millis(500);
/// Last wait. Whoever waits for an unread window wants to know soon that its carrier has died; kcp-go's 120 s outlive most sessions.
const WINDOW_PROBE_MAX: Duration = Duration::from_secs(4);

/// Why a segment goes again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    Timeout,
    Overtaken,
    Probe,
    Resume,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Written, not numbered.
    Unsent,
    /// On its way, as far as we know.
    Flying,
    /// To be sent again.
    Lost(Cause),
    /// The peer has it, `una` has not come by yet. The payload is gone.
    Acknowledged,
}

#[derive(Debug)]
struct Slot {
    payload: Vec<u8>,
    /// Payload at most.
    limit: u16,
    /// That it takes up in the windows; all that it may come to before it is sent.
    places: u16,
    state: State,
    /// Sent exactly once and never given up: its acknowledgement can only be for that transmission.
    once: bool,
    /// No other transmission of it had the same `ts`: an ACK with that `ts` is for the last one.
    exact: bool,
    /// Number of its last transmission in the log.
    order: u64,
    sent_at: Instant,
    ts: Ts,
}

/// The question after a closed window.
#[derive(Debug)]
struct WindowProbe {
    /// Somebody found no room because of the peer's window.
    wanted: bool,
    due: Option<Instant>,
    wait: Duration,
}

#[derive(Debug)]
pub(crate) struct Sender {
    mss: usize,
    /// The peer takes large segments.
    takes_large: bool,
    send_window: usize,
    max_backoff: Duration,
    mode: Retransmission,

    slots: VecDeque<Slot>,
    una: Sn,
    /// Slots before `nxt`.
    numbered: usize,
    /// Places of all slots, and of those before `nxt`.
    places: usize,
    numbered_places: usize,
    acknowledged: usize,
    lost: usize,
    /// Bytes of slots that fly or wait to be sent for the first time, with their headers.
    flying_bytes: usize,
    unsent_bytes: usize,
    /// In the order in which they go again; entries whose slot is no longer lost are skipped.
    lost_queue: VecDeque<Sn>,
    log: VecDeque<Sn>,
    /// Number of the log's first entry.
    log_base: u64,

    /// Places of all segments that `una` has passed, counted as numbers are.
    passed_places: Sn,
    /// First place that the peer has no room for.
    edge: Sn,
    edge_announced: bool,
    probe: WindowProbe,

    congestion: Congestion,
    flight: Flight,
    /// Losses of transmissions before this one belong to a flight that has been answered for.
    recovered: u64,
    /// The first segment goes again whatever is believed to be on its way: that may all have been dropped.
    probe_goes: bool,
    backoff: u32,
    una_moved_at: Instant,
    acknowledged_at: Instant,
}

/// What came of a wait without progress.
#[derive(Debug)]
enum TailProbe {
    /// A segment goes again.
    Marked,
    /// It was to go again anyway: nobody has asked for packets for a while.
    Waiting,
    /// The peer has all, or nothing may be sent: a question goes out.
    Ask,
}

/// What [`Sender::handle_timeout`] found due.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Due {
    /// A WASK should be sent.
    pub(crate) ask_window: bool,
}

impl Sender {
    pub(crate) fn new(now: Instant, config: &Config) -> Self {
        let una = Sn::new(config.initial_sn);
        Self {
            mss: config.mss(),
            takes_large: false,
            send_window: usize::from(config.send_window),
            max_backoff: config.max_rto,
            mode: Retransmission::default(),
            slots: VecDeque::new(),
            una,
            numbered: 0,
            places: 0,
            numbered_places: 0,
            acknowledged: 0,
            lost: 0,
            flying_bytes: 0,
            unsent_bytes: 0,
            lost_queue: VecDeque::new(),
            log: VecDeque::new(),
            log_base: 0,
            passed_places: una,
            edge: una.plus(ASSUMED_WINDOW),
            edge_announced: false,
            probe: WindowProbe { wanted: false, due: None, wait: WINDOW_PROBE_FIRST },
            congestion: Congestion::new(),
            flight: Flight::new(now, 0, config.initial_flight),
            recovered: 0,
            probe_goes: false,
            backoff: 0,
            una_moved_at: now,
            acknowledged_at: now,
        }
    }

    pub(crate) fn set_mode(&mut self, mode: Retransmission) {
        self.mode = mode;
    }

    /// The peer takes large segments.
    pub(crate) fn allow_large(&mut self) {
        self.takes_large = true;
    }

    // Facts.

    pub(crate) fn una(&self) -> Sn {
        self.una
    }

    pub(crate) fn nxt(&self) -> Sn {
        self.at(self.numbered)
    }

    /// One beyond the last segment written.
    pub(crate) fn end(&self) -> Sn {
        self.at(self.slots.len())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.numbered
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn at(&self, index: usize) -> Sn {
        self.una.plus(u32::try_from(index).expect("at most 65,535 slots"))
    }

    fn index(&self, sn: Sn) -> Option<usize> {
        sn.offset_from(self.una).filter(|&index| index < self.numbered)
    }

    fn flying(&self) -> usize {
        self.numbered - self.acknowledged - self.lost
    }

    fn unsent(&self) -> usize {
        self.slots.len() - self.numbered
    }

    /// Bytes allocated for the rings.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + (self.log.capacity() + self.lost_queue.capacity()) * size_of::<Sn>()
    }

    // Taking bytes.

    /// Places that the peer has room for, counted from `una`.
    fn peer_window(&self) -> usize {
        self.edge.offset_from(self.passed_places).unwrap_or(0)
    }

    /// Places that may be taken up now, as far as the windows go.
    fn window_left(&self) -> usize {
        let window = self.send_window.min(self.peer_window()).saturating_sub(self.places);
        match self.mode {
            Retransmission::TailProbe => window,
            Retransmission::Timeout => {
                let spoken_for = self.slots.len() - self.acknowledged;
                window.min(self.congestion.window().saturating_sub(spoken_for))
            }
        }
    }

    /// Bytes that may be put on their way beside those that are written already.
    fn flight_left(&self) -> usize {
        match self.mode {
            Retransmission::TailProbe => {
                let spoken_for = self.flying_bytes + self.unsent_bytes + self.tail_room();
                self.flight.limit().saturating_sub(spoken_for)
            }
            Retransmission::Timeout => usize::MAX,
        }
    }

    /// Payload of the next segment at most.
    fn next_limit(&self) -> usize {
        let goes_large = self.takes_large && self.flight.is_fast() && self.window_left() >= places(LARGE);
        if goes_large { LARGE } else { self.mss }
    }

    fn may_begin(&self) -> bool {
        self.window_left() > 0 && self.flight_left() > 0
    }

    /// Bytes that still fit into the last segment, if it is not sent yet.
    fn tail_room(&self) -> usize {
        match self.slots.back() {
            Some(slot) if slot.state == State::Unsent => usize::from(slot.limit) - slot.payload.len(),
            _ => 0,
        }
    }

    pub(crate) fn room(&self) -> usize {
        let (mut window, mut flight) = (self.window_left(), self.flight_left());
        let mut room = self.tail_room();
        // The large ones, as long as there is place for them, then the usual ones.
        for limit in [self.next_limit(), self.mss] {
            let segments = (window / places(limit)).min(flight.div_ceil(limit + HEADER_LEN));
            window -= segments * places(limit);
            flight = flight.saturating_sub(segments * (limit + HEADER_LEN));
            room += segments * limit;
        }
        room
    }

    pub(crate) fn write(&mut self, now: Instant, mut bytes: &[u8], pool: &mut Pool) -> usize {
        let all = bytes.len();
        while !bytes.is_empty() {
            if self.tail_room() == 0 && !self.begin(now, pool) {
                break;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(self.tail_room()));
            let slot = self.slots.back_mut().expect("a segment with room was found or begun");
            slot.payload.extend_from_slice(head);
            self.unsent_bytes += head.len();
            bytes = rest;
        }
        all - bytes.len()
    }

    pub(crate) fn fill(&mut self, now: Instant, pool: &mut Pool, f: impl FnOnce(&mut Vec<u8>, usize)) -> bool {
        if self.fill_begins_segment() && !self.begin(now, pool) {
            return false;
        }
        let room = self.tail_room();
        let slot = self.slots.back_mut().expect("a segment with room was found or begun");
        let before = slot.payload.len();
        f(&mut slot.payload, room);
        let appended = slot.payload.len().checked_sub(before).expect("what was written before stays");
        assert!(appended <= room, "{appended} bytes were put where {room} had room");
        self.unsent_bytes += appended;
        if slot.payload.is_empty() {
            let slot = self.slots.pop_back().expect("it was there a moment ago");
            self.places -= usize::from(slot.places);
            self.unsent_bytes -= HEADER_LEN;
            pool.put(slot.payload);
        }
        true
    }

    pub(crate) fn fill_sn(&self) -> Sn {
        if self.fill_begins_segment() { self.end() } else { self.at(self.slots.len() - 1) }
    }

    fn fill_begins_segment(&self) -> bool {
        let tail = self.tail_room();
        tail == 0 || (tail < MIN_TAIL.min(self.mss / 4) && self.may_begin())
    }

    /// Begins a segment, or remembers that somebody wanted to.
    fn begin(&mut self, now: Instant, pool: &mut Pool) -> bool {
        if !self.may_begin() {
            self.probe.wanted |= self.peer_window() <= self.places;
            self.arm_window_probe(now);
            return false;
        }
        let limit = self.next_limit();
        let places = places(limit);
        self.unsent_bytes += HEADER_LEN;
        self.places += places;
        self.slots.push_back(Slot {
            payload: pool.get(limit),
            // Nothing that fits a packet is more.
            limit: limit as u16,
            places: places as u16,
            state: State::Unsent,
            once: false,
            exact: false,
            order: 0,
            sent_at: now,
            ts: Ts::default(),
        });
        true
    }

    /// Nothing goes for a while, perhaps for minutes: what has been sent and is mostly empty gets as much memory as it needs. The last word of a session
    /// without a carrier is often a short one.
    pub(crate) fn suspend(&mut self, pool: &mut Pool) {
        self.slots.iter_mut().take(self.numbered).for_each(|slot| pool.tighten(&mut slot.payload));
        self.slots.shrink_to_fit();
    }

    // Sending.

    /// The segment that goes next: its index.
    fn due(&mut self) -> Option<usize> {
        if self.is_full() {
            return None;
        }
        while self.lost > 0 {
            let sn = *self.lost_queue.front().expect("every lost segment is in the queue");
            match self.index(sn) {
                Some(index) if matches!(self.slots[index].state, State::Lost(_)) => return Some(index),
                _ => self.lost_queue.pop_front(),
            };
        }
        self.lost_queue.clear();
        (self.unsent() > 0 && self.has_room_for_nxt()).then_some(self.numbered)
    }

    /// As `due().is_some()`, without tidying up.
    pub(crate) fn is_due(&self) -> bool {
        !self.is_full() && (self.lost > 0 || (self.unsent() > 0 && self.has_room_for_nxt()))
    }

    /// As much is on its way as may be.
    fn is_full(&self) -> bool {
        if self.probe_goes && self.lost > 0 {
            return false;
        }
        match self.mode {
            Retransmission::Timeout => self.flying() >= self.congestion.window(),
            Retransmission::TailProbe => self.flying_bytes >= self.flight.limit(),
        }
    }

    /// Nothing is to be sent now.
    pub(crate) fn on_idle(&mut self) {
        if self.mode == Retransmission::TailProbe && !self.is_full() {
            self.flight.on_idle(self.next_order());
        }
    }

    /// Not so only when the peer's first words were of a smaller window than the assumed one.
    fn has_room_for_nxt(&self) -> bool {
        self.numbered_places < self.peer_window()
    }

    /// The segment that goes next goes out now, if its payload is no longer than `room`; or `large_room`, if it is a large one.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        ts: Ts,
        (room, large_room): (usize, usize),
        pool: &mut Pool,
        stats: &mut Stats,
    ) -> Option<(Sn, &[u8])> {
        let index = self.due()?;
        let len = self.slots[index].payload.len();
        let room = if len > self.mss { large_room } else { room };
        if len > room {
            return None;
        }
        self.bound_log();
        let (sn, order) = (self.at(index), self.next_order());
        if self.flying() == 0 {
            // A clock that ran while nothing was on its way says nothing about the peer.
            self.acknowledged_at = now;
            self.una_moved_at = now;
            self.flight.on_first_sent(now, order);
        }
        let slot = &mut self.slots[index];
        let bytes = slot.payload.len() as u64;
        self.flying_bytes += slot.payload.len() + HEADER_LEN;
        if let State::Lost(cause) = slot.state {
            self.probe_goes = false;
            slot.exact = slot.ts != ts;
            self.lost -= 1;
            self.lost_queue.pop_front();
            stats.bytes_resent += bytes;
            match cause {
                Cause::Timeout => stats.resent_timeout += 1,
                Cause::Overtaken => stats.resent_overtaken += 1,
                Cause::Probe => stats.resent_probe += 1,
                Cause::Resume => stats.resent_resume += 1,
            }
        } else {
            self.unsent_bytes -= slot.payload.len() + HEADER_LEN;
            self.numbered += 1;
            if slot.places > 1 {
                // It may have been begun for much and have got little.
                pool.fit(&mut slot.payload);
                let places = places(slot.payload.len());
                self.places -= usize::from(slot.places) - places;
                slot.places = places as u16;
            }
            self.numbered_places += usize::from(slot.places);
            slot.once = true;
            slot.exact = true;
            stats.segments_sent += 1;
            stats.bytes_sent += bytes;
        }
        slot.state = State::Flying;
        slot.sent_at = now;
        slot.ts = ts;
        slot.order = order;
        self.log.push_back(sn);
        Some((sn, &slot.payload))
    }

    /// The number of the next transmission, counted from the beginning.
    fn next_order(&self) -> u64 {
        self.log_base + self.log.len() as u64
    }

    // The log of transmissions.

    /// Takes the first entry off the log; if it is live, its segment is lost.
    fn give_up_first(&mut self, cause: Cause) {
        let (order, Some(sn)) = (self.log_base, self.log.pop_front()) else {
            return;
        };
        self.log_base += 1;
        if !self.is_live(order, sn) {
            return;
        }
        self.mark_lost(sn, cause);
        if order >= self.recovered {
            self.recovered = self.log_base + self.log.len() as u64;
            self.congestion.on_loss();
        }
    }

    fn mark_lost(&mut self, sn: Sn, cause: Cause) {
        let Some(index) = self.index(sn) else {
            return;
        };
        let slot = &mut self.slots[index];
        if slot.state == State::Flying {
            self.flying_bytes -= slot.payload.len() + HEADER_LEN;
        }
        slot.state = State::Lost(cause);
        slot.once = false;
        self.lost += 1;
        self.lost_queue.push_back(sn);
    }

    fn is_live(&self, order: u64, sn: Sn) -> bool {
        self.index(sn).is_some_and(|index| {
            let slot = &self.slots[index];
            slot.state == State::Flying && slot.order == order
        })
    }

    /// After this the log's first entry is live, or there is none.
    fn trim_log(&mut self) {
        while let Some(&sn) = self.log.front()
            && !self.is_live(self.log_base, sn)
        {
            self.log.pop_front();
            self.log_base += 1;
        }
    }

    /// Dead entries can pile up behind a live one, by tail probes for days on end: sorts them out now and then.
    fn bound_log(&mut self) {
        if self.log.len() < 4 * self.slots.len() + IDLE_RING {
            return;
        }
        // Orders are positions, so the live ones move to the end of the numbers used so far.
        let mut live: Vec<(u64, Sn)> = (self.log_base..).zip(self.log.iter().copied()).collect();
        live.retain(|&(order, sn)| self.is_live(order, sn));
        let next = self.log_base + self.log.len() as u64;
        self.log_base = next - live.len() as u64;
        self.log.clear();
        for (order, (_, sn)) in (self.log_base..).zip(live) {
            if let Some(index) = self.index(sn) {
                self.slots[index].order = order;
            }
            self.log.push_back(sn);
        }
    }

    /// Gives memory back that a quiet engine with nothing to send does not need.
    #[inline]
    pub(crate) fn tidy(&mut self, pool: &Pool) {
        let largest = self.slots.capacity().max(self.log.capacity()).max(self.lost_queue.capacity());
        // Shrinking costs something also where there is nothing to shrink.
        if self.slots.is_empty() && largest > IDLE_RING && pool.is_quiet() {
            for ring in [&mut self.log, &mut self.lost_queue] {
                ring.shrink_to(IDLE_RING);
            }
            self.slots.shrink_to(IDLE_RING);
        }
    }

    // Timers.

    /// When the next timer is due. `learning`: data waits for the peer's `una`.
    pub(crate) fn deadline(&self, rto: &Rto, learning: bool) -> Option<Instant> {
        let resend = self.resend_deadline(rto, learning);
        let probe = self.probe.due.filter(|_| self.is_blocked_by_peer());
        match (resend, probe) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn resend_deadline(&self, rto: &Rto, learning: bool) -> Option<Instant> {
        if self.numbered == 0 {
            return None;
        }
        let unsure = learning || self.flying() == 0;
        if unsure && self.lost > 0 && !learning {
            // It is due already and waits for `poll_transmit` only.
            return None;
        }
        if unsure || self.mode == Retransmission::TailProbe {
            return Some(self.una_moved_at + self.tail_interval(rto));
        }
        let sn = *self.log.front()?;
        let sent_at = self.slots[self.index(sn)?].sent_at;
        Some(sent_at.max(self.acknowledged_at) + self.timeout(rto))
    }

    fn timeout(&self, rto: &Rto) -> Duration {
        self.grown(rto.get())
    }

    fn tail_interval(&self, rto: &Rto) -> Duration {
        self.grown(TAIL_PROBE_BASE + 4 * rto.srtt().unwrap_or_default())
    }

    /// Linear growth with a cap, which never is below the estimate itself.
    fn grown(&self, base: Duration) -> Duration {
        base.saturating_mul(self.backoff.saturating_add(1)).min(self.max_backoff.max(base))
    }

    /// Somebody wants to send and only the peer's window is in the way.
    pub(crate) fn is_blocked_by_peer(&self) -> bool {
        let peer_window = self.peer_window();
        (self.probe.wanted && self.places >= peer_window) || (self.unsent() > 0 && self.numbered_places >= peer_window)
    }

    /// Starts the clock of the window probe once somebody is blocked.
    fn arm_window_probe(&mut self, now: Instant) {
        if self.is_blocked_by_peer() && self.probe.due.is_none() {
            self.probe.due = Some(now + self.probe.wait);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, rto: &Rto, learning: bool) -> Due {
        let mut due = Due::default();
        if self.is_blocked_by_peer()
            && let Some(probe_due) = self.probe.due
            && probe_due <= now
        {
            due.ask_window = true;
            self.probe.wait = (self.probe.wait + self.probe.wait / 2).min(WINDOW_PROBE_MAX);
            self.probe.due = Some(now + self.probe.wait);
        }
        if self.resend_deadline(rto, learning).is_none_or(|deadline| deadline > now) {
            return due;
        }
        if learning || self.flying() == 0 || self.mode == Retransmission::TailProbe {
            // Behind `una` is either something to send again or, if the peer has it all, something to ask for.
            self.una_moved_at = now;
            match self.probe_tail(learning) {
                TailProbe::Waiting => return due,
                TailProbe::Marked => {}
                TailProbe::Ask => due.ask_window = true,
            }
        } else {
            let timeout = self.timeout(rto);
            while let Some(&sn) = self.log.front()
                && let Some(index) = self.index(sn)
                && self.slots[index].sent_at + timeout <= now
            {
                self.give_up_first(Cause::Timeout);
                self.trim_log();
            }
            // What went again and timed out again comes before what has not had its turn: the peer may want that first.
            let una = self.una;
            self.lost_queue.make_contiguous().sort_unstable_by_key(|sn| sn.distance_from(una));
        }
        self.backoff = self.backoff.saturating_add(1);
        due
    }

    /// Marks the first segment that the peer does not have, unless it is marked already, and lets it go before all others.
    fn probe_tail(&mut self, learning: bool) -> TailProbe {
        let mut numbered = self.slots.range(..self.numbered);
        let first = numbered.position(|slot| slot.state != State::Acknowledged).filter(|_| !learning);
        let Some(index) = first else {
            return TailProbe::Ask;
        };
        let sn = self.at(index);
        let marked = self.slots[index].state == State::Flying;
        if marked {
            self.mark_lost(sn, Cause::Probe);
            self.trim_log();
        }
        self.lost_queue.retain(|&other| other != sn);
        self.lost_queue.push_front(sn);
        self.probe_goes = true;
        if marked { TailProbe::Marked } else { TailProbe::Waiting }
    }

    // Carriers.

    /// The carrier is gone and with it all that was on its way. `false`: nothing was.
    pub(crate) fn resume(&mut self, now: Instant, same_path: bool) -> bool {
        self.log_base += self.log.len() as u64;
        self.log.clear();
        self.lost_queue.clear();
        self.lost = 0;
        for index in 0..self.numbered {
            if self.slots[index].state != State::Acknowledged {
                self.mark_lost(self.at(index), Cause::Resume);
            }
        }
        self.congestion = Congestion::new();
        self.flight = self.flight.resumed(now, self.next_order(), same_path);
        self.recovered = self.log_base;
        self.probe_goes = false;
        self.backoff = 0;
        self.una_moved_at = now;
        self.acknowledged_at = now;
        self.probe.due = None;
        self.probe.wait = WINDOW_PROBE_FIRST;
        self.arm_window_probe(now);
        self.numbered > 0
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests;
