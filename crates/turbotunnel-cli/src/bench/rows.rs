//! What is measured: each row once over plain TCP, once over a session, in turn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use turbotunnel::{Session, Stream};

use super::far::{CHUNK, Request, SMALL_CHUNK, give, take};
use super::trouble;
use crate::process::cpu_time;

/// Anything that bytes go through.
pub(super) trait Pipe: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl Pipe for TcpStream {}
impl Pipe for Stream {}

/// The way to the far end.
#[derive(Clone)]
pub(super) enum Way {
    Plain(SocketAddr),
    Session(Session),
}

impl Way {
    pub(super) async fn open(&self) -> io::Result<Box<dyn Pipe>> {
        Ok(match self {
            Self::Plain(addr) => {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Session(session) => Box::new(session.open().await?),
        })
    }

    /// Its public key.
    pub(super) async fn key(&self) -> io::Result<[u8; 32]> {
        let mut key = [0; 32];
        self.ask(Request::Key).await?.read_exact(&mut key).await?;
        Ok(key)
    }

    async fn ask(&self, request: Request) -> io::Result<Box<dyn Pipe>> {
        let mut pipe = self.open().await?;
        pipe.write_all(&request.encode()).await?;
        Ok(pipe)
    }

    /// CPU time used so far by both ends together.
    async fn cpu(&self) -> io::Result<Duration> {
        let mut pipe = self.ask(Request::Cpu).await?;
        let far = pipe.read_u64_le().await?;
        Ok(cpu_time(std::process::id()) + Duration::from_micros(far))
    }
}

/// One measurement. Rates in bytes a second, times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) name: &'static str,
    pub(super) value: f64,
}

pub(super) fn value(name: &'static str, value: f64) -> Value {
    Value { name, value }
}

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Row {
    /// One direction, from here
    Up,
    /// One direction, to here
    Down,
    /// There and back
    Echo,
    /// 64 bytes there and back, nothing else going on
    Ping,
    /// The same beside a transfer to here, and what is left to that
    Beside,
    /// Many streams at once: the total, and the slowest's share of its due
    Streams,
    /// What is left of the rate when the connection is cut each second, without a spare and with one (not over plain TCP)
    Cuts,
    /// The next byte after an outage, from the first dial that succeeds (not over plain TCP)
    Outages,
}

impl Row {
    /// Those that are measured if none is named.
    pub(super) const USUAL: [Self; 6] = [Self::Up, Self::Down, Self::Echo, Self::Ping, Self::Beside, Self::Streams];

    /// Whether plain TCP could do it at all.
    pub(super) fn is_for_plain(self) -> bool {
        !matches!(self, Self::Cuts | Self::Outages)
    }

    /// Measures it once.
    pub(super) async fn measure(self, way: &Way, load: &Load) -> io::Result<Vec<Value>> {
        match self {
            Self::Up => up(way, load.size).await,
            Self::Down => down(way, load.size).await,
            Self::Echo => echo(way, load.size).await,
            Self::Ping => {
                let times = ping(way, load.pings).await?;
                Ok(vec![value("p50", quantile(&times, 0.5)), value("p99", quantile(&times, 0.99))])
            }
            Self::Beside => beside(way, load).await,
            Self::Streams => streams(way, load).await,
            Self::Cuts => trouble::cuts(&load.server, load, shortest_ping(way).await?).await,
            Self::Outages => trouble::outages(&load.server, shortest_ping(way).await?).await,
        }
    }
}

/// How much of everything.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) server: String,
    pub(super) size: u64,
    pub(super) pings: usize,
    pub(super) time: Duration,
    pub(super) streams: usize,
}

async fn up(way: &Way, size: u64) -> io::Result<Vec<Value>> {
    let mut pipe = way.ask(Request::Up(size)).await?;
    let (cpu, began) = (way.cpu().await?, Instant::now());
    give(&mut pipe, size, CHUNK).await?;
    pipe.read_u8().await?;
    let time = began.elapsed();
    Ok(rates(size, time, way.cpu().await? - cpu))
}

async fn down(way: &Way, size: u64) -> io::Result<Vec<Value>> {
    let mut pipe = way.open().await?;
    let (cpu, began) = (way.cpu().await?, Instant::now());
    pipe.write_all(&Request::Down(size).encode()).await?;
    // Counted from the request: the beginning is part of it.
    let mut first = None;
    let mut buffer = vec![0; CHUNK];
    let (mut received, part) = (0, size / 20);
    while received < size {
        let n = pipe.read(&mut buffer).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received += n as u64;
        if received >= part {
            first.get_or_insert_with(|| began.elapsed());
        }
    }
    let time = began.elapsed();
    let mut values = rates(size, time, way.cpu().await? - cpu);
    values.push(value("first 5 %", first.unwrap_or(time).as_secs_f64()));
    Ok(values)
}

