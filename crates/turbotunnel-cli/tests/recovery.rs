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

/// 500 bytes there and back, while the first connection is cut as planned, this far away. Returns how long it took, and how often it was cut.
async fn echo_500(server: std::net::SocketAddr, plan: Plan, delay: Duration) -> (Duration, u64) {
    let cutter = Lilbastard::bind("127.0.0.1:0", server, plan.clone()).await.expect("loopback has free ports");
    let distance = Plan { delay, ..Plan::default() };
    let path = Lilbastard::bind("127.0.0.1:0", cutter.local_addr(), distance).await.expect("loopback has free ports");
    let near = if delay.is_zero() { cutter.local_addr() } else { path.local_addr() };
    let sent: Vec<u8> = (0..500_u32).map(|i| (i * 7 % 251) as u8).collect();
    let began = Instant::now();
    let mut stream = Stream::connect(near).await.expect("the cutter accepts");
    stream.write_all(&sent).await.expect("the session lives");
    let mut back = vec![0; sent.len()];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut back))
        .await
        .unwrap_or_else(|_| panic!("nothing came back after {plan:?}"))
        .expect("the session lives");
    let took = began.elapsed();
    assert_eq!(back, sent, "{plan:?}");
    (took, cutter.counters().cuts)
}

/// The first carrier is cut after every single byte, up and down, by FIN and by RST.
fn every_cut() -> impl Iterator<Item = Plan> {
    (0..=200).flat_map(|at| {
        [How::Fin, How::Rst].into_iter().flat_map(move |how| {
            let up = Plan { cut_after_up: Some(at), only_first: true, how, ..Plan::default() };
            let down = Plan { cut_after_down: Some(at), only_first: true, how, ..Plan::default() };
            [up, down]
        })
    })
}

#[tokio::test]
async fn a_cut_after_any_byte_heals_within_milliseconds() {
    let server = echo_server().await;
    let mut took = Vec::new();
    for plan in every_cut() {
        let (time, cuts) = echo_500(server, plan.clone(), Duration::ZERO).await;
        assert_eq!(cuts, 1, "the cut never came: {plan:?}");
        took.push(time);
    }
    took.sort();
    let (median, p99, max) = (took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]);
    println!("{} cuts: median {median:?}, p99 {p99:?}, max {max:?}", took.len());
    assert!(median <= Duration::from_millis(50), "median {median:?}");
    assert!(p99 <= Duration::from_millis(250), "p99 {p99:?}");
}

/// What the cuts cost in the simulator, over a path of this delay with a relay on the client's side.
fn simulated_costs(delay: Duration) -> Vec<Duration> {
    use turbotunnel_sim::{Fault, How as SimHow, Link, Script, Traffic, When, secs, us};
    let script = |faults: Vec<(u32, Fault)>| Script {
        link: Link::new(delay).dials_in(us(100)),
        faults,
        // The program writes when the server has answered.
        traffic: vec![Traffic::echo(500).stays_open().starts_at(2 * delay)],
        limit: secs(20),
        ..Script::new(1)
    };
    let time = |script: Script| {
        let mut sim = script.sim("simulated_costs");
        sim.run_until(secs(20), |sim| sim.client_app().received() == 500)
    };
    let uncut = time(script(Vec::new()));
    let cuts = every_cut().map(|plan| {
        let how = if plan.how == How::Fin { SimHow::Fin } else { SimHow::Rst };
        let when = plan.cut_after_up.map(When::Up).or(plan.cut_after_down.map(When::Down)).expect("a cut");
        time(script(vec![(1, Fault::new(when, how))])).saturating_sub(uncut)
    });
    cuts.collect()
}

/// All other tests of recovery are simulated. What they say holds on real sockets: the same cuts on a path of the same delay cost the same, within a
/// factor of two at every tenth of the distribution.
#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_tells_the_truth() {
    const AT_ONCE: usize = 8;
    let delay = Duration::from_millis(10);
    let server = echo_server().await;
    let mut runs = tokio::task::JoinSet::new();
    let (mut uncut, mut real, mut missed) = (Vec::new(), Vec::new(), 0);
    let mut done = |(planned, (time, cuts))| match (planned, cuts) {
        (false, _) => uncut.push(time),
        (true, 0) => missed += 1,
        (true, _) => real.push(time),
    };
    for (i, plan) in every_cut().enumerate() {
        // The uncut ones among the others: whatever else this machine does, it does to all of them.
        for (planned, plan) in [(true, plan)].into_iter().chain((i % 10 == 0).then(|| (false, Plan::default()))) {
            if runs.len() == AT_ONCE {
                done(runs.join_next().await.expect("there are some").expect("it does not panic"));
            }
            runs.spawn(async move { (planned, echo_500(server, plan, delay).await) });
        }
    }
    runs.join_all().await.into_iter().for_each(done);
    uncut.sort();
    let uncut = uncut[uncut.len() / 2];
    let mut real: Vec<_> = real.into_iter().map(|time| time.saturating_sub(uncut)).collect();
    let mut simulated = simulated_costs(delay);
    // A machine that is busy for long enough makes the client give the first carrier up before it has carried so much.
    assert!(missed * 20 <= simulated.len(), "{missed} of {} cuts never came", simulated.len());
    real.sort();
    simulated.sort();
    println!("uncut {uncut:?}");
    for tenth in 1..10 {
        let (real, simulated) = (real[real.len() * tenth / 10], simulated[simulated.len() * tenth / 10]);
        println!("{tenth}0 %: real {real:?}, simulated {simulated:?}");
        // Half a round trip is what a scheduler may cost on a busy machine.
        assert!(real <= 2 * simulated + delay && simulated <= 2 * real + delay, "{real:?} and {simulated:?}");
    }
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
