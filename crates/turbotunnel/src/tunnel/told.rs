//! What a tunnel tells: events, counters, and why a call on a stream failed.

use std::time::{Duration, Instant};

use smux::{OpenError, StreamError, StreamId};

use crate::control::Limit;
use crate::engine::PeerKind;
use crate::error::{CarrierEnd, SessionError};
use crate::path::CarrierId;

/// What happened, for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream: [`Tunnel::accept`](crate::Tunnel::accept).
    Incoming,
    /// A read that came back empty would bring something now (data, the end, or an error).
    Readable(StreamId),
    /// A write that took nothing would take something now, or [`Tunnel::room`](crate::Tunnel::room) would say how much.
    Writable(StreamId),
    /// The peer has acknowledged all of this stream up to its FIN.
    Delivered(StreamId),
    /// The peer let go of this stream: it reads no more, and writes fail.
    ClosedByPeer {
        /// Which.
        id: StreamId,
        /// Written bytes were thrown away unsent: no [`Event::Delivered`] comes. What the peer got and did not read is not known.
        lost: bool,
    },
    /// The peer has not taken this stream: it has as many as it bears. Calls on it fail. Only peers of ours tell; at others it has ended.
    Refused(StreamId),
    /// The peer has given this stream up: calls on it fail once what came has been read.
    Reset(StreamId),
    /// This carrier is in use; on the client: and the server has answered on it.
    CarrierUp {
        /// Which.
        id: CarrierId,
        /// Since the carrier before it was lost, or was last heard of; `None` for the first.
        gap: Option<Duration>,
        /// Segments that have to be sent again on it.
        resent: usize,
    },
    /// This carrier is out of use. The session goes on.
    CarrierLost {
        /// Which.
        id: CarrierId,
        /// Why.
        why: CarrierEnd,
        /// How long it was in use.
        age: Duration,
        /// Segments sent but not acknowledged at that moment.
        unacknowledged: usize,
    },
    /// A dial failed. The session goes on.
    DialFailed {
        /// Which.
        id: CarrierId,
        /// Pause until the next one.
        next_in: Duration,
    },
    /// Client that keeps a spare ([`Config::spare`](crate::Config::spare)): this carrier is connected and greeted, and takes over when the one in use is lost. Told once for each.
    SpareReady {
        /// Which.
        id: CarrierId,
    },
    /// Client, with keys: one of the server's limits keeps the session waiting. Told once for each carrier, at most.
    Held {
        /// On which it was said.
        id: CarrierId,
        /// Which limit.
        limit: Limit,
    },
    /// The session is over.
    Ended(SessionError),
}

/// Counters of one session, from its start. All of them only grow, but for `spare`, `streams` and `srtt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Carriers that were used.
    pub carriers: u64,
    /// Carriers that were lost.
    pub cuts: u64,
    /// Server: connections closed because newer ones of this session came; there are four at most.
    pub carriers_dropped: u64,
    /// Client: a spare carrier is ready.
    pub spare: bool,
    /// Client: spares that took over.
    pub spares_used: u64,
    /// Client: spares that ended before they were used, and dials for one that failed.
    pub spares_lost: u64,
    /// Dials that failed, but for those.
    pub dial_failures: u64,
    /// Packets taken from carriers.
    pub packets_received: u64,
    /// Packets given to carriers.
    pub packets_sent: u64,
    /// KCP segments sent more than once.
    pub segments_resent: u64,
    /// Packets without effect: not for this session, broken, or from a carrier that does not count.
    pub packets_dropped: u64,
    /// With keys: carriers that ended because something came on them that the peer had not sealed. Nothing of it had any effect.
    pub carriers_forged: u64,
    /// Questions for a sign of life.
    pub probes: u64,
    /// Calls of [`Tunnel::handle_timeout`](crate::Tunnel::handle_timeout) with something due.
    pub timeouts: u64,
    /// Open streams.
    pub streams: usize,
    /// Smoothed round trip time.
    pub srtt: Option<Duration>,
    /// Who the peer is.
    pub peer: PeerKind,
}

/// Why a call on a stream failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFailure {
    /// The whole session is over.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Only this stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// No new stream can be opened before that: the peer would refuse it.
    #[error("too many streams opened in a short time")]
    NotBefore(Instant),
    /// No new stream can be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}
