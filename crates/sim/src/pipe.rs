//! One direction of a simulated TCP connection: bytes that arrive later, in order, or never.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the way between client and server is like, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// One way. At least a microsecond.
    pub delay: Duration,
    /// Bytes a second; `None`: no limit.
    pub rate: Option<u64>,
    /// Bytes that fit into one direction of a connection: in the sender's buffer, on the way, in the receiver's. A full one takes no more.
    pub capacity: usize,
    /// Up to so much is added to the delay of each packet. Their order does not change.
    pub jitter: Duration,
    /// Packets of 1,000 that get lost, although the connection lives: a carrier over datagrams.
    pub loss: u32,
    /// Packets of 1,000 that are overtaken by the next one.
    pub reorder: u32,
    /// Packets of 1,000 that arrive twice.
    pub double: u32,
    /// What a dial takes; `None`: a round trip. Behind a relay on this side of the delay it takes nothing.
    pub dial: Option<Duration>,
}

impl Link {
    /// `delay` one way, no limit of rate, 256 KiB of buffers.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        Self {
            delay: delay.max(Duration::from_micros(1)),
            rate: None,
            capacity: 256 << 10,
            jitter: Duration::ZERO,
            loss: 0,
            reorder: 0,
            double: 0,
            dial: None,
        }
    }

    /// With so many bytes a second.
    #[must_use]
    pub fn rate(self, rate: u64) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// With so many bytes of buffers in each direction.
    #[must_use]
    pub fn capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// With up to so much more delay, each packet its own.
    #[must_use]
    pub fn jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// Loses so many packets of 1,000.
    #[must_use]
    pub fn loses(self, loss: u32) -> Self {
        Self { loss, ..self }
    }

    /// Lets so many packets of 1,000 be overtaken by the next one.
    #[must_use]
    pub fn reorders(self, reorder: u32) -> Self {
        Self { reorder, ..self }
    }

    /// Delivers so many packets of 1,000 twice.
    #[must_use]
    pub fn doubles(self, double: u32) -> Self {
        Self { double, ..self }
    }

    /// A dial takes so long, whatever the delay.
    #[must_use]
    pub fn dials_in(self, dial: Duration) -> Self {
        Self { dial: Some(dial), ..self }
    }

    /// Something happens to packets while the connection lives.
    pub(crate) fn touches_packets(self) -> bool {
        self.loss + self.reorder + self.double > 0
    }
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: end of file.
    Fin,
    /// By an error, also for what the reader still wanted to write.
    Reset,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Bytes(Vec<u8>),
    End(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    Until(Instant),
    Forever,
}

#[derive(Debug)]
pub(crate) struct Pipe {
    link: Link,
    queue: VecDeque<(Instant, Vec<u8>)>,
    queued: usize,
    /// When the wire has taken everything written so far.
    wire_free: Instant,
    last_arrival: Instant,
    delivered: u64,
    stall: Option<Stall>,
    /// Nothing is delivered beyond so many bytes.
    limit: Option<u64>,
    end: Option<(Instant, End)>,
    /// What is written vanishes; nobody says so.
    swallows: bool,
    /// A bit of the next byte is changed on its way.
    flips: bool,
    over: bool,
}

impl Pipe {
    pub(crate) fn new(now: Instant, link: Link) -> Self {
        Self {
            link,
            queue: VecDeque::new(),
            queued: 0,
            wire_free: now,
            last_arrival: now,
            delivered: 0,
            stall: None,
            limit: None,
            end: None,
            swallows: false,
            flips: false,
            over: false,
        }
    }

    pub(crate) fn delay(&self) -> Duration {
        self.link.delay
    }

    // The writer.

    /// Bytes that can be written now.
    pub(crate) fn room(&self) -> usize {
        self.link.capacity.saturating_sub(self.queued)
    }

