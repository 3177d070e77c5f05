//! Two ends of smux, back to back over a byte stream of any pace, and applications that open, write, read, finish, close and abort.
//!
//! Held to: all that `mux_end` holds an end to; bytes follow their pattern, and the end of a stream comes behind all of them; a stream that was
//! taken is there, a refused one ends; and when both applications have finished everything and read to the end, neither has anything left.

use std::collections::BTreeMap;
use std::time::Instant;

use arbitrary::{Arbitrary, Result, Unstructured};
use smux::{Config, Event, Side, StreamError, StreamId};
use turbotunnel_sim::pattern::{Pattern, Way};

use crate::mux_end::{End, ROOM};
use crate::smux_input::config;
use crate::{ms, start, tell};

/// What is written on every stream when nothing more happens to it: more than a small buffer takes at once.
const LAST_WORDS: usize = 3_000;
/// Streams that an end opens at most: one who is refused a thousand times is taken for an attacker.
const MOST_STREAMS: usize = 64;
/// Rounds after which nothing new can be expected of more.
const MOST_ROUNDS: u32 = 10_000;

#[derive(Debug)]
enum Op {
    Open(usize),
    Accept(usize),
    Write(usize, u8, u32),
    Read(usize, u8, u16),
    Finish(usize, u8),
    Close(usize, u8),
    Abort(usize, u8),
    /// Frames that fit into so much room go onto the wire.
    Send(usize, u16),
    /// So many bytes arrive.
    Deliver(usize, u32),
    Events(usize),
    Wait(u16),
    Timer(usize),
    Keepalive(usize, u8),
    FinQuiet(usize, Option<u8>),
    Pause(usize),
    Resume(usize, u16),
    Alive(usize),
    PeerWindow(usize),
    Rtt(usize, u16),
}

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let kind = u.arbitrary::<u8>()?;
        let side = usize::from(kind >> 7);
        Ok(match kind & 0x1f {
            0 | 1 => Self::Open(side),
            2 | 3 => Self::Accept(side),
            4 | 5 => Self::Write(side, u.arbitrary()?, u.arbitrary::<u16>()?.into()),
            6 => Self::Write(side, u.arbitrary()?, u32::from(u.arbitrary::<u16>()?) * 16),
            7 | 8 => Self::Read(side, u.arbitrary()?, u.arbitrary()?),
            9 => Self::Finish(side, u.arbitrary()?),
            10 => Self::Close(side, u.arbitrary()?),
            11 => Self::Abort(side, u.arbitrary()?),
            12 | 13 => Self::Send(side, ROOM as u16),
            14 => Self::Send(side, u.arbitrary::<u8>()?.into()),
            15 => Self::Send(side, u.arbitrary()?),
            16 | 17 => Self::Deliver(side, u32::MAX),
            18 => Self::Deliver(side, u.arbitrary::<u8>()?.into()),
            19 => Self::Deliver(side, u.arbitrary::<u16>()?.into()),
            20 | 21 => Self::Events(side),
            22 => Self::Wait(u.arbitrary()?),
            23 => Self::Timer(side),
            24 => Self::Keepalive(side, u.arbitrary()?),
            25 => Self::FinQuiet(side, u.arbitrary()?),
            26 => Self::Pause(side),
            27 => Self::Resume(side, u.arbitrary()?),
            28 => Self::Alive(side),
            29 => Self::PeerWindow(side),
            _ => Self::Rtt(side, u.arbitrary()?),
        })
    }
}

/// One end of a stream, as its application sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    written: u64,
    read: u64,
    finished: bool,
    let_go: bool,
    aborted: bool,
    /// It read to the end.
    ended: bool,
    /// It was told that the peer has let go, or found out by writing.
    told_closed: bool,
    closed_by_peer: bool,
    fin_sent: bool,
    /// Bytes written when nothing more went wrong.
    last_words: usize,
}

