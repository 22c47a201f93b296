//! Replays: events of a webhook sent once more because somebody asked (`protocol.md`, rule 24).
//!
//! A replay is a chain of its own with a ledger of its own. What it selects is fixed when it
//! begins, by what had ended then: nothing that is pending in the main ledger is ever touched.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::delivery::FailureKind;
use crate::ids::{EventId, LaneHash, Position, Sequence};
use crate::time::Timestamp;

/// Which events are sent again, of those that the webhook was owed and that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaySelection {
    /// These, ascending and each once.
    Events(Vec<EventId>),
    /// Those whose delivery was exhausted then or later.
    ExhaustedSince(Timestamp),
    /// Those published from `from` on and before `to`.
    Published { from: Timestamp, to: Timestamp },
}

/// A replay's chain goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayStep {
    /// It is fixed: what had ended at or below `through` by this entry.
    Begun {
        selection: ReplaySelection,
        through: Position,
        at: Timestamp,
    },
    /// So many events are to be sent.
    Counted { matched: u64 },
    /// One of them was tried; it is not tried again.
    Attempted(ReplayAttempt),
    /// One of them was sent to see whether the endpoint is back, since the breaker is open and
    /// nothing is pending to probe with. It is not: the event stands where it stood.
    ProbeFailed {
        next_probe_at: Timestamp,
        /// The endpoint asked to be left alone until then (`Retry-After`).
        pause_until: Option<Timestamp>,
    },
    /// What has not ended by this entry is not sent. What is under way may still arrive.
    Cancelled { at: Timestamp },
    /// All was tried. What was counted and is not there any more is gone.
    Ended { at: Timestamp },
}

/// One event's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayAttempt {
    /// Of the event.
    pub sequence: Sequence,
    pub event: EventId,
    pub lane: LaneHash,
    pub started_at: Timestamp,
    /// To the response head or the error.
    pub latency_ms: u32,
    pub outcome: ReplayOutcome,
    /// All that the replay matches at or below was tried by now.
    pub settled: Sequence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    Sent {
        status: u16,
    },
    Failed {
        kind: FailureKind,
        /// The answer's status, when there was an answer.
        status: Option<u16>,
        /// The endpoint asked to be left alone until then (`Retry-After`).
        pause_until: Option<Timestamp>,
        /// Too many failed in a row: the chain goes on then.
        resume_at: Option<Timestamp>,
    },
    /// The stream does not hold the event any more, or it is not readable.
    Gone,
}

impl ReplaySelection {
    /// Equal for equal selections, and kept when the selection is not: tells a repeated request
    /// from another one under the same id.
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = Vec::new();
        match self {
            Self::Events(ids) => {
                bytes.push(0);
                for id in ids {
                    bytes.extend_from_slice(&id.to_bytes());
                }
            }
            Self::ExhaustedSince(since) => {
                bytes.push(1);
                bytes.extend_from_slice(&since.as_millis().to_le_bytes());
            }
            Self::Published { from, to } => {
                bytes.push(2);
                bytes.extend_from_slice(&from.as_millis().to_le_bytes());
                bytes.extend_from_slice(&to.as_millis().to_le_bytes());
            }
        }
        xxh3_64(&bytes)
    }
}
