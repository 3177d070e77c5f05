//! One session beside its model: each call is made to both, and they have to agree.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use turbotunnel_smux::{ASSUMED_WINDOW, StreamError, StreamId, Version};
use turbotunnel_smux::{Config, Event, LARGEST_WINDOW, Mux, OpenError, Side, Stats};

use crate::arriving::Input;
use crate::stream::{Ending, Hold, Stream};
use crate::{FIN, Frame, NOP, PSH, SYN, UPD, bytes, check_bytes, ms, parse, u32_at};

/// An update goes out at the latest when this much was read.
const UPDATE_AT_MOST: usize = 1 << 20;
/// A stream that was left little room keeps its turn until it has sent this much.
const LEAST_TURN: usize = 1_024;

/// A session and its model.
pub(crate) struct End {
    pub(crate) who: usize,
    pub(crate) mux: Mux,
    pub(crate) config: Config,
    pub(crate) streams: Vec<Stream>,
    pub(crate) next_id: Option<u32>,
    pub(crate) backlog: VecDeque<usize>,
    pub(crate) refusals: VecDeque<u32>,
    /// How much of the allowance for new streams is used up.
    pub(crate) used_up: Duration,
    pub(crate) peer_window: u32,
    pub(crate) input: Input,
    /// Bytes, of all streams.
    pub(crate) read: usize,
    /// To be told by the end of the call.
    pub(crate) events: Vec<Event>,
    pub(crate) stats: Stats,

    pub(crate) now: Instant,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) nop_due: bool,
    pub(crate) last_sent: Instant,
    pub(crate) fin_quiet: Option<Duration>,
    /// How long the peer could have been heard.
    pub(crate) quiet_clock: Duration,
    pub(crate) paused: bool,
    /// After a gap what was lost in it comes again: no silence is long enough before, by the same clock.
    pub(crate) comes_again: Duration,
}

impl End {
    /// `who` writes: 0 is the client, 1 the server.
    pub(crate) fn new(who: usize, now: Instant, mut config: Config) -> Self {
        let side = if who == 0 { Side::Client } else { Side::Server };
        config.first_stream_id = config.first_stream_id.map(|odd| odd - who as u32);
        Self {
            who,
            mux: Mux::new(now, side, config.clone()),
            streams: Vec::new(),
            next_id: Some(config.first_stream_id.unwrap_or(3 - who as u32)),
            backlog: VecDeque::new(),
            refusals: VecDeque::new(),
            used_up: Duration::ZERO,
            peer_window: ASSUMED_WINDOW,
            input: Input::default(),
            read: 0,
            events: Vec::new(),
            stats: Stats::default(),
            now,
            keepalive: None,
            nop_due: false,
            last_sent: now,
            fin_quiet: None,
            quiet_clock: Duration::ZERO,
            paused: false,
            comes_again: Duration::ZERO,
            config,
        }
    }

    pub(crate) fn find(&self, id: u32) -> Option<usize> {
        self.streams.iter().rposition(|stream| stream.id == id && !stream.gone)
    }

    /// The stream that the application means: one that it has not let go of.
    fn held(&self, id: u32) -> Option<usize> {
        self.find(id).filter(|&at| !self.streams[at].let_go)
    }

