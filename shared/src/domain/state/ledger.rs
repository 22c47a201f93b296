//! The account of one webhook: accepted = delivered + pending + exhausted + skipped, always.

use crate::domain::journal::{ExhaustReason, SkipReason, UnsentEnd};

/// Counts of deliveries since the webhook's creation. Pending is what is left, so that the
/// equation cannot be broken by forgetting to move one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub accepted: u64,
    pub delivered: u64,
    /// By reason, in the order of [`ExhaustReason::ALL`].
    pub exhausted: [u64; ExhaustReason::ALL.len()],
    /// By reason, in the order of [`SkipReason::ALL`].
    pub skipped: [u64; SkipReason::ALL.len()],
}

impl Ledger {
    /// Accepted and not ended.
    pub fn pending(&self) -> u64 {
        self.accepted.saturating_sub(self.ended())
    }

    pub fn ended(&self) -> u64 {
        self.delivered
            .saturating_add(self.exhausted_in_all())
            .saturating_add(self.skipped_in_all())
    }

    pub fn exhausted_in_all(&self) -> u64 {
        sum(&self.exhausted)
    }

    pub fn skipped_in_all(&self) -> u64 {
        sum(&self.skipped)
    }

    /// `count` events were classified: accepted, and skipped at once where a reason is given.
    pub(super) fn count(&mut self, skipped: Option<SkipReason>, count: u64) {
        self.accepted = self.accepted.saturating_add(count);
        if let Some(reason) = skipped {
            self.end(UnsentEnd::Skipped(reason), count);
        }
    }

    /// `count` pending deliveries ended without success.
    pub(super) fn end(&mut self, end: UnsentEnd, count: u64) {
        let place = match end {
            UnsentEnd::Skipped(reason) => SkipReason::ALL
                .iter()
                .position(|known| *known == reason)
                .and_then(|index| self.skipped.get_mut(index)),
            UnsentEnd::Exhausted(reason) => ExhaustReason::ALL
                .iter()
                .position(|known| *known == reason)
                .and_then(|index| self.exhausted.get_mut(index)),
        };
        if let Some(counted) = place {
            *counted = counted.saturating_add(count);
        }
    }
}

/// Saturating like every other count here: what comes out of a log cannot end a process.
fn sum(counts: &[u64]) -> u64 {
    counts
        .iter()
        .fold(0, |sum, count| sum.saturating_add(*count))
}
