//! What can be set, and what it defaults to.

use std::time::Duration;

use crate::wire::HEADER_LEN;

/// Largest packet that a kcp-go peer sends or takes whole with its default settings, in bytes.
pub(crate) const GO_MTU: usize = 1400;

/// What a window counts, in bytes of payload: kcp-go's full segment. One with more takes up as many places as it fills, begun ones counted.
pub const PLACE: usize = GO_MTU - HEADER_LEN;

/// Payload of a large segment in bytes, see [`Kcp::set_largest_packet`](crate::Kcp::set_largest_packet): eleven places. A small message
/// beside a transfer waits for the rest of one.
pub(crate) const LARGE: usize = LARGE_PLACES as usize * PLACE;
pub(crate) const LARGE_PLACES: u32 = 11;

/// Places that a segment with so many bytes of payload takes up in a window.
#[inline]
pub(crate) fn places(payload: usize) -> usize {
    if payload <= PLACE { 1 } else { payload.div_ceil(PLACE) }
}

/// Settings of one engine. Checked by [`Kcp::new`](crate::Kcp::new).
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest packet in bytes, 25 to 65,535. Default 1,400, which every kcp-go peer takes.
    ///
    /// Segments keep the size for 1,400 whatever is set here ([`Config::mss`]); a larger packet holds more of them.
    pub mtu: usize,
    /// Places in flight at most ([`PLACE`]: a segment, a large one eleven), 1 to 65,535. Default 1,024. Worst case `send_window` x 1,376 bytes are kept.
    pub send_window: u16,
    /// Places that we are willing to keep, unread, for the application, 1 to 65,535. Default 1,024.
    ///
    /// As many again may wait out of order: worst case `2 * recv_window * 1500` bytes. See [`Kcp::set_recv_room`](crate::Kcp::set_recv_room).
    pub recv_window: u16,
    /// Bytes on their way before anything is known of a new path, with [`Retransmission::TailProbe`]. Default 64 KiB: more than TCP
    /// sends at first (ten packets, RFC 6928), so that this is not what slows it down.
    pub initial_flight: usize,
    /// Least retransmission timeout. Default 100 ms, as kcp-go.
    pub min_rto: Duration,
    /// Where the growth of a timeout ends. Default 5 s. A round trip longer than that still has its timeout.
    pub max_rto: Duration,
    /// First number in both directions. Always 0 but in tests of the wrap.
    pub initial_sn: u32,
    /// Reading of our clock at the start, in milliseconds. Always 0 but in tests of the wrap.
    pub initial_ts_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mtu: GO_MTU,
            send_window: 1024,
            recv_window: 1024,
            initial_flight: 64 << 10,
            min_rto: Duration::from_millis(100),
            max_rto: Duration::from_secs(5),
            initial_sn: 0,
            initial_ts_ms: 0,
        }
    }
}

impl Config {
    /// Payload of a full segment in bytes: 1,376, less only for an `mtu` below 1,400. [`Kcp::set_largest_packet`](crate::Kcp::set_largest_packet) says
    /// when there are larger ones.
    #[must_use]
    pub fn mss(&self) -> usize {
        self.mtu.min(GO_MTU).saturating_sub(HEADER_LEN)
    }

    /// # Panics
    ///
    /// If a field is outside of what its doc says.
    pub(crate) fn check(&self) {
        assert!((HEADER_LEN + 1..=65_535).contains(&self.mtu), "mtu {} is not in 25..=65535", self.mtu);
        assert!(self.send_window > 0, "send_window is 0");
        assert!(self.recv_window > 0, "recv_window is 0");
        assert!(self.min_rto <= self.max_rto, "min_rto {:?} is above max_rto {:?}", self.min_rto, self.max_rto);
    }
}

/// When a segment is sent again while its carrier lives.
///
/// In both ways a segment also goes again, at once, when the peer acknowledges one that was *sent* later: carriers keep
/// order, so that proves a loss. Each transmission can be found lost once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Retransmission {
    /// For a peer of our own kind, on a carrier that loses nothing but by dying (TCP and what stands on it).
    ///
    /// No timeouts: they would feed a slow link twice. Only the first unacknowledged segment is sent again when `una` has
    /// not moved for `4 srtt + 1 s`, for receivers that had to drop something; each further wait is longer by the same
    /// amount, up to [`Config::max_rto`]. What is on its way is bounded by what the path takes, see `flight.rs`.
    TailProbe,
    /// For kcp-go, which drops packets when a queue of 32 is full.
    ///
    /// Timeouts grow linearly (`rto`, `2 rto`, `3 rto` ... up to [`Config::max_rto`]) until a
    /// transmission is known to have been in time.
    /// Congestion window: 32 segments at first, slow start, then one more per round trip; halved on loss, once per flight.
    #[default]
    Timeout,
}

/// How a new carrier begins, see [`Kcp::resume`](crate::Kcp::resume).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resume {
    /// All that is unacknowledged goes again at once.
    Now,
    /// First hear what the peer has: until then only ACK, WASK and WINS go out.
    ///
    /// Without it a path whose carriers all die before an acknowledgement comes home makes no progress at all: each would
    /// be filled with what the peer has had long ago.
    AfterUna,
    /// The same, but the first unacknowledged segment goes out before. For a peer that was never heard: it may know nothing
    /// of the conversation until that segment comes, and would not answer.
    AfterFirst,
}
