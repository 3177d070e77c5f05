//! Log lines, one event each: `12:00:05 session 8a3f10c2 up over tcp://127.0.0.1:8000 in 1 ms`, on stderr, in UTC; or the same as a line of JSON, with what was counted as fields.
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

use serde_json::Value;

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
    /// Errors, and what somebody has to do something about.
    Quiet,
    /// What the user wants to know.
    #[default]
    Normal,
    /// What somebody who looks for a cause wants to know.
    Verbose,
}

/// How it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For machines: an object a line, with `ts`, `level`, `message`, and of events also `event` and what belongs to it.
    Json,
}

/// A handle to the log. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct Log {
    level: Level,
    format: Format,
    /// stderr is a terminal, where a line can be rewritten.
    terminal: bool,
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
    /// The line below the log; empty: none.
    Footer(String),
    Flush(SyncSender<()>),
}

impl Log {
    /// A log to stderr.
    pub fn stderr(level: Level, format: Format) -> Self {
        #[cfg(unix)]
        let sink = std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned().map(std::fs::File::from);
        #[cfg(not(unix))]
        let sink = Ok::<_, io::Error>(io::stderr());
        match sink {
            Ok(sink) => {
                let terminal = format == Format::Human && io::IsTerminal::is_terminal(&io::stderr());
                Self { terminal, ..Self::new(level, format, sink) }
            }
            Err(_) => Self::silent(),
        }
    }

    /// A log that goes nowhere.
    pub fn silent() -> Self {
        Self { level: Level::Quiet, format: Format::Human, terminal: false, queue: None, account: Arc::default() }
    }

    fn new(level: Level, format: Format, sink: impl Write + Send + 'static) -> Self {
        let account = Arc::<Account>::default();
        let (queue, items) = sync_channel(QUEUE);
        let counter = account.clone();
        // Without a thread there is no log; the program goes on.
        let write = move || write_lines(&items, sink, format, &counter.dropped);
        let thread = thread::Builder::new().name("log".into()).spawn(write);
        Self { level, format, terminal: false, queue: thread.is_ok().then_some(queue), account }
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

    /// Something that somebody has to do something about, or it stays wrong: told with `-q`, too.
    pub fn warn(&self, name: &str, fields: &[(&str, Value)], text: impl fmt::Display) {
        self.say_event(Level::Quiet, Some((name, fields)), text);
    }

    /// Something for those who look for a cause (`-v`).
    pub fn detail(&self, text: impl fmt::Display) {
        self.say(Level::Verbose, text);
    }

    /// An event: for people the text, for machines its name and fields, too.
    pub fn event(&self, name: &str, fields: &[(&str, Value)], text: impl fmt::Display) {
        self.say_event(Level::Normal, Some((name, fields)), text);
    }

    /// Whether there is a line below the log that [`Log::set_footer`] rewrites.
    pub fn has_footer(&self) -> bool {
        self.terminal && self.level == Level::Normal
    }

    /// Rewrites the line below the log; an empty one is none.
    pub fn set_footer(&self, text: String) {
        if let (true, Some(queue)) = (self.has_footer(), &self.queue) {
            // When so much is said that there is no room, nobody misses it.
            let _ = queue.try_send(Item::Footer(text));
        }
    }

    /// The last words before the program ends: `error:` and `tip:`, without a time. Waits for them to be written, but no longer than
    /// `limit`.
    pub fn failure(&self, failure: &Failure, limit: Duration) {
        // Should lines be waiting, these words are worth waiting for room.
        self.flush(limit / 2);
        self.push(match self.format {
            Format::Human => failure.to_string(),
            Format::Json if failure.error.is_empty() => String::new(),
            Format::Json => {
                let fields = [("exit", Value::from(failure.exit as u8)), ("tip", failure.tip.as_deref().into())];
                json("error", Some(("failed", &fields)), &failure.error)
            }
        });
        self.flush(limit / 2);
    }

    /// Waits until all lines are written, but no longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let Some(queue) = &self.queue else { return };
        self.set_footer(String::new());
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
        self.say_event(level, None, text);
    }

