//! Somebody who knows the session's id and nothing else.

use std::time::Instant;

use turbotunnel::encapsulation::PacketBatch;

use crate::network::{Network, News, Side, WireId};
use crate::sim::SESSION_ID;

pub(crate) struct Intruder {
    pub(crate) wire: WireId,
    to_say: Vec<Vec<u8>>,
    received: Vec<u8>,
}

impl Intruder {
    pub(crate) fn new(wire: WireId, to_say: Vec<Vec<u8>>) -> Self {
        Self { wire, to_say, received: Vec::new() }
    }

    pub(crate) fn hear(&mut self, now: Instant, news: News, net: &mut Network) {
        match news {
            News::Connected => {
                net.write(now, self.wire, Side::Client, &SESSION_ID);
                for packet in self.to_say.drain(..) {
                    net.send(now, self.wire, Side::Client, &packet);
                }
            }
            News::Bytes(bytes) => self.received.extend_from_slice(&bytes),
            News::Ended(_) => net.close(now, self.wire, Side::Client),
            News::DialFailed | News::Accepted { .. } => {}
        }
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
