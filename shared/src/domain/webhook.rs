//! A subscriber's endpoint: where, what, signed how, and in which status.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::endpoint_url::EndpointUrl;
use super::filter::Selection;
use super::policy::Policy;
use crate::ids::{ProjectId, SecretId, Sequence, WebhookId};
use crate::limits::VERSION_HISTORY_MS;
use crate::secret::Secret;
use crate::signing::Signers;
use crate::time::Timestamp;

/// The shape of payload, headers and management API that a webhook speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    Stackone,
    HrOn,
}

impl Dialect {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stackone => "stackone",
            Self::HrOn => "hr-on",
        }
    }
}

/// What becomes of events is the table in `protocol.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    PendingVerification,
    Enabled,
    Disabled,
    Deactivated,
    Quarantined,
}

/// What the caller decides about a webhook, whole: the state after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookDefinition {
    pub dialect: Dialect,
    /// URL (its query may hold a token) and static headers, sealed as JSON of [`Endpoint`].
    pub sealed_endpoint: Vec<u8>,
    pub selection: Selection,
    pub description: Option<String>,
    pub verification_required: bool,
    pub policy: Policy,
    pub status: Status,
    pub status_reason: Option<String>,
    /// The secret that signs.
    pub active_secret: SecretId,
    /// The secret that signed before it, for as long as that exists.
    pub previous_secret: Option<SecretId>,
}

/// The sealed part of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub url: EndpointUrl,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// A signing secret as the registry holds it.
#[derive(Clone, Debug)]
pub struct SigningSecret {
    pub id: SecretId,
    pub secret: Secret,
    pub created_at: Timestamp,
}

/// A webhook, folded and unsealed.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: WebhookId,
    pub project: ProjectId,
    pub definition: WebhookDefinition,
    pub endpoint: Endpoint,
    pub secrets: Vec<SigningSecret>,
    pub signers: Arc<Signers>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Registry sequence of the last entry, and its ETag.
    pub sequence: Sequence,
    /// First position in EVENTS that the webhook classifies: creation alone reaches back.
    pub from: crate::ids::Position,
    /// Oldest first; the last one is what holds now. Older than what a retained event needs
    /// are dropped.
    pub versions: Vec<WebhookVersion>,
    pub deleted: bool,
}

/// What classifies events under one registry entry.
#[derive(Clone, Debug)]
pub struct WebhookVersion {
    pub registry_sequence: Sequence,
    pub at: Timestamp,
    pub selection: Arc<Selection>,
    /// `None` once deleted.
    pub status: Option<Status>,
}

impl Webhook {
    /// Adds the version of one entry, and drops those that were superseded so long ago that no
    /// retained event can have been classified by them.
    pub(crate) fn push_version(&mut self, version: WebhookVersion) {
        let horizon = version.at.plus_millis(-VERSION_HISTORY_MS);
        let superseded_before_horizon = self
            .versions
            .iter()
            .skip(1)
            .take_while(|next| next.at < horizon)
            .count();
        self.versions.drain(..superseded_before_horizon);
        self.versions.push(version);
    }

    pub fn version(&self, registry_sequence: Sequence) -> Option<&WebhookVersion> {
        self.versions
            .iter()
            .rev()
            .find(|version| version.registry_sequence == registry_sequence)
    }
}