struct Pair {
    now: Instant,
    ends: [End; 2],
    /// On their way to each end.
    wire: [Vec<u8>; 2],
    /// What each end has of each stream.
    halves: [BTreeMap<StreamId, Half>; 2],
    /// The FINs that are held until the peer has what is before them, and how many bytes have to arrive for that.
    held: [Vec<StreamId>; 2],
    initial_window: [u32; 2],
    send_buffer: [usize; 2],
    most_bytes: [u64; 2],
    buf: Vec<u8>,
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let _ = play(&mut Unstructured::new(data));
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let first = config(u)?;
    let mut second = config(u)?;
    (second.version, second.initial_counter) = (first.version, first.initial_counter);
    // Each opens its own ids: what happens when somebody takes the other's is for strangers.
    second.first_stream_id = second.first_stream_id.map(|id| id - 1);
    tell(&(&first, &second));
    let most_bytes = [most_bytes(&first), most_bytes(&second)];
    let send_buffer = [first.send_buffer, second.send_buffer];
    let initial_window = [first.initial_window, second.initial_window];
    let ends = [End::new(Side::Client, first), End::new(Side::Server, second)];
    let mut pair = Pair {
        now: start(),
        ends,
        wire: [Vec::new(), Vec::new()],
        halves: [BTreeMap::new(), BTreeMap::new()],
        held: [Vec::new(), Vec::new()],
        initial_window,
        send_buffer,
        most_bytes,
        buf: vec![0; 1 << 20],
    };
    while !u.is_empty() {
        let Ok(op) = u.arbitrary::<Op>() else { break };
        tell(&op);
        pair.apply(&op);
    }
    pair.calm();
    Ok(())
}

/// Bytes that an end writes at most on one stream, with frames of this size: more than the first window, unless that takes too long.
fn most_bytes(config: &Config) -> u64 {
    match config.max_frame_size {
        0..100 => 3_000,
        _ => 300_000,
    }
}

fn pattern(id: StreamId, writer: usize) -> Pattern {
    Pattern::new(1, id.value(), if writer == 0 { Way::Up } else { Way::Down })
}

impl Pair {
    fn apply(&mut self, op: &Op) {
        let now = self.now;
        match *op {
            Op::Open(side) => {
                if self.halves[side].len() < 2 * MOST_STREAMS
                    && let Ok(id) = self.ends[side].open()
                {
                    self.halves[side].insert(id, Half::default());
                }
            }
            Op::Accept(side) => {
                self.accept(side);
            }
            Op::Write(side, index, len) => {
                if let Some(id) = self.stream(side, index) {
                    self.write(side, id, len);
                }
            }
            Op::Read(side, index, len) => {
                if let Some(id) = self.stream(side, index) {
                    self.read(side, id, len.into());
                }
            }
            Op::Finish(side, index) => {
                if let Some(id) = self.stream(side, index) {
                    self.finish(side, id);
                }
            }
            Op::Close(side, index) => {
                if let Some(id) = self.stream(side, index) {
                    self.half(side, id).let_go = true;
                    self.ends[side].close(id);
                }
            }
            Op::Abort(side, index) => {
                if let Some(id) = self.stream(side, index) {
                    let half = self.half(side, id);
                    (half.let_go, half.aborted) = (true, true);
                    self.ends[side].abort(id);
                }
            }
            Op::Send(side, room) => {
                self.send(side, room.into());
            }
            Op::Deliver(side, bytes) => self.deliver(side, bytes as usize),
            Op::Events(side) => {
                self.events(side);
            }
            Op::Wait(millis) => self.now += ms(millis.into()),
            Op::Timer(side) => {
                self.now = self.ends[side].mux().poll_timeout().map_or(now, |at| at.max(now));
                self.ends[side].handle_timeout(self.now);
            }
            Op::Keepalive(side, millis) => {
                let interval = (millis > 0).then(|| ms(u64::from(millis) * 100));
                self.ends[side].with(|mux| mux.set_keepalive(now, interval));
            }
            Op::FinQuiet(side, millis) => {
                self.ends[side].with(|mux| mux.set_fin_quiet(millis.map(|millis| ms(millis.into()))));
            }
            Op::Pause(side) => self.ends[side].with(|mux| mux.pause_fin_quiet(now)),
            Op::Resume(side, millis) => self.ends[side].with(|mux| mux.resume_fin_quiet(now, ms(millis.into()))),
            Op::Alive(side) => self.ends[side].with(|mux| mux.handle_alive(now)),
            Op::PeerWindow(side) => {
                let window = self.initial_window[1 - side];
                self.ends[side].with(|mux| mux.set_peer_window(window));
            }
            Op::Rtt(side, millis) => self.ends[side].with(|mux| mux.set_rtt(ms(millis.into()))),
        }
    }

    /// A stream that the application at `side` knows.
    fn stream(&self, side: usize, index: u8) -> Option<StreamId> {
        let halves = &self.halves[side];
        let index = usize::from(index) % halves.len().max(1);
        halves.keys().nth(index).copied()
    }

    fn half(&mut self, side: usize, id: StreamId) -> &mut Half {
        self.halves[side].get_mut(&id).expect("a stream that the application knows")
    }

