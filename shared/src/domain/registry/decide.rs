//! Commands to appends.

use super::deleted::decide_erasure;
use super::secrets::{decide_secret, erasures};
use super::{
    Aggregate, Append, AskedStatus, Command, CommandError, RegistryEntry, RegistryState, UrlChange,
};
use crate::domain::project::Project;
use crate::domain::webhook::{Dialect, Status, Webhook, WebhookDefinition};
use crate::ids::{ProjectId, Sequence};
use crate::limits::WEBHOOKS_PER_PROJECT_MAX;
use crate::time::Timestamp;

/// Accounts of one project; a bound, not a target.
const ACCOUNTS_PER_PROJECT_MAX: usize = 1_000_000;
const API_KEYS_PER_PROJECT_MAX: usize = 1_000;
/// Changes of one webhook within `VERSION_HISTORY_MS`. Each is a version that every replica holds.
pub(super) const VERSIONS_MAX: usize = 1_000;
/// What the webhooks of one project may hold in every replica: room for as many as there may be,
/// each of a usual size. Reached sooner by large headers or selections that keep changing.
pub(super) const WEBHOOK_BYTES_PER_PROJECT_MAX: usize = 128 << 20;

/// What to append, in order, for `command` to hold. Things of other projects are `NotFound`, as
/// is everything of a project that is not made yet.
pub fn decide(
    state: &RegistryState,
    command: Command,
    now: Timestamp,
) -> Result<Vec<Append>, CommandError> {
    let append = |project, aggregate, id, expected, entry| Append {
        project,
        aggregate,
        id,
        expected,
        entry,
    };
    match command {
        Command::CreateProject {
            id,
            name,
            sealed_data_key,
        } => {
            let key = RegistryEntry::DataKeyCreated {
                sealed: sealed_data_key,
            };
            let created = RegistryEntry::ProjectCreated { name };
            let (text, new) = (id.to_string(), Sequence(0));
            let has_key = state
                .project(id)
                .is_some_and(|begun| begun.data_key.is_some());
            // The key first: a project without one could not keep an endpoint's answer. A call that
            // was cut off between the two is gone on with by its repetition.
            let key = append(id, Aggregate::DataKey, text.clone(), new, key);
            let created = append(id, Aggregate::Project, text, new, created);
            let appends = [(!has_key).then_some(key), Some(created)];
            Ok(appends.into_iter().flatten().collect())
        }
        Command::DeleteProject { id } => {
            let project = made(state, id)?;
            let entry = RegistryEntry::ProjectDeleted;
            let (text, last) = (id.to_string(), project.sequence);
            Ok(vec![append(id, Aggregate::Project, text, last, entry)])
        }
        Command::ResealDataKey { project, sealed } => {
            // Of one too whose making was cut off after its key: every fold opens that.
            let known = state.project(project).ok_or(CommandError::NotFound)?;
            let last = known.data_key_sequence;
            let (entry, text) = (
                RegistryEntry::DataKeyResealed { sealed },
                project.to_string(),
            );
            Ok(vec![append(project, Aggregate::DataKey, text, last, entry)])
        }
        Command::EraseOfDeleted { .. } | Command::RecordErasure { .. } => {
            decide_erasure(state, command)
        }
        Command::CreateApiKey {
            project,
            id,
            name,
            hash,
        } => {
            let held = made(state, project)?.api_keys.len();
            check_limit(held, "keys of a project", API_KEYS_PER_PROJECT_MAX)?;
            let entry = RegistryEntry::ApiKeyCreated { name, hash };
            Ok(vec![append(
                project,
                Aggregate::ApiKey,
                id.to_string(),
                Sequence(0),
                entry,
            )])
        }
        Command::RevokeApiKey { project, id } => {
            let keys = &made(state, project)?.api_keys;
            let last = keys.get(&id).ok_or(CommandError::NotFound)?.sequence;
            let entry = RegistryEntry::ApiKeyRevoked;
            Ok(vec![append(
                project,
                Aggregate::ApiKey,
                id.to_string(),
                last,
                entry,
            )])
        }
        Command::CreateAccount {
            project,
            id,
            definition,
        } => {
            let held = made(state, project)?.accounts.len();
            check_limit(held, "accounts of a project", ACCOUNTS_PER_PROJECT_MAX)?;
            let entry = RegistryEntry::AccountCreated(definition);
            Ok(vec![append(
                project,
                Aggregate::Account,
                id.to_string(),
                Sequence(0),
                entry,
            )])
        }
        Command::UpdateAccount {
            project,
            id,
            definition,
            base,
        } => {
            let account = state
                .account_of(project, id)
                .ok_or(CommandError::NotFound)?;
            check_base(account.sequence, Some(base))?;
            let entry = RegistryEntry::AccountUpdated(definition);
            Ok(vec![append(
                project,
                Aggregate::Account,
                id.to_string(),
                base,
                entry,
            )])
        }
        Command::DeleteAccount { project, id, base } => {
            let account = state
                .account_of(project, id)
                .ok_or(CommandError::NotFound)?;
            check_base(account.sequence, base)?;
            let mut definition = account.definition.clone();
            definition.sealed_secrets.clear();
            let entry = RegistryEntry::AccountDeleted(definition);
            let last = account.sequence;
            Ok(vec![append(
                project,
                Aggregate::Account,
                id.to_string(),
                last,
                entry,
            )])
        }
        Command::CreateWebhook { .. } => create_webhook(state, command),
        Command::UpdateWebhook { .. } => update_webhook(state, command, now),
        Command::DeleteWebhook { project, id, base } => {
            let webhook = state
                .webhook_of(project, id)
                .ok_or(CommandError::NotFound)?;
            check_base(webhook.sequence, base)?;
            let deletion = append_to(webhook, RegistryEntry::WebhookDeleted);
            Ok(std::iter::once(deletion).chain(erasures(webhook)).collect())
        }
        Command::VerifyWebhook { project, id, base } => {
            let webhook = state
                .webhook_of(project, id)
                .ok_or(CommandError::NotFound)?;
            check_base(webhook.sequence, Some(base))?;
            check_versions(webhook, now)?;
            // Who disabled it enables it.
            let status = match webhook.definition.status {
                Status::Disabled => Status::Disabled,
                Status::PendingVerification
                | Status::Enabled
                | Status::Deactivated
                | Status::Quarantined => Status::Enabled,
            };
            let entry = RegistryEntry::WebhookVerified { status };
            Ok(vec![append_to(webhook, entry)])
        }
        Command::AddSigningSecret {
            project, webhook, ..
        }
        | Command::ActivateSigningSecret {
            project, webhook, ..
        } => {
            let webhook = state
                .webhook_of(project, webhook)
                .ok_or(CommandError::NotFound)?;
            check_versions(webhook, now)?;
            decide_secret(state, command)
        }
        // Without a limit: each had to be added, which is limited, and what is no secret any more
        // must be gone.
        Command::DeleteSigningSecret { .. } | Command::EraseSigningSecret { .. } => {
            decide_secret(state, command)
        }
        Command::SetWebhookStatus { .. } => set_status(state, command, now),
        Command::RecordDecision { .. } => Ok(record_decision(state, command)),
    }
}

