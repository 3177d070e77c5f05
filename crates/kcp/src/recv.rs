//! The receiving half: PUSH segments until the application has read them, and what is acknowledged.
//!
//! ```text
//! readable  [ in order, unread ]          waiting  [ rcv_nxt | out of order, with gaps ]
//! ```
//!
//! Accepted is what lies within the largest room there was, which is more than any honest peer was told, of `rcv_nxt` (kcp-go: within `recv_window`). The rest
//! is kcp-go's: `readable` holds at most `recv_window` chunks; one ACK for the last arrival below `rcv_nxt` (`una` covers the others) and one for each out-of-order segment.

use std::collections::VecDeque;

use crate::config::{Config, places};
use crate::pool::Pool;
use crate::sn::{Sn, Ts};
use crate::stats::Stats;

/// Payload of the largest packet known of any KCP, for the budget in bytes.
const LARGEST_USUAL: usize = 1500;
/// Every peer assumes as much of a window before it was told one.
const LEAST_ROOM: usize = 32;
/// Rings up to this capacity are kept while empty.
const IDLE_RING: usize = 32;

#[derive(Debug)]
struct Waiting {
    payload: Vec<u8>,
    /// Its ACK is in the list.
    ack_due: bool,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    window: usize,
    /// No more than this is announced, whatever would be taken.
    announced: usize,
    rcv_nxt: Sn,
    /// Places of all segments before that one, counted as numbers are.
    rcv_places: Sn,
    readable: VecDeque<Vec<u8>>,
    /// Places of those.
    unread: usize,
    /// Index 0 is `rcv_nxt`; there only while `readable` is full.
    waiting: VecDeque<Option<Waiting>>,
    /// Allocated for chunks, in bytes.
    held: usize,
    /// Places that are held unread, as far as the peer was not told more. At most `window`.
    room: usize,
    /// The most that it was.
    most_room: usize,

    /// Out-of-order arrivals to acknowledge, in order of arrival.
    acks: VecDeque<(Sn, Ts)>,
    /// The last arrival below `rcv_nxt`.
    cumulative_ack: Option<(Sn, Ts)>,
    wins_due: bool,
    /// `rcv_places` as the peer was told last.
    told_places: Sn,
    /// The window's end, a place, as the peer was told last.
    told_edge: Sn,
    told: bool,
}

impl Receiver {
    pub(crate) fn new(config: &Config) -> Self {
        let rcv_nxt = Sn::new(config.initial_sn);
        let window = usize::from(config.recv_window);
        Self {
            window,
            announced: window,
            rcv_nxt,
            rcv_places: rcv_nxt,
            readable: VecDeque::new(),
            unread: 0,
            waiting: VecDeque::new(),
            held: 0,
            room: window,
            most_room: window,
            acks: VecDeque::new(),
            cumulative_ack: None,
            wins_due: false,
            told_places: rcv_nxt,
            told_edge: rcv_nxt.plus(u32::from(config.recv_window)),
            told: false,
        }
    }

    pub(crate) fn rcv_nxt(&self) -> Sn {
        self.rcv_nxt
    }

    /// Free places, as announced.
    pub(crate) fn wnd(&self) -> u16 {
        u16::try_from(self.room.saturating_sub(self.unread).min(self.announced)).expect("recv_window is a u16")
    }

    /// Holds at most so many places unread from now on.
    pub(crate) fn set_room(&mut self, places: u16) {
        self.room = usize::from(places).clamp(LEAST_ROOM.min(self.window), self.window);
        // Nobody has been told a window before the first packet.
        self.most_room = if self.told { self.most_room.max(self.room) } else { self.room };
        self.wins_due |= self.reopens();
    }

    /// Announces at most so many free places from now on, at least one. What is accepted does not change.
    pub(crate) fn announce_at_most(&mut self, places: u16) {
        self.announced = usize::from(places).clamp(1, self.window);
    }

    /// Whether a PUSH is one to take in or to acknowledge again; counts it if not.
    pub(crate) fn accepts(&self, sn: Sn, payload: &[u8], stats: &mut Stats) -> bool {
        if payload.is_empty() {
            // Taken, it would be acknowledged in place of the real segment of that number.
            stats.dropped_empty_push += 1;
            return false;
        }
        if sn.offset_from(self.rcv_nxt).is_some_and(|offset| offset >= self.most_room) {
            stats.dropped_beyond_window += 1;
            return false;
        }
        true
    }

    /// Whether a PUSH that [`Self::accepts`] brings what would be read next.
    pub(crate) fn is_next(&self, sn: Sn) -> bool {
        sn == self.rcv_nxt && self.readable.is_empty()
    }

    /// A PUSH that [`Self::is_next`] was read as it came.
    #[inline]
    pub(crate) fn on_taken(&mut self, sn: Sn, ts: Ts, len: usize, stats: &mut Stats) {
        stats.segments_received += 1;
        stats.bytes_received += len as u64;
        self.cumulative_ack = Some((sn, ts));
        self.pass(len);
        if !self.waiting.is_empty() {
            self.waiting.pop_front();
            self.advance();
        }
    }

