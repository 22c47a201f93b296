//! The fold of webhooks, and what is forgotten of them.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::seal_context;
use super::{ApplyError, Changed, RegistryEntry, RegistryRecord, RegistryState, SEALED_ENDPOINT};
use crate::domain::webhook::{Webhook, WebhookDefinition, WebhookVersion, signers};
use crate::ids::{Position, ProjectId, Sequence, WebhookId};
use crate::limits::VERSION_HISTORY_MS;
use crate::time::Timestamp;

/// What was outlived is looked for so often, by the entries' own times: it means a look at every
/// webhook, and a start folds years of entries.
const FORGET_EVERY_MS: i64 = 24 * 60 * 60 * 1_000;

impl RegistryState {
    pub(super) fn apply_webhook(
        &mut self,
        project: ProjectId,
        id: WebhookId,
        sequence: Sequence,
        record: &RegistryRecord,
    ) -> Result<Changed, ApplyError> {
        match &record.entry {
            RegistryEntry::WebhookCreated { from, definition } => {
                let webhook =
                    self.fold_webhook((project, id), sequence, *from, definition, record)?;
                self.known_project(project)?.webhooks.insert(id);
                self.put_webhook(webhook);
            }
            RegistryEntry::WebhookUpdated(definition) => {
                let old = self
                    .webhook_of(project, id)
                    .ok_or(ApplyError::Inconsistent)?
                    .clone();
                let mut webhook =
                    self.fold_webhook((project, id), sequence, old.from, definition, record)?;
                webhook.created_at = old.created_at;
                webhook.decided = old.decided;
                let versions = std::mem::replace(&mut webhook.versions, old.versions.clone());
                versions
                    .into_iter()
                    .for_each(|version| webhook.push_version(version));
                self.put_webhook(webhook);
            }
            RegistryEntry::WebhookStatusSet {
                status,
                reason,
                decided,
            } => {
                let mut webhook = self.held_webhook(project, id)?;
                webhook.set_status(sequence, record.at, *status, reason.clone(), *decided);
                self.put_webhook(webhook);
            }
            RegistryEntry::WebhookVerified { status } => {
                let mut webhook = self.held_webhook(project, id)?;
                webhook.verified(sequence, record.at, *status);
                self.put_webhook(webhook);
            }
            RegistryEntry::SigningSecretDeleted { secret } => {
                let mut webhook = self.held_webhook(project, id)?;
                webhook.lost_secret(sequence, record.at, *secret);
                self.put_webhook(webhook);
                self.lose_secret(project, id, *secret);
            }
            RegistryEntry::WebhookDeleted => {
                self.webhook_of(project, id)
                    .ok_or(ApplyError::Inconsistent)?;
                self.known_project(project)?.webhooks.remove(&id);
                self.lose_all_secrets(project, id);
                self.delete_webhook(id, sequence, record);
            }
            _ => return Err(ApplyError::Inconsistent),
        }
        Ok(Changed::Webhook(id))
    }

    fn held_webhook(&self, project: ProjectId, id: WebhookId) -> Result<Webhook, ApplyError> {
        let held = self.webhook_of(project, id);
        Ok(held.ok_or(ApplyError::Inconsistent)?.as_ref().clone())
    }

    fn fold_webhook(
        &self,
        (project, id): (ProjectId, WebhookId),
        sequence: Sequence,
        from: Position,
        definition: &WebhookDefinition,
        record: &RegistryRecord,
    ) -> Result<Webhook, ApplyError> {
        let context = seal_context(SEALED_ENDPOINT, project, &id.to_string());
        let plain = self
            .data_key(project)?
            .unseal(&definition.sealed_endpoint, &context)?;
        let endpoint = serde_json::from_slice(&plain).map_err(|_| ApplyError::Inconsistent)?;
        let secrets = self.secrets.get(&id).cloned().unwrap_or_default();
        Ok(Webhook {
            id,
            project,
            endpoint,
            signers: signers(&secrets, definition),
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
                lifts: matches!(record.entry, RegistryEntry::WebhookCreated { .. }),
            }],
            definition: definition.clone(),
            decided: None,
            deleted: false,
        })
    }

    pub(super) fn delete_webhook(
        &mut self,
        id: WebhookId,
        sequence: Sequence,
        record: &RegistryRecord,
    ) {
        if let Some(webhook) = self.webhooks.get(&id).map(Arc::clone) {
            self.put_webhook(webhook.buried(sequence, record.at));
        }
    }

    pub(super) fn put_webhook(&mut self, webhook: Webhook) {
        let (project, held) = (webhook.project, webhook.held_bytes());
        let replaced = self.webhooks.insert(webhook.id, Arc::new(webhook));
        self.count_bytes(project, replaced.map_or(0, |old| old.held_bytes()), held);
    }

    /// A project that was deleted holds nothing more, and is not counted.
    fn count_bytes(&mut self, project: ProjectId, before: usize, after: usize) {
        if let Some(project) = self.projects.get_mut(&project) {
            let others = project.webhook_bytes.saturating_sub(before);
            project.webhook_bytes = others.saturating_add(after);
        }
    }

    /// Drops what no retained event needs any more: deleted webhooks, and versions. The log says
    /// how late it is, so that every replica forgets alike.
    pub(super) fn forget_outlived(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
        if self.now.millis_since(self.forgotten_at) < FORGET_EVERY_MS {
            return;
        }
        self.forgotten_at = self.now;
        let horizon = self.now.plus_millis(-VERSION_HISTORY_MS);
        let outlived: Vec<WebhookId> = self
            .webhooks
            .values()
            .filter(|webhook| {
                (webhook.deleted && webhook.updated_at < horizon)
                    || webhook.versions_outlived(self.now) > 0
            })
            .map(|webhook| webhook.id)
            .collect();
        for id in outlived {
            self.forget_outlived_of(id, horizon);
        }
    }

    fn forget_outlived_of(&mut self, id: WebhookId, horizon: Timestamp) {
        let Entry::Occupied(mut entry) = self.webhooks.entry(id) else {
            return;
        };
        let (project, before) = (entry.get().project, entry.get().held_bytes());
        let after = if entry.get().deleted && entry.get().updated_at < horizon {
            entry.remove();
            0
        } else {
            let webhook = Arc::make_mut(entry.get_mut());
            webhook.forget_versions(self.now);
            webhook.held_bytes()
        };
        self.count_bytes(project, before, after);
    }
}
