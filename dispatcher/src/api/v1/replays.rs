//! Replays of a webhook. They live with the partition's owner, who is asked (`protocol.md`,
//! rules 12 and 24); what it answers is stored.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Path;
use serde::Serialize;
use serde_json::Value;
use shared::domain::replay::ReplaySelection;
use shared::ids::{EventId, ReplayId, Sequence, WebhookId};
use shared::limits::REPLAY_EVENT_IDS_MAX;
use shared::problem::Problem;
use shared::random;
use shared::time::Timestamp;
use utoipa::ToSchema;

use crate::api::auth::Principal;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::fields::{Fields, Parsed, boolean, fault, fault_at};
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery};
use crate::api::{find, id, webhook_id};
use crate::app::App;
use crate::owner::{
    Answer, Question, REPLAY_ANSWER_WITHIN, ReplayAnswer, ReplayQuestion, ReplayShown, ask,
};

/// A partition changes its owner within this, and then there is somebody to ask.
const OWNER_WITHIN: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Of an answer, beyond the owner's own patience.
const ON_THE_WAY: Duration = Duration::from_secs(2);

#[derive(Serialize, ToSchema)]
struct DryRun {
    matched: u64,
}

/// What is sent to make a replay: which events, in one of three ways.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "read by the derive alone")]
enum CreateReplay {
    Events(ReplayEvents),
    ExhaustedSince(ReplayExhausted),
    Published(ReplayPublished),
}

/// Of these events.
#[derive(Serialize, ToSchema)]
struct ReplayEvents {
    #[schema(
        value_type = Vec<terms::EventId>,
        min_items = 1,
        max_items = 1000,
        example = json!(["evt_0192f0c1d2e374a5b6c7d8e9fa0b1c2d"])
    )]
    event_ids: Vec<String>,
    /// The replay's own id: who repeats the call with it makes one replay.
    #[schema(value_type = Option<terms::ReplayId>)]
    id: Option<String>,
    /// Only counts.
    #[schema(example = true)]
    dry_run: Option<bool>,
}

/// Of all that was exhausted since.
#[derive(Serialize, ToSchema)]
struct ReplayExhausted {
    #[schema(value_type = terms::Time)]
    exhausted_since: String,
    /// The replay's own id: who repeats the call with it makes one replay.
    #[schema(value_type = Option<terms::ReplayId>)]
    id: Option<String>,
    /// Only counts.
    #[schema(example = true)]
    dry_run: Option<bool>,
}

/// Of all that was published at or after `from` and before `to`.
#[derive(Serialize, ToSchema)]
struct ReplayPublished {
    #[schema(value_type = terms::Time)]
    from: String,
    #[schema(value_type = terms::Time)]
    to: String,
    /// The replay's own id: who repeats the call with it makes one replay.
    #[schema(value_type = Option<terms::ReplayId>)]
    id: Option<String>,
    /// Only counts.
    #[schema(example = true)]
    dry_run: Option<bool>,
}

struct NewReplay {
    id: Option<ReplayId>,
    selection: ReplaySelection,
    dry_run: bool,
}

#[utoipa::path(
    post,
    path = "/webhooks/{id}/replays",
    operation_id = "create_replay",
    summary = "Send events once more",
    tag = "Deliveries",
    params(("id" = terms::WebhookId, Path)),
    request_body = CreateReplay,
    responses(
        (status = 200, description = "Of a dry run: how many it would be", body = DryRun),
        (status = 202, description = "The replay", body = ReplayShown),
        (status = 409),
    ),
)]
pub(super) async fn create(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let webhook = Asked::of(&caller, &app, &path).await?;
    let new = NewReplay::parse(body.fields(&caller, &app).await?)?;
    let selection = new.selection;
    if new.dry_run {
        let question = ReplayQuestion::DryRun { selection };
        return match webhook.ask(&app, question).await? {
            ReplayAnswer::Matched(matched) => Ok(HttpResponse::Ok().json(DryRun { matched })),
            ReplayAnswer::Unknown => Err(ApiError::not_found()),
            other => Err(unexpected(&other)),
        };
    }
    let now = app.clock.now();
    let replay = new
        .id
        .unwrap_or_else(|| ReplayId::new(now, &random::for_id()));
    let question = ReplayQuestion::Begin { replay, selection };
    let begun = webhook.replay(&app, question).await?;
    Ok(HttpResponse::Accepted().json(begun))
}

