//! What the engines alone cost: KCP and smux, both ends, in one thread and without a socket.
//!
//! Time says how many bytes a second that is. Instructions, counted by callgrind, say the same to four digits whatever else the machine does, so
//! it is those that CI holds on to.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kcp::{Kcp, Retransmission};
use serde::{Deserialize, Serialize};
use smux::{Mux, Side};

const PIECE: usize = 64 << 10;
/// Packets between which the cost is counted; what comes before them is the beginning.
const WARM: u64 = 20_000;
const COUNTED: u64 = 40_000;

/// Frames that fill a large segment; as much is written at once as four of them hold.
const LARGE_FRAME: usize = 15_136 - 8;

/// Of one data packet: made, sent, received, acknowledged, its bytes read.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Cost {
    /// Without those of memcpy and its kin.
    pub(crate) instructions: f64,
    /// Calls of malloc, calloc and realloc.
    pub(crate) allocations: f64,
}

/// The same for both sizes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Costs {
    /// Of 1,400 bytes, as to a Go program.
    pub(crate) usual: Cost,
    /// Of 15,160 bytes, as peers of ours go over to.
    pub(crate) large: Cost,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Size {
    Usual,
    Large,
}

/// Moves bytes from one end to the other until so many data packets have gone, each handed over as soon as it is made. Gives bytes and packets.
pub(crate) fn run(window: u16, packets: u64, size: Size) -> (u64, u64) {
    let mut now = Instant::now();
    let config = || {
        let mut config = kcp::Config::default();
        (config.send_window, config.recv_window) = (window, window);
        // The window is what is measured, not a path.
        config.initial_flight = usize::from(window) * 1_400;
        config
    };
    let mut ends = [Side::Client, Side::Server].map(|side| {
        let mut engine = Kcp::new(now, 1, config());
        engine.set_retransmission(Retransmission::TailProbe);
        if size == Size::Large {
            engine.set_largest_packet(16_382);
        }
        (engine, Mux::new(now, side, smux::Config::default()))
    });
    let [(kcp, mux), (peer_kcp, peer_mux)] = &mut ends;
    let stream = mux.open().expect("the first stream");
    let piece = vec![7; if size == Size::Large { 4 * LARGE_FRAME } else { PIECE }];
    let (mut buffer, mut packet) = (vec![0; PIECE], Vec::with_capacity(16 << 10));
    let (mut received, mut sent) = (0, 0);
    while sent < packets {
        mux.write(stream, &piece).expect("an open stream");
        loop {
            kcp.fill(|segment, room| {
                mux.poll_transmit(now, segment, room);
            });
            if !kcp.poll_transmit(now, &mut packet) {
                break;
            }
            sent += 1;
            let take = |bytes: &[u8]| peer_mux.handle_bytes(now, bytes).is_ok();
            peer_kcp.handle_packet_with(now, &packet, take).expect("our own packet");
            assert_eq!(peer_kcp.peek(), None, "read as it came");
            packet.clear();
        }
        if size == Size::Large {
            // A round trip, because it is time that shows that a path is fast.
            now += Duration::from_millis(1);
        }
        while peer_mux.accept().is_some() {}
        while let Ok(Some(n @ 1..)) = peer_mux.read(now, stream, &mut buffer) {
            received += n as u64;
        }
        while peer_mux.poll_event().is_some() {}
        peer_kcp.fill(|segment, room| {
            peer_mux.poll_transmit(now, segment, room);
        });
        while peer_kcp.poll_transmit(now, &mut packet) {
            kcp.handle_packet_with(now, &packet, |bytes| mux.handle_bytes(now, bytes).is_ok()).expect("our own packet");
            packet.clear();
        }
        while mux.poll_event().is_some() {}
    }
    assert!(size == Size::Usual || received > 14_000 * sent, "{received} bytes in {sent} packets: they are not large");
    (received, sent)
}

/// Bytes a second.
pub(crate) fn rate(window: u16, size: Size) -> f64 {
    run(window, WARM, size);
    let began = Instant::now();
    let (received, _) = run(window, if size == Size::Large { 400_000 } else { 2_000_000 }, size);
    received as f64 / began.elapsed().as_secs_f64()
}

/// Counts, with valgrind.
pub(crate) fn costs(window: u16) -> io::Result<Costs> {
    Ok(Costs { usual: cost(window, Size::Usual)?, large: cost(window, Size::Large)? })
}

fn cost(window: u16, size: Size) -> io::Result<Cost> {
    let (warm, all) = (counted(window, WARM, size)?, counted(window, WARM + COUNTED, size)?);
    let each = |of: fn(&Counted) -> u64| (of(&all) - of(&warm)) as f64 / COUNTED as f64;
    Ok(Cost { instructions: each(|counted| counted.instructions), allocations: each(|counted| counted.allocations) })
}

#[derive(Debug, Default)]
struct Counted {
    instructions: u64,
    allocations: u64,
}

fn counted(window: u16, packets: u64, size: Size) -> io::Result<Counted> {
    let file = std::env::temp_dir().join(format!("callgrind.{}", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet", &format!("--callgrind-out-file={}", file.display())]);
    valgrind.arg(std::env::current_exe()?).args(["engine", &window.to_string(), &packets.to_string()]);
    valgrind.args((size == Size::Large).then_some("--large"));
    let status = valgrind.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|error| io::Error::other(format!("cannot run valgrind: {error}")))?;
    let text = fs::read_to_string(&file);
    let _ = fs::remove_file(&file);
    if !status.success() {
        return Err(io::Error::other(format!("valgrind: {status}")));
    }
    Ok(read(&text?))
}

/// Reads callgrind's file: `fn=` begins a function, lines of two numbers are its own cost, `cfn=` names whom it calls, `calls=` how often, and the line
/// behind that is the callee's cost.
fn read(text: &str) -> Counted {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut counted = Counted::default();
    let (mut own, mut callee, mut skip) = (String::new(), String::new(), false);
    for line in text.lines() {
        // `(7) name` the first time, `(7)` afterwards.
        if let Some(reference) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (number, name) = reference.split_once(' ').unwrap_or((reference, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            let name = names.get(number).copied().unwrap_or("").to_owned();
            if line.starts_with('c') { callee = name } else { own = name }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let count: u64 = calls.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
            if matches!(callee.as_str(), "malloc" | "calloc" | "realloc") {
                counted.allocations += count;
            }
            skip = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-' || c == '*') {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            if !std::mem::take(&mut skip)
                && !own.contains("memcpy")
                && !own.contains("memmove")
                && !own.contains("memset")
            {
                counted.instructions += cost;
            }
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_callgrind_is_read() {
        let text = "events: Ir\n\nfn=(1) run\n10 100\n+2 5\ncfn=(2) malloc\ncalls=3 0\n12 300\n* 1\nfn=(3) __memcpy_avx\n0 5000\nfn=(2)\n0 300\n";
        let counted = read(text);
        assert_eq!((counted.instructions, counted.allocations), (406, 3));
    }
}
