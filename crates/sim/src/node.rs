//! What the simulator asks of either end, whoever that is.

use std::time::Instant;

use turbotunnel::Tunnel;

use crate::app::App;
use crate::network::{Network, News, WireId};
use crate::ours::{Ours, Told};

pub(crate) trait Node {
    /// Something happened to a connection.
    fn hear(&mut self, now: Instant, wire: WireId, news: News, net: &mut Network);
    /// Does what is due. True if that was something: there may be more.
    fn turn(&mut self, now: Instant, net: &mut Network) -> bool;
    /// When it wants its next turn if nothing is heard.
    fn wake_at(&self, now: Instant) -> Option<Instant>;
    /// Nothing is left to be done now: do all promises hold?
    fn check(&mut self, now: Instant, net: &mut Network);
    /// Forgets everything, as a process that is killed and started again.
    fn restart(&mut self, now: Instant, net: &mut Network);
    fn app(&self) -> &App;
    /// The engines, if it is one of ours and has a session.
    fn ours(&self) -> Option<&Ours>;
    fn ours_mut(&mut self) -> Option<&mut Ours>;
    /// Connections that it holds or tries to make, if it is one of ours.
    fn links(&self) -> usize {
        self.ours().map_or(0, Ours::links)
    }

    fn tunnel(&self) -> Option<&Tunnel> {
        self.ours().map(|ours| &ours.tunnel)
    }

    fn told(&self) -> &[Told] {
        self.ours().map_or(&[], Ours::told)
    }
}

/// A client of ours.
pub(crate) struct Client {
    ours: Ours,
    app: App,
}

impl Client {
    pub(crate) fn new(ours: Ours, app: App) -> Self {
        Self { ours, app }
    }
}

impl Node for Client {
    fn hear(&mut self, now: Instant, wire: WireId, news: News, net: &mut Network) {
        match news {
            News::Connected => self.ours.dialed(now, wire, net),
            News::DialFailed => self.ours.dial_failed(now, wire),
            News::Bytes(bytes) => self.ours.handle_bytes(now, wire, &bytes, net),
            News::Ended(end) => self.ours.handle_end(now, wire, end, net),
            News::Accepted { .. } => unreachable!("nobody dials a client"),
        }
    }

    fn turn(&mut self, now: Instant, net: &mut Network) -> bool {
        self.ours.turn(now, &mut self.app, net)
    }

    fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.ours.wake_at().into_iter().chain(self.app.wake_at(now)).min()
    }

    fn check(&mut self, now: Instant, net: &mut Network) {
        self.ours.check(now, net);
    }

    fn restart(&mut self, _now: Instant, _net: &mut Network) {
        unreachable!("only servers are restarted");
    }

    fn app(&self) -> &App {
        &self.app
    }

    fn ours(&self) -> Option<&Ours> {
        Some(&self.ours)
    }

    fn ours_mut(&mut self) -> Option<&mut Ours> {
        Some(&mut self.ours)
    }
}
