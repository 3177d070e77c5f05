//! The first bytes of a stream, both ways: where it is to go, and what became of that.
//!
//! ```text
//! request  u8 kind   u16 length   body      big-endian
//! answer   u8 code   u16 length   body
//! ```
//!
//! Data may follow a request at once; nobody waits for the answer but whoever wants to know it. Kinds and codes that a reader does not know have a length all the same, so that
//! it can answer them. A body is 1,024 bytes at most; a longer one is an error, and so is a host that is not text.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest body: a name and a port, a sentence.
const MAX_BODY: usize = 1024;
/// Longest name (RFC 1035), and long enough for any address.
const MAX_HOST: usize = 255;

/// `HOST:PORT`, where the host is a name or an address (IPv6 without brackets).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What the opener of a stream wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Client: to where the server sends everybody (`server --to`, `--echo`).
    Default,
    /// Client: a TCP connection to this target.
    Connect(Target),
    /// Client: connections to this port of the server, until this stream ends. An empty host: the server's choice. Port 0: any of those it lends.
    Listen(Target),
    /// Server: a connection has come to a port that [`Request::Listen`] asked for. The host is where it comes from.
    Arrived(Target),
    /// A kind that this version does not know.
    Unknown(u8),
}

const DEFAULT: u8 = 0;
const CONNECT: u8 = 1;
const LISTEN: u8 = 2;
const ARRIVED: u8 = 3;

impl Request {
    /// The bytes on the wire. A host of more than 255 bytes is cut off: whoever takes one in has checked it (`spec.rs`).
    pub fn encode(&self) -> Vec<u8> {
        let (kind, target) = match self {
            Self::Default => (DEFAULT, None),
            Self::Connect(target) => (CONNECT, Some(target)),
            Self::Listen(target) => (LISTEN, Some(target)),
            Self::Arrived(target) => (ARRIVED, Some(target)),
            Self::Unknown(kind) => (*kind, None),
        };
        let mut body = Vec::new();
        if let Some(target) = target {
            body.extend_from_slice(&target.port.to_be_bytes());
            body.extend_from_slice(&target.host.as_bytes()[..target.host.len().min(MAX_HOST)]);
        }
        message(kind, &body)
    }

    /// Reads one from a stream. Not cancel-safe: a dropped call may have read a part of it.
    ///
    /// # Errors
    /// The stream ended or failed before it was whole, or it is none ([`io::ErrorKind::InvalidData`]).
    pub async fn read(from: impl AsyncRead + Unpin) -> io::Result<Self> {
        let (kind, body) = read_message(from).await?;
        Ok(match kind {
            DEFAULT => Self::Default,
            CONNECT => Self::Connect(target(&body)?),
            LISTEN => Self::Listen(target(&body)?),
            ARRIVED => Self::Arrived(target(&body)?),
            other => Self::Unknown(other),
        })
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Code {
    /// It is done; what follows comes from the target. For [`Request::Listen`] the body is the port, two bytes.
    Done = 0,
    /// It failed, for a reason that has no code of its own.
    Failed = 1,
    /// The server does not allow it.
    NotAllowed = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// The target refused the connection.
    Refused = 4,
    /// No way to the target's network.
    NetworkUnreachable = 5,
    /// No way to the target itself.
    HostUnreachable = 6,
    /// The target did not answer in time.
    TimedOut = 7,
    /// The server does not know this kind of request.
    UnknownKind = 8,
    /// Somebody has the port already.
    PortInUse = 9,
    /// The server is ending, and begins nothing new.
    Ending = 10,
}

impl Code {
    /// Each of them.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Failed,
        Self::NotAllowed,
        Self::NoSuchName,
        Self::Refused,
        Self::NetworkUnreachable,
        Self::HostUnreachable,
        Self::TimedOut,
        Self::UnknownKind,
        Self::PortInUse,
        Self::Ending,
    ];

    fn known(code: u8) -> Self {
        Self::ALL.into_iter().find(|known| *known as u8 == code).unwrap_or(Self::Failed)
    }

    /// Its name among numbers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Failed => "failed",
            Self::NotAllowed => "not_allowed",
            Self::NoSuchName => "no_such_name",
            Self::Refused => "refused",
            Self::NetworkUnreachable => "network_unreachable",
            Self::HostUnreachable => "host_unreachable",
            Self::TimedOut => "timed_out",
            Self::UnknownKind => "unknown_kind",
            Self::PortInUse => "port_in_use",
            Self::Ending => "ending",
        }
    }

    /// The code of an error in reaching a target.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::NetworkUnreachable => Self::NetworkUnreachable,
            io::ErrorKind::HostUnreachable => Self::HostUnreachable,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::NotFound => Self::NoSuchName,
            io::ErrorKind::PermissionDenied => Self::NotAllowed,
            io::ErrorKind::AddrInUse => Self::PortInUse,
            _ => Self::Failed,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::NotAllowed => "not allowed by the server",
            Self::NoSuchName => "no such name",
            Self::Refused => "connection refused",
            Self::NetworkUnreachable => "network unreachable",
            Self::HostUnreachable => "no route to host",
            Self::TimedOut => "timed out",
            Self::UnknownKind => "the server does not know this kind of request",
            Self::PortInUse => "port already in use",
            Self::Ending => "the server is ending",
        })
    }
}

