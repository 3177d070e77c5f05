//! One session: its streams, and what the application does with them.
//!
//! What comes off the wire is in `input.rs`, what goes onto it in `output.rs`; here is what they share, and the clock.

use crate::buffer::{Arena, Sizing};
use crate::config::{ASSUMED_WINDOW, Config, LARGEST_WINDOW};
use crate::error::{OpenError, StreamError};
use crate::input::Input;
use crate::output::Output;
use crate::quiet::{Moment, QuietClock};
use crate::stats::Stats;
use crate::stream::{Fin, Hold, Stream};
use crate::table::{Key, Table};
use crate::wake::Sleepers;
use crate::wire::{StreamId, Version};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

/// What several streams together are to have waiting to be sent. More of it falls out of the processor's cache before it goes.
const CACHED: usize = 4 << 20;
/// A stream may have as much all the same, if that is not beyond [`Config::send_buffer`]: with less its writer is woken for little.
const LEAST_BUFFER: usize = 64 << 10;

/// Which end of the session this is. It decides the ids of the streams that it opens, nothing else.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// Opens 3, 5, 7 and so on.
    Client,
    /// Opens 2, 4, 6 and so on.
    Server,
}

/// What the application should know. Told once; `Readable` and `Writable` only to one who was turned away before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened streams: call [`Mux::accept`] until it gives none.
    Incoming,
    /// A read of this stream gave nothing; now there is data, or the end.
    Readable(StreamId),
    /// A write to this stream took nothing, or [`Mux::room`] was `None`; now there is room (half the buffer, or half of the stream's share), or an error to see.
    /// Where many streams have something to send and 256 MB/s move, it comes a little later, in turn.
    Writable(StreamId),
    /// The stream's FIN went out with the last [`Mux::poll_transmit`], behind all that was written.
    FinSent(StreamId),
    /// The stream's FIN is held ([`Mux::set_fin_quiet`]). All data before it is out; once the peer has it, call
    /// [`Mux::start_fin_quiet`].
    FinHeld(StreamId),
    /// The stream whose FIN is held has been quiet for long enough, as far as is seen here. Ask the peer something, and call
    /// [`Mux::handle_alive`] when the answer comes.
    FinQuiet(StreamId),
    /// The peer closed the stream altogether. Writes fail from now on; what it had not read is lost.
    ClosedByPeer {
        /// Which.
        id: StreamId,
        /// Written bytes were dropped unsent. [`Mux::finish`] fails from now on, and no [`Event::FinSent`] comes. What the
        /// peer got and did not read is not known here.
        lost: bool,
    },
    /// The peer has given this stream up ([`Mux::reset`]): calls on it fail once what came has been read, and no [`Event::FinSent`] comes.
    Reset(StreamId),
    /// The peer has never taken this stream, and says so ([`Mux::tell_refusals`]): calls on it fail from now on, and no [`Event::FinSent`] comes.
    Refused(StreamId),
    /// The stream is over in both directions, was closed, and has left the table. Its id means nothing any more.
    Finished(StreamId),
}

/// One smux session.
///
/// The streams' verbs take the stream's id and fail with [`StreamError::Unknown`] if there is no such stream.
#[derive(Debug)]
pub struct Mux {
    pub(crate) config: Config,
    pub(crate) stats: Stats,
    pub(crate) table: Table,
    pub(crate) arena: Arena,
    /// Bytes allocated for received, unread data.
    pub(crate) recv_allocated: usize,
    /// Bytes allocated for written, unsent data.
    pub(crate) send_allocated: usize,
    /// Bytes that were read.
    read: u64,
    /// Memory is scarce: nobody gets more than at first.
    scarce: bool,
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) sleepers: Sleepers,
    pub(crate) backlog: VecDeque<Key>,
    pub(crate) events: VecDeque<Event>,
    /// Streams with something unsent.
    unsent: usize,
    /// Streams whose peer may still write, and somebody reads.
    reading: usize,
    /// `None`: all ids are used up.
    next_id: Option<u32>,
    pub(crate) peer_window: u32,
    pub(crate) tells_refusals: bool,
    round_trip: Option<Duration>,
    keepalive: Option<Duration>,
    fin_quiet: Option<Duration>,
    pub(crate) quiet_clock: QuietClock,
    /// Streams whose held FIN waits for quiet, by when that began; it may have begun anew since.
    held: BinaryHeap<Reverse<(Moment, Key)>>,
    /// Streams whose held FIN waits for an answer of the peer.
    doubtful: Vec<Key>,
}

