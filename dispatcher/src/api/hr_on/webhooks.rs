//! The life of a webhook in HR-ON's dialect. It is sent nothing but the verification until that has
//! passed, and again after each update and each deactivation.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_TYPE, ETAG};
use actix_web::web::Path;
use serde::Serialize;
use shared::dialect::hr_on;
use shared::domain::policy::Policy;
use shared::domain::registry::Command;
use shared::domain::webhook::{Dialect, Endpoint, Status, Webhook, WebhookDefinition};
use shared::ids::{EventId, ProjectId, WebhookId};
use shared::problem::Problem;
use shared::random;
use utoipa::ToSchema;

use super::Outcome;
use super::query::{PageInfo, Part, Query};
use super::request::{
    CreateWebhook, NewWebhook, TriggerWebhook, UpdateWebhook, WebhookUpdate, event_name,
};
use super::resource::{Triggered, WebhookResource};
use crate::api::auth::Principal;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::etag::{IfMatch, IfMatchHeader, etag};
use crate::api::idempotency::{IdempotencyHeader, IdempotencyKey};
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::webhooks::{self, Draft, Verification, applied, check_endpoint};
use crate::api::{find, unless_moved_on};
use crate::app::App;
use crate::io::{sender, trial};

const ENDPOINT: &str = "/endpoint";

#[derive(Serialize, ToSchema)]
#[schema(as = HrOnSingle)]
struct Single {
    success: bool,
    item: WebhookResource,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HrOnList)]
struct Listed {
    items: Vec<WebhookResource>,
    page_info: PageInfo,
}

#[utoipa::path(
    post,
    path = "/webhooks",
    operation_id = "hr_on_create_webhook",
    summary = "Create a webhook in HR-ON's dialect",
    tag = "HR-ON",
    params(IdempotencyHeader),
    request_body = CreateWebhook,
    responses(
        (status = 200, description = "The webhook", body = Single, headers(("ETag" = String))),
        (status = 404),
        (status = 409),
    ),
)]
pub(super) async fn create(
    caller: Principal,
    app: OpenApp,
    key: IdempotencyKey,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let fields = body.fields(&caller, &app).await?;
    let digest = fields.digest();
    let new = NewWebhook::parse(fields)?;
    check_endpoint(&app, &new.endpoint, Dialect::HrOn, ENDPOINT).await?;
    let draft = Draft {
        dialect: Dialect::HrOn,
        endpoint: Endpoint {
            url: new.endpoint,
            headers: Vec::new(),
            token: Some(new.token),
        },
        selection: new.selection,
        description: None,
        verification_required: true,
        policy: Policy::default(),
    };
    let (webhook, _) = webhooks::create(&app, &caller, draft, (&key, digest)).await?;
    Ok(single(&webhook, 0))
}

#[utoipa::path(
    get,
    path = "/webhooks",
    operation_id = "hr_on_list_webhooks",
    summary = "List webhooks of HR-ON's dialect",
    tag = "HR-ON",
    params(Query),
    responses(
        (status = 200, description = "A part of the webhooks, oldest first", body = Listed),
        (status = 404),
    ),
)]
pub(super) async fn list(
    caller: Principal,
    app: OpenApp,
    part: Part,
) -> Result<HttpResponse, ApiError> {
    let all = find(&app, |state| {
        let ids = state.project(caller.project)?.webhooks.iter();
        let webhooks = ids.filter_map(|id| state.webhook_of(caller.project, *id));
        let wanted = webhooks.filter(|webhook| is_wanted(webhook, part.event_name.as_deref()));
        Some(wanted.cloned().collect::<Vec<_>>())
    })
    .await?;
    let (webhooks, page_info) = part.cut(all);
    listed(&app, caller.project, webhooks, page_info).await
}

