//! One conversation, cut at every single byte of it, in every way.
//!
//! It has all that can be said: streams opened by both sides, data both ways, window updates, a window that closes and opens again, half-close,
//! close. `cargo test -p turbotunnel-sim --test exhaustive -- --include-ignored` also cuts it at all pairs of bytes of its beginning.

use smux::Version;
use smux::wire::{Command, Header};
use turbotunnel::Counters;
use turbotunnel::secure::{HEADER_LEN, MESSAGE_3_LEN};
use turbotunnel_sim::{
    Fault, How, Link, Reading, Script, Settings, Side, Sim, Suite, Totals, Traffic, Way, When, ms, play_all, secs, us,
};

/// Where the counters of the conversation start, so that each of them goes round in it: a few at a time, and all at once.
fn starts() -> Vec<Counters> {
    let none = Counters::default();
    vec![
        none,
        Counters { sn: 0_u32.wrapping_sub(40), ..none },
        Counters { ts_ms: 0_u32.wrapping_sub(300), ..none },
        Counters { stream_bytes: 0_u32.wrapping_sub(500), ..none },
        // The last ids that there are.
        Counters { streams: (u32::MAX - 3) / 2 - 2, ..none },
        Counters {
            sn: 0_u32.wrapping_sub(33),
            ts_ms: 0_u32.wrapping_sub(200),
            stream_bytes: 0_u32.wrapping_sub(200),
            streams: (u32::MAX - 3) / 2 - 2,
        },
    ]
}

fn conversation(counters: Counters) -> Script {
    let stops = Reading::Stops { after: 100, pause: ms(1_200) };
    Script {
        settings: Settings { window: 32, max_buffered: 500, counters, ..Settings::default() },
        link: Link::new(us(500)),
        traffic: vec![
            Traffic::echo(600),
            Traffic::both(900, 300).paced(15, ms(2)).server_reads(stops),
            Traffic::turns(3, 20, 150).opened_by_server().starts_at(ms(100)).finishes_last(),
        ],
        limit: secs(60),
        ..Script::new(7)
    }
}

/// Bytes of the uncut conversation on its only carrier, up and down.
fn length(script: &Script) -> [u64; 2] {
    let mut sim = script.sim("conversation").tapped();
    sim.run_until_done(secs(10));
    let bytes =
        |way| sim.seen().iter().filter(|seen| seen.way == way).map(|seen| seen.packet.len() as u64 + 2).sum::<u64>();
    [bytes(Way::Up) + 8, bytes(Way::Down)]
}

/// The ways of dying that differ at a byte: closed, reset, silent both ways, and silent in the middle of what was being written.
fn ways(way: Way) -> [How; 4] {
    [How::Fin, How::Rst, How::Stall, if way == Way::Up { How::StallUp } else { How::StallDown }]
}

fn cut(way: Way, at: u64, how: How) -> Fault {
    Fault::new(if way == Way::Up { When::Up(at) } else { When::Down(at) }, how)
}

/// Segments of ours hold whole frames.
fn frames(mut payload: &[u8]) -> Vec<Header> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = payload.split_first_chunk() {
        let header = Header::decode(Version::V2, *header).expect("what we send is smux");
        payload = &rest[usize::from(header.length)..];
        frames.push(header);
    }
    frames
}

/// What the tests below rely on.
#[test]
fn the_conversation_says_everything() {
    use kcp::wire::Command::{Wask, Wins};
    let script = conversation(Counters::default());
    let [up, down] = length(&script);
    assert!((6_000..=8_000).contains(&(up + down)), "{up} up, {down} down");
    let mut sim: Sim = script.sim("the_conversation_says_everything").tapped();
    sim.run_until_done(secs(10));
    sim.run_for(secs(1));
    let has = |wanted: &dyn Fn(&kcp::Segment<'_>) -> bool| {
        sim.seen().iter().flat_map(|seen| seen.segments()).any(|s| wanted(&s))
    };
    assert!(has(&|s| s.cmd == Wask) && has(&|s| s.cmd == Wins), "a question for the window, and its answer");
    assert!(has(&|s| s.wnd == 0), "a window that is closed");
    let pushes = sim.seen().iter().flat_map(|seen| seen.pushes());
    let frames: Vec<_> = pushes.flat_map(|segment| frames(segment.payload)).collect();
    let count = |command| frames.iter().filter(|frame| frame.command == command).count();
    assert_eq!(count(Command::Syn), 3);
    assert!(count(Command::Upd) >= 3, "window updates");
    assert!(count(Command::Fin) >= 6, "both directions of three streams end");
    assert_eq!(
        sim.told(Side::Client).len(),
        1 + 3,
        "one carrier, three streams delivered: {:?}",
        sim.told(Side::Client)
    );
}

/// Plays the conversation with each of `cases`, and says what it came to.
fn play(name: &str, cases: &[(Counters, Vec<(u32, Fault)>)]) -> Totals {
    play_scripts(name, cases.len(), |number| {
        let (counters, faults) = &cases[number];
        Script { faults: faults.clone(), ..conversation(*counters) }
    })
}

fn play_scripts(name: &str, count: usize, script: impl Fn(usize) -> Script + Sync) -> Totals {
    let numbers: Vec<u64> = (0..count as u64).collect();
    let script = |number: u64| script(number as usize);
    let totals = play_all(name, &numbers, script);
    eprintln!("{name}: {} runs, {} cuts, {:?}", totals.runs, totals.cuts, totals.counts);
    totals
}