impl Mux {
    /// Starts a session. Nothing is sent for it.
    ///
    /// # Panics
    ///
    /// If `config` is outside the ranges that its fields name.
    pub fn new(now: Instant, side: Side, config: Config) -> Self {
        config.check();
        let first_id = match side {
            Side::Client => 3,
            Side::Server => 2,
        };
        Self {
            next_id: Some(config.first_stream_id.unwrap_or(first_id)),
            stats: Stats::default(),
            table: Table::default(),
            arena: Arena::new(),
            recv_allocated: 0,
            send_allocated: 0,
            read: 0,
            scarce: false,
            input: Input::new(now),
            output: Output::new(now),
            sleepers: Sleepers::new(now),
            backlog: VecDeque::new(),
            events: VecDeque::new(),
            unsent: 0,
            reading: 0,
            peer_window: ASSUMED_WINDOW,
            tells_refusals: false,
            round_trip: None,
            keepalive: None,
            fin_quiet: None,
            quiet_clock: QuietClock::new(now),
            held: BinaryHeap::new(),
            doubtful: Vec::new(),
            config,
        }
    }

    /// Opens a stream. It can be written to and read from at once; its SYN goes out with the next frames.
    ///
    /// # Errors
    ///
    /// The table is full, or the ids are used up.
    pub fn open(&mut self) -> Result<StreamId, OpenError> {
        if self.table.len() >= self.config.max_streams {
            return Err(OpenError::TooManyStreams(self.config.max_streams));
        }
        let id = loop {
            let id = self.next_id.ok_or(OpenError::IdsExhausted)?;
            self.next_id = id.checked_add(2);
            // Nobody checks parity: the peer may have taken one of ours.
            if !self.table.contains(StreamId::new(id)) {
                break StreamId::new(id);
            }
        };
        let key = self.table.insert(Stream::new(id, &self.config, self.peer_window));
        self.output.queue_syn(id);
        self.stats.streams_opened += 1;
        self.settle(key);
        Ok(id)
    }

    /// The next stream that the peer opened, in its order.
    pub fn accept(&mut self) -> Option<StreamId> {
        loop {
            let key = self.backlog.pop_front()?;
            // The peer may take up an id that the application still closes from its former life.
            if let Some(stream) = self.table.get(key).filter(|stream| !stream.let_go) {
                return Some(stream.id);
            }
        }
    }

