//! Somebody who only wants his bytes back: an honest session with one stream, as the library makes it.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use turbotunnel::secure::PublicKey;
use turbotunnel::{Session, Stream};
use turbotunnel_sim::Way;
use turbotunnel_sim::pattern::Pattern;

/// Moved at once.
const CHUNK: usize = 32 << 10;
/// How often it is asked whether anything has come.
const LOOK: Duration = Duration::from_millis(20);

/// One stream to an echo server. The calls block; the session lives on between them.
#[derive(Debug)]
pub(crate) struct Honest {
    session: Session,
    stream: Stream,
    pattern: Pattern,
    sent: u64,
    received: u64,
    /// How long the first echo took, from the dial on.
    pub(crate) admitted: Duration,
    // Last: what it drives goes first.
    runtime: Runtime,
}

impl Honest {
    /// From `source`, up to the first echo.
    ///
    /// # Errors
    ///
    /// There was none within `limit`, or the session ended.
    pub(crate) fn connect(addr: SocketAddr, source: Ipv4Addr, limit: Duration) -> io::Result<Self> {
        Self::connect_to(addr, None, source, limit)
    }

    /// The same, to a server that may have a key.
    ///
    /// # Errors
    ///
    /// As [`Honest::connect`].
    pub(crate) fn connect_to(
        addr: SocketAddr,
        key: Option<PublicKey>,
        source: Ipv4Addr,
        limit: Duration,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let began = Instant::now();
        let connecting = async {
            let builder = Session::builder();
            let builder = match key {
                Some(key) => builder.server_key(key),
                None => builder.plain(),
            };
            let session = builder.connect(move |_| async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::from((source, 0)))?;
                let stream = socket.connect(addr).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            let session = session.await.map_err(io::Error::other)?;
            let mut stream = session.open().await.map_err(io::Error::other)?;
            if key.is_some() {
                // "The server's own target" and "done" (docs/wire.md), with which streams of the program begin where there are keys.
                stream.write_all(&[0, 0, 0]).await?;
                let mut answer = [0xff; 3];
                stream.read_exact(&mut answer).await?;
                if answer != [0, 0, 0] {
                    return Err(io::Error::other("an honest client's request is refused"));
                }
            }
            io::Result::Ok((session, stream))
        };
        let connected = runtime.block_on(async { tokio::time::timeout(limit, connecting).await });
        let (session, stream) = connected.map_err(|_| timed_out("an honest client is not let in"))??;
        let pattern = Pattern::new(began.elapsed().as_nanos() as u64, 3, Way::Up);
        let mut honest = Self { session, stream, pattern, sent: 0, received: 0, admitted: Duration::MAX, runtime };
        honest.echo(64, limit)?;
        honest.admitted = began.elapsed();
        Ok(honest)
    }

    /// Seconds until an honest newcomer had his first echo; `limit` if he had none by then.
    pub(crate) fn admission(addr: SocketAddr, source: Ipv4Addr, limit: Duration) -> f64 {
        Self::admission_to(addr, None, source, limit)
    }

    /// The same, at a server that may have a key.
    pub(crate) fn admission_to(addr: SocketAddr, key: Option<PublicKey>, source: Ipv4Addr, limit: Duration) -> f64 {
        Self::connect_to(addr, key, source, limit).map_or(limit, |honest| honest.admitted).as_secs_f64()
    }

    pub(crate) fn id(&self) -> [u8; 8] {
        self.session.id().0
    }

    /// Bytes that have come back.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Has `bytes` more echoed, to the last.
    ///
    /// # Errors
    ///
    /// Nothing came for as long as `patience`, a byte was wrong, or the session ended.
    pub(crate) fn echo(&mut self, bytes: u64, patience: Duration) -> io::Result<()> {
        let goal = self.sent + bytes;
        self.run(goal, Instant::now() + Duration::from_secs(3600), patience)?;
        if self.received == goal { Ok(()) } else { Err(timed_out("an honest transfer does not get on")) }
    }

    /// As [`Honest::echo`]: percent of all that was ever sent, and of what should be, that came back as it was.
    pub(crate) fn intact(&mut self, bytes: u64, patience: Duration) -> f64 {
        let goal = self.sent + bytes;
        match self.echo(bytes, patience) {
            // A byte that is wrong is worse than one that is late.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => 0.0,
            _ => self.received as f64 / goal as f64 * 100.0,
        }
    }

    /// Bytes a second that come back within `time`, as fast as it goes. What is then under way comes with the next call.
    pub(crate) fn goodput(&mut self, time: Duration) -> io::Result<f64> {
        let (before, began) = (self.received, Instant::now());
        self.run(u64::MAX, began + time, time)?;
        Ok((self.received - before) as f64 / began.elapsed().as_secs_f64())
    }

    /// Until all up to `goal` is back, `end` comes, or nothing has for as long as `patience`.
    fn run(&mut self, goal: u64, end: Instant, patience: Duration) -> io::Result<()> {
        let (sent, received) = (Cell::new(self.sent), Cell::new(self.received));
        let pattern = self.pattern;
        let (mut from, mut to) = tokio::io::split(&mut self.stream);
        let writing = async {
            let mut chunk = vec![0; CHUNK];
            while sent.get() < goal {
                let chunk = &mut chunk[..CHUNK.min(usize::try_from(goal - sent.get()).unwrap_or(CHUNK))];
                pattern.fill(sent.get(), chunk);
                // Dropped between two writes at most, so the count is right.
                sent.set(sent.get() + to.write(chunk).await? as u64);
            }
            io::Result::Ok(())
        };
        let reading = async {
            let mut chunk = vec![0; CHUNK];
            while received.get() < goal {
                let n = from.read(&mut chunk).await?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if let Some(at) = pattern.first_wrong(received.get(), &chunk[..n]) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, format!("byte {at} is wrong")));
                }
                received.set(received.get() + n as u64);
            }
            Ok(())
        };
        let watching = async {
            let (mut last, mut at) = (received.get(), Instant::now());
            loop {
                let now = Instant::now();
                if received.get() != last {
                    (last, at) = (received.get(), now);
                }
                if now >= end || now - at > patience {
                    return;
                }
                tokio::time::sleep(LOOK.min(end - now)).await;
            }
        };
        let result = self.runtime.block_on(async {
            tokio::select! {
                result = async { tokio::try_join!(writing, reading) } => result.map(drop),
                () = watching => Ok(()),
            }
        });
        (self.sent, self.received) = (sent.get(), received.get());
        result
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}
