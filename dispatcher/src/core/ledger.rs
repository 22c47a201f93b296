//! The account of one webhook: accepted = delivered + pending + exhausted + skipped, always.

/// Counts of deliveries. Pending is what is left, so that the equation cannot be broken by
/// forgetting to move one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub accepted: u64,
    pub delivered: u64,
    pub exhausted: u64,
    pub skipped: u64,
}

impl Ledger {
    /// Accepted and not ended.
    pub fn pending(&self) -> u64 {
        let ended = self.delivered + self.exhausted + self.skipped;
        debug_assert!(ended <= self.accepted, "more ended than accepted: {self:?}");
        self.accepted.saturating_sub(ended)
    }
}
