//! An end of ours: a [`Tunnel`], its application, and its connections, with every promise of the engines checked at every step.
//!
//! It does what the tokio driver does, in the same order, and decides as little.

use std::time::{Duration, Instant};

use turbotunnel::encapsulation::{HEADER_LEN, MAX_PACKET, PacketBatch};
use turbotunnel::tunnel::{Action, CarrierId, Event, Stats, Tunnel};
use turbotunnel::{CarrierEnd, Config, SessionError, StreamId};

use crate::app::{App, Streams};
use crate::network::{Network, Side, WireId};
use crate::pipe::End;

/// Buffers for the next packets, and the ends of chunks that are not full.
const SPARE: u64 = 2 << 20;

struct Link {
    carrier: CarrierId,
    wire: WireId,
    partial: Vec<u8>,
    /// To be half-closed.
    closing: bool,
    closed: bool,
    read_ended: bool,
}

/// What the application was told, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Virtual time since the start.
    pub at: Duration,
    /// What.
    pub event: Event,
}

pub(crate) struct Ours {
    pub(crate) tunnel: Tunnel,
    side: Side,
    start: Instant,
    config: Config,
    links: Vec<Link>,
    batch: PacketBatch,
    packet: Vec<u8>,
    clock: Instant,
    told: Vec<Told>,
    /// Until when bare acknowledgements wait, as in the driver.
    acks_wait: Option<Instant>,
    /// The application closes the session as soon as it has read and written everything.
    pub(crate) closes_when_done: bool,
}

impl Ours {
    pub(crate) fn new(now: Instant, start: Instant, side: Side, config: Config, tunnel: Tunnel) -> Self {
        Self {
            tunnel,
            side,
            start,
            config,
            links: Vec::new(),
            batch: PacketBatch::new(),
            packet: Vec::new(),
            clock: now,
            told: Vec::new(),
            acks_wait: None,
            closes_when_done: false,
        }
    }

    pub(crate) fn told(&self) -> &[Told] {
        &self.told
    }

    // Connections.

    pub(crate) fn dialed(&mut self, now: Instant, wire: WireId, net: &mut Network) {
        let Some(carrier) = self.carrier_of(wire) else { return };
        // As the dialer does: the session id is the first thing on the connection.
        net.write(now, wire, Side::Client, &crate::sim::SESSION_ID);
        self.tunnel.handle_dialed(now, carrier);
    }

    pub(crate) fn dial_failed(&mut self, now: Instant, wire: WireId) {
        let Some(carrier) = self.carrier_of(wire) else { return };
        self.links.retain(|link| link.wire != wire);
        self.tunnel.handle_dial_failed(now, carrier);
    }

    pub(crate) fn attach(&mut self, now: Instant, wire: WireId) {
        let carrier = self.tunnel.attach(now);
        self.add_link(carrier, wire);
    }

    fn add_link(&mut self, carrier: CarrierId, wire: WireId) {
        self.links.push(Link { carrier, wire, partial: Vec::new(), closing: false, closed: false, read_ended: false });
    }

    fn carrier_of(&self, wire: WireId) -> Option<CarrierId> {
        self.links.iter().find(|link| link.wire == wire).map(|link| link.carrier)
    }

    pub(crate) fn handle_bytes(&mut self, now: Instant, wire: WireId, bytes: &[u8]) {
        assert!(now >= self.clock, "time goes back");
        self.clock = now;
        let Some(link) = self.links.iter_mut().find(|link| link.wire == wire) else { return };
        let carrier = link.carrier;
        self.batch.clear(usize::MAX);
        self.batch.bytes_mut().extend_from_slice(&link.partial);
        self.batch.bytes_mut().extend_from_slice(bytes);
        let whole = self.batch.cut_incomplete(&mut link.partial);
        self.batch.packets().for_each(|packet| self.tunnel.handle_packet(now, carrier, packet));
        assert!(whole.is_ok(), "the simulator's packets are never too long");
    }

