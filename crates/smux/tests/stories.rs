//! What streams go through: ends, windows, turns, limits, deadlines.

mod common;

use common::*;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use turbotunnel_smux::wire::Command::{Fin, Nop, Psh, Syn, Upd};
use turbotunnel_smux::{
    ASSUMED_WINDOW, Config, Event, Mux, OpenError, ProtocolError, Side, StreamError, StreamId, Version,
};

// Ends.

/// The client says all it has, finishes, and still gets the whole answer; so does the server.
#[test]
fn each_side_finishes_in_its_own_time() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!(pair.client.write(id, b"question"), Ok(8));
    pair.client.finish(id).expect("an open stream");
    pair.client.finish(id).expect("doing it again changes nothing");
    assert_eq!(pair.client.write(id, b"more"), Err(StreamError::Finished));
    assert!(!pair.client.is_quiet());
    pair.run();
    assert!(pair.client.is_quiet());
    assert_eq!(events(&mut pair.client), [Event::FinSent(id)]);
    assert_eq!(read_all(&mut pair.server, pair.now, id), (b"question".to_vec(), true));

    assert!(pair.client.has_unfinished_reads());
    let answer = pattern(200_000);
    assert_eq!(pair.server.write(id, &answer), Ok(200_000));
    pair.server.finish(id).expect("an open stream");
    pair.run();
    assert!(!pair.client.has_unfinished_reads());
    assert_eq!(read_all(&mut pair.client, pair.now, id), (answer, true), "unread data outlives both FINs");

    assert_eq!((pair.client.streams(), pair.server.streams()), (1, 1));
    pair.client.close(id);
    pair.server.close(id);
    assert_eq!(sent(&mut pair.client, pair.now), [], "both directions are over: nothing left to say");
    assert_eq!(events(&mut pair.client), [Event::Finished(id)]);
    assert_eq!((pair.client.streams(), pair.server.streams()), (0, 0));
    assert_eq!(pair.client.read(pair.now, id, &mut [0]), Err(StreamError::Unknown));
}

#[test]
fn fin_waits_behind_its_data() {
    let mut pair = Pair::new(Config::default());
    let (bulk, other) = (pair.open(), pair.open());
    assert_eq!(pair.client.write(bulk, &[1; 100_000]), Ok(100_000));
    assert_eq!(pair.client.write(other, &[2; 100_000]), Ok(100_000));
    pair.client.finish(bulk).expect("an open stream");
    let frames = sent(&mut pair.client, pair.now);
    let fin = frames.iter().position(|frame| *frame == (Fin, bulk.value(), 0)).expect("a FIN");
    let before: usize = frames[..fin].iter().filter(|frame| frame.1 == bulk.value()).map(|frame| frame.2).sum();
    assert_eq!(before, 100_000);
    assert!(frames[fin..].iter().all(|frame| frame.1 != bulk.value() || frame.0 == Fin));
}

/// Old Go senders let a FIN overtake data that another caller had queued. Until the end is read it is data like any other.
#[test]
fn data_after_fin_counts_until_the_end_was_read() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    pair.server.handle_bytes(pair.now, &frame(Fin, 3, b"")).expect("a FIN");
    pair.server.handle_bytes(pair.now, &frame(Psh, 3, b"late")).expect("data");
    assert_eq!(read_all(&mut pair.server, pair.now, id), (b"late".to_vec(), true));
    pair.server.handle_bytes(pair.now, &frame(Psh, 3, b"too late")).expect("data");
    assert_eq!(read_all(&mut pair.server, pair.now, id), (b"".to_vec(), true), "an end is an end");
    assert_eq!(pair.server.stats().bytes_after_end, 8);
    assert_eq!(pair.server.buffered(), 0);
}

/// The server lets go while the client is writing: the client learns it and stops.
#[test]
fn close_tells_the_writer_at_the_other_end() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!(pair.client.write(id, &pattern(100_000)), Ok(100_000));
    pair.run();
    assert!(pair.server.buffered() >= 100_000);
    pair.server.close(id);
    assert_eq!(pair.server.buffered(), 0, "unread data goes at once");
    // Meanwhile the client fills its buffer, and waits.
    while pair.client.write(id, &[0; 65_536]) != Ok(0) {}
    assert_eq!(sent(&mut pair.server, pair.now), [(Fin, 3, 0), (Fin, 3, 0)]);
    assert_eq!(events(&mut pair.server), [Event::Incoming, Event::FinSent(id), Event::Finished(id)]);
    assert_eq!(pair.server.streams(), 0);

    let twice = [frame(Fin, 3, b""), frame(Fin, 3, b"")].concat();
    pair.client.handle_bytes(pair.now, &twice).expect("two FINs");
    assert_eq!(events(&mut pair.client), [Event::ClosedByPeer { id, lost: true }, Event::Writable(id)]);
    assert_eq!(pair.client.write(id, b"x"), Err(StreamError::ClosedByPeer));
    assert_eq!(pair.client.finish(id), Err(StreamError::ClosedByPeer), "there is no end to what is not there");
    assert_eq!(pair.client.stats().bytes_unsent, 262_144, "what nobody would read is dropped");
    assert!(pair.client.is_quiet());
    pair.client.close(id);
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 3, 0)]);
    assert_eq!(events(&mut pair.client), [Event::Finished(id)], "that FIN is not the end of what was written");
    assert_eq!(pair.client.streams(), 0);
}

