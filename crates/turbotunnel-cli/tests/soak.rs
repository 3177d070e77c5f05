//! Many sessions over real sockets, each of whose connections is cut after one to thirty seconds. No error, and nothing grows.
//!
//! `SOAK_SECONDS=120 SOAK_SESSIONS=200 cargo test -p turbotunnel-cli --test soak -- --nocapture` is what CI runs.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use turbotunnel::{Listener, Session};
use turbotunnel_cli::lilbastard::{How, Lilbastard, Plan};
use turbotunnel_cli::process;
use turbotunnel_sim::Way;
use turbotunnel_sim::pattern::Pattern;

/// Each session says so many bytes ...
const PIECE: usize = 1_000;
/// ... so often, and expects them back.
const EVERY: Duration = Duration::from_millis(50);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What this process holds: memory in KiB, and descriptors.
fn held() -> (u64, usize) {
    let id = std::process::id();
    (process::resident(id) as u64, process::descriptors(id).expect("Linux has it"))
}

async fn serve(listener: Listener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut to).await.expect("the session lives");
            to.shutdown().await.expect("the session lives");
        });
    }
}

/// Talks until `end`, and returns how many carriers that took.
async fn talk(server: SocketAddr, number: u64, end: Instant) -> u64 {
    let session = Session::connect(server).await.expect("the server answers");
    let stream = session.open().await.expect("the session lives");
    let (mut from, mut to) = tokio::io::split(stream);
    let pattern = Pattern::new(number, 3, Way::Up);
    let writing = tokio::spawn(async move {
        let (mut sent, mut ticks) = (0, interval(EVERY));
        while Instant::now() < end {
            ticks.tick().await;
            let mut piece = [0; PIECE];
            pattern.fill(sent, &mut piece);
            to.write_all(&piece).await.expect("the session lives");
            sent += PIECE as u64;
        }
        to.shutdown().await.expect("the session lives");
        sent
    });
    let (mut received, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        let n = from.read(&mut buffer).await.expect("the session lives");
        if n == 0 {
            break;
        }
        assert_eq!(pattern.first_wrong(received, &buffer[..n]), None, "session {number}");
        received += n as u64;
    }
    assert_eq!(writing.await.expect("it does not panic"), received, "session {number}");
    let carriers = session.stats().tunnel.carriers;
    session.close().await.expect("everything was acknowledged");
    carriers
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_live_on_and_nothing_grows() {
    let (seconds, sessions) = (setting("SOAK_SECONDS", 12), setting("SOAK_SESSIONS", 40));
    let before = held();
    let listener = Listener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    let serving = tokio::spawn(serve(listener));
    let plan = Plan {
        after: Some(Duration::from_millis(15_500)),
        jitter: 14.5 / 15.5,
        how: How::Fin,
        then: vec![How::Rst, How::Stall],
        seed: 1,
        ..Plan::default()
    };
    let cutter = Lilbastard::bind("127.0.0.1:0", address, plan).await.expect("loopback has free ports");

    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let mut talks = JoinSet::new();
    for number in 0..sessions {
        talks.spawn(talk(cutter.local_addr(), number, end));
    }
    // Once everything that happens has happened, it is as large as it will be.
    let mut samples = Vec::new();
    for part in [5, 6, 7, 8, 9, 10] {
        tokio::time::sleep_until(begin + (end - begin) * part / 10).await;
        samples.push(held());
    }
    let carriers: u64 = talks.join_all().await.into_iter().sum();
    let cuts = cutter.counters().cuts;
    println!(
        "{sessions} sessions, {seconds} s: {carriers} carriers, {cuts} cuts; KiB and descriptors {before:?} {samples:?}"
    );
    assert!(cuts >= sessions * seconds / 31, "{cuts} cuts");
    let (memory, descriptors) = samples[0];
    for sample in &samples[1..] {
        assert!(sample.0 <= memory + memory / 5 + 4096, "memory grows: {samples:?}");
        assert!(sample.1 <= descriptors + descriptors / 4 + 20, "descriptors grow: {samples:?}");
    }

    drop(cutter);
    serving.abort();
    // Silent connections are closed by the server after a minute at the latest; most go with the cutter.
    for _ in 0..700 {
        if held().1 <= before.1 + 8 {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("descriptors are left: {} now, {} before", held().1, before.1);
}
