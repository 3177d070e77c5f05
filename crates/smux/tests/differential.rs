//! Our sessions and those of `async_smux` over one pipe, in both roles: whatever either writes to a stream the other reads.
//!
//! Within what that crate can do. It speaks version 1 only, so there are no window updates. It ends the session when an id of the wrong
//! side is opened, or one twice, so nobody does that. It answers data for a stream that it does not have with a FIN, which our side
//! takes for "closed altogether", as it is meant. It has no way to say that itself: dropping a stream is one FIN, so our side may
//! write for a while to nobody, and what is lost then is not looked at.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::rc::Rc;
use std::time::Duration;

use async_smux::{MuxBuilder, MuxConnector, MuxStream};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use turbotunnel_smux::{Config, Event, Mux, Side, StreamError, StreamId, Version};

const OURS: usize = 0;
const THEIRS: usize = 1;
/// Whoever does not sleep stops the clock, and would never be done. Half a million are many already.
const MOST_TURNS: u32 = 10_000_000;

/// What one end does with a stream.
#[derive(Clone, Debug)]
struct Conduct {
    /// Bytes, and milliseconds before them.
    writes: Vec<(usize, u64)>,
    read_at_once: usize,
    /// Milliseconds after each of its first fifty reads.
    read_pause: u64,
    /// It goes when it has written, whatever is still to be read. Until then it reads: in version 1 one stream that is not read stops all,
    /// and two such ends would wait for each other for ever.
    leaves: bool,
}

#[derive(Clone, Debug)]
struct Plan {
    we_are: SideOf,
    pipe: usize,
    max_frame_size: usize,
    send_buffer: usize,
    max_buffered: usize,
    room: usize,
    their_queues: (usize, usize),
    /// In seconds: both say that they live, and theirs ends the session after three times as long without a word.
    keepalive: Option<u64>,
    /// Who opens, milliseconds before that, and what each end does.
    streams: Vec<(usize, u64, [Conduct; 2])>,
}

#[derive(Clone, Copy, Debug)]
struct SideOf(Side);

fn conduct() -> impl Strategy<Value = Conduct> {
    let len = prop_oneof![8 => 1..100_usize, 4 => 1..5_000_usize, 1 => 1..200_000_usize];
    let pause = prop_oneof![3 => Just(0), 1 => 0..20_000_u64];
    let read_at_once = prop_oneof![1..50_usize, Just(1_000), Just(100_000)];
    let read_pause = prop_oneof![6 => Just(0), 1 => 0..50_u64];
    (vec((len, pause), 0..8), read_at_once, read_pause, prop::bool::weighted(0.2))
        .prop_map(|(writes, read_at_once, read_pause, leaves)| Conduct { writes, read_at_once, read_pause, leaves })
}

fn plan() -> impl Strategy<Value = Plan> {
    let we_are = prop_oneof![Just(SideOf(Side::Client)), Just(SideOf(Side::Server))];
    let sizes = (1..70_000_usize, prop_oneof![1..3_000_usize, Just(65_535)], 1..100_000_usize, 1..1_000_000_usize);
    let room = prop_oneof![9..3_000_usize, Just(70_000)];
    let queues = (1..40_usize, 1..40_usize);
    let keepalive = prop_oneof![Just(None), (1..4_u64).prop_map(Some)];
    let streams = vec((0..2_usize, 0..3_000_u64, [conduct(), conduct()]), 1..8);
    (we_are, sizes, room, queues, keepalive, streams).prop_map(
        |(we_are, sizes, room, their_queues, keepalive, streams)| {
            let (pipe, max_frame_size, send_buffer, max_buffered) = sizes;
            Plan { we_are, pipe, max_frame_size, send_buffer, max_buffered, room, their_queues, keepalive, streams }
        },
    )
}