fn update_webhook(
    state: &RegistryState,
    command: Command,
    now: Timestamp,
) -> Result<Vec<Append>, CommandError> {
    let Command::UpdateWebhook {
        project,
        id,
        definition,
        url,
        base,
    } = command
    else {
        return Err(CommandError::NotFound);
    };
    let webhook = state
        .webhook_of(project, id)
        .ok_or(CommandError::NotFound)?;
    check_base(webhook.sequence, Some(base))?;
    check_versions(webhook, now)?;
    check_webhook_bytes(made(state, project)?)?;
    // A status is asked for, or decided, by commands of their own.
    let current = &webhook.definition;
    let must_verify = match current.dialect {
        Dialect::HrOn => true,
        Dialect::Stackone => current.verification_required && url == UrlChange::Moved,
    };
    let status = match current.status {
        Status::Enabled if must_verify => Status::PendingVerification,
        status @ (Status::PendingVerification
        | Status::Enabled
        | Status::Disabled
        | Status::Deactivated
        | Status::Quarantined) => status,
    };
    let entry = RegistryEntry::WebhookUpdated(WebhookDefinition {
        verified_at: current.verified_at.filter(|_| !must_verify),
        status,
        status_reason: current.status_reason.clone(),
        active_secret: current.active_secret,
        previous_secret: current.previous_secret,
        ..definition
    });
    Ok(vec![append_to(webhook, entry)])
}

