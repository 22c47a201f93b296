//! What the checker takes from JOURNAL's packs: the only file of it that knows the entries' shape.

use shared::domain::journal::{
    AttemptEntry, ExhaustReason, FailureWeight, JournalEntry, LanesSettled, Pack, SkipReason,
    UnsentEnd,
};
use shared::domain::webhook::Status;
use shared::ids::{EventId, EventTypeHash, Position, WebhookId};
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
    /// How many more events were classified for a webhook: accepted, or skipped at once for this
    /// reason.
    pub counted: Vec<(WebhookId, Option<SkipReason>, u64)>,
    /// More counts follow, and none of them holds before, nor does `classified`.
    pub counts_continue: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    ConfigApplied {
        webhook: WebhookId,
        registry_sequence: u64,
        from: u64,
        /// Events from `from` through here are counted by a [`Self::CountedBack`].
        back_through: Option<u64>,
        /// What an owner decided holds no more.
        lifts: bool,
    },
    CountedBack {
        webhook: WebhookId,
        accepted: u64,
        skipped: Vec<(SkipReason, u64)>,
    },
    Attempted(Attempt),
    /// An end without a further attempt.
    Ended {
        webhook: WebhookId,
        sequence: u64,
        end: UnsentEnd,
    },
    /// All that was pending through there ended, but for what is in `kept`.
    PendingEnded {
        webhook: WebhookId,
        through: u64,
        end: UnsentEnd,
        count: u64,
        kept: Vec<u64>,
    },
    BreakerOpened {
        webhook: WebhookId,
        at: Timestamp,
    },
    BreakerClosed {
        webhook: WebhookId,
        at: Timestamp,
    },
    /// The owner decided that the webhook has this status from `from` on.
    Decided {
        webhook: WebhookId,
        from: u64,
        status: Status,
    },
    Settled {
        webhook: WebhookId,
        resolved: u64,
        lanes: LanesSettled,
    },
    /// The owner gives the partition up and has nothing more to say.
    Released,
    /// Account events and replays, which move no delivery, are not what is judged here.
    NotJudged,
}

/// An attempt, or a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub webhook: WebhookId,
    pub sequence: u64,
    pub event: EventId,
    pub event_type: EventTypeHash,
    /// From 1; of a probe, how many attempts the delivery has.
    pub number: u32,
    pub started_at: Timestamp,
    pub latency_ms: u32,
    /// It is one more consecutive failure.
    pub counts: bool,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered {
        status: u16,
    },
    Failed {
        retry_at: Timestamp,
    },
    Exhausted {
        reason: ExhaustReason,
    },
    /// A probe failed, which is no attempt of the delivery.
    ProbeFailed,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Delivered,
    Unsent(UnsentEnd),
}

impl PackFacts {
    pub(super) fn of(pack: &Pack) -> Self {
        let counted = pack.counted.iter();
        Self {
            epoch: pack.epoch.0,
            number: pack.number,
            at: pack.at,
            classified: pack.classified.sequence.0,
            facts: pack.entries.iter().map(Fact::of).collect(),
            counted: counted
                .map(|counted| (counted.webhook, counted.skipped, counted.count))
                .collect(),
            counts_continue: pack.counts_continue,
        }
    }
}

