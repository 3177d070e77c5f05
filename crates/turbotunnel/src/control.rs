//! Control packets: what peers of ours tell each other beside KCP.
//!
//! kcp-go drops every packet of fewer than 24 bytes without effect, so packets of 1 to 23 bytes are free for us: one type
//! byte, then fields, little-endian like KCP's. The format, byte by byte and with vectors, is `docs/wire.md`. Unknown types and
//! wrong lengths are ignored: they may come from a newer version, or be noise.

use std::fmt;

use kcp::Sn;

/// Packets shorter than this are control packets, all others KCP's.
pub const MIN_KCP_PACKET: usize = 24;

/// The version of this format that we speak.
pub const VERSION: u8 = 1;

/// 8 random bytes that the server gives to the client once, early. Who only saw the session id does not know it.
pub type Token = [u8; 8];

/// Opens each carrier (client) and answers that (server).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u8,
    /// "I have heard from you before": a server that does not know the session then says [`Control::Unknown`].
    pub heard: bool,
    /// Client: this carrier is a spare, to be kept and not to be used until a HELLO on it says otherwise. Server: "I keep spares".
    pub spare: bool,
    /// The KCP conversation of the session.
    pub conv: u32,
    /// Client: number of this carrier, rising. Server: the number it answers.
    pub carrier: u32,
    /// "I have all segments below this."
    pub una: Sn,
    /// Client: the token as far as it knows it, else zeros. Server: the token until the client has repeated it, then zeros.
    pub token: Token,
}

/// What a session announces after each [`Hello`], because 23 bytes do not suffice for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The KCP conversation of the session.
    pub conv: u32,
    /// How long the sender keeps the session without hearing anything, in seconds.
    pub time_to_live_s: u32,
    /// Receive window of each new stream, in bytes; at least 262,144.
    pub stream_window: u32,
    /// Longest packet that the sender takes in, in bytes.
    pub max_packet: u16,
}

/// Why a session was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ByeReason {
    /// Everything was said and acknowledged.
    Done,
    /// The peer broke the protocol.
    Protocol,
    /// The program goes away, finished or not.
    Shutdown,
    /// It has no memory left, and this session stood still.
    OutOfMemory,
    /// It does not admit the client's key any more.
    NotAdmitted,
    /// A reason that this version does not know.
    Other(u8),
}

/// Which of a server's [`Limits`](crate::Limits) keeps a client waiting, as the server told the holder of a key. In the plain mode nobody is told anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::sessions`](crate::Limits::sessions).
    Sessions,
    /// [`Limits::sessions_per_client`](crate::Limits::sessions_per_client).
    SessionsOfClient,
    /// [`Limits::carriers`](crate::Limits::carriers).
    Carriers,
    /// [`Limits::carriers_per_client`](crate::Limits::carriers_per_client).
    CarriersOfClient,
    /// [`Limits::carriers_per_source`](crate::Limits::carriers_per_source).
    CarriersOfSource,
    /// [`Limits::memory`](crate::Limits::memory).
    Memory,
    /// [`Limits::new_sessions`](crate::Limits::new_sessions) or [`Limits::new_sessions_per_source`](crate::Limits::new_sessions_per_source).
    Rate,
    /// One that this version does not know.
    Other(u8),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sessions => "it has as many sessions as it bears",
            Self::SessionsOfClient => "this client has as many sessions as one may",
            Self::Carriers => "it has as many connections as it bears",
            Self::CarriersOfClient => "this client has as many connections as one may",
            Self::CarriersOfSource => "as many connections come from this address as may from one",
            Self::Memory => "its memory is used up",
            Self::Rate => "too many sessions began in a short time",
            Self::Other(_) => "for a reason that this version does not know",
        })
    }
}

/// One control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Settings`].
    Settings(Settings),
    /// Server, in answer to a [`Hello`] with `heard`: this session is not known here.
    Unknown {
        /// Repeated from the question.
        conv: u32,
    },
    /// "Are you there?"
    Ping {
        /// The KCP conversation of the session.
        conv: u32,
        /// Opaque; comes back in the [`Control::Pong`].
        nonce: u32,
        /// "I have all segments below this."
        una: Sn,
    },
    /// Answer to a [`Control::Ping`].
    Pong {
        /// The KCP conversation of the session.
        conv: u32,
        /// Repeated from the ping.
        nonce: u32,
        /// "I have all segments below this."
        una: Sn,
    },
    /// Server, in answer to a [`Hello`]: the client's key is not admitted. Believed only on carriers that prove who sends.
    NotAdmitted {
        /// Repeated from the question.
        conv: u32,
    },
    /// Server: one of its limits keeps this session or its connection waiting; it asks again itself as long as the connection lives. Believed only on carriers
    /// that prove who sends.
    Held {
        /// The KCP conversation of the session.
        conv: u32,
        /// Which.
        limit: Limit,
    },
    /// The session is over.
    Bye {
        /// The KCP conversation of the session.
        conv: u32,
        /// The session's token; without it a BYE has no effect.
        token: Token,
        /// Why.
        reason: ByeReason,
        /// "I have all segments below this." Nothing more is acknowledged.
        una: Sn,
    },
}

