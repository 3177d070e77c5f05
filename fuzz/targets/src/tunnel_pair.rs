//! Two ends of a session, engine and path, and whatever can happen to their connections, their streams and their time.
//!
//! Connections are refused, cut in the middle of a packet, stalled, half-closed; packets that cannot be come between; applications open, write, read,
//! finish and close; time passes, and timers fire late. Held to: all that `tunnel_end` holds an end to; bytes follow their pattern, and the end
//! of a stream comes behind all of them; a session ends only for a reason; and when nothing more goes wrong, everything is delivered before long, and
//! one connection remains.
//!
//! In some runs no control packet arrives: each end takes the other for a Go program. In some, somebody writes packets of the session's own into a
//! carrier: then an end may believe what was never said, and is held only to what it promises in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use turbotunnel::tunnel::Tunnel;
use turbotunnel::{Config, Counters, SessionError, StreamId};

use self::ops::Op;
use crate::tunnel_end::End;
use crate::wires::{Over, Wire};
use crate::{ms, start, tell};

mod applications;
mod connections;
mod ops;

const CONV: u32 = 0x1122_3344;

/// Bytes that an end writes at most on one stream, and streams that it opens.
const MOST_BYTES: u64 = 600 << 10;
const MOST_STREAMS: usize = 16;
/// What is written on every stream when nothing more happens to it: more than a small buffer takes at once.
const LAST_WORDS: u64 = 3_000;
/// With nothing going wrong everything is delivered within so long.
const CALM: Duration = Duration::from_secs(100);
/// The same between ends that take each other for Go programs, whose timeouts grow with what was measured over a sleep.
const CALM_GO: Duration = Duration::from_secs(300);
/// Longest time for which a stream has to be quiet before its FIN goes to a Go program: four round trips of 60 s, measured over a sleep.
const LONGEST_QUIET: Duration = Duration::from_secs(240);
/// Dead connections are found, and replaced ones read to their end, within so long.
const QUIET: Duration = Duration::from_secs(100);
/// Turns at one point in time after which nothing new can be expected of more.
const MOST_TURNS: u32 = 10_000;

/// One end of a stream, as its application sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    written: u64,
    read: u64,
    finished: bool,
    let_go: bool,
    ended: bool,
    /// A read failed. Nobody reads on after that.
    failed: bool,
    delivered: bool,
    closed_by_peer: bool,
    /// The peer has no room for it: a client takes a few streams that its application does not look for. Who has let go is not told, and a Go program's end
    /// only that it ended.
    refused: bool,
    /// Bytes written when nothing more went wrong.
    last_words: u64,
}

struct Pair {
    now: Instant,
    config: Config,
    /// The server's begins with the client's first packet.
    ends: [Option<End>; 2],
    wires: Vec<Wire>,
    halves: [BTreeMap<StreamId, Half>; 2],
    /// Streams that were delivered before the application accepted them.
    delivered: [BTreeSet<StreamId>; 2],
    remembered: Vec<Vec<u8>>,
    /// No control packet arrives.
    mute: bool,
    /// Somebody wrote packets of the session's own.
    forged: bool,
    /// The applications closed or aborted the session.
    closed: [bool; 2],
    /// While it was not over.
    last_heard: [Instant; 2],
    buf: Vec<u8>,
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let _ = play(&mut Unstructured::new(data));
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let now = start();
    let mut config = Config::default();
    config.window = *u.choose(&[8192, 32, 40])?;
    config.send_buffer = *u.choose(&[256 << 10, 1, 5_000])?;
    config.first_unsent = config.send_buffer * 3;
    config.max_buffered = *u.choose(&[16 << 20, 1, 100_000])?;
    config.stream_window = *u.choose(&[1 << 20, 0])?;
    config.keepalive = *u.choose(&[Some(Duration::from_secs(25)), Some(Duration::from_secs(1)), None])?;
    if u.arbitrary()? {
        config.counters = Counters { sn: u32::MAX - 3, ts_ms: u32::MAX - 500, stream_bytes: u32::MAX - 9, streams: 0 };
    }
    let (mute, cut_off) = (u.arbitrary::<u8>()? & 3 == 3, u.arbitrary::<u8>()? & 7 == 7);
    tell(&(mute, cut_off, &config));
    let client = End::new(Tunnel::client(now, config.clone(), CONV, u.arbitrary::<u8>()?.into()));
    let mut pair = Pair {
        now,
        config,
        ends: [Some(client), None],
        wires: Vec::new(),
        halves: [BTreeMap::new(), BTreeMap::new()],
        delivered: [BTreeSet::new(), BTreeSet::new()],
        remembered: Vec::new(),
        mute,
        forged: false,
        closed: [false; 2],
        last_heard: [now; 2],
        buf: vec![0; 1 << 16],
    };
    while !u.is_empty() {
        let Ok(op) = u.arbitrary::<Op<'_>>() else { break };
        tell(&op);
        pair.apply(&op);
    }
    // In some runs nobody is ever heard again.
    if cut_off {
        pair.cut_off();
    } else {
        pair.calm();
    }
    Ok(())
}

