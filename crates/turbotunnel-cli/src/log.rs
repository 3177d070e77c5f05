//! Log lines, one event each: `12:00:05 session 8a3f10c2 up over tcp://127.0.0.1:8000 in 1 ms`, on stderr, in UTC.
//!
//! A thread of its own writes them, so a stderr that nobody reads (a full pipe, a stopped terminal) never stops the program, and one
//! that is closed silences it. At most [`QUEUE`] lines wait, and there are [`BURST`] at once and [`RATE`] a second at most: whoever connects makes lines, and
//! is not to fill a disk with them. What comes beyond that is dropped, counted, and the number told within a second.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::failure::Failure;

/// Lines that wait to be written.
pub const QUEUE: usize = 1024;
/// Lines a second in the long run: 10 kB.
pub const RATE: u32 = 100;
/// Lines at once, after a while with fewer.
pub const BURST: u32 = 1000;
/// So soon it is told how many were dropped.
const TELL_DROPPED: Duration = Duration::from_secs(1);

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors only.
    Quiet,
    /// What the user wants to know.
    #[default]
    Normal,
    /// What somebody who looks for a cause wants to know.
    Verbose,
}

/// A handle to the log. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct Log {
    level: Level,
    queue: Option<SyncSender<Item>>,
    account: Arc<Account>,
}

#[derive(Debug, Default)]
struct Account {
    dropped: AtomicU64,
    /// When the allowance is whole again, in microseconds from `START` on.
    whole_at: AtomicU64,
}

impl Account {
    /// Takes one line from the allowance at `now` (since the same beginning each time), if there is one.
    fn allows(&self, now: Duration) -> bool {
        const STEP: u64 = 1_000_000 / RATE as u64;
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let take = |whole_at: u64| Some(whole_at.max(now) + STEP).filter(|at| at - now <= STEP * u64::from(BURST));
        self.whole_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Item {
    Line(String),
    Flush(SyncSender<()>),
}

impl Log {
    /// A log to stderr.
    pub fn stderr(level: Level) -> Self {
        #[cfg(unix)]
        let sink = std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned().map(std::fs::File::from);
        #[cfg(not(unix))]
        let sink = Ok::<_, io::Error>(io::stderr());
        match sink {
            Ok(sink) => Self::new(level, sink),
            Err(_) => Self::silent(),
        }
    }

    /// A log that goes nowhere.
    pub fn silent() -> Self {
        Self { level: Level::Quiet, queue: None, account: Arc::default() }
    }

    fn new(level: Level, sink: impl Write + Send + 'static) -> Self {
        let account = Arc::<Account>::default();
        let (queue, items) = sync_channel(QUEUE);
        let counter = account.clone();
        // Without a thread there is no log; the program goes on.
        let write = move || write_lines(&items, sink, &counter.dropped);
        let thread = thread::Builder::new().name("log".into()).spawn(write);
        Self { level, queue: thread.is_ok().then_some(queue), account }
    }

    /// How much is told.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Lines that nobody took in time, or that were too many.
    pub fn dropped(&self) -> u64 {
        self.account.dropped.load(Ordering::Relaxed)
    }

    /// Something the user wants to know.
    pub fn info(&self, text: impl fmt::Display) {
        self.say(Level::Normal, text);
    }

    /// Something for those who look for a cause (`-v`).
    pub fn detail(&self, text: impl fmt::Display) {
        self.say(Level::Verbose, text);
    }

    /// The last words before the program ends: `error:` and `tip:`, without a time. Waits for them to be written, but no longer than
    /// `limit`.
    pub fn failure(&self, failure: &Failure, limit: Duration) {
        // Should lines be waiting, these words are worth waiting for room.
        self.flush(limit / 2);
        self.push(failure.to_string());
        self.flush(limit / 2);
    }

    /// Waits until all lines are written, but no longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let Some(queue) = &self.queue else { return };
        let end = Instant::now() + limit;
        loop {
            let (done, written) = sync_channel(1);
            match queue.try_send(Item::Flush(done)) {
                // Too late, or the thread is gone: then nothing can be done about it any more.
                Ok(()) => drop(written.recv_timeout(end.saturating_duration_since(Instant::now()))),
                Err(TrySendError::Full(_)) if Instant::now() < end => {
                    thread::sleep(limit / 100);
                    continue;
                }
                Err(_) => {}
            }
            return;
        }
    }

    fn say(&self, level: Level, text: impl fmt::Display) {
        if self.level < level || self.queue.is_none() {
            return;
        }
        // One clock for all logs, so that no log has to keep its beginning.
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        if self.account.allows(START.elapsed()) {
            self.push(format!("{} {text}\n", Clock::now()));
        } else {
            self.account.drop_line();
        }
    }

    fn push(&self, line: String) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_)) = queue.try_send(Item::Line(line)) {
            self.account.drop_line();
        }
    }
}