/// The peer lets go when it has everything: nothing is lost.
#[test]
fn a_stream_that_the_peer_closed_can_be_finished_if_all_was_sent() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!(pair.client.write(id, b"all"), Ok(3));
    pair.run();
    pair.server.close(id);
    pair.run();
    assert_eq!(events(&mut pair.client), [Event::ClosedByPeer { id, lost: false }]);
    assert_eq!(pair.client.write(id, b"x"), Err(StreamError::ClosedByPeer));
    assert_eq!(pair.client.finish(id), Ok(()));
    pair.run();
    assert_eq!(events(&mut pair.client), [Event::FinSent(id)]);
}

#[test]
fn what_was_written_goes_out_after_close() {
    let mut pair = Pair::new(Config::default());
    let id = pair.client.open().expect("a stream");
    assert_eq!(pair.client.write(id, b"last words"), Ok(10));
    pair.client.close(id);
    assert_eq!(pair.client.write(id, b"x"), Err(StreamError::Unknown));
    pair.run();
    assert_eq!(pair.client.streams(), 0);
    assert_eq!(pair.server.accept(), Some(id));
    assert_eq!(read_all(&mut pair.server, pair.now, id), (b"last words".to_vec(), true));
    assert_eq!(pair.server.write(id, b"x"), Err(StreamError::ClosedByPeer));
}

/// The peer has stopped reading for good. Closing waits for it, aborting does not.
#[test]
fn abort_lets_go_of_what_cannot_be_sent() {
    let mut pair = Pair::new(Config { send_buffer: 1 << 20, ..Config::default() });
    let id = pair.open();
    assert_eq!(pair.client.write(id, &[0; 300_000]), Ok(300_000));
    pair.client.close(id);
    pair.run();
    assert_eq!((pair.client.streams(), pair.client.is_quiet()), (1, false));
    pair.client.abort(id);
    assert_eq!(pair.client.stats().bytes_unsent, 300_000 - u64::from(ASSUMED_WINDOW));
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 3, 0), (Fin, 3, 0)]);
    assert_eq!((pair.client.streams(), pair.client.is_quiet()), (0, true));
}

/// Go peers of some ages throw away their answer when they see a FIN: it waits until the stream is quiet.
#[test]
fn a_held_fin_goes_when_the_stream_is_quiet() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    pair.client.set_fin_quiet(Some(ms(1_000)));
    assert_eq!(pair.client.write(id, b"question"), Ok(8));
    pair.client.finish(id).expect("an open stream");
    assert_eq!(sent(&mut pair.client, pair.now), [(Psh, 3, 8)]);
    assert_eq!(events(&mut pair.client), [Event::FinHeld(id)]);
    assert!(!pair.client.wants_transmit() && !pair.client.is_quiet());
    assert_eq!(pair.client.poll_timeout(), None, "who has not got the question cannot be answering it");
    pair.wait(ms(5_000));
    pair.client.start_fin_quiet(pair.now, id);
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + ms(1_000)));
    // Each piece of the answer puts it off.
    for _ in 0..5 {
        pair.wait(ms(900));
        pair.client.handle_bytes(pair.now, &frame(Psh, 3, b"answer")).expect("data");
        assert!(!pair.client.wants_transmit());
    }
    let last = pair.now;
    while let Some(due) = pair.client.poll_timeout() {
        pair.wait(due - pair.now);
    }
    assert_eq!(pair.now, last + ms(1_000));
    // Quiet so far may mean that nothing can arrive: there must be an answer.
    assert_eq!(events(&mut pair.client), [Event::FinQuiet(id)]);
    assert!(!pair.client.wants_transmit());
    // An answer that was late instead: it goes on.
    pair.client.handle_bytes(pair.now, &frame(Psh, 3, b"answer")).expect("data");
    pair.client.handle_alive(pair.now);
    assert!(!pair.client.wants_transmit());
    pair.wait(ms(1_000));
    assert_eq!(events(&mut pair.client), [Event::FinQuiet(id)]);
    pair.wait(ms(77));
    pair.client.handle_alive(pair.now);
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 3, 0)]);
    assert_eq!(pair.client.poll_timeout(), None);
    assert_eq!(read_all(&mut pair.client, pair.now, id).0.len(), 36);
}

/// While nothing can arrive, that nothing arrives tells nothing. Paths that live shorter than the quiet time let the FIN go
/// all the same, later.
#[test]
fn the_quiet_before_a_held_fin_is_the_time_in_which_the_peer_could_have_spoken() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    pair.client.set_fin_quiet(Some(ms(1_000)));
    pair.client.finish(id).expect("an open stream");
    assert_eq!(sent(&mut pair.client, pair.now), []);
    pair.client.start_fin_quiet(pair.now, id);
    for _ in 0..3 {
        pair.wait(ms(300));
        pair.client.pause_fin_quiet(pair.now);
        assert_eq!(pair.client.poll_timeout(), None);
        pair.wait(ms(60_000));
        pair.client.resume_fin_quiet(pair.now, ms(0));
    }
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + ms(250)), "what was lost on the way may still come again");
    pair.wait(ms(249));
    assert_eq!(events(&mut pair.client), [Event::FinHeld(id)]);
    pair.wait(ms(1));
    assert_eq!(events(&mut pair.client), [Event::FinQuiet(id)]);
    // Nothing could arrive for the time of a whole outage: what was lost in it comes again, but not soon.
    pair.client.resume_fin_quiet(pair.now, ms(50_000));
    pair.client.handle_alive(pair.now);
    pair.wait(ms(9_999));
    pair.client.handle_alive(pair.now);
    assert_eq!(events(&mut pair.client), []);
    pair.wait(ms(1));
    assert_eq!(events(&mut pair.client), [Event::FinQuiet(id)]);
    pair.client.handle_alive(pair.now);
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 3, 0)]);
    assert_eq!(pair.client.poll_timeout(), None);
}

