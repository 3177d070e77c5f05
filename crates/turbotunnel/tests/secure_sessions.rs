//! Sessions between ends that have keys: what works, and what strangers, thieves and those on the way achieve. Connections in memory, tokio's paused clock.

#![allow(clippy::disallowed_methods, reason = "tokio's clock, which stands still here")]

#[allow(unreachable_pub, dead_code, reason = "a module of this test only, and of its neighbours")]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{connect, data, echo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, timeout};
use turbotunnel::control::{ByeReason, Control, Hello, Limit};
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::secure::{HEADER_LEN, Initiator, InitiatorRandom, MESSAGE_3_LEN, PublicKey, Route, StaticKey, Suite};
use turbotunnel::{
    Builder, Clients, Config, Event, Limits, Listener, ListenerBuilder, Rate, Session, SessionError, SessionId,
};

const IMMORTAL: fn(u32) -> u64 = |_| u64::MAX;

fn server_key() -> StaticKey {
    StaticKey::from_bytes(&[1; 32])
}

fn client() -> Builder {
    Session::builder().server_key(server_key().public())
}

fn server() -> ListenerBuilder {
    Listener::builder().server_keys([server_key()])
}

fn echoing(builder: ListenerBuilder) -> Arc<Listener> {
    let listener = Arc::new(builder.detached());
    let accepting = Arc::downgrade(&listener);
    tokio::spawn(async move {
        while let Some(listener) = accepting.upgrade() {
            let accepted = timeout(Duration::from_secs(100_000), listener.accept()).await;
            let Ok(Ok((stream, _))) = accepted else { return };
            tokio::spawn(echo(stream));
        }
    });
    listener
}

/// Sends `len` bytes over a new stream and has them back.
async fn there_and_back(session: &Session, len: u64) {
    let (mut from, mut to) = tokio::io::split(session.open().await.unwrap());
    let sent = data(len);
    let sending = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(sending, from.read_to_end(&mut back));
    read.unwrap();
    assert!(back == data(len), "{} bytes came back, or others", back.len());
}

/// What somebody on the way does to the bytes of one direction of carrier number `.0`, beginning with byte `.1`.
type Meddle = Arc<dyn Fn(u32, usize, &mut Vec<u8>) + Send + Sync>;

/// Everything that has passed, both ways, one entry for each carrier.
type Tapes = Arc<Mutex<Vec<[Vec<u8>; 2]>>>;

