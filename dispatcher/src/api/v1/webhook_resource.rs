//! Webhooks and signing secrets as `/v1` shows them, those of both dialects.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::domain::filter::Selection;
use shared::domain::policy::Policy;
use shared::domain::webhook::{Dialect, SigningSecret, Status, Webhook};
use shared::ids::SecretId;
use shared::time::Timestamp;
use utoipa::ToSchema;

use super::endpoint_headers::MASK;
use crate::api::openapi::terms;

#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(super) struct WebhookResource {
    /// As the webhook's own dialect prints it.
    #[schema(value_type = terms::WebhookId)]
    id: String,
    /// In lists without the query, which may hold a token.
    url: String,
    #[schema(value_type = terms::Dialect)]
    dialect: Dialect,
    #[schema(value_type = terms::Status)]
    status: Status,
    #[schema(required)]
    status_reason: Option<String>,
    #[schema(value_type = Vec<terms::Selector>)]
    events: Selection,
    #[schema(required)]
    description: Option<String>,
    /// Values are masked: they may be credentials.
    #[schema(value_type = HashMap<String, String>)]
    headers: BTreeMap<String, &'static str>,
    verification_required: bool,
    #[schema(value_type = Option<terms::Time>, required)]
    verified_at: Option<Timestamp>,
    #[schema(value_type = terms::Policy)]
    policy: Policy,
    signing_secrets: Vec<SigningSecretResource>,
    #[schema(value_type = terms::Time)]
    created_at: Timestamp,
    #[schema(value_type = terms::Time)]
    updated_at: Timestamp,
    /// After a change: whether the owner confirmed it in time. It holds either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    applied: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SigningSecret)]
pub(super) struct SigningSecretResource {
    #[schema(value_type = terms::SecretId)]
    id: SecretId,
    /// Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<String>,
    active: bool,
    #[schema(value_type = terms::Time)]
    created_at: Timestamp,
    /// As of a webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    applied: Option<bool>,
}

impl WebhookResource {
    pub(super) fn in_list(webhook: &Webhook) -> Self {
        let definition = &webhook.definition;
        let headers = &webhook.endpoint.headers;
        let secrets = webhook.secrets.iter();
        Self {
            id: printed_id(webhook),
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
            verified_at: definition.verified_at,
            policy: definition.policy.clone(),
            signing_secrets: secrets
                .map(|secret| SigningSecretResource::in_list(webhook, secret))
                .collect(),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            applied: None,
        }
    }

    pub(super) fn whole(webhook: &Webhook) -> Self {
        let mut resource = Self::in_list(webhook);
        resource.url = webhook.endpoint.url.as_str().to_owned();
        for (shown, secret) in resource.signing_secrets.iter_mut().zip(&webhook.secrets) {
            shown.secret = Some(secret_text(secret));
        }
        resource
    }

    pub(super) fn after_change(webhook: &Webhook, applied: bool) -> Self {
        Self {
            applied: Some(applied),
            ..Self::whole(webhook)
        }
    }
}

impl SigningSecretResource {
    pub(super) fn in_list(webhook: &Webhook, secret: &SigningSecret) -> Self {
        Self {
            id: secret.id,
            secret: None,
            active: secret.id == webhook.definition.active_secret,
            created_at: secret.created_at,
            applied: None,
        }
    }

    pub(super) fn whole(webhook: &Webhook, secret: &SigningSecret) -> Self {
        Self {
            secret: Some(secret_text(secret)),
            ..Self::in_list(webhook, secret)
        }
    }

    pub(super) fn after_change(webhook: &Webhook, secret: &SigningSecret, applied: bool) -> Self {
        Self {
            applied: Some(applied),
            ..Self::in_list(webhook, secret)
        }
    }
}

/// The id as the webhook's own dialect prints it.
pub(super) fn printed_id(webhook: &Webhook) -> String {
    match webhook.definition.dialect {
        Dialect::Stackone => webhook.id.to_string(),
        Dialect::HrOn => webhook.id.uuid().to_string(),
    }
}

fn secret_text(secret: &SigningSecret) -> String {
    secret.secret.reveal().to_owned()
}