    pub(crate) fn handle_end(&mut self, now: Instant, wire: WireId, end: End, net: &mut Network) {
        let Some(at) = self.links.iter().position(|link| link.wire == wire) else { return };
        let link = &mut self.links[at];
        let carrier = link.carrier;
        if !link.partial.is_empty() {
            net.counts.note("half a packet");
        }
        link.read_ended = true;
        let why = match end {
            End::Fin => CarrierEnd::Closed,
            End::Reset => CarrierEnd::Failed(std::io::ErrorKind::ConnectionReset),
        };
        if end == End::Fin && !link.closed {
            link.closing = true;
        } else {
            net.close(now, wire, self.side);
            self.links.remove(at);
        }
        self.tunnel.handle_ended(now, carrier, why);
    }

    /// The whole end goes away without a word, as a process that is killed.
    pub(crate) fn vanish(&mut self, now: Instant, net: &mut Network) {
        for link in self.links.drain(..) {
            net.close(now, link.wire, self.side);
        }
    }

    // Turns.

    /// Does what is due. True if that was something.
    pub(crate) fn turn(&mut self, now: Instant, app: &mut App, net: &mut Network) -> bool {
        assert!(now >= self.clock, "time goes back");
        self.clock = now;
        let mut busy = false;
        if self.tunnel.poll_timeout().is_some_and(|at| at <= now) {
            self.tunnel.handle_timeout(now);
            let next = self.tunnel.poll_timeout();
            assert!(next.is_none_or(|at| at > now), "after handle_timeout(now) the next timeout is not later than now");
            busy = true;
        }
        busy |= self.tell(now, app, net);
        busy |= app.turn(now, &mut self.tunnel);
        if self.closes_when_done && app.is_done() {
            self.tunnel.close(now);
        }
        self.acks_wait = self.tunnel.acks_may_wait(now);
        busy |= self.acks_wait.is_none() && self.write(now, net);
        busy |= self.act(now, net);
        self.close_links(now, net);
        busy
    }

    fn tell(&mut self, now: Instant, app: &mut App, net: &mut Network) -> bool {
        let mut busy = false;
        while let Some(event) = self.tunnel.poll_event() {
            busy = true;
            app.handle_event(&event);
            match event {
                Event::Readable(_) | Event::Writable(_) | Event::Incoming => continue,
                Event::Ended(_) => app.handle_end(),
                _ => {}
            }
            net.trace.tell(now, format_args!("{:?}: {event:?}", self.side));
            self.told.push(Told { at: now - self.start, event });
        }
        busy
    }

    fn write(&mut self, now: Instant, net: &mut Network) -> bool {
        let mut busy = false;
        for link in self.links.iter().filter(|link| !link.closing && !link.closed) {
            while net.room(link.wire, self.side) >= HEADER_LEN + MAX_PACKET {
                self.packet.clear();
                if !self.tunnel.poll_transmit(now, link.carrier, &mut self.packet) {
                    assert!(self.packet.is_empty(), "a packet that was not made left bytes");
                    break;
                }
                assert!((1..=MAX_PACKET).contains(&self.packet.len()), "packet of {} bytes", self.packet.len());
                net.send(now, link.wire, self.side, &self.packet);
                busy = true;
            }
        }
        busy
    }

    fn act(&mut self, now: Instant, net: &mut Network) -> bool {
        let mut busy = false;
        while let Some(action) = self.tunnel.poll_action() {
            busy = true;
            match action {
                Action::Dial(carrier) => {
                    assert_eq!(self.side, Side::Client, "a server dialled");
                    let wire = net.dial(now);
                    self.add_link(carrier, wire);
                }
                Action::CloseWrite(carrier) => {
                    self.links.iter_mut().filter(|link| link.carrier == carrier).for_each(|link| link.closing = true);
                }
                Action::Drop(carrier) => {
                    self.links.retain(|link| {
                        if link.carrier == carrier {
                            net.close(now, link.wire, self.side);
                        }
                        link.carrier != carrier
                    });
                }
                other => panic!("the simulator does not know {other:?}"),
            }
        }
        busy
    }

