//! One attempt as the API shows it, from its entry in JOURNAL and, where EVENTS still has it, its
//! event.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::domain::catalog;
use shared::domain::delivery::FailureKind;
use shared::domain::event::Event;
use shared::domain::journal::{AttemptEntry, ExhaustReason, Failure, JournalEntry, UnsentEnd};
use shared::domain::registry::{SEALED_ANSWER, seal_context};
use shared::ids::{EventId, LaneHash, ProjectId, WebhookId};
use shared::nats::Unavailable;
use shared::secret::DataKey;
use shared::time::Timestamp;
use utoipa::ToSchema;

use crate::api::openapi::terms;
use crate::app::App;
use crate::io::events::{Fetched, fetch};

/// Events that are read for one answer.
const EVENTS_MAX: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Delivered,
    /// There is, or was to be, another attempt.
    Failed,
    Exhausted,
}

impl Outcome {
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Delivered, Self::Failed, Self::Exhausted]
            .into_iter()
            .find(|outcome| outcome.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Exhausted => "exhausted",
        }
    }

    /// `None` for an entry that tells neither of a request nor of an exhausted delivery.
    pub(super) fn of(entry: &JournalEntry) -> Option<Self> {
        match entry {
            JournalEntry::Delivered { .. } => Some(Self::Delivered),
            JournalEntry::AttemptFailed { .. } | JournalEntry::ProbeFailed { .. } => {
                Some(Self::Failed)
            }
            JournalEntry::Exhausted { .. }
            | JournalEntry::Ended {
                end: UnsentEnd::Exhausted(_),
                ..
            } => Some(Self::Exhausted),
            JournalEntry::Ended {
                end: UnsentEnd::Skipped(_),
                ..
            }
            | JournalEntry::ConfigApplied { .. }
            | JournalEntry::CountedBack { .. }
            | JournalEntry::PendingEnded { .. }
            | JournalEntry::BreakerOpened { .. }
            | JournalEntry::BreakerClosed { .. }
            | JournalEntry::Deactivated { .. }
            | JournalEntry::Quarantined { .. }
            | JournalEntry::Settled { .. }
            | JournalEntry::AccountsProjected { .. }
            | JournalEntry::Released
            | JournalEntry::Replay { .. } => None,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(super) struct AttemptResource {
    #[schema(value_type = terms::EventId)]
    event_id: EventId,
    /// The event's type; null for one that this release does not know, of an event that is gone.
    #[schema(required)]
    event: Option<String>,
    /// Null once EVENTS has forgotten the event (7 days).
    #[schema(required)]
    pub(super) record_id: Option<String>,
    /// Of the delivery, from 1; of a probe, how many attempts the delivery has.
    attempt: u32,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<terms::FailureKind>, nullable = false)]
    error: Option<FailureKind>,
    /// Up to 1 KiB of what a failed request was answered, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    answer: Option<String>,
    /// Why the delivery is exhausted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<terms::ExhaustReason>, nullable = false)]
    reason: Option<ExhaustReason>,
    /// Sent to see whether the endpoint is back: no attempt of the delivery.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    probe: bool,
    latency_ms: u32,
    #[schema(value_type = terms::Time)]
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<terms::Time>, nullable = false)]
    next_attempt_at: Option<Timestamp>,
}

/// Shows entries of one project's webhooks. A lane has one record id, so that one event of each
/// lane is read.
pub(super) struct Shower<'a> {
    app: &'a App,
    project: ProjectId,
    data_key: Option<Arc<DataKey>>,
    /// One event of each lane; `None` where it is gone.
    seen: HashMap<LaneHash, Option<Arc<Event>>>,
}

impl<'a> Shower<'a> {
    pub(super) fn new(app: &'a App, project: ProjectId) -> Self {
        let data_key = app
            .view
            .read(|state| state.project(project)?.data_key.clone());
        Self {
            app,
            project,
            data_key,
            seen: HashMap::new(),
        }
    }

    pub(super) fn has_read_enough(&self) -> bool {
        self.seen.len() >= EVENTS_MAX
    }

