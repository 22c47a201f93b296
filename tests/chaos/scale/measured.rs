//! What a measurement came to: for a reader, and as JSON for programs.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    scenario: &'static str,
    scale: f64,
    pub(super) seconds: f64,
    /// Of the machine, over the minute before: what else had to be done meanwhile.
    load_before: f64,
    figures: Vec<Figure>,
    /// Targets that were missed.
    missed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
}

impl Measured {
    pub(super) fn new(scenario: &'static str, scale: f64) -> Result<Self> {
        let load = std::fs::read_to_string("/proc/loadavg").context("the machine's load")?;
        let last_minute = load.split(' ').next().unwrap_or_default();
        Ok(Self {
            scenario,
            scale,
            seconds: 0.0,
            load_before: last_minute.parse()?,
            figures: Vec::new(),
            missed: Vec::new(),
        })
    }

    /// Notes a figure, which is also told at once: a run takes minutes.
    #[expect(clippy::print_stdout, reason = "figures are what the program is for")]
    pub(super) fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        let figure = Figure {
            what: what.into(),
            value,
            unit,
        };
        println!("{figure}");
        self.figures.push(figure);
    }

    /// A target: `missed` names it if it does not hold.
    pub(super) fn target(&mut self, holds: bool, missed: impl Into<String>) {
        if !holds {
            self.missed.push(missed.into());
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.missed.is_empty()
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, unit } = self;
        let decimals = if value.fract() == 0.0 || *value >= 1_000.0 {
            0
        } else {
            2
        };
        write!(f, "  {what:<52} {value:.decimals$} {unit}")
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, seconds, load) = (self.scenario, self.seconds, self.load_before);
        let kept = if self.is_kept() { "kept" } else { "NOT KEPT" };
        writeln!(f, "{name}: {kept} ({seconds:.0} s, load before {load})")?;
        for missed in &self.missed {
            writeln!(f, "  MISSED {missed}")?;
        }
        Ok(())
    }
}
