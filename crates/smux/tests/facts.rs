//! What a session says of itself, and what it counts.

mod common;

use common::*;
use turbotunnel_smux::wire::Command::{Fin, Nop, Psh, Syn, Upd};
use turbotunnel_smux::{Config, Event, Mux, Side, Stats, StreamError, StreamId, Version};

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = |config: Config| std::panic::catch_unwind(|| Mux::new(start(), Side::Client, config)).is_err();
    let config = Config::default;
    for max_frame_size in [1, 65_535] {
        assert!(!refused(Config { max_frame_size, ..config() }));
    }
    for max_frame_size in [0, 65_536] {
        assert!(refused(Config { max_frame_size, ..config() }));
    }
    for initial_window in [262_143, 1 << 31] {
        assert!(refused(Config { initial_window, ..config() }));
    }
    assert!(refused(Config { max_window: 1 << 31, ..config() }));
    assert!(refused(Config { first_buffered: 0, ..config() }));
    assert!(refused(Config { max_buffered: 0, ..config() }));
    assert!(refused(Config { send_buffer: 0, ..config() }));
    assert!(refused(Config { first_unsent: 0, ..config() }));
    assert!(refused(Config { max_unsent: 0, ..config() }));
    assert!(refused(Config { stream_rate: 0, ..config() }));
    assert!(refused(Config { stream_burst: 0, ..config() }));
}

/// One who opens streams, writes, reads, keeps alive and lets go.
#[test]
fn all_that_goes_is_counted() {
    let mut pair = Pair::new(Config::default());
    let (first, second) = (pair.open(), pair.open());
    assert_eq!(pair.client.write(first, &[7; 2_000]), Ok(2_000));
    assert_eq!(pair.client.write(second, b"x"), Ok(1));
    pair.client.finish(second).expect("an open stream");
    pair.run();
    for id in [first, second] {
        read_all(&mut pair.server, pair.now, id);
    }
    pair.run();
    pair.client.handle_bytes(pair.now, &update(3, 1_999, 9)).expect("older than the last");
    pair.client.set_keepalive(pair.now, Some(ms(1_000)));
    pair.wait(ms(1_000));
    pair.run();
    assert_eq!(pair.client.write(first, b"unsent"), Ok(6));
    pair.client.abort(first);
    pair.run();

    let mut stats = Stats::default();
    (stats.streams_opened, stats.fins_sent, stats.keepalives_sent) = (2, 2, 1);
    // Two SYNs, three frames of data, a FIN, a NOP, and two FINs.
    (stats.frames_sent, stats.bytes_sent, stats.bytes_unsent) = (9, 2_001, 6);
    (stats.frames_received, stats.updates_received, stats.updates_ignored) = (2, 1, 1);
    assert_eq!(*pair.client.stats(), stats);
    let mut stats = Stats::default();
    (stats.streams_accepted, stats.frames_received, stats.bytes_received) = (2, 9, 2_001);
    (stats.updates_sent, stats.frames_sent) = (1, 1);
    assert_eq!(*pair.server.stats(), stats);
}

/// A peer that says what makes no sense, to nobody, or too late.
#[test]
fn all_that_comes_and_is_dropped_is_counted() {
    let now = start();
    let mut mux = Mux::new(now, Side::Server, Config::default());
    for id in [3, 5, 7] {
        mux.handle_bytes(now, &frame(Syn, id, b"")).expect("a stream");
    }
    let [closed, ended, open] = [3, 5, 7].map(StreamId::new);
    mux.handle_bytes(now, &frame(Psh, 3, b"unread")).expect("data");
    mux.close(closed);
    mux.handle_bytes(now, &frame(Fin, 5, b"")).expect("a FIN");
    assert_eq!(mux.read(now, ended, &mut [0; 9]), Ok(Some(0)));
    let odd = [
        frame(Psh, 3, b"late"),
        frame(Psh, 5, b"after the end"),
        frame(Psh, 7, b""),
        frame(Psh, 7, b"fine"),
        frame(Syn, 7, b""),
        frame(Fin, 99, b""),
        frame(Psh, 99, b"nobody"),
        update(99, 0, 9),
        frame(Nop, 0, b""),
    ];
    mux.handle_bytes(now, &odd.concat()).expect("borne");

    let mut stats = Stats::default();
    (stats.streams_accepted, stats.syns_ignored, stats.frames_received) = (3, 1, 14);
    (stats.bytes_received, stats.empty_frames) = (10, 1);
    (stats.bytes_unread, stats.bytes_after_end) = (10, 13);
    (stats.frames_unknown_stream, stats.bytes_unknown_stream) = (3, 6);
    assert_eq!(*mux.stats(), stats);
    assert_eq!(read_all(&mut mux, now, open).0, b"fine");
    assert_eq!(mux.buffered(), 0);
}

