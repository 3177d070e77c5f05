//! The way between client and server: connections that are dialled, carry bytes, and come to grief.

use std::time::{Duration, Instant};

use turbotunnel::control::Control;
use turbotunnel::encapsulation::{HEADER_LEN, MAX_FIRST_PACKET};

use crate::fault::{Counts, Dial, Fault, How, When};
use crate::pattern::Way;
use crate::pipe::{Arrival, End, Link, Pipe};
use crate::random::Random;
use crate::trace::Trace;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that dials.
    Client,
    /// The one that is dialled.
    Server,
}

/// A connection, or the attempt at one: counted from 0, in order of dialling.
pub(crate) type WireId = usize;

/// What an end of a connection hears of it.
#[derive(Debug)]
pub(crate) enum News {
    Connected,
    DialFailed,
    /// The server: somebody came.
    Accepted {
        astray: bool,
    },
    Bytes(Vec<u8>),
    Ended(End),
}

/// A packet as it was handed to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Virtual time since the start.
    pub at: Duration,
    /// The carrier, counted from 1 in the order of dialling.
    pub carrier: u32,
    /// Where it goes.
    pub way: Way,
    /// Its bytes.
    pub packet: Vec<u8>,
}

impl Seen {
    /// The control packet that it is, if it is one.
    #[must_use]
    pub fn control(&self) -> Option<Control> {
        Control::decode(&self.packet)
    }

    /// Its KCP segments; none if it is a control packet.
    pub fn segments(&self) -> impl Iterator<Item = kcp::Segment<'_>> {
        kcp::segments(&self.packet).into_iter().flatten()
    }

    /// Its data segments.
    pub fn pushes(&self) -> impl Iterator<Item = kcp::Segment<'_>> {
        self.segments().filter(|segment| segment.cmd == kcp::wire::Command::Push)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dialing { until: Instant, outcome: Dial },
    Open,
    Gone,
}

struct Wire {
    state: State,
    /// Everything that was written, up and down, if the simulation is tapped.
    written: [Vec<u8>; 2],
    link: Link,
    /// What happens to packets.
    random: Random,
    /// A packet that the next one overtakes, up and down, and when it goes if there is none.
    held: [Option<(Instant, Vec<u8>)>; 2],
    /// Nobody at the other end.
    unanswered: bool,
    up: Pipe,
    down: Pipe,
    faults: Vec<Fault>,
    timed: Vec<(Instant, How)>,
}

impl Wire {
    fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// `asleep`: until when client and server sleep.
    fn next(&self, asleep: [Option<Instant>; 2]) -> Option<Instant> {
        match self.state {
            State::Dialing { outcome: Dial::BlackHole, .. } | State::Gone => None,
            State::Dialing { until, .. } => Some(until),
            State::Open => {
                let timed = self.timed.iter().map(|(at, _)| *at);
                let held = self.held.iter().flatten().map(|(at, _)| *at);
                let [client, server] = asleep;
                let up = self.up.next().map(|at| server.map_or(at, |until| at.max(until)));
                let down = self.down.next().map(|at| client.map_or(at, |until| at.max(until)));
                up.into_iter().chain(down).chain(timed).chain(held).min()
            }
        }
    }
}

type LinkPlan = Box<dyn FnMut(u32) -> Link>;
type DialPlan = Box<dyn FnMut(u32, Duration, &mut Random) -> Dial>;
type FaultPlan = Box<dyn FnMut(u32, &mut Random) -> Vec<Fault>>;

pub(crate) struct Network {
    start: Instant,
    wires: Vec<Wire>,
    live: Vec<WireId>,
    random: Random,
    pub(crate) link_plan: LinkPlan,
    pub(crate) dial_plan: DialPlan,
    pub(crate) fault_plan: FaultPlan,
    /// What happens to every carrier that lives at that time, and every so often after.
    pub(crate) agenda: Vec<(Instant, Option<Duration>, How)>,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) tap: Option<Vec<Seen>>,
    /// So many packets are dropped next, up and down.
    pub(crate) to_lose: [u32; 2],
    /// Until when client and server sleep: they hear nothing, and what comes stays in their connections' buffers.
    asleep: [Option<Instant>; 2],
    news: Vec<(WireId, Side, News)>,
}

