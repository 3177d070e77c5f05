//! A server on the open internet: floods, what they leave behind, and who gets in meanwhile. Connections in memory, tokio's paused clock.

#[allow(unreachable_pub, dead_code, reason = "a module of this test only, and of its neighbours")]
mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use common::{connect, echo, echo_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};
use turbotunnel::control::ByeReason;
use turbotunnel::{Config, Limits, Listener, Rate, Session, SessionError};

const IMMORTAL: fn(u32) -> u64 = |_| u64::MAX;

fn from(n: u32) -> Option<SocketAddr> {
    Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), 1234))
}

fn limited(change: impl FnOnce(&mut Limits)) -> Arc<Listener> {
    let mut limits = Limits::default();
    change(&mut limits);
    Arc::new(Listener::builder().limits(limits).detached())
}

/// A connection that says `id` and the first packet of a session: 42 bytes, a smux NOP among them.
async fn open(listener: &Listener, source: Option<SocketAddr>, id: u64) -> DuplexStream {
    let (mut ours, theirs) = tokio::io::duplex(4096);
    listener.attach(theirs, source);
    let mut words = id.to_be_bytes().to_vec();
    words.extend([0, 32, 7, 0, 0, 0, 81, 0, 0, 4]);
    words.extend([0; 12]);
    words.extend([8, 0, 0, 0, 2, 3, 0, 0, 0, 0, 0, 0]);
    // KCP's header is 24 bytes: conv cmd frg wnd ts sn una len.
    assert_eq!(words.len(), 8 + 2 + 24 + 8);
    ours.write_all(&words).await.expect("it is read");
    ours
}

/// 10,000 times connect, id, one packet, close, 2,000 a second, from one address and from many. Ten seconds later nothing is left of it, and an
/// honest client was let in all the time.
#[tokio::test(start_paused = true)]
async fn a_flood_of_sessions_leaves_nothing_behind() {
    for (sources, begun) in [(1, 500..=800), (1000, 4_000..=4_600)] {
        let listener = echo_server(Config::default());
        let mut most = 0;
        for n in 0..10_000 {
            drop(open(&listener, from(n % sources), n.into()).await);
            if n % 2 == 1 {
                sleep(Duration::from_millis(1)).await;
            }
            most = most.max(listener.sessions());
            if n == 9_000 {
                let began = Instant::now();
                let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
                let mut stream = session.open().await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
                stream.read_to_end(&mut Vec::new()).await.unwrap();
                assert!(began.elapsed() < Duration::from_secs(1), "kept out for {:?}", began.elapsed());
                session.close().await.unwrap();
            }
        }
        let stats = listener.stats();
        assert!(begun.contains(&stats.sessions_begun), "{stats:?}");
        assert!(most <= 2_048 + 100, "{most} sessions at once");
        sleep(Duration::from_secs(13)).await;
        let stats = listener.stats();
        assert_eq!((stats.sessions_now, stats.strangers_now, stats.carriers_now), (0, 0, 0), "{stats:?}");
        assert_eq!(stats.sessions_begun, stats.sessions_ended);
        assert_eq!(stats.sessions_abandoned, stats.sessions_begun - 1);
        assert_eq!(stats.sessions_abandoned_early > 0, sources > 1, "{stats:?}");
    }
}

