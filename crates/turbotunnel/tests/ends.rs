//! How streams and sessions end, and what does not end them.
#![allow(clippy::disallowed_methods, reason = "some instant to count from")]

#[allow(unreachable_pub, dead_code, reason = "a module shared with other tests")]
mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{connect, data};
use kcp::wire::Command;
use smux::StreamId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turbotunnel::tunnel::{Action, CarrierId, Event, StreamFailure};
use turbotunnel::{CarrierEnd, Config, Listener, PeerKind, Session, SessionError, Stream, Tunnel};

const CONV: u32 = 7;

/// The client's first frame: a smux NOP.
const NOP: [u8; 8] = [2, 3, 0, 0, 0, 0, 0, 0];

fn segment(cmd: Command, sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let (ts, sn, una) = (kcp::Ts::new(0), kcp::Sn::new(sn), kcp::Sn::new(una));
    kcp::Segment { conv: CONV, cmd, frg: 0, wnd: 1000, ts, sn, una, payload }.encode(&mut packet);
    packet
}

fn push(sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    segment(Command::Push, sn, una, payload)
}

fn server(now: Instant) -> Tunnel {
    Tunnel::server(now, Config::default(), CONV, [1; 8])
}

// Strangers.

/// Somebody who knows the id connects again and again. The session keeps four, and says of how many it got rid.
#[test]
fn connections_of_one_session_beyond_four_are_closed_and_counted() {
    let now = Instant::now();
    let mut tunnel = server(now);
    let first = tunnel.attach(now);
    for _ in 1..10 {
        tunnel.attach(now);
    }
    let dropped = std::iter::from_fn(|| tunnel.poll_action()).filter(|action| matches!(action, Action::Drop(_)));
    assert_eq!(dropped.count(), 6);
    assert_eq!((tunnel.stats().carriers_dropped, tunnel.current()), (6, Some(first)), "who sends stays");
}

/// Well-formed packets that our peer cannot have sent: they neither tell who the peer is nor take the session over.
#[test]
fn packets_that_cannot_be_do_not_count_as_heard() {
    let now = Instant::now();
    let mut tunnel = server(now);
    let first = tunnel.attach(now);
    let impossible = [push(0, 50, &NOP), push(60_000, 0, &NOP), segment(Command::Ack, 9, 0, b"")];
    for packet in &impossible {
        tunnel.handle_packet(now, first, packet);
    }
    let stats = tunnel.stats();
    assert_eq!((stats.peer, stats.packets_dropped), (PeerKind::Unknown, 3));

    tunnel.handle_packet(now, first, &push(0, 0, &NOP));
    assert_eq!((tunnel.stats().peer, tunnel.current()), (PeerKind::Go, Some(first)));
    let second = tunnel.attach(now);
    for packet in &impossible {
        tunnel.handle_packet(now, second, packet);
    }
    assert_eq!(tunnel.current(), Some(first), "a stranger has taken the session over");
    tunnel.handle_packet(now, second, &push(0, 0, &NOP));
    assert_eq!(tunnel.current(), Some(second), "the peer repeats itself, on a new carrier");
}

// FINs held back towards Go programs.

const MS: Duration = Duration::from_millis(1);

/// A client and a server that lose each other's control packets and so take each other for Go programs.
struct Pair {
    now: Instant,
    client: Tunnel,
    server: Tunnel,
    carriers: Option<(CarrierId, CarrierId)>,
    /// A dial that was asked for.
    dial: Option<CarrierId>,
    /// The stream of the question, once the server has read it.
    asked: Option<StreamId>,
}

impl Pair {
    fn connected() -> Self {
        Self::with(Config::default())
    }

    /// `config`: the client's.
    fn with(config: Config) -> Self {
        let now = Instant::now();
        let client = Tunnel::client(now, config, CONV, 1);
        let mut pair = Self { now, client, server: server(now), carriers: None, dial: None, asked: None };
        pair.wait(Duration::ZERO);
        pair.connect();
        pair.pump();
        assert_eq!((pair.client.stats().peer, pair.server.stats().peer), (PeerKind::Go, PeerKind::Go));
        pair
    }

    fn connect(&mut self) {
        let dial = self.dial.take().expect("the client wants to dial");
        self.client.handle_dialed(self.now, dial);
        self.carriers = Some((dial, self.server.attach(self.now)));
    }

