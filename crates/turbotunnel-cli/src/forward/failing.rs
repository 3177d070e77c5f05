//! Targets that cannot be reached, told to the operator without a line for each stream: the first at once, then how many there were, once a minute for each target.
//!
//! Who connects makes these lines, so there is a limit to the targets that are told apart: 64 at once, and the rest together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::log::Log;
use crate::text;

/// A target that goes on failing is told once in this time.
const REMIND: Duration = Duration::from_secs(60);
/// Targets that are told apart.
const TARGETS: usize = 64;
/// The rest, and those that are nobody's business but the client's.
const OTHERS: &str = "other targets";

pub(crate) struct Failing {
    log: Log,
    targets: Mutex<HashMap<String, Told>>,
}

struct Told {
    at: Instant,
    /// Streams since then.
    since: u64,
}

impl Failing {
    pub(crate) fn new(log: Log) -> Self {
        Self { log, targets: Mutex::default() }
    }

    /// One stream more did not get there. `None`: the target is not to be named.
    pub(crate) fn tell(&self, target: Option<&str>, why: &str) {
        let Some((target, streams)) = self.count(Instant::now(), target) else { return };
        let fields = [("target", target.into()), ("streams", streams.into()), ("error", why.into())];
        let count = text::count(streams, "stream");
        self.log.event("target_failed", &fields, format_args!("{count} to {target} failed: {why}"));
    }

    /// What is to be told now, if anything is.
    fn count<'a>(&self, now: Instant, target: Option<&'a str>) -> Option<(&'a str, u64)> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut target = target.unwrap_or(OTHERS);
        if !targets.contains_key(target) && targets.len() >= TARGETS {
            // Who fails all the time is younger than that: it has been told meanwhile.
            targets.retain(|name, told| name == OTHERS || now.saturating_duration_since(told.at) < REMIND);
            if targets.len() >= TARGETS {
                target = OTHERS;
            }
        }
        match targets.get_mut(target) {
            Some(told) if now.saturating_duration_since(told.at) < REMIND => {
                told.since += 1;
                None
            }
            Some(told) => {
                let streams = told.since + 1;
                *told = Told { at: now, since: 0 };
                Some((target, streams))
            }
            None => {
                targets.insert(target.to_owned(), Told { at: now, since: 0 });
                Some((target, 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database is down, and a hundred programs ask for it each second.
    #[test]
    fn a_target_that_fails_is_told_at_once_and_then_once_a_minute() {
        let failing = Failing::new(Log::silent());
        let start = Instant::now();
        let told: Vec<_> = (0..12_001_u64)
            .filter_map(|n| failing.count(start + Duration::from_millis(10) * n as u32, Some("db.lan:5432")))
            .collect();
        assert_eq!(told, [("db.lan:5432", 1), ("db.lan:5432", 6000), ("db.lan:5432", 6000)]);
        assert_eq!(failing.count(start, Some("web.lan:80")), Some(("web.lan:80", 1)), "another is another line");
    }

    /// A client asks for one name after the other.
    #[test]
    fn a_thousand_targets_that_fail_are_not_a_thousand_lines() {
        let failing = Failing::new(Log::silent());
        let now = Instant::now();
        let names: Vec<_> = (0..1000).map(|n| format!("{n}.example:80")).collect();
        let told = names.iter().filter(|name| failing.count(now, Some(name.as_str())).is_some()).count();
        assert_eq!(told, TARGETS + 1);
        assert!(failing.targets.lock().unwrap().len() <= TARGETS + 1);
        let later = now + REMIND;
        assert_eq!(
            failing.count(later, Some("new.example:80")),
            Some(("new.example:80", 1)),
            "then there is room again"
        );
        assert_eq!(failing.count(later, None), Some((OTHERS, 1000 - TARGETS as u64)));
    }
}
