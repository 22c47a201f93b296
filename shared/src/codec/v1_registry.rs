//! Version 1 of registry records. Never edited once released; enum variants are appended only.

use serde::{Deserialize, Serialize};

use super::DecodeError;
use super::mirror::{Mirror, mirror};
use super::v1::{Id, Position};
use super::v1_journal::Place;
use crate::domain::account::AccountDefinition as DomainAccount;
use crate::domain::filter::{
    Pattern, Selection, Selector as DomainSelector, SourceFilter as DomainSource,
};
use crate::domain::policy::{Ordering as DomainOrdering, Policy as DomainPolicy};
use crate::domain::registry::{DecidedAt as DomainDecidedAt, RegistryEntry, RegistryRecord};
use crate::domain::webhook::{
    Dialect as DomainDialect, Status as DomainStatus, WebhookDefinition as DomainWebhook,
};
use crate::ids::{SecretId, Sequence, WebhookId};
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    at_ms: i64,
    by: String,
    entry: Entry,
}

#[derive(Serialize, Deserialize)]
enum Entry {
    ProjectCreated {
        name: String,
    },
    ProjectDeleted,
    DataKeyCreated {
        sealed: Vec<u8>,
    },
    ApiKeyCreated {
        name: String,
        hash: [u8; 32],
    },
    ApiKeyRevoked,
    AccountCreated(AccountDefinition),
    AccountUpdated(AccountDefinition),
    AccountDeleted(AccountDefinition),
    WebhookCreated {
        from: Position,
        definition: WebhookDefinition,
    },
    WebhookUpdated(WebhookDefinition),
    WebhookDeleted,
    SigningSecretAdded {
        webhook: Id,
        sealed: Vec<u8>,
    },
    WebhookStatusSet {
        status: Status,
        reason: Option<String>,
        decided: Option<DecidedAt>,
    },
    SigningSecretDeleted {
        secret: Id,
    },
    SigningSecretErased,
    WebhookVerified {
        status: Status,
    },
    DataKeyResealed {
        sealed: Vec<u8>,
    },
    Erased,
    ProjectErased {
        through: u64,
    },
}

mirror! {
    struct DecidedAt = DomainDecidedAt {
        epoch: u64,
        place: Place,
    }
}

#[derive(Serialize, Deserialize)]
struct AccountDefinition {
    provider: String,
    name: Option<String>,
    origin_owner_id: String,
    origin_owner_name: Option<String>,
    origin_username: Option<String>,
    sealed_secrets: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct WebhookDefinition {
    dialect: Dialect,
    sealed_endpoint: Vec<u8>,
    selectors: Vec<Selector>,
    description: Option<String>,
    verification_required: bool,
    verified_at_ms: Option<i64>,
    policy: Policy,
    status: Status,
    status_reason: Option<String>,
    active_secret: Id,
    previous_secret: Option<Id>,
}

#[derive(Serialize, Deserialize)]
struct Selector {
    /// `*`, `resource.*` or an event type. Not checked against the catalog, which changes from
    /// release to release while the log stays.
    pattern: String,
    providers: Vec<String>,
    sources: Vec<SourceFilter>,
}

#[derive(Serialize, Deserialize)]
enum SourceFilter {
    Native,
    NativeProgrammatic,
    NativeManual,
    Synthetic,
    Account,
    FirstParty,
}

#[derive(Serialize, Deserialize)]
enum Dialect {
    Stackone,
    HrOn,
}

mirror! {
    enum Status = DomainStatus {
        PendingVerification,
        Enabled,
        Disabled,
        Deactivated,
        Quarantined,
    }
}

#[derive(Serialize, Deserialize)]
struct Policy {
    ordering: Ordering,
    max_in_flight: u16,
    timeout_ms: u32,
    rate_limit_per_second: Option<u32>,
    retry_schedule_ms: Vec<u64>,
    deactivate_after_consecutive_failures: Option<u32>,
    deactivate_after_failing_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
enum Ordering {
    PerRecord,
    Strict,
    None,
}

impl From<&RegistryRecord> for Record {
    fn from(record: &RegistryRecord) -> Self {
        Self {
            at_ms: record.at.as_millis(),
            by: record.by.clone(),
            entry: (&record.entry).into(),
        }
    }
}

impl TryFrom<Record> for RegistryRecord {
    type Error = DecodeError;

