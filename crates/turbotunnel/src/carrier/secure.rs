//! A carrier that proves who is at the other end, and seals what it carries ([`crate::secure`]), over anything that is `AsyncRead + AsyncWrite`.
//!
//! What waits to be written is packets until it is flushed, and sealed after that: as many packets as there are then share a record. A carrier that waits holds
//! nothing but its keys and the beginning of a record.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Carrier, KEEP, READ_SIZE, WRITE_LIMIT, poll_write_rest};
use crate::SessionId;
use crate::encapsulation::PacketBatch;
use crate::lifetime::LIFETIME;
use crate::secure::{
    ANSWER_LIMIT, Initiator, InitiatorRandom, PublicKey, RecordError, Records, Route, StaticKey, Suite,
};
use crate::shared::now;

/// A key that was not used for so long is made ready for each use anew: the session says now and then that it lives, and nothing else.
const IDLE: Duration = Duration::from_secs(1);

/// What a client needs to dial: the same for all carriers of a session.
pub(crate) struct Dialling {
    pub server: PublicKey,
    pub own: StaticKey,
    pub suite: Suite,
    /// What the server has asked for last.
    pub route: Mutex<Route>,
}

/// Something took the connection, and has not answered as the holder of the server's key would.
#[derive(Debug, thiserror::Error)]
#[error("no valid answer ({0})")]
pub(crate) struct NoValidAnswer(&'static str);

fn no_valid_answer(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, NoValidAnswer(what))
}

/// Sealed packets over a byte stream.
///
/// Memory: the two keys, and what was made of them, a kilobyte, until a use after a rest of [`IDLE`]; while writing up to 64 KiB and one turn's packets, twice.
pub(crate) struct SecureCarrier<IO> {
    io: Pin<Box<IO>>,
    records: Records,
    sealed_at: Instant,
    opened_at: Instant,
    /// The beginning of a record whose rest has not come yet.
    partial: Vec<u8>,
    packets: PacketBatch,
    sealed: Vec<u8>,
    written: usize,
}

