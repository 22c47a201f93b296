//! What was decided about projects, keys, accounts and webhooks: entries, commands, and the
//! state that folding the entries gives.
//!
//! `decide` validates a command against the state and lists what to append; the server checks
//! each append against the subject's last sequence. `apply` folds what was appended. Neither
//! waits, reads a clock or draws randomness: ids, times and sealed bytes arrive in the command.

use crate::ids::{AccountId, Epoch, KeyId, Position, ProjectId, SecretId, Sequence, WebhookId};
use crate::time::Timestamp;

use super::account::AccountDefinition;
use super::journal::{EntryPlace, OwnerDecision};
use super::webhook::{Status, WebhookDefinition};

mod decide;
mod deleted;
mod secrets;
mod state;
#[cfg(test)]
mod tests;
mod webhooks;

pub use decide::decide;
pub use state::{ApplyError, Change, Changed, RegistryState};

/// Kinds of things that have a subject, and so a history, of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aggregate {
    Project,
    DataKey,
    ApiKey,
    Account,
    Webhook,
    SigningSecret,
}

impl Aggregate {
    const ALL: [Self; 6] = [
        Self::Project,
        Self::DataKey,
        Self::ApiKey,
        Self::Account,
        Self::Webhook,
        Self::SigningSecret,
    ];

    /// As it stands in subjects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::DataKey => "data_key",
            Self::ApiKey => "api_key",
            Self::Account => "account",
            Self::Webhook => "webhook",
            Self::SigningSecret => "signing_secret",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// An entry with when and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRecord {
    pub at: Timestamp,
    /// `admin`, a key's id, `owner:{partition}:{epoch}`: what the audit shows.
    pub by: String,
    pub entry: RegistryEntry,
}

/// A fact in REGISTRY. Which thing it is about stands in the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEntry {
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
    /// The last definition, its secrets emptied: the event of the deletion tells whose it was.
    AccountDeleted(AccountDefinition),
    /// `from`: the first position that the webhook classifies (`protocol.md`, rule 11).
    WebhookCreated {
        from: Position,
        definition: WebhookDefinition,
    },
    WebhookUpdated(WebhookDefinition),
    WebhookDeleted,
    SigningSecretAdded {
        webhook: WebhookId,
        sealed: Vec<u8>,
    },
    /// Of the webhook: what may sign for it is decided in one place. The secret itself is erased
    /// after it.
    SigningSecretDeleted {
        secret: SecretId,
    },
    /// The last of a secret's subject, in place of all before it (`protocol.md`, rule 28).
    SigningSecretErased,
    /// The endpoint echoed what it was sent; `status` is what the webhook has from then on.
    WebhookVerified {
        status: Status,
    },
    WebhookStatusSet {
        status: Status,
        /// A word or a text of whoever set it.
        reason: Option<String>,
        /// The owner's decision that this repeats; `None`: a person or a program asked for it,
        /// which lifts what an owner decided before (`protocol.md`, rule 10).
        decided: Option<DecidedAt>,
    },
    /// The data key, under another master key; it is the same key.
    DataKeyResealed {
        sealed: Vec<u8>,
    },
    /// The last of a subject of a deleted project. All before it is overwritten next.
    Erased,
    /// Of the project's own subject: what REGISTRY had of the project through this sequence, and
    /// what EVENTS had, lies there no more.
    ProjectErased {
        through: Sequence,
    },
}

/// Where a decision of a partition's owner stands in JOURNAL. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecidedAt {
    pub epoch: Epoch,
    pub place: EntryPlace,
}

/// Whether an update sends to another URL. It is sealed in the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlChange {
    Same,
    Moved,
}

/// The statuses that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedStatus {
    Enabled,
    Disabled,
}

impl AskedStatus {
    pub const fn status(self) -> Status {
        match self {
            Self::Enabled => Status::Enabled,
            Self::Disabled => Status::Disabled,
        }
    }
}