impl Fact {
    fn of(entry: &JournalEntry) -> Self {
        match entry {
            JournalEntry::Delivered { attempt, status } => {
                let outcome = Outcome::Delivered { status: *status };
                attempted(attempt, FailureWeight::default(), outcome)
            }
            JournalEntry::AttemptFailed {
                attempt,
                retry_at: at,
                weight,
                ..
            } => attempted(attempt, *weight, Outcome::Failed { retry_at: *at }),
            JournalEntry::Exhausted {
                attempt,
                reason,
                weight,
                ..
            } => attempted(attempt, *weight, Outcome::Exhausted { reason: *reason }),
            JournalEntry::ProbeFailed {
                attempt, weight, ..
            } => attempted(attempt, *weight, Outcome::ProbeFailed),
            JournalEntry::Ended { attempt, end } => Self::Ended {
                webhook: attempt.webhook,
                sequence: attempt.position.sequence.0,
                end: *end,
            },
            JournalEntry::PendingEnded {
                webhook,
                through,
                end,
                count,
                kept,
            } => Self::PendingEnded {
                webhook: *webhook,
                through: through.0,
                end: *end,
                count: *count,
                kept: kept.iter().map(|kept| kept.sequence.0).collect(),
            },
            JournalEntry::Deactivated { webhook, from, .. } => {
                decided(*webhook, *from, Status::Deactivated)
            }
            JournalEntry::Quarantined { webhook, from, .. } => {
                decided(*webhook, *from, Status::Quarantined)
            }
            JournalEntry::ConfigApplied {
                webhook,
                registry_sequence,
                from,
                back_through,
                lifts,
            } => Self::ConfigApplied {
                webhook: *webhook,
                registry_sequence: registry_sequence.0,
                from: from.sequence.0,
                back_through: back_through.map(|through| through.0),
                lifts: *lifts,
            },
            JournalEntry::CountedBack {
                webhook,
                accepted,
                skipped,
            } => Self::CountedBack {
                webhook: *webhook,
                accepted: *accepted,
                skipped: skipped.clone(),
            },
            JournalEntry::BreakerOpened { webhook, at, .. } => Self::BreakerOpened {
                webhook: *webhook,
                at: *at,
            },
            JournalEntry::BreakerClosed { webhook, at } => Self::BreakerClosed {
                webhook: *webhook,
                at: *at,
            },
            JournalEntry::Settled {
                webhook,
                resolved,
                lanes,
            } => Self::Settled {
                webhook: *webhook,
                resolved: resolved.0,
                lanes: lanes.clone(),
            },
            JournalEntry::Released => Self::Released,
            JournalEntry::AccountsProjected { .. } | JournalEntry::Replay { .. } => Self::NotJudged,
        }
    }

    pub(super) fn webhook(&self) -> Option<WebhookId> {
        match self {
            Self::ConfigApplied { webhook, .. }
            | Self::CountedBack { webhook, .. }
            | Self::Ended { webhook, .. }
            | Self::PendingEnded { webhook, .. }
            | Self::BreakerOpened { webhook, .. }
            | Self::BreakerClosed { webhook, .. }
            | Self::Decided { webhook, .. }
            | Self::Settled { webhook, .. } => Some(*webhook),
            Self::Attempted(attempt) => Some(attempt.webhook),
            Self::Released | Self::NotJudged => None,
        }
    }

    /// The one delivery that it is about.
    pub(super) fn sequence(&self) -> Option<u64> {
        match self {
            Self::Attempted(attempt) => Some(attempt.sequence),
            Self::Ended { sequence, .. } => Some(*sequence),
            Self::ConfigApplied { .. }
            | Self::CountedBack { .. }
            | Self::PendingEnded { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed { .. }
            | Self::Decided { .. }
            | Self::Settled { .. }
            | Self::Released
            | Self::NotJudged => None,
        }
    }

    /// How the one delivery that it is about ends, if it does.
    pub(super) fn end(&self) -> Option<End> {
        match self {
            Self::Attempted(attempt) => match attempt.outcome {
                Outcome::Delivered { .. } => Some(End::Delivered),
                Outcome::Exhausted { reason } => Some(End::Unsent(UnsentEnd::Exhausted(reason))),
                Outcome::Failed { .. } | Outcome::ProbeFailed => None,
            },
            Self::Ended { end, .. } => Some(End::Unsent(*end)),
            Self::ConfigApplied { .. }
            | Self::CountedBack { .. }
            | Self::PendingEnded { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed { .. }
            | Self::Decided { .. }
            | Self::Settled { .. }
            | Self::Released
            | Self::NotJudged => None,
        }
    }
}

impl Attempt {
    pub(super) fn ended_at(&self) -> Timestamp {
        self.started_at.plus_millis(self.latency_ms.into())
    }
}

fn decided(webhook: WebhookId, from: Position, status: Status) -> Fact {
    Fact::Decided {
        webhook,
        from: from.sequence.0,
        status,
    }
}

fn attempted(attempt: &AttemptEntry, weight: FailureWeight, outcome: Outcome) -> Fact {
    Fact::Attempted(Attempt {
        webhook: attempt.webhook,
        sequence: attempt.position.sequence.0,
        event: attempt.event,
        event_type: attempt.event_type,
        number: attempt.number,
        started_at: attempt.started_at,
        latency_ms: attempt.latency_ms,
        counts: weight.counts,
        outcome,
    })
}