/// The byte at `offset` of what `who` writes to the stream at `at` in the plan.
fn byte(who: usize, at: usize, offset: usize) -> u8 {
    let seed = ((at as u64) << 1 | who as u64) << 32;
    ((seed + offset as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn bytes(who: usize, at: usize, offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(|place| byte(who, at, place)).collect()
}

/// Compares what came. How much it was.
fn check(who: usize, at: usize, offset: usize, found: &[u8]) -> usize {
    let wrong = (offset..).zip(found).find(|&(place, &found)| found != byte(who, at, place));
    assert_eq!(wrong, None, "stream {at} of the plan: the first byte that does not belong there");
    found.len()
}

/// Which stream of the plan an id is, known to the opener before the other end hears of it.
type Opened = Rc<RefCell<HashMap<u32, usize>>>;

/// Our session, driven by a task of its own.
#[derive(Clone)]
struct Ours(Rc<Shared>);

struct Shared {
    mux: RefCell<Mux>,
    /// Something may have to be sent.
    work: Notify,
    incoming: Notify,
    /// Of each stream: it can be read, it can be written.
    streams: RefCell<HashMap<StreamId, Rc<(Notify, Notify)>>>,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Ours {
    fn news(&self, id: StreamId) -> Rc<(Notify, Notify)> {
        Rc::clone(self.0.streams.borrow_mut().entry(id).or_default())
    }

    fn wake(&self) {
        while let Some(event) = self.0.mux.borrow_mut().poll_event() {
            match event {
                Event::Incoming => self.0.incoming.notify_one(),
                Event::Readable(id) => self.news(id).0.notify_one(),
                Event::Writable(id) => self.news(id).1.notify_one(),
                _ => {}
            }
        }
    }

    /// Until the pipe ends.
    async fn drive(self, pipe: DuplexStream, room: usize) -> io::Result<()> {
        let (mut from, mut to) = tokio::io::split(pipe);
        let (mut buf, mut out) = (vec![0; 4_096], Vec::new());
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < MOST_TURNS, "it turns and turns, and nothing comes of it");
            let (has_room, due) = {
                let mut mux = self.0.mux.borrow_mut();
                if mux.poll_timeout().is_some_and(|due| due <= now()) {
                    mux.handle_timeout(now());
                }
                while out.is_empty() && mux.poll_transmit(now(), &mut out, room.max(9)) {}
                let due = mux.poll_timeout();
                assert!(due.is_none_or(|due| due > now()), "a deadline that was handled is over");
                (mux.has_room(), due)
            };
            self.wake();
            let timer = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                n = from.read(&mut buf), if has_room => match n? {
                    0 => return Ok(()),
                    n => self.0.mux.borrow_mut().handle_bytes(now(), &buf[..n]).map_err(io::Error::other)?,
                },
                n = to.write(&out), if !out.is_empty() => drop(out.drain(..n?)),
                () = timer => {}
                () = self.0.work.notified() => {}
            }
        }
    }

    async fn accept(&self) -> StreamId {
        loop {
            if let Some(id) = self.0.mux.borrow_mut().accept() {
                return id;
            }
            self.0.incoming.notified().await;
        }
    }

    async fn write_all(&self, id: StreamId, mut bytes: &[u8]) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let taken = self.0.mux.borrow_mut().write(id, bytes)?;
            bytes = &bytes[taken..];
            self.0.work.notify_one();
            if taken == 0 {
                self.news(id).1.notified().await;
            }
        }
        Ok(())
    }

    /// 0 at the end.
    async fn read(&self, id: StreamId, buf: &mut [u8]) -> usize {
        loop {
            let found = self.0.mux.borrow_mut().read(now(), id, buf).expect("we have not let go of it");
            self.0.work.notify_one();
            match found {
                Some(n) => return n,
                None => self.news(id).0.notified().await,
            }
        }
    }

    async fn play(self, id: StreamId, at: usize, ours: Conduct, theirs: Conduct) {
        let writing = async {
            let mut offset = 0;
            for &(len, pause) in &ours.writes {
                sleep(Duration::from_millis(pause)).await;
                if let Err(error) = self.write_all(id, &bytes(OURS, at, offset, len)).await {
                    assert!(theirs.leaves && error == StreamError::ClosedByPeer, "{error}");
                    return;
                }
                offset += len;
            }
            if !ours.leaves {
                let finished = self.0.mux.borrow_mut().finish(id);
                assert!(finished.is_ok() || theirs.leaves, "{finished:?}");
            }
            self.0.work.notify_one();
        };
        let reading = async {
            let mut buf = vec![0; ours.read_at_once];
            let mut offset = 0;
            let mut pauses = std::iter::repeat_n(Duration::from_millis(ours.read_pause), 50);
            loop {
                let n = self.read(id, &mut buf).await;
                offset += check(THEIRS, at, offset, &buf[..n]);
                if n == 0 {
                    assert_eq!(offset, total(&theirs), "stream {at}: bytes from them");
                    break;
                }
                if let Some(pause) = pauses.next() {
                    sleep(pause).await;
                }
            }
        };
        until_done(writing, reading, ours.leaves).await;
        self.0.mux.borrow_mut().close(id);
        self.0.work.notify_one();
    }
}

