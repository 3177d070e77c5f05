//! When and how connections are cut: the settings, and what they come to for the n-th connection.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::random::SplitMix64;

/// How a connection is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum How {
    /// Both sides are closed in order: each end reads to an end of file.
    #[default]
    Fin,
    /// Both sides are reset (`SO_LINGER` 0): each end gets "connection reset".
    Rst,
    /// Nothing passes any more, but both connections stay open and nobody is told. They are kept until both ends have hung up.
    Stall,
    /// One direction only is ended with FIN; what is still sent in that direction vanishes, the other one goes on.
    ///
    /// It is the direction whose position was reached ([`Plan::cut_after_up`], [`Plan::cut_after_down`]); without one it is down,
    /// up, down ... from cut to cut.
    Half,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::Stall => "stall",
            Self::Half => "half",
        })
    }
}

/// What the proxy does to the connections that go through it. The default does nothing to them.
///
/// Several limits may be set: the one that is reached first cuts. A connection is cut once.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Cuts a connection so long after it was accepted.
    pub after: Option<Duration>,
    /// Cuts a connection when exactly so many bytes have passed, both directions together.
    pub bytes: Option<u64>,
    /// Cuts a connection when exactly so many bytes have passed from the client to the server. 0: as soon as it is up.
    pub cut_after_up: Option<u64>,
    /// Cuts a connection when exactly so many bytes have passed from the server to the client. 0: as soon as it is up.
    pub cut_after_down: Option<u64>,
    /// The first connection only is cut, the later ones live.
    pub only_first: bool,
    /// How it is cut.
    pub how: How,
    /// How the cuts after the first one are made, in turn with `how`: `how: Fin, then: vec![Rst, Stall]` means fin, rst, stall, fin,
    /// rst ... Default: empty, all cuts are alike.
    pub then: Vec<How>,
    /// After a cut, new connections are refused for so long (the port does not listen). Connections that are up are not touched.
    pub outage: Duration,
    /// Share by which `after` and `bytes` vary, 0 to 1: with 0.25 they are drawn evenly between 75 % and 125 % for each connection.
    pub jitter: f64,
    /// Where the random numbers start. The same seed gives the same limits to the same connections, counted in the order in which they
    /// were accepted.
    pub seed: u64,
    /// Every byte, and the end of file, arrives so much later, in each direction. Default 0. Up to 16 MiB per direction are under way.
    pub delay: Duration,
    /// Bytes per second that pass in each direction of each connection, at most. Default: no limit.
    pub rate: Option<u64>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            after: None,
            bytes: None,
            cut_after_up: None,
            cut_after_down: None,
            only_first: false,
            how: How::Fin,
            then: Vec::new(),
            outage: Duration::ZERO,
            jitter: 0.0,
            seed: 0,
            delay: Duration::ZERO,
            rate: None,
        }
    }
}

/// The limits of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Age at which it is cut.
    pub after: Option<Duration>,
    /// Bytes that pass, both directions together.
    pub bytes: Option<u64>,
    /// Bytes that pass from the client to the server.
    pub up: Option<u64>,
    /// Bytes that pass from the server to the client.
    pub down: Option<u64>,
}

impl Limits {
    /// No limits: the connection lives as long as its ends want.
    pub const NONE: Self = Self { after: None, bytes: None, up: None, down: None };
}

impl Plan {
    /// Limits of the `connection`-th connection, counted from 1.
    pub fn limits(&self, connection: u64) -> Limits {
        if self.only_first && connection > 1 {
            return Limits::NONE;
        }
        // Each connection has a stream of numbers of its own, so that what one of them uses does not depend on the others.
        let mut random = SplitMix64::new(self.seed ^ connection.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let mut factor = || 1.0 + self.jitter * (2.0 * random.unit() - 1.0);
        Limits {
            after: self.after.map(|after| after.mul_f64(factor())),
            // Rounding to the nearest byte. Without jitter the exact number is kept, whatever its size.
            bytes: self
                .bytes
                .map(|n| if self.jitter == 0.0 { n } else { (n as f64 * factor()).round().max(1.0) as u64 }),
            up: self.cut_after_up,
            down: self.cut_after_down,
        }
    }

    /// How the `cut`-th cut is made, counted from 1.
    pub fn how(&self, cut: u64) -> How {
        let turn = cut.saturating_sub(1) % (self.then.len() as u64 + 1);
        match turn.checked_sub(1) {
            None => self.how,
            Some(i) => self.then[i as usize],
        }
    }

    /// Whether any connection is ever cut by this plan.
    pub fn cuts(&self) -> bool {
        self.after.is_some() || self.bytes.is_some() || self.cut_after_up.is_some() || self.cut_after_down.is_some()
    }

    pub(super) fn check(&self) -> io::Result<()> {
        let wrong = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if !(0.0..=1.0).contains(&self.jitter) {
            return wrong("jitter is a share between 0 and 1");
        }
        if self.rate == Some(0) {
            return wrong("a rate of 0 bytes a second lets nothing pass");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64) -> Vec<Limits> {
        let plan =
            Plan { after: Some(Duration::from_secs(10)), bytes: Some(40_000), jitter: 0.5, seed, ..Plan::default() };
        (1..=200).map(|n| plan.limits(n)).collect()
    }

    #[test]
    fn the_same_seed_replays_the_same_cuts() {
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn jitter_stays_within_its_share_and_uses_it() {
        let bytes: Vec<u64> = draws(1).iter().filter_map(|l| l.bytes).collect();
        assert!(bytes.iter().all(|n| (20_000..=60_000).contains(n)), "{bytes:?}");
        assert!(bytes.iter().any(|&n| n < 25_000) && bytes.iter().any(|&n| n > 55_000), "{bytes:?}");
        let ages: Vec<Duration> = draws(1).iter().filter_map(|l| l.after).collect();
        assert!(ages.iter().all(|d| (5.0..=15.0).contains(&d.as_secs_f64())), "{ages:?}");
    }

    #[test]
    fn without_jitter_the_number_is_exact() {
        let plan = Plan { bytes: Some(u64::MAX - 1), ..Plan::default() };
        assert_eq!(plan.limits(3).bytes, Some(u64::MAX - 1));
    }

    #[test]
    fn kinds_of_cut_take_turns() {
        let plan = Plan { how: How::Fin, then: vec![How::Rst, How::Stall], ..Plan::default() };
        let kinds: Vec<How> = (1..=5).map(|n| plan.how(n)).collect();
        assert_eq!(kinds, [How::Fin, How::Rst, How::Stall, How::Fin, How::Rst]);
    }

    #[test]
    fn only_the_first_connection_has_limits_if_asked() {
        let plan = Plan { cut_after_up: Some(8), only_first: true, ..Plan::default() };
        assert_eq!(plan.limits(1).up, Some(8));
        assert_eq!(plan.limits(2), Limits::NONE);
    }
}