impl Network {
    pub(crate) fn new(start: Instant, random: Random, link: Link) -> Self {
        Self {
            start,
            wires: Vec::new(),
            live: Vec::new(),
            random,
            link_plan: Box::new(move |_| link),
            dial_plan: Box::new(|_, _, _| Dial::Connect),
            fault_plan: Box::new(|_, _| Vec::new()),
            agenda: Vec::new(),
            trace: Trace::new(start),
            counts: Counts::default(),
            tap: None,
            to_lose: [0; 2],
            asleep: [None; 2],
            news: Vec::new(),
        }
    }

    // What ends of connections do.

    pub(crate) fn dial(&mut self, now: Instant) -> WireId {
        let number = self.wires.len() as u32 + 1;
        let outcome = (self.dial_plan)(number, now - self.start, &mut self.random);
        let faults = (self.fault_plan)(number, &mut self.random);
        let link = (self.link_plan)(number);
        let until = match outcome {
            Dial::Relay | Dial::RelayRefused => now + Duration::from_micros(100),
            _ => now + link.dial.unwrap_or(link.delay * 2).max(Duration::from_micros(1)),
        };
        if outcome != Dial::Connect {
            self.counts.note(outcome.name());
        }
        self.trace.tell(now, format_args!("dial {number}: {}", outcome.name()));
        let random = if link.touches_packets() || !link.jitter.is_zero() { self.random.fork() } else { Random::new(0) };
        self.wires.push(Wire {
            state: State::Dialing { until, outcome },
            written: Default::default(),
            link,
            random,
            held: [None, None],
            unanswered: matches!(outcome, Dial::AcceptAndClose | Dial::RelayRefused),
            up: Pipe::new(now, link),
            down: Pipe::new(now, link),
            faults,
            timed: Vec::new(),
        });
        self.live.push(self.wires.len() - 1);
        self.wires.len() - 1
    }

    pub(crate) fn room(&mut self, id: WireId, side: Side) -> usize {
        self.wires[id].pipe(outward(side)).room()
    }

    pub(crate) fn write(&mut self, now: Instant, id: WireId, side: Side, bytes: &[u8]) {
        let way = outward(side);
        self.trace.bytes(now, id * 2 + usize::from(way == Way::Down), bytes);
        let wire = &mut self.wires[id];
        if self.tap.is_some() {
            wire.written[usize::from(way == Way::Down)].extend_from_slice(bytes);
        }
        let jitter = wire.link.jitter;
        let late = if jitter.is_zero() { jitter } else { wire.random.pause(Duration::ZERO..jitter) };
        wire.pipe(way).write(now, bytes, late);
    }

    /// Writes a packet with its length in front.
    pub(crate) fn send(&mut self, now: Instant, id: WireId, side: Side, packet: &[u8]) {
        let mut framed = Vec::with_capacity(HEADER_LEN + packet.len());
        framed.extend_from_slice(&u16::try_from(packet.len()).expect("packets are short").to_be_bytes());
        framed.extend_from_slice(packet);
        if !self.misses_packet(side) {
            self.deliver(now, id, side, framed);
        }
        self.note_packet(now, id, side, packet);
    }

    /// The receiver is to miss the next packet that `side` sends.
    pub(crate) fn misses_packet(&mut self, side: Side) -> bool {
        let to_lose = &mut self.to_lose[usize::from(outward(side) == Way::Down)];
        let misses = *to_lose > 0;
        *to_lose -= u32::from(misses);
        misses
    }