fn nothing() -> Meddle {
    Arc::new(|_, _, _| {})
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (tapes, carrier, way): (Tapes, u32, usize),
    meddle: Meddle,
) {
    let mut offset = 0;
    let mut buffer = vec![0; 32 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut bytes = buffer[..read].to_vec();
        meddle(carrier, offset, &mut bytes);
        offset += read;
        tapes.lock().unwrap()[carrier as usize][way].extend_from_slice(&bytes);
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// A connection to `listener` with somebody in between.
fn tapped(listener: &Listener, tapes: &Tapes, [up, down]: &[Meddle; 2]) -> DuplexStream {
    let (ours, near) = tokio::io::duplex(64 << 10);
    let (far, theirs) = tokio::io::duplex(64 << 10);
    let carrier = {
        let mut tapes = tapes.lock().unwrap();
        tapes.push([Vec::new(), Vec::new()]);
        tapes.len() as u32 - 1
    };
    listener.attach(theirs, None);
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    tokio::spawn(pass(near_read, far_write, (tapes.clone(), carrier, 0), up.clone()));
    tokio::spawn(pass(far_read, near_write, (tapes.clone(), carrier, 1), down.clone()));
    ours
}

async fn connect_tapped(
    builder: Builder,
    listener: &Arc<Listener>,
    meddle: [Meddle; 2],
) -> Result<(Session, Tapes), SessionError> {
    let tapes = Tapes::default();
    let (of_dialer, listener) = (tapes.clone(), listener.clone());
    let dial = move |_| {
        let connection = tapped(&listener, &of_dialer, &meddle);
        async move { Ok(connection) }
    };
    builder.connect(dial).await.map(|session| (session, tapes))
}

#[tokio::test(start_paused = true)]
async fn a_transfer_over_carriers_that_are_cut_is_intact_in_each_suite() {
    for suite in Suite::ALL {
        let listener = echoing(server());
        let (session, dials) = connect(client().suite(suite), &listener, |n| 20_000 + u64::from(n % 7) * 9_999).await;
        there_and_back(&session, 1 << 20).await;
        session.close().await.unwrap();
        assert!(dials.load(Ordering::Relaxed) > 20, "{suite:?}: it was cut");
        let stats = listener.stats();
        assert_eq!((stats.sessions_begun, stats.handshakes_failed, stats.clients_refused), (1, 0, 0), "{suite:?}");
    }
}

/// Cut at each of the first bytes: handshake, HELLO and all.
#[tokio::test(start_paused = true)]
async fn a_cut_anywhere_in_the_handshake_costs_a_carrier_and_nothing_else() {
    let listener = echoing(server());
    for life in (0..3_000).step_by(61) {
        let (session, _) = connect(client(), &listener, move |n| if n < 3 { life } else { u64::MAX }).await;
        there_and_back(&session, 500).await;
        session.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_said_can_be_seen_on_the_way() {
    let listener = echoing(server());
    let (session, tapes) = connect_tapped(client(), &listener, [nothing(), nothing()]).await.unwrap();
    let mut stream = session.open().await.unwrap();
    stream.write_all(&[b'a'; 4000]).await.unwrap();
    let mut back = vec![0; 4000];
    stream.read_exact(&mut back).await.unwrap();
    let tapes = tapes.lock().unwrap();
    for bytes in tapes.iter().flatten() {
        assert!(bytes.len() > 4000);
        let id = session.id().0;
        assert!(!bytes.windows(8).any(|seen| seen == id || seen == [b'a'; 8]));
        assert!(!bytes.windows(8).any(|seen| seen == &server_key().public().as_bytes()[..8]));
    }
}

/// Somebody has learned the id of a session, and the server's public key, and has a key of his own.
#[tokio::test(start_paused = true)]
async fn the_id_of_a_session_is_worth_nothing_to_another_client() {
    let listener = echoing(server());
    let id = SessionId(*b"known to");
    let own = StaticKey::from_bytes(&[2; 32]);
    let (victim, dials) = connect(client().session_id(id).client_key(own.clone()), &listener, IMMORTAL).await;
    let mut stream = victim.open().await.unwrap();
    stream.write_all(b"before").await.unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).await.unwrap();

    let (thief, _) = connect(client().session_id(id), &listener, IMMORTAL).await;
    assert_eq!(listener.sessions(), 2, "it is another session");
    there_and_back(&thief, 100_000).await;
    thief.close().await.unwrap();

    stream.write_all(b"behind").await.unwrap();
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!((&back, dials.load(Ordering::Relaxed)), (b"behind", 1), "the carrier was not even changed");
    there_and_back(&victim, 100_000).await;
}

#[tokio::test(start_paused = true)]
async fn the_server_knows_whose_session_it_is() {
    let listener = Arc::new(server().detached());
    let own = StaticKey::from_bytes(&[2; 32]);
    let (session, _) = connect(client().client_key(own.clone()), &listener, IMMORTAL).await;
    assert_eq!(listener.accept_session().await.unwrap().client_key(), Some(own.public()));
    assert_eq!(session.client_key(), None);
    let plain = Arc::new(Listener::builder().plain().detached());
    let (_session, _) = connect(Session::builder().plain(), &plain, IMMORTAL).await;
    assert_eq!(plain.accept_session().await.unwrap().client_key(), None);
}

/// Somebody on the way changes one bit of each of the first carriers, in either direction, sooner or later.
#[tokio::test(start_paused = true)]
async fn changed_bytes_cost_a_carrier_and_nothing_else() {
    for way in 0..2 {
        let listener = echoing(server());
        let meddle: Meddle = Arc::new(|carrier, offset, bytes| {
            let at = 2_500 + carrier as usize * 7_001;
            if carrier < 8
                && let Some(byte) = at.checked_sub(offset).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= 0x10;
            }
        });
        let meddle = if way == 0 { [meddle, nothing()] } else { [nothing(), meddle] };
        let (session, tapes) = connect_tapped(client(), &listener, meddle).await.unwrap();
        let accepting = session.clone();
        there_and_back(&session, 1 << 20).await;
        assert_eq!(tapes.lock().unwrap().len(), 9, "each of them ended there");
        if way == 1 {
            assert_eq!(accepting.stats().tunnel.carriers_forged, 8);
        }
        assert_eq!(listener.stats().sessions_begun, 1);
    }
}

/// Behind a good handshake the first record of all is changed. There is no session yet that could count it, so the listener does.
#[tokio::test(start_paused = true)]
async fn a_first_record_that_does_not_open_is_counted() {
    let listener = echoing(server());
    let records = HEADER_LEN + Suite::for_this_machine().message_1_len() + MESSAGE_3_LEN;
    let meddle: Meddle = Arc::new(move |carrier, offset, bytes| {
        if carrier == 0
            && let Some(byte) = (records + 5).checked_sub(offset).and_then(|at| bytes.get_mut(at))
        {
            *byte ^= 1;
        }
    });
    let (session, tapes) = connect_tapped(client(), &listener, [meddle, nothing()]).await.unwrap();
    there_and_back(&session, 1000).await;
    assert_eq!(tapes.lock().unwrap().len(), 2);
    let stats = listener.stats();
    assert_eq!((stats.handshakes, stats.sessions_begun, stats.strangers_not_understood), (2, 1, 1));
}

/// Bytes of an old carrier are put into a new one, and its own are repeated.
#[tokio::test(start_paused = true)]
async fn spliced_and_repeated_records_cost_a_carrier_and_nothing_else() {
    for repeat in [false, true] {
        let listener = echoing(server());
        let old = Arc::new(Mutex::new(Vec::new()));
        let meddle: Meddle = Arc::new(move |carrier, offset, bytes| {
            let mut old = old.lock().unwrap();
            if carrier == 0 && offset > 1145 && old.is_empty() {
                old.clone_from(bytes);
                if repeat {
                    let again = bytes.clone();
                    bytes.extend_from_slice(&again);
                } else {
                    // It has to end in some way.
                    bytes[10] ^= 1;
                }
            } else if carrier == 1 && offset > 1145 && !repeat {
                let mut spliced = old.clone();
                spliced.append(bytes);
                *bytes = spliced;
            }
        });
        let (session, _) = connect_tapped(client(), &listener, [nothing(), meddle]).await.unwrap();
        there_and_back(&session, 300_000).await;
        assert_eq!(session.stats().tunnel.carriers_forged, if repeat { 1 } else { 2 });
    }
}

/// All that a client has said on a carrier is said again, while its session is in use and after it.
#[tokio::test(start_paused = true)]
async fn a_recorded_carrier_that_is_played_again_changes_nothing_but_a_counter() {
    let listener = echoing(server());
    let (session, tapes) = connect_tapped(client(), &listener, [nothing(), nothing()]).await.unwrap();
    there_and_back(&session, 50_000).await;
    let play = async |bytes: Vec<u8>| {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        listener.attach(theirs, None);
        let _ = ours.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(60), ours.read_to_end(&mut answer)).await.expect("it is closed");
        answer.len()
    };
    let recorded = tapes.lock().unwrap()[0][0].clone();
    for n in 1..=5 {
        assert_eq!(play(recorded.clone()).await, 1145, "a second message, and the end");
        assert_eq!(listener.stats().handshakes_failed, n);
        there_and_back(&session, 50_000).await;
    }
    assert_eq!(session.stats().tunnel.carriers, 1, "nothing has come of it");
    assert_eq!(listener.stats().handshakes, 1);
    session.close().await.unwrap();
    assert_eq!(play(recorded).await, 1145);
    assert_eq!(listener.stats().sessions_begun, 1);
}

/// What somebody may say first who does not know the server's key, or knows it and cannot go on.
fn bad_beginnings() -> Vec<(&'static str, Vec<u8>)> {
    let mut first = Vec::new();
    let (key, own) = (server_key().public(), StaticKey::from_bytes(&[3; 32]));
    let random = InitiatorRandom::generate().unwrap();
    let _ = Initiator::start(&key, &own, Suite::ChaChaPoly, Route::ANY, &random, &mut first);
    let mut other_key = Vec::new();
    let _ = Initiator::start(&own.public(), &own, Suite::ChaChaPoly, Route::ANY, &random, &mut other_key);
    let mut forged = first.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut hello = b"an old i".to_vec();
    let mut batch = PacketBatch::new();
    batch.push_with(|out| {
        let token = [0; 8];
        Control::Hello(Hello {
            version: 1,
            heard: true,
            spare: false,
            conv: 7,
            carrier: 1,
            una: kcp::Sn::new(0),
            token,
        })
        .encode(out);
        true
    });
    hello.extend_from_slice(batch.as_bytes());
    vec![
        ("nothing", Vec::new()),
        ("a byte", vec![0]),
        ("fifteen bytes", vec![7; 15]),
        ("half of a header", first[..HEADER_LEN / 2].to_vec()),
        ("a header", first[..HEADER_LEN].to_vec()),
        ("all but one byte of a first message", first[..first.len() - 1].to_vec()),
        ("a first message for another key", other_key),
        ("a first message that does not verify", forged.clone()),
        ("the same and more", [forged, vec![9; 5000]].concat()),
        ("the plain format", hello),
        ("34 bytes that reset a session of the worked example", [&b"8 bytes!\x00\x18"[..], &[0; 24]].concat()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec()),
        ("TLS", [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[0x5a; 506]].concat()),
        ("zeros", vec![0; 4000]),
    ]
}

/// Nobody learns from silence what was wrong, because it is the same silence.
#[tokio::test(start_paused = true)]
async fn strangers_hear_nothing_whatever_they_say_and_for_the_same_time() {
    let listener = server().detached();
    let mut listening = Vec::new();
    for (what, bytes) in bad_beginnings() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let began = Instant::now();
        listener.attach(theirs, None);
        listening.push(tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(&mut ours);
            // All of it is taken, and byte after byte after that.
            let saying = async {
                write.write_all(&bytes).await.unwrap_or_else(|e| panic!("{what}: {e}"));
                std::future::pending::<()>().await;
            };
            let mut heard = Vec::new();
            tokio::select! {
                () = saying => {}
                ended = read.read_to_end(&mut heard) => { ended.unwrap(); }
            }
            (what, heard.len(), began.elapsed())
        }));
    }
    let strangers = listening.len() as u64;
    for listening in listening {
        let (what, heard, after) = listening.await.unwrap();
        assert_eq!((heard, after), (0, Duration::from_secs(10)), "{what}");
    }
    let stats = listener.stats();
    assert_eq!((stats.strangers_timed_out, stats.strangers_now, stats.handshakes), (strangers, 0, 0));
}