    fn try_from(wire: Record) -> Result<Self, DecodeError> {
        Ok(Self {
            at: Timestamp::from_millis(wire.at_ms),
            by: wire.by,
            entry: wire.entry.try_into()?,
        })
    }
}

impl From<&RegistryEntry> for Entry {
    fn from(entry: &RegistryEntry) -> Self {
        use RegistryEntry as E;
        match entry {
            E::ProjectCreated { name } => Self::ProjectCreated { name: name.clone() },
            E::ProjectDeleted => Self::ProjectDeleted,
            E::DataKeyCreated { sealed } => Self::DataKeyCreated {
                sealed: sealed.clone(),
            },
            E::ApiKeyCreated { name, hash } => Self::ApiKeyCreated {
                name: name.clone(),
                hash: *hash,
            },
            E::ApiKeyRevoked => Self::ApiKeyRevoked,
            E::AccountCreated(definition) => Self::AccountCreated(definition.into()),
            E::AccountUpdated(definition) => Self::AccountUpdated(definition.into()),
            E::AccountDeleted(definition) => Self::AccountDeleted(definition.into()),
            E::WebhookCreated { from, definition } => Self::WebhookCreated {
                from: Position::of(from),
                definition: definition.into(),
            },
            E::WebhookUpdated(definition) => Self::WebhookUpdated(definition.into()),
            E::WebhookDeleted => Self::WebhookDeleted,
            E::SigningSecretAdded { webhook, sealed } => Self::SigningSecretAdded {
                webhook: webhook.to_bytes(),
                sealed: sealed.clone(),
            },
            E::WebhookStatusSet {
                status,
                reason,
                decided,
            } => Self::WebhookStatusSet {
                status: Status::of(status),
                reason: reason.clone(),
                decided: Option::of(decided),
            },
            E::SigningSecretDeleted { secret } => Self::SigningSecretDeleted {
                secret: secret.to_bytes(),
            },
            E::SigningSecretErased => Self::SigningSecretErased,
            E::WebhookVerified { status } => Self::WebhookVerified {
                status: Status::of(status),
            },
            E::DataKeyResealed { sealed } => Self::DataKeyResealed {
                sealed: sealed.clone(),
            },
            E::Erased => Self::Erased,
            E::ProjectErased { through } => Self::ProjectErased { through: through.0 },
        }
    }
}

impl TryFrom<Entry> for RegistryEntry {
    type Error = DecodeError;

    fn try_from(wire: Entry) -> Result<Self, DecodeError> {
        Ok(match wire {
            Entry::ProjectCreated { name } => Self::ProjectCreated { name },
            Entry::ProjectDeleted => Self::ProjectDeleted,
            Entry::DataKeyCreated { sealed } => Self::DataKeyCreated { sealed },
            Entry::ApiKeyCreated { name, hash } => Self::ApiKeyCreated { name, hash },
            Entry::ApiKeyRevoked => Self::ApiKeyRevoked,
            Entry::AccountCreated(wire) => Self::AccountCreated(wire.into()),
            Entry::AccountUpdated(wire) => Self::AccountUpdated(wire.into()),
            Entry::AccountDeleted(wire) => Self::AccountDeleted(wire.into()),
            Entry::WebhookCreated { from, definition } => Self::WebhookCreated {
                from: from.into_domain(),
                definition: definition.try_into()?,
            },
            Entry::WebhookUpdated(wire) => Self::WebhookUpdated(wire.try_into()?),
            Entry::WebhookDeleted => Self::WebhookDeleted,
            Entry::SigningSecretAdded { webhook, sealed } => Self::SigningSecretAdded {
                webhook: WebhookId::from_bytes(webhook),
                sealed,
            },
            Entry::WebhookStatusSet {
                status,
                reason,
                decided,
            } => Self::WebhookStatusSet {
                status: status.into_domain(),
                reason,
                decided: decided.into_domain(),
            },
            Entry::SigningSecretDeleted { secret } => Self::SigningSecretDeleted {
                secret: SecretId::from_bytes(secret),
            },
            Entry::SigningSecretErased => Self::SigningSecretErased,
            Entry::WebhookVerified { status } => Self::WebhookVerified {
                status: status.into_domain(),
            },
            Entry::DataKeyResealed { sealed } => Self::DataKeyResealed { sealed },
            Entry::Erased => Self::Erased,
            Entry::ProjectErased { through } => Self::ProjectErased {
                through: Sequence(through),
            },
        })
    }
}

impl From<&DomainAccount> for AccountDefinition {
    fn from(account: &DomainAccount) -> Self {
        Self {
            provider: account.provider.clone(),
            name: account.name.clone(),
            origin_owner_id: account.origin_owner_id.clone(),
            origin_owner_name: account.origin_owner_name.clone(),
            origin_username: account.origin_username.clone(),
            sealed_secrets: account.sealed_secrets.clone(),
        }
    }
}

impl From<AccountDefinition> for DomainAccount {
    fn from(wire: AccountDefinition) -> Self {
        Self {
            provider: wire.provider,
            name: wire.name,
            origin_owner_id: wire.origin_owner_id,
            origin_owner_name: wire.origin_owner_name,
            origin_username: wire.origin_username,
            sealed_secrets: wire.sealed_secrets,
        }
    }
}

impl From<&DomainWebhook> for WebhookDefinition {
    fn from(webhook: &DomainWebhook) -> Self {
        Self {
            dialect: match webhook.dialect {
                DomainDialect::Stackone => Dialect::Stackone,
                DomainDialect::HrOn => Dialect::HrOn,
            },
            sealed_endpoint: webhook.sealed_endpoint.clone(),
            selectors: webhook
                .selection
                .selectors()
                .iter()
                .map(Into::into)
                .collect(),
            description: webhook.description.clone(),
            verification_required: webhook.verification_required,
            verified_at_ms: webhook.verified_at.map(Timestamp::as_millis),
            policy: (&webhook.policy).into(),
            status: Status::of(&webhook.status),
            status_reason: webhook.status_reason.clone(),
            active_secret: webhook.active_secret.to_bytes(),
            previous_secret: webhook.previous_secret.map(SecretId::to_bytes),
        }
    }
}

impl TryFrom<WebhookDefinition> for DomainWebhook {
    type Error = DecodeError;