    /// A packet is handed to a connection, in whatever form.
    pub(crate) fn note_packet(&mut self, now: Instant, id: WireId, side: Side, packet: &[u8]) {
        if packet.len() > MAX_FIRST_PACKET {
            self.counts.note("large packet");
        }
        if let Some(tap) = &mut self.tap {
            let carrier = id as u32 + 1;
            tap.push(Seen { at: now - self.start, carrier, way: outward(side), packet: packet.to_vec() });
        }
    }

    /// Writes what belongs together: it may get lost, or be overtaken, on a way where that happens.
    pub(crate) fn deliver(&mut self, now: Instant, id: WireId, side: Side, bytes: Vec<u8>) {
        if self.wires[id].link.touches_packets() {
            self.write_packet(now, id, side, bytes);
        } else {
            self.write(now, id, side, &bytes);
        }
    }

    /// As a carrier over datagrams does: some get lost, some come late, some twice.
    fn write_packet(&mut self, now: Instant, id: WireId, side: Side, framed: Vec<u8>) {
        let wire = &mut self.wires[id];
        let (link, dice) = (wire.link, wire.random.within(0..1000) as u32);
        let held = &mut wire.held[usize::from(outward(side) == Way::Down)];
        if dice < link.loss {
            return self.counts.note("packet lost");
        }
        if dice < link.loss + link.reorder && held.is_none() {
            *held = Some((now + link.delay, framed));
            return self.counts.note("packet overtaken");
        }
        let held = held.take();
        self.write(now, id, side, &framed);
        if (link.loss + link.reorder..link.loss + link.reorder + link.double).contains(&dice) {
            self.counts.note("packet doubled");
            self.write(now, id, side, &framed);
        }
        if let Some((_, overtaken)) = held {
            self.write(now, id, side, &overtaken);
        }
    }

    /// Half-close.
    pub(crate) fn close_write(&mut self, now: Instant, id: WireId, side: Side) {
        self.wires[id].pipe(outward(side)).finish(now, End::Fin);
    }

    /// Close, both ways. A system resets a connection that is closed with something unread.
    pub(crate) fn close(&mut self, now: Instant, id: WireId, side: Side) {
        let wire = &mut self.wires[id];
        if let State::Dialing { .. } = wire.state {
            wire.state = State::Gone;
        }
        let unread = wire.pipe(inward(side)).close_reader();
        if unread && !wire.pipe(outward(side)).is_over() {
            self.counts.note("closed with something unread");
        }
        wire.pipe(outward(side)).finish(now, if unread { End::Reset } else { End::Fin });
    }

    // Faults.

    pub(crate) fn strike_all(&mut self, now: Instant, how: How) {
        let open: Vec<_> = self.live.iter().copied().filter(|id| self.wires[*id].state == State::Open).collect();
        for id in open {
            self.strike(now, id, how, None);
        }
    }

    /// `how` happens to a connection; where something in one direction is lost, it is what goes `lost`.
    pub(crate) fn strike(&mut self, now: Instant, id: WireId, how: How, lost: Option<Way>) {
        let lost = lost.unwrap_or(if self.random.chance(50) { Way::Up } else { Way::Down });
        self.counts.note(how.name());
        self.trace.tell(now, format_args!("carrier {}: {}", id + 1, how.name()));
        let wire = &mut self.wires[id];
        let delay = wire.up.delay();
        match how {
            How::Fin => {
                wire.pipe(lost).cut(now, End::Fin);
                wire.pipe(reverse(lost)).cut_behind(now, End::Fin);
            }
            How::Rst => {
                wire.pipe(lost).cut(now, End::Reset);
                wire.pipe(reverse(lost)).cut(now + delay, End::Reset);
            }
            How::Flip => wire.pipe(lost).flip_next(),
            How::HalfUp => wire.up.cut(now, End::Fin),
            How::HalfDown => wire.down.cut(now, End::Fin),
            How::StallUp => wire.up.stall_forever(),
            How::StallDown => wire.down.stall_forever(),
            How::Freeze(pause) => {
                wire.up.stall_until(now + pause);
                wire.down.stall_until(now + pause);
            }
            How::Stall | How::DeadLate(_) => {
                wire.up.stall_forever();
                wire.down.stall_forever();
                if let How::DeadLate(after) = how {
                    wire.timed.push((now + after, How::Rst));
                }
            }
        }
    }

