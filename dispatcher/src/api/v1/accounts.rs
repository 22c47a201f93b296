//! Accounts: customers' linked logins. What they log in with goes in and never comes out; only
//! what a person must type in at the provider is shown again.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::{ETAG, LOCATION};
use actix_web::web::Path;
use serde::Serialize;
use serde_json::Value;
use shared::connector::{Connectors, SigningSecretSource};
use shared::domain::account::{Account, AccountDefinition, AccountSecrets};
use shared::domain::registry::{Command, RegistryState, SEALED_ACCOUNT, seal_context};
use shared::ids::{AccountId, ProjectId};
use shared::limits::{NAME_BYTES_MAX, OUTSIDE_ID_BYTES_MAX};
use shared::random;
use shared::time::Timestamp;
use utoipa::ToSchema;

use super::account_secrets::{Randomness, SecretsChange, credentials};
use crate::api::auth::Principal;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::etag::{IfMatch, IfMatchHeader, etag};
use crate::api::fields::{Change, Fields, Parsed, fault, line, object};
use crate::api::idempotency::{IdempotencyHeader, IdempotencyKey};
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery};
use crate::api::{data_key, find, id, make, unless_moved_on};
use crate::app::App;

#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
struct AccountResource {
    #[schema(value_type = terms::AccountId)]
    id: AccountId,
    provider: String,
    #[schema(required)]
    name: Option<String>,
    origin_owner_id: String,
    #[schema(required)]
    origin_owner_name: Option<String>,
    #[schema(required)]
    origin_username: Option<String>,
    /// Not in lists, since the URL holds the ingest key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ingest: Option<IngestResource>,
    #[schema(value_type = terms::Time)]
    created_at: Timestamp,
    #[schema(value_type = terms::Time)]
    updated_at: Timestamp,
}

/// What the provider must be told.
#[derive(Serialize, ToSchema)]
#[schema(as = Ingest)]
struct IngestResource {
    url: String,
    /// What it shall sign with, where we made that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<String>,
}

/// What is sent to link an account.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
struct CreateAccount {
    /// Key of a connector.
    #[schema(example = "bamboohr")]
    provider: String,
    #[schema(min_length = 1, max_length = 512, example = "Bell foundry")]
    name: Option<String>,
    /// The customer's id in your system.
    #[schema(min_length = 1, max_length = 512, example = "customer-17")]
    origin_owner_id: String,
    #[schema(min_length = 1, max_length = 512, example = "Great Paul & Sons")]
    origin_owner_name: Option<String>,
    #[schema(min_length = 1, max_length = 512, example = "paul@example.com")]
    origin_username: Option<String>,
    /// `signing_secret` is what the provider signs with; all else is kept for calls to the provider.
    #[schema(value_type = Option<Object>)]
    credentials: Option<serde_json::Map<String, Value>>,
    #[schema(value_type = Option<Object>)]
    settings: Option<serde_json::Map<String, Value>>,
}

/// What is sent to change an account: what is left out stays, objects are merged (RFC 7396).
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
struct UpdateAccount {
    #[schema(min_length = 1, max_length = 512, example = "Bell foundry")]
    name: Option<String>,
    /// The customer's id in your system.
    #[schema(
        min_length = 1,
        max_length = 512,
        example = "customer-17",
        nullable = false
    )]
    origin_owner_id: Option<String>,
    #[schema(min_length = 1, max_length = 512, example = "Great Paul & Sons")]
    origin_owner_name: Option<String>,
    #[schema(min_length = 1, max_length = 512, example = "paul@example.com")]
    origin_username: Option<String>,
    /// `signing_secret` is what the provider signs with; all else is kept for calls to the provider.
    #[schema(value_type = Option<Object>)]
    credentials: Option<serde_json::Map<String, Value>>,
    #[schema(value_type = Option<Object>)]
    settings: Option<serde_json::Map<String, Value>>,
}

struct NewAccount {
    definition: AccountDefinition,
    secrets: SecretsChange,
}

struct AccountPatch {
    name: Change<String>,
    origin_owner_id: Option<String>,
    origin_owner_name: Change<String>,
    origin_username: Change<String>,
    secrets: SecretsChange,
}

