//! Facts in JOURNAL: what the owner of a partition applied, and what came of each attempt.
//!
//! Entries travel in packs. A pack names its epoch and number, so that a fold can drop what it
//! has seen; the server checks it against the partition's epoch entry, so that nobody but the
//! owner can append one (`protocol.md`, rules 8 and 11).

use serde::{Deserialize, Serialize};

use super::delivery::FailureKind;
use super::replay::ReplayStep;
use super::webhook::Status;
use crate::ids::{
    Epoch, EventId, EventTypeHash, LaneHash, Position, ReplayId, ReplicaId, Sequence, WebhookId,
};
use crate::time::Timestamp;

/// Who owns a partition from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: Epoch,
    pub owner: ReplicaId,
    pub at: Timestamp,
    /// Generation of EVENTS positions from here on.
    pub generation: u32,
}

/// The message that carries entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    pub epoch: Epoch,
    /// From 1 within the epoch, without gaps.
    pub number: u64,
    /// The owner's monotone `now`.
    pub at: Timestamp,
    /// Every event at or below is classified for every webhook.
    pub classified: Position,
    /// The partition's last event that its owner saw, which EVENTS must still hold: a stream that
    /// went back would give other events the positions of old ones (rule 6).
    pub checkpoint: Option<Checkpoint>,
    /// What classifying up to `classified` added to each webhook's ledger since the pack before.
    pub counted: Vec<Counted>,
    /// There were too many counts for one pack: those that are missing follow, and none of them
    /// holds before, nor does `classified`. Such a pack has no entries.
    pub counts_continue: bool,
    pub entries: Vec<JournalEntry>,
}

/// Events that were classified for a webhook as accepted, or as skipped at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub webhook: WebhookId,
    /// Why they are skipped, if they are.
    pub skipped: Option<SkipReason>,
    pub count: u64,
}

/// An event and where it lay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub position: Position,
    pub event: EventId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalEntry {
    /// The registry entry holds for events from `from` on.
    ConfigApplied {
        webhook: WebhookId,
        registry_sequence: Sequence,
        from: Position,
        /// Events from `from` through here were classified before the webhook was known; they are
        /// counted by a [`Self::CountedBack`] of their own. Creation alone reaches back.
        back_through: Option<Sequence>,
        /// Whether it lifts what an owner decided, and starts the webhook's health anew.
        lifts: bool,
    },
    /// What the creation of a webhook reached back to is counted.
    CountedBack {
        webhook: WebhookId,
        accepted: u64,
        skipped: Vec<(SkipReason, u64)>,
    },
    /// The endpoint took the event: the delivery's end.
    Delivered { attempt: AttemptEntry, status: u16 },
    /// It did not; the next attempt is due at the time that was chosen then, jitter included.
    AttemptFailed {
        attempt: AttemptEntry,
        failure: Failure,
        retry_at: Timestamp,
        weight: FailureWeight,
    },
    /// It did not, and that was the last attempt: the delivery's end.
    Exhausted {
        attempt: AttemptEntry,
        failure: Failure,
        reason: ExhaustReason,
        weight: FailureWeight,
    },
    /// What was pending ended without a further attempt: its end. `number` is how many there
    /// were.
    Ended {
        attempt: AttemptEntry,
        end: UnsentEnd,
    },
    /// All that is pending at or below `through` ended together, except what is under way.
    PendingEnded {
        webhook: WebhookId,
        through: Sequence,
        end: UnsentEnd,
        /// How many ended.
        count: u64,
        kept: Vec<Kept>,
    },
    /// The webhook was probed while its breaker was open: no attempt of the delivery (rule 18).
    /// `number` is how many attempts it has.
    ProbeFailed {
        attempt: AttemptEntry,
        failure: Failure,
        next_probe_at: Timestamp,
        weight: FailureWeight,
    },
    /// The endpoint is taken to be down; it is probed from `next_probe_at` on.
    BreakerOpened {
        webhook: WebhookId,
        at: Timestamp,
        next_probe_at: Timestamp,
    },
    /// A probe was answered with success.
    BreakerClosed { webhook: WebhookId, at: Timestamp },
    /// The owner decided that the webhook is sent to no more, from `from` on (rule 10).
    Deactivated {
        webhook: WebhookId,
        reason: DeactivateReason,
        at: Timestamp,
        from: Position,
    },
    /// Its state machine failed: it is kept as it is until it is enabled again (rule 10).
    Quarantined {
        webhook: WebhookId,
        at: Timestamp,
        from: Position,
    },
    /// All that is accepted at or below `resolved` has ended, except what is known to fail and
    /// what lies behind it in its lane.
    Settled {
        webhook: WebhookId,
        resolved: Sequence,
        lanes: LanesSettled,
    },
    /// Account entries up to here are published as events (rule 27).
    AccountsProjected { registry_sequence: Sequence },
    /// The owner's last entry: whoever takes the partition next need not wait (rule 6).
    Released,
    /// A chain of its own went on (rule 24): no delivery of the main ledger moves by it.
    Replay {
        webhook: WebhookId,
        replay: ReplayId,
        step: ReplayStep,
    },
}

