//! What the journal says of a partition, folded: the durable state, from which an owner starts
//! and which snapshots hold.
//!
//! One `apply` serves the owner, who folds its own packs once they are stored, and whoever takes
//! the partition over: so folding a log again cannot come to another state than its writer had.
//! It names no policy, clock or chance; what was decided by them stands in the entries.

use std::collections::HashMap;

use crate::domain::journal::{AttemptEntry, Checkpoint, Counted, EntryPlace, JournalEntry, Pack};
use crate::ids::{Epoch, Position, Sequence, WebhookId};
use crate::time::Timestamp;

pub mod health;
pub mod ledger;
pub mod replays;
#[cfg(test)]
mod tests;
pub mod totals;
pub mod webhook;

pub use health::{Breaker, Health};
pub use ledger::Ledger;
pub use replays::{ActiveReplay, Deactivation, Extent, Replay, ReplayLedger, Replays};
pub use totals::{Tally, Totals};
pub use webhook::{Applied, Failing, Rule, WebhookState};

/// A partition's state as far as its log tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Epoch and number of the last pack.
    pub last: Option<(Epoch, u64)>,
    /// Where the last pack lies in JOURNAL.
    pub journal: Sequence,
    pub classified: Option<Position>,
    pub checkpoint: Option<Checkpoint>,
    /// The latest journaled `now`.
    pub now: Timestamp,
    pub webhooks: HashMap<WebhookId, WebhookState>,
    pub totals: Totals,
    /// Account entries up to here are published.
    pub projected: Sequence,
    /// The epoch of the last pack gave the partition up in good order.
    pub released: bool,
    /// Counts of a series of packs that is not complete.
    pub counts_begun: Vec<Counted>,
}

/// The log lacks a pack between two that it has: outcomes are lost, and nobody may guess them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JOURNAL lacks pack {number} of epoch {}", .epoch.0)]
pub struct MissingPack {
    pub epoch: Epoch,
    pub number: u64,
}

impl PartitionState {
    /// Folds one pack that lies at `at` in JOURNAL. A pack whose epoch and number were seen, and
    /// one of an earlier epoch, changes nothing (rule 8). The log may begin anywhere, since it
    /// forgets by age; from there on an epoch's numbers have no gap.
    pub fn apply(&mut self, at: Sequence, pack: &Pack) -> Result<(), MissingPack> {
        if self.last >= Some((pack.epoch, pack.number)) {
            return Ok(());
        }
        let expected = match self.last {
            Some((epoch, number)) if epoch == pack.epoch => number + 1,
            Some(_) => 1,
            None => pack.number,
        };
        if pack.number != expected {
            return Err(MissingPack {
                epoch: pack.epoch,
                number: expected,
            });
        }
        self.last = Some((pack.epoch, pack.number));
        self.journal = at;
        if pack.number == 1 {
            // Their owner is gone, and whoever came next classifies anew.
            self.counts_begun.clear();
        }
        if pack.counts_continue {
            self.counts_begun.extend_from_slice(&pack.counted);
            return Ok(());
        }
        self.classified = self.classified.max(Some(pack.classified));
        self.checkpoint = pack.checkpoint.or(self.checkpoint);
        let before = self.now;
        self.now = before.max(pack.at);
        self.totals.pass(before, self.now);
        self.released = false;
        // Counts first: what ended in this pack was accepted by then. The webhook may have been
        // created in this pack too.
        let begun = std::mem::take(&mut self.counts_begun);
        for counted in begun.iter().chain(&pack.counted) {
            let webhook = self.webhooks.entry(counted.webhook).or_default();
            webhook.ledger.count(counted.skipped, counted.count);
            if counted.skipped.is_some() {
                let (at, tally) = ((self.now, self.now), Tally::skipped(counted.count));
                self.totals.add(counted.webhook, None, at, tally);
            }
        }
        for (index, entry) in pack.entries.iter().enumerate() {
            let place = EntryPlace {
                pack: at,
                index: u16::try_from(index).unwrap_or(u16::MAX),
            };
            self.apply_entry(place, entry);
        }
        Ok(())
    }

    fn apply_entry(&mut self, place: EntryPlace, entry: &JournalEntry) {
        self.released = matches!(entry, JournalEntry::Released);
        if let JournalEntry::AccountsProjected { registry_sequence } = entry {
            self.projected = self.projected.max(*registry_sequence);
        }
        let Some(id) = entry.webhook() else {
            return;
        };
        // Only its configuration brings a webhook in: what was under way when it was deleted does
        // not bring it back.
        if matches!(entry, JournalEntry::ConfigApplied { .. }) {
            self.webhooks.entry(id).or_default();
        }
        if let Some(webhook) = self.webhooks.get_mut(&id) {
            let before = webhook.ledger;
            webhook.apply(place, entry);
            let tally = Tally::of(entry, &before, &webhook.ledger);
            let attempt = entry.attempt();
            let at = attempt.map_or(self.now, AttemptEntry::ended_at);
            let event_type = attempt.map(|attempt| attempt.event_type);
            self.totals.add(id, event_type, (at, self.now), tally);
        }
        if entry.closes_ledger() {
            self.webhooks.remove(&id);
            self.totals.remove(id);
        }
    }
}
