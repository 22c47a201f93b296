//! Webhooks of the `stackone` dialect. The registry entry is the decision; the partition's owner
//! applies it, and `applied` tells whether it had done so within a second (`protocol.md`, rule 11).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{ETAG, LOCATION};
use actix_web::web::Path;
use serde::Serialize;
use shared::domain::endpoint_url::EndpointUrl;
use shared::domain::filter::Selection;
use shared::domain::policy::Policy;
use shared::domain::registry::{
    AskedStatus, Command, RegistryState, SEALED_ENDPOINT, seal_context, signing_secret_context,
};
use shared::domain::webhook::{
    Dialect, Endpoint, SigningSecret, Status, Webhook, WebhookDefinition,
};
use shared::http_client::{EndpointRefused, HttpsRule};
use shared::ids::{Position, ProjectId, SecretId, Sequence, WebhookId};
use shared::problem::Problem;
use shared::random;
use shared::secret::new_signing_secret;
use shared::time::Timestamp;

use super::endpoint_headers::MASK;
use super::webhook_request::{NewWebhook, WebhookPatch};
use crate::api::auth::Principal;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::etag::{IfMatch, etag};
use crate::api::idempotency::IdempotencyKey;
use crate::api::open_app::OpenApp;
use crate::api::page::Page;
use crate::api::{find, id, make, unless_moved_on};
use crate::app::App;

/// How long an answer waits for the owner.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct WebhookResource {
    id: WebhookId,
    /// In lists without the query, which may hold a token.
    url: String,
    dialect: Dialect,
    status: Status,
    status_reason: Option<String>,
    events: Selection,
    description: Option<String>,
    /// Values are masked: they may be credentials.
    headers: BTreeMap<String, &'static str>,
    verification_required: bool,
    policy: Policy,
    signing_secrets: Vec<SigningSecretResource>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// After a change: whether the owner confirmed it in time. It holds either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<bool>,
}

#[derive(Serialize)]
struct SigningSecretResource {
    id: SecretId,
    /// Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    active: bool,
    created_at: Timestamp,
}

pub(super) async fn create(
    caller: Principal,
    app: OpenApp,
    key: IdempotencyKey,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let fields = body.fields(&caller, &app).await?;
    let digest = fields.digest();
    let new = NewWebhook::parse(fields, &app.connectors)?;
    check_endpoint(&app, &new.endpoint.url).await?;
    let (project, now) = (caller.project, app.clock.now());
    let fresh = WebhookId::new(now, &random::for_id());
    let owner = project.to_string();
    let id = key.id(&app, (&owner, "webhook"), digest, fresh).await?;
    let secret_id = SecretId::new(now, &random::for_id());
    let definition = WebhookDefinition {
        dialect: Dialect::Stackone,
        sealed_endpoint: seal(&app, project, id, &new.endpoint)?,
        selection: new.selection,
        description: new.description,
        verification_required: false,
        policy: new.policy,
        status: Status::Enabled,
        status_reason: None,
        active_secret: secret_id,
        previous_secret: None,
    };
    let secret = new_signing_secret(&random::bytes());
    let command = Command::CreateWebhook {
        project,
        id,
        from: next_event(&app).await?,
        definition,
        sealed_secret: app.master_keys.seal(
            secret.reveal().as_bytes(),
            &signing_secret_context(project, secret_id),
            &random::bytes(),
        ),
    };
    let is_made = |state: &RegistryState| state.webhook_of(project, id).is_some();
    let made = make(&app, command, &caller.by, is_made).await?;
    let webhook = webhook(&app, project, id).await?;
    let applied = applied(&app, project, made.unwrap_or(webhook.sequence)).await;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/v1/webhooks/{id}")))
        .insert_header((ETAG, etag(webhook.sequence)))
        .json(WebhookResource::after_change(&webhook, applied)))
}

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

pub(super) async fn get(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let webhook = webhook(&app, caller.project, id(&path)?).await?;
    Ok(HttpResponse::Ok()
        .insert_header((ETAG, etag(webhook.sequence)))
        .json(WebhookResource::whole(&webhook)))
}

