//! Names of streams, buckets and subjects: printed and parsed here and nowhere else.
//!
//! | stream | subject |
//! | --- | --- |
//! | `EVENTS` | `events.{partition}.{project}.{event_type}` |
//! | `REGISTRY` | `registry.{project}.{aggregate}.{id}` |
//! | `JOURNAL` | `journal.{partition}` and `journal.{partition}.epoch` |
//! | `KV_MEMBERS` | `$KV.MEMBERS.{replica}` |
//! | `KV_IDEMPOTENCY` | `$KV.IDEMPOTENCY.{hash of owner, kind and key}` |
//! | `KV_KEY_USAGE` | `$KV.KEY_USAGE.{key}` |
//! | `SNAPSHOTS` | `snapshots.{partition}.manifest` and `snapshots.{partition}.chunks.{write}` |
//!
//! No stream holds `owner.{partition}`, on which the owner of a partition is asked.

use crate::domain::event::EventType;
use crate::domain::registry::Aggregate;
use crate::domain::snapshot::SnapshotWriteId;
use crate::ids::{KeyId, PartitionId, ProjectId, ReplicaId};

pub const EVENTS: &str = "EVENTS";
pub const REGISTRY: &str = "REGISTRY";
pub const JOURNAL: &str = "JOURNAL";
/// The stream of a key-value bucket; so others find it as the bucket `MEMBERS`.
pub const MEMBERS: &str = "KV_MEMBERS";
/// The stream of the bucket `IDEMPOTENCY`.
pub const IDEMPOTENCY: &str = "KV_IDEMPOTENCY";
/// The stream of the bucket `KEY_USAGE`.
pub const KEY_USAGE: &str = "KV_KEY_USAGE";
pub const SNAPSHOTS: &str = "SNAPSHOTS";

pub const EVENTS_ALL: &str = "events.>";
pub const REGISTRY_ALL: &str = "registry.>";
pub const JOURNAL_ALL: &str = "journal.>";
pub const JOURNAL_EPOCHS: &str = "journal.*.epoch";
pub const MEMBERS_ALL: &str = "$KV.MEMBERS.>";
pub const IDEMPOTENCY_ALL: &str = "$KV.IDEMPOTENCY.>";
pub const KEY_USAGE_ALL: &str = "$KV.KEY_USAGE.>";
pub const SNAPSHOTS_ALL: &str = "snapshots.>";

/// Where an event is published.
pub fn event(partition: PartitionId, project: ProjectId, event_type: &EventType) -> String {
    format!("events.{partition}.{project}.{event_type}")
}

pub fn events_of_partition(partition: PartitionId) -> String {
    format!("events.{partition}.>")
}

pub fn events_of_project(partition: PartitionId, project: ProjectId) -> String {
    format!("events.{partition}.{project}.>")
}

/// What the projector of account events resumes from (`protocol.md`, rule 27).
pub fn account_events_of_partition(partition: PartitionId) -> String {
    format!("events.{partition}.*.account.*")
}

/// The partition of an event's subject.
pub fn partition_of_event(subject: &str) -> Option<PartitionId> {
    let mut tokens = subject.split('.');
    if tokens.next()? != "events" {
        return None;
    }
    tokens.next()?.parse().ok().map(PartitionId)
}

/// The subject of one aggregate, which carries its whole history.
pub fn registry(project: ProjectId, aggregate: Aggregate, id: &str) -> String {
    format!("registry.{project}.{}.{id}", aggregate.as_str())
}

/// Every entry of a project.
pub fn registry_of_project(project: ProjectId) -> String {
    format!("registry.{project}.>")
}

/// Entries about accounts, of all projects.
pub fn registry_accounts() -> String {
    registry_of_aggregate(Aggregate::Account)
}

/// Entries about things of one kind, of all projects.
pub fn registry_of_aggregate(aggregate: Aggregate) -> String {
    format!("registry.*.{}.*", aggregate.as_str())
}

