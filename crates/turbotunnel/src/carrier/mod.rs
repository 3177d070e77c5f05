//! The only door to the network: one connection to the peer, as packets. And [`Queue`], for where there are no connections.
//!
//! A carrier takes packets as long as it has room and tells when it has none; nothing is queued in front of it. Which carrier is
//! used, and when one is dialled, is decided elsewhere ([`crate::tunnel`]).

mod queue;
#[cfg(feature = "secure")]
pub(crate) mod secure;
mod stream;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use queue::Queue;
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

    /// Reads and forgets what has arrived, whatever it is, and returns the bytes read. `Ok(0)`: the peer will send no more.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// Where the next packets are written, in place. Taken is not delivered.
    fn buffer(&mut self) -> &mut PacketBatch;

    /// Bytes that are taken and not written, or have come and wait for the rest of their packet.
    fn held(&self) -> usize;

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

    /// How old it may become; the client puts another in its place then. `None`: it is as good as new for ever.
    fn lifetime(&self) -> Option<Duration> {
        None
    }

    /// It has carried so much that another should take its place, however young it is.
    fn is_worn(&self) -> bool {
        false
    }
}

/// Bytes taken at once by one read.
const READ_SIZE: usize = 128 << 10;
/// Beyond so many unwritten bytes a carrier is full: what waits here can be overtaken by nothing.
const WRITE_LIMIT: usize = 64 << 10;
/// What an idle carrier may keep of a buffer. One that bulk has filled is kept for more of it and given back at the first small turn.
const KEEP: usize = 4096;

/// Writes what comes behind the first `written` of `bytes`, and counts it.
fn poll_write_rest(
    mut io: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    bytes: &[u8],
    written: &mut usize,
) -> Poll<io::Result<()>> {
    while *written < bytes.len() {
        let n = ready!(io.as_mut().poll_write(cx, &bytes[*written..]))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *written += n;
    }
    Poll::Ready(Ok(()))
}

/// Bytes forgotten at once.
const DISCARD_SIZE: usize = 4 << 10;

/// Reads and forgets.
fn poll_discard(io: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut nowhere = [MaybeUninit::uninit(); DISCARD_SIZE];
    let mut read = ReadBuf::uninit(&mut nowhere);
    ready!(io.poll_read(cx, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

/// Reads and forgets whatever comes, to the end.
pub(crate) async fn swallow(carrier: &mut dyn Carrier) -> io::Result<()> {
    while poll_fn(|cx| carrier.poll_discard(cx)).await? > 0 {}
    Ok(())
}