fn write_lines(items: &Receiver<Item>, mut sink: impl Write, dropped: &AtomicU64) {
    let (mut told, mut told_at) = (0, None::<Instant>);
    let mut quiet = true;
    loop {
        // Nothing is dropped a second after the last line that passed, so a quiet log need not look.
        let next = if quiet { items.recv().map_err(From::from) } else { items.recv_timeout(TELL_DROPPED) };
        let item = match next {
            Ok(item) => Some(item),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        quiet = item.is_none();
        // A write that fails is not tried again: nobody is there to read it. The next one may find somebody.
        match item {
            Some(Item::Line(line)) => {
                let _ = sink.write_all(line.as_bytes());
            }
            Some(Item::Flush(done)) => {
                let _ = done.send(());
            }
            None => {}
        }
        let now = dropped.load(Ordering::Relaxed);
        if now != told && told_at.is_none_or(|at| at.elapsed() >= TELL_DROPPED) {
            let _ = sink.write_all(format!("{} {} log lines were dropped\n", Clock::now(), now - told).as_bytes());
            (told, told_at) = (now, Some(Instant::now()));
        }
    }
}

/// A time of day, UTC.
#[derive(Clone, Copy)]
struct Clock {
    second_of_day: u64,
}

impl Clock {
    fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { second_of_day: since_1970.as_secs() % 86_400 }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.second_of_day;
        write!(f, "{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_a_time_and_a_text() {
        let sink = Sink::default();
        let log = Log::new(Level::Normal, sink.clone());
        log.info("carrier 2 up");
        log.detail("not at this level");
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(&text[8..], " carrier 2 up\n");
        assert_eq!(text.split(':').count(), 3, "{text}");
        assert_eq!(Clock { second_of_day: 86_399 }.to_string(), "23:59:59");
    }

    /// Somebody pipes stderr into a program that has stopped reading.
    #[test]
    fn a_reader_that_has_stopped_costs_lines_but_no_time() {
        struct Stuck(Receiver<()>, Sink);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (go_on, stuck) = sync_channel::<()>(0);
        let sink = Sink::default();
        let log = Log::new(Level::Normal, Stuck(stuck, sink.clone()));
        for n in 0..QUEUE + 100 {
            log.push(format!("{n}\n"));
        }
        assert!((99..=100).contains(&log.dropped()), "dropped {}", log.dropped());
        drop(go_on);
        // The queue is full at first, so ask until there is room for the question.
        while !String::from_utf8_lossy(&sink.0.lock().unwrap()).contains("log lines were dropped") {
            log.flush(Duration::from_secs(10));
        }
    }

    /// Ten thousand connections a second, each of them worth a line.
    #[test]
    fn a_flood_of_lines_is_cut_down_to_a_hundred_a_second() {
        let account = Account::default();
        let start = Duration::from_secs(5);
        let passed = (0..100_000).filter(|n| account.allows(start + Duration::from_micros(100) * *n)).count();
        assert_eq!(passed as u32, BURST + 10 * RATE - 1);
        assert!(account.allows(start + Duration::from_secs(11)), "and then it goes on");
    }

    #[test]
    fn how_many_lines_a_flood_cost_is_told_when_it_is_over() {
        let sink = Sink::default();
        let log = Log::new(Level::Normal, sink.clone());
        for n in 0..3 * BURST {
            log.info(n);
        }
        let dropped = log.dropped();
        assert!(dropped > u64::from(BURST), "dropped {dropped}");
        let told = || {
            let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            let words = text.lines().filter_map(|line| line.strip_suffix(" log lines were dropped"));
            words.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
        };
        let began = Instant::now();
        while told() < dropped && began.elapsed() < Duration::from_secs(10) {
            thread::yield_now();
        }
        assert_eq!(told(), dropped);
    }

    #[test]
    fn a_closed_stderr_silences() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = Log::new(Level::Normal, Closed);
        log.info("nobody reads this");
        log.flush(Duration::from_secs(10));
    }
}
