//! A server of ours: finds out which connection belongs to the session, as the tokio listener does.
//!
//! ```text
//! connection -> 8 bytes of id -> session lives  -> its carrier from now on
//!                             -> was abandoned  -> it goes on with the first packet
//!                             -> it has ended   -> HELLOs of somebody who has heard of it get UNKNOWN
//!                             -> nobody knows   -> the same, and waits for the packet that opens a session
//! after 10 s without a session it is closed
//! ```
//!
//! With keys there is a handshake in the place of the id, and what is told from then on is sealed.

use std::rc::Rc;
use std::time::{Duration, Instant};

use turbotunnel::Config;
use turbotunnel::control::Control;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::secure::PublicKey;
use turbotunnel::tunnel::{Tunnel, opening_conv};

use crate::app::App;
use crate::network::{Network, News, Side, WireId};
use crate::node::Node;
use crate::ours::{Format, Ours};
use crate::random::Random;
use crate::sealed::{Gate, Keys};
use crate::sim::SESSION_ID;

const STRANGER_LIMIT: Duration = Duration::from_secs(10);

struct Stranger {
    wire: WireId,
    astray: bool,
    /// With keys only.
    gate: Option<Gate>,
    /// The id and packets, or packets only behind a gate.
    received: Vec<u8>,
    /// Bytes of `received` whose packets were looked at.
    seen: usize,
    deadline: Instant,
}

impl Stranger {
    /// Packets, with their lengths. `None`: it is not known yet for which session.
    fn packets(&self) -> Option<&[u8]> {
        match &self.gate {
            None => {
                let (id, packets) = self.received.split_first_chunk()?;
                assert_eq!(*id, SESSION_ID, "the id is the first thing on a connection");
                Some(packets)
            }
            Some(Gate::Passed(..)) => Some(&self.received),
            Some(_) => None,
        }
    }

    /// Whose it is, with keys.
    fn owner(&self) -> Option<PublicKey> {
        match &self.gate {
            Some(Gate::Passed(client, _)) => Some(*client),
            _ => None,
        }
    }

    /// Says something before there is a session to say it.
    fn tell(&mut self, now: Instant, packet: &[u8], net: &mut Network) {
        match &mut self.gate {
            Some(Gate::Passed(_, sealed)) => {
                let mut batch = PacketBatch::new();
                batch.push(packet);
                // One that is used up is closed when its next packet comes.
                let Ok(bytes) = sealed.seal(&batch) else { return };
                net.note_packet(now, self.wire, Side::Server, packet);
                net.deliver(now, self.wire, Side::Server, bytes);
            }
            _ => net.send(now, self.wire, Side::Server, packet),
        }
    }
}

pub(crate) struct Listener {
    start: Instant,
    config: Config,
    new_app: Box<dyn Fn() -> App>,
    app: App,
    random: Random,
    strangers: Vec<Stranger>,
    session: Option<Ours>,
    keys: Option<Rc<Keys>>,
    /// Whose the session is, with keys.
    owner: Option<PublicKey>,
}

impl Listener {
    pub(crate) fn new(
        start: Instant,
        config: Config,
        random: Random,
        new_app: Box<dyn Fn() -> App>,
        keys: Option<Rc<Keys>>,
    ) -> Self {
        let app = new_app();
        Self { start, config, new_app, app, random, strangers: Vec::new(), session: None, keys, owner: None }
    }

    fn handle_stranger_bytes(&mut self, now: Instant, at: usize, bytes: &[u8], net: &mut Network) {
        let Stranger { wire, gate, received, .. } = &mut self.strangers[at];
        let wire = *wire;
        let (Some(gate), Some(keys)) = (gate, &self.keys) else {
            received.extend_from_slice(bytes);
            return self.handle_stranger(now, at, net);
        };
        let mut answer = Vec::new();
        let outcome = gate.handle_bytes(now, keys, wire, bytes, &mut answer, received);
        if !answer.is_empty() {
            net.write(now, wire, Side::Server, &answer);
        }
        if let Err(why) = outcome {
            net.counts.note(why.name());
        }
        // Packets in front of a record that does not open are good.
        self.handle_stranger(now, at, net);
        if outcome.is_err() {
            if let Some(at) = self.strangers.iter().position(|stranger| stranger.wire == wire) {
                self.strangers.remove(at);
                net.close(now, wire, Side::Server);
            } else {
                // It found its session all the same, which is told the next time that it reads.
                self.session.iter_mut().for_each(|session| session.handle_bytes(now, wire, &[], net));
            }
        }
    }

