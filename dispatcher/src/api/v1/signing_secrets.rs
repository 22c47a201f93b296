//! A webhook's signing secrets. One of them is active and signs; the one that was active before it
//! signs beside it while it exists, so that receivers can change over without a gap: add, let the
//! receiver accept both, activate, delete the old one. `If-Match` is about the webhook's version, which
//! says what signs.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::LOCATION;
use actix_web::web::Path;
use shared::domain::registry::{Command, RegistryState};
use shared::domain::webhook::{SigningSecret, Webhook};
use shared::ids::{ProjectId, SecretId, WebhookId};
use shared::random;
use shared::secret::new_signing_secret;

use super::webhook_resource::{SigningSecretResource, printed_id};
use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::etag::{IfMatch, IfMatchHeader};
use crate::api::fields::Digest;
use crate::api::idempotency::{IdempotencyHeader, IdempotencyKey};
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery};
use crate::api::webhooks::{applied, seal_secret, webhook};
use crate::api::{find, id, make, unless_moved_on, webhook_id};
use crate::app::App;

/// Without the secrets themselves, which the webhook shows.
#[utoipa::path(
    get,
    path = "/webhooks/{id}/signing_secrets",
    operation_id = "list_signing_secrets",
    summary = "List signing secrets",
    tag = "Signing secrets",
    params(("id" = terms::WebhookId, Path), PageQuery),
    responses(
        (status = 200, description = "A page of secrets, oldest first", body = List<SigningSecretResource>),
    ),
)]
pub(super) async fn list(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    page: Page<SecretId>,
) -> Result<HttpResponse, ApiError> {
    let webhook = webhook(&app, caller.project, webhook_id(&path)?).await?;
    let mut secrets: Vec<&SigningSecret> = webhook.secrets.iter().collect();
    secrets.sort_by_key(|secret| secret.id);
    let list = page.cut(secrets.into_iter(), |secret| secret.id);
    Ok(
        HttpResponse::Ok()
            .json(list.map(|secret| SigningSecretResource::in_list(&webhook, secret))),
    )
}

/// Adds one that does not sign yet.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/signing_secrets",
    operation_id = "add_signing_secret",
    summary = "Add a signing secret",
    tag = "Signing secrets",
    params(("id" = terms::WebhookId, Path), IdempotencyHeader, IfMatchHeader),
    responses(
        (status = 201, description = "The secret", body = SigningSecretResource, headers(("Location" = String))),
        (status = 409),
    ),
)]
pub(super) async fn add(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    key: IdempotencyKey,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    let (project, webhook_id) = (caller.project, webhook_id(&path)?);
    // A secret has a subject of its own, so that the server does not check the webhook's version.
    app.view.catch_up().await?;
    let current = webhook(&app, project, webhook_id).await?;
    if_match.check(current.sequence)?;
    let now = app.clock.now();
    let fresh = SecretId::new(now, &random::for_id());
    let owner = webhook_id.to_string();
    let kind = (owner.as_str(), "signing_secret");
    let id = key.id(&app, kind, Digest::OF_NOTHING, fresh).await?;
    let command = Command::AddSigningSecret {
        project,
        webhook: webhook_id,
        id,
        sealed: seal_secret(&app, project, id, &new_signing_secret(&random::bytes()))?,
    };
    let is_made = |state: &RegistryState| {
        let webhook = state.webhook_of(project, webhook_id);
        webhook.is_some_and(|webhook| webhook.secrets.iter().any(|secret| secret.id == id))
    };
    make(&app, command, &caller.by, is_made).await?;
    let (webhook, secret) = secret(&app, project, webhook_id, id).await?;
    let location = format!("/v1/webhooks/{}/signing_secrets/{id}", printed_id(&webhook));
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, location))
        .json(SigningSecretResource::whole(&webhook, &secret)))
}

/// From now on it signs. The active one is answered alike.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/signing_secrets/{secret}/activate",
    operation_id = "activate_signing_secret",
    summary = "Sign with this secret",
    tag = "Signing secrets",
    params(("id" = terms::WebhookId, Path), ("secret" = terms::SecretId, Path), IfMatchHeader),
    responses(
        (status = 200, description = "The secret", body = SigningSecretResource),
        (status = 409),
    ),
)]
pub(super) async fn activate(
    caller: Principal,
    app: OpenApp,
    path: Path<(String, String)>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    let (project, webhook_id, id) = (caller.project, webhook_id(&path.0)?, id(&path.1)?);
    let sequence = unless_moved_on(async || {
        let (current, _) = secret(&app, project, webhook_id, id).await?;
        if_match.check(current.sequence)?;
        let command = Command::ActivateSigningSecret {
            project,
            webhook: webhook_id,
            id,
            base: if_match.base(current.sequence),
        };
        let appended = app.view.execute(command, &caller.by, app.clock.now());
        Ok(appended.await?.max(current.sequence))
    })
    .await?;
    let applied = applied(&app, project, sequence).await;
    let (webhook, secret) = secret(&app, project, webhook_id, id).await?;
    Ok(HttpResponse::Ok().json(SigningSecretResource::after_change(
        &webhook, &secret, applied,
    )))
}

/// For good: it signs nothing more, and is erased from the log.
#[utoipa::path(
    delete,
    path = "/webhooks/{id}/signing_secrets/{secret}",
    operation_id = "delete_signing_secret",
    summary = "Delete a signing secret",
    tag = "Signing secrets",
    params(("id" = terms::WebhookId, Path), ("secret" = terms::SecretId, Path), IfMatchHeader),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 409),
    ),
)]
pub(super) async fn delete(
    caller: Principal,
    app: OpenApp,
    path: Path<(String, String)>,
    if_match: IfMatch,
) -> Result<HttpResponse, ApiError> {
    let (project, webhook_id, id) = (caller.project, webhook_id(&path.0)?, id(&path.1)?);
    let sequence = unless_moved_on(async || {
        let (current, _) = secret(&app, project, webhook_id, id).await?;
        if_match.check(current.sequence)?;
        let command = Command::DeleteSigningSecret {
            project,
            webhook: webhook_id,
            id,
            base: if_match.base(current.sequence),
        };
        let erased = app.view.execute(command, &caller.by, app.clock.now());
        Ok(erased.await?)
    })
    .await?;
    applied(&app, project, sequence).await;
    Ok(HttpResponse::NoContent().finish())
}

async fn secret(
    app: &App,
    project: ProjectId,
    webhook: WebhookId,
    id: SecretId,
) -> Result<(Arc<Webhook>, SigningSecret), ApiError> {
    find(app, |state| {
        let webhook = state.webhook_of(project, webhook)?;
        let secret = webhook.secrets.iter().find(|secret| secret.id == id)?;
        Some((Arc::clone(webhook), secret.clone()))
    })
    .await
}
