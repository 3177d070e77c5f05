//! Streams that the other end has not taken, or has given up, and what their ends hear of it.

mod common;

use common::*;
use turbotunnel_smux::wire::Command::{Fin, Syn, Upd};
use turbotunnel_smux::{Config, Event, StreamError};

#[test]
fn a_refused_stream_looks_finished_to_its_opener() {
    let mut pair = Pair::of(Config::default(), Config { accept_backlog: 0, ..Config::default() });
    let id = pair.client.open().expect("a stream");
    assert_eq!(pair.client.write(id, b"anybody there?"), Ok(14));
    pair.run();
    assert_eq!(read_all(&mut pair.client, pair.now, id), (Vec::new(), true));
    assert_eq!(pair.server.stats().bytes_unknown_stream, 14);
    assert_eq!(pair.server.streams(), 0);
}

/// The same between peers that tell: it fails, whatever was done to it meanwhile.
#[test]
fn a_stream_that_is_told_to_be_refused_fails() {
    let mut pair = Pair::of(Config::default(), Config { accept_backlog: 1, ..Config::default() });
    pair.client.tell_refusals();
    pair.server.tell_refusals();
    let ids: Vec<_> = (0..5).map(|_| pair.client.open().expect("a stream")).collect();
    let [taken, written, finished, read, dropped] = ids[..] else { panic!("five") };
    assert_eq!(pair.client.write(written, &[7; 262_144]), Ok(262_144));
    assert_eq!(pair.client.write(finished, b"all"), Ok(3));
    assert_eq!(pair.client.finish(finished), Ok(()));
    assert_eq!(pair.client.read(pair.now, read, &mut [0]), Ok(None));
    pair.client.close(dropped);
    pair.run();
    let told = events(&mut pair.client);
    for id in [written, finished, read] {
        assert!(told.contains(&Event::Refused(id)), "{told:?}");
        assert_eq!(pair.client.read(pair.now, id, &mut [0]), Err(StreamError::Refused));
        assert_eq!(pair.client.write(id, b"x"), Err(StreamError::Refused));
        assert_eq!(pair.client.finish(id), Err(StreamError::Refused));
        pair.client.close(id);
    }
    assert!(told.contains(&Event::Readable(read)) && !told.contains(&Event::Refused(dropped)), "{told:?}");
    pair.run();
    assert_eq!((pair.client.streams(), pair.server.streams()), (1, 1));
    assert_eq!(pair.client.stats().streams_refused_by_peer, 3, "of the dropped one nobody asks");
    assert_eq!(pair.client.write(taken, b"x"), Ok(1));
}

/// A target was reset in the middle of what it said. Its reader gets what came, and then no orderly end.
#[test]
fn a_stream_that_is_reset_fails_once_what_came_has_been_read() {
    let mut pair = Pair::of(Config::default(), Config::default());
    pair.client.tell_refusals();
    pair.server.tell_refusals();
    let [halved, finished, closed] = [0; 3].map(|_| pair.client.open().expect("a stream"));
    for id in [halved, finished, closed] {
        assert_eq!(pair.client.write(id, b"?"), Ok(1));
    }
    pair.run();
    for id in [halved, finished, closed] {
        assert_eq!(pair.server.write(id, b"half"), Ok(4));
    }
    assert_eq!(pair.server.finish(finished), Ok(()));
    pair.run();
    assert_eq!(pair.client.read(pair.now, closed, &mut [0; 8]), Ok(Some(4)));
    assert_eq!(pair.client.read(pair.now, closed, &mut [0; 8]), Ok(None));
    events(&mut pair.client);
    for id in [halved, finished] {
        pair.server.reset(id);
    }
    pair.server.close(closed);
    pair.run();
    assert_eq!(pair.client.read(pair.now, halved, &mut [0; 8]), Ok(Some(4)), "what came before is there");
    assert_eq!(pair.client.read(pair.now, halved, &mut [0; 8]), Err(StreamError::Reset));
    assert_eq!(pair.client.write(halved, b"x"), Err(StreamError::Reset));
    assert!(events(&mut pair.client).contains(&Event::Reset(halved)));
    // What had ended in good order before has ended in good order.
    assert_eq!(read_all(&mut pair.client, pair.now, finished), (b"half".to_vec(), true));
    assert_eq!(read_all(&mut pair.client, pair.now, closed), (Vec::new(), true));
    for id in [halved, finished, closed] {
        pair.client.close(id);
    }
    pair.run();
    assert_eq!((pair.client.streams(), pair.server.streams()), (0, 0));
    assert_eq!((pair.client.stats().streams_reset_by_peer, pair.client.stats().streams_refused_by_peer), (1, 0));
}

/// 24 bytes or nothing: a refusal is not torn, and keeps its place.
#[test]
fn a_refusal_waits_for_room() {
    let mut pair = Pair::of(Config::default(), Config { accept_backlog: 0, ..Config::default() });
    pair.server.tell_refusals();
    pair.server.handle_bytes(pair.now, &frame(Syn, 3, b"")).expect("a SYN");
    let mut out = Vec::new();
    assert!(!pair.server.poll_transmit(pair.now, &mut out, 23) && out.is_empty());
    assert!(pair.server.poll_transmit(pair.now, &mut out, 24));
    let expected = [frame(Upd, 3, &[0; 8]), frame(Fin, 3, b"")].concat();
    assert_eq!(out, expected, "{}", out.len());
}
