//! Who changed what, and when: the project's part of REGISTRY, newest first, from the log itself.
//! What a deletion purged is no longer told; that it was deleted is.

use actix_web::HttpResponse;
use serde::Serialize;
use shared::codec;
use shared::domain::registry::{RegistryEntry, RegistryRecord};
use shared::domain::webhook::Status;
use shared::ids::Sequence;
use shared::nats::read::{StoredMessage, read_newest};
use shared::subjects;
use shared::time::Timestamp;
use utoipa::ToSchema;

use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery};

#[derive(Serialize, ToSchema)]
#[schema(as = Change)]
struct Entry {
    #[schema(value_type = terms::Time)]
    at: Timestamp,
    /// `admin`, an API key's id, `jwt:` and a subject, or an owner of a partition.
    by: String,
    action: &'static str,
    target: Target,
    /// Of the thing as it was then, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<terms::Status>, nullable = false)]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChangeTarget)]
struct Target {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
}

#[utoipa::path(
    get,
    path = "/audit",
    operation_id = "list_audit",
    summary = "List who changed what",
    tag = "Audit",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of changes, newest first", body = List<Entry>),
    ),
)]
pub(super) async fn list(
    caller: Principal,
    app: OpenApp,
    page: Page<u64>,
) -> Result<HttpResponse, ApiError> {
    let filter = subjects::registry_of_project(caller.project);
    let read = read_newest(
        &app.nats.registry,
        &filter,
        page.after().map(Sequence),
        page.limit(),
        |message| entry(&message),
    )
    .await?;
    let entries = read.found.into_iter().map(|(_, entry)| entry).collect();
    Ok(HttpResponse::Ok().json(List::going_on(entries, read.before)))
}

/// `None` for what is not readable, and for what stands beside another entry that says more.
fn entry(message: &StoredMessage) -> Option<Entry> {
    let (_, aggregate, id) = subjects::parse_registry(&message.subject)?;
    let RegistryRecord { at, by, entry } = codec::decode_record(&message.payload).ok()?;
    let told = Told::of(entry)?;
    Some(Entry {
        at,
        by,
        action: told.action,
        target: Target {
            kind: aggregate.as_str(),
            id: id.to_owned(),
        },
        name: told.name,
        status: told.status,
        reason: told.reason,
    })
}

/// An entry in words.
struct Told {
    action: &'static str,
    name: Option<String>,
    status: Option<Status>,
    reason: Option<String>,
}

impl Told {
    fn of(entry: RegistryEntry) -> Option<Self> {
        let told = |action| {
            Some(Self {
                action,
                name: None,
                status: None,
                reason: None,
            })
        };
        let named = |action, name| {
            Some(Self {
                action,
                name: Some(name),
                status: None,
                reason: None,
            })
        };
        match entry {
            RegistryEntry::ProjectCreated { name } => named("project.created", name),
            RegistryEntry::ProjectDeleted => told("project.deleted"),
            RegistryEntry::DataKeyCreated { .. }
            | RegistryEntry::DataKeyResealed { .. }
            | RegistryEntry::SigningSecretErased
            | RegistryEntry::Erased
            | RegistryEntry::ProjectErased { .. } => None,
            RegistryEntry::ApiKeyCreated { name, .. } => named("api_key.created", name),
            RegistryEntry::ApiKeyRevoked => told("api_key.revoked"),
            RegistryEntry::AccountCreated(_) => told("account.created"),
            RegistryEntry::AccountUpdated(_) => told("account.updated"),
            RegistryEntry::AccountDeleted(_) => told("account.deleted"),
            RegistryEntry::WebhookCreated { .. } => told("webhook.created"),
            RegistryEntry::WebhookUpdated(_) => told("webhook.updated"),
            RegistryEntry::WebhookDeleted => told("webhook.deleted"),
            RegistryEntry::SigningSecretAdded { .. } => told("signing_secret.added"),
            RegistryEntry::SigningSecretDeleted { .. } => told("signing_secret.deleted"),
            RegistryEntry::WebhookVerified { status } => Some(Self {
                action: "webhook.verified",
                name: None,
                status: Some(status),
                reason: None,
            }),
            RegistryEntry::WebhookStatusSet { status, reason, .. } => Some(Self {
                action: "webhook.status_set",
                name: None,
                status: Some(status),
                reason,
            }),
        }
    }
}