/// Project, aggregate and id of a registry subject.
pub fn parse_registry(subject: &str) -> Option<(ProjectId, Aggregate, &str)> {
    let mut tokens = subject.splitn(4, '.');
    if tokens.next()? != "registry" {
        return None;
    }
    let project = tokens.next()?.parse().ok()?;
    let aggregate = Aggregate::parse(tokens.next()?)?;
    let id = tokens.next().filter(|id| !id.contains('.'))?;
    Some((project, aggregate, id))
}

pub fn journal(partition: PartitionId) -> String {
    format!("journal.{partition}")
}

/// The fence: every pack names this subject's last sequence.
pub fn journal_epoch(partition: PartitionId) -> String {
    format!("journal.{partition}.epoch")
}

/// The partition of an epoch entry's subject.
pub fn partition_of_epoch(subject: &str) -> Option<PartitionId> {
    let number = subject.strip_prefix("journal.")?.strip_suffix(".epoch")?;
    number.parse().ok().map(PartitionId)
}

/// The key of a living dispatcher.
pub fn member(replica: ReplicaId) -> String {
    format!("$KV.MEMBERS.{replica}")
}

/// The replica that a key is about.
pub fn replica_of_member(subject: &str) -> Option<ReplicaId> {
    subject.strip_prefix("$KV.MEMBERS.")?.parse().ok()
}

/// What the first call with an idempotency key brought.
pub fn idempotency(key: &[u8; 32]) -> String {
    format!("$KV.IDEMPOTENCY.{}", hex::encode(key))
}

/// When an API key was used last.
pub fn key_usage(key: KeyId) -> String {
    format!("$KV.KEY_USAGE.{key}")
}

/// Where the owner of a partition answers.
pub fn owner(partition: PartitionId) -> String {
    format!("owner.{partition}")
}

/// Names the snapshots that are kept of a partition.
pub fn snapshot_manifest(partition: PartitionId) -> String {
    format!("snapshots.{partition}.manifest")
}

/// The chunks of one snapshot, which are purged together.
pub fn snapshot_chunks(partition: PartitionId, write: SnapshotWriteId) -> String {
    format!("snapshots.{partition}.chunks.{write}")
}

pub fn snapshot_chunks_of_partition(partition: PartitionId) -> String {
    format!("snapshots.{partition}.chunks.*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_as_the_design_prints_them() {
        let project = ProjectId::from_bytes([1; 16]);
        let event_type = EventType::parse("hris_employees.created").unwrap();
        let subject = event(PartitionId(7), project, &event_type);
        assert_eq!(
            subject,
            "events.7.prj_01010101010101010101010101010101.hris_employees.created"
        );
        assert_eq!(partition_of_event(&subject), Some(PartitionId(7)));
        assert_eq!(journal_epoch(PartitionId(7)), "journal.7.epoch");
        assert_eq!(partition_of_epoch("journal.7.epoch"), Some(PartitionId(7)));
        assert_eq!(partition_of_epoch("journal.7"), None);
        let replica = ReplicaId::from_bytes([1; 16]);
        assert_eq!(replica_of_member(&member(replica)), Some(replica));
        assert_eq!(snapshot_manifest(PartitionId(7)), "snapshots.7.manifest");
        assert_eq!(
            snapshot_chunks(PartitionId(7), SnapshotWriteId(0xab)),
            "snapshots.7.chunks.00000000000000ab"
        );
    }

    #[test]
    fn registry_subjects_parse_back_and_others_do_not() {
        let project = ProjectId::from_bytes([1; 16]);
        let subject = registry(project, Aggregate::Webhook, "wh_1");
        assert_eq!(
            parse_registry(&subject),
            Some((project, Aggregate::Webhook, "wh_1"))
        );
        for other in [
            "registry",
            "registry.prj_1.webhook.x",
            &format!("{subject}.more"),
            &subject.replace("webhook", "hook"),
            &subject.replace("registry", "events"),
        ] {
            assert_eq!(parse_registry(other), None, "{other}");
        }
    }
}