    /// Takes as much of `bytes` as the stream's buffer has room for, and says how much.
    ///
    /// `Ok(0)` for bytes that are not empty: the stream's buffer is full, or what all streams may take together is used up and so is this one's
    /// share of it ([`Config::first_unsent`]); [`Event::Writable`] follows.
    ///
    /// # Errors
    ///
    /// The stream was finished or closed, by us or by the peer, or the peer has never taken it. A peer that has only finished can still be written to.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError> {
        let key = self.key(id)?;
        let limit = self.send_limit();
        let sizing = sizing(self.send_allocated, limit);
        let (left, share, buffer) = (limit.saturating_sub(self.send_allocated), self.send_share(), self.send_buffer());
        let stream = self.table.get_mut(key).ok_or(StreamError::Unknown)?;
        let taken = bytes.len().min(stream.room(buffer, left, share)?);
        if taken == 0 {
            // Something of it waits, and its way out will be an event.
            stream.wants_write |= !bytes.is_empty();
            return Ok(0);
        }
        self.send_allocated += self.arena.push(&mut stream.send, &bytes[..taken], sizing);
        if std::mem::take(&mut stream.awaited) {
            self.sleepers.came();
        }
        self.settle(key);
        Ok(taken)
    }

    /// How much [`Mux::write`] would take now, at least one byte: for a caller that reads no more elsewhere than it can write.
    ///
    /// `None`: less than `enough`, and more than half of what it may have waits to be sent; [`Event::Writable`] follows.
    ///
    /// # Errors
    ///
    /// As [`Mux::write`].
    pub fn room(&mut self, id: StreamId, enough: usize) -> Result<Option<usize>, StreamError> {
        let key = self.key(id)?;
        let (left, share) = (self.send_limit().saturating_sub(self.send_allocated), self.send_share());
        let (buffer, writable_at) = (self.send_buffer(), self.writable_at());
        let stream = self.table.get_mut(key).ok_or(StreamError::Unknown)?;
        let room = stream.room(buffer, left, share)?;
        if room >= enough.max(1) || stream.send.len() <= writable_at {
            return Ok(Some(room));
        }
        stream.wants_write = true;
        Ok(None)
    }

    /// Reads into `buf` and says how many bytes.
    ///
    /// `None`: nothing there yet, [`Event::Readable`] follows. `Some(0)`: the peer has finished and all was read (or `buf`
    /// is empty).
    ///
    /// # Errors
    ///
    /// The stream was closed, or the peer has never taken it.
    pub fn read(&mut self, now: Instant, id: StreamId, buf: &mut [u8]) -> Result<Option<usize>, StreamError> {
        let key = self.key(id)?;
        let may_be_buffered = self.recv_limit();
        let stream = self.table.get_mut(key).ok_or(StreamError::Unknown)?;
        if buf.is_empty() {
            return Ok(Some(0));
        }
        if stream.recv.is_empty() {
            if let Some(refusal) = stream.refusal() {
                return Err(refusal);
            }
            if stream.peer_fin {
                stream.end_told = true;
                return Ok(Some(0));
            }
            stream.wants_read = true;
            return Ok(None);
        }
        let mut filled = 0;
        self.recv_allocated -= self.arena.pop(&mut stream.recv, buf.len(), |part| {
            buf[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        });
        self.read += filled as u64;
        if self.config.version == Version::V2 {
            // What lies in a version 2 stream fits its window, which is below 2^31.
            let effect = stream.on_read(now, filled as u32, self.round_trip, self.config.window_cap(may_be_buffered));
            self.stats.windows_grown += u64::from(effect.grown);
            if effect.tell && !stream.update_queued {
                stream.update_queued = true;
                self.output.queue_update(key);
            }
        }
        Ok(Some(filled))
    }

    /// Says that nothing more will be written: FIN follows the data. Reading goes on. Doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// The stream was closed: by us, or by the peer before all that was written had been sent.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let key = self.key(id)?;
        let stream = self.table.get_mut(key).ok_or(StreamError::Unknown)?;
        if stream.lost {
            return Err(stream.refusal().unwrap_or(StreamError::ClosedByPeer));
        }
        if stream.fin == Fin::Open {
            stream.fin = Fin::Wanted;
            stream.wants_write = false;
            self.settle(key);
        }
        Ok(())
    }

    /// [`Mux::finish`] for every stream: the session is going to end. It costs a walk over the streams.
    pub fn finish_all(&mut self) {
        for key in self.table.keys() {
            let Some(stream) = self.table.get_mut(key).filter(|stream| stream.fin == Fin::Open) else { continue };
            stream.fin = Fin::Wanted;
            stream.wants_write = false;
            self.settle(key);
        }
    }

    /// Lets go of the stream. What was written still goes out, then FIN, and a second FIN if the peer has not finished:
    /// "closed altogether". Unread and later data is dropped.
    ///
    /// A stream whose peer has stopped reading keeps what was written until the session ends: see [`Mux::abort`].
    pub fn close(&mut self, id: StreamId) {
        let Ok(key) = self.key(id) else { return };
        let Some(stream) = self.table.get_mut(key) else { return };
        stream.let_go = true;
        stream.wants_read = false;
        stream.wants_write = false;
        if matches!(stream.fin, Fin::Open | Fin::Wanted) {
            stream.fin = Fin::Due;
            stream.hold = Hold::No;
        }
        self.stats.bytes_unread += stream.recv.len() as u64;
        self.recv_allocated -= self.arena.clear(&mut stream.recv);
        self.settle(key);
        self.skip_released();
    }

    /// As [`Mux::close`], but drops what was written and not sent.
    pub fn abort(&mut self, id: StreamId) {
        // A stream that was closed before is fair game: its unsent data may be what holds it.
        let Some(key) = self.table.find(id) else { return };
        self.drop_unsent(key);
        self.close(id);
        self.settle(key);
    }

    /// As [`Mux::abort`], and a peer that understands it ([`Mux::tell_refusals`]) is told that this is no orderly end: once it has read what came, its calls on the stream fail with
    /// [`StreamError::Reset`].
    pub fn reset(&mut self, id: StreamId) {
        let Ok(key) = self.key(id) else { return };
        let tells = self.tells_refusals && self.config.version == Version::V2;
        // Whose FIN is out has ended in good order, and the peer may keep that.
        let unfinished =
            self.table.get_mut(key).is_some_and(|stream| matches!(stream.fin, Fin::Open | Fin::Wanted | Fin::Due));
        if tells && unfinished {
            self.output.queue_reset(id);
        }
        self.abort(id);
    }

    /// Whether there is memory for more. `false`: feed no more bytes until the application has read, and so let the layer
    /// below hold the peer back.
    pub fn has_room(&self) -> bool {
        self.recv_allocated < self.recv_limit()
    }

    /// Bytes of received, unread data beyond which there is no room: [`Config::first_buffered`] and twice what was read, which is what a window that
    /// doubles with each round trip needs.
    pub fn recv_limit(&self) -> usize {
        self.limit(self.config.first_buffered, self.config.max_buffered, self.read)
    }

    /// Bytes that were written to a stream and not sent, and one for an end that was said and not sent; 0 of a stream that is not there.
    #[must_use]
    pub fn unsent_of(&mut self, id: StreamId) -> usize {
        self.table
            .find(id)
            .and_then(|key| self.table.get(key))
            .map_or(0, |stream| stream.send.len() + usize::from(matches!(stream.fin, Fin::Wanted | Fin::Due)))
    }

    /// Bytes that were written and not sent, of all streams together. It costs a walk over them.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.table.keys().into_iter().filter_map(|key| self.table.get(key)).map(|stream| stream.send.len()).sum()
    }

    /// The same as [`Mux::recv_limit`] for what is written and not sent.
    fn send_limit(&self) -> usize {
        self.limit(self.config.first_unsent, self.config.max_unsent, self.stats.bytes_sent)
    }

    /// Who has moved much may hold more.
    fn limit(&self, first: usize, max: usize, moved: u64) -> usize {
        let earned = if self.scarce { 0 } else { usize::try_from(moved).unwrap_or(usize::MAX).saturating_mul(2) };
        first.saturating_add(earned).min(max)
    }

    /// What each stream may have waiting to be sent, whatever the others have, so that nobody is starved by who came first: its part of the limit among
    /// those that are open. One after the other could come to many times the limit in that way, so beyond twice the limit it is the part among all that
    /// could be open.
    fn send_share(&self) -> usize {
        let limit = self.send_limit();
        let among = if self.send_allocated / 2 < limit { self.table.len() } else { self.config.max_streams };
        (limit / among.max(1)).clamp(1, self.send_buffer())
    }

    /// What a stream may have waiting to be sent: less where many have something, so that all of it together stays in a processor's cache, up to 64 of them.
    fn send_buffer(&self) -> usize {
        match self.output.waiting() {
            0 | 1 => self.config.send_buffer,
            waiting => (CACHED / waiting).max(LEAST_BUFFER).min(self.config.send_buffer),
        }
    }

    /// How little of a stream has to wait for its writer to be woken: half of what he may have.
    pub(crate) fn writable_at(&self) -> usize {
        let all = if self.send_allocated < self.send_limit() { self.send_buffer() } else { self.send_share() };
        all / 2
    }

    /// Memory has become scarce, or is so no longer. While it is, no more is taken in or written than at first; what is held stays, and what was kept for
    /// more goes back at once, except mappings in which something is left: those go when they run empty.
    pub fn set_scarce(&mut self, scarce: bool) {
        if scarce && !self.scarce {
            self.arena.trim();
        }
        self.scarce = scarce;
    }

    /// The next thing that the application should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Fires the deadlines due at `now`. Afterwards [`Mux::poll_timeout`] is later than `now`, or `None`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.keepalive_deadline().is_some_and(|due| due <= now) {
            self.output.nop_due = true;
            // Nothing to say for so long: idle, so hold no memory for the next burst.
            self.trim();
        }
        while let Some(&Reverse((since, key))) = self.held.peek()
            && self.fin_deadline(since).is_some_and(|due| due <= now)
        {
            self.held.pop();
            let Some(stream) = self.table.get(key) else { continue };
            let Hold::QuietSince(since) = stream.hold else { continue };
            if self.fin_deadline(since).is_some_and(|due| due > now) {
                self.held.push(Reverse((since, key)));
            } else {
                self.events.push_back(Event::FinQuiet(stream.id));
                self.doubtful.push(key);
            }
        }
    }

    /// When to call [`Mux::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = self.held.peek().and_then(|&Reverse((since, _))| self.fin_deadline(since));
        match (self.keepalive_deadline(), held) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Sends a NOP whenever nothing was sent for `interval` (at least a millisecond). `None`: never, as long as there is
    /// nobody to send it to. The time counts from the last frame sent, also across such pauses: a session whose
    /// connections are all short would never say that it lives.
    pub fn set_keepalive(&mut self, now: Instant, interval: Option<Duration>) {
        self.keepalive = interval.map(|interval| interval.max(Duration::from_millis(1)));
        self.output.nop_due = self.keepalive.is_some_and(|interval| self.output.last_sent + interval <= now);
        if interval.is_none() {
            self.trim();
        }
    }

    /// The peer has said that it lives, and learns below smux that it was heard: as good as a keepalive, of which the time counts from now.
    #[inline]
    pub fn postpone_keepalive(&mut self, now: Instant) {
        self.output.last_sent = now;
        self.output.nop_due = false;
    }

    /// Below smux both have asked and answered because nothing was said for a while: as good as a keepalive of each. Memory that an idle session does
    /// not need goes back, as with those.
    pub fn stand_for_keepalive(&mut self, now: Instant) {
        self.postpone_keepalive(now);
        self.trim();
    }

    /// Towards peers that throw away what they have not yet sent when they see a FIN (Go, before 2024 and in some later
    /// versions): holds the FIN of [`Mux::finish`] until the peer has the data before it ([`Mux::start_fin_quiet`]) and
    /// nothing has arrived on the stream for `quiet` after that and then an answer ([`Mux::handle_alive`]), or the
    /// peer has finished itself. `None` lets all held FINs go, which costs a walk over the streams.
    ///
    /// [`Mux::close`] is never held: nobody waits for an answer then.
    pub fn set_fin_quiet(&mut self, quiet: Option<Duration>) {
        let held_before = self.fin_quiet.is_some();
        self.fin_quiet = quiet;
        if !held_before || quiet.is_some() {
            return;
        }
        for key in self.table.keys() {
            if self.table.get(key).is_some_and(|stream| stream.hold != Hold::No) {
                self.release_fin(key);
            }
        }
    }

    /// The peer has all data before the FIN of which [`Event::FinHeld`] told: from now on it may answer, and its silence
    /// counts.
    pub fn start_fin_quiet(&mut self, now: Instant, id: StreamId) {
        let Some(key) = self.table.find(id) else { return };
        if let Some(stream) = self.table.get_mut(key)
            && stream.hold == Hold::Unacknowledged
        {
            let since = self.quiet_clock.moment(now);
            stream.hold = Hold::QuietSince(since);
            self.held.push(Reverse((since, key)));
        }
    }

    /// The peer has answered: it hears us, and what it had sent before has come, too. The silence of a stream is real then,
    /// and a FIN that [`Event::FinQuiet`] told of goes.
    pub fn handle_alive(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.doubtful) {
            let Some(Hold::QuietSince(since)) = self.table.get(key).map(|stream| stream.hold) else { continue };
            if self.fin_deadline(since).is_some_and(|due| due <= now) {
                self.release_fin(key);
            } else {
                self.held.push(Reverse((since, key)));
            }
        }
    }

    /// A FIN waits for an answer of the peer: [`Event::FinQuiet`] was told, and [`Mux::handle_alive`] not called since.
    pub fn awaits_answer(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Nothing can arrive until [`Mux::resume_fin_quiet`]: silence tells nothing, and no held FIN goes because of it.
    pub fn pause_fin_quiet(&mut self, now: Instant) {
        self.quiet_clock.pause(now);
    }

    /// The peer can reach us again, or in another way; for the time of `gap` it could not. Its silence counts from now on,
    /// and what there was of it before counts as well, but for the last quarter of the quiet time, more after a long gap:
    /// what was lost in it comes again only after a while.
    pub fn resume_fin_quiet(&mut self, now: Instant, gap: Duration) {
        self.quiet_clock.resume(now, gap, self.fin_quiet.unwrap_or_default());
        for key in std::mem::take(&mut self.doubtful) {
            if let Some(Hold::QuietSince(since)) = self.table.get(key).map(|stream| stream.hold) {
                self.held.push(Reverse((since, key)));
            }
        }
    }

    /// The peer is one that tells a stream it has not taken from one that ended without a word, as we do: before the FIN of a refusal goes an update
    /// with a window of 0, which nobody announces otherwise. Other peers get the FIN alone.
    pub fn tell_refusals(&mut self) {
        self.tells_refusals = true;
    }

    /// Streams that wait for [`Mux::accept`], from now on: see [`Config::accept_backlog`].
    pub fn set_accept_backlog(&mut self, accept_backlog: usize) {
        self.config.accept_backlog = accept_backlog;
    }

    /// The peer announced the window that its streams begin with, in bytes. Counts for streams to come and for those that
    /// have no update yet; never less than [`ASSUMED_WINDOW`], and never takes back what a stream may send already.
    pub fn set_peer_window(&mut self, window: u32) {
        self.peer_window = window.clamp(ASSUMED_WINDOW, LARGEST_WINDOW);
        for key in self.table.keys() {
            if let Some(stream) = self.table.get_mut(key) {
                stream.on_peer_window(self.peer_window);
                self.settle(key);
            }
        }
    }

    /// Tells the round trip time, which tunes the windows. Without it they stay as they are.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.round_trip = Some(rtt);
    }

    /// Streams in the table.
    pub fn streams(&self) -> usize {
        self.table.len()
    }

    /// Everything written has gone out, and so has every FIN that was asked for. One that is held has not.
    pub fn is_quiet(&self) -> bool {
        self.unsent == 0
    }

    /// Bytes allocated for received, unread data.
    pub fn buffered(&self) -> usize {
        self.recv_allocated
    }

    /// Bytes allocated for data, in both directions, and for the next.
    pub fn memory(&self) -> usize {
        self.recv_allocated + self.send_allocated + self.arena.spare()
    }

    /// What came from the peer so far ends with a whole frame.
    pub fn is_between_frames(&self) -> bool {
        self.input.is_between_frames()
    }

    /// At least one stream still expects data from the peer.
    pub fn has_unfinished_reads(&self) -> bool {
        self.reading > 0
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The stream that the application means.
    fn key(&mut self, id: StreamId) -> Result<Key, StreamError> {
        let key = self.table.find(id).ok_or(StreamError::Unknown)?;
        match self.table.get(key) {
            Some(stream) if !stream.let_go => Ok(key),
            _ => Err(StreamError::Unknown),
        }
    }

    /// Follows up a change of the stream's state: sums, turns, and whether it is over.
    pub(crate) fn settle(&mut self, key: Key) {
        let windows = self.config.version == Version::V2;
        let Some(stream) = self.table.get_mut(key) else { return };
        let (unsent, reading) = (stream.is_unsent(), stream.is_reading());
        self.unsent = self.unsent + usize::from(unsent) - usize::from(stream.counted_unsent);
        self.reading = self.reading + usize::from(reading) - usize::from(stream.counted_reading);
        stream.counted_unsent = unsent;
        stream.counted_reading = reading;
        if !stream.in_turns && stream.has_turn(windows) {
            stream.in_turns = true;
            self.output.queue_turn(key);
        }
        if stream.is_over() {
            self.events.push_back(Event::Finished(stream.id));
            self.table.remove(key);
        }
    }

    /// Drops what was written and not sent.
    pub(crate) fn drop_unsent(&mut self, key: Key) {
        let Some(stream) = self.table.get_mut(key) else { return };
        self.stats.bytes_unsent += stream.send.len() as u64;
        self.send_allocated -= self.arena.clear(&mut stream.send);
    }

    /// Holds the stream's FIN if there is reason to.
    pub(crate) fn hold_fin(&mut self, key: Key) -> bool {
        let Some(stream) = self.table.get_mut(key) else { return false };
        if self.fin_quiet.is_none() || stream.fin != Fin::Wanted || stream.peer_fin {
            return false;
        }
        stream.hold = Hold::Unacknowledged;
        self.events.push_back(Event::FinHeld(stream.id));
        true
    }

    /// When the FIN of a stream that has been quiet since then goes.
    fn fin_deadline(&self, since: Moment) -> Option<Instant> {
        self.quiet_clock.deadline(since, self.fin_quiet?)
    }

    /// Lets the stream's FIN go.
    pub(crate) fn release_fin(&mut self, key: Key) {
        let Some(stream) = self.table.get_mut(key) else { return };
        stream.hold = Hold::No;
        if stream.fin == Fin::Wanted {
            stream.fin = Fin::Due;
        }
        self.settle(key);
        self.skip_released();
    }

    /// Drops the next deadlines that hold no FIN any more.
    fn skip_released(&mut self) {
        while let Some(&Reverse((_, key))) = self.held.peek()
            && self.table.get(key).is_none_or(|stream| !matches!(stream.hold, Hold::QuietSince(_)))
        {
            self.held.pop();
        }
    }

    fn keepalive_deadline(&self) -> Option<Instant> {
        let interval = self.keepalive.filter(|_| !self.output.nop_due)?;
        Some(self.output.last_sent + interval)
    }

    /// Gives back memory that an idle session does not need.
    pub(crate) fn trim(&mut self) {
        self.arena.trim();
        self.table.trim();
        self.output.trim();
        self.sleepers.trim();
        self.backlog.shrink_to_fit();
        self.events.shrink_to_fit();
    }
}

/// Whole chunks are for when memory is plenty.
#[inline]
pub(crate) fn sizing(allocated: usize, limit: usize) -> Sizing {
    if allocated < limit / 4 { Sizing::Whole } else { Sizing::Tight }
}