    fn cut(&mut self) {
        let (client, server) = self.carriers.take().expect("a carrier");
        self.client.handle_ended(self.now, client, CarrierEnd::Closed);
        self.server.handle_ended(self.now, server, CarrierEnd::Closed);
    }

    /// All packets of the client's, to the server or into nowhere; how many.
    fn up(&mut self, arrives: bool) -> usize {
        let (from, to) = self.carriers.expect("a carrier");
        let (mut packet, mut count) = (Vec::new(), 0);
        while self.client.poll_transmit(self.now, from, &mut packet) {
            if arrives && kcp::conv_of(&packet).is_some() {
                self.server.handle_packet(self.now, to, &packet);
            }
            packet.clear();
            count += 1;
        }
        count
    }

    fn down(&mut self) -> usize {
        let (to, from) = self.carriers.expect("a carrier");
        let (mut packet, mut count) = (Vec::new(), 0);
        while self.server.poll_transmit(self.now, from, &mut packet) {
            if kcp::conv_of(&packet).is_some() {
                self.client.handle_packet(self.now, to, &packet);
            }
            packet.clear();
            count += 1;
        }
        count
    }

    /// Both ways, until nobody has anything to say.
    fn pump(&mut self) {
        while self.up(true) + self.down() > 0 {}
    }

    /// Lets time pass without moving a packet.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            while let Some(action) = self.client.poll_action() {
                if let Action::Dial(id) = action {
                    self.dial = Some(id);
                }
            }
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            let due = [self.client.poll_timeout(), self.server.poll_timeout()].into_iter().flatten().min();
            match due {
                Some(due) if due <= until => {
                    assert!(due > self.now, "a deadline that was handled is over");
                    self.now = due;
                }
                _ => break,
            }
        }
        self.now = until;
    }

    /// Time passes on a carrier that works.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.wait(MS);
            self.pump();
        }
    }

    /// The client asks, and has nothing more to say.
    fn ask(&mut self) -> StreamId {
        let id = self.client.open(self.now).expect("a stream");
        assert_eq!(self.client.write(self.now, id, b"question"), Ok(8));
        self.client.finish(self.now, id).expect("an open stream");
        id
    }

    /// The end of the stream has been read by the server, or can be.
    fn server_has_end(&mut self) -> bool {
        let id = self.asked.expect("a question that was read");
        self.server.read(self.now, id, &mut [0]) == Ok(Some(0))
    }

    /// The question has come, and whether the end has come with it.
    fn answer_end(&mut self) -> bool {
        let id = self.server.accept().expect("a stream");
        self.asked = Some(id);
        let mut buf = [0; 100];
        assert_eq!(self.server.read(self.now, id, &mut buf), Ok(Some(8)));
        self.server.read(self.now, id, &mut buf) == Ok(Some(0))
    }
}

/// The question is lost with its carrier, and three seconds pass without a network. That nothing came meanwhile tells nothing: with the FIN
/// right behind the question some Go programs could not answer any more.
#[test]
fn a_held_fin_is_not_let_go_by_an_outage() {
    let mut pair = Pair::connected();
    pair.ask();
    assert!(pair.up(false) > 0);
    pair.cut();
    pair.wait(3000 * MS);
    pair.connect();
    pair.pump();
    assert!(!pair.answer_end(), "the FIN has come with the question");
    pair.run(2300 * MS);
    assert!(!pair.server_has_end());
    pair.run(200 * MS);
    assert!(pair.server_has_end(), "quiet for as long as something lost may take to come again: sqrt(2 * 1 s * 3 s)");
}

/// The answer is lost with its carrier: until it can come again, that it does not come tells nothing.
#[test]
fn a_held_fin_waits_for_an_answer_that_was_lost() {
    let mut pair = Pair::connected();
    pair.ask();
    pair.pump();
    pair.cut();
    pair.wait(3000 * MS);
    pair.connect();
    pair.pump();
    assert!(!pair.answer_end(), "the FIN came first on the new carrier");
    pair.run(2300 * MS);
    assert!(!pair.server_has_end());
    pair.run(200 * MS);
    assert!(pair.server_has_end());
}

