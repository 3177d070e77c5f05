//! Makes a script that fails smaller, as long as it fails.
//!
//! Whatever can be left out is left out, in halves first and one by one at last (Zeller and Hildebrandt's delta debugging, 2002); what is
//! left is made simpler: fewer bytes, whole milliseconds, a plain path, settings as they are by default. Any failure counts, also another one
//! than at first: it is a failure all the same, and most often of the same cause.

use std::time::Duration;

use crate::fault::How;
use crate::pipe::Link;
use crate::script::{Script, Settings};
use crate::traffic::Traffic;

/// The smallest script found in at most `runs` runs that still `fails`; `script` itself fails.
pub fn shrink(script: Script, runs: usize, mut fails: impl FnMut(&Script) -> bool) -> Script {
    let mut search = Search { best: script, left: runs, fails: &mut fails };
    loop {
        let before = search.best.clone();
        search.leave_out(|script| &mut script.traffic);
        search.leave_out(|script| &mut script.deeds);
        search.leave_out(|script| &mut script.wear);
        search.leave_out(|script| &mut script.faults);
        search.leave_out(|script| &mut script.dials);
        search.leave_out(|script| &mut script.links);
        search.simplify();
        if search.best == before || search.left == 0 {
            return search.best;
        }
    }
}

struct Search<'a> {
    best: Script,
    left: usize,
    fails: &'a mut dyn FnMut(&Script) -> bool,
}

impl Search<'_> {
    /// Takes `script` if it fails, too.
    fn try_it(&mut self, script: Script) -> bool {
        // Without the restart it is another story, with another end.
        let same_story = script.restarts() == self.best.restarts();
        if self.left == 0 || script == self.best || script.traffic.is_empty() || !same_story {
            return false;
        }
        self.left -= 1;
        let fails = (self.fails)(&script);
        if fails {
            self.best = script;
        }
        fails
    }

    fn leave_out<T>(&mut self, list: impl Fn(&mut Script) -> &mut Vec<T>) {
        let mut piece = list(&mut self.best).len();
        while piece > 0 {
            let mut start = 0;
            while start < list(&mut self.best).len() {
                let mut script = self.best.clone();
                let items = list(&mut script);
                let end = (start + piece).min(items.len());
                items.drain(start..end);
                if !self.try_it(script) {
                    start += piece;
                }
            }
            piece /= 2;
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Script)) {
        let mut script = self.best.clone();
        change(&mut script);
        self.try_it(script);
    }

    fn simplify(&mut self) {
        self.change(|script| {
            // What is plain has no means to notice a changed bit.
            script.faults.retain(|(_, fault)| fault.how != How::Flip);
            script.wear.clear();
            script.sealed = None;
        });
        self.change(|script| script.settings = Settings::default());
        let defaults = Settings::default();
        self.change(|script| script.settings.counters = defaults.counters);
        self.change(|script| script.settings.window = defaults.window);
        self.change(|script| script.settings.send_buffer = defaults.send_buffer);
        self.change(|script| script.settings.first_unsent = defaults.first_unsent);
        self.change(|script| script.settings.max_buffered = defaults.max_buffered);
        self.change(|script| script.settings.spare = defaults.spare);
        self.change(|script| script.settings.time_to_live = defaults.time_to_live);
        self.change(|script| script.link = Link::new(Duration::from_millis(10)));
        self.change(|script| script.link = Link { rate: script.link.rate, ..Link::new(script.link.delay) });
        self.change(|script| script.link.rate = None);
        self.change(|script| script.deeds.iter_mut().for_each(|(at, _)| *at = whole(*at)));
        for i in 0..self.best.traffic.len() {
            self.simplify_traffic(i);
        }
    }

    fn simplify_traffic(&mut self, i: usize) {
        let mut change = |change: &dyn Fn(&Traffic) -> Traffic| {
            let mut script = self.best.clone();
            script.traffic[i] = change(&script.traffic[i]);
            self.try_it(script)
        };
        change(&|traffic| traffic.clone().unmannered());
        change(&|traffic| traffic.clone().starts_at(Duration::ZERO));
        change(&|traffic| traffic.clone().unpaced());
        change(&|traffic| traffic.clone().read_promptly());
        while change(&|traffic| traffic.clone().scaled(1, 2)) {}
        while change(&|traffic| traffic.clone().scaled(9, 10)) {}
    }
}

fn whole(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64)
}
