//! To the wire: who may send next, and the frames.
//!
//! In: room. Out: whole frames that fill it. Control frames go first, in their order; then the streams that have
//! something to send take turns, a frame each, so that a small request waits for one frame of each bulk transfer and not
//! for their buffers. A stream's FIN is part of its turns and so cannot overtake its data.
//!
//! A window update is written with what is true when it goes out, however long ago it was queued.

use crate::mux::{Event, Mux};
use crate::stream::{Fin, Hold};
use crate::table::Key;
use crate::wire::{Command, HEADER_LEN, Header, StreamId, UPD_LEN, Upd, Version};
use std::collections::VecDeque;
use std::time::Instant;

/// A stream whose frame was cut shorter than this by lack of room keeps its turn.
const LEAST_TURN: usize = 1_024;

#[derive(Clone, Copy, Debug)]
enum Control {
    Syn(StreamId),
    /// FIN for a stream that was not taken, and before it an update that says so to who understands it.
    Refusal(StreamId),
    /// An update that says that the stream is given up. Its FINs follow as those of any stream.
    Reset(StreamId),
    Update(Key),
}

#[derive(Debug)]
pub(crate) struct Output {
    control: VecDeque<Control>,
    /// Streams that can send. The first one's turn it is.
    turns: VecDeque<Key>,
    /// Bytes that the first one has sent in its turn.
    turn_bytes: usize,
    pub(crate) nop_due: bool,
    pub(crate) last_sent: Instant,
}

impl Output {
    pub(crate) fn new(now: Instant) -> Self {
        Self { control: VecDeque::new(), turns: VecDeque::new(), turn_bytes: 0, nop_due: false, last_sent: now }
    }

    pub(crate) fn queue_syn(&mut self, id: StreamId) {
        self.control.push_back(Control::Syn(id));
    }

    pub(crate) fn queue_refusal(&mut self, id: StreamId) {
        self.control.push_back(Control::Refusal(id));
    }

    pub(crate) fn queue_reset(&mut self, id: StreamId) {
        self.control.push_back(Control::Reset(id));
    }

    pub(crate) fn queue_update(&mut self, key: Key) {
        self.control.push_back(Control::Update(key));
    }

    /// Streams that have something to send.
    pub(crate) fn waiting(&self) -> usize {
        self.turns.len()
    }

    pub(crate) fn queue_turn(&mut self, key: Key) {
        self.turns.push_back(key);
    }

    pub(crate) fn trim(&mut self) {
        self.control.shrink_to_fit();
        self.turns.shrink_to_fit();
    }

    /// The stream's turn is over; it takes another if it has more.
    fn next_turn(&mut self, again: bool) {
        self.turn_bytes = 0;
        if again && self.turns.len() == 1 {
            return;
        }
        if let Some(key) = self.turns.pop_front()
            && again
        {
            self.turns.push_back(key);
        }
    }
}

impl Mux {
    /// Something can be sent: [`Mux::poll_transmit`] would give it, were there room enough.
    ///
    /// A FIN that [`Mux::set_fin_quiet`] is going to hold counts until `poll_transmit` has seen it.
    pub fn wants_transmit(&self) -> bool {
        !self.output.control.is_empty() || !self.output.turns.is_empty() || self.output.nop_due
    }

