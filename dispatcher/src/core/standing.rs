//! How one delivery stands, as far as the journal tells.

use serde::{Deserialize, Serialize};
use shared::domain::event::Event;
use shared::domain::journal::SkipReason;
use shared::domain::state::WebhookState;
use shared::ids::Sequence;
use shared::time::Timestamp;

use super::classify::{Class, ConfigHistory};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is under way, or waits.
    Pending { next_attempt_at: Option<Timestamp> },
    /// It was delivered, or ended otherwise: its attempts tell.
    Ended,
    /// Its webhook's status let nothing be sent when it was classified.
    Skipped { reason: SkipReason },
}

impl Standing {
    /// `None` where the webhook never wanted the event, or the configuration of then is forgotten.
    pub fn of(
        told: &WebhookState,
        history: &ConfigHistory,
        sequence: Sequence,
        event: &Event,
    ) -> Option<Self> {
        match history.classify(sequence, event) {
            Class::NotWanted => None,
            Class::Skipped(reason) => Some(Self::Skipped { reason }),
            Class::Accepted if told.has_ended(sequence, event.lane) => Some(Self::Ended),
            Class::Accepted => Some(Self::Pending {
                next_attempt_at: told.failing.get(&sequence).map(|failing| failing.retry_at),
            }),
        }
    }
}