#[utoipa::path(
    post,
    path = "/accounts",
    operation_id = "create_account",
    summary = "Link an account",
    tag = "Accounts",
    params(IdempotencyHeader),
    request_body = CreateAccount,
    responses(
        (status = 201, description = "The account", body = AccountResource, headers(("ETag" = String), ("Location" = String))),
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
    let new = NewAccount::parse(fields, &app.connectors)?;
    let (project, now) = (caller.project, app.clock.now());
    let fresh = AccountId::new(now, &random::for_id());
    let owner = project.to_string();
    let id = key.id(&app, (&owner, "account"), digest, fresh).await?;
    let mut definition = new.definition;
    let source = source(&app.connectors, &definition.provider);
    let secrets = new.secrets.apply(None, source, &randomness())?;
    definition.sealed_secrets = seal(&app, caller.project, id, &secrets)?;
    let command = Command::CreateAccount {
        project: caller.project,
        id,
        definition,
    };
    let is_made = |state: &RegistryState| state.account_of(project, id).is_some();
    make(&app, command, &caller.by, is_made).await?;
    let account = account(&app, project, id).await?;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/v1/accounts/{id}")))
        .insert_header((ETAG, etag(account.sequence)))
        .json(AccountResource::whole(&account, &app)))
}

#[utoipa::path(
    get,
    path = "/accounts",
    operation_id = "list_accounts",
    summary = "List accounts",
    tag = "Accounts",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of accounts, oldest first", body = List<AccountResource>),
        (status = 404),
    ),
)]
pub(super) async fn list(
    caller: Principal,
    app: OpenApp,
    page: Page<AccountId>,
) -> Result<HttpResponse, ApiError> {
    let list = find(&app, |state| {
        let ids = state.project(caller.project)?.accounts.range(page.bounds());
        let accounts = ids.filter_map(|id| state.account_of(caller.project, *id));
        let list = page.cut(accounts, |account| account.id);
        Some(list.map(|account| AccountResource::in_list(account)))
    })
    .await?;
    Ok(HttpResponse::Ok().json(list))
}

#[utoipa::path(
    get,
    path = "/accounts/{id}",
    operation_id = "get_account",
    summary = "Get an account",
    tag = "Accounts",
    params(("id" = terms::AccountId, Path)),
    responses(
        (status = 200, description = "The account", body = AccountResource, headers(("ETag" = String))),
    ),
)]
pub(super) async fn get(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let account = account(&app, caller.project, id(&path)?).await?;
    Ok(answer(&account, &app))
}

#[utoipa::path(
    patch,
    path = "/accounts/{id}",
    operation_id = "update_account",
    summary = "Change an account",
    tag = "Accounts",
    params(("id" = terms::AccountId, Path), IfMatchHeader),
    request_body = UpdateAccount,
    responses(
        (status = 200, description = "The account", body = AccountResource, headers(("ETag" = String))),
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
    let (project, id) = (caller.project, id(&path)?);
    account(&app, project, id).await?;
    let patch = AccountPatch::parse(body.fields(&caller, &app).await?)?;
    unless_moved_on(async || {
        let current = account(&app, project, id).await?;
        if_match.check(current.sequence)?;
        if patch.is_keep() {
            return Ok(());
        }
        let command = Command::UpdateAccount {
            project,
            id,
            definition: patch.apply(&current, &app)?,
            base: current.sequence,
        };
        app.view
            .execute(command, &caller.by, app.clock.now())
            .await?;
        Ok(())
    })
    .await?;
    let account = account(&app, project, id).await?;
    Ok(answer(&account, &app))
}

