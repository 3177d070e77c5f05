//! The session and reliability layer: smux over KCP.
//!
//! In: packets, bytes that the application writes. Out: packets, bytes that the application reads. [`Engine`] knows nothing of carriers but
//! whether there is one. Frames are made only when KCP has a place for them, so nothing waits between the two layers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kcp::wire::Command;
use kcp::{Kcp, PLACE, Resume, Retransmission, Segment, Sn, Ts};
use smux::{Mux, Side, StreamError, StreamId};

use crate::config::{Config, GO_KEEPALIVE, LEAST_STREAM_WINDOW};
use crate::error::SessionError;

/// A smux NOP, version 2: the client's first segment, so that a session exists before its first stream.
const NOP: [u8; 8] = [2, 3, 0, 0, 0, 0, 0, 0];

/// Packets that a Go program of the worked example queues in front of its connection; more are dropped.
const GO_QUEUE: u16 = 32;
/// Round trip over which such a queue empties several times, whatever is in the way.
const GO_SPREAD: Duration = Duration::from_millis(25);

/// Streams that a server may open at a client that has never asked for one.
const UNSOLICITED: usize = 16;

/// Pause before a Go program is asked again whose answer does not come.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Who the peer is, as far as its packets have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerKind {
    /// Nothing heard yet.
    #[default]
    Unknown,
    /// It speaks control packets.
    Ours,
    /// A Go program on kcp-go and smux, or something that behaves like one.
    Go,
}

/// What a packet brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// The peer acknowledged something that it had not before.
    pub acknowledged: bool,
    /// A segment came that extends what was received in order.
    pub data: bool,
    /// The peer said something that it can only say because it hears us.
    pub answer: bool,
}

impl Received {
    pub(crate) fn progress(self) -> bool {
        self.acknowledged || self.data
    }
}

pub(crate) struct Engine {
    side: Side,
    kcp: Kcp,
    mux: Mux,
    attached: bool,
    /// When the peer last said something that it can only say because it hears us.
    answered: Instant,
    /// Since when it may not have heard us, or we it; until it answers again.
    out_since: Option<Instant>,
    /// First question without an answer.
    asked: Option<Instant>,
    /// When it is asked again, while a FIN waits for the answer: a Go program may drop what it wanted to answer.
    ask_again: Option<Instant>,
    /// A FIN was put off because an answer came late, and no data has come since. Once is enough.
    put_off: bool,
    keepalive: Option<Duration>,
    max_streams: usize,
    peer: PeerKind,
    /// FINs on their way: the segment that carries each, in order.
    fins: VecDeque<(Sn, StreamId)>,
    /// FINs held back: where the segments with the data before each end, in order.
    held_fins: VecDeque<(Sn, StreamId)>,
    /// The peer has broken smux's protocol: what KCP still has means nothing.
    failed: bool,
    /// Every stream is finished; no FIN is held back.
    closing: bool,
    /// Nothing more comes.
    over: bool,
    events: VecDeque<EngineEvent>,
    srtt: Option<Duration>,
    /// Segments that a Go program is told to have in flight at most.
    go_window: u16,
    first_buffered: usize,
    /// Places that KCP holds unread at most.
    recv_room: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineEvent {
    Incoming,
    Readable(StreamId),
    Writable(StreamId),
    Delivered(StreamId),
    ClosedByPeer { id: StreamId, lost: bool },
    Refused(StreamId),
    Reset(StreamId),
}

impl Engine {
    pub(crate) fn new(now: Instant, side: Side, conv: u32, config: &Config) -> Self {
        let kcp_config = kcp::Config {
            send_window: config.window,
            recv_window: config.window,
            initial_sn: config.counters.sn,
            initial_ts_ms: config.counters.ts_ms,
            ..kcp::Config::default()
        };
        let first_stream_id = if side == Side::Client { 3 } else { 2 };
        let mux_config = smux::Config {
            first_stream_id: Some(config.counters.streams.saturating_mul(2).saturating_add(first_stream_id)),
            initial_counter: config.counters.stream_bytes,
            initial_window: config.stream_window.max(LEAST_STREAM_WINDOW),
            max_window: config.max_stream_window,
            first_buffered: config.first_buffered,
            max_buffered: config.max_buffered,
            send_buffer: config.send_buffer,
            first_unsent: config.first_unsent,
            max_unsent: config.max_unsent,
            max_streams: config.max_streams,
            // A stream that waits costs what an open one costs. A client that expects none takes a few, in case it looks later.
            accept_backlog: if side == Side::Client { UNSOLICITED } else { config.max_streams },
            ..smux::Config::default()
        };
        let mut kcp = Kcp::new(now, conv, kcp_config);
        if side == Side::Client {
            kcp.write(&NOP);
        }
        kcp.suspend();
        let mut mux = Mux::new(now, side, mux_config);
        mux.set_keepalive(now, None);
        mux.pause_fin_quiet(now);
        let mut engine = Self {
            side,
            kcp,
            mux,
            attached: false,
            answered: now,
            out_since: None,
            asked: None,
            ask_again: None,
            put_off: false,
            keepalive: config.keepalive,
            max_streams: config.max_streams,
            peer: PeerKind::Unknown,
            fins: VecDeque::new(),
            held_fins: VecDeque::new(),
            failed: false,
            closing: false,
            over: false,
            events: VecDeque::new(),
            srtt: None,
            go_window: GO_QUEUE,
            first_buffered: config.first_buffered,
            recv_room: 0,
        };
        engine.update_fin_quiet();
        engine.update_recv_room();
        engine
    }

