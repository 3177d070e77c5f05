//! Retransmission timeout (RTO) of one conversation.
//!
//! In: round trips, measured on our own clock, of segments sent once. Out: [`Rto::get`], within `min_rto..=60 s`.
//!
//! ```text
//! first    srtt = rtt                    rttvar = rtt / 2
//! later    rttvar += (|rtt - srtt| - rttvar) / 4      srtt += (rtt - srtt) / 8
//! always   rto = srtt + max(10 ms, 4 * rttvar)
//! ```
//!
//! RFC 6298, section 2. The 10 ms are the flush interval of a kcp-go peer with the settings of the Turbo Tunnel example: its
//! acknowledgements wait that long. Not here: growth after a loss, which is [`crate::send`]'s.

use std::time::Duration;

/// Before the first sample: RFC 6298 says 1 s. kcp-go's 200 ms send the whole first flight twice at such a round trip.
const INITIAL: Duration = Duration::from_secs(1);
const GRANULARITY: Duration = Duration::from_millis(10);
/// A longer sample is taken for this; as kcp-go and RFC 6298.
const MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Rto {
    min: Duration,
    srtt: Option<Duration>,
    rttvar: Duration,
}

impl Rto {
    pub(crate) fn new(min: Duration) -> Self {
        // A timeout of zero would be due for ever.
        Self { min: min.clamp(Duration::from_millis(1), MAX), srtt: None, rttvar: Duration::ZERO }
    }

    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    pub(crate) fn get(&self) -> Duration {
        let rto = self.srtt.map_or(INITIAL, |srtt| srtt + (4 * self.rttvar).max(GRANULARITY));
        rto.clamp(self.min, MAX)
    }

    pub(crate) fn sample(&mut self, rtt: Duration) {
        let rtt = rtt.min(MAX);
        match self.srtt {
            None => {
                self.srtt = Some(rtt);
                self.rttvar = rtt / 2;
            }
            Some(srtt) => {
                self.rttvar = (3 * self.rttvar + rtt.abs_diff(srtt)) / 4;
                self.srtt = Some((7 * srtt + rtt) / 8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_sample_counts_whole_and_later_ones_an_eighth() {
        let mut rto = Rto::new(ms(100));
        assert_eq!((rto.srtt(), rto.get()), (None, ms(1000)));
        rto.sample(ms(80));
        assert_eq!((rto.srtt(), rto.get()), (Some(ms(80)), ms(80 + 160)));
        rto.sample(ms(160));
        assert_eq!((rto.srtt(), rto.get()), (Some(ms(90)), ms(90 + 200)));
    }

    #[test]
    fn limits_hold_at_both_ends() {
        let mut rto = Rto::new(ms(100));
        rto.sample(Duration::ZERO);
        assert_eq!(rto.get(), ms(100));
        let mut rto = Rto::new(ms(100));
        rto.sample(Duration::MAX);
        rto.sample(Duration::MAX);
        assert_eq!(rto.get(), MAX);
    }
}
