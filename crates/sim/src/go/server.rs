//! The Go server: one incoming queue for everybody, and a session for every unknown id.

use std::collections::VecDeque;
use std::time::Instant;

use turbotunnel::control::MIN_KCP_PACKET;
use turbotunnel::encapsulation::PacketBatch;

use super::Go;
use super::session::{GoSession, PACKET_TIME, QUEUE};
use crate::app::App;
use crate::network::{Network, News, Side, WireId};
use crate::node::Node;
use crate::ours::Ours;
use crate::sim::SESSION_ID;

struct Connection {
    wire: WireId,
    /// Whether the 8 bytes of the id have come.
    introduced: bool,
    partial: Vec<u8>,
}

pub(crate) struct GoServer {
    go: Go,
    new_app: Box<dyn Fn() -> App>,
    app: App,
    connections: Vec<Connection>,
    queue: VecDeque<Vec<u8>>,
    next_read: Option<Instant>,
    session: Option<GoSession>,
    /// Carriers of another server, which also makes a session of everything.
    astray: Vec<WireId>,
}

impl GoServer {
    pub(crate) fn new(go: Go, new_app: Box<dyn Fn() -> App>) -> Self {
        let app = new_app();
        let (connections, queue, astray) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { go, new_app, app, connections, queue, next_read: None, session: None, astray }
    }

    fn handle_bytes(&mut self, wire: WireId, bytes: &[u8]) {
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.wire == wire) else { return };
        connection.partial.extend_from_slice(bytes);
        if !connection.introduced {
            let Some((id, rest)) = connection.partial.split_first_chunk() else { return };
            assert_eq!(*id, SESSION_ID, "the id is the first thing on a connection");
            connection.partial = rest.to_vec();
            connection.introduced = true;
        }
        let mut batch = PacketBatch::new();
        batch.bytes_mut().extend_from_slice(&connection.partial);
        assert!(batch.cut_incomplete(&mut connection.partial).is_ok(), "the simulator's packets are never too long");
        for packet in batch.packets() {
            if self.queue.len() < QUEUE {
                self.queue.push_back(packet.to_vec());
            }
        }
    }

    /// Takes packets from the queue, one after the other.
    fn read(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while !self.queue.is_empty() && self.next_read.is_none_or(|at| now >= at) {
            let packet = self.queue.pop_front().expect("it is not empty");
            self.next_read = Some(now + PACKET_TIME);
            busy = true;
            if packet.len() < MIN_KCP_PACKET {
                continue;
            }
            if self.session.is_none()
                && let Some(conv) = kcp::conv_of(&packet)
            {
                self.session = Some(GoSession::new(now, Side::Server, self.go, conv));
            }
            self.session.iter_mut().for_each(|session| session.handle_packet(now, &packet));
        }
        busy
    }
}

impl Node for GoServer {
    fn hear(&mut self, now: Instant, wire: WireId, news: News, net: &mut Network) {
        match news {
            News::Accepted { astray: true } => self.astray.push(wire),
            News::Accepted { astray: false } => {
                self.connections.push(Connection { wire, introduced: false, partial: Vec::new() });
            }
            News::Bytes(bytes) => self.handle_bytes(wire, &bytes),
            News::Ended(_) => {
                net.close(now, wire, Side::Server);
                self.connections.retain(|connection| connection.wire != wire);
                self.astray.retain(|astray| *astray != wire);
            }
            other => unreachable!("a server does not hear {other:?}"),
        }
    }

    fn turn(&mut self, now: Instant, net: &mut Network) -> bool {
        let busy = self.read(now);
        let introduced = self.connections.iter().filter(|connection| connection.introduced);
        let wires: Vec<_> = introduced.map(|connection| connection.wire).collect();
        let Some(session) = &mut self.session else { return busy };
        let busy = busy | session.turn(now, &mut self.app, &wires, net);
        if session.dead {
            self.session = None;
        }
        busy
    }

    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let read = self.next_read.filter(|at| *at > now && !self.queue.is_empty());
        let session = self.session.as_ref().map(|session| (session.wake_at(now), self.app.wake_at(now)));
        let (timer, app) = session.unwrap_or((None, None));
        read.into_iter().chain(timer).chain(app).min()
    }

    fn check(&mut self, _now: Instant, _net: &mut Network) {}

    fn restart(&mut self, now: Instant, net: &mut Network) {
        for connection in self.connections.drain(..) {
            net.close(now, connection.wire, Side::Server);
        }
        self.queue.clear();
        self.session = None;
        self.app = (self.new_app)();
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
