//! Packets in a byte stream: `u16` length, big-endian, then that many bytes. Repeated.
//!
//! In: whatever pieces a connection delivers. Out: whole packets, in order. The format is the worked example's; it has no
//! checksum, no type and no padding. What differs from its Go code: a packet that is too long is an error and not a panic,
//! and the decoder takes any split, also inside the length.

/// Longest packet that is accepted, in bytes: with its length it fits into a record of the secure format. Go programs send at most 1,400 and read at most
/// 1,500, and so do peers of ours until they know each other.
///
/// A longer length is taken for a stranger that speaks something else; it ends the carrier, not the session.
pub const MAX_PACKET: usize = (16 << 10) - HEADER_LEN;

/// Longest packet that anybody sends first, in bytes. What stands behind an id in other protocols, or is said first by their servers, is mostly more when
/// it is read as a length.
pub const MAX_FIRST_PACKET: usize = 1_500;

/// The beginning of a packet may hold so much more memory than it needs.
const LITTLE: usize = 1 << 10;

/// Bytes of the length in front of each packet.
pub const HEADER_LEN: usize = 2;

/// A length that nobody who speaks this format sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet of {0} bytes, the limit is {MAX_PACKET}")]
pub struct PacketTooLong(pub usize);

/// Packets, encapsulated back to back in one buffer, as they stand on the wire.
///
/// Carriers read into one and write out of one, so a packet is copied into its place once and never moved.
#[derive(Debug, Default)]
pub struct PacketBatch {
    bytes: Vec<u8>,
}

impl PacketBatch {
    /// An empty batch; it allocates at the first packet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of all packets with their lengths.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// No packet in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The wire form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives up all packets, and the memory too if it is more than `keep` bytes.
    pub fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        if self.bytes.capacity() > keep {
            self.bytes = Vec::new();
        }
    }

    /// Appends a packet that `write` builds in place. `write` says whether it made one; if not, nothing is appended.
    ///
    /// # Panics
    ///
    /// If `write` made a packet of more than 65,535 bytes: a mistake of the caller, whose packets have a limit.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER_LEN]);
        if !write(&mut self.bytes) {
            self.bytes.truncate(start);
            return false;
        }
        let len = self.bytes.len() - start - HEADER_LEN;
        let len = u16::try_from(len).expect("our own packets are at most MAX_PACKET bytes");
        self.bytes[start..start + HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        true
    }

    /// Appends a copy of `packet`.
    ///
    /// # Panics
    ///
    /// As [`PacketBatch::push_with`].
    pub fn push(&mut self, packet: &[u8]) {
        self.push_with(|bytes| {
            bytes.extend_from_slice(packet);
            true
        });
    }

    /// The packets, first to last. Ends early in front of an incomplete one.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (packet, after) = split_first_packet(rest)?;
            rest = after;
            Some(packet)
        })
    }

    /// The buffer itself, for a carrier that reads into it. Follow with [`PacketBatch::cut_incomplete`].
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Length of the first packet that is not empty, as far as it has come.
    #[cfg(feature = "tokio")]
    pub(crate) fn first_len(&self) -> Option<usize> {
        let mut bytes = self.bytes.as_slice();
        while packet_len(bytes)? == 0 {
            bytes = &bytes[HEADER_LEN..];
        }
        packet_len(bytes)
    }

    /// Moves the incomplete packet at the end, if there is one, to `partial`, which is overwritten.
    ///
    /// # Errors
    ///
    /// [`PacketTooLong`] if a length is beyond [`MAX_PACKET`]. The packets before it remain in the batch; nothing after it
    /// means anything.
    pub fn cut_incomplete(&mut self, partial: &mut Vec<u8>) -> Result<(), PacketTooLong> {
        let mut whole = 0;
        let mut outcome = Ok(());
        while let Some(len) = packet_len(&self.bytes[whole..]) {
            if len > MAX_PACKET {
                outcome = Err(PacketTooLong(len));
                self.bytes.truncate(whole);
                break;
            }
            if self.bytes.len() - whole < HEADER_LEN + len {
                break;
            }
            whole += HEADER_LEN + len;
        }
        let rest = &self.bytes[whole..];
        partial.clear();
        // What a large packet took is not for a byte that waits for the next.
        if rest.is_empty() || partial.capacity() > 4 * rest.len() + LITTLE {
            *partial = Vec::new();
        }
        partial.reserve_exact(rest.len());
        partial.extend_from_slice(rest);
        self.bytes.truncate(whole);
        outcome
    }
}

