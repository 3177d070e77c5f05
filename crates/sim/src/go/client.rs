//! The Go client: dials again whenever a carrier has ended, and gives up when that fails.

use std::time::Instant;

use turbotunnel::encapsulation::PacketBatch;

use super::Go;
use super::session::GoSession;
use crate::app::App;
use crate::network::{Network, News, Side, WireId};
use crate::node::Node;
use crate::ours::Ours;
use crate::sim::SESSION_ID;

pub(crate) struct GoClient {
    session: GoSession,
    app: App,
    dialing: Option<WireId>,
    wire: Option<WireId>,
    partial: Vec<u8>,
}

impl GoClient {
    pub(crate) fn new(now: Instant, go: Go, conv: u32, app: App) -> Self {
        let session = GoSession::new(now, Side::Client, go, conv);
        Self { session, app, dialing: None, wire: None, partial: Vec::new() }
    }
}

impl Node for GoClient {
    fn hear(&mut self, now: Instant, wire: WireId, news: News, net: &mut Network) {
        match news {
            News::Connected => {
                self.dialing = None;
                self.wire = Some(wire);
                self.partial.clear();
                net.write(now, wire, Side::Client, &SESSION_ID);
            }
            News::DialFailed => {
                self.dialing = None;
                self.session.dead = true;
            }
            News::Bytes(bytes) => {
                let mut batch = PacketBatch::new();
                batch.bytes_mut().extend_from_slice(&self.partial);
                batch.bytes_mut().extend_from_slice(&bytes);
                assert!(batch.cut_incomplete(&mut self.partial).is_ok(), "the simulator's packets are never too long");
                batch.packets().for_each(|packet| self.session.handle_packet(now, packet));
            }
            News::Ended(_) => {
                net.close(now, wire, Side::Client);
                self.wire = None;
            }
            News::Accepted { .. } => unreachable!("nobody dials a client"),
        }
    }

    fn turn(&mut self, now: Instant, net: &mut Network) -> bool {
        let mut busy = false;
        if self.wire.is_none() && self.dialing.is_none() && !self.session.dead {
            self.dialing = Some(net.dial(now));
            busy = true;
        }
        let wires: Vec<_> = self.wire.into_iter().collect();
        busy | self.session.turn(now, &mut self.app, &wires, net)
    }

    fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.session.wake_at(now).into_iter().chain(self.app.wake_at(now)).min()
    }

    fn check(&mut self, _now: Instant, _net: &mut Network) {}

    fn restart(&mut self, _now: Instant, _net: &mut Network) {
        unreachable!("only servers are restarted");
    }

    fn app(&self) -> &App {
        &self.app
    }

    fn ours(&self) -> Option<&Ours> {
        None
    }

    fn ours_mut(&mut self) -> Option<&mut Ours> {
        None
    }
}
