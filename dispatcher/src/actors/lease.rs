//! The replica's lease as its partitions see it (`protocol.md`, rule 5).

use std::sync::Arc;

use shared::domain::membership::Roster;
use shared::time::Clock;
use tokio::sync::watch;

/// Asked before each attempt.
#[derive(Clone)]
pub(crate) struct LeaseView {
    roster: watch::Receiver<Roster>,
    clock: Arc<dyn Clock>,
}

impl LeaseView {
    pub(crate) fn new(roster: watch::Receiver<Roster>, clock: Arc<dyn Clock>) -> Self {
        Self { roster, clock }
    }

    /// The lease's term, while it is live.
    #[cfg(not(feature = "test-no-lease"))]
    pub(crate) fn live_term(&self) -> Option<u64> {
        let lease = self.roster.borrow().lease();
        lease.is_live(self.clock.uptime()).then_some(lease.term)
    }

    /// For tests that show what the log refuses without a lease: live for ever.
    #[cfg(feature = "test-no-lease")]
    #[expect(clippy::unnecessary_wraps, reason = "as the real one")]
    pub(crate) fn live_term(&self) -> Option<u64> {
        let _unused = (&self.roster, &self.clock);
        Some(1)
    }
}