#[test]
fn between_frames_is_where_a_connection_may_end() {
    let bytes = [frame(Syn, 3, b""), frame(Psh, 3, b"abc"), update(3, 0, 300_000), frame(Nop, 0, b"")].concat();
    let ends = [0, 8, 19, 35, 43];
    let mut mux = Mux::new(start(), Side::Server, Config::default());
    for (taken, byte) in bytes.iter().enumerate() {
        assert_eq!(mux.is_between_frames(), ends.contains(&taken), "after {taken} bytes");
        mux.handle_bytes(start(), &[*byte]).expect("a frame's byte");
    }
    assert!(mux.is_between_frames());
    // In one piece but for the end of the data.
    mux.handle_bytes(start(), &frame(Psh, 3, b"abc")[..10]).expect("most of a frame");
    assert!(!mux.is_between_frames());
}

/// A reader is woken by data or by the end, and by nothing else.
#[test]
fn what_is_no_data_wakes_no_reader() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    pair.server.handle_bytes(pair.now, &frame(Psh, 3, b"x")).expect("data");
    assert_eq!(read_all(&mut pair.server, pair.now, id).0, b"x");
    events(&mut pair.server);
    let next = frame(Psh, 3, b"y");
    for bytes in [&frame(Nop, 0, b"")[..], &update(3, 0, 300_000), &frame(Psh, 3, b""), &next[..8]] {
        pair.server.handle_bytes(pair.now, bytes).expect("a frame");
        assert_eq!(events(&mut pair.server), [], "{bytes:?}");
    }
    pair.server.handle_bytes(pair.now, &next[8..]).expect("data");
    assert_eq!(events(&mut pair.server), [Event::Readable(id)]);
}

#[test]
fn no_window_grows_beyond_half_of_what_may_be_buffered() {
    let config = Config { first_buffered: 1 << 20, max_buffered: 1 << 20, ..Config::default() };
    let mut pair = Pair::new(config);
    pair.server.set_rtt(ms(100));
    let id = pair.open();
    for _ in 0..40 {
        while pair.client.write(id, &[0; 65_536]).is_ok_and(|n| n > 0) {
            pair.up();
        }
        pair.up();
        read_all(&mut pair.server, pair.now, id);
        pair.down();
        events(&mut pair.client);
        pair.wait(ms(100));
    }
    assert_eq!(pair.server.stats().windows_grown, 1, "256 KiB, 512 KiB");
}

/// An update with a window of 0 means a refusal only between peers that tell them; and another window never does.
#[test]
fn only_who_tells_refusals_is_told_one() {
    for (tells, window, refused) in [(false, 0, false), (true, 1, false), (true, 0, true)] {
        let mut pair = Pair::new(Config::default());
        if tells {
            pair.client.tell_refusals();
        }
        let id = pair.open();
        pair.client.handle_bytes(pair.now, &update(3, 0, window)).expect("an update");
        assert_eq!(events(&mut pair.client).contains(&Event::Refused(id)), refused, "{tells}, {window}");
    }
}