    pub(crate) fn calm(&mut self) {
        self.agenda.clear();
        self.asleep = [None; 2];
        self.dial_plan = Box::new(|_, _, _| Dial::Connect);
        self.fault_plan = Box::new(|_, _| Vec::new());
        for wire in &mut self.wires {
            wire.faults.clear();
            wire.timed.clear();
        }
    }

    /// From now on no packet is touched while its connection lives: a sealed one would end of it.
    pub(crate) fn touch_no_packets(&mut self) {
        self.change_links(|link| Link { loss: 0, reorder: 0, double: 0, ..link });
    }

    /// From now on no packet is lost while its connection lives.
    pub(crate) fn lose_no_packets(&mut self) {
        self.change_links(|link| Link { loss: 0, ..link });
    }

    fn change_links(&mut self, change: fn(Link) -> Link) {
        self.wires.iter_mut().for_each(|wire| wire.link = change(wire.link));
        let mut plan = std::mem::replace(&mut self.link_plan, Box::new(|_| unreachable!("just replaced")));
        self.link_plan = Box::new(move |number| change(plan(number)));
    }

    // Time.

    pub(crate) fn next(&self) -> Option<Instant> {
        let wires = self.live.iter().filter_map(|id| self.wires[*id].next(self.asleep));
        let asleep = self.asleep.iter().flatten().copied();
        wires.chain(self.agenda.iter().map(|(at, _, _)| *at)).chain(asleep).min()
    }

    /// An end sleeps, as a process that is stopped.
    pub(crate) fn sleep(&mut self, now: Instant, side: Side, time: Duration) {
        self.counts.note("asleep");
        self.trace.tell(now, format_args!("{side:?}: asleep for {time:?}"));
        self.asleep[usize::from(side == Side::Server)] = Some(now + time);
    }

    pub(crate) fn is_asleep(&self, side: Side) -> bool {
        self.asleep[usize::from(side == Side::Server)].is_some()
    }

    /// What has happened by `now`, in order, for the ends to hear.
    pub(crate) fn take_news(&mut self, now: Instant) -> Vec<(WireId, Side, News)> {
        for asleep in &mut self.asleep {
            *asleep = asleep.filter(|until| now < *until);
        }
        for i in 0..self.agenda.len() {
            let (at, every, how) = self.agenda[i];
            if now >= at {
                self.strike_all(now, how);
                self.agenda[i].0 = at + every.unwrap_or(Duration::MAX / 4);
            }
        }
        for i in 0..self.live.len() {
            self.look_after(now, self.live[i]);
        }
        let wires = &self.wires;
        self.live.retain(|id| {
            let wire = &wires[*id];
            match wire.state {
                State::Dialing { .. } => true,
                State::Open => !(wire.up.is_over() && wire.down.is_over()),
                State::Gone => false,
            }
        });
        let (later, news) = std::mem::take(&mut self.news).into_iter().partition(|(_, side, _)| self.is_asleep(*side));
        self.news = later;
        news
    }