    fn handle_stranger(&mut self, now: Instant, at: usize, net: &mut Network) {
        let stranger = &mut self.strangers[at];
        let Some(received) = stranger.packets() else { return };
        let alive = self.session.as_ref().is_some_and(|session| session.ended().is_none());
        // With keys it is the session of one client, whatever id others say.
        let its_own = stranger.owner() == self.owner;
        if alive && its_own && !stranger.astray {
            return self.hand_over(now, at, net);
        }
        let mut batch = PacketBatch::new();
        batch.bytes_mut().extend_from_slice(received);
        assert!(batch.cut_incomplete(&mut Vec::new()).is_ok(), "the simulator's packets are never too long");
        let mut opening = None;
        let mut seen = 0;
        let embryo = self.session.as_ref().and_then(|session| session.tunnel.embryo()).filter(|_| !stranger.astray);
        for packet in batch.packets() {
            seen += 1;
            if seen <= stranger.seen {
                continue;
            }
            stranger.seen = seen;
            if let Some(embryo) = embryo {
                let conv = Control::decode(packet).map(|control| control.conv()).or_else(|| kcp::conv_of(packet));
                opening = opening.or(conv.filter(|conv| *conv == embryo.conv()));
                continue;
            }
            if let Some(Control::Hello(hello)) = Control::decode(packet)
                && hello.heard
            {
                let mut unknown = Vec::new();
                Control::Unknown { conv: hello.conv }.encode(&mut unknown);
                stranger.tell(now, &unknown, net);
            }
            opening = opening.or_else(|| opening_conv(packet, self.config.counters.sn));
        }
        let ended = self.session.is_some() && embryo.is_none() || stranger.astray;
        if let Some(conv) = opening.filter(|_| !ended) {
            let token = self.random.number().to_le_bytes();
            if embryo.is_some() {
                // It was told of the end, and had no streams.
                self.app = (self.new_app)();
            }
            let tunnel = match embryo {
                Some(embryo) => Tunnel::reborn(now, self.config.clone(), embryo),
                None => Tunnel::server(now, self.config.clone(), conv, token),
            };
            net.trace.tell(now, format_args!("Server: a session begins"));
            self.owner = stranger.owner();
            let (config, keys) = (self.config.clone(), self.keys.clone());
            self.session = Some(Ours::new(now, self.start, Side::Server, config, tunnel, keys));
            self.hand_over(now, at, net);
        }
    }

    fn hand_over(&mut self, now: Instant, at: usize, net: &mut Network) {
        let session = self.session.as_mut().expect("there is a session to hand it to");
        let Stranger { wire, gate, received, .. } = self.strangers.remove(at);
        match gate {
            None => {
                session.attach(now, wire, Format::Plain(Vec::new()));
                session.handle_bytes(now, wire, &received[SESSION_ID.len()..], net);
            }
            Some(Gate::Passed(_, sealed)) => {
                let carrier = session.attach(now, wire, Format::Sealed(sealed));
                session.handle_early(now, carrier, received);
            }
            Some(_) => unreachable!("nobody knows yet whose it is"),
        }
    }
}

impl Node for Listener {
    fn hear(&mut self, now: Instant, wire: WireId, news: News, net: &mut Network) {
        if let News::Accepted { astray } = news {
            let deadline = now + STRANGER_LIMIT;
            let gate = self.keys.is_some().then(Gate::new);
            self.strangers.push(Stranger { wire, astray, gate, received: Vec::new(), seen: 0, deadline });
            return;
        }
        let stranger = self.strangers.iter().position(|stranger| stranger.wire == wire);
        match (news, stranger) {
            (News::Bytes(bytes), Some(at)) => self.handle_stranger_bytes(now, at, &bytes, net),
            (News::Ended(_), Some(at)) => {
                self.strangers.remove(at);
                net.close(now, wire, Side::Server);
            }
            (News::Bytes(bytes), None) => {
                self.session.iter_mut().for_each(|session| session.handle_bytes(now, wire, &bytes, net));
            }
            (News::Ended(end), None) => {
                self.session.iter_mut().for_each(|session| session.handle_end(now, wire, end, net));
            }
            (other, _) => unreachable!("a server does not hear {other:?}"),
        }
    }

    fn turn(&mut self, now: Instant, net: &mut Network) -> bool {
        let before = self.strangers.len();
        self.strangers.retain(|stranger| {
            let late = now >= stranger.deadline;
            if late {
                net.close(now, stranger.wire, Side::Server);
            }
            !late
        });
        let busy = self.strangers.len() < before;
        busy | self.session.as_mut().is_some_and(|session| session.turn(now, &mut self.app, net))
    }

    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let strangers = self.strangers.iter().map(|stranger| stranger.deadline);
        let session = self.session.as_ref().map(|session| (session.wake_at(), self.app.wake_at(now)));
        let (timer, app) = session.unwrap_or((None, None));
        strangers.chain(timer).chain(app).min()
    }

    fn check(&mut self, now: Instant, net: &mut Network) {
        self.session.iter_mut().for_each(|session| session.check(now, net));
    }

    fn restart(&mut self, now: Instant, net: &mut Network) {
        for stranger in self.strangers.drain(..) {
            net.close(now, stranger.wire, Side::Server);
        }
        if let Some(mut session) = self.session.take() {
            session.vanish(now, net);
        }
        self.app = (self.new_app)();
    }

    fn app(&self) -> &App {
        &self.app
    }

    fn ours(&self) -> Option<&Ours> {
        self.session.as_ref()
    }

    fn links(&self) -> usize {
        self.strangers.len() + self.session.as_ref().map_or(0, Ours::links)
    }

    fn ours_mut(&mut self) -> Option<&mut Ours> {
        self.session.as_mut()
    }
}