/// In the shape of a list, as the guide has it.
#[utoipa::path(
    get,
    path = "/webhooks/{id}",
    operation_id = "hr_on_get_webhook",
    summary = "Get a webhook",
    tag = "HR-ON",
    params(("id" = terms::BareId, Path)),
    responses(
        (status = 200, description = "The webhook, in the shape of a list", body = Listed),
    ),
)]
pub(super) async fn get(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let webhook = webhook(&app, caller.project, id(&path)?).await?;
    let page_info = PageInfo {
        size: 1,
        offset: 0,
        total: 1,
    };
    listed(&app, caller.project, vec![webhook], page_info).await
}

/// It has to be verified again, whatever was changed.
#[utoipa::path(
    method(put, patch),
    path = "/webhooks/{id}",
    operation_id = "hr_on_update_webhook",
    summary = "Change a webhook",
    tag = "HR-ON",
    params(("id" = terms::BareId, Path), IfMatchHeader),
    request_body = Option<UpdateWebhook>,
    responses(
        (status = 200, description = "The webhook, to be verified again", body = Single, headers(("ETag" = String))),
        (status = 409),
    ),
)]
pub(super) async fn update(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, id(&path)?);
    webhook(&app, project, id).await?;
    let update = WebhookUpdate::parse(body.fields_if_any(&caller, &app).await?)?;
    if let Some(url) = &update.endpoint {
        check_endpoint(&app, url, Dialect::HrOn, ENDPOINT).await?;
    }
    let sequence = unless_moved_on(async || {
        let current = webhook(&app, project, id).await?;
        if_match.check(current.sequence)?;
        let endpoint = Endpoint {
            url: update
                .endpoint
                .as_ref()
                .unwrap_or(&current.endpoint.url)
                .clone(),
            headers: current.endpoint.headers.clone(),
            token: update
                .token
                .clone()
                .or_else(|| current.endpoint.token.clone()),
        };
        let selection = update.selection.as_ref();
        let definition = WebhookDefinition {
            selection: selection.unwrap_or(&current.definition.selection).clone(),
            ..current.definition.clone()
        };
        let command = webhooks::update(&app, &current, Some(&endpoint), definition)?;
        let updated = app.view.execute(command, &caller.by, app.clock.now());
        Ok(updated.await?)
    })
    .await?;
    applied(&app, project, sequence).await;
    let webhook = webhook(&app, project, id).await?;
    let failed = webhooks::consecutive_failures(&app, project, vec![id]).await?;
    Ok(single(
        &webhook,
        failed.first().copied().unwrap_or_default(),
    ))
}

/// Answers once the owner has stopped sending, or after a second.
#[utoipa::path(
    delete,
    path = "/webhooks/{id}",
    operation_id = "hr_on_delete_webhook",
    summary = "Delete a webhook",
    tag = "HR-ON",
    params(("id" = terms::BareId, Path), IfMatchHeader),
    responses(
        (status = 200, description = "It is deleted", body = Outcome<'static>),
        (status = 409),
    ),
)]
pub(super) async fn delete(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, id(&path)?);
    let sequence = unless_moved_on(async || {
        let current = webhook(&app, project, id).await?;
        if_match.check(current.sequence)?;
        let base = if_match.base(current.sequence);
        let command = Command::DeleteWebhook { project, id, base };
        let deleted = app.view.execute(command, &caller.by, app.clock.now());
        Ok(deleted.await?)
    })
    .await?;
    applied(&app, project, sequence).await;
    Ok(done("The webhook has been deleted"))
}

/// A failure is no error: the call did what it says.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/verify",
    operation_id = "hr_on_verify_webhook",
    summary = "Verify a webhook's endpoint",
    tag = "HR-ON",
    params(("id" = terms::BareId, Path), IfMatchHeader),
    responses(
        (status = 200, description = "Whether it is verified, and why not", body = Outcome<'static>),
        (status = 409),
        (status = 429),
    ),
)]
pub(super) async fn verify(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, id(&path)?);
    webhook(&app, project, id).await?;
    match webhooks::verify(&app, &caller, id, &if_match).await? {
        Verification::Passed(sequence) => {
            applied(&app, project, sequence).await;
            Ok(done("The webhook has been verified"))
        }
        Verification::Failed(reason) => Ok(failed(&reason)),
    }
}