    fn try_from(wire: WebhookDefinition) -> Result<Self, DecodeError> {
        let selectors = wire
            .selectors
            .into_iter()
            .map(DomainSelector::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            dialect: match wire.dialect {
                Dialect::Stackone => DomainDialect::Stackone,
                Dialect::HrOn => DomainDialect::HrOn,
            },
            sealed_endpoint: wire.sealed_endpoint,
            selection: Selection::stored(selectors),
            description: wire.description,
            verification_required: wire.verification_required,
            verified_at: wire.verified_at_ms.map(Timestamp::from_millis),
            policy: wire.policy.into(),
            status: wire.status.into_domain(),
            status_reason: wire.status_reason,
            active_secret: SecretId::from_bytes(wire.active_secret),
            previous_secret: wire.previous_secret.map(SecretId::from_bytes),
        })
    }
}

impl From<&DomainSelector> for Selector {
    fn from(selector: &DomainSelector) -> Self {
        let source = |source: &DomainSource| match source {
            DomainSource::Native => SourceFilter::Native,
            DomainSource::NativeProgrammatic => SourceFilter::NativeProgrammatic,
            DomainSource::NativeManual => SourceFilter::NativeManual,
            DomainSource::Synthetic => SourceFilter::Synthetic,
            DomainSource::Account => SourceFilter::Account,
            DomainSource::FirstParty => SourceFilter::FirstParty,
        };
        Self {
            pattern: selector.pattern.to_string(),
            providers: selector.providers.clone(),
            sources: selector.sources.iter().map(source).collect(),
        }
    }
}

impl TryFrom<Selector> for DomainSelector {
    type Error = DecodeError;

    fn try_from(wire: Selector) -> Result<Self, DecodeError> {
        let source = |source: SourceFilter| match source {
            SourceFilter::Native => DomainSource::Native,
            SourceFilter::NativeProgrammatic => DomainSource::NativeProgrammatic,
            SourceFilter::NativeManual => DomainSource::NativeManual,
            SourceFilter::Synthetic => DomainSource::Synthetic,
            SourceFilter::Account => DomainSource::Account,
            SourceFilter::FirstParty => DomainSource::FirstParty,
        };
        Ok(Self {
            pattern: Pattern::stored(&wire.pattern).map_err(DecodeError::malformed)?,
            providers: wire.providers,
            sources: wire.sources.into_iter().map(source).collect(),
        })
    }
}

impl From<&DomainPolicy> for Policy {
    fn from(policy: &DomainPolicy) -> Self {
        Self {
            ordering: match policy.ordering {
                DomainOrdering::PerRecord => Ordering::PerRecord,
                DomainOrdering::Strict => Ordering::Strict,
                DomainOrdering::None => Ordering::None,
            },
            max_in_flight: policy.max_in_flight,
            timeout_ms: policy.timeout_ms,
            rate_limit_per_second: policy.rate_limit_per_second,
            retry_schedule_ms: policy.retry_schedule_ms.clone(),
            deactivate_after_consecutive_failures: policy.deactivate_after_consecutive_failures,
            deactivate_after_failing_ms: policy.deactivate_after_failing_ms,
        }
    }
}

impl From<Policy> for DomainPolicy {
    fn from(wire: Policy) -> Self {
        Self {
            ordering: match wire.ordering {
                Ordering::PerRecord => DomainOrdering::PerRecord,
                Ordering::Strict => DomainOrdering::Strict,
                Ordering::None => DomainOrdering::None,
            },
            max_in_flight: wire.max_in_flight,
            timeout_ms: wire.timeout_ms,
            rate_limit_per_second: wire.rate_limit_per_second,
            retry_schedule_ms: wire.retry_schedule_ms,
            deactivate_after_consecutive_failures: wire.deactivate_after_consecutive_failures,
            deactivate_after_failing_ms: wire.deactivate_after_failing_ms,
        }
    }
}
