//! In-memory connections that die, and bytes that are known without being kept.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use turbotunnel::{Builder, Config, Listener, Session};

/// A connection that is reset after so many bytes, both directions together.
#[allow(unreachable_pub)]
pub struct Mortal {
    io: DuplexStream,
    left: u64,
}

impl Mortal {
    /// How many of `wanted` bytes may still pass.
    fn allowed(&self, wanted: usize) -> io::Result<usize> {
        match self.left {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            left => Ok(wanted.min(usize::try_from(left).unwrap_or(usize::MAX))),
        }
    }
}

impl AsyncRead for Mortal {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let allowed = self.allowed(buf.remaining())?;
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(allowed));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        self.left -= read as u64;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let allowed = self.allowed(bytes.len())?;
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, &bytes[..allowed]))?;
        self.left -= written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A session to `listener` over in-memory connections, the n-th of which dies after `life(n)` bytes. Also counts them.
pub async fn connect(
    builder: Builder,
    listener: &Arc<Listener>,
    life: impl Fn(u32) -> u64 + Send + 'static,
) -> (Session, Arc<AtomicU32>) {
    let dials = Arc::new(AtomicU32::new(0));
    let (counter, listener) = (dials.clone(), listener.clone());
    let session = builder
        .connect(move |attempt| {
            counter.fetch_add(1, Ordering::Relaxed);
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            listener.attach(theirs, None);
            let left = life(attempt.number);
            async move { Ok(Mortal { io: ours, left }) }
        })
        .await
        .expect("the dialer always succeeds");
    (session, dials)
}

/// A listener that echoes every stream.
pub fn echo_server(config: Config) -> Arc<Listener> {
    let listener = Arc::new(Listener::builder().config(config).detached());
    let accepting = Arc::downgrade(&listener);
    tokio::spawn(async move {
        while let Some(listener) = accepting.upgrade() {
            let Ok(Ok((stream, _))) =
                tokio::time::timeout(std::time::Duration::from_secs(3600), listener.accept()).await
            else {
                return;
            };
            tokio::spawn(echo(stream));
        }
    });
    listener
}

/// Copies what comes back, then finishes.
pub async fn echo(stream: turbotunnel::Stream) -> io::Result<u64> {
    let (mut from, mut to) = tokio::io::split(stream);
    let copied = tokio::io::copy(&mut from, &mut to).await?;
    tokio::io::AsyncWriteExt::shutdown(&mut to).await?;
    Ok(copied)
}

/// Byte `offset` of the test data.
pub fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// `len` bytes of the test data.
pub fn data(len: u64) -> Vec<u8> {
    (0..len).map(pattern).collect()
}