    pub(crate) fn peer(&self) -> PeerKind {
        self.peer
    }

    /// A capability, once known, stays with the session: nothing turns a peer of ours back into a Go program.
    pub(crate) fn set_peer(&mut self, now: Instant, peer: PeerKind) {
        if self.peer == peer || self.peer == PeerKind::Ours {
            return;
        }
        self.peer = peer;
        match peer {
            PeerKind::Ours => {
                self.kcp.set_retransmission(Retransmission::TailProbe);
                self.kcp.announce_at_most(u16::MAX);
                self.mux.tell_refusals();
            }
            PeerKind::Unknown | PeerKind::Go => {
                self.kcp.set_retransmission(Retransmission::Timeout);
                self.limit_go();
            }
        }
        self.update_fin_quiet();
        self.update_keepalive(now);
    }

    /// Towards a Go program a FIN may mean "throw away what is not read yet", so it waits until the stream is quiet. Silence counts from
    /// when the program has everything, and only while it could break it.
    fn update_fin_quiet(&mut self) {
        let quiet = self.fin_quiet();
        self.mux.set_fin_quiet((self.peer != PeerKind::Ours && !self.closing).then_some(quiet));
    }

    fn fin_quiet(&self) -> Duration {
        self.srtt.map_or(Duration::ZERO, |srtt| srtt * 4).max(Duration::from_secs(1))
    }

    fn update_keepalive(&mut self, now: Instant) {
        let interval = match (self.keepalive, self.peer) {
            // One who closes has said all, and waits for no one who is silent.
            _ if !self.attached || self.closing => None,
            // The client's is enough for both, which is acknowledged. One of ours goes when none comes: it may have none, or be gone.
            (Some(interval), PeerKind::Ours) if self.side == Side::Server => Some(interval.saturating_mul(2)),
            (Some(interval), PeerKind::Go) => Some(interval.min(GO_KEEPALIVE)),
            (interval, _) => interval,
        };
        self.mux.set_keepalive(now, interval);
    }

    /// A question and its answer went both ways, beside KCP: as good as a keepalive and its acknowledgement.
    pub(crate) fn stand_for_keepalive(&mut self, now: Instant) {
        self.mux.stand_for_keepalive(now);
    }

    // Carriers.

    /// There is a new carrier. What is unacknowledged goes out again, at once or when the peer's una is known.
    pub(crate) fn resume(&mut self, now: Instant, how: Resume, same_path: bool) {
        self.attached = true;
        if same_path {
            self.kcp.resume_on_same_path(now, how);
        } else {
            self.kcp.resume(now, how);
        }
        let gap = self.out_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.mux.resume_fin_quiet(now, gap);
        self.update_keepalive(now);
    }

    /// There is no carrier: nothing is sent, no timer runs. `in_doubt`: it may have been dead for longer than is known.
    pub(crate) fn suspend(&mut self, now: Instant, in_doubt: bool) {
        self.attached = false;
        self.out_since.get_or_insert(if in_doubt { self.answered } else { now });
        self.kcp.suspend();
        self.mux.pause_fin_quiet(now);
        self.update_keepalive(now);
    }

