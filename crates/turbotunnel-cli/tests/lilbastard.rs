//! The cutter cuts where and how it was asked to, and does nothing else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use turbotunnel_cli::lilbastard::{Counters, How, Lilbastard, Plan};

/// Longer than anything here takes; a test that gets there has failed.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: still waiting after {PATIENCE:?}"))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// A client connected to a server through the cutter.
struct Pair {
    cutter: Lilbastard,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

async fn pair(plan: Plan) -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let cutter = Lilbastard::bind("127.0.0.1:0", upstream, plan).await.unwrap();
    let (client, server) = connect(&cutter, &listener).await;
    Pair { cutter, listener, client, server }
}

async fn connect(cutter: &Lilbastard, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let (client, server) =
        soon("connect", async { tokio::join!(TcpStream::connect(cutter.local_addr()), listener.accept()) }).await;
    (client.unwrap(), server.unwrap().0)
}

/// Everything until the end, and how it ended.
async fn read_all(mut stream: TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut bytes = Vec::new();
    let end = soon("read to the end", stream.read_to_end(&mut bytes)).await;
    (bytes, end.err().map(|e| e.kind()))
}

#[tokio::test]
async fn without_limits_bytes_and_ends_of_file_pass_both_ways() {
    let mut p = pair(Plan::default()).await;
    let sent = pattern(3_000_000);
    let (mut from_client, mut to_server) = p.client.split();
    let (mut from_server, mut to_client) = p.server.split();
    let mut up = Vec::new();
    let mut down = Vec::new();
    soon("both ways", async {
        tokio::join!(
            async {
                to_server.write_all(&sent).await.unwrap();
                to_server.shutdown().await.unwrap();
            },
            async {
                from_server.read_to_end(&mut up).await.unwrap();
                // The other direction is still open after this one has ended.
                to_client.write_all(&sent).await.unwrap();
                to_client.shutdown().await.unwrap();
            },
            async { from_client.read_to_end(&mut down).await.unwrap() },
        )
    })
    .await;
    assert!(up == sent && down == sent);
    let end = soon("end", p.cutter.wait_for(|c| c.live == 0)).await;
    let expected = (1, 0, 3_000_000, 3_000_000);
    assert_eq!((end.connections, end.cuts, end.bytes_up, end.bytes_down), expected);
}

#[tokio::test]
async fn cuts_after_exactly_the_asked_byte_in_either_direction() {
    for how in [How::Fin, How::Rst] {
        for n in [0, 1, 2, 7, 8, 9, 200, 65_535, 65_536, 65_537, 300_001] {
            for up in [true, false] {
                let cut = Some(n as u64);
                let plan = if up {
                    Plan { cut_after_up: cut, how, ..Plan::default() }
                } else {
                    Plan { cut_after_down: cut, how, ..Plan::default() }
                };
                let p = pair(plan).await;
                let (mut writer, reader) = if up { (p.client, p.server) } else { (p.server, p.client) };
                let sent = pattern(n + 1000);
                let writing = tokio::spawn(async move {
                    // Fails when the cut comes first.
                    let _ = writer.write_all(&sent).await;
                    (writer, sent)
                });
                let (got, end) = read_all(reader).await;
                let (writer, sent) = soon("writer", writing).await.unwrap();
                if how == How::Fin {
                    assert_eq!(end, None, "an end in order, n = {n}, up = {up}");
                    assert!(got == sent[..n], "{} bytes passed instead of {n}, up = {up}", got.len());
                } else {
                    assert_eq!(end, Some(io::ErrorKind::ConnectionReset), "n = {n}, up = {up}");
                    // A reset may overtake what the system still holds.
                    assert!(sent[..n].starts_with(&got), "{} bytes passed, limit {n}, up = {up}", got.len());
                    let small = n <= 65_536;
                    assert!(!small || got.len() == n, "{} bytes passed instead of {n}, up = {up}", got.len());
                }
                drop(writer);
                let counters = p.cutter.counters();
                let passed = if up { counters.bytes_up } else { counters.bytes_down };
                assert_eq!((counters.cuts, passed), (1, n as u64), "{how} up = {up}");
            }
        }
    }
}