    fn say_event(&self, level: Level, event: Option<(&str, &[(&str, Value)])>, text: impl fmt::Display) {
        if self.level < level || self.queue.is_none() {
            return;
        }
        // One clock for all logs, so that no log has to keep its beginning.
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        if self.account.allows(START.elapsed()) {
            self.push(match self.format {
                Format::Human => format!("{} {text}\n", Clock::now()),
                Format::Json => {
                    let level = match level {
                        Level::Quiet => "warning",
                        Level::Normal => "info",
                        Level::Verbose => "debug",
                    };
                    json(level, event, &text.to_string())
                }
            });
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

/// One line of JSON.
fn json(level: &str, event: Option<(&str, &[(&str, Value)])>, message: &str) -> String {
    let mut line = serde_json::Map::new();
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    line.insert("ts".into(), now.to_string().into());
    line.insert("level".into(), level.into());
    if let Some((name, fields)) = event {
        line.insert("event".into(), name.into());
        line.extend(fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    }
    line.insert("message".into(), message.into());
    format!("{}\n", Value::Object(line))
}

/// As much of a line as the terminal is wide: a longer one could not be rewritten.
fn fitting(text: &str) -> String {
    let width = terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
    text.chars().take(width.saturating_sub(1)).collect()
}

/// Back to the beginning of the line, and nothing on it.
const REWRITE: &str = "\r\x1b[K";

fn write_lines(items: &Receiver<Item>, mut sink: impl Write, format: Format, dropped: &AtomicU64) {
    let mut footer = String::new();
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
            Some(Item::Line(line)) if footer.is_empty() => {
                let _ = sink.write_all(line.as_bytes());
            }
            Some(Item::Line(line)) => {
                let _ = sink.write_all(format!("{REWRITE}{line}{footer}").as_bytes());
            }
            Some(Item::Footer(text)) => {
                let text = fitting(&text);
                if text != footer {
                    let _ = sink.write_all(format!("{REWRITE}{text}").as_bytes());
                    footer = text;
                }
            }
            Some(Item::Flush(done)) => {
                let _ = done.send(());
            }
            None => {}
        }
        let now = dropped.load(Ordering::Relaxed);
        if now != told && told_at.is_none_or(|at| at.elapsed() >= TELL_DROPPED) {
            let lost = now - told;
            let line = match format {
                Format::Human => format!("{} {lost} log lines were dropped\n", Clock::now()),
                Format::Json => {
                    json("warning", Some(("log_dropped", &[("lines", lost.into())])), "log lines were dropped")
                }
            };
            let _ = sink.write_all(line.as_bytes());
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
        let log = Log::new(Level::Normal, Format::Human, sink.clone());
        log.info("carrier 2 up");
        log.detail("not at this level");
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(&text[8..], " carrier 2 up\n");
        assert_eq!(text.split(':').count(), 3, "{text}");
        assert_eq!(Clock { second_of_day: 86_399 }.to_string(), "23:59:59");
    }

    #[test]
    fn machines_get_an_object_a_line() {
        let sink = Sink::default();
        let log = Log::new(Level::Normal, Format::Json, sink.clone());
        log.event("carrier_lost", &[("carrier", 40.into()), ("age_s", 20.5.into())], "carrier 40 \"lost\"");
        log.info("plain words");
        log.failure(&Failure::new(crate::failure::Exit::Usage, "no").tip("do"), Duration::from_secs(10));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["event"], &lines[0]["carrier"]), (&"carrier_lost".into(), &40.into()));
        assert_eq!((&lines[0]["age_s"], &lines[0]["message"]), (&20.5.into(), &"carrier 40 \"lost\"".into()));
        assert!(lines[0]["ts"].as_str().is_some_and(|ts| ts.len() == 24 && ts.ends_with('Z')), "{text}");
        assert_eq!((&lines[1]["message"], &lines[1]["level"]), (&"plain words".into(), &"info".into()));
        assert_eq!(
            (&lines[2]["level"], &lines[2]["exit"], &lines[2]["tip"]),
            (&"error".into(), &2.into(), &"do".into())
        );
    }

    /// `-q` is for whom nothing is news; what needs his hands is.
    #[test]
    fn a_quiet_log_has_warnings_and_nothing_less() {
        for level in [Level::Quiet, Level::Normal] {
            let sink = Sink::default();
            let log = Log::new(level, Format::Json, sink.clone());
            log.warn("cannot_accept", &[("files", 16.into())], "cannot accept");
            log.detail("not at this level");
            if level == Level::Quiet {
                log.info("nor this");
                log.event("carrier_up", &[], "nor this");
            }
            log.flush(Duration::from_secs(10));
            let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            let line: Value = serde_json::from_str(text.trim_end()).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!((&line["level"], &line["event"]), (&"warning".into(), &"cannot_accept".into()));
            assert_eq!((&line["files"], &line["message"]), (&16.into(), &"cannot accept".into()));
        }
    }

    /// The line below the log goes, comes back under each new line, and is gone at the end.
    #[test]
    fn the_line_below_is_rewritten() {
        let sink = Sink::default();
        let log = Log { terminal: true, ..Log::new(Level::Normal, Format::Human, sink.clone()) };
        log.set_footer("up 1 s".into());
        log.info("carrier 2 up");
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let parts: Vec<_> = text.split(REWRITE).collect();
        assert_eq!(parts.len(), 4, "{text:?}");
        assert_eq!((parts[1], parts[3]), ("up 1 s", ""));
        assert!(parts[2].ends_with(" carrier 2 up\nup 1 s"), "{text:?}");
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
        let log = Log::new(Level::Normal, Format::Human, Stuck(stuck, sink.clone()));
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
        let log = Log::new(Level::Normal, Format::Human, sink.clone());
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
        let log = Log::new(Level::Normal, Format::Human, Closed);
        log.info("nobody reads this");
        log.flush(Duration::from_secs(10));
    }
}
