//! One stream: its state, its two windows, its two buffers.
//!
//! In: bytes read, written, received; updates; FINs. Out: what may be sent, what must be told. All counters are bytes
//! modulo 2^32, as on the wire.
//!
//! ```text
//! sending     sent - peer_consumed <= peer_window                    v2 only
//! receiving   edge = max(initial_window, every consumed + window that was told)
//! update      at the first read, then each min(window / 16, 1 MiB) that was read
//! tuning      a whole window read within two round trips: window x 2
//! ```
//!
//! xtaci/smux tells of half windows; that halves the throughput of a long path, hence the sixteenth. Not here: the table
//! of streams, turns, events: see [`crate::Mux`].

use crate::buffer::Queue;
use crate::config::{Config, LARGEST_WINDOW};
use crate::error::StreamError;
use crate::quiet::Moment;
use crate::wire::{StreamId, Upd};
use std::time::{Duration, Instant};

/// An update goes out at the latest when this much was read.
const UPDATE_AT_MOST: u32 = 1 << 20;

/// How far our own direction has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fin {
    /// The application may write.
    Open,
    /// The application has finished; data may be before the FIN, and the FIN may be held.
    Wanted,
    /// As `Wanted`, and nothing holds the FIN.
    Due,
    /// FIN is out.
    Sent,
    /// The second FIN is out: the peer knows that nobody reads here either.
    SentTwice,
}

/// Why the FIN that is next does not go, if it does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hold {
    /// It goes.
    No,
    /// The peer has not acknowledged the data before it.
    Unacknowledged,
    /// The peer may be answering: nothing has arrived since then.
    QuietSince(Moment),
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) send: Queue,
    pub(crate) recv: Queue,

    sent: u32,
    peer_consumed: u32,
    peer_window: u32,
    /// An update came: the peer's window is known, not assumed.
    peer_window_told: bool,

    received: u32,
    edge: u32,
    consumed: u32,
    told: u32,
    window: u32,
    first_read_done: bool,
    tune_from: u32,
    tune_since: Option<Instant>,

    pub(crate) fin: Fin,
    pub(crate) hold: Hold,
    /// The peer has finished writing.
    pub(crate) peer_fin: bool,
    /// The peer's second FIN: it does not read either.
    pub(crate) peer_closed: bool,
    /// Because of that, written bytes were dropped unsent.
    pub(crate) lost: bool,
    /// The peer has said that it has never taken the stream.
    pub(crate) refused: bool,
    /// The same said of a stream that it has taken, and given up.
    pub(crate) reset: bool,
    /// The application has let go.
    pub(crate) let_go: bool,
    /// The application knows that there is no more to read.
    pub(crate) end_told: bool,

    pub(crate) wants_read: bool,
    pub(crate) wants_write: bool,
    pub(crate) in_turns: bool,
    /// Its writer is among those that are to be woken.
    pub(crate) asleep: bool,
    /// Its writer was woken while it had nothing to send, and has not come since.
    pub(crate) awaited: bool,
    pub(crate) update_queued: bool,
    /// What the session's sums say of this stream.
    pub(crate) counted_unsent: bool,
    pub(crate) counted_reading: bool,
}