#[tokio::test]
async fn cuts_after_so_many_bytes_in_both_directions_together() {
    let mut p = pair(Plan { bytes: Some(150), ..Plan::default() }).await;
    let mut answer = [0; 100];
    p.client.write_all(&[1; 100]).await.unwrap();
    soon("up", p.server.read_exact(&mut answer)).await.unwrap();
    p.server.write_all(&[2; 100]).await.unwrap();
    let (got, end) = read_all(p.client).await;
    assert_eq!((got, end), (vec![2; 50], None));
    assert_eq!(p.cutter.counters().cuts, 1);
}

#[tokio::test]
async fn cuts_after_a_time() {
    let after = Duration::from_millis(60);
    let began = Instant::now();
    let mut p = pair(Plan { after: Some(after), how: How::Rst, ..Plan::default() }).await;
    let mut one = [0];
    let end = soon("cut", p.client.read(&mut one)).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(began.elapsed() >= after);
    let end = soon("cut", p.server.read(&mut one)).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn fin_is_no_reset_even_while_both_ends_go_on_sending() {
    let mut p = pair(Plan::default()).await;
    let (client_reads, client_writes) = p.client.split();
    let (server_reads, server_writes) = p.server.split();
    let chunk = pattern(8192);
    let sends = async |mut stream: tokio::net::tcp::WriteHalf<'_>| while stream.write_all(&chunk).await.is_ok() {};
    let reads = async |mut stream: tokio::net::tcp::ReadHalf<'_>| {
        let mut bytes = vec![0; 8192];
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) => return None,
                Ok(_) => {}
                Err(e) => return Some(e.kind()),
            }
        }
    };
    // The writers go on for ever, so what counts is how both readers end.
    let ended = soon("fin", async {
        tokio::select! {
            ends = async { tokio::join!(reads(client_reads), reads(server_reads)) } => ends,
            _ = async { tokio::join!(sends(client_writes), sends(server_writes)) } => panic!("the writers gave up first"),
            () = async { p.cutter.cut_now(How::Fin); std::future::pending().await } => unreachable!(),
        }
    })
    .await;
    assert_eq!(ended, (None, None));
}

#[tokio::test]
async fn a_stalled_connection_passes_nothing_and_tells_nobody() {
    let mut p = pair(Plan { cut_after_up: Some(3), how: How::Stall, ..Plan::default() }).await;
    p.client.write_all(b"abcdef").await.unwrap();
    let mut three = [0; 3];
    soon("three bytes", p.server.read_exact(&mut three)).await.unwrap();
    assert_eq!(&three, b"abc");
    soon("cut", p.cutter.wait_for(|c| c.cuts == 1)).await;
    p.server.write_all(b"an answer").await.unwrap();
    p.client.write_all(b"more").await.unwrap();
    let mut any = [0; 16];
    let quiet = Duration::from_millis(100);
    assert!(timeout(quiet, p.server.read(&mut any)).await.is_err(), "something came through a stalled connection");
    assert!(timeout(quiet, p.client.read(&mut any)).await.is_err(), "something came through a stalled connection");
    // One end hangs up: even that is not told.
    drop(p.client);
    assert!(timeout(quiet, p.server.read(&mut any)).await.is_err(), "the stalled end was told");
}

