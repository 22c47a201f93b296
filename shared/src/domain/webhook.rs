//! A subscriber's endpoint: where, what, signed how, and in which status.

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::endpoint_url::EndpointUrl;
use super::filter::Selection;
use super::policy::Policy;
use super::registry::DecidedAt;
use crate::ids::{ProjectId, SecretId, Sequence, WebhookId};
use crate::limits::VERSION_HISTORY_MS;
use crate::secret::Secret;
use crate::signing::{Signer, Signers};
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
    /// When the endpoint last proved that it wants our events; `None` once it has to do so again.
    pub verified_at: Option<Timestamp>,
    pub policy: Policy,
    pub status: Status,
    pub status_reason: Option<String>,
    /// The secret that signs.
    pub active_secret: SecretId,
    /// The secret that signed before it, for as long as that exists.
    pub previous_secret: Option<SecretId>,
}

/// The sealed part of a webhook.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub url: EndpointUrl,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// What `hr-on` deliveries carry as `X-HR-ON-Token`. Other dialects have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Without the token and the headers' values, which may be credentials.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("headers", &names)
            .finish()
    }
}

/// A signing secret as the registry holds it.
#[derive(Clone, Debug)]
pub struct SigningSecret {
    pub id: SecretId,
    pub secret: Secret,
    pub created_at: Timestamp,
    /// Registry sequence of its entry.
    pub sequence: Sequence,
}

/// A webhook, folded and unsealed.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: WebhookId,
    pub project: ProjectId,
    pub definition: WebhookDefinition,
    pub endpoint: Endpoint,
    /// In the order in which they were added.
    pub secrets: Vec<SigningSecret>,
    /// `None` while the log is read at a place where a secret signed that is deleted by now: a
    /// later entry names another one, and until that is read nothing can be signed.
    pub signers: Option<Arc<Signers>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Registry sequence of the last entry, and its ETag.
    pub sequence: Sequence,
    /// First position in EVENTS that the webhook classifies: creation alone reaches back.
    pub from: crate::ids::Position,
    /// Oldest first; the last one is what holds now. Older than what a retained event needs
    /// are dropped.
    pub versions: Vec<WebhookVersion>,
    /// The owner's decision that the status shows; `None` once somebody has lifted it.
    pub decided: Option<DecidedAt>,
    /// Then endpoint, secrets and signers are none of its own: see [`Webhook::buried`].
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
    /// Whether it lifts what an owner decided before: somebody enabled, disabled or verified it.
    pub lifts: bool,
}

/// What an entry does to what an owner decided before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifts {
    Nothing,
    Decisions,
}

impl Lifts {
    /// A status that repeats an owner's decision lifts nothing; one that was asked for does.
    fn of(decided: Option<DecidedAt>) -> Self {
        match decided {
            Some(_) => Self::Nothing,
            None => Self::Decisions,
        }
    }
}

/// What a webhook holds beside its texts and versions, about.
const WEBHOOK_BYTES: usize = 1 << 10;
/// Of a version without its selection.
const VERSION_BYTES: usize = size_of::<WebhookVersion>();

impl Webhook {
    /// Adds the version of one entry, and drops those that no retained event needs any more. An
    /// entry that leaves the selection as it was shares it.
    pub(crate) fn push_version(&mut self, mut version: WebhookVersion) {
        self.forget_versions(version.at);
        if let Some(last) = self.versions.last()
            && last.selection == version.selection
        {
            version.selection = Arc::clone(&last.selection);
        }
        self.versions.push(version);
    }

    /// How many versions, oldest first, were superseded so long before `now` that no retained
    /// event can have been classified by them.
    pub(crate) fn versions_outlived(&self, now: Timestamp) -> usize {
        let horizon = now.plus_millis(-VERSION_HISTORY_MS);
        let successors = self.versions.iter().skip(1);
        successors.take_while(|next| next.at < horizon).count()
    }

    pub(crate) fn forget_versions(&mut self, now: Timestamp) {
        let outlived = self.versions_outlived(now);
        self.versions.drain(..outlived);
    }

    /// Whether it takes a verification, and nothing less, to be sent to.
    pub fn lacks_verification(&self) -> bool {
        let definition = &self.definition;
        let is_required = match definition.dialect {
            Dialect::HrOn => true,
            Dialect::Stackone => definition.verification_required,
        };
        is_required && definition.verified_at.is_none()
    }

    /// Another status, for what comes after. An owner's decision lifts nothing.
    pub(crate) fn set_status(
        &mut self,
        sequence: Sequence,
        at: Timestamp,
        status: Status,
        reason: Option<String>,
        decided: Option<DecidedAt>,
    ) {
        // HR-ON: a webhook that was deactivated must be verified again.
        if status == Status::Deactivated && self.definition.dialect == Dialect::HrOn {
            self.definition.verified_at = None;
        }
        self.definition.status_reason = reason;
        self.decided = decided;
        self.moved_on(sequence, at, status, Lifts::of(decided));
    }

