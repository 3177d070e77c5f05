//! Counters of one engine.

/// What an engine has done and refused since its start. All counters only grow.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Packets given out by `poll_transmit`.
    pub packets_sent: u64,
    /// Packets taken in, malformed ones not among them.
    pub packets_received: u64,
    /// Packets that did not parse, or were of another conversation.
    pub packets_malformed: u64,

    /// Data segments sent for the first time.
    pub segments_sent: u64,
    /// Their payload in bytes.
    pub bytes_sent: u64,
    /// Sent again because a timeout ran out.
    pub resent_timeout: u64,
    /// Sent again because a later one was acknowledged.
    pub resent_overtaken: u64,
    /// Sent again as a tail probe.
    pub resent_probe: u64,
    /// Sent again on a new carrier.
    pub resent_resume: u64,
    /// Payload of everything sent again, in bytes.
    pub bytes_resent: u64,
    /// ACK segments sent.
    pub acks_sent: u64,
    /// Window questions sent.
    pub wask_sent: u64,
    /// Window answers sent.
    pub wins_sent: u64,

    /// Data segments received for the first time.
    pub segments_received: u64,
    /// Their payload in bytes.
    pub bytes_received: u64,
    /// Data segments received again. They are acknowledged again.
    pub duplicates: u64,
    /// ACK segments received.
    pub acks_received: u64,
    /// Window questions received.
    pub wask_received: u64,
    /// Window answers received.
    pub wins_received: u64,
    /// Round trips measured on segments.
    pub rtt_samples: u64,
    /// Round trips not measured because the echoed `ts` was not the one sent.
    pub rtt_implausible: u64,

    /// Segment buffers allocated because there was none to use again. Stands still while a transfer runs evenly.
    pub buffers_allocated: u64,

    /// Dropped: PUSH without payload.
    pub dropped_empty_push: u64,
    /// Dropped: PUSH at or beyond our window.
    pub dropped_beyond_window: u64,
    /// Dropped: PUSH that would have exceeded the receive budget in bytes (segments larger than any we know of).
    pub dropped_over_budget: u64,
    /// Dropped: segment with a `una` that we have not sent up to.
    pub dropped_wrong_una: u64,
    /// Dropped: ACK for a number that we have not sent.
    pub dropped_wrong_ack: u64,
}

impl Stats {
    /// Data segments sent again, whatever the cause.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.resent_timeout + self.resent_overtaken + self.resent_probe + self.resent_resume
    }

    /// Segments refused, whatever the cause.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_empty_push
            + self.dropped_beyond_window
            + self.dropped_over_budget
            + self.dropped_wrong_una
            + self.dropped_wrong_ack
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_count_each_cause_once() {
        let (resent_timeout, resent_overtaken, resent_probe, resent_resume) = (1, 20, 300, 4_000);
        let resent = Stats { resent_timeout, resent_overtaken, resent_probe, resent_resume, ..Stats::default() };
        assert_eq!((resent.resent(), resent.dropped()), (4_321, 0));
        let dropped = Stats {
            dropped_empty_push: 1,
            dropped_beyond_window: 20,
            dropped_over_budget: 300,
            dropped_wrong_una: 4_000,
            dropped_wrong_ack: 50_000,
            ..Stats::default()
        };
        assert_eq!((dropped.dropped(), dropped.resent()), (54_321, 0));
    }
}
