//! Two sessions back to back in one thread: what smux alone costs.
//!
//! One stream (or as many as the first argument says) carries 8 GiB (or as many as the second says) from client to server:
//! written and read in pieces of 64 KiB, sent in rooms of 1,376 bytes, taken in room by room.

use std::time::Instant;
use turbotunnel_smux::{Config, Mux, Side, StreamId};

const PIECE: usize = 64 << 10;
const ROOM: usize = 1_376;

#[allow(clippy::disallowed_methods, reason = "a measuring program needs a real clock")]
fn clock() -> Instant {
    Instant::now()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let streams: usize = args.next().map_or(Ok(1), |arg| arg.parse())?;
    let gibibytes: u64 = args.next().map_or(Ok(8), |arg| arg.parse())?;
    let total = gibibytes << 30;

    let start = clock();
    let mut client = Mux::new(start, Side::Client, Config::default());
    let mut server = Mux::new(start, Side::Server, Config::default());
    let ids = (0..streams).map(|_| client.open()).collect::<Result<Vec<StreamId>, _>>()?;

    let piece: Vec<u8> = (0..PIECE).map(|n| n as u8).collect();
    let mut buf = vec![0; PIECE];
    let mut packet = Vec::with_capacity(ROOM);
    let mut back = Vec::new();
    let (mut received, mut packets) = (0, 0_u64);
    while received < total {
        for &id in &ids {
            client.write(id, &piece)?;
        }
        while client.poll_transmit(start, &mut packet, ROOM) {
            while server.accept().is_some() {}
            server.handle_bytes(start, &packet)?;
            packet.clear();
            packets += 1;
        }
        for &id in &ids {
            while let Some(n) = server.read(start, id, &mut buf)? {
                received += n as u64;
            }
        }
        while server.poll_transmit(start, &mut back, ROOM) {}
        client.handle_bytes(start, &back)?;
        back.clear();
        while client.poll_event().is_some() || server.poll_event().is_some() {}
    }
    let took = start.elapsed();
    println!(
        "{streams} streams: {received} bytes in {took:.2?}, {:.2} GB/s, {:.0} ns a packet, both ends",
        received as f64 / took.as_secs_f64() / 1e9,
        took.as_nanos() as f64 / packets as f64,
    );
    Ok(())
}