/// A client with the wrong key, one that speaks to a plain server, and one whose server speaks of something else: one error.
#[tokio::test(start_paused = true)]
async fn whoever_is_not_the_server_is_told_in_one_error() {
    let other = Arc::new(Listener::builder().server_keys([StaticKey::from_bytes(&[9; 32])]).detached());
    let plain = Arc::new(Listener::builder().detached());
    for listener in [other, plain] {
        for fail_fast in [true, false] {
            let began = Instant::now();
            let builder = client().fail_fast(fail_fast).give_up_after(Duration::from_secs(60));
            let error = connect_tapped(builder, &listener, [nothing(), nothing()]).await.map(drop).unwrap_err();
            assert_eq!(error, SessionError::NoValidAnswer);
            let limit = Duration::from_secs(if fail_fast { 8 } else { 60 });
            assert!(began.elapsed() <= limit, "{:?}", began.elapsed());
        }
        assert_eq!(listener.sessions(), 0);
    }
    let http = |_| async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 12);
        tokio::spawn(async move {
            let _ = theirs.write_all(&b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(50)).await;
            sleep(Duration::from_secs(1)).await;
        });
        Ok(ours)
    };
    let error = client().fail_fast(true).connect(http).await.map(drop).unwrap_err();
    assert_eq!(error, SessionError::NoValidAnswer);
    assert!(error.to_string().starts_with("no valid answer"));
}