/// A Go client that is refused asks again by itself, as KCP does, as long as it is connected. Its session begins when there is room for it.
#[tokio::test(start_paused = true)]
async fn whoever_is_refused_is_held_and_may_ask_again() {
    let one = Rate { per_second: 1, burst: 1 };
    for (limit, seconds) in [(0, 1), (1, 1), (2, 10), (3, 10), (4, 10)] {
        let listener = limited(|limits| match limit {
            0 => limits.new_sessions = one,
            1 => limits.new_sessions_per_source = one,
            2 => limits.sessions = 1,
            3 => limits.carriers = 1,
            _ => limits.carriers_per_source = 1,
        });
        let first = open(&listener, from(1), 1).await;
        let mut second = open(&listener, from(1), 2).await;
        let began = Instant::now();
        sleep(Duration::from_millis(1)).await;
        let stats = listener.stats();
        assert_eq!((stats.sessions_now, stats.strangers_now), (1, 1), "limit {limit}");
        let refused = [
            stats.sessions_refused_by_rate,
            stats.sessions_refused_by_rate_of_source,
            stats.sessions_refused,
            stats.carriers_refused,
            stats.carriers_refused_of_source,
        ];
        assert_eq!(refused.iter().position(|count| *count > 0), Some(limit));
        assert_eq!(refused.iter().sum::<u64>(), 1, "counted once, by the limit that it was");
        if seconds < 10 {
            sleep(Duration::from_secs(seconds)).await;
            let mut again = [0; 34];
            (again[1], again[2], again[6], again[22]) = (32, 7, 81, 8);
            again[26..28].copy_from_slice(&[2, 3]);
            second.write_all(&again).await.unwrap();
            sleep(Duration::from_millis(1)).await;
            assert_eq!(listener.sessions(), 2, "limit {limit}");
        } else {
            let end = second.read(&mut [0; 100]).await.unwrap();
            assert_eq!((end, began.elapsed().as_secs()), (0, 10), "held in silence");
            assert_eq!(listener.stats().strangers_timed_out, 1);
        }
        drop(first);
    }
}

/// A session comes back when there are as many carriers as there may be. Its connection is held, and let in as soon as another goes: nothing of what it said is
/// lost, and it need not dial again.
#[tokio::test(start_paused = true)]
async fn a_session_that_comes_back_waits_for_a_place() {
    let listener = limited(|limits| limits.carriers = 2);
    let first = open(&listener, from(1), 1).await;
    let second = open(&listener, from(2), 2).await;
    sleep(Duration::from_millis(1)).await;
    drop(first);
    sleep(Duration::from_millis(1)).await;
    let _third = open(&listener, from(3), 3).await;
    sleep(Duration::from_millis(1)).await;
    let _back = open(&listener, from(1), 1).await;
    sleep(Duration::from_secs(1)).await;
    let stats = listener.stats();
    assert_eq!((stats.carriers_now, stats.strangers_now, stats.carriers_refused), (2, 1, 1), "counted once");
    drop(second);
    sleep(Duration::from_millis(60)).await;
    let stats = listener.stats();
    assert_eq!((stats.carriers_now, stats.strangers_now, stats.sessions_now), (2, 0, 3), "let in");
    // And not as one of which nothing has come: it is there.
    sleep(Duration::from_secs(20)).await;
    assert_eq!(listener.stats().sessions_abandoned, 1, "only the second, which has gone");
}

/// Somebody behind the same address opens connections and says nothing. Who speaks gets in; so does everybody behind another address.
#[tokio::test(start_paused = true)]
async fn silent_neighbours_keep_nobody_out() {
    let listener = limited(|_| {});
    let mut silent = Vec::new();
    for n in 0..500_u64 {
        let (ours, theirs) = tokio::io::duplex(64);
        listener.attach(theirs, from(1));
        silent.push(ours);
        if n % 50 == 0 {
            let neighbour = open(&listener, from(1), n).await;
            sleep(Duration::from_millis(1)).await;
            silent.push(neighbour);
        }
    }
    let stats = listener.stats();
    assert_eq!((stats.sessions_now, stats.strangers_now, stats.strangers_dropped_of_source), (10, 64, 500 - 64));
    assert_eq!(stats.strangers_dropped, 0);
}

