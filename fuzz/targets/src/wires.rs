//! Connections between two ends of a session: bytes that arrive when somebody says so, in pieces of any length, or never.

use turbotunnel::CarrierEnd;
use turbotunnel::encapsulation::{HEADER_LEN, MAX_PACKET, PacketBatch};
use turbotunnel::tunnel::CarrierId;

/// Bytes on their way in one direction, after which a connection takes no more.
const CAPACITY: usize = 64 << 10;

/// The end of what is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Over {
    Fin,
    Reset,
}

impl From<Over> for CarrierEnd {
    fn from(over: Over) -> Self {
        match over {
            Over::Fin => Self::Closed,
            Over::Reset => Self::Failed(std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// What arrived.
pub(crate) enum Arrival {
    /// The bytes of whole packets, and of what came before them.
    Bytes(Vec<u8>),
    Over(Over),
}

/// One direction.
#[derive(Default)]
pub(crate) struct Pipe {
    bytes: Vec<u8>,
    /// Behind the bytes.
    over: Option<Over>,
    /// The end was read, or nobody reads.
    closed: bool,
}

impl Pipe {
    pub(crate) fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.bytes.len())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.over.is_none() && !self.closed {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The writer says no more.
    pub(crate) fn finish(&mut self, over: Over) {
        self.over.get_or_insert(over);
    }

    /// Somebody in between lets only so much of it arrive, and then the end.
    pub(crate) fn cut(&mut self, bytes: usize, over: Over) {
        self.bytes.truncate(bytes);
        self.over = Some(over);
    }

    pub(crate) fn close(&mut self) {
        self.bytes.clear();
        self.closed = true;
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Option<Arrival> {
        if self.closed {
            return None;
        }
        if self.bytes.is_empty() {
            let over = self.over?;
            self.closed = true;
            return Some(Arrival::Over(over));
        }
        let rest = self.bytes.split_off(bytes.min(self.bytes.len()));
        let bytes = std::mem::replace(&mut self.bytes, rest);
        (!bytes.is_empty()).then_some(Arrival::Bytes(bytes))
    }
}

/// An end of a connection, as its driver sees it.
#[derive(Default)]
pub(crate) struct Plug {
    /// `None` at a server that does not know yet where it belongs.
    pub(crate) carrier: Option<CarrierId>,
    /// What came before that was known, or the beginning of a packet.
    pub(crate) partial: Vec<u8>,
    /// Half-closed.
    pub(crate) closed: bool,
    pub(crate) read_ended: bool,
    pub(crate) gone: bool,
}

impl Plug {
    /// Whole packets; what is left waits for its rest.
    pub(crate) fn packets(&mut self, bytes: &[u8]) -> PacketBatch {
        let mut batch = PacketBatch::new();
        batch.bytes_mut().extend_from_slice(&self.partial);
        batch.bytes_mut().extend_from_slice(bytes);
        batch.cut_incomplete(&mut self.partial).expect("packets of ours are never too long");
        batch
    }
}

/// A connection, or the attempt at one. Index 0 is the client, 1 the server.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) connected: bool,
    /// Nothing arrives any more, and nobody is told.
    pub(crate) stalled: bool,
    pub(crate) plugs: [Plug; 2],
    /// To each end.
    pub(crate) pipes: [Pipe; 2],
}

impl Wire {
    pub(crate) fn dialling(carrier: CarrierId) -> Self {
        let mut wire = Self::default();
        wire.plugs[0].carrier = Some(carrier);
        wire
    }

    /// There is room for any packet.
    pub(crate) fn takes_packets(&self, from: usize) -> bool {
        let plug = &self.plugs[from];
        let open = self.connected && !plug.closed && !plug.gone;
        open && self.pipes[1 - from].room() >= HEADER_LEN + MAX_PACKET
    }

    pub(crate) fn send(&mut self, from: usize, packet: &[u8]) {
        let mut batch = PacketBatch::new();
        batch.push(packet);
        self.pipes[1 - from].write(batch.as_bytes());
    }

    pub(crate) fn close_write(&mut self, from: usize) {
        if !std::mem::replace(&mut self.plugs[from].closed, true) {
            self.pipes[1 - from].finish(Over::Fin);
        }
        self.let_go(from);
    }

    /// An end that is over both ways is gone.
    pub(crate) fn let_go(&mut self, at: usize) {
        let plug = &mut self.plugs[at];
        plug.gone |= plug.closed && plug.read_ended;
    }

    pub(crate) fn drop_at(&mut self, at: usize) {
        self.plugs[at].gone = true;
        self.pipes[at].close();
        self.pipes[1 - at].finish(Over::Fin);
    }

    /// Neither end holds it.
    pub(crate) fn is_over(&self) -> bool {
        self.plugs.iter().all(|plug| plug.gone) || (!self.connected && self.plugs[0].gone)
    }
}