pub(super) async fn patch(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, id(&path)?);
    webhook(&app, project, id).await?;
    let patch = WebhookPatch::parse(body.fields(&caller, &app).await?, &app.connectors)?;
    if let Some(url) = &patch.url {
        check_endpoint(&app, url).await?;
    }
    let sequence = unless_moved_on(async || {
        let current = webhook(&app, project, id).await?;
        if_match.check(current.sequence)?;
        if patch.is_keep() {
            return Ok(current.sequence);
        }
        let sealed_endpoint = match patch.endpoint(&current.endpoint)? {
            Some(endpoint) => seal(&app, project, id, &endpoint)?,
            None => current.definition.sealed_endpoint.clone(),
        };
        let definition = patch.definition(&current.definition, sealed_endpoint)?;
        // Whoever sets the same again and again shall not fill the log, nor reach the limit.
        if definition == current.definition {
            return Ok(current.sequence);
        }
        let command = Command::UpdateWebhook {
            project,
            id,
            definition,
            base: current.sequence,
        };
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
pub(super) async fn enable(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    set_status(&caller, &app, id(&path)?, &if_match, AskedStatus::Enabled).await
}

/// What is pending, and what arrives from now on, is skipped.
pub(super) async fn disable(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    set_status(&caller, &app, id(&path)?, &if_match, AskedStatus::Disabled).await
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

async fn webhook(app: &App, project: ProjectId, id: WebhookId) -> Result<Arc<Webhook>, ApiError> {
    find(app, |state| state.webhook_of(project, id).cloned()).await
}

/// Rule 11: creation alone reaches back. Read before the append, so that whatever is published
/// after the caller has our answer is classified.
async fn next_event(app: &App) -> Result<Position, ApiError> {
    Ok(Position {
        generation: app.nats.generation,
        sequence: app.nats.events_last().await?.next(),
    })
}

async fn applied(app: &App, project: ProjectId, sequence: Sequence) -> bool {
    let partition = app.nats.partitions.of(project);
    app.applied
        .confirm(&app.nats, partition, sequence, APPLIED_WITHIN)
        .await
}

async fn check_endpoint(app: &App, url: &EndpointUrl) -> Result<(), ApiError> {
    let rule = HttpsRule::RequiredUnlessExcepted;
    app.client
        .check_endpoint(url, rule)
        .await
        .map_err(|refused| {
            match &refused {
                EndpointRefused::RefusedAddress { host, address } => {
                    tracing::info!(%host, %address, "an endpoint's address is refused");
                }
                EndpointRefused::HttpsRequired | EndpointRefused::Unresolvable { .. } => {}
            }
            ApiError::Refused(Problem::invalid_field("/url", refused.to_string()))
        })
}

fn seal(
    app: &App,
    project: ProjectId,
    id: WebhookId,
    endpoint: &Endpoint,
) -> Result<Vec<u8>, ApiError> {
    let plain = serde_json::to_vec(endpoint).map_err(ApiError::internal)?;
    let context = seal_context(SEALED_ENDPOINT, project, &id.to_string());
    Ok(app.master_keys.seal(&plain, &context, &random::bytes()))
}

impl WebhookResource {
    fn in_list(webhook: &Webhook) -> Self {
        let definition = &webhook.definition;
        let headers = &webhook.endpoint.headers;
        let secrets = webhook.secrets.iter();
        Self {
            id: webhook.id,
            // Prints the query masked.
            url: webhook.endpoint.url.to_string(),
            dialect: definition.dialect,
            status: definition.status,
            status_reason: definition.status_reason.clone(),
            events: definition.selection.clone(),
            description: definition.description.clone(),
            headers: headers
                .iter()
                .map(|(name, _)| (name.clone(), MASK))
                .collect(),
            verification_required: definition.verification_required,
            policy: definition.policy.clone(),
            signing_secrets: secrets
                .map(|secret| SigningSecretResource {
                    id: secret.id,
                    secret: None,
                    active: secret.id == definition.active_secret,
                    created_at: secret.created_at,
                })
                .collect(),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            applied: None,
        }
    }

    fn whole(webhook: &Webhook) -> Self {
        let mut resource = Self::in_list(webhook);
        resource.url = webhook.endpoint.url.as_str().to_owned();
        for (shown, secret) in resource.signing_secrets.iter_mut().zip(&webhook.secrets) {
            shown.secret = Some(secret_text(secret));
        }
        resource
    }

    fn after_change(webhook: &Webhook, applied: bool) -> Self {
        Self {
            applied: Some(applied),
            ..Self::whole(webhook)
        }
    }
}

fn secret_text(secret: &SigningSecret) -> String {
    secret.secret.reveal().to_owned()
}