#[test]
fn a_session_that_ends_finishes_every_stream_once() {
    let mut pair = Pair::new(Config::default());
    let ids = [pair.open(), pair.open(), pair.open()];
    pair.client.finish(ids[1]).expect("an open stream");
    pair.run();
    assert_eq!(events(&mut pair.client), [Event::FinSent(ids[1])]);
    pair.client.finish_all();
    assert_eq!(pair.client.write(ids[0], b"x"), Err(StreamError::Finished));
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 3, 0), (Fin, 7, 0)]);
    assert_eq!(pair.client.stats().fins_sent, 3);
}

/// Version 1 has neither windows nor updates, and a refusal is a FIN.
#[test]
fn a_refusal_of_version_1_is_a_fin() {
    for (version, expected) in [(Version::V1, 8), (Version::V2, 24)] {
        let now = start();
        let mut mux = Mux::new(now, Side::Server, Config { version, accept_backlog: 0, ..Config::default() });
        mux.tell_refusals();
        let mut syn = frame(Syn, 3, b"");
        syn[0] = version as u8;
        mux.handle_bytes(now, &syn).expect("a SYN");
        let mut out = Vec::new();
        assert!(mux.poll_transmit(now, &mut out, ROOM));
        assert_eq!(out.len(), expected);
        assert_eq!(parse(&out).last().map(|frame| frame.0.command), Some(Fin));
        assert_eq!(out.len() == 24, parse(&out)[0].0.command == Upd);
    }
}

/// Before anything was read nobody has told of a window. The announcement counts for streams that are open and for those to come.
#[test]
fn an_announced_window_is_used_before_the_first_update() {
    let config = Config { send_buffer: 4 << 20, first_unsent: 16 << 20, ..Config::default() };
    let now = start();
    for (announced, used) in [(None, 262_144), (Some(1 << 20), 1 << 20), (Some(0), 262_144)] {
        let mut mux = Mux::new(now, Side::Client, config.clone());
        let before = mux.open().expect("a stream");
        if let Some(window) = announced {
            mux.set_peer_window(window);
        }
        let after = mux.open().expect("a stream");
        for id in [before, after] {
            assert_eq!(mux.write(id, &[7; 2 << 20]), Ok(2 << 20));
        }
        sent(&mut mux, now);
        assert_eq!(mux.stats().bytes_sent, 2 * used, "{announced:?}");
    }
}

#[test]
fn the_backlog_can_be_made_longer() {
    let now = start();
    let mut mux = Mux::new(now, Side::Server, Config { accept_backlog: 1, ..Config::default() });
    for (id, refused) in [(3, 0), (5, 1)] {
        mux.handle_bytes(now, &frame(Syn, id, b"")).expect("a SYN");
        assert_eq!(mux.stats().streams_refused, refused);
    }
    mux.set_accept_backlog(2);
    mux.handle_bytes(now, &frame(Syn, 7, b"")).expect("a SYN");
    assert_eq!((mux.stats().streams_refused, mux.streams()), (1, 2));
}

#[test]
fn a_held_fin_awaits_an_answer_from_the_quiet_on() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    pair.client.set_fin_quiet(Some(ms(1_000)));
    pair.client.finish(id).expect("an open stream");
    assert_eq!(sent(&mut pair.client, pair.now), []);
    pair.client.set_fin_quiet(Some(ms(2_000)));
    assert_eq!(sent(&mut pair.client, pair.now), [], "another time is no reason to let it go");
    pair.client.start_fin_quiet(pair.now, id);
    assert!(!pair.client.awaits_answer());
    pair.wait(ms(2_000));
    assert!(pair.client.awaits_answer());
    pair.client.handle_alive(pair.now);
    assert!(!pair.client.awaits_answer());
    assert_eq!(sent(&mut pair.client, pair.now), [(Fin, 3, 0)]);
}

