//! Two ends of a session without sockets, tasks or clock: the packets are carried by hand, the time is made up, and every carrier dies after 40 packets.
//!
//! `cargo run -p turbotunnel --no-default-features --example without_io`

#![allow(clippy::disallowed_methods, reason = "the time has to begin somewhere")]

use std::time::{Duration, Instant};

use turbotunnel::tunnel::{Action, CarrierId, Event};
use turbotunnel::{CarrierEnd, Config, Tunnel};

/// How long a packet is on its way.
const DELAY: Duration = Duration::from_millis(20);
/// Packets that a carrier brings before it dies.
const LIFE: usize = 40;
const BYTES: usize = 1 << 20;

fn main() {
    let start = Instant::now();
    let mut now = start;
    let conv = 0x1234_5678;
    let mut client = Tunnel::client(now, Config::default(), conv, 1);
    // A real server makes its end when the first packets are there: `tunnel::opening_conv` says whether they open a session.
    let mut server = Tunnel::server(now, Config::default(), conv, *b"a secret");
    // The carrier that there is, under its numbers at the client and at the server, and how much it has brought.
    let mut carrier: Option<(CarrierId, CarrierId, usize)> = None;

    let stream = client.open(now).expect("a new session takes streams");
    let (mut written, mut read, mut cuts) = (0, 0, 0);
    let mut accepted = None;
    while read < BYTES {
        // Applications. The byte at `at` is `at`, so that every one can be checked.
        let bytes: Vec<u8> = (written..BYTES.min(written + 4096)).map(|at| at as u8).collect();
        written += client.write(now, stream, &bytes).expect("the session lives");
        accepted = accepted.or_else(|| server.accept());
        let mut buf = [0; 4096];
        while let Some(n) = accepted.and_then(|id| server.read(now, id, &mut buf).expect("the session lives")) {
            assert!(buf[..n].iter().enumerate().all(|(i, byte)| *byte == (read + i) as u8), "out of place");
            read += n;
            if n == 0 {
                break;
            }
        }

        // Carriers.
        while let Some(action) = client.poll_action() {
            if let Action::Dial(id) = action {
                client.handle_dialed(now, id);
                carrier = Some((id, server.attach(now), 0));
            }
        }
        // A server never dials; what it wants closed is dead here anyway.
        while server.poll_action().is_some() {}

        // Packets, both ways.
        now += DELAY;
        if let Some((at_client, at_server, brought)) = &mut carrier {
            *brought += carry(now, &mut client, *at_client, &mut server, *at_server, LIFE - *brought);
            *brought += carry(now, &mut server, *at_server, &mut client, *at_client, LIFE - *brought);
        }
        if let Some((at_client, at_server, LIFE..)) = carrier {
            client.handle_ended(now, at_client, CarrierEnd::Closed);
            server.handle_ended(now, at_server, CarrierEnd::Closed);
            (carrier, cuts) = (None, cuts + 1);
        }

        // Time.
        for end in [&mut client, &mut server] {
            end.handle_timeout(now);
            while let Some(event) = end.poll_event() {
                assert!(!matches!(event, Event::Ended(_)), "{event:?}");
            }
        }
    }
    println!("{read} bytes, {cuts} cuts, {:?} of made-up time", now - start);
}

/// Brings packets over one carrier, from the end that has it under one number to the end that has it under another; at most `limit`.
fn carry(
    now: Instant,
    from: &mut Tunnel,
    from_id: CarrierId,
    to: &mut Tunnel,
    to_id: CarrierId,
    limit: usize,
) -> usize {
    let (mut packet, mut brought) = (Vec::new(), 0);
    while brought < limit && from.poll_transmit(now, from_id, &mut packet) {
        to.handle_packet(now, to_id, &packet);
        brought += 1;
        packet.clear();
    }
    brought
}
