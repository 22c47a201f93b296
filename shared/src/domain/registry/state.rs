//! The projection of REGISTRY that every replica of both services keeps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::deleted::DeletedProject;
use super::seal_context;
use super::{Aggregate, RegistryEntry, RegistryRecord, SEALED_ACCOUNT, SEALED_DATA_KEY};
use crate::domain::account::{Account, AccountDefinition};
use crate::domain::project::{ApiKey, Project};
use crate::domain::webhook::{SigningSecret, Webhook};
use crate::ids::{AccountId, KeyId, ProjectId, SecretId, Sequence, WebhookId};
use crate::secret::{DataKey, MasterKeys, UnsealError};
use crate::time::Timestamp;

/// What folding REGISTRY up to [`RegistryState::applied`] gives.
#[derive(Debug, Default)]
pub struct RegistryState {
    pub(super) projects: HashMap<ProjectId, Project>,
    pub(super) deleted: BTreeMap<ProjectId, DeletedProject>,
    pub(super) keys_by_hash: HashMap<[u8; 32], (ProjectId, KeyId)>,
    pub(super) accounts: HashMap<AccountId, Arc<Account>>,
    /// Of deleted ones stays what classifies events of before, for as long as those are retained.
    pub(super) webhooks: HashMap<WebhookId, Arc<Webhook>>,
    pub(super) secrets: HashMap<WebhookId, Vec<SigningSecret>>,
    /// Deleted, but still in the log: with the project, and the last entry of its subject.
    pub(super) erasable: BTreeMap<SecretId, (ProjectId, Sequence)>,
    /// Erased ones whose bytes this fold has met, until somebody says that they are overwritten.
    pub(super) overwritable: BTreeMap<SecretId, Sequence>,
    applied: Sequence,
    /// The latest time that an entry named.
    pub(super) now: Timestamp,
    /// `now` when what had been outlived was last forgotten.
    pub(super) forgotten_at: Timestamp,
}

/// What one entry changed, for whoever follows the projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub sequence: Sequence,
    pub project: ProjectId,
    pub what: Changed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Webhook(WebhookId),
    Account(AccountId),
    ProjectDeleted,
    Other,
}

/// The entry could not be folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("the subject names no valid id")]
    BadSubject,
    #[error("the entry does not fit what came before it")]
    Inconsistent,
    #[error("the project's data key is not there")]
    NoDataKey,
    #[error(transparent)]
    Unseal(#[from] UnsealError),
}

impl RegistryState {
    /// Sequence of the last entry that was folded.
    pub fn applied(&self) -> Sequence {
        self.applied
    }

    pub fn project(&self, id: ProjectId) -> Option<&Project> {
        self.projects.get(&id)
    }

    pub fn projects(&self) -> impl Iterator<Item = &Project> {
        self.projects.values()
    }

    /// Whose API key hashes to `hash`.
    pub fn api_key(&self, hash: &[u8; 32]) -> Option<(ProjectId, KeyId)> {
        self.keys_by_hash.get(hash).copied()
    }

    pub fn account(&self, id: AccountId) -> Option<&Arc<Account>> {
        self.accounts.get(&id)
    }

    /// `None` when it is another project's.
    pub fn account_of(&self, project: ProjectId, id: AccountId) -> Option<&Arc<Account>> {
        self.account(id)
            .filter(|account| account.project == project)
    }

    /// Deleted webhooks included, as [`Self::webhooks`] says.
    pub fn webhook(&self, id: WebhookId) -> Option<&Arc<Webhook>> {
        self.webhooks.get(&id)
    }

    /// All webhooks, those included that were deleted less than some two weeks ago.
    pub fn webhooks(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.webhooks.values()
    }

    /// `None` when it is deleted or another project's.
    pub fn webhook_of(&self, project: ProjectId, id: WebhookId) -> Option<&Arc<Webhook>> {
        self.webhook(id)
            .filter(|webhook| webhook.project == project && !webhook.deleted)
    }