#[utoipa::path(
    delete,
    path = "/accounts/{id}",
    operation_id = "delete_account",
    summary = "Unlink an account",
    tag = "Accounts",
    params(("id" = terms::AccountId, Path), IfMatchHeader),
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
    let (project, id) = (caller.project, id(&path)?);
    unless_moved_on(async || {
        let current = account(&app, project, id).await?;
        if_match.check(current.sequence)?;
        let base = if_match.base(current.sequence);
        let command = Command::DeleteAccount { project, id, base };
        app.view
            .execute(command, &caller.by, app.clock.now())
            .await?;
        Ok(())
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn account(app: &App, project: ProjectId, id: AccountId) -> Result<Arc<Account>, ApiError> {
    find(app, |state| state.account_of(project, id).cloned()).await
}

fn answer(account: &Account, app: &App) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((ETAG, etag(account.sequence)))
        .json(AccountResource::whole(account, app))
}

impl AccountResource {
    fn in_list(account: &Account) -> Self {
        let definition = &account.definition;
        Self {
            id: account.id,
            provider: definition.provider.clone(),
            name: definition.name.clone(),
            origin_owner_id: definition.origin_owner_id.clone(),
            origin_owner_name: definition.origin_owner_name.clone(),
            origin_username: definition.origin_username.clone(),
            ingest: None,
            created_at: account.created_at,
            updated_at: account.updated_at,
        }
    }

    fn whole(account: &Account, app: &App) -> Self {
        let secrets = &account.secrets;
        let (base, key) = (&app.public_ingest_url, secrets.ingest_key.reveal());
        let ours = secrets.signing_secret_generated;
        let secret = secrets.signing_secret.as_ref().filter(|_| ours);
        Self {
            ingest: Some(IngestResource {
                url: format!("{base}/v1/native/{}/{key}", account.id),
                secret: secret.map(|secret| secret.reveal().to_owned()),
            }),
            ..Self::in_list(account)
        }
    }
}

impl NewAccount {
    fn parse(mut fields: Fields, connectors: &Connectors) -> Result<Self, ApiError> {
        let provider = fields.required("provider", |value| provider(value, connectors));
        let name = fields.optional("name", line(NAME_BYTES_MAX));
        let origin_owner_id = fields.required("origin_owner_id", line(OUTSIDE_ID_BYTES_MAX));
        let origin_owner_name = fields.optional("origin_owner_name", line(NAME_BYTES_MAX));
        let origin_username = fields.optional("origin_username", line(NAME_BYTES_MAX));
        let secrets = secrets(&mut fields);
        fields.finish(provider.zip(origin_owner_id).map(|(provider, owner)| Self {
            definition: AccountDefinition {
                provider,
                name,
                origin_owner_id: owner,
                origin_owner_name,
                origin_username,
                sealed_secrets: Vec::new(),
            },
            secrets,
        }))
    }
}

impl AccountPatch {
    fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let patch = Self {
            name: fields.change("name", line(NAME_BYTES_MAX)),
            origin_owner_id: fields.replacement("origin_owner_id", line(OUTSIDE_ID_BYTES_MAX)),
            origin_owner_name: fields.change("origin_owner_name", line(NAME_BYTES_MAX)),
            origin_username: fields.change("origin_username", line(NAME_BYTES_MAX)),
            secrets: secrets(&mut fields),
        };
        fields.finish(Some(patch))
    }

    fn is_keep(&self) -> bool {
        self.name.is_keep()
            && self.origin_owner_id.is_none()
            && self.origin_owner_name.is_keep()
            && self.origin_username.is_keep()
            && self.secrets.is_keep()
    }

    fn apply(&self, account: &Account, app: &App) -> Result<AccountDefinition, ApiError> {
        let current = &account.definition;
        let sealed_secrets = if self.secrets.is_keep() {
            current.sealed_secrets.clone()
        } else {
            let source = source(&app.connectors, &current.provider);
            let secrets = self
                .secrets
                .apply(Some(&account.secrets), source, &randomness())?;
            seal(app, account.project, account.id, &secrets)?
        };
        let owner = self.origin_owner_id.as_ref();
        Ok(AccountDefinition {
            provider: current.provider.clone(),
            name: self.name.apply(current.name.as_ref()),
            origin_owner_id: owner.unwrap_or(&current.origin_owner_id).clone(),
            origin_owner_name: self
                .origin_owner_name
                .apply(current.origin_owner_name.as_ref()),
            origin_username: self.origin_username.apply(current.origin_username.as_ref()),
            sealed_secrets,
        })
    }
}

fn secrets(fields: &mut Fields) -> SecretsChange {
    SecretsChange {
        credentials: fields.change("credentials", credentials),
        settings: fields.change("settings", object),
    }
}

fn provider(value: Value, connectors: &Connectors) -> Parsed<String> {
    let name = line(NAME_BYTES_MAX)(value)?;
    match connectors.get(&name) {
        Some(_) => Ok(name),
        None => fault(format!("there is no connector {name:?}")),
    }
}

/// An account can outlive its connector; nothing is made for it then.
fn source(connectors: &Connectors, provider: &str) -> SigningSecretSource {
    connectors
        .get(provider)
        .map_or(SigningSecretSource::Given, |connector| {
            connector.signing_secret()
        })
}

fn seal(
    app: &App,
    project: ProjectId,
    id: AccountId,
    secrets: &AccountSecrets,
) -> Result<Vec<u8>, ApiError> {
    let plain = serde_json::to_vec(secrets).map_err(ApiError::internal)?;
    let context = seal_context(SEALED_ACCOUNT, project, &id.to_string());
    Ok(data_key(app, project)?.seal(&plain, &context, &random::bytes()))
}

fn randomness() -> Randomness {
    Randomness {
        ingest_key: random::bytes(),
        signing_secret: random::bytes(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::openapi::request;

    #[test]
    fn requests_are_what_is_documented() {
        let connectors = Connectors::embedded().unwrap();
        let objects = json!({
            "credentials": {"signing_secret": "0123456789abcdef", "token": "t"},
            "settings": {"domain": "acme"},
        });
        request::check::<CreateAccount>(&objects, |fields| {
            NewAccount::parse(fields, &connectors).map(drop)
        });
        request::check::<UpdateAccount>(&objects, |fields| AccountPatch::parse(fields).map(drop));
    }
}
