//! `demo`: a transfer that survives cut after cut, beside one over plain TCP that does not, in one process on loopback.
//!
//! ```text
//!  random bytes, paced ──▶ session ──▶ lilbastard ──▶ echo server      the same bytes back?
//!  the same bytes      ──▶ TCP     ──▶ lilbastard ──▶ TCP echo server  until the first cut
//! ```
//!
//! Everything is the real thing: the library as anybody would use it, real sockets, the cutter that is also a subcommand. It ends with a
//! verdict: exit code 0 when every byte came back and the digests are equal, 10 when not.

mod picture;
mod story;
mod svg;

use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use turbotunnel::{Event, Listener, Session, SessionError, Stats};

use crate::args::DemoArgs;
use crate::failure::{Exit, Failure, reason};
use crate::lilbastard::{self, How, Lilbastard, Plan};
use crate::log::Log;
use crate::random::SplitMix64;
use crate::signals::{Signal, Signals};
use crate::status::board::Traffic;
use crate::{stdio, text};
use picture::Screen;
use story::Book;

/// The transfer moves forward so often.
const TICK: Duration = Duration::from_millis(5);
/// Written at once.
const CHUNK: usize = 16 << 10;
/// The picture is drawn anew so often.
const FRAME: Duration = Duration::from_millis(100);
/// The end of the session, after the last byte has come back.
const GOODBYE: Duration = Duration::from_secs(5);

/// What goes through, and how fast.
#[derive(Clone, Copy, Debug)]
struct Load {
    seed: u64,
    size: u64,
    time: Duration,
}

/// How it ended.
struct Outcome {
    digests_equal: bool,
    digest: String,
    error: Option<String>,
    stats: Option<Stats>,
}

/// Runs the demo.
///
/// # Errors
/// Exit code 10 if the verdict is bad; others if it could not be run or shown.
pub(crate) async fn run(args: &DemoArgs, log: &Log, random_seed: u64) -> Result<(), Failure> {
    let seed = args.seed.unwrap_or(random_seed);
    let load = Load { seed, size: args.size, time: args.time };
    let mut kinds = args.how.iter().map(|&how| How::from(how));
    let plan = Plan {
        after: Some(args.after),
        how: kinds.next().unwrap_or_default(),
        then: kinds.collect(),
        seed,
        ..Plan::default()
    };
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate])?;
    // Before the show, not after it.
    if let Some(file) = &args.svg {
        std::fs::OpenOptions::new().append(true).create(true).open(file).map_err(|e| cannot_draw(file, &e))?;
    }
    let live = !args.plain && std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    let mut screen = Screen::new(stdio::stdout().map_err(|e| cannot_show(&e))?, live);
    screen.begin(&load, &plan).await.map_err(|e| cannot_show(&e))?;

    let book = Arc::new(Book::new(load.size, !args.no_compare));
    let mut tasks = JoinSet::new();
    if !args.no_compare {
        tasks.spawn(plain_tcp(load, plan.clone(), book.clone()));
    }
    let transfer = tokio::spawn(tunnel(load, plan.clone(), book.clone(), log.clone()));
    let outcome = tokio::select! {
        outcome = transfer => outcome.map_err(|e| Failure::new(Exit::Unexpected, e.to_string()))?,
        error = show(&mut screen, &book) => {
            return Err(cannot_show(&error));
        }
        failure = signals.at_once() => {
            screen.leave().await;
            return Err(failure);
        }
    };
    book.plain(|plain, now| plain.end(now, Some(format!("still waiting after {}", text::age(now)))));
    let story = book.read().clone();
    screen.verdict(&story, &outcome, book.now()).await.map_err(|e| cannot_show(&e))?;

    if let Some(file) = &args.svg {
        let picture = svg::draw(&story, &plan, &load);
        std::fs::write(file, picture).map_err(|e| cannot_draw(file, &e))?;
        screen.say(&format!("picture: {}\n", file.display())).await.map_err(|e| cannot_show(&e))?;
    }
    judge(&outcome, seed)
}

fn judge(outcome: &Outcome, seed: u64) -> Result<(), Failure> {
    let error = match (&outcome.error, outcome.digests_equal) {
        (None, true) => return Ok(()),
        (Some(error), _) => error.clone(),
        (None, false) => "what came back is not what was sent".to_owned(),
    };
    Err(Failure::new(Exit::BadVerdict, error)
        .tip(format!("the same bytes again: turbotunnel demo --seed {seed} (the cuts fall where the clock puts them)")))
}

