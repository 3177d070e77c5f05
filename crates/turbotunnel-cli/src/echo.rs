//! Whatever comes on a stream goes back on it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use turbotunnel::Stream;

use crate::status::board::Traffic;

const SCRATCH: usize = 64 << 10;

thread_local! {
    /// Where reads go. A stream that waits holds no buffer.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Sends back everything until the peer has finished, then finishes too. The bytes are counted, in `traffic` as they pass.
pub(crate) async fn echo(stream: &mut Stream, traffic: &Traffic) -> io::Result<u64> {
    let mut bytes = 0;
    loop {
        let (n, rest) = poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                // No more than goes back at once: nothing is left in our hands. Where nothing can be written any more, the read says whether that is the end.
                let room = ready!(stream.poll_room(cx, SCRATCH)).map_or(SCRATCH, |room| room.min(SCRATCH));
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
        traffic.received.inc_by(n as u64);
        // Another stream may have taken the room.
        stream.write_all(&rest).await?;
        traffic.sent.inc_by(n as u64);
        bytes += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use turbotunnel::Listener;

    use super::*;

    /// It reads all of its echo and goes: both directions are at their end before the server looks again.
    #[tokio::test]
    async fn a_client_that_goes_once_all_is_back_is_no_error() {
        let listener = Listener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = Stream::connect(listener.local_addr().expect("it listens")).await.expect("a server");
        let sent = vec![7; 3 * SCRATCH];
        client.write_all(&sent[..1]).await.expect("a session");
        let (mut server, _) = listener.accept().await.expect("a stream");
        let traffic = Traffic::default();
        let counted = traffic.clone();
        let served = tokio::spawn(async move { echo(&mut server, &counted).await });
        let (mut from, mut to) = tokio::io::split(client);
        let mut back = vec![0; sent.len()];
        let (written, read) = tokio::join!(to.write_all(&sent[1..]), from.read_exact(&mut back));
        written.and(read.map(drop)).expect("a session");
        assert_eq!(back, sent);
        assert_eq!(traffic.received.get(), sent.len() as u64, "counted while the stream lives");
        let session = from.unsplit(to).session().clone();
        assert_eq!(served.await.expect("no panic").expect("no error"), sent.len() as u64);
        drop(session);
    }
}
