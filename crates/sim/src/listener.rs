//! A server of ours: finds out which connection belongs to the session, as the tokio listener does.
//!
//! ```text
//! connection -> 8 bytes of id -> session lives  -> its carrier from now on
//!                             -> was abandoned  -> it goes on with the first packet
//!                             -> it has ended   -> HELLOs of somebody who has heard of it get UNKNOWN
//!                             -> nobody knows   -> the same, and waits for the packet that opens a session
//! after 10 s without a session it is closed
//! ```

use std::time::{Duration, Instant};

use turbotunnel::Config;
use turbotunnel::control::Control;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::tunnel::{Tunnel, opening_conv};

use crate::app::App;
use crate::network::{Network, News, Side, WireId};
use crate::node::Node;
use crate::ours::Ours;
use crate::random::Random;
use crate::sim::SESSION_ID;

const STRANGER_LIMIT: Duration = Duration::from_secs(10);

struct Stranger {
    wire: WireId,
    astray: bool,
    received: Vec<u8>,
    /// Bytes of `received` whose packets were looked at.
    seen: usize,
    deadline: Instant,
}

pub(crate) struct Listener {
    start: Instant,
    config: Config,
    new_app: Box<dyn Fn() -> App>,
    app: App,
    random: Random,
    strangers: Vec<Stranger>,
    session: Option<Ours>,
}

impl Listener {
    pub(crate) fn new(start: Instant, config: Config, random: Random, new_app: Box<dyn Fn() -> App>) -> Self {
        let app = new_app();
        Self { start, config, new_app, app, random, strangers: Vec::new(), session: None }
    }

    fn handle_stranger(&mut self, now: Instant, at: usize, net: &mut Network) {
        let stranger = &mut self.strangers[at];
        let Some((id, received)) = stranger.received.split_first_chunk() else { return };
        assert_eq!(*id, SESSION_ID, "the id is the first thing on a connection");
        let known = !stranger.astray && self.session.as_ref().is_some_and(|session| session.ended().is_none());
        if known {
            let (wire, early) = (stranger.wire, received.to_vec());
            self.strangers.remove(at);
            self.hand_over(now, wire, &early);
            return;
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
                net.send(now, stranger.wire, Side::Server, &unknown);
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
            self.session = Some(Ours::new(now, self.start, Side::Server, self.config.clone(), tunnel));
            let (wire, early) = (stranger.wire, received.to_vec());
            self.strangers.remove(at);
            self.hand_over(now, wire, &early);
        }
    }

    fn hand_over(&mut self, now: Instant, wire: WireId, early: &[u8]) {
        let session = self.session.as_mut().expect("there is a session to hand it to");
        session.attach(now, wire);
        session.handle_bytes(now, wire, early);
    }
}

impl Node for Listener {
    fn hear(&mut self, now: Instant, wire: WireId, news: News, net: &mut Network) {
        if let News::Accepted { astray } = news {
            let deadline = now + STRANGER_LIMIT;
            self.strangers.push(Stranger { wire, astray, received: Vec::new(), seen: 0, deadline });
            return;
        }
        let stranger = self.strangers.iter().position(|stranger| stranger.wire == wire);
        match (news, stranger) {
            (News::Bytes(bytes), Some(at)) => {
                self.strangers[at].received.extend_from_slice(&bytes);
                self.handle_stranger(now, at, net);
            }
            (News::Ended(_), Some(at)) => {
                self.strangers.remove(at);
                net.close(now, wire, Side::Server);
            }
            (News::Bytes(bytes), None) => {
                self.session.iter_mut().for_each(|session| session.handle_bytes(now, wire, &bytes));
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
