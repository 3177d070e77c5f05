//! A carrier over anything that is `AsyncRead + AsyncWrite`: TCP, TLS, a pipe, somebody else's tunnel.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{Carrier, KEEP, READ_SIZE, WRITE_LIMIT, poll_write_rest};
use crate::SessionId;
use crate::encapsulation::{MAX_FIRST_PACKET, PacketBatch};

/// Length-prefixed packets over a byte stream.
///
/// Memory: nothing while idle but an incomplete packet; while writing up to 64 KiB and one turn's packets.
#[derive(Debug)]
pub(crate) struct StreamCarrier<IO> {
    io: Pin<Box<IO>>,
    /// The beginning of a packet whose rest has not come yet. It dies with the carrier.
    partial: Vec<u8>,
    /// A packet has come: whoever is there speaks this format.
    heard: bool,
    out: PacketBatch,
    written: usize,
}

impl<IO> StreamCarrier<IO> {
    /// The dialling side: the session id goes first.
    pub(crate) fn client(io: IO, id: SessionId) -> Self {
        let mut carrier = Self::server(io);
        carrier.out.bytes_mut().extend_from_slice(&id.0);
        carrier
    }

    /// The accepting side, on which the session id has been read already.
    pub(crate) fn server(io: IO) -> Self {
        Self { io: Box::pin(io), partial: Vec::new(), heard: false, out: PacketBatch::new(), written: 0 }
    }
}

impl<IO: AsyncWrite> StreamCarrier<IO> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_write_rest(self.io.as_mut(), cx, self.out.as_bytes(), &mut self.written))?;
        let keep = if self.written > KEEP { usize::MAX } else { KEEP };
        self.out.clear(keep);
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Send> Carrier for StreamCarrier<IO> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, out: &mut PacketBatch) -> Poll<io::Result<usize>> {
        let bytes = out.bytes_mut();
        bytes.clear();
        bytes.extend_from_slice(&self.partial);
        bytes.reserve(READ_SIZE);
        let read = match pin!(self.io.read_buf(bytes)).poll(cx) {
            Poll::Ready(Ok(read)) => read,
            other => {
                bytes.clear();
                return other;
            }
        };
        if !self.heard && out.first_len().is_some_and(|len| len > MAX_FIRST_PACKET) {
            out.clear(usize::MAX);
            self.partial = vec![0xff; 2];
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let outcome = out.cut_incomplete(&mut self.partial);
        self.heard |= out.packets().any(|packet| !packet.is_empty());
        if outcome.is_err() && out.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if outcome.is_err() {
            // The good packets first; the next read meets the bad one again and finds nothing else.
            self.partial = vec![0xff; 2];
        }
        Poll::Ready(Ok(read))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() - self.written >= WRITE_LIMIT {
            return self.poll_write_out(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        super::poll_discard(self.io.as_mut(), cx)
    }

    fn buffer(&mut self) -> &mut PacketBatch {
        &mut self.out
    }

    fn held(&self) -> usize {
        self.out.len() + self.partial.capacity()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.out.is_empty() {
            ready!(self.poll_write_out(cx))?;
        }
        self.io.as_mut().poll_flush(cx)
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        self.io.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn recv(carrier: &mut impl Carrier) -> io::Result<Vec<Vec<u8>>> {
        let mut batch = PacketBatch::new();
        poll_fn(|cx| carrier.poll_recv(cx, &mut batch)).await?;
        Ok(batch.packets().map(<[u8]>::to_vec).collect())
    }

    #[tokio::test]
    async fn the_session_id_goes_first_and_packets_follow_whole() {
        let (client, server) = tokio::io::duplex(7);
        let mut client = StreamCarrier::client(client, SessionId(*b"8 bytes!"));
        client.buffer().push(b"first packet");
        client.buffer().push(b"second");
        let sender = tokio::spawn(async move {
            poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
            poll_fn(|cx| client.poll_close_write(cx)).await.unwrap();
            client
        });
        let mut server = server;
        let mut id = [0; 8];
        server.read_exact(&mut id).await.unwrap();
        assert_eq!(&id, b"8 bytes!");
        let mut server = StreamCarrier::server(server);
        let mut got = Vec::new();
        let mut batch = PacketBatch::new();
        while poll_fn(|cx| server.poll_recv(cx, &mut batch)).await.unwrap() > 0 {
            got.extend(batch.packets().map(<[u8]>::to_vec));
        }
        assert_eq!(got, [&b"first packet"[..], b"second"]);
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn good_packets_before_a_bad_length_still_arrive() {
        let (mut stranger, ours) = tokio::io::duplex(100);
        tokio::io::AsyncWriteExt::write_all(&mut stranger, b"\x00\x02hiGET / HTTP/1.1\r\n").await.unwrap();
        let mut carrier = StreamCarrier::server(ours);
        assert_eq!(recv(&mut carrier).await.unwrap(), [b"hi"]);
        tokio::io::AsyncWriteExt::write_all(&mut stranger, b"x").await.unwrap();
        assert_eq!(recv(&mut carrier).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// What says something else first is known by it, for most protocols; the peer may say more once it has said something.
    #[tokio::test]
    async fn only_later_packets_may_be_long() {
        let (mut peer, ours) = tokio::io::duplex(40_000);
        let mut carrier = StreamCarrier::server(ours);
        let long = [&16_382_u16.to_be_bytes()[..], &[7; 16_382]].concat();
        // In one piece, and cut in the middle.
        let pieces: [(&[u8], &[&[u8]]); 3] = [
            (b"\x00\x00\x00\x02hi", &[b"", b"hi"]),
            (&[&long[..], &long[..9_000]].concat(), &[&long[2..]]),
            (&long[9_000..], &[&long[2..]]),
        ];
        for (piece, packets) in pieces {
            tokio::io::AsyncWriteExt::write_all(&mut peer, piece).await.unwrap();
            assert_eq!(recv(&mut carrier).await.unwrap(), packets);
        }
        // A byte of the next packet does not hold what the last one took.
        tokio::io::AsyncWriteExt::write_all(&mut peer, &long[..9_000]).await.unwrap();
        assert!(recv(&mut carrier).await.unwrap().is_empty() && carrier.held() >= 9_000);
        tokio::io::AsyncWriteExt::write_all(&mut peer, &[&long[9_000..], b"\x00"].concat()).await.unwrap();
        assert!(recv(&mut carrier).await.unwrap().len() == 1 && carrier.held() <= 2_048);

        for greeting in
            [&b"\x15\x03\x03\x00\x02"[..], b"220 mail.example", b"\x00\x00OPTIONS", &long, &1_501_u16.to_be_bytes()]
        {
            let (mut stranger, ours) = tokio::io::duplex(40_000);
            let mut carrier = StreamCarrier::client(ours, SessionId(*b"8 bytes!"));
            tokio::io::AsyncWriteExt::write_all(&mut stranger, greeting).await.unwrap();
            assert_eq!(recv(&mut carrier).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