#[test]
fn a_held_fin_goes_when_nothing_holds_it_any_more() {
    let mut pair = Pair::new(Config::default());
    pair.client.set_fin_quiet(Some(ms(1_000)));
    let ids = [pair.open(), pair.open(), pair.open()];
    for id in ids {
        pair.client.finish(id).expect("an open stream");
    }
    assert_eq!(sent(&mut pair.client, pair.now), []);
    pair.client.start_fin_quiet(pair.now, ids[1]);
    // The peer has finished itself; the application lets go; the peer turns out to be one of ours.
    pair.client.handle_bytes(pair.now, &frame(Fin, ids[0].value(), b"")).expect("a FIN");
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 3, 0)]);
    pair.client.close(ids[1]);
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 5, 0), (Fin, 5, 0)]);
    pair.client.set_fin_quiet(None);
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 7, 0)]);
    assert_eq!(pair.client.poll_timeout(), None);
    assert!(pair.client.is_quiet());
}

// Windows.

#[test]
fn more_than_the_window_ends_the_session() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    for _ in 0..4 {
        pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 65_535])).expect("within the window");
    }
    pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 4])).expect("up to its edge");
    let error = ProtocolError::WindowExceeded { stream: id, excess: 1 };
    assert_eq!(pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 1])), Err(error));
    assert_eq!(pair.server.handle_bytes(pair.now, &frame(Nop, 0, b"")), Err(error), "over is over");
    assert_eq!(read_all(&mut pair.server, pair.now, id).0.len(), 262_144, "what came before can be read");
}

#[test]
fn what_is_beyond_the_window_is_told() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    for _ in 0..4 {
        pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 65_535])).expect("within the window");
    }
    let error = ProtocolError::WindowExceeded { stream: id, excess: 6 };
    assert_eq!(pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 10])), Err(error));
}

/// A window counts from the moment its update went out: one that was read but not yet told is not the peer's.
#[test]
fn the_edge_moves_with_the_update() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    for _ in 0..4 {
        pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 65_535])).expect("within the window");
    }
    assert_eq!(pair.server.read(pair.now, id, &mut [0; 65_536]), Ok(Some(65_536)));
    assert_eq!(sent(&mut pair.server, pair.now), [(Upd, 3, 8)]);
    pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 65_535])).expect("the window was told");
    pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 5])).expect("up to its edge");
    assert_eq!(pair.server.read(pair.now, id, &mut [0; 65_536]), Ok(Some(65_536)));
    let error = pair.server.handle_bytes(pair.now, &frame(Psh, 3, &[0; 1]));
    assert!(matches!(error, Err(ProtocolError::WindowExceeded { excess: 1, .. })), "{error:?}");
}

/// The sender starts at 262,144 whatever the receiver has: without an update at the first read it might stall for ever.
#[test]
fn the_first_read_is_told_then_each_sixteenth() {
    let window = 1 << 20;
    let mut pair = Pair::of(Config::default(), Config { initial_window: window, ..Config::default() });
    let id = pair.open();
    assert_eq!(pair.client.write(id, &pattern(200_000)), Ok(200_000));
    pair.run();
    assert_eq!(pair.server.read(pair.now, id, &mut [0; 1]), Ok(Some(1)));
    let mut out = Vec::new();
    pair.server.poll_transmit(pair.now, &mut out, ROOM);
    assert_eq!(out, update(3, 1, window));
    assert_eq!(pair.server.read(pair.now, id, &mut [0; 65_535]), Ok(Some(65_535)));
    assert_eq!(sent(&mut pair.server, pair.now), []);
    assert_eq!(pair.server.read(pair.now, id, &mut [0; 1]), Ok(Some(1)));
    out.clear();
    pair.server.poll_transmit(pair.now, &mut out, ROOM);
    assert_eq!(out, update(3, 65_537, window));
}

#[test]
fn an_update_says_what_is_true_when_it_leaves() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!(pair.client.write(id, &pattern(200_000)), Ok(200_000));
    pair.run();
    for _ in 0..10 {
        assert_eq!(pair.server.read(pair.now, id, &mut [0; 10_000]), Ok(Some(10_000)));
    }
    let mut out = Vec::new();
    while pair.server.poll_transmit(pair.now, &mut out, ROOM) {}
    assert_eq!(out, update(3, 100_000, ASSUMED_WINDOW), "one update for all reads");
}

