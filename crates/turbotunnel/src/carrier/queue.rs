//! A carrier without a connection: its bytes wait until somebody asks for them ([`Queue`]).

use std::future::Future;
use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

/// Where requests and answers bring and fetch the bytes of a carrier that has no connection: HTTP, DNS, a message queue.
///
/// [`Queue::pair`] makes two halves. One is the session's: a dialer's result, or for [`Listener::attach`](crate::Listener::attach). The `Queue` is for whoever handles the requests: he
/// [`push`](Self::push)es what came and [`pull`](Self::pull)s what is to go. Both ends of a carrier have such a pair and use it in the same way:
///
/// ```text
///         client                                            server
///  session        Queue                                      Queue        session
///     write ----> pull(at) ---- "from at on: these" ----> push(at) ----> read
///      read <---- push(at) <--- "what is from at on?" --- pull(at) <---- write
/// ```
///
/// # Requests and answers may be lost, repeated, late
///
/// Every byte has a position, counted from 0 in each direction, and a call says which it is about. So whoever does not know what became of a request makes it again:
///
/// * `push(at, bytes)` skips what it has had already. The same bytes may come any number of times.
/// * `pull(at, ..)` says that everything before `at` has arrived. What is from there on is kept, and given again as long as it is asked for.
///
/// The one who asks remembers a number for each direction, and moves it on when he has the answer; one request of a direction at a time, because they may overtake one another. A
/// position that cannot be (something before it is missing, so one of the two has forgotten) ends the carrier, as a cut ends a connection.
///
/// # The end
///
/// A session that shuts down, or drops its half: `pull` gives the rest and then `None`, and if it is dropped `push` fails with [`BrokenPipe`](ErrorKind::BrokenPipe). In the other direction
/// [`finish`](Self::finish) is the end that the session reads. When the `Queue` is dropped, the session reads the rest and then the end, and its writes fail: it goes on over another
/// carrier. [`closed`](Self::closed) tells when that is to be done, also because nobody asks any more; whoever keeps queues has to wait for it, and to have a limit on how many he keeps.
///
/// # Limits and cost
///
/// At most `capacity` bytes wait in the direction to the session, and twice that in the other: what waits, and what was pulled last and may be asked for again. Allocated are five times
/// `capacity` in the worst case, until the queue is dropped. At the limit the session's writes wait, and so does `push`; nothing is dropped. The fastest that it can be is `capacity` bytes a
/// round trip. There is no task; bytes are copied up to three times.
///
/// All calls are cancel-safe: made again with the same position after they were dropped, they lose and repeat nothing.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use turbotunnel::carrier::Queue;
///
/// let (mut session, queue) = Queue::pair(64 << 10);
/// let wait = Duration::from_secs(25);
///
/// session.write_all(b"out").await?;
/// assert_eq!(queue.pull(0, 1000, wait).await?.as_deref(), Some(&b"out"[..]));
/// // That answer was lost: the same again.
/// assert_eq!(queue.pull(0, 1000, wait).await?.as_deref(), Some(&b"out"[..]));
/// // Now it has arrived. What follows it?
/// session.shutdown().await?;
/// assert_eq!(queue.pull(3, 1000, wait).await?, None);
///
/// queue.push(0, b"in").await?;
/// // The answer to that was lost: the same again, and more.
/// queue.push(0, b"into").await?;
/// queue.finish().await?;
/// let mut read = String::new();
/// session.read_to_string(&mut read).await?;
/// assert_eq!(read, "into");
/// # Ok(())
/// # }
/// ```
///
/// `examples/http_polling.rs` has sessions over HTTP, and somebody in between who breaks requests and answers.
pub struct Queue {
    to_session: Mutex<ToSession>,
    from_session: Mutex<FromSession>,
    state: watch::Sender<State>,
}

struct ToSession {
    io: WriteHalf<DuplexStream>,
    /// Position behind the last byte that was pushed.
    end: u64,
}

struct FromSession {
    /// Its buffer is what was pulled and may be asked for again.
    io: BufReader<ReadHalf<DuplexStream>>,
    /// Position of the first byte in the buffer.
    start: u64,
}

struct State {
    /// Calls in progress; while there are any, somebody polls.
    calls: usize,
    /// When the last of them was over.
    quiet_since: Instant,
    /// Nothing more comes from the session, and whoever pulls was told.
    pulled_all: bool,
    /// Nothing more goes to the session.
    finished: bool,
    /// Over for other reasons than these two.
    broken: Option<ErrorKind>,
}

impl Queue {
    /// The session's half and the other one, with room for `capacity` bytes, at least 1. As much as one answer may have is a good value, and 64 KiB where answers may have more.
    #[must_use]
    pub fn pair(capacity: usize) -> (DuplexStream, Self) {
        let capacity = capacity.max(1);
        let (session, ours) = duplex(capacity);
        let (from_session, to_session) = split(ours);
        let state = State { calls: 0, quiet_since: Instant::now(), pulled_all: false, finished: false, broken: None };
        let queue = Self {
            to_session: Mutex::new(ToSession { io: to_session, end: 0 }),
            from_session: Mutex::new(FromSession { io: BufReader::with_capacity(capacity, from_session), start: 0 }),
            state: watch::Sender::new(state),
        };
        (session, queue)
    }