    /// Takes in a PUSH that [`Self::accepts`].
    pub(crate) fn on_push(&mut self, sn: Sn, ts: Ts, payload: &[u8], pool: &mut Pool, stats: &mut Stats) {
        let Some(offset) = sn.offset_from(self.rcv_nxt) else {
            stats.duplicates += 1;
            self.cumulative_ack = Some((sn, ts));
            return;
        };
        if let Some(Some(waiting)) = self.waiting.get_mut(offset) {
            stats.duplicates += 1;
            if !waiting.ack_due {
                waiting.ack_due = true;
                self.acks.push_back((sn, ts));
            }
            return;
        }
        // With nothing to read, the segment that all others wait for is taken: else nothing would ever be freed.
        if self.held >= 2 * self.most_room * LARGEST_USUAL && !(offset == 0 && self.readable.is_empty()) {
            stats.dropped_over_budget += 1;
            return;
        }
        let mut chunk = pool.get(payload.len());
        chunk.extend_from_slice(payload);
        self.held += chunk.capacity();
        stats.segments_received += 1;
        stats.bytes_received += payload.len() as u64;

        if offset == 0 && self.readable.len() < self.window {
            self.cumulative_ack = Some((sn, ts));
            self.push_readable(chunk);
            self.waiting.pop_front();
            self.advance();
            return;
        }
        if self.waiting.len() <= offset {
            self.waiting.resize_with(offset + 1, || None);
        }
        self.waiting[offset] = Some(Waiting { payload: chunk, ack_due: true });
        self.acks.push_back((sn, ts));
    }

    /// Moves what has come into order.
    fn advance(&mut self) {
        while self.readable.len() < self.window
            && let Some(first) = self.waiting.front_mut()
            && let Some(waiting) = first.take()
        {
            self.waiting.pop_front();
            self.push_readable(waiting.payload);
        }
    }

    fn push_readable(&mut self, chunk: Vec<u8>) {
        self.unread += places(chunk.len());
        self.pass(chunk.len());
        self.readable.push_back(chunk);
    }

    /// The next segment, with so many bytes, is in order.
    #[inline]
    fn pass(&mut self, len: usize) {
        self.rcv_nxt = self.rcv_nxt.next();
        // A packet is far below 4 GiB.
        self.rcv_places = self.rcv_places.plus(places(len) as u32);
    }

    /// Bytes allocated for the rings.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.readable.capacity() * size_of::<Vec<u8>>()
            + self.waiting.capacity() * size_of::<Option<Waiting>>()
            + self.acks.capacity() * size_of::<(Sn, Ts)>()
    }

    // Reading.

    pub(crate) fn is_empty(&self) -> bool {
        self.readable.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn peek(&self) -> Option<&[u8]> {
        self.readable.front().map(Vec::as_slice)
    }

    pub(crate) fn consume(&mut self, pool: &mut Pool) {
        let Some(chunk) = self.readable.pop_front() else {
            return;
        };
        self.held -= chunk.capacity();
        self.unread -= places(chunk.len());
        pool.put(chunk);
        self.advance();
        self.wins_due |= self.reopens();
        if self.readable.is_empty() && self.waiting.is_empty() && pool.is_quiet() {
            self.readable.shrink_to(IDLE_RING);
            self.waiting.shrink_to(IDLE_RING);
            self.acks.shrink_to(IDLE_RING);
        }
    }

    /// Whether there is room, and the peer, as far as we told it, has none, or little and would have much more if it knew.
    fn reopens(&self) -> bool {
        if self.wnd() == 0 {
            return false;
        }
        let known = self.told_edge.distance_from(self.rcv_places);
        let gain = self.rcv_places.plus(u32::from(self.wnd())).distance_from(self.told_edge);
        let quarter = i32::try_from(self.room / 4).expect("recv_window is a u16");
        known <= 0 || (known < quarter && gain >= quarter)
    }

    // Answering.

    pub(crate) fn ask_answer(&mut self) {
        self.wins_due = true;
    }

    /// A new carrier begins: the last window update may have died with the old one.
    pub(crate) fn resume(&mut self) {
        let known = self.told_edge.distance_from(self.rcv_places);
        let half = i32::try_from(self.room / 2).expect("recv_window is a u16");
        self.wins_due |= known < half;
    }

    pub(crate) fn has_acks(&self) -> bool {
        self.cumulative_ack.is_some() || !self.acks.is_empty()
    }

    /// Places of the segments of whose arrival the peer was not told yet. Duplicates are not counted, and each that is out of order counts as one.
    pub(crate) fn untold(&self) -> usize {
        self.rcv_places.offset_from(self.told_places).unwrap_or(0) + self.acks.len()
    }

    pub(crate) fn wins_due(&self) -> bool {
        self.wins_due
    }

    pub(crate) fn take_wins(&mut self) -> bool {
        std::mem::take(&mut self.wins_due)
    }

    pub(crate) fn next_ack(&mut self) -> Option<(Sn, Ts)> {
        while let Some((sn, ts)) = self.acks.pop_front() {
            let Some(offset) = sn.offset_from(self.rcv_nxt) else {
                // `una` has passed it meanwhile and says so, with this ACK if there is no other.
                self.cumulative_ack.get_or_insert((sn, ts));
                continue;
            };
            if let Some(Some(waiting)) = self.waiting.get_mut(offset) {
                waiting.ack_due = false;
            }
            return Some((sn, ts));
        }
        self.cumulative_ack.take()
    }

    /// A packet with this `wnd` has been made, and with `rcv_nxt` for `una`.
    pub(crate) fn on_told(&mut self, wnd: u16) {
        self.told_places = self.rcv_places;
        self.told_edge = self.rcv_places.plus(u32::from(wnd));
        self.told = true;
    }
}