#[tokio::test(start_paused = true)]
async fn a_plain_client_gets_no_answer_from_a_server_with_keys() {
    let listener = Arc::new(server().detached());
    let builder = Session::builder().give_up_after(Duration::from_secs(30));
    let error = connect_tapped(builder, &listener, [nothing(), nothing()]).await.map(drop).unwrap_err();
    assert!(matches!(error, SessionError::NeverConnected(_)), "{error}");
    assert_eq!(listener.sessions(), 0);
}

fn only(keys: impl IntoIterator<Item = PublicKey>) -> Clients {
    keys.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_on_the_list_is_told_so_within_two_round_trips() {
    let own = StaticKey::from_bytes(&[2; 32]);
    let listener = echoing(server().clients(only([own.public()])));
    let (session, _) = connect(client().client_key(own), &listener, IMMORTAL).await;
    there_and_back(&session, 1000).await;
    let began = Instant::now();
    let refused = connect_tapped(client(), &listener, [nothing(), nothing()]).await;
    assert_eq!(refused.map(drop).unwrap_err(), SessionError::NotAdmitted);
    assert!(began.elapsed() < Duration::from_secs(1));
    let stats = listener.stats();
    assert_eq!((stats.clients_refused, stats.sessions_now), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_taken_off_the_list_loses_its_sessions_within_a_second() {
    let (one, other) = (StaticKey::from_bytes(&[2; 32]), StaticKey::from_bytes(&[3; 32]));
    let listener = echoing(server().clients(only([one.public(), other.public()])));
    let (stays, _) = connect(client().client_key(one.clone()), &listener, IMMORTAL).await;
    let (goes, _) = connect(client().client_key(other.clone()), &listener, IMMORTAL).await;
    there_and_back(&goes, 1000).await;
    listener.set_clients(only([one.public()]));
    let ended = timeout(Duration::from_secs(1), goes.closed()).await.expect("at once");
    assert_eq!(ended, SessionError::ClosedByPeer(ByeReason::NotAdmitted));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(listener.sessions(), 1);
    there_and_back(&stays, 1000).await;
    let refused = connect_tapped(client().client_key(other.clone()), &listener, [nothing(), nothing()]).await;
    assert_eq!(refused.map(drop).unwrap_err(), SessionError::NotAdmitted);
    listener.set_clients(Clients::Anyone);
    let (back, _) = connect(client().client_key(other), &listener, IMMORTAL).await;
    there_and_back(&back, 1000).await;
}

/// The client is without a carrier when it is taken off the list, so it hears no goodbye. It is told when it is back.
#[tokio::test(start_paused = true)]
async fn a_client_that_was_away_when_it_was_taken_off_the_list_hears_of_it() {
    let own = StaticKey::from_bytes(&[2; 32]);
    let listener = echoing(server().clients(only([own.public()])));
    let blocked = Arc::new(AtomicU32::new(1));
    let gate = blocked.clone();
    let life = move |n| match (n, gate.load(Ordering::Relaxed)) {
        (1, _) => 20_000,
        (_, 1) => 0,
        _ => u64::MAX,
    };
    let (session, _) = connect(client().client_key(own), &listener, life).await;
    let stream = session.open().await.unwrap();
    let talking = tokio::spawn(async move {
        let mut stream = stream;
        let _ = stream.write_all(&data(100_000)).await;
        stream.read_to_end(&mut Vec::new()).await
    });
    sleep(Duration::from_secs(5)).await;
    listener.set_clients(only([]));
    sleep(Duration::from_secs(5)).await;
    blocked.store(0, Ordering::Relaxed);
    let ended = timeout(Duration::from_secs(10), session.closed()).await.expect("soon");
    assert_eq!(ended, SessionError::NotAdmitted);
    assert!(talking.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn keys_are_changed_from_one_to_the_next_without_losing_anybody() {
    let new = StaticKey::from_bytes(&[4; 32]);
    let listener = echoing(server());
    let (old_client, _) = connect(client(), &listener, |_| 30_000).await;
    there_and_back(&old_client, 100_000).await;
    listener.set_server_keys([new.clone(), server_key()]);
    let (new_client, _) = connect(Session::builder().server_key(new.public()), &listener, |_| 30_000).await;
    there_and_back(&old_client, 100_000).await;
    there_and_back(&new_client, 100_000).await;
    listener.set_server_keys([new]);
    there_and_back(&new_client, 100_000).await;
    let refused = connect_tapped(client().fail_fast(true), &listener, [nothing(), nothing()]).await;
    assert_eq!(refused.map(drop).unwrap_err(), SessionError::NoValidAnswer);
}

/// Keys are forgotten within the hour, and nobody notices.
#[tokio::test(start_paused = true)]
async fn a_carrier_is_replaced_after_an_hour_before_it_breaks() {
    let listener = echoing(server());
    let (session, tapes) = connect_tapped(client(), &listener, [nothing(), nothing()]).await.unwrap();
    let mut stream = session.open().await.unwrap();
    let mut longest = Duration::ZERO;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2 * 3600 + 60) {
        let asked = Instant::now();
        stream.write_all(b"still there?").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        longest = longest.max(asked.elapsed());
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(tapes.lock().unwrap().len(), 3, "one an hour");
    assert!(longest < Duration::from_millis(100), "{longest:?}");
    assert_eq!(listener.stats().carriers_now, 1, "the old ones are gone");
}

#[tokio::test(start_paused = true)]
async fn later_carriers_begin_as_the_server_wants_and_otherwise_at_random() {
    let listener = echoing(server().route(Route::new(&[0xbe, 0xef]).unwrap()));
    let (session, tapes) = connect_tapped(client(), &listener, [nothing(), nothing()]).await.unwrap();
    for _ in 0..3 {
        session.redial();
        there_and_back(&session, 1000).await;
        sleep(Duration::from_secs(5)).await;
    }
    let tapes = tapes.lock().unwrap();
    let begin: Vec<&[u8]> = tapes.iter().map(|[up, _]| &up[..8]).collect();
    assert_eq!(begin.len(), 4);
    for (n, route) in begin.iter().enumerate().skip(1) {
        assert_eq!(route[..2], [0xbe, 0xef]);
        assert!(begin[..n].iter().all(|other| other[2..] != route[2..]), "nothing else is like before");
    }
}

/// Handshakes cost more than connections: they have a rate, and whoever waits gets his.
#[tokio::test(start_paused = true)]
async fn handshakes_beyond_the_rate_wait() {
    let mut limits = Limits::default();
    limits.handshakes = Rate { per_second: 1, burst: 2 };
    let listener = echoing(server().limits(limits));
    let began = Instant::now();
    for _ in 0..4 {
        let (session, _) = connect(client(), &listener, IMMORTAL).await;
        there_and_back(&session, 100).await;
    }
    assert!((2..4).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!((listener.stats().handshakes, listener.stats().handshakes_refused_by_rate), (4, 2));
}

/// What a client is told, as [`Builder::on_event`] tells it.
fn told(builder: Builder) -> (Builder, Arc<Mutex<Vec<Event>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = told.clone();
    (builder.on_event(move |event| teller.lock().unwrap().push(event)), told)
}

/// One client has as many sessions as he may. The next is told so and waits until one of them is over; another client does not.
#[tokio::test(start_paused = true)]
async fn sessions_of_one_key_beyond_the_limit_wait_and_those_of_others_do_not() {
    let mut limits = Limits::default();
    limits.sessions_per_client = 2;
    let listener = echoing(server().limits(limits));
    let own = StaticKey::from_bytes(&[2; 32]);
    let (first, _) = connect(client().client_key(own.clone()), &listener, IMMORTAL).await;
    let (second, _) = connect(client().client_key(own.clone()), &listener, IMMORTAL).await;
    let (builder, heard) = told(client().client_key(own.clone()));
    let waiting = {
        let listener = listener.clone();
        tokio::spawn(async move { connect(builder, &listener, IMMORTAL).await.0 })
    };
    sleep(Duration::from_millis(10)).await;
    let limit = Limit::SessionsOfClient;
    assert!(matches!(heard.lock().unwrap()[..], [Event::Held { number: 1, limit: why }] if why == limit));
    sleep(Duration::from_secs(3)).await;
    assert!(!waiting.is_finished());
    assert_eq!(heard.lock().unwrap().len(), 1, "told once, and asked for room every 50 ms");
    let began = Instant::now();
    let (other, _) = connect(client(), &listener, IMMORTAL).await;
    there_and_back(&other, 1000).await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    let stats = listener.stats();
    assert_eq!((stats.sessions_refused_of_client, stats.sessions_now, stats.clients_now), (1, 3, 2));

    let closed = Instant::now();
    first.close().await.unwrap();
    there_and_back(&waiting.await.unwrap(), 1000).await;
    assert!(closed.elapsed() < Duration::from_secs(1), "{:?}", closed.elapsed());
    there_and_back(&second, 1000).await;
}

/// The same for one that does not want to wait, at once, and for one that does not want to wait for ever.
#[tokio::test(start_paused = true)]
async fn a_client_that_gives_up_waiting_for_room_says_which_limit_it_was() {
    let mut limits = Limits::default();
    limits.sessions = 1;
    let listener = echoing(server().limits(limits));
    let (session, _) = connect(client(), &listener, IMMORTAL).await;
    let began = Instant::now();
    let refused = connect_tapped(client().fail_fast(true), &listener, [nothing(), nothing()]).await;
    assert_eq!(refused.map(drop).unwrap_err(), SessionError::Full(Limit::Sessions));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let patient = client().give_up_after(Duration::from_secs(40));
    let refused = connect_tapped(patient, &listener, [nothing(), nothing()]).await;
    assert_eq!(refused.map(drop).unwrap_err(), SessionError::Full(Limit::Sessions));
    there_and_back(&session, 1000).await;
}

/// While a client is away somebody else takes the last place for a connection. It is told so, and goes on when the other has gone.
#[tokio::test(start_paused = true)]
async fn a_session_that_finds_no_place_for_its_next_carrier_is_told_and_goes_on_when_there_is_one() {
    let mut limits = Limits::default();
    limits.carriers = 1;
    let listener = echoing(server().limits(limits));
    let away = Arc::new(AtomicBool::new(true));
    let life = {
        let away = away.clone();
        move |n| match (n, away.load(Ordering::Relaxed)) {
            (1, _) => 20_000,
            (_, true) => 0,
            _ => u64::MAX,
        }
    };
    let (builder, heard) = told(client());
    let (session, _) = connect(builder, &listener, life).await;
    let talking = tokio::spawn(async move { there_and_back(&session, 100_000).await });
    sleep(Duration::from_secs(5)).await;
    let (other, _) = connect(client(), &listener, IMMORTAL).await;
    away.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(5)).await;
    let held = |event: &Event| matches!(event, Event::Held { limit: Limit::Carriers, .. });
    assert!(heard.lock().unwrap().iter().any(held), "{heard:?}");
    assert!(!talking.is_finished());
    other.close().await.unwrap();
    timeout(Duration::from_secs(5), talking).await.expect("soon").unwrap();
}

/// In the plain format anybody may say anything: this ends no session there.
#[tokio::test(start_paused = true)]
async fn a_plain_session_does_not_believe_that_it_is_not_admitted_or_held() {
    let listener = echoing(Listener::builder().config(Config::default()));
    let meddle: Meddle = Arc::new(|_, offset, bytes| {
        // In front of HELLO (conv at its bytes 3 to 6): who has been heard is not believed to have no room.
        if offset == 0 && bytes.len() > 25 {
            let conv = bytes[5..9].to_vec();
            let not_admitted = [&[0, 5, 7][..], &conv].concat();
            let held = [&[0, 6, 8][..], &conv, &[1]].concat();
            bytes.splice(0..0, [not_admitted, held].concat());
        }
    });
    let (session, _) =
        connect_tapped(Session::builder().fail_fast(true), &listener, [nothing(), meddle]).await.unwrap();
    there_and_back(&session, 10_000).await;
}

/// Real sockets: the first address of the link is nobody's, and what is on the second is the server.
#[tokio::test]
async fn a_link_is_enough_to_connect_over_tcp() {
    let listener = server().bind("127.0.0.1:0").await.unwrap();
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let link = turbotunnel::secure::Link::new(server_key().public(), [nobody, listener.local_addr().unwrap()]).unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        echo(stream).await.unwrap();
        listener
    });
    let session = Session::builder().connect_link(&link.to_string().parse().unwrap()).await.unwrap();
    there_and_back(&session, 1 << 20).await;
    session.close().await.unwrap();
    assert_eq!(serving.await.unwrap().stats().handshakes, 1);
}