    fn accept(&mut self, side: usize) -> bool {
        let Some(id) = self.ends[side].accept() else { return false };
        assert!(self.halves[1 - side].contains_key(&id), "stream {id} was never opened");
        assert!(self.halves[side].insert(id, Half::default()).is_none(), "stream {id} was opened twice");
        true
    }

    fn write(&mut self, side: usize, id: StreamId, len: u32) -> usize {
        let half = self.halves[side][&id];
        let len = self.most_bytes[side].saturating_sub(half.written).min(len.into()) as usize;
        pattern(id, side).fill(half.written, &mut self.buf[..len]);
        let outcome = self.ends[side].write(id, &self.buf[..len]);
        match outcome {
            Ok(taken) => self.half(side, id).written += taken as u64,
            Err(StreamError::Unknown) => assert!(half.let_go),
            Err(StreamError::Finished) => assert!(half.finished),
            Err(StreamError::ClosedByPeer) => self.note_let_go_by_peer(side, id),
            Err(other) => panic!("{other}"),
        }
        outcome.unwrap_or(0)
    }

    fn read(&mut self, side: usize, id: StreamId, len: usize) -> usize {
        let half = self.halves[side][&id];
        let outcome = self.ends[side].read(self.now, id, &mut self.buf[..len]);
        match outcome {
            Ok(None) => assert!(!half.ended, "stream {id} goes on behind its end"),
            Ok(Some(0)) if len > 0 => {
                self.half(side, id).ended = true;
                let peer = self.halves[1 - side].get(&id).copied().unwrap_or_default();
                let refused = self.ends[1 - side].mux().stats().streams_refused > 0;
                let whole = half.read == peer.written;
                assert!(peer.finished || peer.let_go || refused, "stream {id} ended, and nobody had ended it");
                assert!(whole || peer.aborted || refused || half.let_go, "stream {id} ended too early: {peer:?}");
            }
            Ok(Some(len)) => {
                assert!(!half.ended || len == 0, "stream {id} goes on behind its end");
                let wrong = pattern(id, 1 - side).first_wrong(half.read, &self.buf[..len]);
                assert_eq!(wrong, None, "stream {id}: a byte that was not written there");
                self.half(side, id).read += len as u64;
            }
            Err(error) => assert!(half.let_go, "{error}"),
        }
        outcome.ok().flatten().unwrap_or(0)
    }

    fn finish(&mut self, side: usize, id: StreamId) {
        match self.ends[side].finish(id) {
            Ok(()) => self.half(side, id).finished = true,
            Err(StreamError::Unknown) => assert!(self.half(side, id).let_go),
            Err(StreamError::ClosedByPeer) => self.note_let_go_by_peer(side, id),
            Err(other) => panic!("{other}"),
        }
    }

    fn note_let_go_by_peer(&mut self, side: usize, id: StreamId) {
        self.assert_let_go_by_peer(side, id);
        self.half(side, id).closed_by_peer = true;
    }

    fn assert_let_go_by_peer(&self, side: usize, id: StreamId) {
        assert!(self.halves[1 - side].get(&id).is_some_and(|peer| peer.let_go), "stream {id} was not closed");
    }

    fn send(&mut self, side: usize, room: usize) -> bool {
        let Some(frames) = self.ends[side].poll_transmit(self.now, room) else { return false };
        self.wire[1 - side].extend(frames);
        true
    }

    /// As long as there is room: the layer below holds the rest.
    fn deliver(&mut self, to: usize, mut bytes: usize) {
        while self.ends[to].mux().has_room() && bytes > 0 && !self.wire[to].is_empty() {
            let rest = self.wire[to].split_off(bytes.min(self.wire[to].len()).min(8192));
            let piece = std::mem::replace(&mut self.wire[to], rest);
            bytes -= piece.len();
            self.ends[to].handle_bytes(self.now, &piece).expect("what the other end has sent");
        }
    }

    /// True if there were any.
    fn events(&mut self, side: usize) -> bool {
        let mut busy = false;
        while let Some(event) = self.ends[side].poll_event() {
            busy = true;
            match event {
                Event::FinSent(id) => {
                    let half = self.half(side, id);
                    assert!(!std::mem::replace(&mut half.fin_sent, true), "two ends of stream {id}");
                }
                Event::FinHeld(id) => self.held[side].push(id),
                Event::ClosedByPeer { id, .. } => {
                    self.assert_let_go_by_peer(side, id);
                    if let Some(half) = self.halves[side].get_mut(&id) {
                        assert!(!std::mem::replace(&mut half.told_closed, true), "closed twice: stream {id}");
                        half.closed_by_peer = true;
                    }
                }
                Event::Finished(id) => assert!(self.half(side, id).let_go),
                _ => {}
            }
        }
        // What was before those FINs has arrived when the wire is empty.
        if self.wire[1 - side].is_empty() {
            let now = self.now;
            for id in std::mem::take(&mut self.held[side]) {
                self.ends[side].with(|mux| mux.start_fin_quiet(now, id));
            }
        }
        busy
    }