/// The same on a carrier that stands still for two seconds without dying.
#[test]
fn a_held_fin_is_not_let_go_by_a_stalled_carrier() {
    let mut pair = Pair::connected();
    pair.ask();
    let (from, to) = pair.carriers.expect("a carrier");
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let mut packet = Vec::new();
        while pair.client.poll_transmit(pair.now, from, &mut packet) {
            stalled.push(std::mem::take(&mut packet));
        }
        pair.wait(10 * MS);
    }
    for packet in stalled.iter().filter(|packet| kcp::conv_of(packet).is_some()) {
        pair.server.handle_packet(pair.now, to, packet);
    }
    assert!(!pair.answer_end(), "the FIN was right behind the question");
    pair.run(1100 * MS);
    assert!(pair.server_has_end());
}

/// One stream's upload, never all acknowledged, does not hold back the end of another.
#[test]
fn a_held_fin_does_not_wait_for_other_streams() {
    let mut pair = Pair::connected();
    let bulk = pair.client.open(pair.now).expect("a stream");
    pair.ask();
    pair.pump();
    for _ in 0..1100 {
        // What is on its way when the server has answered is answered in the next round.
        pair.client.write(pair.now, bulk, &[0; 100]).expect("an open stream");
        pair.down();
        pair.up(true);
        pair.wait(MS);
    }
    pair.pump();
    let ids: Vec<_> = std::iter::from_fn(|| pair.server.accept()).collect();
    let mut buf = [0; 100];
    let asked = *ids.iter().max().expect("two streams");
    assert_eq!(pair.server.read(pair.now, asked, &mut buf), Ok(Some(8)));
    assert_eq!(pair.server.read(pair.now, asked, &mut buf), Ok(Some(0)));
}

/// `close` waits for no answer, and what is learnt of the path afterwards does not change that.
#[test]
fn no_fin_is_held_back_by_a_session_that_closes() {
    let mut pair = Pair::connected();
    let id = pair.client.open(pair.now).expect("a stream");
    // More than goes out at once: the FIN is made when ACKs have told of the path.
    assert_eq!(pair.client.write(pair.now, id, &[0; 200_000]), Ok(200_000));
    pair.client.close(pair.now);
    let began = pair.now;
    while pair.client.ended().is_none() {
        pair.up(true);
        pair.wait(20 * MS);
        pair.down();
        assert!(pair.now < began + 900 * MS, "a FIN is held back");
    }
    assert_eq!(pair.client.ended(), Some(&SessionError::Closed));
}

// Protocol errors.

const SYN: [u8; 8] = [2, 0, 0, 0, 3, 0, 0, 0];
const DATA: [u8; 8] = [2, 2, 4, 0, 3, 0, 0, 0];

/// The broken frame ends the session, and every byte before it can be read all the same.
#[test]
fn what_came_before_a_protocol_error_can_be_read() {
    let now = Instant::now();
    let mut tunnel = server(now);
    let carrier = tunnel.attach(now);
    tunnel.handle_packet(now, carrier, &push(0, 0, &[&NOP[..], &SYN, &DATA, b"good"].concat()));
    tunnel.handle_packet(now, carrier, &push(1, 0, &[9; 8]));
    let ended = tunnel.ended().cloned();
    assert!(matches!(ended, Some(SessionError::Protocol(_))), "{ended:?}");
    let id = tunnel.accept().expect("a stream");
    let mut buf = [0; 2];
    assert_eq!((tunnel.read(now, id, &mut buf), &buf), (Ok(Some(2)), b"go"));
    assert_eq!((tunnel.read(now, id, &mut buf), &buf), (Ok(Some(2)), b"od"));
    assert!(matches!(tunnel.read(now, id, &mut buf), Err(StreamFailure::Session(SessionError::Protocol(_)))));
    tunnel.close_stream(now, id);
    assert_eq!(tunnel.ended().cloned(), ended);
}

/// The broken frame waits in front of full buffers: the read that makes room finds it, and loses nothing of what it has read.
#[test]
fn a_read_that_finds_a_protocol_error_keeps_its_bytes() {
    let now = Instant::now();
    let mut config = Config::default();
    config.max_buffered = 1;
    let mut tunnel = Tunnel::server(now, config, CONV, [1; 8]);
    let carrier = tunnel.attach(now);
    tunnel.handle_packet(now, carrier, &push(0, 0, &[&NOP[..], &SYN, &DATA, b"good"].concat()));
    tunnel.handle_packet(now, carrier, &push(1, 0, &[9; 8]));
    assert_eq!(tunnel.ended(), None, "nobody has looked at it yet");
    let id = tunnel.accept().expect("a stream");
    let mut buf = [0; 9];
    assert_eq!(tunnel.read(now, id, &mut buf), Ok(Some(4)));
    assert!(matches!(tunnel.ended(), Some(SessionError::Protocol(_))));
    let told: Vec<_> = std::iter::from_fn(|| tunnel.poll_event()).collect();
    assert_eq!(told.iter().filter(|event| matches!(event, Event::Ended(_))).count(), 1);
    assert!(tunnel.read(now, id, &mut buf).is_err());
}