/// Closed, reset, stalled or half written: at every byte, in both directions.
#[test]
fn a_cut_at_every_byte() {
    let start = Counters::default();
    let mut cases = Vec::new();
    for (way, length) in [Way::Up, Way::Down].into_iter().zip(length(&conversation(start))) {
        for how in ways(way) {
            cases.extend((0..=length).map(|at| (start, vec![(1, cut(way, at, how))])));
        }
    }
    let totals = play("a_cut_at_every_byte", &cases);
    assert!(totals.runs >= 4 * 6_000);
    // All but the last few bytes have something behind them that is missed.
    assert!(totals.cuts >= totals.runs * 9 / 10, "{} cuts", totals.cuts);
}

/// The same while counters go round. Every third byte, so that each counter meets each way of dying at every place.
#[test]
fn a_cut_while_counters_go_round() {
    let mut cases = Vec::new();
    for (i, start) in starts().into_iter().enumerate().skip(1) {
        for (way, length) in [Way::Up, Way::Down].into_iter().zip(length(&conversation(start))) {
            for (j, how) in ways(way).into_iter().enumerate() {
                let positions = (((i + j) % 3) as u64..=length).step_by(3);
                cases.extend(positions.map(|at| (start, vec![(1, cut(way, at, how))])));
            }
        }
    }
    play("a_cut_while_counters_go_round", &cases);
}

/// The conversation on sealed carriers.
fn sealed(suite: Suite) -> Script {
    Script { sealed: Some(suite), ..conversation(Counters::default()) }
}

/// With keys, in a suite with ML-KEM and one without: closed, reset, stalled, half written, or a bit of the next byte changed. All of these
/// where `all_ways` says so, by the suite, the byte, and where records begin; where only `one_way` does they take turns.
fn sealed_cuts(all_ways: impl Fn(Suite, u64, u64) -> bool, one_way: impl Fn(u64, u64) -> bool) -> Vec<(Suite, Fault)> {
    let mut cases = Vec::new();
    for suite in [Suite::AesGcmMlKem, Suite::ChaChaPoly] {
        let mut sim = sealed(suite).sim("sealed_cuts").tapped();
        sim.run_until_done(secs(10));
        let handshakes = [HEADER_LEN + suite.message_1_len() + MESSAGE_3_LEN, suite.message_2_len()];
        for (way, records) in [Way::Up, Way::Down].into_iter().zip(handshakes) {
            let records = records as u64;
            for at in 0..=sim.written(1, way).len() as u64 {
                let mut hows: Vec<How> = ways(way).into_iter().chain([How::Flip]).collect();
                if !all_ways(suite, at, records) {
                    hows = hows.into_iter().skip(at as usize % 5).take(usize::from(one_way(at, records))).collect();
                }
                cases.extend(hows.into_iter().map(|how| (suite, cut(way, at, how))));
            }
        }
    }
    cases
}

/// Bytes behind the handshake that hold more than one record.
const FIRST_RECORDS: u64 = 400;

fn play_sealed(name: &str, cases: &[(Suite, Fault)]) -> Totals {
    play_scripts(name, cases.len(), |number| {
        let (suite, fault) = cases[number];
        Script { faults: vec![(1, fault)], ..sealed(suite) }
    })
}

/// Every byte of the handshake and of the first records, in every way without ML-KEM and in one of them with it, and every seventh byte behind that.
#[test]
fn a_cut_of_a_sealed_carrier_at_many_bytes() {
    let cases = sealed_cuts(
        |suite, at, records| !suite.has_ml_kem() && (at < records + FIRST_RECORDS || at.is_multiple_of(7)),
        |at, records| at < records + FIRST_RECORDS || at.is_multiple_of(7),
    );
    let totals = play_sealed("a_cut_of_a_sealed_carrier_at_many_bytes", &cases);
    for kind in ["bit flipped", "handshake failed", "third message refused", "stranger's record refused"] {
        assert!(totals.counts.of(kind) > 0, "{kind} never happened");
    }
}

#[test]
#[ignore = "every byte in every way: 100,000 runs"]
fn a_cut_of_a_sealed_carrier_at_every_byte() {
    play_sealed("a_cut_of_a_sealed_carrier_at_every_byte", &sealed_cuts(|_, _, _| true, |_, _| true));
}

/// A cut, and another one on the next carrier: all pairs in the first bytes of both. By default every seventh pair.
fn pairs(step: usize) -> Vec<(Counters, Vec<(u32, Fault)>)> {
    let start = Counters::default();
    let mut all = Vec::new();
    for first_way in [Way::Up, Way::Down] {
        for second_way in [Way::Up, Way::Down] {
            for first in 0..600 {
                for second in 0..600 {
                    // All sixteen pairs of ways to die take turns.
                    let turn = first * 5 + second;
                    let (one, two) = (turn % 4, turn / 4 % 4);
                    let faults = vec![
                        (1, cut(first_way, first, ways(first_way)[one as usize])),
                        (2, cut(second_way, second, ways(second_way)[two as usize])),
                    ];
                    all.push((start, faults));
                }
            }
        }
    }
    all.into_iter().step_by(step).collect()
}

#[test]
fn two_cuts_at_many_pairs_of_bytes() {
    play("two_cuts_at_many_pairs_of_bytes", &pairs(97));
}

#[test]
#[ignore = "1,440,000 runs: three minutes on two cores"]
fn two_cuts_at_all_pairs_of_bytes() {
    play("two_cuts_at_all_pairs_of_bytes", &pairs(1));
}
