//! What one replica asks of a partition's owner, itself perhaps (`protocol.md`, rule 12).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::domain::replay::ReplaySelection;
use shared::domain::state::Replay;
use shared::ids::{PartitionId, ReplayId, Sequence, WebhookId};
use shared::nats::requests;
use shared::nats::{Nats, Unavailable};
use shared::time::Timestamp;

/// A question, in JSON on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Are the partition's registry entries applied through this sequence? Answered once they
    /// are, or after a second.
    Applied { through: u64 },
    Replay {
        webhook: WebhookId,
        question: ReplayQuestion,
    },
}

/// What is asked about the replays of one webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayQuestion {
    /// Begin one. Asked again, it is answered with the one that there is.
    Begin {
        replay: ReplayId,
        selection: ReplaySelection,
    },
    /// How many events would one match that began now?
    DryRun {
        selection: ReplaySelection,
    },
    Cancel {
        replay: ReplayId,
    },
    Get {
        replay: ReplayId,
    },
    List,
}

/// The answer to the question of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Applied { is_reached: bool },
    Replay(ReplayAnswer),
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayAnswer {
    Replay(ReplayShown),
    /// Ascending by id.
    List(Vec<ReplayShown>),
    Matched(u64),
    /// There is no such replay, or no such webhook any more.
    Unknown,
    /// It cannot be begun, and why.
    Conflict(String),
}

/// A replay as the API shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplayShown {
    pub id: ReplayId,
    pub status: ReplayStatus,
    pub matched: u64,
    pub sent: u64,
    pub failed: u64,
    pub gone: u64,
    pub cancelled: u64,
    pub pending: u64,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayStatus {
    /// It is not known yet how many events it matches.
    Counting,
    Running,
    Completed,
    Cancelled,
}

/// How long an owner works on an answer about replays; what takes longer is declined.
pub(crate) const REPLAY_ANSWER_WITHIN: Duration = Duration::from_secs(20);

impl ReplayShown {
    pub(crate) fn of(id: ReplayId, replay: &Replay) -> Self {
        let status = match (replay.ended_at, replay.is_cancelled, replay.is_counted) {
            (Some(_), true, _) => ReplayStatus::Cancelled,
            (Some(_), false, _) => ReplayStatus::Completed,
            (None, _, true) => ReplayStatus::Running,
            (None, _, false) => ReplayStatus::Counting,
        };
        let ledger = replay.ledger;
        Self {
            id,
            status,
            matched: ledger.matched,
            sent: ledger.sent,
            failed: ledger.failed,
            gone: ledger.gone,
            cancelled: ledger.cancelled,
            pending: ledger.pending(),
            created_at: replay.begun_at,
            ended_at: replay.ended_at,
        }
    }
}

/// Asks the owner of `partition`, for an asker who has seen the registry through `seen`.
pub(crate) async fn ask(
    nats: &Nats,
    partition: PartitionId,
    seen: Sequence,
    question: Question,
    within: Duration,
) -> Result<Answer, Unavailable> {
    let malformed = |error: serde_json::Error| Unavailable(error.to_string());
    let body = serde_json::to_vec(&question).map_err(malformed)?;
    let answer = requests::ask(nats, partition, seen, body.into(), within).await?;
    serde_json::from_slice(&answer).map_err(malformed)
}