/// 100 ms round trip. A reader that keeps up gets a larger window, up to the limit; a slow one does not.
#[test]
fn windows_of_fast_readers_grow() {
    let config = Config { max_window: 2 << 20, ..Config::default() };
    let mut pair = Pair::new(config);
    pair.server.set_rtt(ms(100));
    let (fast, slow) = (pair.open(), pair.open());
    let mut fast_bytes = 0;
    for _ in 0..40 {
        for id in [fast, slow] {
            while pair.client.write(id, &[0; 65_536]).is_ok_and(|n| n > 0) {
                pair.up();
            }
        }
        pair.up();
        fast_bytes = fast_bytes.max(read_all(&mut pair.server, pair.now, fast).0.len());
        assert!(pair.server.read(pair.now, slow, &mut [0; 40_000]).expect("open").is_some());
        pair.down();
        events(&mut pair.client);
        pair.wait(ms(100));
    }
    assert_eq!(pair.server.stats().windows_grown, 3, "256 KiB, 512 KiB, 1 MiB, 2 MiB");
    assert_eq!(fast_bytes, 2 << 20);
}

#[test]
fn the_peers_first_window_can_be_announced() {
    let config = Config { initial_window: 1 << 20, send_buffer: 4 << 20, first_unsent: 8 << 20, ..Config::default() };
    let mut pair = Pair::new(config);
    let before = pair.open();
    let shrunk = pair.open();
    pair.client.handle_bytes(pair.now, &update(shrunk.value(), 0, 1_000)).expect("an update");
    for id in [before, shrunk] {
        assert_eq!(pair.client.write(id, &pattern(2 << 20)), Ok(2 << 20));
    }
    pair.run();
    assert_eq!(read_all(&mut pair.server, pair.now, before).0.len(), 262_144);
    pair.client.set_peer_window(1 << 20);
    pair.client.set_peer_window(0);
    pair.run();
    assert_eq!(read_all(&mut pair.server, pair.now, before).0, pattern(2 << 20)[262_144..(1 << 20) + 262_144]);
    assert_eq!(read_all(&mut pair.server, pair.now, shrunk).0.len(), 1_000, "an update is better than an announcement");
}

#[test]
fn updates_that_cannot_be_true_are_ignored() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!(pair.client.write(id, &[0; 100]), Ok(100));
    pair.up();
    pair.client.handle_bytes(pair.now, &update(3, 50, 100)).expect("an update");
    for lie in [update(3, 49, 1_000), update(3, 101, 1_000), update(3, 60, 0x8000_0000), update(3, u32::MAX, 9)] {
        pair.client.handle_bytes(pair.now, &lie).expect("no reason to end a session");
    }
    assert_eq!((pair.client.stats().updates_received, pair.client.stats().updates_ignored), (1, 4));
    let mut other = Pair::new(Config::default());
    other.open();
    other.client.handle_bytes(other.now, &update(3, 0, 0x7fff_ffff)).expect("the largest window");
    assert_eq!(other.client.stats().updates_received, 1);
    assert_eq!(pair.client.write(id, &[0; 100]), Ok(100));
    assert_eq!(sent(&mut pair.client, pair.now), [(Psh, 3, 50)]);
}

/// Ten megabytes through counters that start just below 2^32.
#[test]
fn counters_wrap() {
    let mut pair = Pair::new(Config { initial_counter: u32::MAX - 1_000_000, ..Config::default() });
    let id = pair.open();
    let bytes = pattern(10 << 20);
    let (mut written, mut received) = (0, Vec::new());
    while received.len() < bytes.len() {
        let end = bytes.len().min(written + 65_536);
        written += pair.client.write(id, &bytes[written..end]).expect("an open stream");
        pair.run();
        received.extend(read_all(&mut pair.server, pair.now, id).0);
        pair.run();
    }
    assert_eq!(received, bytes);
}

/// Version 1 has no windows: what bounds it is the session's memory.
#[test]
fn version_1_has_no_windows() {
    let mut config = Config { version: Version::V1, max_buffered: 1 << 20, ..Config::default() };
    (config.send_buffer, config.first_unsent) = (2 << 20, 2 << 20);
    let mut pair = Pair::new(config);
    let id = pair.open();
    let bytes = pattern(2 << 20);
    assert_eq!(pair.client.write(id, &bytes), Ok(2 << 20));
    let mut received = Vec::new();
    let mut packet = Vec::new();
    while received.len() < bytes.len() {
        while pair.server.has_room() && pair.client.poll_transmit(pair.now, &mut packet, ROOM) {
            pair.server.handle_bytes(pair.now, &packet).expect("data");
            packet.clear();
        }
        assert!(pair.server.buffered() < (1 << 20) + 20_000);
        received.extend(read_all(&mut pair.server, pair.now, id).0);
    }
    assert_eq!(received, bytes);
    assert_eq!(sent(&mut pair.server, pair.now), [], "and no updates");
}

// Turns.

