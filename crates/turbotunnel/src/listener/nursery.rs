//! Sessions that have just begun, until it is known whether anything comes of them.
//!
//! In: sessions as they begin. Out: which have to end because too many were begun and left. Not here: that those who are left end by themselves, after
//! 10 s ([`Tunnel`](crate::Tunnel)).

use std::collections::VecDeque;

use crate::shared::Shared;

/// How a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// Over, or something has come of it: nobody's concern here.
    Grown,
    /// Nothing but its first packet has come, but its carrier is up.
    Attached,
    /// The same, and its carrier is gone.
    Left,
}

impl Growth {
    pub(super) fn of(session: &Shared) -> Self {
        let state = session.lock();
        match (state.tunnel.is_embryonic(), state.tunnel.current().is_none() && state.newcomers.is_empty()) {
            (false, _) => Self::Grown,
            (true, false) => Self::Attached,
            (true, true) => Self::Left,
        }
    }
}

/// Sessions by their age. At most `limit` are here beside those whose carriers are up.
pub(super) struct Nursery<T> {
    sessions: VecDeque<T>,
    limit: usize,
}

impl<T> Nursery<T> {
    /// Looks at so many for each that comes, the limit reached or not. More than one, so that those who have grown up do not pile up.
    const LOOKS: usize = 8;

    pub(super) fn new(limit: usize) -> Self {
        Self { sessions: VecDeque::new(), limit }
    }

    /// One more. Returns those that have to end for it.
    pub(super) fn begin(&mut self, session: T, look: impl Fn(&T) -> Growth) -> Vec<T> {
        self.sessions.push_back(session);
        let mut ended = Vec::new();
        for _ in 0..Self::LOOKS {
            let too_many = self.sessions.len() > self.limit;
            let Some(oldest) = self.sessions.pop_front() else { break };
            match look(&oldest) {
                Growth::Grown => {}
                Growth::Attached => self.sessions.push_back(oldest),
                Growth::Left if too_many => ended.push(oldest),
                Growth::Left => {
                    self.sessions.push_front(oldest);
                    break;
                }
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions that are left at once, and one in ten of which something comes.
    #[test]
    fn beyond_the_limit_the_oldest_that_was_left_ends() {
        let mut nursery = Nursery::new(100);
        let look = |n: &u32| if n.is_multiple_of(10) { Growth::Grown } else { Growth::Left };
        let ended: Vec<u32> = (0..1_000).flat_map(|n| nursery.begin(n, look)).collect();
        assert_eq!(ended[..4], [1, 2, 3, 4], "the oldest first");
        assert!(ended.iter().all(|n| n % 10 != 0));
        assert!((90..=100).contains(&nursery.sessions.len()), "{}", nursery.sessions.len());
    }

    /// A listener without limits lives for years.
    #[test]
    fn who_is_grown_up_is_forgotten_without_a_limit_too() {
        let mut nursery = Nursery::new(usize::MAX);
        // One in four has a carrier and nothing else for ever.
        let look = |n: &u32| if *n < 400 && n.is_multiple_of(4) { Growth::Attached } else { Growth::Grown };
        (0..2_000).for_each(|n| assert!(nursery.begin(n, look).is_empty()));
        assert!(nursery.sessions.len() < 120, "{}", nursery.sessions.len());
    }

    #[test]
    fn a_session_whose_carrier_is_up_is_not_ended() {
        let mut nursery = Nursery::new(10);
        assert!((0..1_000).all(|n| nursery.begin(n, |_| Growth::Attached).is_empty()));
        // They lose their carriers.
        let mut ended = 0;
        for n in 1_000..3_000 {
            ended += nursery.begin(n, |n| if *n < 1_000 { Growth::Grown } else { Growth::Left }).len();
        }
        assert_eq!((nursery.sessions.len(), ended), (10, 1_990));
    }
}
