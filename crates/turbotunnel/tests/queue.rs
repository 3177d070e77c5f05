//! Carriers without connections, on tokio's paused clock: [`Queue`] alone, and sessions over requests and answers that are lost.

#[allow(dead_code, unreachable_pub, reason = "a module of several tests, of which this one needs a part")]
mod common;
#[allow(dead_code, unreachable_pub, reason = "a program of its own")]
#[path = "../examples/http_polling.rs"]
mod http_polling;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{data, echo_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, timeout};
use turbotunnel::carrier::Queue;
use turbotunnel::{Config, Listener, Session};

const WAIT: Duration = Duration::from_secs(25);
const IDLE: Duration = Duration::from_secs(60);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What is there at once.
async fn pull(queue: &Queue, at: u64) -> io::Result<Option<Vec<u8>>> {
    queue.pull(at, 1000, Duration::ZERO).await
}

async fn read(session: &mut DuplexStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    timeout(secs(1000), session.read_exact(&mut bytes)).await.expect("they come").unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn bytes_keep_their_order_whatever_the_sizes() {
    let (session, queue) = Queue::pair(1000);
    let (mut reader, mut writer) = tokio::io::split(session);
    let sent = data(100_000);
    let pulled = async {
        let mut pulled = Vec::new();
        while let Some(bytes) = queue.pull(pulled.len() as u64, 1 + pulled.len() % 1500, WAIT).await.unwrap() {
            pulled.extend(bytes);
        }
        pulled
    };
    let pushed = async {
        let mut at = 0;
        while at < sent.len() {
            let end = sent.len().min(at + 1 + at % 2500);
            queue.push(at as u64, &sent[at..end]).await.unwrap();
            at = end;
        }
        queue.finish().await.unwrap();
    };
    let mut received = Vec::new();
    let written = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (pulled, (), (), _) = tokio::join!(pulled, pushed, written, reader.read_to_end(&mut received));
    assert!(pulled == sent && received == sent);
    // Both directions have ended: there is nothing to wait for.
    timeout(Duration::ZERO, queue.closed(IDLE)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_pushes_waits_for_the_reader_and_nothing_is_dropped() {
    let (mut session, queue) = Queue::pair(100);
    let bytes = data(250);
    assert!(timeout(secs(1000), queue.push(0, &bytes)).await.is_err(), "more than there is room for");
    assert_eq!(read(&mut session, 100).await, bytes[..100], "what there was room for is there");
    // The same once more, and now there is a reader.
    let (pushed, received) = tokio::join!(queue.push(0, &bytes), read(&mut session, 150));
    pushed.unwrap();
    assert_eq!(received, bytes[100..]);
}

/// One capacity waits, and one may be asked for again.
#[tokio::test(start_paused = true)]
async fn a_session_waits_until_its_bytes_have_arrived() {
    let (mut session, queue) = Queue::pair(100);
    let bytes = data(301);
    assert!(timeout(secs(1), session.write_all(&bytes)).await.is_err());
    let first = pull(&queue, 0).await.unwrap().unwrap();
    assert_eq!(first, bytes[..100]);
    assert!(timeout(secs(1), session.write_all(&bytes[100..])).await.is_err(), "only 200 of 201");
    assert_eq!(pull(&queue, 0).await.unwrap().unwrap(), first, "nobody has said that it has arrived");
    assert!(timeout(secs(1), session.write_all(b"!")).await.is_err(), "still no room");
    assert_eq!(pull(&queue, 100).await.unwrap().unwrap(), bytes[100..200]);
    session.write_all(b"!").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_is_answered_when_there_is_something_and_otherwise_when_its_time_is_over() {
    let (mut session, queue) = Queue::pair(1000);
    let start = Instant::now();
    assert_eq!(queue.pull(0, 1000, WAIT).await.unwrap().unwrap(), b"");
    assert_eq!(start.elapsed(), WAIT);
    let (answer, ()) = tokio::join!(queue.pull(0, 1000, WAIT), async {
        sleep(secs(10)).await;
        session.write_all(b"news").await.unwrap();
    });
    assert_eq!(answer.unwrap().unwrap(), b"news");
    assert_eq!(start.elapsed(), WAIT + secs(10));
    queue.pull(0, 1000, WAIT).await.unwrap();
    assert_eq!(start.elapsed(), WAIT + secs(10), "what is there is given at once");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_given_again() {
    let (mut session, queue) = Queue::pair(1000);
    // The connection of the first long poll is dead, but the server does not know that when the second one comes.
    let (first, second, written) =
        tokio::join!(queue.pull(0, 1000, WAIT), queue.pull(0, 1000, WAIT), session.write_all(b"hello"));
    written.unwrap();
    assert_eq!([first.unwrap().unwrap(), second.unwrap().unwrap()], [b"hello"; 2]);
    assert_eq!(pull(&queue, 0).await.unwrap().unwrap(), b"hello", "and once more");
    assert_eq!(pull(&queue, 2).await.unwrap().unwrap(), b"llo", "or what is missing of it");
    session.shutdown().await.unwrap();
    for _ in 0..2 {
        assert_eq!(pull(&queue, 5).await.unwrap(), None, "the end, too");
    }
}

/// A proxy makes a request a second time, and one of the two arrives much later.
#[tokio::test(start_paused = true)]
async fn late_copies_of_requests_change_nothing() {
    let (mut session, queue) = Queue::pair(1000);
    queue.push(0, b"abc").await.unwrap();
    queue.push(3, b"def").await.unwrap();
    queue.push(0, b"abc").await.unwrap();
    queue.push(2, b"cdefg").await.unwrap();
    assert_eq!(read(&mut session, 7).await, b"abcdefg");
    session.write_all(b"123456").await.unwrap();
    assert_eq!(pull(&queue, 0).await.unwrap().unwrap(), b"123456");
    assert_eq!(pull(&queue, 4).await.unwrap().unwrap(), b"56");
    assert_eq!(pull(&queue, 0).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(pull(&queue, 4).await.unwrap().unwrap(), b"56");
    queue.finish().await.unwrap();
    queue.finish().await.unwrap();
    queue.push(3, b"def").await.unwrap();
    assert_eq!(queue.push(7, b"new").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn a_position_that_cannot_be_ends_the_carrier() {
    for gap_in_push in [true, false] {
        let (mut session, queue) = Queue::pair(1000);
        session.write_all(b"123").await.unwrap();
        queue.push(0, b"abc").await.unwrap();
        assert_eq!(pull(&queue, 0).await.unwrap().unwrap(), b"123");
        // Meanwhile somebody waits in the other direction, and whoever looks after the carrier does.
        let too_much = data(2000);
        let waiting = async {
            if gap_in_push { queue.pull(3, 1000, WAIT).await.map(|_| ()) } else { queue.push(3, &too_much).await }
        };
        let foreign = async {
            if gap_in_push { queue.push(4, b"e").await } else { queue.pull(u64::MAX, 1000, WAIT).await.map(|_| ()) }
        };
        let (waiting, foreign, ()) = tokio::join!(waiting, foreign, queue.closed(IDLE));
        let over = [waiting, foreign, queue.push(3, b"d").await, queue.finish().await];
        assert!(over.iter().all(|one| one.as_ref().unwrap_err().kind() == ErrorKind::ConnectionAborted), "{over:?}");
        drop(queue);
        let mut rest = Vec::new();
        session.read_to_end(&mut rest).await.unwrap();
        assert!(rest.starts_with(b"abc"), "and then the end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_nobody_polls_is_over_after_its_idle_time() {
    let (mut session, queue) = Queue::pair(1000);
    let start = Instant::now();
    let polled = async {
        // All of these show that somebody is there: a poll that waits for much longer than the idle time ...
        queue.pull(0, 1000, secs(300)).await.unwrap();
        sleep(secs(59)).await;
        // ... one that is dropped, because the client went away ...
        assert!(timeout(secs(1), queue.pull(0, 1000, WAIT)).await.is_err());
        sleep(secs(59)).await;
        // ... and bytes.
        queue.push(0, b"last").await.unwrap();
        start.elapsed()
    };
    let (last, ()) = tokio::join!(polled, queue.closed(IDLE));
    assert_eq!(start.elapsed(), last + IDLE);
    assert_eq!(pull(&queue, 0).await.unwrap_err().kind(), ErrorKind::TimedOut);
    drop(queue);
    assert_eq!(read(&mut session, 4).await, b"last");
    assert_eq!(session.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(session.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn each_direction_ends_on_its_own() {
    let (mut session, queue) = Queue::pair(1000);
    session.write_all(b"goodbye").await.unwrap();
    session.shutdown().await.unwrap();
    assert_eq!(pull(&queue, 0).await.unwrap().unwrap(), b"goodbye");
    assert_eq!(pull(&queue, 7).await.unwrap(), None);
    queue.push(0, b"still").await.unwrap();
    assert_eq!(read(&mut session, 5).await, b"still");
    assert!(timeout(secs(1), queue.closed(IDLE)).await.is_err(), "one direction is open");
    queue.finish().await.unwrap();
    assert_eq!(session.read(&mut [0]).await.unwrap(), 0);
    timeout(Duration::ZERO, queue.closed(IDLE)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_session_wrote_before_it_dropped_its_half_can_be_pulled() {
    let (mut session, queue) = Queue::pair(1000);
    let pushing = data(2000);
    let (pushed, ()) = tokio::join!(queue.push(0, &pushing), async {
        session.write_all(b"goodbye").await.unwrap();
        drop(session);
    });
    assert_eq!(pushed.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(pull(&queue, 0).await.unwrap().unwrap(), b"goodbye");
    assert_eq!(pull(&queue, 7).await.unwrap(), None);
}

/// Whoever handles a request may go away at any time, and the request comes again.
#[tokio::test(start_paused = true)]
async fn calls_that_are_dropped_lose_and_repeat_nothing() {
    let (session, queue) = Queue::pair(64);
    let sent = data(20_000);
    let (mut reader, mut writer) = tokio::io::split(session);
    // The session is slow, the one who polls gives up after 0 to 6 ms.
    let slowly = async {
        let mut received = Vec::new();
        for part in sent.chunks(50) {
            sleep(Duration::from_millis(3)).await;
            writer.write_all(part).await.unwrap();
            let mut some = vec![0; part.len()];
            reader.read_exact(&mut some).await.unwrap();
            received.extend(some);
        }
        writer.shutdown().await.unwrap();
        received
    };
    let impatience = |n: u64| Duration::from_millis((n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 7);
    let pushing = async {
        let (mut at, mut dropped) = (0, 0);
        while at < sent.len() {
            let part = &sent[at..sent.len().min(at + 200)];
            match timeout(impatience(at as u64 + dropped), queue.push(at as u64, part)).await {
                Ok(pushed) => {
                    pushed.unwrap();
                    at += part.len();
                }
                Err(_) => dropped += 1,
            }
        }
        dropped
    };
    let pulling = async {
        let (mut pulled, mut dropped) = (Vec::new(), 0);
        loop {
            let at = pulled.len() as u64;
            match timeout(impatience(at + dropped), queue.pull(at, 40, WAIT)).await {
                Ok(Ok(Some(bytes))) => pulled.extend(bytes),
                Ok(end) => return (pulled, dropped, end.unwrap()),
                Err(_) => dropped += 1,
            }
        }
    };
    let (received, pushes_dropped, (pulled, pulls_dropped, _)) = tokio::join!(slowly, pushing, pulling);
    assert!(received == sent && pulled == sent);
    assert!(pushes_dropped > 50 && pulls_dropped > 50, "{pushes_dropped} and {pulls_dropped} calls were dropped");
}

/// A server that is asked, and a way to it on which requests and answers are lost.
struct Way {
    listener: Arc<Listener>,
    carriers: Mutex<HashMap<u32, Arc<Queue>>>,
    /// Every so many exchanges an answer is lost, and half of that later a request.
    lossy: u64,
    /// The server forgets all carriers every so many exchanges.
    forgetful: u64,
    exchanges: AtomicU64,
    lost: AtomicU64,
}

enum Ask<'a> {
    Push(&'a [u8]),
    Pull,
    Finish,
}

impl Way {
    /// `Ok(None)`: nothing more will come. An error with `NotFound` ends the carrier, another says that the request or its answer was lost.
    async fn exchange(&self, carrier: u32, at: u64, ask: &Ask<'_>) -> io::Result<Option<Vec<u8>>> {
        let number = self.exchanges.fetch_add(1, Ordering::Relaxed) + 1;
        if number.is_multiple_of(self.forgetful) {
            self.carriers.lock().unwrap().clear();
        }
        sleep(Duration::from_millis(5)).await;
        if number % self.lossy == self.lossy / 2 {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Err(ErrorKind::ConnectionReset.into());
        }
        let queue = self.queue(carrier, at).ok_or(ErrorKind::NotFound)?;
        let answer = match ask {
            Ask::Push(bytes) => queue.push(at, bytes).await.map(|()| Some(Vec::new())),
            Ask::Pull => queue.pull(at, 10_000, WAIT).await,
            Ask::Finish => queue.finish().await.map(|()| None),
        };
        let answer = answer.map_err(|_| ErrorKind::NotFound)?;
        sleep(Duration::from_millis(5)).await;
        if number.is_multiple_of(self.lossy) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Err(ErrorKind::ConnectionReset.into());
        }
        Ok(answer)
    }

    fn queue(&self, carrier: u32, at: u64) -> Option<Arc<Queue>> {
        let mut carriers = self.carriers.lock().unwrap();
        if at == 0 && !carriers.contains_key(&carrier) {
            let (session, queue) = Queue::pair(10_000);
            self.listener.attach(session, None);
            carriers.insert(carrier, Arc::new(queue));
        }
        carriers.get(&carrier).cloned()
    }

    async fn ask(&self, carrier: u32, at: u64, ask: Ask<'_>) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.exchange(carrier, at, &ask).await {
                Err(error) if error.kind() != ErrorKind::NotFound => {}
                answer => return answer,
            }
        }
    }

    async fn carry(&self, carrier: u32, queue: Queue) {
        let up = async {
            let mut at = 0;
            while let Some(bytes) = queue.pull(at, 10_000, WAIT).await? {
                self.ask(carrier, at, Ask::Push(&bytes)).await?;
                at += bytes.len() as u64;
            }
            self.ask(carrier, at, Ask::Finish).await
        };
        let down = async {
            let mut at = 0;
            while let Some(bytes) = self.ask(carrier, at, Ask::Pull).await? {
                queue.push(at, &bytes).await?;
                at += bytes.len() as u64;
            }
            queue.finish().await
        };
        let _ = tokio::try_join!(up, down);
    }
}

/// Echoes `streams` times 300 kB over a way, and returns it with the number of carriers that were made.
async fn echoed_over(lossy: u64, forgetful: u64, streams: u64) -> (Arc<Way>, u32) {
    let way = Arc::new(Way {
        listener: echo_server(Config::default()),
        carriers: Mutex::default(),
        lossy,
        forgetful,
        exchanges: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    });
    let (dials, counted, on) = (Arc::new(AtomicU32::new(0)), way.clone(), way.clone());
    let counter = dials.clone();
    let dial = move |attempt: turbotunnel::Attempt| {
        counter.fetch_add(1, Ordering::Relaxed);
        let (session, queue) = Queue::pair(10_000);
        let way = on.clone();
        tokio::spawn(async move { way.carry(attempt.number, queue).await });
        async move { Ok(session) }
    };
    let session = Session::builder().connect(dial).await.unwrap();
    let mut echoes = tokio::task::JoinSet::new();
    for number in 0..streams {
        let stream = session.open().await.unwrap();
        echoes.spawn(async move {
            let sent = data(300_000 + number);
            let (mut from, mut to) = tokio::io::split(stream);
            let mut got = Vec::new();
            let (read, written) = tokio::join!(from.read_to_end(&mut got), async {
                to.write_all(&sent).await?;
                to.shutdown().await
            });
            read.and(written.map(|()| 0)).unwrap();
            assert!(got == sent, "stream {number}");
        });
    }
    while let Some(done) = echoes.join_next().await {
        done.unwrap();
    }
    session.close().await.unwrap();
    (counted, dials.load(Ordering::Relaxed))
}

/// Every fifth answer is lost, and as many requests. The session does not even notice: one carrier brings it all.
#[tokio::test(start_paused = true)]
async fn streams_are_intact_and_the_carrier_lives_while_answers_are_lost() {
    let (way, carriers) = echoed_over(5, u64::MAX, 4).await;
    let lost = way.lost.load(Ordering::Relaxed);
    assert!(lost > 100, "only {lost} were lost");
    assert_eq!(carriers, 1);
}

/// The server loses what it knows of all carriers again and again, as one does that is restarted behind its web server. The session goes on over others.
#[tokio::test(start_paused = true)]
async fn streams_are_intact_when_the_server_forgets_its_carriers() {
    let (_, carriers) = echoed_over(7, 40, 4).await;
    assert!(carriers > 5, "only {carriers} carriers");
}

/// The example, as it is: HTTP over real connections, which a middle-man breaks.
#[tokio::test]
async fn a_megabyte_comes_back_over_http_that_is_broken_on_purpose() {
    http_polling::echo_megabytes(1).await.unwrap();
}
