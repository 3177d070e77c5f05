//! An end of ours: a [`Tunnel`], its application, and its connections, with every promise of the engines checked at every step.
//!
//! It does what the tokio driver does, in the same order, and decides as little.

use std::rc::Rc;
use std::time::{Duration, Instant};

use turbotunnel::encapsulation::{HEADER_LEN, MAX_FIRST_PACKET, MAX_PACKET, PacketBatch};
use turbotunnel::lifetime::Due;
use turbotunnel::secure::MAX_RECORD;
use turbotunnel::tunnel::{Action, CarrierId, Event, Stats, Tunnel};
use turbotunnel::{CarrierEnd, Config, SessionError, StreamId};

use crate::app::{App, Streams};
use crate::network::{Network, Side, WireId};
use crate::pipe::End;
use crate::sealed::{Asked, Asking, Keys, NoValidAnswer, Sealed};

/// Buffers for the next packets, and the ends of chunks that are not full.
const SPARE: u64 = 2 << 20;

/// What a packet takes up at most that is not of one large segment.
const USUAL_PACKET: usize = HEADER_LEN + MAX_FIRST_PACKET;

/// When a carrier that is used up is closed, its peer may take so long to do the same, as in the driver.
const LINGER: Duration = Duration::from_secs(2);

struct Link {
    carrier: CarrierId,
    wire: WireId,
    format: Format,
    /// To be half-closed.
    closing: bool,
    closed: bool,
    read_ended: bool,
    /// When it is dropped, closed in order or not.
    close_by: Option<Instant>,
}

/// What packets are on a connection.
pub(crate) enum Format {
    /// Each with its length in front; the beginning of one whose rest has not come yet.
    Plain(Vec<u8>),
    /// Nothing yet: the dial is not over.
    Asking(Box<Asking>),
    Sealed(Box<Sealed>),
}

impl Format {
    /// Something has come whose rest has not.
    fn is_partial(&self) -> bool {
        match self {
            Self::Plain(partial) => !partial.is_empty(),
            Self::Asking(asking) => asking.is_partial(),
            Self::Sealed(sealed) => sealed.is_partial(),
        }
    }

    /// Room that a connection has to have for the next packet. If that is a large one, its rest waits in the carrier's buffer.
    fn wants(&self) -> usize {
        USUAL_PACKET + if let Self::Sealed(sealed) = self { sealed.overhead() } else { 0 }
    }
}

impl Link {
    fn is_open(&self) -> bool {
        !self.closing && !self.closed
    }