/// What all of them have waiting stays in a processor's cache.
#[test]
fn where_many_streams_have_something_waiting_each_may_have_less() {
    let mut pair = Pair::new(Config { first_unsent: 32 << 20, max_unsent: 32 << 20, ..Config::default() });
    let ids: Vec<StreamId> = (0..100).map(|_| pair.open()).collect();
    let all = vec![0; 1 << 20];
    let taken: Vec<_> = ids.iter().map(|&id| pair.client.write(id, &all).expect("open")).collect();
    // Among those that wait already.
    for (waiting, taken) in taken.iter().enumerate() {
        assert_eq!(*taken, ((4 << 20) / waiting.max(1)).clamp(64 << 10, 256 << 10), "{waiting} waiting");
    }
    // The first has more than it may have now, and is told when there is room again: by then most others have nothing left.
    assert_eq!((pair.client.write(ids[0], &all), pair.client.room(ids[0], 1)), (Ok(0), Ok(None)));
    let mut packet = Vec::new();
    let mut left = 256 << 10;
    while pair.client.poll_event().is_none() {
        packet.clear();
        assert!(pair.client.poll_transmit(pair.now, &mut packet, ROOM));
        let sent = parse(&packet).into_iter().filter(|(header, _)| header.stream == ids[0]);
        left -= sent.map(|(_, payload)| payload.len()).sum::<usize>();
    }
    assert!(left <= 128 << 10, "{left} bytes are left");
    assert!(pair.client.write(ids[0], &all).is_ok_and(|taken| taken >= 32 << 10));
}

#[test]
fn streams_take_turns() {
    let mut pair = Pair::new(Config { first_unsent: 16 << 20, ..Config::default() });
    let ids: Vec<StreamId> = (0..50).map(|_| pair.open()).collect();
    for &id in &ids {
        assert_eq!(pair.client.write(id, &[0; 64_000]), Ok(64_000));
    }
    let mut got = std::collections::HashMap::new();
    let mut packet = Vec::new();
    for round in 1..=40 {
        for _ in &ids {
            assert!(pair.client.poll_transmit(pair.now, &mut packet, ROOM));
        }
        for (header, payload) in parse(&packet) {
            *got.entry(header.stream).or_insert(0) += payload.len();
        }
        packet.clear();
        assert!(ids.iter().all(|id| got[id] == round * (ROOM - 8)), "round {round}");
    }
}

/// Rooms that cut every other frame short do not decide who gets how much.
#[test]
fn a_frame_cut_short_does_not_cost_the_turn() {
    let mut pair = Pair::new(Config::default());
    let (a, b) = (pair.open(), pair.open());
    for id in [a, b] {
        assert_eq!(pair.client.write(id, &[0; 200_000]), Ok(200_000));
    }
    let mut out = Vec::new();
    for _ in 0..50 {
        assert!(pair.client.poll_transmit(pair.now, &mut out, ROOM));
        assert!(pair.client.poll_transmit(pair.now, &mut out, 40));
    }
    let bytes = |id| parse(&out).iter().filter(|frame| frame.0.stream == id).map(|frame| frame.1.len()).sum::<usize>();
    assert!(bytes(a).abs_diff(bytes(b)) <= 1_368, "{} and {}", bytes(a), bytes(b));
}

/// A small request waits for one frame of each bulk stream, not for their buffers; SYN and UPD wait for nothing.
#[test]
fn control_frames_and_newcomers_overtake_bulk() {
    let mut pair = Pair::new(Config::default());
    let bulk = pair.open();
    let reader = pair.open();
    pair.client.handle_bytes(pair.now, &frame(Psh, reader.value(), b"x")).expect("data");
    assert_eq!(pair.client.write(bulk, &[0; 200_000]), Ok(200_000));
    let mut out = Vec::new();
    assert!(pair.client.poll_transmit(pair.now, &mut out, ROOM));
    let small = pair.client.open().expect("a stream");
    assert_eq!(pair.client.write(small, b"ping"), Ok(4));
    assert_eq!(read_all(&mut pair.client, pair.now, reader).0, b"x");
    out.clear();
    for _ in 0..3 {
        assert!(pair.client.poll_transmit(pair.now, &mut out, ROOM));
    }
    let frames: Vec<_> = parse(&out).into_iter().map(|(header, _)| (header.command, header.stream)).collect();
    assert_eq!(frames[..4], [(Syn, small), (Upd, reader), (Psh, bulk), (Psh, small)]);
}

#[test]
fn a_stream_without_window_gives_its_turn_away() {
    let mut pair = Pair::new(Config { send_buffer: 1 << 20, ..Config::default() });
    let (stuck, free) = (pair.open(), pair.open());
    assert_eq!(pair.client.write(stuck, &[0; 500_000]), Ok(500_000));
    pair.run();
    assert_eq!(pair.client.write(free, b"free"), Ok(4));
    pair.run();
    assert_eq!(read_all(&mut pair.server, pair.now, free).0, b"free");
    assert!(!pair.client.is_quiet());
    let mut got = 0;
    while got < 500_000 {
        got += read_all(&mut pair.server, pair.now, stuck).0.len();
        pair.run();
    }
    assert!(pair.client.is_quiet());
}

/// Whatever the room, whole frames fill it and no more; too little room is not the end.
#[test]
fn every_room_is_kept() {
    let bytes = pattern(5_000);
    for room in 0..200 {
        let mut pair = Pair::new(Config::default());
        let id = pair.client.open().expect("a stream");
        assert_eq!(pair.client.write(id, &bytes), Ok(5_000));
        pair.client.finish(id).expect("an open stream");
        let mut out = Vec::new();
        loop {
            let before = out.len();
            let any = pair.client.poll_transmit(pair.now, &mut out, room);
            assert_eq!(any, out.len() > before);
            assert!(out.len() - before <= room);
            if !any {
                break;
            }
        }
        if room <= 8 {
            assert_eq!(out.len(), if room == 8 { 8 } else { 0 }, "room {room}");
            continue;
        }
        pair.server.handle_bytes(pair.now, &out).expect("our own frames");
        assert_eq!(read_all(&mut pair.server, pair.now, id), (bytes.clone(), true), "room {room}");
    }
}

