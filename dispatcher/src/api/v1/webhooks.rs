//! Webhooks: those of the `stackone` dialect are made here, those of both can be read and changed.
//! The registry entry is the decision; the partition's owner
//! applies it, and `applied` tells whether it had done so within a second (`protocol.md`, rule 11).

use actix_web::HttpResponse;
use actix_web::http::header::{ETAG, LOCATION};
use actix_web::web::Path;
use shared::domain::registry::{AskedStatus, Command};
use shared::domain::webhook::Dialect;
use shared::ids::WebhookId;
use shared::problem::Problem;

use super::webhook_request::{CreateWebhook, NewWebhook, UpdateWebhook, WebhookPatch};
use super::webhook_resource::WebhookResource;
use crate::api::auth::Principal;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::etag::{IfMatch, IfMatchHeader, etag};
use crate::api::idempotency::{IdempotencyHeader, IdempotencyKey};
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery};
use crate::api::webhooks::{self, Draft, Verification, applied, check_endpoint, webhook};
use crate::api::{find, unless_moved_on, webhook_id};
use crate::app::App;

#[utoipa::path(
    post,
    path = "/webhooks",
    operation_id = "create_webhook",
    summary = "Create a webhook",
    tag = "Webhooks",
    params(IdempotencyHeader),
    request_body = CreateWebhook,
    responses(
        (status = 201, description = "The webhook, with its first signing secret", body = WebhookResource, headers(("ETag" = String), ("Location" = String))),
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
    let new = NewWebhook::parse(fields, &app.connectors)?;
    check_endpoint(&app, &new.endpoint.url, Dialect::Stackone, "/url").await?;
    let draft = Draft {
        dialect: Dialect::Stackone,
        endpoint: new.endpoint,
        selection: new.selection,
        description: new.description,
        verification_required: new.verification_required,
        policy: new.policy,
    };
    let (webhook, applied) = webhooks::create(&app, &caller, draft, (&key, digest)).await?;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/v1/webhooks/{}", webhook.id)))
        .insert_header((ETAG, etag(webhook.sequence)))
        .json(WebhookResource::after_change(&webhook, applied)))
}

#[utoipa::path(
    get,
    path = "/webhooks",
    operation_id = "list_webhooks",
    summary = "List webhooks",
    tag = "Webhooks",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of webhooks of both dialects, oldest first", body = List<WebhookResource>),
        (status = 404),
    ),
)]
pub(super) async fn list(
    caller: Principal,
    app: OpenApp,
    page: Page<WebhookId>,
) -> Result<HttpResponse, ApiError> {
    let list = find(&app, |state| {
        let ids = state.project(caller.project)?.webhooks.range(page.bounds());
        let webhooks = ids.filter_map(|id| state.webhook_of(caller.project, *id));
        let list = page.cut(webhooks, |webhook| webhook.id);
        Some(list.map(|webhook| WebhookResource::in_list(webhook)))
    })
    .await?;
    Ok(HttpResponse::Ok().json(list))
}

#[utoipa::path(
    get,
    path = "/webhooks/{id}",
    operation_id = "get_webhook",
    summary = "Get a webhook",
    tag = "Webhooks",
    params(("id" = terms::WebhookId, Path)),
    responses(
        (status = 200, description = "The webhook, with its signing secrets", body = WebhookResource, headers(("ETag" = String))),
    ),
)]
pub(super) async fn get(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let webhook = webhook(&app, caller.project, webhook_id(&path)?).await?;
    Ok(HttpResponse::Ok()
        .insert_header((ETAG, etag(webhook.sequence)))
        .json(WebhookResource::whole(&webhook)))
}

#[utoipa::path(
    patch,
    path = "/webhooks/{id}",
    operation_id = "update_webhook",
    summary = "Change a webhook",
    tag = "Webhooks",
    params(("id" = terms::WebhookId, Path), IfMatchHeader),
    request_body = UpdateWebhook,
    responses(
        (status = 200, description = "The webhook", body = WebhookResource, headers(("ETag" = String))),
        (status = 409),
    ),
)]
pub(super) async fn patch(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, webhook_id(&path)?);
    let dialect = webhook(&app, project, id).await?.definition.dialect;
    let patch = WebhookPatch::parse(body.fields(&caller, &app).await?, &app.connectors)?;
    patch.check_dialect(dialect)?;
    if let Some(url) = &patch.url {
        check_endpoint(&app, url, dialect, "/url").await?;
    }
    let sequence = unless_moved_on(async || {
        let current = webhook(&app, project, id).await?;
        if_match.check(current.sequence)?;
        if patch.is_keep() {
            return Ok(current.sequence);
        }
        let endpoint = patch.endpoint(&current.endpoint)?;
        let definition = patch.definition(&current.definition)?;
        // Whoever sets the same again and again shall not fill the log, nor reach the limit.
        if endpoint.is_none() && definition == current.definition {
            return Ok(current.sequence);
        }
        let command = webhooks::update(&app, &current, endpoint.as_ref(), definition)?;
        Ok(app
            .view
            .execute(command, &caller.by, app.clock.now())
            .await?)
    })
    .await?;
    let applied = applied(&app, project, sequence).await;
    let webhook = webhook(&app, project, id).await?;
    Ok(HttpResponse::Ok()
        .insert_header((ETAG, etag(webhook.sequence)))
        .json(WebhookResource::after_change(&webhook, applied)))
}

