//! Sessions over these carriers: each by itself, and from one kind to the next while a stream is under way.

#![cfg(all(unix, feature = "tls", feature = "ws"))]

#[allow(unreachable_pub, dead_code, reason = "a module of this test only, and of its neighbours")]
mod common;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use common::{Pki, bind, dialer, pattern, reached_as, soon};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use turbotunnel::secure::StaticKey;
use turbotunnel::{Builder, Listener, ListenerBuilder, Session};
use turbotunnel_carriers::{Connection, DialOptions, Dialer, Kind};

/// A connection that is cut after so many bytes, both ways together.
struct Cut {
    io: Connection,
    left: usize,
}

impl Cut {
    fn passed(&mut self, n: usize) {
        self.left = self.left.saturating_sub(n);
    }

    fn whole(&self) -> io::Result<()> {
        if self.left == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.whole()?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.passed(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.whole()?;
        let n = buf.len().min(self.left);
        let polled = Pin::new(&mut self.io).poll_write(cx, &buf[..n]);
        if let Poll::Ready(Ok(n)) = polled {
            self.passed(n);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One server that is reached in six ways.
struct House {
    pki: Pki,
    listener: Arc<Listener>,
    dialers: Vec<Dialer>,
}

impl House {
    async fn new(builder: ListenerBuilder) -> Self {
        let pki = Pki::new();
        let listener = Arc::new(builder.detached());
        let mut dialers = Vec::new();
        let kinds = ["127.0.0.1:0", "ws://127.0.0.1:0/t", "wss://127.0.0.1:0/t", "tls://127.0.0.1:0", &pki.socket("s")];
        for address in kinds {
            let acceptor = bind(address, pki.honest_server()).await;
            dialers.push(dialer(&reached_as(&acceptor, "localhost"), pki.client()));
            if let (Kind::Tcp, Some(addr)) = (acceptor.address().kind(), acceptor.local_addr()) {
                // What ssh and netcat do elsewhere.
                let relay = format!("exec 3<>/dev/tcp/{}/{}; cat <&3 & cat >&3", addr.ip(), addr.port());
                dialers.push(dialer(&format!("exec:exec bash -c '{relay}'"), DialOptions::default()));
            }
            let listener = listener.clone();
            tokio::spawn(async move {
                while let Ok(connection) = acceptor.accept().await {
                    let peer = connection.peer();
                    listener.attach(connection, peer);
                }
            });
        }
        let echoing = listener.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = echoing.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = tokio::io::split(stream);
                    tokio::io::copy(&mut from, &mut to).await?;
                    to.shutdown().await
                });
            }
        });
        Self { pki, listener, dialers }
    }
}

async fn there_and_back(session: &Session, len: usize) {
    let (mut from, mut to) = tokio::io::split(session.open().await.unwrap());
    let sent = pattern(len, 9);
    let sending = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(sending, from.read_to_end(&mut back));
    read.unwrap();
    assert!(back == sent, "{} bytes came back, or others", back.len());
}

fn keys() -> [(Builder, ListenerBuilder); 2] {
    let key = StaticKey::from_bytes(&[5; 32]);
    [
        (Session::builder().plain(), Listener::builder().plain()),
        (Session::builder().server_key(key.public()), Listener::builder().server_keys([key])),
    ]
}

/// A WebSocket has no half-close, and yet the last words of a session are heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_begins_and_ends_well_over_each_kind() {
    for at in 0..6 {
        for (client, server) in keys() {
            let house = House::new(server).await;
            let dialer = house.dialers[at].clone();
            let kind = dialer.address().kind();
            let session = soon(client.connect(move |_| {
                let dialer = dialer.clone();
                async move { dialer.dial().await }
            }));
            let session = session.await.unwrap();
            soon(there_and_back(&session, 1 << 20)).await;
            soon(session.close()).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(session.stats().tunnel.carriers, 1, "{kind}: {:?}", session.stats());
        }
    }
}

/// The story of this crate: what may be carried by one kind may go on by another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_from_kind_to_kind() {
    for (client, server) in keys() {
        let house = House::new(server).await;
        let used = Arc::new(Mutex::new(BTreeMap::<&str, usize>::new()));
        let (dialers, counting) = (house.dialers.clone(), used.clone());
        let dial = move |attempt: turbotunnel::Attempt| {
            let dialer = dialers[attempt.number as usize % dialers.len()].clone();
            *counting.lock().unwrap().entry(dialer.address().kind().scheme()).or_default() += 1;
            async move { Ok(Cut { io: dialer.dial().await?, left: 150_000 + attempt.number as usize * 7_919 % 100_000 }) }
        };
        let session = soon(client.connect(dial)).await.unwrap();
        soon(there_and_back(&session, 4 << 20)).await;
        soon(session.close()).await.unwrap();
        let used = used.lock().unwrap();
        assert_eq!(used.len(), 6, "{used:?}");
        assert!(used.values().sum::<usize>() >= 30, "it was cut: {used:?}");
        assert_eq!(house.listener.stats().sessions_begun, 1);
        assert!(house.pki.dir.path().exists());
    }
}