    fn look_after(&mut self, now: Instant, id: WireId) {
        if let State::Dialing { until, outcome } = self.wires[id].state
            && now >= until
            && outcome != Dial::BlackHole
        {
            self.settle_dial(now, id, outcome);
        }
        if self.wires[id].state != State::Open {
            return;
        }
        while let Some(at) = self.wires[id].timed.iter().position(|(at, _)| now >= *at) {
            let (_, how) = self.wires[id].timed.swap_remove(at);
            self.strike(now, id, how, None);
        }
        for way in [Way::Up, Way::Down] {
            if let Some((_, held)) = self.wires[id].held[usize::from(way == Way::Down)].take_if(|(at, _)| now >= *at) {
                let side = if way == Way::Up { Side::Client } else { Side::Server };
                self.write(now, id, side, &held);
            }
            if self.is_asleep(if way == Way::Up { Side::Server } else { Side::Client }) {
                continue;
            }
            self.check_limit(now, id, way);
            while let Some(arrival) = self.wires[id].pipe(way).take(now) {
                let side = if way == Way::Up { Side::Server } else { Side::Client };
                if side == Side::Client || !self.wires[id].unanswered {
                    self.news.push((
                        id,
                        side,
                        match arrival {
                            Arrival::Bytes(bytes) => News::Bytes(bytes),
                            Arrival::End(end) => News::Ended(end),
                        },
                    ));
                }
                self.check_limit(now, id, way);
            }
        }
    }

    fn settle_dial(&mut self, now: Instant, id: WireId, outcome: Dial) {
        let wire = &mut self.wires[id];
        if outcome == Dial::Refused {
            wire.state = State::Gone;
            self.news.push((id, Side::Client, News::DialFailed));
            return;
        }
        wire.state = State::Open;
        let link_delay = wire.up.delay();
        match outcome {
            Dial::AcceptAndClose => wire.down.cut(now, End::Fin),
            Dial::RelayRefused => wire.down.cut(now + link_delay * 2, End::Reset),
            _ => {
                if outcome == Dial::Relay {
                    wire.up.hold_until(now + link_delay * 2);
                }
                for fault in std::mem::take(&mut wire.faults) {
                    match fault.when {
                        When::After(pause) => {
                            wire.timed.push((now + pause, fault.how));
                            continue;
                        }
                        When::Up(bytes) => wire.up.set_limit(bytes),
                        When::Down(bytes) => wire.down.set_limit(bytes),
                    }
                    wire.faults.push(fault);
                }
                self.news.push((id, Side::Server, News::Accepted { astray: outcome == Dial::Astray }));
            }
        }
        self.news.push((id, Side::Client, News::Connected));
    }

    /// Has a fault been waiting for the bytes that have arrived by now?
    fn check_limit(&mut self, now: Instant, id: WireId, way: Way) {
        let wire = &mut self.wires[id];
        if !wire.pipe(way).limit_reached() {
            return;
        }
        let delivered = wire.pipe(way).delivered();
        wire.pipe(way).clear_limit();
        let mut due = Vec::new();
        let mut later = Vec::new();
        for fault in std::mem::take(&mut wire.faults) {
            match (fault.when, way) {
                (When::Up(limit), Way::Up) | (When::Down(limit), Way::Down) if limit <= delivered => {
                    due.push(fault.how);
                }
                (When::Up(limit), Way::Up) | (When::Down(limit), Way::Down) => {
                    wire.pipe(way).set_limit(limit);
                    later.push(fault);
                }
                _ => later.push(fault),
            }
        }
        wire.faults = later;
        for how in due {
            self.strike(now, id, how, Some(way));
        }
    }

    /// Everything that was written on a connection, if the simulation is tapped.
    pub(crate) fn written(&self, id: WireId, way: Way) -> &[u8] {
        &self.wires[id].written[usize::from(way == Way::Down)]
    }

    /// Connections that are open or being dialled.
    pub(crate) fn live(&self) -> usize {
        self.live.len()
    }

    /// Dials so far.
    pub(crate) fn dials(&self) -> usize {
        self.wires.len()
    }
}

fn outward(side: Side) -> Way {
    match side {
        Side::Client => Way::Up,
        Side::Server => Way::Down,
    }
}

fn inward(side: Side) -> Way {
    reverse(outward(side))
}

fn reverse(way: Way) -> Way {
    match way {
        Way::Up => Way::Down,
        Way::Down => Way::Up,
    }
}