    /// Both applications finish everything, read to the end, and let go.
    fn calm(&mut self) {
        for side in [0, 1] {
            let now = self.now;
            self.ends[side].with(|mux| mux.resume_fin_quiet(now, ms(0)));
        }
        for _ in 0..MOST_ROUNDS {
            let mut busy = false;
            for side in [0, 1] {
                self.ends[side].with(|mux| mux.handle_alive(self.now));
                while self.accept(side) {
                    busy = true;
                }
                let ids: Vec<StreamId> = self.halves[side].keys().copied().collect();
                for id in ids {
                    let half = self.halves[side][&id];
                    if half.let_go {
                        continue;
                    }
                    busy |= self.write_last_words(side, id);
                    while !self.ends[side].waits_for(id).0 && self.read(side, id, 1 << 16) > 0 {
                        busy = true;
                    }
                    // One who lets go before the FIN is out says something else.
                    let half = self.halves[side][&id];
                    if half.ended && (half.fin_sent || half.closed_by_peer) {
                        self.half(side, id).let_go = true;
                        self.ends[side].close(id);
                        busy = true;
                    }
                }
                while self.send(side, ROOM) {
                    busy = true;
                }
                let waiting = self.wire[1 - side].len();
                self.deliver(1 - side, usize::MAX);
                busy |= self.wire[1 - side].len() < waiting;
                busy |= self.events(side);
            }
            if busy {
                continue;
            }
            if self.ends.iter().all(|end| end.mux().streams() == 0) {
                return self.check_nothing_left();
            }
            if self.abort_refused() {
                continue;
            }
            let timers = self.ends.iter().filter_map(|end| end.mux().poll_timeout());
            let next = timers.min().unwrap_or_else(|| panic!("streams stay: {:?}", self.halves));
            self.now = next.max(self.now);
            self.ends.iter_mut().for_each(|end| end.handle_timeout(self.now));
        }
        panic!("busy for ever: {:?}", self.halves);
    }

    /// A little more on every stream, then its end. Strictly: one who was turned away waits until it is told.
    fn write_last_words(&mut self, side: usize, id: StreamId) -> bool {
        let half = self.halves[side][&id];
        if half.finished || half.closed_by_peer || self.ends[side].waits_for(id).1 {
            return false;
        }
        let wanted = LAST_WORDS.min(3 * self.send_buffer[side]) - half.last_words;
        if wanted > 0 && half.written < self.most_bytes[side] {
            let taken = self.write(side, id, wanted as u32);
            self.half(side, id).last_words += taken;
            return true;
        }
        self.finish(side, id);
        true
    }

    /// Whoever refuses a stream gives it no window: what was written for it beyond the first stays, until its writer thinks better of it.
    fn abort_refused(&mut self) -> bool {
        let mut busy = false;
        for side in [0, 1] {
            if self.ends[1 - side].mux().stats().streams_refused == 0 {
                continue;
            }
            let refused = self.halves[side].keys().filter(|id| !self.halves[1 - side].contains_key(id));
            for id in refused.copied().collect::<Vec<StreamId>>() {
                let half = self.half(side, id);
                if (half.ended || half.let_go) && !half.fin_sent && !half.aborted {
                    (half.let_go, half.aborted) = (true, true);
                    self.ends[side].abort(id);
                    busy = true;
                }
            }
        }
        busy
    }

    fn check_nothing_left(&mut self) {
        for side in [0, 1] {
            let mux = self.ends[side].mux();
            assert!(mux.is_quiet() && !mux.wants_transmit(), "something is left to be sent");
            assert_eq!((mux.buffered(), mux.has_unfinished_reads()), (0, false), "something is left to be read");
            assert!(self.wire[side].is_empty());
            let refused = self.ends[1 - side].mux().stats().streams_refused > 0;
            for (id, half) in &self.halves[side] {
                let Some(peer) = self.halves[1 - side].get(id) else {
                    assert!(refused, "stream {id} has vanished");
                    continue;
                };
                let whole = peer.read == half.written;
                assert!(whole || half.aborted || peer.let_go_early(), "stream {id}: {half:?}, {peer:?}");
            }
        }
    }
}

impl Half {
    /// It let go without having read to the end.
    fn let_go_early(&self) -> bool {
        self.let_go && !self.ended
    }
}
