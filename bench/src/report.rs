//! Figures, and how they stand in `RESULTS.md`.

use serde::Serialize;
use turbotunnel_cli::bench::median;

/// What was measured, in as many columns as there is something to compare.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// For a reader.
    pub(crate) what: String,
    /// How the values are told.
    pub(crate) unit: Unit,
    /// Of plain TCP; empty if it cannot do it.
    pub(crate) plain: Vec<f64>,
    /// Of the Go program.
    pub(crate) go: Vec<f64>,
    /// Ours.
    pub(crate) ours: Vec<f64>,
    /// What it is held to.
    pub(crate) wanted: Option<Wanted>,
    /// Cores that the path's own process used.
    pub(crate) link: Option<f64>,
}

/// How a value is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) enum Unit {
    /// Bytes a second.
    Rate,
    /// Seconds.
    Time,
    /// CPU seconds for a GiB.
    CpuPerGib,
    /// KiB.
    Memory,
    /// Cores.
    Cores,
    /// A part of a whole.
    Share,
    /// Of something that is counted.
    Count,
}

/// What is wanted of the ratio to plain TCP, or of our own value.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum Wanted {
    /// Ours to plain's.
    RatioAtLeast(f64),
    /// Ours to plain's.
    RatioAtMost(f64),
    /// Ours.
    AtLeast(f64),
    /// Ours.
    AtMost(f64),
}

impl Row {
    /// Nothing measured yet.
    pub(crate) fn new(what: impl Into<String>, unit: Unit) -> Self {
        let (plain, go, ours) = (Vec::new(), Vec::new(), Vec::new());
        Self { what: what.into(), unit, plain, go, ours, wanted: None, link: None }
    }

    /// What it is held to.
    #[must_use]
    pub(crate) fn wanted(mut self, wanted: Wanted) -> Self {
        self.wanted = Some(wanted);
        self
    }

    /// Ours to plain's, of the medians.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(median(&self.ours)? / median(&self.plain).filter(|plain| *plain > 0.0)?)
    }

    /// Whether it is as wanted.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        Some(match self.wanted? {
            Wanted::RatioAtLeast(least) => self.ratio()? >= least,
            Wanted::RatioAtMost(most) => self.ratio()? <= most,
            Wanted::AtLeast(least) => median(&self.ours)? >= least,
            Wanted::AtMost(most) => median(&self.ours)? <= most,
        })
    }

    /// A line of a table.
    pub(crate) fn line(&self) -> String {
        let ratio = self.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let wanted = self.wanted.map_or_else(String::new, |wanted| match wanted {
            Wanted::RatioAtLeast(least) => format!("ratio ≥ {least}"),
            Wanted::RatioAtMost(most) => format!("ratio ≤ {most}"),
            Wanted::AtLeast(least) => format!("≥ {}", self.unit.show(least)),
            Wanted::AtMost(most) => format!("≤ {}", self.unit.show(most)),
        });
        let reached = self.is_reached().map_or("", |reached| if reached { "yes" } else { "**no**" });
        let link = self.link.map_or_else(String::new, |cores| format!("{cores:.2}"));
        let (plain, go, ours) = (self.column(&self.plain), self.column(&self.go), self.column(&self.ours));
        format!("| {} | {plain} | {go} | {ours} | {ratio} | {wanted} | {reached} | {link} |", self.what)
    }

    fn column(&self, values: &[f64]) -> String {
        let Some(middle) = median(values) else { return "-".to_owned() };
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
        let shown = self.unit.show(middle);
        if values.len() < 2 || middle == 0.0 {
            return shown;
        }
        format!("{shown} ±{:.0} %", (most - least) / middle * 50.0)
    }
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Rate if value >= 1e9 => format!("{:.2} GB/s", value / 1e9),
            Self::Rate => format!("{:.1} MB/s", value / 1e6),
            Self::Time if value < 1e-3 => format!("{:.0} µs", value * 1e6),
            Self::Time if value < 1.0 => format!("{:.1} ms", value * 1e3),
            Self::Time => format!("{value:.2} s"),
            Self::CpuPerGib => format!("{value:.2} s/GiB"),
            Self::Memory => format!("{value:.1} KiB"),
            Self::Cores => format!("{value:.3} cores"),
            Self::Share => format!("{value:.2}"),
            Self::Count => format!("{value:.0}"),
        }
    }
}
