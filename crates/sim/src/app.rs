//! The application at one end: writes what the [`Traffic`] wants, reads, and checks every byte.
//!
//! It is as strict as a real one: after a read or a write that came back empty it does nothing until the event that it was promised.

use std::time::Instant;

use turbotunnel::StreamId;
use turbotunnel::tunnel::Event;

use crate::network::Side;
use crate::pattern::{Pattern, Way};
use crate::traffic::{Manners, Reading, Traffic};

/// What an application can do with streams, whoever implements them.
pub(crate) trait Streams {
    fn open(&mut self, now: Instant) -> Result<StreamId, String>;
    fn accept(&mut self) -> Option<StreamId>;
    fn write(&mut self, now: Instant, id: StreamId, bytes: &[u8]) -> Result<usize, String>;
    fn read(&mut self, now: Instant, id: StreamId, buf: &mut [u8]) -> Result<Option<usize>, String>;
    fn finish(&mut self, now: Instant, id: StreamId) -> Result<(), String>;
    fn let_go(&mut self, now: Instant, id: StreamId);
    /// `finish` ends only the writing. If not, the application has to read everything first.
    fn half_closes(&self) -> bool {
        true
    }
}

/// Bytes of one write or read.
const PIECE: usize = 32 << 10;

/// One direction at one end.
#[derive(Debug)]
struct Half {
    pattern: Pattern,
    total: u64,
    done: u64,
    /// FIN said, or read.
    ended: bool,
    /// The last attempt took or gave nothing; an event follows.
    waiting: bool,
    /// Not before.
    not_before: Instant,
}

impl Half {
    fn new(start: Instant, pattern: Pattern, total: u64) -> Self {
        Self { pattern, total, done: 0, ended: false, waiting: false, not_before: start }
    }
}

#[derive(Debug)]
struct AppStream {
    traffic: Traffic,
    number: u32,
    id: Option<StreamId>,
    out: Half,
    inn: Half,
    /// A reader that stops has had its pause.
    paused: bool,
    delivered: bool,
    let_go: bool,
    failed: Option<String>,
}

/// The application at one end: what it has written and read so far.
#[derive(Debug)]
pub struct App {
    side: Side,
    session: u64,
    start: Instant,
    /// Streams that are taken for used already.
    used: u32,
    streams: Vec<AppStream>,
    received: u64,
    written: u64,
    buf: Vec<u8>,
}

impl App {
    pub(crate) fn new(start: Instant, side: Side, session: u64, used: u32) -> Self {
        Self { side, session, start, used, streams: Vec::new(), received: 0, written: 0, buf: vec![0; PIECE] }
    }

    pub(crate) fn add(&mut self, traffic: &Traffic) {
        let same_opener = self.streams.iter().filter(|stream| stream.traffic.opener == traffic.opener).count();
        let number = traffic.stream(same_opener) + 2 * self.used;
        let start = self.start + traffic.starts_at;
        let up = Pattern::new(self.session, number, Way::Up);
        let down = match traffic.manners {
            Manners::Echo => up,
            _ => Pattern::new(self.session, number, Way::Down),
        };
        let (up, down) = (Half::new(start, up, traffic.up), Half::new(start, down, traffic.down));
        let (out, inn) = if self.side == Side::Client { (up, down) } else { (down, up) };
        self.streams.push(AppStream {
            traffic: traffic.clone(),
            number,
            id: None,
            out,
            inn,
            paused: false,
            delivered: false,
            let_go: false,
            failed: None,
        });
    }

