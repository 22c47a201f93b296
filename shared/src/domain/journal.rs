//! Facts in JOURNAL: what the owner of a partition applied, and what came of each attempt.
//!
//! Entries travel in packs. A pack names its epoch and number, so that a fold can drop what it
//! has seen; the server checks it against the partition's epoch entry, so that nobody but the
//! owner can append one (`protocol.md`, rules 8 and 11).

use serde::{Deserialize, Serialize};

use super::delivery::FailureKind;
use crate::ids::{Epoch, EventId, LaneHash, Position, ReplicaId, Sequence, WebhookId};
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
    pub entries: Vec<JournalEntry>,
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
    },
    /// The endpoint took the event: the delivery's end.
    Delivered { attempt: AttemptEntry, status: u16 },
    /// It did not; the next attempt is due at the time that was chosen then, jitter included.
    AttemptFailed {
        attempt: AttemptEntry,
        failure: Failure,
        retry_at: Timestamp,
    },
    /// It did not, and that was the last attempt: the delivery's end.
    Exhausted {
        attempt: AttemptEntry,
        failure: Failure,
        reason: ExhaustReason,
    },
    /// What was pending ended without a further attempt: its end. `number` is how many there
    /// were.
    Ended {
        attempt: AttemptEntry,
        end: UnsentEnd,
    },
    /// Account entries up to here are published as events (rule 27).
    AccountsProjected { registry_sequence: Sequence },
}

/// What every attempt's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptEntry {
    pub webhook: WebhookId,
    /// The event's, and so the delivery's key (rule 23).
    pub position: Position,
    pub event: EventId,
    pub lane: LaneHash,
    /// From 1.
    pub number: u32,
    pub started_at: Timestamp,
    /// To the response head or the error.
    pub latency_ms: u32,
    pub previous: Links,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl JournalEntry {
    /// The webhook that the entry is about, if it is about one.
    pub fn webhook(&self) -> Option<WebhookId> {
        match self {
            Self::ConfigApplied { webhook, .. } => Some(*webhook),
            Self::Ended { attempt, .. }
            | Self::Delivered { attempt, .. }
            | Self::AttemptFailed { attempt, .. }
            | Self::Exhausted { attempt, .. } => Some(attempt.webhook),
            Self::AccountsProjected { .. } => None,
        }
    }
}
