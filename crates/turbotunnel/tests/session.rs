//! Sessions, streams and listeners over connections in memory, on tokio's paused clock: no sleep takes time.

#[allow(unreachable_pub, reason = "a module of this test only")]
mod common;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{connect, data, echo, echo_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turbotunnel::{CarrierEnd, Config, Event, Listener, PeerKind, Session, SessionError, Stream};

const IMMORTAL: fn(u32) -> u64 = |_| u64::MAX;

async fn echoed(stream: Stream, sent: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(stream);
    let (got, ()) = tokio::join!(
        async {
            let mut got = Vec::new();
            from.read_to_end(&mut got).await.unwrap();
            got
        },
        async {
            to.write_all(sent).await.unwrap();
            to.shutdown().await.unwrap();
        }
    );
    got
}

#[tokio::test(start_paused = true)]
async fn what_is_written_comes_back_and_then_the_end() {
    let listener = echo_server(Config::default());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    for len in [0, 1, 1000, 65_536, 3_000_000] {
        let sent = data(len);
        assert!(echoed(session.open().await.unwrap(), &sent).await == sent, "{len} bytes");
    }
    assert_eq!(session.stats().tunnel.peer, PeerKind::Ours);
    assert_eq!(session.stats().tunnel.segments_resent, 0);
}

/// Every connection dies after 20 to 60 kB. No byte is lost, doubled or out of place.
#[tokio::test(start_paused = true)]
async fn a_stream_outlives_its_carriers() {
    let listener = echo_server(Config::default());
    let life = |n: u32| 20_000 + u64::from(n.wrapping_mul(2_654_435_761) % 40_000);
    let (session, dials) = connect(Session::builder(), &listener, life).await;
    let sent = data(2_000_000);
    assert!(echoed(session.open().await.unwrap(), &sent).await == sent);
    let dials = dials.load(Ordering::Relaxed);
    assert!(dials > 60, "4 MB over connections of at most 60 kB, but only {dials} of them");
}

#[tokio::test(start_paused = true)]
async fn the_other_direction_stays_open_after_shutdown() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let mut client = session.open().await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut server, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.session, session.id());
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(client.write(b"more").await.unwrap_err().kind(), ErrorKind::NotConnected);
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_a_reader_that_does_not_read() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let mut client = session.open().await.unwrap();
    let sent = data(20_000_000);
    let mut taken = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_secs(1), client.write(&sent[taken..])).await {
        taken += n.unwrap();
    }
    let config = Config::default();
    assert!(taken <= config.stream_window as usize + config.send_buffer + 65_536, "{taken} bytes taken");
    let (mut server, _) = listener.accept().await.unwrap();
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        got
    });
    let writing = client.write_all(&sent[taken..]);
    tokio::time::timeout(Duration::from_secs(60), writing).await.expect("the writer is woken").unwrap();
    client.shutdown().await.unwrap();
    assert!(reader.await.unwrap() == sent);
}

/// Its peer sends first and reads later; what a write takes at once was told before, so nothing is ever left over.
#[tokio::test(start_paused = true)]
async fn who_reads_what_he_has_room_for_holds_nothing() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let (mut from, mut to) = tokio::io::split(session.open().await.unwrap());
    let sent = data(4_000_000);
    to.write_all(b"first").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let back = tokio::spawn(async move {
        let (mut buffer, mut waits) = (vec![0; 65_536], 0);
        loop {
            let room = poll_fn(|cx| {
                let room = server.poll_room(cx, buffer.len());
                waits += u32::from(room.is_pending());
                room
            });
            let room = room.await.unwrap().min(buffer.len());
            assert!(room > 0);
            let n = server.read(&mut buffer[..room]).await.unwrap();
            if n == 0 {
                server.shutdown().await.unwrap();
                return waits;
            }
            assert_eq!(server.write(&buffer[..n]).await.unwrap(), n);
        }
    });
    let mut taken = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_secs(1), to.write(&sent[taken..])).await {
        taken += n.unwrap();
    }
    assert!(taken < sent.len(), "nobody reads the echo");
    let mut got = vec![0; 5 + sent.len()];
    let writing = async {
        to.write_all(&sent[taken..]).await?;
        to.shutdown().await
    };
    let both = async { tokio::join!(writing, from.read_exact(&mut got)) };
    let (written, read) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it is woken");
    written.and(read).unwrap();
    assert!(got.starts_with(b"first") && got[5..] == sent);
    assert!(back.await.unwrap() > 5, "it has waited");
}