    /// Marks `sequence` as read even when its entry could not be folded.
    pub fn skip_to(&mut self, sequence: Sequence) {
        self.applied = self.applied.max(sequence);
    }

    /// Whether the entries of the project cannot be opened before its data key is learnt from further
    /// on in the log, where it stands once it was sealed anew.
    pub fn lacks_data_key(&self, project: ProjectId) -> bool {
        let project = self.projects.get(&project);
        project.is_some_and(|project| project.data_key.is_none())
    }

    /// Takes a project's data key from an entry that is yet to be folded. Nothing becomes of one
    /// that holds none.
    pub fn learn_data_key(
        &mut self,
        project: ProjectId,
        entry: &RegistryEntry,
        keys: &MasterKeys,
    ) -> Result<(), ApplyError> {
        if let RegistryEntry::DataKeyCreated { sealed }
        | RegistryEntry::DataKeyResealed { sealed } = entry
        {
            let key = unseal_data_key(project, sealed, keys)?;
            self.known_project(project)?.data_key = Some(Arc::new(key));
        }
        Ok(())
    }

    /// Folds one entry. An entry at or below [`Self::applied`] changes nothing.
    pub fn apply(
        &mut self,
        (project, aggregate, id): (ProjectId, Aggregate, &str),
        sequence: Sequence,
        record: &RegistryRecord,
        keys: &MasterKeys,
    ) -> Result<Change, ApplyError> {
        let what = if sequence <= self.applied {
            Changed::Other
        } else if self.deleted.contains_key(&project) {
            self.applied = sequence;
            self.forget_outlived(record.at);
            self.apply_to_deleted(project, sequence, record)
        } else {
            self.applied = sequence;
            self.forget_outlived(record.at);
            match aggregate {
                Aggregate::Project | Aggregate::DataKey => {
                    self.apply_project(project, sequence, record, keys)?
                }
                Aggregate::ApiKey => self.apply_api_key(project, parse(id)?, sequence, record)?,
                Aggregate::Account => self.apply_account(project, parse(id)?, sequence, record)?,
                Aggregate::Webhook => self.apply_webhook(project, parse(id)?, sequence, record)?,
                Aggregate::SigningSecret => {
                    self.apply_signing_secret(project, parse(id)?, sequence, record)?
                }
            }
        };
        Ok(Change {
            sequence,
            project,
            what,
        })
    }

    fn apply_project(
        &mut self,
        id: ProjectId,
        sequence: Sequence,
        record: &RegistryRecord,
        keys: &MasterKeys,
    ) -> Result<Changed, ApplyError> {
        match &record.entry {
            RegistryEntry::DataKeyCreated { sealed }
            | RegistryEntry::DataKeyResealed { sealed } => {
                let key = unseal_data_key(id, sealed, keys);
                let project = self.project_entry(id, record);
                project.data_key_sequence = sequence;
                match key {
                    Ok(key) => project.data_key = Some(Arc::new(key)),
                    // Sealed with a master key that this process was not told of; but it is the
                    // same data key.
                    Err(ApplyError::Unseal(UnsealError::UnknownKey(_)))
                        if project.data_key.is_some() => {}
                    Err(error) => return Err(error),
                }
                Ok(Changed::Other)
            }
            RegistryEntry::ProjectCreated { name } => {
                let project = self.project_entry(id, record);
                project.name.clone_from(name);
                project.sequence = sequence;
                Ok(Changed::Other)
            }
            RegistryEntry::ProjectDeleted => {
                self.delete_project(id, sequence, record);
                Ok(Changed::ProjectDeleted)
            }
            _ => Err(ApplyError::Inconsistent),
        }
    }

    /// A project appears with its data key, which is appended before it, but comes later in the log
    /// once it was sealed anew.
    fn project_entry(&mut self, id: ProjectId, record: &RegistryRecord) -> &mut Project {
        self.projects.entry(id).or_insert_with(|| Project {
            id,
            name: String::new(),
            created_at: record.at,
            sequence: Sequence(0),
            data_key: None,
            data_key_sequence: Sequence(0),
            api_keys: Default::default(),
            accounts: Default::default(),
            webhooks: Default::default(),
            webhook_bytes: 0,
        })
    }

