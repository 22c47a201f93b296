//! `GET /v1/events/{id}`: one event, and the deliveries and attempts that it led to.
//!
//! Nothing finds a message by its id, so the event is looked for: near the time that its id names
//! (UUIDv7) or that the caller gives as `at` (the body's `sent_at`), else from the newest back,
//! within the windows of one reader. Its attempts are looked for forward in JOURNAL, from the time of
//! publication and then from when each next attempt was due.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::web::{Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::codec;
use shared::domain::event::Event;
use shared::domain::journal::{JournalEntry, SkipReason};
use shared::ids::{EventId, ProjectId, Sequence, WebhookId};
use shared::nats::read::{first_since, read_between};
use shared::nats::{Unavailable, last_sequence};
use shared::subjects;
use shared::time::Timestamp;
use utoipa::{IntoParams, ToSchema};

use super::attempt_resource::{AttemptResource, Outcome, Shower};
use super::events::{EventResource, sequences};
use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::time_range::{TimeRange, invalid};
use crate::api::{id, owner};
use crate::app::App;
use crate::core::standing::Standing;
use crate::io::event_log::{EventLog, decode};
use crate::owner::{Answer, Question};

/// How far from the time of its id an event may have been stored, before by clocks that differ.
const BEFORE_MS: i64 = 5_000;
const AFTER_MS: i64 = 60_000;
/// Events looked through around that time.
const NEAR_MAX: (usize, usize) = (5_000, 16 << 20);
/// Stretches of JOURNAL that are read for one event, and what each may hold.
const STRETCHES_MAX: usize = 16;
const STRETCH_MAX: (usize, usize) = (200, 4 << 20);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// The body's `sent_at`, for an event that is not among the newest.
    #[param(value_type = Option<terms::Time>, nullable = false)]
    at: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventWithDeliveries)]
struct Answered<'a> {
    #[serde(flatten)]
    event: EventResource,
    /// What is sent in the `stackone` dialect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    body: Option<&'a RawValue>,
    deliveries: Vec<DeliveryResource>,
    /// Oldest first.
    attempts: Vec<OwnAttempt>,
    /// Whether all of JOURNAL that may tell of attempts was read.
    attempts_complete: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryResource {
    #[schema(value_type = terms::WebhookId)]
    webhook_id: WebhookId,
    status: DeliveryStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<terms::SkipReason>, nullable = false)]
    reason: Option<SkipReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<terms::Time>, nullable = false)]
    next_attempt_at: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DeliveryStatus {
    Pending,
    Delivered,
    Exhausted,
    Skipped,
    /// Together with others, or by an attempt that was not found.
    Ended,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventAttempt)]
struct OwnAttempt {
    #[schema(value_type = terms::WebhookId)]
    webhook_id: WebhookId,
    #[serde(flatten)]
    attempt: AttemptResource,
}

#[utoipa::path(
    get,
    path = "/events/{id}",
    operation_id = "get_event",
    summary = "Get an event, its deliveries and attempts",
    tag = "Events",
    params(("id" = terms::EventId, Path), Parameters),
    responses(
        (status = 200, description = "The event", body = Answered<'static>),
        (status = 422),
    ),
)]
pub(super) async fn get(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let event: EventId = id(&path)?;
    let asked = Query::<Parameters>::from_query(request.query_string())
        .map_err(|_| ApiError::bad_request("at may be given once"))?;
    let at = asked
        .at
        .as_deref()
        .map(Timestamp::parse_rfc3339)
        .transpose();
    let at = at.map_err(|_| invalid("/at", "must be a time by RFC 3339"))?;
    let (sequence, event) = find_event(&app, caller.project, event, at).await?;
    let question = Question::Standings {
        project: caller.project,
        sequence: sequence.0,
    };
    let Answer::Standings(standings) = owner::ask(&app, caller.project, question).await? else {
        return Err(owner::answered_otherwise());
    };
    let logged = attempts(&app, caller.project, sequence, &event).await?;
    let mut shower = Shower::new(&app, caller.project);
    let mut shown = Vec::new();
    for entry in &logged.entries {
        if let (Some(webhook_id), Some(attempt)) = (entry.webhook(), shower.show(entry).await?) {
            shown.push(OwnAttempt {
                webhook_id,
                attempt,
            });
        }
    }
    Ok(HttpResponse::Ok().json(Answered {
        event: EventResource::of(&event),
        body: serde_json::from_slice(&event.body).ok(),
        deliveries: deliveries(standings, &logged.entries),
        attempts: shown,
        attempts_complete: logged.is_complete,
    }))
}

