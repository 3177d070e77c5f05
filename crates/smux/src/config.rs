//! Settings of a session, with the limits that they keep.

use crate::wire::{MAX_PAYLOAD, Version};

/// The window that every smux v2 sender assumes before the first update (`initialPeerWindow` of xtaci/smux, 2019).
pub const ASSUMED_WINDOW: u32 = 262_144;

/// The largest window an update can announce: Go peers keep it in an `int32`.
pub const LARGEST_WINDOW: u32 = 0x7fff_ffff;

/// Settings of one session. [`crate::Mux::new`] checks them.
///
/// Worst case of memory: `max_buffered` and one packet for receiving, `send_buffer` x `max_streams` for sending, 256 bytes for each stream, and
/// 16 MiB kept for the next. Beyond 32 KiB memory is taken and given back in pieces of 256 KiB; a piece
/// stays as long as a byte in it is unread or unsent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Must be the peer's as well. Default: version 2.
    pub version: Version,
    /// Largest payload of a data frame that we send, 1 to 65,535 bytes; what we receive may be larger. Default 32,768.
    pub max_frame_size: usize,
    /// Receive window of a new stream in bytes, [`ASSUMED_WINDOW`] to 2^31 - 1. A peer cannot be told of less in time.
    /// Default 262,144.
    pub initial_window: u32,
    /// How far a stream's receive window may grow, in bytes; never beyond half of what may be buffered. Default 32 MiB.
    pub max_window: u32,
    /// Bytes of received, unread data, as allocated, beyond which [`crate::Mux::has_room`] is false while nothing has been read. Default 2 MiB.
    pub first_buffered: usize,
    /// The same, however much has been read: twice that is added to `first_buffered`. Default 64 MiB.
    pub max_buffered: usize,
    /// Bytes that a stream takes before the network does. Default 256 KiB. Where several have something waiting, each takes its part of 4 MiB, 64 KiB at least, if that is less.
    pub send_buffer: usize,
    /// Bytes that all streams together take before the network does, as allocated, while nothing has been sent. Default 512 KiB. Beyond it each
    /// stream may still have its part of that waiting, so that none is starved by those that came first: three times as much in the worst case.
    pub first_unsent: usize,
    /// The same, however much has been sent: twice that is added to `first_unsent`. Default 48 MiB.
    pub max_unsent: usize,
    /// Streams in the table, opened by either side. Default 4,096.
    pub max_streams: usize,
    /// Streams that the peer may open per second in the long run, at least 1. Default 1,000.
    pub stream_rate: u32,
    /// Streams that the peer may open at once, at least 1. Default 4,096.
    pub stream_burst: u32,
    /// Streams that wait for [`crate::Mux::accept`]. Default 1,024, as xtaci/smux.
    pub accept_backlog: usize,
    /// Id of the first stream that this side opens, for tests of what happens at the last one. Default: by side.
    pub first_stream_id: Option<u32>,
    /// Where the byte counters of every stream start, for tests of what happens at 2^32. Both ends alike. Default 0.
    pub initial_counter: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: Version::V2,
            max_frame_size: 32_768,
            initial_window: ASSUMED_WINDOW,
            max_window: 32 << 20,
            first_buffered: 2 << 20,
            max_buffered: 64 << 20,
            send_buffer: 256 << 10,
            first_unsent: 512 << 10,
            max_unsent: 48 << 20,
            max_streams: 4_096,
            stream_rate: 1_000,
            stream_burst: 4_096,
            accept_backlog: 1_024,
            first_stream_id: None,
            initial_counter: 0,
        }
    }
}

impl Config {
    /// Panics on settings that cannot work; only our own program sets them.
    pub(crate) fn check(&self) {
        assert!((1..=MAX_PAYLOAD).contains(&self.max_frame_size), "max_frame_size must be 1 to 65,535");
        assert!(
            (ASSUMED_WINDOW..=LARGEST_WINDOW).contains(&self.initial_window),
            "initial_window must be 262,144 to 2^31 - 1"
        );
        assert!(self.max_window <= LARGEST_WINDOW, "max_window must be at most 2^31 - 1");
        assert!(self.first_buffered.min(self.max_buffered) > 0, "nothing could be received");
        assert!(self.send_buffer.min(self.first_unsent).min(self.max_unsent) > 0, "nothing could be written");
        assert!(self.stream_rate > 0 && self.stream_burst > 0, "stream_rate and stream_burst must be at least 1");
    }

    /// The largest window that tuning may reach while so much may be buffered.
    pub(crate) fn window_cap(&self, may_be_buffered: usize) -> u32 {
        let half = u32::try_from(may_be_buffered / 2).unwrap_or(LARGEST_WINDOW);
        self.max_window.min(half).max(self.initial_window)
    }
}
