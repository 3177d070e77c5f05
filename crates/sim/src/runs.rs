//! Many scripts, one after the other on every core. The first that fails is made smaller, printed, and played again for all to see.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use crate::fault::Counts;
use crate::script::{Outcome, Script};
use crate::shrink::shrink;

/// Runs that are spent on making a failure smaller.
const SHRINK_RUNS: usize = 3_000;

/// Runs after which a word is said.
const MILESTONE: usize = 1_000;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Failures of this thread are looked at by whoever runs it, not by the reader of the test's output.
pub(crate) fn is_quiet() -> bool {
    QUIET.get()
}

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Scripts that were played.
    pub runs: u64,
    /// What went wrong in all of them.
    pub counts: Counts,
    /// Virtual time of all sessions together.
    pub time: Duration,
    /// Bytes that were read.
    pub bytes: u64,
    /// Carriers that were lost in mid-session.
    pub cuts: u64,
    /// The longest run and its seed.
    pub slowest: (Duration, u64),
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.runs += 1;
        self.counts.add(&outcome.counts);
        self.time += outcome.took;
        self.bytes += outcome.bytes;
        self.cuts += outcome.cuts;
        self.slowest = self.slowest.max((outcome.took, seed));
    }
}

/// `SIM_SEED` alone if it is set, else `count` of them, or `SIM_TIMES` times as many, from 0 on, or from `SIM_FROM`: a long run can be had in parts.
///
/// # Panics
///
/// If one of them is not a number.
#[must_use]
pub fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let from = number("SIM_FROM").unwrap_or(0);
    let all = || (from..from + count * number("SIM_TIMES").unwrap_or(1)).collect();
    number("SIM_SEED").map_or_else(all, |seed| vec![seed])
}

/// Plays the script of each seed, on all cores. A single one is played in this thread, with all its noise.
///
/// # Panics
///
/// If one fails: with the code of a small script that fails, too, behind the trace of its run.
pub fn play_all(name: &str, seeds: &[u64], script: impl Fn(u64) -> Script + Sync) -> Totals {
    let mut totals = Totals::default();
    if let [seed] = seeds {
        totals.add(*seed, &script(*seed).run(name));
        return totals;
    }
    let (next, totals, failure) = (AtomicUsize::new(0), Mutex::new(totals), Mutex::new(None));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&seed) = seeds.get(index) else { break };
                    if index > 0 && index.is_multiple_of(MILESTONE) {
                        eprintln!("{name}: {index} of {}", seeds.len());
                    }
                    match quietly(|| script(seed).run(name)) {
                        Ok(outcome) => totals.lock().unwrap_or_else(PoisonError::into_inner).add(seed, &outcome),
                        Err(why) => {
                            next.store(seeds.len(), Ordering::Relaxed);
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((seed, why));
                        }
                    }
                }
            });
        }
    });
    if let Some((seed, why)) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        report(name, seed, &why, script(seed));
    }
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn report(name: &str, seed: u64, why: &str, script: Script) -> ! {
    eprintln!("\nseed {seed} fails: {why}\n");
    let small = shrink(script, SHRINK_RUNS, |script| quietly(|| script.run(name)).is_err());
    eprintln!("this fails, too, and is all that it takes (a test, once it is given a name):\n");
    eprintln!("#[test]\nfn name_me() {{\n{small}\n    script.run(\"name_me\");\n}}\n");
    small.run(name);
    unreachable!("it has failed a moment ago");
}

/// Runs what may panic and returns why it did.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !is_quiet() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    outcome.map_err(|why| {
        let text = why.downcast_ref::<String>().map(String::as_str);
        text.or(why.downcast_ref::<&str>().copied()).unwrap_or("for no reason given").to_owned()
    })
}