/// What waits to be read, what waits to be sent, and what is kept for the next.
#[test]
fn memory_is_what_both_directions_hold_and_what_is_spare() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!((pair.client.memory(), pair.client.buffered()), (0, 0));
    assert_eq!(pair.client.write(id, b"x"), Ok(1));
    assert_eq!((pair.client.memory(), pair.client.buffered()), (512, 0), "little begins with little");
    pair.client.handle_bytes(pair.now, &frame(Psh, 3, &[7; 10_000])).expect("data");
    assert_eq!((pair.client.memory(), pair.client.buffered()), (512 + 2 * 8_192, 2 * 8_192));
    sent(&mut pair.client, pair.now);
    read_all(&mut pair.client, pair.now, id);
    assert_eq!((pair.client.memory(), pair.client.buffered()), (512 + 2 * 8_192, 0), "spare");
    pair.client.set_keepalive(pair.now, None);
    assert_eq!(pair.client.memory(), 0);
}

/// Who leaves keepalives to the peer has no other moment to give it back.
#[test]
fn a_keepalive_of_the_peers_gives_idle_memory_back() {
    let mut pair = Pair::new(Config::default());
    pair.open();
    pair.client.handle_bytes(pair.now, &frame(Psh, 3, &[7; 10_000])).expect("data");
    read_all(&mut pair.client, pair.now, StreamId::new(3));
    assert_eq!(pair.client.memory(), 2 * 8_192);
    pair.client.handle_bytes(pair.now, &frame(Nop, 0, b"")).expect("a keepalive");
    assert_eq!(pair.client.memory(), 0);
    // The same below smux.
    pair.client.handle_bytes(pair.now, &frame(Psh, 3, &[7; 10_000])).expect("data");
    read_all(&mut pair.client, pair.now, StreamId::new(3));
    pair.client.stand_for_keepalive(pair.now);
    assert_eq!(pair.client.memory(), 0);
}

/// Who wants to transmit has something that can go.
#[test]
fn nobody_wants_to_transmit_what_cannot_go() {
    for version in [Version::V1, Version::V2] {
        let mut pair = Pair::new(Config { version, ..Config::default() });
        let id = pair.client.open().expect("a stream");
        pair.up();
        assert!(!pair.server.wants_transmit(), "a stream that came is nothing to send");
        for _ in 0..2 {
            assert_eq!(pair.client.write(id, &[7; 131_072]), Ok(131_072));
            pair.up();
        }
        assert_eq!(pair.client.write(id, b"x"), Ok(1));
        assert_eq!(pair.client.wants_transmit(), version == Version::V1, "only version 2 has a window");
    }
}

#[test]
fn there_is_room_until_the_limit_is_reached() {
    let config = Config { first_buffered: 16_384, max_buffered: 16_384, ..Config::default() };
    let mut pair = Pair::of(Config::default(), config);
    pair.open();
    for bytes in [1, 8_191, 8_192] {
        assert!(pair.server.has_room(), "{} bytes", pair.server.buffered());
        pair.server.handle_bytes(pair.now, &frame(Psh, 3, &vec![7; bytes])).expect("data");
    }
    assert_eq!((pair.server.buffered(), pair.server.has_room()), (16_384, false));
}

/// Whole chunks while less than a quarter of what may be held is; then no more than is needed.
#[test]
fn chunks_are_whole_while_memory_is_plenty() {
    for (held, chunk) in [(122_880, 8_192), (131_072, 300)] {
        let mut pair = Pair::new(Config::default());
        let (first, second) = (pair.open(), pair.open());
        assert_eq!(pair.client.write(first, &vec![7; held]), Ok(held));
        assert_eq!(pair.client.write(second, &[7; 300]), Ok(300));
        assert_eq!(pair.client.memory(), held + chunk);
    }
}

#[test]
fn what_was_aborted_is_held_no_more() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!(pair.client.write(id, &[7; 100_000]), Ok(100_000));
    pair.client.abort(id);
    pair.run();
    pair.client.set_keepalive(pair.now, None);
    assert_eq!((pair.client.memory(), pair.client.streams()), (0, 0));
}