fn total(conduct: &Conduct) -> usize {
    conduct.writes.iter().map(|(len, _)| len).sum()
}

async fn play_theirs(stream: MuxStream<DuplexStream>, at: usize, theirs: Conduct, ours: Conduct) {
    let (mut from, mut to) = tokio::io::split(stream);
    let writing = async {
        let mut offset = 0;
        for &(len, pause) in &theirs.writes {
            sleep(Duration::from_millis(pause)).await;
            to.write_all(&bytes(THEIRS, at, offset, len)).await.expect("a FIN of ours is only the end of our half");
            offset += len;
        }
        if !theirs.leaves {
            to.shutdown().await.expect("a half-close");
        }
    };
    let reading = async {
        let mut buf = vec![0; theirs.read_at_once];
        let mut offset = 0;
        let mut pauses = std::iter::repeat_n(Duration::from_millis(theirs.read_pause), 50);
        loop {
            let n = from.read(&mut buf).await.expect("the session goes on");
            offset += check(OURS, at, offset, &buf[..n]);
            if n == 0 {
                assert_eq!(offset, total(&ours), "stream {at}: bytes from us");
                break;
            }
            if let Some(pause) = pauses.next() {
                sleep(pause).await;
            }
        }
    };
    until_done(writing, reading, theirs.leaves).await;
}

/// Both, or only the first for one who leaves.
async fn until_done(writing: impl Future<Output = ()>, reading: impl Future<Output = ()>, leaves: bool) {
    let (mut writing, mut reading) = (std::pin::pin!(writing), std::pin::pin!(reading));
    tokio::select! {
        () = &mut writing => {
            if !leaves {
                reading.await;
            }
        }
        () = &mut reading => writing.await,
    }
}

