//! What cuts and outages cost: sessions of their own, whose connections are broken here on purpose.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use turbotunnel::Session;

use super::far::{CHUNK, Request, generous};
use super::rows::{Load, Value, quantile, value};
use crate::random::SplitMix64;

/// What a connection holds in here beside the system's buffers.
const RELAY_BUFFER: usize = 64 << 10;

/// Outages that are looked at, and how long they are.
const OUTAGES: u32 = 12;
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(2_500);

/// Connections that can be cut, and a path that can be gone.
struct Breaker {
    /// Of the path.
    round_trip: Duration,
    gone: AtomicBool,
    relays: Mutex<VecDeque<AbortHandle>>,
    dialed: Mutex<Option<Instant>>,
}

impl Breaker {
    /// Cuts the oldest: what is younger is a spare.
    fn cut(&self) {
        let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        relays.retain(|relay| !relay.is_finished());
        relays.pop_front().iter().for_each(AbortHandle::abort);
    }

    /// Takes the round trip that a dial takes: a relay's system answers for the far end.
    async fn dial(&self, server: &str) -> io::Result<tokio::io::DuplexStream> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        let began = Instant::now();
        let mut there = TcpStream::connect(server).await?;
        there.set_nodelay(true)?;
        tokio::time::sleep(self.round_trip.saturating_sub(began.elapsed())).await;
        *self.dialed.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        let (ours, mut here) = tokio::io::duplex(RELAY_BUFFER);
        let relay = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
        self.relays.lock().unwrap_or_else(PoisonError::into_inner).push_back(relay.abort_handle());
        Ok(ours)
    }
}

/// A session with an endless transfer to here.
struct Transfer {
    breaker: Arc<Breaker>,
    session: Session,
    progress: Arc<Progress>,
    reading: JoinHandle<()>,
}

#[derive(Default)]
struct Progress {
    received: AtomicU64,
    /// Asked for: when the next byte comes.
    watched: Mutex<Option<Instant>>,
}

impl Transfer {
    async fn start(server: &str, spare: bool, round_trip: Duration) -> io::Result<Self> {
        let breaker = Breaker { round_trip, gone: false.into(), relays: Mutex::default(), dialed: Mutex::default() };
        let breaker = Arc::new(breaker);
        let (dialing, to) = (breaker.clone(), server.to_owned());
        let mut config = generous();
        config.spare = spare;
        let session = Session::builder().config(config).connect(move |_| {
            let (dialing, to) = (dialing.clone(), to.clone());
            async move { dialing.dial(&to).await }
        });
        let session = session.await?;
        let mut stream = session.open().await?;
        stream.write_all(&Request::Down(u64::MAX).encode()).await?;
        let progress = Arc::new(Progress::default());
        let counting = progress.clone();
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; CHUNK];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                counting.received.fetch_add(n as u64, Ordering::Relaxed);
                counting.watched.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
            }
        });
        Ok(Self { breaker, session, progress, reading })
    }

    /// Bytes a second over a time, with a cut of the connection in use in each second of it if wanted.
    async fn rate(&self, time: Duration, cuts: bool) -> f64 {
        let (began, before) = (Instant::now(), self.progress.received.load(Ordering::Relaxed));
        while began.elapsed() < time {
            if cuts {
                self.breaker.cut();
            }
            tokio::time::sleep(Duration::from_secs(1).min(time.saturating_sub(began.elapsed()))).await;
        }
        (self.progress.received.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
    }

    /// One outage: from the beginning of the dial that succeeds to the next byte.
    async fn outage(&self, length: Duration) -> Duration {
        self.breaker.gone.store(true, Ordering::Relaxed);
        self.breaker.cut();
        tokio::time::sleep(length).await;
        // All that had arrived has been read by now.
        *self.breaker.dialed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.progress.watched.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.breaker.gone.store(false, Ordering::Relaxed);
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let dialed = *self.breaker.dialed.lock().unwrap_or_else(PoisonError::into_inner);
            let came = *self.progress.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(dialed), Some(came)) = (dialed, came) {
                return came.saturating_duration_since(dialed);
            }
        }
    }

    async fn end(self) {
        self.reading.abort();
        let _ = self.session.close().await;
    }
}

/// What is left of the rate when the connection in use is cut once a second, without a spare and with one.
pub(super) async fn cuts(server: &str, load: &Load, round_trip: Duration) -> io::Result<Vec<Value>> {
    let mut values = Vec::new();
    for (spare, names) in
        [(false, ["rate", "uncut rate", "share"]), (true, ["spare rate", "spare uncut rate", "spare share"])]
    {
        let transfer = Transfer::start(server, spare, round_trip).await?;
        // The beginning of a transfer is another matter.
        transfer.rate(load.time / 4, false).await;
        let uncut = transfer.rate(load.time, false).await;
        let cut = transfer.rate(load.time, true).await;
        transfer.end().await;
        values.extend(names.into_iter().zip([cut, uncut, cut / uncut]).map(|(name, of)| value(name, of)));
    }
    Ok(values)
}

/// How soon it goes on after an outage.
pub(super) async fn outages(server: &str, round_trip: Duration) -> io::Result<Vec<Value>> {
    let transfer = Transfer::start(server, false, round_trip).await?;
    let mut random = SplitMix64::new(0);
    let mut times = Vec::new();
    for _ in 0..OUTAGES {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let length = SHORTEST + (LONGEST - SHORTEST).mul_f64(random.unit());
        times.push(transfer.outage(length).await);
    }
    transfer.end().await;
    times.sort();
    Ok(vec![value("p50", quantile(&times, 0.5)), value("p95", quantile(&times, 0.95))])
}