/// One stream after the other: each gets its part among those that are open, and, once twice the limit is held, among all that could be.
#[test]
fn late_writers_get_their_part_and_later_ones_a_small_one() {
    let (send_buffer, limit) = (65_536, 65_536);
    let config = Config { send_buffer, first_unsent: limit, max_unsent: limit, max_streams: 16, ..Config::default() };
    let mut pair = Pair::new(config);
    let taken = [(); 6].map(|()| {
        let id = pair.client.open().expect("a stream");
        pair.client.write(id, &[7; 65_536]).expect("an open stream")
    });
    assert_eq!(taken, [65_536, 32_768, 21_845, 16_384, 4_096, 4_096]);
}

/// Half of his buffer, or, while all that may wait is used up, half of his part.
#[test]
fn a_writer_is_woken_when_half_of_what_he_may_have_is_out() {
    let mut pair = Pair::new(Config { max_unsent: 512 << 10, ..Config::default() });
    let ids: Vec<StreamId> = (0..8).map(|_| pair.open()).collect();
    let mut waiting: Vec<usize> = ids.iter().map(|id| pair.client.write(*id, &[7; 300_000]).expect("open")).collect();
    assert_eq!(waiting, [262_144, 262_144, 65_536, 65_536, 65_536, 65_536, 65_536, 65_536]);
    for id in &ids {
        assert_eq!(pair.client.write(*id, b"x"), Ok(0));
    }
    let mut woken = [None; 8];
    let mut packet = Vec::new();
    while pair.client.poll_transmit(pair.now, &mut packet, ROOM) {
        for (header, payload) in parse(&packet) {
            waiting[ids.iter().position(|id| *id == header.stream).expect("one of them")] -= payload.len();
        }
        packet.clear();
        for event in events(&mut pair.client) {
            let Event::Writable(id) = event else { panic!("{event:?}") };
            let stream = ids.iter().position(|other| *other == id).expect("one of them");
            assert_eq!(woken[stream].replace(waiting[stream]), None, "once");
        }
    }
    for (stream, half) in [(0, 131_072), (1, 131_072), (2, 32_768), (7, 32_768)] {
        let left = woken[stream].expect("woken");
        assert!((half - ROOM..=half).contains(&left), "stream {stream} at {left}");
    }
}

#[test]
fn what_is_kept_for_more_goes_back_when_memory_is_scarce() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    for scarce in [false, true] {
        assert_eq!(pair.client.write(id, &[7; 131_072]), Ok(131_072));
        pair.run();
        assert_eq!(pair.client.memory(), 131_072);
        pair.client.set_scarce(scarce);
        assert_eq!(pair.client.memory(), if scarce { 0 } else { 131_072 });
    }
    assert_eq!(pair.client.write(id, &[7; 131_072]), Ok(131_072));
}

/// Also at an end that only receives, and is never idle.
#[test]
fn what_much_needed_once_goes_back_while_little_moves() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!(pair.client.write(id, &[7; 262_144]), Ok(262_144));
    pair.up();
    let mut read = vec![0; 262_144];
    assert_eq!(pair.server.read(pair.now, id, &mut read), Ok(Some(262_144)));
    pair.down();
    let kept = |pair: &Pair| [pair.client.memory(), pair.server.memory()];
    assert_eq!(kept(&pair), [262_144; 2], "for the next that is as much");
    for _ in 0..3 {
        pair.wait(ms(1_000));
        assert_eq!(pair.client.write(id, &[7; 1_000]), Ok(1_000));
        pair.up();
        assert_eq!(pair.server.read(pair.now, id, &mut read), Ok(Some(1_000)));
    }
    assert_eq!(kept(&pair), [32_768; 2]);
}

/// Who takes from somewhere else only what he can write learns how much that is, and is woken as a writer is.
#[test]
fn the_room_for_a_write_is_told_before_it() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert_eq!(pair.client.room(id, 65_536), Ok(Some(262_144)));
    for (write, room) in [(196_608, Some(65_536)), (1, None)] {
        assert_eq!(pair.client.write(id, &vec![7; write]), Ok(write));
        assert_eq!(pair.client.room(id, 65_536), Ok(room));
    }
    assert_eq!(pair.client.room(id, 65_535), Ok(Some(65_535)), "enough for somebody else");
    let (mut packet, mut waiting) = (Vec::new(), 196_609);
    while events(&mut pair.client).is_empty() {
        assert!(pair.client.poll_transmit(pair.now, &mut packet, ROOM));
        waiting -= parse(&packet).iter().map(|(_, payload)| payload.len()).sum::<usize>();
        packet.clear();
    }
    assert!((131_072 - ROOM..=131_072).contains(&waiting), "{waiting}");
    assert_eq!(pair.client.room(id, 262_144), Ok(Some(262_144 - waiting)), "half is enough for everybody");
    pair.client.finish(id).expect("an open stream");
    assert_eq!(pair.client.room(id, 1), Err(StreamError::Finished));
}