    /// The endpoint has proved itself, which lifts whatever was decided about it.
    pub(crate) fn verified(&mut self, sequence: Sequence, at: Timestamp, status: Status) {
        self.definition.verified_at = Some(at);
        self.definition.status_reason = None;
        self.decided = None;
        self.moved_on(sequence, at, status, Lifts::Decisions);
    }

    /// A secret of it is no more.
    pub(crate) fn lost_secret(&mut self, sequence: Sequence, at: Timestamp, secret: SecretId) {
        self.secrets.retain(|held| held.id != secret);
        if self.definition.previous_secret == Some(secret) {
            self.definition.previous_secret = None;
        }
        self.signers = signers(&self.secrets, &self.definition);
        self.moved_on(sequence, at, self.definition.status, Lifts::Nothing);
    }

    /// What an entry leaves that changes at most the status of what classifies.
    fn moved_on(&mut self, sequence: Sequence, at: Timestamp, status: Status, lifts: Lifts) {
        self.definition.status = status;
        self.sequence = sequence;
        self.updated_at = at;
        let selection = self.shared_selection();
        self.push_version(WebhookVersion {
            registry_sequence: sequence,
            at,
            selection,
            status: Some(status),
            lifts: lifts == Lifts::Decisions,
        });
    }

    fn shared_selection(&self) -> Arc<Selection> {
        match self.versions.last() {
            Some(last) => Arc::clone(&last.selection),
            None => Arc::new(self.definition.selection.clone()),
        }
    }

    /// What is left after the deletion: what classifies events of before. Where it sent to, what
    /// it signed with and what it was for are gone.
    pub(crate) fn buried(&self, sequence: Sequence, at: Timestamp) -> Self {
        let selection = self.shared_selection();
        let mut buried = Self {
            id: self.id,
            project: self.project,
            definition: WebhookDefinition {
                dialect: self.definition.dialect,
                sealed_endpoint: Vec::new(),
                selection: Selection::stored(Vec::new()),
                description: None,
                verification_required: self.definition.verification_required,
                verified_at: None,
                policy: self.definition.policy.clone(),
                status: self.definition.status,
                status_reason: None,
                active_secret: self.definition.active_secret,
                previous_secret: self.definition.previous_secret,
            },
            endpoint: NOWHERE.clone(),
            secrets: Vec::new(),
            signers: None,
            created_at: self.created_at,
            updated_at: at,
            sequence,
            from: self.from,
            versions: self.versions.clone(),
            decided: None,
            deleted: true,
        };
        buried.push_version(WebhookVersion {
            registry_sequence: sequence,
            at,
            selection,
            status: None,
            lifts: true,
        });
        buried
    }

    /// What it holds in memory, about.
    pub(crate) fn held_bytes(&self) -> usize {
        let headers = self.endpoint.headers.iter();
        let token = self.endpoint.token.as_ref();
        let texts = headers
            .map(|(name, value)| name.len().saturating_add(value.len()))
            .chain([
                self.endpoint.url.as_str().len(),
                token.map_or(0, String::len),
                self.definition.sealed_endpoint.len(),
                self.definition.selection.held_bytes(),
                self.definition.description.as_ref().map_or(0, String::len),
            ])
            .sum::<usize>();
        let versions = self.versions.iter().zip(
            // The version before each.
            std::iter::once(None).chain(self.versions.iter().map(Some)),
        );
        let versions = versions
            .map(|(version, before)| match before {
                Some(before) if Arc::ptr_eq(&before.selection, &version.selection) => VERSION_BYTES,
                Some(_) | None => VERSION_BYTES.saturating_add(version.selection.held_bytes()),
            })
            .sum::<usize>();
        WEBHOOK_BYTES.saturating_add(texts).saturating_add(versions)
    }

    pub fn version(&self, registry_sequence: Sequence) -> Option<&WebhookVersion> {
        self.versions
            .iter()
            .rev()
            .find(|version| version.registry_sequence == registry_sequence)
    }
}

/// What signs, by the secrets that there are. `None` without the active one.
pub(crate) fn signers(
    secrets: &[SigningSecret],
    definition: &WebhookDefinition,
) -> Option<Arc<Signers>> {
    let signer = |id: SecretId| {
        let found = secrets.iter().find(|secret| secret.id == id)?;
        Signer::new(&found.secret).ok()
    };
    Some(Arc::new(Signers {
        active: signer(definition.active_secret)?,
        previous: definition.previous_secret.and_then(signer),
    }))
}

/// What stands for the endpoint of a deleted webhook: an address that can never resolve (RFC 2606).
static NOWHERE: LazyLock<Endpoint> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the text is a constant")]
    let url = EndpointUrl::parse("https://deleted.invalid/").expect("a url");
    Endpoint {
        url,
        headers: Vec::new(),
        token: None,
    }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_prints_neither_its_query_nor_what_its_headers_say() {
        let endpoint = Endpoint {
            url: EndpointUrl::parse("https://example.com/?token=hunter2").unwrap(),
            headers: vec![("authorization".into(), "Bearer hunter2".into())],
            token: Some("hunter2".into()),
        };
        let printed = format!("{endpoint:?}");
        assert!(printed.contains("authorization"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
