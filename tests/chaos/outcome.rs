//! What a scenario came to: for a reader, and as JSON for programs.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;
use support::checker::{Figures, Report};

#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: String,
    pub(crate) seed: u64,
    pub(crate) dispatchers: usize,
    pub(crate) servers: usize,
    pub(crate) projects: usize,
    pub(crate) webhooks_each: usize,
    pub(crate) seconds: f64,
    pub(crate) faults: Vec<String>,
    /// Requests of the client that were refused or not answered.
    pub(crate) refused_requests: usize,
    pub(crate) checked: Report,
    pub(crate) times: Vec<Times>,
    /// Packs of former owners that JOURNAL refused, where that is what is done.
    pub(crate) packs_refused: Option<u64>,
    /// What was promised besides the invariants and not kept.
    pub(crate) missed: Vec<String>,
}

/// Times of one kind.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) what: &'static str,
    pub(crate) count: usize,
    pub(crate) median_ms: i64,
    pub(crate) max_ms: i64,
}

impl Times {
    pub(crate) fn of(what: &'static str, mut millis: Vec<i64>) -> Option<Self> {
        millis.sort_unstable();
        let middle = |place| millis.get(place).copied();
        Some(Self {
            what,
            count: millis.len(),
            median_ms: middle((millis.len().checked_sub(1)?) / 2)?
                .midpoint(middle(millis.len() / 2)?),
            max_ms: *millis.last()?,
        })
    }
}

impl Outcome {
    pub(crate) fn is_kept(&self) -> bool {
        self.checked.is_clean() && self.missed.is_empty()
    }
}

/// Writes the report of a scenario as JSON below the target folder, and says where.
pub(crate) fn write(scenario: &str, report: &impl Serialize) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("the target folder")?;
    let folder = target.join("chaos-reports");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{scenario}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(report)?)?;
    Ok(file)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, seconds) = (&self.scenario, self.seconds);
        let kept = if self.is_kept() { "kept" } else { "NOT KEPT" };
        writeln!(f, "{name}: {kept} ({seconds:.0} s)")?;
        writeln!(
            f,
            "  {} dispatchers, {} servers, {} projects with {} webhooks each, seed {}",
            self.dispatchers, self.servers, self.projects, self.webhooks_each, self.seed
        )?;
        writeln!(f, "  faults               {}", self.faults.join(", "))?;
        figures(f, &self.checked.figures, self.refused_requests)?;
        for times in &self.times {
            writeln!(
                f,
                "  {:<20} median {} ms, max {} ms, of {}",
                times.what, times.median_ms, times.max_ms, times.count
            )?;
        }
        if let Some(refused) = self.packs_refused {
            writeln!(f, "  {:<20} {refused}", "packs refused")?;
        }
        for (invariant, count) in &self.checked.counts {
            writeln!(f, "  VIOLATED {invariant:?} {count} times")?;
        }
        for violation in &self.checked.violations {
            writeln!(f, "    {:?}: {}", violation.invariant, violation.detail)?;
        }
        for missed in &self.missed {
            writeln!(f, "  MISSED {missed}")?;
        }
        Ok(())
    }
}

fn figures(f: &mut fmt::Formatter<'_>, figures: &Figures, refused: usize) -> fmt::Result {
    let rows = [
        ("events accepted", figures.events),
        ("requests refused", refused),
        ("deliveries owed", figures.accepted),
        ("delivered", figures.delivered),
        ("exhausted", figures.exhausted),
        ("skipped", figures.skipped),
        ("pending", figures.pending),
        ("lost", figures.lost),
        ("duplicates", figures.duplicates),
        ("  of these late", figures.late_duplicates),
        ("order violations", figures.order_violations),
        ("failed attempts", figures.failed_attempts),
        ("arrivals", figures.arrivals),
        ("epochs, packs", figures.epochs),
    ];
    for (name, value) in rows {
        write!(f, "  {name:<20} {value}")?;
        if name == "epochs, packs" {
            write!(f, ", {}", figures.packs)?;
        }
        writeln!(f)?;
    }
    writeln!(
        f,
        "  {:<20} {}",
        "largest ledger gap", figures.ledger_gap_max
    )
}