    /// The peer told what it has, beside KCP. True if that was news.
    pub(crate) fn handle_una(&mut self, now: Instant, una: Sn) -> bool {
        let before = self.kcp.una();
        self.kcp.handle_una(now, una);
        self.note_una(now);
        self.kcp.una() != before
    }

    /// Provokes an answer of whoever is there.
    pub(crate) fn ask_window(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
        self.kcp.ask_window();
    }

    fn note_answer(&mut self, now: Instant) {
        let quiet = self.fin_quiet();
        let late = self.asked.take().is_some_and(|asked| now.saturating_duration_since(asked) > quiet * 3 / 8);
        if late && self.mux.awaits_answer() && !self.put_off {
            // For a while nothing got through, and what a Go program had to drop meanwhile may still come.
            self.put_off = true;
            self.mux.resume_fin_quiet(now, now.saturating_duration_since(self.answered));
        }
        self.answered = now;
        self.out_since = None;
        if self.kcp.is_in_order() {
            self.mux.handle_alive(now);
        }
    }

    pub(crate) fn handle_rtt(&mut self, sample: Duration) {
        self.kcp.handle_rtt(sample);
        self.note_srtt();
    }

    // Packets.

    /// Takes in one KCP packet. `None`: it does not parse, or nothing in it can come from our peer; it changes nothing and is only counted.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<Option<Received>, SessionError> {
        let before = (self.kcp.una(), self.kcp.rcv_nxt(), answers(self.kcp.stats()));
        let (mux, over, failed) = (&mut self.mux, self.over, &mut self.failed);
        let mut result = Ok(());
        let take = |bytes: &[u8]| {
            if *failed || !(over || mux.has_room()) {
                return false;
            }
            result = mux.handle_bytes(now, bytes);
            *failed = result.is_err();
            true
        };
        if !self.kcp.handle_packet_with(now, packet, take).unwrap_or(false) {
            return Ok(None);
        }
        let received = Received {
            acknowledged: self.kcp.una() != before.0,
            data: self.kcp.rcv_nxt() != before.1,
            answer: self.kcp.una() != before.0 || answers(self.kcp.stats()) != before.2,
        };
        if self.side == Side::Server && self.peer == PeerKind::Ours {
            self.mux.postpone_keepalive(now);
        }
        let kept = self.pass_up(now);
        result?;
        kept?;
        self.put_off &= !received.data;
        if received.answer {
            self.note_answer(now);
        }
        if received.acknowledged {
            self.note_una(now);
            self.note_srtt();
        }
        Ok(Some(received))
    }

    /// The first segment has come in the session's former life, and nothing was in it that is of any concern now.
    pub(crate) fn take_opening_for_taken(&mut self, now: Instant) {
        let (conv, first) = (self.kcp.conv(), self.kcp.rcv_nxt());
        let opening = Segment {
            conv,
            cmd: Command::Push,
            frg: 0,
            wnd: GO_QUEUE,
            ts: Ts::default(),
            sn: first,
            una: self.kcp.una(),
            payload: &NOP,
        };
        let mut packet = Vec::new();
        opening.encode(&mut packet);
        let taken = self.handle_packet(now, &packet);
        debug_assert!(matches!(taken, Ok(Some(_))), "{taken:?}");
    }

    /// The session is over: everything that has arrived is for the streams, whether or not they have room. It has been acknowledged, and nothing more
    /// comes.
    pub(crate) fn take_in_rest(&mut self, now: Instant) {
        self.over = true;
        // A mistake in it is nobody's concern any more; what is before it can be read.
        let _ = self.pass_up(now);
    }

    /// Moves bytes in order from KCP to smux, as far as smux has room. What stays closes KCP's window. A protocol error is told once.
    fn pass_up(&mut self, now: Instant) -> Result<(), SessionError> {
        let mut result = Ok(());
        while !self.failed && (self.over || self.mux.has_room()) {
            let Some(chunk) = self.kcp.peek() else { break };
            result = self.mux.handle_bytes(now, chunk);
            self.failed = result.is_err();
            self.kcp.consume();
        }
        self.collect_events(now);
        Ok(result?)
    }