/// What a failed attempt counts for, decided when it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureWeight {
    /// It is one more consecutive failure: it began after the last one that counts had ended.
    pub counts: bool,
    /// It is one of the failures spread over the time after which the webhook is deactivated.
    pub is_spread: bool,
    /// The endpoint asked to be left alone until then (`Retry-After`).
    pub pause_until: Option<Timestamp>,
}

/// A delivery under way while the others ended: it ends by its own outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub sequence: Sequence,
    pub event: EventId,
    pub event_type: EventTypeHash,
    pub lane: LaneHash,
    /// Failed attempts so far.
    pub attempts: u32,
}

/// What became of lanes that had fallen behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanesSettled {
    /// By lane, from where it may still have something pending; `None` when nothing at or below
    /// `resolved` is.
    Some(Vec<(LaneHash, Option<Sequence>)>),
    /// Nothing at or below `resolved` is pending in any lane.
    All,
}

/// Why an owner deactivated a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeactivateReason {
    /// The endpoint answered 410.
    Gone,
    /// Too many consecutive failures.
    ConsecutiveFailures,
    /// Nothing but failure for too long.
    FailingTooLong,
}

/// What an owner decides about a webhook by itself (rule 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerDecision {
    Deactivated(DeactivateReason),
    Quarantined,
}

impl OwnerDecision {
    pub const fn status(self) -> Status {
        match self {
            Self::Deactivated(_) => Status::Deactivated,
            Self::Quarantined => Status::Quarantined,
        }
    }

    /// One word for programs: what the registry and the API give as the status' reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Deactivated(DeactivateReason::Gone) => "gone",
            Self::Deactivated(DeactivateReason::ConsecutiveFailures) => "consecutive_failures",
            Self::Deactivated(DeactivateReason::FailingTooLong) => "failing_too_long",
            Self::Quarantined => "fault",
        }
    }
}

/// What every attempt's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptEntry {
    pub webhook: WebhookId,
    /// The event's, and so the delivery's key (rule 23).
    pub position: Position,
    pub event: EventId,
    pub event_type: EventTypeHash,
    pub lane: LaneHash,
    /// From 1.
    pub number: u32,
    pub started_at: Timestamp,
    /// To the response head or the error.
    pub latency_ms: u32,
    pub previous: Links,
}

impl AttemptEntry {
    /// When the response head or the error was there.
    pub fn ended_at(&self) -> Timestamp {
        self.started_at.plus_millis(i64::from(self.latency_ms))
    }
}

/// Where a reader of the attempt log, newest first, goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The webhook's previous attempt entry.
    pub entry: Option<EntryPlace>,
    /// Its previous failed one.
    pub failure: Option<EntryPlace>,
}

/// Place of an entry in JOURNAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPlace {
    /// Of the pack; 0 means the pack that the link stands in.
    pub pack: Sequence,
    /// Index among the pack's entries.
    pub index: u16,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// The answer's status, when there was an answer.
    pub status: Option<u16>,
    /// Up to 1 KiB of the answer, sealed with the project's data key; empty when there is none.
    pub sealed_answer: Vec<u8>,
}

/// How a delivery ends without a further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsentEnd {
    Skipped(SkipReason),
    Exhausted(ExhaustReason),
}

/// Why a delivery ended undelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExhaustReason {
    /// The retry schedule is used up.
    Schedule,
    /// The stream dropped the event by age before the endpoint took it (rule 20).
    Expired,
    /// It was pending when its webhook was deactivated.
    Deactivated,
}

/// Why an accepted event is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    Disabled,
    Deactivated,
    Unverified,
    Deleted,
    /// The stream no longer holds the event, though it holds later and earlier ones (rule 20).
    Erased,
    /// The event's bytes could not be read (rule 26).
    Undecodable,
}

impl ExhaustReason {
    pub const ALL: [Self; 3] = [Self::Schedule, Self::Expired, Self::Deactivated];
}

impl SkipReason {
    pub const ALL: [Self; 6] = [
        Self::Disabled,
        Self::Deactivated,
        Self::Unverified,
        Self::Deleted,
        Self::Erased,
        Self::Undecodable,
    ];
}

