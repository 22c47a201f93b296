//! Finishes erasures that others began (`protocol.md`, rule 28).
//!
//! A call that deletes a secret, or a webhook with its secrets, erases them right after. One that is
//! cut off in between leaves that to whoever sees it. What a deleted project leaves is always erased
//! here, by a replica in which the project's webhooks were ended as their owner: so it is done once
//! when all goes well, and done again by the next owner when not.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use shared::domain::registry::{Aggregate, Command, CommandError, RegistryEntry};
use shared::ids::{ProjectId, Sequence};
use shared::nats::erasing::{HeldSubject, erase_events, held, overwrite};
use shared::nats::last_sequence;
use shared::nats::registry_view::ExecuteError;
use shared::subjects;

use crate::actors::shared_state::Replica;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A replica that has not heard of the tombstone answers for 5 s (`protocol.md`, rule 4), and what it
/// began by then is stored or refused within this. What comes later all the same is seen by the
/// registry's fold, and goes with its age in EVENTS.
const STRAGGLERS_WITHIN: Duration = Duration::from_secs(15);
/// Who erases, in the audit.
const BY: &str = "carillon";

/// Looks for ever. Replicas that do so at the same time append once: the server checks.
pub(crate) async fn erase_what_is_left(replica: Rc<Replica>) {
    let mut seen = HashMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // One that is behind sees erasures left that are long done.
        if !replica.view.is_current() {
            continue;
        }
        erase_secrets(&replica).await;
        erase_projects(&replica, &mut seen).await;
    }
}

async fn erase_secrets(replica: &Replica) {
    let view = &replica.view;
    let left: Vec<_> = view.read(|state| state.erasable_secrets().collect());
    for id in left {
        let command = Command::EraseSigningSecret { id };
        if let Err(error) = view.execute(command, BY, replica.clock.now()).await {
            tracing::warn!(%error, "a deleted signing secret is not erased yet");
            break;
        }
    }
    if let Err(error) = view.overwrite_erased().await {
        tracing::warn!(%error, "an erased signing secret is not overwritten yet");
    }
}

/// `seen`: since when this replica knows of each, by its own clock.
async fn erase_projects(replica: &Replica, seen: &mut HashMap<ProjectId, Duration>) {
    let left: Vec<_> = replica
        .view
        .read(|state| state.erasable_projects().collect());
    seen.retain(|known, _| left.iter().any(|(id, _)| id == known));
    for (project, tombstone) in left {
        let now = replica.clock.elapsed();
        let since = *seen.entry(project).or_insert(now);
        // Its owner has ended all that was pending: nothing is to be read for it any more.
        let partition = replica.nats.partitions.of(project);
        let applied = replica.applied.wait(partition, tombstone, Duration::ZERO);
        if !applied.await {
            continue;
        }
        let stragglers = if now.saturating_sub(since) < STRAGGLERS_WITHIN {
            Stragglers::Possible
        } else {
            Stragglers::Past
        };
        if let Err(error) = erase_project(replica, project, stragglers).await {
            tracing::warn!(project.id = %project, %error, "a deleted project is not erased yet");
        }
    }
}

/// Whether calls that began before the tombstone may still write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stragglers {
    Possible,
    Past,
}

/// Erases what there is. A look that finds nothing more, late enough, is the last.
async fn erase_project(
    replica: &Replica,
    project: ProjectId,
    stragglers: Stragglers,
) -> Result<(), ExecuteError> {
    let through = last_sequence(&replica.nats.registry).await?;
    let events = erase_events(&replica.nats, project).await?;
    let entries = erase_entries(replica, project).await?;
    if events > 0 || entries > 0 {
        tracing::info!(project.id = %project, events, entries, "a deleted project is erased");
    } else if stragglers == Stragglers::Past {
        let command = Command::RecordErasure { project, through };
        replica
            .view
            .execute(command, BY, replica.clock.now())
            .await?;
        replica.metrics.projects_erased.increment(1);
    }
    Ok(())
}

/// What an entry of a deleted project is to its erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ends its subject, and stays.
    Tombstone,
    History,
}

impl Kind {
    /// What is not readable is not to stay.
    fn of(entry: Option<RegistryEntry>) -> Self {
        match entry {
            Some(
                RegistryEntry::ProjectDeleted
                | RegistryEntry::ProjectErased { .. }
                | RegistryEntry::SigningSecretErased
                | RegistryEntry::Erased,
            ) => Self::Tombstone,
            Some(
                RegistryEntry::ProjectCreated { .. }
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
                | RegistryEntry::SigningSecretDeleted { .. },
            )
            | None => Self::History,
        }
    }
}

/// Ends the subjects that are not ended, and then overwrites what lies before the ends: the newest
/// first, so that what is left at any moment is a beginning of the log that was there, which folds
/// without a fault. Gives how many were overwritten.
async fn erase_entries(replica: &Replica, project: ProjectId) -> Result<usize, ExecuteError> {
    let filter = subjects::registry_of_project(project);
    let subjects = held(&replica.nats, &filter, Kind::of).await?;
    let mut history: Vec<Sequence> = Vec::new();
    for subject in subjects.values() {
        end(replica, subject).await?;
        let messages = subject.messages.iter();
        let old = messages.filter(|(_, kind)| *kind == Kind::History);
        history.extend(old.map(|(sequence, _)| *sequence));
    }
    history.sort_unstable();
    for sequence in history.iter().rev() {
        overwrite(&replica.nats.registry, *sequence).await?;
    }
    Ok(history.len())
}

/// Nothing more can be appended to what it was.
async fn end(replica: &Replica, subject: &HeldSubject<Kind>) -> Result<(), ExecuteError> {
    match (subject.aggregate, subject.messages.last()) {
        (_, Some((_, Kind::Tombstone)) | None) => Ok(()),
        // The tombstone was the last that its subject took.
        (Aggregate::Project, Some((_, Kind::History))) => {
            Err(ExecuteError::Refused(CommandError::Stale))
        }
        (
            Aggregate::DataKey
            | Aggregate::ApiKey
            | Aggregate::Account
            | Aggregate::Webhook
            | Aggregate::SigningSecret,
            Some((last, Kind::History)),
        ) => {
            let command = Command::EraseOfDeleted {
                project: subject.project,
                aggregate: subject.aggregate,
                id: subject.id.clone(),
                last: *last,
            };
            let ended = replica.view.execute(command, BY, replica.clock.now());
            ended.await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_stay_and_all_else_goes() {
        for (entry, kind) in [
            (Some(RegistryEntry::ProjectDeleted), Kind::Tombstone),
            (Some(RegistryEntry::Erased), Kind::Tombstone),
            (Some(RegistryEntry::ApiKeyRevoked), Kind::History),
            (Some(RegistryEntry::WebhookDeleted), Kind::History),
            (None, Kind::History),
        ] {
            assert_eq!(Kind::of(entry.clone()), kind, "{entry:?}");
        }
    }
}