#[tokio::test]
async fn half_ends_one_direction_and_leaves_the_other() {
    let mut p = pair(Plan { cut_after_down: Some(2), how: How::Half, ..Plan::default() }).await;
    p.server.write_all(b"abcd").await.unwrap();
    let mut got = Vec::new();
    soon("client's end of file", p.client.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"ab");
    p.client.write_all(b"still going up").await.unwrap();
    let mut up = [0; 14];
    soon("up", p.server.read_exact(&mut up)).await.unwrap();
    assert_eq!(&up, b"still going up");
    // The server may send for ever, nothing comes of it and nothing blocks.
    soon("swallowed", p.server.write_all(&pattern(5_000_000))).await.unwrap();
    p.client.shutdown().await.unwrap();
    p.server.shutdown().await.unwrap();
    let end = soon("end", p.cutter.wait_for(|c| c.live == 0)).await;
    // "cd" was never read: the limit lies before it, until the cut.
    assert_eq!(end.bytes_swallowed, 5_000_002);
    assert_eq!((end.cuts, end.bytes_down), (1, 2));
}

#[tokio::test]
async fn during_an_outage_connections_are_refused_and_afterwards_not() {
    let outage = Duration::from_millis(150);
    let p = pair(Plan { cut_after_up: Some(0), how: How::Rst, only_first: true, outage, ..Plan::default() }).await;
    let (_, end) = read_all(p.client).await;
    assert_eq!(end, Some(io::ErrorKind::ConnectionReset));
    let cut = Instant::now();
    let addr = p.cutter.local_addr();
    let refused = TcpStream::connect(addr).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    // Nobody else gets the port meanwhile (who asks for exactly this one, and to share it, could).
    #[cfg(target_os = "linux")]
    {
        let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        assert_eq!(other.bind(&addr.into()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
    let back = soon("the end of the outage", async {
        loop {
            match TcpStream::connect(addr).await {
                Ok(stream) => return stream,
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused),
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The cut was noticed a little after it was made.
    assert!(cut.elapsed() > outage / 2, "refused for {:?} only", cut.elapsed());
    let (server, _) = soon("accept", p.listener.accept()).await.unwrap();
    drop((back, server));
}

/// Who notices the cut at once, on another core, is refused all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_slips_in_between_the_cut_and_the_outage() {
    for _ in 0..50 {
        let outage = Duration::from_secs(10);
        let p = pair(Plan { how: How::Rst, outage, ..Plan::default() }).await;
        soon("up", p.cutter.wait_for(|c| c.live == 1)).await;
        let addr = p.cutter.local_addr();
        let dialling = tokio::task::spawn_blocking(move || {
            let mut client = p.client.into_std().unwrap();
            client.set_nonblocking(false).unwrap();
            let cut = io::Read::read(&mut client, &mut [0]).unwrap_err().kind();
            (cut, std::net::TcpStream::connect(addr).map_err(|e| e.kind()).is_ok())
        });
        p.cutter.cut_now(How::Rst);
        let (cut, connected) = soon("cut", dialling).await.unwrap();
        assert_eq!(cut, io::ErrorKind::ConnectionReset);
        assert!(!connected, "connected during an outage");
        drop(p.server);
    }
}

#[tokio::test]
async fn only_the_first_connection_is_cut_if_asked() {
    let p = pair(Plan { cut_after_up: Some(1), only_first: true, ..Plan::default() }).await;
    let (mut second, mut server) = connect(&p.cutter, &p.listener).await;
    second.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    soon("second connection", server.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn kinds_of_cut_take_turns() {
    let plan = Plan { cut_after_up: Some(1), how: How::Fin, then: vec![How::Rst], ..Plan::default() };
    let mut p = pair(plan).await;
    let mut ends = Vec::new();
    for _ in 0..4 {
        p.client.write_all(b"x").await.unwrap();
        ends.push(read_all(p.client).await.1);
        (p.client, p.server) = connect(&p.cutter, &p.listener).await;
    }
    let reset = Some(io::ErrorKind::ConnectionReset);
    assert_eq!(ends, [None, reset, None, reset]);
}

#[tokio::test]
async fn an_order_cuts_what_is_up() {
    let p = pair(Plan::default()).await;
    let (second, _server) = connect(&p.cutter, &p.listener).await;
    soon("two up", p.cutter.wait_for(|c| c.live == 2)).await;
    p.cutter.cut_now(How::Rst);
    assert_eq!(read_all(p.client).await.1, Some(io::ErrorKind::ConnectionReset));
    assert_eq!(read_all(second).await.1, Some(io::ErrorKind::ConnectionReset));
    assert_eq!(p.cutter.counters().cuts, 2);
    let (mut third, mut server) = connect(&p.cutter, &p.listener).await;
    third.write_all(b"x").await.unwrap();
    soon("third", server.read_exact(&mut [0])).await.unwrap();
}

#[tokio::test]
async fn a_reset_is_passed_on_after_what_came_before_it() {
    let mut p = pair(Plan::default()).await;
    p.server.write_all(b"last words").await.unwrap();
    let mut words = [0; 10];
    soon("words", p.client.read_exact(&mut words)).await.unwrap();
    p.server.set_zero_linger().unwrap();
    drop(p.server);
    assert_eq!(read_all(p.client).await.1, Some(io::ErrorKind::ConnectionReset));
    assert_eq!(p.cutter.counters().cuts, 0);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_resets_the_client() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cutter = Lilbastard::bind("127.0.0.1:0", nobody, Plan::default()).await.unwrap();
    let client = TcpStream::connect(cutter.local_addr()).await.unwrap();
    assert_eq!(read_all(client).await.1, Some(io::ErrorKind::ConnectionReset));
    assert_eq!(cutter.counters().unreachable, 1);
}

#[tokio::test]
async fn dropping_the_cutter_closes_what_it_holds() {
    let p = pair(Plan::default()).await;
    let addr = p.cutter.local_addr();
    drop(p.cutter);
    read_all(p.client).await;
    read_all(p.server).await;
    soon("the port is free", async { while TcpListener::bind(addr).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_delay_is_kept_and_loses_nothing() {
    let delay = Duration::from_millis(40);
    let mut p = pair(Plan { delay, ..Plan::default() }).await;
    let sent = pattern(2_000_000);
    let began = Instant::now();
    let (mut got, mut first) = (Vec::new(), None);
    soon("transfer", async {
        tokio::join!(
            async {
                p.client.write_all(&sent).await.unwrap();
                p.client.shutdown().await.unwrap();
            },
            async {
                while p.server.read_buf(&mut got).await.unwrap() > 0 {
                    first.get_or_insert_with(|| began.elapsed());
                }
            }
        )
    })
    .await;
    assert!(got == sent);
    assert!(first.unwrap() >= delay, "first byte after {first:?}");
}

#[tokio::test]
async fn a_rate_is_kept() {
    let mut p = pair(Plan { rate: Some(1_000_000), ..Plan::default() }).await;
    let sent = pattern(200_000);
    let began = Instant::now();
    let mut got = vec![0; sent.len()];
    let (wrote, read) =
        soon("transfer", async { tokio::join!(p.client.write_all(&sent), p.server.read_exact(&mut got)) }).await;
    assert!(wrote.is_ok() && read.is_ok());
    assert!(got == sent);
    // 200 kB at 1 MB/s: 200 ms, less what may pass at once.
    assert!(began.elapsed() >= Duration::from_millis(170), "took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_plan_that_makes_no_sense_is_refused() {
    let plan = Plan { jitter: 1.5, ..Plan::default() };
    let error = Lilbastard::bind("127.0.0.1:0", "127.0.0.1:1", plan).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_idle_proxy_has_counted_nothing() {
    let cutter = Lilbastard::bind("127.0.0.1:0", "127.0.0.1:1", Plan::default()).await.unwrap();
    assert_eq!(cutter.counters(), Counters::default());
    let addr: SocketAddr = cutter.local_addr();
    assert_ne!(addr.port(), 0);
}
