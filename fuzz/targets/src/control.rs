//! Any packet is read as a control packet, and given to both ends of a session.
//!
//! Held to: what is understood is written again as the same bytes, but for flags that mean nothing; a prefix of it means nothing; bytes behind it change
//! nothing; nothing of KCP's size is understood. A tunnel that gets it does not panic, and one whose conv it does not name is not touched by it.

use turbotunnel::control::{Control, MIN_KCP_PACKET};
use turbotunnel::tunnel::Action;
use turbotunnel::{Config, Tunnel};

use crate::tunnel_end::Facts;
use crate::{ms, start};

const CONV: u32 = 0x1122_3344;

/// See the [module](self).
pub fn run(packet: &[u8]) {
    let control = Control::decode(packet);
    if let Some(control) = control {
        check_bytes(packet, control);
    }
    check_tunnels(packet, control);
}

fn check_bytes(packet: &[u8], control: Control) {
    assert!(packet.len() < MIN_KCP_PACKET, "a packet of KCP's size was understood");
    let mut again = Vec::new();
    control.encode(&mut again);
    assert!(again.len() <= packet.len(), "{control:?} is longer than what it was read from");
    for (at, (ours, theirs)) in again.iter().zip(packet).enumerate() {
        let flags = at == 2 && matches!(control, Control::Hello(_));
        assert!(ours == theirs || (flags && ours & 1 == theirs & 1), "{control:?}: byte {at}");
    }
    assert_eq!(Control::decode(&again), Some(control), "read again");
    for len in 0..again.len() {
        assert_eq!(Control::decode(&again[..len]), None, "cut to {len} bytes");
    }
    while again.len() + 1 < MIN_KCP_PACKET {
        again.push(0xee);
        assert_eq!(Control::decode(&again), Some(control), "with more behind it");
    }
}

fn check_tunnels(packet: &[u8], control: Option<Control>) {
    let now = start();
    let mut client = Tunnel::client(now, Config::default(), CONV, 1);
    let Some(Action::Dial(carrier)) = client.poll_action() else { panic!("the first dial is due at once") };
    client.handle_dialed(now, carrier);
    let mut server = Tunnel::server(now, Config::default(), CONV, [7; 8]);
    let theirs = server.attach(now);
    for (mut tunnel, carrier) in [(client, carrier), (server, theirs)] {
        let now = now + ms(10);
        let before = Facts::of(&tunnel, now);
        for _ in 0..3 {
            tunnel.handle_packet(now, carrier, packet);
        }
        if packet.len() < MIN_KCP_PACKET && control.is_none_or(|control| control.conv() != CONV) {
            assert_eq!(Facts::of(&tunnel, now), before, "{control:?} is not for this session");
        }
        let mut out = Vec::new();
        while tunnel.poll_transmit(now, carrier, &mut out) {}
        while tunnel.poll_event().is_some() {}
        while tunnel.poll_action().is_some() {}
    }
}