#[test]
fn full_and_empty_are_told_once() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    events(&mut pair.server);
    assert_eq!(pair.server.read(pair.now, id, &mut [0; 10]), Ok(None));
    assert_eq!(pair.client.write(id, &[0; 300_000]), Ok(262_144), "as much as there is room");
    assert_eq!(pair.client.write(id, b""), Ok(0), "nothing to write is no reason to wait");
    assert_eq!(events(&mut pair.client), []);
    assert_eq!(pair.client.write(id, &[0; 1]), Ok(0));
    pair.run();
    assert_eq!(events(&mut pair.client), [Event::Writable(id)]);
    assert_eq!(events(&mut pair.server), [Event::Readable(id)], "one event for many frames");
    assert_eq!(pair.client.write(id, &[0; 1]), Ok(1));
    assert_eq!(pair.server.read(pair.now, id, &mut []), Ok(Some(0)));
}

/// A segment of a Go peer can end anywhere, and so just behind the header of a data frame. That a reader waits was once forgotten then,
/// and it slept on whatever came.
#[test]
fn a_piece_that_ends_with_a_header_does_not_swallow_the_news() {
    let bytes = [frame(Psh, 3, b"abc"), frame(Psh, 3, b"def")].concat();
    for cut in 1..bytes.len() {
        let mut pair = Pair::new(Config::default());
        let id = pair.open();
        events(&mut pair.server);
        assert_eq!(pair.server.read(pair.now, id, &mut [0; 10]), Ok(None));
        let mut told = Vec::new();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            pair.server.handle_bytes(pair.now, piece).expect("data");
            told.extend(events(&mut pair.server));
        }
        assert_eq!(told, [Event::Readable(id)], "cut at {cut}");
    }
}

/// A peer takes up an id that the application closes once more, from its former life.
#[test]
fn a_stream_closed_before_it_was_accepted_is_not_offered() {
    let mut pair = Pair::new(Config::default());
    let closed = [frame(Syn, 3, b""), frame(Syn, 5, b""), frame(Syn, 7, b"")].concat();
    pair.server.handle_bytes(pair.now, &closed).expect("three streams");
    pair.server.close(StreamId::new(3));
    assert_eq!(sent(&mut pair.server, pair.now), [(Fin, 3, 0), (Fin, 3, 0)]);
    pair.server.close(StreamId::new(5));
    assert_eq!(pair.server.accept(), Some(StreamId::new(7)), "neither the one that left nor the one that is leaving");
    assert_eq!(pair.server.accept(), None);
}

// Limits.

/// More streams than allowed at once: refused by FIN, counted; then the session ends.
#[test]
fn a_flood_of_streams_is_refused_then_ends_the_session() {
    let config = Config { stream_burst: 100, stream_rate: 10, ..Config::default() };
    let mut pair = Pair::of(Config::default(), config);
    let mut id = 3;
    let mut syn = || {
        id += 2;
        frame(Syn, id, b"")
    };
    for _ in 0..110 {
        pair.server.handle_bytes(pair.now, &syn()).expect("within the limit");
    }
    assert_eq!((pair.server.streams(), pair.server.stats().streams_refused), (100, 10));
    let refusals = sent(&mut pair.server, pair.now);
    assert_eq!(refusals.len(), 10);
    assert!(refusals.iter().all(|frame| frame.0 == Fin && frame.1 >= 203));
    // The allowance comes back with time.
    pair.wait(Duration::from_secs(1));
    for _ in 0..20 {
        pair.server.handle_bytes(pair.now, &syn()).expect("within the limit");
    }
    assert_eq!((pair.server.streams(), pair.server.stats().streams_refused), (110, 20));
    // Ten were taken since, so ten are forgiven.
    for _ in 0..1_024 - 10 {
        pair.server.handle_bytes(pair.now, &syn()).expect("refused, but borne");
    }
    assert_eq!(pair.server.handle_bytes(pair.now, &syn()), Err(ProtocolError::TooManyRefused(1_025)));
    assert!(sent(&mut pair.server, pair.now).len() <= 1_024);
}

#[test]
fn the_table_and_the_backlog_have_an_end() {
    let config = Config { max_streams: 8, accept_backlog: 4, ..Config::default() };
    let mut pair = Pair::of(Config { max_streams: 6, ..Config::default() }, config);
    for _ in 0..6 {
        pair.client.open().expect("a stream");
    }
    assert_eq!(pair.client.open(), Err(OpenError::TooManyStreams(6)));
    pair.up();
    assert_eq!((pair.server.streams(), pair.server.stats().streams_refused), (4, 2));
    while pair.server.accept().is_some() {}
    for _ in 0..4 {
        pair.server.open().expect("a stream");
    }
    assert_eq!(pair.server.open(), Err(OpenError::TooManyStreams(8)));
    pair.server.handle_bytes(pair.now, &frame(Syn, 99, b"")).expect("a SYN");
    assert_eq!(pair.server.stats().streams_refused, 3, "the table is for both sides' streams");
    pair.run();
    assert_eq!(pair.client.stats().streams_refused, 4, "six of its own are all that it bears");
}