    /// Everything was written and read, on all streams, to the ends of those that end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.streams.iter().all(|stream| {
            let ended = !stream.traffic.finishes || (stream.out.ended && stream.inn.ended);
            stream.failed.is_none()
                && stream.out.done == stream.out.total
                && stream.inn.done == stream.inn.total
                && ended
        })
    }

    /// Bytes read so far, all streams together. Each of them was the right one.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes written so far, all streams together. Taken, not delivered.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The end of stream number `index` (in the order in which they start) was acknowledged.
    #[must_use]
    pub fn delivered(&self, index: usize) -> bool {
        self.streams[index].delivered
    }

    /// The ends of all streams were acknowledged.
    #[must_use]
    pub fn all_delivered(&self) -> bool {
        self.streams.iter().all(|stream| stream.delivered || !stream.traffic.finishes)
    }

    /// What went wrong with a stream, if something did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.streams.iter().find_map(|stream| stream.failed.as_deref())
    }

    pub(crate) fn describe(&self) -> String {
        let each = self.streams.iter().map(|stream| {
            let half = |half: &Half| {
                let end = if half.ended { " and the end" } else { "" };
                let waiting = if half.waiting { ", waits" } else { "" };
                format!("{}/{}{end}{waiting}", half.done, half.total)
            };
            let failed = stream.failed.iter().map(|why| format!(", failed: {why}")).collect::<String>();
            format!("stream {} wrote {}, read {}{failed}", stream.number, half(&stream.out), half(&stream.inn))
        });
        each.collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn handle_event(&mut self, event: &Event) {
        let (Event::Readable(id) | Event::Writable(id) | Event::Delivered(id)) = event else { return };
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == Some(*id)) else { return };
        match event {
            Event::Readable(_) => stream.inn.waiting = false,
            Event::Writable(_) => stream.out.waiting = false,
            _ => {
                assert!(stream.out.ended, "stream {} was delivered before it was finished", stream.number);
                stream.delivered = true;
            }
        }
    }

    /// The session is over: nothing that was waited for will come, but what has arrived can be read.
    pub(crate) fn handle_end(&mut self) {
        for stream in &mut self.streams {
            stream.inn.waiting = false;
            stream.inn.not_before = self.start;
            stream.out.waiting = true;
        }
    }

    /// When it wants to do something by itself.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let times = self.streams.iter().filter(|stream| stream.failed.is_none() && !stream.let_go).flat_map(|stream| {
            let open = stream.id.is_none() && stream.traffic.opener == self.side;
            let write = open || stream.may_write(self.side) > stream.out.done || stream.may_finish(self.side);
            let write = (write && !stream.out.waiting).then_some(stream.out.not_before);
            let read =
                (!stream.inn.ended && !stream.inn.waiting && stream.id.is_some()).then_some(stream.inn.not_before);
            [write, read]
        });
        times.flatten().filter(|at| *at > now).min()
    }

    /// Does what it can. True if that was something.
    pub(crate) fn turn(&mut self, now: Instant, streams: &mut impl Streams) -> bool {
        let mut busy = false;
        while let Some(id) = streams.accept() {
            let number = id.value();
            let stream = self.streams.iter_mut().find(|stream| stream.number == number);
            let stream = stream.unwrap_or_else(|| panic!("stream {number} was never opened by the peer"));
            assert!(stream.id.replace(id).is_none(), "stream {number} was opened twice");
            busy = true;
        }
        for stream in &mut self.streams {
            if stream.failed.is_some() || stream.let_go {
                continue;
            }
            if stream.id.is_none() && stream.traffic.opener == self.side && now >= stream.out.not_before {
                match streams.open(now) {
                    Ok(id) => {
                        assert_eq!(id.value(), stream.number, "streams are numbered in order");
                        stream.id = Some(id);
                        busy = true;
                    }
                    Err(why) => stream.failed = Some(why),
                }
            }
            let Some(id) = stream.id else { continue };
            let (read, written) = (stream.inn.done, stream.out.done);
            busy |= stream.read(now, self.side, id, streams, &mut self.buf);
            busy |= stream.write(now, self.side, id, streams, &mut self.buf);
            self.received += stream.inn.done - read;
            self.written += stream.out.done - written;
            if stream.out.ended && stream.inn.ended && !stream.let_go {
                stream.let_go = true;
                streams.let_go(now, id);
                busy = true;
            }
        }
        busy
    }
}

