//! Segments on the wire.
//!
//! ```text
//! offset  0     4    5    6    8   12   16   20   24
//!         conv  cmd  frg  wnd  ts  sn   una  len  payload      all little-endian
//! bytes   4     1    1    2    4   4    4    4    len
//! ```
//!
//! A packet is one or more whole segments of one conversation. Fewer than 24 bytes behind the last one are ignored, as
//! kcp-go does. The layout is that of <https://github.com/skywind3000/kcp> and of kcp-go without encryption and FEC.

use crate::sn::{Sn, Ts};

/// Length of a segment's header in bytes.
pub const HEADER_LEN: usize = 24;

/// What a segment is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Command {
    /// Data number `sn`.
    Push = 81,
    /// `sn` has arrived; `ts` is that of the PUSH.
    Ack = 82,
    /// "How large is your window?" The answer is any segment; kcp-go sends WINS.
    Wask = 83,
    /// "My window is `wnd`."
    Wins = 84,
}

impl Command {
    fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            81 => Some(Self::Push),
            82 => Some(Self::Ack),
            83 => Some(Self::Wask),
            84 => Some(Self::Wins),
            _ => None,
        }
    }
}

/// Why a packet is no KCP packet. Nothing of it has had any effect: drop it and go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not even one header.
    #[error("packet of {0} bytes is shorter than a segment header")]
    Short(usize),
    /// A segment says that it is longer than what is left of the packet.
    #[error("segment of {len} bytes in a packet with {left} bytes left")]
    Length {
        /// What the header says, in bytes.
        len: u32,
        /// What is there, in bytes.
        left: usize,
    },
    /// None of the four commands.
    #[error("unknown command {0}")]
    Command(u8),
    /// Of another conversation than this engine's, or than the segment before it.
    #[error("segment of conversation {found:#010x} where {expected:#010x} was expected")]
    OtherConv {
        /// The conversation that it should be.
        expected: u32,
        /// The one it is.
        found: u32,
    },
}

/// One segment of a packet, its payload borrowed from there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment<'a> {
    /// Conversation; both directions use the same number.
    pub conv: u32,
    /// What the segment is for.
    pub cmd: Command,
    /// Fragments of this message still to come; always 0 in stream mode, and of no meaning to a reader of bytes.
    pub frg: u8,
    /// Segments that the writer of this one has room for, beyond `una`.
    pub wnd: u16,
    /// PUSH: the sender's clock at this transmission. ACK: copied from the PUSH.
    pub ts: Ts,
    /// PUSH: number of the segment. ACK: copied from the PUSH.
    pub sn: Sn,
    /// Everything below has been received by the writer of this segment.
    pub una: Sn,
    /// Data; empty on all but PUSH.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// Appends the segment to `out`: [`HEADER_LEN`] bytes and the payload.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let len = u32::try_from(self.payload.len()).expect("a payload fits into a packet");
        let mut header = [0; HEADER_LEN];
        header[0..4].copy_from_slice(&self.conv.to_le_bytes());
        header[4] = self.cmd as u8;
        header[5] = self.frg;
        header[6..8].copy_from_slice(&self.wnd.to_le_bytes());
        header[8..12].copy_from_slice(&self.ts.value().to_le_bytes());
        header[12..16].copy_from_slice(&self.sn.value().to_le_bytes());
        header[16..20].copy_from_slice(&self.una.value().to_le_bytes());
        header[20..24].copy_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.payload);
    }
}

/// Conversation of the first segment; `None` if there is not even a header.
#[must_use]
pub fn conv_of(packet: &[u8]) -> Option<u32> {
    let (header, _) = packet.split_first_chunk::<HEADER_LEN>()?;
    Some(u32_at(header, 0))
}

/// The segments of a packet, all of one conversation. The whole packet is checked before the first is given out.
///
/// # Errors
///
/// The first thing found wrong, see [`DecodeError`].
pub fn segments(packet: &[u8]) -> Result<Segments<'_>, DecodeError> {
    let conv = conv_of(packet).ok_or(DecodeError::Short(packet.len()))?;
    let mut rest = packet;
    while let Some((_, behind)) = split_segment(conv, rest)? {
        rest = behind;
    }
    Ok(Segments { conv, rest: packet })
}

/// Iterator over the segments of a packet that was found correct: [`segments`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    conv: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        // Checked by `segments`, so there is no error left to meet; were there one, the packet would end there.
        let (segment, rest) = split_segment(self.conv, self.rest).ok().flatten()?;
        self.rest = rest;
        Some(segment)
    }
}

/// Takes one segment of `conv` off the front; `None` when less than a header is left.
fn split_segment(conv: u32, bytes: &[u8]) -> Result<Option<(Segment<'_>, &[u8])>, DecodeError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let found = u32_at(header, 0);
    if found != conv {
        return Err(DecodeError::OtherConv { expected: conv, found });
    }
    let len = u32_at(header, 20);
    let Some((payload, rest)) = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len)) else {
        return Err(DecodeError::Length { len, left: rest.len() });
    };
    let cmd = Command::from_wire(header[4]).ok_or(DecodeError::Command(header[4]))?;
    let segment = Segment {
        conv,
        cmd,
        frg: header[5],
        wnd: u16::from_le_bytes([header[6], header[7]]),
        ts: Ts::new(u32_at(header, 8)),
        sn: Sn::new(u32_at(header, 12)),
        una: Sn::new(u32_at(header, 16)),
        payload,
    };
    Ok(Some((segment, rest)))
}

fn u32_at(header: &[u8; HEADER_LEN], offset: usize) -> u32 {
    u32::from_le_bytes([header[offset], header[offset + 1], header[offset + 2], header[offset + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(payload: &[u8]) -> Segment<'_> {
        Segment {
            conv: 0x1122_3344,
            cmd: Command::Push,
            frg: 0,
            wnd: 1024,
            ts: Ts::new(9),
            sn: Sn::new(u32::MAX),
            una: Sn::new(2),
            payload,
        }
    }

    #[test]
    fn segments_come_back_as_they_went() {
        let mut packet = Vec::new();
        push(b"abc").encode(&mut packet);
        push(b"").encode(&mut packet);
        assert_eq!(packet.len(), 51);
        assert_eq!(packet[..8], [0x44, 0x33, 0x22, 0x11, 81, 0, 0, 4]);
        packet.extend_from_slice(&[0xff; 23]);
        let found: Vec<_> = segments(&packet).expect("two segments and an ignored rest").collect();
        assert_eq!(found, [push(b"abc"), push(b"")]);
        assert_eq!(conv_of(&packet), Some(0x1122_3344));
    }

    #[test]
    fn one_wrong_segment_condemns_the_packet() {
        let mut good = Vec::new();
        push(b"abc").encode(&mut good);
        assert_eq!(segments(&good[..23]).err(), Some(DecodeError::Short(23)));
        assert_eq!(segments(&[]).err(), Some(DecodeError::Short(0)));
        assert_eq!(segments(&good[..26]).err(), Some(DecodeError::Length { len: 3, left: 2 }));

        let mut packet = good.clone();
        packet.extend_from_slice(&good);
        packet[27 + 4] = 80;
        assert_eq!(segments(&packet).err(), Some(DecodeError::Command(80)));
        packet[27 + 4] = 84;
        packet[27] = 0x45;
        let expected = DecodeError::OtherConv { expected: 0x1122_3344, found: 0x1122_3345 };
        assert_eq!(segments(&packet).err(), Some(expected));
        packet[27] = 0x44;
        packet[27 + 20..27 + 24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(segments(&packet).err(), Some(DecodeError::Length { len: u32::MAX, left: 3 }));
    }
}