#[utoipa::path(
    get,
    path = "/webhooks/{id}/replays",
    operation_id = "list_replays",
    summary = "List replays",
    tag = "Deliveries",
    params(("id" = terms::WebhookId, Path), PageQuery),
    responses(
        (status = 200, description = "A page of replays, oldest first", body = List<ReplayShown>),
    ),
)]
pub(super) async fn list(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    page: Page<ReplayId>,
) -> Result<HttpResponse, ApiError> {
    let webhook = Asked::of(&caller, &app, &path).await?;
    match webhook.ask(&app, ReplayQuestion::List).await? {
        ReplayAnswer::List(known) => {
            Ok(HttpResponse::Ok().json(page.cut(known.into_iter(), |shown| shown.id)))
        }
        other => Err(unexpected(&other)),
    }
}

#[utoipa::path(
    get,
    path = "/webhooks/{id}/replays/{replay}",
    operation_id = "get_replay",
    summary = "Get a replay",
    tag = "Deliveries",
    params(("id" = terms::WebhookId, Path), ("replay" = terms::ReplayId, Path)),
    responses(
        (status = 200, description = "The replay", body = ReplayShown),
    ),
)]
pub(super) async fn get(
    caller: Principal,
    app: OpenApp,
    path: Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let webhook = Asked::of(&caller, &app, &path.0).await?;
    let replay = id(&path.1)?;
    let known = webhook.replay(&app, ReplayQuestion::Get { replay }).await?;
    Ok(HttpResponse::Ok().json(known))
}

/// One that has ended is answered alike. What is under way may still arrive.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/replays/{replay}/cancel",
    operation_id = "cancel_replay",
    summary = "Cancel a replay",
    tag = "Deliveries",
    params(("id" = terms::WebhookId, Path), ("replay" = terms::ReplayId, Path)),
    responses(
        (status = 202, description = "The replay", body = ReplayShown),
        (status = 409),
    ),
)]
pub(super) async fn cancel(
    caller: Principal,
    app: OpenApp,
    path: Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let webhook = Asked::of(&caller, &app, &path.0).await?;
    let replay = id(&path.1)?;
    let question = ReplayQuestion::Cancel { replay };
    let cancelled = webhook.replay(&app, question).await?;
    Ok(HttpResponse::Accepted().json(cancelled))
}

/// A webhook of the caller's, whose owner is asked.
struct Asked {
    webhook: WebhookId,
    partition: shared::ids::PartitionId,
    /// The registry as the caller has seen it, at least.
    seen: Sequence,
}

impl Asked {
    async fn of(caller: &Principal, app: &App, path: &str) -> Result<Self, ApiError> {
        let webhook = webhook_id(path)?;
        let project = caller.project;
        let seen = find(app, |state| {
            let webhook = state.webhook_of(project, webhook)?;
            Some(webhook.sequence)
        })
        .await?;
        Ok(Self {
            webhook,
            partition: app.nats.partitions.of(project),
            seen,
        })
    }

