//! Each kind of carrier, with and without a proxy: the same bytes come out that went in, both ways at once.

#![cfg(all(unix, feature = "tls", feature = "ws"))]

#[allow(unreachable_pub, dead_code, reason = "a module of this test only, and of its neighbours")]
mod common;

use common::{NOWHERE, Pki, Speaks, answering, bind, dialer, pair, pattern, proxy, reached_as, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turbotunnel_carriers::{Acceptor, Connection, DialOptions, Dialer};

const LEN: usize = 4 << 20;

/// 4 MiB each way at once, each half in a task of its own; then one end after the other says that it has finished.
async fn carries_both_ways(acceptor: &Acceptor, dialer: &Dialer) {
    let (near, far) = pair(acceptor, dialer).await;
    let what = dialer.address().to_string();
    let start = |connection: Connection, (mine, theirs): (u32, u32)| {
        let (mut from, mut to) = tokio::io::split(connection);
        let writing = tokio::spawn(async move {
            // Pieces of all sizes.
            let bytes = pattern(LEN, mine);
            let mut rest = &bytes[..];
            let mut size = 1;
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(size.min(rest.len()));
                to.write_all(piece).await.unwrap();
                (rest, size) = (others, size * 3 % 300_007);
            }
            to.flush().await.unwrap();
            to
        });
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; LEN];
            from.read_exact(&mut bytes).await.unwrap();
            assert!(bytes == pattern(LEN, theirs), "other bytes");
            from
        });
        async { reading.await.unwrap().unsplit(writing.await.unwrap()) }
    };
    let both = async { tokio::join!(start(near, (1, 2)), start(far, (2, 1))) };
    let (mut near, mut far) = soon(both).await;
    let mut more = Vec::new();
    soon(near.shutdown()).await.unwrap();
    assert_eq!(soon(far.read_to_end(&mut more)).await.unwrap(), 0, "{what}");
    soon(far.shutdown()).await.unwrap();
    assert_eq!(soon(near.read_to_end(&mut more)).await.unwrap(), 0, "{what}");
    assert_eq!(acceptor.stats().handshakes_failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_carries_bytes_both_ways() {
    let pki = Pki::new();
    for address in
        ["127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0/a/b", "wss://127.0.0.1:0/", &pki.socket("both ways")]
    {
        let acceptor = bind(address, pki.honest_server()).await;
        let dialer = dialer(&reached_as(&acceptor, "localhost"), pki.client());
        carries_both_ways(&acceptor, &dialer).await;
        assert_eq!(acceptor.stats().accepted, 1, "{address}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_goes_through_proxies_which_resolve_the_name() {
    let pki = Pki::new();
    for speaks in [Speaks::Http, Speaks::Socks5] {
        // "aladdin:open sesame"
        let wants = if speaks == Speaks::Http { "YWxhZGRpbjpvcGVuIHNlc2FtZQ==" } else { "aladdin:open sesame" };
        for (credentials, wants) in [("", ""), ("aladdin:open%20sesame@", wants)] {
            let proxy = proxy(speaks, credentials, wants).await;
            for address in ["127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0/a", "wss://127.0.0.1:0/a"] {
                let acceptor = bind(address, pki.honest_server()).await;
                let mut options = pki.client();
                options.proxy = Some(proxy.clone());
                let dialer = dialer(&reached_as(&acceptor, NOWHERE), options);
                carries_both_ways(&acceptor, &dialer).await;
            }
        }
    }
}

/// A server that speaks first may come in one piece with the proxy's answer.
#[tokio::test]
async fn what_comes_behind_a_proxys_answer_is_not_lost() {
    let hasty = answering("HTTP/1.1 200 Connection established\r\n\r\nSSH-2.0-hasty\r\n").await;
    let options = DialOptions { proxy: Some(format!("http://{hasty}").parse().unwrap()), ..DialOptions::default() };
    let mut connection = soon(dialer(&format!("{NOWHERE}:22"), options).dial()).await.unwrap();
    assert_eq!(connection.peer().map(|peer| peer.to_string()), Some(hasty), "the proxy is the peer");
    let mut read = Vec::new();
    soon(connection.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"SSH-2.0-hasty\r\n");
}

#[tokio::test]
async fn a_command_carries_bytes_both_ways_and_ends_in_order() {
    let mut cat = soon(dialer("exec:cat", DialOptions::default()).dial()).await.unwrap();
    assert_eq!(cat.peer(), None);
    let (mut from, mut to) = tokio::io::split(&mut cat);
    let writing = async {
        to.write_all(&pattern(LEN, 3)).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut bytes = Vec::new();
    let (_, read) = soon(async { tokio::join!(writing, from.read_to_end(&mut bytes)) }).await;
    read.unwrap();
    assert!(bytes == pattern(LEN, 3));
    assert_eq!(soon(cat.read(&mut [0])).await.unwrap(), 0, "it stays at its end");
}

/// What was on its way when we closed is read, up to the peer's Close.
#[tokio::test]
async fn a_websocket_is_read_to_the_peers_close() {
    let acceptor = bind("ws://127.0.0.1:0/", Default::default()).await;
    let dialer = dialer(&acceptor.address().to_string(), DialOptions::default());
    for client_closes in [true, false] {
        let (dialled, accepted) = pair(&acceptor, &dialer).await;
        let (mut first, mut second) = if client_closes { (dialled, accepted) } else { (accepted, dialled) };
        soon(first.shutdown()).await.unwrap();
        assert_eq!(soon(first.write(b"late")).await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        // The other has not read that yet.
        let sent = pattern(100_000, 7);
        let answering = async {
            second.write_all(&sent).await.unwrap();
            second.flush().await.unwrap();
            second.shutdown().await.unwrap();
            assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(second.write(b"late").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
            second.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, outcome) = soon(async { tokio::join!(answering, first.read_to_end(&mut read)) }).await;
        outcome.unwrap();
        assert!(read == sent, "{} bytes of {}", read.len(), sent.len());
    }
}

/// Whoever does not read stops the writer, after a few buffers' full.
#[tokio::test]
async fn nothing_is_queued_for_a_peer_that_does_not_read() {
    let pki = Pki::new();
    for address in ["ws://127.0.0.1:0/", "wss://127.0.0.1:0/", "tls://127.0.0.1:0", &pki.socket("no reader")] {
        let acceptor = bind(address, pki.honest_server()).await;
        let dialer = dialer(&reached_as(&acceptor, "localhost"), pki.client());
        let (mut near, far) = pair(&acceptor, &dialer).await;
        let piece = vec![0; 256 << 10];
        let mut taken = 0;
        let stopped = soon(async {
            loop {
                let write = std::pin::pin!(near.write(&piece));
                tokio::select! {
                    biased;
                    written = write => taken += written.unwrap(),
                    // The kernel takes what it can at once.
                    () = std::future::ready(()), if taken > 0 => break taken,
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(stopped < 16 << 20, "{address}: {stopped} bytes");
        drop(far);
    }
}
