//! A webhook as HR-ON's guide prints it.

use serde::Serialize;
use shared::dialect::hr_on;
use shared::domain::webhook::Webhook;
use shared::time::Timestamp;
use utoipa::ToSchema;

use crate::api::openapi::terms;

/// `item`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HrOnWebhook)]
pub(super) struct WebhookResource {
    #[schema(value_type = terms::BareId)]
    id: String,
    /// The project, as a bare UUID.
    #[schema(value_type = terms::BareId)]
    company_id: String,
    endpoint: String,
    /// The caller's own word, which it may ask for as often as it likes.
    token: String,
    /// Null when it is not verified, was updated since, or was deactivated.
    #[schema(value_type = Option<terms::Time>, required)]
    verified_at: Option<Timestamp>,
    #[schema(value_type = terms::Time)]
    created_at: Timestamp,
    #[schema(value_type = terms::Time)]
    updated_at: Timestamp,
    /// Failures one after another.
    failed: u32,
    events: Vec<EventResource>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HrOnEvent)]
struct EventResource {
    name: &'static str,
    description: &'static str,
}

/// An event as it is sent; a field that its name decides holds the record's id.
#[derive(ToSchema)]
#[schema(as = HrOnTriggered, rename_all = "camelCase")]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct Triggered {
    message: String,
    event_name: String,
    #[schema(value_type = terms::Time)]
    sent_at: Timestamp,
}

impl WebhookResource {
    pub(super) fn new(webhook: &Webhook, failed: u32) -> Self {
        let definition = &webhook.definition;
        let names = hr_on::event_names(&definition.selection).unwrap_or_default();
        let events = names.into_iter().map(|name| EventResource {
            name,
            description: hr_on::describe(name),
        });
        Self {
            id: webhook.id.uuid().to_string(),
            company_id: webhook.project.uuid().to_string(),
            endpoint: webhook.endpoint.url.as_str().to_owned(),
            token: webhook.endpoint.token.clone().unwrap_or_default(),
            verified_at: definition.verified_at,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            failed,
            events: events.collect(),
        }
    }
}
