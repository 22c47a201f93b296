//! What one replica asks of a partition's owner, itself perhaps (`protocol.md`, rule 12).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::domain::journal::{EntryPlace, Links};
use shared::domain::replay::ReplaySelection;
use shared::domain::state::Replay;
use shared::ids::{PartitionId, ProjectId, ReplayId, Sequence, WebhookId};
use shared::nats::requests;
use shared::nats::{Nats, Unavailable};
use shared::time::Timestamp;
use utoipa::ToSchema;

use crate::api::openapi::terms;
use crate::core::overview::{Overview, Span};
use crate::core::standing::Standing;

/// A partition changes its owner within this, and then there is somebody to ask.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A question, in JSON on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Are the partition's registry entries applied through this sequence? Answered once they
    /// are, or after a second.
    Applied { through: u64 },
    /// What happened to a webhook's deliveries in a span of time, and how its account stands.
    Overview { webhook: WebhookId, span: Span },
    /// Where the webhook's last attempt stands in JOURNAL.
    LastAttempt { webhook: WebhookId },
    /// How an event's deliveries stand.
    Standings { project: ProjectId, sequence: u64 },
    /// How many attempts of each have failed in a row, as far as JOURNAL says?
    ConsecutiveFailures { webhooks: Vec<WebhookId> },
    Replay {
        webhook: WebhookId,
        question: ReplayQuestion,
    },
}

impl Question {
    /// Whether the answer is what the stored log folds to.
    pub(crate) fn is_of_the_state(&self) -> bool {
        match self {
            Self::Applied { .. } => false,
            Self::Overview { .. }
            | Self::LastAttempt { .. }
            | Self::Standings { .. }
            | Self::ConsecutiveFailures { .. }
            | Self::Replay { .. } => true,
        }
    }
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
    Applied {
        is_reached: bool,
    },
    /// In the order of the question; 0 for one that the owner has not heard of.
    ConsecutiveFailures {
        counts: Vec<u32>,
    },
    Overview(Box<Overview>),
    LastAttempt(LastAttempt),
    Standings(Vec<(WebhookId, Standing)>),
    Replay(ReplayAnswer),
}

/// Sequence of a pack, and index among its entries.
type Place = (u64, u16);

/// A webhook's [`Links`] on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastAttempt {
    entry: Option<Place>,
    failure: Option<Place>,
}

impl From<Links> for LastAttempt {
    fn from(links: Links) -> Self {
        let place = |place: EntryPlace| (place.pack.0, place.index);
        Self {
            entry: links.entry.map(place),
            failure: links.failure.map(place),
        }
    }
}

impl From<LastAttempt> for Links {
    fn from(last: LastAttempt) -> Self {
        let place = |(pack, index)| EntryPlace {
            pack: Sequence(pack),
            index,
        };
        Self {
            entry: last.entry.map(place),
            failure: last.failure.map(place),
        }
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Replay)]
pub(crate) struct ReplayShown {
    #[schema(value_type = terms::ReplayId)]
    pub id: ReplayId,
    pub status: ReplayStatus,
    pub matched: u64,
    pub sent: u64,
    pub failed: u64,
    pub gone: u64,
    pub cancelled: u64,
    pub pending: u64,
    #[schema(value_type = terms::Time)]
    pub created_at: Timestamp,
    #[schema(value_type = Option<terms::Time>, required)]
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    question: &Question,
    within: Duration,
) -> Result<Answer, Unavailable> {
    let malformed = |error: serde_json::Error| Unavailable(error.to_string());
    let body = serde_json::to_vec(question).map_err(malformed)?;
    let answer = requests::ask(nats, partition, seen, body.into(), within).await?;
    serde_json::from_slice(&answer).map_err(malformed)
}

/// Asks until somebody answers, for as long as `within`: a partition may be between two owners.
pub(crate) async fn ask_until(
    nats: &Nats,
    partition: PartitionId,
    seen: Sequence,
    question: &Question,
    within: Duration,
) -> Result<Answer, Unavailable> {
    let mut reason = Unavailable("the partition's owner does not answer".into());
    let asked = async {
        loop {
            match ask(nats, partition, seen, question, within).await {
                Ok(answer) => return answer,
                Err(error) => reason = error,
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    let answered = tokio::time::timeout(within, asked).await;
    answered.map_err(|_| reason)
}
