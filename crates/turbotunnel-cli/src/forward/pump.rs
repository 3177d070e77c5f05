//! Bytes between a local connection and a stream, both ways, with the end of each direction carried on its own.
//!
//! Until both have ended, whatever becomes of the pump (an error, the end of its task or of the program), each side that is dropped breaks: what was cut off in the middle never looks
//! complete to who reads it. What a side said before it broke is for the other all the same, and goes before the break.
//!
//! Nothing is held beyond what one side has not taken yet, 64 KiB each way at most, and nothing at all while a direction waits: a thousand idle streams hold no buffers.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use turbotunnel::Stream;

use crate::status::board::Traffic;

const SCRATCH: usize = 64 << 10;

thread_local! {
    /// Where reads go.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Bytes that went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// From the connection into the stream.
    pub up: u64,
    /// From the stream to the connection.
    pub down: u64,
}

/// Which side it was that failed.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection: its program has gone, or its peer.
    Connection(io::Error),
    /// The stream: its session has ended, or the peer has let go of it.
    Stream(io::Error),
}

/// Once a side is broken the rest of what was said may take so long: to be read to its end, and to begin its way.
const REST: Duration = Duration::from_secs(10);
/// Between two looks whether it has: the first, and the longest.
const LOOKS: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(250)];

/// A side of a [`pump`].
pub(crate) trait Side: AsyncRead + AsyncWrite + Unpin {
    /// It is one thing: what takes no more has not much more to say.
    const IS_READ_TO_ITS_END: bool = true;

    /// Whether dropping it is to be a failure for who is at its other end, and not an orderly end.
    fn set_break_on_drop(&mut self, on: bool);

    /// Bytes written to it that a break would drop.
    fn unsent(&self) -> usize {
        0
    }
}

impl Side for TcpStream {
    /// The system does it even when the program is killed. Where it cannot be set it ends in order, and nothing can be done about it.
    fn set_break_on_drop(&mut self, on: bool) {
        let _ = socket2::SockRef::from(&*self).set_linger(on.then_some(Duration::ZERO));
    }
}

impl Side for Stream {
    fn set_break_on_drop(&mut self, on: bool) {
        self.set_reset_on_drop(on);
    }

    fn unsent(&self) -> usize {
        Stream::unsent(self)
    }
}

/// Copies until both directions have ended and all is delivered. `moved` counts, also when it fails, and `traffic` for all streams together. Both sides break on drop from
/// now on, but not after `Ok`.
pub(crate) async fn pump<C, S>(
    connection: &mut C,
    stream: &mut S,
    moved: &mut Moved,
    traffic: &Traffic,
) -> Result<(), Broken>
where
    C: Side,
    S: Side,
{
    connection.set_break_on_drop(true);
    stream.set_break_on_drop(true);
    let (mut up, mut down) = (OneWay::default(), OneWay::default());
    // A side that takes no more may have said why before that: it is read to its end, which says more than the failed write.
    let mut broken = None;
    let mut limit = None::<Pin<Box<tokio::time::Sleep>>>;
    let pumped = poll_fn(|cx| {
        let mut up_done = matches!(broken, Some(Broken::Stream(_)));
        if !up_done {
            // The system tells of a reset once, and of an end after that.
            up.is_cut_off = matches!(broken, Some(Broken::Connection(_)));
            match up.poll(cx, connection, stream, (&mut moved.up, &traffic.sent)) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => up_done = true,
                Poll::Ready(Err(Failed::Reading(error))) => return Poll::Ready(Err(Broken::Connection(error))),
                Poll::Ready(Err(Failed::Writing(error))) => {
                    broken.get_or_insert(Broken::Stream(error));
                    up_done = true;
                }
            }
        }
        let mut down_done = matches!(broken, Some(Broken::Connection(_)));
        if !down_done {
            match down.poll(cx, stream, connection, (&mut moved.down, &traffic.received)) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => down_done = true,
                Poll::Ready(Err(Failed::Reading(error))) => return Poll::Ready(Err(Broken::Stream(error))),
                Poll::Ready(Err(Failed::Writing(error))) if !C::IS_READ_TO_ITS_END => {
                    return Poll::Ready(Err(Broken::Connection(error)));
                }
                Poll::Ready(Err(Failed::Writing(error))) => {
                    broken.get_or_insert(Broken::Connection(error));
                    down_done = true;
                    // The other direction has had its turn.
                    cx.waker().wake_by_ref();
                }
            }
        }
        if broken.is_some() {
            // The other end may wait for us to read what is read no more.
            let limit = limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(REST)));
            if limit.as_mut().poll(cx).is_ready() {
                (up_done, down_done) = (true, true);
            }
        }
        if up_done && down_done { Poll::Ready(broken.take().map_or(Ok(()), Err)) } else { Poll::Pending }
    })
    .await;
    if matches!(pumped, Err(Broken::Connection(_))) && C::IS_READ_TO_ITS_END {
        // A server that does not want the rest of a question says so and closes: what it said is for the other end, and the break comes behind it.
        let sending = async {
            let [mut pause, longest] = LOOKS;
            while stream.unsent() > 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        };
        let _ = tokio::time::timeout(REST, sending).await;
    }
    pumped?;
    connection.set_break_on_drop(false);
    stream.set_break_on_drop(false);
    Ok(())
}

enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

/// One direction.
#[derive(Default)]
struct OneWay {
    /// Read and not written yet.
    rest: Vec<u8>,
    at: usize,
    /// No more will be read.
    read_all: bool,
    /// Where it is read from is broken: an end is none that anybody has said.
    is_cut_off: bool,
    done: bool,
}

/// Reads of one direction before the other has its turn.
const TURNS: usize = 4;

impl OneWay {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        (moved, total): (&mut u64, &Counter),
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            while self.at < self.rest.len() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.at..])).map_err(Failed::Writing)?;
                if n == 0 {
                    return Poll::Ready(Err(Failed::Writing(io::ErrorKind::WriteZero.into())));
                }
                self.at += n;
                *moved += n as u64;
                total.inc_by(n as u64);
            }
            (self.rest, self.at) = (Vec::new(), 0);
            if self.read_all {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Failed::Writing)?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_read(cx, from, to, (moved, total)))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read, and what of it goes out at once.
    fn poll_read<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        (moved, total): (&mut u64, &Counter),
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(from).poll_read(cx, &mut read)).map_err(Failed::Reading)?;
            let read = read.filled();
            if read.is_empty() && self.is_cut_off {
                return Poll::Ready(Err(Failed::Reading(io::ErrorKind::ConnectionReset.into())));
            }
            self.read_all = read.is_empty();
            let written = match read {
                [] => 0,
                bytes => match Pin::new(to).poll_write(cx, bytes) {
                    Poll::Ready(written) => written.map_err(Failed::Writing)?,
                    Poll::Pending => 0,
                },
            };
            *moved += written as u64;
            total.inc_by(written as u64);
            self.rest.extend_from_slice(&read[written..]);
            Poll::Ready(Ok(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    impl Side for DuplexStream {
        fn set_break_on_drop(&mut self, _on: bool) {}
    }

    #[tokio::test]
    async fn each_direction_ends_on_its_own_and_nothing_is_missing() {
        let (mut program, mut connection) = duplex(1000);
        let (mut stream, mut peer) = duplex(300);
        let pumping = tokio::spawn(async move {
            let mut moved = Moved::default();
            pump(&mut connection, &mut stream, &mut moved, &Traffic::default()).await.map(|()| moved)
        });
        let question: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        let copy = question.clone();
        let asking = tokio::spawn(async move {
            program.write_all(&copy).await.unwrap();
            program.shutdown().await.unwrap();
            let mut answer = Vec::new();
            program.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        assert!(heard == question, "the end of the question came, and all before it");
        peer.write_all(b"yes").await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(asking.await.unwrap(), b"yes");
        assert_eq!(pumping.await.unwrap().unwrap(), Moved { up: 100_000, down: 3 });
    }

    #[tokio::test]
    async fn it_is_told_which_side_broke() {
        for (side, broken) in [("connection", 0), ("stream", 1)] {
            let (program, mut connection) = duplex(10);
            let (mut stream, peer) = duplex(10);
            let (mut other, gone) = if broken == 0 { (peer, program) } else { (program, peer) };
            drop(gone);
            // The end of the gone side arrives in order; what is sent to it then does not.
            other.write_all(b"more").await.unwrap();
            let outcome = pump(&mut connection, &mut stream, &mut Moved::default(), &Traffic::default()).await;
            match (outcome, broken) {
                (Err(Broken::Connection(_)), 0) | (Err(Broken::Stream(_)), 1) => {}
                other => panic!("{side}: {other:?}"),
            }
        }
    }

    /// Says what it has to say, and takes nothing.
    struct TakesNoMore(DuplexStream);

    impl AsyncRead for TakesNoMore {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for TakesNoMore {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Side for TakesNoMore {
        fn set_break_on_drop(&mut self, _on: bool) {}
    }

    /// What the stream had said before it broke is brought; and who does not take it, because he waits for us to read what he says, is not waited for for ever.
    #[tokio::test(start_paused = true)]
    async fn a_broken_stream_is_read_to_its_end_but_not_for_ever() {
        for takes in [true, false] {
            let (mut program, mut connection) = duplex(10);
            let (stream, mut peer) = duplex(1000);
            let mut stream = TakesNoMore(stream);
            peer.write_all(&[7; 500]).await.unwrap();
            program.write_all(b"more").await.unwrap();
            let reading = tokio::spawn(async move {
                let mut heard = Vec::new();
                if takes {
                    drop(peer);
                    let _ = program.read_to_end(&mut heard).await;
                } else {
                    std::future::pending::<()>().await;
                    drop((peer, program));
                }
                heard.len()
            });
            let mut moved = Moved::default();
            let traffic = Traffic::default();
            let pumping = pump(&mut connection, &mut stream, &mut moved, &traffic);
            let outcome = tokio::time::timeout(3 * REST, pumping).await.expect("it ends");
            assert!(matches!(outcome, Err(Broken::Stream(_))), "{outcome:?}");
            drop(connection);
            if takes {
                assert_eq!(reading.await.unwrap(), 500);
            }
        }
    }
}
