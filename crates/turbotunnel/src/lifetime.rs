//! How long one carrier with keys is used. Keys are not changed on the way: another carrier takes the place of one that is old or worn, before that one breaks.
//!
//! In: when the carrier began, whether it is worn, the time. Out: what is [`Due`].
//!
//! ```text
//! client   old or worn          another is dialled beside it; again each minute while the old one is still in use
//! server   older by the grace   it is closed; until then the first word is the client's
//! ```
//!
//! Not part of the API: it is open for the simulator, which drives what the tokio half drives. Not here: how much a carrier may carry (`secure/record.rs`).

use std::time::{Duration, Instant};

/// A carrier may be used for so long; then its keys are forgotten.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// The client dials anew if the one in the place of an old carrier has not come after this.
pub const AGAIN: Duration = Duration::from_secs(60);
/// The server leaves the first word to the client for so long.
pub const GRACE: Duration = Duration::from_secs(600);

/// What is to be done about a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Client: dial another, if this is the one in use.
    Another,
    /// Server: close it, as one that is used up.
    Close,
}

/// The age of one carrier. Ask it while the carrier is neither closed nor being closed.
#[derive(Debug)]
pub struct Lifetime {
    client: bool,
    /// When something is due next.
    at: Instant,
    /// Another was asked for because it is worn.
    worn: bool,
}

impl Lifetime {
    /// Of a carrier that begins `now` and may be used for `lifetime`, at the client's end or the server's.
    #[must_use]
    pub fn new(now: Instant, lifetime: Duration, client: bool) -> Self {
        let at = now + lifetime + if client { Duration::ZERO } else { GRACE };
        Self { client, at, worn: false }
    }

    /// What is due at `now`. `is_worn`: the carrier has carried so much that another should take its place, however young it is.
    #[must_use]
    pub fn poll_due(&mut self, now: Instant, is_worn: bool) -> Option<Due> {
        if !self.client {
            return (now >= self.at).then_some(Due::Close);
        }
        let newly_worn = is_worn && !self.worn;
        if now < self.at && !newly_worn {
            return None;
        }
        self.worn |= newly_worn;
        self.at = now + AGAIN;
        Some(Due::Another)
    }

    /// When to ask again, if it is not worn before that.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.at
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_client_asks_for_another_at_the_hour_and_every_minute_after() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(start, LIFETIME, true);
        assert_eq!(lifetime.poll_due(start + LIFETIME - SECOND, false), None);
        assert_eq!(lifetime.poll_timeout(), start + LIFETIME);
        for minute in 0..3 {
            let at = start + LIFETIME + minute * AGAIN;
            assert_eq!(lifetime.poll_due(at, false), Some(Due::Another));
            assert_eq!(lifetime.poll_due(at, false), None, "once");
            assert_eq!(lifetime.poll_timeout(), at + AGAIN);
        }
    }

    #[test]
    fn a_worn_one_is_told_at_once_and_then_by_the_minute() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(start, LIFETIME, true);
        assert_eq!(lifetime.poll_due(start, false), None);
        assert_eq!(lifetime.poll_due(start + SECOND, true), Some(Due::Another));
        assert_eq!(lifetime.poll_due(start + 2 * SECOND, true), None, "it is being replaced");
        assert_eq!(lifetime.poll_due(start + SECOND + AGAIN, true), Some(Due::Another), "nothing has come of that");
    }

    #[test]
    fn the_server_closes_what_the_client_has_not_replaced() {
        let start = Instant::now();
        let mut lifetime = Lifetime::new(start, LIFETIME, false);
        assert_eq!(lifetime.poll_due(start + LIFETIME + GRACE - SECOND, true), None);
        assert_eq!(lifetime.poll_timeout(), start + LIFETIME + GRACE);
        assert_eq!(lifetime.poll_due(start + LIFETIME + GRACE, false), Some(Due::Close));
    }
}
