//! The projection of REGISTRY that every replica of both services keeps.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Aggregate, RegistryEntry, RegistryRecord, SEALED_ACCOUNT, SEALED_DATA_KEY};
use super::{SEALED_ENDPOINT, seal_context, signing_secret_context};
use crate::domain::account::{Account, AccountDefinition};
use crate::domain::project::{ApiKey, Project};
use crate::domain::webhook::{SigningSecret, Webhook, WebhookDefinition, WebhookVersion};
use crate::ids::{AccountId, KeyId, Position, ProjectId, SecretId, Sequence, WebhookId};
use crate::secret::{DataKey, MasterKeys, Secret, UnsealError};
use crate::signing::{Signer, Signers};

/// What folding REGISTRY up to [`RegistryState::applied`] gives.
#[derive(Debug, Default)]
pub struct RegistryState {
    projects: HashMap<ProjectId, Project>,
    keys_by_hash: HashMap<[u8; 32], (ProjectId, KeyId)>,
    accounts: HashMap<AccountId, Arc<Account>>,
    /// Deleted ones stay, for the owners that have yet to apply the deletion.
    webhooks: HashMap<WebhookId, Arc<Webhook>>,
    secrets: HashMap<WebhookId, Vec<SigningSecret>>,
    applied: Sequence,
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

    /// Deleted webhooks included.
    pub fn webhook(&self, id: WebhookId) -> Option<&Arc<Webhook>> {
        self.webhooks.get(&id)
    }