fn packet_len(bytes: &[u8]) -> Option<usize> {
    let &[high, low] = bytes.first_chunk::<HEADER_LEN>()?;
    Some(usize::from(u16::from_be_bytes([high, low])))
}

fn split_first_packet(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = packet_len(bytes)?;
    bytes[HEADER_LEN..].split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(packets: &[&[u8]]) -> Vec<u8> {
        let mut batch = PacketBatch::new();
        packets.iter().for_each(|packet| batch.push(packet));
        batch.as_bytes().to_vec()
    }

    /// Feeds `bytes` in pieces that end at the `cuts`, the way a connection would.
    fn decode(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Vec<u8>>, PacketTooLong> {
        let (mut packets, mut partial, mut start) = (Vec::new(), Vec::new(), 0);
        for &end in cuts.iter().chain([&bytes.len()]) {
            let mut batch = PacketBatch::new();
            batch.bytes_mut().extend_from_slice(&partial);
            batch.bytes_mut().extend_from_slice(&bytes[start..end]);
            start = end;
            let outcome = batch.cut_incomplete(&mut partial);
            packets.extend(batch.packets().map(<[u8]>::to_vec));
            outcome?;
        }
        Ok(packets)
    }

    #[test]
    fn any_split_gives_the_same_packets() {
        let packets: [&[u8]; 4] = [b"one", b"", &[7; 300], b"four"];
        let bytes = wire(&packets);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len().min(first + 9) {
                assert_eq!(decode(&bytes, &[first, second]).unwrap(), packets, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn the_length_is_big_endian() {
        assert_eq!(wire(&[&[9; 0x0102]])[..3], [1, 2, 9]);
    }

    #[test]
    fn a_packet_beyond_the_limit_ends_the_stream_behind_the_good_ones() {
        let mut bytes = wire(&[b"good"]);
        bytes.extend_from_slice(&wire(&[&[0; MAX_PACKET + 1]]));
        let mut batch = PacketBatch::new();
        batch.bytes_mut().extend_from_slice(&bytes);
        assert_eq!(batch.cut_incomplete(&mut Vec::new()), Err(PacketTooLong(MAX_PACKET + 1)));
        assert_eq!(batch.packets().collect::<Vec<_>>(), [b"good"]);
        assert!(decode(&wire(&[&[0; MAX_PACKET]]), &[]).is_ok());
    }

    #[test]
    fn a_cleared_batch_keeps_its_memory_up_to_what_it_may() {
        let mut batch = PacketBatch::new();
        assert_eq!((batch.len(), batch.is_empty()), (0, true));
        batch.push(&[7; 3]);
        batch.push(b"");
        assert_eq!((batch.len(), batch.is_empty()), (7, false));
        batch.bytes_mut().reserve(1_000);
        let capacity = batch.bytes_mut().capacity();
        batch.clear(capacity);
        assert_eq!((batch.len(), batch.bytes_mut().capacity()), (0, capacity));
        batch.push(&[7; 3]);
        batch.clear(capacity - 1);
        assert_eq!((batch.len(), batch.bytes_mut().capacity()), (0, 0));
    }

    #[test]
    fn a_packet_that_was_not_made_leaves_no_trace() {
        let mut batch = PacketBatch::new();
        batch.push(b"a");
        assert!(!batch.push_with(|bytes| {
            bytes.extend_from_slice(b"half of it");
            false
        }));
        assert_eq!(batch.as_bytes(), [0, 1, b'a']);
    }
}
