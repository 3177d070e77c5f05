//! A session as the Go libraries keep it: KCP and smux, and a queue that drops.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use kcp::{Kcp, Retransmission};
use smux::wire::{Command, HEADER_LEN, Header};
use smux::{Mux, StreamId, Version};
use turbotunnel::control::MIN_KCP_PACKET;
use turbotunnel::tunnel::Event;

use super::{Fin, Go};
use crate::app::{App, Streams};
use crate::network::{Network, Side, WireId};
use crate::random::Random;

/// Packets that wait for a carrier; what comes on top of them is dropped.
pub(super) const QUEUE: usize = 32;
/// A goroutine takes a packet from a queue every so often.
pub(super) const PACKET_TIME: Duration = Duration::from_micros(5);
/// Carriers take packets while they have room for one of the longest.
const LONGEST: usize = 1402;
const KEEPALIVE: Duration = Duration::from_secs(10);
/// smux looks every so often whether a frame has come.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct GoSession {
    side: Side,
    go: Go,
    kcp: Kcp,
    mux: Mux,
    queue: VecDeque<Vec<u8>>,
    next_write: Instant,
    next_look: Instant,
    heard: bool,
    frames: FrameWatch,
    /// Which carrier gets a packet.
    random: Random,
    pub(super) dead: bool,
}

impl GoSession {
    pub(super) fn new(now: Instant, side: Side, go: Go, conv: u32) -> Self {
        let mut kcp = Kcp::new(now, conv, kcp::Config::default());
        kcp.set_retransmission(Retransmission::Timeout);
        // Its first timeout is 200 ms; so is that of a round trip like this.
        kcp.handle_rtt(Duration::from_micros(66_666));
        let window = if side == Side::Client { 1 << 20 } else { smux::ASSUMED_WINDOW };
        let mux_config = smux::Config {
            initial_window: window,
            max_window: window,
            max_buffered: 4 << 20,
            send_buffer: 64 << 10,
            ..smux::Config::default()
        };
        let mux_side = if side == Side::Client { smux::Side::Client } else { smux::Side::Server };
        let mut mux = Mux::new(now, mux_side, mux_config);
        mux.set_keepalive(now, Some(KEEPALIVE));
        Self {
            side,
            go,
            kcp,
            mux,
            queue: VecDeque::new(),
            next_write: now,
            next_look: now + TIMEOUT,
            heard: false,
            frames: FrameWatch::default(),
            random: Random::new(conv.into()),
            dead: false,
        }
    }

