//! A WebSocket as a stream of bytes: binary messages, cut anyhow.
//!
//! ```text
//! Binary  bytes            Ping   answered, also while nothing is written
//! Text    an error         Close  the end; ours is sent by poll_shutdown, or as the answer to the peer's
//! ```
//!
//! A WebSocket has no half-close. After our Close what the peer has sent before his answer is still read; but a peer that has read our Close sends nothing more, whatever it
//! had to say. So who shuts a connection down to hear the rest may not hear it. To a session that is a cut as any other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::connection::Io;
use crate::words;

/// Longer messages are refused. Web servers and browsers send less at once.
const MAX_READ: usize = 1 << 20;
/// Bytes of one message of ours. No more of what was written waits in here: then it is the writer's turn to wait.
const MAX_WRITE: usize = 64 << 10;
/// What is kept by one that is idle.
const READ_BUFFER: usize = 16 << 10;
/// Room for one message, and for answers to the pings of somebody who does not read them.
const WRITE_BUFFER: usize = MAX_WRITE + (4 << 10);

pub(crate) struct WebSocket<IO> {
    inner: WebSocketStream<IO>,
    /// What has not been read of a message.
    rest: Bytes,
    read_ended: bool,
}

impl<IO: Io> WebSocket<IO> {
    /// After the handshake; `read` came behind it.
    pub(super) async fn new(io: IO, read: Vec<u8>, role: Role) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MAX_READ))
            .max_frame_size(Some(MAX_READ));
        let inner = WebSocketStream::from_partially_read(io, read, role, Some(config)).await;
        Self { inner, rest: Bytes::new(), read_ended: false }
    }

    fn inner(&mut self) -> Pin<&mut WebSocketStream<IO>> {
        Pin::new(&mut self.inner)
    }
}

fn told(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        Error::Protocol(error) => match error {
            tokio_tungstenite::tungstenite::error::ProtocolError::SendAfterClosing => io::ErrorKind::BrokenPipe.into(),
            // FIN without Close.
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake => {
                io::Error::new(io::ErrorKind::UnexpectedEof, "closed by peer without a WebSocket Close")
            }
            error => words::invalid(format!("not a WebSocket: {error}")),
        },
        Error::Capacity(_) => words::invalid(format!("a WebSocket message of more than {MAX_READ} bytes")),
        error => words::invalid(error.to_string()),
    }
}

impl<IO: Io> AsyncRead for WebSocket<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        while self.rest.is_empty() {
            if self.read_ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.inner().poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    self.read_ended = true;
                    return Poll::Ready(Err(words::invalid("a WebSocket message of text, where bytes are expected")));
                }
                Some(Ok(Message::Close(_))) => {
                    self.read_ended = true;
                    // Reading on sends our answer, as far as it goes now; poll_shutdown sees to the rest. A flush would take the place of a writer who waits.
                    let _ = self.inner().poll_next(cx);
                }
                None => self.read_ended = true,
                Some(Err(error)) => {
                    self.read_ended = true;
                    return Poll::Ready(Err(told(error)));
                }
            }
        }
        let n = buf.remaining().min(self.rest.len());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        if self.rest.is_empty() {
            // Its memory is the whole buffer's.
            self.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: Io> AsyncWrite for WebSocket<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.inner().poll_ready(cx)).map_err(told)?;
        let n = buf.len().min(MAX_WRITE);
        let mut message = Message::Binary(Bytes::copy_from_slice(&buf[..n]));
        loop {
            match self.inner().start_send(message) {
                Ok(()) => return Poll::Ready(Ok(n)),
                Err(Error::WriteBufferFull(refused)) => {
                    // Answers to pings have filled it.
                    ready!(self.inner().poll_flush(cx)).map_err(told)?;
                    message = *refused;
                }
                Err(error) => return Poll::Ready(Err(told(error))),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx).map_err(told)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.inner().poll_close(cx)) {
            // The peer was first, and has our answer.
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {}
            Err(error) => return Poll::Ready(Err(told(error))),
        }
        // Once the last frame is out of tungstenite it does not flush what is below it.
        Pin::new(self.inner.get_mut()).poll_flush(cx)
    }
}