    /// When something is due about it, whatever its tunnel wants.
    fn wake_at(&self) -> Option<Instant> {
        let own = match &self.format {
            Format::Plain(_) => None,
            Format::Asking(asking) => Some(asking.deadline),
            Format::Sealed(sealed) => self.is_open().then(|| sealed.lifetime.poll_timeout()),
        };
        own.into_iter().chain(self.close_by).min()
    }
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
    /// `None`: carriers are plain.
    keys: Option<Rc<Keys>>,
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
    pub(crate) fn new(
        now: Instant,
        start: Instant,
        side: Side,
        config: Config,
        mut tunnel: Tunnel,
        keys: Option<Rc<Keys>>,
    ) -> Self {
        if keys.is_some() {
            tunnel.set_authenticated();
        }
        Self {
            tunnel,
            side,
            start,
            config,
            links: Vec::new(),
            keys,
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
        let Some(link) = self.links.iter_mut().find(|link| link.wire == wire) else { return };
        if let Some(keys) = &self.keys {
            let mut first = Vec::new();
            link.format = Format::Asking(Box::new(Asking::start(now, keys, wire, &mut first)));
            net.write(now, wire, Side::Client, &first);
            return;
        }
        // As the dialer does: the session id is the first thing on the connection.
        net.write(now, wire, Side::Client, &crate::sim::SESSION_ID);
        self.tunnel.handle_dialed(now, link.carrier);
    }

    pub(crate) fn dial_failed(&mut self, now: Instant, wire: WireId) {
        let Some(carrier) = self.carrier_of(wire) else { return };
        self.links.retain(|link| link.wire != wire);
        self.tunnel.handle_dial_failed(now, carrier);
    }

    /// A connection is this session's.
    pub(crate) fn attach(&mut self, now: Instant, wire: WireId, format: Format) -> CarrierId {
        let carrier = self.tunnel.attach(now);
        self.add_link(carrier, wire, format);
        carrier
    }

    /// Packets, with their lengths, that were opened before it was known that they are this session's.
    pub(crate) fn handle_early(&mut self, now: Instant, carrier: CarrierId, packets: Vec<u8>) {
        let mut early = PacketBatch::new();
        *early.bytes_mut() = packets;
        early.packets().for_each(|packet| self.tunnel.handle_packet(now, carrier, packet));
    }

    fn add_link(&mut self, carrier: CarrierId, wire: WireId, format: Format) {
        let (closing, closed, read_ended, close_by) = (false, false, false, None);
        self.links.push(Link { carrier, wire, format, closing, closed, read_ended, close_by });
    }

    fn carrier_of(&self, wire: WireId) -> Option<CarrierId> {
        self.links.iter().find(|link| link.wire == wire).map(|link| link.carrier)
    }

    pub(crate) fn handle_bytes(&mut self, now: Instant, wire: WireId, bytes: &[u8], net: &mut Network) {
        assert!(now >= self.clock, "time goes back");
        self.clock = now;
        let Some(at) = self.links.iter().position(|link| link.wire == wire) else { return };
        let link = &mut self.links[at];
        let carrier = link.carrier;
        let outcome = match &mut link.format {
            Format::Plain(partial) => {
                self.batch.clear(usize::MAX);
                self.batch.bytes_mut().extend_from_slice(partial);
                self.batch.bytes_mut().extend_from_slice(bytes);
                let whole = self.batch.cut_incomplete(partial);
                assert!(whole.is_ok(), "the simulator's packets are never too long");
                Ok(())
            }
            Format::Sealed(sealed) => sealed.open(bytes, &mut self.batch),
            Format::Asking(_) => return self.handle_answer(now, at, bytes, net),
        };
        self.batch.packets().for_each(|packet| self.tunnel.handle_packet(now, carrier, packet));
        if let Err(why) = outcome {
            self.break_off(now, at, why, net);
        }
    }

    /// The client: the server's part of the handshake.
    fn handle_answer(&mut self, now: Instant, at: usize, bytes: &[u8], net: &mut Network) {
        let Link { carrier, wire, .. } = self.links[at];
        let format = std::mem::replace(&mut self.links[at].format, Format::Plain(Vec::new()));
        let (Format::Asking(asking), Some(keys)) = (format, &self.keys) else { unreachable!("it was looked at") };
        match asking.handle_bytes(now, keys, wire, bytes) {
            Ok(Asked::Waits(asking)) => self.links[at].format = Format::Asking(asking),
            Ok(Asked::Answered(sealed)) => {
                self.links[at].format = Format::Sealed(sealed);
                self.tunnel.handle_dialed(now, carrier);
            }
            Err(NoValidAnswer) => self.fail_dial(now, at, "no valid answer", net),
        }
    }

    /// The client: there is a connection, but no valid answer on it.
    fn fail_dial(&mut self, now: Instant, at: usize, why: &str, net: &mut Network) {
        let link = self.links.remove(at);
        net.counts.note("handshake failed");
        net.trace.tell(now, format_args!("carrier {}: {why}", link.wire + 1));
        net.close(now, link.wire, self.side);
        self.tunnel.handle_dial_failed(now, link.carrier);
    }

    /// The connection is of no use any more: it is closed, whatever the peer thinks of it.
    fn break_off(&mut self, now: Instant, at: usize, why: CarrierEnd, net: &mut Network) {
        let link = self.links.remove(at);
        net.close(now, link.wire, self.side);
        self.tunnel.handle_ended(now, link.carrier, why);
    }

    pub(crate) fn handle_end(&mut self, now: Instant, wire: WireId, end: End, net: &mut Network) {
        let Some(at) = self.links.iter().position(|link| link.wire == wire) else { return };
        let link = &mut self.links[at];
        let carrier = link.carrier;
        if link.format.is_partial() {
            net.counts.note("half a packet");
        }
        if let Format::Asking(_) = link.format {
            return self.fail_dial(now, at, "closed without an answer", net);
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
        busy |= self.give_up_asking(now, net);
        busy |= self.tell(now, app, net);
        busy |= app.turn(now, &mut self.tunnel);
        if self.closes_when_done && app.is_done() {
            self.tunnel.close(now);
        }
        self.acks_wait = self.tunnel.acks_may_wait(now);
        busy |= self.acks_wait.is_none() && self.write(now, net);
        busy |= self.retire(now, net);
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
        for at in 0..self.links.len() {
            let link = &self.links[at];
            if !link.is_open() {
                continue;
            }
            if let Format::Sealed(_) = link.format {
                match self.write_sealed(now, at, net) {
                    Ok(sent) => busy |= sent,
                    Err(why) => {
                        self.break_off(now, at, why, net);
                        return true;
                    }
                }
                continue;
            }
            let (wire, wants) = (link.wire, link.format.wants());
            while net.room(wire, self.side) >= wants && self.make_packet(now, at) {
                net.send(now, wire, self.side, &self.packet);
                busy = true;
            }
        }
        busy
    }

    /// The next packet of a carrier. False: there is none.
    fn make_packet(&mut self, now: Instant, at: usize) -> bool {
        self.packet.clear();
        if !self.tunnel.poll_transmit(now, self.links[at].carrier, &mut self.packet) {
            assert!(self.packet.is_empty(), "a packet that was not made left bytes");
            return false;
        }
        assert!((1..=MAX_PACKET).contains(&self.packet.len()), "packet of {} bytes", self.packet.len());
        true
    }

    /// As many packets as there are, and room for, share a record.
    fn write_sealed(&mut self, now: Instant, at: usize, net: &mut Network) -> Result<bool, CarrierEnd> {
        let wire = self.links[at].wire;
        let mut busy = false;
        loop {
            let Format::Sealed(sealed) = &self.links[at].format else { return Ok(busy) };
            let room = net.room(wire, self.side).saturating_sub(sealed.overhead()).min(MAX_RECORD);
            let mut made = sealed.has_unsent();
            self.batch.clear(usize::MAX);
            while self.batch.len() + USUAL_PACKET <= room && self.make_packet(now, at) {
                made = true;
                net.note_packet(now, wire, self.side, &self.packet);
                if !net.misses_packet(self.side) {
                    self.batch.push(&self.packet);
                }
            }
            let Format::Sealed(sealed) = &mut self.links[at].format else { return Ok(busy) };
            if !made {
                return Ok(busy);
            }
            let bytes = sealed.seal(&self.batch)?;
            net.deliver(now, wire, self.side, bytes);
            busy = true;
        }
    }

    /// The client: a server has so long to answer, and then it is no server. True if one was given up.
    fn give_up_asking(&mut self, now: Instant, net: &mut Network) -> bool {
        let late = |link: &Link| matches!(&link.format, Format::Asking(asking) if now >= asking.deadline);
        let Some(at) = self.links.iter().position(late) else { return false };
        self.fail_dial(now, at, "no answer", net);
        true
    }

    /// Old and worn carriers, as in the driver.
    fn retire(&mut self, now: Instant, net: &mut Network) -> bool {
        let mut busy = false;
        for link in self.links.iter_mut().filter(|link| link.is_open()) {
            let Format::Sealed(sealed) = &mut link.format else { continue };
            let worn = sealed.is_worn();
            match sealed.lifetime.poll_due(now, worn) {
                None => continue,
                Some(Due::Another) => {
                    if self.tunnel.current() == Some(link.carrier) {
                        net.counts.note(if worn { "worn" } else { "old" });
                        self.tunnel.redial(now);
                    }
                }
                Some(Due::Close) => {
                    net.counts.note("too old");
                    link.closing = true;
                    link.close_by = Some(now + LINGER);
                    self.tunnel.handle_ended(now, link.carrier, CarrierEnd::UsedUp);
                }
            }
            busy = true;
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
                    self.add_link(carrier, wire, Format::Plain(Vec::new()));
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
            if let Format::Sealed(sealed) = &mut link.format
                && sealed.has_unsent()
            {
                net.write(now, link.wire, self.side, &sealed.take_unsent());
            }
            net.close_write(now, link.wire, self.side);
            link.closed = true;
        }
        self.links.retain(|link| {
            let late = link.close_by.is_some_and(|at| now >= at);
            if late {
                net.close(now, link.wire, self.side);
            }
            !(late || link.closed && link.read_ended)
        });
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let links = self.links.iter().filter_map(Link::wake_at);
        self.tunnel.poll_timeout().into_iter().chain(self.acks_wait).chain(links).min()
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
        for link in self.links.iter().filter(|link| link.is_open()) {
            if self.acks_wait.is_none() && net.room(link.wire, self.side) >= link.format.wants() {
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
