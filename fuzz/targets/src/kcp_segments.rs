//! Any packet is cut into KCP segments.
//!
//! Held to: the segments, written again, are the packet but for what is behind the last one, which is less than a header; all are of one conversation;
//! a packet that does not parse gives none; what opens a session holds what it has to.

use kcp::wire::{Command, HEADER_LEN};
use turbotunnel::tunnel::opening_conv;

/// See the [module](self).
pub fn run(packet: &[u8]) {
    let conv = kcp::conv_of(packet);
    assert_eq!(conv.is_some(), packet.len() >= HEADER_LEN);
    let first_sn = packet.last_chunk().map_or(0, |last| u32::from_le_bytes(*last));
    let Ok(segments) = kcp::segments(packet) else {
        assert_eq!(opening_conv(packet, first_sn), None);
        return;
    };
    let mut again = Vec::new();
    let mut opens = false;
    for segment in segments {
        assert_eq!(Some(segment.conv), conv);
        opens |= segment.cmd == Command::Push && segment.sn.value() == first_sn && !segment.payload.is_empty();
        segment.encode(&mut again);
    }
    let ignored = packet.strip_prefix(&again[..]).expect("segments are what the packet holds");
    assert!(!again.is_empty() && ignored.len() < HEADER_LEN, "{} bytes were ignored", ignored.len());
    assert_eq!(opening_conv(packet, first_sn), conv.filter(|_| opens));
}