/// Answers once the owner has stopped sending, or after a second.
#[utoipa::path(
    delete,
    path = "/webhooks/{id}",
    operation_id = "delete_webhook",
    summary = "Delete a webhook",
    tag = "Webhooks",
    params(("id" = terms::WebhookId, Path), IfMatchHeader),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 409),
    ),
)]
pub(super) async fn delete(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, webhook_id(&path)?);
    let sequence = unless_moved_on(async || {
        let current = webhook(&app, project, id).await?;
        if_match.check(current.sequence)?;
        let base = if_match.base(current.sequence);
        let command = Command::DeleteWebhook { project, id, base };
        Ok(app
            .view
            .execute(command, &caller.by, app.clock.now())
            .await?)
    })
    .await?;
    applied(&app, project, sequence).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Lifts what was decided about the webhook, by whomever.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/enable",
    operation_id = "enable_webhook",
    summary = "Enable a webhook",
    tag = "Webhooks",
    params(("id" = terms::WebhookId, Path), IfMatchHeader),
    responses(
        (status = 200, description = "The webhook", body = WebhookResource, headers(("ETag" = String))),
        (status = 409),
    ),
)]
pub(super) async fn enable(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    set_status(
        &caller,
        &app,
        webhook_id(&path)?,
        &if_match,
        AskedStatus::Enabled,
    )
    .await
}

/// What is pending, and what arrives from now on, is skipped.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/disable",
    operation_id = "disable_webhook",
    summary = "Disable a webhook",
    tag = "Webhooks",
    params(("id" = terms::WebhookId, Path), IfMatchHeader),
    responses(
        (status = 200, description = "The webhook", body = WebhookResource, headers(("ETag" = String))),
        (status = 409),
    ),
)]
pub(super) async fn disable(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    set_status(
        &caller,
        &app,
        webhook_id(&path)?,
        &if_match,
        AskedStatus::Disabled,
    )
    .await
}

/// Has the endpoint prove that it wants events; 409 and the reason when it does not.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/verify",
    operation_id = "verify_webhook",
    summary = "Verify a webhook's endpoint",
    tag = "Webhooks",
    params(("id" = terms::WebhookId, Path), IfMatchHeader),
    responses(
        (status = 200, description = "The webhook", body = WebhookResource, headers(("ETag" = String))),
        (status = 409, extensions(("x-codes" = json!(["conflict", "not_verified"])))),
        (status = 429),
    ),
)]
pub(super) async fn verify(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, webhook_id(&path)?);
    let sequence = match webhooks::verify(&app, &caller, id, &if_match).await? {
        Verification::Passed(sequence) => sequence,
        Verification::Failed(reason) => {
            return Err(ApiError::Refused(Problem::not_verified(reason)));
        }
    };
    let applied = applied(&app, project, sequence).await;
    let webhook = webhook(&app, project, id).await?;
    Ok(HttpResponse::Ok()
        .insert_header((ETAG, etag(webhook.sequence)))
        .json(WebhookResource::after_change(&webhook, applied)))
}

/// A webhook that has the status already is answered alike.
async fn set_status(
    caller: &Principal,
    app: &App,
    id: WebhookId,
    if_match: &IfMatch,
    status: AskedStatus,
) -> Result<HttpResponse, ApiError> {
    let project = caller.project;
    let sequence = unless_moved_on(async || {
        let current = webhook(app, project, id).await?;
        if_match.check(current.sequence)?;
        let command = Command::SetWebhookStatus {
            project,
            id,
            status,
            reason: None,
            base: if_match.base(current.sequence),
        };
        let appended = app.view.execute(command, &caller.by, app.clock.now());
        // What others appended meanwhile is waited for too.
        Ok(appended.await?.max(current.sequence))
    })
    .await?;
    let applied = applied(app, project, sequence).await;
    let webhook = webhook(app, project, id).await?;
    Ok(HttpResponse::Ok()
        .insert_header((ETAG, etag(webhook.sequence)))
        .json(WebhookResource::after_change(&webhook, applied)))
}