    fn close_links(&mut self, now: Instant, net: &mut Network) {
        for link in self.links.iter_mut().filter(|link| link.closing && !link.closed) {
            net.close_write(now, link.wire, self.side);
            link.closed = true;
        }
        self.links.retain(|link| !(link.closed && link.read_ended));
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.tunnel.poll_timeout().into_iter().chain(self.acks_wait).min()
    }

    /// Everything that can be done now is done. Holds the engines to what they promise of such a moment.
    pub(crate) fn check(&mut self, now: Instant, net: &mut Network) {
        let facts = |tunnel: &Tunnel| -> (Option<Instant>, Stats) { (tunnel.poll_timeout(), tunnel.stats()) };
        let before = facts(&self.tunnel);
        assert!(before.0.is_none_or(|at| at > now), "a timer that is due did not fire");

        self.tunnel.handle_timeout(now);
        assert_eq!(self.tunnel.poll_event(), None, "handle_timeout, called early, told something");
        assert_eq!(self.tunnel.poll_action(), None, "handle_timeout, called early, wanted something");
        self.packet.clear();
        for link in self.links.iter().filter(|link| !link.closing && !link.closed) {
            if self.acks_wait.is_none() && net.room(link.wire, self.side) >= HEADER_LEN + MAX_PACKET {
                let more = self.tunnel.poll_transmit(now, link.carrier, &mut self.packet);
                assert!(!more, "a packet waited for something other than room");
            }
        }
        if self.tunnel.current().is_none() {
            let nobody = CarrierId(u32::MAX);
            for carrier in self.links.iter().map(|link| link.carrier).chain([nobody]) {
                if self.tunnel.ended().is_none() {
                    let made = self.tunnel.poll_transmit(now, carrier, &mut self.packet);
                    assert!(!made, "a packet was made although there is no carrier in use");
                }
            }
        }
        assert_eq!(
            facts(&self.tunnel),
            before,
            "handle_timeout, called early, or asking for a packet in vain, changed something"
        );
        let (memory, bound) = (self.tunnel.memory() as u64, self.memory_bound() * 5 / 4 + SPARE);
        assert!(memory <= bound, "{memory} bytes are allocated, at most {bound} may be");
    }

    /// The most that this end may hold of what the peer has written, or the peer of what it has: buffers and windows of both.
    pub(crate) fn memory_bound(&self) -> u64 {
        let window = u64::from(self.config.window.max(32)) * 1376;
        let streams = self.tunnel.stats().streams as u64 + 1;
        let unsent = (self.config.max_unsent as u64).min(streams * self.config.send_buffer as u64);
        window * 2 + self.config.max_buffered as u64 * 2 + unsent
    }

    /// Connections that it holds or tries to make.
    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn ended(&self) -> Option<&SessionError> {
        self.tunnel.ended()
    }
}

impl Streams for Tunnel {
    fn open(&mut self, now: Instant) -> Result<StreamId, String> {
        self.open(now).map_err(|error| error.to_string())
    }

    fn accept(&mut self) -> Option<StreamId> {
        self.accept()
    }

    fn write(&mut self, now: Instant, id: StreamId, bytes: &[u8]) -> Result<usize, String> {
        self.write(now, id, bytes).map_err(|error| error.to_string())
    }

    fn read(&mut self, now: Instant, id: StreamId, buf: &mut [u8]) -> Result<Option<usize>, String> {
        self.read(now, id, buf).map_err(|error| error.to_string())
    }

    fn finish(&mut self, now: Instant, id: StreamId) -> Result<(), String> {
        self.finish(now, id).map_err(|error| error.to_string())
    }

    fn let_go(&mut self, now: Instant, id: StreamId) {
        self.close_stream(now, id);
    }
}