    /// Asks until there is an owner who answers. Asking again changes nothing: each question names
    /// its replay.
    async fn ask(&self, app: &App, question: ReplayQuestion) -> Result<ReplayAnswer, ApiError> {
        let question = Question::Replay {
            webhook: self.webhook,
            question,
        };
        let (nats, partition, seen) = (&app.nats, self.partition, self.seen);
        let within = REPLAY_ANSWER_WITHIN.saturating_add(ON_THE_WAY);
        let began = app.clock.elapsed();
        loop {
            match ask(nats, partition, seen, &question, within).await {
                Ok(Answer::Replay(answer)) => return Ok(answer),
                Ok(_) => {
                    return Err(ApiError::internal("the owner answers another question"));
                }
                Err(error) if app.clock.elapsed().saturating_sub(began) >= OWNER_WITHIN => {
                    return Err(error.into());
                }
                Err(error) => tracing::debug!(%partition, %error, "the owner is asked again"),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn replay(&self, app: &App, question: ReplayQuestion) -> Result<ReplayShown, ApiError> {
        match self.ask(app, question).await? {
            ReplayAnswer::Replay(shown) => Ok(shown),
            ReplayAnswer::Unknown => Err(ApiError::not_found()),
            ReplayAnswer::Conflict(detail) => Err(ApiError::Refused(Problem::conflict(detail))),
            other @ (ReplayAnswer::Matched(_) | ReplayAnswer::List(_)) => Err(unexpected(&other)),
        }
    }
}

fn unexpected(answer: &ReplayAnswer) -> ApiError {
    ApiError::internal(format!("the owner answers {answer:?}"))
}

impl NewReplay {
    fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let id = fields.optional("id", replay_id);
        let events = fields.optional("event_ids", event_ids);
        let since = fields.optional("exhausted_since", time);
        let from = fields.optional("from", time);
        let to = fields.optional("to", time);
        let dry_run = fields.optional("dry_run", boolean).unwrap_or(false);
        let selection = match (events, since, from, to) {
            (Some(ids), None, None, None) => Some(ReplaySelection::Events(ids)),
            (None, Some(since), None, None) => Some(ReplaySelection::ExhaustedSince(since)),
            (None, None, Some(from), Some(to)) if from < to => {
                Some(ReplaySelection::Published { from, to })
            }
            _ => None,
        };
        let new = selection.map(|selection| Self {
            id,
            selection,
            dry_run,
        });
        fields.finish(Some(()))?;
        new.ok_or_else(|| {
            ApiError::Refused(Problem::invalid_field(
                "",
                "name either event_ids, or exhausted_since, or from and a later to",
            ))
        })
    }
}

fn replay_id(value: Value) -> Parsed<ReplayId> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.map_or_else(
        || fault("must be rpl_ and 32 lower-case hexadecimal digits"),
        Ok,
    )
}

fn time(value: Value) -> Parsed<Timestamp> {
    let text = value.as_str();
    let parsed = text.and_then(|text| Timestamp::parse_rfc3339(text).ok());
    parsed.map_or_else(|| fault("must be an RFC 3339 time"), Ok)
}

/// Ascending and each once, so that the same request always names the same selection.
fn event_ids(value: Value) -> Parsed<Vec<EventId>> {
    let Value::Array(items) = value else {
        return fault("must be an array of event ids");
    };
    if items.is_empty() || items.len() > REPLAY_EVENT_IDS_MAX {
        return fault(format!("must have 1 to {REPLAY_EVENT_IDS_MAX} event ids"));
    }
    let mut ids = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match item.as_str().and_then(|text| text.parse().ok()) {
            Some(id) => ids.push(id),
            None => return fault_at(format!("/{index}"), "must be an event id"),
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::openapi::request;

    #[test]
    fn requests_are_what_is_documented() {
        let others = json!({
            "id": "rpl_0192f0c1d2e374a5b6c7d8e9fa0b1c2d",
            "exhausted_since": "2026-01-31T12:00:00Z",
            "from": "2026-01-31T12:00:00Z",
            "to": "2026-01-31T13:00:00Z",
        });
        request::check::<ReplayEvents>(&others, |fields| NewReplay::parse(fields).map(drop));
        request::check::<ReplayExhausted>(&others, |fields| NewReplay::parse(fields).map(drop));
        request::check::<ReplayPublished>(&others, |fields| NewReplay::parse(fields).map(drop));
    }
}