impl Pair {
    fn apply(&mut self, op: &Op<'_>) {
        match *op {
            Op::Open(side) => self.open(side),
            Op::Accept(side) => {
                self.accept(side);
            }
            Op::Write(side, index, len) => {
                if let Some(id) = self.stream(side, index) {
                    self.write(side, id, len.into());
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
            Op::CloseStream(side, index) => {
                if let Some(id) = self.stream(side, index) {
                    self.close_stream(side, id);
                }
            }
            Op::Dial(connects) => {
                self.answer_dial(connects);
            }
            Op::Turn(side) => {
                self.tell(side);
                self.send(side, u32::MAX);
                self.act(side);
            }
            Op::Send(side, packets) => {
                self.send(side, packets.into());
            }
            Op::Deliver(to, wire, bytes) => {
                if let Some(wire) = self.wire(wire) {
                    self.deliver(wire, to, bytes.into());
                }
            }
            Op::DeliverAll(to) => {
                (0..self.wires.len()).for_each(|wire| while self.deliver(wire, to, usize::MAX) {});
            }
            Op::Cut(wire, over, up, down) => {
                if let Some(wire) = self.wire(wire) {
                    let [down_pipe, up_pipe] = &mut self.wires[wire].pipes;
                    up_pipe.cut(up.into(), over);
                    down_pipe.cut(down.into(), over);
                }
            }
            Op::HalfCut(wire, to, bytes) => {
                if let Some(wire) = self.wire(wire) {
                    self.wires[wire].pipes[to].cut(bytes.into(), Over::Fin);
                }
            }
            Op::Stall(wire) => {
                if let Some(wire) = self.wire(wire) {
                    self.wires[wire].stalled = true;
                }
            }
            Op::Wait(millis) => self.now += ms(millis.into()),
            Op::Timer(side, late) => {
                let next = self.ends[side].as_ref().and_then(|end| end.tunnel().poll_timeout());
                self.now = next.map_or(self.now, |at| at.max(self.now) + ms(late.into()));
                self.handle_timeout(side);
            }
            Op::Timeout(side) => self.handle_timeout(side),
            Op::Redial => {
                let now = self.now;
                self.ends[0].iter_mut().for_each(|end| end.with(|tunnel| tunnel.redial(now)));
            }
            Op::Noise(to, wire, ref noise) => self.noise(to, wire, noise),
            Op::Forge(to, wire, which, at, change) => self.forge(to, wire, which, at, change),
            Op::Close(side) => {
                let now = self.now;
                if let Some(end) = &mut self.ends[side] {
                    self.closed[side] = true;
                    let halves = &mut self.halves[side];
                    halves.values_mut().for_each(|half| half.finished = true);
                    end.close(now, halves.keys().copied());
                }
            }
            Op::Abort(side) => {
                if let Some(end) = &mut self.ends[side] {
                    self.closed[side] = true;
                    end.with(Tunnel::abort);
                }
            }
        }
        self.check_ends();
    }

    // Time, and the end.

    fn handle_timeout(&mut self, side: usize) {
        let now = self.now;
        self.ends[side].iter_mut().for_each(|end| end.handle_timeout(now));
    }

    /// A session ends only for a reason.
    fn check_ends(&self) {
        for side in [0, 1] {
            let Some(end) = &self.ends[side] else { continue };
            let peer_ended = self.ends[1 - side].as_ref().is_some_and(|peer| peer.tunnel().ended().is_some());
            let alone = self.now >= self.last_heard[side] + self.config.time_to_live;
            let reason = match end.tunnel().ended() {
                None => true,
                Some(SessionError::Closed | SessionError::ClosedUnacknowledged { .. } | SessionError::Aborted) => {
                    self.closed[side]
                }
                Some(SessionError::ClosedByPeer(_)) => self.closed[1 - side],
                Some(SessionError::GaveUp(_) | SessionError::NeverConnected(_)) => alone,
                Some(SessionError::Unknown) => side == 0 && peer_ended,
                // Nothing had come of it, and its only carrier was gone.
                Some(SessionError::Abandoned) => side == 1,
                Some(_) => false,
            };
            assert!(reason || self.forged, "side {side} ended for no reason: {:?}", end.tunnel().ended());
        }
    }

    fn is_over(&self) -> bool {
        // A server's that was given up goes on with the next connection.
        let over = |end: &End| end.tunnel().ended().is_some() && end.tunnel().embryo().is_none();
        self.ends.iter().flatten().any(over)
    }

    /// Everything that can be done now, until there is nothing left to be done. Applications accept all, read all, say their last words and finish all;
    /// strictly: one who was turned away waits until it is told.
    fn settle(&mut self) {
        for _ in 0..MOST_TURNS {
            let mut busy = false;
            while self.answer_dial(true) {
                busy = true;
            }
            for side in [0, 1] {
                let now = self.now;
                if self.ends[side].as_ref().is_some_and(|end| end.tunnel().poll_timeout().is_some_and(|at| at <= now)) {
                    self.handle_timeout(side);
                    busy = true;
                }
                busy |= self.tell(side);
                busy |= self.use_streams(side);
                busy |= self.send(side, u32::MAX);
                busy |= self.act(side);
                for wire in 0..self.wires.len() {
                    while self.deliver(wire, side, usize::MAX) {
                        busy = true;
                    }
                }
                self.wires.retain(|wire| !wire.is_over());
            }
            self.check_ends();
            if !busy {
                self.check_drained();
                return;
            }
        }
        panic!("busy for ever, without time advancing");
    }

    fn check_drained(&mut self) {
        for side in [0, 1] {
            let Some(end) = &mut self.ends[side] else { continue };
            let current = end.tunnel().current();
            let wire = self.wires.iter().find(|wire| current.is_some() && wire.plugs[side].carrier == current);
            if wire.is_none_or(|wire| wire.takes_packets(side)) {
                end.check_drained(self.now);
            }
        }
    }

    /// Everything arrived that has to, at both ends.
    fn is_delivered(&self) -> bool {
        [0, 1].into_iter().all(|side| {
            self.halves[side].iter().all(|(id, half)| {
                let peer = self.halves[1 - side].get(id).copied();
                let closed_there = half.closed_by_peer || peer.is_some_and(|peer| peer.let_go);
                let arrived = peer.is_some_and(|peer| peer.read == half.written && peer.ended);
                let refused = half.refused || (half.let_go && self.may_be_refused(side, *id));
                refused || closed_there || (arrived && (half.delivered || half.let_go))
            })
        })
    }

    /// Its application went away at once: what had arrived and found no room may stay unread.
    fn aborted(&self, side: usize) -> bool {
        self.ends[side].as_ref().is_some_and(|end| end.tunnel().ended() == Some(&SessionError::Aborted))
    }

    /// Nothing arrives any more, at any time. What was told to be delivered is there.
    fn cut_off(&mut self) {
        if self.forged {
            return;
        }
        for side in [0, 1] {
            // Each of their buffers may be full of something else.
            while self.read_out(side) {}
        }
        for side in [0, 1] {
            for (id, half) in self.halves[side].iter().filter(|(_, half)| half.delivered) {
                let peer = self.halves[1 - side].get(id).copied().unwrap_or_default();
                let arrived = peer.ended && peer.read == half.written;
                assert!(
                    arrived || peer.let_go || self.may_be_refused(side, *id) || self.aborted(1 - side),
                    "stream {id} was told to be delivered: {half:?} {peer:?}"
                );
            }
        }
    }

    /// Nothing more goes wrong.
    fn calm(&mut self) {
        let began = self.now;
        let alone = began.saturating_duration_since(self.last_heard[0].min(self.last_heard[1]));
        // After a gap a FIN waits for as long as what was lost in it may take to come again: smux's `quiet.rs`.
        let gap = began.saturating_duration_since(start()).as_secs_f64();
        let comes_again = Duration::from_secs_f64((2.0 * LONGEST_QUIET.as_secs_f64() * gap).sqrt());
        let until = began + if self.mute { CALM_GO + comes_again } else { CALM };
        // Who was alone for long before may find each other too late.
        let late = alone + Duration::from_secs(60) > self.config.time_to_live;
        let over = |pair: &Self| pair.is_over() || pair.forged;
        let was_over = self.is_over();
        loop {
            self.settle();
            if over(self) || (self.is_delivered() && !self.closed.contains(&true)) {
                break;
            }
            assert!(self.advance(until), "not delivered in time: {:?}", self.halves);
        }
        if self.forged || self.closed.contains(&true) {
            return self.end_of_closed(began + CALM_GO);
        }
        if self.is_over() {
            assert!(was_over || late, "it ended in the calm, {alone:?} after the last contact");
            return self.end_of_closed(began + CALM_GO);
        }
        let until = self.now + QUIET;
        while self.advance(until) {
            self.settle();
            if self.is_over() {
                assert!(late, "it ended although everything was well");
                return self.end_of_closed(began + CALM_GO);
            }
        }
        self.now = self.now.max(until);
        self.settle();
        for side in [0, 1] {
            // Those that the server cannot place are its listener's.
            let plugs = self.wires.iter().filter(|wire| wire.connected).map(|wire| &wire.plugs[side]);
            let held = plugs.filter(|plug| !plug.gone && plug.carrier.is_some()).count();
            assert_eq!(held, 1, "connections that side {side} holds {QUIET:?} after the last fault");
            assert!(self.end(side).tunnel().current().is_some());
        }
    }

    /// To the next point in time at which an end wants to do something.
    fn advance(&mut self, until: Instant) -> bool {
        let timers = self.ends.iter().flatten().filter_map(|end| end.tunnel().poll_timeout());
        let Some(next) = timers.min().filter(|next| *next <= until) else { return false };
        self.now = next.max(self.now);
        true
    }

    /// The session is over at one end, or will be, or somebody has forged packets: both come to an end, or go on, and are not busy for ever.
    fn end_of_closed(&mut self, until: Instant) {
        while self.advance(until) {
            self.settle();
        }
        if self.forged {
            return;
        }
        for side in [0, 1] {
            let Some(end) = &self.ends[side] else { continue };
            assert!(end.tunnel().ended().is_some(), "side {side} does not come to its end");
            if matches!(end.tunnel().ended(), Some(SessionError::ClosedByPeer(_))) {
                // The goodbye acknowledges all that had arrived.
                for (id, half) in self.halves[side].iter().filter(|(_, half)| half.finished && !half.closed_by_peer) {
                    let peer = self.halves[1 - side].get(id).copied().unwrap_or_default();
                    let arrived = peer.ended && peer.read == half.written;
                    assert!(!arrived || half.delivered, "stream {id} was delivered, and nobody was told: {half:?}");
                }
            }
            if end.tunnel().ended() == Some(&SessionError::Closed) {
                for (id, half) in &self.halves[side] {
                    let peer = self.halves[1 - side].get(id).copied().unwrap_or_default();
                    let lost = peer.let_go || self.may_be_refused(side, *id) || self.aborted(1 - side);
                    let whole = peer.read == half.written || lost;
                    assert!(whole, "closed, and the peer has not everything: {id} {half:?} {peer:?}");
                }
            }
        }
    }
}