/// All streams of the plan, opened by whoever opens them; each end of each is a task.
async fn play(plan: Plan) {
    let (our_end, their_end) = tokio::io::duplex(plan.pipe);
    let config = Config {
        version: Version::V1,
        max_frame_size: plan.max_frame_size,
        send_buffer: plan.send_buffer,
        max_buffered: plan.max_buffered,
        ..Config::default()
    };
    let mut mux = Mux::new(now(), plan.we_are.0, config);
    mux.set_keepalive(now(), plan.keepalive.map(Duration::from_secs));
    let shared = Shared {
        mux: RefCell::new(mux),
        work: Notify::new(),
        incoming: Notify::new(),
        streams: RefCell::new(HashMap::new()),
    };
    let ours = Ours(Rc::new(shared));
    let driver = spawn_local(ours.clone().drive(our_end, plan.room));

    let mut builder = match plan.we_are.0 {
        Side::Client => MuxBuilder::server(),
        Side::Server => MuxBuilder::client(),
    };
    let queue = |frames: usize| NonZeroUsize::new(frames).expect("at least 1");
    builder.with_max_tx_queue(queue(plan.their_queues.0)).with_max_rx_queue(queue(plan.their_queues.1));
    if let Some(interval) = plan.keepalive.and_then(NonZeroU64::new) {
        builder.with_keep_alive_interval(interval);
    }
    let (connector, mut acceptor, worker) = builder.with_connection(their_end).build();
    let worker = spawn_local(worker);

    let opened = Opened::default();
    let conduct: Rc<Vec<[Conduct; 2]>> = Rc::new(plan.streams.iter().map(|(_, _, conduct)| conduct.clone()).collect());
    let they_accept = plan.streams.iter().filter(|stream| stream.0 == OURS).count();
    let we_accept = plan.streams.len() - they_accept;
    let accepting_ours = spawn_local({
        let (ours, opened, conduct) = (ours.clone(), Rc::clone(&opened), Rc::clone(&conduct));
        async move {
            let mut tasks = Vec::new();
            for _ in 0..we_accept {
                let id = ours.accept().await;
                let at = opened.borrow()[&id.value()];
                let [us, them] = conduct[at].clone();
                tasks.push(spawn_local(ours.clone().play(id, at, us, them)));
            }
            all(tasks).await;
        }
    });
    let accepting_theirs = spawn_local({
        let (opened, conduct) = (Rc::clone(&opened), Rc::clone(&conduct));
        async move {
            let mut tasks = Vec::new();
            for _ in 0..they_accept {
                let stream = acceptor.accept().await.expect("the session goes on");
                let at = opened.borrow()[&stream.get_stream_id()];
                let [us, them] = conduct[at].clone();
                tasks.push(spawn_local(play_theirs(stream, at, them, us)));
            }
            all(tasks).await;
            // Whoever lets go of it refuses all further streams.
            acceptor
        }
    });
    let mut openers = Vec::new();
    for (at, (opener, pause, [us, them])) in plan.streams.into_iter().enumerate() {
        let (ours, connector, opened) = (ours.clone(), connector.clone(), Rc::clone(&opened));
        openers.push(spawn_local(async move {
            sleep(Duration::from_millis(pause)).await;
            if opener == OURS {
                let id = ours.0.mux.borrow_mut().open().expect("a stream");
                opened.borrow_mut().insert(id.value(), at);
                ours.0.work.notify_one();
                ours.play(id, at, us, them).await;
            } else {
                let stream = connector.connect().expect("a stream");
                opened.borrow_mut().insert(stream.get_stream_id(), at);
                play_theirs(stream, at, them, us).await;
            }
        }));
    }
    all(openers).await;
    accepting_ours.await.expect("it does not panic");
    let acceptor = accepting_theirs.await.expect("it does not panic");
    end(&ours, connector).await;
    drop(acceptor);
    driver.await.expect("it does not panic").expect("the pipe ends where a frame does");
    drop(worker.await);
}

async fn all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.await.expect("it does not panic");
    }
}

/// Nothing is left on either side.
async fn end(ours: &Ours, mut connector: MuxConnector<DuplexStream>) {
    // A sign of life would meet a closed pipe.
    ours.0.mux.borrow_mut().set_keepalive(now(), None);
    // The last frames are still on their way.
    sleep(Duration::from_millis(1)).await;
    let mux = ours.0.mux.borrow().stats().clone();
    assert_eq!((mux.syns_ignored, mux.streams_refused, mux.updates_sent, mux.bytes_after_end), (0, 0, 0, 0));
    assert_eq!((ours.0.mux.borrow().streams(), ours.0.mux.borrow().buffered()), (0, 0));
    assert_eq!(connector.get_num_streams(), 0);
    connector.close().await.expect("an orderly end");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        rng_seed: RngSeed::Fixed(0x5eed),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Streams opened by both, written to and read in pieces and pauses, ended in both ways: every byte arrives in its place.
    #[test]
    fn ours_and_async_smux_understand_each_other(plan in plan()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("it needs a thread, and has it");
        let played = LocalSet::new().block_on(&runtime, async {
            // A clock that only moves when all sleep: whoever waits for nothing is here in no time.
            timeout(Duration::from_secs(3_600), play(plan)).await
        });
        assert!(played.is_ok(), "not done after an hour");
    }
}
