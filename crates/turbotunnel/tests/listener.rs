//! Listeners: who is let in, who is held, and what waits to be accepted. Connections in memory, tokio's paused clock.

#[allow(unreachable_pub, dead_code, reason = "a module of this test only, and of its neighbours")]
mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::connect;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use turbotunnel::control::ByeReason;
use turbotunnel::{Listener, Session, SessionError};

const IMMORTAL: fn(u32) -> u64 = |_| u64::MAX;
const MINUTE: Duration = Duration::from_secs(60);

async fn say(session: &Session, words: &[u8]) {
    let mut stream = session.open().await.unwrap();
    stream.write_all(words).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// `shutdown` and `close` have said that everything is acknowledged. The server was busy meanwhile.
#[tokio::test(start_paused = true)]
async fn acknowledged_streams_are_accepted_after_the_end_of_their_session() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    say(&session, b"first").await;
    say(&session, b"second").await;
    session.close().await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(listener.sessions(), 0);
    for expected in ["first", "second"] {
        let accepted = timeout(MINUTE, listener.accept()).await;
        let (mut stream, peer) = accepted.expect("acknowledged, so it is offered").unwrap();
        assert_eq!(peer.session, session.id());
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, expected);
    }
    assert!(timeout(MINUTE, listener.accept()).await.is_err(), "there were two");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_offered_after_its_end_if_it_has_streams() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    say(&session, b"precious").await;
    session.close().await.unwrap();
    sleep(Duration::from_secs(3)).await;
    let offered = timeout(MINUTE, listener.accept_session()).await.expect("its stream waits").unwrap();
    let mut said = String::new();
    offered.accept().await.unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "precious");
    assert!(offered.accept().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn accept_gives_no_stream_of_a_session_that_was_handed_out() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    say(&session, b"1").await;
    let held = listener.accept_session().await.unwrap();
    say(&session, b"2").await;
    assert!(timeout(MINUTE, listener.accept()).await.is_err());
    for _ in 0..2 {
        timeout(MINUTE, held.accept()).await.expect("both are the holder's").unwrap();
    }
}

/// A Go client whose session was forgotten sends all that it has in flight again. Closed, it would dial again at once, and so on.
#[tokio::test(start_paused = true)]
async fn a_client_of_a_forgotten_session_is_held_however_much_it_sends() {
    let listener = Listener::builder().detached();
    let (mut client, server) = tokio::io::duplex(4096);
    listener.attach(server, None);
    client.write_all(b"8 bytes!").await.unwrap();
    let began = tokio::time::Instant::now();
    let mut packet = vec![0; 2 + 24 + 1000];
    packet[..2].copy_from_slice(&1024_u16.to_be_bytes());
    // conv 7, PUSH number 1,000.
    packet[2] = 7;
    packet[6] = 81;
    packet[14..18].copy_from_slice(&1000_u32.to_le_bytes());
    packet[22..26].copy_from_slice(&1000_u32.to_le_bytes());
    for _ in 0..1_000 {
        client.write_all(&packet).await.expect("it reads on");
    }
    let end = client.read(&mut [0; 100]).await.unwrap();
    assert_eq!((end, began.elapsed()), (0, Duration::from_secs(10)));
    assert_eq!(listener.sessions(), 0);
}

/// A browser that has mistaken the port, a scanner: no answer tells it what is here, and nothing makes it come again at once.
#[tokio::test(start_paused = true)]
async fn somebody_who_speaks_something_else_is_held_in_silence() {
    let listener = Listener::builder().detached();
    for words in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"8 bytes!\x05\xdd and more that is no packet"] {
        let (mut stranger, server) = tokio::io::duplex(4096);
        listener.attach(server, None);
        let began = tokio::time::Instant::now();
        for _ in 0..100 {
            stranger.write_all(words).await.expect("it reads on");
        }
        let end = stranger.read(&mut [0; 100]).await.unwrap();
        assert_eq!((end, began.elapsed()), (0, Duration::from_secs(10)), "{words:?}");
    }
}

/// The server goes away, and whoever has a session hears of it at once.
#[tokio::test(start_paused = true)]
async fn a_listener_that_is_closed_tells_its_peers() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    say(&session, b"hello").await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let began = tokio::time::Instant::now();
    listener.close().await;
    assert_eq!(session.closed().await, SessionError::ClosedByPeer(ByeReason::Shutdown));
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
    // What had come before can still be read.
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!((said.as_str(), listener.sessions()), ("hello", 0));
}

/// What is still on its way when a session ends comes late, and would begin another one of the same name. It is remembered for its time to live.
/// It accepts nothing any more, and says so to who waits and to who comes: a client may not believe that its words have arrived somewhere.
#[tokio::test(start_paused = true)]
async fn a_listener_that_is_closed_lets_nobody_in_and_nobody_wait() {
    let listener = Arc::new(Listener::builder().detached());
    let closed = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotConnected;
    let waits = tokio::spawn({
        let listener = listener.clone();
        async move { listener.accept().await.map(|_| ()) }
    });
    tokio::task::yield_now().await;
    listener.close().await;
    let told = timeout(MINUTE, waits).await.expect("it does not wait for ever").unwrap();
    assert!(told.is_err_and(closed));
    assert!(listener.accept_session().await.is_err_and(closed));
    assert!(listener.listen("127.0.0.1:0").await.is_err_and(closed));

    let (mut ours, theirs) = tokio::io::duplex(1 << 10);
    listener.attach(theirs, None);
    assert_eq!(ours.read(&mut [0]).await.unwrap(), 0, "closed at once");
    assert_eq!((listener.sessions(), listener.stats().connections), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_first_segment_of_an_ended_session_begins_no_ghost() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    session.close().await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(listener.sessions(), 0);
    for (after, sessions) in [(Duration::from_secs(100), 0), (Duration::from_secs(30), 1)] {
        sleep(after).await;
        let (mut late, server) = tokio::io::duplex(4096);
        listener.attach(server, None);
        late.write_all(&session.id().0).await.unwrap();
        // conv 7, PUSH number 0, a smux NOP.
        let mut packet = vec![0; 2 + 24 + 8];
        (packet[1], packet[2], packet[6], packet[22]) = (32, 7, 81, 8);
        packet[26..].copy_from_slice(&[2, 3, 0, 0, 0, 0, 0, 0]);
        late.write_all(&packet).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(listener.sessions(), sessions, "after {after:?} more");
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_accept_that_was_given_up_leaves_no_waker_behind() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let wakers: Vec<Arc<Woken>> = (0..100).map(|_| Arc::default()).collect();
    for woken in &wakers {
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let (on_listener, on_session, end) = (pin!(listener.accept()), pin!(session.accept()), pin!(session.closed()));
        assert!(on_listener.poll(&mut cx).is_pending());
        assert!(on_session.poll(&mut cx).is_pending());
        assert!(end.poll(&mut cx).is_pending());
    }
    assert!(wakers.iter().all(|woken| Arc::strong_count(woken) == 1), "kept");
    say(&session, b"1").await;
    assert!(wakers.iter().all(|woken| woken.0.load(Ordering::Relaxed) == 0));
}
