//! One connection through the proxy: bytes from each side to the other, up to exact positions, late or paced on request.
//!
//! In: two connected sockets and the limits. Out: [`Link::pass`] returns when a position is reached or both sides are done. It
//! costs one task and no buffer: bytes go through one scratch buffer of the thread, and only what the other side does not take at once is
//! kept, up to 64 KiB per direction (16 MiB with a delay). Both directions live in one task so that a limit over both together is
//! exact. Not here: what happens at a cut, see the module above.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::plan::Limits;

/// Largest read, and what is under way in a direction without a delay.
const CHUNK: usize = 64 << 10;
/// What is under way in a direction with a delay. At 50 ms that allows 320 MiB/s.
const UNDER_WAY_WITH_DELAY: usize = 16 << 20;
/// Reads and writes of a turn before other tasks have theirs.
const ROUNDS: usize = 16;
/// A paced direction moves so much time's worth of bytes at once.
const PACE_STEP: Duration = Duration::from_millis(5);

thread_local! {
    /// Where reads go. Never borrowed across an await.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Why [`Link::pass`] returned.
#[derive(Debug)]
pub(super) enum Passed {
    /// Both sides have ended what they sent, and all of it was passed on.
    Done,
    /// A limit was reached, and everything up to it was passed on. `None`: the limit over both directions.
    Limit(Option<Way>),
    /// One of the ends has reset its connection, and what it sent before that was passed on.
    Broken,
}

/// Totals of the proxy, counted as the bytes pass.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
    pub(super) swallowed: AtomicU64,
}

pub(super) struct Link {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
    up: Direction,
    down: Direction,
    /// What may still be read, both directions together.
    left: u64,
    /// Set while a delay or a rate has something wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Link {
    pub(super) fn new(
        client: TcpStream,
        server: TcpStream,
        limits: Limits,
        delay: Duration,
        rate: Option<u64>,
    ) -> Self {
        Self {
            client,
            server,
            up: Direction::new(limits.up, delay, rate),
            down: Direction::new(limits.down, delay, rate),
            left: limits.bytes.unwrap_or(u64::MAX),
            timer: None,
        }
    }

    /// Bytes that have reached the other side's socket.
    pub(super) fn passed(&self, way: Way) -> u64 {
        match way {
            Way::Up => self.up.passed,
            Way::Down => self.down.passed,
        }
    }

    /// Ends one direction with FIN; from now on what is sent that way vanishes. There are no limits any more.
    pub(super) fn end_one_way(&mut self, way: Way) {
        let (direction, other, to) = match way {
            Way::Up => (&mut self.up, &mut self.down, &self.server),
            Way::Down => (&mut self.down, &mut self.up, &self.client),
        };
        direction.swallow(to);
        direction.left = u64::MAX;
        other.left = u64::MAX;
        self.left = u64::MAX;
    }

    /// Passes bytes both ways. Dropped and called again it goes on where it was: no byte is lost.
    pub(super) async fn pass(&mut self, traffic: &Traffic) -> Passed {
        poll_fn(|cx| self.poll_pass(cx, traffic)).await
    }

