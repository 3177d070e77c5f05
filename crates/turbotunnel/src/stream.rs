//! A handle to one stream.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use smux::StreamId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::SessionError;
use crate::session::Session;
use crate::shared::{StreamWaiters, now};
use crate::tunnel::StreamFailure;

/// A reliable byte stream of a [`Session`]. It goes on whatever happens to the connections below.
///
/// * `read` waits for data; 0 bytes mean that the peer has finished. `write` takes what fits into the stream's buffer and waits when it is full, so
///   a slow peer slows the writer down. Both are cancel-safe: a dropped call has neither lost nor repeated a byte.
/// * `shutdown` finishes our direction and completes when the peer has **acknowledged** everything, which TCP never tells. The other
///   direction stays open (half-close). Towards a Go program the end is held back until the stream has been quiet for a
///   second, because old ones throw away what they had still to say.
/// * A stream that the server does not take, because it has as many as it bears, fails with [`io::ErrorKind::ConnectionRefused`]. A Go server that does not
///   take it ends it.
/// * `flush` returns at once: nothing is held back.
/// * A peer that gives the stream up ([`Stream::reset`]) makes calls on it fail with [`io::ErrorKind::ConnectionReset`], once what came has been read.
/// * Dropping the handle lets go of the stream in good order: what was written is still delivered, what the peer sends is thrown away. For a task that may be
///   dropped in the middle of what it has to say there is [`Stream::set_reset_on_drop`].
///
/// For concurrent reading and writing use [`tokio::io::split`].
pub struct Stream {
    session: Session,
    id: StreamId,
    /// `shutdown` was called.
    finishing: bool,
    reset_on_drop: bool,
}

impl Stream {
    pub(crate) fn new(session: Session, id: StreamId) -> Self {
        session.shared().lock().streams.insert(id, StreamWaiters::default());
        Self { session, id, finishing: false, reset_on_drop: false }
    }

    /// Connects to a server at `host:port` over TCP with a session of its own, and opens a stream: what `TcpStream::connect` does, but the stream
    /// survives the connection.
    ///
    /// This is the worked example's **plain** format: readable by everybody on the way, and open to whoever reads the session id there.
    ///
    /// The session ends when the stream and the handles to it ([`Stream::session`]) are dropped; what was written is still delivered then, as
    /// long as the runtime lives. Use `shutdown` or [`Session::close`] to wait for that.
    ///
    /// # Errors
    ///
    /// [`SessionError::NeverConnected`] when no dial succeeded within the time to live. Dials are repeated until then.
    pub async fn connect(addr: impl ToString) -> Result<Self, SessionError> {
        Session::builder().connect_tcp(addr).await?.open().await
    }