#[test]
fn a_deadline_ends_with_its_stream_and_the_others_stay() {
    let mut pair = Pair::new(Config::default());
    let ids = [pair.open(), pair.open(), pair.open()];
    pair.client.set_fin_quiet(Some(ms(1_000)));
    for id in ids {
        pair.client.finish(id).expect("an open stream");
    }
    assert_eq!(sent(&mut pair.client, pair.now), []);
    let first = pair.now;
    for id in ids {
        pair.client.start_fin_quiet(pair.now, id);
        pair.wait(ms(100));
    }
    for (id, left) in [(ids[0], Some(1_100)), (ids[2], Some(1_100)), (ids[1], None)] {
        pair.client.close(id);
        assert_eq!(pair.client.poll_timeout(), left.map(|left| first + ms(left)));
    }
}

/// With a byte less nothing goes, with as much as it needs it does; wherever it is written to.
#[test]
fn control_frames_wait_for_their_room() {
    let opened = || {
        let mut mux = Mux::new(start(), Side::Server, Config::default());
        mux.open().expect("a stream");
        mux
    };
    let read = || {
        let mut pair = Pair::new(Config::default());
        let id = pair.open();
        pair.server.handle_bytes(pair.now, &frame(Psh, 3, b"x")).expect("data");
        read_all(&mut pair.server, pair.now, id);
        pair.server
    };
    let refused = |tells| {
        let mut mux = Mux::new(start(), Side::Server, Config { accept_backlog: 0, ..Config::default() });
        if tells {
            mux.tell_refusals();
        }
        mux.handle_bytes(start(), &frame(Syn, 3, b"")).expect("a SYN");
        mux
    };
    let silent = || {
        let now = start();
        let mut mux = Mux::new(now, Side::Server, Config::default());
        mux.set_keepalive(now, Some(ms(1)));
        mux.handle_timeout(now + ms(1));
        mux
    };
    let finished = || {
        let mut mux = opened();
        assert_eq!(sent(&mut mux, start()).len(), 1);
        mux.finish(StreamId::new(2)).expect("an open stream");
        mux
    };
    for (mut mux, needs, what) in [
        (opened(), 8, "SYN"),
        (finished(), 8, "FIN"),
        (read(), 16, "an update"),
        (refused(false), 8, "a refusal"),
        (refused(true), 24, "a refusal that is told"),
        (silent(), 8, "NOP"),
    ] {
        for before in [1_000, 0] {
            let mut out = vec![7; before];
            assert!(!mux.poll_transmit(start(), &mut out, needs - 1) && out.len() == before, "{what}");
        }
        let mut out = vec![7; 1_000];
        assert!(mux.poll_transmit(start(), &mut out, needs) && out.len() == 1_000 + needs, "{what}");
        assert!(!mux.wants_transmit(), "{what}");
    }
}

#[test]
fn a_session_is_quiet_when_all_that_was_written_is_out() {
    let mut pair = Pair::new(Config::default());
    let id = pair.open();
    assert!(pair.client.is_quiet());
    assert_eq!(pair.client.write(id, &[7; 5_000]), Ok(5_000));
    let mut packet = Vec::new();
    assert!(pair.client.poll_transmit(pair.now, &mut packet, ROOM) && !pair.client.is_quiet());
    while pair.client.poll_transmit(pair.now, &mut packet, ROOM) {}
    assert!(pair.client.is_quiet());
}