impl Stream {
    /// What may be written now: `buffer` bytes may wait in all, `left` of what all streams together may have, or this one's `share` of it.
    #[inline]
    pub(crate) fn room(&self, buffer: usize, left: usize, share: usize) -> Result<usize, StreamError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        if self.fin != Fin::Open {
            return Err(StreamError::Finished);
        }
        if self.peer_closed {
            return Err(StreamError::ClosedByPeer);
        }
        let waiting = self.send.len();
        Ok(buffer.saturating_sub(waiting).min(left.max(share.saturating_sub(waiting))))
    }

    /// Why calls fail, once the peer has said that it has not, or has no longer, taken the stream.
    pub(crate) fn refusal(&self) -> Option<StreamError> {
        self.refused.then_some(if self.reset { StreamError::Reset } else { StreamError::Refused })
    }

    pub(crate) fn new(id: StreamId, config: &Config, peer_window: u32) -> Self {
        let start = config.initial_counter;
        Self {
            id,
            send: Queue::new(),
            recv: Queue::new(),
            sent: start,
            peer_consumed: start,
            peer_window,
            peer_window_told: false,
            received: start,
            edge: start.wrapping_add(config.initial_window),
            consumed: start,
            told: start,
            window: config.initial_window,
            first_read_done: false,
            tune_from: start,
            tune_since: None,
            fin: Fin::Open,
            hold: Hold::No,
            peer_fin: false,
            peer_closed: false,
            lost: false,
            refused: false,
            reset: false,
            let_go: false,
            end_told: false,
            wants_read: false,
            wants_write: false,
            in_turns: false,
            asleep: false,
            awaited: false,
            update_queued: false,
            counted_unsent: false,
            counted_reading: false,
        }
    }

    // Sending.

    /// Bytes that the peer's window takes now.
    #[inline]
    pub(crate) fn send_window(&self) -> u32 {
        self.peer_window.saturating_sub(self.sent.wrapping_sub(self.peer_consumed))
    }

    #[inline]
    pub(crate) fn on_sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Takes in an update. `false`: it contradicts what was sent or told before, and has no effect.
    pub(crate) fn on_update(&mut self, upd: Upd) -> bool {
        let in_flight = self.sent.wrapping_sub(self.peer_consumed);
        let progress = upd.consumed.wrapping_sub(self.peer_consumed);
        if progress > in_flight || upd.window > LARGEST_WINDOW {
            return false;
        }
        self.peer_consumed = upd.consumed;
        self.peer_window = upd.window;
        self.peer_window_told = true;
        true
    }

    /// The peer announced the window that its streams begin with.
    pub(crate) fn on_peer_window(&mut self, window: u32) {
        if !self.peer_window_told {
            self.peer_window = self.peer_window.max(window);
        }
    }

    /// A FIN is next, if nothing holds it: the first behind its data, or the second.
    pub(crate) fn fin_is_next(&self) -> bool {
        match self.fin {
            Fin::Open | Fin::SentTwice => false,
            Fin::Wanted | Fin::Due => self.send.is_empty(),
            Fin::Sent => self.let_go && !self.peer_fin,
        }
    }

    /// Something can be sent now; `windows`: the version has windows.
    pub(crate) fn has_turn(&self, windows: bool) -> bool {
        if self.send.is_empty() {
            self.fin_is_next() && self.hold == Hold::No
        } else {
            !windows || self.send_window() > 0
        }
    }

    /// Data or a FIN has still to go out.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.send.is_empty() || matches!(self.fin, Fin::Wanted | Fin::Due) || self.fin_is_next()
    }

    /// Data may still come that somebody waits for.
    pub(crate) fn is_reading(&self) -> bool {
        !self.peer_fin && !self.let_go
    }

    /// Both directions are over and the application has let go.
    pub(crate) fn is_over(&self) -> bool {
        self.let_go && matches!(self.fin, Fin::Sent | Fin::SentTwice) && !self.is_unsent()
    }

    // Receiving.

    /// Announced a data frame of `length` bytes. `Err`: this many bytes are beyond the window.
    #[inline]
    pub(crate) fn on_data(&mut self, length: u16) -> Result<(), u32> {
        let room = self.edge.wrapping_sub(self.received);
        let length = u32::from(length);
        if length > room {
            return Err(length - room);
        }
        self.received = self.received.wrapping_add(length);
        Ok(())
    }

    /// The application read this much.
    #[inline]
    pub(crate) fn on_read(&mut self, now: Instant, bytes: u32, round_trip: Option<Duration>, cap: u32) -> ReadEffect {
        let first = !self.first_read_done;
        self.first_read_done = true;
        let since = *self.tune_since.get_or_insert(now);
        self.consumed = self.consumed.wrapping_add(bytes);
        let mut grown = false;
        if self.consumed.wrapping_sub(self.tune_from) >= self.window {
            let took = now.saturating_duration_since(since);
            if self.window < cap && round_trip.is_some_and(|rtt| took <= rtt.saturating_mul(2)) {
                self.window = self.window.saturating_mul(2).min(cap);
                grown = true;
            }
            self.tune_from = self.consumed;
            self.tune_since = Some(now);
        }
        let untold = self.consumed.wrapping_sub(self.told);
        let tell = first || grown || untold >= (self.window / 16).min(UPDATE_AT_MOST);
        ReadEffect { tell: tell && !self.peer_fin, grown }
    }

    /// The update to send now. From here on the peer may use the window in it.
    pub(crate) fn next_update(&mut self) -> Upd {
        self.told = self.consumed;
        let edge = self.consumed.wrapping_add(self.window);
        let further = edge.wrapping_sub(self.edge).cast_signed();
        if further > 0 {
            self.edge = edge;
        }
        Upd { consumed: self.consumed, window: self.window }
    }
}

/// What follows from a read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ReadEffect {
    /// An update is due.
    pub(crate) tell: bool,
    /// The window was doubled.
    pub(crate) grown: bool,
}