#[test]
fn ids_run_out_for_good() {
    for (side, first) in [(Side::Client, 0xffff_fffb), (Side::Server, 0xffff_fffa)] {
        let now = start();
        let mut mux = Mux::new(now, side, Config { first_stream_id: Some(first), ..Config::default() });
        for id in [first, first + 2, first + 4] {
            assert_eq!(mux.open(), Ok(StreamId::new(id)));
        }
        assert_eq!(sent(&mut mux, now).len(), 3);
        for _ in 0..2 {
            assert_eq!(mux.open(), Err(OpenError::IdsExhausted));
        }
        assert_eq!(sent(&mut mux, now), []);
    }
}

/// Nobody checks parity, so the peer may take an id that would be ours.
#[test]
fn an_id_that_the_peer_took_is_passed_over() {
    let now = start();
    let mut mux = Mux::new(now, Side::Client, Config::default());
    mux.handle_bytes(now, &frame(Syn, 3, b"")).expect("a SYN");
    mux.handle_bytes(now, &frame(Syn, 3, b"")).expect("a SYN");
    assert_eq!(mux.open(), Ok(StreamId::new(5)));
    assert_eq!((mux.accept(), mux.accept()), (Some(StreamId::new(3)), None));
    assert_eq!(mux.stats().syns_ignored, 1);
}

/// Four million frames of one byte each cost what four million bytes cost.
#[test]
fn one_byte_frames_cost_one_byte_each() {
    let config = Config { initial_window: 8 << 20, max_buffered: 64 << 20, ..Config::default() };
    let mut pair = Pair::of(Config::default(), config);
    let id = pair.open();
    let frames = frame(Psh, 3, b"x").repeat(1_000);
    for count in 1..=4_000 {
        pair.server.handle_bytes(pair.now, &frames).expect("data");
        let bytes = count * 1_000;
        assert!(pair.server.buffered() <= bytes + bytes / 4 + 16_384, "{} for {bytes}", pair.server.buffered());
    }
    assert_eq!(read_all(&mut pair.server, pair.now, id).0.len(), 4_000_000);
    assert_eq!(pair.server.buffered(), 0);
}

/// Many streams with a byte each: chunks shrink before the memory is gone.
#[test]
fn a_byte_on_each_of_many_streams_is_not_much() {
    let config = Config { accept_backlog: 4_096, ..Config::default() };
    let mut pair = Pair::of(Config::default(), config);
    for id in 0..4_096 {
        let bytes = [frame(Syn, id * 2, b""), frame(Psh, id * 2, b"x")].concat();
        pair.server.handle_bytes(pair.now, &bytes).expect("a stream and data");
    }
    assert_eq!(pair.server.streams(), 4_096);
    assert!(pair.server.has_room());
    assert!(pair.server.buffered() <= (4 << 20) + (1 << 20), "{}", pair.server.buffered());
}

/// Nobody fills our memory who has never moved anything; who has read much may leave as much unread, and twice that.
#[test]
fn what_may_wait_for_readers_is_earned_by_reading() {
    let config = Config { initial_window: 16 << 20, ..Config::default() };
    let mut pair = Pair::of(Config::default(), config);
    let id = pair.open();
    let data = frame(Psh, 3, &vec![7; 32_768]);
    let fill = |pair: &mut Pair| {
        while pair.server.has_room() {
            pair.server.handle_bytes(pair.now, &data).expect("within the window");
        }
        pair.server.buffered() >> 20
    };
    assert_eq!(fill(&mut pair), 2);
    assert_eq!(read_all(&mut pair.server, pair.now, id).0.len() >> 20, 2);
    assert_eq!(fill(&mut pair), 6, "and twice the two that were read");
    read_all(&mut pair.server, pair.now, id);
    pair.server.set_scarce(true);
    assert_eq!(fill(&mut pair), 2, "memory is scarce: nobody gets more than at first");
    pair.server.set_scarce(false);
    assert!(pair.server.has_room());
}

/// A peer that reads nothing cannot make our program write without end, however many streams it opens. What has gone out counts no more.
#[test]
fn what_may_wait_to_be_sent_is_bounded_over_all_streams() {
    let mut pair = Pair::new(Config::default());
    let ids: Vec<StreamId> = (0..100).map(|_| pair.open()).collect();
    let mut written = 0;
    for &id in &ids {
        while let taken @ 1.. = pair.client.write(id, &[7; 10_000]).expect("an open stream") {
            written += taken;
        }
    }
    assert!((1 << 19..=1 << 20).contains(&written), "{written} bytes were taken of all streams together");
    let events = |pair: &mut Pair| std::iter::from_fn(|| pair.client.poll_event()).collect::<Vec<_>>();
    assert!(!events(&mut pair).iter().any(|event| matches!(event, Event::Writable(_))), "each waits");
    pair.run();
    let told: HashSet<_> = events(&mut pair)
        .into_iter()
        .filter_map(|event| if let Event::Writable(id) = event { Some(id) } else { None })
        .collect();
    assert_eq!(told.len(), ids.len(), "each was told once there was room");
    pair.client.set_keepalive(pair.now, None);
    assert_eq!(pair.client.memory(), 0, "all has gone out, and who is idle keeps nothing for later");
}

