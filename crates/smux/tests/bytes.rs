//! What bytes can do: any split means the same, and none of them panics.

mod common;

use common::*;
use turbotunnel_smux::wire::Command::{Fin, Nop, Psh, Syn};
use turbotunnel_smux::{Config, Event, Mux, ProtocolError, Side, Stats, StreamId, Version};

/// What a session makes of the bytes: its result, its counters, its events, and each stream's data and end.
type Outcome = (Result<(), ProtocolError>, Stats, Vec<Event>, Vec<(StreamId, Vec<u8>, bool)>, Vec<u8>);

fn outcome(version: Version, pieces: &mut dyn Iterator<Item = &[u8]>) -> Outcome {
    let now = start();
    let config = Config { version, accept_backlog: 20, ..Config::default() };
    let mut mux = Mux::new(now, Side::Server, config);
    let mut result = Ok(());
    for piece in pieces {
        result = mux.handle_bytes(now, piece);
        if result.is_err() {
            break;
        }
    }
    let streams = std::iter::from_fn(|| mux.accept()).collect::<Vec<_>>();
    let mut data = Vec::new();
    for id in streams {
        let (bytes, end) = read_all(&mut mux, now, id);
        data.push((id, bytes, end));
    }
    let mut out = Vec::new();
    while mux.poll_transmit(now, &mut out, ROOM) {}
    (result, mux.stats().clone(), events(&mut mux), data, out)
}

/// Frames of all kinds, most of them sensible.
fn conversation(random: &mut Random, frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..frames {
        let id = random.below(30) as u32;
        let size = if random.below(4) == 0 { random.below(3_000) } else { random.below(20) };
        bytes.extend(match random.below(10) {
            0..=2 => frame(Syn, id, b""),
            3..=6 => frame(Psh, id, &pattern(size)),
            7 => frame(Fin, id, b""),
            8 => frame(Nop, 0, b""),
            _ => update(id, random.below(3) as u32, random.next() as u32),
        });
    }
    bytes
}

#[test]
fn any_split_means_the_same() {
    let mut random = Random(0x5eed);
    for round in 0..60 {
        let mut bytes = conversation(&mut random, 200);
        if round % 3 == 0 {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        let whole = outcome(Version::V2, &mut std::iter::once(&bytes[..]));
        for size in [1, 7, 8, 9, 16, 1_376] {
            assert_eq!(outcome(Version::V2, &mut bytes.chunks(size)), whole, "round {round}, pieces of {size}");
        }
        let mut rest = &bytes[..];
        let mut split = std::iter::from_fn(|| {
            if rest.is_empty() {
                return None;
            }
            let (piece, later) = rest.split_at(rest.len().min(random.below(50)));
            rest = later;
            Some(piece)
        });
        assert_eq!(outcome(Version::V2, &mut split), whole, "round {round}, random pieces");
    }
}

/// A million pieces: noise, and conversations with broken bytes, into sessions that read, write, finish and close meanwhile.
#[test]
fn a_million_broken_pieces_do_no_harm() {
    let mut random = Random(0x00ba_d5eed);
    let mut pieces = 0;
    let mut sessions = 0;
    while pieces < 1_000_000 {
        sessions += 1;
        let mut now = start();
        let version = if random.below(3) == 0 { Version::V1 } else { Version::V2 };
        let config = Config {
            version,
            initial_counter: if random.below(2) == 0 { u32::MAX - 500 } else { 0 },
            max_buffered: 1 << 20,
            ..Config::default()
        };
        let side = if random.below(2) == 0 { Side::Client } else { Side::Server };
        let mut mux = Mux::new(now, side, config);
        mux.set_rtt(ms(10));
        let mut ids: Vec<StreamId> = Vec::new();
        let mut bytes = conversation(&mut random, 400);
        if version == Version::V1 {
            for head in bytes.iter_mut().filter(|byte| **byte == 2) {
                *head = 1;
            }
        }
        match random.below(4) {
            0 => bytes.iter_mut().for_each(|byte| *byte = random.next() as u8),
            1 => {
                for _ in 0..3 {
                    let at = random.below(bytes.len());
                    bytes[at] = random.next() as u8;
                }
            }
            2 => {
                let from = random.below(bytes.len());
                let to = from + random.below(bytes.len() - from);
                bytes.drain(from..to);
            }
            _ => {}
        }
        let mut rest = &bytes[..];
        let mut out = Vec::new();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(1 + random.below(24)));
            rest = later;
            pieces += 1;
            let over = mux.handle_bytes(now, piece).is_err();
            ids.extend(mux.accept());
            if random.below(20) == 0 {
                ids.extend(mux.open());
            }
            if let Some(&id) = ids.get(random.below(ids.len().max(1))) {
                match random.below(12) {
                    0..=3 => drop(mux.read(now, id, &mut [0; 700])),
                    4..=6 => drop(mux.write(id, &[9; 5_000])),
                    7 => drop(mux.finish(id)),
                    8 => mux.close(id),
                    9 => mux.set_fin_quiet((random.below(2) == 0).then_some(ms(5))),
                    10 => mux.abort(id),
                    _ => {}
                }
            }
            now += ms(random.below(3) as u64);
            mux.handle_timeout(now);
            assert!(mux.poll_timeout().is_none_or(|due| due > now));
            out.clear();
            let room = random.below(2_000);
            mux.poll_transmit(now, &mut out, room);
            assert!(out.len() <= room);
            parse(&out);
            while let Some(event) = mux.poll_event() {
                match (event, random.below(4)) {
                    (Event::FinHeld(_), 0) => mux.pause_fin_quiet(now),
                    (Event::FinHeld(id), _) => mux.start_fin_quiet(now, id),
                    (Event::FinQuiet(_), _) => mux.handle_alive(now),
                    (_, 0) => mux.resume_fin_quiet(now, ms(random.below(1_000) as u64)),
                    _ => {}
                }
            }
            if over {
                break;
            }
        }
        for id in ids {
            mux.abort(id);
        }
        while mux.poll_transmit(now, &mut out, ROOM) {}
        while mux.accept().is_some_and(|id| {
            mux.close(id);
            true
        }) {}
        while mux.poll_transmit(now, &mut out, ROOM) {}
        assert!(mux.is_quiet() && !mux.wants_transmit() && mux.poll_timeout().is_none());
        assert_eq!((mux.streams(), mux.buffered(), mux.has_unfinished_reads()), (0, 0, false), "session {sessions}");
    }
}
