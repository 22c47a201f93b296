//! Deleted projects (`protocol.md`, rule 28): what is left of them in the logs, and what says that it
//! is gone.
//!
//! The tombstone ends the project for everybody. After it, each subject of the project is ended by an
//! entry of its own, which stays, so that no append that expects an empty subject can be taken; what
//! lies before that is overwritten. The last entry says through where all that was seen to. A call
//! that was under way at the tombstone may write later than that: then the project is to be erased
//! once more.

use std::collections::BTreeSet;

use super::{
    Aggregate, Append, Changed, Command, CommandError, RegistryEntry, RegistryRecord, RegistryState,
};
use crate::ids::{ProjectId, Sequence, WebhookId};

/// What stays of a deleted project.
#[derive(Clone, Debug)]
pub(super) struct DeletedProject {
    tombstone: Sequence,
    /// Of the project's own subject.
    last: Sequence,
    /// Those that it had at the end.
    webhooks: BTreeSet<WebhookId>,
    /// The last entry that has to go.
    written: Sequence,
    erased_through: Option<Sequence>,
}

/// Ends subjects of deleted projects. Commands of another kind ask for nothing here.
pub(super) fn decide_erasure(
    state: &RegistryState,
    command: Command,
) -> Result<Vec<Append>, CommandError> {
    let deleted = |project| state.deleted.get(&project).ok_or(CommandError::NotFound);
    match command {
        Command::EraseOfDeleted {
            project,
            aggregate,
            id,
            last,
        } => {
            deleted(project)?;
            Ok(vec![Append {
                project,
                aggregate,
                id,
                expected: last,
                entry: RegistryEntry::Erased,
            }])
        }
        Command::RecordErasure { project, through } => {
            let deleted = deleted(project)?;
            if deleted.erased_through >= Some(through) {
                return Ok(Vec::new());
            }
            Ok(vec![Append {
                project,
                aggregate: Aggregate::Project,
                id: project.to_string(),
                expected: deleted.last,
                entry: RegistryEntry::ProjectErased { through },
            }])
        }
        Command::CreateProject { .. }
        | Command::DeleteProject { .. }
        | Command::ResealDataKey { .. }
        | Command::CreateApiKey { .. }
        | Command::RevokeApiKey { .. }
        | Command::CreateAccount { .. }
        | Command::UpdateAccount { .. }
        | Command::DeleteAccount { .. }
        | Command::CreateWebhook { .. }
        | Command::UpdateWebhook { .. }
        | Command::DeleteWebhook { .. }
        | Command::SetWebhookStatus { .. }
        | Command::VerifyWebhook { .. }
        | Command::AddSigningSecret { .. }
        | Command::ActivateSigningSecret { .. }
        | Command::DeleteSigningSecret { .. }
        | Command::EraseSigningSecret { .. }
        | Command::RecordDecision { .. } => Ok(Vec::new()),
    }
}

impl RegistryState {
    /// Deleted projects of which something may lie in the logs, each with its tombstone.
    pub fn erasable_projects(&self) -> impl Iterator<Item = (ProjectId, Sequence)> {
        let deleted = self.deleted.iter();
        deleted
            .filter(|(_, deleted)| deleted.erased_through < Some(deleted.written))
            .map(|(id, deleted)| (*id, deleted.tombstone))
    }

    /// Read from the beginning after the erasure, the tombstone is all there is of the project.
    pub(super) fn delete_project(
        &mut self,
        id: ProjectId,
        sequence: Sequence,
        record: &RegistryRecord,
    ) {
        // Its secrets go with all the rest.
        self.erasable.retain(|_, (owner, _)| *owner != id);
        let project = self.projects.remove(&id);
        let mut webhooks = BTreeSet::new();
        if let Some(project) = project {
            for key in project.api_keys.values() {
                self.keys_by_hash.remove(&key.hash);
            }
            for account in &project.accounts {
                self.accounts.remove(account);
            }
            for webhook in &project.webhooks {
                self.secrets.remove(webhook);
                self.delete_webhook(*webhook, sequence, record);
            }
            webhooks = project.webhooks;
        }
        let deleted = DeletedProject {
            tombstone: sequence,
            last: sequence,
            webhooks,
            written: sequence,
            erased_through: None,
        };
        self.deleted.insert(id, deleted);
    }

    pub(super) fn apply_to_deleted(
        &mut self,
        project: ProjectId,
        sequence: Sequence,
        record: &RegistryRecord,
    ) -> Changed {
        let Some(deleted) = self.deleted.get_mut(&project) else {
            return Changed::Other;
        };
        match &record.entry {
            RegistryEntry::Erased | RegistryEntry::SigningSecretErased => {}
            RegistryEntry::ProjectErased { through } => {
                deleted.last = sequence;
                deleted.erased_through = deleted.erased_through.max(Some(*through));
                // Their events are gone: nothing is classified by them any more.
                for webhook in std::mem::take(&mut deleted.webhooks) {
                    self.webhooks.remove(&webhook);
                }
            }
            RegistryEntry::ProjectCreated { .. }
            | RegistryEntry::ProjectDeleted
            | RegistryEntry::DataKeyCreated { .. }
            | RegistryEntry::DataKeyResealed { .. }
            | RegistryEntry::ApiKeyCreated { .. }
            | RegistryEntry::ApiKeyRevoked
            | RegistryEntry::AccountCreated(_)
            | RegistryEntry::AccountUpdated(_)
            | RegistryEntry::AccountDeleted(_)
            | RegistryEntry::WebhookCreated { .. }
            | RegistryEntry::WebhookUpdated(_)
            | RegistryEntry::WebhookDeleted
            | RegistryEntry::WebhookVerified { .. }
            | RegistryEntry::WebhookStatusSet { .. }
            | RegistryEntry::SigningSecretAdded { .. }
            | RegistryEntry::SigningSecretDeleted { .. } => deleted.written = sequence,
        }
        Changed::Other
    }
}