async fn find_event(
    app: &App,
    project: ProjectId,
    wanted: EventId,
    at: Option<Timestamp>,
) -> Result<(Sequence, Arc<Event>), ApiError> {
    let filter = subjects::events_of_project(app.nats.partitions.of(project), project);
    let is_it =
        |(_, event): &(Sequence, Arc<Event>)| event.id == wanted && event.project == project;
    if let Some(at) = at.or(wanted.created_at()) {
        let range = TimeRange {
            from: Some(at.plus_millis(-BEFORE_MS)),
            to: Some(at.plus_millis(AFTER_MS)),
        };
        let range = sequences(app, &filter, range).await?;
        let read = read_between(&app.nats.events, &filter, range, NEAR_MAX).await?;
        if let Some(found) = decode(&read.messages)?.into_iter().find(is_it) {
            return Ok(found);
        }
    }
    let range = sequences(app, &filter, TimeRange::default()).await?;
    let mut log = EventLog::new(&app.nats, filter, range);
    while let Some(window) = log.next().await? {
        if let Some(found) = window.into_iter().find(is_it) {
            return Ok(found);
        }
    }
    match log.rest() {
        None => Err(ApiError::not_found()),
        Some(_) => Err(invalid(
            "/at",
            "the newest events do not have it; give the time when it was sent (its `sent_at`)",
        )),
    }
}

/// What JOURNAL tells of an event's attempts, in its order.
#[derive(Default)]
struct LoggedAttempts {
    entries: Vec<JournalEntry>,
    is_complete: bool,
}

async fn attempts(
    app: &App,
    project: ProjectId,
    sequence: Sequence,
    event: &Event,
) -> Result<LoggedAttempts, Unavailable> {
    let journal = &app.nats.journal;
    let subject = subjects::journal(app.nats.partitions.of(project));
    let last = last_sequence(journal).await?;
    let mut logged = LoggedAttempts::default();
    let mut since = event.published_at.plus_millis(-BEFORE_MS);
    let mut after = Sequence(0);
    let mut is_whole = true;
    for _ in 0..STRETCHES_MAX {
        let Some(first) = first_since(journal, &subject, since).await? else {
            logged.is_complete = is_whole;
            break;
        };
        after = after.max(first.previous());
        let read = read_between(journal, &subject, (after, last), STRETCH_MAX).await?;
        for message in &read.messages {
            let pack = codec::decode_pack(&message.payload);
            let pack = pack.map_err(|error| Unavailable(error.to_string()))?;
            since = since.max(pack.at);
            let own = pack.entries.into_iter().filter(|entry| {
                let attempt = entry.attempt();
                attempt.is_some_and(|attempt| {
                    attempt.event == event.id && attempt.position.sequence == sequence
                })
            });
            logged.entries.extend(own);
        }
        after = read.through;
        if after >= last {
            logged.is_complete = is_whole;
            break;
        }
        // What failed is not to be found before it was due; another webhook's attempt may be.
        if let Some(due) = next_due(&logged.entries, since) {
            since = due;
            is_whole = false;
        }
    }
    Ok(logged)
}

/// When the first of the deliveries whose last attempt failed was to be attempted again, if that is
/// after `since`.
fn next_due(entries: &[JournalEntry], since: Timestamp) -> Option<Timestamp> {
    let mut due = BTreeMap::new();
    for entry in entries {
        if let Some(webhook) = entry.webhook() {
            let again = if let JournalEntry::AttemptFailed { retry_at, .. } = entry {
                Some(*retry_at)
            } else {
                None
            };
            due.insert(webhook, again);
        }
    }
    let first = due.into_values().flatten().min()?;
    (first > since).then(|| first.plus_millis(-BEFORE_MS).max(since))
}

fn deliveries(
    standings: Vec<(WebhookId, Standing)>,
    entries: &[JournalEntry],
) -> Vec<DeliveryResource> {
    let mut deliveries: BTreeMap<WebhookId, DeliveryResource> = BTreeMap::new();
    for (webhook_id, standing) in standings {
        let (status, reason, next_attempt_at) = match standing {
            Standing::Pending { next_attempt_at } => {
                (DeliveryStatus::Pending, None, next_attempt_at)
            }
            Standing::Ended => (DeliveryStatus::Ended, None, None),
            Standing::Skipped { reason } => (DeliveryStatus::Skipped, Some(reason), None),
        };
        let delivery = DeliveryResource {
            webhook_id,
            status,
            reason,
            next_attempt_at,
        };
        deliveries.insert(webhook_id, delivery);
    }
    for entry in entries {
        let Some(webhook_id) = entry.webhook() else {
            continue;
        };
        let delivery = deliveries.entry(webhook_id).or_insert(DeliveryResource {
            webhook_id,
            status: DeliveryStatus::Ended,
            reason: None,
            next_attempt_at: None,
        });
        match Outcome::of(entry) {
            Some(Outcome::Delivered) => delivery.status = DeliveryStatus::Delivered,
            Some(Outcome::Exhausted) => delivery.status = DeliveryStatus::Exhausted,
            Some(Outcome::Failed) | None => {}
        }
    }
    deliveries.into_values().collect()
}
