//! What an attack is: a name, what it does, what it did to the Go example, and how much of it we put up with.

use std::io;

use crate::stage::Stage;

/// One attack. All of them are in [`crate::attacks::ALL`].
#[derive(Debug)]
pub(crate) struct Attack {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What is done, in a line.
    pub(crate) what: &'static str,
    /// What it did to the worked example's Go programs.
    pub(crate) go: &'static str,
    /// What we put up with. A figure that is not measured is a failure.
    pub(crate) ceilings: &'static [Ceiling],
    pub(crate) when: When,
    pub(crate) play: fn(&Stage) -> io::Result<Figures>,
}

/// When an attack is played.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum When {
    /// Always, in some seconds.
    Quick,
    /// Always, and against the Go programs too, which have to fail: they show that the attack works.
    Control,
    /// When asked for: it takes minutes.
    Long,
}

/// One figure, and how far it may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceiling {
    pub(crate) figure: &'static str,
    pub(crate) bound: Bound,
    pub(crate) unit: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

pub(crate) const fn at_most(figure: &'static str, limit: f64, unit: &'static str) -> Ceiling {
    Ceiling { figure, bound: Bound::AtMost(limit), unit }
}

pub(crate) const fn at_least(figure: &'static str, limit: f64, unit: &'static str) -> Ceiling {
    Ceiling { figure, bound: Bound::AtLeast(limit), unit }
}

/// Every byte of the honest one came back as it was.
pub(crate) const INTACT: Ceiling = at_least("honest bytes back", 100.0, "%");

/// How long an honest newcomer waits for his first echo.
pub(crate) const ADMITTED: Ceiling = at_most("honest newcomer in after", 1.0, "s");

/// What was measured, by name. Those without a ceiling are told, too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(pub(crate) Vec<(String, f64)>);

impl Figures {
    /// Adds one.
    pub(crate) fn tell(&mut self, name: &str, value: f64) {
        self.0.push((name.to_owned(), value));
    }

    /// Adds the one that `ceiling` speaks of.
    pub(crate) fn measured(&mut self, ceiling: Ceiling, value: f64) {
        self.tell(ceiling.figure, value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }
}

impl Ceiling {
    /// Whether `figures` keep it. What was not measured, or is no number, does not.
    pub(crate) fn is_kept(self, figures: &Figures) -> bool {
        let Some(value) = figures.get(self.figure) else { return false };
        match self.bound {
            Bound::AtMost(limit) => value <= limit,
            Bound::AtLeast(limit) => value >= limit,
        }
    }

    /// `at most 40 MiB`
    pub(crate) fn told(self) -> String {
        match self.bound {
            Bound::AtMost(limit) => format!("at most {limit} {}", self.unit),
            Bound::AtLeast(limit) => format!("at least {limit} {}", self.unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let ceiling = at_most("growth", 2.0, "MiB");
        let with = |value| Figures(vec![("growth".to_owned(), value)]);
        assert!(!ceiling.is_kept(&Figures::default()));
        assert!(!ceiling.is_kept(&with(f64::NAN)));
        assert!(!ceiling.is_kept(&with(2.1)));
        assert!(ceiling.is_kept(&with(2.0)));
        assert!(!INTACT.is_kept(&Figures(vec![(INTACT.figure.to_owned(), 99.9)])));
    }
}