fn cannot_draw(file: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Unexpected, format!("cannot write {}: {}", file.display(), reason(error)))
}

fn cannot_show(error: &io::Error) -> Failure {
    Failure::new(Exit::Unexpected, format!("cannot write standard output: {}", reason(error)))
}

/// Draws until it is dropped, or cannot any more.
async fn show(screen: &mut Screen, book: &Book) -> io::Error {
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        frames.tick().await;
        let story = book.read().clone();
        if let Err(error) = screen.frame(&story, book.now()).await {
            return error;
        }
    }
}

/// The transfer over a session.
async fn tunnel(load: Load, plan: Plan, book: Arc<Book>, log: Log) -> Outcome {
    let mut receipt = Receipt::default();
    let mut stats = None;
    let result = tunnel_to_the_end(load, plan, &book, &log, &mut receipt, &mut stats).await;
    let error = result.err().map(|e| crate::failure::plain(&e.to_string()));
    book.tunnel(|tunnel, now| tunnel.end(now, error.clone()));
    let back: [u8; 32] = receipt.back.finalize().into();
    let sent: [u8; 32] = receipt.sent.finalize().into();
    Outcome {
        digests_equal: error.is_none() && back == sent,
        digest: back.iter().map(|byte| format!("{byte:02x}")).collect(),
        error,
        stats,
    }
}

#[derive(Default)]
struct Receipt {
    sent: Sha256,
    back: Sha256,
}

async fn tunnel_to_the_end(
    load: Load,
    plan: Plan,
    book: &Arc<Book>,
    log: &Log,
    receipt: &mut Receipt,
    stats: &mut Option<Stats>,
) -> Result<(), SessionError> {
    // A socket of our own machine fails only if the machine is in trouble; then there is no demo.
    let trouble = |e: io::Error| SessionError::NeverConnected(e.to_string());
    let server = Listener::bind("127.0.0.1:0").await.map_err(trouble)?;
    let cuts = book.clone();
    let on_cut = move |event| {
        if let lilbastard::Event::Cut(cut) = event {
            cuts.cut(cut.how);
        }
    };
    let cutter = Lilbastard::bind_with_events("127.0.0.1:0", server.local_addr().map_err(trouble)?, plan, on_cut).await;
    let cutter = cutter.map_err(trouble)?;
    let echoing = tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move { crate::echo::echo(&mut stream, &Traffic::default()).await });
        }
    });
    let (carriers, details) = (book.clone(), log.clone());
    let session = Session::builder()
        .on_event(move |event| {
            details.detail(format_args!("demo: {event:?}"));
            if let Event::CarrierUp { number, gap, resent, .. } = event {
                carriers.carrier(number, gap, resent as u64);
            }
        })
        .connect_tcp(cutter.local_addr())
        .await?;
    let stream = session.open().await?;
    let (from, to) = tokio::io::split(stream);
    let Receipt { sent, back } = receipt;
    let there_and_back = async {
        tokio::try_join!(
            send(load, to, |bytes| sent.update(bytes)),
            receive(from, |bytes| {
                back.update(bytes);
                book.tunnel(|tunnel, now| tunnel.receive(now, bytes.len() as u64));
            })
        )
    };
    let result = there_and_back.await;
    *stats = Some(session.stats());
    let result = match result {
        Ok(((), received)) if received == load.size => Ok(()),
        Ok(((), received)) => {
            Err(trouble(io::Error::other(format!("only {received} of {} bytes came back", load.size))))
        }
        // The session knows better than the stream what has happened to it.
        Err(error) => match timeout(Duration::from_millis(100), session.closed()).await {
            Ok(ended) => Err(ended),
            Err(_) => Err(trouble(error)),
        },
    };
    if result.is_ok() {
        // Also part of it: the end of the session is acknowledged, too.
        let _ = timeout(GOODBYE, session.close()).await;
    }
    echoing.abort();
    result
}

/// The transfer over one TCP connection, as long as it lasts.
async fn plain_tcp(load: Load, plan: Plan, book: Arc<Book>) {
    let why = match plain_to_the_end(load, plan, &book).await {
        Ok(received) if received == load.size => None,
        Ok(_) => Some("connection closed".to_owned()),
        Err(error) => Some(reason(&error).replace(" by peer", "")),
    };
    book.plain(|plain, now| plain.end(now, why.map(|why| format!("{why} after {}", text::age(now)))));
}