/// One id, 10,000 connections at once: those of one session are four at a time, however fast they come.
#[tokio::test(start_paused = true)]
async fn the_connections_of_one_session_do_not_pile_up() {
    let listener = limited(|limits| limits.carriers_per_source = usize::MAX);
    let mut held = vec![open(&listener, from(1), 1).await];
    sleep(Duration::from_millis(1)).await;
    for n in 0..10_000 {
        let (mut ours, theirs) = tokio::io::duplex(64);
        listener.attach(theirs, from(1));
        ours.write_all(&1_u64.to_be_bytes()).await.unwrap();
        held.push(ours);
        if n % 50 == 0 {
            sleep(Duration::from_millis(1)).await;
            assert!(listener.stats().carriers_now <= 4, "{:?}", listener.stats());
        }
    }
    assert_eq!(listener.sessions(), 1);
}

/// A thousand clients with the same address begin at the same time, as after a restart of their office's router. All of them get in.
#[tokio::test(start_paused = true)]
async fn an_office_full_of_clients_gets_in() {
    let listener = limited(|_| {});
    let serving = listener.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = serving.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    let clients: Vec<_> = (0..700)
        .map(|_| {
            let listener = listener.clone();
            tokio::spawn(async move {
                let dial = move |_| {
                    let (ours, theirs) = tokio::io::duplex(64 << 10);
                    listener.attach(theirs, from(1));
                    async move { Ok(ours) }
                };
                let session = Session::builder().connect(dial).await.expect("let in");
                let mut stream = session.open().await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert_eq!(answer, "hello");
                session
            })
        })
        .collect();
    let began = Instant::now();
    let mut sessions = Vec::new();
    for client in clients {
        sessions.push(client.await.unwrap());
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(listener.sessions(), 700);
}

/// Sessions that write to a program which reads none of it use up the server's memory. Those that have stood still for longest go, their peers hear why,
/// and one that moves goes on all the time. When the others have gone nothing is left of them.
#[tokio::test(start_paused = true)]
async fn memory_has_a_limit_over_all_sessions() {
    const LIMIT: usize = 16 << 20;
    let listener = limited(|limits| limits.memory = Some(LIMIT));
    let accepting = listener.clone();
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = accepting.accept().await {
            match stream.read_u8().await {
                Ok(b'e') => drop(tokio::spawn(echo(stream))),
                _ => held.push(stream),
            }
        }
    });
    let (honest, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let mut stream = honest.open().await.unwrap();
    stream.write_all(b"e").await.unwrap();
    // It holds enough to be worth its end, too.
    let mut unread = honest.open().await.unwrap();
    unread.write_all(&vec![b'x'; 200_000]).await.unwrap();
    let mut sleepers = Vec::new();
    for _ in 0..30 {
        sleepers.push(connect(Session::builder(), &listener, IMMORTAL).await.0);
    }
    let mut greedy = Vec::new();
    for (n, session) in (0..).zip(sleepers) {
        greedy.push(tokio::spawn(async move {
            let mut words = session.open().await.unwrap();
            let _ = words.write_all(&vec![b'x'; 4 << 20]).await;
            session.closed().await
        }));
        for _ in 0..10 {
            sleep(Duration::from_millis(100)).await;
            let question = [n; 1000];
            stream.write_all(&question).await.unwrap();
            let mut answer = [0; 1000];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, question);
            let used = listener.stats().memory_now;
            assert!(used <= LIMIT + (3 << 20), "{used} bytes after {n} sessions");
        }
    }
    let stats = listener.stats();
    assert!(stats.sessions_shed >= 5, "{stats:?}");
    let mut told = 0;
    for session in greedy {
        if session.is_finished() {
            assert_eq!(session.await.unwrap(), SessionError::ClosedByPeer(ByeReason::OutOfMemory));
            told += 1;
        } else {
            session.abort();
        }
    }
    assert_eq!(told, stats.sessions_shed);
    honest.close().await.unwrap();
    server.abort();
    sleep(Duration::from_secs(150)).await;
    let stats = listener.stats();
    assert_eq!((stats.sessions_now, stats.memory_now), (0, 0), "{stats:?}");
}
