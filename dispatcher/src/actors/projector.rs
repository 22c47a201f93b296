//! Turns account entries of REGISTRY into `account.*` events (`protocol.md`, rule 27).
//!
//! Each event names the registry sequence that it tells of. A partition's cursor is the higher
//! of the journaled one and the last found in EVENTS, so that nothing is published twice and
//! nothing is left out, whenever a replica dies.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use shared::codec;
use shared::dialect::stackone::{self, Envelope};
use shared::domain::account::AccountDefinition;
use shared::domain::event::{DedupTuple, Event, EventType, Source};
use shared::domain::journal::JournalEntry;
use shared::domain::registry::{RegistryEntry, RegistryRecord};
use shared::ids::{AccountId, PartitionId, ProjectId, Sequence};
use shared::nats::read::{StoredMessage, last_matching};
use shared::nats::tail::Tail;
use shared::partition::lane_hash;
use shared::subjects;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::log::PartitionLog;
use super::shared_state::Replica;
use crate::io::events::publish;

const RETRY: Duration = Duration::from_millis(500);
/// How often cursors are said again; well below EVENTS' retention.
const RESTATE: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct Projector {
    replica: Rc<Replica>,
    targets: BTreeMap<PartitionId, Target>,
    /// Everything up to here was read for every target.
    read: Sequence,
    commands: mpsc::UnboundedReceiver<ProjectorCommand>,
}

/// Which partitions are projected into changes with their owner.
pub(crate) enum ProjectorCommand {
    Begin(Target),
    End(PartitionId),
}

/// A partition that events are projected into.
pub(crate) struct Target {
    log: Rc<PartitionLog>,
    /// Entries up to here are published.
    cursor: Sequence,
}

impl Target {
    pub(crate) fn new(log: Rc<PartitionLog>, cursor: Sequence) -> Self {
        Self { log, cursor }
    }

    /// Says again how far it got: JOURNAL and EVENTS forget by age, and a lost cursor would tell
    /// of every account anew.
    fn restate(&self) {
        if self.cursor > Sequence(0) {
            self.log.push(JournalEntry::AccountsProjected {
                registry_sequence: self.cursor,
            });
        }
    }
}

impl Projector {
    pub(crate) fn new(
        replica: Rc<Replica>,
        commands: mpsc::UnboundedReceiver<ProjectorCommand>,
    ) -> Self {
        Self {
            replica,
            targets: BTreeMap::new(),
            read: Sequence(0),
            commands,
        }
    }

    /// Projects until nobody can command it any more.
    pub(crate) async fn run(mut self) {
        let mut tail = self.tail();
        let mut restate = tokio::time::interval_at(Instant::now() + RESTATE, RESTATE);
        loop {
            tokio::select! {
                // Before the next entry, which may be for one that has just begun or ended.
                biased;
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    if self.obey(command).await {
                        tail = self.tail();
                    }
                }
                batch = tail.next() => {
                    for message in &batch.messages {
                        self.project(message).await;
                        self.read = self.read.max(message.sequence);
                    }
                }
                _ = restate.tick() => self.targets.values().for_each(Target::restate),
            }
        }
    }

    fn tail(&self) -> Tail {
        let registry = self.replica.nats.registry.clone();
        Tail::new(registry, subjects::registry_accounts(), self.read)
    }

    /// Obeys, and whatever else has been commanded by then; whether reading begins anew. Those
    /// that are taken at the same time are read for together.
    async fn obey(&mut self, command: ProjectorCommand) -> bool {
        let before = self.read;
        let mut next = Some(command);
        while let Some(command) = next {
            match command {
                ProjectorCommand::Begin(mut target) => {
                    let partition = target.log.partition;
                    let found = last_published(&self.replica, partition).await;
                    target.cursor = target.cursor.max(found);
                    target.restate();
                    self.read = self.read.min(target.cursor);
                    self.targets.insert(partition, target);
                }
                ProjectorCommand::End(partition) => {
                    self.targets.remove(&partition);
                }
            }
            next = self.commands.try_recv().ok();
        }
        self.read < before
    }

    async fn project(&mut self, message: &StoredMessage) {
        let Some((project, _, id)) = subjects::parse_registry(&message.subject) else {
            return;
        };
        let partition = self.replica.nats.partitions.of(project);
        let Some(target) = self.targets.get_mut(&partition) else {
            return;
        };
        if message.sequence <= target.cursor {
            return;
        }
        let (Ok(record), Ok(account)) = (codec::decode_record(&message.payload), id.parse()) else {
            // The view has logged it.
            return;
        };
        let now = self.replica.clock.now();
        if let Some(event) = account_event(project, account, message.sequence, &record, now) {
            publish(&self.replica.nats, partition, &event).await;
            self.replica.metrics.accounts_projected.increment(1);
        }
        target.cursor = message.sequence;
        target.restate();
    }
}

/// The registry sequence of the partition's last account event.
async fn last_published(replica: &Replica, partition: PartitionId) -> Sequence {
    let filter = subjects::account_events_of_partition(partition);
    loop {
        match last_matching(&replica.nats.events, &filter).await {
            Ok(last) => {
                return last
                    .and_then(|message| codec::decode_event(&message.payload).ok())
                    .and_then(|event| event.registry_sequence)
                    .unwrap_or_default();
            }
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "account events wait");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// `None` for entries that no event tells of.
fn account_event(
    project: ProjectId,
    account: AccountId,
    sequence: Sequence,
    record: &RegistryRecord,
    now: shared::time::Timestamp,
) -> Option<Event> {
    let (action, definition): (&str, &AccountDefinition) = match &record.entry {
        RegistryEntry::AccountCreated(definition) => ("created", definition),
        RegistryEntry::AccountUpdated(definition) => ("updated", definition),
        RegistryEntry::AccountDeleted(definition) => ("deleted", definition),
        RegistryEntry::ProjectCreated { .. }
        | RegistryEntry::ProjectDeleted
        | RegistryEntry::DataKeyCreated { .. }
        | RegistryEntry::ApiKeyCreated { .. }
        | RegistryEntry::ApiKeyRevoked
        | RegistryEntry::WebhookCreated { .. }
        | RegistryEntry::WebhookUpdated(_)
        | RegistryEntry::WebhookDeleted
        | RegistryEntry::SigningSecretAdded { .. }
        | RegistryEntry::SigningSecretDeleted { .. }
        | RegistryEntry::SigningSecretErased
        | RegistryEntry::DataKeyResealed { .. }
        | RegistryEntry::Erased
        | RegistryEntry::ProjectErased { .. }
        | RegistryEntry::WebhookVerified { .. }
        | RegistryEntry::WebhookStatusSet { .. } => return None,
    };
    let event_type = EventType::parse(&format!("account.{action}")).ok()?;
    let record_id = account.to_string();
    let id = DedupTuple {
        project,
        account: Some(account),
        connector: "account",
        identity: &sequence.to_string(),
        event_type: &event_type,
        record_id: &record_id,
        index: 0,
    }
    .event_id();
    let body = stackone::render(&Envelope {
        id,
        project,
        event_type: &event_type,
        occurred_at: record.at,
        sent_at: now,
        record_id: &record_id,
        account: Some((account, definition)),
        raw_event: None,
        event_data: None,
    });
    Some(Event {
        id,
        project,
        source: Source::Account,
        account: Some(account),
        provider: Some(definition.provider.as_str().into()),
        occurred_at: record.at,
        published_at: now,
        lane: lane_hash(Some(account), event_type.resource(), &record_id),
        registry_sequence: Some(sequence),
        body: Bytes::from(body),
        record_id: record_id.into(),
        event_type,
    })
}
