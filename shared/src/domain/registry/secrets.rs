//! Signing secrets: their commands, and their fold.
//!
//! A secret lies under a subject of its own, so that it can be erased (`protocol.md`, rule 28). Which
//! one signs, and that one is deleted, is decided under the webhook's subject, where the server
//! puts both into one order: a secret that was deleted cannot become the active one, nor the active
//! one be deleted. What is deleted there is erased next; whoever sees that this was not done does it.

use super::decide::check_base;
use super::{
    Aggregate, Append, ApplyError, Changed, Command, CommandError, RegistryEntry, RegistryRecord,
    RegistryState, signing_secret_context,
};
use crate::domain::webhook::{SigningSecret, Webhook, WebhookDefinition, signers};
use crate::ids::{ProjectId, SecretId, Sequence, WebhookId};
use crate::limits::SIGNING_SECRETS_MAX;
use crate::secret::Secret;

/// What a command about a secret asks for. Those that move the webhook's subject count as changes
/// of it, which the caller bounds.
pub(super) fn decide_secret(
    state: &RegistryState,
    command: Command,
) -> Result<Vec<Append>, CommandError> {
    match command {
        Command::AddSigningSecret {
            project,
            webhook,
            id,
            sealed,
        } => {
            let held = webhook_of(state, project, webhook)?.secrets.len();
            if held >= SIGNING_SECRETS_MAX {
                return Err(CommandError::LimitReached {
                    what: "signing secrets of a webhook",
                    max: SIGNING_SECRETS_MAX,
                });
            }
            let entry = RegistryEntry::SigningSecretAdded { webhook, sealed };
            Ok(vec![append(project, id, Sequence(0), entry)])
        }
        Command::ActivateSigningSecret {
            project,
            webhook,
            id,
            base,
        } => {
            let webhook = webhook_of(state, project, webhook)?;
            secret_of(webhook, id)?;
            check_base(webhook.sequence, base)?;
            let active = webhook.definition.active_secret;
            if active == id {
                return Ok(Vec::new());
            }
            let entry = RegistryEntry::WebhookUpdated(WebhookDefinition {
                active_secret: id,
                previous_secret: Some(active),
                ..webhook.definition.clone()
            });
            Ok(vec![append_to(webhook, entry)])
        }
        Command::DeleteSigningSecret {
            project,
            webhook,
            id,
            base,
        } => {
            let webhook = webhook_of(state, project, webhook)?;
            let secret = secret_of(webhook, id)?;
            check_base(webhook.sequence, base)?;
            if webhook.definition.active_secret == id {
                return Err(CommandError::ActiveSecret);
            }
            Ok(vec![
                append_to(webhook, RegistryEntry::SigningSecretDeleted { secret: id }),
                erasure(project, id, secret.sequence),
            ])
        }
        Command::EraseSigningSecret { id } => {
            let left = state.erasable.get(&id);
            let erasure = left.map(|(project, last)| erasure(*project, id, *last));
            Ok(erasure.into_iter().collect())
        }
        Command::CreateProject { .. }
        | Command::DeleteProject { .. }
        | Command::ResealDataKey { .. }
        | Command::EraseOfDeleted { .. }
        | Command::RecordErasure { .. }
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
        | Command::RecordDecision { .. } => Ok(Vec::new()),
    }
}

/// What erases the secrets of a webhook that is deleted.
pub(super) fn erasures(webhook: &Webhook) -> impl Iterator<Item = Append> {
    let secrets = webhook.secrets.iter();
    secrets.map(|secret| erasure(webhook.project, secret.id, secret.sequence))
}

fn erasure(project: ProjectId, id: SecretId, last: Sequence) -> Append {
    append(project, id, last, RegistryEntry::SigningSecretErased)
}

fn append(project: ProjectId, id: SecretId, expected: Sequence, entry: RegistryEntry) -> Append {
    Append {
        project,
        aggregate: Aggregate::SigningSecret,
        id: id.to_string(),
        expected,
        entry,
    }
}

