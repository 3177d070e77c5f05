//! Two engines back to back: how many bytes per second KCP alone can move, both ends and all copies included.
//!
//! `cargo run --release -p turbotunnel-kcp --example kcp_loopback [GIBIBYTES]`

use std::time::Instant;

use turbotunnel_kcp::{Config, Kcp, Retransmission};

#[allow(clippy::disallowed_methods, reason = "this program measures")]
fn clock() -> Instant {
    Instant::now()
}

fn main() {
    let gibibytes: u64 = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(8);
    for (name, retransmission) in [("peer of ours", Retransmission::TailProbe), ("kcp-go", Retransmission::Timeout)] {
        let goal = gibibytes << 30;
        let started = clock();
        let (packets, received) = transfer(goal, retransmission);
        let seconds = started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (rate, cost) = (received as f64 / seconds / 1e9, seconds * 1e9 / packets as f64);
        println!("{name:>12}: {rate:.2} GB/s, {cost:.0} ns per packet, acknowledgements included");
    }
}

/// Window 1,024, every packet handed over as soon as it is made. Gives packets and bytes.
fn transfer(goal: u64, retransmission: Retransmission) -> (u64, u64) {
    let now = clock();
    let mut sender = Kcp::new(now, 1, Config::default());
    let mut receiver = Kcp::new(now, 1, Config::default());
    sender.set_retransmission(retransmission);
    receiver.set_retransmission(retransmission);

    let data = vec![0x5a; 64 * 1024];
    let mut sink = vec![0; 64 * 1024];
    let mut packet = Vec::with_capacity(2048);
    let mut received = 0;
    while received < goal {
        sender.write(&data);
        while sender.poll_transmit(now, &mut packet) {
            receiver.handle_packet(now, &packet).expect("our own packet");
            packet.clear();
        }
        while let Some(bytes) = receiver.peek() {
            sink[..bytes.len()].copy_from_slice(bytes);
            received += bytes.len() as u64;
            receiver.consume();
        }
        while receiver.poll_transmit(now, &mut packet) {
            sender.handle_packet(now, &packet).expect("our own packet");
            packet.clear();
        }
    }
    (sender.stats().packets_sent + receiver.stats().packets_sent, received)
}