    fn apply_api_key(
        &mut self,
        project: ProjectId,
        id: KeyId,
        sequence: Sequence,
        record: &RegistryRecord,
    ) -> Result<Changed, ApplyError> {
        let keys = &mut self.known_project(project)?.api_keys;
        match &record.entry {
            RegistryEntry::ApiKeyCreated { name, hash } => {
                let key = ApiKey {
                    id,
                    name: name.clone(),
                    hash: *hash,
                    created_at: record.at,
                    sequence,
                };
                keys.insert(id, key);
                self.keys_by_hash.insert(*hash, (project, id));
            }
            RegistryEntry::ApiKeyRevoked => {
                let key = keys.remove(&id).ok_or(ApplyError::Inconsistent)?;
                self.keys_by_hash.remove(&key.hash);
            }
            _ => return Err(ApplyError::Inconsistent),
        }
        Ok(Changed::Other)
    }

    fn apply_account(
        &mut self,
        project: ProjectId,
        id: AccountId,
        sequence: Sequence,
        record: &RegistryRecord,
    ) -> Result<Changed, ApplyError> {
        let created_at = match &record.entry {
            RegistryEntry::AccountCreated(_) => record.at,
            RegistryEntry::AccountUpdated(_) | RegistryEntry::AccountDeleted(_) => {
                self.account_of(project, id)
                    .ok_or(ApplyError::Inconsistent)?
                    .created_at
            }
            _ => return Err(ApplyError::Inconsistent),
        };
        match &record.entry {
            RegistryEntry::AccountCreated(definition)
            | RegistryEntry::AccountUpdated(definition) => {
                let account = Account {
                    id,
                    project,
                    secrets: unseal_account(project, id, definition, self.data_key(project)?)?,
                    definition: definition.clone(),
                    created_at,
                    updated_at: record.at,
                    sequence,
                };
                self.known_project(project)?.accounts.insert(id);
                self.accounts.insert(id, Arc::new(account));
            }
            _ => {
                self.known_project(project)?.accounts.remove(&id);
                self.accounts.remove(&id);
            }
        }
        Ok(Changed::Account(id))
    }

    /// What the project's things are sealed with.
    pub(super) fn data_key(&self, project: ProjectId) -> Result<&DataKey, ApplyError> {
        let project = self.projects.get(&project);
        let key = project.ok_or(ApplyError::Inconsistent)?.data_key.as_deref();
        key.ok_or(ApplyError::NoDataKey)
    }

    pub(super) fn known_project(&mut self, id: ProjectId) -> Result<&mut Project, ApplyError> {
        self.projects.get_mut(&id).ok_or(ApplyError::Inconsistent)
    }
}

fn parse<T: std::str::FromStr>(id: &str) -> Result<T, ApplyError> {
    id.parse().map_err(|_| ApplyError::BadSubject)
}

fn unseal_data_key(
    project: ProjectId,
    sealed: &[u8],
    keys: &MasterKeys,
) -> Result<DataKey, ApplyError> {
    let context = seal_context(SEALED_DATA_KEY, project, &project.to_string());
    let key = keys.unseal(sealed, &context)?;
    let key = <&[u8; 32]>::try_from(key.as_slice()).map_err(|_| ApplyError::Inconsistent)?;
    Ok(DataKey::new(key))
}

fn unseal_account(
    project: ProjectId,
    id: AccountId,
    definition: &AccountDefinition,
    key: &DataKey,
) -> Result<crate::domain::account::AccountSecrets, ApplyError> {
    let context = seal_context(SEALED_ACCOUNT, project, &id.to_string());
    let plain = key.unseal(&definition.sealed_secrets, &context)?;
    serde_json::from_slice(&plain).map_err(|_| ApplyError::Inconsistent)
}