fn append_to(webhook: &Webhook, entry: RegistryEntry) -> Append {
    Append {
        project: webhook.project,
        aggregate: Aggregate::Webhook,
        id: webhook.id.to_string(),
        expected: webhook.sequence,
        entry,
    }
}

fn webhook_of(
    state: &RegistryState,
    project: ProjectId,
    id: WebhookId,
) -> Result<&Webhook, CommandError> {
    let webhook = state.webhook_of(project, id);
    webhook.map(AsRef::as_ref).ok_or(CommandError::NotFound)
}

fn secret_of(webhook: &Webhook, id: SecretId) -> Result<&SigningSecret, CommandError> {
    let mut secrets = webhook.secrets.iter();
    secrets
        .find(|secret| secret.id == id)
        .ok_or(CommandError::NotFound)
}

impl RegistryState {
    /// Secrets that are deleted and still lie in the log, since whoever deleted them was cut off.
    pub fn erasable_secrets(&self) -> impl Iterator<Item = SecretId> {
        self.erasable.keys().copied()
    }

    /// Where secrets lay that are erased, and were still there when this was folded.
    pub fn overwritable_secrets(&self) -> impl Iterator<Item = (SecretId, Sequence)> {
        self.overwritable
            .iter()
            .map(|(id, sequence)| (*id, *sequence))
    }

    /// The secret's bytes are gone.
    pub fn overwritten(&mut self, id: SecretId) {
        self.overwritable.remove(&id);
    }

    pub(super) fn apply_signing_secret(
        &mut self,
        project: ProjectId,
        id: SecretId,
        sequence: Sequence,
        record: &RegistryRecord,
    ) -> Result<Changed, ApplyError> {
        let (webhook, sealed) = match &record.entry {
            RegistryEntry::SigningSecretAdded { webhook, sealed } => (*webhook, sealed),
            // Read from the beginning, it is all there is of the secret.
            RegistryEntry::SigningSecretErased => {
                if let Some((_, added)) = self.erasable.remove(&id) {
                    self.overwritable.insert(id, added);
                }
                return Ok(Changed::Other);
            }
            _ => return Err(ApplyError::Inconsistent),
        };
        let held = self.webhooks.get(&webhook).cloned();
        if held.as_ref().is_some_and(|webhook| webhook.deleted) {
            self.erasable.insert(id, (project, sequence));
            return Ok(Changed::Other);
        }
        let key = self.data_key(project)?;
        let plain = key.unseal(sealed, &signing_secret_context(project, id))?;
        let text = std::str::from_utf8(&plain).map_err(|_| ApplyError::Inconsistent)?;
        let secrets = self.secrets.entry(webhook).or_default();
        secrets.push(SigningSecret {
            id,
            secret: Secret::new(text),
            created_at: record.at,
            sequence,
        });
        let secrets = secrets.clone();
        if let Some(webhook) = held.filter(|webhook| webhook.project == project) {
            let mut webhook = webhook.as_ref().clone();
            webhook.signers = signers(&secrets, &webhook.definition);
            webhook.secrets = secrets;
            self.put_webhook(webhook);
        }
        Ok(Changed::Other)
    }

    /// The secret signs nothing more. Nothing is left to erase of one that was not found here.
    pub(super) fn lose_secret(&mut self, project: ProjectId, webhook: WebhookId, id: SecretId) {
        let Some(secrets) = self.secrets.get_mut(&webhook) else {
            return;
        };
        if let Some(secret) = secrets.iter().find(|secret| secret.id == id) {
            self.erasable.insert(id, (project, secret.sequence));
        }
        secrets.retain(|secret| secret.id != id);
    }

    pub(super) fn lose_all_secrets(&mut self, project: ProjectId, webhook: WebhookId) {
        for secret in self.secrets.remove(&webhook).unwrap_or_default() {
            self.erasable.insert(secret.id, (project, secret.sequence));
        }
    }
}
