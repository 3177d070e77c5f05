//! What a session must not leave behind, claim, or fall for: each test is named after something that once went wrong.

#![allow(clippy::disallowed_methods, reason = "a point to count virtual time from")]

#[allow(unreachable_pub, dead_code, reason = "a module of these tests only")]
mod common;

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::{connect, data, echo_server};
use kcp::wire::Command;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use turbotunnel::control::Control;
use turbotunnel::tunnel::{Action, CarrierId, Event as TunnelEvent};
use turbotunnel::{CarrierEnd, Config, Event, Listener, Session, SessionError, Tunnel};

/// A connection that counts itself among the open ones.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl Counted {
    fn new(io: DuplexStream, open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(io, open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A smux NOP in a KCP segment in a packet: what keeps a Go program's session alive.
fn nop(sn: u32) -> Vec<u8> {
    let mut packet = vec![0, 32];
    kcp::Segment {
        conv: 7,
        cmd: Command::Push,
        frg: 0,
        wnd: 1000,
        ts: kcp::Ts::new(0),
        sn: kcp::Sn::new(sn),
        una: kcp::Sn::new(0),
        payload: &[2, 3, 0, 0, 0, 0, 0, 0],
    }
    .encode(&mut packet);
    packet
}

/// A client that half-closes connection after connection and reads nothing cannot make the server keep them.
#[tokio::test(start_paused = true)]
async fn half_closed_connections_that_nobody_reads_are_let_go() {
    let listener = Arc::new(Listener::builder().detached());
    let open = Arc::new(AtomicUsize::new(0));
    let (mut kept, mut server) = (Vec::new(), None);
    for sn in 0..50 {
        let (mut ours, theirs) = tokio::io::duplex(600);
        listener.attach(Counted::new(theirs, &open), None);
        ours.write_all(b"attacker").await.unwrap();
        ours.write_all(&nop(sn)).await.unwrap();
        if server.is_none() {
            let session = listener.accept_session().await.unwrap();
            let mut stream = session.open().await.unwrap();
            stream.write_all(&data(100_000)).await.unwrap();
            server = Some((session, stream));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        ours.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        kept.push(ours);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(open.load(Ordering::Relaxed), 0, "connections kept open by nobody");
}

#[tokio::test(start_paused = true)]
async fn newcomers_that_say_nothing_are_let_go() {
    let listener = echo_server(Config::default());
    let (session, _) = connect(Session::builder(), &listener, |_| u64::MAX).await;
    let mut stream = session.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let mut kept = Vec::new();
    for _ in 0..3 {
        let (mut ours, theirs) = tokio::io::duplex(600);
        listener.attach(Counted::new(theirs, &open), None);
        ours.write_all(&session.id().0).await.unwrap();
        kept.push(ours);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(open.load(Ordering::Relaxed), 0, "silent connections after a minute");
    stream.write_all(b"y").await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn with_fail_fast_a_first_dial_that_hangs_fails_too() {
    let began = tokio::time::Instant::now();
    let hanging = |_| std::future::pending::<io::Result<DuplexStream>>();
    let error = Session::builder().fail_fast(true).connect(hanging).await.unwrap_err();
    assert!(matches!(error, SessionError::NeverConnected(_)), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn dropping_connect_ends_the_dialling() {
    let dials = Arc::new(AtomicUsize::new(0));
    let counted = dials.clone();
    let connecting = Session::builder().connect(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err::<DuplexStream, _>(ErrorKind::ConnectionRefused.into()) }
    });
    assert!(tokio::time::timeout(Duration::from_secs(5), connecting).await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = dials.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(dials.load(Ordering::Relaxed), before, "it still dials");
}

#[tokio::test(start_paused = true)]
async fn close_does_not_succeed_when_the_sessions_task_has_died() {
    let listener = Arc::new(Listener::builder().detached());
    let builder = Session::builder().on_event(|event| {
        assert!(!matches!(event, Event::CarrierLost { .. }), "a bug in the application");
    });
    let (session, _) = connect(builder, &listener, |_| 5000).await;
    let mut stream = session.open().await.unwrap();
    stream.write_all(&data(100_000)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(session.close().await, Err(SessionError::Aborted));
}

#[tokio::test(start_paused = true)]
async fn settings_without_sense_are_replaced_by_the_nearest_that_have_some() {
    let mut config = Config::default();
    config.time_to_live = Duration::MAX;
    config.keepalive = Some(Duration::ZERO);
    config.close_limit = Duration::MAX;
    config.window = 0;
    config.stream_window = u32::MAX;
    config.max_stream_window = 0;
    config.max_buffered = 0;
    config.send_buffer = 0;
    config.max_streams = 0;
    let listener = echo_server(config.clone());
    let (session, _) = connect(Session::builder().config(config), &listener, |_| u64::MAX).await;
    let mut stream = session.open().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

/// Both ends, without anything between them.
struct Pair {
    now: Instant,
    client: Tunnel,
    server: Tunnel,
    up: Option<(CarrierId, CarrierId)>,
}

impl Pair {
    fn new(config: &Config) -> Self {
        let now = Instant::now();
        let client = Tunnel::client(now, config.clone(), 7, 1);
        let server = Tunnel::server(now, config.clone(), 7, [1; 8]);
        Self { now, client, server, up: None }
    }

    /// Lets time pass until the client dials.
    fn dialled(&mut self) -> CarrierId {
        loop {
            while let Some(action) = self.client.poll_action() {
                if let Action::Dial(id) = action {
                    self.client.handle_dialed(self.now, id);
                    return id;
                }
            }
            self.now += Duration::from_millis(10);
            self.client.handle_timeout(self.now);
        }
    }

    fn connect(&mut self) {
        let client = self.dialled();
        self.up = Some((client, self.server.attach(self.now)));
        self.exchange();
    }

    fn cut(&mut self) {
        if let Some((client, server)) = self.up.take() {
            self.client.handle_ended(self.now, client, CarrierEnd::Closed);
            self.server.handle_ended(self.now, server, CarrierEnd::Closed);
        }
    }

    fn exchange(&mut self) {
        let Some((client, server)) = self.up else { return };
        let mut packet = Vec::new();
        let mut moved = true;
        while std::mem::take(&mut moved) {
            while self.client.poll_transmit(self.now, client, &mut packet) {
                self.server.handle_packet(self.now, server, &packet);
                packet.clear();
                moved = true;
            }
            while self.server.poll_transmit(self.now, server, &mut packet) {
                self.client.handle_packet(self.now, client, &packet);
                packet.clear();
                moved = true;
            }
        }
    }
}

/// Once in a while a load balancer sends a carrier to a wrong server. The right one answers in between, so it is not believed.
#[test]
fn strays_long_ago_do_not_end_a_session() {
    let mut config = Config::default();
    config.keepalive = None;
    config.time_to_live = Duration::from_secs(3600);
    let mut pair = Pair::new(&config);
    pair.connect();
    for round in 0..5 {
        pair.now += Duration::from_secs(100);
        pair.cut();
        let stray = pair.dialled();
        let mut unknown = Vec::new();
        Control::Unknown { conv: 7 }.encode(&mut unknown);
        pair.client.handle_packet(pair.now, stray, &unknown);
        assert_eq!(pair.client.ended(), None, "round {round}");
        pair.connect();
    }
}

/// The carrier takes nothing any more, and only now there is something to say: what is written, or that there is room again. Whether anybody is
/// still there is asked a second later, not with the next keepalive.
#[test]
fn what_comes_up_while_the_carrier_is_full_is_owed_an_answer() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    let id = pair.client.open(pair.now).unwrap();
    pair.client.write(pair.now, id, b"question").unwrap();
    pair.exchange();
    assert_eq!(pair.server.accept(), Some(id));
    // Long after, nobody is in a hurry.
    for _ in 0..60 {
        pair.now += Duration::from_secs(1);
        pair.client.handle_timeout(pair.now);
        pair.server.handle_timeout(pair.now);
        pair.exchange();
    }
    let soon = pair.now + Duration::from_secs(1);
    let next = |tunnel: &Tunnel| tunnel.poll_timeout().expect("a keepalive at least");
    assert!(next(&pair.client) > soon && next(&pair.server) > soon);
    assert_eq!(pair.server.read(pair.now, id, &mut [0; 100]), Ok(Some(8)));
    assert!(next(&pair.server) <= soon, "a window update waits for the carrier");
    pair.client.write(pair.now, id, b"another").unwrap();
    assert!(next(&pair.client) <= soon, "bytes wait for the carrier");
}

/// Reading one stream makes room for what another waits for. Whoever drives the tunnel is told to look.
#[test]
fn room_made_by_one_reader_is_worked_on_for_the_others() {
    let mut config = Config::default();
    config.max_buffered = 300 << 10;
    let mut pair = Pair::new(&config);
    pair.connect();
    let now = pair.now;
    let (bulk, small) = (pair.client.open(now).unwrap(), pair.client.open(now).unwrap());
    pair.client.write(pair.now, bulk, &[1; 1000]).unwrap();
    pair.client.write(pair.now, small, &[1]).unwrap();
    pair.exchange();
    let (at_bulk, at_small) = (pair.server.accept().unwrap(), pair.server.accept().unwrap());
    let mut buf = vec![0; 1000];
    // The bulk is not read any more; the other stream is, and waits for more, until the session's memory is full.
    while pair.server.read(now, at_small, &mut buf).unwrap().is_some() || {
        pair.client.write(pair.now, bulk, &[1; 2000]).unwrap();
        pair.exchange();
        pair.client.write(pair.now, small, b"u").unwrap();
        pair.exchange();
        while pair.server.poll_event().is_some() {}
        pair.server.read(now, at_small, &mut buf).unwrap().is_some()
    } {}
    while pair.server.poll_event().is_some() {}
    for _ in 0..400 {
        pair.server.read(now, at_bulk, &mut buf).unwrap();
        let work = pair.server.has_work(now);
        if let Some(event) = pair.server.poll_event() {
            assert_eq!(event, TunnelEvent::Readable(at_small));
            assert!(work, "nobody would have looked");
            return;
        }
        pair.exchange();
    }
    panic!("the small stream's byte never came through");
}

/// A message has come: its acknowledgement waits for the answer, but not for long.
#[test]
fn an_answer_carries_the_acknowledgement() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    let id = pair.client.open(pair.now).unwrap();
    pair.client.write(pair.now, id, b"question").unwrap();
    pair.exchange();
    assert_eq!(pair.server.accept(), Some(id));
    // The first read is told at once; from here on nothing is but what is asked for.
    assert_eq!(pair.server.read(pair.now, id, &mut [0; 100]), Ok(Some(8)));
    pair.exchange();
    let (client, server) = pair.up.unwrap();

    pair.client.write(pair.now, id, b"another").unwrap();
    let mut packet = Vec::new();
    while pair.client.poll_transmit(pair.now, client, &mut packet) {
        pair.server.handle_packet(pair.now, server, &packet);
        packet.clear();
    }
    let by = pair.now + Duration::from_millis(1);
    assert_eq!(pair.server.acks_may_wait(pair.now), Some(by));
    pair.now += Duration::from_micros(999);
    assert_eq!(pair.server.acks_may_wait(pair.now), Some(by), "it is the first that waits");
    pair.server.write(pair.now, id, b"answer").unwrap();
    assert_eq!(pair.server.acks_may_wait(pair.now), None, "an answer does not wait");
    let sent = pair.server.stats().packets_sent;
    pair.exchange();
    assert_eq!(pair.server.stats().packets_sent, sent + 1, "both in one packet");

    pair.client.write(pair.now, id, b"no answer").unwrap();
    while pair.client.poll_transmit(pair.now, client, &mut packet) {
        pair.server.handle_packet(pair.now, server, &packet);
        packet.clear();
    }
    assert!(pair.server.acks_may_wait(pair.now).is_some());
    pair.now += Duration::from_millis(1);
    assert_eq!(pair.server.acks_may_wait(pair.now), None, "it has waited long enough");
}

/// In order there is one ACK for any number of segments. A transfer one way once waited for the timer each time that no window update was due.
#[test]
fn a_transfer_one_way_does_not_wait_for_a_timer() {
    let mut pair = Pair::new(&Config::default());
    pair.connect();
    let id = pair.client.open(pair.now).unwrap();
    pair.client.write(pair.now, id, &[1; 100_000]).unwrap();
    let (client, server) = pair.up.unwrap();
    let (mut packet, mut arrived) = (Vec::new(), 0);
    while pair.client.poll_transmit(pair.now, client, &mut packet) {
        pair.server.handle_packet(pair.now, server, &packet);
        packet.clear();
        arrived += 1;
        assert_eq!(pair.server.acks_may_wait(pair.now).is_some(), arrived < 40, "{arrived} segments have arrived");
    }
    assert!(arrived >= 40, "the smallest flight is larger than what is acknowledged at once: {arrived}");
}