    /// All webhooks, deleted ones included.
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
        } else {
            self.applied = sequence;
            match aggregate {
                Aggregate::Project | Aggregate::DataKey => {
                    self.apply_project(project, sequence, record, keys)?
                }
                Aggregate::ApiKey => self.apply_api_key(project, parse(id)?, sequence, record)?,
                Aggregate::Account => {
                    self.apply_account(project, parse(id)?, sequence, record, keys)?
                }
                Aggregate::Webhook => {
                    self.apply_webhook(project, parse(id)?, sequence, record, keys)?
                }
                Aggregate::SigningSecret => {
                    self.apply_signing_secret(project, parse(id)?, record, keys)?
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
            RegistryEntry::DataKeyCreated { sealed } => {
                let context = seal_context(SEALED_DATA_KEY, id, &id.to_string());
                let key = keys.unseal(sealed, &context)?;
                let key =
                    <&[u8; 32]>::try_from(key.as_slice()).map_err(|_| ApplyError::Inconsistent)?;
                self.project_entry(id, record).data_key = Some(Arc::new(DataKey::new(key)));
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

    /// A project appears with its data key, which is appended before it.
    fn project_entry(&mut self, id: ProjectId, record: &RegistryRecord) -> &mut Project {
        self.projects.entry(id).or_insert_with(|| Project {
            id,
            name: String::new(),
            created_at: record.at,
            sequence: Sequence(0),
            data_key: None,
            api_keys: Default::default(),
            accounts: Default::default(),
            webhooks: Default::default(),
        })
    }

    fn delete_project(&mut self, id: ProjectId, sequence: Sequence, record: &RegistryRecord) {
        let Some(project) = self.projects.remove(&id) else {
            return;
        };
        for key in project.api_keys.values() {
            self.keys_by_hash.remove(&key.hash);
        }
        for account in &project.accounts {
            self.accounts.remove(account);
        }
        for webhook in &project.webhooks {
            self.delete_webhook(*webhook, sequence, record);
        }
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
        keys: &MasterKeys,
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
                    secrets: unseal_account(project, id, definition, keys)?,
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

    fn apply_signing_secret(
        &mut self,
        project: ProjectId,
        id: SecretId,
        record: &RegistryRecord,
        keys: &MasterKeys,
    ) -> Result<Changed, ApplyError> {
        let RegistryEntry::SigningSecretAdded { webhook, sealed } = &record.entry else {
            return Err(ApplyError::Inconsistent);
        };
        let plain = keys.unseal(sealed, &signing_secret_context(project, id))?;
        let text = std::str::from_utf8(&plain).map_err(|_| ApplyError::Inconsistent)?;
        self.secrets
            .entry(*webhook)
            .or_default()
            .push(SigningSecret {
                id,
                secret: Secret::new(text),
                created_at: record.at,
            });
        Ok(Changed::Other)
    }

    fn apply_webhook(
        &mut self,
        project: ProjectId,
        id: WebhookId,
        sequence: Sequence,
        record: &RegistryRecord,
        keys: &MasterKeys,
    ) -> Result<Changed, ApplyError> {
        match &record.entry {
            RegistryEntry::WebhookCreated { from, definition } => {
                let webhook =
                    self.fold_webhook((project, id), sequence, *from, definition, record, keys)?;
                self.known_project(project)?.webhooks.insert(id);
                self.webhooks.insert(id, Arc::new(webhook));
            }
            RegistryEntry::WebhookUpdated(definition) => {
                let old = self
                    .webhook_of(project, id)
                    .ok_or(ApplyError::Inconsistent)?
                    .clone();
                let mut webhook =
                    self.fold_webhook((project, id), sequence, old.from, definition, record, keys)?;
                webhook.created_at = old.created_at;
                let versions = std::mem::replace(&mut webhook.versions, old.versions.clone());
                versions
                    .into_iter()
                    .for_each(|version| webhook.push_version(version));
                self.webhooks.insert(id, Arc::new(webhook));
            }
            RegistryEntry::WebhookDeleted => {
                self.webhook_of(project, id)
                    .ok_or(ApplyError::Inconsistent)?;
                self.known_project(project)?.webhooks.remove(&id);
                self.delete_webhook(id, sequence, record);
            }
            _ => return Err(ApplyError::Inconsistent),
        }
        Ok(Changed::Webhook(id))
    }

    fn fold_webhook(
        &self,
        (project, id): (ProjectId, WebhookId),
        sequence: Sequence,
        from: Position,
        definition: &WebhookDefinition,
        record: &RegistryRecord,
        keys: &MasterKeys,
    ) -> Result<Webhook, ApplyError> {
        let context = seal_context(SEALED_ENDPOINT, project, &id.to_string());
        let plain = keys.unseal(&definition.sealed_endpoint, &context)?;
        let endpoint = serde_json::from_slice(&plain).map_err(|_| ApplyError::Inconsistent)?;
        let secrets = self.secrets.get(&id).cloned().unwrap_or_default();
        Ok(Webhook {
            id,
            project,
            endpoint,
            signers: signers(&secrets, definition)?,
            secrets,
            created_at: record.at,
            updated_at: record.at,
            sequence,
            from,
            versions: vec![WebhookVersion {
                registry_sequence: sequence,
                at: record.at,
                selection: Arc::new(definition.selection.clone()),
                status: Some(definition.status),
            }],
            definition: definition.clone(),
            deleted: false,
        })
    }

    fn delete_webhook(&mut self, id: WebhookId, sequence: Sequence, record: &RegistryRecord) {
        self.secrets.remove(&id);
        let Some(webhook) = self.webhooks.get_mut(&id) else {
            return;
        };
        let webhook = Arc::make_mut(webhook);
        webhook.deleted = true;
        webhook.secrets.clear();
        webhook.sequence = sequence;
        webhook.updated_at = record.at;
        webhook.push_version(WebhookVersion {
            registry_sequence: sequence,
            at: record.at,
            selection: Arc::new(webhook.definition.selection.clone()),
            status: None,
        });
    }

    fn known_project(&mut self, id: ProjectId) -> Result<&mut Project, ApplyError> {
        self.projects.get_mut(&id).ok_or(ApplyError::Inconsistent)
    }
}

fn parse<T: std::str::FromStr>(id: &str) -> Result<T, ApplyError> {
    id.parse().map_err(|_| ApplyError::BadSubject)
}

fn unseal_account(
    project: ProjectId,
    id: AccountId,
    definition: &AccountDefinition,
    keys: &MasterKeys,
) -> Result<crate::domain::account::AccountSecrets, ApplyError> {
    let context = seal_context(SEALED_ACCOUNT, project, &id.to_string());
    let plain = keys.unseal(&definition.sealed_secrets, &context)?;
    serde_json::from_slice(&plain).map_err(|_| ApplyError::Inconsistent)
}

fn signers(
    secrets: &[SigningSecret],
    definition: &WebhookDefinition,
) -> Result<Arc<Signers>, ApplyError> {
    let signer = |id: SecretId| {
        let found = secrets.iter().find(|secret| secret.id == id)?;
        Signer::new(&found.secret).ok()
    };
    Ok(Arc::new(Signers {
        active: signer(definition.active_secret).ok_or(ApplyError::Inconsistent)?,
        previous: definition.previous_secret.and_then(signer),
    }))
}