/// An answer on the wire, and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What became of the request. A code that this version does not know reads as [`Code::Failed`].
    pub code: Code,
    /// The port, when a port was asked for and is listened on; with [`Code::NotAllowed`]: it is lent, but at another address.
    pub port: Option<u16>,
}

impl Answer {
    /// An answer without more to say.
    pub fn new(code: Code) -> Self {
        Self { code, port: None }
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let port = self.port.map(u16::to_be_bytes);
        message(self.code as u8, port.as_ref().map_or(&[], |port| &port[..]))
    }

    /// Reads one from a stream. Not cancel-safe: a dropped call may have read a part of it.
    ///
    /// # Errors
    /// The stream ended or failed before it was whole, or it is none ([`io::ErrorKind::InvalidData`]).
    pub async fn read(from: impl AsyncRead + Unpin) -> io::Result<Self> {
        let (code, body) = read_message(from).await?;
        let port = body.first_chunk().map(|port| u16::from_be_bytes(*port));
        Ok(Self { code: Code::known(code), port })
    }

    /// How many bytes have to come before `partial` is whole, or at least before that is known.
    ///
    /// # Errors
    /// It is no answer.
    pub fn missing(partial: &[u8]) -> io::Result<usize> {
        let Some([_, length @ ..]) = partial.first_chunk::<3>() else { return Ok(3 - partial.len()) };
        match usize::from(u16::from_be_bytes(*length)) {
            length if length > MAX_BODY => Err(not_one()),
            length => Ok((3 + length).saturating_sub(partial.len())),
        }
    }

    /// The code of one that is whole.
    pub fn decode(whole: &[u8]) -> Code {
        whole.first().map_or(Code::Failed, |code| Code::known(*code))
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    // At most 257 bytes; what does not fit into 16 bits is not there.
    bytes.extend_from_slice(&u16::try_from(body.len()).unwrap_or_default().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

async fn read_message(mut from: impl AsyncRead + Unpin) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 3];
    from.read_exact(&mut head).await?;
    let [kind, length @ ..] = head;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_BODY {
        return Err(not_one());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}

fn target(body: &[u8]) -> io::Result<Target> {
    let (port, host) = body.split_first_chunk().ok_or_else(not_one)?;
    let host = std::str::from_utf8(host).map_err(|_| not_one())?;
    // It goes to resolvers and into log lines.
    if host.len() > MAX_HOST || host.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(not_one());
    }
    Ok(Target { host: host.to_owned(), port: u16::from_be_bytes(*port) })
}

fn not_one() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a request or an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.into(), port }
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let requests = [
            Request::Default,
            Request::Connect(target("db.lan", 5432)),
            Request::Connect(target("::1", 22)),
            Request::Listen(target("", 0)),
            Request::Arrived(target("192.0.2.7", 40_000)),
            Request::Unknown(200),
        ];
        for request in requests {
            let bytes = request.encode();
            let mut rest = &bytes[..];
            assert_eq!(Request::read(&mut rest).await.unwrap(), request);
            assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                let error = Request::read(&bytes[..cut]).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
        }
        for code in Code::ALL {
            for port in [None, Some(8000)] {
                let answer = Answer { code, port };
                let bytes = answer.encode();
                assert_eq!(Answer::read(&bytes[..]).await.unwrap(), answer);
                for come in 0..=bytes.len() {
                    let missing = Answer::missing(&bytes[..come]).unwrap();
                    assert_eq!(missing == 0, come == bytes.len());
                    assert!(missing <= bytes.len() - come);
                }
                assert_eq!(Answer::decode(&bytes), code);
            }
        }
    }

    /// As `docs/wire.md` has them.
    #[test]
    fn to_the_byte() {
        assert_eq!(Request::Default.encode(), [0, 0, 0]);
        assert_eq!(Request::Connect(target("a.b", 22)).encode(), [1, 0, 5, 0, 22, b'a', b'.', b'b']);
        assert_eq!(Answer::new(Code::Refused).encode(), [4, 0, 0]);
        assert_eq!(Answer { code: Code::Done, port: Some(258) }.encode(), [0, 0, 2, 1, 2]);
    }

    #[tokio::test]
    async fn what_is_none_is_refused_and_what_is_new_is_not() {
        for bytes in [&[1, 4, 1][..], &[1, 0, 1, 9], &[1, 0, 3, 0, 22, 0xff], &[1, 0, 3, 0, 22, b'\n']] {
            let mut bytes = bytes.to_vec();
            bytes.resize(2000, b'x');
            assert_eq!(Request::read(&bytes[..]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        // A later version may say more in an answer, and know more codes.
        assert_eq!(Answer::read(&[99, 0, 3, 1, 2, 3][..]).await.unwrap().code, Code::Failed);
        assert_eq!(Request::read(&[77, 0, 3, 1, 2, 3][..]).await.unwrap(), Request::Unknown(77));
    }
}