#[tokio::test(start_paused = true)]
async fn dropped_calls_lose_and_repeat_nothing() {
    let listener = echo_server(Config::default());
    let (session, _) = connect(Session::builder(), &listener, |_| 30_000).await;
    let (mut from, mut to) = tokio::io::split(session.open().await.unwrap());
    let sent = data(300_000);
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        let mut done = 0;
        while done < copy.len() {
            let n = tokio::select! {
                biased;
                n = to.write(&copy[done..copy.len().min(done + 777)]) => n.unwrap(),
                () = tokio::time::sleep(Duration::from_micros(1)) => 0,
            };
            done += n;
        }
        to.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    loop {
        let mut piece = [0; 999];
        tokio::select! {
            biased;
            n = from.read(&mut piece) => match n.unwrap() {
                0 => break,
                n => got.extend_from_slice(&piece[..n]),
            },
            () = tokio::time::sleep(Duration::from_micros(1)) => {}
        }
    }
    writer.await.unwrap();
    assert!(got == sent);
}

#[tokio::test(start_paused = true)]
async fn shutdown_completes_only_when_the_peer_has_acknowledged() {
    let listener = Arc::new(Listener::builder().detached());
    // The first connection is cut below, the next dials fail for five seconds.
    let began = tokio::time::Instant::now();
    let (attaching, relays) = (listener.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let relaying = relays.clone();
    let session = Session::builder()
        .connect(move |attempt| {
            let refused = attempt.number > 1 && began.elapsed() < Duration::from_secs(5);
            let (attaching, relaying) = (attaching.clone(), relaying.clone());
            async move {
                if refused {
                    return Err(ErrorKind::ConnectionRefused.into());
                }
                let ((ours, mut a), (mut b, theirs)) = (tokio::io::duplex(1000), tokio::io::duplex(1000));
                attaching.attach(theirs, None);
                let relay = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut a, &mut b).await });
                relaying.lock().unwrap().push(relay);
                Ok(ours)
            }
        })
        .await
        .unwrap();
    let mut stream = session.open().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    relays.lock().unwrap()[0].abort();
    stream.write_all(b"hi").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(5), "acknowledged by nobody");
    stream.finished().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_tells_the_server_and_the_last_words_arrive() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let mut stream = session.open().await.unwrap();
    stream.write_all(&data(100_000)).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    session.close().await.unwrap();
    let ended = server.session().closed().await;
    assert!(matches!(ended, SessionError::ClosedByPeer(_)), "{ended}");
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert!(got == data(100_000));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(listener.sessions(), 0);
    assert!(matches!(session.open().await.unwrap_err(), SessionError::Closed));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_the_session_in_the_background() {
    let listener = echo_server(Config::default());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let mut stream = session.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut x = [0];
    stream.read_exact(&mut x).await.unwrap();
    assert_eq!(listener.sessions(), 1);
    drop(session);
    drop(stream);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(listener.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_reader_drops_fails_the_writer() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let mut client = session.open().await.unwrap();
    client.write_all(b"x").await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    drop(server);
    let error = loop {
        match tokio::time::timeout(Duration::from_secs(60), client.write_all(&[0; 10_000])).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => break error,
            Err(_) => panic!("the writer hangs"),
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn without_a_server_the_first_dial_is_repeated_or_not_as_asked() {
    let refused = |_| async { Err::<tokio::io::DuplexStream, _>(ErrorKind::ConnectionRefused.into()) };
    let began = tokio::time::Instant::now();
    let error = Session::builder().fail_fast(true).connect(refused).await.unwrap_err();
    assert!(matches!(&error, SessionError::NeverConnected(why) if why.contains("refused")), "{error}");
    assert_eq!(began.elapsed(), Duration::ZERO);

    let error = Session::builder().connect(refused).await.unwrap_err();
    assert!(matches!(&error, SessionError::NeverConnected(why) if why.contains("refused")), "{error}");
    assert_eq!(began.elapsed().as_secs(), 120, "the time to live");
}

/// After four seconds another dial goes out beside the first. When that fails and all is over, it is its reason that is told.
#[tokio::test(start_paused = true)]
async fn a_dial_that_takes_long_is_told_with_its_own_reason() {
    let (tell, mut events) = tokio::sync::mpsc::unbounded_channel();
    let builder = Session::builder().fail_fast(true).on_event(move |event| {
        let _ = tell.send(event);
    });
    let portal = |_| async {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        Err::<tokio::io::DuplexStream, _>(std::io::Error::other("captive portal"))
    };
    let error = builder.connect(portal).await.unwrap_err();
    assert!(matches!(&error, SessionError::NeverConnected(why) if why == "captive portal"), "{error}");
    let told = events.recv().await;
    assert!(matches!(&told, Some(Event::DialFailed { error, .. }) if error == "captive portal"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn events_tell_of_carriers_lost_and_gained() {
    let listener = echo_server(Config::default());
    let (tell, mut events) = tokio::sync::mpsc::unbounded_channel();
    let builder = Session::builder().on_event(move |event| {
        let _ = tell.send(event);
    });
    let (session, _) = connect(builder, &listener, |n| if n == 1 { 5_000 } else { u64::MAX }).await;
    let sent = data(20_000);
    assert!(echoed(session.open().await.unwrap(), &sent).await == sent);
    session.close().await.unwrap();
    let mut told = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(5), events.recv()).await {
        told.push(event);
    }
    assert!(matches!(told[0], Event::CarrierUp { number: 1, gap: None, resent: 0, .. }), "{told:?}");
    assert!(
        matches!(told[1], Event::CarrierLost { number: 1, reason: CarrierEnd::Failed(ErrorKind::ConnectionReset), .. }),
        "{told:?}"
    );
    assert!(matches!(told[2], Event::CarrierUp { number: 2, gap: Some(_), .. }), "{told:?}");
    assert!(matches!(told[3], Event::SessionEnded(SessionError::Closed)), "{told:?}");
}

/// Ten idle sessions for an hour: the client wakes for its keepalives and their acknowledgements, and nothing else.
#[tokio::test(start_paused = true)]
async fn idle_sessions_wake_up_for_keepalives_only() {
    let listener = Arc::new(Listener::builder().detached());
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(connect(Session::builder(), &listener, IMMORTAL).await.0);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before: Vec<u64> = sessions.iter().map(|session| session.stats().turns).collect();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    for (session, before) in sessions.iter().zip(before) {
        let turns = session.stats().turns - before;
        let keepalives = 3600 / 25;
        assert!(turns >= keepalives && turns <= 2 * keepalives + 4, "{turns} turns for {keepalives} keepalives");
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_can_be_accepted_whole() {
    let listener = Arc::new(Listener::builder().detached());
    let (client, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    let server = listener.accept_session().await.unwrap();
    assert_eq!(server.id(), client.id());
    // The server opens the stream.
    let mut out = server.open().await.unwrap();
    out.write_all(b"hello").await.unwrap();
    let stream = client.accept().await.unwrap();
    tokio::spawn(echo(stream));
    out.shutdown().await.unwrap();
    let mut back = String::new();
    out.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "hello");
}

/// Thousands of connections that say nothing do not keep out one that does, and they are gone after ten seconds.
#[tokio::test(start_paused = true)]
async fn silent_strangers_keep_nobody_out() {
    let listener = echo_server(Config::default());
    let mut strangers = Vec::new();
    for _ in 0..3000 {
        let (ours, theirs) = tokio::io::duplex(64);
        listener.attach(theirs, None);
        strangers.push(ours);
    }
    let began = tokio::time::Instant::now();
    let (session, _) = connect(Session::builder(), &listener, IMMORTAL).await;
    assert!(echoed(session.open().await.unwrap(), b"hello").await == b"hello");
    assert!(began.elapsed() < Duration::from_secs(1), "kept out for {:?}", began.elapsed());
    for stranger in &mut strangers {
        assert_eq!(stranger.read(&mut [0]).await.unwrap(), 0, "closed in order, without a word");
    }
    assert!(began.elapsed() <= Duration::from_secs(10));
}