    pub(super) fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        if packet.len() < MIN_KCP_PACKET || self.dead {
            return;
        }
        let mut packet = packet.to_vec();
        self.forgive_una(&mut packet);
        if self.kcp.handle_packet(now, &packet).is_ok() {
            self.pass_up(now);
        }
    }

    /// kcp-go does not mind a `una` of what it has not sent; a ghost gets many. Ours drops such segments.
    fn forgive_una(&self, packet: &mut [u8]) {
        let mut rest = packet;
        while rest.len() >= MIN_KCP_PACKET {
            let una: [u8; 4] = rest[16..20].try_into().expect("four bytes");
            if kcp::Sn::new(u32::from_le_bytes(una)).distance_from(self.kcp.nxt()) > 0 {
                rest[16..20].copy_from_slice(&self.kcp.nxt().value().to_le_bytes());
            }
            let len: [u8; 4] = rest[20..24].try_into().expect("four bytes");
            let next = MIN_KCP_PACKET.saturating_add(u32::from_le_bytes(len) as usize);
            let Some((_, after)) = rest.split_at_mut_checked(next) else { return };
            rest = after;
        }
    }

    fn pass_up(&mut self, now: Instant) {
        while self.mux.has_room() {
            let Some(chunk) = self.kcp.peek() else { break };
            self.heard = true;
            self.frames.scan(chunk);
            let parsed = self.mux.handle_bytes(now, chunk);
            assert!(parsed.is_ok(), "the Go peer was sent broken smux: {parsed:?}");
            self.kcp.consume();
        }
    }

    /// Does what is due. True if that was something.
    pub(super) fn turn(&mut self, now: Instant, app: &mut App, wires: &[WireId], net: &mut Network) -> bool {
        if self.dead {
            return false;
        }
        if now >= self.next_look {
            self.next_look = now + TIMEOUT;
            if !std::mem::take(&mut self.heard) {
                net.trace.tell(now, format_args!("{:?}: the Go session times out", self.side));
                self.dead = true;
                return true;
            }
        }
        self.kcp.handle_timeout(now);
        self.mux.handle_timeout(now);
        let mut busy = false;
        while let Some(event) = self.mux.poll_event() {
            busy = true;
            match event {
                smux::Event::Readable(id) => app.handle_event(&Event::Readable(id)),
                smux::Event::Writable(id) => app.handle_event(&Event::Writable(id)),
                _ => {}
            }
        }
        busy |= app.turn(now, self);
        busy |= self.transmit(now);
        busy | self.write(now, wires, net)
    }

    /// KCP flushes when it likes; what the queue does not take is lost.
    fn transmit(&mut self, now: Instant) -> bool {
        let mut busy = false;
        let mut packet = Vec::new();
        loop {
            if self.mux.wants_transmit() {
                let mux = &mut self.mux;
                self.kcp.fill(|segment, room| {
                    mux.poll_transmit(now, segment, room);
                });
            }
            if !self.kcp.poll_transmit(now, &mut packet) {
                return busy;
            }
            busy = true;
            let packet = std::mem::take(&mut packet);
            if self.queue.len() < QUEUE {
                self.queue.push_back(packet);
            }
        }
    }

    /// All carriers take from the one queue; who is first is chance.
    fn write(&mut self, now: Instant, wires: &[WireId], net: &mut Network) -> bool {
        let mut busy = false;
        while !self.queue.is_empty() && now >= self.next_write {
            let mut with_room = wires.to_vec();
            with_room.retain(|wire| net.room(*wire, self.side) >= LONGEST);
            if with_room.is_empty() {
                break;
            }
            let wire = self.random.pick(&with_room);
            let packet = self.queue.pop_front().expect("it is not empty");
            net.send(now, wire, self.side, &packet);
            self.next_write = now + PACKET_TIME;
            busy = true;
        }
        busy
    }

    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.dead {
            return None;
        }
        let queue = (!self.queue.is_empty()).then_some(self.next_write).filter(|at| *at > now);
        let timers = [self.kcp.poll_timeout(), self.mux.poll_timeout(), Some(self.next_look), queue];
        timers.into_iter().flatten().min()
    }
}

impl Streams for GoSession {
    fn open(&mut self, _now: Instant) -> Result<StreamId, String> {
        self.mux.open().map_err(|error| error.to_string())
    }

    fn accept(&mut self) -> Option<StreamId> {
        self.mux.accept()
    }

    fn write(&mut self, _: Instant, id: StreamId, bytes: &[u8]) -> Result<usize, String> {
        let fin = self.frames.finished.contains(&id);
        if fin && self.go.fin == Fin::Mid {
            return Err("EOF: the peer has sent a FIN".to_owned());
        }
        match self.mux.write(id, bytes) {
            Ok(0) if fin && self.go.fin == Fin::Old => {
                Err("EOF: the peer has sent a FIN, and the window is used up".to_owned())
            }
            outcome => outcome.map_err(|error| error.to_string()),
        }
    }

    fn read(&mut self, now: Instant, id: StreamId, buf: &mut [u8]) -> Result<Option<usize>, String> {
        let read = self.mux.read(now, id, buf).map_err(|error| error.to_string());
        self.pass_up(now);
        read
    }

    fn finish(&mut self, _now: Instant, id: StreamId) -> Result<(), String> {
        self.mux.finish(id).map_err(|error| error.to_string())
    }

    fn let_go(&mut self, now: Instant, id: StreamId) {
        self.mux.close(id);
        self.pass_up(now);
    }

    fn half_closes(&self) -> bool {
        false
    }
}

/// Finds FINs in the byte stream.
#[derive(Default)]
struct FrameWatch {
    header: Vec<u8>,
    payload_left: usize,
    finished: HashSet<StreamId>,
}

impl FrameWatch {
    fn scan(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skip = self.payload_left.min(bytes.len());
                self.payload_left -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            let Ok(header) = <[u8; HEADER_LEN]>::try_from(self.header.as_slice()) else { continue };
            self.header.clear();
            let header = Header::decode(Version::V2, header).expect("what we send is smux");
            self.payload_left = header.length.into();
            if header.command == Command::Fin {
                self.finished.insert(header.stream);
            }
        }
    }
}
