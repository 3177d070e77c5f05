//! Whatever comes on a stream goes back on it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use turbotunnel::Stream;

const SCRATCH: usize = 64 << 10;

thread_local! {
    /// Where reads go. A stream that waits holds no buffer.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Sends back everything until the peer has finished, then finishes too. The bytes are counted.
pub(crate) async fn echo(stream: &mut Stream) -> io::Result<u64> {
    let mut bytes = 0;
    loop {
        let (n, rest) = poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                // No more than goes back at once: nothing is left in our hands.
                let room = ready!(stream.poll_room(cx, SCRATCH))?.min(SCRATCH);
                let mut read = ReadBuf::new(&mut buffer[..room]);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
                let read = read.filled();
                let written = match Pin::new(&mut *stream).poll_write(cx, read) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                };
                Poll::Ready(io::Result::Ok((read.len(), read[written..].to_vec())))
            })
        })
        .await?;
        if n == 0 {
            stream.shutdown().await?;
            return Ok(bytes);
        }
        // Another stream may have taken the room.
        stream.write_all(&rest).await?;
        bytes += n as u64;
    }
}