    /// Gives the session `bytes`, of which the first has position `at`, and waits until there was room for all of them. Those that it has had are skipped. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The carrier is over. [`BrokenPipe`](ErrorKind::BrokenPipe): the session has dropped its half, or [`Queue::finish`] was called. [`ConnectionAborted`](ErrorKind::ConnectionAborted): a
    /// position that cannot be, here or in another call. [`TimedOut`](ErrorKind::TimedOut): [`Queue::closed`] has found nobody polling.
    pub async fn push(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.call(async {
            let mut to_session = self.to_session.lock().await;
            loop {
                let Some(known) = to_session.end.checked_sub(at) else {
                    return Err(self.break_off("bytes before these are missing"));
                };
                let new = usize::try_from(known).ok().and_then(|known| bytes.get(known..)).unwrap_or_default();
                if new.is_empty() {
                    return Ok(());
                }
                to_session.end += to_session.io.write(new).await? as u64;
            }
        })
        .await
    }

    /// What the session has written from position `at` on: up to `max` bytes as soon as there are any, an empty answer when `wait` is over before, `None` when nothing more will come.
    /// Everything before `at` has arrived, and is forgotten. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput): what is asked for is known to have arrived. This is a late copy of a request, and nobody waits for its answer; the carrier goes on.
    /// Otherwise it is over, as with [`Queue::push`].
    pub async fn pull(&self, at: u64, max: usize, wait: Duration) -> io::Result<Option<Vec<u8>>> {
        let pulling = self.call(async {
            let mut from_session = self.from_session.lock().await;
            let Some(arrived) = at.checked_sub(from_session.start) else {
                return Err(io::Error::new(ErrorKind::InvalidInput, "what is asked for has arrived"));
            };
            let Some(arrived) = usize::try_from(arrived).ok().filter(|n| *n <= from_session.io.buffer().len()) else {
                return Err(self.break_off("what comes before was never given"));
            };
            from_session.io.consume(arrived);
            from_session.start = at;
            let bytes = from_session.io.fill_buf().await?;
            if bytes.is_empty() {
                self.state.send_modify(|state| state.pulled_all = true);
                return Ok(None);
            }
            Ok(Some(bytes[..bytes.len().min(max)].to_vec()))
        });
        timeout(wait, pulling).await.unwrap_or_else(|_| Ok(Some(Vec::new())))
    }

    /// Nothing more will be pushed: the session reads what it has got and then the end. The other direction goes on. It waits for a push in progress. Cancel-safe, and may be repeated.
    ///
    /// # Errors
    ///
    /// The carrier is over, as with [`Queue::push`].
    pub async fn finish(&self) -> io::Result<()> {
        self.call(async {
            self.to_session.lock().await.io.shutdown().await?;
            self.state.send_modify(|state| state.finished = true);
            Ok(())
        })
        .await
    }

    /// Waits until the carrier is over and should be dropped: both directions have ended, or a position could not be, or for the time `idle` no call was made and none was waiting. After the
    /// last two all calls fail. Cancel-safe.
    ///
    /// `idle` has to be longer than the longest pause between two requests. A minute is good where somebody always asks.
    pub async fn closed(&self, idle: Duration) {
        let mut state = self.state.subscribe();
        loop {
            let quiet = {
                let state = state.borrow_and_update();
                if state.broken.is_some() || (state.pulled_all && state.finished) {
                    return;
                }
                if state.calls > 0 { Duration::ZERO } else { state.quiet_since.elapsed() }
            };
            let left = idle.saturating_sub(quiet);
            if left.is_zero() {
                return self.break_with(ErrorKind::TimedOut);
            }
            // Whatever comes of that, it is looked at again.
            let _ = timeout(left, state.changed()).await;
        }
    }

    /// What all calls have in common: they show that somebody polls, and fail when the carrier is over.
    async fn call<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut state = self.state.subscribe();
        let _call = Call::begin(&self.state);
        tokio::select! {
            biased;
            Ok(state) = state.wait_for(|state| state.broken.is_some()) => {
                Err(state.broken.unwrap_or(ErrorKind::ConnectionAborted).into())
            }
            outcome = work => outcome,
        }
    }

    fn break_off(&self, why: &str) -> io::Error {
        self.break_with(ErrorKind::ConnectionAborted);
        io::Error::new(ErrorKind::ConnectionAborted, why)
    }

    fn break_with(&self, why: ErrorKind) {
        self.state.send_modify(|state| _ = state.broken.get_or_insert(why));
    }
}

/// A call in progress. It wakes nobody: whoever waits for the carrier to be idle looks when the time is over.
struct Call<'a>(&'a watch::Sender<State>);

impl<'a> Call<'a> {
    fn begin(state: &'a watch::Sender<State>) -> Self {
        state.send_if_modified(|state| {
            state.calls += 1;
            false
        });
        Self(state)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.send_if_modified(|state| {
            state.calls -= 1;
            state.quiet_since = Instant::now();
            false
        });
    }
}