    /// `late`: so much more than the link's delay.
    pub(crate) fn write(&mut self, now: Instant, bytes: &[u8], late: Duration) {
        if self.swallows || self.over || self.end.is_some() {
            // It stays in the writer's buffer until he is told.
            self.queued += bytes.len();
            return;
        }
        let on_wire = self.link.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos((bytes.len() as u128 * 1_000_000_000 / u128::from(rate)) as u64)
        });
        self.wire_free = self.wire_free.max(now) + on_wire;
        let arrival = (self.wire_free + self.link.delay + late).max(self.last_arrival);
        self.last_arrival = arrival;
        self.queued += bytes.len();
        match self.queue.back_mut() {
            Some((at, last)) if *at == arrival => last.extend_from_slice(bytes),
            _ => self.queue.push_back((arrival, bytes.to_vec())),
        }
    }

    /// What is written before `start` waits until then for its way.
    pub(crate) fn hold_until(&mut self, start: Instant) {
        self.wire_free = self.wire_free.max(start);
    }

    /// The writer says no more; what was written still arrives.
    pub(crate) fn finish(&mut self, now: Instant, end: End) {
        if self.end.is_none() {
            self.end = Some((self.last_arrival.max(now + self.link.delay), end));
        }
    }

    // Faults.

    /// Nothing is delivered beyond the first `limit` bytes; the caller decides what happens there.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = Some(self.limit.map_or(limit, |other| other.min(limit)));
    }

    pub(crate) fn limit_reached(&self) -> bool {
        self.limit.is_some_and(|limit| self.delivered >= limit) && !self.over
    }

    pub(crate) fn clear_limit(&mut self) {
        self.limit = None;
    }

    /// Bytes delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// What is on the way is lost, and the reader gets `end` at `at`.
    pub(crate) fn cut(&mut self, at: Instant, end: End) {
        self.clear();
        self.swallows = true;
        self.stall = None;
        if !self.over {
            self.end = Some((at, end));
        }
    }

    /// What is on the way arrives, and then `end`. What is written from now on is lost.
    pub(crate) fn cut_behind(&mut self, now: Instant, end: End) {
        self.finish(now, end);
        self.swallows = true;
    }

    pub(crate) fn stall_until(&mut self, until: Instant) {
        if self.stall != Some(Stall::Forever) {
            self.stall = Some(Stall::Until(until));
        }
    }

    /// A bit of the next byte that is delivered is not what it was: at each place another one.
    pub(crate) fn flip_next(&mut self) {
        self.flips = true;
    }

    pub(crate) fn stall_forever(&mut self) {
        self.stall = Some(Stall::Forever);
    }

    /// The reader has closed: what comes is thrown away. True if something was unread.
    pub(crate) fn close_reader(&mut self) -> bool {
        let unread = !self.queue.is_empty();
        self.clear();
        self.over = true;
        unread
    }

    fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.queued = 0;
    }

    // The reader.

    /// Nothing comes any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let head = match self.queue.front() {
            Some((at, _)) if !self.limit_reached() => Some(*at),
            Some(_) => None,
            None => self.end.map(|(at, _)| at),
        }?;
        match self.stall {
            None => Some(head),
            Some(Stall::Until(until)) => Some(head.max(until)),
            Some(Stall::Forever) => None,
        }
    }

    pub(crate) fn take(&mut self, now: Instant) -> Option<Arrival> {
        if self.next()? > now {
            return None;
        }
        let Some((at, mut bytes)) = self.queue.pop_front() else {
            self.over = true;
            return self.end.map(|(_, end)| Arrival::End(end));
        };
        let allowed = self.limit.map_or(u64::MAX, |limit| limit - self.delivered);
        if (bytes.len() as u64) > allowed {
            self.queue.push_front((at, bytes.split_off(allowed as usize)));
        }
        if self.flips
            && let Some(byte) = bytes.first_mut()
        {
            *byte ^= 1 << (self.delivered % 8);
            self.flips = false;
        }
        self.queued -= bytes.len();
        self.delivered += bytes.len() as u64;
        Some(Arrival::Bytes(bytes))
    }
}