    pub(crate) fn table(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|stream| !stream.gone)
    }

    pub(crate) fn insert(&mut self, id: u32, opened_here: bool) -> usize {
        let window = self.config.initial_window as usize;
        self.streams.push(Stream::new(id, opened_here, window, self.peer_window as usize));
        self.streams.len() - 1
    }

    pub(crate) fn settle(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        if !stream.gone && stream.is_over() {
            stream.gone = true;
            self.events.push(Event::Finished(StreamId::new(stream.id)));
        }
    }

    pub(crate) fn drop_unsent(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        self.stats.bytes_unsent += stream.unsent() as u64;
        stream.written = stream.sent;
        stream.overtaken.clear();
    }

    pub(crate) fn let_fin_go(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        stream.hold = Hold::No;
        if stream.ending == Ending::Wanted {
            stream.ending = Ending::Due;
        }
    }

    // The application's verbs.

    pub(crate) fn open(&mut self) -> Option<u32> {
        let expected = if self.table().count() >= self.config.max_streams {
            Err(OpenError::TooManyStreams(self.config.max_streams))
        } else {
            loop {
                let Some(id) = self.next_id else { break Err(OpenError::IdsExhausted) };
                self.next_id = id.checked_add(2);
                if self.find(id).is_none() {
                    break Ok(StreamId::new(id));
                }
            }
        };
        assert_eq!(self.mux.open(), expected);
        let id = expected.ok()?.value();
        self.insert(id, true);
        self.stats.streams_opened += 1;
        Some(id)
    }

    pub(crate) fn accept(&mut self) -> Option<u32> {
        let expected = loop {
            let Some(at) = self.backlog.pop_front() else { break None };
            let stream = &self.streams[at];
            if !stream.gone && !stream.let_go {
                break Some(stream.id);
            }
        };
        assert_eq!(self.mux.accept().map(StreamId::value), expected);
        expected
    }

    pub(crate) fn write(&mut self, id: u32, len: usize) {
        let room = self.config.send_buffer;
        let (mut offset, mut expected) = (0, Err(StreamError::Unknown));
        if let Some(at) = self.held(id) {
            let stream = &mut self.streams[at];
            offset = stream.written;
            expected = match stream.ending {
                Ending::Open if stream.fins > 1 => Err(StreamError::ClosedByPeer),
                Ending::Open => Ok(len.min(room - stream.unsent())),
                _ => Err(StreamError::Finished),
            };
            if let Ok(taken) = expected {
                stream.wants_write |= taken == 0 && len > 0;
                stream.written += taken;
            }
        }
        assert_eq!(self.mux.write(StreamId::new(id), &bytes(self.who, id, offset, len)), expected, "write");
    }

    pub(crate) fn read(&mut self, id: u32, len: usize) {
        let mut buf = vec![0; len];
        let found = self.mux.read(self.now, StreamId::new(id), &mut buf);
        let Some(at) = self.held(id) else {
            assert_eq!(found, Err(StreamError::Unknown), "read");
            return;
        };
        let stream = &mut self.streams[at];
        let there = stream.unread();
        if len == 0 {
            assert_eq!(found, Ok(Some(0)));
        } else if there > 0 {
            assert_eq!(found, Ok(Some(len.min(there))), "what is there");
            let mut rest = &buf[..len.min(there)];
            stream.read += rest.len();
            self.read += rest.len();
            while let Some((from, to)) = stream.unread.front_mut()
                && !rest.is_empty()
            {
                let (part, later) = rest.split_at(rest.len().min(*to - *from));
                check_bytes(1 - self.who, id, *from, part);
                *from += part.len();
                rest = later;
                if from == to {
                    stream.unread.pop_front();
                }
            }
        } else if stream.fins > 0 {
            assert_eq!(found, Ok(Some(0)), "the end");
            stream.end_told = true;
        } else {
            assert_eq!(found, Ok(None), "nothing yet");
            stream.wants_read = true;
        }
    }

    pub(crate) fn finish(&mut self, id: u32) {
        let mut expected = Err(StreamError::Unknown);
        if let Some(at) = self.held(id) {
            let stream = &mut self.streams[at];
            expected = if stream.lost { Err(StreamError::ClosedByPeer) } else { Ok(()) };
            if !stream.lost && stream.ending == Ending::Open {
                stream.ending = Ending::Wanted;
                stream.wants_write = false;
            }
        }
        assert_eq!(self.mux.finish(StreamId::new(id)), expected, "finish");
    }

    pub(crate) fn finish_all(&mut self) {
        self.mux.finish_all();
        for stream in self.streams.iter_mut().filter(|stream| !stream.gone && stream.ending == Ending::Open) {
            stream.ending = Ending::Wanted;
            stream.wants_write = false;
        }
    }

    pub(crate) fn close(&mut self, id: u32) {
        self.mux.close(StreamId::new(id));
        self.on_close(id);
    }

    fn on_close(&mut self, id: u32) {
        let Some(at) = self.held(id) else { return };
        let stream = &mut self.streams[at];
        stream.let_go = true;
        stream.wants_read = false;
        stream.wants_write = false;
        self.stats.bytes_unread += stream.unread() as u64;
        stream.unread.clear();
        if matches!(stream.ending, Ending::Open | Ending::Wanted) {
            stream.ending = Ending::Due;
            stream.hold = Hold::No;
        }
        self.settle(at);
    }

    pub(crate) fn abort(&mut self, id: u32) {
        self.mux.abort(StreamId::new(id));
        if let Some(at) = self.find(id) {
            self.drop_unsent(at);
            self.on_close(id);
            self.settle(at);
        }
    }

    // Settings and time.

    pub(crate) fn set_rtt(&mut self, rtt: Duration) {
        self.mux.set_rtt(rtt);
    }

    pub(crate) fn postpone_keepalive(&mut self) {
        self.mux.postpone_keepalive(self.now);
        (self.last_sent, self.nop_due) = (self.now, false);
    }

    pub(crate) fn set_keepalive(&mut self, interval: Option<Duration>) {
        self.mux.set_keepalive(self.now, interval);
        self.keepalive = interval.map(|interval| interval.max(ms(1)));
        self.nop_due = self.keepalive.is_some_and(|interval| self.last_sent + interval <= self.now);
    }

    pub(crate) fn set_peer_window(&mut self, window: u32) {
        self.mux.set_peer_window(window);
        self.peer_window = window.clamp(ASSUMED_WINDOW, LARGEST_WINDOW);
        for stream in self.streams.iter_mut().filter(|stream| !stream.peer_window_told) {
            stream.peer_window = stream.peer_window.max(self.peer_window as usize);
        }
    }

    pub(crate) fn set_fin_quiet(&mut self, quiet: Option<Duration>) {
        self.mux.set_fin_quiet(quiet);
        if self.fin_quiet.is_some() && quiet.is_none() {
            for at in 0..self.streams.len() {
                if !self.streams[at].gone && self.streams[at].hold != Hold::No {
                    self.let_fin_go(at);
                }
            }
        }
        self.fin_quiet = quiet;
    }

    pub(crate) fn start_fin_quiet(&mut self, id: u32) {
        self.mux.start_fin_quiet(self.now, StreamId::new(id));
        if let Some(at) = self.find(id)
            && self.streams[at].hold == Hold::Unacknowledged
        {
            self.streams[at].hold = Hold::Quiet(self.quiet_clock);
        }
    }

    pub(crate) fn handle_alive(&mut self) {
        self.mux.handle_alive(self.now);
        for stream in &mut self.streams {
            if let (Hold::Quiet(since), Some(quiet)) = (stream.hold, self.fin_quiet) {
                stream.may_be_let_go |= self.quiet_clock >= since + quiet;
                stream.quiet_told = false;
            }
        }
    }

    pub(crate) fn pause_fin_quiet(&mut self) {
        self.mux.pause_fin_quiet(self.now);
        self.paused = true;
    }

    pub(crate) fn resume_fin_quiet(&mut self, gap: Duration) {
        self.mux.resume_fin_quiet(self.now, gap);
        self.paused = false;
        // The pauses of a Go program grow linearly, so the next may be as long as that.
        let quiet = self.fin_quiet.unwrap_or_default();
        let pause = Duration::from_secs_f64((2.0 * quiet.as_secs_f64() * gap.as_secs_f64()).sqrt());
        self.comes_again = self.comes_again.max(self.quiet_clock + pause.max(quiet / 4));
        self.streams.iter_mut().for_each(|stream| stream.quiet_told = false);
    }

    /// Time passes, and what is due is fired.
    pub(crate) fn wait_until(&mut self, now: Instant) {
        if !self.paused {
            self.quiet_clock += now - self.now;
        }
        self.used_up = self.used_up.saturating_sub(now - self.now);
        self.now = now;
        self.nop_due |= self.keepalive.is_some_and(|interval| self.last_sent + interval <= now);
        self.mux.handle_timeout(now);
        assert!(self.mux.poll_timeout().is_none_or(|due| due > now), "a deadline that was handled is over");
        self.check_events();
        let Some(quiet) = self.fin_quiet.filter(|_| !self.paused && self.quiet_clock >= self.comes_again) else {
            return;
        };
        for stream in self.table() {
            let Hold::Quiet(since) = stream.hold else { continue };
            let settled = stream.quiet_told || stream.may_be_let_go;
            assert!(settled || self.quiet_clock < since + quiet, "{} is quiet and nobody is told", stream.id);
        }
    }

    // To the wire.

    /// The next frames, `room` bytes at most; empty if there are none.
    pub(crate) fn poll(&mut self, room: usize) -> Vec<u8> {
        let wanted = self.mux.wants_transmit();
        let mut out = b"kept".to_vec();
        let any = self.mux.poll_transmit(self.now, &mut out, room);
        assert_eq!(out[..4], *b"kept");
        let out = out.split_off(4);
        assert_eq!(any, !out.is_empty());
        assert!(wanted || !any, "frames that were not wanted");
        assert!(out.len() <= room, "{} bytes", out.len());
        let frames = parse(&out);
        for (index, frame) in frames.iter().enumerate() {
            let control = frame.cmd == SYN || frame.cmd == UPD;
            assert!(!control || index == 0 || frames[index - 1].cmd != PSH, "control frames go first");
            assert!(frame.cmd != NOP || frames.len() == 1, "whatever is sent is a sign of life");
            self.on_sent(frame);
        }
        self.stats.frames_sent += frames.len() as u64;
        if any {
            (self.nop_due, self.last_sent) = (false, self.now);
        }
        self.check_events();
        if room - out.len() >= 16 {
            self.drained();
        }
        out
    }

    fn on_sent(&mut self, frame: &Frame<'_>) {
        assert_eq!(frame.version, self.config.version as u8);
        assert!(frame.cmd == PSH || frame.cmd == UPD || frame.payload.is_empty());
        match frame.cmd {
            SYN => {
                let stream = self.find(frame.id).map(|at| &mut self.streams[at]);
                // One that was let go may have left the table before its SYN went out.
                if let Some(stream) = stream.filter(|stream| stream.opened_here) {
                    assert!(!stream.syn_sent, "SYN {} again", frame.id);
                    stream.syn_sent = true;
                }
            }
            FIN if self.refusals.front() == Some(&frame.id) => drop(self.refusals.pop_front()),
            FIN => self.on_fin_sent(frame.id),
            PSH => self.on_data_sent(frame.id, frame.payload),
            NOP => {
                assert!(self.nop_due && frame.id == 0, "NOP");
                self.stats.keepalives_sent += 1;
            }
            _ => self.on_update_sent(frame),
        }
    }

    fn on_fin_sent(&mut self, id: u32) {
        let at = self.find(id).expect("a stream that is there");
        let quiet = self.fin_quiet.is_some();
        let stream = &mut self.streams[at];
        assert!(stream.syn_sent || !stream.opened_here, "{id}: FIN before SYN");
        assert_eq!(stream.unsent(), 0, "{id}: FIN before its data");
        if stream.second_fin_is_next() {
            stream.ending = Ending::SentTwice;
        } else {
            let is_next = match stream.ending {
                Ending::Wanted => !quiet || stream.may_be_let_go || stream.fins > 0,
                Ending::Due => true,
                Ending::Open | Ending::Sent | Ending::SentTwice => false,
            };
            assert!(is_next, "{id}: FIN at {:?}, {:?}", stream.ending, stream.hold);
            (stream.ending, stream.hold) = (Ending::Sent, Hold::No);
            self.stats.fins_sent += 1;
            if !stream.lost {
                self.events.push(Event::FinSent(StreamId::new(id)));
            }
        }
        self.settle(at);
    }

    fn on_data_sent(&mut self, id: u32, payload: &[u8]) {
        let version = self.config.version;
        let at = self.find(id).expect("a stream that is there");
        let stream = &mut self.streams[at];
        assert!(stream.syn_sent || !stream.opened_here, "{id}: data before SYN");
        assert!((1..=self.config.max_frame_size).contains(&payload.len()), "{} bytes in a frame", payload.len());
        assert!(payload.len() <= stream.sendable(version), "{id}: more than may be sent");
        assert!(!matches!(stream.ending, Ending::Sent | Ending::SentTwice), "{id}: data after FIN");
        check_bytes(self.who, id, stream.sent, payload);
        stream.sent += payload.len();
        stream.overtaken.clear();
        self.check_turns(at, payload.len());
        let stream = &mut self.streams[at];
        self.stats.bytes_sent += payload.len() as u64;
        if stream.wants_write && stream.unsent() <= self.config.send_buffer / 2 {
            stream.wants_write = false;
            self.events.push(Event::Writable(StreamId::new(id)));
        }
    }

    /// Whoever can send has its turn before another has a second one. `len` bytes of a stream went out.
    fn check_turns(&mut self, at: usize, len: usize) {
        let (version, frame) = (self.config.version, self.config.max_frame_size);
        for other in (0..self.streams.len()).filter(|&other| other != at) {
            let stream = &mut self.streams[other];
            if stream.gone || stream.sendable(version) == 0 {
                continue;
            }
            let bytes = stream.overtaken.entry(at).or_default();
            *bytes += len;
            assert!(*bytes < frame + LEAST_TURN.min(frame), "{} waits while {at} sends {bytes} bytes", stream.id);
        }
    }

    fn on_update_sent(&mut self, frame: &Frame<'_>) {
        assert_eq!((frame.cmd, self.config.version, frame.payload.len()), (UPD, Version::V2, 8));
        let (consumed, window) = (u32_at(frame.payload, 0), u32_at(frame.payload, 4) as usize);
        let cap = (self.config.max_window as usize).min(self.may_be_buffered() / 2);
        let at = self.find(frame.id).expect("a stream that is there");
        let stream = &mut self.streams[at];
        assert!(stream.is_reading(), "{}: an update for nobody", frame.id);
        assert_eq!(consumed, self.config.initial_counter.wrapping_add(stream.read as u32), "what is true now");
        let allowed = stream.window..=cap.max(self.config.initial_window as usize);
        assert!(allowed.contains(&window), "{}: a window of {window}", frame.id);
        (stream.told, stream.window) = (stream.read, window);
        stream.edge = stream.edge.max(stream.read + window);
        self.stats.updates_sent += 1;
    }

    /// There was room for more and no more came: nothing is left that could be sent.
    fn drained(&self) {
        assert!(!self.mux.wants_transmit(), "it wants to send and does not");
        assert!(self.refusals.is_empty() && !self.nop_due);
        for stream in self.table() {
            let id = stream.id;
            assert!(stream.syn_sent || !stream.opened_here, "{id}: SYN");
            assert_eq!(stream.sendable(self.config.version), 0, "{id}: data");
            assert!(!stream.second_fin_is_next(), "{id}: second FIN");
            if stream.unsent() == 0 {
                let held = stream.hold != Hold::No;
                assert!(stream.ending != Ending::Due, "{id}: FIN");
                assert!(stream.ending != Ending::Wanted || held, "{id}: FIN, and nothing holds it");
            }
            if self.config.version == Version::V2 && stream.is_reading() && stream.read > 0 {
                let untold = stream.read - stream.told;
                assert!(stream.told > 0 && untold < (stream.window / 16).min(UPDATE_AT_MOST), "{id}: update, {untold}");
            }
        }
    }

    // What both must agree on.

    fn check_events(&mut self) {
        let mut expected = std::mem::take(&mut self.events);
        while let Some(event) = self.mux.poll_event() {
            match event {
                Event::FinHeld(id) => self.on_fin_held(id.value()),
                Event::FinQuiet(id) => self.on_fin_quiet(id.value()),
                event => {
                    let at = expected.iter().position(|other| *other == event);
                    expected.remove(at.unwrap_or_else(|| panic!("{event:?} is told and not among {expected:?}")));
                }
            }
        }
        assert_eq!(expected, [], "not told");
    }

    /// When that happens is the session's affair, but it must be right.
    fn on_fin_held(&mut self, id: u32) {
        let at = self.find(id).expect("a stream that is there");
        let stream = &mut self.streams[at];
        assert_eq!((stream.ending, stream.hold, stream.fins), (Ending::Wanted, Hold::No, 0), "{id} is held");
        assert!(stream.unsent() == 0 && self.fin_quiet.is_some(), "{id} is held");
        stream.hold = Hold::Unacknowledged;
    }

    fn on_fin_quiet(&mut self, id: u32) {
        let at = self.find(id).expect("a stream that is there");
        self.streams[at].quiet_told = true;
        let Hold::Quiet(since) = self.streams[at].hold else { panic!("{id} is quiet, but not held") };
        let quiet = self.fin_quiet.expect("somebody wished it");
        assert!(self.quiet_clock >= since + quiet, "{id} is not quiet for long enough");
        assert!(self.quiet_clock >= self.comes_again, "{id} is not quiet for long enough after a gap");
    }

    pub(crate) fn check(&mut self) {
        self.check_events();
        assert_eq!(self.mux.streams(), self.table().count(), "streams");
        assert_eq!(self.mux.is_quiet(), !self.table().any(Stream::is_unsent), "is_quiet");
        assert_eq!(self.mux.has_unfinished_reads(), self.table().any(Stream::is_reading), "has_unfinished_reads");
        let unread: usize = self.table().map(Stream::unread).sum();
        let readers = self.table().filter(|stream| stream.unread() > 0).count();
        let most = unread + unread / 4 + readers * (16 << 10);
        assert!((unread..=most).contains(&self.mux.buffered()), "{} for {unread}", self.mux.buffered());
        assert_eq!(self.mux.has_room(), self.mux.buffered() < self.may_be_buffered());
        assert_eq!(self.mux.recv_limit(), self.may_be_buffered());
        let nop = self.keepalive.filter(|_| !self.nop_due).map(|interval| self.last_sent + interval);
        let due = self.mux.poll_timeout();
        assert!(nop.is_none_or(|nop| due.is_some_and(|due| due <= nop)), "keepalive is later than it was wished");
        if self.table().all(|stream| stream.hold == Hold::No) {
            assert_eq!(due, nop, "keepalive, and nothing else to wait for");
        }
        assert!(!self.nop_due || self.mux.wants_transmit());
        let mut stats = self.mux.stats().clone();
        // How windows grow is told by the updates.
        stats.windows_grown = 0;
        assert_eq!(stats, self.stats);
    }

    /// Who reads much may buffer much.
    fn may_be_buffered(&self) -> usize {
        (self.config.first_buffered + 2 * self.read).min(self.config.max_buffered)
    }

    // Questions of those who play.

    /// All ids that were ever in the table, the latest last.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.streams.iter().map(|stream| stream.id).collect()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.mux.has_room()
    }

    /// Where the peer's next bytes of this stream belong, if all that was announced comes.
    pub(crate) fn announced(&self, id: u32) -> usize {
        self.find(id).map_or(0, |at| self.streams[at].announced)
    }

    /// What the window of this stream still takes.
    pub(crate) fn window_left(&self, id: u32) -> usize {
        self.find(id).map_or(0, |at| self.streams[at].edge - self.streams[at].announced.min(self.streams[at].edge))
    }

    /// What is sent of a stream and not consumed, as the peer would say it: from where, and how much.
    pub(crate) fn in_flight(&self, id: u32) -> (u32, u32) {
        let (consumed, sent) =
            self.find(id).map_or((0, 0), |at| (self.streams[at].peer_consumed, self.streams[at].sent));
        (self.config.initial_counter.wrapping_add(consumed as u32), (sent - consumed) as u32)
    }

    /// Reads from all streams that the application has whatever is there, and the end if it is.
    pub(crate) fn read_all(&mut self) {
        for id in self.table().filter(|stream| !stream.let_go).map(|stream| stream.id).collect::<Vec<_>>() {
            self.read(id, 1 << 21);
            self.read(id, 1 << 21);
        }
    }

    /// Lets go of all streams, and of what they have still to send.
    pub(crate) fn abort_all(&mut self) {
        for id in self.table().map(|stream| stream.id).collect::<Vec<_>>() {
            self.abort(id);
        }
    }

    /// Bytes written that were not dropped, bytes read, and whether the end was read; `None` if it let go of the stream, or never had
    /// it.
    pub(crate) fn account(&self, id: u32) -> Option<(usize, usize, bool)> {
        let stream = self.streams.iter().rfind(|stream| stream.id == id && !stream.let_go)?;
        Some((stream.written, stream.read, stream.end_told))
    }

    /// Bytes of the stream that were sent, whatever became of it since.
    pub(crate) fn sent(&self, id: u32) -> Option<usize> {
        self.streams.iter().rfind(|stream| stream.id == id).map(|stream| stream.sent)
    }

    pub(crate) fn assert_idle(&self) {
        assert!(self.mux.is_quiet() && !self.mux.wants_transmit() && !self.mux.has_unfinished_reads());
        assert_eq!((self.mux.streams(), self.mux.buffered(), self.mux.poll_timeout()), (0, 0, None));
    }
}
