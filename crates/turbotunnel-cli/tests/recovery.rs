//! How long a cut takes to heal, on real sockets over loopback.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turbotunnel::{Listener, Stream};
use turbotunnel_cli::lilbastard::{How, Lilbastard, Plan};

async fn echo_server() -> std::net::SocketAddr {
    let listener = Listener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    addr
}

/// 500 bytes there and back, while the first connection is cut as planned. Returns how long it took.
async fn echo_500(server: std::net::SocketAddr, plan: Plan) -> Duration {
    let cutter = Lilbastard::bind("127.0.0.1:0", server, plan.clone()).await.expect("loopback has free ports");
    let sent: Vec<u8> = (0..500_u32).map(|i| (i * 7 % 251) as u8).collect();
    let began = Instant::now();
    let mut stream = Stream::connect(cutter.local_addr()).await.expect("the cutter accepts");
    stream.write_all(&sent).await.expect("the session lives");
    let mut back = vec![0; sent.len()];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut back))
        .await
        .unwrap_or_else(|_| panic!("nothing came back after {plan:?}"))
        .expect("the session lives");
    let took = began.elapsed();
    assert_eq!(back, sent, "{plan:?}");
    assert_eq!(cutter.counters().cuts, 1, "the cut never came: {plan:?}");
    took
}

/// The first carrier is cut after every single byte, up and down, by FIN and by RST.
#[tokio::test]
async fn a_cut_after_any_byte_heals_within_milliseconds() {
    let server = echo_server().await;
    let mut took = Vec::new();
    for at in 0..=200 {
        for how in [How::Fin, How::Rst] {
            let up = Plan { cut_after_up: Some(at), only_first: true, how, ..Plan::default() };
            let down = Plan { cut_after_down: Some(at), only_first: true, how, ..Plan::default() };
            took.push(echo_500(server, up).await);
            took.push(echo_500(server, down).await);
        }
    }
    took.sort();
    let (median, p99, max) = (took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]);
    println!("{} cuts: median {median:?}, p99 {p99:?}, max {max:?}", took.len());
    assert!(median <= Duration::from_millis(50), "median {median:?}");
    assert!(p99 <= Duration::from_millis(250), "p99 {p99:?}");
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Up,
    Down,
}

/// 24 MB at 8 MB/s in one direction over a path that goes silent in the middle. Returns the longest pause that the reader saw.
async fn longest_gap(direction: Direction) -> Duration {
    const LEN: usize = 24_000_000;
    let listener = Listener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let plan =
        Plan { bytes: Some(8_000_000), only_first: true, how: How::Stall, rate: Some(8_000_000), ..Plan::default() };
    let cutter = Lilbastard::bind("127.0.0.1:0", listener.local_addr().expect("it is bound"), plan)
        .await
        .expect("loopback has free ports");
    let mut client = Stream::connect(cutter.local_addr()).await.expect("the cutter accepts");
    // The first byte tells the server of the stream.
    client.write_all(b"!").await.expect("the session lives");
    let (mut server, _) = listener.accept().await.expect("it listens");
    let _ = server.read_u8().await.expect("the session lives");
    let (mut from, mut to) = match direction {
        Direction::Up => (server, client),
        Direction::Down => (client, server),
    };
    let sent: Vec<u8> = (0..LEN).map(|i| (i * 31 % 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        to.write_all(&sent).await.expect("the session lives");
        to.shutdown().await.expect("the session lives");
        to
    });
    let (mut got, mut last, mut longest) = (Vec::new(), Instant::now(), Duration::ZERO);
    while got.len() < LEN {
        let n = from.read_buf(&mut got).await.expect("the session lives");
        assert!(n > 0, "{direction:?}: the end after {} bytes", got.len());
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    assert!(got == expected, "{direction:?}");
    assert_eq!(cutter.counters().cuts, 1, "{direction:?}: the stall never came");
    writer.await.expect("it does not panic");
    longest
}

/// Nothing arrives any more, nothing fails: noticed and healed within four seconds, whichever way the bytes go.
#[tokio::test]
async fn a_stall_in_mid_transfer_costs_at_most_four_seconds() {
    let (up, down) = tokio::join!(longest_gap(Direction::Up), longest_gap(Direction::Down));
    println!("longest gap: upload {up:?}, download {down:?}");
    assert!(up <= Duration::from_secs(4), "upload: {up:?}");
    assert!(down <= Duration::from_secs(4), "download: {down:?}");
}