impl AppStream {
    /// Offset up to which manners allow to write.
    fn may_write(&self, side: Side) -> u64 {
        let allowed = match (self.traffic.manners, side) {
            (Manners::Free, _) | (Manners::Echo, Side::Client) => u64::MAX,
            (Manners::Echo, Side::Server) => self.inn.done,
            (Manners::Turns { request, response }, Side::Client) => (self.inn.done / response + 1) * request,
            (Manners::Turns { request, response }, Side::Server) => self.inn.done / request * response,
        };
        allowed.min(self.out.total)
    }

    fn may_finish(&self, side: Side) -> bool {
        // An echo ends when there is nothing more to send back.
        let said_all = self.traffic.manners != Manners::Echo || side == Side::Client || self.inn.ended;
        self.traffic.finishes && !self.out.ended && self.out.done == self.out.total && said_all
    }

    fn write(&mut self, now: Instant, side: Side, id: StreamId, streams: &mut impl Streams, buf: &mut [u8]) -> bool {
        let mut busy = false;
        while !self.out.waiting && now >= self.out.not_before {
            let pace = self.traffic.pace.map_or(PIECE as u64, |pace| pace.bytes).min(PIECE as u64);
            let len = (self.may_write(side) - self.out.done).min(pace);
            if len == 0 {
                let half_close = streams.half_closes() && !self.traffic.finishes_last;
                if self.may_finish(side) && (half_close || self.inn.done == self.inn.total) {
                    self.out.ended = true;
                    busy = true;
                    if let Err(why) = streams.finish(now, id) {
                        self.failed = Some(format!("finish: {why}"));
                    }
                }
                break;
            }
            let piece = &mut buf[..len as usize];
            self.out.pattern.fill(self.out.done, piece);
            match streams.write(now, id, piece) {
                Ok(0) => self.out.waiting = true,
                Ok(written) => {
                    assert!(written as u64 <= len, "wrote more than was given");
                    self.out.done += written as u64;
                    busy = true;
                    if let Some(pace) = self.traffic.pace {
                        self.out.not_before = now + pace.every;
                    }
                }
                Err(why) => {
                    self.failed = Some(format!("write at {}: {why}", self.out.done));
                    streams.let_go(now, id);
                    return true;
                }
            }
        }
        busy
    }

    fn read(&mut self, now: Instant, side: Side, id: StreamId, streams: &mut impl Streams, buf: &mut [u8]) -> bool {
        let mut busy = false;
        let reading = if side == Side::Client { self.traffic.client_reads } else { self.traffic.server_reads };
        while !self.inn.ended && !self.inn.waiting && now >= self.inn.not_before {
            let mut most = buf.len() as u64;
            match reading {
                Reading::Prompt => {}
                Reading::Slow { bytes, .. } => most = most.min(bytes),
                Reading::Stops { after, pause } if !self.paused => {
                    if self.inn.done == after {
                        self.paused = true;
                        self.inn.not_before = now + pause;
                        break;
                    }
                    most = most.min(after - self.inn.done);
                }
                Reading::Stops { .. } => {}
            }
            let outcome = streams.read(now, id, &mut buf[..most as usize]);
            match outcome {
                Ok(None) => self.inn.waiting = true,
                Ok(Some(0)) => {
                    self.inn.ended = true;
                    busy = true;
                    assert_eq!(
                        self.inn.done, self.inn.total,
                        "stream {} ended at the {side:?} before everything had come",
                        self.number
                    );
                }
                Ok(Some(len)) => {
                    busy = true;
                    let wrong = self.inn.pattern.first_wrong(self.inn.done, &buf[..len]);
                    assert_eq!(wrong, None, "stream {}: wrong byte at the {side:?}", self.number);
                    self.inn.done += len as u64;
                    assert!(self.inn.done <= self.inn.total, "stream {}: more than was sent", self.number);
                    if let Reading::Slow { every, .. } = reading {
                        self.inn.not_before = now + every;
                    }
                }
                Err(why) => {
                    self.failed = Some(format!("read at {}: {why}", self.inn.done));
                    return true;
                }
            }
        }
        busy
    }
}
