//! The only door to the network: one connection to the peer, as packets.
//!
//! A carrier takes packets as long as it has room and tells when it has none; nothing is queued in front of it. Which carrier is
//! used, and when one is dialled, is decided elsewhere ([`crate::tunnel`]).

mod stream;
pub(crate) mod tcp;

use std::io;
use std::task::{Context, Poll};

pub(crate) use stream::StreamCarrier;

use crate::encapsulation::PacketBatch;

/// One connection to the peer. It ends; the session does not.
///
/// Packets on it keep their order and are lost only with it.
pub(crate) trait Carrier: Send {
    /// Appends what has arrived to `out`, whole packets only, and returns the bytes read. `Ok(0)`: the peer will send no more.
    ///
    /// # Errors
    ///
    /// The connection is broken, or what came is not in the expected format ([`io::ErrorKind::InvalidData`]).
    fn poll_recv(&mut self, cx: &mut Context<'_>, out: &mut PacketBatch) -> Poll<io::Result<usize>>;

    /// Ready: room for packets now. Pending: full, ask again when woken.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Where the next packets are written, in place. Taken is not delivered.
    fn buffer(&mut self) -> &mut PacketBatch;

    /// Pushes what was taken towards the peer.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// No more from us, once everything taken is written; reading goes on.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}
