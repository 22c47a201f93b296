//! What JOURNAL says of a partition, folded.

use std::collections::HashMap;

use shared::domain::journal::{
    AttemptEntry, Checkpoint, EntryPlace, JournalEntry, Links, Pack, UnsentEnd,
};
use shared::ids::{Epoch, Position, Sequence, WebhookId};
use shared::time::Timestamp;

use super::delivery::{Failing, Past};

/// A partition's state as far as its log tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionFold {
    /// Of the last pack.
    last: Option<(Epoch, u64)>,
    pub classified: Option<Position>,
    pub checkpoint: Option<Checkpoint>,
    /// The latest journaled `now`.
    pub now: Timestamp,
    pub webhooks: HashMap<WebhookId, WebhookFold>,
    /// Account entries up to here are published.
    pub projected: Sequence,
}

/// The log lacks a pack between two that it has: outcomes are lost, and nobody may guess them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JOURNAL lacks pack {number} of epoch {}", .epoch.0)]
pub struct MissingPack {
    pub epoch: Epoch,
    pub number: u64,
}

/// A webhook's part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookFold {
    /// Registry sequence and from where it holds, in journal order.
    pub configs: Vec<(Sequence, Position)>,
    pub past: Past,
    /// Where the webhook's next entry links back to.
    pub links: Links,
}

impl PartitionFold {
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
        self.classified = self.classified.max(Some(pack.classified));
        self.checkpoint = pack.checkpoint.or(self.checkpoint);
        self.now = self.now.max(pack.at);
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
        match entry {
            JournalEntry::AccountsProjected { registry_sequence } => {
                self.projected = self.projected.max(*registry_sequence);
            }
            JournalEntry::ConfigApplied {
                webhook,
                registry_sequence,
                from,
            } => {
                let configs = &mut self.webhook(*webhook).configs;
                // A new owner says again what holds, so that the log does not forget it.
                if configs
                    .last()
                    .is_none_or(|(last, _)| last < registry_sequence)
                {
                    configs.push((*registry_sequence, *from));
                }
            }
            JournalEntry::Delivered { attempt, .. } => {
                let fold = self.attempted(place, attempt);
                if fold.end(attempt.position.sequence) {
                    fold.past.ledger.delivered += 1;
                }
            }
            JournalEntry::Exhausted { attempt, .. } => {
                let fold = self.attempted(place, attempt);
                fold.links.failure = Some(place);
                if fold.end(attempt.position.sequence) {
                    fold.past.ledger.exhausted += 1;
                }
            }
            JournalEntry::AttemptFailed {
                attempt, retry_at, ..
            } => {
                let fold = self.attempted(place, attempt);
                fold.links.failure = Some(place);
                let failing = Failing {
                    event: attempt.event,
                    lane: attempt.lane,
                    attempts: attempt.number,
                    retry_at: *retry_at,
                };
                fold.past.failing.insert(attempt.position.sequence, failing);
            }
            JournalEntry::Ended { attempt, end } => {
                let fold = self.attempted(place, attempt);
                if fold.end(attempt.position.sequence) {
                    match end {
                        UnsentEnd::Skipped(_) => fold.past.ledger.skipped += 1,
                        UnsentEnd::Exhausted(_) => fold.past.ledger.exhausted += 1,
                    }
                }
            }
        }
    }

    fn webhook(&mut self, id: WebhookId) -> &mut WebhookFold {
        self.webhooks.entry(id).or_default()
    }

    fn attempted(&mut self, place: EntryPlace, attempt: &AttemptEntry) -> &mut WebhookFold {
        let fold = self.webhook(attempt.webhook);
        fold.links.entry = Some(place);
        fold
    }
}

impl WebhookFold {
    /// Records an end; `false` when the log already had one.
    fn end(&mut self, sequence: Sequence) -> bool {
        self.past.failing.remove(&sequence);
        let first = self.past.ended.insert(sequence);
        self.past.ledger.accepted += u64::from(first);
        first
    }
}