    fn poll_pass(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<Passed> {
        let Self { client, server, up, down, left, timer } = self;
        for _ in 0..ROUNDS {
            let moved_up = up.poll_move(cx, client, server, left, (&traffic.up, &traffic.swallowed));
            let moved_down = down.poll_move(cx, server, client, left, (&traffic.down, &traffic.swallowed));
            if up.is_broken(down) || down.is_broken(up) {
                return Poll::Ready(Passed::Broken);
            }
            if up.left == 0 && up.is_empty() {
                return Poll::Ready(Passed::Limit(Some(Way::Up)));
            }
            if down.left == 0 && down.is_empty() {
                return Poll::Ready(Passed::Limit(Some(Way::Down)));
            }
            if *left == 0 && up.is_empty() && down.is_empty() {
                return Poll::Ready(Passed::Limit(None));
            }
            if up.is_done() && down.is_done() {
                return Poll::Ready(Passed::Done);
            }
            if !moved_up && !moved_down {
                let Some(at) = [up.wait_until, down.wait_until].into_iter().flatten().min() else {
                    return Poll::Pending;
                };
                let timer = match timer {
                    Some(timer) => {
                        timer.as_mut().reset(at);
                        timer
                    }
                    None => timer.insert(Box::pin(tokio::time::sleep_until(at))),
                };
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Bytes that were read and wait to be written.
struct Chunk {
    due: Option<Instant>,
    bytes: Vec<u8>,
    start: usize,
}

struct Direction {
    waiting: VecDeque<Chunk>,
    /// Bytes in `waiting`.
    queued: usize,
    /// What may still be read.
    left: u64,
    /// Bytes written.
    passed: u64,
    delay: Duration,
    rate: Option<u64>,
    /// A paced direction is free again at this time.
    free_at: Option<Instant>,
    /// When to try again, if only time is missing.
    wait_until: Option<Instant>,
    source_ended: bool,
    read_failed: bool,
    write_failed: bool,
    /// With a delay: when the end of the source is passed on.
    end_due: Option<Instant>,
    /// FIN was passed on.
    sink_ended: bool,
    swallows: bool,
}

impl Direction {
    fn new(limit: Option<u64>, delay: Duration, rate: Option<u64>) -> Self {
        Self {
            waiting: VecDeque::new(),
            queued: 0,
            left: limit.unwrap_or(u64::MAX),
            passed: 0,
            delay,
            rate,
            free_at: None,
            wait_until: None,
            source_ended: false,
            read_failed: false,
            write_failed: false,
            end_due: None,
            sink_ended: false,
            swallows: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn is_done(&self) -> bool {
        self.sink_ended && self.source_ended
    }

    /// Nothing more to be done: the source was reset and all of it has passed, or the sink is gone and so is what it sent (`back`).
    fn is_broken(&self, back: &Self) -> bool {
        self.read_failed && self.is_empty()
            || self.write_failed && (back.write_failed || back.source_ended && back.is_empty())
    }

    fn swallow(&mut self, to: &TcpStream) {
        self.swallows = true;
        self.waiting.clear();
        self.queued = 0;
        if !self.sink_ended {
            self.sink_ended = true;
            // Fails only when the other end is gone already.
            let _ = SockRef::from(to).shutdown(Shutdown::Write);
        }
    }

    /// At most one write of what waits and one read. `true`: something happened, ask again.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        both_left: &mut u64,
        (total, swallowed): (&AtomicU64, &AtomicU64),
    ) -> bool {
        self.wait_until = None;
        let written = if self.is_empty() { self.pass_end_on(to) } else { self.poll_write(cx, to, total) };
        let wrote = written.unwrap_or_else(|_| {
            self.write_failed = true;
            self.swallow(to);
            true
        });
        let room = if self.delay.is_zero() { CHUNK } else { UNDER_WAY_WITH_DELAY };
        let most = (CHUNK as u64).min(self.left).min(*both_left) as usize;
        if self.source_ended || self.queued >= room || most == 0 {
            return wrote;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let buffer = &mut scratch[..most];
            match poll_io(|| from.poll_read_ready(cx), || from.try_read(buffer)) {
                Ok(None) => return wrote,
                Ok(Some(0)) => {
                    self.source_ended = true;
                    self.end_due = (!self.delay.is_zero()).then(|| Instant::now() + self.delay);
                }
                Err(_) => {
                    self.source_ended = true;
                    self.read_failed = true;
                }
                Ok(Some(n)) if self.swallows => {
                    swallowed.fetch_add(n as u64, Ordering::Relaxed);
                }
                Ok(Some(n)) => {
                    self.left -= n as u64;
                    *both_left -= n as u64;
                    self.take(&buffer[..n], to, total);
                }
            }
            true
        })
    }

    /// Passes on at once what can be, and keeps the rest.
    fn take(&mut self, bytes: &[u8], to: &TcpStream, total: &AtomicU64) {
        let mut written = 0;
        if self.is_empty() && self.delay.is_zero() && self.rate.is_none() {
            // An error, or no room, shows again when the rest is written.
            written = to.try_write(bytes).unwrap_or(0);
            self.passed += written as u64;
            total.fetch_add(written as u64, Ordering::Relaxed);
        }
        if written < bytes.len() {
            let due = (!self.delay.is_zero()).then(|| Instant::now() + self.delay);
            self.queued += bytes.len() - written;
            self.waiting.push_back(Chunk { due, bytes: bytes[written..].to_vec(), start: 0 });
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &TcpStream, total: &AtomicU64) -> io::Result<bool> {
        let Some(chunk) = self.waiting.front_mut() else { return Ok(false) };
        let mut most = chunk.bytes.len() - chunk.start;
        if chunk.due.is_some() || self.rate.is_some() {
            let now = Instant::now();
            let free_at = chunk.due.into_iter().chain(self.free_at).max();
            if let Some(at) = free_at.filter(|&at| at > now) {
                self.wait_until = Some(at);
                return Ok(false);
            }
            if let Some(rate) = self.rate {
                most = most.min(pace_step(rate));
            }
        }
        let bytes = &chunk.bytes[chunk.start..chunk.start + most];
        let Some(n) = poll_io(|| to.poll_write_ready(cx), || to.try_write(bytes))? else { return Ok(false) };
        chunk.start += n;
        if chunk.start == chunk.bytes.len() {
            self.waiting.pop_front();
        }
        self.queued -= n;
        self.passed += n as u64;
        total.fetch_add(n as u64, Ordering::Relaxed);
        if let Some(rate) = self.rate {
            // A late timer is caught up with, an idle time is not.
            let now = Instant::now();
            let base = self.free_at.filter(|&at| at + 4 * PACE_STEP > now).unwrap_or(now);
            self.free_at = Some(base + Duration::from_secs_f64(n as f64 / rate as f64));
        }
        Ok(true)
    }

    fn pass_end_on(&mut self, to: &TcpStream) -> io::Result<bool> {
        if !self.source_ended || self.read_failed || self.sink_ended {
            return Ok(false);
        }
        if let Some(at) = self.end_due.filter(|&at| at > Instant::now()) {
            self.wait_until = Some(at);
            return Ok(false);
        }
        SockRef::from(to).shutdown(Shutdown::Write)?;
        self.sink_ended = true;
        Ok(true)
    }
}

fn pace_step(rate: u64) -> usize {
    ((rate as f64 * PACE_STEP.as_secs_f64()) as usize).max(1)
}

/// `None`: not ready, the task is woken when it is.
fn poll_io(
    mut ready: impl FnMut() -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    loop {
        match ready() {
            Poll::Pending => return Ok(None),
            Poll::Ready(Err(e)) => return Err(e),
            Poll::Ready(Ok(())) => match attempt() {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                done => return done.map(Some),
            },
        }
    }
}