// Closing.

impl Pair {
    /// The server acknowledges, but its application does not read: 200,000 bytes wait behind its window.
    fn stuffed(config: Config) -> Self {
        let mut pair = Self::with(config);
        let id = pair.client.open(pair.now).expect("a stream");
        assert_eq!(pair.client.write(pair.now, id, &[0; 262_144]), Ok(262_144));
        pair.run(100 * MS);
        assert_eq!(pair.client.write(pair.now, id, &[0; 200_000]), Ok(200_000));
        pair.run(100 * MS);
        pair
    }
}

/// Keepalives and window updates are acknowledged all the time, the data behind the peer's window never moves.
#[test]
fn a_close_does_not_wait_for_ever_because_keepalives_are_acknowledged() {
    let mut config = Config::default();
    config.keepalive = Some(5_000 * MS);
    let mut pair = Pair::stuffed(config);
    // The peer goes on talking on another stream, which is read: updates go out.
    let talk = pair.server.open(pair.now).expect("a stream");
    pair.client.close(pair.now);
    let began = pair.now;
    let mut buf = vec![0; 64 << 10];
    while pair.client.ended().is_none() {
        pair.server.write(pair.now, talk, &[0; 40_000]).expect("an open stream");
        pair.run(500 * MS);
        while pair.client.read(pair.now, talk, &mut buf).is_ok_and(|read| read.is_some()) {}
        assert!(pair.now < began + 15_000 * MS, "close hangs");
    }
    assert!(pair.now >= began + 10_000 * MS);
    assert!(matches!(pair.client.ended(), Some(SessionError::ClosedUnacknowledged { .. })));
}

/// Everything is acknowledged, and the peer goes on talking: there is always an update on its way, which nobody has to wait for.
#[test]
fn a_close_does_not_wait_for_window_updates() {
    let mut pair = Pair::connected();
    let talk = pair.server.open(pair.now).expect("a stream");
    pair.client.close(pair.now);
    assert_eq!(pair.client.ended(), Some(&SessionError::Closed), "nothing was said");
    let mut pair = Pair::connected();
    assert_eq!(talk, pair.server.open(pair.now).expect("a stream"));
    pair.server.write(pair.now, talk, &[0; 200_000]).expect("an open stream");
    let id = pair.client.open(pair.now).expect("a stream");
    pair.client.write(pair.now, id, b"last words").expect("an open stream");
    pair.pump();
    pair.client.close(pair.now);
    pair.up(true);
    // An update leaves behind the last words, and is not acknowledged.
    assert_eq!(pair.client.read(pair.now, talk, &mut [0; 100_000]), Ok(Some(100_000)));
    assert!(pair.up(false) > 0);
    pair.down();
    assert_eq!(pair.client.ended(), Some(&SessionError::Closed));
}

/// A stream is let go while the carrier takes nothing, and meanwhile everything is acknowledged. What is still to be said, that nobody reads there any
/// more, needs no answer: with it the session is over.
#[test]
fn a_close_does_not_wait_for_an_answer_to_its_last_word() {
    let mut pair = Pair::connected();
    let id = pair.client.open(pair.now).expect("a stream");
    pair.client.write(pair.now, id, b"last words").expect("an open stream");
    pair.client.close(pair.now);
    pair.up(true);
    pair.client.close_stream(pair.now, id);
    pair.down();
    assert_eq!(pair.client.ended(), None, "it has not been said yet");
    assert!(pair.up(true) > 0);
    assert_eq!(pair.client.ended(), Some(&SessionError::Closed));
}