fn set_status(
    state: &RegistryState,
    command: Command,
    now: Timestamp,
) -> Result<Vec<Append>, CommandError> {
    let Command::SetWebhookStatus {
        project,
        id,
        status,
        reason,
        base,
    } = command
    else {
        return Err(CommandError::NotFound);
    };
    let webhook = state
        .webhook_of(project, id)
        .ok_or(CommandError::NotFound)?;
    check_base(webhook.sequence, base)?;
    let (current, wanted) = (webhook.definition.status, status.status());
    if current == wanted {
        return Ok(Vec::new());
    }
    match current {
        Status::Enabled | Status::Disabled | Status::Quarantined => match status {
            AskedStatus::Enabled if webhook.lacks_verification() => {
                return Err(CommandError::Unverified);
            }
            AskedStatus::Enabled | AskedStatus::Disabled => {}
        },
        // Else being disabled and enabled would stand in for a verification.
        Status::PendingVerification => return Err(CommandError::Unverified),
        Status::Deactivated => match webhook.definition.dialect {
            Dialect::Stackone => {}
            Dialect::HrOn => return Err(CommandError::Unverified),
        },
    }
    check_versions(webhook, now)?;
    let entry = RegistryEntry::WebhookStatusSet {
        status: wanted,
        reason,
        decided: None,
    };
    Ok(vec![append_to(webhook, entry)])
}

/// Without a limit: each decision but the first was lifted by a change that is limited.
fn record_decision(state: &RegistryState, command: Command) -> Vec<Append> {
    let Command::RecordDecision {
        project,
        id,
        decision,
        decided,
        seen,
    } = command
    else {
        return Vec::new();
    };
    let Some(webhook) = state.webhook_of(project, id) else {
        return Vec::new();
    };
    let is_lifted = webhook
        .versions
        .iter()
        .any(|version| version.lifts && version.registry_sequence > seen);
    if is_lifted || webhook.decided >= Some(decided) {
        return Vec::new();
    }
    let entry = RegistryEntry::WebhookStatusSet {
        status: decision.status(),
        reason: Some(decision.reason().to_owned()),
        decided: Some(decided),
    };
    vec![append_to(webhook, entry)]
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

fn create_webhook(state: &RegistryState, command: Command) -> Result<Vec<Append>, CommandError> {
    let Command::CreateWebhook {
        project,
        id,
        from,
        definition,
        sealed_secret,
    } = command
    else {
        return Err(CommandError::NotFound);
    };
    let held = made(state, project)?;
    let count = held.webhooks.len();
    check_limit(count, "webhooks of a project", WEBHOOKS_PER_PROJECT_MAX)?;
    check_webhook_bytes(held)?;
    let secret = |project: ProjectId| Append {
        project,
        aggregate: Aggregate::SigningSecret,
        id: definition.active_secret.to_string(),
        expected: Sequence(0),
        entry: RegistryEntry::SigningSecretAdded {
            webhook: id,
            sealed: sealed_secret,
        },
    };
    // The secret first: whoever sees the webhook can sign for it.
    Ok(vec![
        secret(project),
        Append {
            project,
            aggregate: Aggregate::Webhook,
            id: id.to_string(),
            expected: Sequence(0),
            entry: RegistryEntry::WebhookCreated { from, definition },
        },
    ])
}

fn made(state: &RegistryState, id: ProjectId) -> Result<&Project, CommandError> {
    let project = state.project(id).filter(|project| project.is_made());
    project.ok_or(CommandError::NotFound)
}

fn check_limit(held: usize, what: &'static str, max: usize) -> Result<(), CommandError> {
    if held < max {
        Ok(())
    } else {
        Err(CommandError::LimitReached { what, max })
    }
}

fn check_versions(webhook: &Webhook, now: Timestamp) -> Result<(), CommandError> {
    let versions = webhook.versions.len();
    let needed = versions.saturating_sub(webhook.versions_outlived(now));
    check_limit(needed, "changes of a webhook in 15 days", VERSIONS_MAX)
}

/// What is to come is not counted: one webhook is small beside the limit.
fn check_webhook_bytes(project: &Project) -> Result<(), CommandError> {
    check_limit(
        project.webhook_bytes,
        "bytes of webhooks in a project, with what they were in the last 15 days,",
        WEBHOOK_BYTES_PER_PROJECT_MAX,
    )
}

pub(super) fn check_base(last: Sequence, base: Option<Sequence>) -> Result<(), CommandError> {
    match base {
        Some(base) if base != last => Err(CommandError::Stale),
        Some(_) | None => Ok(()),
    }
}