async fn plain_to_the_end(load: Load, plan: Plan, book: &Arc<Book>) -> io::Result<u64> {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let cutter = Lilbastard::bind("127.0.0.1:0", server.local_addr()?, plan).await?;
    let client = TcpStream::connect(cutter.local_addr()).await?;
    let (mut echo, _) = server.accept().await?;
    let echoing = tokio::spawn(async move {
        let (mut from, mut to) = echo.split();
        tokio::io::copy(&mut from, &mut to).await?;
        to.shutdown().await
    });
    let (from, to) = client.into_split();
    let count = |bytes: &[u8]| book.plain(|plain, now| plain.receive(now, bytes.len() as u64));
    let received = tokio::select! {
        received = receive(from, count) => received,
        // A write fails as well when the connection has died; the read tells why.
        Err(error) = send(load, to, |_| {}) => Err(error),
    };
    echoing.abort();
    received
}

/// Sends the bytes, at their pace: by the time `t` as many as belong to `t`, so that what a cut has held up is caught up with.
async fn send(load: Load, mut to: impl AsyncWrite + Unpin, mut on_bytes: impl FnMut(&[u8])) -> io::Result<()> {
    let began = Instant::now();
    let mut random = SplitMix64::new(load.seed);
    let mut chunk = vec![0; CHUNK];
    let mut sent = 0;
    while sent < load.size {
        let n = (CHUNK as u64).min(load.size - sent) as usize;
        sleep_until(due(load, began, sent + n as u64)).await;
        random.fill(&mut chunk[..n]);
        on_bytes(&chunk[..n]);
        to.write_all(&chunk[..n]).await?;
        sent += n as u64;
    }
    to.shutdown().await
}

/// When so many bytes may have been sent, on the grid of the ticks.
fn due(load: Load, began: Instant, sent: u64) -> Instant {
    let at = load.time.mul_f64(sent as f64 / load.size as f64);
    // 2^32 ticks are 248 days.
    began + TICK * u32::try_from(at.as_micros() / TICK.as_micros()).unwrap_or(u32::MAX)
}

/// Receives until the end, and gives the number of bytes.
async fn receive(mut from: impl AsyncRead + Unpin, mut on_bytes: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut received = 0;
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(received);
        }
        on_bytes(&buffer[..n]);
        received += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_good_only_if_every_byte_is_back() {
        let outcome = |digests_equal, error: Option<&str>| Outcome {
            digests_equal,
            digest: String::new(),
            error: error.map(str::to_owned),
            stats: None,
        };
        assert_eq!(judge(&outcome(true, None), 1), Ok(()));
        for bad in [outcome(false, None), outcome(true, Some("gave up")), outcome(false, Some("gave up"))] {
            let failure = judge(&bad, 1).unwrap_err();
            assert_eq!(failure.exit, Exit::BadVerdict);
            assert!(failure.tip.unwrap().contains("--seed 1"));
        }
    }

    #[tokio::test]
    async fn a_session_survives_the_cutter_that_ends_plain_tcp() {
        let load = Load { seed: 1, size: 200_000, time: Duration::from_millis(400) };
        let plan = Plan { bytes: Some(60_000), how: How::Fin, then: vec![How::Rst], ..Plan::default() };
        let book = Arc::new(Book::new(load.size, true));
        plain_tcp(load, plan.clone(), book.clone()).await;
        let outcome = tunnel(load, plan, book.clone(), Log::silent()).await;
        assert!(outcome.digests_equal, "{:?}", outcome.error);
        let story = book.read().clone();
        assert_eq!(story.tunnel.received, load.size);
        assert!(story.cuts.len() >= 6, "{} cuts", story.cuts.len());
        let plain = story.plain.unwrap();
        assert!(plain.received <= 60_000 && plain.ended.unwrap().1.is_some());
    }

    /// Bytes depend on the seed alone, not on how they were cut into pieces by a slow path.
    #[tokio::test]
    async fn the_same_seed_sends_the_same_bytes() {
        let mut sent = Vec::new();
        for seed in [1, 1, 2] {
            let load = Load { seed, size: 100_001, time: Duration::from_millis(1) };
            let mut out = std::io::Cursor::new(Vec::new());
            send(load, &mut out, |_| {}).await.unwrap();
            sent.push(out.into_inner());
        }
        assert_eq!(sent[0].len(), 100_001);
        assert!(sent[0] == sent[1] && sent[0] != sent[2]);
    }
}