/// A carrier lost every nine seconds does not begin the limit anew.
#[test]
fn the_limit_of_close_goes_on_where_it_was_on_the_next_carrier() {
    let mut pair = Pair::stuffed(Config::default());
    pair.client.close(pair.now);
    pair.run(9_000 * MS);
    assert_eq!(pair.client.ended(), None);
    pair.cut();
    pair.wait(3_000 * MS);
    pair.connect();
    pair.run(500 * MS);
    assert_eq!(pair.client.ended(), None, "time without a carrier does not count");
    pair.run(1_500 * MS);
    assert!(matches!(pair.client.ended(), Some(SessionError::ClosedUnacknowledged { .. })));
}

// A peer that goes while we write.

const SECOND: Duration = Duration::from_secs(1);

/// Two ends of a stream; the client has written so much that 200,000 bytes wait behind the window of the server, which does not read.
async fn stuffed_stream() -> (Session, Stream, Stream) {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, |_| u64::MAX).await;
    let mut client = session.open().await.unwrap();
    client.write_all(&data(1 << 20)).await.unwrap();
    client.write_all(&data(200_000)).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    tokio::time::sleep(SECOND).await;
    (session, client, server)
}

/// The server's handle is dropped: what waited is thrown away here, so it has never been delivered, whatever else is acknowledged.
#[tokio::test(start_paused = true)]
async fn shutdown_fails_when_written_bytes_were_thrown_away() {
    let (_session, mut client, server) = stuffed_stream().await;
    drop(server);
    tokio::time::sleep(SECOND).await;
    for _ in 0..2 {
        assert_eq!(client.shutdown().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
    assert_eq!(client.finished().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

/// The same while `shutdown` waits already: it must hear of it, and not take the FIN that goes out then for success.
#[tokio::test(start_paused = true)]
async fn a_waiting_shutdown_hears_that_the_peer_has_gone() {
    let (_session, mut client, server) = stuffed_stream().await;
    let waiting = tokio::spawn(async move { client.shutdown().await });
    tokio::time::sleep(SECOND).await;
    assert!(!waiting.is_finished());
    drop(server);
    let outcome = tokio::time::timeout(10 * SECOND, waiting).await.expect("shutdown waits for ever").unwrap();
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

/// Everything is let go while the peer reads nothing for longer than a close waits: what was not sent is counted, and the peer is told that this was not all.
#[tokio::test(start_paused = true)]
async fn who_closes_while_the_peer_does_not_read_says_how_much_was_lost_and_the_peer_hears_of_it() {
    let (session, client, mut server) = stuffed_stream().await;
    drop(client);
    let error = session.close().await.unwrap_err();
    assert!(matches!(error, SessionError::ClosedUnacknowledged { unsent: 200_000, .. }), "{error:?}");
    tokio::time::sleep(SECOND).await;
    let mut read = Vec::new();
    let end = tokio::time::timeout(SECOND, server.read_to_end(&mut read)).await.expect("it has been told");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionAborted, "no orderly end");
    assert!(read == data(1 << 20), "what was sent is there");
}

/// A task is aborted in the middle of what it says.
#[tokio::test(start_paused = true)]
async fn a_stream_that_resets_on_drop_does_not_look_finished() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, |_| u64::MAX).await;
    for finished in [false, true] {
        let mut client = session.open().await.unwrap();
        client.set_reset_on_drop(true);
        let saying = tokio::spawn(async move {
            client.write_all(b"half").await.unwrap();
            if finished {
                client.shutdown().await.unwrap();
            }
            std::future::pending::<()>().await;
            drop(client);
        });
        let (mut server, _) = listener.accept().await.unwrap();
        let mut said = [0; 4];
        server.read_exact(&mut said).await.unwrap();
        tokio::time::sleep(SECOND).await;
        saying.abort();
        let end = server.read(&mut said).await.map_err(|error| error.kind());
        assert_eq!(end, if finished { Ok(0) } else { Err(ErrorKind::ConnectionReset) });
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(session.stats().tunnel.streams, 0, "let go");
}

/// Nothing was thrown away: a peer that goes when it has everything is no reason to fail.
#[tokio::test(start_paused = true)]
async fn shutdown_succeeds_when_a_peer_has_gone_that_had_everything() {
    let listener = Arc::new(Listener::builder().detached());
    let (session, _) = connect(Session::builder(), &listener, |_| u64::MAX).await;
    let mut client = session.open().await.unwrap();
    client.write_all(b"all").await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.read_exact(&mut [0; 3]).await.unwrap();
    drop(server);
    tokio::time::sleep(SECOND).await;
    assert_eq!(client.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    client.shutdown().await.unwrap();
    client.finished().await.unwrap();
}