/// What a caller asks for. Secrets arrive sealed, keys hashed.
#[derive(Clone, Debug)]
pub enum Command {
    CreateProject {
        id: ProjectId,
        name: String,
        sealed_data_key: Vec<u8>,
    },
    DeleteProject {
        id: ProjectId,
    },
    /// The data key of the project, sealed with the current master key.
    ResealDataKey {
        project: ProjectId,
        sealed: Vec<u8>,
    },
    /// Ends a subject of a deleted project, whose last entry lies at `last`.
    EraseOfDeleted {
        project: ProjectId,
        aggregate: Aggregate,
        id: String,
        last: Sequence,
    },
    /// Says that what there was of a deleted project is gone. Asks for nothing when that was said.
    RecordErasure {
        project: ProjectId,
        through: Sequence,
    },
    CreateApiKey {
        project: ProjectId,
        id: KeyId,
        name: String,
        hash: [u8; 32],
    },
    RevokeApiKey {
        project: ProjectId,
        id: KeyId,
    },
    CreateAccount {
        project: ProjectId,
        id: AccountId,
        definition: AccountDefinition,
    },
    UpdateAccount {
        project: ProjectId,
        id: AccountId,
        definition: AccountDefinition,
        /// What the caller's change was made from.
        base: Sequence,
    },
    DeleteAccount {
        project: ProjectId,
        id: AccountId,
        base: Option<Sequence>,
    },
    CreateWebhook {
        project: ProjectId,
        id: WebhookId,
        from: Position,
        definition: WebhookDefinition,
        sealed_secret: Vec<u8>,
    },
    /// The webhook keeps its status, and that it is verified, unless the change calls for another
    /// verification; whatever its definition says of both.
    UpdateWebhook {
        project: ProjectId,
        id: WebhookId,
        definition: WebhookDefinition,
        url: UrlChange,
        base: Sequence,
    },
    /// The endpoint, as the webhook had it at `base`, has proved itself.
    VerifyWebhook {
        project: ProjectId,
        id: WebhookId,
        base: Sequence,
    },
    AddSigningSecret {
        project: ProjectId,
        webhook: WebhookId,
        id: SecretId,
        sealed: Vec<u8>,
    },
    /// Asks for nothing when it is the active one.
    ActivateSigningSecret {
        project: ProjectId,
        webhook: WebhookId,
        id: SecretId,
        base: Option<Sequence>,
    },
    DeleteSigningSecret {
        project: ProjectId,
        webhook: WebhookId,
        id: SecretId,
        base: Option<Sequence>,
    },
    /// Does what is left of a deletion. Asks for nothing when that is done.
    EraseSigningSecret {
        id: SecretId,
    },
    DeleteWebhook {
        project: ProjectId,
        id: WebhookId,
        base: Option<Sequence>,
    },
    /// Asks for nothing when the webhook has that status.
    SetWebhookStatus {
        project: ProjectId,
        id: WebhookId,
        status: AskedStatus,
        reason: Option<String>,
        base: Option<Sequence>,
    },
    /// Shows in the registry what an owner has journaled. Asks for nothing when that is shown, or
    /// when somebody has lifted or deleted it meanwhile.
    RecordDecision {
        project: ProjectId,
        id: WebhookId,
        decision: OwnerDecision,
        decided: DecidedAt,
        /// The webhook's last registry entry that the owner had applied.
        seen: Sequence,
    },
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("not there")]
    NotFound,
    /// The thing changed since the caller read it.
    #[error("changed meanwhile")]
    Stale,
    /// Only a verification gives it another status.
    #[error("the webhook must be verified first")]
    Unverified,
    /// Something must sign.
    #[error("the active signing secret cannot be deleted")]
    ActiveSecret,
    #[error("at most {max} {what} are possible")]
    LimitReached { what: &'static str, max: usize },
}

/// One append that a decision asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub project: ProjectId,
    pub aggregate: Aggregate,
    pub id: String,
    /// Last sequence of the subject as the decision saw it; 0 for a new one.
    pub expected: Sequence,
    pub entry: RegistryEntry,
}

impl Append {
    /// Whether what the subject held before is to be overwritten, once the append is stored: so the
    /// subject keeps a last message, which appends are checked against.
    pub fn erases_history(&self) -> bool {
        self.entry == RegistryEntry::SigningSecretErased
    }
}

/// What seals a field to its place: purpose, project and the id of the thing.
pub fn seal_context(purpose: &str, project: ProjectId, id: &str) -> Vec<u8> {
    format!("carillon 1\0{purpose}\0{project}\0{id}").into_bytes()
}

/// Purposes of sealed fields.
pub const SEALED_DATA_KEY: &str = "data_key";
pub const SEALED_ACCOUNT: &str = "account";
pub const SEALED_ENDPOINT: &str = "endpoint";
pub const SEALED_SIGNING_SECRET: &str = "signing_secret";
pub const SEALED_ANSWER: &str = "answer";

/// Context of a signing secret, which the registry finds by its own id.
pub fn signing_secret_context(project: ProjectId, id: SecretId) -> Vec<u8> {
    seal_context(SEALED_SIGNING_SECRET, project, &id.to_string())
}