async fn echo(way: &Way, size: u64) -> io::Result<Vec<Value>> {
    let pipe = way.ask(Request::Echo).await?;
    let (mut from, mut to) = tokio::io::split(pipe);
    let (cpu, began) = (way.cpu().await?, Instant::now());
    let sending = tokio::spawn(async move {
        give(&mut to, size, CHUNK).await?;
        io::Result::Ok(to)
    });
    take(&mut from, size).await?;
    let time = began.elapsed();
    drop(sending.await?);
    Ok(rates(size, time, way.cpu().await? - cpu))
}

fn rates(size: u64, time: Duration, cpu: Duration) -> Vec<Value> {
    let gib = size as f64 / f64::from(1 << 30);
    vec![value("rate", size as f64 / time.as_secs_f64()), value("CPU s/GiB", cpu.as_secs_f64() / gib)]
}

async fn ping(way: &Way, count: usize) -> io::Result<Vec<Duration>> {
    let mut pipe = way.ask(Request::Echo).await?;
    let mut times = Vec::with_capacity(count);
    let mut bytes = [7; 64];
    for _ in 0..count {
        let began = Instant::now();
        pipe.write_all(&bytes).await?;
        pipe.read_exact(&mut bytes).await?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times)
}

async fn shortest_ping(way: &Way) -> io::Result<Duration> {
    Ok(ping(way, 5).await?[0])
}

/// Pings on one stream while another is in bulk, for the time given.
async fn beside(way: &Way, load: &Load) -> io::Result<Vec<Value>> {
    // What the last transfer left in the path's buffers is not this one's.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut bulk = way.ask(Request::Down(u64::MAX)).await?;
    let received = Arc::new(AtomicU64::new(0));
    let counter = received.clone();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = bulk.read(&mut buffer).await {
            counter.fetch_add(n as u64, Ordering::Relaxed);
        }
    });
    // The beginning of a transfer is another matter.
    tokio::time::sleep(load.time / 4).await;
    let mut pipe = way.ask(Request::Echo).await?;
    let (mut times, mut bytes) = (Vec::new(), [7; 64]);
    let (from, before) = (Instant::now(), received.load(Ordering::Relaxed));
    while from.elapsed() < load.time {
        let sent = Instant::now();
        pipe.write_all(&bytes).await?;
        pipe.read_exact(&mut bytes).await?;
        times.push(sent.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = (received.load(Ordering::Relaxed) - before) as f64 / from.elapsed().as_secs_f64();
    reading.abort();
    times.sort();
    Ok(vec![value("rate", rate), value("p50", quantile(&times, 0.5)), value("p95", quantile(&times, 0.95))])
}

/// All begin together. When the first has everything, the others should have nearly as much.
async fn streams(way: &Way, load: &Load) -> io::Result<Vec<Value>> {
    let each = load.size / load.streams as u64;
    let counters: Arc<Vec<AtomicU64>> = Arc::new((0..load.streams).map(|_| AtomicU64::new(0)).collect());
    let mut pipes = Vec::new();
    for _ in 0..load.streams {
        let mut pipe = way.ask(Request::Cpu).await?;
        // An answer: it has been accepted. Thousands at once would be more than the other end lets wait for that.
        pipe.read_u64_le().await?;
        pipes.push(pipe);
    }
    let mut all = JoinSet::new();
    let began = Instant::now();
    for (i, mut pipe) in pipes.into_iter().enumerate() {
        let counters = counters.clone();
        all.spawn(async move {
            pipe.write_all(&Request::DownAmongMany(each).encode()).await?;
            let (mut received, mut buffer) = (0, vec![0; SMALL_CHUNK]);
            while received < each {
                match pipe.read(&mut buffer).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => received += n as u64,
                }
                counters[i].store(received, Ordering::Relaxed);
            }
            io::Result::Ok(())
        });
    }
    all.join_next().await.ok_or(io::ErrorKind::InvalidInput)???;
    let least = counters.iter().map(|counter| counter.load(Ordering::Relaxed)).min().unwrap_or(0);
    while let Some(done) = all.join_next().await {
        done??;
    }
    let total = (each * load.streams as u64) as f64 / began.elapsed().as_secs_f64();
    Ok(vec![value("rate", total), value("least share", least as f64 / each as f64)])
}

/// Of sorted times, in seconds.
pub(super) fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64)
}