    /// A Go program drops the packets of its own that overrun a queue of 32, so it must not be tempted: what may be on its way is that queue on
    /// short paths, and more on long ones, where the window is spread over the round trip. It grows by one segment at a time, because a
    /// window that opens wide is answered with a burst.
    ///
    /// Measured with the worked example's client, 16 MiB echoed over loopback: 0.8 s, and 12 s with a window of 8,192; its own server needs 4 s.
    fn limit_go(&mut self) {
        let round_trips = self.srtt.map_or(0, |srtt| srtt.as_millis() / GO_SPREAD.as_millis());
        let wanted = (GO_QUEUE * (1 + u16::try_from(round_trips).unwrap_or(u16::MAX).min(7))).max(GO_QUEUE);
        self.go_window = if wanted > self.go_window { self.go_window + 1 } else { wanted };
        self.kcp.announce_at_most(self.go_window);
    }

    /// What is on its way may have to be kept, so it is part of this session's memory, and has to be earned as well: a quarter of what may be buffered at
    /// first, and three halves of what was read, which is more than a flight has in it that doubles with each round trip.
    fn update_recv_room(&mut self) {
        let earned = self.mux.recv_limit().saturating_sub(self.first_buffered) / 4 * 3;
        let places = u16::try_from((self.first_buffered / 4 + earned) / PLACE).unwrap_or(u16::MAX);
        if places != self.recv_room {
            self.recv_room = places;
            self.kcp.set_recv_room(places);
        }
    }

    /// Memory is scarce at this end, or is so no longer: see [`Config::first_buffered`]. What found no room finds some then.
    pub(crate) fn set_scarce(&mut self, now: Instant, scarce: bool) -> Result<(), SessionError> {
        self.mux.set_scarce(scarce);
        self.update_recv_room();
        self.pass_up(now)
    }

    /// Bytes allocated for data of any kind.
    pub(crate) fn memory(&self) -> usize {
        self.kcp.memory() + self.mux.memory()
    }

    fn note_srtt(&mut self) {
        if self.peer == PeerKind::Go {
            self.limit_go();
        }
        let srtt = self.kcp.srtt();
        if srtt != self.srtt {
            self.srtt = srtt;
            if let Some(srtt) = srtt {
                self.mux.set_rtt(srtt);
            }
            if self.peer != PeerKind::Ours {
                self.update_fin_quiet();
            }
        }
    }

