//! What the checker has found: figures, and promises that were not kept.

use std::collections::BTreeMap;

use serde::Serialize;

/// Violations of one invariant that are described; the rest is counted.
const DESCRIBED_MAX: usize = 10;

/// Names of `protocol.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    Stored,
    ClassifiedOnce,
    SingleEnd,
    Ledger,
    DeliveredIsTrue,
    NothingVanishes,
    LaneOrder,
    LaneExclusion,
    Duplicates,
    Fence,
    Monotone,
    Schedule,
    Quiet,
    Isolation,
}

#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    pub invariant: Invariant,
    pub detail: String,
}

/// Counts of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Different events that ingest answered with success.
    pub events: usize,
    /// Owed deliveries, by the checker's own classification.
    pub accepted: usize,
    pub delivered: usize,
    pub exhausted: usize,
    pub skipped: usize,
    pub pending: usize,
    /// Owed, and neither answered with success by the receiver nor ended otherwise.
    pub lost: usize,
    /// Largest difference between what a webhook is owed and what its ends and its pending
    /// deliveries add up to, by the logs and by what the API told.
    pub ledger_gap_max: u64,
    pub arrivals: usize,
    /// Arrivals of a delivery after it was answered with success.
    pub duplicates: usize,
    /// Of these, those that a process sent which had been paused and had lost its partition.
    pub late_duplicates: usize,
    /// Most duplicates that one loss of a partition led to.
    pub duplicates_of_one_loss_max: usize,
    pub order_violations: usize,
    pub failed_attempts: usize,
    pub epochs: usize,
    pub packs: usize,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub figures: Figures,
    /// How often each was found violated.
    pub counts: BTreeMap<Invariant, usize>,
    /// The first of each.
    pub violations: Vec<Violation>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) figures: Figures,
    counts: BTreeMap<Invariant, usize>,
    violations: Vec<Violation>,
}

impl Findings {
    pub(super) fn add(&mut self, invariant: Invariant, detail: String) {
        let count = self.counts.entry(invariant).or_default();
        *count += 1;
        if *count <= DESCRIBED_MAX {
            self.violations.push(Violation { invariant, detail });
        }
    }

    pub(super) fn count(&self, invariant: Invariant) -> usize {
        self.counts.get(&invariant).copied().unwrap_or_default()
    }

    pub(super) fn into_report(self) -> Report {
        Report {
            figures: self.figures,
            counts: self.counts,
            violations: self.violations,
        }
    }
}
