//! A byte stream that a stranger writes goes through the decoder of packets, in whatever pieces.
//!
//! Held to: the pieces make no difference; what is found is what a plain reading of the format finds; a length beyond the limit is an error behind
//! the good packets; what waits for its rest is less than a packet; the packets, written again, are the same bytes.

use arbitrary::Unstructured;
use turbotunnel::encapsulation::{HEADER_LEN, MAX_PACKET, PacketBatch, PacketTooLong};

use crate::pieces::Pieces;

/// See the [module](self).
pub fn run(data: &[u8]) {
    let Ok(pieces) = Pieces::take(&mut Unstructured::new(data)) else { return };
    let (expected, rest, outcome) = plainly(pieces.whole());

    let (mut found, mut partial) = (Vec::new(), Vec::new());
    let mut decoded = Ok(());
    for piece in pieces.iter() {
        let mut batch = PacketBatch::new();
        batch.bytes_mut().extend_from_slice(&partial);
        batch.bytes_mut().extend_from_slice(piece);
        decoded = batch.cut_incomplete(&mut partial);
        found.extend(batch.packets().map(<[u8]>::to_vec));
        if decoded.is_err() {
            break;
        }
        assert!(partial.len() < HEADER_LEN + MAX_PACKET, "{} bytes wait for the rest of a packet", partial.len());
    }
    assert_eq!(found, expected, "packets found in pieces, and at once");
    assert_eq!(decoded, outcome);
    if outcome.is_ok() {
        assert_eq!(partial, rest);
    }
    write_again(&found, &pieces.whole()[..found.iter().map(|packet| HEADER_LEN + packet.len()).sum()]);
}

/// The format, read without any thought of pieces.
fn plainly(mut bytes: &[u8]) -> (Vec<Vec<u8>>, &[u8], Result<(), PacketTooLong>) {
    let mut packets = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let len = usize::from(*high) << 8 | usize::from(*low);
        if len > MAX_PACKET {
            return (packets, bytes, Err(PacketTooLong(len)));
        }
        if rest.len() < len {
            break;
        }
        packets.push(rest[..len].to_vec());
        bytes = &rest[len..];
    }
    (packets, bytes, Ok(()))
}

fn write_again(packets: &[Vec<u8>], bytes: &[u8]) {
    let mut batch = PacketBatch::new();
    for packet in packets {
        let made = batch.push_with(|out| {
            out.extend_from_slice(packet);
            false
        });
        assert!(!made, "a packet that was not made");
        batch.push(packet);
    }
    assert_eq!(batch.as_bytes(), bytes, "written again");
    assert_eq!((batch.len(), batch.is_empty()), (bytes.len(), bytes.is_empty()));
    assert!(batch.packets().eq(packets), "read again");
    batch.clear(0);
    assert!(batch.is_empty() && batch.packets().next().is_none());
}