    /// Number of the stream on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id.value()
    }

    /// The session that the stream belongs to.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Waits until the peer has acknowledged everything up to our end, which [`shutdown`](tokio::io::AsyncWriteExt::shutdown) sends; before that has
    /// been called it waits for the end of the session. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The session ended before, or the peer let go of the stream before everything was sent ([`io::ErrorKind::BrokenPipe`]). What it got and its
    /// application did not read is not known here.
    pub async fn finished(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_delivered(cx)).await
    }

    /// Gives the stream up: what was written and is not sent is dropped, and a peer of ours is told that this is no orderly end, as TCP does with a reset. When it has read what came,
    /// its calls on the stream fail with [`io::ErrorKind::ConnectionReset`]. For who cannot say everything that he wanted to say: dropping the stream would look like the end. A
    /// direction that was finished before stays so. A Go peer takes it for an end.
    pub fn reset(self) {
        self.session.shared().with(|state| state.tunnel.reset_stream(now(), self.id));
    }

    /// Dropping the handle from now on [resets](Stream::reset) the stream, until this is taken back: so that a task that ends in the middle, with an
    /// error, because it is aborted or because it panics, does not look as if it had said everything. What `SO_LINGER` with a time of 0 is for a TCP
    /// connection. [`Session::close`] finishes streams all the same.
    pub fn set_reset_on_drop(&mut self, reset: bool) {
        self.reset_on_drop = reset;
    }

    /// Bytes that were written and have not begun their way, and one for an end that has not: what [`Stream::reset`] would drop. What has begun it arrives
    /// if the session lives; 0 once that has ended.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.session.shared().lock().tunnel.unsent(self.id)
    }

    /// How many bytes a write takes at once, never 0: who reads no more than that somewhere else holds nothing himself while the peer does not read.
    ///
    /// Ready with `enough` or more, or with less once no more than half of what may wait to be sent does. Until then one task waits, in the place of a
    /// write's: of two tasks the later one is woken. Streams of the same session share what may wait (`Config::max_unsent`): another may take of it before
    /// this one writes.
    ///
    /// # Errors
    ///
    /// As a write: the session is over, or the stream was finished by us, or closed, refused or reset by the peer.
    pub fn poll_room(&self, cx: &mut Context<'_>, enough: usize) -> Poll<io::Result<usize>> {
        let mut state = self.session.shared().lock();
        match state.tunnel.room(self.id, enough) {
            Ok(Some(room)) => Poll::Ready(Ok(room)),
            Ok(None) => {
                let waiters = state.streams.entry(self.id).or_default();
                waiters.writing().writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Err(failure) => Poll::Ready(Err(io_error(failure))),
        }
    }

    fn poll_delivered(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.session.shared().lock();
        if let Some(writing) = state.streams.get_mut(&self.id).map(StreamWaiters::writing) {
            // First: what a refused stream sent was acknowledged, and thrown away.
            if let Some(error) = writing.lost {
                return Poll::Ready(Err(io_error(error.into())));
            }
            if writing.delivered {
                return Poll::Ready(Ok(()));
            }
            if !writing.finisher.iter().any(|waiting| waiting.will_wake(cx.waker())) {
                writing.finisher.push(cx.waker().clone());
            }
        }
        match state.ended() {
            Some(error) => Poll::Ready(Err(error.into())),
            None => Poll::Pending,
        }
    }
}

fn io_error(failure: StreamFailure) -> io::Error {
    match failure {
        StreamFailure::Session(error) => error.into(),
        StreamFailure::Stream(smux::StreamError::ClosedByPeer) => io::Error::new(io::ErrorKind::BrokenPipe, failure),
        StreamFailure::Stream(smux::StreamError::Reset) => io::Error::new(io::ErrorKind::ConnectionReset, failure),
        StreamFailure::Stream(smux::StreamError::Refused) => io::Error::new(io::ErrorKind::ConnectionRefused, failure),
        failure => io::Error::new(io::ErrorKind::NotConnected, failure),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut guard = self.session.shared().lock();
        let state = &mut *guard;
        let read = state.tunnel.read(now(), self.id, buf.initialize_unfilled());
        let outcome = match read {
            Ok(Some(n)) => {
                buf.advance(n);
                Poll::Ready(Ok(()))
            }
            Ok(None) => {
                let waiters = state.streams.entry(self.id).or_default();
                waiters.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Err(StreamFailure::Session(_)) => Poll::Ready(Err(state.ended().unwrap_or(SessionError::Closed).into())),
            Err(failure) => Poll::Ready(Err(io_error(failure))),
        };
        // Reading may have made a window update due, or room for what other streams wait for.
        let driver = state.driver.take_if(|_| state.tunnel.has_work(now()));
        drop(guard);
        if let Some(driver) = driver {
            driver.wake();
        }
        outcome
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.session.shared().with(|state| match state.tunnel.write(now(), self.id, bytes) {
            Ok(0) => {
                let waiters = state.streams.entry(self.id).or_default();
                waiters.writing().writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Ok(n) => Poll::Ready(Ok(n)),
            Err(failure) => Poll::Ready(Err(io_error(failure))),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finishing {
            let finished = self.session.shared().with(|state| state.tunnel.finish(now(), self.id));
            finished.map_err(io_error)?;
            self.finishing = true;
        }
        self.poll_delivered(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.session.shared().with(|state| {
            state.streams.remove(&self.id);
            if self.reset_on_drop {
                state.tunnel.reset_stream(now(), self.id);
            }
            state.tunnel.close_stream(now(), self.id);
        });
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("session", &self.session.id()).field("id", &self.id()).finish()
    }
}
