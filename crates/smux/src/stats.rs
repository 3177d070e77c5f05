//! Counters of a session.

/// What a session has done so far. Counts only grow; every drop has its counter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams that we opened.
    pub streams_opened: u64,
    /// Streams that the peer opened and that were taken.
    pub streams_accepted: u64,
    /// Streams that the peer wanted beyond a limit; answered with FIN.
    pub streams_refused: u64,
    /// Streams that we opened and the peer did not take, as far as it says so.
    pub streams_refused_by_peer: u64,
    /// Streams that the peer has reset.
    pub streams_reset_by_peer: u64,
    /// SYN for a stream that is open already; ignored.
    pub syns_ignored: u64,
    /// Frames written, of any kind.
    pub frames_sent: u64,
    /// Payload bytes of data frames written.
    pub bytes_sent: u64,
    /// FINs written that end the data of a stream of ours: not the second ones, nor refusals.
    pub fins_sent: u64,
    /// Frames read, of any kind.
    pub frames_received: u64,
    /// Payload bytes of data frames that reached a stream.
    pub bytes_received: u64,
    /// Window updates written.
    pub updates_sent: u64,
    /// Window updates that reached a stream and made sense.
    pub updates_received: u64,
    /// Window updates that contradicted what was sent, or earlier ones; ignored.
    pub updates_ignored: u64,
    /// Keepalives written.
    pub keepalives_sent: u64,
    /// FIN, PSH and UPD for streams that are not in the table; dropped.
    pub frames_unknown_stream: u64,
    /// Payload bytes for streams that are not in the table; dropped.
    pub bytes_unknown_stream: u64,
    /// Payload bytes for streams that the application had let go of, unread or late; dropped.
    pub bytes_unread: u64,
    /// Payload bytes that came after the end of their stream had been read; dropped.
    pub bytes_after_end: u64,
    /// Written bytes that were dropped unsent because the peer closed the stream or we aborted it.
    pub bytes_unsent: u64,
    /// Data frames without data; skipped.
    pub empty_frames: u64,
    /// Times that a receive window was doubled.
    pub windows_grown: u64,
}
