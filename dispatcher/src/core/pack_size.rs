//! How much room entries take in a pack: rather too much than too little.

use shared::domain::journal::{JournalEntry, LanesSettled};
use shared::domain::replay::{ReplaySelection, ReplayStep};
use shared::ids::EventId;

/// A generous estimate of an entry without its answer.
const ENTRY_BYTES: usize = 128;
const KEPT_BYTES: usize = 48;
pub(super) const COUNTED_BYTES: usize = 32;

pub(super) fn entry_bytes(entry: &JournalEntry) -> usize {
    ENTRY_BYTES
        + match entry {
            JournalEntry::AttemptFailed { failure, .. }
            | JournalEntry::Exhausted { failure, .. }
            | JournalEntry::ProbeFailed { failure, .. } => failure.sealed_answer.len(),
            JournalEntry::PendingEnded { kept, .. } => kept.len().saturating_mul(KEPT_BYTES),
            JournalEntry::Settled {
                lanes: LanesSettled::Some(lanes),
                ..
            } => lanes.len().saturating_mul(COUNTED_BYTES),
            JournalEntry::CountedBack { skipped, .. } => {
                skipped.len().saturating_mul(COUNTED_BYTES)
            }
            JournalEntry::Settled {
                lanes: LanesSettled::All,
                ..
            }
            | JournalEntry::Delivered { .. }
            | JournalEntry::ConfigApplied { .. }
            | JournalEntry::Ended { .. }
            | JournalEntry::BreakerOpened { .. }
            | JournalEntry::BreakerClosed { .. }
            | JournalEntry::Deactivated { .. }
            | JournalEntry::Quarantined { .. }
            | JournalEntry::AccountsProjected { .. }
            | JournalEntry::Released => 0,
            JournalEntry::Replay { step, .. } => match step {
                ReplayStep::Begun {
                    selection: ReplaySelection::Events(ids),
                    ..
                } => ids.len().saturating_mul(size_of::<EventId>()),
                ReplayStep::Begun {
                    selection:
                        ReplaySelection::ExhaustedSince(_) | ReplaySelection::Published { .. },
                    ..
                }
                | ReplayStep::Counted { .. }
                | ReplayStep::Attempted(_)
                | ReplayStep::ProbeFailed { .. }
                | ReplayStep::Cancelled { .. }
                | ReplayStep::Ended { .. } => 0,
            },
        }
}
