//! Somebody who knows the session's id and nothing else, or has heard what others have said.

use std::time::Instant;

use turbotunnel::encapsulation::PacketBatch;

use crate::network::{Network, News, Side, WireId};
use crate::sim::SESSION_ID;

pub(crate) struct Intruder {
    pub(crate) wire: WireId,
    /// Written first, as it is.
    opening: Vec<u8>,
    to_say: Vec<Vec<u8>>,
    received: Vec<u8>,
}

impl Intruder {
    pub(crate) fn new(wire: WireId, to_say: Vec<Vec<u8>>) -> Self {
        Self { wire, opening: SESSION_ID.to_vec(), to_say, received: Vec::new() }
    }

    /// He says again what he has heard.
    pub(crate) fn replaying(wire: WireId, heard: Vec<u8>) -> Self {
        Self { wire, opening: heard, to_say: Vec::new(), received: Vec::new() }
    }

    pub(crate) fn hear(&mut self, now: Instant, news: News, net: &mut Network) {
        match news {
            News::Connected => {
                net.write(now, self.wire, Side::Client, &self.opening);
                for packet in self.to_say.drain(..) {
                    net.send(now, self.wire, Side::Client, &packet);
                }
            }
            News::Bytes(bytes) => self.received.extend_from_slice(&bytes),
            News::Ended(_) => net.close(now, self.wire, Side::Client),
            News::DialFailed | News::Accepted { .. } => {}
        }
    }

    /// Everything that was sent to him.
    pub(crate) fn heard(&self) -> &[u8] {
        &self.received
    }

    /// Packets that were sent to him.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        let mut batch = PacketBatch::new();
        batch.bytes_mut().extend_from_slice(&self.received);
        // What is incomplete or broken at the end is not a packet.
        let _ = batch.cut_incomplete(&mut Vec::new());
        batch.packets().map(<[u8]>::to_vec).collect()
    }
}
