//! What one replica asks of a partition's owner, itself perhaps (`protocol.md`, rule 12).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::ids::{PartitionId, Sequence, WebhookId};
use shared::nats::requests;
use shared::nats::{Nats, Unavailable};

/// A question, in JSON on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Are the partition's registry entries applied through this sequence? Answered once they
    /// are, or after a second.
    Applied { through: u64 },
    /// How many attempts of each have failed in a row, as far as JOURNAL says?
    ConsecutiveFailures { webhooks: Vec<WebhookId> },
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