    /// Appends the next packet. False: nothing to send now.
    pub(crate) fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if !self.attached {
            return false;
        }
        if !self.kcp.is_learning() && self.mux.wants_transmit() {
            let sn = self.kcp.fill_sn();
            let mux = &mut self.mux;
            self.kcp.fill(|segment, room| {
                mux.poll_transmit(now, segment, room);
            });
            self.collect_mux_events(now, sn);
            self.start_fin_quiet(now);
        }
        self.kcp.poll_transmit(now, out)
    }

    /// Something waits to be sent, or to be told.
    pub(crate) fn has_work(&self, now: Instant) -> bool {
        !self.events.is_empty() || self.mux.wants_transmit() || self.kcp.wants_transmit(now)
    }

    /// Something can go out as soon as the carrier takes it.
    pub(crate) fn waits_for_carrier(&self, now: Instant) -> bool {
        self.kcp.wants_transmit(now) || (self.mux.wants_transmit() && self.kcp.room() > 0)
    }

    /// Nothing but so many acknowledgements wait to be sent: they may as well ride on what the application answers.
    pub(crate) fn only_acks_waiting(&self, now: Instant) -> Option<usize> {
        if self.mux.wants_transmit() { None } else { self.kcp.only_acks_waiting(now) }
    }

    fn collect_events(&mut self, now: Instant) {
        let sn = self.kcp.fill_sn();
        self.collect_mux_events(now, sn);
    }

    /// `sn` is the segment into which frames went since the last call.
    fn collect_mux_events(&mut self, now: Instant, sn: Sn) {
        while let Some(event) = self.mux.poll_event() {
            let event = match event {
                smux::Event::Incoming => EngineEvent::Incoming,
                smux::Event::Readable(id) => EngineEvent::Readable(id),
                smux::Event::Writable(id) => EngineEvent::Writable(id),
                smux::Event::ClosedByPeer { id, lost } => EngineEvent::ClosedByPeer { id, lost },
                smux::Event::Refused(id) => EngineEvent::Refused(id),
                smux::Event::Reset(id) => EngineEvent::Reset(id),
                smux::Event::FinSent(id) => {
                    self.fins.push_back((sn, id));
                    continue;
                }
                smux::Event::FinQuiet(_) => {
                    self.ask_window(now);
                    self.ask_again = Some(now + ASK_AGAIN);
                    continue;
                }
                smux::Event::FinHeld(id) => {
                    self.held_fins.push_back((self.kcp.end(), id));
                    continue;
                }
                _ => continue,
            };
            self.events.push_back(event);
        }
    }

    /// The peer has acknowledged something.
    fn note_una(&mut self, now: Instant) {
        while let Some(&(sn, id)) = self.fins.front() {
            if self.kcp.una().distance_from(sn) <= 0 {
                break;
            }
            self.fins.pop_front();
            self.events.push_back(EngineEvent::Delivered(id));
        }
        self.start_fin_quiet(now);
    }

    fn start_fin_quiet(&mut self, now: Instant) {
        while let Some(&(end, id)) = self.held_fins.front() {
            if self.kcp.una().distance_from(end) < 0 {
                break;
            }
            self.held_fins.pop_front();
            self.mux.start_fin_quiet(now, id);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<EngineEvent> {
        self.events.pop_front()
    }

    // Time.

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.kcp.handle_timeout(now);
        self.mux.handle_timeout(now);
        self.collect_events(now);
        if self.ask_deadline().is_some_and(|at| now >= at) {
            self.ask_window(now);
            self.ask_again = Some(now + ASK_AGAIN);
        }
    }

    fn ask_deadline(&self) -> Option<Instant> {
        self.ask_again.filter(|_| self.attached && self.mux.awaits_answer())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let kcp = if self.attached { self.kcp.poll_timeout() } else { None };
        kcp.into_iter().chain(self.mux.poll_timeout()).chain(self.ask_deadline()).min()
    }

    // Streams.

    pub(crate) fn open(&mut self) -> Result<StreamId, smux::OpenError> {
        self.mux.open()
    }

    pub(crate) fn accept(&mut self) -> Option<StreamId> {
        self.mux.set_accept_backlog(self.max_streams);
        self.mux.accept()
    }

    pub(crate) fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError> {
        self.mux.write(id, bytes)
    }

    pub(crate) fn room(&mut self, id: StreamId, enough: usize) -> Result<Option<usize>, StreamError> {
        self.mux.room(id, enough)
    }

    pub(crate) fn unsent(&mut self, id: StreamId) -> usize {
        self.mux.unsent_of(id)
    }

    /// As [`Mux::read`]; the place that reading made is filled from KCP at once. That may end the session, whatever was read.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        id: StreamId,
        buf: &mut [u8],
    ) -> (Result<Option<usize>, StreamError>, Result<(), SessionError>) {
        let read = self.mux.read(now, id, buf);
        self.update_recv_room();
        (read, self.pass_up(now))
    }

    pub(crate) fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        self.mux.finish(id)
    }

    pub(crate) fn close_stream(&mut self, now: Instant, id: StreamId) -> Result<(), SessionError> {
        self.mux.close(id);
        self.pass_up(now)
    }

    pub(crate) fn reset_stream(&mut self, now: Instant, id: StreamId) -> Result<(), SessionError> {
        self.mux.reset(id);
        self.pass_up(now)
    }

    /// Every stream is finished, at once: what a Go program still has to say is not waited for.
    pub(crate) fn finish_all(&mut self, now: Instant) {
        self.closing = true;
        self.update_fin_quiet();
        self.update_keepalive(now);
        self.mux.finish_all();
    }

    pub(crate) fn set_peer_window(&mut self, bytes: u32) {
        self.mux.set_peer_window(bytes.max(LEAST_STREAM_WINDOW));
    }

    /// The peer takes packets of so many bytes, and so do the carriers.
    pub(crate) fn set_largest_packet(&mut self, bytes: usize) {
        self.kcp.set_largest_packet(bytes);
    }

    // Facts.

    pub(crate) fn kcp(&self) -> &Kcp {
        &self.kcp
    }

    pub(crate) fn mux(&self) -> &Mux {
        &self.mux
    }

    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// How much was said on streams so far: data and their ends, sent or dropped. Grows with each word; keepalives and window updates are none.
    pub(crate) fn said(&self) -> u64 {
        let stats = self.mux.stats();
        stats.bytes_sent + stats.bytes_unsent + stats.fins_sent
    }
}

/// Segments that answer one of ours.
fn answers(stats: &kcp::Stats) -> u64 {
    stats.acks_received + stats.wins_received
}