    /// `None` for an entry that is no [`Outcome`].
    pub(super) async fn show(
        &mut self,
        entry: &JournalEntry,
    ) -> Result<Option<AttemptResource>, Unavailable> {
        let (Some(outcome), Some(attempt)) = (Outcome::of(entry), entry.attempt()) else {
            return Ok(None);
        };
        let event = self.event_of_lane(attempt).await?;
        let own = event.as_ref().filter(|event| event.id == attempt.event);
        let known = catalog::by_hash(attempt.event_type);
        let named = known.or_else(|| own.map(|event| &event.event_type));
        let mut shown = AttemptResource {
            event_id: attempt.event,
            event: named.map(ToString::to_string),
            record_id: event.as_ref().map(|event| event.record_id.to_string()),
            attempt: attempt.number,
            outcome,
            status: None,
            error: None,
            answer: None,
            reason: None,
            probe: false,
            latency_ms: attempt.latency_ms,
            at: attempt.started_at,
            next_attempt_at: None,
        };
        self.add_outcome(&mut shown, entry);
        Ok(Some(shown))
    }

    fn add_outcome(&self, shown: &mut AttemptResource, entry: &JournalEntry) {
        match entry {
            JournalEntry::Delivered { status, .. } => shown.status = Some(*status),
            JournalEntry::AttemptFailed {
                attempt,
                failure,
                retry_at,
                ..
            } => {
                self.add_failure(shown, attempt.webhook, failure);
                shown.next_attempt_at = Some(*retry_at);
            }
            JournalEntry::ProbeFailed {
                attempt,
                failure,
                next_probe_at,
                ..
            } => {
                self.add_failure(shown, attempt.webhook, failure);
                shown.next_attempt_at = Some(*next_probe_at);
                shown.probe = true;
            }
            JournalEntry::Exhausted {
                attempt,
                failure,
                reason,
                ..
            } => {
                self.add_failure(shown, attempt.webhook, failure);
                shown.reason = Some(*reason);
            }
            JournalEntry::Ended {
                end: UnsentEnd::Exhausted(reason),
                ..
            } => shown.reason = Some(*reason),
            JournalEntry::Ended {
                end: UnsentEnd::Skipped(_),
                ..
            }
            | JournalEntry::ConfigApplied { .. }
            | JournalEntry::CountedBack { .. }
            | JournalEntry::PendingEnded { .. }
            | JournalEntry::BreakerOpened { .. }
            | JournalEntry::BreakerClosed { .. }
            | JournalEntry::Deactivated { .. }
            | JournalEntry::Quarantined { .. }
            | JournalEntry::Settled { .. }
            | JournalEntry::AccountsProjected { .. }
            | JournalEntry::Released
            | JournalEntry::Replay { .. } => {}
        }
    }

    fn add_failure(&self, shown: &mut AttemptResource, webhook: WebhookId, failure: &Failure) {
        shown.status = failure.status;
        shown.error = Some(failure.kind);
        shown.answer = self.answer(webhook, failure);
    }

    /// Nothing where the guard refused the address, whatever may be stored.
    fn answer(&self, webhook: WebhookId, failure: &Failure) -> Option<String> {
        if failure.kind == FailureKind::RefusedAddress || failure.sealed_answer.is_empty() {
            return None;
        }
        let context = seal_context(SEALED_ANSWER, self.project, &webhook.to_string());
        let key = self.data_key.as_ref()?;
        match key.unseal(&failure.sealed_answer, &context) {
            Ok(answer) => Some(String::from_utf8_lossy(&answer).into_owned()),
            Err(error) => {
                tracing::error!(webhook.id = %webhook, %error, "a kept answer does not open");
                None
            }
        }
    }

    /// The newest of a lane comes first: when EVENTS has forgotten that, it has all.
    async fn event_of_lane(
        &mut self,
        attempt: &AttemptEntry,
    ) -> Result<Option<Arc<Event>>, Unavailable> {
        if let Some(seen) = self.seen.get(&attempt.lane) {
            return Ok(seen.clone());
        }
        let fetched = match fetch(&self.app.nats, attempt.position.sequence).await? {
            Fetched::Event(event) => Some(event),
            Fetched::Gone(_) => None,
        };
        // Sequences of another generation are other events.
        let own =
            fetched.filter(|event| event.id == attempt.event && event.project == self.project);
        self.seen.insert(attempt.lane, own.clone());
        Ok(own)
    }
}
