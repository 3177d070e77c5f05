//! Why a session is over, why a carrier is.

use std::io;
use std::time::Duration;

use crate::control::{ByeReason, Limit};

/// Why a session is over. A dead carrier is not among the reasons: sessions outlive carriers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// This side closed it, and the peer has everything.
    #[error("session closed")]
    Closed,
    /// This side closed it, but the peer did not acknowledge everything within [`Config::close_limit`](crate::Config::close_limit).
    #[error(
        "session closed, the peer did not acknowledge the last {unacknowledged} segments, and {unsent} bytes had not been sent"
    )]
    ClosedUnacknowledged {
        /// Segments of up to 1,376 bytes, or 15,136 between peers of ours, that were sent and may not have arrived.
        unacknowledged: usize,
        /// Bytes that were written and never sent, mostly because the peer's application did not read.
        unsent: usize,
    },
    /// The session's task ended before the session did: the runtime went down, a callback panicked, or [`Tunnel::abort`](crate::Tunnel::abort) was
    /// called. What was not acknowledged may be lost.
    #[error("session aborted")]
    Aborted,
    /// The peer ended the session. What it sent before that can still be read.
    #[error("session ended by the peer ({})", describe(*.0))]
    ClosedByPeer(ByeReason),
    /// No carrier came up: with `fail_fast` after the first dial, otherwise within the time to live. Is the server running?
    #[error("cannot reach the server: {0}")]
    NeverConnected(String),
    /// Something answered, but not in this format, and nothing else did within the time to live (with `fail_fast`: at the first carrier).
    #[error("what answers there is not a turbotunnel server")]
    NotAPeer,
    /// With keys: something takes connections there, but within the time to live (with `fail_fast`: at the first dial) it has not answered as the holder of the
    /// server's key would. Such a server is silent towards everybody else, so this is all that can be known: it has another key (the link is old), or speaks
    /// another version, or the plain format; something else listens there; or something between changes what is sent.
    #[error(
        "no valid answer: another server's key or version there, no server with a key at all, or something in between"
    )]
    NoValidAnswer,
    /// With keys: the server does not admit this client's key, or does so no more. On the server: the session's client was taken off the list.
    #[error("the server does not admit this client's key")]
    NotAdmitted,
    /// With keys: one of the server's limits has kept this session from beginning for the time to live (with `fail_fast`: at the first carrier).
    #[error("the server has no room for this session: {0}")]
    Full(Limit),
    /// Nothing heard from the peer for the time to live, over however many carriers.
    #[error("nothing heard from the peer for {0:?}")]
    GaveUp(Duration),
    /// The peer was heard for 300 s and acknowledged nothing of what it was sent: it breaks the protocol, or something between loses one direction. A peer
    /// that does not read is not meant: it acknowledges all the same.
    #[error("the peer acknowledged nothing for {0:?}")]
    Stalled(Duration),
    /// Server: the client went away before anything came of the session, and did not come back within 10 s. Nothing is lost: a listener of ours remembers
    /// what there was of it, and lets the client go on.
    #[error("abandoned by the client before anything came of it")]
    Abandoned,
    /// Server: there was no memory left ([`Limits::memory`](crate::Limits)), and this session had stood still for longest. What it held is gone.
    #[error("given up because memory was used up")]
    OutOfMemory,
    /// The server does not know this session (any more): it was restarted, or it has waited longer than its time to live.
    #[error("the server does not know this session any more")]
    Unknown,
    /// No more streams fit into the session now ([`Config::max_streams`](crate::Config::max_streams)). The session itself goes on.
    #[error("too many open streams")]
    TooManyStreams,
    /// The peer broke smux; the bytes after that point mean nothing.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] smux::ProtocolError),
}

fn describe(reason: ByeReason) -> &'static str {
    match reason {
        ByeReason::Done => "done",
        ByeReason::Protocol => "it says we broke the protocol",
        ByeReason::Shutdown => "it shuts down",
        ByeReason::OutOfMemory => "it has no memory left, and the session stood still",
        ByeReason::NotAdmitted => "it does not admit this client's key any more",
        ByeReason::Other(_) => "for an unknown reason",
    }
}

impl From<SessionError> for io::Error {
    fn from(error: SessionError) -> Self {
        let kind = match &error {
            SessionError::Closed | SessionError::Aborted | SessionError::Abandoned | SessionError::ClosedByPeer(_) => {
                io::ErrorKind::ConnectionAborted
            }
            SessionError::NeverConnected(_) => io::ErrorKind::ConnectionRefused,
            SessionError::NotAdmitted => io::ErrorKind::PermissionDenied,
            SessionError::GaveUp(_) | SessionError::Stalled(_) | SessionError::ClosedUnacknowledged { .. } => {
                io::ErrorKind::TimedOut
            }
            SessionError::Unknown => io::ErrorKind::ConnectionReset,
            SessionError::OutOfMemory => io::ErrorKind::OutOfMemory,
            SessionError::TooManyStreams | SessionError::Full(_) => io::ErrorKind::QuotaExceeded,
            SessionError::Protocol(_) | SessionError::NotAPeer | SessionError::NoValidAnswer => {
                io::ErrorKind::InvalidData
            }
        };
        Self::new(kind, error)
    }
}

/// Why a carrier is out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierEnd {
    /// The peer, or somebody in between, closed it in order (FIN).
    #[error("closed by peer")]
    Closed,
    /// Reading or writing failed.
    #[error("{}", io::Error::from(*.0))]
    Failed(io::ErrorKind),
    /// Nothing came although something was owed.
    #[error("silent")]
    Silent,
    /// The peer sends on a newer one.
    #[error("replaced by a newer one")]
    Replaced,
    /// It delivered something that is not a packet.
    #[error("not the expected format")]
    BadPacket,
    /// With keys: something came that the peer has not sealed. Somebody has changed, repeated, left out or put in bytes.
    #[error("not authentic")]
    NotAuthentic,
    /// With keys: it has carried enough, or for long enough, with one key.
    #[error("used up")]
    UsedUp,
    /// Whoever answers there does not know the session.
    #[error("the server does not know the session")]
    Forgotten,
}
