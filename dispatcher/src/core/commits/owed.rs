//! Ends of what is pending that are owed: whoever knows what is under way pushes them.

use shared::domain::journal::UnsentEnd;
use shared::ids::{Sequence, WebhookId};

use super::Commits;
use super::expiry::Expiring;

/// What is pending at or below `through` is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    pub through: Sequence,
    pub end: UnsentEnd,
    /// Accepted above `through` meanwhile.
    pub(super) accepted_since: u64,
}

impl Commits {
    /// From here on the configuration lets nothing wait that is pending: whoever knows what is
    /// under way is to push the [`JournalEntry::PendingEnded`].
    pub fn owe_end(&mut self, webhook: WebhookId, end: UnsentEnd) {
        self.owed.entry(webhook).or_insert(Owed {
            through: self.classified.position.sequence,
            end,
            accepted_since: 0,
        });
    }

    /// What expires ends first, and then all the rest.
    pub fn owed(&self, webhook: WebhookId) -> Option<Owed> {
        let expired = self.expiring.get(&webhook).and_then(Expiring::owed);
        expired.or_else(|| self.owed.get(&webhook).copied())
    }

    /// Webhooks of which pending deliveries are to end.
    pub fn all_owed(&self) -> Vec<WebhookId> {
        let expired = self.expiring.iter();
        let expired = expired.filter(|(_, expiring)| expiring.owed().is_some());
        let expired = expired.map(|(webhook, _)| *webhook);
        let mut all: Vec<_> = self.owed.keys().copied().chain(expired).collect();
        // In an order of its own, and each once: the core is deterministic.
        all.sort_unstable();
        all.dedup();
        all
    }
}