/// Answers with the body that was sent, whatever the endpoint made of it, which it knows itself.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/trigger",
    operation_id = "hr_on_trigger_webhook",
    summary = "Send a test event",
    tag = "HR-ON",
    params(("id" = terms::BareId, Path)),
    request_body = Option<TriggerWebhook>,
    responses(
        (status = 200, description = "What was sent", body = Triggered),
        (status = 409),
        (status = 429),
    ),
)]
pub(super) async fn trigger(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, id(&path)?);
    webhook(&app, project, id).await?;
    let asked = event_name(body.fields_if_any(&caller, &app).await?)?;
    // It may have been verified a moment ago, through another replica.
    app.view.catch_up().await?;
    let webhook = webhook(&app, project, id).await?;
    let names = hr_on::event_names(&webhook.definition.selection).unwrap_or_default();
    let name = match &asked {
        Some(asked) => names.iter().find(|name| *name == asked),
        None => names.first(),
    };
    let name = name.ok_or_else(|| {
        ApiError::bad_request("eventName must be one that the webhook has subscribed to")
    })?;
    match webhook.definition.status {
        Status::Enabled => {}
        Status::PendingVerification
        | Status::Disabled
        | Status::Deactivated
        | Status::Quarantined => {
            let detail = "the webhook must be verified, and not disabled, to receive events";
            return Err(ApiError::Refused(Problem::conflict(detail)));
        }
    }
    let _turn = app.trials.tests(id, 1, app.clock.now())?;
    let event_type = hr_on::event_type(name).ok_or_else(|| ApiError::internal("no such event"))?;
    let now = app.clock.now();
    // It stands for no record.
    let record = EventId::new(now, &random::for_id()).uuid().to_string();
    let event = trial::event(project, event_type, &record, None, now);
    let body = sender::body(&webhook, &event);
    let body = body.ok_or_else(|| ApiError::internal("the event has no body"))?;
    trial::post(&app.client, app.clock.as_ref(), &webhook, &event).await;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/json"))
        .body(body))
}

/// Webhooks of other dialects are not there.
async fn webhook(app: &App, project: ProjectId, id: WebhookId) -> Result<Arc<Webhook>, ApiError> {
    find(app, |state| {
        let webhook = state.webhook_of(project, id)?;
        is_wanted(webhook, None).then(|| Arc::clone(webhook))
    })
    .await
}

fn is_wanted(webhook: &Webhook, event_name: Option<&str>) -> bool {
    let definition = &webhook.definition;
    let has = |name: &str| {
        let names = hr_on::event_names(&definition.selection);
        names.is_some_and(|names| names.contains(&name))
    };
    definition.dialect == Dialect::HrOn && event_name.is_none_or(has)
}

fn id(text: &str) -> Result<WebhookId, ApiError> {
    WebhookId::from_bare(text).ok_or_else(ApiError::not_found)
}

async fn listed(
    app: &App,
    project: ProjectId,
    webhooks: Vec<Arc<Webhook>>,
    page_info: PageInfo,
) -> Result<HttpResponse, ApiError> {
    let ids = webhooks.iter().map(|webhook| webhook.id).collect();
    let failed = webhooks::consecutive_failures(app, project, ids).await?;
    let items = webhooks
        .iter()
        .zip(failed)
        .map(|(webhook, failed)| WebhookResource::new(webhook, failed))
        .collect();
    Ok(HttpResponse::Ok().json(Listed { items, page_info }))
}

fn single(webhook: &Webhook, failed: u32) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((ETAG, etag(webhook.sequence)))
        .json(Single {
            success: true,
            item: WebhookResource::new(webhook, failed),
        })
}

fn done(message: &str) -> HttpResponse {
    HttpResponse::Ok().json(Outcome {
        success: true,
        message,
    })
}

fn failed(message: &str) -> HttpResponse {
    HttpResponse::Ok().json(Outcome {
        success: false,
        message,
    })
}