impl<IO> SecureCarrier<IO> {
    /// After the handshake. `unsent` is what of it has still to be written.
    pub(crate) fn new(io: Pin<Box<IO>>, records: Records, unsent: Vec<u8>) -> Self {
        let now = now();
        Self {
            io,
            records,
            sealed_at: now,
            opened_at: now,
            partial: Vec::new(),
            packets: PacketBatch::new(),
            sealed: unsent,
            written: 0,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite> SecureCarrier<IO> {
    /// The dialling side: says the first message and waits for the server's answer. The third message goes with the first packets.
    pub(crate) async fn dial(io: IO, to: &Dialling, id: SessionId) -> io::Result<Self> {
        let mut io = Box::pin(io);
        let mut out = Vec::new();
        let route = *to.route.lock().unwrap_or_else(PoisonError::into_inner);
        let random = InitiatorRandom::generate()?;
        let initiator = Initiator::start(&to.server, &to.own, to.suite, route, &random, &mut out);
        let mut answer = vec![0; initiator.answer_len()];
        let mut heard = 0;
        let asking = async {
            io.write_all(&out).await?;
            io.flush().await?;
            while heard < answer.len() {
                match io.read(&mut answer[heard..]).await? {
                    0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed at once")),
                    read => heard += read,
                }
            }
            Ok(())
        };
        let asked = tokio::time::timeout(ANSWER_LIMIT, asking).await;
        match asked {
            Err(_) => return Err(no_valid_answer("silence")),
            // Nobody has said anything that could be wrong: a balancer or a proxy without a server behind it, or one that restarts. A server with another key is silent.
            Ok(Err(error)) if heard == 0 => return Err(error),
            Ok(Err(_)) => return Err(no_valid_answer("the connection was closed")),
            Ok(Ok(())) => {}
        }
        let mut third = Vec::new();
        let established = initiator.handle_answer(&answer, id, &mut third);
        let established = established.map_err(|_| no_valid_answer("something else answered"))?;
        *to.route.lock().unwrap_or_else(PoisonError::into_inner) = established.route;
        Ok(Self::new(io, established.records, third))
    }
}

fn not_good(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}

/// Notes that it is used now. True: it was not for a while before.
fn after_a_rest(used: &mut Instant) -> bool {
    let now = now();
    now.saturating_duration_since(std::mem::replace(used, now)) >= IDLE
}

impl<IO> SecureCarrier<IO> {
    fn seal(&mut self) -> io::Result<()> {
        if !self.packets.is_empty() {
            self.records.seal(self.packets.as_bytes(), &mut self.sealed).map_err(not_good)?;
            let keep = if self.packets.len() > KEEP { usize::MAX } else { KEEP };
            self.packets.clear(keep);
            if after_a_rest(&mut self.sealed_at) {
                self.records.rest_sealing();
            }
        }
        Ok(())
    }
}

impl<IO: AsyncWrite> SecureCarrier<IO> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_write_rest(self.io.as_mut(), cx, &self.sealed, &mut self.written))?;
        self.sealed.clear();
        if self.written <= KEEP && self.sealed.capacity() > KEEP {
            self.sealed = Vec::new();
        }
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Send> Carrier for SecureCarrier<IO> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, out: &mut PacketBatch) -> Poll<io::Result<usize>> {
        let bytes = out.bytes_mut();
        bytes.clear();
        // After a failure, also if nothing more comes.
        self.records.open(&[], bytes).map_err(not_good)?;
        bytes.extend_from_slice(&self.partial);
        bytes.reserve(READ_SIZE);
        let read = match pin!(self.io.read_buf(bytes)).poll(cx) {
            Poll::Ready(Ok(read)) => read,
            other => {
                bytes.clear();
                return other;
            }
        };
        match self.records.open_in_place(bytes, &mut self.partial) {
            // The good packets first; the next call tells.
            Err(error) if bytes.is_empty() => return Poll::Ready(Err(not_good(error))),
            Ok(()) | Err(_) => {}
        }
        if after_a_rest(&mut self.opened_at) {
            self.records.rest_opening();
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        Poll::Ready(Ok(read))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sealed.len() - self.written >= WRITE_LIMIT {
            return self.poll_write_out(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        super::poll_discard(self.io.as_mut(), cx)
    }

    fn buffer(&mut self) -> &mut PacketBatch {
        &mut self.packets
    }

    fn held(&self) -> usize {
        self.packets.len() + self.sealed.len() + self.partial.capacity()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal()?;
        if !self.sealed.is_empty() {
            ready!(self.poll_write_out(cx))?;
        }
        self.io.as_mut().poll_flush(cx)
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal()?;
        ready!(self.poll_write_out(cx))?;
        self.io.as_mut().poll_shutdown(cx)
    }

    fn lifetime(&self) -> Option<Duration> {
        Some(LIFETIME)
    }

    fn is_worn(&self) -> bool {
        self.records.is_worn()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::DuplexStream;
    use tokio::time::advance;

    use super::*;
    use crate::secure::{HEADER_LEN, Recognised, ResponderRandom};

    /// Both ends, after the handshake.
    async fn pair() -> [SecureCarrier<DuplexStream>; 2] {
        let server = StaticKey::from_bytes(&[1; 32]);
        let route = Mutex::new(Route::ANY);
        let suite = Suite::AesGcm;
        let to = Dialling { server: server.public(), own: StaticKey::from_bytes(&[2; 32]), suite, route };
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let mut theirs = Box::pin(theirs);
        let answering = async {
            let mut header = [0; HEADER_LEN];
            theirs.read_exact(&mut header).await.unwrap();
            let keys = [server.clone()];
            let recognised = Recognised::new(&keys, &header).unwrap();
            let mut message = vec![0; suite.message_1_len()];
            theirs.read_exact(&mut message).await.unwrap();
            let (mut answer, random) = (Vec::new(), ResponderRandom::generate().unwrap());
            let responder = recognised.handle_message(&message, Route::ANY, &random, &mut answer).unwrap();
            theirs.write_all(&answer).await.unwrap();
            responder
        };
        let (client, responder) = tokio::join!(SecureCarrier::dial(ours, &to, SessionId(*b"8 bytes!")), answering);
        let mut client = client.unwrap();
        let accepted = responder.handle_message(&client.sealed).unwrap();
        client.sealed.clear();
        [client, SecureCarrier::new(theirs, accepted.records, Vec::new())]
    }

    async fn carry(from: &mut SecureCarrier<DuplexStream>, to: &mut SecureCarrier<DuplexStream>, packet: &[u8]) {
        from.buffer().push(packet);
        poll_fn(|cx| from.poll_flush(cx)).await.unwrap();
        let mut batch = PacketBatch::new();
        poll_fn(|cx| to.poll_recv(cx, &mut batch)).await.unwrap();
        assert_eq!(batch.packets().collect::<Vec<_>>(), [packet]);
    }

    /// A talk keeps its keys ready, each for itself; a session that only says that it lives keeps none.
    #[tokio::test(start_paused = true)]
    async fn keys_are_ready_while_they_are_used() {
        let [mut client, mut server] = pair().await;
        for _ in 0..3 {
            advance(IDLE / 2).await;
            carry(&mut client, &mut server, b"a question").await;
            assert_eq!((client.records.keys_ready(), server.records.keys_ready()), ([true, false], [false, true]));
        }
        advance(IDLE * 2).await;
        carry(&mut client, &mut server, b"I live").await;
        carry(&mut server, &mut client, b"so do I").await;
        assert_eq!((client.records.keys_ready(), server.records.keys_ready()), ([false; 2], [false; 2]));
        carry(&mut server, &mut client, b"and have much to say").await;
        assert_eq!((client.records.keys_ready(), server.records.keys_ready()), ([false, true], [true, false]));
    }
}
