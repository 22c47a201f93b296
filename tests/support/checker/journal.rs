//! What the checker takes from JOURNAL's packs: the only file of it that knows the entries' shape.

use shared::domain::journal::{
    AttemptEntry, ExhaustReason, JournalEntry, Pack, SkipReason, UnsentEnd,
};
use shared::ids::{EventId, WebhookId};
use shared::time::Timestamp;

/// A pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFacts {
    pub epoch: u64,
    pub number: u64,
    pub at: Timestamp,
    /// Sequence of EVENTS.
    pub classified: u64,
    pub facts: Vec<Fact>,
    /// How many more deliveries the pack says that a webhook is owed, those that are skipped at
    /// once included.
    pub counted: Vec<(WebhookId, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    ConfigApplied {
        webhook: WebhookId,
        registry_sequence: u64,
        from: u64,
    },
    Attempted(Attempt),
    /// An end without a further attempt.
    Ended {
        webhook: WebhookId,
        sequence: u64,
        end: UnsentEnd,
    },
    /// The owner gives the partition up and has nothing more to say.
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub webhook: WebhookId,
    pub sequence: u64,
    pub event: EventId,
    /// From 1.
    pub number: u32,
    pub started_at: Timestamp,
    pub latency_ms: u32,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered { status: u16 },
    Failed { retry_at: Timestamp },
    Exhausted { reason: ExhaustReason },
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Delivered,
    Exhausted,
    Skipped,
}

impl PackFacts {
    pub(super) fn of(pack: &Pack) -> Self {
        Self {
            epoch: pack.epoch.0,
            number: pack.number,
            at: pack.at,
            classified: pack.classified.sequence.0,
            facts: pack.entries.iter().filter_map(Fact::of).collect(),
            counted: Vec::new(),
        }
    }
}

impl Fact {
    fn of(entry: &JournalEntry) -> Option<Self> {
        Some(match entry {
            JournalEntry::ConfigApplied {
                webhook,
                registry_sequence,
                from,
                ..
            } => Self::ConfigApplied {
                webhook: *webhook,
                registry_sequence: registry_sequence.0,
                from: from.sequence.0,
            },
            JournalEntry::Delivered { attempt, status } => {
                attempted(attempt, Outcome::Delivered { status: *status })
            }
            JournalEntry::AttemptFailed {
                attempt, retry_at, ..
            } => attempted(
                attempt,
                Outcome::Failed {
                    retry_at: *retry_at,
                },
            ),
            JournalEntry::Exhausted {
                attempt, reason, ..
            } => attempted(attempt, Outcome::Exhausted { reason: *reason }),
            JournalEntry::Ended { attempt, end } => Self::Ended {
                webhook: attempt.webhook,
                sequence: attempt.position.sequence.0,
                end: *end,
            },
            // Account events are not what is judged here.
            JournalEntry::AccountsProjected { .. }
            // Nor, yet, are health and what a whole backlog comes to.
            | JournalEntry::CountedBack { .. }
            | JournalEntry::PendingEnded { .. }
            | JournalEntry::ProbeFailed { .. }
            | JournalEntry::BreakerOpened { .. }
            | JournalEntry::BreakerClosed { .. }
            | JournalEntry::Deactivated { .. }
            | JournalEntry::Quarantined { .. }
            | JournalEntry::Settled { .. } => return None,
            JournalEntry::Released => Self::Released,
        })
    }

    /// The delivery that the fact ends, and how.
    pub(super) fn end(&self) -> Option<(WebhookId, u64, End)> {
        match self {
            Self::Attempted(attempt) => {
                let end = match attempt.outcome {
                    Outcome::Delivered { .. } => End::Delivered,
                    Outcome::Exhausted { .. } => End::Exhausted,
                    Outcome::Failed { .. } => return None,
                };
                Some((attempt.webhook, attempt.sequence, end))
            }
            Self::Ended {
                webhook,
                sequence,
                end,
            } => {
                let end = match end {
                    UnsentEnd::Skipped(
                        SkipReason::Disabled
                        | SkipReason::Deactivated
                        | SkipReason::Unverified
                        | SkipReason::Deleted
                        | SkipReason::Erased
                        | SkipReason::Undecodable,
                    ) => End::Skipped,
                    UnsentEnd::Exhausted(
                        ExhaustReason::Schedule
                        | ExhaustReason::Expired
                        | ExhaustReason::Deactivated,
                    ) => End::Exhausted,
                };
                Some((*webhook, *sequence, end))
            }
            Self::ConfigApplied { .. } | Self::Released => None,
        }
    }
}

fn attempted(attempt: &AttemptEntry, outcome: Outcome) -> Fact {
    Fact::Attempted(Attempt {
        webhook: attempt.webhook,
        sequence: attempt.position.sequence.0,
        event: attempt.event,
        number: attempt.number,
        started_at: attempt.started_at,
        latency_ms: attempt.latency_ms,
        outcome,
    })
}