impl JournalEntry {
    /// The webhook that the entry is about, if it is about one.
    pub fn webhook(&self) -> Option<WebhookId> {
        match self {
            Self::ConfigApplied { webhook, .. }
            | Self::CountedBack { webhook, .. }
            | Self::PendingEnded { webhook, .. }
            | Self::BreakerOpened { webhook, .. }
            | Self::BreakerClosed { webhook, .. }
            | Self::Deactivated { webhook, .. }
            | Self::Quarantined { webhook, .. }
            | Self::Settled { webhook, .. }
            | Self::Replay { webhook, .. } => Some(*webhook),
            Self::Ended { attempt, .. }
            | Self::Delivered { attempt, .. }
            | Self::AttemptFailed { attempt, .. }
            | Self::Exhausted { attempt, .. }
            | Self::ProbeFailed { attempt, .. } => Some(attempt.webhook),
            Self::AccountsProjected { .. } | Self::Released => None,
        }
    }

    /// What the owner decided by it, if it is a decision.
    pub fn decision(&self) -> Option<OwnerDecision> {
        match self {
            Self::Deactivated { reason, .. } => Some(OwnerDecision::Deactivated(*reason)),
            Self::Quarantined { .. } => Some(OwnerDecision::Quarantined),
            Self::ConfigApplied { .. }
            | Self::CountedBack { .. }
            | Self::Delivered { .. }
            | Self::AttemptFailed { .. }
            | Self::Exhausted { .. }
            | Self::Ended { .. }
            | Self::PendingEnded { .. }
            | Self::ProbeFailed { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed { .. }
            | Self::Settled { .. }
            | Self::AccountsProjected { .. }
            | Self::Released
            | Self::Replay { .. } => None,
        }
    }

    /// What it says of an attempt.
    pub fn attempt(&self) -> Option<&AttemptEntry> {
        match self {
            Self::Delivered { attempt, .. }
            | Self::Ended { attempt, .. }
            | Self::AttemptFailed { attempt, .. }
            | Self::Exhausted { attempt, .. }
            | Self::ProbeFailed { attempt, .. } => Some(attempt),
            Self::ConfigApplied { .. }
            | Self::CountedBack { .. }
            | Self::PendingEnded { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed { .. }
            | Self::Deactivated { .. }
            | Self::Quarantined { .. }
            | Self::Settled { .. }
            | Self::AccountsProjected { .. }
            | Self::Released
            | Self::Replay { .. } => None,
        }
    }

    /// The same, and whether it failed.
    pub fn attempt_mut(&mut self) -> Option<(&mut AttemptEntry, bool)> {
        match self {
            Self::Delivered { attempt, .. } | Self::Ended { attempt, .. } => Some((attempt, false)),
            Self::AttemptFailed { attempt, .. }
            | Self::Exhausted { attempt, .. }
            | Self::ProbeFailed { attempt, .. } => Some((attempt, true)),
            Self::ConfigApplied { .. }
            | Self::CountedBack { .. }
            | Self::PendingEnded { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed { .. }
            | Self::Deactivated { .. }
            | Self::Quarantined { .. }
            | Self::Settled { .. }
            | Self::AccountsProjected { .. }
            | Self::Released
            | Self::Replay { .. } => None,
        }
    }

    /// Whether it is the last of a deleted webhook.
    pub fn closes_ledger(&self) -> bool {
        matches!(
            self,
            Self::PendingEnded {
                end: UnsentEnd::Skipped(SkipReason::Deleted),
                ..
            }
        )
    }

    /// The one delivery that it ends, if it ends one by itself.
    pub fn ended(&self) -> Option<Sequence> {
        match self {
            Self::Delivered { attempt, .. }
            | Self::Exhausted { attempt, .. }
            | Self::Ended { attempt, .. } => Some(attempt.position.sequence),
            Self::AttemptFailed { .. }
            | Self::ConfigApplied { .. }
            | Self::CountedBack { .. }
            | Self::PendingEnded { .. }
            | Self::ProbeFailed { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed { .. }
            | Self::Deactivated { .. }
            | Self::Quarantined { .. }
            | Self::Settled { .. }
            | Self::Replay { .. }
            | Self::AccountsProjected { .. }
            | Self::Released => None,
        }
    }

    /// How many deliveries it ends.
    pub fn ends(&self) -> u64 {
        match self {
            Self::Delivered { .. } | Self::Exhausted { .. } | Self::Ended { .. } => 1,
            Self::PendingEnded { count, .. } => *count,
            Self::AttemptFailed { .. }
            | Self::ConfigApplied { .. }
            | Self::CountedBack { .. }
            | Self::ProbeFailed { .. }
            | Self::BreakerOpened { .. }
            | Self::BreakerClosed { .. }
            | Self::Deactivated { .. }
            | Self::Quarantined { .. }
            | Self::Settled { .. }
            | Self::AccountsProjected { .. }
            | Self::Released
            | Self::Replay { .. } => 0,
        }
    }
}