    /// Appends whole frames to `out`, together at most `room` bytes, and says whether there were any.
    ///
    /// A frame of data needs a room of 9 bytes at least, a window update 16, a refusal 24: with less than that, `false` does not mean
    /// that there is nothing to send.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) -> bool {
        let start = out.len();
        let end = start.saturating_add(room);
        self.arena.advance(now);
        if self.put_control(out, end) {
            // Mostly the first frame fills it.
            while end - out.len() >= HEADER_LEN
                && let Some(&key) = self.output.turns.front()
                && self.put_turn(key, out, end)
            {}
        }
        if !self.sleepers.is_empty() {
            self.wake_writers(now);
        }
        if self.output.nop_due && out.len() == start && end - start >= HEADER_LEN {
            self.put_header(out, Command::Nop, 0, StreamId::new(0));
            self.stats.keepalives_sent += 1;
        }
        let sent = out.len() > start;
        if sent {
            self.output.nop_due = false;
            self.output.last_sent = now;
        }
        sent
    }

    /// `false`: the next control frame does not fit.
    fn put_control(&mut self, out: &mut Vec<u8>, end: usize) -> bool {
        while let Some(&control) = self.output.control.front() {
            let room = end - out.len();
            match control {
                Control::Syn(id) => {
                    if room < HEADER_LEN {
                        return false;
                    }
                    self.put_header(out, Command::Syn, 0, id);
                }
                Control::Refusal(id) => {
                    let told = self.tells_refusals && self.config.version == Version::V2;
                    if room < HEADER_LEN + if told { HEADER_LEN + UPD_LEN } else { 0 } {
                        return false;
                    }
                    if told {
                        self.put_header(out, Command::Upd, UPD_LEN as u16, id);
                        out.extend_from_slice(&Upd { consumed: self.config.initial_counter, window: 0 }.encode());
                    }
                    self.put_header(out, Command::Fin, 0, id);
                }
                Control::Reset(id) => {
                    if room < HEADER_LEN + UPD_LEN {
                        return false;
                    }
                    self.put_header(out, Command::Upd, UPD_LEN as u16, id);
                    let consumed = self.config.initial_counter.wrapping_sub(1);
                    out.extend_from_slice(&Upd { consumed, window: 0 }.encode());
                }
                Control::Update(key) => {
                    // One who has finished, or nobody who reads: no need for a window.
                    if let Some(stream) = self.table.get_mut(key).filter(|stream| stream.is_reading()) {
                        if room < HEADER_LEN + UPD_LEN {
                            return false;
                        }
                        stream.update_queued = false;
                        let (id, upd) = (stream.id, stream.next_update());
                        self.put_header(out, Command::Upd, UPD_LEN as u16, id);
                        out.extend_from_slice(&upd.encode());
                        self.stats.updates_sent += 1;
                    }
                }
            }
            self.output.control.pop_front();
        }
        true
    }

    /// One frame of the stream whose turn it is. `false`: it does not fit.
    fn put_turn(&mut self, key: Key, out: &mut Vec<u8>, end: usize) -> bool {
        let room = end - out.len();
        let windows = self.config.version == Version::V2;
        let Some(stream) = self.table.get_mut(key) else {
            self.output.next_turn(false);
            return true;
        };
        if !stream.has_turn(windows) {
            stream.in_turns = false;
            self.output.next_turn(false);
            return true;
        }
        if stream.send.is_empty() {
            return self.put_fin(key, out, room);
        }
        if room <= HEADER_LEN {
            return false;
        }
        let window = if windows { stream.send_window() as usize } else { usize::MAX };
        let length = stream.send.len().min(window).min(room - HEADER_LEN).min(self.config.max_frame_size);
        // max_frame_size is at most 65,535.
        let header =
            Header { version: self.config.version, command: Command::Psh, length: length as u16, stream: stream.id };
        out.extend_from_slice(&header.encode());
        self.send_allocated -= self.arena.pop(&mut stream.send, length, |part| out.extend_from_slice(part));
        stream.on_sent(length as u32);
        self.stats.frames_sent += 1;
        self.stats.bytes_sent += length as u64;
        self.output.turn_bytes += length;
        let again = stream.has_turn(windows);
        stream.in_turns = again;
        if stream.wants_write && !stream.asleep {
            self.queue_writer(key);
        }
        if !again || self.output.turn_bytes >= LEAST_TURN.min(self.config.max_frame_size) {
            self.output.next_turn(again);
        }
        if !again {
            self.settle(key);
        }
        true
    }

    /// A writer that was turned away may come again: half of what he may have waiting is out.
    fn queue_writer(&mut self, key: Key) {
        let writable_at = self.writable_at();
        let Some(stream) = self.table.get_mut(key) else { return };
        if stream.send.len() <= writable_at {
            stream.asleep = true;
            self.sleepers.push(key);
        }
    }

    /// Tells those whose turn it is to be woken.
    fn wake_writers(&mut self, now: Instant) {
        self.sleepers.measure(now, self.stats.bytes_sent);
        while let Some(key) = self.sleepers.pop(self.output.waiting(), self.stats.bytes_sent) {
            let writable_at = self.writable_at();
            let Some(stream) = self.table.get_mut(key) else { continue };
            stream.asleep = false;
            // He may have learnt of an error, or closed the stream, or have come all the same.
            if stream.wants_write && stream.send.len() <= writable_at {
                stream.wants_write = false;
                if !stream.in_turns {
                    stream.awaited = true;
                    self.sleepers.await_one();
                }
                self.events.push_back(Event::Writable(stream.id));
            }
        }
    }

    /// The FIN of the stream whose turn it is, unless it is held. `false`: it does not fit.
    fn put_fin(&mut self, key: Key, out: &mut Vec<u8>, room: usize) -> bool {
        let held = self.hold_fin(key);
        let Some(stream) = self.table.get_mut(key) else { return true };
        if held {
            stream.in_turns = false;
            self.output.next_turn(false);
            return true;
        }
        if room < HEADER_LEN {
            return false;
        }
        let id = stream.id;
        stream.hold = Hold::No;
        if stream.fin == Fin::Sent {
            stream.fin = Fin::SentTwice;
        } else {
            stream.fin = Fin::Sent;
            self.stats.fins_sent += 1;
            if !stream.lost {
                self.events.push_back(Event::FinSent(id));
            }
        }
        // The second follows at once.
        stream.in_turns = stream.fin_is_next();
        if !stream.in_turns {
            self.output.next_turn(false);
        }
        self.put_header(out, Command::Fin, 0, id);
        self.settle(key);
        true
    }

    fn put_header(&mut self, out: &mut Vec<u8>, command: Command, length: u16, stream: StreamId) {
        out.extend_from_slice(&Header { version: self.config.version, command, length, stream }.encode());
        self.stats.frames_sent += 1;
    }
}