/// A hundred streams have more to write than there is room for. Those that came first do not keep the room among themselves.
#[test]
fn who_writes_first_does_not_starve_the_others() {
    let mut pair = Pair::new(Config { max_unsent: 1 << 20, max_streams: 100, ..Config::default() });
    let ids: Vec<StreamId> = (0..100).map(|_| pair.open()).collect();
    let piece = vec![7; 300_000];
    let mut received: HashMap<StreamId, usize> = HashMap::new();
    let mut writable = ids.clone();
    for _ in 0..1_000 {
        for id in std::mem::take(&mut writable) {
            while pair.client.write(id, &piece).expect("an open stream") > 0 {}
        }
        for _ in 0..10 {
            let mut packet = Vec::new();
            pair.client.poll_transmit(pair.now, &mut packet, ROOM);
            pair.server.handle_bytes(pair.now, &packet).expect("our own frames");
        }
        for &id in &ids {
            *received.entry(id).or_default() += read_all(&mut pair.server, pair.now, id).0.len();
        }
        let mut updates = Vec::new();
        while pair.server.poll_transmit(pair.now, &mut updates, ROOM) {}
        pair.client.handle_bytes(pair.now, &updates).expect("our own frames");
        let told = std::iter::from_fn(|| pair.client.poll_event());
        writable = told.filter_map(|event| if let Event::Writable(id) = event { Some(id) } else { None }).collect();
    }
    let (least, most) = (received.values().min(), received.values().max());
    assert!(least >= most.map(|most| most / 2).as_ref(), "{least:?} to {most:?} bytes");
    assert!(pair.client.memory() <= 3 << 20, "{} bytes", pair.client.memory());
}

/// One reader sleeps. The others go on until the session's memory is used up; once it reads, all go on.
#[test]
fn a_stalled_reader_stops_the_others_only_at_the_sessions_limit() {
    let config = Config { max_buffered: 2 << 20, ..Config::default() };
    let mut pair = Pair::new(config);
    let sleepers: Vec<StreamId> = (0..9).map(|_| pair.open()).collect();
    let awake = pair.open();
    for (asleep, &id) in sleepers.iter().enumerate() {
        assert!(pair.server.has_room(), "{asleep} asleep");
        assert_eq!(pair.client.write(id, &[1; 262_144]), Ok(262_144));
        assert_eq!(pair.client.write(awake, &pattern(100_000)), Ok(100_000));
        if asleep < 8 {
            pair.run();
            assert_eq!(read_all(&mut pair.server, pair.now, awake).0, pattern(100_000));
            pair.run();
        }
        if asleep == 7 {
            break;
        }
    }
    assert!(!pair.server.has_room(), "eight windows are all the memory");
    // The caller stops feeding. The first sleeper wakes up.
    assert_eq!(read_all(&mut pair.server, pair.now, sleepers[0]).0.len(), 262_144);
    assert!(pair.server.has_room());
    assert_eq!(pair.client.write(awake, &pattern(100_000)), Ok(100_000));
    pair.run();
    assert_eq!(read_all(&mut pair.server, pair.now, awake).0, pattern(100_000));
}

// Deadlines.

#[test]
fn keepalive_is_a_deadline_after_silence() {
    let mut pair = Pair::new(Config::default());
    assert_eq!(pair.client.poll_timeout(), None, "an idle session wakes nobody");
    pair.client.set_keepalive(pair.now, Some(ms(10_000)));
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + ms(10_000)));
    pair.wait(ms(6_000));
    assert!(!pair.client.wants_transmit(), "calling early does nothing");
    let id = pair.open();
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + ms(10_000)), "whatever is sent is a sign of life");
    pair.wait(ms(10_000));
    assert!(pair.client.wants_transmit());
    assert_eq!(pair.client.poll_timeout(), None);
    assert_eq!(sent(&mut pair.client, pair.now), [(Nop, 0, 0)]);
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + ms(10_000)));
    // Due, but something else goes out first: no need for it.
    pair.wait(ms(10_000));
    assert_eq!(pair.client.write(id, b"x"), Ok(1));
    assert_eq!(sent(&mut pair.client, pair.now), [(Psh, 3, 1)]);
    // Due, but there is nobody to send it to any more.
    pair.wait(ms(10_000));
    pair.client.set_keepalive(pair.now, None);
    assert_eq!(sent(&mut pair.client, pair.now), []);
    assert_eq!(pair.client.poll_timeout(), None);
    // Somebody is there again, for a moment each time. The peer heard nothing meanwhile, so it is told at once.
    pair.client.set_keepalive(pair.now, Some(ms(10_000)));
    assert_eq!(sent(&mut pair.client, pair.now), [(Nop, 0, 0)]);
    for _ in 0..3 {
        pair.wait(ms(4_000));
        pair.client.set_keepalive(pair.now, None);
        pair.client.set_keepalive(pair.now, Some(ms(10_000)));
    }
    assert_eq!(sent(&mut pair.client, pair.now), [(Nop, 0, 0)], "12 s after the last");
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + ms(10_000)));
    assert_eq!(pair.client.stats().keepalives_sent, 3);
    pair.server.handle_bytes(pair.now, &frame(Nop, 0, b"")).expect("a NOP");
    assert_eq!(sent(&mut pair.server, pair.now), [], "not answered");
}
