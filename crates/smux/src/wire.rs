//! Frames of smux, as they lie on the wire.
//!
//! In: eight bytes. Out: a [`Header`], or the reason why the byte stream means nothing any more. And back.
//!
//! ```text
//!  0        1        2        3        4        5        6        7
//! +--------+--------+-----------------+-----------------------------------+
//! | version| command| length (LE u16) | stream id (LE u32)                | length bytes of payload
//! +--------+--------+-----------------+-----------------------------------+
//! UPD payload: consumed (LE u32), window (LE u32)
//! ```
//!
//! As xtaci/smux 1.5.57 `frame.go`, with the length checks that came with its 1.5.56. Not here: what a frame does to a
//! stream, see [`crate::Mux`].

use crate::error::ProtocolError;
use std::fmt;

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 8;

/// Bytes of a window update's payload.
pub const UPD_LEN: usize = 8;

/// Bytes that any frame's payload can have at most: its length is a `u16`.
pub const MAX_PAYLOAD: usize = u16::MAX as usize;

/// Number of a stream within its session. Clients open 3, 5, 7 and so on, servers 2, 4, 6.
///
/// Ids are handed out once: after the last one ([`crate::OpenError::IdsExhausted`]) only a new session helps.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId(u32);

impl StreamId {
    /// Takes the number as it is on the wire.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The number as it is on the wire.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Version of the protocol. The same both ways and never negotiated: both ends are configured alike.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    /// No windows: one stream that is not read stops the whole session once its memory is used up.
    V1 = 1,
    /// A window for each stream and direction.
    V2 = 2,
}

/// What a frame wants.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Command {
    /// Opens the stream.
    Syn = 0,
    /// The sender will write no more; a second one says that it will not read either.
    Fin = 1,
    /// Data. Receivers skip an empty one.
    Psh = 2,
    /// Nothing: a sign of life, never answered. Its stream id is 0.
    Nop = 3,
    /// How much was consumed, and the window from there ([`Upd`]). Version 2 only.
    Upd = 4,
}

/// First eight bytes of every frame.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Header {
    /// Version of the session.
    pub version: Version,
    /// What the frame wants.
    pub command: Command,
    /// Bytes of payload that follow.
    pub length: u16,
    /// The stream it is about, 0 with [`Command::Nop`].
    pub stream: StreamId,
}

impl Header {
    /// The bytes on the wire.
    #[inline]
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let length = self.length.to_le_bytes();
        let id = self.stream.0.to_le_bytes();
        [self.version as u8, self.command as u8, length[0], length[1], id[0], id[1], id[2], id[3]]
    }

    /// Reads a header of a session that speaks `version`.
    ///
    /// # Errors
    ///
    /// Another version, an unknown command, a length that does not go with the command (SYN, FIN and NOP have no payload,
    /// UPD has eight bytes), or UPD in version 1. What follows in the byte stream then means nothing.
    #[inline]
    pub fn decode(version: Version, bytes: [u8; HEADER_LEN]) -> Result<Self, ProtocolError> {
        if bytes[0] != version as u8 {
            return Err(ProtocolError::WrongVersion(bytes[0]));
        }
        let length = u16::from_le_bytes([bytes[2], bytes[3]]);
        let (command, length_fits) = match bytes[1] {
            0 => (Command::Syn, length == 0),
            1 => (Command::Fin, length == 0),
            2 => (Command::Psh, true),
            3 => (Command::Nop, length == 0),
            4 if version == Version::V1 => return Err(ProtocolError::UpdateInVersion1),
            4 => (Command::Upd, usize::from(length) == UPD_LEN),
            other => return Err(ProtocolError::UnknownCommand(other)),
        };
        if !length_fits {
            return Err(ProtocolError::WrongLength { command, length });
        }
        let stream = StreamId(u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]));
        Ok(Self { version, command, length, stream })
    }
}

/// Payload of a window update. Both count bytes; `consumed` counts modulo 2^32 from the start of the stream.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Upd {
    /// Bytes that the application has read.
    pub consumed: u32,
    /// Bytes that may be in flight or unread beyond `consumed`, at most 2^31 - 1.
    pub window: u32,
}

impl Upd {
    /// The bytes on the wire.
    #[inline]
    pub fn encode(self) -> [u8; UPD_LEN] {
        let mut bytes = [0; UPD_LEN];
        bytes[..4].copy_from_slice(&self.consumed.to_le_bytes());
        bytes[4..].copy_from_slice(&self.window.to_le_bytes());
        bytes
    }

    /// Reads the payload. Every value parses; whether it makes sense is for the stream to say.
    #[inline]
    pub fn decode(bytes: [u8; UPD_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { consumed: u32::from_le_bytes([a, b, c, d]), window: u32::from_le_bytes([e, f, g, h]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_went() {
        for command in [Command::Syn, Command::Fin, Command::Psh, Command::Nop, Command::Upd] {
            let length = match command {
                Command::Psh => 0x1234,
                Command::Upd => 8,
                _ => 0,
            };
            let header = Header { version: Version::V2, command, length, stream: StreamId::new(0x0102_0304) };
            assert_eq!(Header::decode(Version::V2, header.encode()), Ok(header));
        }
        let psh = Header { version: Version::V1, command: Command::Psh, length: 5, stream: StreamId::new(3) };
        assert_eq!(psh.encode(), [1, 2, 5, 0, 3, 0, 0, 0]);
    }

    #[test]
    fn what_smux_does_not_know_is_refused() {
        use ProtocolError as E;
        let decode = Header::decode;
        assert_eq!(decode(Version::V2, [1, 3, 0, 0, 0, 0, 0, 0]), Err(E::WrongVersion(1)));
        assert_eq!(decode(Version::V2, [2, 5, 0, 0, 0, 0, 0, 0]), Err(E::UnknownCommand(5)));
        assert_eq!(decode(Version::V1, [1, 4, 8, 0, 3, 0, 0, 0]), Err(E::UpdateInVersion1));
        assert_eq!(
            decode(Version::V2, [2, 4, 9, 0, 3, 0, 0, 0]),
            Err(E::WrongLength { command: Command::Upd, length: 9 })
        );
        assert_eq!(
            decode(Version::V2, [2, 0, 1, 0, 3, 0, 0, 0]),
            Err(E::WrongLength { command: Command::Syn, length: 1 })
        );
    }

    #[test]
    fn a_stream_is_called_by_its_number() {
        assert_eq!(StreamId::new(u32::MAX).to_string(), "4294967295");
    }

    #[test]
    fn an_update_comes_back_as_it_went() {
        let upd = Upd { consumed: 0xffff_fff0, window: 65_536 };
        assert_eq!(upd.encode(), [0xf0, 0xff, 0xff, 0xff, 0, 0, 1, 0]);
        assert_eq!(Upd::decode(upd.encode()), upd);
    }
}