const HELLO: u8 = 1;
const SETTINGS: u8 = 2;
const UNKNOWN: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;
const BYE: u8 = 6;
const NOT_ADMITTED: u8 = 7;
const HELD: u8 = 8;

const FLAG_HEARD: u8 = 1;
const FLAG_SPARE: u8 = 2;

impl Control {
    /// The packet, at most 23 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                let heard = if hello.heard { FLAG_HEARD } else { 0 };
                let spare = if hello.spare { FLAG_SPARE } else { 0 };
                out.extend_from_slice(&[HELLO, hello.version, heard | spare]);
                out.extend_from_slice(&hello.conv.to_le_bytes());
                out.extend_from_slice(&hello.carrier.to_le_bytes());
                out.extend_from_slice(&hello.una.value().to_le_bytes());
                out.extend_from_slice(&hello.token);
            }
            Self::Settings(settings) => {
                out.push(SETTINGS);
                out.extend_from_slice(&settings.conv.to_le_bytes());
                out.extend_from_slice(&settings.time_to_live_s.to_le_bytes());
                out.extend_from_slice(&settings.stream_window.to_le_bytes());
                out.extend_from_slice(&settings.max_packet.to_le_bytes());
            }
            Self::Unknown { conv } | Self::NotAdmitted { conv } => {
                out.push(if matches!(self, Self::Unknown { .. }) { UNKNOWN } else { NOT_ADMITTED });
                out.extend_from_slice(&conv.to_le_bytes());
            }
            Self::Held { conv, limit } => {
                out.push(HELD);
                out.extend_from_slice(&conv.to_le_bytes());
                out.push(match limit {
                    Limit::Sessions => 0,
                    Limit::SessionsOfClient => 1,
                    Limit::Carriers => 2,
                    Limit::CarriersOfClient => 3,
                    Limit::CarriersOfSource => 4,
                    Limit::Memory => 5,
                    Limit::Rate => 6,
                    Limit::Other(other) => *other,
                });
            }
            Self::Ping { conv, nonce, una } | Self::Pong { conv, nonce, una } => {
                out.push(if matches!(self, Self::Ping { .. }) { PING } else { PONG });
                out.extend_from_slice(&conv.to_le_bytes());
                out.extend_from_slice(&nonce.to_le_bytes());
                out.extend_from_slice(&una.value().to_le_bytes());
            }
            Self::Bye { conv, token, reason, una } => {
                out.push(BYE);
                out.extend_from_slice(&conv.to_le_bytes());
                out.extend_from_slice(token);
                out.push(match reason {
                    ByeReason::Done => 0,
                    ByeReason::Protocol => 1,
                    ByeReason::Shutdown => 2,
                    ByeReason::OutOfMemory => 3,
                    ByeReason::NotAdmitted => 4,
                    ByeReason::Other(other) => *other,
                });
                out.extend_from_slice(&una.value().to_le_bytes());
            }
        }
    }

    /// What a packet says; `None` for types and lengths that are not ours. Bytes behind the known fields are left to later versions.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Self> {
        if packet.len() >= MIN_KCP_PACKET {
            return None;
        }
        let (&kind, fields) = packet.split_first()?;
        let mut fields = Fields(fields);
        Some(match kind {
            HELLO => {
                let [version, flags] = fields.take()?;
                Self::Hello(Hello {
                    version,
                    heard: flags & FLAG_HEARD != 0,
                    spare: flags & FLAG_SPARE != 0,
                    conv: fields.u32()?,
                    carrier: fields.u32()?,
                    una: Sn::new(fields.u32()?),
                    token: fields.take()?,
                })
            }
            SETTINGS => Self::Settings(Settings {
                conv: fields.u32()?,
                time_to_live_s: fields.u32()?,
                stream_window: fields.u32()?,
                max_packet: u16::from_le_bytes(fields.take()?),
            }),
            UNKNOWN => Self::Unknown { conv: fields.u32()? },
            NOT_ADMITTED => Self::NotAdmitted { conv: fields.u32()? },
            HELD => Self::Held {
                conv: fields.u32()?,
                limit: match fields.take::<1>()? {
                    [0] => Limit::Sessions,
                    [1] => Limit::SessionsOfClient,
                    [2] => Limit::Carriers,
                    [3] => Limit::CarriersOfClient,
                    [4] => Limit::CarriersOfSource,
                    [5] => Limit::Memory,
                    [6] => Limit::Rate,
                    [other] => Limit::Other(other),
                },
            },
            PING => Self::Ping { conv: fields.u32()?, nonce: fields.u32()?, una: Sn::new(fields.u32()?) },
            PONG => Self::Pong { conv: fields.u32()?, nonce: fields.u32()?, una: Sn::new(fields.u32()?) },
            BYE => Self::Bye {
                conv: fields.u32()?,
                token: fields.take()?,
                reason: match fields.take::<1>()? {
                    [0] => ByeReason::Done,
                    [1] => ByeReason::Protocol,
                    [2] => ByeReason::Shutdown,
                    [3] => ByeReason::OutOfMemory,
                    [4] => ByeReason::NotAdmitted,
                    [other] => ByeReason::Other(other),
                },
                una: Sn::new(fields.u32()?),
            },
            _ => return None,
        })
    }

    /// The conversation that the packet speaks of.
    #[must_use]
    pub fn conv(&self) -> u32 {
        match *self {
            Self::Hello(Hello { conv, .. })
            | Self::Settings(Settings { conv, .. })
            | Self::Unknown { conv }
            | Self::NotAdmitted { conv }
            | Self::Held { conv, .. }
            | Self::Ping { conv, .. }
            | Self::Pong { conv, .. }
            | Self::Bye { conv, .. } => conv,
        }
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of docs/wire.md: the document and the code cannot part.
    fn documented() -> Vec<(String, Vec<u8>)> {
        let text = include_str!("../../../docs/wire.md");
        let vectors = text.lines().filter_map(|line| line.strip_prefix("    vector "));
        vectors
            .map(|line| {
                let (name, hex) = line.split_once(": ").expect("vector NAME: HEX");
                let hex: String = hex.split_whitespace().collect();
                let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
                (name.to_owned(), bytes.collect())
            })
            .collect()
    }

    fn meaning(name: &str) -> Control {
        let conv = 0x1122_3344;
        let una = Sn::new(0x0000_0102);
        let token = [1, 2, 3, 4, 5, 6, 7, 8];
        match name {
            "hello first" => {
                let token = [0; 8];
                Control::Hello(Hello {
                    version: 1,
                    heard: false,
                    spare: false,
                    conv,
                    carrier: 1,
                    una: Sn::new(0),
                    token,
                })
            }
            "hello again" => {
                Control::Hello(Hello { version: 1, heard: true, spare: false, conv, carrier: 2, una, token })
            }
            "hello spare" => {
                Control::Hello(Hello { version: 1, heard: true, spare: true, conv, carrier: 3, una, token })
            }
            "settings" => {
                Control::Settings(Settings { conv, time_to_live_s: 120, stream_window: 1 << 20, max_packet: 1500 })
            }
            "unknown" => Control::Unknown { conv },
            "not admitted" => Control::NotAdmitted { conv },
            "held" => Control::Held { conv, limit: Limit::SessionsOfClient },
            "ping" => Control::Ping { conv, nonce: 7, una },
            "pong" => Control::Pong { conv, nonce: 7, una },
            "bye" => Control::Bye { conv, token, reason: ByeReason::Done, una },
            other => panic!("docs/wire.md has a vector {other:?} that this test does not know"),
        }
    }

    #[test]
    fn the_documented_vectors_are_what_we_send_and_understand() {
        let vectors = documented();
        assert_eq!(vectors.len(), 10);
        for (name, bytes) in vectors {
            let mut sent = Vec::new();
            meaning(&name).encode(&mut sent);
            assert_eq!(sent, bytes, "{name}");
            assert!(sent.len() < MIN_KCP_PACKET, "{name} is dropped by kcp-go only below 24 bytes");
            assert_eq!(Control::decode(&bytes), Some(meaning(&name)), "{name}");
            assert_eq!(meaning(&name).conv(), 0x1122_3344, "{name}");
        }
    }

    #[test]
    fn short_unknown_and_kcp_sized_packets_mean_nothing() {
        for (name, bytes) in documented() {
            for len in 0..bytes.len() {
                assert_eq!(Control::decode(&bytes[..len]), None, "{name} cut to {len} bytes");
            }
        }
        for kind in (0..=255).filter(|kind| !(HELLO..=HELD).contains(kind)) {
            assert_eq!(Control::decode(&[kind; 23]), None);
        }
        assert_eq!(Control::decode(&[HELLO; 24]), None);
    }

    #[test]
    fn later_versions_may_append_fields() {
        let mut packet = Vec::new();
        Control::Unknown { conv: 5 }.encode(&mut packet);
        packet.extend_from_slice(b"more");
        assert_eq!(Control::decode(&packet), Some(Control::Unknown { conv: 5 }));
    }
}
