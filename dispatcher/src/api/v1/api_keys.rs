//! API keys of a project, the operator's to make and revoke. The registry keeps a key's hash; the
//! key itself is shown once.

use actix_web::HttpResponse;
use actix_web::web::Path;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use shared::domain::project::ApiKey;
use shared::domain::registry::{Command, RegistryState};
use shared::ids::{KeyId, ProjectId};
use shared::limits::NAME_BYTES_MAX;
use shared::nats::key_usage::last_used;
use shared::problem::Problem;
use shared::random;
use shared::secret::hash_key;
use shared::time::Timestamp;
use utoipa::ToSchema;

use super::projects::project;
use crate::api::auth::{ADMIN, Admin};
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::fields::line;
use crate::api::idempotency::{IdempotencyHeader, IdempotencyKey};
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery};
use crate::api::{find, id, make};

#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
struct ApiKeyResource {
    #[schema(value_type = terms::KeyId)]
    id: KeyId,
    name: String,
    /// In the answer to its creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    #[schema(value_type = terms::Time)]
    created_at: Timestamp,
    /// To the minute.
    #[schema(value_type = Option<terms::Time>, required)]
    last_used_at: Option<Timestamp>,
}

/// What is sent to make a key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct CreateApiKey {
    /// Up to 512 bytes, no control characters.
    #[schema(
        min_length = 1,
        max_length = 512,
        pattern = "^\\P{Cc}+$",
        example = "Production"
    )]
    name: String,
}

impl From<&ApiKey> for ApiKeyResource {
    fn from(key: &ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name.clone(),
            key: None,
            created_at: key.created_at,
            last_used_at: None,
        }
    }
}

#[utoipa::path(
    post,
    path = "/projects/{id}/api_keys",
    operation_id = "create_api_key",
    summary = "Create an API key",
    tag = "Projects",
    params(("id" = terms::ProjectId, Path), IdempotencyHeader),
    request_body = CreateApiKey,
    responses(
        (status = 201, description = "The key, shown this once", body = ApiKeyResource),
        (status = 409),
    ),
    security(("admin_token" = [])),
)]
pub(super) async fn create(
    caller: Admin,
    app: OpenApp,
    path: Path<String>,
    idempotency: IdempotencyKey,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let project_id = id(&path)?;
    find(&app, |state| project(state, project_id).map(|_| ())).await?;
    let mut fields = body.fields(&caller, &app).await?;
    let digest = fields.digest();
    let name = fields.required("name", line(NAME_BYTES_MAX));
    let name = fields.finish(name)?;
    let now = app.clock.now();
    let fresh = KeyId::new(now, &random::for_id());
    let owner = project_id.to_string();
    let id = idempotency
        .id(&app, (&owner, "api_key"), digest, fresh)
        .await?;
    let key = format!("ck_{}", URL_SAFE_NO_PAD.encode(random::bytes::<32>()));
    let command = Command::CreateApiKey {
        project: project_id,
        id,
        name,
        hash: hash_key(&key),
    };
    let look = |state: &RegistryState| api_key(state, project_id, id).map(ApiKeyResource::from);
    let is_made = |state: &RegistryState| look(state).is_some();
    if make(&app, command, ADMIN, is_made).await?.is_none() {
        // Only its hash was kept.
        let detail = "this call has made a key, which was shown once: revoke it and make another";
        return Err(ApiError::Refused(Problem::conflict(detail)));
    }
    let created = ApiKeyResource {
        key: Some(key),
        ..find(&app, look).await?
    };
    Ok(HttpResponse::Created().json(created))
}

#[utoipa::path(
    get,
    path = "/projects/{id}/api_keys",
    operation_id = "list_api_keys",
    summary = "List API keys",
    tag = "Projects",
    params(("id" = terms::ProjectId, Path), PageQuery),
    responses(
        (status = 200, description = "A page of keys, oldest first", body = List<ApiKeyResource>),
    ),
    security(("admin_token" = [])),
)]
pub(super) async fn list(
    _: Admin,
    app: OpenApp,
    path: Path<String>,
    page: Page<KeyId>,
) -> Result<HttpResponse, ApiError> {
    let project_id = id(&path)?;
    let mut list = find(&app, |state| {
        let keys = project(state, project_id)?.api_keys.range(page.bounds());
        let list = page.cut(keys.map(|(_, key)| key), |key| key.id);
        Some(list.map(ApiKeyResource::from))
    })
    .await?;
    let asks = list.items.iter().map(|key| last_used(&app.nats, key.id));
    let used = futures_util::future::try_join_all(asks).await?;
    for (key, used) in list.items.iter_mut().zip(used) {
        key.last_used_at = used;
    }
    Ok(HttpResponse::Ok().json(list))
}

/// Revokes it: every replica refuses it within 5 s.
#[utoipa::path(
    delete,
    path = "/projects/{id}/api_keys/{key}",
    operation_id = "revoke_api_key",
    summary = "Revoke an API key",
    tag = "Projects",
    params(("id" = terms::ProjectId, Path), ("key" = terms::KeyId, Path)),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 409),
    ),
    security(("admin_token" = [])),
)]
pub(super) async fn delete(
    _: Admin,
    app: OpenApp,
    path: Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (project_id, key) = (id(&path.0)?, id(&path.1)?);
    find(&app, |state| api_key(state, project_id, key).map(|_| ())).await?;
    let command = Command::RevokeApiKey {
        project: project_id,
        id: key,
    };
    app.view.execute(command, ADMIN, app.clock.now()).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn api_key(state: &RegistryState, project_id: ProjectId, id: KeyId) -> Option<&ApiKey> {
    project(state, project_id)?.api_keys.get(&id)
}
