//! Large segments: who gets them, and what they count in a window.

use super::*;

const LARGE: usize = 11 * MSS;
/// Beyond both: the first half megabyte, and the half that the path is known not by then.
const WARM: usize = 2_000_000;

fn pair(largest_packet: usize, retransmission: Retransmission) -> Pair {
    let mut pair = Pair::new(&config(), retransmission);
    for kcp in &mut pair.engines {
        kcp.set_largest_packet(largest_packet);
    }
    pair
}

/// The payloads that the first engine has put on its way, largest last.
fn payloads(pair: &Pair) -> Vec<usize> {
    let packets = pair.air.iter().filter(|&&(to, ..)| to == 1).map(|(_, _, packet)| packet);
    let mut all: Vec<_> = packets
        .flat_map(|packet| segments(packet).expect("our own packet").map(|segment| segment.payload.len()))
        .collect();
    all.sort_unstable();
    all
}

fn largest(pair: &Pair) -> usize {
    payloads(pair).last().copied().unwrap_or_default()
}

/// Runs until the first engine has written all; says the largest payload that was on its way.
fn transfer(pair: &mut Pair, bytes: usize) -> usize {
    let data = pattern(bytes);
    let before = pair.received[1].len();
    pair.out[0].extend(&data);
    let mut most = 0;
    while pair.received[1].len() < before + bytes {
        assert!(pair.step(), "it stands still");
        most = most.max(largest(pair));
    }
    assert!(pair.received[1][before..] == data);
    pair.run();
    most
}

#[test]
fn a_fast_path_gets_large_segments_once_it_has_brought_half_a_megabyte() {
    let mut pair = pair(LARGE + 24, Retransmission::TailProbe);
    assert_eq!(transfer(&mut pair, 512 << 10), MSS, "not before");
    let before = pair.engines[0].stats().clone();
    assert_eq!(transfer(&mut pair, WARM), LARGE);
    let stats = pair.engines[0].stats();
    let (sent, packets) = (stats.segments_sent - before.segments_sent, stats.packets_sent - before.packets_sent);
    assert!(sent < 150 && packets < 150, "{sent} segments in {packets} packets");
    assert_eq!((stats.resent(), stats.dropped(), pair.engines[1].stats().dropped()), (0, 0, 0));

    // The next carrier has to show first what it is.
    pair.cut();
    for kcp in &mut pair.engines {
        kcp.resume(pair.now, Resume::Now);
    }
    assert_eq!(transfer(&mut pair, 512 << 10), MSS);
    assert_eq!(transfer(&mut pair, WARM), LARGE);
}

#[test]
fn nobody_else_gets_any() {
    let mut untold = Pair::new(&config(), Retransmission::TailProbe);
    assert_eq!(transfer(&mut untold, WARM), MSS, "who takes no larger packets");
    let mut small = pair(LARGE + 23, Retransmission::TailProbe);
    assert_eq!(transfer(&mut small, WARM), MSS, "or none that is large enough");
    let mut go = pair(LARGE + 24, Retransmission::Timeout);
    assert_eq!(transfer(&mut go, WARM), MSS, "or is a Go program");
    let mut slow = pair(LARGE + 24, Retransmission::TailProbe);
    slow.delay = ms(400);
    for _ in 0..50 {
        assert_eq!(transfer(&mut slow, WARM / 50), MSS, "or has a path of 50 kB/s, as far as is known");
    }
}

#[test]
fn a_large_segment_counts_as_eleven_and_what_is_unread_never_overruns_its_room() {
    for room in [1024, 400, 35, 32] {
        let mut pair = pair(16_382, Retransmission::TailProbe);
        pair.engines[1].set_recv_room(room);
        transfer(&mut pair, WARM);
        pair.reads = [true, false];
        pair.out[0].extend(&pattern(4 * WARM));
        pair.run_for(ms(5_000));
        assert_eq!(pair.engines[1].stats().dropped(), 0, "{room} places");
        let sent = pair.engines[0].stats().bytes_sent as usize - WARM;
        assert!(sent <= usize::from(room) * MSS, "{sent} bytes sent into {room} places");
        assert!(sent > (usize::from(room) - 11) * MSS * 9 / 10, "{sent} bytes fill {room} places");
        pair.engines[1].handle_packet(pair.now, &segment(Command::Wask, 0, 0, b"")).expect("well formed");
        let wnd = said(&mut pair.engines[1], pair.now)[0].3;
        assert_eq!(usize::from(wnd), usize::from(room) - sent.div_ceil(MSS), "told is what is left");
        pair.reads = [true; 2];
        pair.run();
        assert!(pair.received[1][WARM..] == pattern(4 * WARM));
        assert_eq!(pair.engines[0].stats().resent(), 0);
    }
}

/// Whoever says less later has taken large ones all the same, and they are on their way.
#[test]
fn what_a_peer_takes_is_not_taken_back() {
    let mut pair = pair(16_382, Retransmission::TailProbe);
    transfer(&mut pair, WARM);
    pair.out[0].extend(&pattern(WARM));
    pair.turn();
    pair.engines[0].set_largest_packet(1_500);
    pair.run();
    for bytes in [0, 15_159, 15_160] {
        pair.engines[0].set_largest_packet(bytes);
        assert_eq!(transfer(&mut pair, WARM), LARGE, "{bytes}");
    }
}

/// Each goes alone, in a segment that was begun for much.
#[test]
fn small_messages_on_a_fast_path_take_little_memory() {
    let mut pair = pair(16_382, Retransmission::TailProbe);
    transfer(&mut pair, WARM);
    let before = pair.engines[0].memory();
    for _ in 0..500 {
        assert_eq!(pair.engines[0].write(b"a"), 1);
        assert_eq!(said(&mut pair.engines[0], pair.now).len(), 1);
    }
    let memory = pair.engines[0].memory();
    assert!(memory <= before + 501 * MSS, "{before} became {memory}");
}
